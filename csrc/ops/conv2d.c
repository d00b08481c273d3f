#include <string.h>

#include "base/cpu.h"
#include "ops/conv2d_winograd.h"
#include "ops/conv_form.h"
#include "ops/op_util.h"
#include "ops/ops.h"

/* A chunk of about this many k-steps is summed in registers before it is added to y: its weights
 * (64 bytes per k-step with vectors of 8) stay in the L1 cache while all pixels pass by, and sums
 * of at most this many terms stay accurate. */
#define CHUNK_STEPS 256

/* --- shapes */

static bool transposed(const lc_conv2d_attr *a)
{
    return (a->flags & LC_CONV_TRANSPOSED) != 0;
}

static int64_t attr_oc(const lc_conv2d_attr *a, const lc_desc *in)
{
    if (a->flags & LC_CONV_PACKED)
        return a->out_channels;
    return transposed(a) ? in[1].dim[1] * a->groups : in[1].dim[0];
}

static int64_t attr_kernel(const lc_conv2d_attr *a, const lc_desc *in, int axis)
{
    return a->flags & LC_CONV_PACKED ? a->kernel[axis] : in[1].dim[2 + axis];
}

static lc_status check_input(const lc_desc *d, const char *name)
{
    if (d->dtype != LC_F32)
        return lc_fail(LC_ERR_TYPE, "conv2d: %s must be float32", name);
    return LC_OK;
}

static lc_status check_vector(const lc_desc *d, const char *name, int64_t oc)
{
    char text[LC_SHAPE_TEXT];
    LC_TRY(check_input(d, name));
    if (d->rank != 1 || d->dim[0] != oc)
        return lc_fail(LC_ERR_VALUE, "conv2d: %s of shape %s does not fit %lld output channels",
                       name, lc_shape_text(d, text), (long long)oc);
    return LC_OK;
}

static lc_status check_weight(const lc_conv2d_attr *a, const lc_desc *x, const lc_desc *w)
{
    char wt[LC_SHAPE_TEXT], xt[LC_SHAPE_TEXT];
    LC_TRY(check_input(w, "weight"));
    if (w->rank != 4)
        return lc_fail(
            LC_ERR_VALUE,
            "conv2d: weight must have 4 dimensions (OC, IC / groups, KH, KW), not shape %s",
            lc_shape_text(w, wt));
    lc_shape_text(w, wt);
    for (int i = 0; i < 4; i++)
        if (w->dim[i] < 1)
            return lc_fail(LC_ERR_VALUE, "conv2d: weight of shape %s has a dimension of size 0",
                           wt);
    if (w->dim[0] % a->groups != 0)
        return lc_fail(
            LC_ERR_VALUE,
            "conv2d: groups = %lld does not divide the %lld output channels of weight %s",
            (long long)a->groups, (long long)w->dim[0], wt);
    if (transposed(a)) {
        if (x->dim[1] == w->dim[0] && w->dim[1] <= INT64_MAX / a->groups)
            return LC_OK;
        return lc_fail(LC_ERR_VALUE,
                       "conv2d, transposed: weight of shape %s does not fit dy of shape %s", wt,
                       lc_shape_text(x, xt));
    }
    if (w->dim[1] > INT64_MAX / a->groups || x->dim[1] != w->dim[1] * a->groups)
        return lc_fail(LC_ERR_VALUE,
                       "conv2d: weight of shape %s with groups = %lld expects an input with %lld "
                       "channels, but the input "
                       "has shape %s",
                       wt, (long long)a->groups, (long long)(w->dim[1] * a->groups),
                       lc_shape_text(x, xt));
    return LC_OK;
}

