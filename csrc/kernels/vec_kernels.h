/* Inner loops over vectors and planes: elementwise functions, pooling windows, sums, changes of
 * layout.
 *
 * Pointers need the alignment of float only (but see LC_AFFINE_STREAM). Nothing outside the stated
 * elements is read or written. An output may be an input's memory (same place) in map, binary, affine
 * and combine. Every result is the same bits wherever in the vector it falls.
 *
 * `block` is 1 (plain memory) or the block of the table; "lanes" are the `block` channels of a
 * pixel. */
#ifndef LC_KERNELS_VEC_KERNELS_H
#define LC_KERNELS_VEC_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/block.h"

/* How an operand goes along n elements: its own value for each; one value for all; `block`
 * values over and over (n is a multiple of block then). */
typedef enum lc_span { LC_SPAN_ALL, LC_SPAN_ONE, LC_SPAN_LANES } lc_span;

/* y[i] = f(x[i]), i < n. NaN gives NaN. clamp: to [lo, hi]. scale_shift: x * lo + hi. sign: -1, 0 or 1.
 * inside: 1 where lo <= x <= hi, else (NaN too) 0. */
typedef void lc_vec_map_fn(float *y, const float *x, int64_t n, float lo, float hi);

/* y[i] = f(a[i], b[i]), i < n. At least one of a and b is LC_SPAN_ALL. max and min: NaN if
 * either is. mask: a where b > 0, else (NaN too) 0. */
typedef void lc_vec_binary_fn(float *y, const float *a, const float *b, int64_t n, lc_span a_span,
                              lc_span b_span, int block);

/* y[i] = x[i] * scale + shift, then as `how` says; scale and shift as `span` says (ONE or LANES).
 * STREAM: y, which begins with a multiple of the vector (64 bytes do), is written past the caches:
 * a third less to move where they could not keep it. */
enum { LC_AFFINE_RELU = 1, LC_AFFINE_STREAM = 2 };
typedef void lc_vec_affine_fn(float *y, const float *x, const float *scale, const float *shift,
                              int64_t n, lc_span span, int block, unsigned how);

/* sum[lane] += the sum of x[i] with i % block == lane, i < n (a multiple of block). In parts of
 * fixed length, whose sums are added in double. */
typedef void lc_vec_sum_fn(double *sum, const float *x, int64_t n, int block);

/* The windows of neighbouring outputs, after clipping at the borders. Steps are in floats. */
typedef struct lc_vec_window {
    int64_t rows, cols;         /* of a window */
    int64_t row_step, col_step; /* from one row or column of it to the next */
    int64_t out_step;           /* from one window to the next */
} lc_vec_window;

/* n outputs of `block` lanes. max: the largest of the window and c; of equals the first (0.0 and
 * -0.0); NaN if any is. mean: the sum of the window, rows first, divided by c. */
typedef void lc_vec_pool_fn(float *y, const float *x, int64_t n, const lc_vec_window *w, float c,
                            int block);

/* y[i] = sum over r < terms of x[r * x_step + i] * a[r * a_step + ...], i < n; a as `span` says
 * (ONE or LANES). y is no part of x unless terms == 1. */
typedef void lc_vec_combine_fn(float *y, const float *x, int64_t x_step, const float *a,
                               int64_t a_step, int terms, int64_t n, lc_span span, int block);

/* x: `valid` planes of `pixels` floats, x_step apart  ->  y[pixels][block]; lanes from valid on
 * are zeroed. */
typedef void lc_vec_to_block_fn(float *y, const float *x, int64_t x_step, int valid, int64_t pixels,
                                int block);
/* The reverse: x[pixels][block] -> `valid` planes, y_step apart. */
typedef void lc_vec_from_block_fn(float *y, int64_t y_step, const float *x, int valid,
                                  int64_t pixels, int block);

/* Lanes of a block that come from lanes of other blocks: from lane lane[l] of x[source[l]]; source
 * -1: zero. */
typedef struct lc_vec_pick {
    const float *x[LC_MAX_BLOCK];
    int sources; /* how many x there are */
    int32_t source[LC_MAX_BLOCK], lane[LC_MAX_BLOCK];
} lc_vec_pick;
/* y[i * block + l] = x[source[l]][i * block + lane[l]], i < pixels; block > 1. */
typedef void lc_vec_pick_fn(float *y, const lc_vec_pick *p, int64_t pixels, int block);

typedef struct lc_vec_kernels {
    lc_vec_map_fn *relu, *clamp, *neg, *abs, *sqrt, *exp, *log, *sigmoid, *tanh, *scale_shift,
        *sign, *inside;
    lc_vec_binary_fn *add, *add_relu, *sub, *mul, *div, *max, *min, *pow, *mask;
    lc_vec_affine_fn *affine;
    lc_vec_sum_fn *sum;
    lc_vec_pool_fn *pool_max, *pool_mean;
    lc_vec_combine_fn *combine;
    lc_vec_to_block_fn *to_block;
    lc_vec_from_block_fn *from_block;
    lc_vec_pick_fn *pick;
} lc_vec_kernels;

/* scalar fills the whole table, for any block; the others overwrite what they improve, for
 * blocks of 8 and of 16. */
void lc_vec_kernels_fill__scalar(lc_vec_kernels *t);
void lc_vec_kernels_fill__avx2(lc_vec_kernels *t);
void lc_vec_kernels_fill__avx512(lc_vec_kernels *t);

/* Variants that other ISAs' tables use as well. */
lc_vec_sum_fn lc_vec_sum_f32__scalar;
lc_vec_pool_fn lc_vec_pool_max_f32__scalar, lc_vec_pool_mean_f32__scalar;
lc_vec_to_block_fn lc_vec_to_block_f32__avx2;
lc_vec_from_block_fn lc_vec_from_block_f32__avx2;

#endif
