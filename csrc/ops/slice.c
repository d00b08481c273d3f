/* slice: start, step and count per axis. */
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
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

static lc_status backward(const lc_backward *g)
{
    const lc_slice_attr *a = g->attr;
    lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    lc_slice_grad_attr back = {0};
    memcpy(back.start, a->start, sizeof back.start);
    memcpy(back.step, a->step, sizeof back.step);
    memcpy(back.dim, x.dim, sizeof back.dim);
    return lc_grad_node(g->b, &lc_op_slice_grad, &back, 1, &g->dy[0], &g->dx[0]);
}

const lc_op lc_op_slice = {
    .name = "slice",
    .attr_size = sizeof(lc_slice_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .is_view = is_view,
    .prepare = prepare,
    .run = lc_strided_run,
    .backward = backward,
};

/* ---- the gradient: dy -> dx, row by row of dx ---- */

typedef struct grad_prep {
    lc_units units; /* rows of dx */
} grad_prep;

static lc_status grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_slice_grad_attr *a = attr;
    lc_slice_attr forward = {0};
    lc_desc x, y;
    LC_TRY(lc_check_inputs("slice_grad", n_in, 1));
    LC_TRY(lc_check_f32("slice_grad", "dy", &in[0]));
    memcpy(forward.start, a->start, sizeof forward.start);
    memcpy(forward.step, a->step, sizeof forward.step);
    memcpy(forward.count, in[0].dim, sizeof forward.count);
    LC_TRY(lc_desc_init(&x, LC_F32, in[0].rank, a->dim));
    LC_TRY(infer(&forward, 1, &x, n_out, &y));
    out[0] = x;
    return LC_OK;
}

static lc_status grad_prepare(lc_step *step)
{
    const lc_desc *dx = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(grad_prep)));
    grad_prep *p = step->prep;
    int64_t row = dx->rank ? dx->dim[dx->rank - 1] : 1, count = lc_desc_count(dx);
    step->items[0] = lc_units_set(&p->units, count ? count / row : 0, 2 * row);
    return LC_OK;
}

/* Which element of the slice along axis i is element x of dx? -1: none. */
static int64_t slice_index(const lc_slice_grad_attr *a, const lc_desc *dy, int i, int64_t x)
{
    int64_t off = x - a->start[i];
    if (dy->dim[i] <= 1) /* steps are free then */
        return off == 0 && dy->dim[i] ? 0 : -1;
    int64_t k = off / a->step[i];
    return k * a->step[i] == off && k >= 0 && k < dy->dim[i] ? k : -1;
}

static lc_status grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const lc_slice_grad_attr *a = step->attr;
    const grad_prep *p = step->prep;
    const lc_desc *dy = &step->in[0], *dx = &step->out[0];
    int inner = dx->rank - 1;
    int64_t row = inner >= 0 ? dx->dim[inner] : 1, n = inner >= 0 ? dy->dim[inner] : 1;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        float *to = (float *)bind->out[0] + u * row;
        int64_t rest = u, at = 0, run = 1;
        memset(to, 0, (size_t)row * sizeof *to);
        bool inside = n > 0;
        for (int i = inner - 1; i >= 0 && inside; i--) {
            int64_t k = slice_index(a, dy, i, rest % dx->dim[i]);
            rest /= dx->dim[i];
            inside = k >= 0;
            at += k * run;
            run *= dy->dim[i];
        }
        if (!inside)
            continue;
        const float *from = (const float *)bind->in[0] + at * n;
        int64_t start = inner >= 0 ? a->start[inner] : 0;
        for (int64_t i = 0; i < n; i++)
            to[start + (n > 1 ? i * a->step[inner] : 0)] = from[i];
    }
    return LC_OK;
}

const lc_op lc_op_slice_grad = {
    .name = "slice_grad",
    .attr_size = sizeof(lc_slice_grad_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = grad_infer,
    .prepare = grad_prepare,
    .run = grad_run,
};
