/* The plain loops of optimizers. */
#include <math.h>

#include "kernels/train_kernels.h"
#include "kernels/train_squares.h"

static void sgd(const lc_train_part *t, const lc_sgd_scalars *s)
{
    for (int64_t i = 0; i < t->n; i++) {
        float p = t->p[i], d = s->sign * t->g[i];
        if (s->decay != 0.0f)
            d = d + s->decay * p;
        if (t->m_out) {
            float m = t->m ? s->momentum * t->m[i] + s->keep * d : d;
            t->m_out[i] = m;
            d = s->nesterov ? d + s->momentum * m : m;
        }
        t->p_out[i] = p - s->lr * d;
    }
}

/* The new moments of element i: m and v are kept, what the step is divided by is returned. */
static inline float moments(const lc_train_part *t, int64_t i, float d, const lc_adam_scalars *s,
                            float *m)
{
    *m = t->m[i] + (d - t->m[i]) * s->keep1;
    float v = s->beta2 * t->v[i] + s->keep2 * (d * d);
    t->m_out[i] = *m;
    t->v_out[i] = v;
    if (t->top_out) {
        v = t->top[i] > v || t->top[i] != t->top[i] ? t->top[i] : v;
        t->top_out[i] = v;
    }
    return sqrtf(v) * s->scale2 + s->eps;
}

static void adam(const lc_train_part *t, const lc_adam_scalars *s)
{
    for (int64_t i = 0; i < t->n; i++) {
        float m, p = t->p[i], d = s->sign * t->g[i];
        if (s->decay != 0.0f)
            d = d + s->decay * p;
        float root = moments(t, i, d, s, &m);
        t->p_out[i] = s->shrink * p - s->lr * (s->scale1 * m / root);
    }
}

static void lamb_moments(const lc_train_part *t, const lc_adam_scalars *s)
{
    for (int64_t i = 0; i < t->n; i++) {
        float m, root = moments(t, i, s->sign * t->g[i], s, &m);
        t->p_out[i] = s->scale1 * m / root + s->decay * t->p[i];
    }
}

static void lamb_apply(const lc_train_part *t, const lc_adam_scalars *s)
{
    for (int64_t i = 0; i < t->n; i++) {
        float root = sqrtf(t->v[i]) * s->scale2 + s->eps;
        t->p_out[i] = t->p[i] - s->lr * (s->scale1 * t->m[i] / root + s->decay * t->p[i]);
    }
}

static void lerp(float *y, const float *a, const float *b, int64_t n, float t)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + (b[i] - a[i]) * t;
}

void lc_train_kernels_fill__scalar(lc_train_kernels *t)
{
    t->sgd = sgd;
    t->adam = adam;
    t->lamb_moments = lamb_moments;
    t->lamb_apply = lamb_apply;
    t->squares = squares;
    t->lerp = lerp;
}
