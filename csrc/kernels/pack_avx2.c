/* Squares of 8 lanes by 8 elements, transposed in registers. */
#include "kernels/pack_kernels.h"

#include <immintrin.h>

#include "kernels/pack_body.h"

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

static inline bool follow_each_other(const int64_t *at, int n)
{
    for (int i = 1; i < n; i++)
        if (at[i] != at[0] + i)
            return false;
    return true;
}

static void gather8(const float *w, const int64_t lane[L], const int64_t *from, int n, float *f)
{
    __m256 r[8];
    if (!follow_each_other(from, n)) {
        const bool side_by_side = lane[0] >= 0 && follow_each_other(lane, L);
        for (int e = 0; e < n; e++) {
            if (side_by_side)
                _mm256_store_ps(f + e * L, _mm256_loadu_ps(w + lane[0] + from[e]));
            for (int i = 0; i < L && !side_by_side; i++)
                f[e * L + i] = lane[i] < 0 ? 0.0f : w[lane[i] + from[e]];
        }
        return;
    }
    for (int i = 0; i < L; i++) {
        if (lane[i] < 0) {
            r[i] = _mm256_setzero_ps();
            continue;
        }
        const float *at = w + lane[i] + from[0];
        r[i] = n == 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, first(n));
        _mm_prefetch((const char *)(at + 32), _MM_HINT_T0);
    }
    transpose8(r);
    for (int e = 0; e < 8; e++)
        _mm256_store_ps(f + e * L, r[e]);
}

static void scatter8(const float *f, const int64_t lane[L], const int64_t *from, int n, float *w)
{
    __m256 r[8];
    if (!follow_each_other(from, n)) {
        for (int e = 0; e < n; e++)
            for (int i = 0; i < L; i++)
                if (lane[i] >= 0)
                    w[lane[i] + from[e]] = f[e * L + i];
        return;
    }
    for (int e = 0; e < 8; e++)
        r[e] = e < n ? _mm256_load_ps(f + e * L) : _mm256_setzero_ps();
    transpose8(r);
    for (int i = 0; i < L; i++) {
        if (lane[i] < 0)
            continue;
        if (n == 8)
            _mm256_storeu_ps(w + lane[i] + from[0], r[i]);
        else
            _mm256_maskstore_ps(w + lane[i] + from[0], first(n), r[i]);
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
    k->strassen = strassen;
    k->unstrassen = unstrassen;
    k->differences = differences;
}
