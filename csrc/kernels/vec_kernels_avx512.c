/* AVX-512: sixteen lanes. The fill function below lists what is better than the plain loops. */
#include "base/simd_avx512.h"
#include "kernels/vec_map_body.h"
#include "kernels/vec_plane_body.h"

static void lc_vec_relu_f32__avx512(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_RELU, y, x, n, lo, hi);
}

static void lc_vec_clamp_f32__avx512(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_CLAMP, y, x, n, lo, hi);
}

static void lc_vec_sqrt_f32__avx512(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_SQRT, y, x, n, lo, hi);
}

static void lc_vec_exp_f32__avx512(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_EXP, y, x, n, lo, hi);
}

static void lc_vec_sigmoid_f32__avx512(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_SIGMOID, y, x, n, lo, hi);
}

static void lc_vec_add_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_ADD, y, a, b, n, a_span, b_span);
}

static void lc_vec_add_relu_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                        lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_ADD_RELU, y, a, b, n, a_span, b_span);
}

static void lc_vec_sub_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_SUB, y, a, b, n, a_span, b_span);
}

static void lc_vec_mul_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MUL, y, a, b, n, a_span, b_span);
}

static void lc_vec_div_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_DIV, y, a, b, n, a_span, b_span);
}

static void lc_vec_max_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MAX, y, a, b, n, a_span, b_span);
}

static void lc_vec_min_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                   lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MIN, y, a, b, n, a_span, b_span);
}

static void lc_vec_mask_f32__avx512(float *y, const float *a, const float *b, int64_t n,
                                    lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MASK, y, a, b, n, a_span, b_span);
}

static void lc_vec_affine_f32__avx512(float *y, const float *x, const float *scale,
                                      const float *shift, int64_t n, lc_span span, int block,
                                      unsigned how)
{
    (void)block;
    affine(y, x, scale, shift, n, span, how);
}

static void lc_vec_combine_f32__avx512(float *y, const float *x, int64_t x_step, const float *a,
                                       int64_t a_step, int terms, int64_t n, lc_span span,
                                       int block)
{
    (void)block;
    combine(y, x, x_step, a, a_step, terms, n, span);
}

static void lc_vec_sum_f32__avx512(double *sum, const float *x, int64_t n, int block)
{
    if (block == 1)
        sum_run(sum, x, n);
    else
        sum_lanes(sum, x, n);
}

static void lc_vec_pool_max_f32__avx512(float *y, const float *x, int64_t n, const lc_vec_window *w,
                                        float floor, int block)
{
    if (block != 1) {
        pool_max(y, x, n, w, floor);
        return;
    }
    int64_t done = w->out_step <= 2 ? pool_plain(y, x, n, w, floor, true) : 0;
    if (done < n)
        lc_vec_pool_max_f32__scalar(y + done, x + done * w->out_step, n - done, w, floor, block);
}

static void lc_vec_pool_mean_f32__avx512(float *y, const float *x, int64_t n,
                                         const lc_vec_window *w, float divisor, int block)
{
    if (block != 1) {
        pool_mean(y, x, n, w, divisor);
        return;
    }
    int64_t done = w->out_step <= 2 ? pool_plain(y, x, n, w, divisor, false) : 0;
    if (done < n)
        lc_vec_pool_mean_f32__scalar(y + done, x + done * w->out_step, n - done, w, divisor, block);
}

void lc_vec_kernels_fill__avx512(lc_vec_kernels *t)
{
    t->relu = lc_vec_relu_f32__avx512;
    t->clamp = lc_vec_clamp_f32__avx512;
    t->sqrt = lc_vec_sqrt_f32__avx512;
    t->exp = lc_vec_exp_f32__avx512;
    t->sigmoid = lc_vec_sigmoid_f32__avx512;
    t->add = lc_vec_add_f32__avx512;
    t->add_relu = lc_vec_add_relu_f32__avx512;
    t->sub = lc_vec_sub_f32__avx512;
    t->mul = lc_vec_mul_f32__avx512;
    t->div = lc_vec_div_f32__avx512;
    t->max = lc_vec_max_f32__avx512;
    t->min = lc_vec_min_f32__avx512;
    t->mask = lc_vec_mask_f32__avx512;
    t->affine = lc_vec_affine_f32__avx512;
    t->combine = lc_vec_combine_f32__avx512;
    t->sum = lc_vec_sum_f32__avx512;
    t->pool_max = lc_vec_pool_max_f32__avx512;
    t->pool_mean = lc_vec_pool_mean_f32__avx512;
    t->to_block = lc_vec_to_block_f32__avx2;
    t->from_block = lc_vec_from_block_f32__avx2;
    t->pick = pick;
}
