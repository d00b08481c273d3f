/* Convolutions with fewer multiplications: the inner loops. Inputs and weights are transformed, so
 * that a tile of outputs comes from fewer products, each of them a small matrix product over the
 * channels; what comes out is transformed back.
 *
 *     3x3      Winograd F(4x4, 3x3): a tile is 4x4 outputs of one channel, made from 6x6 inputs,
 *                  y = A^T [ sum over channels of (G w G^T) * (B^T x B) ] A
 *              36 products do what 144 do in the direct sum. The points (0, 1, -1, 1/2, -2,
 *              infinity) have half of the error of (0, +-1, +-2), for four more operations in a
 *              transform of six numbers.
 *     late     the same, from filters as they are: `multiply` transforms them on the way. Fewer
 *              bytes are read, for additions that few tiles share. The factors 1/3, -4/15 and 1/15
 *              of the weights are in the output's transform instead.
 *     2x2      the same with tiles of 2x2, from 4x4 inputs, at the points (0, 1, -1, infinity): 16
 *              products do what 36 do, and the weights are 1.8 times as large as the filters rather
 *              than 4 times.
 *     /2       F(4x4, 3x3) for stride 2: a tile is 4x4 outputs from 9x9 inputs. Along an axis,
 *              y[i] = (w[0] x[2i] + w[2] x[2i + 2]) + w[1] x[2i + 1]: F(4, 2) at the points (0, -1,
 *              1/2, 2, infinity) for the even inputs, the odd ones as they are. 81 products do what
 *              144 do, with 36 weights, since the odd ones share theirs.
 *     up       the gradient of 3x3 with stride 2 and a padding of 1, 4x4 pairs of rows and columns
 *              from 5x5 inputs. Along an axis, with the weights turned, y[2j + 1] = w[0] x[j] + w[2]
 *              x[j + 1] and y[2j] = w[1] x[j]: the same numbers as above.
 *     7x7 /2   F(4x4, 4x4) at the points (0, +-1, +-2, 1/2, infinity), from a plain input: the taps of
 *              even and of odd rows and columns are four kernels of 4x4 (a fourth tap of 0), for the
 *              pixels of even and odd rows and columns, which are taken as channels of their own:
 *              channel * 4 + row parity * 2 + column parity. 49 products of 4 channels do what 16 x
 *              49 do.
 *     1x1      Strassen's algorithm in Winograd's form (Winograd 1971), one or two levels: a tile is
 *              two (four) pixels that follow each other in the plane; channels in and out are taken
 *              as two halves (four quarters). 7 products do what 8 do (49 what 64 do).
 *
 *     input     x -> V[position][input block][tile][block]
 *     multiply  U[weight][input channel][2 * block] of a panel, V -> M[position][tile][2 * block]
 *     output    M -> y of that panel (1x1: of that panel of all parts), with bias, residual and ReLU
 *
 * Positions that share a weight follow each other. Rounding: each element of V, each sum and each
 * output is computed alike wherever its tile lies in the block of tiles; sums run over the channels
 * in order, in chunks of LC_WINOGRAD_CHUNK.
 *
 * Short tiles: along an axis the last output alone takes its number at infinity (stride 2: and that of
 * the last odd input). So where tiles do not fit, the last ones are an output shorter, 14 = 4 + 4 + 3
 * + 3 and 7 = 4 + 3, and do without the products of those positions: 484 rather than 576 of 36 x 16,
 * 121 of 144. What stands there in M is undefined. The tiles of a block are ordered so that those
 * which take part in a position follow each other: short in rows alone, in neither, in columns
 * alone, in both. */
#ifndef LC_KERNELS_WINOGRAD_KERNELS_H
#define LC_KERNELS_WINOGRAD_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lc_winograd_kind {
    LC_WINOGRAD_3X3 = 0,
    LC_WINOGRAD_3X3_LATE,
    LC_WINOGRAD_3X3_2X2,
    LC_WINOGRAD_3X3_S2,
    LC_WINOGRAD_3X3_UP,
    LC_WINOGRAD_7X7_S2,
    LC_WINOGRAD_1X1,
    LC_WINOGRAD_1X1_TWICE,
    LC_WINOGRAD_KINDS
} lc_winograd_kind;

typedef struct lc_winograd_form {
    const char *name;    /* for profiles */
    int positions;       /* products per tile and channel */
    int weights;         /* different ones among their weights */
    const uint8_t *uses; /* positions of each weight; NULL: one */
    const uint8_t *last; /* of each position: LC_WINOGRAD_LAST_ROW, _COLUMN or both; NULL: 0 */
    int parts;           /* of the channels, in and out: 1; 1x1: 2, 4, and as many pixels a tile */
    int kernel, stride;  /* of the convolution; stride 0: any */
    int tile;            /* 3x3, 7x7: outputs (up: pairs) of a tile along an axis */
    bool late;           /* weights are packed as for direct sums */
    bool folded;         /* x is plain; its 2x2 pixels are channels */
    bool up;             /* the convolution is transposed */
} lc_winograd_form;
extern const lc_winograd_form lc_winograd_forms[LC_WINOGRAD_KINDS]; /* kernels.c */

static inline lc_winograd_kind lc_winograd_kind_of(const lc_winograd_form *form)
{
    return (lc_winograd_kind)(form - lc_winograd_forms);
}

