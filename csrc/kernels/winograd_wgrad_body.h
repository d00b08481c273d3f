/* Winograd's algorithm for the weight gradient, written once over the interface of
 * base/simd_<isa>.h; shares the register blocks of conv_wgrad_body.h. */
#ifndef LC_KERNELS_WINOGRAD_WGRAD_BODY_H
#define LC_KERNELS_WINOGRAD_WGRAD_BODY_H

/* t = A y: values of the polynomial y at 0, 1, -1, 1/2, -2, infinity */
WGRAD_INLINE void wgrad_tile6(const lc_v *y, lc_v *t)
{
    const lc_v quarter = lc_v_set1(0.25f), four = lc_v_set1(4.0f);
    const lc_v even = lc_v_add(y[0], y[2]), odd = lc_v_add(y[1], y[3]);
    t[0] = y[0];
    t[1] = lc_v_add(even, odd);
    t[2] = lc_v_sub(even, odd);
    t[3] = lc_v_fma(lc_v_set1(0.5f), lc_v_fma(quarter, y[3], y[1]), lc_v_fma(quarter, y[2], y[0]));
    t[4] = lc_v_fnma(lc_v_set1(2.0f), lc_v_fma(four, y[3], y[1]), lc_v_fma(four, y[2], y[0]));
    t[5] = y[3];
}

/* w = G^T m */
WGRAD_INLINE void wgrad_taps3(const lc_v *m, lc_v *w)
{
    const lc_v third = lc_v_set1(1.0f / 3), s = lc_v_mul(third, lc_v_add(m[1], m[2]));
    const lc_v d = lc_v_mul(third, lc_v_sub(m[1], m[2]));
    const lc_v a = lc_v_mul(lc_v_set1(4.0f / 15), m[3]), b = lc_v_mul(lc_v_set1(1.0f / 15), m[4]);
    const lc_v two = lc_v_set1(2.0f), four = lc_v_set1(4.0f);
    w[0] = lc_v_add(lc_v_add(m[0], d), lc_v_fnma(four, a, b));
    w[1] = lc_v_fnma(two, lc_v_add(a, b), s);
    w[2] = lc_v_add(lc_v_add(m[5], d), lc_v_sub(lc_v_mul(four, b), a));
}

WGRAD_INLINE void wgrad_tile(const lc_winograd_run *r, const float *y, int64_t rows,
                             int64_t columns, float *v)
{
    lc_v t[6][4];
    WGRAD_UNROLL
    for (int j = 0; j < 4; j++) {
        lc_v d[4], c[6];
        WGRAD_UNROLL
        for (int i = 0; i < 4; i++)
            d[i] =
                i < rows && j < columns ? lc_v_loadu(y + i * r->x_row + j * LC_VLEN) : lc_v_zero();
        wgrad_tile6(d, c);
        WGRAD_UNROLL
        for (int i = 0; i < 6; i++)
            t[i][j] = c[i];
    }
    for (int i = 0; i < 6; i++, v += 6 * r->v_pos) {
        lc_v c[6];
        wgrad_tile6(t[i], c);
        WGRAD_UNROLL
        for (int j = 0; j < 6; j++)
            lc_v_storeu(v + j * r->v_pos, c[j]);
    }
}

static void wgrad_tiles(const lc_winograd_run *r)
{
    for (int64_t b = 0; b < r->blocks; b++) {
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            const float *y =
                r->x + at->n * r->x_image + b * r->x_blk + at->oh * r->x_row + at->ow * LC_VLEN;
            float *v = r->v + b * r->v_blk + i * LC_VLEN;
            if (at->rows == LC_WINOGRAD_TILE && at->columns == LC_WINOGRAD_TILE)
                wgrad_tile(r, y, LC_WINOGRAD_TILE, LC_WINOGRAD_TILE, v);
            else
                wgrad_tile(r, y, at->rows, at->columns, v);
        }
    }
}

static void wgrad_product(const lc_wgrad_product *p)
{
    const lc_wgrad_run r = {
        .stride = {1, 1}, .x_col = LC_VLEN, .dy_vec = p->w_vec, .images = 1, .nv = p->nv};
    wgrad_part part = {.dy = p->w, .rows = 1, .columns = p->tiles, .sums = p->m, .first = p->first};
    int parts = 0;
    for (int64_t b = 0; b < p->blocks; b++)
        for (int c = 0; c < LC_VLEN;) {
            wgrad_part_fn *fn;
            part.x = p->v + b * p->v_blk + c;
            wgrad_fetch(&p->next, parts++, &part);
            const int ni = wgrad_choose(LC_VLEN - c, p->nv, &fn);
            fn(&r, &part);
            c += ni;
            part.sums += ni * p->nv * LC_VLEN;
        }
}

static void wgrad_taps(const float *m, int64_t m_pos, float *taps, int64_t tap, int64_t vectors,
                       int32_t block)
{
    (void)block;
    for (int64_t i = 0; i < vectors; i++, m += LC_VLEN, taps += LC_VLEN) {
        lc_v t[3][6];
        WGRAD_UNROLL
        for (int j = 0; j < 6; j++) {
            lc_v d[6], c[3];
            WGRAD_UNROLL
            for (int k = 0; k < 6; k++)
                d[k] = lc_v_loadu(m + (k * 6 + j) * m_pos);
            wgrad_taps3(d, c);
            WGRAD_UNROLL
            for (int k = 0; k < 3; k++)
                t[k][j] = c[k];
        }
        WGRAD_UNROLL
        for (int k = 0; k < 3; k++) {
            lc_v c[3];
            wgrad_taps3(t[k], c);
            WGRAD_UNROLL
            for (int j = 0; j < 3; j++)
                lc_v_storeu(taps + (k * 3 + j) * tap, c[j]);
        }
    }
}

#endif
