/* The weight gradient's kernels, written once over the interface of base/simd_<isa>.h. The
 * including file gives WGRAD_IC (channels that meet a panel of two or three vectors at a time),
 * WGRAD_IC1 (for panels of one) and wgrad_spread. */
#ifndef LC_KERNELS_CONV_WGRAD_BODY_H
#define LC_KERNELS_CONV_WGRAD_BODY_H

#include <stdbool.h>

#define WGRAD_INLINE static inline __attribute__((always_inline))
#define WGRAD_NOINLINE static __attribute__((noinline))
#define WGRAD_UNROLL _Pragma("GCC unroll 16")

typedef lc_v wgrad_sums[WGRAD_IC1 > WGRAD_IC ? WGRAD_IC1 : WGRAD_IC][LC_WGRAD_MAX_NV];

/* A part of a band in which all taps lie inside. */
typedef struct wgrad_part {
    const float *x, *dy; /* of the first pixel */
    int64_t rows, columns;
    float *sums;
    /* what to fetch meanwhile */
    const float *next;
    int64_t next_floats, next_image, next_images;
    bool first; /* see wgrad_add */
} wgrad_part;

/* What the i-th part of a call fetches. */
WGRAD_INLINE void wgrad_fetch(const lc_wgrad_next *next, int i, wgrad_part *p)
{
    p->next_images = 0;
    if (i < LC_WGRAD_NEXT) {
        p->next = next->row[i];
        p->next_floats = next->floats[i];
        p->next_image = next->image[i];
        p->next_images = next->images;
    }
}

/* One k-step: acc[i][v] += x[i] * d[v]. */
WGRAD_INLINE void wgrad_step(const int ni, const int nv, const float *x, const float *dy,
                             int64_t vec, wgrad_sums acc)
{
    lc_v d[LC_WGRAD_MAX_NV];
    WGRAD_UNROLL
    for (int v = 0; v < nv; v++)
        d[v] = lc_v_loadu(dy + v * vec);
    WGRAD_UNROLL
    for (int i = 0; i < ni; i++) {
        if (nv == 3)
            lc_v_fma_triple(&acc[i][0], &acc[i][1], &acc[i][2], x + i, d[0], d[1], d[2]);
        else if (nv == 2)
            lc_v_fma_pair(&acc[i][0], &acc[i][1], x + i, d[0], d[1]);
        else
            lc_v_fma_one(&acc[i][0], x + i, d[0]);
    }
}

WGRAD_INLINE void wgrad_zero(const int ni, const int nv, wgrad_sums acc)
{
    WGRAD_UNROLL
    for (int i = 0; i < ni; i++) {
        WGRAD_UNROLL
        for (int v = 0; v < nv; v++)
            acc[i][v] = lc_v_zero();
    }
}

/* first: the sums are written, not added to. */
WGRAD_INLINE void wgrad_add(const int ni, const int nv, float *to, const bool first, wgrad_sums acc)
{
    WGRAD_UNROLL
    for (int i = 0; i < ni; i++) {
        WGRAD_UNROLL
        for (int v = 0; v < nv; v++, to += LC_VLEN)
            lc_v_storeu(to, first ? acc[i][v] : lc_v_add(lc_v_loadu(to), acc[i][v]));
    }
}

/* The k-steps of one run of neighbouring pixels; fetches the two lines after *next for each pair of
 * them, up to `end`. */
WGRAD_INLINE void wgrad_run(const int ni, const int nv, const float *x, int64_t pix,
                            const float *dy, int64_t vec, int64_t pixels, const float **next,
                            const float *end, wgrad_sums acc)
{
    for (; pixels >= 2 && end - *next >= 32; pixels -= 2, x += 2 * pix, dy += 2 * LC_VLEN) {
        __builtin_prefetch(*next, 0, 2);
        __builtin_prefetch(*next + 16, 0, 2);
        *next += 32;
        wgrad_step(ni, nv, x, dy, vec, acc);
        wgrad_step(ni, nv, x + pix, dy + LC_VLEN, vec, acc);
    }
    for (; pixels >= 2; pixels -= 2, x += 2 * pix, dy += 2 * LC_VLEN) {
        wgrad_step(ni, nv, x, dy, vec, acc);
        wgrad_step(ni, nv, x + pix, dy + LC_VLEN, vec, acc);
    }
    if (pixels > 0)
        wgrad_step(ni, nv, x, dy, vec, acc);
}

