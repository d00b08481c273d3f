/* Sums and pooling windows, written once for vectors of LC_VLEN floats; included by
 * vec_kernels_<isa>.c after base/simd_<isa>.h. A block of 1 is plain memory; any other is
 * LC_VLEN. */
#ifndef LC_KERNELS_VEC_PLANE_BODY_H
#define LC_KERNELS_VEC_PLANE_BODY_H

#include "kernels/vec_kernels.h"
#include "kernels/vec_map_body.h"

/* ---- sums ---- */

/* Vectors that are added in float before their sum goes on in double: four chains of eight. */
#define SUM_CHAINS 4
#define SUM_PART 32

LC_INLINE lc_v sum_part(const float *x, int vectors)
{
    lc_v s0 = lc_v_zero(), s1 = s0, s2 = s0, s3 = s0;
    int i = 0;
    for (; i + SUM_CHAINS <= vectors; i += SUM_CHAINS, x += SUM_CHAINS * LC_VLEN) {
        s0 = lc_v_add(s0, lc_v_loadu(x));
        s1 = lc_v_add(s1, lc_v_loadu(x + LC_VLEN));
        s2 = lc_v_add(s2, lc_v_loadu(x + 2 * LC_VLEN));
        s3 = lc_v_add(s3, lc_v_loadu(x + 3 * LC_VLEN));
    }
    for (; i < vectors; i++, x += LC_VLEN)
        s0 = lc_v_add(s0, lc_v_loadu(x));
    return lc_v_add(lc_v_add(s0, s1), lc_v_add(s2, s3));
}

LC_INLINE void add_lanes(double *sum, lc_v part)
{
    float lanes[LC_VLEN];
    lc_v_storeu(lanes, part);
    for (int l = 0; l < LC_VLEN; l++)
        sum[l] += (double)lanes[l];
}

LC_INLINE void sum_lanes(double *sum, const float *x, int64_t n)
{
    for (int64_t left = n / LC_VLEN; left > 0; left -= SUM_PART, x += SUM_PART * LC_VLEN)
        add_lanes(sum, sum_part(x, left < SUM_PART ? (int)left : SUM_PART));
}

LC_INLINE void sum_run(double *sum, const float *x, int64_t n)
{
    double lanes[LC_VLEN] = {0.0};
    sum_lanes(lanes, x, n);
    int rest = (int)(n % LC_VLEN);
    if (rest)
        add_lanes(lanes, lc_v_maskload(x + (n - rest), lc_v_first(rest)));
    for (int half = LC_VLEN / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    *sum += lanes[0];
}

/* ---- pooling ---- */

/* Rows and cols are constants in the common cases, so that the loops below unroll. */
LC_INLINE void pool_max_loop(float *y, const float *x, int64_t n, const lc_vec_window *w,
                             float floor, int64_t rows, int64_t cols)
{
    int64_t row_step = w->row_step, col_step = w->col_step;
    for (int64_t i = 0; i < n; i++, x += w->out_step, y += LC_VLEN) {
        lc_v best = lc_v_set1(floor);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++)
                best = lc_v_max_nan(lc_v_loadu(x + r * row_step + c * col_step), best);
        lc_v_storeu(y, best);
    }
}

LC_INLINE void pool_max(float *y, const float *x, int64_t n, const lc_vec_window *w, float floor)
{
    if (w->rows == 3 && w->cols == 3)
        pool_max_loop(y, x, n, w, floor, 3, 3);
    else if (w->rows == 2 && w->cols == 2)
        pool_max_loop(y, x, n, w, floor, 2, 2);
    else
        pool_max_loop(y, x, n, w, floor, w->rows, w->cols);
}

LC_INLINE void pool_mean_loop(float *y, const float *x, int64_t n, const lc_vec_window *w,
                              float divisor, int64_t rows, int64_t cols)
{
    int64_t row_step = w->row_step, col_step = w->col_step;
    lc_v by = lc_v_set1(divisor);
    for (int64_t i = 0; i < n; i++, x += w->out_step, y += LC_VLEN) {
        lc_v total = lc_v_zero();
        for (int64_t r = 0; r < rows; r++) {
            lc_v row = lc_v_loadu(x + r * row_step);
            for (int64_t c = 1; c < cols; c++)
                row = lc_v_add(row, lc_v_loadu(x + r * row_step + c * col_step));
            total = lc_v_add(total, row);
        }
        lc_v_storeu(y, lc_v_div(total, by));
    }
}

