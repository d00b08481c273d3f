/* All ops and their attributes. Sizes are those of PyTorch's function of the same name; every
 * struct must be zeroed before it is filled (memset or = {0}), since nodes are compared byte by
 * byte. Inputs in order; [x] = optional. */
#ifndef LC_OPS_OPS_H
#define LC_OPS_OPS_H

#include "ops/op.h"

/* --- convolution: x (N, C, H, W), w (OC, C / groups, KH, KW), [b (OC)], [gamma, beta, mean, var
 * (OC)], [residual (N, OC, OH, OW)] y = relu(bn(conv(x, w) + b) + residual), each part as its flag
 * says. Users record LC_CONV_BIAS only; passes add the rest. LC_CONV_FORCED is for measuring: the
 * algorithm is the one of the attributes, if that can do it.
 *
 * With LC_CONV_TRANSPOSED it is the gradient of that convolution's input instead: x is dy (N, OC,
 * OH, OW), w and the attributes are those of the convolution, y is (N, C, out[0], out[1]). It has
 * no bias and no batch norm. */
enum {
    LC_CONV_BIAS = 1,
    LC_CONV_BN = 2,
    LC_CONV_ADD = 4,
    LC_CONV_RELU = 8,
    LC_CONV_PACKED = 16,
    LC_CONV_FORCED = 32,
    LC_CONV_TRANSPOSED = 64
};
typedef struct lc_conv2d_attr {
    int64_t stride[2]; /* height, width */
    int64_t pad[4];    /* top, bottom, left, right */
    int64_t dilation[2];
    int64_t groups;
    int64_t kernel[2], out_channels; /* set by LC_CONV_PACKED (the packing pass), when w is not at
                                        hand any more; else 0 */
    int64_t out[2];                  /* with LC_CONV_TRANSPOSED: height and width of y, else 0 */
    uint32_t flags;
    float bn_eps;
    uint32_t algorithm; /* with LC_CONV_PACKED or LC_CONV_FORCED: lc_conv_algorithm (conv_form.h),
                           else 0 */
    uint32_t zero;
} lc_conv2d_attr;
extern const lc_op lc_op_conv2d;
/* Packs w, [b], [gamma, beta, mean, var] of a convolution, batch norm folded in (in double), for
 * given layouts of x and y. */
extern const lc_op lc_op_conv2d_pack;
/* The gradient of w: dy (N, OC, OH, OW), x (N, C, H, W) -> (OC, C / groups, KH, KW). The attributes
 * are those of the convolution, with kernel[] and, in flags, nothing. */
extern const lc_op lc_op_conv2d_weight_grad;

/* --- linear: x (..., K), w (OC, K), [b (OC)] -> (..., OC) */
typedef struct lc_linear_attr {
    int64_t out_features; /* set when packed, else 0 */
    uint32_t flags;       /* LC_CONV_BIAS, LC_CONV_PACKED */
    uint32_t zero;
} lc_linear_attr;
extern const lc_op lc_op_linear;
extern const lc_op lc_op_linear_pack;

/* --- matmul: a (..., M, K), b (..., K, N), 1-D and broadcasting as numpy.matmul. A transposed
 * operand, of two dimensions or more, is given as (..., K, M) or (..., N, K). */
typedef struct lc_matmul_attr {
    uint32_t transpose_a, transpose_b;
} lc_matmul_attr;
extern const lc_op lc_op_matmul;

/* --- batch norm: x (N, C, ...), [gamma, beta], mean, var (C), [r, of x's shape]; without affine
 * the recorder passes no gamma and beta. y = (x - mean) / sqrt(var + eps) * gamma + beta, then + r
 * and ReLU if asked for by the fusing passes. In training (batch) the statistics are those of
 * batch_stats, with 1 / sqrt(var + eps) in place of var. */
typedef struct lc_batch_norm_attr {
    float eps;
    uint32_t affine;
    uint32_t relu;
    uint32_t batch;
    uint32_t add;
} lc_batch_norm_attr;
extern const lc_op lc_op_batch_norm;

/* --- statistics of each channel of a batch: x (N, C, ...), [running_mean, running_var (C)],
 * [count (1 element, float32): how many batches were tracked before] -> mean, invstd = 1 / sqrt(var
 * + eps) (C), [new running mean and variance]. The running ones go momentum (or 1 / (count + 1)) of
 * the way to this batch's, the variance unbiased. */
