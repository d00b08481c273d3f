/* The Winograd kernels, written once over the interface of base/simd_<isa>.h. The including file
 * gives WINO_PX (tiles per register block) and the fill function. */
#ifndef LC_KERNELS_WINOGRAD_BODY_H
#define LC_KERNELS_WINOGRAD_BODY_H

#include <stdbool.h>
#include <string.h>

#define WINO_INLINE static inline __attribute__((always_inline))
#define WINO_NOINLINE static __attribute__((noinline))
#define WINO_UNROLL _Pragma("GCC unroll 16")

static const float wino_zeros[9 * LC_VLEN];
_Static_assert(9 * LC_VLEN >= 13, "a row of pixels of the 7x7 form");

/* t = B^T d, for tiles of 2x2, of 4x4, and of 4x4 with stride 2: there the even ones of nine inputs
 * are transformed, then the odd ones. */
WINO_INLINE void wino_input4(const lc_v *d, lc_v *t)
{
    t[0] = lc_v_sub(d[0], d[2]);
    t[1] = lc_v_add(d[1], d[2]);
    t[2] = lc_v_sub(d[2], d[1]);
    t[3] = lc_v_sub(d[3], d[1]);
}

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

WINO_INLINE void wino_input_even(lc_v a, lc_v b, lc_v c, lc_v d, lc_v e, lc_v *t)
{
    const lc_v half = lc_v_set1(0.5f), more = lc_v_set1(1.5f), two = lc_v_set1(2.0f);
    t[0] = lc_v_fnma(more, lc_v_add(b, c), lc_v_add(a, d));
    t[1] = lc_v_fnma(lc_v_set1(2.5f), c, lc_v_add(b, d));
    t[2] = lc_v_fnma(two, b, lc_v_sub(d, c));
    t[3] = lc_v_fma(half, lc_v_sub(c, b), d);
    t[4] = lc_v_fnma(more, lc_v_add(c, d), lc_v_add(b, e));
}

WINO_INLINE void wino_input9(const lc_v *d, lc_v *t)
{
    wino_input_even(d[0], d[2], d[4], d[6], d[8], t);
    WINO_UNROLL
    for (int i = 0; i < 4; i++)
        t[5 + i] = d[2 * i + 1];
}

/* The other way: five inputs. */
WINO_INLINE void wino_input_up(const lc_v *d, lc_v *t)
{
    wino_input_even(d[0], d[1], d[2], d[3], d[4], t);
    WINO_UNROLL
    for (int i = 0; i < 4; i++)
        t[5 + i] = d[i];
}

WINO_INLINE void wino_input7(const lc_v *d, lc_v *t)
{
    const lc_v half = lc_v_set1(0.5f), four = lc_v_set1(4.0f), five = lc_v_set1(5.0f);
    lc_v a = lc_v_fma(four, d[1], lc_v_fnma(five, d[3], d[5]));
    lc_v b = lc_v_fma(four, d[0], lc_v_fnma(five, d[2], d[4]));
    lc_v c = lc_v_fma(four, d[2], lc_v_fnma(five, d[4], d[6]));
    lc_v p = lc_v_fnma(four, d[1], d[3]), q = lc_v_fnma(four, d[2], d[4]);
    lc_v r = lc_v_fnma(four, d[3], d[5]), s = lc_v_sub(d[4], d[2]);
    lc_v u = lc_v_sub(d[3], d[1]), v = lc_v_sub(d[5], d[3]);
    t[0] = lc_v_fnma(half, b, a);
    t[1] = lc_v_fma(half, q, lc_v_fnma(half, p, r));
    t[2] = lc_v_fnma(lc_v_set1(1.5f), q, lc_v_fma(half, p, r));
    t[3] = lc_v_fma(lc_v_set1(1.5f), s, lc_v_sub(v, u));
    t[4] = lc_v_fnma(lc_v_set1(2.5f), s, lc_v_add(v, u));
    t[5] = a;
    t[6] = lc_v_fnma(half, a, c);
}

/* y = A^T m */
WINO_INLINE void wino_output2(const lc_v *m, lc_v *y)
{
    y[0] = lc_v_add(m[0], lc_v_add(m[1], m[2]));
    y[1] = lc_v_add(m[3], lc_v_sub(m[1], m[2]));
}

