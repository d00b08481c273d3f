#include "ops/conv_form.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

static int64_t round_up(int64_t a, int64_t to)
{
    return (a + to - 1) / to * to;
}

/* Do groups share blocks? Then in and out widths are equal and their lanes need not move. */
static bool small_groups(int block, int64_t groups, int64_t ic, int64_t oc)
{
    return groups > 1 && ic == oc && ic / groups <= block && block % (ic / groups) == 0;
}

lc_layout lc_conv_group_layout(int block, int64_t groups, int64_t ic, int64_t oc, bool of_y)
{
    int64_t each = (of_y ? oc : ic) / groups;
    if (small_groups(block, groups, ic, oc) || each % block == 0)
        return (lc_layout){block, 1};
    return (lc_layout){block, (int32_t)groups};
}

int64_t lc_conv_slots(lc_layout l, int64_t channels)
{
    return round_up(channels / l.groups, l.block) * l.groups;
}

int64_t lc_conv_slot_channel(lc_layout l, int64_t channels, int64_t slot)
{
    int64_t each = channels / l.groups, padded = round_up(each, l.block);
    return slot % padded < each ? slot / padded * each + slot % padded : -1;
}

lc_conv_form lc_conv_form_get(const lc_conv_shape *s)
{
    lc_conv_form f;
    memset(&f, 0, sizeof f);
    f.lanes = small_groups(s->block, s->groups, s->ic, s->oc);
    int64_t in_slots = lc_conv_slots(s->x, s->ic), out_slots = lc_conv_slots(s->y, s->oc);
    if (f.lanes) {
        f.cb = (int32_t)(s->ic / s->groups);
        f.groups = out_slots / s->block;
        f.ib = f.ob = 1;
    } else {
        f.cb = s->x.block;
        f.groups = s->groups;
        f.ib = in_slots / f.groups / f.cb;
        f.ob = out_slots / f.groups / s->block;
    }
    f.panels = (f.ob + 1) / 2;
    f.w_ob = f.ib * s->kh * s->kw * f.cb * s->block;
    f.bias_at = (size_t)round_up(f.groups * f.ob * f.w_ob * (int64_t)sizeof(float), 64);
    f.bytes = f.bias_at + (size_t)out_slots * sizeof(float);
    return f;
}

/* --- the packing op */

static bool attr_shape(const lc_conv_pack_attr *a, const lc_desc *w, lc_conv_shape *s)
{
    *s = (lc_conv_shape){.groups = a->groups,
                         .ic = w->dim[1] * a->groups,
                         .oc = w->dim[0],
                         .kh = w->dim[2],
                         .kw = w->dim[3],
                         .x = a->x,
                         .y = a->y,
                         .block = a->block};
    return a->groups > 0 && a->block > 0 && s->oc % a->groups == 0 && s->ic % a->x.groups == 0;
}

static lc_status pack_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_conv_pack_attr *a = attr;
    int expected = 1 + (a->flags & LC_CONV_BIAS ? 1 : 0) + (a->flags & LC_CONV_BN ? 4 : 0);
    lc_conv_shape s;
    if (n_in != expected || in[0].rank != 4 || !attr_shape(a, &in[0], &s))
        return lc_fail(LC_ERR_VALUE, "conv2d_pack: wrong inputs");
    lc_conv_form f = lc_conv_form_get(&s);
    *n_out = 1;
    return lc_desc_init(&out[0], LC_BLOB, 1, (int64_t[]){(int64_t)f.bytes});
}

typedef struct pack_prep {
    lc_conv_shape shape;
    lc_conv_form form;
} pack_prep;

static lc_status pack_prepare(lc_step *step)
{
    LC_TRY(lc_step_prep(step, sizeof(pack_prep)));
    pack_prep *p = step->prep;
    attr_shape(step->attr, &step->in[0], &p->shape);
    p->form = lc_conv_form_get(&p->shape);
    step->items[0] = p->form.groups * p->form.panels;
    return LC_OK;
}

/* What batch norm after the convolution makes of a channel: y = scale * conv(x) + shift. */
typedef struct fold {
    double scale, shift;
} fold;

static fold channel_fold(const lc_conv_pack_attr *a, const lc_bind *bind, int64_t oc)
{
    fold f = {1.0, 0.0};
    int next = 1;
    if (a->flags & LC_CONV_BIAS)
        f.shift = ((const float *)bind->in[next++])[oc];
    if (a->flags & LC_CONV_BN) {
        double gamma = ((const float *)bind->in[next])[oc],
               beta = ((const float *)bind->in[next + 1])[oc];
        double mean = ((const float *)bind->in[next + 2])[oc],
               var = ((const float *)bind->in[next + 3])[oc];
        f.scale = gamma / sqrt(var + (double)a->bn_eps);
        f.shift = beta + (f.shift - mean) * f.scale;
    }
    return f;
}

/* One panel: `nv` output blocks from block `first` of the group on. */
static void pack_panel(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       int64_t group, int64_t first)
{
    const lc_conv_shape *s = &p->shape;
    const lc_conv_form *f = &p->form;
    const int64_t block = s->block, taps = s->kh * s->kw, icg = s->ic / s->groups;
    const int64_t nv = f->ob - first < 2 ? f->ob - first : 2, width = nv * block;
    const int64_t slot = (group * f->ob + first) * block; /* of the panel's first lane */
    const float *w = bind->in[0];                         /* [oc][icg][taps] */
    char *blob = bind->out[0];
    float *to = (float *)blob + (group * f->ob + first) * f->w_ob;
    float *bias = (float *)(blob + f->bias_at) + slot;

    int64_t oc[2 * LC_CONV_MAX_BLOCK];
    double scale[2 * LC_CONV_MAX_BLOCK];
    for (int64_t i = 0; i < width; i++) {
        oc[i] = lc_conv_slot_channel(s->y, s->oc, slot + i);
        fold fo = oc[i] < 0 ? (fold){0, 0} : channel_fold(a, bind, oc[i]);
        scale[i] = fo.scale;
        bias[i] = (float)fo.shift;
    }
    for (int64_t b = 0; b < f->ib; b++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < f->cb; c++, to += width) {
                /* input channel, counted within the group */
                int64_t ic = c;
                if (!f->lanes) {
                    ic = lc_conv_slot_channel(s->x, s->ic, (group * f->ib + b) * f->cb + c);
                    ic = ic < 0 ? ic : ic - group * icg;
                }
                for (int64_t i = 0; i < width; i++)
                    to[i] = oc[i] < 0 || ic < 0
                                ? 0.0f
                                : (float)(w[(oc[i] * icg + ic) * taps + t] * scale[i]);
            }
}

static lc_status pack_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const pack_prep *p = step->prep;
    for (int64_t item = begin; item < end; item++)
        pack_panel(p, step->attr, bind, item / p->form.panels, item % p->form.panels * 2);
    /* The gap between weights and biases: nothing reads it, but a blob's bytes should be a function
     * of its inputs. */
    if (begin == 0 && end > 0) {
        size_t used = (size_t)(p->form.groups * p->form.ob * p->form.w_ob) * sizeof(float);
        memset((char *)bind->out[0] + used, 0, p->form.bias_at - used);
    }
    return LC_OK;
}

const lc_op lc_op_conv2d_pack = {
    .name = "conv2d_pack",
    .attr_size = sizeof(lc_conv_pack_attr),
    .infer = pack_infer,
    .prepare = pack_prepare,
    .run = pack_run,
};
