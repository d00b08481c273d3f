/* The direct convolution kernels, written once over the interface of base/simd_<isa>.h. The
 * including file gives CONV_PX2, CONV_PX1, CONV_PXG, CONV_PX3 (pixels per block) and
 * conv_permute and conv_permute4, and wraps conv_dense and conv_lanes in functions of its own.
 *
 * A row of output pixels is cut evenly into blocks of at most that many pixels (49 = 12 + 12 + 12 +
 * 13 rather than 14 + 14 + 14 + 7), and each count has its own copy of the loops, in which all sums
 * stay in registers. Blocks whose taps all lie inside of the input columns use one pointer and a
 * fixed stride; the others look up every pixel of every tap and read zeros outside. Either way each
 * sum sees the same operands in the same order. */
#ifndef LC_KERNELS_CONV_DIRECT_BODY_H
#define LC_KERNELS_CONV_DIRECT_BODY_H

#include <stdbool.h>

#define CONV_INLINE static inline __attribute__((always_inline))
#define CONV_NOINLINE static __attribute__((noinline))
#define CONV_UNROLL _Pragma("GCC unroll 16")

static const float conv_zeros[LC_MAX_BLOCK];

/* Where one block of pixels lies. */
typedef struct conv_spot {
    const float *x;        /* first valid row of taps, input column 0 */
    const float *w;        /* its weights */
    int64_t iw;            /* input column of the first pixel's first tap; may lie outside */
    int64_t khn;           /* valid rows of taps */
    int64_t ow;            /* output column of the first pixel */
    int64_t ow_end;        /* columns of an output row, where blocks may cross them */
    const int32_t *spread; /* small groups: see conv_lanes */
    int64_t pixel;         /* offset of the first pixel in y and add */
    const float *ahead;    /* what to prefetch meanwhile, see conv_ahead */
    int64_t ahead_lines;   /* per input block and row of taps */
} conv_spot;

#define CONV_PX_MOST (CONV_PX1 > CONV_PX2 ? CONV_PX1 : CONV_PX2) /* the others are smaller */

/* What conv_finish does, for panels with lanes that are not all there. Out of line and through
 * memory: rare, and inlined into every variant it would be most of the code. */
CONV_NOINLINE void conv_finish_tail(int64_t px, const lc_conv_run *r, const conv_spot *s,
                                    const float *sums)
{
    const bool crop = (r->flags & LC_RUN_CROP) != 0;
    for (int64_t i = 0; i < px; i++)
        for (int v = 0; v < r->nv; v++, sums += LC_VLEN) {
            const lc_vm valid = lc_v_first(r->lanes[v]);
            const int64_t at = s->pixel + i * r->y_pix + v * r->y_vec;
            float *y = r->y + at;
            lc_v t = lc_v_loadu(sums);
            if (!(r->flags & LC_RUN_FIRST))
                t = lc_v_add(crop ? lc_v_maskload(y, valid) : lc_v_loadu(y), t);
            if (r->flags & LC_RUN_LAST) {
                t = lc_v_add(t, lc_v_loadu(r->bias + v * LC_VLEN));
                if (r->add)
                    t = lc_v_add(t, crop ? lc_v_maskload(r->add + at, valid)
                                         : lc_v_loadu(r->add + at));
                if (r->flags & LC_RUN_RELU)
                    t = lc_v_relu(t);
            }
            if (crop)
                lc_v_maskstore(y, valid, t);
            else
                lc_v_storeu(y, lc_v_select(valid, t, lc_v_zero()));
        }
}