enum { LC_STATS_ALONE = 0, LC_STATS_MOMENTUM, LC_STATS_COUNT };
typedef struct lc_batch_stats_attr {
    float eps, momentum;
    uint32_t track;
} lc_batch_stats_attr;
extern const lc_op lc_op_batch_stats;

/* --- one input, elementwise; NaN goes through */
enum {
    LC_UNARY_RELU = 0,
    LC_UNARY_SIGMOID,
    LC_UNARY_EXP,
    LC_UNARY_LOG,
    LC_UNARY_SQRT,
    LC_UNARY_CLAMP,
    LC_UNARY_NEG,
    LC_UNARY_ABS,
    LC_UNARY_TANH,
    /* for gradients */
    LC_UNARY_SCALE_SHIFT, /* x * lo + hi */
    LC_UNARY_SIGN,        /* -1, 0, 1 */
    LC_UNARY_INSIDE,      /* 1 where lo <= x <= hi, else 0 */
    LC_UNARY_COUNT
};
typedef struct lc_unary_attr {
    uint32_t kind;
    float lo, hi; /* clamp; -inf and +inf where open */
} lc_unary_attr;
extern const lc_op lc_op_unary;

/* --- two inputs with broadcasting */
enum {
    LC_BINARY_ADD = 0,
    LC_BINARY_SUB,
    LC_BINARY_MUL,
    LC_BINARY_DIV,
    LC_BINARY_MAXIMUM,
    LC_BINARY_MINIMUM,
    LC_BINARY_POW,
    LC_BINARY_MASK, /* a where b > 0, else 0: relu_grad(dy, y), the gradient of a ReLU */
    LC_BINARY_COUNT
};
typedef struct lc_binary_attr {
    uint32_t kind;
    uint32_t relu; /* ReLU afterwards; set by the fusing pass (add only) */
} lc_binary_attr;
extern const lc_op lc_op_binary;

/* --- softmax over one axis (negative axes are resolved by the caller of lc_graph_append: 0 <= axis
 * < rank) */
typedef struct lc_softmax_attr {
    int32_t axis;
    uint32_t log; /* log_softmax */
} lc_softmax_attr;
extern const lc_op lc_op_softmax;

/* --- pooling: x (N, C, H, W) */
enum { LC_POOL_MAX = 0, LC_POOL_AVG };
typedef struct lc_pool2d_attr {
    int64_t kernel[2], stride[2], pad[2], dilation[2]; /* dilation: max only, else 1 */
    int64_t divisor;                                   /* 0: none (divisor_override of PyTorch) */
    uint32_t kind;
    uint32_t ceil_mode;
    uint32_t count_include_pad;
    uint32_t pad_with_zeros; /* max pool over zero padding rather than -inf (lucid 2.x) */
} lc_pool2d_attr;
extern const lc_op lc_op_pool2d;
typedef struct lc_adaptive_pool2d_attr {
    int64_t out[2];
    uint32_t kind;
    uint32_t zero;
} lc_adaptive_pool2d_attr;
extern const lc_op lc_op_adaptive_pool2d;

/* --- reductions over any axes */
enum { LC_REDUCE_SUM = 0, LC_REDUCE_MEAN, LC_REDUCE_MAX, LC_REDUCE_MIN, LC_REDUCE_ARGMAX };
typedef struct lc_reduce_attr {
    uint32_t kind;
    uint32_t axes; /* bit i: axis i is reduced; argmax: one bit or all (flattened) */
    uint32_t keepdim;
    uint32_t to_first; /* gradients of max and min: to the first of equals (else shared) */
} lc_reduce_attr;
extern const lc_op lc_op_reduce; /* argmax gives LC_I64 */