WINO_INLINE void wino_output4(const lc_v *m, lc_v *y)
{
    lc_v s = lc_v_add(m[1], m[2]), d = lc_v_sub(m[1], m[2]);
    y[0] = lc_v_add(lc_v_add(m[0], s), lc_v_add(m[3], m[4]));
    y[1] = lc_v_fnma(lc_v_set1(2.0f), m[4], lc_v_fma(lc_v_set1(0.5f), m[3], d));
    y[2] = lc_v_fma(lc_v_set1(4.0f), m[4], lc_v_fma(lc_v_set1(0.25f), m[3], s));
    y[3] = lc_v_fnma(lc_v_set1(8.0f), m[4], lc_v_fma(lc_v_set1(0.125f), m[3], lc_v_add(d, m[5])));
}

/* With the factors that the weights lack. */
WINO_INLINE void wino_output4_late(const lc_v *m, lc_v *y)
{
    const lc_v third = lc_v_set1(1.0f / 3);
    lc_v s = lc_v_add(m[1], m[2]), d = lc_v_sub(m[1], m[2]);
    y[0] = lc_v_fma(lc_v_set1(-4.0f / 15), m[3], lc_v_fma(third, s, m[0]));
    y[1] = lc_v_fma(lc_v_set1(-2.0f / 15), m[3], lc_v_mul(third, d));
    y[2] = lc_v_fma(lc_v_set1(-1.0f / 15), m[3], lc_v_mul(third, s));
    y[3] = lc_v_fma(lc_v_set1(-0.5f / 15), m[3], lc_v_fma(third, d, m[5]));
    y[0] = lc_v_fma(lc_v_set1(1.0f / 15), m[4], y[0]);
    y[1] = lc_v_fma(lc_v_set1(-2.0f / 15), m[4], y[1]);
    y[2] = lc_v_fma(lc_v_set1(4.0f / 15), m[4], y[2]);
    y[3] = lc_v_fma(lc_v_set1(-8.0f / 15), m[4], y[3]);
}

/* What the odd inputs have given comes to the others. */
WINO_INLINE void wino_output9(const lc_v *m, lc_v *y)
{
    const lc_v two = lc_v_set1(2.0f);
    y[0] = lc_v_add(m[5], lc_v_add(lc_v_add(m[0], m[1]), lc_v_add(m[2], m[3])));
    y[1] = lc_v_fma(two, m[3], lc_v_fma(lc_v_set1(0.5f), m[2], lc_v_sub(m[6], m[1])));
    y[2] = lc_v_fma(lc_v_set1(4.0f), m[3], lc_v_fma(lc_v_set1(0.25f), m[2], lc_v_add(m[7], m[1])));
    y[3] = lc_v_fma(lc_v_set1(8.0f), m[3],
                    lc_v_fma(lc_v_set1(0.125f), m[2], lc_v_add(lc_v_sub(m[8], m[1]), m[4])));
}

/* Even outputs as they are. */
WINO_INLINE void wino_output_up(const lc_v *m, lc_v *y)
{
    const lc_v two = lc_v_set1(2.0f);
    y[1] = lc_v_add(lc_v_add(m[0], m[1]), lc_v_add(m[2], m[3]));
    y[3] = lc_v_fma(two, m[3], lc_v_fma(lc_v_set1(0.5f), m[2], lc_v_sub(lc_v_zero(), m[1])));
    y[5] = lc_v_fma(lc_v_set1(4.0f), m[3], lc_v_fma(lc_v_set1(0.25f), m[2], m[1]));
    y[7] = lc_v_fma(lc_v_set1(8.0f), m[3], lc_v_fma(lc_v_set1(0.125f), m[2], lc_v_sub(m[4], m[1])));
    WINO_UNROLL
    for (int i = 0; i < 4; i++)
        y[2 * i] = m[5 + i];
}