CONV_INLINE void conv_finish(const int px, const int nv, const lc_conv_run *r, const conv_spot *s,
                             lc_v acc[][LC_CONV_MAX_NV])
{
    float *y = r->y + s->pixel;
    const int64_t pix = r->y_pix, vec = r->y_vec;
    const uint32_t flags = r->flags;
    if (flags & LC_RUN_TAIL) {
        float sums[CONV_PX_MOST * LC_CONV_MAX_NV * LC_VLEN];
        CONV_UNROLL
        for (int i = 0; i < px; i++) {
            CONV_UNROLL
            for (int v = 0; v < nv; v++)
                lc_v_storeu(sums + (i * nv + v) * LC_VLEN, acc[i][v]);
        }
        conv_finish_tail(px, r, s, sums);
        return;
    }
    if (!(flags & LC_RUN_FIRST)) {
        CONV_UNROLL
        for (int i = 0; i < px; i++) {
            CONV_UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = lc_v_add(lc_v_loadu(y + i * pix + v * vec), acc[i][v]);
        }
    }
    if (flags & LC_RUN_LAST) {
        CONV_UNROLL
        for (int v = 0; v < nv; v++) {
            lc_v bias = lc_v_loadu(r->bias + v * LC_VLEN);
            CONV_UNROLL
            for (int i = 0; i < px; i++)
                acc[i][v] = lc_v_add(acc[i][v], bias);
        }
        if (r->add) {
            const float *add = r->add + s->pixel;
            CONV_UNROLL
            for (int i = 0; i < px; i++) {
                CONV_UNROLL
                for (int v = 0; v < nv; v++)
                    acc[i][v] = lc_v_add(acc[i][v], lc_v_loadu(add + i * pix + v * vec));
            }
        }
        if (flags & LC_RUN_RELU) {
            CONV_UNROLL
            for (int i = 0; i < px; i++) {
                CONV_UNROLL
                for (int v = 0; v < nv; v++)
                    acc[i][v] = lc_v_relu(acc[i][v]);
            }
        }
    }
    if (flags & LC_RUN_STREAM) {
        CONV_UNROLL
        for (int i = 0; i < px; i++) {
            CONV_UNROLL
            for (int v = 0; v < nv; v++)
                lc_v_stream(y + i * pix + v * vec, acc[i][v]);
        }
        return;
    }
    CONV_UNROLL
    for (int i = 0; i < px; i++) {
        CONV_UNROLL
        for (int v = 0; v < nv; v++)
            lc_v_storeu(y + i * pix + v * vec, acc[i][v]);
    }
}

/* One k-step: acc[i][v] += x(pixel i) * w[v]. */
#define CONV_STEP(X_OF_PIXEL, W)                                                                   \
    do {                                                                                           \
        lc_v conv_w_[LC_CONV_MAX_NV];                                                              \
        CONV_UNROLL                                                                                \
        for (int v = 0; v < nv; v++)                                                               \
            conv_w_[v] = lc_v_loadu((W) + v * LC_VLEN);                                            \
        CONV_UNROLL                                                                                \
        for (int i = 0; i < px; i++) {                                                             \
            if (nv == 2)                                                                           \
                lc_v_fma_pair(&acc[i][0], &acc[i][1], X_OF_PIXEL, conv_w_[0], conv_w_[1]);         \
            else                                                                                   \
                lc_v_fma_one(&acc[i][0], X_OF_PIXEL, conv_w_[0]);                                  \
        }                                                                                          \
    } while (0)

#define CONV_ZERO(acc)                                                                             \
    do {                                                                                           \
        CONV_UNROLL                                                                                \
        for (int i = 0; i < px; i++) {                                                             \
            CONV_UNROLL                                                                            \
            for (int v = 0; v < nv; v++)                                                           \
                (acc)[i][v] = lc_v_zero();                                                         \
        }                                                                                          \
    } while (0)

/* Keeps the compiler from knowing where a pointer comes from. Left alone, gcc keeps an address for
 * every pixel and unrolled step, most of them on the stack: 70 % rather than 78 % of the peak over
 * resnet_50. */
#define CONV_OPAQUE(p) __asm__("" : "+r"(p))

/* Pixel i from the pointer to the pixel 3 * (i / 3): two thirds of the pixels are an index register
 * away. */
#define CONV_BASES ((CONV_PX_MOST + 2) / 3)
#define CONV_PIXEL(bases, i, pix) ((bases)[(i) / 3] + (i) % 3 * (pix))

