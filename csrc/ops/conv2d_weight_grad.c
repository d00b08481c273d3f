/* The gradient of a convolution's weights.
 *
 * The pixels of all images are cut into bands of about BAND_PIXELS (some rows of an image, or some
 * small images; Winograd: some tiles). A kernel sums up a band in registers and adds it to the sums
 * of its item, which so have chains of additions of bounded length; items are parts of the output
 * and input channels and, where those are few, chunks of the bands, whose sums a second phase adds.
 * Bands and chunks are functions of the layer and N alone, and so are the bits. */
#include <string.h>

#include "ops/conv_form.h"
#include "ops/op_util.h"
#include "ops/ops.h"

/* Long enough to hide the adding to the sums; dy of a panel and x of a block then are about as
 * large as the L1 cache. */
#define BAND_PIXELS 196
#define BAND_TILES 64 /* Winograd */
/* Chunks are made until there are about so many items, but not so many that their sums take more
 * than CHUNK_BYTES. */
#define MIN_ITEMS 16
#define CHUNK_BYTES ((int64_t)4 << 20)
/* The sums of an item should stay in the L2 cache, and its input and output channels should be many
 * enough for what is read: tiles are grown to that size. */
#define TILE_BYTES (512 << 10)
#define TILE_CHANNELS 512 /* of either side */
#define TILE_WINOGRAD 64  /* of either side: 36 times as many bytes as a 1x1 layer */
/* The 36 parts should not start at the same place in the sets of the L1 cache. */
#define SKEW 16

typedef struct wgrad_prep {
    lc_conv_form form;
    lc_conv_shape shape;
    lc_wgrad_run run; /* what is the same for all calls */
    bool winograd;
    bool plain;  /* x is not blocked: a row of taps takes the place of the channels of a block */
    bool pick;   /* strided 1x1: the pixels that count are copied, side by side */
    bool single; /* one item holds all chunks: sums lie in scratch, and go to dw at once */
    int64_t n, oh, ow, taps;
    int64_t dy_vec, dy_image, x_image, x_block; /* floats */
    int64_t images, rows, columns;              /* of a band */
    int64_t image_bands, row_bands, column_bands, bands, chunks;
    int64_t per_image, all; /* Winograd: tiles */
    int64_t oc_tiles, ic_tiles;
    int64_t oc_most, ic_most; /* blocks of a tile */
    int64_t pair;             /* floats of the sums of an output and an input block */
    int64_t tile_floats;
    /* scratch, in floats from its start */
    int64_t copy_at, v_at, w_at, m_at;
    int64_t v_pos, v_blk, w_pos;
} wgrad_prep;

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* --- shapes and layouts */

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_conv2d_attr *a = attr;
    char given[LC_SHAPE_TEXT], expected[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs("conv2d_weight_grad", n_in, 2));
    LC_TRY(lc_check_f32("conv2d_weight_grad", "dy", &in[0]));
    LC_TRY(lc_check_rank("conv2d_weight_grad", "dy", &in[0], 4, 4));
    LC_TRY(lc_check_f32("conv2d_weight_grad", "x", &in[1]));
    LC_TRY(lc_check_rank("conv2d_weight_grad", "x", &in[1], 4, 4));
    if (a->groups < 1 || in[1].dim[1] % a->groups != 0 || in[0].dim[1] % a->groups != 0)
        return lc_fail(LC_ERR_VALUE, "conv2d_weight_grad: groups = %lld does not divide channels",
                       (long long)a->groups);
    *n_out = 1;
    LC_TRY(lc_desc_init(
        &out[0], LC_F32, 4,
        (int64_t[]){in[0].dim[1], in[1].dim[1] / a->groups, a->kernel[0], a->kernel[1]}));
    /* dy has to be what the convolution gives. */
    lc_conv2d_attr forward = *a;
    lc_desc y, conv_in[2] = {in[1], out[0]};
    int n_y;
    forward.flags = 0;
    LC_TRY(lc_op_conv2d.infer(&forward, 2, conv_in, &n_y, &y));
    if (!lc_desc_same_shape(&y, &in[0]))
        return lc_fail(LC_ERR_VALUE, "conv2d_weight_grad: dy has shape %s, not %s",
                       lc_shape_text(&in[0], given), lc_shape_text(&y, expected));
    return LC_OK;
}

