/* Inner loops that only training needs: batch statistics, gradients of batch norm, sums of
 * products, gradients of pooling.
 *
 * What vec_kernels.h says of pointers, blocks and lanes holds here too. A number per lane: one
 * number for a block of 1. */
#ifndef LC_KERNELS_GRAD_KERNELS_H
#define LC_KERNELS_GRAD_KERNELS_H

#include "kernels/vec_kernels.h"

/* mean[lane], m2[lane] = the mean of x[i] with i % block == lane, i < n, and the sum of squares of
 * differences from it. n is a positive multiple of block. Differences are taken from the means of
 * fixed parts, so that no digits cancel. */
typedef void lc_grad_moments_fn(double *mean, double *m2, const float *x, int64_t n, int block);

/* y[i] = x[i] * scale + shift + r[i], i < n, then as `how` says (lc_vec_affine_fn). y may be x or r. */
typedef void lc_grad_affine_add_fn(float *y, const float *x, const float *scale, const float *shift,
                                   const float *r, int64_t n, int block, unsigned how);

/* What the gradient of a norm is made from, along n elements. Of y and scale at most one is given:
 * dy is taken as 0 unless y > 0, or unless x * scale + shift > 0. */
typedef struct lc_grad_norm {
    const float *dy, *x;
    const float *y;             /* the norm's output after ReLU, or NULL */
    const float *scale, *shift; /* per lane, or NULL */
    const float *mean;          /* per lane */
    float *masked;              /* sums: where dy goes once masked, or NULL; may be dy */
    float *dx;                  /* apply; may be dy or x */
    const float *a, *b, *c;     /* apply, per lane */
    bool stream; /* apply, blocks: dx goes past the caches; it is aligned to them and new memory */
} lc_grad_norm;

/* sum[lane] += the sum of dy, sum[block + lane] += the sum of dy * (x - mean). In parts of fixed
 * length, whose sums are added in double. */
typedef void lc_grad_norm_sums_fn(double *sum, const lc_grad_norm *g, int64_t n, int block);
/* dx = dy * a + (x - mean) * b + c */
typedef void lc_grad_norm_apply_fn(const lc_grad_norm *g, int64_t n, int block);

/* sum[lane] += the sum of a[i] * b[i] with i % block == lane, i < n; parts as above. */
typedef void lc_grad_dot_fn(double *sum, const float *a, const float *b, int64_t n, int block);

/* dx += the gradient of n windows (as in lc_vec_pool_fn), one after the other. max: dy goes to the
 * first largest element of the window, or the last NaN; mean: dy / c goes to every element. dx is
 * laid out as x. */
typedef void lc_grad_pool_max_fn(float *dx, const float *x, const float *dy, int64_t n,
                                 const lc_vec_window *w, int block);
typedef void lc_grad_pool_mean_fn(float *dx, const float *dy, int64_t n, const lc_vec_window *w,
                                  float c, int block);

typedef struct lc_grad_kernels {
    lc_grad_moments_fn *moments;
    lc_grad_affine_add_fn *affine_add;
    lc_grad_norm_sums_fn *norm_sums;
    lc_grad_norm_apply_fn *norm_apply;
    lc_grad_dot_fn *dot;
    lc_grad_pool_max_fn *pool_max;
    lc_grad_pool_mean_fn *pool_mean;
} lc_grad_kernels;

/* scalar fills the whole table, for any block; the others overwrite what they improve, for
 * blocks of 8 and of 16. */
void lc_grad_kernels_fill__scalar(lc_grad_kernels *t);
void lc_grad_kernels_fill__avx2(lc_grad_kernels *t);
void lc_grad_kernels_fill__avx512(lc_grad_kernels *t);

/* Variants that other ISAs' tables use as well. */
lc_grad_pool_max_fn lc_grad_pool_max_f32__scalar;
lc_grad_pool_mean_fn lc_grad_pool_mean_f32__scalar;

#endif
