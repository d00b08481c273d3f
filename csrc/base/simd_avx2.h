/* Eight floats at a time: AVX2 + FMA. Only for files named *_avx2.c, which get -mavx2 -mfma.
 *
 * simd_avx512.h offers the same names for sixteen, so that a kernel can be written once for both.
 * lc_v is a vector of LC_VLEN floats, lc_vi one of 32-bit lane numbers, lc_vm a mask of lanes.
 * "aligned" means 4 * LC_VLEN bytes. */
#ifndef LC_BASE_SIMD_AVX2_H
#define LC_BASE_SIMD_AVX2_H

#ifdef LC_BASE_SIMD_AVX512_H
#error "simd_avx2.h and simd_avx512.h define the same names: include one of them"
#endif
#if !defined(__AVX2__) || !defined(__FMA__)
#error "simd_avx2.h needs -mavx2 -mfma"
#endif

#include <immintrin.h>
#include <stdint.h>

#define LC_VLEN 8

typedef __m256 lc_v;
typedef __m256i lc_vi;
typedef __m256i lc_vm; /* all ones or all zeros per lane */

static inline lc_v lc_v_zero(void)
{
    return _mm256_setzero_ps();
}

static inline lc_v lc_v_set1(float x)
{
    return _mm256_set1_ps(x);
}

static inline lc_v lc_v_broadcast(const float *p)
{
    return _mm256_broadcast_ss(p);
}

static inline lc_v lc_v_load(const float *p)
{
    return _mm256_load_ps(p);
}

static inline lc_v lc_v_loadu(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void lc_v_store(float *p, lc_v a)
{
    _mm256_store_ps(p, a);
}

static inline void lc_v_storeu(float *p, lc_v a)
{
    _mm256_storeu_ps(p, a);
}

/* Past the caches, to a multiple of a vector; lc_v_stream_end before others read it. */
static inline void lc_v_stream(float *p, lc_v a)
{
    _mm256_stream_ps(p, a);
}

static inline void lc_v_stream_end(void)
{
    _mm_sfence();
}

static inline lc_v lc_v_add(lc_v a, lc_v b)
{
    return _mm256_add_ps(a, b);
}

static inline lc_v lc_v_sub(lc_v a, lc_v b)
{
    return _mm256_sub_ps(a, b);
}

static inline lc_v lc_v_mul(lc_v a, lc_v b)
{
    return _mm256_mul_ps(a, b);
}

static inline lc_v lc_v_div(lc_v a, lc_v b)
{
    return _mm256_div_ps(a, b);
}

/* a * b + c, rounded once */
static inline lc_v lc_v_fma(lc_v a, lc_v b, lc_v c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* c - a * b, rounded once */
static inline lc_v lc_v_fnma(lc_v a, lc_v b, lc_v c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

static inline lc_v lc_v_sqrt(lc_v a)
{
    return _mm256_sqrt_ps(a);
}

/* To the nearest whole number, ties to even. */
static inline lc_v lc_v_round(lc_v a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The smaller and the larger one; b where either is NaN (the order of operands matters). */
static inline lc_v lc_v_min(lc_v a, lc_v b)
{
    return _mm256_min_ps(a, b);
}

static inline lc_v lc_v_max(lc_v a, lc_v b)
{
    return _mm256_max_ps(a, b);
}

/* The larger one; NaN where either is NaN. */
static inline lc_v lc_v_max_nan(lc_v a, lc_v b)
{
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

/* max(a, 0); NaN stays NaN. */
static inline lc_v lc_v_relu(lc_v a)
{
    return _mm256_max_ps(_mm256_setzero_ps(), a);
}

/* Lanes: the first n of them (n may lie outside 0 .. LC_VLEN); where a > b, a == b (never where
 * either is NaN); and m ? a : b. */
static inline lc_vm lc_v_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline lc_vm lc_v_gt(lc_v a, lc_v b)
{
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

static inline lc_vm lc_v_eq(lc_v a, lc_v b)
{
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

static inline lc_v lc_v_select(lc_vm m, lc_v a, lc_v b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m));
}

/* Memory outside the mask is neither read nor written; lanes outside it read as 0. */
static inline lc_v lc_v_maskload(const float *p, lc_vm m)
{
    return _mm256_maskload_ps(p, m);
}

static inline void lc_v_maskstore(float *p, lc_vm m, lc_v a)
{
    _mm256_maskstore_ps(p, m, a);
}

static inline lc_vi lc_vi_loadu(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* out[i] = a[idx[i] % LC_VLEN] */
static inline lc_v lc_v_perm(lc_v a, lc_vi idx)
{
    return _mm256_permutevar8x32_ps(a, idx);
}

/* Always ((0+4) + (2+6)) + ((1+5) + (3+7)). */
static inline float lc_v_hsum(lc_v a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* a * 2^n, rounded once, for whole n in -252 .. 254. */
static inline lc_v lc_v_scale(lc_v a, lc_v n)
{
    /* Two factors: 2^128 and 2^-127 are no normal numbers, their halves are. */
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half), bias = _mm256_set1_epi32(127);
    __m256i f = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i g = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(f)), _mm256_castsi256_ps(g));
}

/* *a += *x * w. */
static inline __attribute__((always_inline)) void lc_v_fma_one(lc_v *a, const float *x, lc_v w)
{
    lc_v t;
    __asm__("vbroadcastss %2, %1\n\t"
            "vfmadd231ps %3, %1, %0"
            : "+x"(*a), "=&x"(t)
            : "m"(*x), "x"(w));
}

#include "base/simd_fma.h"
#include "base/simd_math.h"

#endif