/* Both as the convolution has them; where it is free, as they are. */
static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_conv2d_attr *a = q->attr;
    const int64_t ic = q->in[1].dim[1], oc = q->in[0].dim[1];
    out[0] = LC_PLAIN;
    for (int i = 0; i < 2; i++) {
        const lc_layout given = q->in[i].layout;
        if (a->groups > 1)
            in[i] = lc_conv_group_layout(q->block, a->groups, ic, oc, i == 0);
        else if (given.block == q->block ||
                 (i == 1 && given.block == 1 && ic <= LC_CONV_MAX_PLAIN_CHANNELS))
            in[i] = given;
        else
            in[i] = lc_layout_blocked(q->block, i == 0 ? oc : ic, 1);
    }
}

static bool insists(const lc_layout_query *q, int i, lc_layout *want)
{
    const lc_conv2d_attr *a = q->attr;
    if (a->groups == 1)
        return false;
    const int64_t ic = q->in[1].dim[1], oc = q->in[0].dim[1];
    *want = lc_conv_group_layout(q->block, a->groups, ic, oc, i == 0);
    return !lc_layout_equal(*want, lc_layout_blocked(q->block, i == 0 ? oc : ic, 1));
}

static int64_t macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    const lc_conv2d_attr *a = attr;
    (void)n_in;
    (void)out;
    const int64_t taps = lc_count_mul(a->kernel[0], a->kernel[1]);
    return lc_count_mul(lc_desc_count(&in[0]), lc_count_mul(in[1].dim[1] / a->groups, taps));
}

/* --- the plan */

/* How many blocks of the `left` output blocks of an item the next panel takes. */
static int64_t panel_blocks(const wgrad_prep *p, int64_t left)
{
    return p->form.lanes ? 1 : left == 4 ? 2 : min64(left, LC_WGRAD_MAX_NV);
}

static void find_bands(wgrad_prep *p)
{
    if (p->winograd) {
        p->per_image = ceil_div(p->oh, LC_WINOGRAD_TILE) * ceil_div(p->ow, LC_WINOGRAD_TILE);
        p->all = p->n * p->per_image;
        p->bands = ceil_div(p->all, BAND_TILES);
        return;
    }
    /* As many as come closest to BAND_PIXELS, of equal size. */
    p->column_bands = max64(1, (p->ow + BAND_PIXELS / 2) / BAND_PIXELS);
    p->columns = ceil_div(p->ow, p->column_bands);
    p->column_bands = ceil_div(p->ow, p->columns);
    const int64_t most_rows = max64(1, (BAND_PIXELS + p->columns / 2) / p->columns);
    p->row_bands = max64(1, (p->oh + most_rows / 2) / most_rows);
    p->rows = ceil_div(p->oh, p->row_bands);
    p->row_bands = ceil_div(p->oh, p->rows);
    const int64_t pixels = p->rows * p->columns;
    p->images =
        p->row_bands * p->column_bands > 1 ? 1 : max64(1, (BAND_PIXELS + pixels / 2) / pixels);
    p->image_bands = ceil_div(p->n, p->images);
    p->bands = p->image_bands * p->row_bands * p->column_bands;
}

/* Parts of the channels: as large as the caches like them, then smaller until the team has enough
 * items. No result depends on it. */
static void find_tiles(wgrad_prep *p, int threads, int block)
{
    const lc_conv_form *f = &p->form;
    const int64_t most = p->winograd ? TILE_WINOGRAD : TILE_CHANNELS;
    const int64_t pair = p->pair * (int64_t)sizeof(float);
    int64_t o = min64(f->ob, max64(1, most / block)), i = min64(f->ib, max64(1, most / f->cb));
    while (o * i * pair > TILE_BYTES && (o > LC_WGRAD_MAX_NV || i > 1)) {
        if (o > LC_WGRAD_MAX_NV && (o >= i || i == 1))
            o = ceil_div(o, 2);
        else
            i = ceil_div(i, 2);
    }
    p->oc_tiles = ceil_div(f->ob, o);
    p->ic_tiles = ceil_div(f->ib, i);
    const int64_t units = f->groups * p->chunks, want = threads == 1 ? 1 : 4 * (int64_t)threads;
    while (units * p->oc_tiles * p->ic_tiles < want &&
           (p->ic_tiles < f->ib || p->oc_tiles * LC_WGRAD_MAX_NV < f->ob)) {
        if (p->ic_tiles < f->ib &&
            (f->ib / p->ic_tiles >= f->ob / p->oc_tiles || p->oc_tiles * LC_WGRAD_MAX_NV >= f->ob))
            p->ic_tiles = min64(f->ib, p->ic_tiles * 2);
        else
            p->oc_tiles = min64(ceil_div(f->ob, LC_WGRAD_MAX_NV), p->oc_tiles * 2);
    }
    p->oc_most = ceil_div(f->ob, p->oc_tiles);
    p->ic_most = ceil_div(f->ib, p->ic_tiles);
}

