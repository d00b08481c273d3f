/* Batch norm with given statistics, running ones or the batch's: y = x * scale + shift per channel,
 * scale and shift worked out in double first.
 *
 * Phase 0 writes scale and shift of every channel slot into shared scratch (pads: 0 and 0, which
 * keeps pads zero); phase 1 applies them. */
#include "ops/batch_norm.h"

#include "base/mem.h"
#include "ops/grad_ops.h"

typedef struct prep {
    lc_norm_walk walk;
    bool rows;
} prep;

void lc_norm_walk_init(lc_norm_walk *w, const lc_desc *x, const lc_kernels *kernels)
{
    w->block = x->layout.block;
    w->images = x->dim[0];
    w->slots = w->block > 1 ? lc_desc_padded_channels(x) : x->dim[1];
    w->pixels = 1;
    w->kernels = kernels->grad;
    for (int i = 2; i < x->rank; i++)
        w->pixels *= x->dim[i];
    if (w->block == 1 && w->pixels == 1 && w->slots > 0) {
        w->block = w->slots;
        w->pixels = w->images;
        w->images = 1;
        lc_grad_kernels_fill__scalar(&w->kernels);
    }
    w->blocks = w->slots / w->block;
    w->part = lc_pixel_part(w->pixels, w->block, &w->parts);
}

int64_t lc_norm_unit_count(const lc_norm_walk *w)
{
    return w->images * w->blocks * w->parts;
}

lc_norm_place lc_norm_unit(const lc_norm_walk *w, int64_t unit)
{
    int64_t plane = unit / w->parts, from = unit % w->parts * w->part;
    return (lc_norm_place){(plane * w->pixels + from) * w->block, plane % w->blocks * w->block,
                           w->pixels - from < w->part ? w->pixels - from : w->part};
}

int64_t lc_norm_channel(const lc_desc *x, int64_t slot)
{
    int64_t first;
    int block = x->layout.block;
    if (block == 1)
        return slot;
    int valid = lc_block_channels(x, slot / block, &first);
    return slot % block < valid ? first + slot % block : -1;
}

lc_status lc_norm_check_channels(const char *op, const char *name, const lc_desc *x,
                                 const lc_desc *per_channel)
{
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_f32(op, name, per_channel));
    if (per_channel->rank != 1 || per_channel->dim[0] != x->dim[1])
        return lc_fail(LC_ERR_VALUE,
                       "%s: %s must have shape (%lld,), one value per channel of x, not %s", op,
                       name, (long long)x->dim[1], lc_shape_text(per_channel, text));
    return LC_OK;
}

bool lc_norm_streams(const lc_step *step, const lc_bind *bind, const void *to)
{
    for (int i = 0; i < step->n_in; i++)
        if (bind->in[i] == to)
            return false;
    return lc_is_aligned(to) && lc_streams(step, &step->in[0]);
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    static const char *const names[2][4] = {{"weight", "bias", "running_mean", "running_var"},
                                            {"weight", "bias", "mean", "invstd"}};
    const lc_batch_norm_attr *a = attr;
    int stats = a->affine ? 5 : 3;
    LC_TRY(lc_check_inputs("batch_norm", n_in, a->add ? stats + 1 : stats));
    LC_TRY(lc_check_f32("batch_norm", "x", &in[0]));
    LC_TRY(lc_check_rank("batch_norm", "x", &in[0], 2, 5));
    for (int i = 1; i < stats; i++)
        LC_TRY(lc_norm_check_channels("batch_norm", names[a->batch != 0][a->affine ? i - 1 : i + 1],
                                      &in[0], &in[i]));
    if (a->add && !lc_desc_same_shape(&in[0], &in[stats]))
        return lc_fail(LC_ERR_VALUE, "batch_norm: what is added must have the shape of x");
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_batch_norm_attr *a = q->attr;
    for (int i = 1; i < q->n_in; i++)
        in[i] = LC_PLAIN;
    in[0] = out[0] = q->in[0].layout;
    if (a->add)
        in[q->n_in - 1] = in[0];
}

static lc_status prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    lc_norm_walk *w = &p->walk;
    lc_norm_walk_init(w, x, step->kernels);
    p->rows = x->layout.block == 1 && w->block > 1;
    step->phases = 2;
    step->shared_bytes = 2 * (size_t)w->slots * sizeof(float);
    step->items[0] = lc_units_set(&w->channels, w->slots, 32);
    step->items[1] = lc_units_set(&w->units, lc_norm_unit_count(w), w->part * w->block);
    return LC_OK;
}

