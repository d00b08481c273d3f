/* AVX2 + FMA: eight lanes. The fill function below lists what is better than the plain loops. */
#include "base/simd_avx2.h"
#include "kernels/vec_map_body.h"
#include "kernels/vec_plane_body.h"

static void lc_vec_relu_f32__avx2(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_RELU, y, x, n, lo, hi);
}

static void lc_vec_clamp_f32__avx2(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_CLAMP, y, x, n, lo, hi);
}

static void lc_vec_sqrt_f32__avx2(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_SQRT, y, x, n, lo, hi);
}

static void lc_vec_exp_f32__avx2(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_EXP, y, x, n, lo, hi);
}

static void lc_vec_sigmoid_f32__avx2(float *y, const float *x, int64_t n, float lo, float hi)
{
    map(MAP_SIGMOID, y, x, n, lo, hi);
}

static void lc_vec_add_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_ADD, y, a, b, n, a_span, b_span);
}

static void lc_vec_add_relu_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                      lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_ADD_RELU, y, a, b, n, a_span, b_span);
}

static void lc_vec_sub_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_SUB, y, a, b, n, a_span, b_span);
}

static void lc_vec_mul_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MUL, y, a, b, n, a_span, b_span);
}

static void lc_vec_div_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_DIV, y, a, b, n, a_span, b_span);
}

static void lc_vec_max_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MAX, y, a, b, n, a_span, b_span);
}

static void lc_vec_min_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                 lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MIN, y, a, b, n, a_span, b_span);
}

static void lc_vec_mask_f32__avx2(float *y, const float *a, const float *b, int64_t n,
                                  lc_span a_span, lc_span b_span, int block)
{
    (void)block;
    pair(PAIR_MASK, y, a, b, n, a_span, b_span);
}

static void lc_vec_affine_f32__avx2(float *y, const float *x, const float *scale,
                                    const float *shift, int64_t n, lc_span span, int block,
                                    unsigned how)
{
    (void)block;
    affine(y, x, scale, shift, n, span, how);
}

static void lc_vec_combine_f32__avx2(float *y, const float *x, int64_t x_step, const float *a,
                                     int64_t a_step, int terms, int64_t n, lc_span span, int block)
{
    (void)block;
    combine(y, x, x_step, a, a_step, terms, n, span);
}

static void lc_vec_sum_f32__avx2(double *sum, const float *x, int64_t n, int block)
{
    if (block == 1)
        sum_run(sum, x, n);
    else
        sum_lanes(sum, x, n);
}

static void lc_vec_pool_max_f32__avx2(float *y, const float *x, int64_t n, const lc_vec_window *w,
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

static void lc_vec_pool_mean_f32__avx2(float *y, const float *x, int64_t n, const lc_vec_window *w,
                                       float divisor, int block)
{
    if (block != 1) {
        pool_mean(y, x, n, w, divisor);
        return;
    }
    int64_t done = w->out_step <= 2 ? pool_plain(y, x, n, w, divisor, false) : 0;
    if (done < n)
        lc_vec_pool_mean_f32__scalar(y + done, x + done * w->out_step, n - done, w, divisor, block);
}

/* ---- plain memory and blocks: 8x8 transposes, for blocks of any multiple of eight ---- */

static inline void transpose8(__m256 r[8])
{
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            u[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0x44);
            u[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

/* Eight lanes of a block: y[pixel * block] from `valid` <= 8 planes (zeros from there on). */
static inline void to_eight(float *y, const float *x, int64_t x_step, int valid, int64_t pixels,
                            int block)
{
    __m256 r[8];
    for (int64_t i = 0; i < pixels; i += 8, x += 8, y += 8 * block) {
        int n = pixels - i < 8 ? (int)(pixels - i) : 8;
        lc_vm m = lc_v_first(n);
        for (int l = 0; l < 8; l++)
            r[l] = l < valid ? lc_v_maskload(x + l * x_step, m) : lc_v_zero();
        transpose8(r);
        for (int k = 0; k < n; k++)
            lc_v_storeu(y + k * block, r[k]);
    }
}

void lc_vec_to_block_f32__avx2(float *y, const float *x, int64_t x_step, int valid, int64_t pixels,
                               int block)
{
    for (int l = 0; l < block; l += 8) {
        int lanes = valid - l < 0 ? 0 : valid - l > 8 ? 8 : valid - l;
        if (lanes == 8)
            to_eight(y + l, x + l * x_step, x_step, 8, pixels, block);
        else
            to_eight(y + l, lanes ? x + l * x_step : x, x_step, lanes, pixels, block);
    }
}

static inline void from_eight(float *y, int64_t y_step, const float *x, int valid, int64_t pixels,
                              int block)
{
    __m256 r[8];
    for (int64_t i = 0; i < pixels; i += 8, y += 8, x += 8 * block) {
        int n = pixels - i < 8 ? (int)(pixels - i) : 8;
        lc_vm m = lc_v_first(n);
        for (int k = 0; k < 8; k++)
            r[k] = k < n ? lc_v_loadu(x + k * block) : lc_v_zero();
        transpose8(r);
        for (int l = 0; l < valid; l++)
            if (n == 8) /* masked stores are slow on AMD processors */
                lc_v_storeu(y + l * y_step, r[l]);
            else
                lc_v_maskstore(y + l * y_step, m, r[l]);
    }
}

void lc_vec_from_block_f32__avx2(float *y, int64_t y_step, const float *x, int valid,
                                 int64_t pixels, int block)
{
    for (int l = 0; l < valid; l += 8) {
        if (valid - l >= 8)
            from_eight(y + l * y_step, y_step, x + l, 8, pixels, block);
        else
            from_eight(y + l * y_step, y_step, x + l, valid - l, pixels, block);
    }
}

void lc_vec_kernels_fill__avx2(lc_vec_kernels *t)
{
    t->relu = lc_vec_relu_f32__avx2;
    t->clamp = lc_vec_clamp_f32__avx2;
    t->sqrt = lc_vec_sqrt_f32__avx2;
    t->exp = lc_vec_exp_f32__avx2;
    t->sigmoid = lc_vec_sigmoid_f32__avx2;
    t->add = lc_vec_add_f32__avx2;
    t->add_relu = lc_vec_add_relu_f32__avx2;
    t->sub = lc_vec_sub_f32__avx2;
    t->mul = lc_vec_mul_f32__avx2;
    t->div = lc_vec_div_f32__avx2;
    t->max = lc_vec_max_f32__avx2;
    t->min = lc_vec_min_f32__avx2;
    t->mask = lc_vec_mask_f32__avx2;
    t->affine = lc_vec_affine_f32__avx2;
    t->combine = lc_vec_combine_f32__avx2;
    t->sum = lc_vec_sum_f32__avx2;
    t->pool_max = lc_vec_pool_max_f32__avx2;
    t->pool_mean = lc_vec_pool_mean_f32__avx2;
    t->to_block = lc_vec_to_block_f32__avx2;
    t->from_block = lc_vec_from_block_f32__avx2;
    t->pick = pick;
}
