#include "ops/conv_form.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

static int64_t round_up(int64_t a, int64_t to)
{
    return (a + to - 1) / to * to;
}

bool lc_conv_small_groups(int block, int64_t groups, int64_t ic, int64_t oc)
{
    return groups > 1 && ic == oc && ic / groups <= block && block % (ic / groups) == 0;
}

lc_layout lc_conv_group_layout(int block, int64_t groups, int64_t ic, int64_t oc, bool of_y)
{
    int64_t each = (of_y ? oc : ic) / groups;
    if (lc_conv_small_groups(block, groups, ic, oc) || each % block == 0)
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
    f.lanes = lc_conv_small_groups(s->block, s->groups, s->ic, s->oc);
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
    const lc_winograd_form *winograd = lc_conv_packed_form((uint32_t)s->algorithm);
    const int64_t parts = winograd ? winograd->parts : 1;
    if (winograd && winograd->folded) {
        f.cb = s->block;
        f.ib = round_up(4 * s->ic, s->block) / s->block;
    }
    f.panels = (f.ob / parts + 1) / 2;
    f.w_ob = f.ib / parts * (winograd ? winograd->weights : s->kh * s->kw) * f.cb * s->block;
    f.w_floats = f.groups * (winograd ? f.panels * 2 : f.ob) * f.w_ob;
    f.bias_at = (size_t)round_up(f.w_floats * (int64_t)sizeof(float), 64);
    f.bytes = f.bias_at + (size_t)out_slots * sizeof(float);
    return f;
}

/* --- the packing op */

static bool transposed(const lc_conv_pack_attr *a)
{
    return (a->flags & LC_CONV_TRANSPOSED) != 0;
}

