/* Winograd's algorithm for the weight gradient, written once over the interface of
 * base/simd_<isa>.h; shares the register blocks of conv_wgrad_body.h. */
#ifndef LC_KERNELS_WINOGRAD_WGRAD_BODY_H
#define LC_KERNELS_WINOGRAD_WGRAD_BODY_H

/* t = A y: values of the polynomial y. At p: */
WGRAD_INLINE lc_v wgrad_value_at(const lc_v *y, const float p)
{
    const lc_v square = lc_v_set1(p * p);
    return lc_v_fma(lc_v_set1(p), lc_v_fma(square, y[3], y[1]), lc_v_fma(square, y[2], y[0]));
}

/* At 0, 1, -1, 1/2, -2, infinity. */
WGRAD_INLINE void wgrad_tile6(const lc_v *y, lc_v *t)
{
    t[0] = y[0];
    t[1] = wgrad_value_at(y, 1.0f);
    t[2] = wgrad_value_at(y, -1.0f);
    t[3] = wgrad_value_at(y, 0.5f);
    t[4] = wgrad_value_at(y, -2.0f);
    t[5] = y[3];
}

/* At 0, -1, 1/2, 2 and infinity, and the numbers as they are. */
WGRAD_INLINE void wgrad_tile9(const lc_v *y, lc_v *t)
{
    t[0] = y[0];
    t[1] = wgrad_value_at(y, -1.0f);
    t[2] = wgrad_value_at(y, 0.5f);
    t[3] = wgrad_value_at(y, 2.0f);
    t[4] = y[3];
    WGRAD_UNROLL
    for (int i = 0; i < 4; i++)
        t[5 + i] = y[i];
}

/* At 0, 1, -1, 2, -2, 1/2 and infinity. */
WGRAD_INLINE void wgrad_tile7(const lc_v *y, lc_v *t)
{
    t[0] = y[0];
    t[1] = wgrad_value_at(y, 1.0f);
    t[2] = wgrad_value_at(y, -1.0f);
    t[3] = wgrad_value_at(y, 2.0f);
    t[4] = wgrad_value_at(y, -2.0f);
    t[5] = wgrad_value_at(y, 0.5f);
    t[6] = y[3];
}

/* w = G^T m */
WGRAD_INLINE void wgrad_taps6(const lc_v *m, lc_v *w)
{
    const lc_v third = lc_v_set1(1.0f / 3), s = lc_v_mul(third, lc_v_add(m[1], m[2]));
    const lc_v d = lc_v_mul(third, lc_v_sub(m[1], m[2]));
    const lc_v a = lc_v_mul(lc_v_set1(4.0f / 15), m[3]), b = lc_v_mul(lc_v_set1(1.0f / 15), m[4]);
    const lc_v two = lc_v_set1(2.0f), four = lc_v_set1(4.0f);
    w[0] = lc_v_add(lc_v_add(m[0], d), lc_v_fnma(four, a, b));
    w[1] = lc_v_fnma(two, lc_v_add(a, b), s);
    w[2] = lc_v_add(lc_v_add(m[5], d), lc_v_sub(lc_v_mul(four, b), a));
}

WGRAD_INLINE void wgrad_taps_shared(const lc_v *m, lc_v *w)
{
    const lc_v two = lc_v_set1(2.0f), a = lc_v_mul(lc_v_set1(2.0f / 9), m[1]);
    const lc_v b = lc_v_mul(lc_v_set1(4.0f / 9), m[2]), c = lc_v_mul(lc_v_set1(1.0f / 9), m[3]);
    w[0] = lc_v_add(lc_v_sub(m[0], a), lc_v_fnma(two, b, c));
    w[1] = m[5];
    w[2] = lc_v_add(lc_v_add(m[4], a), lc_v_sub(lc_v_mul(two, c), b));
}

WGRAD_INLINE void wgrad_taps7(const lc_v *m, lc_v *w)
{
    const lc_v two = lc_v_set1(2.0f), four = lc_v_set1(4.0f), eight = lc_v_set1(8.0f);
    const lc_v a = lc_v_mul(lc_v_set1(-1.0f / 3), m[1]), b = lc_v_mul(lc_v_set1(1.0f / 9), m[2]);
    const lc_v c = lc_v_mul(lc_v_set1(1.0f / 36), m[3]), d = lc_v_mul(lc_v_set1(1.0f / 60), m[4]);
    const lc_v e = lc_v_mul(lc_v_set1(4.0f / 45), m[5]), s = lc_v_add(a, b), t = lc_v_sub(a, b);
    const lc_v p = lc_v_add(c, d), q = lc_v_sub(c, d);
    w[0] = lc_v_fma(eight, e, lc_v_add(lc_v_fnma(lc_v_set1(0.5f), m[0], s), q));
    w[1] = lc_v_fma(four, e, lc_v_fma(two, p, t));
    w[2] = lc_v_fma(two, e, lc_v_fma(four, q, s));
    w[3] = lc_v_add(lc_v_fma(eight, p, lc_v_add(t, m[6])), e);
}

WGRAD_INLINE void wgrad_tile_axis(const lc_winograd_kind kind, const lc_v *y, lc_v *t)
{
    if (kind == LC_WINOGRAD_3X3_S2)
        wgrad_tile9(y, t);
    else if (kind == LC_WINOGRAD_7X7_S2)
        wgrad_tile7(y, t);
    else
        wgrad_tile6(y, t);
}

