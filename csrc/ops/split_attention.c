/* The three parts of split attention that are no convolution (ops.h). x has R slices of C channels,
 * each slice in K groups.
 *
 * Blocked, x lies as R * K groups and sums over slices as K groups: slice r is then a run of blocks
 * of its own, block for block like the sum, so that sums run along memory. Where slices do not begin
 * at blocks all is plain. */
#include <math.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"
#include "ops/split_attention.h"

void lc_split_layouts(const lc_split_attr *a, int block, int64_t x_channels, lc_layout *x,
                      lc_layout *y)
{
    int64_t channels = x_channels / a->radix, groups = (int64_t)a->radix * a->cardinality;
    *x = lc_layout_blocked(block, x_channels, groups);
    *y = lc_layout_blocked(block, channels, a->cardinality);
    if (x->groups == 1 && a->radix > 1 && channels % block != 0)
        *x = *y = LC_PLAIN;
}

lc_status lc_split_check(const char *op, const lc_split_attr *a, const lc_desc *x)
{
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_f32(op, "x", x));
    LC_TRY(lc_check_rank(op, "x", x, 4, 4));
    if (a->radix < 1 || a->cardinality < 1)
        return lc_fail(LC_ERR_VALUE, "%s: radix and cardinality must be positive, not %d and %d",
                       op, a->radix, a->cardinality);
    if (x->dim[1] > INT32_MAX / 2)
        return lc_fail(LC_ERR_VALUE, "%s: x has too many channels: %lld", op, (long long)x->dim[1]);
    if (x->dim[1] % ((int64_t)a->radix * a->cardinality) != 0)
        return lc_fail(LC_ERR_VALUE,
                       "%s: radix %d times cardinality %d does not divide the %lld channels of %s",
                       op, a->radix, a->cardinality, (long long)x->dim[1], lc_shape_text(x, text));
    return LC_OK;
}

lc_status lc_split_prepare(lc_step *step, const lc_split_attr *a, const lc_desc *large,
                           const lc_desc *small, bool whole_planes)
{
    LC_TRY(lc_step_prep(step, sizeof(lc_split_planes)));
    lc_split_planes *p = step->prep;
    int block = small->layout.block;
    int64_t lanes = block * ((int64_t)a->radix + 1);
    p->radix = a->radix;
    p->slots = lc_desc_padded_channels(large) / a->radix;
    p->blocks = lc_block_count(small);
    p->pixels = large->dim[2] * large->dim[3];
    if (whole_planes) {
        p->part = p->pixels;
        p->parts = 1;
    } else {
        p->part = lc_pixel_part(p->pixels, lanes, &p->parts);
    }
    step->items[0] =
        lc_units_set(&p->units, large->dim[0] * p->blocks * p->parts, lc_count_mul(p->part, lanes));
    return LC_OK;
}

/* ---- split_gap ---- */

static lc_status gap_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_split_attr *a = attr;
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("split_gap", n_in, 1));
    LC_TRY(lc_split_check("split_gap", a, &in[0]));
    if (in[0].dim[2] == 0 || in[0].dim[3] == 0)
        return lc_fail(LC_ERR_VALUE, "split_gap: x of shape %s has no pixels",
                       lc_shape_text(&in[0], text));
    int64_t dim[4] = {in[0].dim[0], in[0].dim[1] / a->radix, 1, 1};
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, 4, dim);
}

static void gap_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = out[0] = LC_PLAIN;
    if (q->in[0].layout.block > 1)
        lc_split_layouts(q->attr, q->block, q->in[0].dim[1], &in[0], &out[0]);
}

static bool x_insists(const lc_layout_query *q, int i, lc_layout *want)
{
    lc_layout y;
    if (i != 0)
        return false;
    lc_split_layouts(q->attr, q->block, q->in[0].dim[1], want, &y);
    return true;
}

static lc_status gap_prepare(lc_step *step)
{
    return lc_split_prepare(step, step->attr, &step->in[0], &step->out[0], true);
}

