/* Optimizers' loops, written once for vectors of LC_VLEN floats; included by train_<isa>.c after
 * base/simd_<isa>.h. The same roundings in the same order as train_scalar.c. */
#ifndef LC_KERNELS_TRAIN_BODY_H
#define LC_KERNELS_TRAIN_BODY_H

#include "kernels/train_kernels.h"
#include "kernels/train_squares.h"

#define LC_INLINE static inline __attribute__((always_inline))

/* A whole vector, or the lanes of the mask. */
LC_INLINE lc_v get(const float *x, bool whole, lc_vm m)
{
    return whole ? lc_v_loadu(x) : lc_v_maskload(x, m);
}

LC_INLINE void put(float *x, bool whole, lc_vm m, lc_v a)
{
    if (whole)
        lc_v_storeu(x, a);
    else
        lc_v_maskstore(x, m, a);
}

/* step(..., i, whole, mask) for all vectors of n elements. */
#define FOR_VECTORS(n, step, ...)                                                                  \
    do {                                                                                           \
        int64_t at = 0;                                                                            \
        for (; at + LC_VLEN <= (n); at += LC_VLEN)                                                 \
            step(__VA_ARGS__, at, true, lc_v_first(LC_VLEN));                                      \
        if (at < (n))                                                                              \
            step(__VA_ARGS__, at, false, lc_v_first((int)((n) - at)));                             \
    } while (0)

LC_INLINE lc_v times(float c, lc_v a)
{
    return lc_v_mul(lc_v_set1(c), a);
}

LC_INLINE lc_v gradient(const lc_train_part *t, int64_t i, bool whole, lc_vm k, float sign,
                        float decay, lc_v p)
{
    lc_v d = times(sign, get(t->g + i, whole, k));
    return decay != 0.0f ? lc_v_add(d, times(decay, p)) : d;
}

LC_INLINE void sgd_step(const lc_train_part *t, const lc_sgd_scalars *s, bool momentum, bool first,
                        int64_t i, bool whole, lc_vm k)
{
    lc_v p = get(t->p + i, whole, k), d = gradient(t, i, whole, k, s->sign, s->decay, p);
    if (momentum) {
        lc_v m =
            first ? d : lc_v_add(times(s->momentum, get(t->m + i, whole, k)), times(s->keep, d));
        put(t->m_out + i, whole, k, m);
        d = s->nesterov ? lc_v_add(d, times(s->momentum, m)) : m;
    }
    put(t->p_out + i, whole, k, lc_v_sub(p, times(s->lr, d)));
}

static void sgd(const lc_train_part *given, const lc_sgd_scalars *scalars)
{
    lc_train_part part = *given; /* copies: stores of floats cannot change them */
    lc_sgd_scalars s = *scalars;
    if (!part.m_out)
        FOR_VECTORS(part.n, sgd_step, &part, &s, false, false);
    else if (!part.m)
        FOR_VECTORS(part.n, sgd_step, &part, &s, true, true);
    else
        FOR_VECTORS(part.n, sgd_step, &part, &s, true, false);
}

LC_INLINE lc_v root_of(lc_v v, const lc_adam_scalars *s)
{
    return lc_v_add(lc_v_mul(lc_v_sqrt(v), lc_v_set1(s->scale2)), lc_v_set1(s->eps));
}

/* The new moments: m and v are kept, what the step is divided by is returned. */
LC_INLINE lc_v moments(const lc_train_part *t, const lc_adam_scalars *s, int64_t i, bool whole,
                       lc_vm k, lc_v d, lc_v *m)
{
    lc_v old = get(t->m + i, whole, k);
    *m = lc_v_add(old, lc_v_mul(lc_v_sub(d, old), lc_v_set1(s->keep1)));
    lc_v v = lc_v_add(times(s->beta2, get(t->v + i, whole, k)), times(s->keep2, lc_v_mul(d, d)));
    put(t->m_out + i, whole, k, *m);
    put(t->v_out + i, whole, k, v);
    if (t->top_out) {
        v = lc_v_max_nan(get(t->top + i, whole, k), v);
        put(t->top_out + i, whole, k, v);
    }
    return root_of(v, s);
}

LC_INLINE void adam_step(const lc_train_part *t, const lc_adam_scalars *s, int64_t i, bool whole,
                         lc_vm k)
{
    lc_v m, p = get(t->p + i, whole, k);
    lc_v root = moments(t, s, i, whole, k, gradient(t, i, whole, k, s->sign, s->decay, p), &m);
    lc_v u = lc_v_div(times(s->scale1, m), root);
    put(t->p_out + i, whole, k, lc_v_sub(times(s->shrink, p), times(s->lr, u)));
}

static void adam(const lc_train_part *given, const lc_adam_scalars *scalars)
{
    lc_train_part part = *given;
    lc_adam_scalars s = *scalars;
    FOR_VECTORS(part.n, adam_step, &part, &s);
}

LC_INLINE void lamb_moments_step(const lc_train_part *t, const lc_adam_scalars *s, int64_t i,
                                 bool whole, lc_vm k)
{
    lc_v m, p = get(t->p + i, whole, k);
    lc_v root = moments(t, s, i, whole, k, gradient(t, i, whole, k, s->sign, 0.0f, p), &m);
    put(t->p_out + i, whole, k, lc_v_add(lc_v_div(times(s->scale1, m), root), times(s->decay, p)));
}

static void lamb_moments(const lc_train_part *given, const lc_adam_scalars *scalars)
{
    lc_train_part part = *given;
    lc_adam_scalars s = *scalars;
    FOR_VECTORS(part.n, lamb_moments_step, &part, &s);
}

LC_INLINE void lamb_apply_step(const lc_train_part *t, const lc_adam_scalars *s, int64_t i,
                               bool whole, lc_vm k)
{
    lc_v p = get(t->p + i, whole, k), m = get(t->m + i, whole, k);
    lc_v root = root_of(get(t->v + i, whole, k), s);
    lc_v u = lc_v_add(lc_v_div(times(s->scale1, m), root), times(s->decay, p));
    put(t->p_out + i, whole, k, lc_v_sub(p, times(s->lr, u)));
}

static void lamb_apply(const lc_train_part *given, const lc_adam_scalars *scalars)
{
    lc_train_part part = *given;
    lc_adam_scalars s = *scalars;
    FOR_VECTORS(part.n, lamb_apply_step, &part, &s);
}

LC_INLINE void lerp_step(float *y, const float *a, const float *b, float t, int64_t i, bool whole,
                         lc_vm k)
{
    lc_v from = get(a + i, whole, k), to = get(b + i, whole, k);
    put(y + i, whole, k, lc_v_add(from, lc_v_mul(lc_v_sub(to, from), lc_v_set1(t))));
}

static void lerp(float *y, const float *a, const float *b, int64_t n, float t)
{
    FOR_VECTORS(n, lerp_step, y, a, b, t);
}

static void fill(lc_train_kernels *t)
{
    t->sgd = sgd;
    t->adam = adam;
    t->lamb_moments = lamb_moments;
    t->lamb_apply = lamb_apply;
    t->squares = squares;
    t->lerp = lerp;
}

#endif