/* A function of the layer and N. */
static void find_chunks(wgrad_prep *p, int block)
{
    const lc_conv_form *f = &p->form;
    const int64_t some = TILE_WINOGRAD; /* channels: items of a usual size */
    const int64_t items = f->groups * ceil_div(f->ob * block, some) * ceil_div(f->ib * f->cb, some);
    const int64_t sums = max64(1, f->groups * f->ob * f->ib * p->pair * (int64_t)sizeof(float));
    p->chunks = min64(ceil_div(MIN_ITEMS, items), max64(1, CHUNK_BYTES / sums));
    p->chunks = max64(1, min64(p->chunks, p->bands));
}

static void fill_run(const lc_conv2d_attr *a, const lc_desc *dy, const lc_desc *x, wgrad_prep *p,
                     int block)
{
    lc_wgrad_run *r = &p->run;
    const int64_t col = x->layout.block == 1 ? 1 : block;
    r->h = x->dim[2];
    r->w = x->dim[3];
    p->n = dy->dim[0];
    p->oh = dy->dim[2];
    p->ow = dy->dim[3];
    p->taps = a->kernel[0] * a->kernel[1];
    r->kh = a->kernel[0];
    r->kw = a->kernel[1];
    for (int i = 0; i < 2; i++) {
        r->stride[i] = a->stride[i];
        r->dilation[i] = a->dilation[i];
        r->pad[i] = a->pad[2 * i];
    }
    p->x_block = r->h * r->w * col;
    p->dy_vec = p->oh * p->ow * block;
    if (p->taps == 1 && !p->winograd && p->oh == r->h && p->ow == r->w && r->pad[0] == 0 &&
        r->pad[1] == 0 && r->stride[0] == 1 && r->stride[1] == 1) {
        r->w = p->ow = r->h * r->w; /* all pixels in one row */
        r->h = p->oh = 1;
    }
    r->x_col = col;
    r->x_row = r->w * col;
    r->dy_row = p->ow * block;
    r->dy_vec = p->dy_vec;
    p->x_image = p->form.groups * p->form.ib * p->x_block;
    p->dy_image = p->form.groups * p->form.ob * p->dy_vec;
    r->x_image = p->x_image;
    r->dy_image = p->dy_image;
    r->cb = p->form.cb;
    r->block = block;
}

