/* Convolution by Winograd's algorithm: the plan and the run. conv_choose.c says when, conv2d_pack.c
 * transforms the weights, kernels/winograd_kernels.h has the arithmetic. */
#ifndef LC_OPS_CONV2D_WINOGRAD_H
#define LC_OPS_CONV2D_WINOGRAD_H

#include "ops/op_util.h"

lc_status lc_winograd_prepare(lc_step *step);
lc_status lc_winograd_run_items(const lc_step *step, const lc_bind *bind, int64_t begin,
                                int64_t end);

/* Cuts the work of a prepared step anew, for caches of so many bytes per core; prepare does it for
 * those of this machine. No result depends on it. */
void lc_winograd_schedule(lc_step *step, int64_t l2);

/* How many tiles along an axis of `size` outputs have `tile` of them; the others are short. */
static inline int64_t lc_winograd_whole(int64_t size, int tile)
{
    return lc_max64(0, size - (tile - 1) * lc_ceil_div(size, tile));
}

/* Tiles [first, first + r->tiles) of the planes of all images, of r->oh x r->ow outputs: fills
 * r->taking, and place[], which becomes r->place. */
void lc_winograd_arrange(lc_winograd_run *r, int64_t first, lc_winograd_place *place);

#endif
