/* The plain loops: every slot of the table, any block. */
#include <math.h>

#include "kernels/vec_kernels.h"

/* ---- one input ---- */

/* Comparisons are written so that NaN and -0.0 come out as they went in, as in the vector
 * variants. */
static void relu(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

static void clamp(float *y, const float *x, int64_t n, float lo, float hi)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] < lo ? lo : x[i];
        y[i] = v > hi ? hi : v;
    }
}

static void neg(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = -x[i];
}

static void absolute(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = fabsf(x[i]);
}

static void square_root(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = sqrtf(x[i]);
}

static void exponential(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = expf(x[i]);
}

static void logarithm(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = logf(x[i]);
}

static void sigmoid(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = 1.0f / (1.0f + expf(-x[i]));
}

static void hyperbolic_tangent(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = tanhf(x[i]);
}

static void scale_shift(float *y, const float *x, int64_t n, float lo, float hi)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * lo + hi;
}

static void sign(float *y, const float *x, int64_t n, float lo, float hi)
{
    (void)lo, (void)hi;
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] > 0.0f ? 1.0f : x[i] < 0.0f ? -1.0f : x[i] * 0.0f;
}

static void inside(float *y, const float *x, int64_t n, float lo, float hi)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] >= lo && x[i] <= hi ? 1.0f : 0.0f;
}

/* ---- two inputs ---- */

typedef enum kind { ADD, ADD_RELU, SUB, MUL, DIV, MAX, MIN, POW, MASK } kind;

static inline float apply(kind f, float a, float b)
{
    switch (f) {
    case ADD:
        return a + b;
    case ADD_RELU:
        return a + b < 0.0f ? 0.0f : a + b;
    case SUB:
        return a - b;
    case MUL:
        return a * b;
    case DIV:
        return a / b;
    case MAX:
        return a > b || a != a ? a : b;
    case MIN:
        return a < b || a != a ? a : b;
    case MASK:
        return b > 0.0f ? a : 0.0f;
    default:
        return powf(a, b);
    }
}

static inline __attribute__((always_inline)) void binary(kind f, float *y, const float *a,
                                                         const float *b, int64_t n, lc_span a_span,
                                                         lc_span b_span, int block)
{
    if (a_span == LC_SPAN_ALL && b_span == LC_SPAN_ALL) {
        for (int64_t i = 0; i < n; i++)
            y[i] = apply(f, a[i], b[i]);
    } else if (b_span == LC_SPAN_ONE) {
        float v = b[0];
        for (int64_t i = 0; i < n; i++)
            y[i] = apply(f, a[i], v);
    } else if (a_span == LC_SPAN_ONE) {
        float v = a[0];
        for (int64_t i = 0; i < n; i++)
            y[i] = apply(f, v, b[i]);
    } else {
        int64_t a_go = a_span == LC_SPAN_ALL ? block : 0, b_go = b_span == LC_SPAN_ALL ? block : 0;
        for (int64_t i = 0; i < n; i += block, a += a_go, b += b_go)
            for (int l = 0; l < block; l++)
                y[i + l] = apply(f, a[l], b[l]);
    }
}

static void add(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                int block)
{
    binary(ADD, y, a, b, n, as, bs, block);
}

static void add_relu(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                     int block)
{
    binary(ADD_RELU, y, a, b, n, as, bs, block);
}

static void sub(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                int block)
{
    binary(SUB, y, a, b, n, as, bs, block);
}

static void mul(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                int block)
{
    binary(MUL, y, a, b, n, as, bs, block);
}

static void divide(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                   int block)
{
    binary(DIV, y, a, b, n, as, bs, block);
}

static void maximum(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                    int block)
{
    binary(MAX, y, a, b, n, as, bs, block);
}

static void minimum(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                    int block)
{
    binary(MIN, y, a, b, n, as, bs, block);
}

static void power(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                  int block)
{
    binary(POW, y, a, b, n, as, bs, block);
}

static void mask(float *y, const float *a, const float *b, int64_t n, lc_span as, lc_span bs,
                 int block)
{
    binary(MASK, y, a, b, n, as, bs, block);
}

/* ---- scale and shift ---- */

static void affine(float *y, const float *x, const float *scale, const float *shift, int64_t n,
                   lc_span span, int block, unsigned how)
{
    if (span == LC_SPAN_ONE) {
        float s = scale[0], t = shift[0];
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * s + t;
    } else {
        for (int64_t i = 0; i < n; i += block)
            for (int l = 0; l < block; l++)
                y[i + l] = x[i + l] * scale[l] + shift[l];
    }
    if (how & LC_AFFINE_RELU)
        relu(y, y, n, 0.0f, 0.0f);
}

/* ---- sums ---- */

#define RUN_LANES 8

/* Plain memory: element i of a run goes to partial sum i % RUN_LANES. */
static void sum_run(double *sum, const float *x, int64_t n)
{
    double part[RUN_LANES] = {0.0};
    int64_t i = 0;
    for (; i + RUN_LANES <= n; i += RUN_LANES)
        for (int l = 0; l < RUN_LANES; l++)
            part[l] += (double)x[i + l];
    for (int l = 0; i < n; i++, l++)
        part[l] += (double)x[i];
    for (int l = 0; l < RUN_LANES; l++)
        *sum += part[l];
}