static int64_t reach(int64_t outputs, int64_t stride, int64_t kernel, int64_t dilation)
{
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

/* Books scratch; returns its floats. */
static int64_t find_scratch(wgrad_prep *p, int block)
{
    const lc_wgrad_run *r = &p->run;
    int64_t at = p->single ? p->tile_floats : 0;
    if (p->winograd) {
        const int64_t tiles = ceil_div(p->all, max64(1, p->bands));
        p->v_blk = tiles * block;
        p->v_pos = p->ic_most * p->v_blk + SKEW;
        p->w_pos = p->oc_most * p->v_blk + SKEW;
        p->v_at = at;
        p->w_at = p->v_at + LC_WINOGRAD_POSITIONS * p->v_pos;
        p->m_at = p->w_at + LC_WINOGRAD_POSITIONS * p->w_pos;
        const int64_t panels = p->oc_most; /* at most */
        at = p->m_at +
             LC_WINOGRAD_POSITIONS * (p->oc_most * p->ic_most * block * block + panels * SKEW);
    } else if (p->pick) {
        p->copy_at = at;
        at += p->images * p->rows * p->columns * p->ic_most * block;
    } else if (p->plain) {
        p->copy_at = at;
        at += p->images * p->form.ib * reach(p->rows, r->stride[0], r->kh, r->dilation[0]) *
              reach(p->columns, r->stride[1], r->kw, r->dilation[1]);
    }
    return at;
}

lc_status lc_conv_weight_grad_prepare(lc_step *step, lc_conv_algorithm algorithm)
{
    const lc_conv2d_attr *a = step->attr;
    const lc_desc *dy = &step->in[0], *x = &step->in[1];
    const lc_wgrad_kernels *k = &step->kernels->wgrad;
    const int block = step->kernels->block;
    LC_TRY(lc_step_prep(step, sizeof(wgrad_prep)));
    wgrad_prep *p = step->prep;
    p->shape = (lc_conv_shape){.groups = a->groups,
                               .ic = x->dim[1],
                               .oc = dy->dim[1],
                               .kh = a->kernel[0],
                               .kw = a->kernel[1],
                               .x = x->layout,
                               .y = dy->layout,
                               .block = block};
    p->form = lc_conv_form_get(&p->shape);
    p->winograd = algorithm == LC_CONV_WINOGRAD;
    p->plain = x->layout.block == 1;
    fill_run(a, dy, x, p, block);
    p->pick = p->taps == 1 && !p->plain && !p->form.lanes && p->run.stride[1] > 1 &&
              p->run.pad[0] == 0 && p->run.pad[1] == 0 &&
              (p->oh - 1) * p->run.stride[0] < p->run.h &&
              (p->ow - 1) * p->run.stride[1] < p->run.w;
    p->pair = p->taps * p->form.cb * block;
    find_bands(p);
    find_chunks(p, block);
    find_tiles(p, step->threads, block);
    p->single = p->chunks == 1;
    p->tile_floats = p->oc_most * p->ic_most * p->pair;
    const int64_t tiles = p->form.groups * p->oc_tiles * p->ic_tiles;
    step->items[0] = p->chunks * tiles;
    step->thread_bytes = (size_t)find_scratch(p, block) * sizeof(float);
    if (!p->single) {
        step->phases = 2;
        step->items[1] = tiles;
        step->shared_bytes = (size_t)(p->chunks * tiles * p->tile_floats) * sizeof(float);
    }
    step->algorithm = p->winograd     ? k->winograd_name
                      : p->form.lanes ? k->lanes_name
                                      : k->dense_name;
    return LC_OK;
}

static lc_status prepare(lc_step *step)
{
    return lc_conv_weight_grad_prepare(step,
                                       lc_conv_choose_weight_grad(step->attr, step->in, NULL));
}

/* --- the run */

/* A part of the channels of a group: output blocks [o0, o1), input blocks [i0, i1). */
typedef struct tile {
    int64_t group, o0, o1, i0, i1;
} tile;

static tile tile_at(const wgrad_prep *p, int64_t index)
{
    const int64_t ict = index % p->ic_tiles, oct = index / p->ic_tiles % p->oc_tiles;
    return (tile){.group = index / (p->ic_tiles * p->oc_tiles),
                  .o0 = oct * p->form.ob / p->oc_tiles,
                  .o1 = (oct + 1) * p->form.ob / p->oc_tiles,
                  .i0 = ict * p->form.ib / p->ic_tiles,
                  .i1 = (ict + 1) * p->form.ib / p->ic_tiles};
}

/* Where the sums of a panel and an input block lie among those of a tile. */
static int64_t sums_at(const wgrad_prep *p, const tile *t, int64_t o, int64_t nv, int64_t i)
{
    return ((o - t->o0) * (t->i1 - t->i0) + (i - t->i0) * nv) * p->pair;
}

/* Copies what a band reads of a plain x, zeros around it; sets r->x, and the planes to those of the
 * copy. */
static void copy_band(const wgrad_prep *p, lc_wgrad_run *r, const float *x, float *to)
{
    const int64_t rows = reach(r->oh1 - r->oh0, r->stride[0], r->kh, r->dilation[0]);
    const int64_t width = reach(r->ow1 - r->ow0, r->stride[1], r->kw, r->dilation[1]);
    const int64_t ih = r->oh0 * r->stride[0] - r->pad[0], iw = r->ow0 * r->stride[1] - r->pad[1];
    const int64_t from = min64(max64(-iw, 0), width);
    const int64_t upto = max64(from, min64(width, r->w - iw));
    r->x = to;
    for (int64_t n = 0; n < r->images; n++)
        for (int64_t c = 0; c < p->form.ib; c++)
            for (int64_t h = ih; h < ih + rows; h++, to += width) {
                memset(to, 0, (size_t)width * sizeof(float));
                if (h >= 0 && h < r->h && from < upto)
                    memcpy(to + from,
                           x + n * p->x_image + c * p->x_block + h * r->x_row + iw + from,
                           (size_t)(upto - from) * sizeof(float));
            }
    r->dy += r->oh0 * r->dy_row + r->ow0 * r->block;
    r->oh1 -= r->oh0;
    r->ow1 -= r->ow0;
    r->oh0 = r->ow0 = 0;
    r->h = rows;
    r->w = width;
    r->x_row = width;
    r->x_image = p->form.ib * rows * width;
    r->pad[0] = r->pad[1] = 0;
}

/* Copies the pixels of a band that count, for `blocks` input blocks from x on; r then is a
 * convolution that moves nothing. */
static void pick_band(const wgrad_prep *p, lc_wgrad_run *r, const float *x, int64_t blocks,
                      float *to)
{
    const int64_t block = r->block, row = r->stride[0] * r->x_row, pix = r->stride[1] * r->x_col;
    const int64_t rows = r->oh1 - r->oh0, columns = r->ow1 - r->ow0;
    float *next = to;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t n = 0; n < r->images; n++)
            for (int64_t h = r->oh0; h < r->oh1; h++) {
                const float *from = x + b * p->x_block + n * p->x_image + h * row + r->ow0 * pix;
                for (int64_t w = 0; w < columns; w++, from += pix, next += block)
                    for (int64_t c = 0; c < block; c++)
                        next[c] = from[c];
            }
    r->dy += r->oh0 * r->dy_row + r->ow0 * block;
    r->oh0 = r->ow0 = 0;
    r->oh1 = rows;
    r->ow1 = columns;
    if (p->column_bands == 1) { /* all in one row */
        r->oh1 = 1;
        r->ow1 = rows * columns;
    }
    r->h = r->oh1;
    r->w = r->ow1;
    r->x_row = r->ow1 * block;
    r->x_image = rows * columns * block;
    r->stride[0] = r->stride[1] = 1;
}

