/* Copies from strided memory into plain memory: what permute, slice and expand have in common.
 *
 * Elements are words of 4 bytes; an int64 is two words, which make one more innermost dimension. */
#ifndef LC_OPS_STRIDED_H
#define LC_OPS_STRIDED_H

#include "ops/op_util.h"

typedef struct lc_strided {
    lc_units units; /* of LC_STRIDED_UNIT words */
    int64_t words;  /* in all */
    int64_t offset; /* of the first element */
    int rank;       /* at least 1; dimensions that run on as one are merged */
    int64_t dim[LC_MAX_RANK + 1],
        stride[LC_MAX_RANK +
               1]; /* output's sizes; input's strides, in words: may be 0 or negative */
} lc_strided;

#define LC_STRIDED_UNIT 256

/* The output `y` (plain) reads element (i0, i1, ...) at offset + sum of i * stride (in elements
 * of the input). Books step->prep and items; an op that uses this has lc_strided_run as its run. */
lc_status lc_strided_prepare(lc_step *step, const lc_desc *y, int64_t offset,
                             const int64_t *stride);
lc_status lc_strided_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end);

/* Strides of a plain tensor, in elements. */
void lc_plain_strides(const lc_desc *d, int64_t stride[LC_MAX_RANK]);

#endif