/* `steps` k-steps; x and the weights run side by side. Returns where the weights go on. */
CONV_INLINE const float *conv_steps(const int px, const int nv, const float *x, int64_t pix,
                                    const float *w, int64_t steps, lc_v acc[][LC_CONV_MAX_NV])
{
    const float *base[CONV_BASES];
    CONV_UNROLL
    for (int j = 0; j * 3 < px; j++) {
        base[j] = x + j * 3 * pix;
        CONV_OPAQUE(base[j]);
    }
    for (; steps >= 4; steps -= 4) {
        CONV_UNROLL
        for (int u = 0; u < 4; u++)
            CONV_STEP(CONV_PIXEL(base, i, pix) + u, w + u * nv * LC_VLEN);
        w += 4 * nv * LC_VLEN;
        CONV_UNROLL
        for (int j = 0; j * 3 < px; j++) {
            base[j] += 4;
            CONV_OPAQUE(base[j]);
        }
    }
    for (; steps > 0; steps--) {
        CONV_STEP(CONV_PIXEL(base, i, pix), w);
        w += nv * LC_VLEN;
        CONV_UNROLL
        for (int j = 0; j * 3 < px; j++) {
            base[j]++;
            CONV_OPAQUE(base[j]);
        }
    }
    return w;
}

/* `steps` k-steps, a multiple of 8, of pixels that lie side by side: their addresses are constants
 * away from one pointer. With an index register in half of the loads the loop reaches 89 % of the
 * peak (Zen 1), with constants 97 %. */
CONV_INLINE const float *conv_steps_unit(const int px, const int nv, const float *x, const float *w,
                                         int64_t steps, lc_v acc[][LC_CONV_MAX_NV])
{
    do {
        CONV_UNROLL
        for (int u = 0; u < 8; u++)
            CONV_STEP(x + i * LC_VLEN + u, w + u * nv * LC_VLEN);
        x += 8;
        w += 8 * nv * LC_VLEN;
        steps -= 8;
    } while (steps > 0);
    return w;
}

/* Weights that will be wanted soon, into the L2 cache. */
CONV_INLINE const float *conv_prefetch(const float *at, int64_t lines)
{
    for (; lines > 0; lines--, at += 16)
        __builtin_prefetch(at, 0, 2);
    return at;
}

/* All taps inside. Taps of a row that lie side by side in memory (dilation 1) are one run of
 * k-steps. `unit`: so do they, in whole blocks, and so do the pixels. */
CONV_INLINE void conv_inside(const int px, const int nv, const bool unit, const lc_conv_run *r,
                             const conv_spot *s)
{
    lc_v acc[CONV_PX_MOST][LC_CONV_MAX_NV];
    CONV_ZERO(acc);
    const bool merge = unit || r->kw == 1 || (r->dilation[1] == 1 && r->x_col == r->cb);
    const int64_t steps = merge ? r->kw * r->cb : r->cb, kwn = merge ? 1 : r->kw;
    const int64_t kw_move = r->dilation[1] * r->x_col, kh_move = r->dilation[0] * r->x_row;
    int64_t pix = unit ? LC_VLEN : r->stride[1] * r->x_col;
    if (!unit)
        CONV_OPAQUE(pix);
    const float *xb = s->x + s->iw * r->x_col, *wb = s->w, *ahead = s->ahead;
    for (int64_t b = r->blocks; b > 0; b--, xb += r->x_blk, wb += r->w_blk) {
        const float *w = wb, *xr = xb;
        if (r->kw == 1) { /* 32 far places per pixel are too many streams for the hardware: + 5 % */
            /* Never past the input: prefetching what is not mapped walks the page tables each time,
             * which halves the rate of a layer with an input at the end of its memory. */
            const float *next = xb + (b > 2 ? 2 : 0) * r->x_blk;
            if (r->flags & LC_RUN_FAR) {
                /* And the first blocks of the next pixels, all lines: 256 to 64 channels at 56x56, 16
                 * images, 1.26 times as fast (Zen 4); 0.99 where the input is in a cache. */
                if (b <= 2 && r->blocks > 2)
                    next = s->x + s->iw * r->x_col + px * pix + (2 - b) * r->x_blk;
                CONV_UNROLL
                for (int i = 1; i < px && LC_VLEN == 16; i += 2)
                    __builtin_prefetch(next + i * pix);
            }
            CONV_UNROLL
            for (int i = 0; i < px; i += 2)
                __builtin_prefetch(next + i * pix);
        }
        for (int64_t kh = s->khn; kh > 0; kh--, xr += kh_move) {
            const float *xt = xr;
            ahead = conv_prefetch(ahead, s->ahead_lines);
            if (unit) {
                w = conv_steps_unit(px, nv, xt, w, steps, acc);
                continue;
            }
            for (int64_t kw = kwn; kw > 0; kw--, xt += kw_move)
                w = conv_steps(px, nv, xt, pix, w, steps, acc);
        }
    }
    conv_finish(px, nv, r, s, acc);
}