/* Sums of one channel of a copied band. The taps of a row lie side by side in memory, like the
 * channels of a block, unless they are dilated. */
static void add_plain(const lc_wgrad_run *band, lc_wgrad_run_fn kernel, float *sums)
{
    lc_wgrad_run r = *band;
    const int64_t kw = r.kw, together = r.dilation[1] == 1 ? kw : 1;
    const int64_t kh = r.kh;
    r.cb = together;
    r.kh = r.kw = 1;
    for (int64_t i = 0; i < kh; i++)
        for (int64_t j = 0; j < kw; j += together) {
            r.x = band->x + i * r.dilation[0] * r.x_row + j * r.dilation[1];
            r.sums = sums + (i * kw + j) * r.nv * r.block;
            kernel(&r);
        }
}

static void sum_direct(const lc_step *step, const lc_bind *bind, const tile *t, int64_t chunk,
                       float *sums)
{
    const wgrad_prep *p = step->prep;
    const lc_conv_form *f = &p->form;
    const lc_wgrad_run_fn kernel =
        f->lanes ? step->kernels->wgrad.lanes : step->kernels->wgrad.dense;
    const float *x = (const float *)bind->in[1] + t->group * f->ib * p->x_block;
    const float *dy = (const float *)bind->in[0] + t->group * f->ob * p->dy_vec;
    const int64_t end = (chunk + 1) * p->bands / p->chunks;
    for (int64_t band = chunk * p->bands / p->chunks; band < end; band++) {
        lc_wgrad_run r = p->run;
        const int64_t cols = band % p->column_bands, rows = band / p->column_bands % p->row_bands;
        const int64_t n = band / (p->column_bands * p->row_bands) * p->images;
        r.images = min64(p->images, p->n - n);
        r.oh0 = rows * p->rows;
        r.oh1 = min64(p->oh, r.oh0 + p->rows);
        r.ow0 = cols * p->columns;
        r.ow1 = min64(p->ow, r.ow0 + p->columns);
        r.dy = dy + n * p->dy_image;
        r.x = x + n * p->x_image;
        if (p->plain)
            copy_band(p, &r, r.x, (float *)bind->scratch + p->copy_at);
        const float *x_band = r.x;
        int64_t x_block = p->plain ? r.h * r.w : p->x_block;
        if (p->pick) {
            float *copy = (float *)bind->scratch + p->copy_at;
            pick_band(p, &r, r.x + t->i0 * p->x_block, t->i1 - t->i0, copy);
            x_block = r.images * r.x_image;
            x_band = copy - t->i0 * x_block;
        }
        const float *dy_band = r.dy;
        for (int64_t o = t->o0; o < t->o1; o += r.nv) {
            r.nv = (int32_t)panel_blocks(p, t->o1 - o);
            r.dy = dy_band + o * p->dy_vec;
            for (int64_t i = t->i0; i < t->i1; i++) {
                r.x = x_band + i * x_block;
                r.sums = sums + sums_at(p, t, o, r.nv, i);
                if (p->plain)
                    add_plain(&r, kernel, r.sums);
                else
                    kernel(&r);
            }
        }
    }
}

