/* The gradient of a convolution's weights.
 *
 * The pixels of all images are cut into bands of about BAND_PIXELS (some rows of an image, or some
 * small images; Winograd: some tiles). A kernel sums up a band in registers and adds it to the sums
 * of its item, which so have chains of additions of bounded length; items are parts of the output
 * and input channels and, where those are few, chunks of the bands, whose sums a second phase adds.
 * Bands and chunks are functions of the layer and N alone, and so are the bits.
 *
 * Winograd's and Strassen's algorithms (strassen_sum.h) add up transformed products in the same way,
 * which become weights at the end. */
#include <string.h>

#include "ops/strassen_sum.h"
#include "ops/weight_grad_plan.h"

/* Long enough to hide the adding to the sums; dy of a panel and x of a block then are about as
 * large as the L1 cache. */
#define BAND_PIXELS 196
#define BAND_TILES 64 /* Winograd */
/* Strassen: floats of a run of pixels, of which a band has two, twice: four. Long, since each product
 * adds to sums that do not stay in the L1 cache, nor, with 49 products, in L2; but a panel of runs
 * should fit into L1. */
#define RUN_FLOATS 1568
/* Chunks are made until there are about so many items, but not so many that their sums take more
 * than CHUNK_BYTES. */
#define MIN_ITEMS 16
#define CHUNK_BYTES ((int64_t)4 << 20)
/* The sums of an item should stay in the L2 cache, and its input and output channels should be many
 * enough for what is read: tiles are grown to that size. */
#define TILE_BYTES (512 << 10)
#define TILE_CHANNELS 512 /* of either side */
/* Winograd, of either side: each tile transforms x and dy anew, which costs more than that V, W and
 * sums leave the L2 cache. Rather than 64, two threads, Zen 4: 1.04 times as fast, stride 2 1.06. */
#define TILE_WINOGRAD 128
#define TILE_STRASSEN 512 /* of either side */

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

static void find_bands(wgrad_prep *p)
{
    if (p->winograd) {
        p->per_image = lc_ceil_div(p->oh, LC_WINOGRAD_TILE) * lc_ceil_div(p->ow, LC_WINOGRAD_TILE);
        p->all = p->n * p->per_image;
        p->bands = lc_ceil_div(p->all, BAND_TILES);
        return;
    }
    if (p->levels) {
        const int64_t pixels = RUN_FLOATS / p->run.block;
        p->per_image = lc_max64(1, (p->ow + pixels / 2) / pixels);
        p->run_pixels = p->ow / p->per_image;
        p->all = p->n * p->per_image;
        p->bands = p->all / p->parts;
        return;
    }
    /* As many as come closest to BAND_PIXELS, of equal size. */
    p->column_bands = lc_max64(1, (p->ow + BAND_PIXELS / 2) / BAND_PIXELS);
    p->columns = lc_ceil_div(p->ow, p->column_bands);
    p->column_bands = lc_ceil_div(p->ow, p->columns);
    const int64_t most_rows = lc_max64(1, (BAND_PIXELS + p->columns / 2) / p->columns);
    p->row_bands = lc_max64(1, (p->oh + most_rows / 2) / most_rows);
    p->rows = lc_ceil_div(p->oh, p->row_bands);
    p->row_bands = lc_ceil_div(p->oh, p->rows);
    const int64_t pixels = p->rows * p->columns;
    p->images =
        p->row_bands * p->column_bands > 1 ? 1 : lc_max64(1, (BAND_PIXELS + pixels / 2) / pixels);
    p->image_bands = lc_ceil_div(p->n, p->images);
    p->bands = p->image_bands * p->row_bands * p->column_bands;
}

/* Strassen: which channels meet in a sum depends on the tiles, which so are a function of the layer.
 */
static void find_strassen_tiles(wgrad_prep *p, int block)
{
    const lc_conv_form *f = &p->form;
    p->oc_tiles = lc_ceil_div(f->ob * block, TILE_STRASSEN);
    p->ic_tiles = lc_ceil_div(f->ib * block, TILE_STRASSEN);
    p->oc_most = lc_ceil_div(f->ob / p->parts, p->oc_tiles) * p->parts;
    p->ic_most = lc_ceil_div(f->ib / p->parts, p->ic_tiles) * p->parts;
}