/* Output size along an axis (0: height, 1: width) for an input of `size`. */
static lc_status output_size(const lc_conv2d_attr *a, const lc_desc *in, int axis, int64_t size,
                             int64_t *out)
{
    const char *name = axis ? "width" : "height";
    const int64_t limit = (int64_t)1 << 40; /* far above any array, far below overflow */
    int64_t kernel = attr_kernel(a, in, axis);
    int64_t before = a->pad[2 * axis], after = a->pad[2 * axis + 1];
    int64_t stride = a->stride[axis], dilation = a->dilation[axis];
    if (stride < 1 || dilation < 1)
        return lc_fail(LC_ERR_VALUE,
                       "conv2d: stride and dilation must be positive, not %lld and %lld (%s)",
                       (long long)stride, (long long)dilation, name);
    if (before < 0 || after < 0)
        return lc_fail(LC_ERR_VALUE, "conv2d: padding must not be negative: %lld and %lld (%s)",
                       (long long)before, (long long)after, name);
    if (stride > limit || dilation > limit || before > limit || after > limit || size > limit ||
        kernel > limit / dilation)
        return lc_fail(LC_ERR_VALUE,
                       "conv2d: stride, dilation, padding or kernel is too large (%s)", name);
    int64_t padded = size + before + after, reach = dilation * (kernel - 1) + 1;
    if (padded < reach)
        return lc_fail(LC_ERR_VALUE,
                       "conv2d: the kernel covers %lld elements, more than the padded input has: "
                       "%lld + padding %lld + %lld "
                       "(%s)",
                       (long long)reach, (long long)size, (long long)before, (long long)after,
                       name);
    *out = (padded - reach) / stride + 1;
    return LC_OK;
}

static lc_status conv_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_conv2d_attr *a = attr;
    const bool packed = (a->flags & LC_CONV_PACKED) != 0, bias = (a->flags & LC_CONV_BIAS) != 0;
    const bool bn = (a->flags & LC_CONV_BN) != 0, add = (a->flags & LC_CONV_ADD) != 0;
    char text[LC_SHAPE_TEXT], other[LC_SHAPE_TEXT];
    int expected = 2 + add + (packed ? 0 : bias + 4 * bn);
    if (transposed(a) && (bias || bn))
        return lc_fail(LC_ERR_VALUE, "conv2d, transposed: takes no bias and no batch norm");
    if (n_in != expected)
        return lc_fail(LC_ERR_VALUE, "conv2d: %d inputs given, %d expected", n_in, expected);
    LC_TRY(check_input(&in[0], "input"));
    if (in[0].rank != 4)
        return lc_fail(LC_ERR_VALUE,
                       "conv2d: input must have 4 dimensions (N, C, H, W), not shape %s",
                       lc_shape_text(&in[0], text));
    if (a->groups < 1)
        return lc_fail(LC_ERR_VALUE, "conv2d: groups must be positive, not %lld",
                       (long long)a->groups);
    if (in[0].dim[1] % a->groups != 0)
        return lc_fail(
            LC_ERR_VALUE,
            "conv2d: groups = %lld does not divide the channels of the input of shape %s",
            (long long)a->groups, lc_shape_text(&in[0], text));
    if (!packed) {
        static const char *const names[] = {"batch norm weight", "batch norm bias", "running mean",
                                            "running variance"};
        LC_TRY(check_weight(a, &in[0], &in[1]));
        if (bias)
            LC_TRY(check_vector(&in[2], "bias", in[1].dim[0]));
        for (int i = 0; bn && i < 4; i++)
            LC_TRY(check_vector(&in[2 + bias + i], names[i], in[1].dim[0]));
    }
    int64_t dim[4] = {in[0].dim[0], attr_oc(a, in), 0, 0};
    for (int i = 0; i < 2; i++) {
        const int64_t given = in[0].dim[2 + i];
        if (!transposed(a)) {
            LC_TRY(output_size(a, in, i, given, &dim[2 + i]));
            continue;
        }
        LC_TRY(output_size(a, in, i, a->out[i], &dim[2 + i]));
        if (dim[2 + i] != given)
            return lc_fail(
                LC_ERR_VALUE,
                "conv2d, transposed: dy of shape %s does not fit an input of %lld x %lld",
                lc_shape_text(&in[0], text), (long long)a->out[0], (long long)a->out[1]);
        dim[2 + i] = a->out[i];
    }
    *n_out = 1;
    LC_TRY(lc_desc_init(&out[0], LC_F32, 4, dim));
    if (add) {
        LC_TRY(check_input(&in[n_in - 1], "residual"));
        if (!lc_desc_same_shape(&in[n_in - 1], &out[0]))
            return lc_fail(LC_ERR_VALUE,
                           "conv2d: residual of shape %s does not fit the output of shape %s",
                           lc_shape_text(&in[n_in - 1], text), lc_shape_text(&out[0], other));
    }
    return LC_OK;
}

/* --- layouts and packing */