/* V and W of the tiles [from, to), which may be of several images. */
static void transform(const lc_step *step, const lc_bind *bind, const tile *t, int64_t from,
                      int64_t to)
{
    const wgrad_prep *p = step->prep;
    const lc_kernels *k = step->kernels;
    const lc_wgrad_run *run = &p->run;
    float *scratch = bind->scratch;
    lc_winograd_run x = {.form = &lc_winograd_forms[LC_WINOGRAD_3X3],
                         .block = run->block,
                         .tile_columns = ceil_div(p->ow, LC_WINOGRAD_TILE),
                         .x_row = run->x_row,
                         .x_blk = p->x_block,
                         .h = run->h,
                         .w = run->w,
                         .pad = {run->pad[0], run->pad[1]},
                         .blocks = t->i1 - t->i0,
                         .v_pos = p->v_pos,
                         .v_blk = p->v_blk};
    lc_winograd_run dy = x;
    dy.x_row = run->dy_row;
    dy.x_blk = p->dy_vec;
    dy.h = p->oh;
    dy.w = p->ow;
    dy.pad[0] = dy.pad[1] = 0;
    dy.blocks = t->o1 - t->o0;
    dy.v_pos = p->w_pos;
    for (int64_t at = from; at < to; at += x.tiles) {
        const int64_t n = at / p->per_image;
        x.tile = dy.tile = at % p->per_image;
        x.tiles = dy.tiles = min64(to - at, p->per_image - x.tile);
        x.x = (const float *)bind->in[1] + n * p->x_image +
              (t->group * p->form.ib + t->i0) * p->x_block;
        dy.x = (const float *)bind->in[0] + n * p->dy_image +
               (t->group * p->form.ob + t->o0) * p->dy_vec;
        x.v = scratch + p->v_at + (at - from) * run->block;
        dy.v = scratch + p->w_at + (at - from) * run->block;
        k->winograd.input[LC_WINOGRAD_3X3](&x);
        k->wgrad.tiles(&dy);
    }
}

static void sum_winograd(const lc_step *step, const lc_bind *bind, const tile *t, int64_t chunk,
                         float *sums)
{
    const wgrad_prep *p = step->prep;
    const lc_wgrad_kernels *k = &step->kernels->wgrad;
    const int64_t block = p->run.block, in = (t->i1 - t->i0) * block; /* channels */
    float *const v = (float *)bind->scratch + p->v_at, *const w = (float *)bind->scratch + p->w_at;
    float *const m = (float *)bind->scratch + p->m_at;
    /* m: [panel][position][input channel][nv * block] */
    const int64_t first = chunk * p->bands / p->chunks, end = (chunk + 1) * p->bands / p->chunks;
    memset(m, 0,
           (size_t)(LC_WINOGRAD_POSITIONS * (t->o1 - t->o0) * (in * block + SKEW)) * sizeof(float));
    for (int64_t band = first; band < end; band++) {
        const int64_t from = band * p->all / p->bands, to = (band + 1) * p->all / p->bands;
        transform(step, bind, t, from, to);
        lc_wgrad_product prod = {.v_blk = p->v_blk,
                                 .w_vec = p->v_blk,
                                 .blocks = t->i1 - t->i0,
                                 .tiles = to - from,
                                 .block = p->run.block};
        for (int64_t pos = 0; pos < LC_WINOGRAD_POSITIONS; pos++) {
            float *panel = m;
            prod.v = v + pos * p->v_pos;
            for (int64_t o = t->o0; o < t->o1; o += prod.nv) {
                prod.nv = (int32_t)panel_blocks(p, t->o1 - o);
                const int64_t m_pos = in * prod.nv * block + SKEW;
                prod.w = w + pos * p->w_pos + (o - t->o0) * p->v_blk;
                prod.m = panel + pos * m_pos;
                k->product(&prod);
                panel += LC_WINOGRAD_POSITIONS * m_pos;
            }
        }
    }
    const float *panel = m;
    for (int64_t o = t->o0, nv; o < t->o1; o += nv) {
        nv = panel_blocks(p, t->o1 - o);
        const int64_t m_pos = in * nv * block + SKEW, vectors = block * nv;
        for (int64_t i = t->i0; i < t->i1; i++)
            k->taps(panel + (i - t->i0) * vectors * block, m_pos, sums + sums_at(p, t, o, nv, i),
                    vectors * block, vectors, p->run.block);
        panel += LC_WINOGRAD_POSITIONS * m_pos;
    }
}