WINO_INLINE void wino_output7(const lc_v *m, lc_v *y)
{
    lc_v s = lc_v_add(m[1], m[2]), d = lc_v_sub(m[1], m[2]);
    lc_v s2 = lc_v_add(m[3], m[4]), d2 = lc_v_sub(m[3], m[4]);
    y[0] = lc_v_add(lc_v_add(m[0], s), lc_v_add(s2, m[5]));
    y[1] = lc_v_fma(lc_v_set1(0.5f), m[5], lc_v_fma(lc_v_set1(2.0f), d2, d));
    y[2] = lc_v_fma(lc_v_set1(0.25f), m[5], lc_v_fma(lc_v_set1(4.0f), s2, s));
    y[3] = lc_v_fma(lc_v_set1(0.125f), m[5], lc_v_fma(lc_v_set1(8.0f), d2, lc_v_add(d, m[6])));
}

/* Numbers of a tile of inputs along an axis, and of outputs. */
WINO_INLINE int wino_reads(const lc_winograd_kind kind)
{
    return kind == LC_WINOGRAD_3X3_UP ? 5 : lc_winograd_side(kind);
}

WINO_INLINE int wino_outputs(const lc_winograd_kind kind)
{
    return kind == LC_WINOGRAD_3X3_2X2 ? 2 : kind == LC_WINOGRAD_3X3_UP ? 8 : 4;
}

/* Of lc_winograd_place, of a tile that is not short. */
WINO_INLINE int wino_rows(const lc_winograd_kind kind)
{
    return kind == LC_WINOGRAD_3X3_UP ? 4 : wino_outputs(kind);
}

WINO_INLINE void wino_input_axis(const lc_winograd_kind kind, const lc_v *d, lc_v *t)
{
    if (kind == LC_WINOGRAD_3X3_2X2)
        wino_input4(d, t);
    else if (kind == LC_WINOGRAD_3X3_S2)
        wino_input9(d, t);
    else if (kind == LC_WINOGRAD_3X3_UP)
        wino_input_up(d, t);
    else if (kind == LC_WINOGRAD_7X7_S2)
        wino_input7(d, t);
    else
        wino_input6(d, t);
}

WINO_INLINE void wino_output_axis(const lc_winograd_kind kind, const lc_v *m, lc_v *y)
{
    if (kind == LC_WINOGRAD_3X3_2X2)
        wino_output2(m, y);
    else if (kind == LC_WINOGRAD_3X3_S2)
        wino_output9(m, y);
    else if (kind == LC_WINOGRAD_3X3_UP)
        wino_output_up(m, y);
    else if (kind == LC_WINOGRAD_7X7_S2)
        wino_output7(m, y);
    else if (kind == LC_WINOGRAD_3X3_LATE)
        wino_output4_late(m, y);
    else
        wino_output4(m, y);
}

/* Does the last output along an axis alone take number i? */
WINO_INLINE bool wino_last(const lc_winograd_kind kind, int i)
{
    return i == lc_winograd_side(kind) - 1 || (lc_winograd_side(kind) == 9 && i == 4);
}

/* The tile whose first input is at row `ih`, column `iw` of the plane x; both may lie outside. Rows
 * outside are read from an array of zeros, columns outside need no transform. */
WINO_INLINE void wino_input_tile(const lc_winograd_kind kind, const lc_winograd_run *r,
                                 const float *x, int64_t ih, int64_t iw, bool short_rows,
                                 bool short_columns, float *v)
{
    const int side = lc_winograd_side(kind), reads = wino_reads(kind);
    lc_v t[9][9];
    const float *row[9];
    WINO_UNROLL
    for (int i = 0; i < reads; i++) {
        const bool in = ih + i >= 0 && ih + i < r->h;
        /* only its columns inside are read */
        row[i] = in ? x + (ih + i) * r->x_row + iw * LC_VLEN : wino_zeros;
    }
    for (int j = 0; j < reads; j++) {
        lc_v d[9], c[9];
        const bool in = iw + j >= 0 && iw + j < r->w;
        WINO_UNROLL
        for (int i = 0; i < reads; i++)
            d[i] = in ? lc_v_loadu(row[i] + j * LC_VLEN) : lc_v_zero();
        wino_input_axis(kind, d, c);
        WINO_UNROLL
        for (int i = 0; i < side; i++)
            t[i][j] = c[i];
    }
    for (int i = 0; i < side; i++) {
        lc_v c[9];
        if (short_rows && wino_last(kind, i))
            continue;
        wino_input_axis(kind, t[i], c);
        WINO_UNROLL
        for (int j = 0; j < side; j++)
            if (!wino_last(kind, j) || !short_columns)
                lc_v_storeu(v + lc_winograd_position(kind, i, j) * r->v_pos, c[j]);
    }
}

