#include "nn/layer_util.h"
#include "nn/layers.h"

/* ---- max and average ---- */

static lc_status append_pool(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                             lc_value *out)
{
    const lc_pool2d_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    return lc_layer_image_op(g, &lc_op_pool2d, &c->attr, in[0], out);
}

const lc_module_class lc_class_max_pool2d = {"MaxPool2d", append_pool, NULL, NULL,
                                             sizeof(lc_pool2d_config)};
const lc_module_class lc_class_avg_pool2d = {"AvgPool2d", append_pool, NULL, NULL,
                                             sizeof(lc_pool2d_config)};

static lc_status create_pool(const lc_module_class *cls, const lc_pool2d_config *config,
                             uint32_t kind, lc_module **out)
{
    static const char *const size[] = {"kernel height",  "kernel width",    "stride height",
                                       "stride width",   "dilation height", "dilation width",
                                       "padding height", "padding width"};
    lc_pool2d_attr a = {.kind = kind, .divisor = config->attr.divisor};
    a.ceil_mode = config->attr.ceil_mode != 0;
    a.count_include_pad = config->attr.count_include_pad != 0;
    a.pad_with_zeros = config->attr.pad_with_zeros != 0;
    for (int i = 0; i < 2; i++) {
        a.kernel[i] = config->attr.kernel[i];
        a.stride[i] = config->attr.stride[i] ? config->attr.stride[i] : a.kernel[i];
        a.dilation[i] = config->attr.dilation[i] ? config->attr.dilation[i] : 1;
        a.pad[i] = config->attr.pad[i];
        LC_TRY(lc_layer_size(cls->name, size[i], a.kernel[i], 1));
        LC_TRY(lc_layer_size(cls->name, size[2 + i], a.stride[i], 1));
        LC_TRY(lc_layer_size(cls->name, size[4 + i], a.dilation[i], 1));
        LC_TRY(lc_layer_size(cls->name, size[6 + i], a.pad[i], 0));
    }
    lc_module *m;
    LC_TRY(lc_module_create(cls, sizeof *config, &m));
    ((lc_pool2d_config *)lc_module_config(m))->attr = a;
    *out = m;
    return LC_OK;
}

lc_status lc_max_pool2d_create(const lc_pool2d_config *c, lc_module **out)
{
    return create_pool(&lc_class_max_pool2d, c, LC_POOL_MAX, out);
}

lc_status lc_avg_pool2d_create(const lc_pool2d_config *c, lc_module **out)
{
    return create_pool(&lc_class_avg_pool2d, c, LC_POOL_AVG, out);
}

/* ---- adaptive ---- */

static lc_status adaptive_average(lc_graph *g, lc_value x, const int64_t size[2], lc_value *out)
{
    const lc_desc *d = lc_graph_desc(g, x);
    lc_adaptive_pool2d_attr attr = {.kind = LC_POOL_AVG};
    for (int i = 0; i < 2; i++) /* a wrong rank is for the op to report */
        attr.out[i] = size[i] || d->rank < 2 ? size[i] : d->dim[d->rank - 2 + i];
    return lc_layer_image_op(g, &lc_op_adaptive_pool2d, &attr, x, out);
}

static lc_status append_adaptive(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                 lc_value *out)
{
    const lc_adaptive_pool2d_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    return adaptive_average(g, in[0], c->out, out);
}

const lc_module_class lc_class_adaptive_avg_pool2d = {"AdaptiveAvgPool2d", append_adaptive, NULL,
                                                      NULL, sizeof(lc_adaptive_pool2d_config)};

lc_status lc_adaptive_avg_pool2d_create(const lc_adaptive_pool2d_config *c, lc_module **out)
{
    lc_module *m;
    for (int i = 0; i < 2; i++)
        LC_TRY(lc_layer_size(lc_class_adaptive_avg_pool2d.name, "output size", c->out[i], 0));
    LC_TRY(lc_module_create(&lc_class_adaptive_avg_pool2d, sizeof *c, &m));
    *(lc_adaptive_pool2d_config *)lc_module_config(m) = *c;
    *out = m;
    return LC_OK;
}

/* ---- global average, flattened ---- */

static lc_status append_global(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                               lc_value *out)
{
    lc_value y;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(adaptive_average(g, in[0], (int64_t[]){1, 1}, &y));
    const lc_desc *d = lc_graph_desc(g, y);
    return lc_layer_reshape(g, y, d->rank - 2, d->dim, out);
}

const lc_module_class lc_class_global_avg_pool2d = {"GlobalAvgPool2d", append_global, NULL, NULL,
                                                    0};

lc_status lc_global_avg_pool2d_create(lc_module **out)
{
    return lc_module_create(&lc_class_global_avg_pool2d, 0, out);
}