static lc_layout wanted_input(const lc_conv2d_attr *a, const lc_desc *in, int block,
                              lc_layout given)
{
    int64_t ic = in[0].dim[1];
    if (a->groups > 1)
        return lc_conv_group_layout(block, a->groups, ic, attr_oc(a, in), false);
    if (given.block == block || (given.block == 1 && ic <= LC_CONV_MAX_PLAIN_CHANNELS))
        return given;
    return lc_layout_blocked(block, ic, 1);
}

/* Is it cheaper to compute the padding of the wished output too than to convert it afterwards? Moving
 * a float to another layout counts as 12 sums, which is more than it takes where whole vectors move.
 * Eight groups of ten channels are padded by 60 %: all of resnest_50_4s2x40d takes 1.05 times as long
 * without this (Zen 1, vectors of 8). */
static bool padding_pays(const lc_conv2d_attr *a, const lc_layout_query *q)
{
    const int64_t oc = attr_oc(a, q->in), wished = lc_conv_slots(q->out[0].layout, oc);
    const int64_t dense = lc_conv_slots(lc_layout_blocked(q->block, oc, 1), oc);
    const int64_t taps = lc_count_mul(attr_kernel(a, q->in, 0), attr_kernel(a, q->in, 1));
    const int64_t sums = lc_count_mul(q->in[0].dim[1], taps);
    return lc_count_mul(wished - dense, sums) <= lc_count_mul(wished + dense, q->block * 3 / 2);
}

static void conv_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_conv2d_attr *a = q->attr;
    int64_t oc = attr_oc(a, q->in);
    for (int i = 0; i < q->n_in; i++)
        in[i] = LC_PLAIN;
    in[0] = wanted_input(a, q->in, q->block, q->in[0].layout);
    if (a->groups > 1)
        out[0] = lc_conv_group_layout(q->block, a->groups, q->in[0].dim[1], oc, true);
    else if (q->out[0].layout.block == q->block && padding_pays(a, q))
        out[0] = q->out[0].layout;
    else
        out[0] = lc_layout_blocked(q->block, oc, 1);
    if (a->flags & LC_CONV_ADD)
        in[q->n_in - 1] = out[0];
}

static bool conv_insists(const lc_layout_query *q, int i, lc_layout *want)
{
    const lc_conv2d_attr *a = q->attr;
    if (i != 0 || a->groups == 1)
        return false;
    *want = wanted_input(a, q->in, q->block, q->in[0].layout);
    return !lc_layout_equal(*want, lc_layout_blocked(q->block, q->in[0].dim[1], 1));
}

static bool conv_pack(const void *attr, int n_in, const lc_desc *in, const lc_desc *out,
                      const lc_kernels *kernels, lc_pack_spec *spec)
{
    const lc_conv2d_attr *a = attr;
    if (a->flags & LC_CONV_PACKED)
        return false;
    memset(spec, 0, sizeof *spec);
    lc_conv_pack_attr pack;
    memset(&pack, 0, sizeof pack);
    pack.groups = a->groups;
    pack.x = in[0].layout;
    pack.y = out[0].layout;
    pack.block = kernels->block;
    pack.flags = a->flags & (LC_CONV_BIAS | LC_CONV_BN | LC_CONV_TRANSPOSED);
    pack.bn_eps = a->flags & LC_CONV_BN ? a->bn_eps : 0.0f;
    pack.algorithm = lc_conv_choose(a, in, out);
    for (int i = 0; i < 2 && transposed(a) && (a->stride[0] != 1 || a->stride[1] != 1); i++) {
        pack.stride[i] = a->stride[i];
        pack.dilation[i] = a->dilation[i];
        pack.pad[i] = a->pad[2 * i];
    }
    spec->op = &lc_op_conv2d_pack;
    memcpy(spec->attr, &pack, sizeof pack);
    spec->first = 1;
    spec->count = n_in - 1 - (a->flags & LC_CONV_ADD ? 1 : 0);
    return true;
}

static void conv_set_packed(void *attr, int n_in, const lc_desc *in, const lc_pack_spec *spec)
{
    (void)n_in;
    lc_conv2d_attr *a = attr;
    lc_conv_pack_attr pack;
    memcpy(&pack, spec->attr, sizeof pack);
    a->algorithm = pack.algorithm;
    a->kernel[0] = in[1].dim[2];
    a->kernel[1] = in[1].dim[3];
    a->out_channels = attr_oc(a, in);
    a->flags |= LC_CONV_PACKED;
}

/* --- the plan */

