/* slice: start, step and count per axis. */
#include "ops/ops.h"
#include "ops/strided.h"

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_slice_attr *a = attr;
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("slice", n_in, 1));
    LC_TRY(lc_check_movable("slice", &in[0]));
    for (int i = 0; i < in[0].rank; i++) {
        int64_t size = in[0].dim[i], start = a->start[i], step = a->step[i], count = a->count[i];
        if (step == 0)
            return lc_fail(LC_ERR_VALUE, "slice: the step along axis %d must not be 0", i);
        if (count < 0)
            return lc_fail(LC_ERR_VALUE,
                           "slice: the count along axis %d must not be negative: %lld", i,
                           (long long)count);
        if (count == 0)
            continue;
        /* How many elements there are from start on, in the direction of the step; size < 2^52. */
        int64_t room = start < 0 || start >= size ? 0
                       : step > 0                 ? (size - 1 - start) / step + 1
                       : step < -size             ? 1
                                                  : start / -step + 1;
        if (count > room)
            return lc_fail(
                LC_ERR_INDEX,
                "slice: %lld elements from %lld on by steps of %lld leave axis %d of x of shape %s",
                (long long)count, (long long)start, (long long)step, i,
                lc_shape_text(&in[0], text));
    }
    *n_out = 1;
    return lc_desc_init(&out[0], (lc_dtype)in[0].dtype, in[0].rank, a->count);
}

static bool is_view(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)n_in;
    const lc_slice_attr *a = attr;
    if (in->layout.block > 1 || out->layout.block > 1 || !lc_desc_same_shape(in, out))
        return false;
    for (int i = 0; i < in->rank; i++)
        if (in->dim[i] > 1 && a->step[i] != 1)
            return false;
    return true;
}

static lc_status prepare(lc_step *step)
{
    const lc_slice_attr *a = step->attr;
    int64_t own[LC_MAX_RANK], stride[LC_MAX_RANK], offset = 0;
    lc_plain_strides(&step->in[0], own);
    bool empty = lc_desc_count(&step->out[0]) == 0;
    for (int i = 0; i < step->in[0].rank; i++) {
        /* Steps are free where only one element is taken: they may be anything. */
        stride[i] = a->count[i] > 1 ? own[i] * a->step[i] : 0;
        offset += empty ? 0 : own[i] * a->start[i];
    }
    return lc_strided_prepare(step, &step->out[0], offset, stride);
}

const lc_op lc_op_slice = {
    .name = "slice",
    .attr_size = sizeof(lc_slice_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .is_view = is_view,
    .prepare = prepare,
    .run = lc_strided_run,
};