WGRAD_INLINE void wgrad_dense_part(const int ni, const int nv, const lc_wgrad_run *r,
                                   const wgrad_part *p)
{
    wgrad_sums acc;
    wgrad_zero(ni, nv, acc);
    WGRAD_UNROLL
    for (int i = 0; i < ni * nv; i += 16 / LC_VLEN)
        __builtin_prefetch(p->sums + i * LC_VLEN, 1);
    const int64_t pix = r->stride[1] * r->x_col, row = r->stride[0] * r->x_row;
    const float *xi = p->x, *di = p->dy;
    for (int64_t n = 0; n < r->images; n++, xi += r->x_image, di += r->dy_image) {
        const float *x = xi, *d = di, *next = NULL, *end = NULL;
        if (n < p->next_images) {
            next = p->next + n * p->next_image;
            end = next + p->next_floats;
        }
        for (int64_t rows = p->rows; rows > 0; rows--, x += row, d += r->dy_row)
            wgrad_run(ni, nv, x, pix, d, r->dy_vec, p->columns, &next, end, acc);
    }
    if (p->first)
        wgrad_add(ni, nv, p->sums, true, acc);
    else
        wgrad_add(ni, nv, p->sums, false, acc);
}

typedef void wgrad_part_fn(const lc_wgrad_run *r, const wgrad_part *p);

#define WGRAD_PART(NI, NV)                                                                         \
    WGRAD_NOINLINE void wgrad_part_##NI##_##NV(const lc_wgrad_run *r, const wgrad_part *p)         \
    {                                                                                              \
        wgrad_dense_part(NI, NV, r, p);                                                            \
    }

WGRAD_PART(1, 1)
WGRAD_PART(1, 2)
WGRAD_PART(1, 3)
WGRAD_PART(2, 1)
WGRAD_PART(2, 2)
WGRAD_PART(2, 3)
WGRAD_PART(3, 1)
WGRAD_PART(3, 2)
WGRAD_PART(3, 3)
WGRAD_PART(4, 1)
WGRAD_PART(4, 2)
WGRAD_PART(4, 3)
WGRAD_PART(8, 1)
#if WGRAD_IC == 8
WGRAD_PART(8, 2)
WGRAD_PART(8, 3)
WGRAD_PART(16, 1)
#endif

/* At most `left` channels with `nv` vectors: how many, and by which function. */
WGRAD_INLINE int wgrad_choose(int64_t left, int nv, wgrad_part_fn **fn)
{
    static wgrad_part_fn *const small[4][LC_WGRAD_MAX_NV] = {
        {wgrad_part_1_1, wgrad_part_1_2, wgrad_part_1_3},
        {wgrad_part_2_1, wgrad_part_2_2, wgrad_part_2_3},
        {wgrad_part_3_1, wgrad_part_3_2, wgrad_part_3_3},
        {wgrad_part_4_1, wgrad_part_4_2, wgrad_part_4_3},
    };
#if WGRAD_IC == 8
    if (left >= 16 && nv == 1) {
        *fn = wgrad_part_16_1;
        return 16;
    }
    static wgrad_part_fn *const eight[LC_WGRAD_MAX_NV] = {wgrad_part_8_1, wgrad_part_8_2,
                                                          wgrad_part_8_3};
    if (left >= 8) {
        *fn = eight[nv - 1];
        return 8;
    }
#else
    if (left >= 8 && nv == 1) {
        *fn = wgrad_part_8_1;
        return 8;
    }
#endif
    const int ni = left < 4 ? (int)left : 4;
    *fn = small[ni - 1][nv - 1];
    return ni;
}