/* All tiles of all blocks. */
WINO_INLINE void wino_input_tiles(const lc_winograd_kind kind, const lc_winograd_run *r)
{
    const int stride = kind == LC_WINOGRAD_3X3_S2 ? 2 : 1;
    for (int64_t b = 0; b < r->blocks; b++) {
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            wino_input_tile(kind, r, r->x + at->n * r->x_image + b * r->x_blk,
                            at->oh * stride - r->pad[0], at->ow * stride - r->pad[1],
                            at->rows < wino_rows(kind), at->columns < wino_rows(kind),
                            r->v + b * r->v_blk + i * LC_VLEN);
        }
    }
}

static void wino_input(const lc_winograd_run *r)
{
    wino_input_tiles(LC_WINOGRAD_3X3, r);
}

static void wino_input_2x2(const lc_winograd_run *r)
{
    wino_input_tiles(LC_WINOGRAD_3X3_2X2, r);
}

static void wino_input_s2(const lc_winograd_run *r)
{
    wino_input_tiles(LC_WINOGRAD_3X3_S2, r);
}

static void wino_input_3x3_up(const lc_winograd_run *r)
{
    wino_input_tiles(LC_WINOGRAD_3X3_UP, r);
}

/* --- 7x7, stride 2 */

#define WINO_FOLD 7 /* pairs of rows, of columns, that a tile reads; of the last ones the first */
#define WINO_FOLD_PLANE (WINO_FOLD * WINO_FOLD * LC_VLEN)

/* d[block][row pair][column pair][lane]: the pixels of a tile whose first one, which may lie outside,
 * is at row `ih`, column `iw` of the planes from x on. */
WINO_INLINE void wino_fold(const lc_winograd_run *r, const float *x, int64_t channels, int64_t ih,
                           int64_t iw, float *d)
{
    const int reach = 2 * WINO_FOLD - 1;
    const bool inside = iw >= 0 && iw + reach <= r->w;
    for (int64_t c = 0; c < channels; c++, x += r->x_blk)
        for (int i = 0; i < reach; i++) {
            const bool outside = ih + i < 0 || ih + i >= r->h;
            const float *row = outside ? NULL : x + (ih + i) * r->x_row;
            const float *from = outside ? wino_zeros : inside ? row + iw : NULL;
            float line[2 * WINO_FOLD - 1];
            if (!from) {
                for (int j = 0; j < reach; j++)
                    line[j] = iw + j >= 0 && iw + j < r->w ? row[iw + j] : 0.0f;
                from = line;
            }
            float *to = d + c * 4 / LC_VLEN * WINO_FOLD_PLANE + i / 2 * WINO_FOLD * LC_VLEN +
                        c * 4 % LC_VLEN + i % 2 * 2;
            WINO_UNROLL
            for (int j = 0; j < WINO_FOLD - 1; j++)
                memcpy(to + j * LC_VLEN, from + 2 * j, 2 * sizeof(float));
            to[(WINO_FOLD - 1) * LC_VLEN] = from[reach - 1];
        }
}

static void wino_input_7x7(const lc_winograd_run *r)
{
    const int64_t channels = ((r->blocks - 1) * LC_VLEN + r->last) / 4;
    _Alignas(64) float d[LC_WINOGRAD_MAX_FOLDED / LC_VLEN * WINO_FOLD_PLANE];
    lc_winograd_run folded = *r; /* a blocked input that is one tile */
    folded.h = folded.w = WINO_FOLD;
    folded.x_row = WINO_FOLD * LC_VLEN;
    memset(d, 0, sizeof d); /* what is not a pixel stays zero */
    for (int64_t i = 0; i < r->tiles; i++) {
        const lc_winograd_place *at = &r->place[i];
        wino_fold(r, r->x + at->n * r->x_image, channels, at->oh * 2 - r->pad[0],
                  at->ow * 2 - r->pad[1], d);
        for (int64_t b = 0; b < r->blocks; b++)
            wino_input_tile(LC_WINOGRAD_7X7_S2, &folded, d + b * WINO_FOLD_PLANE, 0, 0,
                            at->rows < 4, at->columns < 4, r->v + b * r->v_blk + i * LC_VLEN);
    }
}

