/* The gradients of split attention. Layouts are those of the forward ops (split_attention.c). */
#include "ops/grad_ops.h"
#include "ops/split_attention.h"

/* A large and a small tensor's layouts, blocked if either side is or wishes to be. */
static void layouts_if(bool blocked, const lc_split_attr *a, int block, int64_t large_channels,
                       lc_layout *large, lc_layout *small)
{
    *large = *small = LC_PLAIN;
    if (blocked)
        lc_split_layouts(a, block, large_channels, large, small);
}

/* ---- split_gap_grad: dx[r, c] = dy[c] / pixels ---- */

static lc_status gap_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_split_gap_grad_attr *a = attr;
    LC_TRY(lc_check_inputs("split_gap_grad", n_in, 1));
    LC_TRY(lc_check_rank("split_gap_grad", "dy", &in[0], 4, 4));
    int64_t dim[4] = {in[0].dim[0], lc_count_mul(in[0].dim[1], a->split.radix), a->size[0],
                      a->size[1]};
    *n_out = 1;
    LC_TRY(lc_desc_init(&out[0], LC_F32, 4, dim));
    return lc_split_check("split_gap_grad", &a->split, &out[0]);
}

static void gap_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_split_gap_grad_attr *a = q->attr;
    layouts_if(q->out[0].layout.block > 1, &a->split, q->block, q->out[0].dim[1], &out[0], &in[0]);
}

static lc_status gap_prepare(lc_step *step)
{
    const lc_split_gap_grad_attr *a = step->attr;
    return lc_split_prepare(step, &a->split, &step->out[0], &step->in[0], false);
}

static lc_status gap_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end)
{
    (void)phase;
    const lc_split_planes *p = step->prep;
    int block = step->out[0].layout.block;
    int64_t slice = p->slots * p->pixels, first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const lc_split_unit at = lc_split_unit_at(p, u);
        const float *dy = (const float *)bind->in[0] + (at.image * p->blocks + at.block) * block;
        float *dx = (float *)bind->out[0] + at.image * p->radix * slice +
                    (at.block * p->pixels + at.from) * block;
        for (int64_t r = 0; r < p->radix; r++, dx += slice)
            for (int64_t i = 0; i < at.pixels * block; i += block)
                for (int l = 0; l < block; l++)
                    dx[i + l] = dy[l] / (float)p->pixels;
    }
    return LC_OK;
}

const lc_op lc_op_split_gap_grad = {
    .name = "split_gap_grad",
    .attr_size = sizeof(lc_split_gap_grad_attr),
    .infer = gap_infer,
    .layout = gap_layout,
    .prepare = gap_prepare,
    .run = gap_run,
};

/* ---- split_softmax_grad: one image at a time ---- */

static lc_status softmax_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                               lc_desc *out)
{
    LC_TRY(lc_check_inputs("split_softmax_grad", n_in, 2));
    if (!lc_desc_same_shape(&in[0], &in[1]))
        return lc_fail(LC_ERR_VALUE, "split_softmax_grad: dy and y must have equal shapes");
    return lc_op_split_softmax.infer(attr, 1, in, n_out, out);
}

/* Read and written channel by channel, whatever the layouts are. */
static void softmax_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = q->in[0].layout;
    in[1] = q->in[1].layout;
    out[0] = q->out[0].layout;
}

typedef struct softmax_prep {
    lc_units units;
    int32_t place[]; /* of element i in the order (r, c): channel slots of dy, y and dx */
} softmax_prep;

static lc_status softmax_prepare(lc_step *step)
{
    const lc_split_attr *a = step->attr;
    int64_t total = step->in[0].dim[1], radix = a->radix;
    int64_t channels = total / radix, each = channels / a->cardinality;
    LC_TRY(lc_step_prep(step, sizeof(softmax_prep) + 3 * (size_t)total * sizeof(int32_t)));
    softmax_prep *p = step->prep;
    for (int64_t i = 0; i < total; i++) {
        int64_t r = i / channels, k = i % channels / each, j = i % each;
        int64_t c = a->plain_view ? i : (k * radix + r) * each + j;
        p->place[3 * i] = (int32_t)lc_desc_channel_slot(&step->in[0], i);
        p->place[3 * i + 1] = (int32_t)lc_desc_channel_slot(&step->in[1], i);
        p->place[3 * i + 2] = (int32_t)lc_desc_channel_slot(&step->out[0], c);
    }
    step->items[0] = lc_units_set(&p->units, step->in[0].dim[0], 8 * total);
    return LC_OK;
}