static lc_status gap_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end)
{
    (void)phase;
    const lc_split_planes *p = step->prep;
    int block = step->out[0].layout.block;
    int64_t plane = p->pixels * block, slice = p->slots * p->pixels, blocks = p->blocks;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const float *x =
            (const float *)bind->in[0] + u / blocks * p->radix * slice + u % blocks * plane;
        float *y = (float *)bind->out[0] + u * block;
        double sum[LC_MAX_BLOCK] = {0.0};
        for (int64_t r = 0; r < p->radix; r++)
            step->kernels->vec.sum(sum, x + r * slice, plane, block);
        for (int l = 0; l < block; l++)
            y[l] = (float)(sum[l] / (double)p->pixels);
    }
    return LC_OK;
}

static lc_status gap_backward(const lc_backward *g)
{
    lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    lc_split_gap_grad_attr attr = {.split = *(const lc_split_attr *)g->attr,
                                   .size = {x.dim[2], x.dim[3]}};
    return lc_grad_node(g->b, &lc_op_split_gap_grad, &attr, 1, &g->dy[0], &g->dx[0]);
}

const lc_op lc_op_split_gap = {
    .name = "split_gap",
    .attr_size = sizeof(lc_split_attr),
    .flags = LC_OP_PER_IMAGE,
    .infer = gap_infer,
    .layout = gap_layout,
    .insists = x_insists,
    .prepare = gap_prepare,
    .run = gap_run,
    .backward = gap_backward,
};

/* ---- split_softmax: one image at a time; its numbers are few ---- */

static lc_status softmax_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                               lc_desc *out)
{
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("split_softmax", n_in, 1));
    LC_TRY(lc_split_check("split_softmax", attr, &in[0]));
    if (in[0].dim[2] != 1 || in[0].dim[3] != 1)
        return lc_fail(LC_ERR_VALUE, "split_softmax: x must have shape (N, C, 1, 1), not %s",
                       lc_shape_text(&in[0], text));
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, 4, in[0].dim);
}

static void softmax_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    lc_layout y;
    in[0] = q->in[0].layout; /* read channel by channel, whatever it is */
    out[0] = LC_PLAIN;
    if (q->in[0].layout.block > 1)
        lc_split_layouts(q->attr, q->block, q->in[0].dim[1], &out[0],
                         &y); /* as split_apply wants it */
}

typedef struct softmax_prep {
    lc_units units;
    int32_t place[]; /* of element i in the order (r, c): channel slots of x and of the result */
} softmax_prep;

static lc_status softmax_prepare(lc_step *step)
{
    const lc_split_attr *a = step->attr;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    int64_t total = x->dim[1], radix = a->radix, groups = a->cardinality;
    int64_t channels = total / radix, each = channels / groups;
    LC_TRY(lc_step_prep(step, sizeof(softmax_prep) + 2 * (size_t)total * sizeof(int32_t)));
    softmax_prep *p = step->prep;
    for (int64_t i = 0; i < total; i++) {
        int64_t r = i / channels, k = i % channels / each, j = i % each;
        int64_t c = a->plain_view ? i : (k * radix + r) * each + j;
        p->place[2 * i] = (int32_t)lc_desc_channel_slot(x, c);
        p->place[2 * i + 1] = (int32_t)lc_desc_channel_slot(y, i);
    }
    step->thread_bytes = (size_t)total * sizeof(float);
    step->items[0] = lc_units_set(&p->units, x->dim[0], 8 * total);
    return LC_OK;
}

