/* pad: one value around x; negative widths crop. */
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define LARGEST ((int64_t)1 << 52)

typedef struct prep {
    lc_units units; /* rows of the output, or parts of them */
    int64_t part, parts;
    int64_t row_words; /* of the output */
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_pad_attr *a = attr;
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("pad", n_in, 1));
    LC_TRY(lc_check_f32("pad", "x", &in[0]));
    int64_t dim[LC_MAX_RANK] = {0};
    for (int i = 0; i < in[0].rank; i++) {
        int64_t before = a->before[i], after = a->after[i];
        bool sane =
            before >= -LARGEST && before <= LARGEST && after >= -LARGEST && after <= LARGEST;
        if (sane)
            dim[i] = in[0].dim[i] + before + after;
        if (!sane || dim[i] < 0)
            return lc_fail(LC_ERR_VALUE,
                           "pad: widths %lld and %lld along axis %d do not go with x of shape %s",
                           (long long)before, (long long)after, i, lc_shape_text(&in[0], text));
    }
    *n_out = 1;
    lc_status status = lc_desc_init(&out[0], LC_F32, in[0].rank, dim);
    return status == LC_OK ? LC_OK : lc_fail_in(status, "pad");
}

static lc_status prepare(lc_step *step)
{
    const lc_desc *y = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->row_words = y->rank ? y->dim[y->rank - 1] : 1;
    int64_t count = lc_desc_count(y);
    p->part = lc_pixel_part(p->row_words, 1, &p->parts);
    step->items[0] =
        lc_units_set(&p->units, count ? count / p->row_words * p->parts : 0, 2 * p->part);
    return LC_OK;
}

static void fill(float *y, int64_t from, int64_t to, float value)
{
    for (int64_t i = from; i < to; i++)
        y[i] = value;
}

/* Elements [from, to) of a row of the output; x: the row of the input, NULL: there is none. */
static void pad_row(float *y, const float *x, int64_t before, int64_t size, int64_t from,
                    int64_t to, float value)
{
    int64_t lo = before > from ? before : from, hi = before + size < to ? before + size : to;
    if (!x || lo >= hi) {
        fill(y, from, to, value);
        return;
    }
    fill(y, from, lo, value);
    memcpy(y + lo, x + (lo - before), (size_t)(hi - lo) * sizeof *y);
    fill(y, hi, to, value);
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const lc_pad_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    int inner = x->rank - 1;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t row = u / p->parts, rest = row, at = 0, run = 1;
        bool inside = true;
        for (int i = inner - 1; i >= 0; i--) {
            int64_t from = rest % y->dim[i] - a->before[i];
            rest /= y->dim[i];
            inside &= from >= 0 && from < x->dim[i];
            at += from * run;
            run *= x->dim[i];
        }
        int64_t size = inner >= 0 ? x->dim[inner] : 1, from = u % p->parts * p->part;
        int64_t to = from + p->part < p->row_words ? from + p->part : p->row_words;
        pad_row((float *)bind->out[0] + row * p->row_words,
                inside ? (const float *)bind->in[0] + at * size : NULL,
                inner >= 0 ? a->before[inner] : 0, size, from, to, a->value);
    }
    return LC_OK;
}

/* What was added is cropped, what was cropped gets zeros. */
static lc_status backward(const lc_backward *g)
{
    const lc_pad_attr *a = g->attr;
    lc_pad_attr back = {0};
    for (int i = 0; i < LC_MAX_RANK; i++) {
        back.before[i] = -a->before[i];
        back.after[i] = -a->after[i];
    }
    return lc_grad_node(g->b, &lc_op_pad, &back, 1, &g->dy[0], &g->dx[0]);
}

const lc_op lc_op_pad = {
    .name = "pad",
    .attr_size = sizeof(lc_pad_attr),
    .flags = LC_OP_CPU_ONLY_MOVE,
    .infer = infer,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
