/* Elementwise loops, written once for vectors of LC_VLEN floats; included by vec_kernels_<isa>.c
 * after base/simd_<isa>.h.
 *
 * Tails go through masked loads and stores, so that every element has the same roundings
 * wherever it falls. `block` is LC_VLEN wherever a span is LANES. */
#ifndef LC_KERNELS_VEC_MAP_BODY_H
#define LC_KERNELS_VEC_MAP_BODY_H

#include "kernels/vec_kernels.h"

#define LC_INLINE static inline __attribute__((always_inline))

/* ---- one input ---- */

typedef enum map_kind { MAP_RELU, MAP_CLAMP, MAP_SQRT, MAP_EXP, MAP_SIGMOID } map_kind;

LC_INLINE lc_v map_one(map_kind f, lc_v x, lc_v lo, lc_v hi)
{
    switch (f) {
    case MAP_RELU:
        return lc_v_relu(x);
    case MAP_CLAMP:
        return lc_v_min(hi, lc_v_max(lo, x)); /* NaN stays: it is the second operand */
    case MAP_SQRT:
        return lc_v_sqrt(x);
    case MAP_EXP:
        return lc_v_exp(x);
    default:
        return lc_v_sigmoid(x);
    }
}

LC_INLINE void map(map_kind f, float *y, const float *x, int64_t n, float lo, float hi)
{
    lc_v vlo = lc_v_set1(lo), vhi = lc_v_set1(hi);
    int64_t i = 0;
    for (; i + LC_VLEN <= n; i += LC_VLEN)
        lc_v_storeu(y + i, map_one(f, lc_v_loadu(x + i), vlo, vhi));
    if (i < n) {
        lc_vm m = lc_v_first((int)(n - i));
        lc_v_maskstore(y + i, m, map_one(f, lc_v_maskload(x + i, m), vlo, vhi));
    }
}

/* ---- two inputs ---- */

typedef enum pair_kind {
    PAIR_ADD,
    PAIR_ADD_RELU,
    PAIR_SUB,
    PAIR_MUL,
    PAIR_DIV,
    PAIR_MAX,
    PAIR_MIN,
    PAIR_MASK
} pair_kind;

LC_INLINE lc_v flip_sign(lc_v a)
{
    return lc_v_sub(lc_v_set1(-0.0f), a); /* exact, zeros included */
}

LC_INLINE lc_v pair_one(pair_kind f, lc_v a, lc_v b)
{
    switch (f) {
    case PAIR_ADD:
        return lc_v_add(a, b);
    case PAIR_ADD_RELU:
        return lc_v_relu(lc_v_add(a, b));
    case PAIR_SUB:
        return lc_v_sub(a, b);
    case PAIR_MUL:
        return lc_v_mul(a, b);
    case PAIR_DIV:
        return lc_v_div(a, b);
    case PAIR_MAX:
        return lc_v_max_nan(a, b);
    case PAIR_MASK:
        return lc_v_select(lc_v_gt(b, lc_v_zero()), a, lc_v_zero());
    default:
        return flip_sign(lc_v_max_nan(flip_sign(a), flip_sign(b)));
    }
}

LC_INLINE void pair_loop(pair_kind f, float *y, const float *a, const float *b, int64_t n,
                         bool a_all, bool b_all, lc_v a_same, lc_v b_same)
{
    int64_t i = 0;
    for (; i + LC_VLEN <= n; i += LC_VLEN)
        lc_v_storeu(y + i, pair_one(f, a_all ? lc_v_loadu(a + i) : a_same,
                                    b_all ? lc_v_loadu(b + i) : b_same));
    if (i < n) {
        lc_vm m = lc_v_first((int)(n - i));
        lc_v_maskstore(y + i, m,
                       pair_one(f, a_all ? lc_v_maskload(a + i, m) : a_same,
                                b_all ? lc_v_maskload(b + i, m) : b_same));
    }
}

LC_INLINE void pair(pair_kind f, float *y, const float *a, const float *b, int64_t n,
                    lc_span a_span, lc_span b_span)
{
    lc_v none = lc_v_zero();
    if (a_span == LC_SPAN_ALL && b_span == LC_SPAN_ALL)
        pair_loop(f, y, a, b, n, true, true, none, none);
    else if (a_span == LC_SPAN_ALL)
        pair_loop(f, y, a, b, n, true, false, none,
                  b_span == LC_SPAN_ONE ? lc_v_broadcast(b) : lc_v_loadu(b));
    else
        pair_loop(f, y, a, b, n, false, true,
                  a_span == LC_SPAN_ONE ? lc_v_broadcast(a) : lc_v_loadu(a), none);
}