/* Pixels of two or more rows, all taps inside of the memory of the input (LC_RUN_CROSS): a pointer
 * per pixel. */
CONV_INLINE void conv_cross(const int px, const int nv, const lc_conv_run *r, const conv_spot *s)
{
    lc_v acc[CONV_PX_MOST][LC_CONV_MAX_NV];
    CONV_ZERO(acc);
    int64_t at[CONV_PX_MOST], ow = s->ow, row = 0;
    for (int i = 0; i < px; i++) {
        at[i] = row + (ow * r->stride[1] - r->pad[1]) * r->x_col;
        if (++ow == s->ow_end) {
            ow = 0;
            row += r->stride[0] * r->x_row;
        }
    }
    const bool merge = r->kw == 1 || (r->dilation[1] == 1 && r->x_col == r->cb);
    const int64_t steps = merge ? r->kw * r->cb : r->cb, kwn = merge ? 1 : r->kw;
    const int64_t kw_move = r->dilation[1] * r->x_col, kh_move = r->dilation[0] * r->x_row;
    const float *xb = s->x, *wb = s->w, *ahead = s->ahead;
    for (int64_t b = r->blocks; b > 0; b--, xb += r->x_blk, wb += r->w_blk) {
        const float *w = wb, *xr = xb;
        for (int64_t kh = s->khn; kh > 0; kh--, xr += kh_move) {
            const float *xt = xr;
            ahead = conv_prefetch(ahead, s->ahead_lines);
            for (int64_t kw = kwn; kw > 0; kw--, xt += kw_move) {
                const float *x[CONV_PX_MOST];
                CONV_UNROLL
                for (int i = 0; i < px; i++) {
                    x[i] = xt + at[i];
                    CONV_OPAQUE(x[i]);
                }
                int64_t k = steps;
                for (; k >= 4; k -= 4, w += 4 * nv * LC_VLEN) {
                    CONV_UNROLL
                    for (int u = 0; u < 4; u++)
                        CONV_STEP(x[i] + u, w + u * nv * LC_VLEN);
                    CONV_UNROLL
                    for (int i = 0; i < px; i++) {
                        x[i] += 4;
                        CONV_OPAQUE(x[i]);
                    }
                }
                for (int64_t u = 0; u < k; u++, w += nv * LC_VLEN)
                    CONV_STEP(x[i] + u, w);
            }
        }
    }
    conv_finish(px, nv, r, s, acc);
}

/* Some taps outside: a pointer for every pixel and tap. Slower by a half where panels are narrow;
 * ops/conv2d.c copies padded inputs to scratch rather than use it, except where the copy would be
 * large. */
CONV_INLINE void conv_edge(const int px, const int nv, const lc_conv_run *r, const conv_spot *s)
{
    lc_v acc[CONV_PX_MOST][LC_CONV_MAX_NV];
    CONV_ZERO(acc);
    const int64_t kh_move = r->dilation[0] * r->x_row;
    const float *xb = s->x, *wb = s->w;
    for (int64_t b = r->blocks; b > 0; b--, xb += r->x_blk, wb += r->w_blk) {
        const float *w = wb, *xr = xb;
        for (int64_t kh = s->khn; kh > 0; kh--, xr += kh_move) {
            int64_t iw0 = s->iw;
            for (int64_t kw = r->kw; kw > 0; kw--, iw0 += r->dilation[1]) {
                const float *x[CONV_PX_MOST];
                CONV_UNROLL
                for (int i = 0; i < px; i++) {
                    int64_t iw = iw0 + i * r->stride[1];
                    x[i] = (uint64_t)iw < (uint64_t)r->w_in ? xr + iw * r->x_col : conv_zeros;
                }
                for (int64_t c = 0; c < r->cb; c++, w += nv * LC_VLEN)
                    CONV_STEP(x[i] + c, w);
            }
        }
    }
    conv_finish(px, nv, r, s, acc);
}

