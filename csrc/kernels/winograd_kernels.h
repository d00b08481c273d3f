/* Winograd convolution F(4x4, 3x3): the inner loops.
 *
 * A tile is 4x4 outputs of one channel, made from 6x6 inputs; tiles are anchored at output (0, 0).
 * With the transforms B, G and A of the points (0, 1, -1, 1/2, -2, infinity),
 *
 *     y = A^T [ sum over channels of (G w G^T) * (B^T x B) ] A
 *
 * so that 36 products do what 144 do in the direct sum. Those points have half of the error of
 * (0, +-1, +-2), for four more operations in a transform of six numbers.
 *
 *     input     x -> V[position][input block][tile][block]
 *     multiply  U[position][input channel][2 * block] of a panel, V -> M[position][tile][2 * block]
 *     output    M -> y of that panel, with bias, residual and ReLU
 *
 * Rounding: each element of V, each sum and each output is computed alike wherever its tile lies in
 * the block of tiles; sums run over the channels in order, in chunks of LC_WINOGRAD_CHUNK. */
#ifndef LC_KERNELS_WINOGRAD_KERNELS_H
#define LC_KERNELS_WINOGRAD_KERNELS_H

#include <stdint.h>

#define LC_WINOGRAD_TILE 4
#define LC_WINOGRAD_POSITIONS 36
/* Channels that are summed in registers before they are added to M: bounds the error, and keeps a
 * chunk of a panel (8 KB with vectors of 8) in the L1 cache. */
#define LC_WINOGRAD_CHUNK 128

/* All strides count floats. */
typedef struct lc_winograd_run {
    int32_t block;
    int64_t tile, tiles,
        tile_columns; /* tiles [tile, tile + tiles) of a plane with so many a row */

    const float *x; /* first input block, row 0, column 0 */
    int64_t x_row, x_blk;
    int64_t h, w, pad[2]; /* of the input; padding above, to the left */
    int64_t blocks;       /* input blocks */
    float *v;
    int64_t v_pos, v_blk; /* v_blk: tiles of the block times block, or more */

    const float *u; /* of one panel */
    float *m;
    int64_t m_pos;

    float *y;          /* first vector of the panel, row 0, column 0 */
    const float *add;  /* NULL, or a residual with the strides of y */
    const float *bias; /* nv * block */
    int64_t y_row, y_vec;
    int64_t oh, ow;
    int32_t nv;       /* vectors of the panel that exist: 1, 2 */
    int32_t lanes[2]; /* valid lanes per vector; the others are stored as zeros */
    int32_t relu;
} lc_winograd_run;

typedef void (*lc_winograd_fn)(const lc_winograd_run *r);

typedef struct lc_winograd_kernels {
    lc_winograd_fn input;    /* all input blocks */
    lc_winograd_fn multiply; /* one panel */
    lc_winograd_fn output;   /* one panel */
    int tiles;               /* per register block of `multiply` */
    const char *name;        /* for profiles */
} lc_winograd_kernels;

void lc_winograd_kernels_fill__scalar(lc_winograd_kernels *k);
void lc_winograd_kernels_fill__avx2(lc_winograd_kernels *k);
void lc_winograd_kernels_fill__avx512(lc_winograd_kernels *k);

#endif
