/* permute: the axes in another order. */
#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/strided.h"

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_permute_attr *a = attr;
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("permute", n_in, 1));
    LC_TRY(lc_check_movable("permute", &in[0]));
    if (a->rank != in[0].rank)
        return lc_fail(LC_ERR_VALUE, "permute: %d axes given, x of shape %s has %d dimensions",
                       a->rank, lc_shape_text(&in[0], text), in[0].rank);
    int64_t dim[LC_MAX_RANK];
    unsigned seen = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->axis[i] < 0 || a->axis[i] >= a->rank)
            return lc_fail(LC_ERR_INDEX, "permute: axis %d is out of range for x of shape %s",
                           a->axis[i], lc_shape_text(&in[0], text));
        if (seen & 1u << a->axis[i])
            return lc_fail(LC_ERR_VALUE, "permute: axis %d is given twice", a->axis[i]);
        seen |= 1u << a->axis[i];
        dim[i] = in[0].dim[a->axis[i]];
    }
    *n_out = 1;
    return lc_desc_init(&out[0], (lc_dtype)in[0].dtype, a->rank, dim);
}

/* The same bytes if the axes longer than 1 keep their order. */
static bool is_view(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)n_in;
    const lc_permute_attr *a = attr;
    if (in->layout.block > 1 || out->layout.block > 1)
        return false;
    int before = -1;
    for (int i = 0; i < a->rank; i++) {
        if (in->dim[a->axis[i]] == 1)
            continue;
        if (a->axis[i] < before)
            return false;
        before = a->axis[i];
    }
    return true;
}

static lc_status prepare(lc_step *step)
{
    const lc_permute_attr *a = step->attr;
    int64_t own[LC_MAX_RANK], stride[LC_MAX_RANK];
    lc_plain_strides(&step->in[0], own);
    for (int i = 0; i < a->rank; i++)
        stride[i] = own[a->axis[i]];
    return lc_strided_prepare(step, &step->out[0], 0, stride);
}

static lc_status backward(const lc_backward *g)
{
    const lc_permute_attr *a = g->attr;
    lc_permute_attr back = {.rank = a->rank};
    for (int i = 0; i < a->rank; i++)
        back.axis[a->axis[i]] = i;
    return lc_grad_node(g->b, &lc_op_permute, &back, 1, &g->dy[0], &g->dx[0]);
}

const lc_op lc_op_permute = {
    .name = "permute",
    .attr_size = sizeof(lc_permute_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .is_view = is_view,
    .prepare = prepare,
    .run = lc_strided_run,
    .backward = backward,
};
