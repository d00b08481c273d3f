#include "models/resnet.h"

#include <inttypes.h>
#include <string.h>

#include "models/block_util.h"
#include "nn/layer_util.h"

/* ---- forward ---- */

/* global_pool may have been replaced by a pool that leaves 1x1 images. */
static lc_status flatten_features(lc_graph *g, lc_value x, lc_value *out)
{
    const lc_desc *d = lc_graph_desc(g, x);
    *out = x;
    if (d->rank != 4)
        return LC_OK;
    return lc_layer_reshape(g, x, 2, (int64_t[]){d->dim[0], d->dim[1] * d->dim[2] * d->dim[3]},
                            out);
}

static lc_status check_input(const lc_module *self, const lc_desc *d, int64_t channels)
{
    char text[LC_SHAPE_TEXT];
    if (d->rank == 4)
        return LC_OK; /* conv1 checks the rest */
    return lc_fail(LC_ERR_VALUE,
                   "%s: the input must have 4 dimensions, (N, %" PRId64
                   ", H, W), but its shape is %s%s",
                   lc_module_class_of(self)->name, channels, lc_shape_text(d, text),
                   d->rank == 3 ? "; for one image, use x[None]" : "");
}

static lc_status append(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    const lc_resnet_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(check_input(self, lc_graph_desc(g, in[0]), c->in_channels));
    lc_value x;
    LC_TRY(lc_module_call(self, "conv1", g, in[0], &x));
    if (!c->bare_stem)
        LC_TRY(LC_CALL_CHAIN(self, g, x, &x, "bn1", "relu"));
    LC_TRY(LC_CALL_CHAIN(self, g, x, &x, "maxpool", "layer1", "layer2", "layer3", "layer4"));
    if (c->final_norm)
        LC_TRY(LC_CALL_CHAIN(self, g, x, &x, "norm", "relu"));
    LC_TRY(lc_module_call(self, "global_pool", g, x, &x));
    LC_TRY(flatten_features(g, x, &x));
    if (lc_has_child(self, "drop"))
        LC_TRY(lc_module_call(self, "drop", g, x, &x));
    return lc_module_call(self, "fc", g, x, out);
}

const lc_module_class lc_class_resnet = {"ResNet", append, NULL, NULL, sizeof(lc_resnet_config)};
const lc_module_class lc_class_resnext = {"ResNeXt", append, NULL, NULL, sizeof(lc_resnet_config)};
const lc_module_class lc_class_resnest = {"ResNeSt", append, NULL, NULL, sizeof(lc_resnet_config)};

/* ---- construction ---- */

void lc_resnet_config_init(lc_resnet_config *c)
{
    *c = (lc_resnet_config){.class_name = "ResNet",
                            .block = lc_block_basic,
                            .layers = {2, 2, 2, 2},
                            .channels = {64, 128, 256, 512},
                            .num_classes = 1000,
                            .in_channels = 3,
                            .stem_width = 64};
    lc_block_args_init(&c->args);
}

static const lc_module_class *class_of(const char *name)
{
    static const lc_module_class *const classes[] = {&lc_class_resnet, &lc_class_resnext,
                                                     &lc_class_resnest};
    for (int i = 0; name && i < 3; i++)
        if (strcmp(classes[i]->name, name) == 0)
            return classes[i];
    return NULL;
}

#define MAX_BLOCKS 10000 /* of a stage: a slip of the keyboard should not eat the memory */

static lc_status check(const char *name, const lc_resnet_config *c)
{
    static const char *const layers[] = {"layers[0]", "layers[1]", "layers[2]", "layers[3]"};
    static const char *const channels[] = {"channels[0]", "channels[1]", "channels[2]",
                                           "channels[3]"};
    LC_TRY(lc_layer_size(name, "num_classes", c->num_classes, 0));
    LC_TRY(lc_layer_size(name, "in_channels", c->in_channels, 1));
    LC_TRY(lc_layer_size(name, "stem_width", c->stem_width, 1));
    LC_TRY(lc_layer_size(name, "2 * stem_width", 2 * c->stem_width, 1));
    LC_TRY(lc_layer_size(name, "the block's expansion", c->block.expansion, 1));
    for (int s = 0; s < 4; s++) {
        LC_TRY(lc_layer_size(name, layers[s], c->layers[s], 1));
        LC_TRY(lc_layer_size(name, channels[s], c->channels[s], 1));
        LC_TRY(lc_layer_size(name, "channels * expansion", c->channels[s] * c->block.expansion, 1));
        if (c->layers[s] > MAX_BLOCKS)
            return lc_fail(LC_ERR_VALUE, "%s: %s is too large: %" PRId64, name, layers[s],
                           c->layers[s]);
    }
    if (!c->block.create)
        return lc_fail(LC_ERR_VALUE, "%s: no block given", name);
    return LC_OK;
}

