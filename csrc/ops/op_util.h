/* What the ops share: sharing out work, checks with messages, the blocks of blocked tensors. */
#ifndef LC_OPS_OP_UTIL_H
#define LC_OPS_OP_UTIL_H

#include "ops/op.h"

/* --- work. An op counts its work in small units; neighbouring units form an item of 10 to 100
 * us or so. */
typedef struct lc_units {
    int64_t count, each; /* units, units per item */
} lc_units;

#define LC_ITEM_WORK 32768 /* floats read or written by a simple loop: about 10 us */

/* `work`: of one unit, in floats. Returns the number of items. */
int64_t lc_units_set(lc_units *u, int64_t count, int64_t work);
/* The units [*first, *last) of the items [begin, end). */
void lc_units_range(const lc_units *u, int64_t begin, int64_t end, int64_t *first, int64_t *last);

/* Pixels that one unit of a plane takes, for planes of `pixels` pixels of `lanes` floats: all,
 * or a part. *parts: how many units that makes per plane (0 if there are no pixels). */
int64_t lc_pixel_part(int64_t pixels, int64_t lanes, int64_t *parts);

/* Of numbers that are not negative: a * b and a + b, or INT64_MAX where that is too large. */
int64_t lc_count_mul(int64_t a, int64_t b);
int64_t lc_count_add(int64_t a, int64_t b);

static inline int64_t lc_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t lc_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t lc_max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* --- checks; `op` and `arg` go into the message */
lc_status lc_check_inputs(const char *op, int n_in, int expected);
lc_status lc_check_f32(const char *op, const char *arg, const lc_desc *d);
lc_status lc_check_rank(const char *op, const char *arg, const lc_desc *d, int lowest, int highest);
lc_status lc_check_movable(const char *op, const lc_desc *d); /* float32 or int64 */
const char *lc_dtype_name(int32_t dtype);

/* --- blocked tensors. A block index runs over the padded channels of an image. */
static inline int64_t lc_block_count(const lc_desc *d)
{
    return lc_desc_padded_channels(d) / d->layout.block;
}

/* The first channel of block b, and how many of its lanes are channels. */
int lc_block_channels(const lc_desc *d, int64_t b, int64_t *first);
bool lc_has_pads(const lc_desc *d);
/* How block b of `out` comes from blocks of `in`, the same tensor in another blocked layout: all of
 * *pick but x, and from[k], the block that x[k] is to point into. */
void lc_pick_blocks(lc_vec_pick *pick, int64_t from[LC_MAX_BLOCK], const lc_desc *in,
                    const lc_desc *out, int64_t b);
/* Zeroes the pad lanes in floats [begin, end) of the memory of a blocked tensor; both are
 * multiples of the block. */
void lc_clear_pads(const lc_desc *d, float *data, int64_t begin, int64_t end);
/* Floats of memory, pads included. */
int64_t lc_memory_floats(const lc_desc *d);
/* Should such a result be written past the caches, which could not keep it for long? It then is no
 * input as well, and aligned (lc_is_aligned). Blocks of the kernels' size only. Steps of training
 * (Zen 4): norms 1.02 times as fast; convolutions as well 1.025 (resnet_50), 1.03 (resnet_18), with a
 * quarter of L3 as bound 1.018 and 1.02, with a sixteenth as now. */
bool lc_streams(const lc_step *step, const lc_desc *y);
bool lc_is_aligned(const void *p); /* to LC_ALIGN */

#endif
