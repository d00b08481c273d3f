/* The loops of grad_kernels.h, written once for vectors of LC_VLEN floats; included by
 * grad_kernels_<isa>.c after base/simd_<isa>.h. A block of 1 is plain memory; any other is
 * LC_VLEN. */
#ifndef LC_KERNELS_GRAD_KERNELS_BODY_H
#define LC_KERNELS_GRAD_KERNELS_BODY_H

#include "kernels/grad_kernels.h"
#include "kernels/vec_plane_body.h"

LC_INLINE lc_v lane_numbers(const float *p, int block)
{
    return block == 1 ? lc_v_broadcast(p) : lc_v_loadu(p);
}

/* Fetches two vectors that will be wanted soon. */
LC_INLINE void fetch_pair(const float *p)
{
    for (int k = 0; k < 2 * LC_VLEN; k += 16)
        __builtin_prefetch(p + k);
}

/* ---- moments ---- */

#define MOMENTS_PART 64 /* vectors */

/* Puts nb numbers of mean mb and m2 sb to the na of mean and m2 (Chan, Golub, LeVeque 1979). */
LC_INLINE void join_moments(double *mean, double *m2, double na, double mb, double sb, double nb)
{
    double delta = mb - *mean, share = nb / (na + nb);
    *mean += delta * share;
    *m2 += sb + delta * delta * na * share;
}

/* One part: sums of x - pivot and of its squares, the pivot being the mean but for rounding. */
LC_INLINE void moments_part(double *mean, double *m2, const float *x, int vectors, double before)
{
    lc_v pivot = lc_v_mul(sum_part(x, vectors), lc_v_set1(1.0f / (float)vectors));
    lc_v s0 = lc_v_zero(), s1 = s0, q0 = s0, q1 = s0;
    int i = 0;
    for (; i + 2 <= vectors; i += 2) {
        /* of the next part: 1.1 times as fast from memory, 1.2 from a cache (Zen 5) */
        fetch_pair(x + (i + vectors) * LC_VLEN);
        lc_v d = lc_v_sub(lc_v_loadu(x + i * LC_VLEN), pivot);
        lc_v e = lc_v_sub(lc_v_loadu(x + (i + 1) * LC_VLEN), pivot);
        s0 = lc_v_add(s0, d);
        s1 = lc_v_add(s1, e);
        q0 = lc_v_fma(d, d, q0);
        q1 = lc_v_fma(e, e, q1);
    }
    if (i < vectors) {
        lc_v d = lc_v_sub(lc_v_loadu(x + i * LC_VLEN), pivot);
        s0 = lc_v_add(s0, d);
        q0 = lc_v_fma(d, d, q0);
    }
    float at[LC_VLEN], sum[LC_VLEN], square[LC_VLEN];
    lc_v_storeu(at, pivot);
    lc_v_storeu(sum, lc_v_add(s0, s1));
    lc_v_storeu(square, lc_v_add(q0, q1));
    double n = (double)vectors, each = 1.0 / n;
    for (int l = 0; l < LC_VLEN; l++) {
        double off = (double)sum[l] * each;
        join_moments(&mean[l], &m2[l], before, (double)at[l] + off,
                     (double)square[l] - (double)sum[l] * off, n);
    }
}

/* n: a positive multiple of LC_VLEN */
LC_INLINE void moments_lanes(double *mean, double *m2, const float *x, int64_t n)
{
    for (int l = 0; l < LC_VLEN; l++)
        mean[l] = m2[l] = 0.0;
    int64_t vectors = n / LC_VLEN;
    for (int64_t done = 0; done < vectors; done += MOMENTS_PART)
        moments_part(mean, m2, x + done * LC_VLEN,
                     vectors - done < MOMENTS_PART ? (int)(vectors - done) : MOMENTS_PART,
                     (double)done);
}

LC_INLINE void moments_run(double *mean, double *m2, const float *x, int64_t n)
{
    double means[LC_VLEN], m2s[LC_VLEN];
    int64_t rest = n % LC_VLEN, whole = n - rest;
    double have = 0.0;
    *mean = *m2 = 0.0;
    if (whole) {
        moments_lanes(means, m2s, x, whole);
        double each = (double)(whole / LC_VLEN);
        for (int l = 0; l < LC_VLEN; l++, have += each)
            join_moments(mean, m2, have, means[l], m2s[l], each);
    }
    for (int64_t i = whole; i < n; i++, have += 1.0)
        join_moments(mean, m2, have, (double)x[i], 0.0, 1.0);
}

/* ---- gradient of a norm ---- */

typedef enum norm_mask { NO_MASK, MASK_OF_Y, MASK_OF_X } norm_mask;

/* Vectors: the sums of 12 to 25 MB are 1.1 to 1.2 times as fast (Zen 5). */
#define SUMS_AHEAD 16

