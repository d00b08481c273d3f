/* What a tensor looks like: dtype, shape, and how its elements lie in memory.
 *
 * Layouts. Users see C-order NCHW arrays: {block 1, groups 1}, "plain". Inside a plan a 4-D float
 * tensor may be channel-blocked: {block B, groups G} lies in memory as
 *
 *     [N][G * P / B][H][W][B]      P: channels per group, C / G, rounded up to a multiple of B
 *
 * that is, each of the G groups of C / G channels starts at a block of its own and its last block
 * is padded. Pad lanes hold zero, always. Where C / G is a multiple of B, grouping moves nothing,
 * and where B is a multiple of C / G the groups share blocks; both are written with groups == 1
 * (lc_layout_blocked), so equal memory means equal layout. */
#ifndef LC_OPS_TENSOR_DESC_H
#define LC_OPS_TENSOR_DESC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define LC_MAX_RANK 8

typedef enum lc_dtype {
    LC_F32 = 0,
    LC_I64 = 1, /* class numbers, argmax */
    LC_BLOB = 2 /* packed weights: rank 1, dim[0] bytes, 64-byte aligned */
} lc_dtype;

typedef struct lc_layout {
    int32_t block;  /* 1 = plain */
    int32_t groups; /* 1 unless groups are padded one by one */
} lc_layout;

typedef struct lc_desc {
    int32_t dtype;            /* lc_dtype */
    int32_t rank;             /* 0 .. LC_MAX_RANK */
    int64_t dim[LC_MAX_RANK]; /* unused ones are 0 */
    lc_layout layout;
} lc_desc;

#define LC_PLAIN ((lc_layout){1, 1})

/* A plain float32 desc; LC_ERR_VALUE for a negative size or a rank or element count out of range.
 */
lc_status lc_desc_init(lc_desc *d, lc_dtype dtype, int rank, const int64_t *dim);
int64_t lc_desc_count(const lc_desc *d); /* logical elements */
size_t lc_desc_bytes(const lc_desc *d);  /* memory, padding included */
bool lc_desc_same_shape(const lc_desc *a, const lc_desc *b);
bool lc_layout_equal(lc_layout a, lc_layout b);

/* The canonical blocked layout for C channels in `groups` groups: see above. */
lc_layout lc_layout_blocked(int block, int64_t channels, int64_t groups);
/* Do two layouts of this 4-D shape put every element at the same address (pads included)? Then a
 * conversion is a view. */
bool lc_layout_same_memory(const lc_desc *d, lc_layout a, lc_layout b);

/* Channels of a 4-D tensor with padding counted, a multiple of the block; plain: C. */
int64_t lc_desc_padded_channels(const lc_desc *d);
/* Position of channel c among the padded channels. */
int64_t lc_desc_channel_slot(const lc_desc *d, int64_t c);

/* "(2, 3, 224, 224)" into buf, for messages. Returns buf. */
#define LC_SHAPE_TEXT 192
const char *lc_shape_text(const lc_desc *d, char buf[LC_SHAPE_TEXT]);

#endif