/* Only the last output along an axis takes what stands at this position. */
enum { LC_WINOGRAD_LAST_ROW = 1, LC_WINOGRAD_LAST_COLUMN = 2 };

#define LC_WINOGRAD_TILE 4       /* of LC_WINOGRAD_3X3 */
#define LC_WINOGRAD_POSITIONS 36 /* of LC_WINOGRAD_3X3 */
#define LC_WINOGRAD_MAX_POSITIONS 81
#define LC_WINOGRAD_MAX_FOLDED 16 /* channels of LC_WINOGRAD_7X7_S2, four for each of x */
/* Channels that are summed in registers before they are added to M: bounds the error, and keeps a
 * chunk of a panel (8 KB with vectors of 8) in the L1 cache. */
#define LC_WINOGRAD_CHUNK 128
/* The same, late: their transformed weights stay in the L2 cache. */
#define LC_WINOGRAD_LATE 64
#define LC_WINOGRAD_LATE_POS(block) (LC_WINOGRAD_LATE * 2 * (block) + 16) /* between positions */

#define LC_WINOGRAD_INLINE static inline __attribute__((always_inline))

/* 3x3, 7x7: numbers of a transformed tile along an axis. */
LC_WINOGRAD_INLINE int lc_winograd_side(lc_winograd_kind kind)
{
    return kind == LC_WINOGRAD_3X3_2X2                                ? 4
           : kind == LC_WINOGRAD_3X3_S2 || kind == LC_WINOGRAD_3X3_UP ? 9
           : kind == LC_WINOGRAD_7X7_S2                               ? 7
                                                                      : 6;
}

/* Where row i, column j of a transformed tile stands. Stride 2 and up: even rows first; of odd ones,
 * the positions of a weight side by side. */
LC_WINOGRAD_INLINE int lc_winograd_position(lc_winograd_kind kind, int i, int j)
{
    const int side = lc_winograd_side(kind);
    if (side < 9 || i < 5)
        return i * side + j;
    return j < 5 ? 45 + j * 4 + i - 5 : 65 + (i - 5) * 4 + j - 5;
}

/* A tile: of which image, its first output, and how many outputs it gives. 1x1: row 0, and the number
 * of its first pixel in the plane. Up: pairs of outputs. */
typedef struct lc_winograd_place {
    int64_t n, oh, ow;
    int32_t rows, columns;
} lc_winograd_place;

/* Tiles [from, to) of a block. */
typedef struct lc_winograd_range {
    int64_t from, to;
} lc_winograd_range;

/* All strides count floats. */
typedef struct lc_winograd_run {
    const lc_winograd_form *form;
    int32_t block;
    int64_t tiles;
    const lc_winograd_place *place; /* of each tile */
    lc_winograd_range taking[4];    /* which tiles take part, by form->last */

    const float *x; /* first input block (folded: channel), row 0, column 0 of image 0 */
    int64_t x_row, x_blk, x_image;
    int64_t h, w, pad[2]; /* of the input; padding above, to the left */
    int64_t stride;       /* 1x1 */
    int64_t blocks;       /* input blocks (of a part) */
    int32_t last; /* channels of the last one; what follows them is zero, and may be skipped */
    float *v;
    int64_t v_pos, v_blk; /* v_blk: tiles of the block times block, or more */

    const float *u; /* of one panel; late: [blocks][9][block][nv * block] */
    float *late;    /* room for LC_WINOGRAD_POSITIONS * LC_WINOGRAD_LATE_POS(block) floats */
    float *m;
    int64_t m_pos;

    float *y;          /* first vector of the panel, row 0, column 0 of image 0 */
    const float *add;  /* NULL, or a residual with the strides of y */
    const float *bias; /* nv * block */
    int64_t y_row, y_vec, y_image;
    int64_t y_part, bias_part; /* 1x1: to the same panel of the next part */
    int64_t oh, ow;            /* the same; up: pairs of them, of which the last may be half */
    int64_t y_h, y_w;          /* outputs */
    int32_t nv;       /* vectors of the panel that exist: 1, 2; M of the others is undefined */
    int32_t lanes[2]; /* valid lanes per vector; the others are stored as zeros (1x1: all are) */
    int32_t relu;
    int32_t stream; /* y goes past the caches: it is aligned to them, and not add */
} lc_winograd_run;

static inline lc_winograd_range lc_winograd_taking(const lc_winograd_run *r, int64_t position)
{
    return r->taking[r->form->last ? r->form->last[position] : 0];
}

typedef void (*lc_winograd_fn)(const lc_winograd_run *r);

typedef struct lc_winograd_kernels {
    lc_winograd_fn input[LC_WINOGRAD_KINDS];    /* all input blocks */
    lc_winograd_fn multiply[LC_WINOGRAD_KINDS]; /* one panel */
    lc_winograd_fn output[LC_WINOGRAD_KINDS];   /* one panel */
    int tiles;                                  /* per register block of `multiply` */
} lc_winograd_kernels;

void lc_winograd_kernels_fill__scalar(lc_winograd_kernels *k);
void lc_winograd_kernels_fill__avx2(lc_winograd_kernels *k);
void lc_winograd_kernels_fill__avx512(lc_winograd_kernels *k);

#endif
