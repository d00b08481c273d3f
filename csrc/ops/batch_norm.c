/* Batch norm with given statistics: y = x * scale + shift per channel, scale and shift worked out
 * in double first.
 *
 * Phase 0 writes scale and shift of every channel slot into shared scratch (pads: 0 and 0, which
 * keeps pads zero); phase 1 applies them. */
#include <math.h>

#include "ops/op_util.h"
#include "ops/ops.h"

typedef struct prep {
    int64_t slots; /* channels, pads included */
    int64_t pixels, part, parts;
    lc_units channels, units;
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    static const char *const names[] = {"weight", "bias", "running_mean", "running_var"};
    const lc_batch_norm_attr *a = attr;
    LC_TRY(lc_check_inputs("batch_norm", n_in, a->affine ? 5 : 3));
    LC_TRY(lc_check_f32("batch_norm", "x", &in[0]));
    LC_TRY(lc_check_rank("batch_norm", "x", &in[0], 2, 5));
    for (int i = 1; i < n_in; i++) {
        const char *name = names[a->affine ? i - 1 : i + 1];
        LC_TRY(lc_check_f32("batch_norm", name, &in[i]));
        if (in[i].rank != 1 || in[i].dim[0] != in[0].dim[1]) {
            char text[LC_SHAPE_TEXT];
            return lc_fail(
                LC_ERR_VALUE,
                "batch_norm: %s must have shape (%lld,), one value per channel of x, not %s", name,
                (long long)in[0].dim[1], lc_shape_text(&in[i], text));
        }
    }
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    for (int i = 1; i < q->n_in; i++)
        in[i] = LC_PLAIN;
    in[0] = out[0] = q->in[0].layout;
}

static lc_status prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    int block = x->layout.block;
    p->slots = block > 1 ? lc_desc_padded_channels(x) : x->dim[1];
    p->pixels = 1;
    for (int i = 2; i < x->rank; i++)
        p->pixels *= x->dim[i];
    p->part = lc_pixel_part(p->pixels, block, &p->parts);
    step->phases = 2;
    step->shared_bytes = 2 * (size_t)p->slots * sizeof(float);
    step->items[0] = lc_units_set(&p->channels, p->slots, 32);
    /* A plane of one element: rows of channels instead. */
    if (p->pixels == 1 && block == 1)
        step->items[1] = lc_units_set(&p->units, x->dim[0], x->dim[1]);
    else
        step->items[1] =
            lc_units_set(&p->units, x->dim[0] * (p->slots / block) * p->parts, p->part * block);
    return LC_OK;
}

static void find_scales(const lc_step *step, const lc_bind *bind, float *scale, float *shift,
                        int64_t first, int64_t last)
{
    const lc_batch_norm_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    const float *gamma = a->affine ? bind->in[1] : NULL, *beta = a->affine ? bind->in[2] : NULL;
    const float *mean = bind->in[step->n_in - 2], *var = bind->in[step->n_in - 1];
    int block = x->layout.block;
    for (int64_t s = first; s < last; s++) {
        int64_t c = s;
        if (block > 1) {
            int valid = lc_block_channels(x, s / block, &c);
            c += s % block;
            if (s % block >= valid) {
                scale[s] = shift[s] = 0.0f;
                continue;
            }
        }
        double k = (gamma ? (double)gamma[c] : 1.0) / sqrt((double)var[c] + (double)a->eps);
        scale[s] = (float)k;
        shift[s] = (float)((beta ? (double)beta[c] : 0.0) - (double)mean[c] * k);
    }
}

static void apply_rows(const lc_step *step, const lc_bind *bind, const float *scale,
                       const float *shift, int64_t first, int64_t last)
{
    const lc_batch_norm_attr *a = step->attr;
    int64_t channels = step->in[0].dim[1];
    for (int64_t n = first; n < last; n++) {
        const float *x = (const float *)bind->in[0] + n * channels;
        float *y = (float *)bind->out[0] + n * channels;
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
    const lc_desc *x = &step->in[0];
    float *scale = bind->shared, *shift = scale + p->slots;
    int64_t first, last;
    lc_units_range(phase ? &p->units : &p->channels, begin, end, &first, &last);
    if (phase == 0) {
        find_scales(step, bind, scale, shift, first, last);
        return LC_OK;
    }
    int block = x->layout.block;
    if (p->pixels == 1 && block == 1) {
        apply_rows(step, bind, scale, shift, first, last);
        return LC_OK;
    }
    int64_t blocks = p->slots / block;
    for (int64_t u = first; u < last; u++) {
        int64_t plane = u / p->parts, from = u % p->parts * p->part;
        int64_t n = p->pixels - from < p->part ? p->pixels - from : p->part;
        int64_t at = (plane * p->pixels + from) * block, slot = plane % blocks * block;
        step->kernels->vec.affine((float *)bind->out[0] + at, (const float *)bind->in[0] + at,
                                  scale + slot, shift + slot, n * block,
                                  block == 1 ? LC_SPAN_ONE : LC_SPAN_LANES, block, a->relu != 0);
    }
    return LC_OK;
}

const lc_op lc_op_batch_norm = {
    .name = "batch_norm",
    .attr_size = sizeof(lc_batch_norm_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
};
