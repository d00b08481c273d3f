/* The Winograd kernels, written once over the interface of base/simd_<isa>.h. The including file
 * gives WINO_PX (tiles per register block) and the fill function. */
#ifndef LC_KERNELS_WINOGRAD_BODY_H
#define LC_KERNELS_WINOGRAD_BODY_H

#include <stdbool.h>

#define WINO_INLINE static inline __attribute__((always_inline))
#define WINO_NOINLINE static __attribute__((noinline))
#define WINO_UNROLL _Pragma("GCC unroll 16")

static const float wino_zeros[6 * LC_VLEN];

/* t = B^T d */
WINO_INLINE void wino_input6(const lc_v *d, lc_v *t)
{
    const lc_v half = lc_v_set1(0.5f), more = lc_v_set1(1.5f), two = lc_v_set1(2.0f);
    lc_v p = lc_v_sub(d[3], d[1]), q = lc_v_sub(d[4], d[2]);
    t[0] = lc_v_fma(more, p, lc_v_add(lc_v_sub(d[0], d[2]), q));
    t[1] = lc_v_fma(more, lc_v_add(d[2], d[3]), lc_v_add(q, p));
    t[2] = lc_v_fma(more, lc_v_sub(d[3], d[2]), lc_v_sub(q, p));
    t[3] = lc_v_fma(two, p, q);
    t[4] = lc_v_fnma(half, p, q);
    t[5] = lc_v_fma(more, q, lc_v_sub(lc_v_sub(d[5], d[3]), p));
}

/* y = A^T m */
WINO_INLINE void wino_output4(const lc_v *m, lc_v *y)
{
    lc_v s = lc_v_add(m[1], m[2]), d = lc_v_sub(m[1], m[2]);
    y[0] = lc_v_add(lc_v_add(m[0], s), lc_v_add(m[3], m[4]));
    y[1] = lc_v_fnma(lc_v_set1(2.0f), m[4], lc_v_fma(lc_v_set1(0.5f), m[3], d));
    y[2] = lc_v_fma(lc_v_set1(4.0f), m[4], lc_v_fma(lc_v_set1(0.25f), m[3], s));
    y[3] = lc_v_fnma(lc_v_set1(8.0f), m[4], lc_v_fma(lc_v_set1(0.125f), m[3], lc_v_add(d, m[5])));
}

/* The tile whose first input is at row `ih`, column `iw` of the plane x; both may lie outside. Rows
 * outside are read from an array of zeros, columns outside need no transform. */
WINO_INLINE void wino_input_tile(const lc_winograd_run *r, const float *x, int64_t ih, int64_t iw,
                                 float *v)
{
    lc_v t[6][6];
    const float *row[6];
    WINO_UNROLL
    for (int i = 0; i < 6; i++) {
        const bool in = ih + i >= 0 && ih + i < r->h;
        /* only its columns inside are read */
        row[i] = in ? x + (ih + i) * r->x_row + iw * LC_VLEN : wino_zeros;
    }
    for (int j = 0; j < 6; j++) {
        lc_v d[6], c[6];
        const bool in = iw + j >= 0 && iw + j < r->w;
        WINO_UNROLL
        for (int i = 0; i < 6; i++)
            d[i] = in ? lc_v_loadu(row[i] + j * LC_VLEN) : lc_v_zero();
        wino_input6(d, c);
        WINO_UNROLL
        for (int i = 0; i < 6; i++)
            t[i][j] = c[i];
    }
    for (int i = 0; i < 6; i++) {
        lc_v c[6];
        wino_input6(t[i], c);
        WINO_UNROLL
        for (int j = 0; j < 6; j++)
            lc_v_storeu(v + j * r->v_pos, c[j]);
        v += 6 * r->v_pos;
    }
}

static void wino_input(const lc_winograd_run *r)
{
    for (int64_t b = 0; b < r->blocks; b++) {
        int64_t tw = r->tile % r->tile_columns, th = r->tile / r->tile_columns;
        for (int64_t i = 0; i < r->tiles; i++) {
            wino_input_tile(r, r->x + b * r->x_blk, th * LC_WINOGRAD_TILE - r->pad[0],
                            tw * LC_WINOGRAD_TILE - r->pad[1], r->v + b * r->v_blk + i * LC_VLEN);
            if (++tw == r->tile_columns) {
                tw = 0;
                th++;
            }
        }
    }
}

/* `px` tiles from v and m on, `blocks` input blocks. `next`: weights that will be wanted soon. */
WINO_INLINE void wino_multiply_px(const int px, const float *v, int64_t v_blk, const float *u,
                                  int64_t blocks, float *m, bool first, const float *next)
{
    lc_v acc[WINO_PX][2];
    WINO_UNROLL
    for (int i = 0; i < px; i++)
        acc[i][0] = acc[i][1] = lc_v_zero();
    for (int64_t b = 0; b < blocks; b++, v += v_blk) {
        for (int c = 0; c < LC_VLEN; c += 4) {
            if (next) {
                WINO_UNROLL
                for (int k = 0; k < 8 * LC_VLEN; k += 16)
                    __builtin_prefetch(next + k, 0, 2);
                next += 8 * LC_VLEN;
            }
            WINO_UNROLL
            for (int k = 0; k < 4; k++) {
                lc_v w0 = lc_v_loadu(u + k * 2 * LC_VLEN);
                lc_v w1 = lc_v_loadu(u + (k * 2 + 1) * LC_VLEN);
                WINO_UNROLL
                for (int i = 0; i < px; i++)
                    lc_v_fma_pair(&acc[i][0], &acc[i][1], v + c + i * LC_VLEN + k, w0, w1);
            }
            u += 8 * LC_VLEN;
        }
    }
    if (!first) {
        WINO_UNROLL
        for (int i = 0; i < 2 * px; i++)
            acc[i / 2][i % 2] = lc_v_add(lc_v_loadu(m + i * LC_VLEN), acc[i / 2][i % 2]);
    }
    WINO_UNROLL
    for (int i = 0; i < 2 * px; i++)
        lc_v_storeu(m + i * LC_VLEN, acc[i / 2][i % 2]);
}

