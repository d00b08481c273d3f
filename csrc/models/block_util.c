#include "models/block_util.h"

#include <inttypes.h>

#include "nn/layer_util.h"

lc_status lc_add_conv_config(lc_module *m, const char *name, const lc_conv2d_config *c)
{
    lc_module *child;
    LC_TRY(lc_conv2d_create(c, &child));
    return lc_module_adopt(m, name, child);
}

lc_conv2d_config lc_square_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                int64_t dilation, int64_t groups)
{
    int64_t pad = dilation * (kernel - 1) / 2;
    return (lc_conv2d_config){.in_channels = in,
                              .out_channels = out,
                              .kernel = {kernel, kernel},
                              .stride = {stride, stride},
                              .pad = {pad, pad, pad, pad},
                              .dilation = {dilation, dilation},
                              .groups = groups};
}

lc_status lc_add_conv(lc_module *m, const char *name, int64_t in, int64_t out, int64_t kernel,
                      int64_t stride)
{
    lc_conv2d_config c = lc_square_conv(in, out, kernel, stride, 1, 1);
    return lc_add_conv_config(m, name, &c);
}

lc_status lc_add_norm(lc_module *m, const char *name, int64_t features, bool zero_init)
{
    lc_batch_norm_config c;
    lc_module *child;
    lc_batch_norm_config_init(&c, features);
    c.zero_init = zero_init;
    LC_TRY(lc_batch_norm2d_create(&c, &child));
    return lc_module_adopt(m, name, child);
}

lc_status lc_add_relu(lc_module *m, const char *name)
{
    lc_module *child;
    LC_TRY(lc_relu_create(true, &child));
    return lc_module_adopt(m, name, child);
}

lc_status lc_add_identity(lc_module *m, const char *name)
{
    lc_module *child;
    LC_TRY(lc_identity_create(&child));
    return lc_module_adopt(m, name, child);
}

lc_status lc_add_avg_pool(lc_module *m, const char *name, const lc_pool2d_attr *attr)
{
    lc_pool2d_config c = {*attr};
    lc_module *child;
    LC_TRY(lc_avg_pool2d_create(&c, &child));
    return lc_module_adopt(m, name, child);
}

lc_status lc_add_drop_block(lc_module *m, double p)
{
    lc_module *child;
    if (p == 0)
        return LC_OK;
    LC_TRY(lc_drop_block2d_create(&(lc_drop_block_config){p, 3}, &child));
    return lc_module_adopt(m, "drop_block", child);
}

static lc_status add_drop_path(lc_module *m, double p)
{
    lc_module *child;
    if (p == 0)
        return LC_OK;
    LC_TRY(lc_drop_path_create(&(lc_drop_path_config){p, true}, &child));
    return lc_module_adopt(m, "drop_path", child);
}

void lc_block_args_init(lc_block_args *a)
{
    *a = (lc_block_args){
        .stride = 1, .cardinality = 1, .base_width = 64, .dilation = 1, .radix = 2, .avd = true};
}

static lc_status check_args(const char *name, const lc_block_args *a)
{
    LC_TRY(lc_layer_size(name, "in_channels", a->in_channels, 1));
    LC_TRY(lc_layer_size(name, "out_channels", a->out_channels, 1));
    LC_TRY(lc_layer_size(name, "stride", a->stride, 1));
    LC_TRY(lc_layer_size(name, "cardinality", a->cardinality, 1));
    LC_TRY(lc_layer_size(name, "base_width", a->base_width, 1));
    return lc_layer_size(name, "dilation", a->dilation, 1);
}

static lc_status fill_block(lc_module *m, const lc_block_args *a,
                            lc_status (*build)(lc_module *m, const lc_block_args *a))
{
    lc_block_args *config = lc_module_config(m);
    *config = *a;
    config->downsample = NULL; /* the child is the reference */
    LC_TRY(build(m, a));
    LC_TRY(lc_add_drop_block(m, a->drop_block));
    LC_TRY(add_drop_path(m, a->drop_path));
    return lc_module_set_child(m, "downsample", a->downsample);
}

lc_status lc_block_make(const lc_module_class *cls, const lc_block_args *a,
                        lc_status (*build)(lc_module *m, const lc_block_args *a), lc_module **out)
{
    lc_module *m = NULL;
    lc_status status = LC_OK;
    LC_TRY_GOTO(check_args(cls->name, a), done);
    LC_TRY_GOTO(lc_module_create(cls, sizeof *a, &m), done);
    LC_TRY_GOTO(fill_block(m, a, build), done);
    *out = lc_module_retain(m);
done:
    lc_module_release(m);
    lc_module_release(a->downsample);
    return status;
}

lc_status lc_block_width(const char *name, const lc_block_args *a, int64_t *out)
{
    int64_t each = a->out_channels * a->base_width / 64;
    if (each < 1 || each > INT32_MAX || each * a->cardinality > INT32_MAX)
        return lc_fail(LC_ERR_VALUE,
                       "%s: %" PRId64 " channels with base_width %" PRId64
                       " and cardinality %" PRId64 " give a width of %s",
                       name, a->out_channels, a->base_width, a->cardinality,
                       each < 1 ? "0" : "more than 2^31 channels");
    *out = each * a->cardinality;
    return LC_OK;
}

bool lc_has_child(const lc_module *m, const char *name)
{
    lc_entry e;
    return lc_module_find(m, name, &e) && e.child;
}

lc_status lc_call_chain(lc_module *m, lc_graph *g, int n, const char *const *names, lc_value x,
                        lc_value *out)
{
    for (int i = 0; i < n; i++) {
        bool optional = names[i][0] == '?';
        const char *name = names[i] + optional;
        if (!optional || lc_has_child(m, name))
            LC_TRY(lc_module_call(m, name, g, x, &x));
    }
    *out = x;
    return LC_OK;
}

lc_status lc_call_shortcut(lc_module *m, lc_graph *g, lc_value x, lc_value *out)
{
    *out = x;
    return lc_has_child(m, "downsample") ? lc_module_call(m, "downsample", g, x, out) : LC_OK;
}

lc_status lc_append_add(lc_graph *g, lc_value a, lc_value b, lc_value *out)
{
    lc_binary_attr attr = {.kind = LC_BINARY_ADD};
    return lc_graph_append(g, &lc_op_binary, &attr, 2, (lc_value[]){a, b}, out);
}
