/* Optimizer steps. Each is one call for all parameters, one parallel region, in place where nobody
 * else holds the memory, and the same bits for any number of threads.
 *
 * A row is a parameter with its state and its options. Parameters without a gradient are left out
 * by the caller (LC_ERR_VALUE). State tensors are parameters too, of the same shape. On failure
 * nothing has changed. See train/pass.h for what other threads may do meanwhile. */
#ifndef LC_TRAIN_OPTIM_H
#define LC_TRAIN_OPTIM_H

#include "graph/param.h"

typedef struct lc_sgd_options {
    double lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
} lc_sgd_options;

typedef struct lc_sgd_row {
    lc_param *param;
    lc_param *momentum; /* NULL: none; not set yet: this is the first step, which copies the
                           gradient there */
    const lc_sgd_options *options;
} lc_sgd_row;

/* Stochastic gradient descent with PyTorch's momentum (dampening, Nesterov). */
lc_status lc_sgd_step(int n, const lc_sgd_row *rows);

typedef struct lc_adam_options {
    double lr, beta1, beta2, eps, weight_decay;
    bool
        decoupled; /* AdamW (Loshchilov and Hutter 2019): decay of the weights themselves, not in the
                       gradient */
    bool maximize;
} lc_adam_options;

typedef struct lc_adam_row {
    lc_param *param;
    lc_param *first, *second; /* moments; not set yet: zeros */
    lc_param *largest;        /* AMSGrad (Reddi et al. 2018): largest second moment; NULL: plain */
    int64_t step;             /* of this step, from 1: for the correction of the bias */
    const lc_adam_options *options;
} lc_adam_row;

/* Adam (Kingma and Ba 2015). */
lc_status lc_adam_step(int n, const lc_adam_row *rows);

typedef struct lc_lamb_options {
    double lr, beta1, beta2, eps, weight_decay;
    bool bias_correction, always_adapt, maximize;
} lc_lamb_options;

typedef struct lc_lamb_row {
    lc_param *param;
    lc_param *first, *second;
    int64_t step;
    const lc_lamb_options *options;
} lc_lamb_row;

/* LAMB (You et al. 2020, algorithm 2): Adam's direction with decay, scaled per tensor by
 * |weights| / |direction|. Without weight decay (batch norm, biases) the ratio is 1 unless
 * always_adapt, and so it is where a norm is 0. */
lc_status lc_lamb_step(int n, const lc_lamb_row *rows);

typedef struct lc_lars_options {
    double lr, momentum, weight_decay, trust_coeff, eps;
    bool always_adapt, maximize;
} lc_lars_options;

typedef struct lc_lars_row {
    lc_param *param;
    lc_param *momentum; /* NULL: none; not set yet: zeros */
    const lc_lars_options *options;
} lc_lars_row;

/* LARS (You, Gitman and Ginsburg 2017, algorithm 1): SGD whose rate is scaled per tensor by
 * trust_coeff |weights| / (|gradient| + weight_decay |weights| + eps). The rate is part of what
 * momentum accumulates, as in the paper. Ratio 1 as for LAMB. */
lc_status lc_lars_step(int n, const lc_lars_row *rows);

/* --- gradients of many parameters; those without one are passed over */
/* The 2-norm of all gradients together, in double; sums in a fixed order. */
lc_status lc_grads_norm(int n, lc_param *const *params, double *norm);
/* g = g * factor */
lc_status lc_grads_scale(int n, lc_param *const *params, double factor);
/* g = min(max(g, -limit), limit); NaN stays */
lc_status lc_grads_clamp(int n, lc_param *const *params, double limit);

/* --- averages of weights */
/* average[i] += (source[i] - average[i]) * weight; a weight of 1 shares the storage of the source,
 * nothing is copied. */
lc_status lc_average_update(int n, lc_param *const *average, lc_param *const *source,
                            double weight);

#endif
