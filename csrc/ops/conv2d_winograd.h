/* Convolution by Winograd's algorithm: the plan and the run. conv_choose.c says when, conv2d_pack.c
 * transforms the weights, kernels/winograd_kernels.h has the arithmetic. */
#ifndef LC_OPS_CONV2D_WINOGRAD_H
#define LC_OPS_CONV2D_WINOGRAD_H

#include "ops/op.h"

lc_status lc_winograd_prepare(lc_step *step);
lc_status lc_winograd_run_items(const lc_step *step, const lc_bind *bind, int64_t begin,
                                int64_t end);

/* Cuts the work of a prepared step anew, for caches of so many bytes per core; prepare does it for
 * those of this machine. No result depends on it. */
void lc_winograd_schedule(lc_step *step, int64_t l2);

#endif