typedef void (*wino_multiply_fn)(const float *v, int64_t v_blk, const float *u, int64_t blocks,
                                 float *m, bool first, const float *next);

#define WINO_MULTIPLY(PX)                                                                          \
    WINO_NOINLINE void wino_multiply_##PX(const float *v, int64_t v_blk, const float *u,           \
                                          int64_t blocks, float *m, bool first, const float *next) \
    {                                                                                              \
        wino_multiply_px(PX, v, v_blk, u, blocks, m, first, next);                                 \
    }

WINO_MULTIPLY(1)
WINO_MULTIPLY(2)
WINO_MULTIPLY(3)
WINO_MULTIPLY(4)
WINO_MULTIPLY(5)
WINO_MULTIPLY(6)
#if WINO_PX > 6
WINO_MULTIPLY(7)
WINO_MULTIPLY(8)
WINO_MULTIPLY(9)
WINO_MULTIPLY(10)
WINO_MULTIPLY(11)
WINO_MULTIPLY(12)
WINO_MULTIPLY(13)
WINO_MULTIPLY(14)
#endif

static const wino_multiply_fn wino_multiply_by_px[WINO_PX + 1] = {
    0,
    wino_multiply_1,
    wino_multiply_2,
    wino_multiply_3,
    wino_multiply_4,
    wino_multiply_5,
    wino_multiply_6,
#if WINO_PX > 6
    wino_multiply_7,
    wino_multiply_8,
    wino_multiply_9,
    wino_multiply_10,
    wino_multiply_11,
    wino_multiply_12,
    wino_multiply_13,
    wino_multiply_14,
#endif
};

static void wino_multiply(const lc_winograd_run *r)
{
    const int64_t parts = (r->tiles + WINO_PX - 1) / WINO_PX;
    const int64_t each = r->tiles / parts, longer = r->tiles % parts;
    const int64_t most = LC_WINOGRAD_CHUNK / LC_VLEN, row = 2 * LC_VLEN * LC_VLEN;
    for (int pos = 0; pos < LC_WINOGRAD_POSITIONS; pos++)
        for (int64_t b = 0; b < r->blocks; b += most) {
            const int64_t blocks = r->blocks - b < most ? r->blocks - b : most;
            const float *v = r->v + pos * r->v_pos + b * r->v_blk;
            const float *u = r->u + (pos * r->blocks + b) * row;
            const float *next = u + blocks * row;
            float *m = r->m + pos * r->m_pos;
            for (int64_t i = 0; i < parts; i++, next = 0) {
                const int64_t px = each + (i < longer);
                wino_multiply_by_px[px](v, r->v_blk, u, blocks, m, b == 0, next);
                v += px * LC_VLEN;
                m += px * 2 * LC_VLEN;
            }
        }
}

/* One vector of output channels of one tile, of which `rows` x `columns` outputs exist. */
WINO_INLINE void wino_output_tile(const lc_winograd_run *r, const float *m, int64_t at,
                                  int64_t rows, int64_t columns, lc_v bias, bool tail, lc_vm valid)
{
    lc_v t[4][6];
    for (int j = 0; j < 6; j++) {
        lc_v d[6], c[4];
        WINO_UNROLL
        for (int i = 0; i < 6; i++)
            d[i] = lc_v_loadu(m + (i * 6 + j) * r->m_pos);
        wino_output4(d, c);
        WINO_UNROLL
        for (int i = 0; i < 4; i++)
            t[i][j] = c[i];
    }
    for (int64_t i = 0; i < rows; i++, at += r->y_row) {
        lc_v c[4];
        wino_output4(t[i], c);
        WINO_UNROLL
        for (int j = 0; j < 4; j++) {
            const int64_t to = at + j * LC_VLEN;
            if (j >= columns)
                break;
            lc_v s = lc_v_add(c[j], bias);
            if (r->add)
                s = lc_v_add(s, lc_v_loadu(r->add + to));
            if (r->relu)
                s = lc_v_relu(s);
            if (tail)
                s = lc_v_select(valid, s, lc_v_zero());
            lc_v_storeu(r->y + to, s);
        }
    }
}

static void wino_output(const lc_winograd_run *r)
{
    for (int v = 0; v < r->nv; v++) {
        const lc_v bias = lc_v_loadu(r->bias + v * LC_VLEN);
        const bool tail = r->lanes[v] < LC_VLEN;
        const lc_vm valid = lc_v_first(r->lanes[v]);
        int64_t tw = r->tile % r->tile_columns, th = r->tile / r->tile_columns;
        for (int64_t i = 0; i < r->tiles; i++) {
            const int64_t oh = th * LC_WINOGRAD_TILE, ow = tw * LC_WINOGRAD_TILE;
            const int64_t rows = r->oh - oh, columns = r->ow - ow;
            wino_output_tile(r, r->m + (i * 2 + v) * LC_VLEN,
                             v * r->y_vec + oh * r->y_row + ow * LC_VLEN, rows < 4 ? rows : 4,
                             columns < 4 ? columns : 4, bias, tail, valid);
            if (++tw == r->tile_columns) {
                tw = 0;
                th++;
            }
        }
    }
}

#endif
