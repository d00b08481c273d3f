/* The gradient of a convolution's weights by Winograd's and Strassen's algorithms: transformed
 * products are added up over the bands of a chunk, and become the sums of weights at the end. */
#include <string.h>

#include "ops/conv2d_winograd.h"
#include "ops/strassen_sum.h"
#include "ops/weight_grad_plan.h"

/* V and W of the tiles [from, to), which may be of several images. Returns which of them take part
 * in a position, and how. */
static lc_winograd_run transform(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                                 int64_t from, int64_t to)
{
    const wgrad_prep *p = step->prep;
    const lc_kernels *k = step->kernels;
    const lc_wgrad_run *run = &p->run;
    const int64_t block = run->block, channels = tile_channels(p, t->i1 - t->i0);
    float *scratch = bind->scratch;
    lc_winograd_run x = {.form = p->winograd,
                         .block = run->block,
                         .tiles = to - from,
                         .oh = p->oh,
                         .ow = p->ow,
                         .x = (const float *)bind->in[1] +
                              (t->group * p->form.ib + t->i0) * p->x_block,
                         .x_row = run->x_row,
                         .x_image = p->x_image,
                         .x_blk = p->x_block,
                         .h = run->h,
                         .w = run->w,
                         .pad = {run->pad[0], run->pad[1]},
                         .blocks = v_blocks(p, t->i1 - t->i0),
                         .last = (int32_t)((channels - 1) % block + 1),
                         .v = scratch + p->v_at,
                         .v_pos = p->v_pos,
                         .v_blk = p->v_blk};
    lc_winograd_arrange(&x, from, (lc_winograd_place *)(scratch + p->place_at));
    lc_winograd_run dy = x;
    dy.x = (const float *)bind->in[0] + (t->group * p->form.ob + t->o0) * p->dy_vec;
    dy.x_row = run->dy_row;
    dy.x_blk = p->dy_vec;
    dy.x_image = p->dy_image;
    dy.blocks = t->o1 - t->o0;
    dy.v = scratch + p->w_at;
    dy.v_pos = p->w_pos;
    const lc_winograd_kind kind = lc_winograd_kind_of(p->winograd);
    k->winograd.input[kind](&x);
    k->wgrad.tiles[kind](&dy);
    return x;
}

/* The products of positions [pos, end), of which the same tiles take part in each, added to the sums
 * of their weight. */
static void multiply(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                     const lc_winograd_run *r, int64_t pos, int64_t end, int64_t weight, bool first)
{
    const wgrad_prep *p = step->prep;
    const int64_t block = p->run.block, in = tile_channels(p, t->i1 - t->i0);
    float *const scratch = bind->scratch;
    /* a short tile of dy has zeros in the other positions */
    const lc_winograd_range taking = lc_winograd_taking(r, pos);
    lc_wgrad_product prod = {.v = scratch + p->v_at + pos * p->v_pos + taking.from * block,
                             .v_blk = p->v_blk,
                             .w_vec = p->v_blk,
                             .v_pos = p->v_pos,
                             .w_pos = p->w_pos,
                             .positions = end - pos,
                             .blocks = r->blocks,
                             .last = r->last,
                             .tiles = taking.to - taking.from,
                             .block = p->run.block,
                             .first = first};
    float *panel = scratch + p->m_at;
    for (int64_t o = t->o0; o < t->o1; o += prod.nv) {
        prod.nv = (int32_t)panel_blocks(p, t->o1 - o);
        const int64_t m_pos = in * prod.nv * block + WGRAD_SKEW;
        prod.w = scratch + p->w_at + pos * p->w_pos + (o - t->o0) * p->v_blk + taking.from * block;
        prod.m = panel + weight * m_pos;
        step->kernels->wgrad.product(&prod);
        panel += p->winograd->weights * m_pos;
    }
}

static bool same_tiles(const lc_winograd_run *r, int64_t a, int64_t b)
{
    const lc_winograd_range at_a = lc_winograd_taking(r, a), at_b = lc_winograd_taking(r, b);
    return at_a.from == at_b.from && at_a.to == at_b.to;
}

/* Sums of folded channels are those of four kernels of 4x4, of the rows and columns of a parity: they
 * go to where they are in one of 7x7. */
static void unfold(const wgrad_prep *p, const wgrad_tile *t, int64_t o, int64_t nv,
                   const float *taps, float *sums)
{
    const int64_t lanes = nv * p->run.block;
    for (int64_t i = 0; i < 16 * p->folded; i++, taps += lanes) {
        const int64_t tap = i / p->folded, c = i % p->folded;
        const int64_t kh = tap / 4 * 2 + c / 2 % 2, kw = tap % 4 * 2 + c % 2;
        if (kh < 7 && kw < 7)
            memcpy(sums + sums_at(p, t, o, nv, c / 4) + (kh * 7 + kw) * lanes, taps,
                   (size_t)lanes * sizeof *sums);
    }
}

