/* Sequential, ModuleList, ConvBNReLU2d. */
#include "nn/layer_util.h"
#include "nn/layers.h"

static lc_status append_sequential(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                   lc_value *out)
{
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value x = in[0];
    for (int i = 0; i < lc_module_entry_count(self); i++) {
        lc_entry e = lc_module_entry(self, i);
        if (e.kind == LC_ENTRY_CHILD)
            LC_TRY(lc_module_call(self, e.name, g, x, &x));
    }
    *out = x;
    return LC_OK;
}

static lc_status append_module_list(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                    lc_value *out)
{
    (void)self, (void)g, (void)n_in, (void)in, (void)out;
    return lc_fail(LC_ERR_RUNTIME,
                   "Module [ModuleList] is missing the required \"forward\" function");
}

const lc_module_class lc_class_sequential = {"Sequential", append_sequential, NULL, NULL, 0};
const lc_module_class lc_class_module_list = {"ModuleList", append_module_list, NULL, NULL, 0};

lc_status lc_sequential_create(lc_module **out)
{
    return lc_module_create(&lc_class_sequential, 0, out);
}

lc_status lc_module_list_create(lc_module **out)
{
    return lc_module_create(&lc_class_module_list, 0, out);
}

/* n in decimal digits. */
static const char *number_text(int n, char buf[16])
{
    char *p = buf + 15;
    *p = '\0';
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    return p;
}

lc_status lc_container_push(lc_module *container, lc_module *child)
{
    char buf[16];
    lc_entry e;
    int n = 0;
    for (int i = 0; i < lc_module_entry_count(container); i++)
        n += lc_module_entry(container, i).kind == LC_ENTRY_CHILD;
    while (lc_module_find(container, number_text(n, buf), &e))
        n++;
    return lc_module_adopt(container, number_text(n, buf), child);
}

/* ---- convolution, batch norm, ReLU ---- */

static lc_status append_conv_bn_relu(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                     lc_value *out)
{
    lc_value x;
    LC_TRY(lc_layer_one_input(self, n_in));
    LC_TRY(lc_module_call(self, "conv", g, in[0], &x));
    LC_TRY(lc_module_call(self, "bn", g, x, &x));
    return lc_module_call(self, "relu", g, x, out);
}

const lc_module_class lc_class_conv_bn_relu2d = {"ConvBNReLU2d", append_conv_bn_relu, NULL, NULL,
                                                 0};

static lc_status build_conv_bn_relu(lc_module *m, const lc_conv2d_config *c, double eps,
                                    double momentum)
{
    lc_module *child;
    lc_batch_norm_config norm;
    LC_TRY(lc_conv2d_create(c, &child));
    LC_TRY(lc_module_adopt(m, "conv", child));
    lc_batch_norm_config_init(&norm, c->out_channels);
    norm.eps = eps;
    norm.momentum = momentum;
    LC_TRY(lc_batch_norm2d_create(&norm, &child));
    LC_TRY(lc_module_adopt(m, "bn", child));
    LC_TRY(lc_relu_create(true, &child));
    return lc_module_adopt(m, "relu", child);
}

lc_status lc_conv_bn_relu2d_create(const lc_conv2d_config *c, double eps, double momentum,
                                   lc_module **out)
{
    lc_module *m;
    LC_TRY(lc_module_create(&lc_class_conv_bn_relu2d, 0, &m));
    lc_status status = build_conv_bn_relu(m, c, eps, momentum);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}
