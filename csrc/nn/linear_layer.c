#include <math.h>

#include "nn/init.h"
#include "nn/layer_util.h"
#include "nn/layers.h"

static lc_status append(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value args[3] = {in[0]};
    LC_TRY(lc_module_value(self, "weight", g, &args[1]));
    LC_TRY(lc_module_value(self, "bias", g, &args[2]));
    if (args[1] == LC_NONE)
        return lc_fail(LC_ERR_RUNTIME, "the weight of this Linear is None");
    lc_linear_attr attr = {.flags = args[2] == LC_NONE ? 0 : LC_CONV_BIAS};
    return lc_graph_append(g, &lc_op_linear, &attr, attr.flags ? 3 : 2, args, out);
}

static lc_status reset(lc_module *self, uint64_t seed, const char *path)
{
    double bound = 1 / sqrt(lc_init_fan_in(self, "weight"));
    LC_TRY(lc_init_uniform(self, "weight", seed, path, bound));
    return lc_init_uniform(self, "bias", seed, path, bound);
}

const lc_module_class lc_class_linear = {"Linear", append, NULL, reset, sizeof(lc_linear_config)};

static lc_status build(lc_module *m, const lc_linear_config *c)
{
    LC_TRY(lc_module_new_param(m, "weight", 2, (int64_t[]){c->out_features, c->in_features}));
    return c->bias ? lc_module_new_param(m, "bias", 1, &c->out_features)
                   : lc_module_set_param(m, "bias", NULL);
}

lc_status lc_linear_create(const lc_linear_config *c, lc_module **out)
{
    lc_module *m;
    LC_TRY(lc_layer_size(lc_class_linear.name, "in_features", c->in_features, 1));
    LC_TRY(lc_layer_size(lc_class_linear.name, "out_features", c->out_features, 1));
    LC_TRY(lc_module_create(&lc_class_linear, sizeof *c, &m));
    *(lc_linear_config *)lc_module_config(m) = *c;
    lc_status status = build(m, c);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}