/* --- 1x1 */

/* a[row][column] of halves -> the left factors of the seven products */
WINO_INLINE void wino_strassen_in(lc_v a11, lc_v a12, lc_v a21, lc_v a22, lc_v *t)
{
    t[0] = a11;
    t[1] = a12;
    t[3] = a22;
    t[4] = lc_v_add(a21, a22);
    t[5] = lc_v_sub(t[4], a11);
    t[2] = lc_v_sub(a12, t[5]);
    t[6] = lc_v_sub(a11, a21);
}

/* the seven products -> c[row][column] */
WINO_INLINE void wino_strassen_out(const lc_v *p, lc_v *c11, lc_v *c12, lc_v *c21, lc_v *c22)
{
    const lc_v u2 = lc_v_add(p[0], p[5]), u3 = lc_v_add(u2, p[6]);
    *c11 = lc_v_add(p[0], p[1]);
    *c12 = lc_v_add(lc_v_add(u2, p[4]), p[2]);
    *c21 = lc_v_sub(u3, p[3]);
    *c22 = lc_v_add(u3, p[4]);
}

/* `n` pixels of a plane that follow each other, the last ones of which may not exist, and as many
 * parts of the channels. Tiles follow each other, too. */
WINO_INLINE void wino_input_parts(const int n, const lc_winograd_run *r)
{
    const int64_t part = r->blocks * r->x_blk, pixels = r->oh * r->ow;
    for (int64_t b = 0; b < r->blocks; b++) {
        float *v = r->v + b * r->v_blk;
        const lc_winograd_place *tile = r->place;
        const float *x = r->x + b * r->x_blk, *row = x + tile->n * r->x_image;
        int64_t p = tile->ow, w = p % r->ow;
        row += p / r->ow * r->stride * r->x_row;
        for (int64_t i = 0; i < r->tiles; i++, v += LC_VLEN, tile++) {
            lc_v a[4][4], t[7], s[7][4];
            if (tile->ow == 0) {
                p = w = 0;
                row = x + tile->n * r->x_image;
            }
            WINO_UNROLL
            for (int k = 0; k < n; k++, p++) {
                const float *at = row + w * r->stride * LC_VLEN;
                WINO_UNROLL
                for (int q = 0; q < n; q++)
                    a[k][q] = p < pixels ? lc_v_loadu(at + q * part) : lc_v_zero();
                if (++w == r->ow) {
                    w = 0;
                    row += r->stride * r->x_row;
                }
            }
            if (n == 2) {
                wino_strassen_in(a[0][0], a[0][1], a[1][0], a[1][1], t);
                WINO_UNROLL
                for (int k = 0; k < 7; k++)
                    lc_v_storeu(v + k * r->v_pos, t[k]);
                continue;
            }
            WINO_UNROLL
            for (int e = 0; e < 4; e++) {
                const int k = e / 2, q = e % 2;
                wino_strassen_in(a[k][q], a[k][q + 2], a[k + 2][q], a[k + 2][q + 2], t);
                WINO_UNROLL
                for (int f = 0; f < 7; f++)
                    s[f][e] = t[f];
            }
            for (int f = 0; f < 7; f++) {
                wino_strassen_in(s[f][0], s[f][1], s[f][2], s[f][3], t);
                WINO_UNROLL
                for (int k = 0; k < 7; k++)
                    lc_v_storeu(v + (f * 7 + k) * r->v_pos, t[k]);
            }
        }
    }
}

static void wino_input_1x1(const lc_winograd_run *r)
{
    wino_input_parts(2, r);
}

static void wino_input_1x1_twice(const lc_winograd_run *r)
{
    wino_input_parts(4, r);
}

WINO_INLINE void wino_store(const lc_winograd_run *r, int64_t at, lc_v s)
{
    if (r->stream)
        lc_v_stream(r->y + at, s);
    else
        lc_v_storeu(r->y + at, s);
}

/* The last store of a call has been. */
WINO_INLINE void wino_stored(const lc_winograd_run *r)
{
    if (r->stream)
        lc_v_stream_end();
}

WINO_INLINE void wino_put(const lc_winograd_run *r, int64_t at, lc_v s, lc_v bias)
{
    s = lc_v_add(s, bias);
    if (r->add)
        s = lc_v_add(s, lc_v_loadu(r->add + at));
    if (r->relu)
        s = lc_v_relu(s);
    wino_store(r, at, s);
}

