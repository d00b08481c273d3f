/* Inner loops of optimizers.
 *
 * Only additions, multiplications, divisions and square roots, each rounded by itself and in one
 * order: every ISA gives the same bits, and an element has the same bits wherever it falls.
 * Pointers need the alignment of float only; an output may be an input's memory (same place). */
#ifndef LC_KERNELS_TRAIN_KERNELS_H
#define LC_KERNELS_TRAIN_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* n elements of a parameter p, its gradient g and its state: m (momentum, first moment), v (second
 * moment), top (largest v so far). */
typedef struct lc_train_part {
    int64_t n;
    const float *g, *p, *m, *v, *top;
    float *p_out, *m_out, *v_out, *top_out;
} lc_train_part;

/* d = sign g + decay p
 * m = momentum m + keep d, or d where m is NULL      (no momentum where m_out is NULL)
 * p = p - lr m, or p - lr (d + momentum m) with nesterov */
typedef struct lc_sgd_scalars {
    float lr, sign, decay, momentum, keep;
    bool nesterov;
} lc_sgd_scalars;
typedef void lc_train_sgd_fn(const lc_train_part *t, const lc_sgd_scalars *s);

/* d = sign g + decay p
 * m = m + (d - m) keep1
 * v = beta2 v + keep2 d d
 * top = max(top, v)                                       (top_out NULL: top = v)
 * p = shrink p - lr scale1 m / (sqrt(top) scale2 + eps)
 * scale1 and scale2 correct the bias of the moments: 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t). */
typedef struct lc_adam_scalars {
    float lr, sign, decay, shrink, keep1, beta2, keep2, scale1, scale2, eps;
} lc_adam_scalars;
typedef void lc_train_adam_fn(const lc_train_part *t, const lc_adam_scalars *s);

/* The two halves of LAMB. moments: m and v as above (without decay), and into p_out, which is
 * scratch,
 *     u = scale1 m / (sqrt(v) scale2 + eps) + decay p
 * apply: p = p - lr u, with u worked out again from the m and v that moments left. */

/* Sum of x[i]^2 in double: sixteen partial sums, element i going to number i % 16. */
typedef double lc_train_squares_fn(const float *x, int64_t n);

/* y = a + (b - a) t */
typedef void lc_train_lerp_fn(float *y, const float *a, const float *b, int64_t n, float t);

typedef struct lc_train_kernels {
    lc_train_sgd_fn *sgd;
    lc_train_adam_fn *adam, *lamb_moments, *lamb_apply;
    lc_train_squares_fn *squares;
    lc_train_lerp_fn *lerp;
} lc_train_kernels;

void lc_train_kernels_fill__scalar(lc_train_kernels *t);
void lc_train_kernels_fill__avx2(lc_train_kernels *t);
void lc_train_kernels_fill__avx512(lc_train_kernels *t);

#endif