/* Inputs that are copied to scratch first, tile by tile, in 1 to 4 % of the layer's time. Gains
 * are those of the layers of resnet_50, the copy included. */
typedef enum copy_mode {
    COPY_NONE = 0,
    COPY_PAD,  /* zeros left and right: no pixel is at an edge (56x56 + 5 %, stem 15 %, 7x7 40 %) */
    COPY_PICK, /* strided 1x1: the pixels that count, side by side in one row (+ 15 to 50 %) */
} copy_mode;

typedef struct conv_prep {
    lc_conv_form form;
    lc_conv_run run; /* what is the same for all calls */
    lc_conv_run_fn kernel;
    copy_mode copy;
    int64_t x_h, x_w; /* the input */
    int64_t copy_w;   /* COPY_PAD: columns */
    bool copy_rows;   /* COPY_PAD: rows above and below too */
    bool add, stream;
    bool tail;           /* some output blocks have padding */
    int64_t chunks;      /* parts of the input blocks */
    int64_t step_floats; /* floats of weights per input block and output block */
    int64_t n, oh, ow;   /* a 1x1 convolution that moves nothing has all its pixels in one row */
    int64_t x_image, x_group, y_image, y_group;
    int64_t slot_each, slot_padded; /* channels of an output group of the layout: valid, padded */
    /* An item is a tile of the pixels of one image and group, and one part of its panels. */
    int64_t tiles, splits;
    int64_t items, x_at, w_at, y_at; /* of a part of a transposed convolution */
} conv_prep;

/* The parts (conv_form.h) are done one after the other; there is one unless the convolution is
 * transposed. */
typedef struct conv_plan {
    int64_t parts;
    lc_units fill; /* floats of y that are set first, if there are outputs that no part has */
    conv_prep part[];
} conv_plan;

/* Work items. No result depends on this. A tile's input should stay in the L2 cache while all
 * panels pass over it (7/8 of it is best: 1/2 loses 15 % where 2048 channels at 7x7 then are two
 * tiles, each of which streams all weights); then there should be enough items, of nearly equal
 * size, for the team: by splitting the larger of weights and input, so that what is read by every
 * thread is the smaller one. */
static void schedule(const lc_step *step, conv_prep *p)
{
    const int64_t budget = (int64_t)(lc_cpu_get()->l2 * 7 / 8);
    const lc_conv_form *f = &p->form;
    const int64_t pixels = p->copy == COPY_PICK ? p->oh * p->ow : p->x_h * p->x_w;
    const int64_t x_bytes = f->ib * f->cb * pixels * (int64_t)sizeof(float);
    const int64_t w_bytes = f->ob * f->w_ob * (int64_t)sizeof(float);
    const int64_t most_tiles = p->run.flags & LC_RUN_CROSS          ? 1
                               : p->oh == 1 && p->copy != COPY_PICK ? lc_ceil_div(p->ow, 24)
                                                                    : p->oh;
    p->tiles = p->splits = 1;
    if (p->n == 0 || p->oh == 0 || p->ow == 0)
        return;
    p->tiles = lc_min64(most_tiles, lc_ceil_div(x_bytes, budget > 0 ? budget : 1 << 18));
    p->tiles = p->tiles < 1 ? 1 : p->tiles;
    int64_t want = step->threads == 1 ? 1 : 4 * (int64_t)step->threads;
    for (int turn = 0; turn < 2; turn++) {
        int64_t have = p->n * f->groups * p->tiles * p->splits;
        if (have >= want)
            break;
        int64_t factor = lc_ceil_div(want, have);
        if ((w_bytes > x_bytes) == (turn == 0))
            p->splits = lc_min64(f->panels, p->splits * factor);
        else
            p->tiles = lc_min64(most_tiles, p->tiles * factor);
    }
}

