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
    const bool winograd = s->algorithm == LC_CONV_WINOGRAD;
    f.w_ob = f.ib * (winograd ? LC_WINOGRAD_POSITIONS : s->kh * s->kw) * f.cb * s->block;
    f.w_floats = f.groups * (winograd ? f.panels * 2 : f.ob) * f.w_ob;
    f.bias_at = (size_t)round_up(f.w_floats * (int64_t)sizeof(float), 64);
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
                         .block = a->block,
                         .algorithm = (int32_t)a->algorithm};
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
    const lc_pack_kernels *kernels;
} pack_prep;

static lc_status pack_prepare(lc_step *step)
{
    LC_TRY(lc_step_prep(step, sizeof(pack_prep)));
    pack_prep *p = step->prep;
    attr_shape(step->attr, &step->in[0], &p->shape);
    p->form = lc_conv_form_get(&p->shape);
    p->kernels = &step->kernels->pack;
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

/* The lanes of a panel: where the weights of their channels begin, or -1, and what these are
 * multiplied with. */
typedef struct panel_lanes {
    int64_t width; /* missing blocks included */
    int64_t lane[2 * LC_CONV_MAX_BLOCK];
    double scale[2 * LC_CONV_MAX_BLOCK];
} panel_lanes;

/* Input channel of k-step c of input block b, counted within the group; -1 for padding. */
static int64_t input_channel(const pack_prep *p, int64_t group, int64_t b, int64_t c)
{
    const lc_conv_form *f = &p->form;
    if (f->lanes)
        return c;
    int64_t ic = lc_conv_slot_channel(p->shape.x, p->shape.ic, (group * f->ib + b) * f->cb + c);
    return ic < 0 ? ic : ic - group * (p->shape.ic / p->shape.groups);
}

static bool has_padding(const pack_prep *p)
{
    return p->form.ib * p->form.cb != p->shape.ic / p->shape.groups;
}

/* The input channels of a group in order, padding stepped over: block b, k-step c. */
typedef struct channel_walk {
    int64_t b, c;
    int64_t left, each; /* channels to the next padding, this one included; between paddings */
} channel_walk;

static channel_walk walk_channels(const pack_prep *p)
{
    const int64_t icg = p->shape.ic / p->shape.groups, each = p->shape.ic / p->shape.x.groups;
    const int64_t run = p->form.lanes || each > icg ? icg : each;
    return (channel_walk){0, 0, run, run};
}

/* Steps over n channels; n <= left. */
static void step_channels(channel_walk *k, int64_t n, int64_t cb)
{
    k->c += n;
    k->left -= n;
    k->b += k->c / cb;
    k->c %= cb;
    if (k->left == 0) {
        k->left = k->each;
        k->b += k->c > 0;
        k->c = 0;
    }
}

static lc_pack_tile first_tile(const panel_lanes *l)
{
    return (lc_pack_tile){.width = (int)l->width, .lane = l->lane, .scale = l->scale};
}

/* Direct form: the next elements in the order of users. */
typedef struct direct_walk {
    channel_walk channel;
    int64_t tap, base; /* of the next element; row of the channel's tap 0 */
} direct_walk;

static bool next_direct_tile(const pack_prep *p, direct_walk *k, lc_pack_tile *t)
{
    const int64_t taps = p->shape.kh * p->shape.kw, cb = p->form.cb;
    const int64_t total = p->shape.ic / p->shape.groups * taps;
    t->at += t->n;
    t->n = (int)(total - t->at < LC_PACK_TILE ? total - t->at : LC_PACK_TILE);
    for (int e = 0; e < t->n; e++) {
        t->row[e] = (k->base + k->tap * cb) * t->width;
        if (++k->tap == taps) {
            k->tap = 0;
            step_channels(&k->channel, 1, cb);
            k->base = k->channel.b * taps * cb + k->channel.c;
        }
    }
    return t->n > 0;
}

static void pack_direct(const pack_prep *p, const float *w, int64_t group, const panel_lanes *l,
                        float *to)
{
    const int64_t taps = p->shape.kh * p->shape.kw, cb = p->form.cb;
    direct_walk k = {walk_channels(p), 0, 0};
    lc_pack_tile t = first_tile(l);
    while (next_direct_tile(p, &k, &t))
        p->kernels->pack(&t, w, to);
    if (!has_padding(p))
        return;
    for (int64_t b = 0; b < p->form.ib; b++)
        for (int64_t c = 0; c < cb; c++)
            for (int64_t tap = 0; tap < taps && input_channel(p, group, b, c) < 0; tap++)
                memset(to + ((b * taps + tap) * cb + c) * l->width, 0,
                       (size_t)l->width * sizeof *to);
}

/* Winograd form: the next filters, with where their rows begin at position 0. */
static int64_t next_winograd_tile(const pack_prep *p, channel_walk *k, lc_pack_tile *t)
{
    const int64_t icg = p->shape.ic / p->shape.groups;
    t->pos = p->form.ib * p->form.cb * t->width;
    t->at += t->n * 9;
    const int64_t rest = icg - t->at / 9, row = (k->b * p->form.cb + k->c) * t->width;
    const int64_t n = rest < k->left ? rest : k->left;
    t->n = (int)(n < LC_PACK_TILE ? n : LC_PACK_TILE);
    step_channels(k, t->n, p->form.cb);
    return row;
}

static void pack_winograd(const pack_prep *p, const float *w, int64_t group, const panel_lanes *l,
                          float *to)
{
    const int64_t icg = p->shape.ic / p->shape.groups, channels = p->form.ib * p->form.cb;
    channel_walk k = walk_channels(p);
    lc_pack_tile t = first_tile(l);
    while (t.at / 9 + t.n < icg) {
        const int64_t row = next_winograd_tile(p, &k, &t);
        p->kernels->winograd(&t, w, to + row);
    }
    if (!has_padding(p))
        return;
    static const double no_scale[2 * LC_CONV_MAX_BLOCK];
    int64_t missing[2 * LC_CONV_MAX_BLOCK];
    for (int64_t i = 0; i < l->width; i++)
        missing[i] = -1;
    t = (lc_pack_tile){(int)l->width, missing, no_scale, 0, 1, {0}, channels * l->width};
    for (int64_t c = 0; c < channels; c++)
        if (input_channel(p, group, c / p->form.cb, c % p->form.cb) < 0)
            p->kernels->winograd(&t, w, to + c * l->width);
}

static void unpack_direct(const pack_prep *p, const float *from, const panel_lanes *l, float *w)
{
    direct_walk k = {walk_channels(p), 0, 0};
    lc_pack_tile t = first_tile(l);
    while (next_direct_tile(p, &k, &t))
        p->kernels->unpack(&t, from, w);
}

static void unpack_winograd(const pack_prep *p, const float *from, const panel_lanes *l, float *w)
{
    const int64_t icg = p->shape.ic / p->shape.groups;
    channel_walk k = walk_channels(p);
    lc_pack_tile t = first_tile(l);
    while (t.at / 9 + t.n < icg) {
        const int64_t row = next_winograd_tile(p, &k, &t);
        p->kernels->unwinograd(&t, from + row, w);
    }
}

/* A panel: output blocks `first` and `first` + 1 of a group. */
typedef struct panel {
    int64_t group, first;
    int64_t slot, there; /* its lanes that are in y, and the slot of the first one */
} panel;

static panel panel_of(const pack_prep *p, int64_t item)
{
    const lc_conv_form *f = &p->form;
    panel n = {item / f->panels, item % f->panels * 2, 0, 0};
    n.slot = (n.group * f->ob + n.first) * p->shape.block;
    n.there = (f->ob - n.first < 2 ? f->ob - n.first : 2) * p->shape.block;
    return n;
}

static float *panel_weights(const pack_prep *p, const panel *n, void *blob)
{
    const lc_conv_form *f = &p->form;
    const bool winograd = p->shape.algorithm == LC_CONV_WINOGRAD;
    return (float *)blob + (n->group * (winograd ? f->panels * 2 : f->ob) + n->first) * f->w_ob;
}

/* `shift`, unless NULL, gets what is added to each of the channels that are in y. */
static panel_lanes find_lanes(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                              const panel *n, float *shift)
{
    const lc_conv_shape *s = &p->shape;
    const int64_t row = s->ic / s->groups * s->kh * s->kw; /* of w */
    panel_lanes l = {.width = s->algorithm == LC_CONV_WINOGRAD ? 2 * s->block : n->there};
    for (int64_t i = 0; i < l.width; i++) {
        const int64_t oc = i < n->there ? lc_conv_slot_channel(s->y, s->oc, n->slot + i) : -1;
        fold fo = oc < 0 ? (fold){0, 0} : channel_fold(a, bind, oc);
        l.lane[i] = oc < 0 ? -1 : oc * row;
        l.scale[i] = fo.scale;
        if (shift && i < n->there)
            shift[i] = (float)fo.shift;
    }
    return l;
}

static void pack_panel(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       const panel *n)
{
    const float *w = bind->in[0]; /* [oc][icg][taps] */
    char *blob = bind->out[0];
    float *to = panel_weights(p, n, blob);
    const panel_lanes l = find_lanes(p, a, bind, n, (float *)(blob + p->form.bias_at) + n->slot);
    if (p->shape.algorithm == LC_CONV_WINOGRAD)
        pack_winograd(p, w, n->group, &l, to);
    else
        pack_direct(p, w, n->group, &l, to);
}

static lc_status pack_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const pack_prep *p = step->prep;
    for (int64_t item = begin; item < end; item++) {
        const panel n = panel_of(p, item);
        pack_panel(p, step->attr, bind, &n);
    }
    /* The gap between weights and biases: nothing reads it, but a blob's bytes should be a function
     * of its inputs. */
    if (begin == 0 && end > 0) {
        size_t used = (size_t)p->form.w_floats * sizeof(float);
        memset((char *)bind->out[0] + used, 0, p->form.bias_at - used);
    }
    return LC_OK;
}

