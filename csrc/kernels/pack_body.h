/* The packing kernels, written in steps of 8 lanes that compilers turn into vectors. A file that
 * includes this defines before how 8 lanes are moved:
 *
 *     gather8   elements [0, n), n <= 8, of 8 lanes -> f[element][lane]; missing lanes: zeros
 *     scatter8  back; missing lanes are left out */
#ifndef LC_KERNELS_PACK_BODY_H
#define LC_KERNELS_PACK_BODY_H

#include <string.h>

#include "kernels/winograd_kernels.h"

enum { L = 8 };
/* Rows that go to one place at a time. Places are often a power of two apart, so that neighbouring
 * rows of all of them would drive each other out of the L1 cache, half written. */
enum { RUN = 4, RUN_FLOATS = RUN * LC_PACK_MAX_WIDTH };
/* Rows are fetched so long before they are written: 0.7 rather than 1.4 ns per weight (Strassen,
 * with what precedes, out of cache, Zen 5). */
enum { AHEAD = 32 };
#define PACK_ALIGNED __attribute__((aligned(32)))

static void gather8(const float *w, const int64_t lane[L], const int64_t *from, int n, float *f);
static void scatter8(const float *f, const int64_t lane[L], const int64_t *from, int n, float *w);

static inline int least(int a, int b)
{
    return a < b ? a : b;
}

/* Elements [0, n) of 8 lanes as f[element][lane]; f has room for n, rounded up to 8. */
static inline void gather(const float *w, const lc_pack_lanes *l, int i, const int64_t *from, int n,
                          float *f)
{
    for (int e = 0; e < n; e += 8)
        gather8(w, l->lane + i, from + e, least(n - e, 8), f + e * L);
}

static inline void scatter(const float *f, const lc_pack_lanes *l, int i, const int64_t *from,
                           int n, float *w)
{
    for (int e = 0; e < n; e += 8)
        scatter8(f + e * L, l->lane + i, from + e, least(n - e, 8), w);
}

static inline void scale8(const float *from, const double *scale, float *to)
{
    for (int i = 0; i < L; i++)
        to[i] = (float)(from[i] * scale[i]);
}

static inline void widen8(const float *from, const double *scale, double *to)
{
    for (int i = 0; i < L; i++)
        to[i] = from[i] * scale[i];
}

static inline void narrow8(const double *from, float *to)
{
    for (int i = 0; i < L; i++)
        to[i] = (float)from[i];
}

/* May be anywhere, also beyond what is written at all. */
static inline __attribute__((always_inline)) void fetch(const float *p, int64_t further)
{
    __builtin_prefetch((const void *)((uintptr_t)p + (uintptr_t)further * sizeof *p), 1);
}

/* `places` runs of n rows: from `runs` to where they belong. */
static inline void write_runs(const float *runs, int places, int n, int width, float *to,
                              int64_t pos)
{
    for (int m = 0; m < places; m++, to += pos, runs += RUN_FLOATS)
        memcpy(to, runs, (size_t)(n * width) * sizeof *to);
}

static void pack(const lc_pack_elements *t, const float *w, float *rows)
{
    float f[LC_PACK_TILE * L] PACK_ALIGNED;
    for (int i = 0; i < t->lanes->width; i += L) {
        gather(w, t->lanes, i, t->from, t->n, f);
        for (int e = 0; e < t->n; e++) {
            fetch(rows + t->row[e] + i, AHEAD * t->lanes->width);
            scale8(f + e * L, t->lanes->scale + i, rows + t->row[e] + i);
        }
    }
}

static void unpack(const lc_pack_elements *t, const float *rows, float *w)
{
    float f[LC_PACK_TILE * L] PACK_ALIGNED;
    for (int i = 0; i < t->lanes->width; i += L) {
        for (int e = 0; e < t->n; e++)
            scale8(rows + t->row[e] + i, t->lanes->scale + i, f + e * L);
        scatter(f, t->lanes, i, t->from, t->n, w);
    }
}

/* --- 3x3 */

/* Numbers that a column or row of three becomes. */
static inline int more(lc_winograd_kind kind)
{
    return kind == LC_WINOGRAD_3X3_2X2 ? 4 : 6;
}