/* conv1, bn1, relu, maxpool. *out: channels that leave the stem. */
static lc_status add_stem(lc_module *m, const lc_resnet_config *c, int64_t *out)
{
    int64_t w = c->stem_width;
    if (c->stem == LC_STEM_DEEP) {
        lc_module *conv1;
        LC_TRY(lc_sequential_create(&conv1));
        LC_TRY(lc_module_adopt(m, "conv1", conv1)); /* m holds it from here on */
        LC_TRY(lc_add_conv(conv1, "0", c->in_channels, w, 3, 2));
        LC_TRY(lc_add_norm(conv1, "1", w, false));
        LC_TRY(lc_add_relu(conv1, "2"));
        LC_TRY(lc_add_conv(conv1, "3", w, w, 3, 1));
        LC_TRY(lc_add_norm(conv1, "4", w, false));
        LC_TRY(lc_add_relu(conv1, "5"));
        LC_TRY(lc_add_conv(conv1, "6", w, 2 * w, 3, 1));
        *out = 2 * w;
    } else {
        LC_TRY(lc_add_conv(m, "conv1", c->in_channels, w, 7, 2));
        *out = w;
    }
    if (!c->bare_stem)
        LC_TRY(lc_add_norm(m, "bn1", *out, false));
    if (!c->bare_stem || c->final_norm)
        LC_TRY(lc_add_relu(m, "relu"));
    lc_pool2d_config pool = {{.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}};
    pool.attr.pad_with_zeros = c->zero_padded_pool;
    lc_module *maxpool;
    LC_TRY(lc_max_pool2d_create(&pool, &maxpool));
    return lc_module_adopt(m, "maxpool", maxpool);
}

static lc_status fill_shortcut(lc_module *m, const lc_resnet_config *c, int64_t in, int64_t out,
                               int64_t stride)
{
    bool pool = stride > 1 && !c->args.lucid2;
    lc_pool2d_attr attr = {.kernel = {stride, stride}, .stride = {stride, stride}, .ceil_mode = 1};
    if (c->shortcut == LC_SHORTCUT_CONV) {
        LC_TRY(lc_add_conv(m, "0", in, out, 1, stride));
        return lc_add_norm(m, "1", out, false);
    }
    LC_TRY(pool ? lc_add_avg_pool(m, "0", &attr) : lc_add_identity(m, "0"));
    LC_TRY(lc_add_conv(m, "1", in, out, 1, pool ? 1 : stride));
    return lc_add_norm(m, "2", out, false);
}

static lc_status make_shortcut(const lc_resnet_config *c, int64_t in, int64_t out, int64_t stride,
                               lc_module **shortcut)
{
    lc_module *m;
    LC_TRY(lc_sequential_create(&m));
    lc_status status = fill_shortcut(m, c, in, out, stride);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *shortcut = m;
    return status;
}

/* The share of drop_path_rate for block b of stage s: its place among all blocks, 0 to 1. */
static double depth_share(const lc_resnet_config *c, int s, int64_t b)
{
    int64_t total = 0, before = b;
    for (int i = 0; i < 4; i++) {
        total += c->layers[i];
        before += i < s ? c->layers[i] : 0;
    }
    return (double)before / (double)(total - 1);
}

/* Pushes the blocks of stage s; *channels: what enters, then what leaves. */
static lc_status fill_stage(lc_module *stage, const lc_resnet_config *c, int s, int64_t *channels)
{
    int64_t out = c->channels[s] * c->block.expansion;
    for (int64_t b = 0; b < c->layers[s]; b++) {
        lc_block_args args = c->args;
        args.in_channels = *channels;
        args.out_channels = c->channels[s];
        args.stride = s > 0 && b == 0 ? 2 : 1;
        args.is_first = b == 0;
        args.drop_block = s >= 2 ? c->drop_block_rate : 0;
        args.drop_path = c->drop_path_rate * depth_share(c, s, b);
        args.downsample = NULL;
        if (b == 0 && (args.stride != 1 || *channels != out))
            LC_TRY(make_shortcut(c, *channels, out, args.stride, &args.downsample));
        lc_module *block;
        LC_TRY(c->block.create(c->block.ctx, &args, &block));
        LC_TRY(lc_container_push(stage, block));
        *channels = out;
    }
    return LC_OK;
}

static lc_status add_head(lc_module *m, const lc_resnet_config *c, int64_t features)
{
    lc_module *child;
    LC_TRY(lc_global_avg_pool2d_create(&child));
    LC_TRY(lc_module_adopt(m, "global_pool", child));
    if (c->drop_rate != 0) {
        LC_TRY(lc_dropout_create(&(lc_dropout_config){c->drop_rate, false}, &child));
        LC_TRY(lc_module_adopt(m, "drop", child));
    }
    if (c->num_classes == 0)
        return lc_add_identity(m, "fc");
    LC_TRY(lc_linear_create(&(lc_linear_config){features, c->num_classes, true}, &child));
    return lc_module_adopt(m, "fc", child);
}

static lc_status build(lc_module *m, const lc_resnet_config *c)
{
    static const char *const names[] = {"layer1", "layer2", "layer3", "layer4"};
    int64_t channels = 0;
    LC_TRY(add_stem(m, c, &channels));
    for (int s = 0; s < 4; s++) {
        lc_module *stage;
        LC_TRY(lc_sequential_create(&stage));
        LC_TRY(lc_module_adopt(m, names[s], stage));
        LC_TRY(fill_stage(stage, c, s, &channels));
    }
    if (c->final_norm)
        LC_TRY(lc_add_norm(m, "norm", channels, false));
    return add_head(m, c, channels);
}

lc_status lc_resnet_create(const lc_resnet_config *c, lc_module **out)
{
    const lc_module_class *cls = class_of(c->class_name);
    if (!cls)
        return lc_fail(LC_ERR_VALUE, "unknown model class '%s'",
                       c->class_name ? c->class_name : "");
    LC_TRY(check(cls->name, c));
    lc_module *m;
    LC_TRY(lc_module_create(cls, sizeof *c, &m));
    lc_resnet_config *config = lc_module_config(m);
    *config = *c;
    config->class_name = config->block.name = NULL; /* the config may be copied and outlive them */
    config->block.create = NULL;
    config->block.ctx = NULL;
    config->args.downsample = NULL;
    lc_status status = build(m, c);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}