/* --- movement */
typedef struct lc_reshape_attr {
    int64_t rank;
    int64_t dim[LC_MAX_RANK]; /* no -1: resolved by the caller */
} lc_reshape_attr;
extern const lc_op lc_op_reshape;
typedef struct lc_permute_attr {
    int32_t rank;
    int32_t axis[LC_MAX_RANK]; /* output axis i is input axis axis[i] */
} lc_permute_attr;
extern const lc_op lc_op_permute;
typedef struct lc_cat_attr {
    int32_t axis;
} lc_cat_attr;
extern const lc_op lc_op_cat; /* any number of inputs, at least one */
typedef struct lc_pad_attr {
    int64_t before[LC_MAX_RANK], after[LC_MAX_RANK]; /* negative ones crop */
    float value;
    uint32_t zero;
} lc_pad_attr;
extern const lc_op lc_op_pad;
typedef struct lc_slice_attr {
    int64_t start[LC_MAX_RANK], step[LC_MAX_RANK],
        count[LC_MAX_RANK]; /* step may be negative, never 0; rank stays */
} lc_slice_attr;
extern const lc_op lc_op_slice;
typedef struct lc_expand_attr {
    int64_t rank;
    int64_t dim[LC_MAX_RANK];
} lc_expand_attr;
extern const lc_op lc_op_expand;
/* Layout conversion; inserted by passes, never recorded. The desc of its output says which. */
extern const lc_op lc_op_reorder;

/* --- split attention (Zhang et al. 2020, ResNeSt, section 3.1). R = radix, K = cardinality; the
 * channel index of x is (r * K + k) * C' / K + j. Fused forms of what would be reshape + sum +
 * mean, softmax, and mul + sum. */
typedef struct lc_split_attr {
    int32_t radix;
    int32_t cardinality;
    uint32_t plain_view; /* softmax only. 0: logits (N, K, R, -1), transposed (paper); 1: a plain
                            (N, R, K, -1) view (lucid 2.x) */
} lc_split_attr;
extern const lc_op
    lc_op_split_gap; /* x (N, R*C, H, W) -> mean over H, W of the sum over r: (N, C, 1, 1) */
extern const lc_op lc_op_split_softmax; /* logits (N, R*C, 1, 1) -> attention (N, R*C, 1, 1),
                                           softmax over r; sigmoid if R == 1 */
extern const lc_op lc_op_split_apply; /* x (N, R*C, H, W), attention (N, R*C, 1, 1) -> sum over r of
                                         x * attention: (N, C, H, W) */

/* A number that changes when ops may choose other algorithms from now on (conv_tuning.h); plans made
 * before are not for use any more. */
uint32_t lc_tuning_version(void);

/* Dropout in eval mode and Identity record nothing. */

/* --- random zeros: x, draw (LC_DRAW_WORDS, int64: the image of an lc_draw) -> x's shape. What is dropped is a
 * function of the draw and of the element's place in plain memory, in any layout; the gradient is
 * the same op on dy. The share is no attribute, so that one plan does for a schedule of shares. */
typedef struct lc_draw {
    uint64_t seed, stream; /* of base/random.h */
    double p;              /* the share of zeros, 0 to 1 */
} lc_draw;
enum { LC_DRAW_WORDS = sizeof(lc_draw) / sizeof(int64_t) };
extern const lc_op lc_op_dropout; /* what stays is divided by 1 - p */
typedef struct lc_drop_path_attr {
    uint32_t scale_by_keep; /* divide what stays by 1 - p */
} lc_drop_path_attr;
extern const lc_op lc_op_drop_path; /* whole samples: x[n] */
typedef struct lc_drop_block_attr {
    int64_t block_size; /* a larger one than the plane is cut to it */
} lc_drop_block_attr;
extern const lc_op lc_op_drop_block; /* squares of x (N, C, H, W): Ghiasi et al. 2018 */

/* --- losses. `reduction`: the result is one number, or (NONE) one per place. */
enum { LC_LOSS_NONE = 0, LC_LOSS_MEAN, LC_LOSS_SUM };
/* x (N, C, ...) or (C), target: class numbers (N, ...) int64, or shares of x's shape float32;
 * [weight (C)]. PyTorch's cross_entropy; with `log_probs` its nll_loss. A class number out of range
 * is LC_ERR_VALUE when run. */
typedef struct lc_cross_entropy_attr {
    int64_t ignore_index; /* class numbers only */
    double label_smoothing;
    uint32_t reduction;
    uint32_t weighted;
    uint32_t log_probs; /* x are logarithms of probabilities, not logits */
    uint32_t zero;
} lc_cross_entropy_attr;
extern const lc_op lc_op_cross_entropy;
/* x, target of one shape, [weight], [pos_weight], of that shape too */
typedef struct lc_bce_attr {
    uint32_t reduction, weighted, pos_weighted;
} lc_bce_attr;
extern const lc_op lc_op_bce_with_logits;
typedef struct lc_mse_attr {
    uint32_t reduction;
} lc_mse_attr;
extern const lc_op lc_op_mse; /* x, target of one shape */

#endif