/* Small groups: the block of inputs at a tap is one vector; copies of it with channel c of each
 * group spread over the lanes of its group meet weights [c][lane]. The size of the groups: any; the
 * whole block, a copy is a broadcast; four, the permutations are constants (with variable ones: 35
 * rather than 75 % of the peak on Zen 1); one, as depthwise convolutions have, nothing is moved. */
typedef enum conv_group { CONV_ANY, CONV_FULL, CONV_FOUR, CONV_ONE } conv_group;

CONV_INLINE lc_v conv_spread(const conv_group group, const float *x, const int c, lc_vi lanes)
{
    return group == CONV_FULL   ? lc_v_broadcast(x + c)
           : group == CONV_FOUR ? conv_permute4(lc_v_loadu(x), c, lanes)
           : group == CONV_ONE  ? lc_v_loadu(x)
                                : conv_permute(lc_v_loadu(x), lanes);
}

/* Channel c of all pixels and one tap. */
CONV_INLINE void conv_group_tap(const int px, const conv_group group, const int c,
                                const float *const *x, const float *w, const int32_t *spread,
                                lc_v acc[][LC_CONV_MAX_NV])
{
    const lc_vi lanes = lc_vi_loadu(spread + c * LC_VLEN);
    const lc_v wc = lc_v_loadu(w + c * LC_VLEN);
    CONV_UNROLL
    for (int i = 0; i < px; i++)
        acc[i][0] = lc_v_fma(conv_spread(group, x[i], c, lanes), wc, acc[i][0]);
}

CONV_INLINE void conv_groups(const int px, const conv_group group, const bool edge,
                             const lc_conv_run *r, const conv_spot *s)
{
    lc_v acc[CONV_PX_MOST][LC_CONV_MAX_NV];
    const int nv = 1, cg = group == CONV_FOUR ? 4 : group == CONV_ONE ? 1 : (int)r->cb;
    CONV_ZERO(acc);
    const int64_t kh_move = r->dilation[0] * r->x_row, pix = r->stride[1] * LC_VLEN;
    const float *xr = s->x, *w = s->w;
    for (int64_t kh = s->khn; kh > 0; kh--, xr += kh_move) {
        int64_t iw0 = s->iw;
        for (int64_t kw = r->kw; kw > 0; kw--, iw0 += r->dilation[1], w += cg * LC_VLEN) {
            const float *x[CONV_PXG];
            CONV_UNROLL
            for (int i = 0; i < px; i++)
                x[i] = edge && (uint64_t)(iw0 + i * r->stride[1]) >= (uint64_t)r->w_in
                           ? conv_zeros
                           : xr + iw0 * LC_VLEN + i * pix;
            if (group == CONV_FOUR) {
                CONV_UNROLL
                for (int c = 0; c < 4; c++)
                    conv_group_tap(px, group, c, x, w, s->spread, acc);
            } else {
                for (int c = 0; c < cg; c++)
                    conv_group_tap(px, group, c, x, w, s->spread, acc);
            }
        }
    }
    conv_finish(px, nv, r, s, acc);
}

/* Channel c of all pixels and a row of three taps. */
CONV_INLINE void conv_group_row(const int px, const conv_group group, const int c, const int cg,
                                const float *const *x, const float *w, const int32_t *spread,
                                lc_v acc[][LC_CONV_MAX_NV])
{
    const lc_vi lanes = lc_vi_loadu(spread + c * LC_VLEN);
    lc_v wk[3];
    CONV_UNROLL
    for (int k = 0; k < 3; k++)
        wk[k] = lc_v_loadu(w + (k * cg + c) * LC_VLEN);
    CONV_UNROLL
    for (int j = 0; j < px + 2; j++) {
        const lc_v in = conv_spread(group, x[j], c, lanes);
        CONV_UNROLL
        for (int k = 0; k < 3; k++)
            if (j - k >= 0 && j - k < px)
                acc[j - k][0] = lc_v_fma(in, wk[k], acc[j - k][0]);
    }
}

/* The same for kernels 3 wide that move by 1: a copy, once made, serves three pixels. Here the
 * order of the sum is kh, c, kw. */