void lc_vec_sum_f32__scalar(double *sum, const float *x, int64_t n, int block)
{
    if (block == 1) {
        sum_run(sum, x, n);
        return;
    }
    for (int64_t i = 0; i < n; i += block)
        for (int l = 0; l < block; l++)
            sum[l] += (double)x[i + l];
}

/* ---- pooling ---- */

static inline float larger(float best, float v)
{
    return v > best || v != v ? v
                              : best; /* a NaN that is the best already compares false and stays */
}

static void pool_max_plain(float *y, const float *x, int64_t n, const lc_vec_window *w, float floor)
{
    for (int64_t i = 0; i < n; i++, x += w->out_step) {
        float best = floor;
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t c = 0; c < w->cols; c++)
                best = larger(best, x[r * w->row_step + c * w->col_step]);
        y[i] = best;
    }
}

void lc_vec_pool_max_f32__scalar(float *y, const float *x, int64_t n, const lc_vec_window *w,
                                 float floor, int block)
{
    if (block == 1) {
        pool_max_plain(y, x, n, w, floor);
        return;
    }
    for (int64_t i = 0; i < n; i++, x += w->out_step, y += block) {
        float best[LC_MAX_BLOCK];
        for (int l = 0; l < block; l++)
            best[l] = floor;
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t c = 0; c < w->cols; c++) {
                const float *p = x + r * w->row_step + c * w->col_step;
                for (int l = 0; l < block; l++)
                    best[l] = larger(best[l], p[l]);
            }
        for (int l = 0; l < block; l++)
            y[l] = best[l];
    }
}

static void pool_mean_plain(float *y, const float *x, int64_t n, const lc_vec_window *w,
                            float divisor)
{
    for (int64_t i = 0; i < n; i++, x += w->out_step) {
        float total = 0.0f;
        for (int64_t r = 0; r < w->rows; r++) {
            float row = x[r * w->row_step];
            for (int64_t c = 1; c < w->cols; c++)
                row += x[r * w->row_step + c * w->col_step];
            total += row;
        }
        y[i] = total / divisor;
    }
}

void lc_vec_pool_mean_f32__scalar(float *y, const float *x, int64_t n, const lc_vec_window *w,
                                  float divisor, int block)
{
    if (block == 1) {
        pool_mean_plain(y, x, n, w, divisor);
        return;
    }
    for (int64_t i = 0; i < n; i++, x += w->out_step, y += block) {
        float total[LC_MAX_BLOCK] = {0.0f}, row[LC_MAX_BLOCK];
        for (int64_t r = 0; r < w->rows; r++) {
            const float *p = x + r * w->row_step;
            for (int l = 0; l < block; l++)
                row[l] = p[l];
            for (int64_t c = 1; c < w->cols; c++)
                for (int l = 0; l < block; l++)
                    row[l] += p[c * w->col_step + l];
            for (int l = 0; l < block; l++)
                total[l] += row[l];
        }
        for (int l = 0; l < block; l++)
            y[l] = total[l] / divisor;
    }
}

/* ---- weighted sum of slices ---- */

static void combine(float *y, const float *x, int64_t x_step, const float *a, int64_t a_step,
                    int terms, int64_t n, lc_span span, int block)
{
    int lanes = span == LC_SPAN_LANES ? block : 1;
    for (int64_t i = 0; i < n; i += lanes)
        for (int l = 0; l < lanes; l++) {
            float total = x[i + l] * a[l];
            for (int r = 1; r < terms; r++)
                total += x[r * x_step + i + l] * a[r * a_step + l];
            y[i + l] = total;
        }
}

/* ---- plain memory and blocks ---- */

static void to_block(float *y, const float *x, int64_t x_step, int valid, int64_t pixels, int block)
{
    for (int64_t i = 0; i < pixels; i++, y += block) {
        for (int l = 0; l < valid; l++)
            y[l] = x[l * x_step + i];
        for (int l = valid; l < block; l++)
            y[l] = 0.0f;
    }
}

static void from_block(float *y, int64_t y_step, const float *x, int valid, int64_t pixels,
                       int block)
{
    for (int l = 0; l < valid; l++)
        for (int64_t i = 0; i < pixels; i++)
            y[l * y_step + i] = x[i * block + l];
}

static void pick(float *y, const lc_vec_pick *p, int64_t pixels, int block)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int l = 0; l < block; l++)
            y[i * block + l] = p->source[l] < 0 ? 0.0f : p->x[p->source[l]][i * block + p->lane[l]];
}

void lc_vec_kernels_fill__scalar(lc_vec_kernels *t)
{
    *t = (lc_vec_kernels){
        .relu = relu,
        .clamp = clamp,
        .neg = neg,
        .abs = absolute,
        .sqrt = square_root,
        .exp = exponential,
        .log = logarithm,
        .sigmoid = sigmoid,
        .tanh = hyperbolic_tangent,
        .scale_shift = scale_shift,
        .sign = sign,
        .inside = inside,
        .add = add,
        .add_relu = add_relu,
        .sub = sub,
        .mul = mul,
        .div = divide,
        .max = maximum,
        .min = minimum,
        .pow = power,
        .mask = mask,
        .affine = affine,
        .sum = lc_vec_sum_f32__scalar,
        .pool_max = lc_vec_pool_max_f32__scalar,
        .pool_mean = lc_vec_pool_mean_f32__scalar,
        .combine = combine,
        .to_block = to_block,
        .from_block = from_block,
        .pick = pick,
    };
}
