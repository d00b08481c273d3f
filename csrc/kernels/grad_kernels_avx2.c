/* AVX2 + FMA: eight lanes. The fill function below lists what is better than the plain loops. */
#include "base/simd_avx2.h"
#include "kernels/grad_kernels_body.h"

static void lc_grad_moments_f32__avx2(double *mean, double *m2, const float *x, int64_t n,
                                      int block)
{
    if (block == 1)
        moments_run(mean, m2, x, n);
    else
        moments_lanes(mean, m2, x, n);
}

static void lc_grad_affine_add_f32__avx2(float *y, const float *x, const float *scale,
                                         const float *shift, const float *r, int64_t n, int block,
                                         unsigned how)
{
    affine_add(y, x, lane_numbers(scale, block), lane_numbers(shift, block), r, n, how);
}

static void lc_grad_norm_sums_f32__avx2(double *sum, const lc_grad_norm *g, int64_t n, int block)
{
    norm_sums(sum, g, n, block);
}

static void lc_grad_norm_apply_f32__avx2(const lc_grad_norm *g, int64_t n, int block)
{
    norm_apply(g, n, block);
}

static void lc_grad_dot_f32__avx2(double *sum, const float *a, const float *b, int64_t n, int block)
{
    dot_loop(sum, a, b, n, block);
}

static void lc_grad_pool_max_f32__avx2(float *dx, const float *x, const float *dy, int64_t n,
                                       const lc_vec_window *w, int block)
{
    if (block == 1 || w->rows > POOL_MOST / w->cols)
        lc_grad_pool_max_f32__scalar(dx, x, dy, n, w, block);
    else
        pool_max_back(dx, x, dy, n, w);
}

static void lc_grad_pool_mean_f32__avx2(float *dx, const float *dy, int64_t n,
                                        const lc_vec_window *w, float c, int block)
{
    if (block == 1)
        lc_grad_pool_mean_f32__scalar(dx, dy, n, w, c, block);
    else
        pool_mean_back(dx, dy, n, w, c);
}

void lc_grad_kernels_fill__avx2(lc_grad_kernels *t)
{
    t->moments = lc_grad_moments_f32__avx2;
    t->affine_add = lc_grad_affine_add_f32__avx2;
    t->norm_sums = lc_grad_norm_sums_f32__avx2;
    t->norm_apply = lc_grad_norm_apply_f32__avx2;
    t->dot = lc_grad_dot_f32__avx2;
    t->pool_max = lc_grad_pool_max_f32__avx2;
    t->pool_mean = lc_grad_pool_mean_f32__avx2;
}
