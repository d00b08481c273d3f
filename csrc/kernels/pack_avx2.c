/* Squares of 8 lanes by 8 elements, transposed in registers. */
#include "kernels/pack_kernels.h"

#include <immintrin.h>

#include "kernels/winograd_kernels.h"

#define MAX_WIDTH 32

static inline __m256i first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline void transpose8(__m256 r[8])
{
    __m256 t[8], s[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        s[i] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
        s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
        s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
        s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
    }
}

/* Elements [at, at + n) of lanes [i, i + 8), n <= 8, as rows. */
static inline void load_rows(const lc_pack_tile *t, const float *w, int64_t at, int n, int i,
                             __m256 r[8])
{
    for (int j = 0; j < 8; j++) {
        const int64_t lane = t->lane[i + j];
        if (lane < 0) {
            r[j] = _mm256_setzero_ps();
            continue;
        }
        const float *from = w + lane + at;
        r[j] = n == 8 ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, first(n));
        _mm_prefetch((const char *)(from + 32), _MM_HINT_T0);
    }
    transpose8(r);
}

static inline void store_lanes(const lc_pack_tile *t, float *w, int64_t at, int n, int i,
                               __m256 r[8])
{
    transpose8(r);
    for (int j = 0; j < 8; j++) {
        const int64_t lane = t->lane[i + j];
        if (lane < 0)
            continue;
        if (n == 8)
            _mm256_storeu_ps(w + lane + at, r[j]);
        else
            _mm256_maskstore_ps(w + lane + at, first(n), r[j]);
    }
}

static inline __m256d low(__m256 v)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}

static inline __m256d high(__m256 v)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

static inline __m256 join(__m256d l, __m256d h)
{
    return _mm256_set_m128(_mm256_cvtpd_ps(h), _mm256_cvtpd_ps(l));
}

static inline __m256 scaled(__m256 v, __m256d l, __m256d h)
{
    return join(_mm256_mul_pd(low(v), l), _mm256_mul_pd(high(v), h));
}

static void pack(const lc_pack_tile *t, const float *w, float *rows)
{
    for (int e = 0; e < t->n; e += 8) {
        const int n = t->n - e < 8 ? t->n - e : 8;
        for (int i = 0; i < t->width; i += 8) {
            const __m256d l = _mm256_loadu_pd(t->scale + i), h = _mm256_loadu_pd(t->scale + i + 4);
            __m256 r[8];
            load_rows(t, w, t->at + e, n, i, r);
            for (int j = 0; j < n; j++)
                _mm256_storeu_ps(rows + t->row[e + j] + i, scaled(r[j], l, h));
        }
    }
}

static void unpack(const lc_pack_tile *t, const float *rows, float *w)
{
    for (int i = 0; i < t->width; i += 8) {
        const __m256d l = _mm256_loadu_pd(t->scale + i), h = _mm256_loadu_pd(t->scale + i + 4);
        for (int e = 0; e < t->n; e += 8) {
            const int n = t->n - e < 8 ? t->n - e : 8;
            __m256 r[8];
            for (int j = 0; j < 8; j++)
                r[j] = j < n ? scaled(_mm256_loadu_ps(rows + t->row[e + j] + i), l, h)
                             : _mm256_setzero_ps();
            store_lanes(t, w, t->at + e, n, i, r);
        }
    }
}

/* Six combinations by the rows of G, with the sums of pack_scalar.c: products with zero count,
 * since they decide the sign of a zero and spread what is not finite. */
