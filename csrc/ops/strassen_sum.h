/* Sums of products of channels over pixels, a * transposed(b), by Strassen's algorithm in the form
 * of Winograd: the channels of both sides and the pixels are halved, seven products of halves take
 * the place of eight, and so again for the halves ("twice": 49 for 64).
 *
 * What is added up over more pixels later are the products, each for itself; the sums come of them
 * once, at the end. So only the factors cost additions for each pixel: three for each value and
 * level. (V. Strassen, Gaussian elimination is not optimal, 1969; S. Winograd's form has 15
 * additions, of which 7 are left to the end.) */
#ifndef LC_OPS_STRASSEN_SUM_H
#define LC_OPS_STRASSEN_SUM_H

#include "kernels/kernels.h"

#define LC_STRASSEN_MAX_RUNS 4 /* twice */

/* Blocked activations: `blocks` blocks of channels, `step` floats apart; in each, at every run, the
 * same number of neighbouring pixels. */
typedef struct lc_strassen_side {
    const float *run[LC_STRASSEN_MAX_RUNS]; /* of the first block */
    int64_t step, blocks;
} lc_strassen_side;

/* levels: 1 or 2; no level is one part. */
static inline int64_t lc_strassen_parts(int levels) /* of either side, and of the pixels */
{
    return (int64_t)1 << levels;
}

static inline int64_t lc_strassen_products(int levels)
{
    return levels == 1 ? 7 : 49;
}

/* Floats of scratch that lc_strassen_add needs. */
int64_t lc_strassen_scratch(int levels, int64_t a_blocks, int64_t b_blocks, int64_t pixels,
                            int block);

/* m[product] += (`first`: =) the product of factors, over runs of `pixels` pixels, 2^levels of them.
 * The blocks of both sides divide by 2^levels. Each of the 7^levels products has the layout of
 * lc_wgrad_product in panels of a's blocks (lc_wgrad_panel) after each other. `next`: the sides of
 * the next call, whose first factors are fetched ahead; without blocks: none. */
void lc_strassen_add(const lc_kernels *k, int levels, const lc_strassen_side *a,
                     const lc_strassen_side *b, const lc_strassen_side next[2], int64_t pixels,
                     float *scratch, float *m, bool first);

/* The products, `floats` each, become the sums of the i-th part of a's blocks and the j-th of b's, at
 * sums + (i * parts + j) * floats. m is overwritten. */
void lc_strassen_finish(int levels, float *m, int64_t floats, float *sums);

#endif
