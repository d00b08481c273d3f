/* What the ops of split attention and their gradients share. "large" tensors have R * C channels
 * (x, attention), "small" ones C (results). */
#ifndef LC_OPS_SPLIT_ATTENTION_H
#define LC_OPS_SPLIT_ATTENTION_H

#include "ops/op_util.h"
#include "ops/ops.h"

/* Blocks of the small tensor, or parts of them, as units of work. */
typedef struct lc_split_planes {
    lc_units units;
    int64_t radix, slots; /* slots: of one slice, pads included */
    int64_t pixels, part, parts;
} lc_split_planes;

/* The layouts of large and of small tensors that go together. */
void lc_split_layouts(const lc_split_attr *a, int block, int64_t large_channels, lc_layout *large,
                      lc_layout *small);
lc_status lc_split_check(const char *op, const lc_split_attr *a, const lc_desc *large);
/* Makes an lc_split_planes step->prep, and items. */
lc_status lc_split_prepare(lc_step *step, const lc_split_attr *a, const lc_desc *large,
                           const lc_desc *small, bool whole_planes);

#endif