static lc_status softmax_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                             int64_t end)
{
    (void)phase;
    const lc_split_attr *a = step->attr;
    const softmax_prep *p = step->prep;
    int64_t total = step->in[0].dim[1], channels = total / a->radix, first, last;
    int64_t slots[3] = {lc_desc_padded_channels(&step->in[0]),
                        lc_desc_padded_channels(&step->in[1]),
                        lc_desc_padded_channels(&step->out[0])};
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t n = first; n < last; n++) {
        const float *dy = (const float *)bind->in[0] + n * slots[0];
        const float *y = (const float *)bind->in[1] + n * slots[1];
        float *dx = (float *)bind->out[0] + n * slots[2];
        for (int64_t i = 0; i < slots[2]; i++)
            dx[i] = 0.0f;
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0.0;
            for (int r = 0; r < a->radix; r++) {
                const int32_t *at = p->place + 3 * (r * channels + c);
                sum += (double)dy[at[0]] * (double)y[at[1]];
            }
            for (int r = 0; r < a->radix; r++) {
                const int32_t *at = p->place + 3 * (r * channels + c);
                double d = (double)dy[at[0]], v = (double)y[at[1]];
                dx[at[2]] = (float)(a->radix == 1 ? d * v * (1.0 - v) : v * (d - sum));
            }
        }
    }
    return LC_OK;
}

const lc_op lc_op_split_softmax_grad = {
    .name = "split_softmax_grad",
    .attr_size = sizeof(lc_split_attr),
    .infer = softmax_infer,
    .layout = softmax_layout,
    .prepare = softmax_prepare,
    .run = softmax_run,
};

/* ---- split_apply_grad: dx[r, c] = dy[c] * attention[r, c], [+ dgap[c] / pixels] ---- */

static lc_status apply_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                             lc_desc *out)
{
    const lc_split_attr *a = attr;
    LC_TRY(lc_check_inputs("split_apply_grad", n_in, n_in == 3 ? 3 : 2));
    LC_TRY(lc_check_rank("split_apply_grad", "dy", &in[0], 4, 4));
    int64_t dim[4] = {in[0].dim[0], lc_count_mul(in[0].dim[1], a->radix), in[0].dim[2],
                      in[0].dim[3]};
    LC_TRY(lc_desc_init(&out[0], LC_F32, 4, dim));
    LC_TRY(lc_split_check("split_apply_grad", a, &out[0]));
    lc_desc x[2] = {out[0], in[1]}, y;
    LC_TRY(lc_op_split_apply.infer(a, 2, x, n_out, &y));
    if (n_in == 3 && (lc_desc_count(&in[2]) != dim[0] * in[0].dim[1] || in[2].rank != 4))
        return lc_fail(LC_ERR_VALUE,
                       "split_apply_grad: the gradient of the mean has a wrong shape");
    return LC_OK;
}

static void apply_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    layouts_if(q->in[0].layout.block > 1 || q->out[0].layout.block > 1, q->attr, q->block,
               q->out[0].dim[1], &out[0], &in[0]);
    in[1] = out[0];
    if (q->n_in == 3)
        in[2] = in[0];
}

static bool dy_insists(const lc_layout_query *q, int i, lc_layout *want)
{
    const lc_split_attr *a = q->attr;
    lc_layout large;
    if (i != 0)
        return false;
    lc_split_layouts(a, q->block, q->in[0].dim[1] * a->radix, &large, want);
    return true;
}

static lc_status apply_prepare(lc_step *step)
{
    return lc_split_prepare(step, step->attr, &step->out[0], &step->in[0], false);
}

