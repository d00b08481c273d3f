/* Gradient ops: what the `backward` of ops appends beside ordinary ops. Users never record them.
 * dy and dx: gradients of the forward op's output and input. Attributes as in ops.h: zeroed first.
 */
#ifndef LC_OPS_GRAD_OPS_H
#define LC_OPS_GRAD_OPS_H

#include "ops/ops.h"

/* --- batch norm: dy, x, [gamma], mean, var or invstd, [y], [beta] -> [dy as the mask lets it through:
 * the gradient of what was added before the ReLU], dx, [dgamma, dbeta] */
enum {
    LC_NORM_MASK_NONE = 0,
    LC_NORM_MASK_Y, /* dy counts only where y, the output after addition and ReLU, is > 0 */
    LC_NORM_MASK_X  /* ... where the norm of x is > 0: input beta if affine */
};
typedef struct lc_batch_norm_grad_attr {
    float eps;
    uint32_t affine;   /* there is a gamma */
    uint32_t batch;    /* as in the norm */
    uint32_t params;   /* give dgamma and dbeta (affine only) */
    uint32_t mask;     /* set by a pass, that takes in a relu_grad */
    uint32_t residual; /* the first output; set by that pass */
} lc_batch_norm_grad_attr;
extern const lc_op lc_op_batch_norm_grad;

/* --- pooling. max: dy, x -> dx, to the first largest element of each window (the last NaN), found
 * again from x: that reads x once more but keeps no indices from forward. mean: dy -> dx; height
 * and width of x are no part of dy. */
typedef struct lc_pool2d_grad_attr {
    lc_pool2d_attr pool;
    int64_t size[2]; /* height and width of x */
} lc_pool2d_grad_attr;
extern const lc_op lc_op_pool2d_grad;
typedef struct lc_adaptive_pool2d_grad_attr {
    lc_adaptive_pool2d_attr pool;
    int64_t size[2];
} lc_adaptive_pool2d_grad_attr;
extern const lc_op lc_op_adaptive_pool2d_grad;

/* --- softmax and log_softmax: dy, y -> dx */
extern const lc_op lc_op_softmax_grad; /* attributes: lc_softmax_attr */

/* --- max and min: dy, x, y (the result; both with or without the axes of size 1) -> dx. Shared
 * evenly by equals, or to the first of them (to_first). If the result is NaN, the NaNs are the
 * equals. */
extern const lc_op lc_op_extreme_grad;               /* attributes: lc_reduce_attr */
lc_status lc_extreme_backward(const lc_backward *g); /* of a reduce node that is max or min */

/* --- slice: dy -> dx, zeros but where the slice was */
typedef struct lc_slice_grad_attr {
    int64_t start[LC_MAX_RANK], step[LC_MAX_RANK];
    int64_t dim[LC_MAX_RANK]; /* of dx */
} lc_slice_grad_attr;
extern const lc_op lc_op_slice_grad;

/* --- split attention; attributes: lc_split_attr */
typedef struct lc_split_gap_grad_attr {
    lc_split_attr split;
    uint32_t zero;
    int64_t size[2]; /* height and width of x */
} lc_split_gap_grad_attr;
extern const lc_op lc_op_split_gap_grad;     /* dy (N, C, 1, 1) -> dx */
extern const lc_op lc_op_split_softmax_grad; /* dy, y (N, R*C, 1, 1) -> dlogits */
/* dy (N, C, H, W), attention, [the dy of a split_gap of the same x, which a pass adds] -> dx */
extern const lc_op lc_op_split_apply_grad;
/* dy (N, C, H, W), x -> dattention (N, R*C, 1, 1) */
extern const lc_op lc_op_split_attention_grad;

/* --- losses: dy, x, target, [weights] -> dx (or dtarget, dx's negative for mse: a `neg`) */
extern const lc_op lc_op_cross_entropy_grad; /* attributes: lc_cross_entropy_attr */
typedef struct lc_bce_grad_attr {
    lc_bce_attr loss;
    uint32_t to_target; /* the gradient of the target instead */
} lc_bce_grad_attr;
extern const lc_op lc_op_bce_with_logits_grad;
extern const lc_op lc_op_mse_grad; /* attributes: lc_mse_attr */

#endif