static inline void six(__m256d a, __m256d b, __m256d c, __m256d out[6])
{
    const __m256d zero = _mm256_setzero_pd(), third = _mm256_set1_pd(1. / 3);
    const __m256d a3 = _mm256_mul_pd(a, third), b3 = _mm256_mul_pd(b, third),
                  c3 = _mm256_mul_pd(c, third);
    out[0] = _mm256_add_pd(_mm256_add_pd(a, _mm256_mul_pd(zero, b)), _mm256_mul_pd(zero, c));
    out[1] = _mm256_add_pd(_mm256_add_pd(a3, b3), c3);
    out[2] = _mm256_sub_pd(_mm256_sub_pd(b3, a3), c3);
    out[3] = _mm256_add_pd(_mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(-16. / 15), a),
                                         _mm256_mul_pd(_mm256_set1_pd(-8. / 15), b)),
                           _mm256_mul_pd(_mm256_set1_pd(-4. / 15), c));
    out[4] = _mm256_add_pd(_mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(1. / 15), a),
                                         _mm256_mul_pd(_mm256_set1_pd(-2. / 15), b)),
                           _mm256_mul_pd(_mm256_set1_pd(4. / 15), c));
    out[5] = _mm256_add_pd(_mm256_add_pd(_mm256_mul_pd(zero, a), _mm256_mul_pd(zero, b)), c);
}

/* One filter of 8 lanes: f[tap][lane] -> 36 rows. */
static inline void transform(const float *f, __m256d l, __m256d h, float *u, int64_t pos)
{
    __m256d t[2][3][6], p[6], q[6];
    for (int j = 0; j < 3; j++) {
        const __m256 a = _mm256_load_ps(f + j * 8), b = _mm256_load_ps(f + (3 + j) * 8),
                     c = _mm256_load_ps(f + (6 + j) * 8);
        six(_mm256_mul_pd(low(a), l), _mm256_mul_pd(low(b), l), _mm256_mul_pd(low(c), l), t[0][j]);
        six(_mm256_mul_pd(high(a), h), _mm256_mul_pd(high(b), h), _mm256_mul_pd(high(c), h),
            t[1][j]);
    }
    for (int i = 0; i < 6; i++) {
        six(t[0][0][i], t[0][1][i], t[0][2][i], p);
        six(t[1][0][i], t[1][1][i], t[1][2][i], q);
        for (int j = 0; j < 6; j++)
            _mm256_storeu_ps(u + (i * 6 + j) * pos, join(p[j], q[j]));
    }
}

/* Rows are finished one by one, so that a line of the cache is written once. */
static void winograd(const lc_pack_tile *t, const float *w, float *u)
{
    float f[LC_PACK_TILE * 9 * MAX_WIDTH] __attribute__((aligned(32)));
    const int each = LC_PACK_TILE * 9 * 8; /* floats of f per 8 lanes */
    for (int i = 0; i < t->width; i += 8)
        for (int e = 0; e < t->n * 9; e += 8) {
            __m256 r[8];
            load_rows(t, w, t->at + e, t->n * 9 - e < 8 ? t->n * 9 - e : 8, i, r);
            for (int j = 0; j < 8; j++)
                _mm256_store_ps(f + i / 8 * each + (e + j) * 8, r[j]);
        }
    for (int k = 0; k < t->n; k++)
        for (int i = 0; i < t->width; i += 8)
            transform(f + i / 8 * each + k * 72, _mm256_loadu_pd(t->scale + i),
                      _mm256_loadu_pd(t->scale + i + 4), u + k * t->width + i, t->pos);
}

static inline __m256d middle(__m256d a, __m256d b)
{
    return _mm256_mul_pd(_mm256_set1_pd(1.5), _mm256_add_pd(a, b));
}

/* One filter of 8 lanes back, as in pack_scalar.c. */
static inline void untransform(const float *u, int64_t pos, __m256d l, __m256d h, float *f)
{
    __m256d t[2][3][6];
    for (int p = 0; p < 6; p++) {
        const __m256 a = _mm256_loadu_ps(u + p * pos), b = _mm256_loadu_ps(u + (6 + p) * pos),
                     c = _mm256_loadu_ps(u + (12 + p) * pos),
                     d = _mm256_loadu_ps(u + (30 + p) * pos);
        t[0][0][p] = low(a);
        t[1][0][p] = high(a);
        t[0][1][p] = middle(low(b), low(c));
        t[1][1][p] = middle(high(b), high(c));
        t[0][2][p] = low(d);
        t[1][2][p] = high(d);
    }
    for (int r = 0; r < 3; r++) {
        const __m256d *p = t[0][r], *q = t[1][r];
        _mm256_store_ps(f + r * 24, join(_mm256_mul_pd(p[0], l), _mm256_mul_pd(q[0], h)));
        _mm256_store_ps(f + r * 24 + 8, join(_mm256_mul_pd(middle(p[1], p[2]), l),
                                             _mm256_mul_pd(middle(q[1], q[2]), h)));
        _mm256_store_ps(f + r * 24 + 16, join(_mm256_mul_pd(p[5], l), _mm256_mul_pd(q[5], h)));
    }
}

