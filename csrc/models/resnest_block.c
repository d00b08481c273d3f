/* Split attention and the ResNeSt bottleneck (Zhang et al. 2020, "ResNeSt: Split-Attention
 * Networks"). */
#include <inttypes.h>

#include "models/block_util.h"
#include "nn/layer_util.h"

/* ---- split attention ---- */

static lc_status append_split_attention(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                        lc_value *out)
{
    const lc_split_attention_config *c = lc_module_config(self);
    lc_split_attr attr = {.radix = (int32_t)c->radix, .cardinality = (int32_t)c->cardinality};
    lc_split_attr softmax = attr;
    softmax.plain_view = c->lucid2;
    lc_value y, a;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(LC_CALL_CHAIN(self, g, in[0], &y, "conv", "bn0", "?drop_block", "act0"));
    LC_TRY(lc_layer_unary(g, &lc_op_split_gap, &attr, y, &a));
    LC_TRY(LC_CALL_CHAIN(self, g, a, &a, "fc1", "bn1", "act1", "fc2"));
    LC_TRY(lc_layer_unary(g, &lc_op_split_softmax, &softmax, a, &a));
    return lc_graph_append(g, &lc_op_split_apply, &attr, 2, (lc_value[]){y, a}, out);
}

const lc_module_class lc_class_split_attention = {"SplitAttention", append_split_attention, NULL,
                                                  NULL, sizeof(lc_split_attention_config)};

/* A quarter of in * radix, to a multiple of 8 but not more than a tenth below, 32 at least: timm's
 * rule. lucid 2.x does not round. */
static int64_t attention_width(const lc_split_attention_config *c)
{
    int64_t quarters = c->in_channels * c->radix;
    int64_t width = c->lucid2 ? quarters / 4 : (quarters + 16) / 4 / 8 * 8;
    if (width < 32)
        width = 32;
    if (!c->lucid2 && (double)width < 0.9 * ((double)quarters / 4))
        width += 8;
    return width;
}

static lc_status check_split(const lc_split_attention_config *c)
{
    const char *name = lc_class_split_attention.name;
    LC_TRY(lc_layer_size(name, "in_channels", c->in_channels, 1));
    LC_TRY(lc_layer_size(name, "out_channels", c->out_channels, 1));
    LC_TRY(lc_layer_size(name, "stride", c->stride, 1));
    LC_TRY(lc_layer_size(name, "padding", c->pad, 0));
    LC_TRY(lc_layer_size(name, "dilation", c->dilation, 1));
    LC_TRY(lc_layer_size(name, "cardinality", c->cardinality, 1));
    LC_TRY(lc_layer_size(name, "radix", c->radix, 1));
    LC_TRY(lc_layer_size(name, "cardinality * radix", c->cardinality * c->radix, 1));
    LC_TRY(lc_layer_size(name, "out_channels * radix", c->out_channels * c->radix, 1));
    return lc_layer_size(name, "in_channels * radix", c->in_channels * c->radix, 1);
}

static lc_status build_split(lc_module *m, const lc_split_attention_config *c)
{
    int64_t inner = c->out_channels * c->radix, width = attention_width(c);
    lc_conv2d_config conv =
        lc_square_conv(c->in_channels, inner, 3, c->stride, c->dilation, c->cardinality * c->radix);
    for (int i = 0; i < 4; i++)
        conv.pad[i] = c->pad;
    lc_conv2d_config fc1 = lc_square_conv(c->out_channels, width, 1, 1, 1, c->cardinality);
    lc_conv2d_config fc2 = lc_square_conv(width, inner, 1, 1, 1, c->cardinality);
    fc1.bias = fc2.bias = true;
    LC_TRY(lc_add_conv_config(m, "conv", &conv));
    LC_TRY(lc_add_norm(m, "bn0", inner, false));
    LC_TRY(lc_add_relu(m, "act0"));
    LC_TRY(lc_add_conv_config(m, "fc1", &fc1));
    LC_TRY(lc_add_norm(m, "bn1", width, false));
    LC_TRY(lc_add_relu(m, "act1"));
    LC_TRY(lc_add_conv_config(m, "fc2", &fc2));
    return lc_add_drop_block(m, c->drop_block);
}