static void find_scales(const lc_step *step, const lc_bind *bind, float *scale, float *shift,
                        int64_t first, int64_t last)
{
    const lc_batch_norm_attr *a = step->attr;
    const float *gamma = a->affine ? bind->in[1] : NULL, *beta = a->affine ? bind->in[2] : NULL;
    const float *mean = bind->in[a->affine ? 3 : 1], *spread = bind->in[a->affine ? 4 : 2];
    for (int64_t s = first; s < last; s++) {
        int64_t c = lc_norm_channel(&step->in[0], s);
        scale[s] = shift[s] = 0.0f;
        if (c >= 0)
            lc_norm_scale(a->batch, a->eps, gamma ? &gamma[c] : NULL, beta ? &beta[c] : NULL,
                          mean[c], spread[c], &scale[s], &shift[s]);
    }
}

/* Rows of channels: pixels of `channels` lanes. */
static void apply_rows(const lc_step *step, float *y, const float *x, const float *scale,
                       const float *shift, int64_t rows, int64_t channels)
{
    const lc_batch_norm_attr *a = step->attr;
    for (int64_t n = 0; n < rows; n++, x += channels, y += channels) {
        for (int64_t c = 0; c < channels; c++)
            y[c] = x[c] * scale[c] + shift[c];
        if (a->relu)
            step->kernels->vec.relu(y, y, channels, 0.0f, 0.0f);
    }
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    const lc_batch_norm_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_norm_walk *w = &p->walk;
    float *scale = bind->shared, *shift = scale + w->slots;
    int64_t first, last;
    lc_units_range(phase ? &w->units : &w->channels, begin, end, &first, &last);
    if (phase == 0) {
        find_scales(step, bind, scale, shift, first, last);
        return LC_OK;
    }
    int block = step->in[0].layout.block;
    const unsigned how = (a->relu ? LC_AFFINE_RELU : 0) |
                         (lc_norm_streams(step, bind, bind->out[0]) ? LC_AFFINE_STREAM : 0);
    for (int64_t u = first; u < last; u++) {
        lc_norm_place at = lc_norm_unit(w, u);
        const float *x = (const float *)bind->in[0] + at.at;
        float *y = (float *)bind->out[0] + at.at;
        if (a->add)
            w->kernels.affine_add(y, x, scale + at.slot, shift + at.slot,
                                  (const float *)bind->in[step->n_in - 1] + at.at,
                                  at.pixels * w->block, (int)w->block, how);
        else if (p->rows)
            apply_rows(step, y, x, scale, shift, at.pixels, w->block);
        else
            step->kernels->vec.affine(y, x, scale + at.slot, shift + at.slot, at.pixels * block,
                                      block == 1 ? LC_SPAN_ONE : LC_SPAN_LANES, block, how);
    }
    return LC_OK;
}

/* With the batch's statistics this is the whole gradient, through mean and invstd as well; running
 * statistics get none. */
static lc_status backward(const lc_backward *g)
{
    const lc_batch_norm_attr *a = g->attr;
    const int stats = a->affine ? 3 : 1; /* where they begin */
    if (a->relu || a->add)
        return lc_fail(LC_ERR_RUNTIME, "batch_norm: differentiated after fusion");
    bool params = a->affine && (g->needs[1] || g->needs[2]);
    if (!g->needs[0] && !params)
        return LC_OK;
    lc_batch_norm_grad_attr attr = {
        .eps = a->eps, .affine = a->affine, .batch = a->batch, .params = params};
    lc_value in[5], out[LC_MAX_OUT];
    int n = 0;
    in[n++] = g->dy[0];
    in[n++] = g->in[0];
    if (a->affine)
        in[n++] = g->in[1];
    in[n++] = g->in[stats];
    in[n++] = g->in[stats + 1];
    LC_TRY(g->b->append(g->b->ctx, &lc_op_batch_norm_grad, &attr, n, in, out));
    g->dx[0] = out[0];
    if (params) {
        g->dx[1] = out[1];
        g->dx[2] = out[2];
    }
    return LC_OK;
}

const lc_op lc_op_batch_norm = {
    .name = "batch_norm",
    .attr_size = sizeof(lc_batch_norm_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT | LC_OP_CHEAP | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