void lc_wgrad_sum_winograd(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                           int64_t chunk, float *sums)
{
    const wgrad_prep *p = step->prep;
    const lc_winograd_form *form = p->winograd;
    const lc_wgrad_taps_fn taps = step->kernels->wgrad.taps[lc_winograd_kind_of(form)];
    const int64_t block = p->run.block, in = tile_channels(p, t->i1 - t->i0);
    float *const scratch = bind->scratch;
    /* m: [panel][weight][input channel][nv * block] */
    const int64_t first = chunk * p->bands / p->chunks, end = (chunk + 1) * p->bands / p->chunks;
    for (int64_t band = first; band < end; band++) {
        const int64_t from = band * p->all / p->bands, to = (band + 1) * p->all / p->bands;
        const lc_winograd_run r = transform(step, bind, t, from, to);
        int64_t pos = 0;
        for (int k = 0; k < form->weights; k++) {
            const int64_t begin = pos, all = pos + (form->uses ? form->uses[k] : 1);
            while (pos < all) {
                const int64_t from_pos = pos++;
                while (pos < all && same_tiles(&r, from_pos, pos))
                    pos++;
                multiply(step, bind, t, &r, from_pos, pos, k, band == first && from_pos == begin);
            }
        }
    }
    const float *panel = scratch + p->m_at;
    for (int64_t o = t->o0, nv; o < t->o1; o += nv) {
        nv = panel_blocks(p, t->o1 - o);
        const int64_t m_pos = in * nv * block + WGRAD_SKEW, vectors = block * nv;
        if (p->folded) {
            float *fold = scratch + p->fold_at;
            taps(panel, m_pos, fold, in * vectors, in * nv, p->run.block);
            unfold(p, t, o, nv, fold, sums);
        }
        for (int64_t i = t->i0; i < t->i1 && !p->folded; i++)
            taps(panel + (i - t->i0) * vectors * block, m_pos, sums + sums_at(p, t, o, nv, i),
                 vectors * block, vectors, p->run.block);
        panel += form->weights * m_pos;
    }
}

/* Both sides of the runs of a band. */
static void find_sides(const lc_step *step, const lc_bind *bind, const wgrad_tile *t, int64_t index,
                       lc_strassen_side *dy, lc_strassen_side *x)
{
    const wgrad_prep *p = step->prep;
    const int64_t block = p->run.block, run = p->run_pixels * block;
    float *copy = (float *)bind->scratch + p->copy_at;
    *dy = (lc_strassen_side){.step = p->dy_vec, .blocks = t->o1 - t->o0};
    *x = (lc_strassen_side){.step = p->pick ? p->parts * run : p->x_block, .blocks = t->i1 - t->i0};
    for (int64_t i = 0; i < p->parts; i++) {
        const int64_t at = index * p->parts + i, n = at / p->per_image;
        const int64_t pixel = at % p->per_image * p->run_pixels;
        const float *from = (const float *)bind->in[1] + n * p->x_image + t->i0 * p->x_block;
        dy->run[i] =
            (const float *)bind->in[0] + n * p->dy_image + t->o0 * p->dy_vec + pixel * block;
        x->run[i] = p->pick ? copy + i * run : from + pixel * block;
        for (int64_t b = 0; p->pick && b < x->blocks; b++)
            pick_pixels(p, from + b * p->x_block, pixel, pixel + p->run_pixels,
                        copy + b * x->step + i * run);
    }
}

/* What no band has: the runs that are left over, and the pixels of an image that make no run. */
static void add_rest(const lc_step *step, const lc_bind *bind, const wgrad_tile *t, float *sums)
{
    const wgrad_prep *p = step->prep;
    for (int64_t i = p->bands * p->parts; i < p->all; i++) {
        const int64_t from = i % p->per_image * p->run_pixels;
        const wgrad_band b = {i / p->per_image, 1, 0, 1, from, from + p->run_pixels};
        lc_wgrad_add_band(step, bind, t, &b, NULL, sums);
    }
    const int64_t from = p->per_image * p->run_pixels;
    if (from == p->ow)
        return;
    const int64_t most =
        lc_max64(1, p->run_pixels / (p->ow - from)); /* images whose copy has room */
    for (int64_t n = 0; n < p->n; n += most) {
        const wgrad_band b = {n, lc_min64(most, p->n - n), 0, 1, from, p->ow};
        lc_wgrad_add_band(step, bind, t, &b, NULL, sums);
    }
}

void lc_wgrad_sum_strassen(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                           int64_t chunk, float *sums)
{
    const wgrad_prep *p = step->prep;
    const int64_t first = chunk * p->bands / p->chunks, end = (chunk + 1) * p->bands / p->chunks;
    const int64_t floats = part_floats(p, t);
    float *const scratch = bind->scratch, *const m = scratch + p->m_at;
    for (int64_t i = first; i < end; i++) {
        lc_strassen_side dy, x, next[2] = {{.blocks = 0}};
        find_sides(step, bind, t, i, &dy, &x);
        if (i + 1 < end && !p->pick)
            find_sides(step, bind, t, i + 1, &next[0], &next[1]);
        lc_strassen_add(step->kernels, p->levels, &dy, &x, next, p->run_pixels, scratch + p->v_at,
                        m, i == first);
    }
    if (first < end)
        lc_strassen_finish(p->levels, m, floats, sums);
    else
        memset(sums, 0, (size_t)(p->parts * p->parts * floats) * sizeof(float));
    if (chunk < p->chunks - 1)
        return;
    for (int64_t i = 0; i < p->parts; i++)
        for (int64_t j = 0; j < p->parts; j++, sums += floats) {
            const wgrad_tile part = part_of(p, t, i, j);
            add_rest(step, bind, &part, sums);
        }
}
