/* Packing of weights: from the order of users, where the weights of an output channel (a lane) lie
 * side by side, to rows of lanes, and back.
 *
 *     pack        row of element e [i] = w of lane i [e] * scale[i]
 *     unpack      w of lane i [e] = row of element e [i] * scale[i]
 *     winograd    the 36 rows of each 3x3 filter, u = G (w * scale) G^T (winograd_kernels.h)
 *     unwinograd  back: the nearest that follows from 16 of the 36
 *
 * Products and sums are done in double, in the same order everywhere, and rounded once: packed
 * bytes do not depend on the ISA. */
#ifndef LC_KERNELS_PACK_KERNELS_H
#define LC_KERNELS_PACK_KERNELS_H

#include <stdint.h>

#define LC_PACK_TILE 16 /* most elements, or filters, of a call */

/* What a call moves. All strides and offsets count floats. */
typedef struct lc_pack_tile {
    int width;           /* lanes of a row: 8, 16 or 32 */
    const int64_t *lane; /* per lane: where its weights begin, or -1 for a missing one, which packs
                            to zeros and is left out when unpacking */
    const double *scale; /* per lane; 0 for missing ones */
    int64_t at;          /* first element, counted from the beginning of a lane's weights */
    int n;               /* elements; filters of 9 elements for the winograd pair */
    int64_t row[LC_PACK_TILE]; /* pack, unpack: where the row of each element begins */
    int64_t pos;               /* winograd pair: between positions; rows of filters lie together */
} lc_pack_tile;

typedef struct lc_pack_kernels {
    void (*pack)(const lc_pack_tile *t, const float *w, float *rows);
    void (*unpack)(const lc_pack_tile *t, const float *rows, float *w);
    void (*winograd)(const lc_pack_tile *t, const float *w, float *u);
    void (*unwinograd)(const lc_pack_tile *t, const float *u, float *w);
} lc_pack_kernels;

void lc_pack_kernels_fill__scalar(lc_pack_kernels *k);
void lc_pack_kernels_fill__avx2(lc_pack_kernels *k); /* any width */

#endif