static void fill_run(const lc_conv2d_attr *a, const lc_desc *x, const lc_desc *y,
                     const lc_conv_axis axis[2], conv_prep *p, int block)
{
    lc_conv_run *r = &p->run;
    const int64_t col = x->layout.block == 1 ? 1 : block;
    int64_t size[2], out[2];
    r->x_col = col;
    r->x_row = x->dim[3] * col;
    r->x_blk = x->dim[2] * r->x_row;
    for (int i = 0; i < 2; i++) {
        /* Rows and columns that negative padding cuts off. */
        const int64_t cut = lc_min64(axis[i].pad < 0 ? -axis[i].pad : 0, x->dim[2 + i]);
        p->x_at += cut * (i == 0 ? r->x_row : col);
        size[i] = x->dim[2 + i] - cut;
        out[i] = y->dim[2 + i] > axis[i].from
                     ? (y->dim[2 + i] - 1 - axis[i].from) / axis[i].step + 1
                     : 0;
        r->stride[i] = axis[i].stride;
        r->dilation[i] = axis[i].dilation;
        r->pad[i] = axis[i].pad < 0 ? 0 : axis[i].pad;
    }
    p->x_h = r->h = size[0];
    p->x_w = r->w_in = size[1];
    r->kh = axis[0].taps;
    r->kw = axis[1].taps;
    p->n = y->dim[0];
    p->oh = out[0];
    p->ow = out[1];
    r->y_pix = axis[1].step * block;
    r->y_row = axis[0].step * y->dim[3] * block;
    r->y_vec = y->dim[2] * y->dim[3] * block;
    p->y_at = (axis[0].from * y->dim[3] + axis[1].from) * block;
    r->block = block;
    r->cb = p->form.cb;
    r->flags = a->flags & LC_CONV_RELU ? LC_RUN_RELU : 0;
}

/* Chooses the variant. A function of the layer, H, W and ISA only: results may depend on it in the
 * sign of a zero. */
static void choose(const lc_kernels *k, conv_prep *p)
{
    lc_conv_run *r = &p->run;
    const bool contiguous = r->y_row == p->ow * r->y_pix; /* rows of y */
    const bool pointwise = r->kh == 1 && r->kw == 1 && r->pad[0] == 0 && r->pad[1] == 0 &&
                           !p->form.lanes && contiguous && (p->oh - 1) * r->stride[0] < p->x_h &&
                           (p->ow - 1) * r->stride[1] < p->x_w;
    if (pointwise && p->oh == p->x_h && p->ow == p->x_w && r->x_row == p->x_w * r->x_col) {
        r->w_in = p->ow =
            p->oh * p->ow; /* a convolution that moves nothing has all its pixels in one row */
        r->h = p->oh = 1;
        return;
    }
    if (pointwise) {
        p->copy = COPY_PICK;
        return;
    }
    p->copy_w = (p->ow - 1) * r->stride[1] + (r->kw - 1) * r->dilation[1] + 1;
    const int64_t rows = (p->oh - 1) * r->stride[0] + (r->kh - 1) * r->dilation[0] + 1;
    if (p->form.lanes || p->copy_w > 2 * p->x_w + 64)
        return;
    if (r->pad[1] > 0 || p->copy_w > p->x_w)
        p->copy = COPY_PAD;
    const int64_t px = k->conv.dense_px;
    if (contiguous && p->form.ob >= 2 && p->oh > 1 && p->ow / lc_ceil_div(p->ow, px) < 4 &&
        rows <= 2 * p->x_h + 64) {
        r->flags |= LC_RUN_CROSS;
        p->copy = COPY_PAD;
        p->copy_rows = true;
    }
}

static int64_t tile_rows(const conv_prep *p)
{
    return lc_ceil_div(p->oh, p->tiles);
}

/* Floats of the copy of a tile of at most `rows` output rows. */
static int64_t copy_floats(const conv_prep *p, int64_t rows)
{
    const lc_conv_run *r = &p->run;
    if (p->copy == COPY_PICK)
        return p->form.ib * p->form.cb * rows * p->ow;
    if (p->copy == COPY_PAD) {
        int64_t need = (rows - 1) * r->stride[0] + (r->kh - 1) * r->dilation[0] + 1;
        return p->form.ib * (p->copy_rows ? need : lc_min64(p->x_h, need)) * p->copy_w * r->x_col;
    }
    return 0;
}