CONV_INLINE void conv_groups3(const int px, const conv_group group, const bool edge,
                              const lc_conv_run *r, const conv_spot *s)
{
    lc_v acc[CONV_PX_MOST][LC_CONV_MAX_NV];
    const int nv = 1, cg = group == CONV_FOUR ? 4 : group == CONV_ONE ? 1 : (int)r->cb;
    CONV_ZERO(acc);
    const int64_t kh_move = r->dilation[0] * r->x_row;
    const float *xr = s->x, *w = s->w;
    for (int64_t kh = s->khn; kh > 0; kh--, xr += kh_move, w += 3 * cg * LC_VLEN) {
        const float *x[CONV_PX3 + 2], *x0 = xr + s->iw * LC_VLEN;
        CONV_UNROLL
        for (int j = 0; j < px + 2; j++)
            x[j] =
                edge && (uint64_t)(s->iw + j) >= (uint64_t)r->w_in ? conv_zeros : x0 + j * LC_VLEN;
        if (group == CONV_FOUR) {
            CONV_UNROLL
            for (int c = 0; c < 4; c++)
                conv_group_row(px, group, c, 4, x, w, s->spread, acc);
        } else {
            for (int c = 0; c < cg; c++)
                conv_group_row(px, group, c, cg, x, w, s->spread, acc);
        }
    }
    conv_finish(px, nv, r, s, acc);
}

#define CONV_CASE(N, MAX, CALL)                                                                    \
    case N:                                                                                        \
        if (N <= (MAX)) {                                                                          \
            const int px = N <= (MAX) ? N : 1;                                                     \
            CALL;                                                                                  \
        }                                                                                          \
        break;
#define CONV_CASES(MAX, CALL)                                                                      \
    CONV_CASE(1, MAX, CALL)                                                                        \
    CONV_CASE(2, MAX, CALL)                                                                        \
    CONV_CASE(3, MAX, CALL)                                                                        \
    CONV_CASE(4, MAX, CALL)                                                                        \
    CONV_CASE(5, MAX, CALL)                                                                        \
    CONV_CASE(6, MAX, CALL)                                                                        \
    CONV_CASE(7, MAX, CALL)                                                                        \
    CONV_CASE(8, MAX, CALL)                                                                        \
    CONV_CASE(9, MAX, CALL)                                                                        \
    CONV_CASE(10, MAX, CALL)                                                                       \
    CONV_CASE(11, MAX, CALL)                                                                       \
    CONV_CASE(12, MAX, CALL)                                                                       \
    CONV_CASE(13, MAX, CALL)                                                                       \
    CONV_CASE(14, MAX, CALL)

typedef void conv_block_fn(int64_t px, const lc_conv_run *r, const conv_spot *s);

CONV_NOINLINE void conv_inside_2(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX2, conv_inside(px, 2, false, r, s))
    }
}

CONV_NOINLINE void conv_inside_1(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX1, conv_inside(px, 1, false, r, s))
    }
}

CONV_NOINLINE void conv_unit_2(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX2, conv_inside(px, 2, true, r, s))
    }
}

CONV_NOINLINE void conv_unit_1(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX1, conv_inside(px, 1, true, r, s))
    }
}

CONV_NOINLINE void conv_cross_2(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX2, conv_cross(px, 2, r, s))
    }
}

CONV_NOINLINE void conv_edge_2(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX2, conv_edge(px, 2, r, s))
    }
}

CONV_NOINLINE void conv_edge_1(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX1, conv_edge(px, 1, r, s))
    }
}

CONV_NOINLINE void conv_groups_any_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_ANY, false, r, s))
    }
}

CONV_NOINLINE void conv_groups_any_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_ANY, true, r, s))
    }
}

CONV_NOINLINE void conv_groups_full_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_FULL, false, r, s))
    }
}

CONV_NOINLINE void conv_groups_full_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_FULL, true, r, s))
    }
}

CONV_NOINLINE void conv_groups_four_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_FOUR, false, r, s))
    }
}

CONV_NOINLINE void conv_groups_four_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_FOUR, true, r, s))
    }
}

CONV_NOINLINE void conv_groups_one_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_ONE, false, r, s))
    }
}

