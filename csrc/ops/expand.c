/* expand: repeats axes of size 1, and adds axes in front (numpy.broadcast_to). */
#include "ops/grad_util.h"
#include "ops/strided.h"

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_expand_attr *a = attr;
    char from[LC_SHAPE_TEXT], to[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("expand", n_in, 1));
    LC_TRY(lc_check_movable("expand", &in[0]));
    if (a->rank < 0 || a->rank > LC_MAX_RANK)
        return lc_fail(LC_ERR_VALUE, "expand: shape has %lld dimensions; at most %d are possible",
                       (long long)a->rank, LC_MAX_RANK);
    lc_status status = lc_desc_init(&out[0], (lc_dtype)in[0].dtype, (int)a->rank, a->dim);
    if (status != LC_OK)
        return lc_fail_in(status, "expand");
    bool fits = a->rank >= in[0].rank;
    for (int i = 1; i <= in[0].rank && fits; i++) {
        int64_t size = in[0].dim[in[0].rank - i];
        fits = size == 1 || size == out[0].dim[a->rank - i];
    }
    if (!fits)
        return lc_fail(LC_ERR_VALUE, "expand: x of shape %s cannot be expanded to %s",
                       lc_shape_text(&in[0], from), lc_shape_text(&out[0], to));
    *n_out = 1;
    return LC_OK;
}

static bool is_view(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr, (void)n_in;
    return in->layout.block == 1 && out->layout.block == 1 &&
           lc_desc_count(in) == lc_desc_count(out);
}

static lc_status prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    int64_t own[LC_MAX_RANK], stride[LC_MAX_RANK] = {0};
    lc_plain_strides(x, own);
    for (int i = 1; i <= x->rank; i++)
        stride[y->rank - i] = x->dim[x->rank - i] == 1 ? 0 : own[x->rank - i];
    return lc_strided_prepare(step, y, 0, stride);
}

static lc_status backward(const lc_backward *g)
{
    const lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    return lc_grad_sum_to(g->b, g->dy[0], &x, g->dx);
}

const lc_op lc_op_expand = {
    .name = "expand",
    .attr_size = sizeof(lc_expand_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .is_view = is_view,
    .prepare = prepare,
    .run = lc_strided_run,
    .backward = backward,
};