/* One part: whole[] is the form of all of w. */
static void prepare_part(lc_step *step, const lc_conv_form *whole, const lc_conv_axis axis[2],
                         conv_prep *p)
{
    const lc_conv2d_attr *a = step->attr;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    const int block = step->kernels->block;
    p->form = lc_conv_form_get(&(lc_conv_shape){.groups = a->groups,
                                                .ic = x->dim[1],
                                                .oc = y->dim[1],
                                                .kh = axis[0].taps,
                                                .kw = axis[1].taps,
                                                .x = x->layout,
                                                .y = y->layout,
                                                .block = block});
    p->form.bias_at = whole->bias_at;
    p->w_at = lc_conv_part_at(whole, a->kernel[0], a->kernel[1], axis);
    fill_run(a, x, y, axis, p, block);
    p->x_group = p->form.ib * p->run.x_blk;
    p->x_image = p->x_group * p->form.groups;
    p->y_group = p->form.ob * p->run.y_vec;
    p->y_image = p->y_group * p->form.groups;
    const lc_conv_kernels *k = &step->kernels->conv;
    p->kernel = p->form.lanes ? k->lanes : k->dense;
    p->add = (a->flags & LC_CONV_ADD) != 0;
    p->slot_each = y->dim[1] / y->layout.groups;
    p->slot_padded = lc_ceil_div(p->slot_each, block) * block;
    p->tail =
        !p->form.lanes && p->slot_each != p->slot_padded; /* lanes: padding meets zeros only */
    const int64_t steps = axis[0].taps * axis[1].taps * p->form.cb,
                  blocks = (CHUNK_STEPS + steps / 2) / steps;
    p->step_floats = steps * block;
    p->chunks = lc_ceil_div(p->form.ib, blocks > 1 ? blocks : 1);
    if (p->n == 0 || p->oh == 0 || p->ow == 0)
        return;
    if ((int64_t)lc_desc_bytes(x) > lc_cpu_cache(step->threads))
        p->run.flags |= LC_RUN_FAR;
    p->stream =
        !p->add && !p->form.lanes && p->chunks == 1 && p->run.y_pix == block && lc_streams(step, y);
    choose(step->kernels, p);
    schedule(step, p);
    p->items = p->n * p->form.groups * p->tiles * p->splits;
    const size_t scratch = (size_t)copy_floats(p, tile_rows(p)) * sizeof(float);
    step->thread_bytes = scratch > step->thread_bytes ? scratch : step->thread_bytes;
}

static lc_status conv_prepare(lc_step *step)
{
    const lc_conv2d_attr *a = step->attr;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    if (!(a->flags & LC_CONV_PACKED))
        return lc_fail(LC_ERR_RUNTIME, "conv2d: weights have not been packed");
    if (a->algorithm != LC_CONV_DIRECT)
        return lc_winograd_prepare(step);
    const int64_t kh = a->kernel[0], kw = a->kernel[1];
    const int64_t parts[2] = {lc_conv_parts(a, 0, kh), lc_conv_parts(a, 1, kw)};
    const lc_conv_form whole = lc_conv_form_get(&(lc_conv_shape){.groups = a->groups,
                                                                 .ic = x->dim[1],
                                                                 .oc = y->dim[1],
                                                                 .kh = kh,
                                                                 .kw = kw,
                                                                 .x = x->layout,
                                                                 .y = y->layout,
                                                                 .block = step->kernels->block});
    LC_TRY(
        lc_step_prep(step, sizeof(conv_plan) + (size_t)(parts[0] * parts[1]) * sizeof(conv_prep)));
    conv_plan *plan = step->prep;
    plan->parts = parts[0] * parts[1];
    int64_t *items = &step->items[0];
    if (transposed(a) && (parts[0] < a->stride[0] || parts[1] < a->stride[1])) {
        step->phases = 2;
        step->items[0] = lc_units_set(&plan->fill, lc_memory_floats(y), 1);
        items = &step->items[1];
    }
    *items = 0;
    for (int64_t i = 0; i < plan->parts; i++) {
        const lc_conv_axis axis[2] = {lc_conv_axis_get(a, 0, kh, i / parts[1]),
                                      lc_conv_axis_get(a, 1, kw, i % parts[1])};
        prepare_part(step, &whole, axis, &plan->part[i]);
        *items += plan->part[i].items;
    }
    const lc_conv_kernels *k = &step->kernels->conv;
    step->algorithm = whole.lanes ? k->lanes_name : k->dense_name;
    return LC_OK;
}

/* --- the run */

static inline void copy_pixel(float *to, const float *from, int64_t channels)
{
    if (channels == 8) /* known sizes: no call */
        memcpy(to, from, 8 * sizeof(float));
    else
        memcpy(to, from, (size_t)channels * sizeof(float));
}

/* Copies the input of output rows [oh0, oh1) of one image and group; returns where row 0, column 0
 * of what `r` then describes is. */
