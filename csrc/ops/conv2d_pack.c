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

/* u = G w G^T, for the transforms of kernels/winograd_kernels.h. */
static void winograd_weights(bool s2, const double w[9], double u[LC_WINOGRAD_POSITIONS])
{
    static const double g[6][3] = {
        {1, 0, 0},
        {1. / 3, 1. / 3, 1. / 3},
        {-1. / 3, 1. / 3, -1. / 3},
        {-16. / 15, -8. / 15, -4. / 15},
        {1. / 15, -2. / 15, 4. / 15},
        {0, 0, 1},
    };
    static const double g_s2[6][3] = {
        {1, 0, 0}, {-2. / 9, 0, 2. / 9}, {-8. / 9, 0, -4. / 9}, {1. / 9, 0, 2. / 9}, {0, 0, 1},
        {0, 1, 0},
    };
    const double(*m)[3] = s2 ? g_s2 : g;
    double t[6][3];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 3; j++)
            t[i][j] = m[i][0] * w[j] + m[i][1] * w[3 + j] + m[i][2] * w[6 + j];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            u[i * 6 + j] = m[j][0] * t[i][0] + m[j][1] * t[i][1] + m[j][2] * t[i][2];
}

/* The channels of a panel: those of its lanes, or -1, and what their weights are multiplied with.
 */
typedef struct panel_lanes {
    int64_t width; /* lanes, missing blocks included */
    int64_t oc[2 * LC_CONV_MAX_BLOCK];
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

static void pack_direct(const pack_prep *p, const float *w, int64_t group, const panel_lanes *l,
                        float *to)
{
    const int64_t taps = p->shape.kh * p->shape.kw, icg = p->shape.ic / p->shape.groups;
    for (int64_t b = 0; b < p->form.ib; b++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < p->form.cb; c++, to += l->width) {
                const int64_t ic = input_channel(p, group, b, c);
                for (int64_t i = 0; i < l->width; i++)
                    to[i] = l->oc[i] < 0 || ic < 0
                                ? 0.0f
                                : (float)(w[(l->oc[i] * icg + ic) * taps + t] * l->scale[i]);
            }
}

static void pack_winograd(const pack_prep *p, const float *w, int64_t group, const panel_lanes *l,
                          float *to)
{
    const bool s2 = p->shape.algorithm == LC_CONV_WINOGRAD_S2;
    const int64_t icg = p->shape.ic / p->shape.groups, channels = p->form.ib * p->form.cb;
    for (int64_t k = 0; k < channels; k++, to += l->width) {
        const int64_t ic = input_channel(p, group, k / p->form.cb, k % p->form.cb);
        for (int64_t i = 0; i < l->width; i++) {
            double taps[9] = {0}, u[LC_WINOGRAD_POSITIONS];
            if (l->oc[i] >= 0 && ic >= 0)
                for (int t = 0; t < 9; t++)
                    taps[t] = w[(l->oc[i] * icg + ic) * 9 + t] * l->scale[i];
            winograd_weights(s2, taps, u);
            for (int t = 0; t < LC_WINOGRAD_POSITIONS; t++)
                to[t * channels * l->width + i] = (float)u[t];
        }
    }
}

/* b[row][column] of halves -> the right factors of Strassen's seven products, for the left ones of
 * kernels/winograd_kernels.h. */
static void strassen_weights(double b11, double b12, double b21, double b22, double u[7])
{
    u[0] = b11;
    u[1] = b21;
    u[2] = b22;
    u[4] = b12 - b11;
    u[5] = b22 - u[4];
    u[3] = u[5] - b21;
    u[6] = b22 - b12;
}

/* l[q]: the panel's lanes of part q of the outputs. All lanes exist. */
static void pack_strassen(const pack_prep *p, const float *w, const panel_lanes *l, int parts,
                          float *to)
{
    const int64_t ic = p->shape.ic, part = ic / parts, matrix = part * l->width;
    for (int64_t k = 0; k < part; k++, to += l->width)
        for (int64_t i = 0; i < l->width; i++) {
            double b[4][4], t[4][7], u[49]; /* b[part of inputs][part of outputs] */
            for (int r = 0; r < parts; r++)
                for (int q = 0; q < parts; q++)
                    b[r][q] = w[l[q].oc[i] * ic + r * part + k] * l[q].scale[i];
            if (parts == 2)
                strassen_weights(b[0][0], b[0][1], b[1][0], b[1][1], u);
            for (int e = 0; parts == 4 && e < 4; e++) {
                const int r = e / 2, q = e % 2;
                strassen_weights(b[r][q], b[r][q + 2], b[r + 2][q], b[r + 2][q + 2], t[e]);
            }
            for (int f = 0; parts == 4 && f < 7; f++)
                strassen_weights(t[0][f], t[1][f], t[2][f], t[3][f], u + f * 7);
            for (int f = 0; f < (parts == 2 ? 7 : 49); f++)
                to[f * matrix + i] = (float)u[f];
        }
}

/* The lanes of the output blocks from block `first` of the group on, `there` of which are in y; and
 * their biases. */
static panel_lanes find_lanes(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                              int64_t group, int64_t first, int64_t width, int64_t there)
{
    const lc_conv_shape *s = &p->shape;
    const int64_t slot = (group * p->form.ob + first) * s->block; /* of the first one */
    float *bias = (float *)((char *)bind->out[0] + p->form.bias_at) + slot;
    panel_lanes l = {.width = width};
    for (int64_t i = 0; i < width; i++) {
        l.oc[i] = i < there ? lc_conv_slot_channel(s->y, s->oc, slot + i) : -1;
        fold fo = l.oc[i] < 0 ? (fold){0, 0} : channel_fold(a, bind, l.oc[i]);
        l.scale[i] = fo.scale;
        if (i < there)
            bias[i] = (float)fo.shift;
    }
    return l;
}

/* One panel: the output blocks from block `first` of the group on. */
static void pack_panel(const pack_prep *p, const lc_conv_pack_attr *a, const lc_bind *bind,
                       int64_t group, int64_t first)
{
    const lc_conv_shape *s = &p->shape;
    const lc_conv_form *f = &p->form;
    const lc_winograd_form *winograd = lc_conv_winograd_form((uint32_t)s->algorithm);
    const int64_t there = (f->ob - first < 2 ? f->ob - first : 2) * s->block;
    const int64_t width = winograd ? 2 * s->block : there;
    const float *w = bind->in[0]; /* [oc][icg][taps] */
    const int parts = winograd ? winograd->parts : 1;
    panel_lanes l[4];
    for (int q = 0; q < parts; q++)
        l[q] = find_lanes(p, a, bind, group, first + q * f->ob / parts, width, there);
    const int64_t blocks = winograd ? f->panels * 2 : f->ob;
    float *to = (float *)bind->out[0] + (group * blocks + first) * f->w_ob;
    if (parts > 1)
        pack_strassen(p, w, l, parts, to);
    else if (winograd)
        pack_winograd(p, w, group, l, to);
    else
        pack_direct(p, w, group, l, to);
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