static void unwinograd(const lc_pack_tile *t, const float *u, float *w)
{
    float f[LC_PACK_TILE * 9 * 8] __attribute__((aligned(32)));
    for (int i = 0; i < t->width; i += 8) {
        const __m256d l = _mm256_loadu_pd(t->scale + i), h = _mm256_loadu_pd(t->scale + i + 4);
        for (int k = 0; k < t->n; k++)
            untransform(u + k * t->width + i, t->pos, l, h, f + k * 72);
        for (int e = 0; e < t->n * 9; e += 8) {
            const int n = t->n * 9 - e < 8 ? t->n * 9 - e : 8;
            __m256 r[8];
            for (int j = 0; j < 8; j++)
                r[j] = j < n ? _mm256_load_ps(f + (e + j) * 8) : _mm256_setzero_ps();
            store_lanes(t, w, t->at + e, n, i, r);
        }
    }
}

static inline __m256i ordered(__m256i v)
{
    return _mm256_xor_si256(v, _mm256_srli_epi32(_mm256_srai_epi32(v, 31), 1));
}

static inline __m256i codes8(const float *w, const float *g, __m256i middle, __m256i escape)
{
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)w);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)g);
    const __m256i d = _mm256_sub_epi32(ordered(a), ordered(b));
    return _mm256_min_epu32(_mm256_add_epi32(d, middle), escape);
}

static void differences(const float *w, const float *g, int64_t n, int bits, unsigned char *codes,
                        uint32_t *far)
{
    const int last = (1 << bits) - 1;
    const __m256i middle = _mm256_set1_epi32(last / 2), escape = _mm256_set1_epi32(last);
    const __m256i pairs = _mm256_set1_epi16((short)(1 | 1 << bits << 8)); /* of codes, as bytes */
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32, codes += 4 * bits) {
        const __m256i a = codes8(w + i, g + i, middle, escape);
        const __m256i b = codes8(w + i + 8, g + i + 8, middle, escape);
        const __m256i c = codes8(w + i + 16, g + i + 16, middle, escape);
        const __m256i d = codes8(w + i + 24, g + i + 24, middle, escape);
        const __m256i mixed =
            _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        const __m256i bytes = _mm256_permutevar8x32_epi32(mixed, in_order);
        far[i / 32] =
            (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8((char)last)));
        __m256i joined = _mm256_maddubs_epi16(bytes, pairs);
        joined = _mm256_packus_epi16(joined, joined);
        joined = _mm256_permute4x64_epi64(joined, _MM_SHUFFLE(3, 1, 2, 0));
        __m128i out = _mm256_castsi256_si128(joined); /* 16 bytes, a pair in each */
        if (bits == 4) {
            _mm_storeu_si128((__m128i *)(void *)codes, out);
            continue;
        }
        out = _mm_maddubs_epi16(out, _mm_set1_epi16(1 | 16 << 8));
        _mm_storel_epi64((__m128i *)(void *)codes, _mm_packus_epi16(out, out));
    }
    if (i < n) {
        lc_pack_kernels plain;
        lc_pack_kernels_fill__scalar(&plain);
        plain.differences(w + i, g + i, n - i, bits, codes, far + i / 32);
    }
}

void lc_pack_kernels_fill__avx2(lc_pack_kernels *k)
{
    k->pack = pack;
    k->unpack = unpack;
    k->winograd = winograd;
    k->unwinograd = unwinograd;
    k->differences = differences;
}