/* Parts of the channels: as large as the caches like them, then smaller until the team has enough
 * items. No result depends on it. */
static void find_tiles(wgrad_prep *p, int threads, int block)
{
    const lc_conv_form *f = &p->form;
    const int64_t most = p->winograd ? TILE_WINOGRAD : TILE_CHANNELS;
    const int64_t ib = p->folded ? 1 : f->ib; /* parts of the input channels, at most */
    const int64_t pair = p->pair * (int64_t)sizeof(float);
    int64_t o = lc_min64(f->ob, lc_max64(1, most / block)),
            i = lc_min64(f->ib, lc_max64(1, most / f->cb));
    while (!p->winograd && o * i * pair > TILE_BYTES && (o > LC_WGRAD_MAX_NV || i > 1)) {
        if (o > LC_WGRAD_MAX_NV && (o >= i || i == 1))
            o = lc_ceil_div(o, 2);
        else
            i = lc_ceil_div(i, 2);
    }
    p->oc_tiles = lc_ceil_div(f->ob, o);
    p->ic_tiles = lc_ceil_div(f->ib, i);
    const int64_t units = f->groups * p->chunks, want = threads == 1 ? 1 : 4 * (int64_t)threads;
    while (units * p->oc_tiles * p->ic_tiles < want &&
           (p->ic_tiles < ib || p->oc_tiles * LC_WGRAD_MAX_NV < f->ob)) {
        if (p->ic_tiles < ib &&
            (ib / p->ic_tiles >= f->ob / p->oc_tiles || p->oc_tiles * LC_WGRAD_MAX_NV >= f->ob))
            p->ic_tiles = lc_min64(ib, p->ic_tiles * 2);
        else
            p->oc_tiles = lc_min64(lc_ceil_div(f->ob, LC_WGRAD_MAX_NV), p->oc_tiles * 2);
    }
    p->oc_most = lc_ceil_div(f->ob, p->oc_tiles);
    p->ic_most = lc_ceil_div(f->ib, p->ic_tiles);
}