static void wgrad_dense(const lc_wgrad_run *r)
{
    int parts = 0;
    for (int64_t kh = 0; kh < r->kh; kh++) {
        const int64_t ah = kh * r->dilation[0] - r->pad[0];
        int64_t oh0 = r->oh0, oh1 = r->oh1;
        lc_wgrad_inside(r->h, r->stride[0], ah, &oh0, &oh1);
        for (int64_t kw = 0; kw < r->kw; kw++) {
            const int64_t aw = kw * r->dilation[1] - r->pad[1];
            int64_t ow0 = r->ow0, ow1 = r->ow1;
            lc_wgrad_inside(r->w, r->stride[1], aw, &ow0, &ow1);
            if (oh0 == oh1 || ow0 == ow1)
                continue;
            wgrad_part p = {
                .x = r->x + (oh0 * r->stride[0] + ah) * r->x_row +
                     (ow0 * r->stride[1] + aw) * r->x_col,
                .dy = r->dy + oh0 * r->dy_row + ow0 * LC_VLEN,
                .rows = oh1 - oh0,
                .columns = ow1 - ow0,
                .sums = r->sums + (kh * r->kw + kw) * r->cb * r->nv * LC_VLEN,
            };
            for (int64_t c = 0; c < r->cb;) {
                wgrad_part_fn *fn;
                const int ni = wgrad_choose(r->cb - c, r->nv, &fn);
                wgrad_fetch(&r->next, parts++, &p);
                fn(r, &p);
                c += ni;
                p.x += ni;
                p.sums += ni * r->nv * LC_VLEN;
            }
        }
    }
}

/* --- groups that share a block. Channel c of each group, spread over the lanes of its group, meets
 * dy; up to four channels and three taps of a row of the kernel at a time. */

#define WGRAD_TAPS 3

typedef lc_v wgrad_lane_sums[4][WGRAD_TAPS];

WGRAD_INLINE void wgrad_lanes_add(const int nc, const int taps, float *to, int64_t tap,
                                  wgrad_lane_sums acc)
{
    WGRAD_UNROLL
    for (int k = 0; k < taps; k++) {
        WGRAD_UNROLL
        for (int c = 0; c < nc; c++) {
            float *s = to + k * tap + c * LC_VLEN;
            lc_v_storeu(s, lc_v_add(lc_v_loadu(s), acc[c][k]));
        }
    }
}

/* Channel c + i of each group, spread over the lanes of its group. `full`: the group is the block.
 */
WGRAD_INLINE lc_v wgrad_copy(const int nc, const bool full, const float *x, int64_t c, const int i,
                             const lc_vi *lanes)
{
    return full ? lc_v_broadcast(x + c + i) : wgrad_spread(x, nc, i, lanes[i]);
}

/* The lanes that those copies take. */
WGRAD_INLINE void wgrad_find_lanes(const int nc, int64_t group, int64_t c, lc_vi *lanes)
{
    int32_t at[LC_VLEN];
    for (int i = 0; i < nc; i++) {
        for (int l = 0; l < LC_VLEN; l++)
            at[l] = (int32_t)((l & ~(group - 1)) + c + i);
        lanes[i] = lc_vi_loadu(at);
    }
}

/* Channels c .. c + nc - 1 and `taps` taps of a row of the kernel, for columns at which all of them
 * lie inside. */
WGRAD_INLINE void wgrad_lanes_part(const int nc, const bool full, const int taps,
                                   const lc_wgrad_run *r, const wgrad_part *p, int64_t c)
{
    wgrad_lane_sums acc;
    lc_vi lanes[4];
    wgrad_find_lanes(nc, r->cb, c, lanes);
    WGRAD_UNROLL
    for (int i = 0; i < 4 * WGRAD_TAPS; i++)
        acc[i / WGRAD_TAPS][i % WGRAD_TAPS] = lc_v_zero();
    const int64_t pix = r->stride[1] * LC_VLEN, row = r->stride[0] * r->x_row;
    const int64_t move = r->dilation[1] * LC_VLEN;
    const float *xi = p->x, *di = p->dy;
    for (int64_t n = r->images; n > 0; n--, xi += r->x_image, di += r->dy_image)
        for (int64_t h = 0; h < p->rows; h++) {
            const float *x = xi + h * row, *d = di + h * r->dy_row;
            for (int64_t w = p->columns; w > 0; w--, x += pix, d += LC_VLEN) {
                const lc_v dy = lc_v_loadu(d);
                WGRAD_UNROLL
                for (int k = 0; k < taps; k++) {
                    WGRAD_UNROLL
                    for (int i = 0; i < nc; i++)
                        acc[i][k] = lc_v_fma(wgrad_copy(nc, full, x + k * move, c, i, lanes), dy,
                                             acc[i][k]);
                }
            }
        }
    wgrad_lanes_add(nc, taps, p->sums + c * LC_VLEN, r->cb * LC_VLEN, acc);
}