WINO_INLINE void wino_output_parts(const int n, const lc_winograd_run *r)
{
    const int64_t pixels = r->oh * r->ow;
    for (int v = 0; v < r->nv; v++) {
        const float *m = r->m + v * LC_VLEN, *bias = r->bias + v * LC_VLEN;
        const lc_winograd_place *tile = r->place;
        for (int64_t i = 0; i < r->tiles; i++, m += 2 * LC_VLEN, tile++) {
            lc_v c[4][4], t[7], s[7][4];
            int64_t p = tile->ow;
            int64_t at = tile->n * r->y_image + v * r->y_vec + p * LC_VLEN;
            for (int f = 0; f < (n == 2 ? 1 : 7); f++) {
                WINO_UNROLL
                for (int k = 0; k < 7; k++)
                    t[k] = lc_v_loadu(m + (f * 7 + k) * r->m_pos);
                wino_strassen_out(t, &s[f][0], &s[f][1], &s[f][2], &s[f][3]);
            }
            WINO_UNROLL
            for (int e = 0; e < 4; e++) {
                const int k = e / 2, q = e % 2;
                if (n == 2) {
                    c[k][q] = s[0][e];
                    continue;
                }
                WINO_UNROLL
                for (int f = 0; f < 7; f++)
                    t[f] = s[f][e];
                wino_strassen_out(t, &c[k][q], &c[k][q + 2], &c[k + 2][q], &c[k + 2][q + 2]);
            }
            for (int k = 0; k < n; k++, p++, at += LC_VLEN) {
                if (p >= pixels)
                    break;
                WINO_UNROLL
                for (int q = 0; q < n; q++)
                    wino_put(r, at + q * r->y_part, c[k][q], lc_v_loadu(bias + q * r->bias_part));
            }
        }
    }
}

static void wino_output_1x1(const lc_winograd_run *r)
{
    wino_output_parts(2, r);
    wino_stored(r);
}

static void wino_output_1x1_twice(const lc_winograd_run *r)
{
    wino_output_parts(4, r);
    wino_stored(r);
}

/* `px` tiles from v and m on, `nv` vectors of the two, `blocks` input blocks, `last` channels of the
 * last one. `next`: weights that will be wanted soon, so many lines for four channels. */
WINO_INLINE void wino_multiply_px(const int px, const int nv, const float *v, int64_t v_blk,
                                  const float *u, int64_t blocks, int last, float *m, bool first,
                                  const float *next, int lines)
{
    lc_v acc[WINO_PX][2];
    WINO_UNROLL
    for (int i = 0; i < px; i++)
        acc[i][0] = acc[i][1] = lc_v_zero();
    for (int64_t b = 0; b < blocks; b++, v += v_blk) {
        const int channels = b == blocks - 1 ? last : LC_VLEN;
        for (int c = 0; c < channels; c += 4) {
            for (int k = 0; k < lines; k++, next += 16)
                __builtin_prefetch(next, 0, 2);
            WINO_UNROLL
            for (int k = 0; k < 4; k++) {
                lc_v w0 = lc_v_loadu(u + k * 2 * LC_VLEN), w1 = w0;
                if (nv == 2)
                    w1 = lc_v_loadu(u + (k * 2 + 1) * LC_VLEN);
                WINO_UNROLL
                for (int i = 0; i < px; i++) {
                    const float *x = v + c + i * LC_VLEN + k;
                    if (nv == 2)
                        lc_v_fma_pair(&acc[i][0], &acc[i][1], x, w0, w1);
                    else
                        lc_v_fma_one(&acc[i][0], x, w0);
                }
            }
            u += 8 * LC_VLEN;
        }
    }
    WINO_UNROLL
    for (int i = 0; i < px; i++, m += 2 * LC_VLEN) {
        WINO_UNROLL
        for (int k = 0; k < nv; k++) {
            if (!first)
                acc[i][k] = lc_v_add(lc_v_loadu(m + k * LC_VLEN), acc[i][k]);
            lc_v_storeu(m + k * LC_VLEN, acc[i][k]);
        }
    }
}