CONV_NOINLINE void conv_groups_one_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PXG, conv_groups(px, CONV_ONE, true, r, s))
    }
}

CONV_NOINLINE void conv_groups3_any_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_ANY, false, r, s))
    }
}

CONV_NOINLINE void conv_groups3_any_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_ANY, true, r, s))
    }
}

CONV_NOINLINE void conv_groups3_full_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_FULL, false, r, s))
    }
}

CONV_NOINLINE void conv_groups3_full_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_FULL, true, r, s))
    }
}

CONV_NOINLINE void conv_groups3_four_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_FOUR, false, r, s))
    }
}

CONV_NOINLINE void conv_groups3_four_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_FOUR, true, r, s))
    }
}

CONV_NOINLINE void conv_groups3_one_inside(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_ONE, false, r, s))
    }
}

CONV_NOINLINE void conv_groups3_one_edge(int64_t count, const lc_conv_run *r, const conv_spot *s)
{
    switch (count) {
        CONV_CASES(CONV_PX3, conv_groups3(px, CONV_ONE, true, r, s))
    }
}

/* Rows of taps that lie inside of the input for output row oh: [*first, *last). */
CONV_INLINE void conv_rows(const lc_conv_run *r, int64_t oh, int64_t *first, int64_t *last)
{
    const int64_t ih = oh * r->stride[0] - r->pad[0], dh = r->dilation[0];
    int64_t from = ih < 0 ? (-ih + dh - 1) / dh : 0;
    int64_t to = ih < r->h ? (r->h - ih + dh - 1) / dh : 0;
    *first = from < r->kh ? from : r->kh;
    *last = to < r->kh ? to : r->kh;
}

CONV_INLINE conv_spot conv_spot_at(const lc_conv_run *r, int64_t oh, int64_t ow, int64_t first,
                                   int64_t last)
{
    conv_spot s;
    const int64_t ih = oh * r->stride[0] - r->pad[0] + first * r->dilation[0];
    s.khn = last > first ? last - first : 0;
    s.x = s.khn ? r->x + ih * r->x_row : r->x;
    s.w = r->w + first * r->kw * r->cb * r->nv * LC_VLEN;
    s.iw = ow * r->stride[1] - r->pad[1];
    s.ow = ow;
    s.ow_end = -1; /* none */
    s.spread = NULL;
    s.pixel = oh * r->y_row + ow * r->y_pix;
    return s;
}

/* Brings the weights of the next chunk or panel, which follow, into the L2 cache: a part with each
 * block of pixels, a few lines at a time, since many at once hold up the loads that are needed now.
 * Blocks at an edge and small groups let their part go. Weights of a whole model do not stay in any
 * cache; without this the 7x7 layers wait for memory (+ 10 to 20 % there). */
typedef struct conv_ahead {
    const float *at, *end;
    int64_t lines, floats; /* per input block and row of taps; per block of pixels */
} conv_ahead;

CONV_INLINE conv_ahead conv_ahead_start(const lc_conv_run *r, int64_t parts)
{
    const int64_t floats = r->blocks * r->w_blk, runs = r->blocks * r->kh;
    const int64_t lines = (floats + 16 * parts * runs - 1) / (16 * parts * runs);
    return (conv_ahead){r->w + floats, r->w + 2 * floats, lines, lines * runs * 16};
}

CONV_INLINE void conv_ahead_step(conv_ahead *a, conv_spot *s)
{
    s->ahead = a->at;
    s->ahead_lines = a->at < a->end ? a->lines : 0;
    if (s->ahead_lines)
        a->at += a->floats;
}

/* Walks the rectangle row by row. */
CONV_INLINE void conv_walk(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0, int64_t ow1,
                           int64_t most, const int32_t *spread, conv_block_fn *inside,
                           conv_block_fn *edge)
{
    const int64_t width = ow1 - ow0, parts = (width + most - 1) / most;
    if (parts == 0)
        return;
    const int64_t each = width / parts, longer = width % parts;
    const int64_t reach = (r->kw - 1) * r->dilation[1];
    conv_ahead ahead = conv_ahead_start(r, parts * (oh1 - oh0) + 1);
    for (int64_t oh = oh0; oh < oh1; oh++) {
        int64_t first, last, ow = ow0;
        conv_rows(r, oh, &first, &last);
        for (int64_t p = 0; p < parts; p++) {
            const int64_t px = each + (p < longer);
            conv_spot s = conv_spot_at(r, oh, ow, first, last);
            s.spread = spread;
            bool in = s.iw >= 0 && s.iw + (px - 1) * r->stride[1] + reach < r->w_in;
            conv_ahead_step(&ahead, &s);
            (in ? inside : edge)(px, r, &s);
            ow += px;
        }
    }
}

