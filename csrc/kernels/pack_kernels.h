/* Packing of weights: from the order of users, where the weights of an output channel (a lane) lie
 * side by side, to rows of lanes, and back.
 *
 *     pack         row of element e [i] = w of lane i [e] * scale[i]
 *     winograd     the 36 or 16 rows of each 3x3 filter, u = G (w * scale) G^T
 *     strassen     the 7 or 49 rows of each set of weights of 1x1 convolutions
 *     unpack, ..   back, with 1 / scale: the nearest weights that follow from the rows
 *     differences  what weights differ from those that were got back, in codes of few bits
 *
 * The transforms are those of winograd_kernels.h. Products and sums are done in double, in the same
 * order everywhere, and rounded once: packed bytes do not depend on the ISA. All strides and offsets
 * count floats. */
#ifndef LC_KERNELS_PACK_KERNELS_H
#define LC_KERNELS_PACK_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/winograd_kernels.h"

#define LC_PACK_TILE 16 /* most elements, filters or k-steps of a call */
#define LC_PACK_MAX_WIDTH 32

/* The lanes of a row: a multiple of 8. */
typedef struct lc_pack_lanes {
    int width;
    int64_t lane[LC_PACK_MAX_WIDTH]; /* where its weights begin, or -1 for a missing one, which
                                        packs to zeros and is left out on the way back */
    double scale[LC_PACK_MAX_WIDTH]; /* 0 for missing lanes */
} lc_pack_lanes;

typedef struct lc_pack_elements {
    const lc_pack_lanes *lanes;
    int n;
    int64_t from[LC_PACK_TILE]; /* of each, from the beginning of a lane's weights */
    int64_t row[LC_PACK_TILE];  /* where its row begins */
} lc_pack_elements;

/* 3x3 filters, whose rows follow each other. */
typedef struct lc_pack_filters {
    const lc_pack_lanes *lanes;
    int n;
    int64_t from, next; /* the first one, as above; between filters */
    bool turned;        /* taps are taken in the opposite order */
    lc_winograd_kind kind;
    int64_t pos; /* between the rows of a filter */
} lc_pack_filters;

/* Channels of 1x1 convolutions: one of each part of the inputs, for the same lane of each part of
 * the outputs. No lane is missing. */
typedef struct lc_pack_parts {
    const lc_pack_lanes *lanes; /* [parts] */
    int parts;                  /* 2, or 4 (the algorithm applied twice) */
    int n;                      /* k-steps, whose rows follow each other */
    int64_t from, next;         /* as above */
    int64_t part;               /* between parts of the inputs */
    int64_t pos;
} lc_pack_parts;

/* Floats as integers in the same order, so that neighbours differ by one: its own inverse. */
static inline uint32_t lc_ordered(uint32_t bits)
{
    return bits ^ ((uint32_t)((int32_t)bits >> 31) & UINT32_C(0x7fffffff));
}

typedef struct lc_pack_kernels {
    void (*pack)(const lc_pack_elements *t, const float *w, float *rows);
    void (*unpack)(const lc_pack_elements *t, const float *rows, float *w);
    void (*winograd)(const lc_pack_filters *t, const float *w, float *u);
    void (*unwinograd)(const lc_pack_filters *t, const float *u, float *w);
    void (*strassen)(const lc_pack_parts *t, const float *w, float *u);
    void (*unstrassen)(const lc_pack_parts *t, const float *u, float *w);
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
