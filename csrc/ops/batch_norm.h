/* What the ops of batch norm share: how they walk through a tensor, and scale and shift. */
#ifndef LC_OPS_BATCH_NORM_H
#define LC_OPS_BATCH_NORM_H

#include <math.h>

#include "ops/op_util.h"
#include "ops/ops.h"

/* A tensor as images of blocks of pixels of `block` lanes. Plain planes have one lane. Rows of
 * channels, (N, C) or plain planes of one pixel, count as one image of one block with N pixels of C
 * lanes, which only the scalar kernels know. A unit of work is a part of a block of an image: `part`
 * pixels, a function of the shape alone. */
typedef struct lc_norm_walk {
    int64_t images, blocks, pixels, part, parts;
    int64_t block, slots; /* slots: lanes of all blocks, pads included */
    lc_grad_kernels kernels;
    lc_units units, channels; /* channels: units of one slot each */
} lc_norm_walk;

/* Where a unit lies: its offset in floats, its first slot, its pixels. */
typedef struct lc_norm_place {
    int64_t at, slot, pixels;
} lc_norm_place;

void lc_norm_walk_init(lc_norm_walk *w, const lc_desc *x, const lc_kernels *kernels);
int64_t lc_norm_unit_count(const lc_norm_walk *w);
lc_norm_place lc_norm_unit(const lc_norm_walk *w, int64_t unit);
/* lc_streams for a result of the size of input 0 that goes to `to`. Not over an input. */
bool lc_norm_streams(const lc_step *step, const lc_bind *bind, const void *to);
/* The channel of a slot, or -1: a pad. */
int64_t lc_norm_channel(const lc_desc *x, int64_t slot);
lc_status lc_norm_check_channels(const char *op, const char *name, const lc_desc *x,
                                 const lc_desc *per_channel);

/* y = x * scale + shift is the norm of one channel. `spread`: 1 / standard deviation (batch), or
 * the variance, to which eps is added. gamma and beta may be NULL. */
static inline void lc_norm_scale(bool batch, float eps, const float *gamma, const float *beta,
                                 float mean, float spread, float *scale, float *shift)
{
    double k = batch ? (double)spread : 1.0 / sqrt((double)spread + (double)eps);
    k *= gamma ? (double)*gamma : 1.0;
    *scale = (float)k;
    *shift = (float)((beta ? (double)*beta : 0.0) - (double)mean * k);
}

#endif
