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
    const lc_winograd_form *winograd = lc_conv_winograd_form((uint32_t)s->algorithm);
    const int64_t parts = winograd ? winograd->parts : 1;
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
} pack_prep;

static lc_status pack_prepare(lc_step *step)
{
    LC_TRY(lc_step_prep(step, sizeof(pack_prep)));
    pack_prep *p = step->prep;
    const lc_conv_pack_attr *a = step->attr;
    attr_shape(a, &step->in[0], &p->shape);
    p->form = lc_conv_form_get(&p->shape);
    p->conv.flags = a->flags;
    for (int i = 0; i < 2; i++) {
        p->conv.stride[i] = a->stride[i] ? a->stride[i] : 1;
        p->conv.dilation[i] = a->dilation[i] ? a->dilation[i] : 1;
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

/* u = G w G^T, for the transforms of kernels/winograd_kernels.h, of LANES kernels side by side. A
 * convolution in training packs its weights at every step, so this should take no longer than
 * reading them. */
enum { LANES = 8 };

/* A column or row of three numbers becomes six. s2: for stride 2. */
static inline void winograd_six(bool s2, const double *a, const double *b, const double *c,
                                double *u[6])
{
    for (int i = 0; i < LANES && !s2; i++) {
        const double s = (a[i] + c[i]) * (1. / 3), m = b[i] * (1. / 3);
        u[0][i] = a[i];
        u[1][i] = m + s;
        u[2][i] = m - s;
        u[3][i] = (a[i] * 4 + b[i] * 2 + c[i]) * (-4. / 15);
        u[4][i] = (a[i] - b[i] * 2 + c[i] * 4) * (1. / 15);
        u[5][i] = c[i];
    }
    for (int i = 0; i < LANES && s2; i++) {
        u[0][i] = a[i];
        u[1][i] = (c[i] - a[i]) * (2. / 9);
        u[2][i] = (a[i] * 2 + c[i]) * (-4. / 9);
        u[3][i] = (a[i] + c[i] * 2) * (1. / 9);
        u[4][i] = c[i];
        u[5][i] = b[i];
    }
}

/* Position p goes to u + p * position. */
static inline void winograd_weights(bool s2, double w[9][LANES], float *u, int64_t position)
{
    double t[6][3][LANES], r[6][LANES];
    for (int j = 0; j < 3; j++)
        winograd_six(s2, w[j], w[3 + j], w[6 + j],
                     (double *[]){t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]});
    for (int i = 0; i < 6; i++) {
        winograd_six(s2, t[i][0], t[i][1], t[i][2],
                     (double *[]){r[0], r[1], r[2], r[3], r[4], r[5]});
        for (int j = 0; j < 6; j++, u += position)
            for (int l = 0; l < LANES; l++)
                u[l] = (float)r[j][l];
    }
}

/* The channels of a panel: those of its lanes, or -1, and what their weights are multiplied with.
 */
typedef struct panel_lanes {
    int64_t width; /* lanes, missing blocks included */
    int64_t oc[2 * LC_CONV_MAX_BLOCK];
    const float *w[2 * LC_CONV_MAX_BLOCK]; /* its taps for input channel 0 of its group */
    int64_t next;                          /* how far those for the next input channel are */
    double scale[2 * LC_CONV_MAX_BLOCK];
    bool simple; /* all are there, and scale is 1 */
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

/* Where w's taps for an output channel and input channel 0 of its group are. */
static const float *taps_of(const pack_prep *p, const float *w, int64_t oc)
{
    const lc_conv_shape *s = &p->shape;
    const int64_t icg = s->ic / s->groups, ocg = s->oc / s->groups;
    const int64_t pair =
        p->conv.flags & LC_CONV_TRANSPOSED ? oc / ocg * icg * ocg + oc % ocg : oc * icg;
    return w + pair * s->kh * s->kw;
}

static void pack_direct(const pack_prep *p, int64_t group, const panel_lanes *l,
                        const lc_conv_axis axis[2], float *to)
{
    for (int64_t b = 0; b < p->form.ib; b++)
        for (int64_t t = 0; t < axis[0].taps * axis[1].taps; t++) {
            const int64_t kh = axis[0].tap + t / axis[1].taps * axis[0].tap_step;
            const int64_t tap =
                kh * p->shape.kw + axis[1].tap + t % axis[1].taps * axis[1].tap_step;
            for (int64_t c = 0; c < p->form.cb; c++, to += l->width) {
                const int64_t ic = input_channel(p, group, b, c);
                if (l->simple && ic >= 0) {
                    for (int64_t i = 0; i < l->width; i++)
                        to[i] = l->w[i][ic * l->next + tap];
                    continue;
                }
                for (int64_t i = 0; i < l->width; i++)
                    to[i] = l->oc[i] < 0 || ic < 0
                                ? 0.0f
                                : (float)(l->w[i][ic * l->next + tap] * l->scale[i]);
            }
        }
}

static void pack_winograd(const pack_prep *p, int64_t group, const panel_lanes *l, float *to)
{
    const bool s2 = p->shape.algorithm == LC_CONV_WINOGRAD_S2;
    const int64_t channels = p->form.ib * p->form.cb;
    const bool turn = (p->conv.flags & LC_CONV_TRANSPOSED) != 0;
    for (int64_t k = 0; k < channels; k++) {
        const int64_t ic = input_channel(p, group, k / p->form.cb, k % p->form.cb);
        for (int64_t lane = 0; lane < l->width; lane += LANES, to += LANES) {
            double taps[9][LANES] = {{0}};
            for (int64_t i = 0; i < LANES && ic >= 0; i++) {
                if (l->oc[lane + i] < 0)
                    continue;
                const float *from = l->w[lane + i] + ic * l->next;
                for (int t = 0; t < 9; t++)
                    taps[t][i] = from[turn ? 8 - t : t] * l->scale[lane + i];
            }
            if (s2) /* two copies, each without the other's code */
                winograd_weights(true, taps, to, channels * l->width);
            else
                winograd_weights(false, taps, to, channels * l->width);
        }
    }
}

/* b[row][column] of halves -> the right factors of Strassen's seven products, for the left ones of
 * kernels/winograd_kernels.h; LANES of them. */
static void strassen_weights(const double *b11, const double *b12, const double *b21,
                             const double *b22, double u[7][LANES])
{
    for (int i = 0; i < LANES; i++) {
        u[0][i] = b11[i];
        u[1][i] = b21[i];
        u[2][i] = b22[i];
        u[4][i] = b12[i] - b11[i];
        u[5][i] = b22[i] - u[4][i];
        u[3][i] = u[5][i] - b21[i];
        u[6][i] = b22[i] - b12[i];
    }
}

/* l[q]: the panel's lanes of part q of the outputs. All lanes exist. */
static void pack_strassen(const pack_prep *p, const panel_lanes *l, int parts, float *to)
{
    const int64_t part = p->shape.ic / parts, matrix = part * l->width;
    for (int64_t k = 0; k < part; k++)
        for (int64_t lane = 0; lane < l->width; lane += LANES, to += LANES) {
            /* b[part of inputs][part of outputs] */
            double b[4][4][LANES], t[4][7][LANES], u[49][LANES];
            for (int r = 0; r < parts; r++)
                for (int q = 0; q < parts; q++)
                    for (int i = 0; i < LANES; i++)
                        b[r][q][i] =
                            l[q].w[lane + i][(r * part + k) * l[q].next] * l[q].scale[lane + i];
            if (parts == 2)
                strassen_weights(b[0][0], b[0][1], b[1][0], b[1][1], u);
            for (int e = 0; parts == 4 && e < 4; e++) {
                const int r = e / 2, q = e % 2;
                strassen_weights(b[r][q], b[r][q + 2], b[r + 2][q], b[r + 2][q + 2], t[e]);
            }
            for (int f = 0; parts == 4 && f < 7; f++)
                strassen_weights(t[0][f], t[1][f], t[2][f], t[3][f], u + f * 7);
            for (int f = 0; f < (parts == 2 ? 7 : 49); f++)
                for (int i = 0; i < LANES; i++)
                    to[f * matrix + i] = (float)u[f][i];
        }
}

/* The lanes of the output blocks from block `first` of the group on, `there` of which are in y; and
 * their biases, if `bias`. */
static panel_lanes find_lanes(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                              int64_t group, int64_t first, int64_t width, int64_t there, bool bias)
{
    const lc_conv_shape *s = &p->shape;
    const int64_t slot = (group * p->form.ob + first) * s->block; /* of the first one */
    float *to = (float *)((char *)bind->out[0] + p->form.bias_at) + slot;
    panel_lanes l = {.width = width,
                     .next = s->kh * s->kw * (transposed(a) ? s->oc / s->groups : 1),
                     .simple = !(a->flags & LC_CONV_BN)};
    for (int64_t i = 0; i < width; i++) {
        l.oc[i] = i < there ? lc_conv_slot_channel(s->y, s->oc, slot + i) : -1;
        fold fo = l.oc[i] < 0 ? (fold){0, 0} : channel_fold(a, bind, l.oc[i]);
        l.scale[i] = fo.scale;
        l.w[i] = l.oc[i] < 0 ? NULL : taps_of(p, bind->in[0], l.oc[i]);
        l.simple &= l.oc[i] >= 0;
        if (i < there && bias)
            to[i] = (float)fo.shift;
    }
    return l;
}

/* One panel of a part: the output blocks from block `first` of the group on. */
static void pack_panel(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       int64_t part, int64_t group, int64_t first)
{
    const lc_conv_shape *s = &p->shape;
    const lc_conv_form *f = &p->form;
    const lc_winograd_form *winograd = lc_conv_winograd_form((uint32_t)s->algorithm);
    const int64_t there = (f->ob - first < 2 ? f->ob - first : 2) * s->block;
    const int64_t width = winograd ? 2 * s->block : there;
    const int parts = winograd ? winograd->parts : 1;
    panel_lanes l[4];
    for (int q = 0; q < parts; q++)
        l[q] = find_lanes(p, a, bind, group, first + q * f->ob / parts, width, there, part == 0);
    float *to = bind->out[0];
    if (winograd) {
        to += (group * f->panels * 2 + first) * f->w_ob;
        if (parts > 1)
            pack_strassen(p, l, parts, to);
        else
            pack_winograd(p, group, l, to);
        return;
    }
    const lc_conv_axis axis[2] = {lc_conv_axis_get(&p->conv, 0, s->kh, part / p->parts[1]),
                                  lc_conv_axis_get(&p->conv, 1, s->kw, part % p->parts[1])};
    const int64_t tap = f->w_ob / (s->kh * s->kw); /* floats of an output block */
    to += lc_conv_part_at(f, s->kh, s->kw, axis);
    pack_direct(p, group, l, axis,
                to + (group * f->ob + first) * axis[0].taps * axis[1].taps * tap);
}

static lc_status pack_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const pack_prep *p = step->prep;
    for (int64_t item = begin; item < end; item++)
        pack_panel(p, step->attr, bind, item / (p->form.panels * p->form.groups),
                   item / p->form.panels % p->form.groups, item % p->form.panels * 2);
    /* The gap between weights and biases: nothing reads it, but a blob's bytes should be a function
     * of its inputs. */
    if (begin == 0 && end > 0) {
        size_t used = (size_t)p->form.w_floats * sizeof(float);
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