/* Walks a whole plane as if it were one row: 7x7 is 9 blocks of 5 or 6 pixels rather than 14 of 3
 * or 4. */
CONV_INLINE void conv_walk_plane(const lc_conv_run *r, int64_t oh1, int64_t ow1)
{
    const int64_t most = CONV_PX2, pixels = oh1 * ow1, parts = (pixels + most - 1) / most;
    if (parts == 0)
        return;
    const int64_t each = pixels / parts, longer = pixels % parts;
    int64_t pixel = 0;
    conv_ahead ahead = conv_ahead_start(r, parts);
    for (int64_t p = 0; p < parts; p++) {
        const int64_t px = each + (p < longer), oh = pixel / ow1, oh_last = (pixel + px - 1) / ow1;
        int64_t first, last, from, to;
        conv_rows(r, oh, &first, &last);
        for (int64_t i = oh + 1; i <= oh_last; i++) { /* the union */
            conv_rows(r, i, &from, &to);
            if (from < to) {
                first = first < last && first < from ? first : from;
                last = last > to ? last : to;
            }
        }
        conv_spot s = conv_spot_at(r, oh, pixel % ow1, first, last);
        s.ow_end = ow1;
        conv_ahead_step(&ahead, &s);
        conv_cross_2(px, r, &s);
        pixel += px;
    }
}

CONV_INLINE void conv_dense(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                            int64_t ow1)
{
    const bool two = r->nv == 2;
    const bool unit = r->x_col == LC_VLEN && r->cb == LC_VLEN && r->stride[1] == 1 &&
                      (r->dilation[1] == 1 || r->kw == 1);
    if (two && (r->flags & LC_RUN_CROSS))
        conv_walk_plane(r, oh1, ow1);
    else if (two)
        conv_walk(r, oh0, oh1, ow0, ow1, CONV_PX2, NULL, unit ? conv_unit_2 : conv_inside_2,
                  conv_edge_2);
    else
        conv_walk(r, oh0, oh1, ow0, ow1, CONV_PX1, NULL, unit ? conv_unit_1 : conv_inside_1,
                  conv_edge_1);
    if (r->flags & LC_RUN_STREAM)
        lc_v_stream_end();
}

CONV_INLINE void conv_lanes(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                            int64_t ow1)
{
    int32_t spread[LC_VLEN * LC_VLEN]; /* [c][lane]: the lane that the copy for channel c takes */
    const int group = (int)r->cb;
    static conv_block_fn *const blocks[2][4][2] = {
        {{conv_groups_any_inside, conv_groups_any_edge},
         {conv_groups_full_inside, conv_groups_full_edge},
         {conv_groups_four_inside, conv_groups_four_edge},
         {conv_groups_one_inside, conv_groups_one_edge}},
        {{conv_groups3_any_inside, conv_groups3_any_edge},
         {conv_groups3_full_inside, conv_groups3_full_edge},
         {conv_groups3_four_inside, conv_groups3_four_edge},
         {conv_groups3_one_inside, conv_groups3_one_edge}},
    };
    const bool three = r->kw == 3 && r->stride[1] == 1 && r->dilation[1] == 1;
    const conv_group kind = group == LC_VLEN ? CONV_FULL
                            : group == 4     ? CONV_FOUR
                            : group == 1     ? CONV_ONE
                                             : CONV_ANY;
    for (int i = 0; i < group * LC_VLEN; i++)
        spread[i] = (i % LC_VLEN & ~(group - 1)) + i / LC_VLEN;
    conv_walk(r, oh0, oh1, ow0, ow1, three ? CONV_PX3 : CONV_PXG, spread, blocks[three][kind][0],
              blocks[three][kind][1]);
}

#endif
