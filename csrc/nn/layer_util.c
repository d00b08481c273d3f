#include "nn/layer_util.h"

#include <inttypes.h>

#include "ops/ops.h"

lc_status lc_layer_one_input(const lc_module *m, int n_in)
{
    if (n_in == 1)
        return LC_OK;
    return lc_fail(LC_ERR_TYPE, "%s takes 1 input, got %d", lc_module_class_of(m)->name, n_in);
}

lc_status lc_layer_size(const char *layer, const char *what, int64_t value, int64_t min)
{
    if (value < min)
        return lc_fail(LC_ERR_VALUE, "%s: %s must be at least %" PRId64 ", got %" PRId64, layer,
                       what, min, value);
    if (value > INT32_MAX)
        return lc_fail(LC_ERR_VALUE, "%s: %s is too large: %" PRId64, layer, what, value);
    return LC_OK;
}

lc_status lc_layer_unary(lc_graph *g, const lc_op *op, const void *attr, lc_value x, lc_value *out)
{
    return lc_graph_append(g, op, attr, 1, &x, out);
}

lc_status lc_layer_reshape(lc_graph *g, lc_value x, int rank, const int64_t *dim, lc_value *out)
{
    lc_reshape_attr attr = {.rank = rank};
    for (int i = 0; i < rank; i++)
        attr.dim[i] = dim[i];
    return lc_layer_unary(g, &lc_op_reshape, &attr, x, out);
}

lc_status lc_layer_batch(lc_graph *g, lc_value x, lc_value *out, bool *added)
{
    const lc_desc *d = lc_graph_desc(g, x);
    *added = d->rank == 3;
    *out = x;
    if (!*added)
        return LC_OK;
    return lc_layer_reshape(g, x, 4, (int64_t[]){1, d->dim[0], d->dim[1], d->dim[2]}, out);
}

lc_status lc_layer_unbatch(lc_graph *g, lc_value y, bool added, lc_value *out)
{
    *out = y;
    if (!added)
        return LC_OK;
    const lc_desc *d = lc_graph_desc(g, y);
    return lc_layer_reshape(g, y, 3, (int64_t[]){d->dim[1], d->dim[2], d->dim[3]}, out);
}

lc_status lc_layer_image_op(lc_graph *g, const lc_op *op, const void *attr, lc_value x,
                            lc_value *out)
{
    bool added;
    LC_TRY(lc_layer_batch(g, x, &x, &added));
    LC_TRY(lc_layer_unary(g, op, attr, x, &x));
    return lc_layer_unbatch(g, x, added, out);
}
