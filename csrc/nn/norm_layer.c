#include <inttypes.h>

#include "nn/init.h"
#include "nn/layer_util.h"
#include "nn/layers.h"

/* The parameter or buffer of that name; NULL for "None". */
static lc_param *param_of(const lc_module *self, const char *name)
{
    lc_entry e;
    return lc_module_find(self, name, &e) && e.kind != LC_ENTRY_CHILD ? e.param : NULL;
}

/* Statistics of this very input: mean and 1 / standard deviation, (C) each. In training the running
 * ones go on from running[], and so does the count of batches that a cumulative average needs. */
static lc_status batch_statistics(lc_module *self, lc_graph *g, lc_value x,
                                  const lc_value running[2], lc_value stats[2])
{
    static const char *const names[] = {"running_mean", "running_var"};
    const lc_batch_norm_config *c = lc_module_config(self);
    lc_batch_stats_attr attr = {.eps = (float)c->eps};
    lc_value in[4] = {x, running[0], running[1]}, out[LC_MAX_OUT], count;
    int n = 1;
    if (running[0] != LC_NONE && lc_module_is_training(self)) {
        attr.track = c->momentum < 0 ? LC_STATS_COUNT : LC_STATS_MOMENTUM;
        attr.momentum = c->momentum < 0 ? 0 : (float)c->momentum;
        n = 3;
    }
    lc_param *batches = attr.track == LC_STATS_COUNT ? param_of(self, "num_batches_tracked") : NULL;
    if (attr.track == LC_STATS_COUNT) {
        if (!batches)
            return lc_fail(LC_ERR_RUNTIME,
                           "BatchNorm2d: momentum=None needs the buffer num_batches_tracked");
        LC_TRY(lc_graph_param(g, batches, &in[n++]));
    }
    LC_TRY(lc_graph_append(g, &lc_op_batch_stats, &attr, n, in, out));
    for (int i = 0; i < 2; i++) {
        stats[i] = out[i];
        if (attr.track)
            LC_TRY(lc_graph_effect(g, out[2 + i], param_of(self, names[i])));
    }
    if (!batches)
        return LC_OK;
    lc_unary_attr next = {LC_UNARY_SCALE_SHIFT, 1.0f, 1.0f};
    LC_TRY(lc_layer_unary(g, &lc_op_unary, &next, in[3], &count));
    return lc_graph_effect(g, count, batches);
}

/* *stop: the input has no element and is the output as well. */
static lc_status check_batch(const lc_graph *g, lc_value x, int64_t features, bool *stop)
{
    const lc_desc *d = lc_graph_desc(g, x);
    char text[LC_SHAPE_TEXT];
    if (d->dim[1] != features)
        return lc_fail(LC_ERR_VALUE, "batch_norm: expected %" PRId64 " channels, got input %s",
                       features, lc_shape_text(d, text));
    if (lc_desc_count(d) == features)
        return lc_fail(LC_ERR_VALUE,
                       "Expected more than 1 value per channel when training, got input size %s",
                       lc_shape_text(d, text));
    *stop = lc_desc_count(d) == 0;
    return LC_OK;
}

static lc_status append(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    const lc_batch_norm_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value x = in[0], gamma, beta, stats[2], args[5];
    const lc_desc *d = lc_graph_desc(g, x);
    char text[LC_SHAPE_TEXT];
    if (d->rank != 4)
        return lc_fail(LC_ERR_VALUE,
                       "expected 4D input (got %dD input): (N, C, H, W), not shape %s", d->rank,
                       lc_shape_text(d, text));
    LC_TRY(lc_module_value(self, "weight", g, &gamma));
    LC_TRY(lc_module_value(self, "bias", g, &beta));
    LC_TRY(lc_module_value(self, "running_mean", g, &stats[0]));
    LC_TRY(lc_module_value(self, "running_var", g, &stats[1]));
    if ((gamma == LC_NONE) != (beta == LC_NONE))
        return lc_fail(LC_ERR_RUNTIME,
                       "BatchNorm2d: weight and bias must both be given or both be None");
    if ((stats[0] == LC_NONE) != (stats[1] == LC_NONE))
        return lc_fail(
            LC_ERR_RUNTIME,
            "BatchNorm2d: running_mean and running_var must both be given or both be None");
    bool batch = lc_module_is_training(self) || stats[0] == LC_NONE;
    if (batch) {
        bool stop = false;
        LC_TRY(check_batch(g, x, c->features, &stop));
        *out = x;
        if (stop)
            return LC_OK;
        LC_TRY(batch_statistics(self, g, x, (lc_value[]){stats[0], stats[1]}, stats));
    }
    lc_batch_norm_attr attr = {.eps = (float)c->eps, .affine = gamma != LC_NONE, .batch = batch};
    int n = 0;
    args[n++] = x;
    if (attr.affine) {
        args[n++] = gamma;
        args[n++] = beta;
    }
    args[n++] = stats[0];
    args[n++] = stats[1];
    return lc_graph_append(g, &lc_op_batch_norm, &attr, n, args, out);
}

static lc_status reset(lc_module *self, uint64_t seed, const char *path)
{
    (void)seed, (void)path;
    const lc_batch_norm_config *c = lc_module_config(self);
    LC_TRY(lc_init_constant(self, "weight", c->zero_init ? 0.0f : 1.0f));
    LC_TRY(lc_init_constant(self, "bias", 0.0f));
    if (param_of(self, "num_batches_tracked"))
        LC_TRY(lc_init_constant(self, "num_batches_tracked", 0.0f));
    LC_TRY(lc_init_constant(self, "running_mean", 0.0f));
    return lc_init_constant(self, "running_var", 1.0f);
}

const lc_module_class lc_class_batch_norm2d = {"BatchNorm2d", append, NULL, reset,
                                               sizeof(lc_batch_norm_config)};

void lc_batch_norm_config_init(lc_batch_norm_config *c, int64_t features)
{
    *c = (lc_batch_norm_config){.features = features,
                                .eps = 1e-5,
                                .momentum = 0.1,
                                .affine = true,
                                .track_running_stats = true};
}

static lc_status build(lc_module *m, const lc_batch_norm_config *c)
{
    static const char *const param[] = {"weight", "bias"}, *const buffer[] = {"running_mean",
                                                                              "running_var"};
    for (int i = 0; i < 2; i++)
        LC_TRY(c->affine ? lc_module_new_param(m, param[i], 1, &c->features)
                         : lc_module_set_param(m, param[i], NULL));
    for (int i = 0; i < 2; i++)
        LC_TRY(c->track_running_stats ? lc_module_new_buffer(m, buffer[i], 1, &c->features)
                                      : lc_module_set_buffer(m, buffer[i], NULL, true));
    if (c->track_running_stats && c->momentum < 0)
        LC_TRY(lc_module_new_buffer(m, "num_batches_tracked", 0, NULL));
    return LC_OK;
}

lc_status lc_batch_norm2d_create(const lc_batch_norm_config *c, lc_module **out)
{
    lc_module *m;
    LC_TRY(lc_layer_size(lc_class_batch_norm2d.name, "num_features", c->features, 1));
    LC_TRY(lc_module_create(&lc_class_batch_norm2d, sizeof *c, &m));
    *(lc_batch_norm_config *)lc_module_config(m) = *c;
    lc_status status = build(m, c);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}
