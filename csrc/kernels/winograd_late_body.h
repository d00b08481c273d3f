/* Products whose weights are transformed on the way: part of winograd_body.h, for which the
 * including file gives WINO_LATE_PX, most tiles of wino_late_row. */

/* u = G w, without the factors of wino_output4_late */
WINO_INLINE void wino_weights6(lc_v a, lc_v b, lc_v c, lc_v *u)
{
    const lc_v two = lc_v_set1(2.0f), four = lc_v_set1(4.0f), s = lc_v_add(a, c);
    u[0] = a;
    u[1] = lc_v_add(b, s);
    u[2] = lc_v_sub(b, s);
    u[3] = lc_v_fma(four, a, lc_v_fma(two, b, c));
    u[4] = lc_v_fma(four, c, lc_v_fnma(two, b, a));
    u[5] = c;
}

/* --- Few tiles: six transformed weights at a time, of one row, stay in registers. 1 to 4 tiles, 512
 * channels, weights from memory, Zen 4: half of the time of LC_WINOGRAD_3X3 on one thread and on
 * two; with the other form below 0.7 to 0.9 of it. */

/* Row i of the weights of vector `w`, for px tiles, products that short columns do not need among
 * them. `next`: filters that will be wanted soon. */
WINO_INLINE void wino_late_row(const int px, const int i, const lc_winograd_run *r, const float *v,
                               const float *w, int64_t blocks, int last, float *m, bool first,
                               const float *next)
{
    const int width = 2 * LC_VLEN, tap = LC_VLEN * width;
    lc_v acc[6][WINO_LATE_PX];
    WINO_UNROLL
    for (int j = 0; j < 6; j++)
        for (int p = 0; p < px; p++)
            acc[j][p] = lc_v_zero();
    v += 6 * i * r->v_pos;
    for (int64_t b = 0; b < blocks; b++, v += r->v_blk, w += 9 * tap, next += 9 * tap) {
        const int channels = b == blocks - 1 ? last : LC_VLEN;
        const float *at[6];
        WINO_UNROLL
        for (int j = 0; j < 6; j++) {
            at[j] = v + j * r->v_pos;
            __asm__("" : "+r"(at[j])); /* else sums of all the offsets fill the registers */
        }
        for (int64_t c = 0; c < channels; c++) {
            const float *f = w + c * width, *ahead = next + c * width;
            lc_v t[3], u[6];
            /* the nine taps, shared out among the rows */
            __builtin_prefetch(ahead + (i < 3 ? i * 2 : i + 3) * tap, 0, 2);
            if (i < 3)
                __builtin_prefetch(ahead + (i * 2 + 1) * tap, 0, 2);
            WINO_UNROLL
            for (int j = 0; j < 3; j++) {
                lc_v column[6];
                wino_weights6(lc_v_loadu(f + j * tap), lc_v_loadu(f + (3 + j) * tap),
                              lc_v_loadu(f + (6 + j) * tap), column);
                t[j] = column[i];
            }
            wino_weights6(t[0], t[1], t[2], u);
            WINO_UNROLL
            for (int j = 0; j < 6; j++)
                for (int p = 0; p < px; p++)
                    acc[j][p] = lc_v_fma(lc_v_set1(at[j][c + p * LC_VLEN]), u[j], acc[j][p]);
        }
    }
    m += 6 * i * r->m_pos;
    WINO_UNROLL
    for (int j = 0; j < 6; j++)
        for (int p = 0; p < px; p++) {
            float *to = m + j * r->m_pos + p * 2 * LC_VLEN;
            lc_v_storeu(to, first ? acc[j][p] : lc_v_add(lc_v_loadu(to), acc[j][p]));
        }
}

typedef void (*wino_late_fn)(const lc_winograd_run *r, const float *v, const float *w,
                             int64_t blocks, int last, float *m, bool first, const float *next);

#define WINO_LATE(I, PX)                                                                           \
    static void wino_late_##I##_##PX(const lc_winograd_run *r, const float *v, const float *w,     \
                                     int64_t blocks, int last, float *m, bool first,               \
                                     const float *next)                                            \
    {                                                                                              \
        wino_late_row(PX, I, r, v, w, blocks, last, m, first, next);                               \
    }
#define WINO_LATE_ROWS(PX)                                                                         \
    WINO_LATE(0, PX)                                                                               \
    WINO_LATE(1, PX)                                                                               \
    WINO_LATE(2, PX)                                                                               \
    WINO_LATE(3, PX)                                                                               \
    WINO_LATE(4, PX)                                                                               \
    WINO_LATE(5, PX)
