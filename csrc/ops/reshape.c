/* reshape: another shape for the same elements. Nearly always a view; the copy is for results
 * that must be memory of their own. */
#include <string.h>

#include "ops/grad_util.h"
#include "ops/op_util.h"
#include "ops/ops.h"

#define UNIT 1024 /* bytes */

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_reshape_attr *a = attr;
    LC_TRY(lc_check_inputs("reshape", n_in, 1));
    LC_TRY(lc_check_movable("reshape", &in[0]));
    if (a->rank < 0 || a->rank > LC_MAX_RANK)
        return lc_fail(LC_ERR_VALUE, "reshape: shape has %lld dimensions; at most %d are possible",
                       (long long)a->rank, LC_MAX_RANK);
    lc_status status = lc_desc_init(&out[0], (lc_dtype)in[0].dtype, (int)a->rank, a->dim);
    if (status != LC_OK)
        return lc_fail_in(status, "reshape");
    if (lc_desc_count(&out[0]) != lc_desc_count(&in[0])) {
        char from[LC_SHAPE_TEXT], to[LC_SHAPE_TEXT];
        return lc_fail(LC_ERR_VALUE,
                       "reshape: x of shape %s has %lld elements, shape %s takes %lld",
                       lc_shape_text(&in[0], from), (long long)lc_desc_count(&in[0]),
                       lc_shape_text(&out[0], to), (long long)lc_desc_count(&out[0]));
    }
    *n_out = 1;
    return LC_OK;
}

static bool is_view(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr, (void)n_in;
    return in->layout.block == 1 && out->layout.block == 1;
}

static lc_status prepare(lc_step *step)
{
    LC_TRY(lc_step_prep(step, sizeof(lc_units)));
    int64_t bytes = (int64_t)lc_desc_bytes(&step->out[0]);
    step->items[0] = lc_units_set(step->prep, (bytes + UNIT - 1) / UNIT, UNIT / sizeof(float));
    return LC_OK;
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    int64_t first, last, bytes = (int64_t)lc_desc_bytes(&step->out[0]);
    lc_units_range(step->prep, begin, end, &first, &last);
    first *= UNIT;
    last = last * UNIT < bytes ? last * UNIT : bytes;
    if (first < last)
        memcpy((char *)bind->out[0] + first, (const char *)bind->in[0] + first,
               (size_t)(last - first));
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    const lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    return lc_grad_reshape(g->b, g->dy[0], &x, g->dx);
}

const lc_op lc_op_reshape = {
    .name = "reshape",
    .attr_size = sizeof(lc_reshape_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .is_view = is_view,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