/* The pixel of a row of dy, or zeros outside of the band. */
WGRAD_INLINE lc_v wgrad_pixel(const lc_wgrad_run *r, const float *dy, int64_t ow)
{
    return ow >= r->ow0 && ow < r->ow1 ? lc_v_loadu(dy + ow * LC_VLEN) : lc_v_zero();
}

/* All columns of a row of a kernel 3 wide that moves by 1: a copy, once made, meets three pixels of
 * dy. p: column 0 of both. */
WGRAD_INLINE void wgrad_lanes3(const int nc, const bool full, const lc_wgrad_run *r,
                               const wgrad_part *p, int64_t c)
{
    wgrad_lane_sums acc;
    lc_vi lanes[4];
    wgrad_find_lanes(nc, r->cb, c, lanes);
    WGRAD_UNROLL
    for (int i = 0; i < 4 * WGRAD_TAPS; i++)
        acc[i / WGRAD_TAPS][i % WGRAD_TAPS] = lc_v_zero();
    /* Columns of x that meet a pixel, and the pixel that the first one meets at tap 0. */
    const int64_t from = r->ow0 > r->pad[1] ? r->ow0 - r->pad[1] : 0, first = from + r->pad[1];
    const int64_t to = r->ow1 + 2 - r->pad[1] < r->w ? r->ow1 + 2 - r->pad[1] : r->w;
    const float *xi = p->x, *di = p->dy;
    for (int64_t n = r->images; n > 0; n--, xi += r->x_image, di += r->dy_image)
        for (int64_t h = 0; h < p->rows; h++) {
            const float *x = xi + h * r->stride[0] * r->x_row + from * LC_VLEN;
            const float *d = di + h * r->dy_row, *d0 = d + first * LC_VLEN;
            lc_v d1 = wgrad_pixel(r, d, first - 1), d2 = wgrad_pixel(r, d, first - 2);
            int64_t left = to - from, whole = r->ow1 - first < left ? r->ow1 - first : left;
            for (; whole > 0; whole--, left--, x += LC_VLEN, d0 += LC_VLEN) {
                const lc_v now = lc_v_loadu(d0);
                WGRAD_UNROLL
                for (int i = 0; i < nc; i++) {
                    const lc_v t = wgrad_copy(nc, full, x, c, i, lanes);
                    acc[i][0] = lc_v_fma(t, now, acc[i][0]);
                    acc[i][1] = lc_v_fma(t, d1, acc[i][1]);
                    acc[i][2] = lc_v_fma(t, d2, acc[i][2]);
                }
                d2 = d1;
                d1 = now;
            }
            for (; left > 0; left--, x += LC_VLEN) { /* right of the last pixel */
                WGRAD_UNROLL
                for (int i = 0; i < nc; i++) {
                    const lc_v t = wgrad_copy(nc, full, x, c, i, lanes);
                    acc[i][1] = lc_v_fma(t, d1, acc[i][1]);
                    acc[i][2] = lc_v_fma(t, d2, acc[i][2]);
                }
                d2 = d1;
                d1 = lc_v_zero();
            }
        }
    wgrad_lanes_add(nc, 3, p->sums + c * LC_VLEN, r->cb * LC_VLEN, acc);
}

typedef void wgrad_lanes_fn(const lc_wgrad_run *r, const wgrad_part *p, int64_t c);

#define WGRAD_LANES(NAME, NC, FULL)                                                                \
    WGRAD_NOINLINE void wgrad_lanes_##NAME##_1(const lc_wgrad_run *r, const wgrad_part *p,         \
                                               int64_t c)                                          \
    {                                                                                              \
        wgrad_lanes_part(NC, FULL, 1, r, p, c);                                                    \
    }                                                                                              \
    WGRAD_NOINLINE void wgrad_lanes_##NAME##_2(const lc_wgrad_run *r, const wgrad_part *p,         \
                                               int64_t c)                                          \
    {                                                                                              \
        wgrad_lanes_part(NC, FULL, 2, r, p, c);                                                    \
    }                                                                                              \
    WGRAD_NOINLINE void wgrad_lanes_##NAME##_3(const lc_wgrad_run *r, const wgrad_part *p,         \
                                               int64_t c)                                          \
    {                                                                                              \
        wgrad_lanes_part(NC, FULL, 3, r, p, c);                                                    \
    }                                                                                              \
    WGRAD_NOINLINE void wgrad_lanes_##NAME##_row(const lc_wgrad_run *r, const wgrad_part *p,       \
                                                 int64_t c)                                        \
    {                                                                                              \
        wgrad_lanes3(NC, FULL, r, p, c);                                                           \
    }                                                                                              \
    static wgrad_lanes_fn *const wgrad_lanes_##NAME[4] = {                                         \
        wgrad_lanes_##NAME##_row, wgrad_lanes_##NAME##_1, wgrad_lanes_##NAME##_2,                  \
        wgrad_lanes_##NAME##_3};