typedef void (*wino_multiply_fn)(const float *v, int64_t v_blk, const float *u, int64_t blocks,
                                 int last, float *m, bool first, const float *next, int lines);

#define WINO_MULTIPLY_NV(PX, NV)                                                                   \
    WINO_NOINLINE void wino_multiply_##PX##x##NV(const float *v, int64_t v_blk, const float *u,    \
                                                 int64_t blocks, int last, float *m, bool first,   \
                                                 const float *next, int lines)                     \
    {                                                                                              \
        wino_multiply_px(PX, NV, v, v_blk, u, blocks, last, m, first, next, lines);                \
    }
#define WINO_MULTIPLY(PX) WINO_MULTIPLY_NV(PX, 1) WINO_MULTIPLY_NV(PX, 2)

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

#define WINO_BOTH(PX) {wino_multiply_##PX##x1, wino_multiply_##PX##x2}
static const wino_multiply_fn wino_multiply_by_px[WINO_PX + 1][2] = {
    {0, 0},        WINO_BOTH(1),  WINO_BOTH(2),  WINO_BOTH(3),
    WINO_BOTH(4),  WINO_BOTH(5),  WINO_BOTH(6),
#if WINO_PX > 6
    WINO_BOTH(7),  WINO_BOTH(8),  WINO_BOTH(9),  WINO_BOTH(10),
    WINO_BOTH(11), WINO_BOTH(12), WINO_BOTH(13), WINO_BOTH(14),
#endif
};

/* The tiles that take part in a position; v and m: of the first of all tiles. `next`: as many weights
 * as u has; NULL: none. */
WINO_INLINE void wino_multiply_tiles(const lc_winograd_run *r, int position, const float *v,
                                     const float *u, int64_t blocks, int last, float *m, bool first,
                                     const float *next)
{
    const lc_winograd_range taking = lc_winograd_taking(r, position);
    const int64_t tiles = taking.to - taking.from;
    if (tiles == 0)
        return;
    v += taking.from * LC_VLEN;
    m += taking.from * 2 * LC_VLEN;
    const int64_t parts = (tiles + WINO_PX - 1) / WINO_PX;
    const int64_t each = tiles / parts, longer = tiles % parts;
    const int64_t all = LC_VLEN / 2, lines = (all + parts - 1) / parts; /* for four channels */
    const int64_t floats = blocks * LC_VLEN / 4 * lines * 16;
    for (int64_t i = 0; i < parts; i++) {
        const int64_t px = each + (i < longer);
        const bool more = next && i * lines < all;
        wino_multiply_by_px[px][r->nv - 1](v, r->v_blk, u, blocks, last, m, first, next,
                                           more ? (int)lines : 0);
        v += px * LC_VLEN;
        m += px * 2 * LC_VLEN;
        if (more)
            next += floats;
    }
}

static void wino_multiply(const lc_winograd_run *r)
{
    const int64_t most = LC_WINOGRAD_CHUNK / LC_VLEN, row = 2 * LC_VLEN * LC_VLEN;
    int pos = 0;
    for (int k = 0; k < r->form->weights; k++) {
        const int end = pos + (r->form->uses ? r->form->uses[k] : 1);
        for (int64_t b = 0; b < r->blocks; b += most) {
            const int64_t blocks = r->blocks - b < most ? r->blocks - b : most;
            const int last = b + blocks == r->blocks ? r->last : LC_VLEN;
            const float *u = r->u + (k * r->blocks + b) * row;
            const float *next = u + blocks * row;
            for (int j = pos; j < end; j++, next = 0)
                wino_multiply_tiles(r, j, r->v + j * r->v_pos + b * r->v_blk, u, blocks, last,
                                    r->m + j * r->m_pos, b == 0, next);
        }
        pos = end;
    }
}

#include "kernels/winograd_late_body.h"

/* `n` outputs from the rows of one tile's transformed sums, of which `columns` exist. */
WINO_INLINE void wino_output_row(const int n, const lc_winograd_run *r, const lc_v *c, int64_t at,
                                 int64_t columns, lc_v bias, bool tail, lc_vm valid)
{
    WINO_UNROLL
    for (int j = 0; j < n; j++) {
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
        wino_store(r, to, s);
    }
}

