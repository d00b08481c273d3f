/* Basic block and bottleneck (He et al. 2015; cardinality and width: Xie et al. 2016; the stride
 * stands on the 3x3 convolution, as in torchvision and timm), pre-activation bottleneck (He et al.
 * 2016). */
#include <inttypes.h>

#include "models/block_util.h"
#include "nn/layer_util.h"

/* ---- basic ---- */

static lc_status append_basic(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                              lc_value *out)
{
    lc_value x = in[0], y, shortcut;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(LC_CALL_CHAIN(self, g, x, &y, "conv1", "bn1", "?drop_block", "relu", "conv2", "bn2",
                         "?drop_block", "?drop_path"));
    LC_TRY(lc_call_shortcut(self, g, x, &shortcut));
    LC_TRY(lc_append_add(g, y, shortcut, &y));
    return lc_module_call(self, "relu", g, y, out);
}

const lc_module_class lc_class_basic_block = {"BasicBlock", append_basic, NULL, NULL,
                                              sizeof(lc_block_args)};

static lc_status build_basic(lc_module *m, const lc_block_args *a)
{
    if (a->cardinality != 1 || a->base_width != 64)
        return lc_fail(LC_ERR_VALUE,
                       "BasicBlock has cardinality 1 and base_width 64 only, got %" PRId64
                       " and %" PRId64,
                       a->cardinality, a->base_width);
    lc_conv2d_config conv1 =
        lc_square_conv(a->in_channels, a->out_channels, 3, a->stride, a->dilation, 1);
    lc_conv2d_config conv2 = lc_square_conv(a->out_channels, a->out_channels, 3, 1, a->dilation, 1);
    LC_TRY(lc_add_conv_config(m, "conv1", &conv1));
    LC_TRY(lc_add_norm(m, "bn1", a->out_channels, false));
    LC_TRY(lc_add_relu(m, "relu"));
    LC_TRY(lc_add_conv_config(m, "conv2", &conv2));
    return lc_add_norm(m, "bn2", a->out_channels, a->zero_last_gamma);
}

static lc_status create_basic(void *ctx, const lc_block_args *a, lc_module **out)
{
    (void)ctx;
    return lc_block_make(&lc_class_basic_block, a, build_basic, out);
}

const lc_block_type lc_block_basic = {"BasicBlock", 1, false, create_basic, NULL};

/* ---- bottleneck ---- */

static lc_status append_bottleneck(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                   lc_value *out)
{
    lc_value x = in[0], y, shortcut;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(LC_CALL_CHAIN(self, g, x, &y, "conv1", "bn1", "?drop_block", "relu", "conv2", "bn2",
                         "?drop_block", "relu", "conv3", "bn3", "?drop_block", "?drop_path"));
    LC_TRY(lc_call_shortcut(self, g, x, &shortcut));
    LC_TRY(lc_append_add(g, y, shortcut, &y));
    return lc_module_call(self, "relu", g, y, out);
}

const lc_module_class lc_class_bottleneck = {"Bottleneck", append_bottleneck, NULL, NULL,
                                             sizeof(lc_block_args)};

static lc_status build_bottleneck(lc_module *m, const lc_block_args *a)
{
    int64_t width, wide = a->out_channels * lc_block_bottleneck.expansion;
    LC_TRY(lc_block_width("Bottleneck", a, &width));
    lc_conv2d_config conv2 =
        lc_square_conv(width, width, 3, a->stride, a->dilation, a->cardinality);
    LC_TRY(lc_add_conv(m, "conv1", a->in_channels, width, 1, 1));
    LC_TRY(lc_add_norm(m, "bn1", width, false));
    LC_TRY(lc_add_conv_config(m, "conv2", &conv2));
    LC_TRY(lc_add_norm(m, "bn2", width, false));
    LC_TRY(lc_add_conv(m, "conv3", width, wide, 1, 1));
    LC_TRY(lc_add_norm(m, "bn3", wide, a->zero_last_gamma));
    return lc_add_relu(m, "relu");
}

static lc_status create_bottleneck(void *ctx, const lc_block_args *a, lc_module **out)
{
    (void)ctx;
    return lc_block_make(&lc_class_bottleneck, a, build_bottleneck, out);
}

const lc_block_type lc_block_bottleneck = {"Bottleneck", 4, false, create_bottleneck, NULL};

/* ---- pre-activation bottleneck ---- */

static lc_status append_preact(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                               lc_value *out)
{
    lc_value x = in[0], active, y, shortcut = x;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(LC_CALL_CHAIN(self, g, x, &active, "bn1", "relu"));
    LC_TRY(LC_CALL_CHAIN(self, g, active, &y, "conv1", "?drop_block", "bn2", "relu", "conv2",
                         "?drop_block", "bn3", "relu", "conv3", "?drop_block", "?drop_path"));
    if (lc_has_child(self, "downsample")) /* without one the raw input goes past */
        LC_TRY(lc_call_shortcut(self, g, active, &shortcut));
    return lc_append_add(g, y, shortcut, out);
}

const lc_module_class lc_class_preact_bottleneck = {"PreActBottleneck", append_preact, NULL, NULL,
                                                    sizeof(lc_block_args)};

static lc_status build_preact(lc_module *m, const lc_block_args *a)
{
    int64_t width, wide = a->out_channels * lc_block_preact_bottleneck.expansion;
    LC_TRY(lc_block_width("PreActBottleneck", a, &width));
    lc_conv2d_config conv2 =
        lc_square_conv(width, width, 3, a->stride, a->dilation, a->cardinality);
    LC_TRY(lc_add_norm(m, "bn1", a->in_channels, false));
    LC_TRY(lc_add_conv(m, "conv1", a->in_channels, width, 1, 1));
    LC_TRY(lc_add_norm(m, "bn2", width, false));
    LC_TRY(lc_add_conv_config(m, "conv2", &conv2));
    LC_TRY(lc_add_norm(m, "bn3", width, a->zero_last_gamma));
    LC_TRY(lc_add_conv(m, "conv3", width, wide, 1, 1));
    return lc_add_relu(m, "relu");
}

static lc_status create_preact(void *ctx, const lc_block_args *a, lc_module **out)
{
    (void)ctx;
    return lc_block_make(&lc_class_preact_bottleneck, a, build_preact, out);
}

const lc_block_type lc_block_preact_bottleneck = {"PreActBottleneck", 4, true, create_preact, NULL};
