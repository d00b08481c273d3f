/* What the ops of split attention and their gradients share. "large" tensors have R * C channels
 * (x, attention), "small" ones C (results). */
#ifndef LC_OPS_SPLIT_ATTENTION_H
#define LC_OPS_SPLIT_ATTENTION_H

#include "ops/op_util.h"
#include "ops/ops.h"

/* Blocks of the small tensor, or parts of them, as units of work. */
typedef struct lc_split_planes {
    lc_units units;
    int64_t radix, slots; /* slots: of one slice of the large tensor, pads included */
    int64_t blocks;       /* of the small tensor, per image */
    int64_t pixels, part, parts;
} lc_split_planes;

/* Where a unit lies: image, block, first pixel and pixels. */
typedef struct lc_split_unit {
    int64_t image, block, from, pixels;
} lc_split_unit;

static inline lc_split_unit lc_split_unit_at(const lc_split_planes *p, int64_t u)
{
    const int64_t plane = u / p->parts, from = u % p->parts * p->part;
    return (lc_split_unit){plane / p->blocks, plane % p->blocks, from,
                           lc_min64(p->pixels - from, p->part)};
}

/* The layouts of large and of small tensors that go together. */
void lc_split_layouts(const lc_split_attr *a, int block, int64_t large_channels, lc_layout *large,
                      lc_layout *small);
lc_status lc_split_check(const char *op, const lc_split_attr *a, const lc_desc *large);
/* Makes an lc_split_planes step->prep, and items. */
lc_status lc_split_prepare(lc_step *step, const lc_split_attr *a, const lc_desc *large,
                           const lc_desc *small, bool whole_planes);

#endif