lc_status lc_split_attention_create(const lc_split_attention_config *c, lc_module **out)
{
    lc_module *m;
    LC_TRY(check_split(c));
    LC_TRY(lc_module_create(&lc_class_split_attention, sizeof *c, &m));
    *(lc_split_attention_config *)lc_module_config(m) = *c;
    lc_status status = build_split(m, c);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}

/* ---- bottleneck ---- */

static lc_status append_resnest(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                lc_value *out)
{
    lc_value x = in[0], y, shortcut;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(LC_CALL_CHAIN(self, g, x, &y, "conv1", "bn1", "?drop_block", "relu"));
    if (lc_has_child(self, "avd_first"))
        LC_TRY(lc_module_call(self, "avd_first", g, y, &y));
    LC_TRY(lc_module_call(self, "conv2", g, y, &y));
    if (lc_has_child(self, "bn2")) /* radix 0 */
        LC_TRY(LC_CALL_CHAIN(self, g, y, &y, "bn2", "?drop_block", "relu"));
    if (lc_has_child(self, "avd_last"))
        LC_TRY(lc_module_call(self, "avd_last", g, y, &y));
    LC_TRY(LC_CALL_CHAIN(self, g, y, &y, "conv3", "bn3", "?drop_block", "?drop_path"));
    LC_TRY(lc_call_shortcut(self, g, x, &shortcut));
    LC_TRY(lc_append_add(g, y, shortcut, &y));
    return lc_module_call(self, "relu", g, y, out);
}

const lc_module_class lc_class_resnest_bottleneck = {"ResNeStBottleneck", append_resnest, NULL,
                                                     NULL, sizeof(lc_block_args)};

static lc_status add_conv2(lc_module *m, const lc_block_args *a, int64_t width, int64_t stride)
{
    if (a->radix == 0) {
        lc_conv2d_config conv2 =
            lc_square_conv(width, width, 3, stride, a->dilation, a->cardinality);
        LC_TRY(lc_add_conv_config(m, "conv2", &conv2));
        return lc_add_norm(m, "bn2", width, false);
    }
    lc_split_attention_config c = {.in_channels = width,
                                   .out_channels = width,
                                   .stride = stride,
                                   .pad = a->dilation,
                                   .dilation = a->dilation,
                                   .cardinality = a->cardinality,
                                   .radix = a->radix,
                                   .lucid2 = a->lucid2,
                                   .drop_block = a->drop_block};
    lc_module *split;
    LC_TRY(lc_split_attention_create(&c, &split));
    return lc_module_adopt(m, "conv2", split);
}

static lc_status build_resnest(lc_module *m, const lc_block_args *a)
{
    int64_t width, wide = a->out_channels * lc_block_resnest_bottleneck.expansion;
    LC_TRY(lc_block_width("ResNeStBottleneck", a, &width));
    LC_TRY(lc_layer_size("ResNeStBottleneck", "radix", a->radix, 0));
    bool pool = a->avd && a->stride > 1, first = a->avd_first && !a->lucid2;
    lc_pool2d_attr avd = {
        .kernel = {3, 3}, .stride = {a->stride, a->stride}, .pad = {1, 1}, .count_include_pad = 1};
    LC_TRY(lc_add_conv(m, "conv1", a->in_channels, width, 1, 1));
    LC_TRY(lc_add_norm(m, "bn1", width, false));
    if (pool && first)
        LC_TRY(lc_add_avg_pool(m, "avd_first", &avd));
    LC_TRY(add_conv2(m, a, width, pool ? 1 : a->stride));
    if (pool && !first)
        LC_TRY(lc_add_avg_pool(m, "avd_last", &avd));
    LC_TRY(lc_add_conv(m, "conv3", width, wide, 1, 1));
    LC_TRY(lc_add_norm(m, "bn3", wide, a->zero_last_gamma));
    return lc_add_relu(m, "relu");
}

static lc_status create_resnest(void *ctx, const lc_block_args *a, lc_module **out)
{
    (void)ctx;
    return lc_block_make(&lc_class_resnest_bottleneck, a, build_resnest, out);
}

const lc_block_type lc_block_resnest_bottleneck = {"ResNeStBottleneck", 4, false, create_resnest,
                                                   NULL};
