/* Packing of weights: from the order of users, where the weights of an output channel (a lane) lie
 * side by side, to rows of lanes, and back.
 *
 *     pack        row of element e [i] = w of lane i [e] * scale[i]
 *     unpack      w of lane i [e] = row of element e [i] * scale[i]
 *     winograd    the 36 rows of each 3x3 filter, u = G (w * scale) G^T (winograd_kernels.h)
 *     unwinograd  back: the nearest that follows from 16 of the 36
 *     differences what weights differ from those that were got back, in codes of few bits
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

/* Floats as integers in the same order, so that neighbours differ by one: its own inverse. */
static inline uint32_t lc_ordered(uint32_t bits)
{
    return bits ^ ((uint32_t)((int32_t)bits >> 31) & UINT32_C(0x7fffffff));
}

typedef struct lc_pack_kernels {
    void (*pack)(const lc_pack_tile *t, const float *w, float *rows);
    void (*unpack)(const lc_pack_tile *t, const float *rows, float *w);
    void (*winograd)(const lc_pack_tile *t, const float *w, float *u);
    void (*unwinograd)(const lc_pack_tile *t, const float *u, float *w);
    /* Codes of n weights w against g, `bits` (2 or 4) each, lowest bits first, in (n * bits + 7) / 8
     * bytes. With middle = 2^(bits - 1) - 1 a code is lc_ordered(w) - lc_ordered(g) + middle where
     * that is 0 .. 2 * middle; else it is the code after these, and the weight's bit is set in
     * far[(n + 31) / 32]. */
    void (*differences)(const float *w, const float *g, int64_t n, int bits, unsigned char *codes,
                        uint32_t *far);
} lc_pack_kernels;

void lc_pack_kernels_fill__scalar(lc_pack_kernels *k);
void lc_pack_kernels_fill__avx2(lc_pack_kernels *k); /* any width */

#endif