/* A function of the layer and N. */
static void find_chunks(wgrad_prep *p, int block)
{
    const lc_conv_form *f = &p->form;
    const int64_t some = p->levels ? TILE_STRASSEN : TILE_WINOGRAD; /* channels of a usual item */
    const int64_t items =
        f->groups * lc_ceil_div(f->ob * block, some) * lc_ceil_div(f->ib * f->cb, some);
    const int64_t sums = lc_max64(1, f->groups * f->ob * f->ib * p->pair * (int64_t)sizeof(float));
    p->chunks = lc_min64(lc_ceil_div(MIN_ITEMS, items), lc_max64(1, CHUNK_BYTES / sums));
    p->chunks = lc_max64(1, lc_min64(p->chunks, p->bands));
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
    const bool still = p->taps == 1 && !p->winograd && r->pad[0] == 0 && r->pad[1] == 0 &&
                       (p->oh - 1) * r->stride[0] < r->h && (p->ow - 1) * r->stride[1] < r->w;
    p->pick = still && !p->plain && !p->form.lanes && r->stride[1] > 1;
    if (p->pick) {
        p->pick_row = r->stride[0] * r->w * col;
        p->pick_col = r->stride[1] * col;
        p->pick_ow = p->ow;
    }
    if (p->pick || (still && p->oh == r->h && p->ow == r->w)) { /* all pixels in one row */
        r->w = p->ow = p->oh * p->ow;
        r->h = p->oh = 1;
        r->stride[0] = r->stride[1] = 1;
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
        const int64_t tiles = lc_ceil_div(p->all, lc_max64(1, p->bands));
        const int64_t positions = p->winograd->positions, channels = tile_channels(p, p->ic_most);
        p->v_blk = tiles * block;
        p->v_pos = v_blocks(p, p->ic_most) * p->v_blk + WGRAD_SKEW;
        p->w_pos = p->oc_most * p->v_blk + WGRAD_SKEW;
        p->v_at = at;
        p->w_at = p->v_at + positions * p->v_pos;
        p->m_at = p->w_at + positions * p->w_pos;
        const int64_t panels = p->oc_most; /* at most */
        at = p->m_at + p->winograd->weights * (p->oc_most * block * channels + panels * WGRAD_SKEW);
        p->place_at = at;
        at += tiles * (int64_t)(sizeof(lc_winograd_place) / sizeof(float));
        p->fold_at = at;
        at += 16 * p->folded * LC_WGRAD_MAX_NV * block;
    } else if (p->levels) {
        p->v_at = at;
        p->m_at =
            p->v_at + lc_strassen_scratch(p->levels, p->oc_most, p->ic_most, p->run_pixels, block);
        at = p->copy_at =
            p->m_at + lc_strassen_products(p->levels) * p->tile_floats / p->parts / p->parts;
        if (p->pick) { /* the runs of a band, or what is left of an image */
            const int64_t left = p->ow - p->per_image * p->run_pixels;
            at += lc_max64(p->parts * p->run_pixels, left) * p->ic_most * block;
        }
    } else if (p->pick) {
        p->copy_at = at;
        at += p->images * p->columns * p->ic_most * block;
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
    const lc_winograd_form *form = lc_conv_winograd_form(algorithm);
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
    p->levels = algorithm == LC_CONV_STRASSEN_TWICE ? 2 : algorithm == LC_CONV_STRASSEN;
    p->parts = lc_strassen_parts(p->levels);
    if (form && !p->levels) {
        p->winograd = form;
        p->folded = form->folded ? 4 * x->dim[1] : 0;
    }
    p->plain = x->layout.block == 1;
    fill_run(a, dy, x, p, block);
    p->pair = p->taps * p->form.cb * block;
    find_bands(p);
    find_chunks(p, block);
    if (p->levels)
        find_strassen_tiles(p, block);
    else
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
    step->algorithm = form ? form->name : p->form.lanes ? k->lanes_name : k->dense_name;
    return LC_OK;
}

static lc_status prepare(lc_step *step)
{
    return lc_conv_weight_grad_prepare(step,
                                       lc_conv_choose_weight_grad(step->attr, step->in, NULL));
}

/* --- the run */

static wgrad_tile tile_at(const wgrad_prep *p, int64_t index)
{
    const int64_t ict = index % p->ic_tiles, oct = index / p->ic_tiles % p->oc_tiles;
    const int64_t ob = p->form.ob / p->parts, ib = p->form.ib / p->parts;
    return (wgrad_tile){.group = index / (p->ic_tiles * p->oc_tiles),
                        .o0 = oct * ob / p->oc_tiles * p->parts,
                        .o1 = (oct + 1) * ob / p->oc_tiles * p->parts,
                        .i0 = ict * ib / p->ic_tiles * p->parts,
                        .i1 = (ict + 1) * ib / p->ic_tiles * p->parts};
}

/* Copies what a band reads of a plain x, zeros around it; sets r->x, and the planes to those of the
 * copy. */
static void copy_band(const wgrad_prep *p, lc_wgrad_run *r, const float *x, float *to)
{
    const int64_t rows = reach(r->oh1 - r->oh0, r->stride[0], r->kh, r->dilation[0]);
    const int64_t width = reach(r->ow1 - r->ow0, r->stride[1], r->kw, r->dilation[1]);
    const int64_t ih = r->oh0 * r->stride[0] - r->pad[0], iw = r->ow0 * r->stride[1] - r->pad[1];
    const int64_t from = lc_min64(lc_max64(-iw, 0), width);
    const int64_t upto = lc_max64(from, lc_min64(width, r->w - iw));
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

/* Copies the pixels of a band that count, for `blocks` input blocks from x on; r is about them from
 * then on. */
static void pick_band(const wgrad_prep *p, lc_wgrad_run *r, const float *x, int64_t blocks,
                      float *to)
{
    float *next = to;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t n = 0; n < r->images; n++)
            next = pick_pixels(p, x + b * p->x_block + n * p->x_image, r->ow0, r->ow1, next);
    r->dy += r->ow0 * r->block;
    r->ow1 -= r->ow0;
    r->ow0 = 0;
    r->w = r->ow1;
    r->x_row = r->x_image = r->ow1 * r->block;
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
            r.next.images = 0; /* the first call has fetched it */
        }
}

