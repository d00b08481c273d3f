#include <inttypes.h>
#include <math.h>

#include "nn/init.h"
#include "nn/layer_util.h"
#include "nn/layers.h"

static lc_status append(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    const lc_conv2d_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value args[3];
    bool added;
    LC_TRY(lc_layer_batch(g, in[0], &args[0], &added));
    LC_TRY(lc_module_value(self, "weight", g, &args[1]));
    LC_TRY(lc_module_value(self, "bias", g, &args[2]));
    if (args[1] == LC_NONE)
        return lc_fail(LC_ERR_RUNTIME, "the weight of this Conv2d is None");
    lc_conv2d_attr attr = {.groups = c->groups, .flags = args[2] == LC_NONE ? 0 : LC_CONV_BIAS};
    for (int i = 0; i < 2; i++) {
        attr.stride[i] = c->stride[i];
        attr.dilation[i] = c->dilation[i];
    }
    for (int i = 0; i < 4; i++)
        attr.pad[i] = c->pad[i];
    lc_value y;
    LC_TRY(lc_graph_append(g, &lc_op_conv2d, &attr, attr.flags ? 3 : 2, args, &y));
    return lc_layer_unbatch(g, y, added, out);
}

/* He et al. 2015, in the form that the ResNet code uses: the variance of gradients is kept. */
static lc_status reset(lc_module *self, uint64_t seed, const char *path)
{
    double fan_in = lc_init_fan_in(self, "weight"), fan_out = lc_init_fan_out(self, "weight");
    LC_TRY(lc_init_normal(self, "weight", seed, path, sqrt(2 / fan_out)));
    return lc_init_uniform(self, "bias", seed, path, 1 / sqrt(fan_in));
}

const lc_module_class lc_class_conv2d = {"Conv2d", append, NULL, reset, sizeof(lc_conv2d_config)};

/* Defaults put in, padding worked out. */
static lc_status complete(lc_conv2d_config *c)
{
    static const char *const axis[] = {"kernel height", "kernel width",    "stride height",
                                       "stride width",  "dilation height", "dilation width"};
    const char *name = lc_class_conv2d.name;
    for (int i = 0; i < 2; i++) {
        if (c->stride[i] == 0)
            c->stride[i] = 1;
        if (c->dilation[i] == 0)
            c->dilation[i] = 1;
        LC_TRY(lc_layer_size(name, axis[i], c->kernel[i], 1));
        LC_TRY(lc_layer_size(name, axis[2 + i], c->stride[i], 1));
        LC_TRY(lc_layer_size(name, axis[4 + i], c->dilation[i], 1));
    }
    if (c->groups == 0)
        c->groups = 1;
    LC_TRY(lc_layer_size(name, "in_channels", c->in_channels, 1));
    LC_TRY(lc_layer_size(name, "out_channels", c->out_channels, 1));
    LC_TRY(lc_layer_size(name, "groups", c->groups, 1));
    if (c->in_channels % c->groups)
        return lc_fail(LC_ERR_VALUE,
                       "in_channels must be divisible by groups, got %" PRId64 " and %" PRId64,
                       c->in_channels, c->groups);
    if (c->out_channels % c->groups)
        return lc_fail(LC_ERR_VALUE,
                       "out_channels must be divisible by groups, got %" PRId64 " and %" PRId64,
                       c->out_channels, c->groups);
    if (c->pad_mode > 2)
        return lc_fail(LC_ERR_VALUE, "Conv2d: unknown padding mode %d", c->pad_mode);
    if (c->pad_mode == 1 && (c->stride[0] != 1 || c->stride[1] != 1))
        return lc_fail(LC_ERR_VALUE, "padding='same' is not supported for strided convolutions");
    for (int i = 0; c->pad_mode && i < 2; i++) {
        int64_t total = c->pad_mode == 1 ? c->dilation[i] * (c->kernel[i] - 1) : 0;
        c->pad[2 * i] = total / 2;
        c->pad[2 * i + 1] = total - total / 2;
    }
    for (int i = 0; i < 4; i++)
        LC_TRY(lc_layer_size(name, "padding", c->pad[i], 0));
    return LC_OK;
}

static lc_status build(lc_module *m, const lc_conv2d_config *c)
{
    LC_TRY(lc_module_new_param(
        m, "weight", 4,
        (int64_t[]){c->out_channels, c->in_channels / c->groups, c->kernel[0], c->kernel[1]}));
    return c->bias ? lc_module_new_param(m, "bias", 1, &c->out_channels)
                   : lc_module_set_param(m, "bias", NULL);
}

lc_status lc_conv2d_create(const lc_conv2d_config *config, lc_module **out)
{
    lc_conv2d_config c = *config;
    LC_TRY(complete(&c));
    lc_module *m;
    LC_TRY(lc_module_create(&lc_class_conv2d, sizeof c, &m));
    *(lc_conv2d_config *)lc_module_config(m) = c;
    lc_status status = build(m, &c);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}