/* e: logits in the order (r, c), replaced by the softmax over r (one slice: by the sigmoid). */
static void softmax_slices(const lc_vec_kernels *v, float *e, int64_t radix, int64_t channels)
{
    int64_t n = radix * channels;
    if (radix == 1) {
        v->sigmoid(e, e, n, 0.0f, 0.0f);
        return;
    }
    for (int64_t c = 0; c < channels; c++) {
        float most = e[c];
        for (int64_t r = 1; r < radix; r++) {
            float l = e[r * channels + c];
            most = l > most || l != l ? l : most;
        }
        for (int64_t r = 0; r < radix; r++)
            e[r * channels + c] -= most;
    }
    v->exp(e, e, n, 0.0f, 0.0f);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0;
        for (int64_t r = 0; r < radix; r++)
            sum += (double)e[r * channels + c];
        for (int64_t r = 0; r < radix; r++)
            e[r * channels + c] = (float)((double)e[r * channels + c] / sum);
    }
}

static lc_status softmax_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                             int64_t end)
{
    (void)phase;
    const lc_split_attr *a = step->attr;
    const softmax_prep *p = step->prep;
    const lc_desc *in = &step->in[0], *out = &step->out[0];
    int64_t total = in->dim[1], first, last;
    int64_t in_slots = lc_desc_padded_channels(in), out_slots = lc_desc_padded_channels(out);
    float *e = bind->scratch;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t n = first; n < last; n++) {
        const float *x = (const float *)bind->in[0] + n * in_slots;
        float *y = (float *)bind->out[0] + n * out_slots;
        for (int64_t i = 0; i < total; i++)
            e[i] = x[p->place[2 * i]];
        softmax_slices(&step->kernels->vec, e, a->radix, total / a->radix);
        if (out_slots != total)
            for (int64_t i = 0; i < out_slots; i++)
                y[i] = 0.0f;
        for (int64_t i = 0; i < total; i++)
            y[p->place[2 * i + 1]] = e[i];
    }
    return LC_OK;
}

static lc_status softmax_backward(const lc_backward *g)
{
    return lc_grad_node(g->b, &lc_op_split_softmax_grad, g->attr, 2,
                        (lc_value[]){g->dy[0], g->out[0]}, &g->dx[0]);
}

const lc_op lc_op_split_softmax = {
    .name = "split_softmax",
    .attr_size = sizeof(lc_split_attr),
    .flags = LC_OP_PER_IMAGE,
    .infer = softmax_infer,
    .layout = softmax_layout,
    .prepare = softmax_prepare,
    .run = softmax_run,
    .backward = softmax_backward,
};

/* ---- split_apply ---- */

static lc_status apply_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                             lc_desc *out)
{
    const lc_split_attr *a = attr;
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("split_apply", n_in, 2));
    LC_TRY(lc_split_check("split_apply", a, &in[0]));
    LC_TRY(lc_check_f32("split_apply", "attention", &in[1]));
    LC_TRY(lc_check_rank("split_apply", "attention", &in[1], 4, 4));
    if (in[1].dim[0] != in[0].dim[0] || in[1].dim[1] != in[0].dim[1] || in[1].dim[2] != 1 ||
        in[1].dim[3] != 1)
        return lc_fail(
            LC_ERR_VALUE, "split_apply: attention must have shape (%lld, %lld, 1, 1), not %s",
            (long long)in[0].dim[0], (long long)in[0].dim[1], lc_shape_text(&in[1], text));
    int64_t dim[4] = {in[0].dim[0], in[0].dim[1] / a->radix, in[0].dim[2], in[0].dim[3]};
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, 4, dim);
}

/* Sums over the slices have a layout of their own; y may have any other, such as the dense one
 * that a 1x1 convolution reads best. */
static void apply_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    gap_layout(q, in, out);
    in[1] = in[0];
    if (out[0].block > 1 && q->out[0].layout.block == out[0].block)
        out[0] = q->out[0].layout;
}

/* y as it would be in the layout of the sums. */
static lc_desc apply_sums(const lc_step *step)
{
    lc_desc sums = step->out[0];
    if (sums.layout.block > 1) {
        lc_layout x;
        lc_split_layouts(step->attr, sums.layout.block, step->in[0].dim[1], &x, &sums.layout);
    }
    return sums;
}