/* ---- scale and shift ---- */

/* r: what is added, or NULL. */
LC_INLINE void affine_loop(float *y, const float *x, lc_v scale, lc_v shift, const float *r,
                           int64_t n, bool relu, bool stream)
{
    int64_t i = 0;
    for (; i + LC_VLEN <= n; i += LC_VLEN) {
        lc_v v = lc_v_fma(lc_v_loadu(x + i), scale, shift);
        v = r ? lc_v_add(v, lc_v_loadu(r + i)) : v;
        v = relu ? lc_v_relu(v) : v;
        if (stream)
            lc_v_stream(y + i, v);
        else
            lc_v_storeu(y + i, v);
    }
    if (stream)
        lc_v_stream_end();
    if (i < n) {
        lc_vm m = lc_v_first((int)(n - i));
        lc_v v = lc_v_fma(lc_v_maskload(x + i, m), scale, shift);
        v = r ? lc_v_add(v, lc_v_maskload(r + i, m)) : v;
        lc_v_maskstore(y + i, m, relu ? lc_v_relu(v) : v);
    }
}

LC_INLINE void affine_add(float *y, const float *x, lc_v scale, lc_v shift, const float *r,
                          int64_t n, unsigned how)
{
    switch (how) {
    case LC_AFFINE_RELU | LC_AFFINE_STREAM:
        affine_loop(y, x, scale, shift, r, n, true, true);
        break;
    case LC_AFFINE_STREAM:
        affine_loop(y, x, scale, shift, r, n, false, true);
        break;
    case LC_AFFINE_RELU:
        affine_loop(y, x, scale, shift, r, n, true, false);
        break;
    default:
        affine_loop(y, x, scale, shift, r, n, false, false);
    }
}

LC_INLINE void affine(float *y, const float *x, const float *scale, const float *shift, int64_t n,
                      lc_span span, unsigned how)
{
    lc_v s = span == LC_SPAN_ONE ? lc_v_broadcast(scale) : lc_v_loadu(scale);
    lc_v t = span == LC_SPAN_ONE ? lc_v_broadcast(shift) : lc_v_loadu(shift);
    affine_add(y, x, s, t, NULL, n, how);
}

/* ---- weighted sum of slices ---- */

LC_INLINE lc_v weight(const float *a, lc_span span)
{
    return span == LC_SPAN_ONE ? lc_v_broadcast(a) : lc_v_loadu(a);
}

/* Two slices are the usual case: their weights stay in registers. */
LC_INLINE void combine_two(float *y, const float *x, const float *z, lc_v a, lc_v b, int64_t n)
{
    int64_t i = 0;
    for (; i + LC_VLEN <= n; i += LC_VLEN)
        lc_v_storeu(y + i, lc_v_fma(lc_v_loadu(z + i), b, lc_v_mul(lc_v_loadu(x + i), a)));
    if (i < n) {
        lc_vm m = lc_v_first((int)(n - i));
        lc_v_maskstore(y + i, m,
                       lc_v_fma(lc_v_maskload(z + i, m), b, lc_v_mul(lc_v_maskload(x + i, m), a)));
    }
}

LC_INLINE void combine(float *y, const float *x, int64_t x_step, const float *a, int64_t a_step,
                       int terms, int64_t n, lc_span span)
{
    if (terms == 2) {
        combine_two(y, x, x + x_step, weight(a, span), weight(a + a_step, span), n);
        return;
    }
    for (int64_t i = 0; i < n; i += LC_VLEN) {
        lc_vm m = lc_v_first(n - i < LC_VLEN ? (int)(n - i) : LC_VLEN);
        lc_v total = lc_v_mul(lc_v_maskload(x + i, m), weight(a, span));
        for (int r = 1; r < terms; r++)
            total =
                lc_v_fma(lc_v_maskload(x + r * x_step + i, m), weight(a + r * a_step, span), total);
        lc_v_maskstore(y + i, m, total);
    }
}

#endif
