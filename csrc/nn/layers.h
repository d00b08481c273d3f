/* Layers and containers as modules. Arguments, defaults, names of parameters and shapes are
 * PyTorch's. A create function checks its arguments (LC_ERR_VALUE names the argument) and returns a
 * module with one reference and parameters that are not set yet (lc_module_init gives them values).
 */
#ifndef LC_NN_LAYERS_H
#define LC_NN_LAYERS_H

#include "nn/module.h"
#include "ops/ops.h"

typedef struct lc_conv2d_config {
    int64_t in_channels, out_channels;
    int64_t kernel[2], stride[2], pad[4],
        dilation[2]; /* pad: top, bottom, left, right ("same" may be lopsided) */
    int64_t groups;
    bool bias;
    uint8_t pad_mode; /* how padding was given, for repr: 0 numbers, 1 "same", 2 "valid" */
} lc_conv2d_config;
/* Zeros mean the defaults: stride 1, dilation 1, groups 1. pad_mode 1 and 2 set pad. */
lc_status lc_conv2d_create(const lc_conv2d_config *c, lc_module **out); /* weight, bias */

typedef struct lc_batch_norm_config {
    int64_t features;
    double eps, momentum; /* momentum < 0: cumulative average (PyTorch's None) */
    bool affine, track_running_stats;
    bool zero_init; /* lc_module_init: weight starts at 0 (last norm of a residual branch) */
} lc_batch_norm_config;
void lc_batch_norm_config_init(lc_batch_norm_config *c,
                               int64_t features); /* PyTorch's defaults: 1e-5, 0.1, true, true */
/* weight, bias, running_mean, running_var; with a cumulative average num_batches_tracked too */
lc_status lc_batch_norm2d_create(const lc_batch_norm_config *c, lc_module **out);

typedef struct lc_linear_config {
    int64_t in_features, out_features;
    bool bias;
} lc_linear_config;
lc_status lc_linear_create(const lc_linear_config *c, lc_module **out); /* weight, bias */

typedef struct lc_pool2d_config {
    lc_pool2d_attr attr; /* kind is set by the class; stride 0: the kernel's size, dilation 0: 1 */
} lc_pool2d_config;
lc_status lc_max_pool2d_create(const lc_pool2d_config *c, lc_module **out);
lc_status lc_avg_pool2d_create(const lc_pool2d_config *c, lc_module **out);
typedef struct lc_adaptive_pool2d_config {
    int64_t out[2]; /* 0: keep the input's size (PyTorch's None) */
} lc_adaptive_pool2d_config;
lc_status lc_adaptive_avg_pool2d_create(const lc_adaptive_pool2d_config *c, lc_module **out);
lc_status
lc_global_avg_pool2d_create(lc_module **out); /* mean over H and W: (N, C, H, W) -> (N, C) */

typedef struct lc_relu_config {
    bool inplace;
} lc_relu_config;
lc_status lc_relu_create(bool inplace, lc_module **out); /* inplace: for repr only; nothing is ever
                                                            changed in place that can be seen */
lc_status lc_sigmoid_create(lc_module **out);
typedef struct lc_softmax_config {
    int64_t dim;
    bool has_dim;
} lc_softmax_config; /* no dim: PyTorch's implicit choice, 0 for rank 0, 1, 3, else 1 */
lc_status lc_softmax_create(const lc_softmax_config *c, lc_module **out);
typedef struct lc_dropout_config {
    double p;
    bool inplace;
} lc_dropout_config;
lc_status lc_dropout_create(const lc_dropout_config *c, lc_module **out);
typedef struct lc_drop_path_config {
    double p;
    bool scale_by_keep;
} lc_drop_path_config;
lc_status lc_drop_path_create(const lc_drop_path_config *c, lc_module **out);
typedef struct lc_drop_block_config {
    double p;
    int64_t block_size;
} lc_drop_block_config;
lc_status lc_drop_block2d_create(const lc_drop_block_config *c, lc_module **out);
lc_status lc_identity_create(lc_module **out);
typedef struct lc_flatten_config {
    int64_t start_dim, end_dim;
} lc_flatten_config;
lc_status lc_flatten_create(const lc_flatten_config *c, lc_module **out);

lc_status
lc_sequential_create(lc_module **out); /* children by position: "0", "1", ... in entry order */
lc_status lc_module_list_create(lc_module **out); /* not callable */
/* Appends under the next free number and gives up the caller's reference (as lc_module_adopt). */
lc_status lc_container_push(lc_module *container, lc_module *child);

/* ConvBNReLU2d: children conv, bn, relu. Takes a conv config; batch norm with eps and momentum. */
lc_status lc_conv_bn_relu2d_create(const lc_conv2d_config *c, double eps, double momentum,
                                   lc_module **out);

/* A class by its name, for hosts that map modules to classes of their own; also "BasicBlock",
 * "ResNet", ... Classes are static objects. */
extern const lc_module_class lc_class_conv2d, lc_class_batch_norm2d, lc_class_linear,
    lc_class_max_pool2d, lc_class_avg_pool2d, lc_class_adaptive_avg_pool2d,
    lc_class_global_avg_pool2d, lc_class_relu, lc_class_sigmoid, lc_class_softmax, lc_class_dropout,
    lc_class_drop_path, lc_class_drop_block2d, lc_class_identity, lc_class_flatten,
    lc_class_sequential, lc_class_module_list, lc_class_conv_bn_relu2d;

#endif
