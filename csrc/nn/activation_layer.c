/* Layers without parameters that are neither pools nor random: activations, identity, flatten. */
#include <inttypes.h>

#include "nn/layer_util.h"
#include "nn/layers.h"

/* ---- ReLU, sigmoid ---- */

static lc_status append_relu(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                             lc_value *out)
{
    lc_unary_attr attr = {.kind = LC_UNARY_RELU};
    LC_TRY(lc_layer_one_input(self, n_in));
    return lc_layer_unary(g, &lc_op_unary, &attr, in[0], out);
}

static lc_status append_sigmoid(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                lc_value *out)
{
    lc_unary_attr attr = {.kind = LC_UNARY_SIGMOID};
    LC_TRY(lc_layer_one_input(self, n_in));
    return lc_layer_unary(g, &lc_op_unary, &attr, in[0], out);
}

const lc_module_class lc_class_relu = {"ReLU", append_relu, NULL, NULL, sizeof(lc_relu_config)};
const lc_module_class lc_class_sigmoid = {"Sigmoid", append_sigmoid, NULL, NULL, 0};

lc_status lc_relu_create(bool inplace, lc_module **out)
{
    LC_TRY(lc_module_create(&lc_class_relu, sizeof(lc_relu_config), out));
    ((lc_relu_config *)lc_module_config(*out))->inplace = inplace;
    return LC_OK;
}

lc_status lc_sigmoid_create(lc_module **out)
{
    return lc_module_create(&lc_class_sigmoid, 0, out);
}

/* ---- softmax, flatten: axes ---- */

/* Python's axis as 0 .. rank - 1; a scalar counts as having one axis. */
static lc_status resolve_axis(int64_t axis, int rank, int *out)
{
    int axes = rank ? rank : 1;
    if (axis < -axes || axis >= axes)
        return lc_fail(
            LC_ERR_INDEX,
            "Dimension out of range (expected to be in range of [%d, %d], but got %" PRId64 ")",
            -axes, axes - 1, axis);
    *out = (int)(axis < 0 ? axis + axes : axis);
    return LC_OK;
}

static lc_status append_softmax(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                lc_value *out)
{
    const lc_softmax_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    lc_value x = in[0];
    int rank = lc_graph_desc(g, x)->rank, axis = 0;
    int64_t one = 1, implicit = rank == 0 || rank == 1 || rank == 3 ? 0 : 1;
    LC_TRY(resolve_axis(c->has_dim ? c->dim : implicit, rank, &axis));
    lc_softmax_attr attr = {.axis = axis};
    if (rank)
        return lc_layer_unary(g, &lc_op_softmax, &attr, x, out);
    LC_TRY(lc_layer_reshape(g, x, 1, &one, &x));
    LC_TRY(lc_layer_unary(g, &lc_op_softmax, &attr, x, &x));
    return lc_layer_reshape(g, x, 0, NULL, out);
}

static lc_status append_flatten(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                lc_value *out)
{
    const lc_flatten_config *c = lc_module_config(self);
    LC_TRY(lc_layer_one_input(self, n_in));
    const lc_desc *d = lc_graph_desc(g, in[0]);
    int first = 0, last = 0, rank = 0;
    LC_TRY(resolve_axis(c->start_dim, d->rank, &first));
    LC_TRY(resolve_axis(c->end_dim, d->rank, &last));
    if (first > last)
        return lc_fail(LC_ERR_RUNTIME,
                       "flatten() has invalid args: start_dim cannot come after end_dim");
    int64_t dim[LC_MAX_RANK] = {1};
    for (int i = 0; i < d->rank; i++) {
        if (i > first && i <= last)
            dim[rank - 1] *= d->dim[i];
        else
            dim[rank++] = d->dim[i];
    }
    *out = in[0];
    if (d->rank && first == last)
        return LC_OK;
    return lc_layer_reshape(g, in[0], d->rank ? rank : 1, dim, out);
}

const lc_module_class lc_class_softmax = {"Softmax", append_softmax, NULL, NULL,
                                          sizeof(lc_softmax_config)};
const lc_module_class lc_class_flatten = {"Flatten", append_flatten, NULL, NULL,
                                          sizeof(lc_flatten_config)};

lc_status lc_softmax_create(const lc_softmax_config *c, lc_module **out)
{
    LC_TRY(lc_module_create(&lc_class_softmax, sizeof *c, out));
    *(lc_softmax_config *)lc_module_config(*out) = *c;
    return LC_OK;
}

lc_status lc_flatten_create(const lc_flatten_config *c, lc_module **out)
{
    LC_TRY(lc_module_create(&lc_class_flatten, sizeof *c, out));
    *(lc_flatten_config *)lc_module_config(*out) = *c;
    return LC_OK;
}

/* ---- identity ---- */

static lc_status append_identity(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                                 lc_value *out)
{
    (void)g;
    LC_TRY(lc_layer_one_input(self, n_in));
    *out = in[0];
    return LC_OK;
}

const lc_module_class lc_class_identity = {"Identity", append_identity, NULL, NULL, 0};

lc_status lc_identity_create(lc_module **out)
{
    return lc_module_create(&lc_class_identity, 0, out);
}