static const float *copy_tile(const conv_prep *p, lc_conv_run *r, const float *x, float *to,
                              int64_t oh0, int64_t oh1, bool held)
{
    if (p->copy == COPY_PICK) {
        const int64_t pixels = (oh1 - oh0) * p->ow, cb = r->cb;
        for (int64_t b = 0; b < p->form.ib && !held; b++)
            for (int64_t oh = oh0; oh < oh1; oh++) {
                const float *from = x + b * r->x_blk + oh * r->stride[0] * r->x_row;
                float *row = to + (b * pixels + (oh - oh0) * p->ow) * cb;
                for (int64_t ow = 0; ow < p->ow; ow++)
                    copy_pixel(row + ow * cb, from + ow * r->stride[1] * r->x_col, cb);
            }
        r->x_blk = pixels * cb;
        r->x_row = pixels * cb;
        r->w_in = pixels;
        r->h = 1;
        r->stride[0] = r->stride[1] = 1;
        return to;
    }
    /* Input rows [a, e) of which [a0, e0) exist, columns from -pad on. */
    int64_t a = oh0 * r->stride[0] - r->pad[0],
            e = (oh1 - 1) * r->stride[0] - r->pad[0] + (r->kh - 1) * r->dilation[0] + 1;
    int64_t a0 = a < 0 ? 0 : lc_min64(a, p->x_h), e0 = e < a0 ? a0 : lc_min64(e, p->x_h);
    if (!p->copy_rows) {
        a = a0;
        e = e0;
    }
    const int64_t rows = e - a, line = p->copy_w * r->x_col;
    const int64_t left = lc_min64(r->pad[1], p->copy_w) * r->x_col,
                  width = lc_min64(p->x_w * r->x_col, line - left);
    for (int64_t b = 0; b < p->form.ib && !held; b++)
        for (int64_t ih = a; ih < e; ih++) {
            float *row = to + (b * rows + ih - a) * line;
            if (ih < a0 || ih >= e0) {
                memset(row, 0, (size_t)line * sizeof(float));
                continue;
            }
            memset(row, 0, (size_t)left * sizeof(float));
            memcpy(row + left, x + b * r->x_blk + ih * r->x_row, (size_t)width * sizeof(float));
            memset(row + left + width, 0, (size_t)(line - left - width) * sizeof(float));
        }
    r->x_blk = rows * line;
    r->x_row = line;
    r->w_in = p->copy_w;
    r->pad[1] = 0;
    if (p->copy_rows)
        return to + (a0 - a) * line; /* tile 0 is the only one: a0 is row 0 */
    r->h = rows;
    r->pad[0] += a;
    return to;
}

/* All chunks of one panel, over the pixels of a tile. */
static void run_panel(const conv_prep *p, lc_conv_run *r, const float *x, const float *w,
                      const int64_t rect[4])
{
    const int64_t ib = p->form.ib;
    r->w_blk = p->step_floats * r->nv;
    for (int64_t c = 0; c < p->chunks; c++) {
        int64_t from = c * ib / p->chunks, to = (c + 1) * ib / p->chunks;
        r->x = x + from * r->x_blk;
        r->w = w + from * r->w_blk;
        r->blocks = to - from;
        r->flags &= ~(uint32_t)(LC_RUN_FIRST | LC_RUN_LAST);
        r->flags |= (c == 0 ? LC_RUN_FIRST : 0) | (c == p->chunks - 1 ? LC_RUN_LAST : 0);
        p->kernel(r, rect[0], rect[1], rect[2], rect[3]);
    }
}