static bool attr_shape(const lc_conv_pack_attr *a, const lc_desc *w, lc_conv_shape *s)
{
    const int64_t ic = w->dim[1] * a->groups, oc = w->dim[0];
    *s = (lc_conv_shape){.groups = a->groups,
                         .ic = transposed(a) ? oc : ic,
                         .oc = transposed(a) ? ic : oc,
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
    lc_conv2d_attr conv; /* what shapes the parts */
    int64_t parts[2];
    const lc_pack_kernels *kernels;
} pack_prep;

static lc_status pack_prepare(lc_step *step)
{
    LC_TRY(lc_step_prep(step, sizeof(pack_prep)));
    pack_prep *p = step->prep;
    const lc_conv_pack_attr *a = step->attr;
    attr_shape(a, &step->in[0], &p->shape);
    p->form = lc_conv_form_get(&p->shape);
    p->kernels = &step->kernels->pack;
    p->conv.flags = a->flags;
    const bool parts = a->stride[0] && !lc_conv_packed_form(a->algorithm); /* Winograd: as one */
    for (int i = 0; i < 2; i++) {
        p->conv.stride[i] = parts ? a->stride[i] : 1;
        p->conv.dilation[i] = parts ? a->dilation[i] : 1;
        p->conv.pad[2 * i] = a->pad[i];
        p->parts[i] = lc_conv_parts(&p->conv, i, i ? p->shape.kw : p->shape.kh);
    }
    step->items[0] = p->parts[0] * p->parts[1] * p->form.groups * p->form.panels;
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

/* Input channel of k-step c of input block b, counted within the group; -1 for padding. */
static int64_t input_channel(const pack_prep *p, int64_t group, int64_t b, int64_t c)
{
    const lc_conv_form *f = &p->form;
    if (f->lanes)
        return c;
    int64_t ic = lc_conv_slot_channel(p->shape.x, p->shape.ic, (group * f->ib + b) * f->cb + c);
    return ic < 0 ? ic : ic - group * (p->shape.ic / p->shape.groups);
}

static int64_t group_inputs(const pack_prep *p)
{
    return p->shape.ic / p->shape.groups;
}

static bool has_padding(const pack_prep *p)
{
    return p->form.ib * p->form.cb != group_inputs(p);
}

/* The input channels of a group in order, padding stepped over: block b, k-step c. */
typedef struct channel_walk {
    int64_t b, c;
    int64_t left, each; /* channels to the next padding, this one included; between paddings */
} channel_walk;

static channel_walk walk_channels(const pack_prep *p)
{
    const int64_t each = p->shape.ic / p->shape.x.groups;
    const int64_t run = p->form.lanes || each > group_inputs(p) ? group_inputs(p) : each;
    return (channel_walk){0, 0, run, run};
}

static void step_padding(channel_walk *k)
{
    k->left = k->each;
    k->b += k->c > 0;
    k->c = 0;
}

/* Steps over n channels; n <= left. */
static void step_channels(channel_walk *k, int64_t n, int64_t cb)
{
    k->c += n;
    k->b += k->c / cb;
    k->c %= cb;
    k->left -= n;
    if (k->left == 0)
        step_padding(k);
}

static void step_channel(channel_walk *k, int64_t cb)
{
    if (++k->c == cb) {
        k->c = 0;
        k->b++;
    }
    if (--k->left == 0)
        step_padding(k);
}

/* A panel of a part: output blocks `first` and `first` + 1 of a group. */
typedef struct panel {
    int64_t part, group, first;
    int64_t width, there; /* lanes; those that are in y */
    lc_conv_axis axis[2]; /* direct sums */
    float *weights;
} panel;

static panel panel_of(const pack_prep *p, int64_t item, void *blob)
{
    const lc_conv_shape *s = &p->shape;
    const lc_conv_form *f = &p->form;
    panel n = {.part = item / (f->panels * f->groups),
               .group = item / f->panels % f->groups,
               .first = item % f->panels * 2,
               .weights = blob};
    n.there = (f->ob - n.first < 2 ? f->ob - n.first : 2) * s->block;
    n.width = n.there;
    if (lc_conv_packed_form((uint32_t)s->algorithm)) {
        n.width = 2 * s->block;
        n.weights += (n.group * f->panels * 2 + n.first) * f->w_ob;
        return n;
    }
    n.axis[0] = lc_conv_axis_get(&p->conv, 0, s->kh, n.part / p->parts[1]);
    n.axis[1] = lc_conv_axis_get(&p->conv, 1, s->kw, n.part % p->parts[1]);
    const int64_t tap = f->w_ob / (s->kh * s->kw); /* floats of an output block */
    n.weights += lc_conv_part_at(f, s->kh, s->kw, n.axis) +
                 (n.group * f->ob + n.first) * n.axis[0].taps * n.axis[1].taps * tap;
    return n;
}

/* Between the taps of neighbouring input channels in w. */
static int64_t channel_step(const pack_prep *p)
{
    const lc_conv_shape *s = &p->shape;
    return s->kh * s->kw * (p->conv.flags & LC_CONV_TRANSPOSED ? s->oc / s->groups : 1);
}

/* Where w's taps for an output channel and input channel 0 of its group are. */
static int64_t taps_of(const pack_prep *p, int64_t oc)
{
    const lc_conv_shape *s = &p->shape;
    const int64_t icg = s->ic / s->groups, ocg = s->oc / s->groups;
    const int64_t pair =
        p->conv.flags & LC_CONV_TRANSPOSED ? oc / ocg * icg * ocg + oc % ocg : oc * icg;
    return pair * s->kh * s->kw;
}

/* The output channel of lane i of a panel, `blocks` further on; -1 for none. */
static int64_t lane_channel(const pack_prep *p, const panel *n, int64_t blocks, int64_t i)
{
    const int64_t slot = (n->group * p->form.ob + n->first + blocks) * p->shape.block + i;
    return i < n->there ? lc_conv_slot_channel(p->shape.y, p->shape.oc, slot) : -1;
}

/* `shift`, unless NULL, gets what is added to each lane that is in y. */
static void find_lanes(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       const panel *n, int64_t blocks, lc_pack_lanes *l, float *shift)
{
    l->width = (int)n->width;
    for (int64_t i = 0; i < n->width; i++) {
        const int64_t oc = lane_channel(p, n, blocks, i);
        fold fo = oc < 0 ? (fold){0, 0} : channel_fold(a, bind, oc);
        l->lane[i] = oc < 0 ? -1 : taps_of(p, oc);
        l->scale[i] = fo.scale;
        if (i < n->there && shift)
            shift[i] = (float)fo.shift;
    }
}

/* Direct form: the next elements, channel by channel. */
typedef struct direct_walk {
    channel_walk channel;
    int64_t ic, kh, kw; /* of the next element; kh, kw count the taps of the part */
    int64_t row;        /* in rows */
} direct_walk;

static bool next_elements(const pack_prep *p, const panel *n, direct_walk *k, lc_pack_elements *e)
{
    const lc_conv_axis *h = &n->axis[0], *w = &n->axis[1];
    const int64_t cb = p->form.cb, step = channel_step(p), inputs = group_inputs(p);
    for (e->n = 0; e->n < LC_PACK_TILE && k->ic < inputs; e->n++) {
        e->from[e->n] = k->ic * step + (h->tap + k->kh * h->tap_step) * p->shape.kw + w->tap +
                        k->kw * w->tap_step;
        e->row[e->n] = k->row * e->lanes->width;
        k->row += cb;
        if (++k->kw < w->taps)
            continue;
        k->kw = 0;
        if (++k->kh < h->taps)
            continue;
        k->kh = 0;
        k->ic++;
        step_channel(&k->channel, cb);
        k->row = k->channel.b * h->taps * w->taps * cb + k->channel.c;
    }
    return e->n > 0;
}

static void pack_direct(const pack_prep *p, const panel *n, const lc_pack_lanes *l, const float *w)
{
    const int64_t taps = n->axis[0].taps * n->axis[1].taps, cb = p->form.cb;
    direct_walk k = {.channel = walk_channels(p)};
    lc_pack_elements e = {.lanes = l};
    while (next_elements(p, n, &k, &e))
        p->kernels->pack(&e, w, n->weights);
    if (!has_padding(p))
        return;
    for (int64_t b = 0; b < p->form.ib; b++)
        for (int64_t c = 0; c < cb; c++)
            for (int64_t t = 0; t < taps && input_channel(p, n->group, b, c) < 0; t++)
                memset(n->weights + ((b * taps + t) * cb + c) * l->width, 0,
                       (size_t)l->width * sizeof(float));
}

static void unpack_direct(const pack_prep *p, const panel *n, const lc_pack_lanes *l, float *w)
{
    direct_walk k = {.channel = walk_channels(p)};
    lc_pack_elements e = {.lanes = l};
    while (next_elements(p, n, &k, &e))
        p->kernels->unpack(&e, n->weights, w);
}

/* Filters for a transposed convolution are transformed like others. */
static lc_winograd_kind packed_kind(uint32_t algorithm)
{
    return algorithm == LC_CONV_WINOGRAD_UP ? LC_WINOGRAD_3X3_S2
                                            : (lc_winograd_kind)(algorithm - 1);
}

static lc_pack_filters filters_of(const pack_prep *p, const lc_pack_lanes *l)
{
    return (lc_pack_filters){.lanes = l,
                             .next = channel_step(p),
                             .turned = (p->conv.flags & LC_CONV_TRANSPOSED) != 0,
                             .kind = packed_kind((uint32_t)p->shape.algorithm),
                             .pos = p->form.ib * p->form.cb * l->width};
}

/* The next filters: those of up to LC_PACK_TILE channels from *ic on; *row: where their rows are. */
static bool next_filters(const pack_prep *p, channel_walk *k, int64_t *ic, lc_pack_filters *f,
                         int64_t *row)
{
    const int64_t rest = group_inputs(p) - *ic, n = rest < k->left ? rest : k->left;
    f->from = *ic * f->next;
    f->n = (int)(n < LC_PACK_TILE ? n : LC_PACK_TILE);
    *row = (k->b * p->form.cb + k->c) * f->lanes->width;
    *ic += f->n;
    if (f->n)
        step_channels(k, f->n, p->form.cb);
    return f->n > 0;
}

static void pack_winograd(const pack_prep *p, const panel *n, const lc_pack_lanes *l,
                          const float *w)
{
    channel_walk k = walk_channels(p);
    lc_pack_filters f = filters_of(p, l);
    int64_t ic = 0, row;
    while (next_filters(p, &k, &ic, &f, &row))
        p->kernels->winograd(&f, w, n->weights + row);
    if (!has_padding(p))
        return;
    lc_pack_lanes missing = {.width = l->width};
    for (int i = 0; i < l->width; i++)
        missing.lane[i] = -1;
    f.lanes = &missing;
    f.n = 1;
    for (int64_t c = 0; c < p->form.ib * p->form.cb; c++)
        if (input_channel(p, n->group, c / p->form.cb, c % p->form.cb) < 0)
            p->kernels->winograd(&f, w, n->weights + c * l->width);
}

/* u = G f G^T of four kernels of 4x4 (kernels/winograd_kernels.h). A few filters: not worth a kernel of
 * its own. */
static void pack_folded(const pack_prep *p, const panel *n, const lc_pack_lanes *l, const float *w)
{
    static const double g[7][4] = {{-1. / 2, 0, 0, 0},
                                   {-1. / 3, -1. / 3, -1. / 3, -1. / 3},
                                   {1. / 9, -1. / 9, 1. / 9, -1. / 9},
                                   {1. / 36, 2. / 36, 4. / 36, 8. / 36},
                                   {-1. / 60, 2. / 60, -4. / 60, 8. / 60},
                                   {32. / 45, 16. / 45, 8. / 45, 4. / 45},
                                   {0, 0, 0, 1}};
    const int64_t pos = p->form.ib * p->form.cb * l->width;
    memset(n->weights, 0, (size_t)(49 * pos) * sizeof(float));
    for (int64_t k = 0; k < 4 * p->shape.ic * l->width; k++) {
        const int64_t channel = k / l->width, i = k % l->width;
        if (l->lane[i] < 0)
            continue;
        const float *taps = w + l->lane[i] + channel / 4 * channel_step(p);
        double f[4][4] = {{0}}, t[7][4] = {{0}};
        for (int64_t row = channel / 2 % 2; row < 7; row += 2)
            for (int64_t column = channel % 2; column < 7; column += 2)
                f[row / 2][column / 2] = taps[row * 7 + column] * l->scale[i];
        for (int a = 0; a < 7 * 4; a++)
            for (int b = 0; b < 4; b++)
                t[a / 4][a % 4] += g[a / 4][b] * f[b][a % 4];
        for (int a = 0; a < 7 * 7; a++) {
            double u = 0;
            for (int b = 0; b < 4; b++)
                u += t[a / 7][b] * g[a % 7][b];
            n->weights[a * pos + k] = (float)u;
        }
    }
}

static void unpack_winograd(const pack_prep *p, const panel *n, const lc_pack_lanes *l, float *w)
{
    channel_walk k = walk_channels(p);
    lc_pack_filters f = filters_of(p, l);
    int64_t ic = 0, row;
    while (next_filters(p, &k, &ic, &f, &row))
        p->kernels->unwinograd(&f, n->weights + row, w);
}

/* l[q]: the panel's lanes of part q of the outputs. All lanes exist. */
static lc_pack_parts parts_of(const pack_prep *p, const lc_pack_lanes *l, int parts)
{
    const int64_t part = p->shape.ic / parts;
    return (lc_pack_parts){.lanes = l,
                           .parts = parts,
                           .next = channel_step(p),
                           .part = part * channel_step(p),
                           .pos = part * l->width};
}

static bool next_parts(const pack_prep *p, int64_t *k, lc_pack_parts *t)
{
    const int64_t rest = p->shape.ic / t->parts - *k;
    t->from = *k * t->next;
    t->n = (int)(rest < LC_PACK_TILE ? rest : LC_PACK_TILE);
    *k += t->n;
    return t->n > 0;
}

static void pack_strassen(const pack_prep *p, const panel *n, const lc_pack_lanes *l, int parts,
                          const float *w)
{
    lc_pack_parts t = parts_of(p, l, parts);
    for (int64_t k = 0; next_parts(p, &k, &t);)
        p->kernels->strassen(&t, w, n->weights + (k - t.n) * l->width);
}

static void unpack_strassen(const pack_prep *p, const panel *n, const lc_pack_lanes *l, int parts,
                            float *w)
{
    lc_pack_parts t = parts_of(p, l, parts);
    for (int64_t k = 0; next_parts(p, &k, &t);)
        p->kernels->unstrassen(&t, n->weights + (k - t.n) * l->width, w);
}

static bool is_folded(const pack_prep *p)
{
    const lc_winograd_form *winograd = lc_conv_packed_form((uint32_t)p->shape.algorithm);
    return winograd && winograd->folded;
}

static int output_parts(const pack_prep *p)
{
    const lc_winograd_form *winograd = lc_conv_packed_form((uint32_t)p->shape.algorithm);
    return winograd ? winograd->parts : 1;
}

static void pack_panel(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       const panel *n)
{
    const int parts = output_parts(p);
    float *shift = (float *)((char *)bind->out[0] + p->form.bias_at);
    lc_pack_lanes l[LC_UNPACK_RANGES];
    for (int q = 0; q < parts; q++) {
        const int64_t blocks = q * p->form.ob / parts;
        const int64_t slot = (n->group * p->form.ob + n->first + blocks) * p->shape.block;
        find_lanes(p, a, bind, n, blocks, &l[q], n->part == 0 ? shift + slot : NULL);
    }
    if (parts > 1)
        pack_strassen(p, n, l, parts, bind->in[0]);
    else if (is_folded(p))
        pack_folded(p, n, l, bind->in[0]);
    else if (lc_conv_packed_form((uint32_t)p->shape.algorithm))
        pack_winograd(p, n, l, bind->in[0]);
    else
        pack_direct(p, n, l, bind->in[0]);
}

static lc_status pack_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const pack_prep *p = step->prep;
    for (int64_t item = begin; item < end; item++) {
        const panel n = panel_of(p, item, bind->out[0]);
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
    if (p->conv.flags & LC_CONV_TRANSPOSED)
        return 0; /* a form for training, where weights are needed anyway */
    if (is_folded(p))
        return 0; /* few weights */
    const lc_conv_algorithm algorithm = (lc_conv_algorithm)p->shape.algorithm;
    return !lc_conv_packed_form(algorithm) || algorithm == LC_CONV_WINOGRAD_S2 ? 2 : 4;
}

static int unpack_rows(const lc_step *step, int64_t item, int64_t *first, int64_t *count)
{
    const pack_prep *p = step->prep;
    const panel n = panel_of(p, item, NULL);
    const int parts = output_parts(p);
    for (int q = 0; q < parts; q++) {
        *count = first[q] = 0;
        for (int64_t i = 0; i < n.there; i++) {
            const int64_t oc = lane_channel(p, &n, q * p->form.ob / parts, i);
            if (oc >= 0 && (*count)++ == 0)
                first[q] = oc;
        }
    }
    return parts;
}

static void unpack_run(const lc_step *step, const lc_bind *bind, int64_t item, float *const *to)
{
    const pack_prep *p = step->prep;
    const panel n = panel_of(p, item, bind->out[0]);
    const int parts = output_parts(p);
    lc_pack_lanes l[LC_UNPACK_RANGES];
    for (int q = 0; q < parts; q++) {
        int64_t first = -1;
        find_lanes(p, step->attr, bind, &n, q * p->form.ob / parts, &l[q], NULL);
        for (int i = 0; i < l[q].width; i++) {
            if (l[q].lane[i] < 0)
                continue;
            first = first < 0 ? l[q].lane[i] : first;
            l[q].lane[i] += to[q] - to[0] - first;
            l[q].scale[i] = l[q].scale[i] != 0 ? 1 / l[q].scale[i] : 0;
        }
    }
    if (parts > 1)
        unpack_strassen(p, &n, l, parts, to[0]);
    else if (lc_conv_packed_form((uint32_t)p->shape.algorithm))
        unpack_winograd(p, &n, l, to[0]);
    else
        unpack_direct(p, &n, l, to[0]);
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