static inline void spread(lc_winograd_kind kind, const double *a, const double *b, const double *c,
                          double u[6][L])
{
    for (int i = 0; i < L && kind == LC_WINOGRAD_3X3; i++) {
        const double s = (a[i] + c[i]) * (1. / 3), m = b[i] * (1. / 3);
        u[0][i] = a[i];
        u[1][i] = m + s;
        u[2][i] = m - s;
        u[3][i] = (a[i] * 4 + b[i] * 2 + c[i]) * (-4. / 15);
        u[4][i] = (a[i] - b[i] * 2 + c[i] * 4) * (1. / 15);
        u[5][i] = c[i];
    }
    for (int i = 0; i < L && kind == LC_WINOGRAD_3X3_2X2; i++) {
        const double s = (a[i] + c[i]) * 0.5, m = b[i] * 0.5;
        u[0][i] = a[i];
        u[1][i] = s + m;
        u[2][i] = s - m;
        u[3][i] = c[i];
    }
    for (int i = 0; i < L && kind == LC_WINOGRAD_3X3_S2; i++) {
        u[0][i] = a[i];
        u[1][i] = (c[i] - a[i]) * (2. / 9);
        u[2][i] = (a[i] * 2 + c[i]) * (-4. / 9);
        u[3][i] = (a[i] + c[i] * 2) * (1. / 9);
        u[4][i] = c[i];
        u[5][i] = b[i];
    }
}

/* f[tap][lane] -> the rows in runs; `later` floats after `to`: where rows will go, `pos` apart. */
static inline __attribute__((always_inline)) void transform(const lc_winograd_kind kind,
                                                            const float *f, const double *scale,
                                                            float *u, const float *to,
                                                            int64_t later, int64_t pos)
{
    double t[3][6][L] PACK_ALIGNED, r[6][L] PACK_ALIGNED;
    for (int j = 0; j < 3; j++) {
        double a[L], b[L], c[L];
        widen8(f + j * L, scale, a);
        widen8(f + (3 + j) * L, scale, b);
        widen8(f + (6 + j) * L, scale, c);
        spread(kind, a, b, c, t[j]);
    }
    for (int i = 0; i < more(kind); i++) {
        spread(kind, t[0][i], t[1][i], t[2][i], r);
        for (int j = 0; j < more(kind); j++, u += RUN_FLOATS, later += pos) {
            fetch(to, later);
            narrow8(r[j], u);
        }
    }
}

/* And back: the outer numbers are there, and for stride 2 the middle one too, else it follows from
 * the sum or difference of two others. */
static inline void three(lc_winograd_kind kind, double u[6][L], double *a, double *b, double *c)
{
    for (int i = 0; i < L; i++) {
        a[i] = u[0][i];
        b[i] = kind == LC_WINOGRAD_3X3       ? 1.5 * (u[1][i] + u[2][i])
               : kind == LC_WINOGRAD_3X3_2X2 ? u[1][i] - u[2][i]
                                             : u[5][i];
        c[i] = u[kind == LC_WINOGRAD_3X3 ? 5 : kind == LC_WINOGRAD_3X3_2X2 ? 3 : 4][i];
    }
}

static inline __attribute__((always_inline)) void
untransform(const lc_winograd_kind kind, const float *u, int64_t pos, const double *scale, float *f)
{
    static const double one[L] = {1, 1, 1, 1, 1, 1, 1, 1};
    double r[6][L] PACK_ALIGNED, t[3][6][L] PACK_ALIGNED, v[3][L];
    for (int j = 0; j < more(kind); j++) {
        if (kind == LC_WINOGRAD_3X3_S2 && (j == 1 || j == 2 || j == 3))
            continue;
        for (int i = 0; i < more(kind); i++)
            widen8(u + (i * more(kind) + j) * pos, one, r[i]);
        three(kind, r, t[0][j], t[1][j], t[2][j]);
    }
    for (int row = 0; row < 3; row++) {
        three(kind, t[row], v[0], v[1], v[2]);
        for (int j = 0; j < 3; j++)
            for (int i = 0; i < L; i++)
                f[(row * 3 + j) * L + i] = (float)(v[j][i] * scale[i]);
    }
}

/* Where the taps of all filters are. */
static inline void tap_offsets(const lc_pack_filters *t, int64_t from[LC_PACK_TILE * 9])
{
    for (int k = 0; k < t->n; k++)
        for (int tap = 0; tap < 9; tap++)
            from[k * 9 + tap] = t->from + k * t->next + (t->turned ? 8 - tap : tap);
}