/* One vector of output channels of one tile, of which `rows` x `columns` outputs exist. */
WINO_INLINE void wino_output_tile(const lc_winograd_kind kind, const lc_winograd_run *r,
                                  const float *m, int64_t at, int64_t rows, int64_t columns,
                                  lc_v bias, bool tail, lc_vm valid)
{
    const int side = lc_winograd_side(kind), n = wino_outputs(kind);
    lc_v t[8][9];
    for (int j = 0; j < side; j++) {
        lc_v d[9], c[8];
        WINO_UNROLL
        for (int i = 0; i < side; i++)
            d[i] = lc_v_loadu(m + lc_winograd_position(kind, i, j) * r->m_pos);
        wino_output_axis(kind, d, c);
        WINO_UNROLL
        for (int i = 0; i < n; i++)
            t[i][j] = c[i];
    }
    for (int i = 0; i < rows; i++, at += r->y_row) {
        lc_v c[8];
        wino_output_axis(kind, t[i], c);
        wino_output_row(n, r, c, at, columns, bias, tail, valid);
    }
}

WINO_INLINE void wino_output_tiles(const lc_winograd_kind kind, const lc_winograd_run *r)
{
    for (int v = 0; v < r->nv; v++) {
        const lc_v bias = lc_v_loadu(r->bias + v * LC_VLEN);
        const bool tail = r->lanes[v] < LC_VLEN;
        const lc_vm valid = lc_v_first(r->lanes[v]);
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            int64_t oh = at->oh, ow = at->ow, rows = at->rows, columns = at->columns;
            if (kind == LC_WINOGRAD_3X3_UP) {
                oh *= 2;
                ow *= 2;
                rows = 2 * rows < r->y_h - oh ? 2 * rows : r->y_h - oh;
                columns = 2 * columns < r->y_w - ow ? 2 * columns : r->y_w - ow;
            }
            wino_output_tile(kind, r, r->m + (i * 2 + v) * LC_VLEN,
                             at->n * r->y_image + v * r->y_vec + oh * r->y_row + ow * LC_VLEN, rows,
                             columns, bias, tail, valid);
        }
    }
}

static void wino_output(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_3X3, r);
    wino_stored(r);
}

static void wino_output_2x2(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_3X3_2X2, r);
    wino_stored(r);
}

static void wino_output_late(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_3X3_LATE, r);
    wino_stored(r);
}

static void wino_output_s2(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_3X3_S2, r);
    wino_stored(r);
}

static void wino_output_3x3_up(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_3X3_UP, r);
    wino_stored(r);
}

static void wino_output_7x7(const lc_winograd_run *r)
{
    wino_output_tiles(LC_WINOGRAD_7X7_S2, r);
    wino_stored(r);
}

static void wino_fill(lc_winograd_kernels *k)
{
    k->input[LC_WINOGRAD_3X3] = wino_input;
    k->input[LC_WINOGRAD_3X3_LATE] = wino_input;
    k->input[LC_WINOGRAD_3X3_2X2] = wino_input_2x2;
    k->input[LC_WINOGRAD_3X3_S2] = wino_input_s2;
    k->input[LC_WINOGRAD_3X3_UP] = wino_input_3x3_up;
    k->input[LC_WINOGRAD_7X7_S2] = wino_input_7x7;
    k->input[LC_WINOGRAD_1X1] = wino_input_1x1;
    k->input[LC_WINOGRAD_1X1_TWICE] = wino_input_1x1_twice;
    for (int i = 0; i < LC_WINOGRAD_KINDS; i++)
        k->multiply[i] = wino_multiply;
    k->multiply[LC_WINOGRAD_3X3_LATE] = wino_multiply_late;
    k->output[LC_WINOGRAD_3X3] = wino_output;
    k->output[LC_WINOGRAD_3X3_LATE] = wino_output_late;
    k->output[LC_WINOGRAD_3X3_2X2] = wino_output_2x2;
    k->output[LC_WINOGRAD_3X3_S2] = wino_output_s2;
    k->output[LC_WINOGRAD_3X3_UP] = wino_output_3x3_up;
    k->output[LC_WINOGRAD_7X7_S2] = wino_output_7x7;
    k->output[LC_WINOGRAD_1X1] = wino_output_1x1;
    k->output[LC_WINOGRAD_1X1_TWICE] = wino_output_1x1_twice;
    k->tiles = WINO_PX;
}

#endif