/* The channels of `n` lanes from a slot on, counted from `base`; -1 for padding. */
static void find_channels(lc_layout l, int64_t channels, int64_t slot, int64_t n, int64_t base,
                          int64_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t c = lc_conv_slot_channel(l, channels, slot + i);
        to[i] = c < 0 ? c : c - base;
    }
}

/* Sums to dw: lanes of output channels become rows. */
static void store(const wgrad_prep *p, const tile *t, const float *sums, float *dw)
{
    const lc_conv_form *f = &p->form;
    const lc_conv_shape *s = &p->shape;
    const int64_t block = p->run.block, icg = s->ic / s->groups;
    int64_t oc[LC_WGRAD_MAX_NV * LC_CONV_MAX_BLOCK], ic[LC_CONV_MAX_BLOCK];
    for (int64_t o = t->o0, nv; o < t->o1; o += nv) {
        nv = panel_blocks(p, t->o1 - o);
        const int64_t lanes = nv * block;
        find_channels(s->y, s->oc, (t->group * f->ob + o) * block, lanes, 0, oc);
        for (int64_t i = t->i0; i < t->i1; i++) {
            const float *from = sums + sums_at(p, t, o, nv, i);
            find_channels(s->x, s->ic, (t->group * f->ib + i) * f->cb, f->cb, t->group * icg, ic);
            for (int64_t lane = 0; lane < lanes; lane++)
                for (int64_t c = 0; c < f->cb && oc[lane] >= 0; c++) {
                    const int64_t at = f->lanes ? c : ic[c]; /* in its group */
                    float *to = dw + (oc[lane] * icg + at) * p->taps;
                    for (int64_t k = 0; k < p->taps && at >= 0; k++)
                        to[k] = from[(k * f->cb + c) * lanes + lane];
                }
        }
    }
}

static void sum_item(const lc_step *step, const lc_bind *bind, int64_t item)
{
    const wgrad_prep *p = step->prep;
    const int64_t tiles = p->form.groups * p->oc_tiles * p->ic_tiles;
    const tile t = tile_at(p, item % tiles);
    float *sums = p->single ? bind->scratch : (float *)bind->shared + item * p->tile_floats;
    if (p->winograd) {
        sum_winograd(step, bind, &t, item / tiles, sums);
    } else {
        memset(sums, 0, (size_t)p->tile_floats * sizeof(float));
        sum_direct(step, bind, &t, item / tiles, sums);
    }
    if (p->single)
        store(p, &t, sums, bind->out[0]);
}

/* The chunks of a tile, added in order to the first. */
static void add_chunks(const wgrad_prep *p, const lc_bind *bind, int64_t index)
{
    const int64_t tiles = p->form.groups * p->oc_tiles * p->ic_tiles;
    float *sums = (float *)bind->shared + index * p->tile_floats;
    for (int64_t chunk = 1; chunk < p->chunks; chunk++) {
        const float *more = sums + chunk * tiles * p->tile_floats;
        for (int64_t i = 0; i < p->tile_floats; i++)
            sums[i] += more[i];
    }
    const tile t = tile_at(p, index);
    store(p, &t, sums, bind->out[0]);
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0)
            sum_item(step, bind, item);
        else
            add_chunks(step->prep, bind, item);
    }
    return LC_OK;
}

const lc_op lc_op_conv2d_weight_grad = {
    .name = "conv2d_weight_grad",
    .attr_size = sizeof(lc_conv2d_attr),
    .infer = infer,
    .layout = layout,
    .insists = insists,
    .prepare = prepare,
    .run = run,
    .macs = macs,
};