/* A vector of x and masked dy; m: the lanes that are there, or all. */
LC_INLINE lc_v norm_load(const lc_grad_norm *g, int64_t i, lc_vm m, bool all, norm_mask mask,
                         lc_v scale, lc_v shift, lc_v *dy)
{
    lc_v x = all ? lc_v_loadu(g->x + i) : lc_v_maskload(g->x + i, m);
    lc_v d = all ? lc_v_loadu(g->dy + i) : lc_v_maskload(g->dy + i, m);
    if (mask != NO_MASK) {
        lc_v y = mask == MASK_OF_X ? lc_v_fma(x, scale, shift)
                 : all             ? lc_v_loadu(g->y + i)
                                   : lc_v_maskload(g->y + i, m);
        d = lc_v_select(lc_v_gt(y, lc_v_zero()), d, lc_v_zero());
    }
    *dy = d;
    return x;
}

LC_INLINE void norm_sums_loop(double *sum, const lc_grad_norm *g, int64_t n, int block,
                              norm_mask mask, bool store)
{
    double lanes[2 * LC_VLEN] = {0.0};
    lc_v none = lc_v_zero(), mean = lane_numbers(g->mean, block);
    lc_v scale = mask == MASK_OF_X ? lane_numbers(g->scale, block) : none;
    lc_v shift = mask == MASK_OF_X ? lane_numbers(g->shift, block) : none;
    lc_vm every = lc_v_first(LC_VLEN);
    for (int64_t i = 0; i < n;) {
        lc_v s0 = none, s1 = none, p0 = none, p1 = none, d, x;
        int64_t left = n - i, end = i + (left < SUM_PART * LC_VLEN ? left : SUM_PART * LC_VLEN);
        for (; i + 2 * LC_VLEN <= end; i += 2 * LC_VLEN) {
            fetch_pair(g->x + i + SUMS_AHEAD * LC_VLEN);
            fetch_pair(g->dy + i + SUMS_AHEAD * LC_VLEN);
            if (mask == MASK_OF_Y)
                fetch_pair(g->y + i + SUMS_AHEAD * LC_VLEN);
            x = norm_load(g, i, every, true, mask, scale, shift, &d);
            s0 = lc_v_add(s0, d);
            p0 = lc_v_fma(d, lc_v_sub(x, mean), p0);
            if (store)
                lc_v_storeu(g->masked + i, d);
            x = norm_load(g, i + LC_VLEN, every, true, mask, scale, shift, &d);
            s1 = lc_v_add(s1, d);
            p1 = lc_v_fma(d, lc_v_sub(x, mean), p1);
            if (store)
                lc_v_storeu(g->masked + i + LC_VLEN, d);
        }
        for (; i < end; i += LC_VLEN) {
            lc_vm m = lc_v_first(end - i < LC_VLEN ? (int)(end - i) : LC_VLEN);
            x = norm_load(g, i, m, false, mask, scale, shift, &d);
            s0 = lc_v_add(s0, d); /* 0 outside of m */
            p0 = lc_v_fma(d, lc_v_select(m, lc_v_sub(x, mean), none), p0);
            if (store)
                lc_v_maskstore(g->masked + i, m, d);
        }
        i = end;
        add_lanes(lanes, lc_v_add(s0, s1));
        add_lanes(lanes + LC_VLEN, lc_v_add(p0, p1));
    }
    for (int l = 0; l < 2 * LC_VLEN; l++)
        sum[block == 1 ? l / LC_VLEN : l] += lanes[l];
}

LC_INLINE void norm_sums(double *sum, const lc_grad_norm *g, int64_t n, int block)
{
    norm_mask mask = g->y ? MASK_OF_Y : g->scale ? MASK_OF_X : NO_MASK;
    if (mask == MASK_OF_Y && g->masked)
        norm_sums_loop(sum, g, n, block, MASK_OF_Y, true);
    else if (mask == MASK_OF_Y)
        norm_sums_loop(sum, g, n, block, MASK_OF_Y, false);
    else if (mask == MASK_OF_X && !g->masked)
        norm_sums_loop(sum, g, n, block, MASK_OF_X, false);
    else if (!g->masked)
        norm_sums_loop(sum, g, n, block, NO_MASK, false);
    else
        norm_sums_loop(sum, g, n, block, mask, true);
}

LC_INLINE void norm_apply_loop(const lc_grad_norm *g, int64_t n, int block, norm_mask mask,
                               bool stream)
{
    lc_v none = lc_v_zero(), mean = lane_numbers(g->mean, block);
    lc_v a = lane_numbers(g->a, block), b = lane_numbers(g->b, block);
    lc_v c = lane_numbers(g->c, block);
    lc_v scale = mask == MASK_OF_X ? lane_numbers(g->scale, block) : none;
    lc_v shift = mask == MASK_OF_X ? lane_numbers(g->shift, block) : none;
    lc_vm m = lc_v_first(LC_VLEN);
    lc_v d, x;
    int64_t i = 0;
    for (; i + LC_VLEN <= n; i += LC_VLEN) {
        x = norm_load(g, i, m, true, mask, scale, shift, &d);
        d = lc_v_fma(d, a, lc_v_fma(lc_v_sub(x, mean), b, c));
        if (stream)
            lc_v_stream(g->dx + i, d);
        else
            lc_v_storeu(g->dx + i, d);
    }
    if (stream)
        lc_v_stream_end();
    if (i < n) {
        m = lc_v_first((int)(n - i));
        x = norm_load(g, i, m, false, mask, scale, shift, &d);
        lc_v_maskstore(g->dx + i, m, lc_v_fma(d, a, lc_v_fma(lc_v_sub(x, mean), b, c)));
    }
}