#define MOVED_PIXELS 64 /* at a time, where layouts differ: their sums stay in the L1 cache */

static lc_status apply_prepare(lc_step *step)
{
    const lc_desc *y = &step->out[0];
    LC_TRY(lc_split_prepare(step, step->attr, &step->in[0], y, false));
    const size_t block = (size_t)y->layout.block;
    if (!lc_layout_equal(apply_sums(step).layout, y->layout))
        step->thread_bytes = block * MOVED_PIXELS * block * sizeof(float);
    return LC_OK;
}

/* The sums of a unit whose block is one of theirs. */
static void apply_block(const lc_step *step, const lc_bind *bind, lc_split_unit at, float *y)
{
    const lc_split_planes *p = step->prep;
    const int block = step->out[0].layout.block;
    const int64_t slice = p->slots * p->pixels, first = at.image * p->radix * p->slots;
    const float *x = (const float *)bind->in[0] + first * p->pixels;
    const float *attention = (const float *)bind->in[1] + first;
    step->kernels->vec.combine(y, x + (at.block * p->pixels + at.from) * block, slice,
                               attention + at.block * block, p->slots, (int)p->radix,
                               at.pixels * block, block == 1 ? LC_SPAN_ONE : LC_SPAN_LANES, block);
}

/* The same of a block of y, whose lanes are those of other blocks of the sums. */
static void apply_moved(const lc_step *step, const lc_bind *bind, const lc_desc *sums,
                        lc_split_unit at, float *y)
{
    const int block = step->out[0].layout.block;
    float *scratch = bind->scratch;
    int64_t blocks[LC_MAX_BLOCK];
    lc_vec_pick pick;
    lc_pick_blocks(&pick, blocks, sums, &step->out[0], at.block);
    for (int k = 0; k < pick.sources; k++)
        pick.x[k] = scratch + k * MOVED_PIXELS * block;
    for (const int64_t end = at.from + at.pixels; at.from < end; at.from += at.pixels) {
        at.pixels = lc_min64(end - at.from, MOVED_PIXELS);
        for (int k = 0; k < pick.sources; k++) {
            at.block = blocks[k];
            apply_block(step, bind, at, scratch + k * MOVED_PIXELS * block);
        }
        step->kernels->vec.pick(y, &pick, at.pixels, block);
        y += at.pixels * block;
    }
}

static lc_status apply_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                           int64_t end)
{
    (void)phase;
    const lc_split_planes *p = step->prep;
    const lc_desc sums = apply_sums(step), *out = &step->out[0];
    const bool moved = !lc_layout_equal(sums.layout, out->layout);
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const lc_split_unit at = lc_split_unit_at(p, u);
        const int64_t plane = at.image * p->blocks + at.block;
        float *y = (float *)bind->out[0] + (plane * p->pixels + at.from) * out->layout.block;
        if (moved)
            apply_moved(step, bind, &sums, at, y);
        else
            apply_block(step, bind, at, y);
    }
    return LC_OK;
}

static lc_status apply_backward(const lc_backward *g)
{
    if (g->needs[0])
        LC_TRY(lc_grad_node(g->b, &lc_op_split_apply_grad, g->attr, 2,
                            (lc_value[]){g->dy[0], g->in[1]}, &g->dx[0]));
    if (g->needs[1])
        LC_TRY(lc_grad_node(g->b, &lc_op_split_attention_grad, g->attr, 2,
                            (lc_value[]){g->dy[0], g->in[0]}, &g->dx[1]));
    return LC_OK;
}

const lc_op lc_op_split_apply = {
    .name = "split_apply",
    .attr_size = sizeof(lc_split_attr),
    .flags = LC_OP_PER_IMAGE,
    .infer = apply_infer,
    .layout = apply_layout,
    .insists = x_insists,
    .prepare = apply_prepare,
    .run = apply_run,
    .backward = apply_backward,
};