WGRAD_LANES(one, 1, false)
WGRAD_LANES(two, 2, false)
WGRAD_LANES(four, 4, false)
WGRAD_LANES(full, 4, true)

WGRAD_INLINE void wgrad_lanes_call(const lc_wgrad_run *r, wgrad_lanes_fn *fn, const wgrad_part *p)
{
    const int64_t nc = r->cb < 4 ? r->cb : 4;
    for (int64_t c = 0; c < r->cb; c += nc)
        fn(r, p, c);
}

/* Columns [from, to) of dy, all inside for the taps kw .. kw + taps - 1. */
WGRAD_INLINE void wgrad_lanes_columns(const lc_wgrad_run *r, wgrad_lanes_fn *const *fns,
                                      wgrad_part p, int64_t kw, int64_t taps, int64_t from,
                                      int64_t to)
{
    if (from >= to)
        return;
    p.x += (from * r->stride[1] + kw * r->dilation[1] - r->pad[1]) * LC_VLEN;
    p.dy += from * LC_VLEN;
    p.columns = to - from;
    p.sums += kw * r->cb * LC_VLEN;
    wgrad_lanes_call(r, fns[taps], &p);
}

static void wgrad_lanes(const lc_wgrad_run *r)
{
    wgrad_lanes_fn *const *fns = r->cb == LC_VLEN ? wgrad_lanes_full
                                 : r->cb == 1     ? wgrad_lanes_one
                                 : r->cb == 2     ? wgrad_lanes_two
                                                  : wgrad_lanes_four;
    for (int64_t kh = 0; kh < r->kh; kh++) {
        const int64_t ah = kh * r->dilation[0] - r->pad[0];
        int64_t oh0 = r->oh0, oh1 = r->oh1;
        lc_wgrad_inside(r->h, r->stride[0], ah, &oh0, &oh1);
        if (oh0 == oh1)
            continue;
        wgrad_part p = {.x = r->x + (oh0 * r->stride[0] + ah) * r->x_row,
                        .dy = r->dy + oh0 * r->dy_row,
                        .rows = oh1 - oh0,
                        .sums = r->sums + kh * r->kw * r->cb * LC_VLEN};
        if (r->kw == 3 && r->stride[1] == 1 && r->dilation[1] == 1) {
            wgrad_lanes_call(r, fns[0], &p);
            continue;
        }
        for (int64_t kw = 0; kw < r->kw; kw += WGRAD_TAPS) {
            const int64_t taps = r->kw - kw < WGRAD_TAPS ? r->kw - kw : WGRAD_TAPS;
            int64_t from[WGRAD_TAPS], to[WGRAD_TAPS], first = r->ow0, last = r->ow1;
            for (int64_t k = 0; k < taps; k++) {
                const int64_t aw = (kw + k) * r->dilation[1] - r->pad[1];
                from[k] = r->ow0;
                to[k] = r->ow1;
                lc_wgrad_inside(r->w, r->stride[1], aw, &from[k], &to[k]);
                lc_wgrad_inside(r->w, r->stride[1], aw, &first, &last);
            }
            wgrad_lanes_columns(r, fns, p, kw, taps, first, last);
            for (int64_t k = 0; k < taps; k++) { /* what only some taps reach */
                const int64_t middle = first < last ? first : to[k];
                wgrad_lanes_columns(r, fns, p, kw + k, 1, from[k], middle);
                if (first < last)
                    wgrad_lanes_columns(r, fns, p, kw + k, 1, last, to[k]);
            }
        }
    }
}

#endif
