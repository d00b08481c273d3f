/* cat: inputs side by side along one axis. An output row (all that one index of the axes before
 * it covers) is the rows of the inputs one after the other. Blocked tensors look the same along
 * the channels if only the last one is padded. */
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define UNIT 256 /* words */

typedef struct prep {
    lc_units units;
    int64_t words, row;
    int64_t start[]; /* n_in + 1: where each input's part of a row begins, in words */
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_cat_attr *a = attr;
    char text[LC_SHAPE_TEXT], first[LC_SHAPE_TEXT];
    if (n_in < 1)
        return lc_fail(LC_ERR_VALUE, "cat: takes at least one input");
    LC_TRY(lc_check_movable("cat", &in[0]));
    if (in[0].rank == 0)
        return lc_fail(LC_ERR_VALUE, "cat: inputs without dimensions cannot be joined");
    if (a->axis < 0 || a->axis >= in[0].rank)
        return lc_fail(LC_ERR_INDEX, "cat: axis %d is out of range for inputs of %d dimensions",
                       a->axis, in[0].rank);
    int64_t dim[LC_MAX_RANK];
    memcpy(dim, in[0].dim, sizeof dim);
    for (int k = 1; k < n_in; k++) {
        if (in[k].dtype != in[0].dtype)
            return lc_fail(LC_ERR_TYPE, "cat: input %d is %s, input 0 is %s", k,
                           lc_dtype_name(in[k].dtype), lc_dtype_name(in[0].dtype));
        bool fits = in[k].rank == in[0].rank;
        for (int i = 0; i < in[0].rank && fits; i++)
            fits = i == a->axis || in[k].dim[i] == dim[i];
        if (!fits)
            return lc_fail(LC_ERR_VALUE,
                           "cat: input %d has shape %s, input 0 %s: only axis %d may differ", k,
                           lc_shape_text(&in[k], text), lc_shape_text(&in[0], first), a->axis);
        dim[a->axis] += in[k].dim[a->axis]; /* each is below 2^52, the sum is checked below */
        if (dim[a->axis] > (int64_t)1 << 60)
            return lc_fail(LC_ERR_VALUE, "cat: the result is too large");
    }
    *n_out = 1;
    lc_status status = lc_desc_init(&out[0], (lc_dtype)in[0].dtype, in[0].rank, dim);
    return status == LC_OK ? LC_OK : lc_fail_in(status, "cat");
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_cat_attr *a = q->attr;
    bool blocked = q->out[0].rank == 4 && q->out[0].dtype == LC_F32 && a->axis == 1, any = false;
    for (int k = 0; k < q->n_in && blocked; k++) {
        any |= q->in[k].layout.block > 1;
        blocked = q->in[k].dim[1] % q->block == 0 || k == q->n_in - 1;
    }
    lc_layout common = blocked && any ? (lc_layout){q->block, 1} : LC_PLAIN;
    for (int k = 0; k < q->n_in; k++)
        in[k] = common;
    out[0] = common;
}

static lc_status prepare(lc_step *step)
{
    const lc_cat_attr *a = step->attr;
    const lc_desc *y = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep) + (size_t)(step->n_in + 1) * sizeof(int64_t)));
    prep *p = step->prep;
    int64_t inner = y->dtype == LC_I64 ? 2 : 1;
    for (int i = a->axis + 1; i < y->rank; i++)
        inner *= y->dim[i];
    for (int k = 0; k < step->n_in; k++) {
        const lc_desc *x = &step->in[k];
        int64_t length = x->layout.block > 1 ? lc_desc_padded_channels(x) : x->dim[a->axis];
        p->start[k + 1] = p->start[k] + length * inner;
    }
    p->row = p->start[step->n_in];
    p->words = (int64_t)(lc_desc_bytes(y) / sizeof(float));
    step->items[0] = lc_units_set(&p->units, (p->words + UNIT - 1) / UNIT, 2 * UNIT);
    return LC_OK;
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const prep *p = step->prep;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    first *= UNIT;
    last = last * UNIT < p->words ? last * UNIT : p->words;
    float *y = bind->out[0];
    int k = 0;
    while (first < last) {
        int64_t row = first / p->row, at = first % p->row;
        if (at < p->start[k])
            k = 0;
        while (at >= p->start[k + 1]) /* empty inputs are stepped over */
            k++;
        int64_t length = p->start[k + 1] - p->start[k], n = p->start[k + 1] - at;
        n = n < last - first ? n : last - first;
        memcpy(y + first, (const float *)bind->in[k] + row * length + (at - p->start[k]),
               (size_t)n * sizeof *y);
        first += n;
    }
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    const lc_cat_attr *a = g->attr;
    int64_t start = 0;
    for (int k = 0; k < g->n_in; k++) {
        lc_desc x = *g->b->desc(g->b->ctx, g->in[k]);
        lc_slice_attr part = {0};
        for (int i = 0; i < x.rank; i++) {
            part.step[i] = 1;
            part.count[i] = x.dim[i];
        }
        part.start[a->axis] = start;
        start += x.dim[a->axis];
        if (g->needs[k])
            LC_TRY(lc_grad_node(g->b, &lc_op_slice, &part, 1, &g->dy[0], &g->dx[k]));
    }
    return LC_OK;
}

const lc_op lc_op_cat = {
    .name = "cat",
    .attr_size = sizeof(lc_cat_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