/* --- and back */

static int unpack_bits(const lc_step *step)
{
    const pack_prep *p = step->prep;
    return p->shape.algorithm == LC_CONV_WINOGRAD ? 4
           : p->shape.algorithm == LC_CONV_DIRECT ? 2
                                                  : 0;
}

static int64_t unpack_rows(const lc_step *step, int64_t item, int64_t *first)
{
    const pack_prep *p = step->prep;
    const panel n = panel_of(p, item);
    int64_t count = 0;
    *first = 0;
    for (int64_t i = 0; i < n.there; i++) {
        const int64_t oc = lc_conv_slot_channel(p->shape.y, p->shape.oc, n.slot + i);
        if (oc >= 0 && count++ == 0)
            *first = oc;
    }
    return count;
}

static void unpack_run(const lc_step *step, const lc_bind *bind, int64_t item, float *to)
{
    const pack_prep *p = step->prep;
    const panel n = panel_of(p, item);
    panel_lanes l = find_lanes(p, step->attr, bind, &n, NULL);
    int64_t first = -1;
    for (int64_t i = 0; i < l.width; i++) {
        if (l.lane[i] < 0)
            continue;
        first = first < 0 ? l.lane[i] : first;
        l.lane[i] -= first;
        l.scale[i] = l.scale[i] != 0 ? 1 / l.scale[i] : 0;
    }
    const float *from = panel_weights(p, &n, bind->out[0]);
    if (p->shape.algorithm == LC_CONV_WINOGRAD)
        unpack_winograd(p, from, &l, to);
    else
        unpack_direct(p, from, &l, to);
}

static const lc_unpack unpack = {unpack_bits, unpack_rows, unpack_run};

const lc_op lc_op_conv2d_pack = {
    .name = "conv2d_pack",
    .attr_size = sizeof(lc_conv_pack_attr),
    .infer = pack_infer,
    .prepare = pack_prepare,
    .run = pack_run,
    .unpack = &unpack,
};