/* Copies per kind, each without the others' code. */
#define PACK_BY_KIND(DO)                                                                           \
    switch (t->kind) {                                                                             \
    case LC_WINOGRAD_3X3_2X2:                                                                      \
        DO(LC_WINOGRAD_3X3_2X2);                                                                   \
        break;                                                                                     \
    case LC_WINOGRAD_3X3_S2:                                                                       \
        DO(LC_WINOGRAD_3X3_S2);                                                                    \
        break;                                                                                     \
    default:                                                                                       \
        DO(LC_WINOGRAD_3X3);                                                                       \
    }

static void winograd(const lc_pack_filters *t, const float *w, float *u)
{
    const int width = t->lanes->width;
    int64_t from[LC_PACK_TILE * 9];
    float f[LC_PACK_MAX_WIDTH / L][LC_PACK_TILE * 9 * L] PACK_ALIGNED;
    float runs[36 * RUN_FLOATS] PACK_ALIGNED;
    tap_offsets(t, from);
    for (int i = 0; i < width; i += L)
        gather(w, t->lanes, i, from, t->n * 9, f[i / L]);
    for (int first = 0; first < t->n; first += RUN) {
        const int n = least(t->n - first, RUN);
#define PACK_ALL(KIND)                                                                             \
    for (int k = 0; k < n; k++)                                                                    \
        for (int i = 0; i < width; i += L)                                                         \
            transform(KIND, f[i / L] + (first + k) * 9 * L, t->lanes->scale + i,                   \
                      runs + k * width + i, u, (first + k + AHEAD) * width + i, t->pos);           \
    write_runs(runs, more(KIND) * more(KIND), n, width, u + first * width, t->pos)
        PACK_BY_KIND(PACK_ALL)
    }
}

static void unwinograd(const lc_pack_filters *t, const float *u, float *w)
{
    const int width = t->lanes->width;
    int64_t from[LC_PACK_TILE * 9];
    float f[LC_PACK_TILE * 9 * L] PACK_ALIGNED;
    tap_offsets(t, from);
    for (int i = 0; i < width; i += L) {
        const double *scale = t->lanes->scale + i;
#define UNPACK_ALL(KIND)                                                                           \
    for (int k = 0; k < t->n; k++)                                                                 \
    untransform(KIND, u + k * width + i, t->pos, scale, f + k * 9 * L)
        PACK_BY_KIND(UNPACK_ALL)
        scatter(f, t->lanes, i, from, t->n * 9, w);
    }
}

/* --- 1x1 */

/* b[row][column] of halves -> the right factors of Strassen's seven products. */
static inline __attribute__((always_inline)) void
seven(const double *b11, const double *b12, const double *b21, const double *b22, double u[7][L])
{
    for (int i = 0; i < L; i++) {
        u[0][i] = b11[i];
        u[1][i] = b21[i];
        u[2][i] = b22[i];
        u[4][i] = b12[i] - b11[i];
        u[5][i] = b22[i] - u[4][i];
        u[3][i] = u[5][i] - b21[i];
        u[6][i] = b22[i] - b12[i];
    }
}

static inline __attribute__((always_inline)) void unseven(double u[7][L], double *b11, double *b12,
                                                          double *b21, double *b22)
{
    for (int i = 0; i < L; i++) {
        b11[i] = u[0][i];
        b12[i] = u[4][i] + u[0][i];
        b21[i] = u[1][i];
        b22[i] = u[2][i];
    }
}

static inline void channel_offsets(const lc_pack_parts *t, int row, int64_t from[LC_PACK_TILE])
{
    for (int k = 0; k < t->n; k++)
        from[k] = t->from + row * t->part + k * t->next;
}

/* The rows of one k-step, 8 lanes, as above. */
static inline __attribute__((always_inline)) void pack_parts(const lc_pack_parts *t,
                                                             const int parts, const float *f, int i,
                                                             float *u, const float *to,
                                                             int64_t later)
{
    double b[4][4][L], s[7][4][L], v[7][L];
    for (int r = 0; r < parts; r++)
        for (int q = 0; q < parts; q++, f += LC_PACK_TILE * L)
            widen8(f, t->lanes[q].scale + i, b[r][q]);
    for (int e = 0; parts == 4 && e < 4; e++) {
        const int r = e / 2, q = e % 2;
        seven(b[r][q], b[r][q + 2], b[r + 2][q], b[r + 2][q + 2], v);
        for (int m = 0; m < 7; m++)
            memcpy(s[m][e], v[m], sizeof v[m]);
    }
    for (int m = 0; m < (parts == 2 ? 1 : 7); m++) {
        if (parts == 2)
            seven(b[0][0], b[0][1], b[1][0], b[1][1], v);
        else
            seven(s[m][0], s[m][1], s[m][2], s[m][3], v);
        for (int n = 0; n < 7; n++, u += RUN_FLOATS, later += t->pos) {
            fetch(to, later);
            narrow8(v[n], u);
        }
    }
}