static lc_status apply_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                           int64_t end)
{
    (void)phase;
    const lc_split_planes *p = step->prep;
    int block = step->out[0].layout.block;
    int64_t slice = p->slots * p->pixels, first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const lc_split_unit at = lc_split_unit_at(p, u);
        int64_t off = (at.block * p->pixels + at.from) * block;
        const float *dy = (const float *)bind->in[0] + at.image * slice + off;
        const float *attention =
            (const float *)bind->in[1] + (at.image * p->radix * p->blocks + at.block) * block;
        float *dx = (float *)bind->out[0] + at.image * p->radix * slice + off;
        float shift[LC_MAX_BLOCK] = {0.0f};
        if (step->n_in == 3) {
            const float *gap =
                (const float *)bind->in[2] + (at.image * p->blocks + at.block) * block;
            for (int l = 0; l < block; l++)
                shift[l] = gap[l] / (float)p->pixels;
        }
        for (int64_t r = 0; r < p->radix; r++)
            step->kernels->vec.affine(dx + r * slice, dy, attention + r * p->slots, shift,
                                      at.pixels * block, block == 1 ? LC_SPAN_ONE : LC_SPAN_LANES,
                                      block, 0);
    }
    return LC_OK;
}

const lc_op lc_op_split_apply_grad = {
    .name = "split_apply_grad",
    .attr_size = sizeof(lc_split_attr),
    .infer = apply_infer,
    .layout = apply_layout,
    .insists = dy_insists,
    .prepare = apply_prepare,
    .run = apply_run,
};

/* ---- split_attention_grad: dattention[r, c] = sum over pixels of dy[c] * x[r, c] ---- */

static lc_status attention_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                                 lc_desc *out)
{
    const lc_split_attr *a = attr;
    LC_TRY(lc_check_inputs("split_attention_grad", n_in, 2));
    LC_TRY(lc_split_check("split_attention_grad", a, &in[1]));
    lc_desc x[2] = {in[1], in[1]}, y;
    x[1].dim[2] = x[1].dim[3] = 1;
    LC_TRY(lc_op_split_apply.infer(a, 2, x, n_out, &y));
    if (!lc_desc_same_shape(&y, &in[0]))
        return lc_fail(LC_ERR_VALUE, "split_attention_grad: dy has a wrong shape");
    return lc_desc_init(&out[0], LC_F32, 4, x[1].dim);
}

static void attention_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    layouts_if(q->in[0].layout.block > 1 || q->in[1].layout.block > 1, q->attr, q->block,
               q->in[1].dim[1], &in[1], &in[0]);
    out[0] = in[1];
}

static bool attention_insists(const lc_layout_query *q, int i, lc_layout *want)
{
    lc_layout large, small;
    lc_split_layouts(q->attr, q->block, q->in[1].dim[1], &large, &small);
    *want = i ? large : small;
    return true;
}

static lc_status attention_prepare(lc_step *step)
{
    return lc_split_prepare(step, step->attr, &step->in[1], &step->in[0], true);
}

static lc_status attention_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                               int64_t end)
{
    (void)phase;
    const lc_split_planes *p = step->prep;
    int block = step->out[0].layout.block;
    int64_t slice = p->slots * p->pixels, blocks = p->blocks, plane = p->pixels * block;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        /* also where there are no pixels */
        const lc_split_unit at = {u / blocks, u % blocks, 0, p->pixels};
        const float *dy = (const float *)bind->in[0] + u * plane;
        const float *x =
            (const float *)bind->in[1] + at.image * p->radix * slice + at.block * plane;
        float *da = (float *)bind->out[0] + (at.image * p->radix * blocks + at.block) * block;
        for (int64_t r = 0; r < p->radix; r++, da += p->slots) {
            double sum[LC_MAX_BLOCK] = {0.0};
            step->kernels->grad.dot(sum, dy, x + r * slice, plane, block);
            for (int l = 0; l < block; l++)
                da[l] = (float)sum[l];
        }
    }
    return LC_OK;
}

const lc_op lc_op_split_attention_grad = {
    .name = "split_attention_grad",
    .attr_size = sizeof(lc_split_attr),
    .infer = attention_infer,
    .layout = attention_layout,
    .insists = attention_insists,
    .prepare = attention_prepare,
    .run = attention_run,
};