LC_INLINE void norm_apply(const lc_grad_norm *g, int64_t n, int block)
{
    if (g->y)
        norm_apply_loop(g, n, block, MASK_OF_Y, false);
    else if (g->scale)
        norm_apply_loop(g, n, block, MASK_OF_X, false);
    else if (g->stream)
        norm_apply_loop(g, n, block, NO_MASK, true);
    else
        norm_apply_loop(g, n, block, NO_MASK, false);
}

/* ---- sums of products ---- */

LC_INLINE void dot_loop(double *sum, const float *a, const float *b, int64_t n, int block)
{
    double lanes[LC_VLEN] = {0.0};
    for (int64_t i = 0; i < n;) {
        lc_v s0 = lc_v_zero(), s1 = s0;
        int64_t left = n - i, end = i + (left < SUM_PART * LC_VLEN ? left : SUM_PART * LC_VLEN);
        for (; i + 2 * LC_VLEN <= end; i += 2 * LC_VLEN) {
            s0 = lc_v_fma(lc_v_loadu(a + i), lc_v_loadu(b + i), s0);
            s1 = lc_v_fma(lc_v_loadu(a + i + LC_VLEN), lc_v_loadu(b + i + LC_VLEN), s1);
        }
        for (; i < end; i += LC_VLEN) {
            lc_vm m = lc_v_first(end - i < LC_VLEN ? (int)(end - i) : LC_VLEN);
            s0 = lc_v_fma(lc_v_maskload(a + i, m), lc_v_maskload(b + i, m), s0);
        }
        i = end;
        add_lanes(lanes, lc_v_add(s0, s1));
    }
    for (int l = 0; l < LC_VLEN; l++)
        sum[block == 1 ? 0 : l] += lanes[l];
}

/* ---- pooling ---- */

#define POOL_MOST ((int64_t)1 << 24) /* elements of a window that floats can number */

LC_INLINE void pool_max_back_loop(float *dx, const float *x, const float *dy, int64_t n,
                                  const lc_vec_window *w, int64_t rows, int64_t cols)
{
    int64_t row_step = w->row_step, col_step = w->col_step;
    lc_v one = lc_v_set1(1.0f);
    for (int64_t i = 0; i < n; i++, x += w->out_step, dx += w->out_step, dy += LC_VLEN) {
        lc_v best = lc_v_loadu(x), place = lc_v_zero(), k = place, g = lc_v_loadu(dy);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++, k = lc_v_add(k, one)) {
                lc_v v = lc_v_loadu(x + r * row_step + c * col_step);
                place = lc_v_select(lc_v_gt(v, best), k, place);
                place = lc_v_select(lc_v_eq(v, v), place, k); /* NaN */
                best = lc_v_max_nan(v, best);
            }
        k = lc_v_zero();
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++, k = lc_v_add(k, one)) {
                float *to = dx + r * row_step + c * col_step;
                lc_v share = lc_v_select(lc_v_eq(place, k), g, lc_v_zero());
                lc_v_storeu(to, lc_v_add(lc_v_loadu(to), share));
            }
    }
}

LC_INLINE void pool_max_back(float *dx, const float *x, const float *dy, int64_t n,
                             const lc_vec_window *w)
{
    if (w->rows == 3 && w->cols == 3)
        pool_max_back_loop(dx, x, dy, n, w, 3, 3);
    else if (w->rows == 2 && w->cols == 2)
        pool_max_back_loop(dx, x, dy, n, w, 2, 2);
    else
        pool_max_back_loop(dx, x, dy, n, w, w->rows, w->cols);
}

LC_INLINE void pool_mean_back_loop(float *dx, const float *dy, int64_t n, const lc_vec_window *w,
                                   float divisor, int64_t rows, int64_t cols)
{
    int64_t row_step = w->row_step, col_step = w->col_step;
    lc_v by = lc_v_set1(divisor);
    for (int64_t i = 0; i < n; i++, dx += w->out_step, dy += LC_VLEN) {
        lc_v g = lc_v_div(lc_v_loadu(dy), by);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                float *to = dx + r * row_step + c * col_step;
                lc_v_storeu(to, lc_v_add(lc_v_loadu(to), g));
            }
    }
}

LC_INLINE void pool_mean_back(float *dx, const float *dy, int64_t n, const lc_vec_window *w,
                              float divisor)
{
    if (w->rows == 3 && w->cols == 3)
        pool_mean_back_loop(dx, dy, n, w, divisor, 3, 3);
    else if (w->rows == 2 && w->cols == 2)
        pool_mean_back_loop(dx, dy, n, w, divisor, 2, 2);
    else
        pool_mean_back_loop(dx, dy, n, w, divisor, w->rows, w->cols);
}

#endif