#define WINO_LATE_NAMES(PX)                                                                        \
    {wino_late_0_##PX, wino_late_1_##PX, wino_late_2_##PX,                                         \
     wino_late_3_##PX, wino_late_4_##PX, wino_late_5_##PX}

WINO_LATE_ROWS(1)
WINO_LATE_ROWS(2)
#if WINO_LATE_PX > 2
WINO_LATE_ROWS(3)
WINO_LATE_ROWS(4)
#endif

static const wino_late_fn wino_late_by_px[WINO_LATE_PX][6] = {
    WINO_LATE_NAMES(1),
    WINO_LATE_NAMES(2),
#if WINO_LATE_PX > 2
    WINO_LATE_NAMES(3),
    WINO_LATE_NAMES(4),
#endif
};

/* `blocks` input blocks from b on, of the LC_WINOGRAD_LATE channels that are summed at a time. */
static void wino_late_few(const lc_winograd_run *r, int64_t b, int64_t blocks, int last)
{
    const int64_t chunk = blocks * 9 * LC_VLEN * 2 * LC_VLEN;
    const float *w = r->u + b * 9 * LC_VLEN * 2 * LC_VLEN, *v = r->v + b * r->v_blk;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 6; i++) {
            const lc_winograd_range taking = lc_winograd_taking(r, 6 * i);
            if (taking.from < taking.to)
                wino_late_by_px[taking.to - taking.from - 1][i](
                    r, v + taking.from * LC_VLEN, w + k * LC_VLEN, blocks, last,
                    r->m + (taking.from * 2 + k) * LC_VLEN, b == 0,
                    k == 0 ? w + LC_VLEN : w + chunk);
        }
}

/* --- More tiles: the transformed weights of those channels are written out first. */

WINO_INLINE void wino_expand_vectors(const int nv, const lc_winograd_run *r, const float *w,
                                     int64_t blocks)
{
    const int width = nv * LC_VLEN, tap = LC_VLEN * width;
    const int64_t pos = LC_WINOGRAD_LATE_POS(LC_VLEN);
    float *to = r->late;
    for (int64_t b = 0; b < blocks; b++, w += 8 * tap)
        for (int c = 0; c < LC_VLEN; c++, w += width, to += 2 * LC_VLEN)
            for (int k = 0; k < nv; k++) {
                const float *f = w + k * LC_VLEN;
                lc_v t[3][6], u[6];
                WINO_UNROLL
                for (int j = 0; j < 3; j++)
                    wino_weights6(lc_v_loadu(f + j * tap), lc_v_loadu(f + (3 + j) * tap),
                                  lc_v_loadu(f + (6 + j) * tap), t[j]);
                WINO_UNROLL
                for (int i = 0; i < 6; i++) {
                    wino_weights6(t[0][i], t[1][i], t[2][i], u);
                    WINO_UNROLL
                    for (int j = 0; j < 6; j++)
                        lc_v_storeu(to + (i * 6 + j) * pos + k * LC_VLEN, u[j]);
                }
            }
}

WINO_NOINLINE void wino_expand(const lc_winograd_run *r, const float *w, int64_t blocks)
{
    if (r->nv == 2)
        wino_expand_vectors(2, r, w, blocks);
    else
        wino_expand_vectors(1, r, w, blocks);
}

static void wino_late_more(const lc_winograd_run *r, int64_t b, int64_t blocks, int last)
{
    const int64_t tap = LC_VLEN * r->nv * LC_VLEN;
    const float *w = r->u + b * 9 * tap, *next = w + blocks * 9 * tap;
    wino_expand(r, w, blocks);
    for (int pos = 0; pos < LC_WINOGRAD_POSITIONS; pos++)
        wino_multiply_tiles(r, pos, r->v + pos * r->v_pos + b * r->v_blk,
                            r->late + pos * LC_WINOGRAD_LATE_POS(LC_VLEN), blocks, last,
                            r->m + pos * r->m_pos, b == 0,
                            /* a ninth of the filters each time */
                            pos % 4 == 0 ? next + pos / 4 * blocks * tap : 0);
}

static void wino_multiply_late(const lc_winograd_run *r)
{
    const bool few = r->tiles <= WINO_LATE_PX && r->nv == 2;
    const int64_t most = LC_WINOGRAD_LATE / LC_VLEN;
    for (int64_t b = 0; b < r->blocks; b += most) {
        const int64_t blocks = r->blocks - b < most ? r->blocks - b : most;
        const int last = b + blocks == r->blocks ? r->last : LC_VLEN;
        if (few)
            wino_late_few(r, b, blocks, last);
        else
            wino_late_more(r, b, blocks, last);
    }
}
