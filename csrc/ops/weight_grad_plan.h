/* How the gradient of a convolution's weights is planned; shared by conv2d_weight_grad.c and
 * conv2d_weight_grad_fast.c. */
#ifndef LC_OPS_WEIGHT_GRAD_PLAN_H
#define LC_OPS_WEIGHT_GRAD_PLAN_H

#include "ops/conv_form.h"
#include "ops/op_util.h"
#include "ops/ops.h"

/* The parts of V, W and M, one per position, should not start at the same place in the sets of the L1
 * cache. */
#define WGRAD_SKEW 16

typedef struct wgrad_prep {
    lc_conv_form form;
    lc_conv_shape shape;
    lc_wgrad_run run;                 /* what is the same for all calls */
    const lc_winograd_form *winograd; /* or NULL */
    int64_t folded; /* 7x7: channels of the folded input, which are all in one tile; else 0 */
    int levels;     /* Strassen: 1 or 2, else 0 */
    int64_t parts;  /* of the channels of a tile, either side: 2^levels */
    bool plain;     /* x is not blocked: a row of taps takes the place of the channels of a block */
    bool pick;      /* strided 1x1: the pixels that count are copied, side by side, in one row */
    bool single;    /* one item holds all chunks: sums lie in scratch, and go to dw at once */
    int64_t n, oh, ow, taps;
    int64_t dy_vec, dy_image, x_image, x_block; /* floats */
    int64_t images, rows, columns;              /* of a band */
    int64_t image_bands, row_bands, column_bands, bands, chunks;
    int64_t per_image, all; /* Winograd: tiles; Strassen: runs */
    int64_t run_pixels;
    int64_t pick_row, pick_col, pick_ow; /* floats of x, outputs of a row */
    int64_t oc_tiles, ic_tiles;
    int64_t oc_most, ic_most; /* blocks of a tile */
    int64_t pair;             /* floats of the sums of an output and an input block */
    int64_t tile_floats;
    /* scratch, in floats from its start */
    int64_t copy_at, v_at, w_at, m_at, place_at, fold_at;
    int64_t v_pos, v_blk, w_pos;
} wgrad_prep;

/* A part of the channels of a group: output blocks [o0, o1), input blocks [i0, i1). */
typedef struct wgrad_tile {
    int64_t group, o0, o1, i0, i1;
} wgrad_tile;

/* Images [n, n + images), rows [oh0, oh1), columns [ow0, ow1) of dy. */
typedef struct wgrad_band {
    int64_t n, images, oh0, oh1, ow0, ow1;
} wgrad_band;

/* Winograd: input channels of a tile of so many input blocks, and the blocks that V has of them. */
static inline int64_t tile_channels(const wgrad_prep *p, int64_t blocks)
{
    return p->folded ? p->folded : blocks * p->run.block;
}

static inline int64_t v_blocks(const wgrad_prep *p, int64_t blocks)
{
    return lc_ceil_div(tile_channels(p, blocks), p->run.block);
}

/* How many blocks of the `left` output blocks of an item the next panel takes. */
static inline int64_t panel_blocks(const wgrad_prep *p, int64_t left)
{
    return p->form.lanes ? 1 : lc_wgrad_panel(left);
}

/* One of the parts, whose sums follow one another: of the output blocks the i-th, of the input
 * blocks the j-th. */
static inline wgrad_tile part_of(const wgrad_prep *p, const wgrad_tile *t, int64_t i, int64_t j)
{
    const int64_t o = (t->o1 - t->o0) / p->parts, in = (t->i1 - t->i0) / p->parts;
    return (wgrad_tile){.group = t->group,
                        .o0 = t->o0 + i * o,
                        .o1 = t->o0 + (i + 1) * o,
                        .i0 = t->i0 + j * in,
                        .i1 = t->i0 + (j + 1) * in};
}

static inline int64_t part_floats(const wgrad_prep *p, const wgrad_tile *t)
{
    return (t->o1 - t->o0) * (t->i1 - t->i0) * p->pair / (p->parts * p->parts);
}

/* Where the sums of a panel and an input block lie among those of a tile. */
static inline int64_t sums_at(const wgrad_prep *p, const wgrad_tile *t, int64_t o, int64_t nv,
                              int64_t i)
{
    return ((o - t->o0) * (t->i1 - t->i0) + (i - t->i0) * nv) * p->pair;
}

/* Copies the pixels [from, to) of a row of those that count; returns the end of the copy. */
static inline float *pick_pixels(const wgrad_prep *p, const float *x, int64_t from, int64_t to,
                                 float *next)
{
    const int64_t block = p->run.block;
    int64_t w = from % p->pick_ow;
    x += from / p->pick_ow * p->pick_row;
    for (; from < to; from++, next += block) {
        for (int64_t c = 0; c < block; c++)
            next[c] = x[w * p->pick_col + c];
        if (++w == p->pick_ow) {
            w = 0;
            x += p->pick_row;
        }
    }
    return next;
}

/* Adds a band to the direct sums of a tile, and fetches what is read of the next one (or NULL).
 * conv2d_weight_grad.c. */
void lc_wgrad_add_band(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                       const wgrad_band *b, const wgrad_band *next, float *sums);

/* The sums of a tile over a chunk of the bands; conv2d_weight_grad_fast.c. */
void lc_wgrad_sum_winograd(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                           int64_t chunk, float *sums);
void lc_wgrad_sum_strassen(const lc_step *step, const lc_bind *bind, const wgrad_tile *t,
                           int64_t chunk, float *sums);

#endif
