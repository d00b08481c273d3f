/* Inner loops of convolution, linear layers and matrix products: sums of x[pixel + tap][channel] *
 * w[tap][channel][lane].
 *
 * A call does a rectangle of output pixels for one panel (one or two vectors of output channels)
 * and one chunk of input channels. Weights lie in the order in which they are used, without gaps
 * within a panel:
 *
 *     dense:  [input block][kh][kw][cb][nv * block]   cb channels per input block, nv vectors
 *     lanes:  [kh][kw][cg][block]                     groups of cg channels that share a block
 *
 * Rounding, the same for every pixel wherever it falls: a chunk's products are added one by one, in
 * the order of the weights, to 0 (`lanes` takes kh, channel, kw where the kernel is 3 wide with
 * stride and dilation 1); the chunk's sum is added to y (the chunk marked FIRST stores it instead);
 * the chunk marked LAST then adds the bias, then `add`, then takes max(0, .). The chunks keep the
 * error of long sums down (7 times at 4608 terms).
 *
 * Rows of the kernel that lie outside of the input are left out, columns that do are read as zeros.
 * With CROSS, rows are read as zeros too, where the block has a pixel for which they lie inside:
 * whole planes only, so that the blocks are fixed. */
#ifndef LC_KERNELS_CONV_KERNELS_H
#define LC_KERNELS_CONV_KERNELS_H

#include <stdint.h>

#include "kernels/block.h"

/* lc_conv_run.flags */
enum {
    LC_RUN_FIRST = 1, /* y is stored, not added to */
    LC_RUN_LAST = 2,  /* bias, add and ReLU follow */
    LC_RUN_RELU = 4,
    LC_RUN_TAIL = 8, /* some lanes[] are below a block: lanes above are stored as zeros (padding) */
    LC_RUN_CROP = 16, /* with TAIL: lanes above are neither read nor written (y is a matrix) */
    /* dense: blocks of pixels may cross the ends of rows, for narrow planes. y_row is columns times
     * y_pix; the memory around the input holds zeros wherever a tap may fall. */
    LC_RUN_CROSS = 32,
    LC_RUN_FAR = 64,    /* the input comes from memory: more of it is fetched ahead */
    LC_RUN_STREAM = 128 /* with FIRST and LAST: y goes past the caches; blocks, aligned to them */
};

#define LC_CONV_MAX_NV 2

/* All strides count floats. */
typedef struct lc_conv_run {
    float *y;          /* first vector of the panel, output row 0, column 0 */
    const float *add;  /* NULL, or a residual with the strides of y */
    const float *x;    /* first input block of the chunk, input row 0, column 0 */
    const float *w;    /* the chunk's part of the panel */
    const float *bias; /* nv * block; read by the LAST chunk only */

    int64_t y_pix, y_row, y_vec; /* y: between columns, rows, vectors of the panel */
    int64_t x_col, x_row, x_blk; /* x: between columns, rows, input blocks */
    int64_t w_blk;               /* w: between input blocks */

    int64_t h, w_in, kh, kw;                /* size of the input plane and of the kernel */
    int64_t stride[2], dilation[2], pad[2]; /* height, width; padding before */

    int64_t blocks; /* input blocks of the chunk */
    int64_t cb;     /* channels per input block and tap; at most LC_MAX_BLOCK with padding */
    int32_t nv;     /* vectors of the panel: 1, 2 */
    int32_t block;  /* floats per vector */
    int32_t lanes[LC_CONV_MAX_NV]; /* valid lanes per vector, 0 .. block */
    uint32_t flags;
} lc_conv_run;

/* Output rows [oh0, oh1), columns [ow0, ow1). */
typedef void (*lc_conv_run_fn)(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1);

typedef struct lc_conv_kernels {
    lc_conv_run_fn dense;
    /* One block of channels (nv == 1, blocks == 1) made of groups of cb = 1, 2, .. block. */
    lc_conv_run_fn lanes;
    const char *dense_name, *lanes_name; /* for profiles */
    int dense_px; /* most pixels per block of a panel of two vectors; fewer than 4 are slower */
} lc_conv_kernels;

void lc_conv_dense_f32__scalar(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1);
void lc_conv_lanes_f32__scalar(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1);
void lc_conv_dense_f32__avx2(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                             int64_t ow1);
void lc_conv_lanes_f32__avx2(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                             int64_t ow1);
void lc_conv_dense_f32__avx512(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1);
void lc_conv_lanes_f32__avx512(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1);

void lc_conv_kernels_fill__scalar(lc_conv_kernels *k);
void lc_conv_kernels_fill__avx2(lc_conv_kernels *k);
void lc_conv_kernels_fill__avx512(lc_conv_kernels *k);

#endif