WGRAD_INLINE void wgrad_taps_axis(const lc_winograd_kind kind, const lc_v *m, lc_v *w)
{
    if (kind == LC_WINOGRAD_3X3_S2)
        wgrad_taps_shared(m, w);
    else if (kind == LC_WINOGRAD_7X7_S2)
        wgrad_taps7(m, w);
    else
        wgrad_taps6(m, w);
}

WGRAD_INLINE void wgrad_tile(const lc_winograd_kind kind, const lc_winograd_run *r, const float *y,
                             int64_t rows, int64_t columns, float *v)
{
    const int side = lc_winograd_side(kind);
    lc_v t[9][4];
    WGRAD_UNROLL
    for (int j = 0; j < 4; j++) {
        lc_v d[4], c[9];
        WGRAD_UNROLL
        for (int i = 0; i < 4; i++)
            d[i] =
                i < rows && j < columns ? lc_v_loadu(y + i * r->x_row + j * LC_VLEN) : lc_v_zero();
        wgrad_tile_axis(kind, d, c);
        WGRAD_UNROLL
        for (int i = 0; i < side; i++)
            t[i][j] = c[i];
    }
    for (int i = 0; i < side; i++) {
        lc_v c[9];
        wgrad_tile_axis(kind, t[i], c);
        WGRAD_UNROLL
        for (int j = 0; j < side; j++)
            lc_v_storeu(v + lc_winograd_position(kind, i, j) * r->v_pos, c[j]);
    }
}

WGRAD_INLINE void wgrad_tiles(const lc_winograd_kind kind, const lc_winograd_run *r)
{
    for (int64_t b = 0; b < r->blocks; b++) {
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            const float *y =
                r->x + at->n * r->x_image + b * r->x_blk + at->oh * r->x_row + at->ow * LC_VLEN;
            float *v = r->v + b * r->v_blk + i * LC_VLEN;
            if (at->rows == LC_WINOGRAD_TILE && at->columns == LC_WINOGRAD_TILE)
                wgrad_tile(kind, r, y, LC_WINOGRAD_TILE, LC_WINOGRAD_TILE, v);
            else
                wgrad_tile(kind, r, y, at->rows, at->columns, v);
        }
    }
}

static void wgrad_tiles_3x3(const lc_winograd_run *r)
{
    wgrad_tiles(LC_WINOGRAD_3X3, r);
}

static void wgrad_tiles_s2(const lc_winograd_run *r)
{
    wgrad_tiles(LC_WINOGRAD_3X3_S2, r);
}

static void wgrad_tiles_7x7(const lc_winograd_run *r)
{
    wgrad_tiles(LC_WINOGRAD_7X7_S2, r);
}

static void wgrad_product(const lc_wgrad_product *p)
{
    const lc_wgrad_run r = {.stride = {1, 1},
                            .x_col = LC_VLEN,
                            .dy_vec = p->w_vec,
                            .images = p->positions,
                            .x_image = p->v_pos,
                            .dy_image = p->w_pos,
                            .nv = p->nv};
    wgrad_part part = {.dy = p->w, .rows = 1, .columns = p->tiles, .sums = p->m, .first = p->first};
    int parts = 0;
    for (int64_t b = 0; b < p->blocks; b++) {
        const int channels = b == p->blocks - 1 ? p->last : LC_VLEN;
        for (int c = 0; c < channels;) {
            wgrad_part_fn *fn;
            part.x = p->v + b * p->v_blk + c;
            wgrad_fetch(&p->next, parts++, &part);
            const int ni = wgrad_choose(channels - c, p->nv, &fn);
            fn(&r, &part);
            c += ni;
            part.sums += ni * p->nv * LC_VLEN;
        }
    }
}

WGRAD_INLINE void wgrad_taps(const lc_winograd_kind kind, const float *m, int64_t m_pos,
                             float *taps, int64_t tap, int64_t vectors)
{
    const int side = kind == LC_WINOGRAD_7X7_S2 ? 7 : 6, n = kind == LC_WINOGRAD_7X7_S2 ? 4 : 3;
    for (int64_t i = 0; i < vectors; i++, m += LC_VLEN, taps += LC_VLEN) {
        lc_v t[4][7];
        WGRAD_UNROLL
        for (int j = 0; j < side; j++) {
            lc_v d[7], c[4];
            WGRAD_UNROLL
            for (int k = 0; k < side; k++)
                d[k] = lc_v_loadu(m + (k * side + j) * m_pos);
            wgrad_taps_axis(kind, d, c);
            WGRAD_UNROLL
            for (int k = 0; k < n; k++)
                t[k][j] = c[k];
        }
        WGRAD_UNROLL
        for (int k = 0; k < n; k++) {
            lc_v c[4];
            wgrad_taps_axis(kind, t[k], c);
            WGRAD_UNROLL
            for (int j = 0; j < n; j++)
                lc_v_storeu(taps + (k * n + j) * tap, c[j]);
        }
    }
}

static void wgrad_taps_3x3(const float *m, int64_t m_pos, float *taps, int64_t tap, int64_t vectors,
                           int32_t block)
{
    (void)block;
    wgrad_taps(LC_WINOGRAD_3X3, m, m_pos, taps, tap, vectors);
}

static void wgrad_taps_s2(const float *m, int64_t m_pos, float *taps, int64_t tap, int64_t vectors,
                          int32_t block)
{
    (void)block;
    wgrad_taps(LC_WINOGRAD_3X3_S2, m, m_pos, taps, tap, vectors);
}

static void wgrad_taps_7x7(const float *m, int64_t m_pos, float *taps, int64_t tap, int64_t vectors,
                           int32_t block)
{
    (void)block;
    wgrad_taps(LC_WINOGRAD_7X7_S2, m, m_pos, taps, tap, vectors);
}

#endif