static void strassen(const lc_pack_parts *t, const float *w, float *u)
{
    const int parts = t->parts, width = t->lanes->width;
    int64_t from[LC_PACK_TILE];
    float f[LC_PACK_MAX_WIDTH / L][4 * 4 * LC_PACK_TILE * L] PACK_ALIGNED; /* of inputs, outputs */
    float runs[49 * RUN_FLOATS] PACK_ALIGNED;
    for (int r = 0; r < parts; r++) {
        channel_offsets(t, r, from);
        for (int q = 0; q < parts; q++)
            for (int i = 0; i < width; i += L)
                gather(w, &t->lanes[q], i, from, t->n,
                       f[i / L] + (r * parts + q) * LC_PACK_TILE * L);
    }
    for (int first = 0; first < t->n; first += RUN) {
        const int n = least(t->n - first, RUN);
        for (int k = 0; k < n; k++)
            for (int i = 0; i < width; i += L) {
                const float *at = f[i / L] + (first + k) * L;
                const int64_t later = (first + k + AHEAD) * width + i;
                if (parts == 2)
                    pack_parts(t, 2, at, i, runs + k * width + i, u, later);
                else
                    pack_parts(t, 4, at, i, runs + k * width + i, u, later);
            }
        write_runs(runs, parts == 2 ? 7 : 49, n, width, u + first * width, t->pos);
    }
}

/* The four of seven rows that lead back. */
static inline __attribute__((always_inline)) void
unseven_rows(const float *u, int64_t pos, double *b11, double *b12, double *b21, double *b22)
{
    double v[7][L];
    for (int i = 0; i < L; i++) {
        v[0][i] = u[i];
        v[1][i] = u[pos + i];
        v[2][i] = u[2 * pos + i];
        v[4][i] = u[4 * pos + i];
    }
    unseven(v, b11, b12, b21, b22);
}

static inline __attribute__((always_inline)) void
unpack_parts(const lc_pack_parts *t, const int parts, const float *u, int i, float *f)
{
    double b[4][4][L], s[4][7][L];
    if (parts == 2)
        unseven_rows(u, t->pos, b[0][0], b[0][1], b[1][0], b[1][1]);
    for (int m = 0; parts == 4 && m < 7; m++)
        if (m < 3 || m == 4)
            unseven_rows(u + m * 7 * t->pos, t->pos, s[0][m], s[1][m], s[2][m], s[3][m]);
    for (int e = 0; parts == 4 && e < 4; e++) {
        const int r = e / 2, q = e % 2;
        unseven(s[e], b[r][q], b[r][q + 2], b[r + 2][q], b[r + 2][q + 2]);
    }
    for (int r = 0; r < parts; r++)
        for (int q = 0; q < parts; q++, f += LC_PACK_TILE * L)
            for (int j = 0; j < L; j++)
                f[j] = (float)(b[r][q][j] * t->lanes[q].scale[i + j]);
}

static void unstrassen(const lc_pack_parts *t, const float *u, float *w)
{
    const int parts = t->parts, width = t->lanes->width;
    int64_t from[LC_PACK_TILE];
    float f[4 * 4 * LC_PACK_TILE * L] PACK_ALIGNED; /* as in strassen */
    for (int i = 0; i < width; i += L) {
        for (int k = 0; k < t->n; k++)
            if (parts == 2)
                unpack_parts(t, 2, u + k * width + i, i, f + k * L);
            else
                unpack_parts(t, 4, u + k * width + i, i, f + k * L);
        for (int r = 0; r < parts; r++) {
            channel_offsets(t, r, from);
            for (int q = 0; q < parts; q++)
                scatter(f + (r * parts + q) * LC_PACK_TILE * L, &t->lanes[q], i, from, t->n, w);
        }
    }
}

#endif