/* `held`: the item's input is in scratch already. */
static void run_item(const conv_prep *p, const lc_bind *bind, int64_t item, bool held)
{
    const lc_conv_form *f = &p->form;
    const int64_t tile = item % p->tiles, group = item / p->tiles % f->groups;
    const int64_t n = item / (p->tiles * f->groups) % p->n,
                  split = item / (p->tiles * f->groups * p->n);
    int64_t rect[4] = {0, p->oh, 0, p->ow};
    int64_t *range = p->oh == 1 ? &rect[2] : &rect[0], size = range[1];
    range[0] = tile * size / p->tiles;
    range[1] = (tile + 1) * size / p->tiles;

    lc_conv_run r = p->run;
    const float *x = (const float *)bind->in[0] + n * p->x_image + group * p->x_group + p->x_at;
    const float *w = (const float *)bind->in[1] + p->w_at,
                *bias = (const float *)((const char *)bind->in[1] + f->bias_at);
    int64_t y_from = 0;
    if (p->copy != COPY_NONE)
        x = copy_tile(p, &r, x, bind->scratch, rect[0], rect[1], held);
    if (p->copy == COPY_PICK) { /* the copy is one row, from pixel 0 on */
        y_from = rect[0] * r.y_row + rect[2] * r.y_pix;
        rect[3] = (rect[1] - rect[0]) * (rect[3] - rect[2]);
        rect[0] = rect[2] = 0;
        rect[1] = 1;
    }
    const int64_t last = (split + 1) * f->panels / p->splits;
    for (int64_t panel = split * f->panels / p->splits; panel < last; panel++) {
        const int64_t block = group * f->ob + panel * 2,
                      at = n * p->y_image + block * r.y_vec + p->y_at + y_from;
        r.nv = f->ob - panel * 2 < 2 ? 1 : 2;
        r.y = (float *)bind->out[0] + at;
        r.add = p->add ? (const float *)bind->in[2] + at : NULL;
        r.bias = bias + block * r.block;
        r.flags &= ~(uint32_t)(LC_RUN_TAIL | LC_RUN_STREAM);
        if (p->stream && lc_is_aligned(bind->out[0]))
            r.flags |= LC_RUN_STREAM;
        for (int v = 0; v < r.nv; v++) {
            int64_t left = p->slot_each - (block + v) * r.block % p->slot_padded;
            r.lanes[v] = (int32_t)lc_min64(left, r.block);
            if (p->tail && left < r.block)
                r.flags |= LC_RUN_TAIL;
        }
        run_panel(p, &r, x, w + block * f->w_ob, rect);
    }
}

/* What outputs are that no tap falls on. */
static void fill_outputs(const lc_conv2d_attr *a, const lc_units *u, const lc_bind *bind,
                         int64_t begin, int64_t end)
{
    float *y = bind->out[0];
    const float *add = a->flags & LC_CONV_ADD ? bind->in[2] : NULL;
    int64_t from, to;
    lc_units_range(u, begin, end, &from, &to);
    for (int64_t i = from; i < to; i++) {
        const float v = add ? add[i] : 0.0f;
        y[i] = a->flags & LC_CONV_RELU && v < 0.0f ? 0.0f : v; /* NaN stays */
    }
}

static lc_status conv_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    const lc_conv2d_attr *a = step->attr;
    if (a->algorithm != LC_CONV_DIRECT)
        return lc_winograd_run_items(step, bind, begin, end);
    const conv_plan *plan = step->prep;
    if (phase < step->phases - 1) {
        fill_outputs(a, &plan->fill, bind, begin, end);
        return LC_OK;
    }
    const conv_prep *p = plan->part;
    for (int64_t i = 0; i < plan->parts; i++, p++, begin -= p[-1].items, end -= p[-1].items) {
        const int64_t tiles =
            p->tiles * p->form.groups * p->n; /* items that far apart read the same input */
        const int64_t from = begin < 0 ? 0 : begin, to = lc_min64(end, p->items);
        for (int64_t item = from; item < to; item++)
            run_item(p, bind, item, tiles == 1 && (item > from || (bind->follows && begin > 0)));
    }
    return LC_OK;
}

static int64_t conv_macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    const lc_conv2d_attr *a = attr;
    (void)n_in;
    const int64_t taps = lc_count_mul(attr_kernel(a, in, 0), attr_kernel(a, in, 1));
    const lc_desc *y = transposed(a) ? &in[0] : &out[0]; /* of the convolution; x is the other */
    const lc_desc *x = transposed(a) ? &out[0] : &in[0];
    return lc_count_mul(lc_desc_count(y), lc_count_mul(x->dim[1] / a->groups, taps));
}

const lc_op lc_op_conv2d = {
    .name = "conv2d",
    .attr_size = sizeof(lc_conv2d_attr),
    .flags = LC_OP_PER_IMAGE,
    .infer = conv_infer,
    .layout = conv_layout,
    .insists = conv_insists,
    .pack = conv_pack,
    .set_packed = conv_set_packed,
    .candidate = lc_conv_candidate,
    .prepare = conv_prepare,
    .run = conv_run,
    .backward = lc_conv_backward,
    .macs = conv_macs,
};