LC_INLINE void pool_mean(float *y, const float *x, int64_t n, const lc_vec_window *w, float divisor)
{
    if (w->rows == 3 && w->cols == 3)
        pool_mean_loop(y, x, n, w, divisor, 3, 3);
    else if (w->rows == 2 && w->cols == 2)
        pool_mean_loop(y, x, n, w, divisor, 2, 2);
    else
        pool_mean_loop(y, x, n, w, divisor, w->rows, w->cols);
}

/* Plain memory: LC_VLEN outputs side by side. */
typedef enum reach { EACH, EACH_TAIL, EVERY_SECOND } reach;

/* The inputs at the same place of LC_VLEN windows, which are one or two apart. */
LC_INLINE lc_v load_across(const float *x, lc_vm m, reach how)
{
    if (how == EACH)
        return lc_v_loadu(x);
    if (how == EACH_TAIL)
        return lc_v_maskload(x, m);
    /* Modulo LC_VLEN, both halves of the lanes take the even lanes of a vector. */
    static const int32_t even[16] = {0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14};
    lc_vi idx = lc_vi_loadu(even);
    return lc_v_select(m, lc_v_perm(lc_v_loadu(x), idx), lc_v_perm(lc_v_loadu(x + LC_VLEN), idx));
}

LC_INLINE lc_v pool_across(const float *x, lc_vm m, reach how, const lc_vec_window *w, float c,
                           bool is_max)
{
    lc_v total = is_max ? lc_v_set1(c) : lc_v_zero();
    for (int64_t r = 0; r < w->rows; r++) {
        const float *p = x + r * w->row_step;
        lc_v row = load_across(p, m, how);
        if (is_max)
            total = lc_v_max_nan(row, total);
        for (int64_t k = 1; k < w->cols; k++) {
            lc_v v = load_across(p + k * w->col_step, m, how);
            if (is_max)
                total = lc_v_max_nan(v, total);
            else
                row = lc_v_add(row, v);
        }
        if (!is_max)
            total = lc_v_add(total, row);
    }
    return is_max ? total : lc_v_div(total, lc_v_set1(c));
}

/* For windows one or two apart. Returns how many of the outputs it gave. */
LC_INLINE int64_t pool_plain(float *y, const float *x, int64_t n, const lc_vec_window *w, float c,
                             bool is_max)
{
    int64_t i = 0;
    if (w->out_step == 2) { /* reads one float beyond its last window: there must be another one */
        lc_vm low = lc_v_first(LC_VLEN / 2);
        while (i + LC_VLEN < n) {
            lc_v_storeu(y + i, pool_across(x + 2 * i, low, EVERY_SECOND, w, c, is_max));
            i += LC_VLEN;
            if (i < n - 1 && i + LC_VLEN >= n) /* the last vector overlaps the one before */
                i = n - 1 - LC_VLEN;
        }
        return i;
    }
    lc_vm every = lc_v_first(LC_VLEN);
    for (; i + LC_VLEN <= n; i += LC_VLEN)
        lc_v_storeu(y + i, pool_across(x + i, every, EACH, w, c, is_max));
    if (i < n) {
        lc_vm m = lc_v_first((int)(n - i));
        lc_v_maskstore(y + i, m, pool_across(x + i, m, EACH_TAIL, w, c, is_max));
    }
    return n;
}

/* ---- from blocks to blocks ---- */

LC_INLINE void pick_from(const int sources, float *y, const lc_vec_pick *p, const lc_vm *from,
                         int64_t pixels)
{
    const lc_vi lane = lc_vi_loadu(p->lane);
    for (int64_t i = 0; i < pixels; i++) {
        lc_v v = lc_v_zero();
        for (int j = 0; j < sources; j++)
            v = lc_v_select(from[j], lc_v_perm(lc_v_loadu(p->x[j] + i * LC_VLEN), lane), v);
        lc_v_storeu(y + i * LC_VLEN, v);
    }
}

static inline void pick(float *y, const lc_vec_pick *p, int64_t pixels, int block)
{
    (void)block;
    lc_vm from[LC_VLEN];
    for (int j = 0; j < p->sources; j++) {
        float taken[LC_VLEN];
        for (int l = 0; l < LC_VLEN; l++)
            taken[l] = p->source[l] == j ? 1.0f : 0.0f;
        from[j] = lc_v_gt(lc_v_loadu(taken), lc_v_zero());
    }
    if (p->sources == 1)
        pick_from(1, y, p, from, pixels);
    else if (p->sources == 2)
        pick_from(2, y, p, from, pixels);
    else
        pick_from(p->sources, y, p, from, pixels);
}

#endif