/* Of the blocks of a tile the i-th, in a band: what x and dy have there. */
static lc_wgrad_next rows_of(const wgrad_prep *p, const lc_bind *bind, const wgrad_tile *t,
                             const wgrad_band *b, int64_t i)
{
    const lc_wgrad_run *r = &p->run;
    const lc_conv_form *f = &p->form;
    lc_wgrad_next next = {.image = {p->x_image, p->dy_image}, .images = b->images};
    if (!p->plain && !p->pick && i < t->i1 - t->i0) {
        const int64_t ih = lc_max64(0, b->oh0 * r->stride[0] - r->pad[0]);
        const int64_t last = ih + reach(b->oh1 - b->oh0, r->stride[0], r->kh, r->dilation[0]) - 1;
        const int64_t col = r->stride[1] * r->x_col, all = r->h * r->x_row;
        const int64_t from = lc_min64(ih * r->x_row + b->ow0 * col, all);
        next.row[0] = (const float *)bind->in[1] + b->n * p->x_image +
                      (t->group * f->ib + t->i0 + i) * p->x_block + from;
        next.floats[0] = lc_min64(last * r->x_row + b->ow1 * col, all) - from;
    }
    if (i < t->o1 - t->o0) {
        next.row[1] = (const float *)bind->in[0] + b->n * p->dy_image +
                      (t->group * f->ob + t->o0 + i) * p->dy_vec + b->oh0 * r->dy_row +
                      b->ow0 * r->block;
        next.floats[1] = (b->oh1 - b->oh0) * (b->ow1 - b->ow0) * r->block;
    }
    return next;
}

void lc_wgrad_add_band(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                       const wgrad_band *b, const wgrad_band *next, float *sums)
{
    const wgrad_prep *p = step->prep;
    const lc_conv_form *f = &p->form;
    const lc_wgrad_run_fn kernel =
        f->lanes ? step->kernels->wgrad.lanes : step->kernels->wgrad.dense;
    lc_wgrad_run r = p->run;
    r.images = b->images;
    r.oh0 = b->oh0;
    r.oh1 = b->oh1;
    r.ow0 = b->ow0;
    r.ow1 = b->ow1;
    r.dy = (const float *)bind->in[0] + t->group * f->ob * p->dy_vec + b->n * p->dy_image;
    r.x = (const float *)bind->in[1] + t->group * f->ib * p->x_block + b->n * p->x_image;
    float *copy = (float *)bind->scratch + p->copy_at;
    if (p->plain)
        copy_band(p, &r, r.x, copy);
    const float *x_band = r.x;
    int64_t x_block = p->plain ? r.h * r.w : p->x_block;
    if (p->pick) {
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
            if (next && o + r.nv == t->o1)
                r.next = rows_of(p, bind, t, next, i - t->i0);
            if (p->plain)
                add_plain(&r, kernel, r.sums);
            else
                kernel(&r);
        }
    }
}

static wgrad_band band_at(const wgrad_prep *p, int64_t i)
{
    const int64_t cols = i % p->column_bands, rows = i / p->column_bands % p->row_bands;
    const int64_t n = i / (p->column_bands * p->row_bands) * p->images;
    return (wgrad_band){.n = n,
                        .images = lc_min64(p->images, p->n - n),
                        .oh0 = rows * p->rows,
                        .oh1 = lc_min64(p->oh, (rows + 1) * p->rows),
                        .ow0 = cols * p->columns,
                        .ow1 = lc_min64(p->ow, (cols + 1) * p->columns)};
}

