/* Layers that drop at random in training and do nothing in eval mode. Each call of one takes a stream
 * of the process's random numbers. */
#include "base/random.h"
#include "nn/layer_util.h"
#include "nn/layers.h"
#include "ops/ops.h"

lc_status lc_layer_draw(lc_graph *g, double p, lc_value *out)
{
    if (!(p >= 0 && p <= 1))
        return lc_fail(LC_ERR_VALUE, "p must be between 0 and 1, not %g", p);
    lc_desc d;
    lc_random_state taken = lc_random_take();
    int64_t words = LC_DRAW_WORDS;
    LC_TRY(lc_desc_init(&d, LC_I64, 1, &words));
    return lc_graph_constant(g, &d, &(lc_draw){taken.seed, taken.stream, p}, out);
}

/* x through `op`, or as it is where nothing can be dropped. */
static lc_status append_drop(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                             const lc_op *op, double p, const void *attr, lc_value *out)
{
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value args[2] = {in[0], LC_NONE};
    *out = in[0];
    if (!lc_module_is_training(self) || p == 0)
        return LC_OK;
    LC_TRY(lc_layer_draw(g, p, &args[1]));
    return lc_graph_append(g, op, attr, 2, args, out);
}

static lc_status append_dropout(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                lc_value *out)
{
    const lc_dropout_config *c = lc_module_config(self);
    return append_drop(self, g, n_in, in, &lc_op_dropout, c->p, NULL, out);
}

static lc_status append_drop_path(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                  lc_value *out)
{
    const lc_drop_path_config *c = lc_module_config(self);
    lc_drop_path_attr attr = {c->scale_by_keep};
    return append_drop(self, g, n_in, in, &lc_op_drop_path, c->p, &attr, out);
}

static lc_status append_drop_block(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                   lc_value *out)
{
    const lc_drop_block_config *c = lc_module_config(self);
    lc_drop_block_attr attr = {c->block_size};
    return append_drop(self, g, n_in, in, &lc_op_drop_block, c->p, &attr, out);
}

const lc_module_class lc_class_dropout = {"Dropout", append_dropout, NULL, NULL,
                                          sizeof(lc_dropout_config)};
const lc_module_class lc_class_drop_path = {"DropPath", append_drop_path, NULL, NULL,
                                            sizeof(lc_drop_path_config)};
const lc_module_class lc_class_drop_block2d = {"DropBlock2d", append_drop_block, NULL, NULL,
                                               sizeof(lc_drop_block_config)};

static lc_status check_share(const char *what, double p)
{
    if (p >= 0 && p <= 1)
        return LC_OK;
    return lc_fail(LC_ERR_VALUE, "%s probability has to be between 0 and 1, but got %g", what, p);
}

lc_status lc_dropout_create(const lc_dropout_config *c, lc_module **out)
{
    LC_TRY(check_share("dropout", c->p));
    LC_TRY(lc_module_create(&lc_class_dropout, sizeof *c, out));
    *(lc_dropout_config *)lc_module_config(*out) = *c;
    return LC_OK;
}

lc_status lc_drop_path_create(const lc_drop_path_config *c, lc_module **out)
{
    LC_TRY(check_share("drop path", c->p));
    LC_TRY(lc_module_create(&lc_class_drop_path, sizeof *c, out));
    *(lc_drop_path_config *)lc_module_config(*out) = *c;
    return LC_OK;
}

lc_status lc_drop_block2d_create(const lc_drop_block_config *c, lc_module **out)
{
    LC_TRY(check_share("drop block", c->p));
    LC_TRY(lc_layer_size(lc_class_drop_block2d.name, "block_size", c->block_size, 1));
    LC_TRY(lc_module_create(&lc_class_drop_block2d, sizeof *c, out));
    *(lc_drop_block_config *)lc_module_config(*out) = *c;
    return LC_OK;
}
