/* The gradient of a convolution's weights: the inner loops.
 *
 *     dw[oc][ic][kh][kw] = sum over pixels of dy[oc][oh][ow] * x[ic][ih + kh][iw + kw]
 *
 * A call takes one input block, a panel of one to three vectors of output channels and a band of
 * pixels (some rows and columns of some images), sums up the band in registers and adds that to
 *
 *     sums[kh][kw][cb][nv * block]
 *
 * so that the length of a chain of additions is that of a band. Pixels are taken image by image,
 * row by row; taps that fall outside of the input are left out. Each sum is done alike whatever the
 * panel holds besides.
 *
 * Winograd, F(3x3, 4x4): with the transforms of winograd_kernels.h, for each pair of channels
 *
 *     dw = G^T [ sum over tiles of (A dy A^T) * (B^T x B) ] G
 *
 * 36 products for the 144 of the direct sum over a tile of 4x4 outputs. In the same way for the forms
 * /2 (positions that share a weight have one sum) and 7x7 /2. */
#ifndef LC_KERNELS_WGRAD_KERNELS_H
#define LC_KERNELS_WGRAD_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/winograd_kernels.h"

#define LC_WGRAD_MAX_NV 3

/* What will be wanted soon, of some images: floats that a call fetches into the L2 cache while it
 * computes, or a part of them, if it is too short. */
#define LC_WGRAD_NEXT 2
typedef struct lc_wgrad_next {
    const float *row[LC_WGRAD_NEXT]; /* of the first image */
    int64_t floats[LC_WGRAD_NEXT];   /* of each image */
    int64_t image[LC_WGRAD_NEXT];    /* from one to the next */
    int64_t images;                  /* 0: nothing */
} lc_wgrad_next;

/* All strides count floats. */
typedef struct lc_wgrad_run {
    const float *x;  /* the input block of the first image, row 0, column 0 */
    const float *dy; /* first vector of the panel in the first image, row 0, column 0 */
    float *sums;
    int64_t x_col, x_row, x_image;
    int64_t dy_vec, dy_row, dy_image; /* columns are `block` apart */
    int64_t h, w, kh, kw;             /* sizes of the input plane and of the kernel */
    int64_t stride[2], dilation[2], pad[2];
    int64_t images, oh0, oh1, ow0, ow1; /* the band */
    int64_t cb;                         /* channels of the input block */
    lc_wgrad_next next;
    int32_t nv, block;
} lc_wgrad_run;

typedef void (*lc_wgrad_run_fn)(const lc_wgrad_run *r);

/* m[channel][nv * block] += sum over positions and tiles of v[block][tile][channel] *
 * w[vector][tile][lane]; Strassen: one of the products, pixels in place of tiles. `first`: = in place
 * of +=. */
typedef struct lc_wgrad_product {
    const float *v, *w;
    float *m;
    int64_t v_blk, w_vec;
    int64_t v_pos, w_pos; /* from one position to the next */
    int64_t positions, blocks, tiles;
    lc_wgrad_next next;
    int32_t nv, block;
    int32_t last; /* channels of the last block */
    bool first;
} lc_wgrad_product;

typedef void (*lc_wgrad_product_fn)(const lc_wgrad_product *p);

/* `vectors` neighbouring vectors of m, for each weight of the form, become nine taps; 7x7: 16, those of
 * the folded channels. */
typedef void (*lc_wgrad_taps_fn)(const float *m, int64_t m_pos, float *taps, int64_t tap,
                                 int64_t vectors, int32_t block);

typedef struct lc_wgrad_kernels {
    lc_wgrad_run_fn dense;
    /* One block of channels (nv == 1) made of groups of cb = 1, 2, .. block: sums
     * [kh][kw][cb][block], where lane l meets channel c of its own group. */
    lc_wgrad_run_fn lanes;
    lc_winograd_fn tiles[LC_WINOGRAD_KINDS]; /* A dy A^T: dy in place of x, no padding; or NULL */
    lc_wgrad_product_fn product;
    lc_wgrad_taps_fn taps[LC_WINOGRAD_KINDS]; /* G^T m G; or NULL */
    const char *dense_name, *lanes_name;      /* for profiles */
} lc_wgrad_kernels;

void lc_wgrad_kernels_fill__scalar(lc_wgrad_kernels *k);
void lc_wgrad_kernels_fill__avx2(lc_wgrad_kernels *k);
void lc_wgrad_kernels_fill__avx512(lc_wgrad_kernels *k);

/* How many of `left` vectors of output channels the next panel takes. */
static inline int32_t lc_wgrad_panel(int64_t left)
{
    return left == 4 ? 2 : left < LC_WGRAD_MAX_NV ? (int32_t)left : LC_WGRAD_MAX_NV;
}

/* Output positions [*from, *to) of [from, to) whose tap lies inside of an input of `size`. */
static inline void lc_wgrad_inside(int64_t size, int64_t stride, int64_t at, int64_t *from,
                                   int64_t *to)
{
    /* 0 <= o * stride + at < size */
    const int64_t first = at < 0 ? (-at + stride - 1) / stride : 0;
    const int64_t last = at < size ? (size - 1 - at) / stride + 1 : 0;
    if (first > *from)
        *from = first;
    if (last < *to)
        *to = last;
    if (*to < *from)
        *to = *from;
}

#endif
