/* Layers whose algorithm has been measured: for them the fastest takes the place of the first one
 * of the list that is expected to pay (conv_choose.c). One table per process, empty unless somebody fills it.
 */
#ifndef LC_OPS_CONV_TUNING_H
#define LC_OPS_CONV_TUNING_H

#include "ops/conv_form.h"

/* What identifies a layer: IC, OC, KH, KW, stride, padding (top, bottom, left, right), dilation,
 * groups, H, W, and the layout of x (block, groups). Neither N nor threads. */
#define LC_CONV_KEY 17

typedef struct lc_conv_tuned_layer {
    int64_t key[LC_CONV_KEY];
    int64_t algorithm; /* lc_conv_algorithm */
} lc_conv_tuned_layer;

/* in: of a convolution that is not packed yet, its layouts decided. */
void lc_conv_tuning_key(const lc_conv2d_attr *attr, const lc_desc *in, int64_t key[LC_CONV_KEY]);
/* The lc_conv_algorithm of a layer, or -1 if it is not in the table. */
int lc_conv_tuning_find(const lc_conv2d_attr *attr, const lc_desc *in);
/* Replaces the table (a copy is taken; n may be 0) and the version with it, which is part of every
 * plan's key. LC_ERR_MEMORY leaves it as it was. */
lc_status lc_conv_tuning_set(int n, const lc_conv_tuned_layer *layers);

#endif