static void sum_direct(const lc_step *step, const lc_bind *bind, const wgrad_tile *t, int64_t chunk,
                       float *sums)
{
    const wgrad_prep *p = step->prep;
    const int64_t end = (chunk + 1) * p->bands / p->chunks;
    for (int64_t i = chunk * p->bands / p->chunks; i < end; i++) {
        const wgrad_band b = band_at(p, i), next = band_at(p, i + 1);
        lc_wgrad_add_band(step, bind, t, &b, i + 1 < end ? &next : NULL, sums);
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

/* 1x1: [input channel][lanes] to rows of input channels. */
static void store_rows(const wgrad_prep *p, const lc_vec_kernels *k, const float *from,
                       int64_t lanes, const int64_t *oc, int64_t ic, int64_t channels, float *dw)
{
    float rows[LC_WGRAD_MAX_NV * LC_MAX_BLOCK * LC_MAX_BLOCK];
    const int64_t block = p->run.block, icg = p->shape.ic / p->shape.groups;
    k->to_block(rows, from, lanes, (int)p->form.cb, lanes, (int)block);
    for (int64_t lane = 0; lane < lanes; lane++) {
        if (oc[lane] < 0)
            continue;
        float *to = dw + oc[lane] * icg + ic;
        for (int64_t c = 0; c < channels; c++)
            to[c] = rows[lane * block + c];
    }
}

/* Sums to dw: lanes of output channels become rows. */
static void store_part(const wgrad_prep *p, const lc_vec_kernels *k, const wgrad_tile *t,
                       const float *sums, float *dw)
{
    const lc_conv_form *f = &p->form;
    const lc_conv_shape *s = &p->shape;
    const int64_t block = p->run.block, icg = s->ic / s->groups;
    int64_t oc[LC_WGRAD_MAX_NV * LC_MAX_BLOCK], ic[LC_MAX_BLOCK];
    for (int64_t o = t->o0, nv; o < t->o1; o += nv) {
        nv = panel_blocks(p, t->o1 - o);
        const int64_t lanes = nv * block;
        find_channels(s->y, s->oc, (t->group * f->ob + o) * block, lanes, 0, oc);
        for (int64_t i = t->i0; i < t->i1; i++) {
            const float *from = sums + sums_at(p, t, o, nv, i);
            find_channels(s->x, s->ic, (t->group * f->ib + i) * f->cb, f->cb, t->group * icg, ic);
            if (p->taps == 1 && f->cb == block && !f->lanes) {
                int64_t channels = 0; /* then padding */
                while (channels < f->cb && ic[channels] >= 0)
                    channels++;
                store_rows(p, k, from, lanes, oc, ic[0], channels, dw);
                continue;
            }
            for (int64_t lane = 0; lane < lanes; lane++)
                for (int64_t c = 0; c < f->cb && oc[lane] >= 0; c++) {
                    const int64_t at = f->lanes ? c : ic[c]; /* in its group */
                    float *to = dw + (oc[lane] * icg + at) * p->taps;
                    for (int64_t j = 0; j < p->taps && at >= 0; j++)
                        to[j] = from[(j * f->cb + c) * lanes + lane];
                }
        }
    }
}

static void store(const lc_step *step, const wgrad_tile *t, const float *sums, float *dw)
{
    const wgrad_prep *p = step->prep;
    for (int64_t i = 0; i < p->parts; i++)
        for (int64_t j = 0; j < p->parts; j++, sums += part_floats(p, t)) {
            const wgrad_tile part = part_of(p, t, i, j);
            store_part(p, &step->kernels->vec, &part, sums, dw);
        }
}

static void sum_item(const lc_step *step, const lc_bind *bind, int64_t item)
{
    const wgrad_prep *p = step->prep;
    const int64_t tiles = p->form.groups * p->oc_tiles * p->ic_tiles;
    const wgrad_tile t = tile_at(p, item % tiles);
    float *sums = p->single ? bind->scratch : (float *)bind->shared + item * p->tile_floats;
    if (p->winograd) {
        lc_wgrad_sum_winograd(step, bind, &t, item / tiles, sums);
    } else if (p->levels) {
        lc_wgrad_sum_strassen(step, bind, &t, item / tiles, sums);
    } else {
        memset(sums, 0, (size_t)p->tile_floats * sizeof(float));
        sum_direct(step, bind, &t, item / tiles, sums);
    }
    if (p->single)
        store(step, &t, sums, bind->out[0]);
}

/* The chunks of a tile, added in order to the first. */
static void add_chunks(const lc_step *step, const lc_bind *bind, int64_t index)
{
    const wgrad_prep *p = step->prep;
    const int64_t tiles = p->form.groups * p->oc_tiles * p->ic_tiles;
    float *sums = (float *)bind->shared + index * p->tile_floats;
    for (int64_t chunk = 1; chunk < p->chunks; chunk++) {
        const float *more = sums + chunk * tiles * p->tile_floats;
        for (int64_t i = 0; i < p->tile_floats; i++)
            sums[i] += more[i];
    }
    const wgrad_tile t = tile_at(p, index);
    store(step, &t, sums, bind->out[0]);
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0)
            sum_item(step, bind, item);
        else
            add_chunks(step, bind, item);
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
