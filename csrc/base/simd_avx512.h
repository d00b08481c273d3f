/* Sixteen floats at a time: AVX-512 F, BW, DQ, VL. Only for files named *_avx512.c, which get the
 * matching -m flags.
 *
 * The same names and meanings as simd_avx2.h, which documents them. With LC_EMULATE_AVX512 and
 * -mavx2 -mfma the interface is built from pairs of AVX2 registers: the same bits, so that kernels
 * for sixteen lanes can be tested on machines without AVX-512. */
#ifndef LC_BASE_SIMD_AVX512_H
#define LC_BASE_SIMD_AVX512_H

#ifdef LC_BASE_SIMD_AVX2_H
#error "simd_avx2.h and simd_avx512.h define the same names: include one of them"
#endif

#include <immintrin.h>
#include <stdint.h>

#define LC_VLEN 16

#ifdef LC_EMULATE_AVX512
#include "base/simd_avx512_emulated.h"
#else

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__)
#error "simd_avx512.h needs -mavx512f -mavx512bw -mavx512dq -mavx512vl (or LC_EMULATE_AVX512)"
#endif

typedef __m512 lc_v;
typedef __m512i lc_vi;
typedef __mmask16 lc_vm;

static inline lc_v lc_v_zero(void)
{
    return _mm512_setzero_ps();
}

static inline lc_v lc_v_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline lc_v lc_v_broadcast(const float *p)
{
    return _mm512_set1_ps(*p);
}

static inline lc_v lc_v_load(const float *p)
{
    return _mm512_load_ps(p);
}

static inline lc_v lc_v_loadu(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void lc_v_store(float *p, lc_v a)
{
    _mm512_store_ps(p, a);
}

static inline void lc_v_storeu(float *p, lc_v a)
{
    _mm512_storeu_ps(p, a);
}

static inline void lc_v_stream(float *p, lc_v a)
{
    _mm512_stream_ps(p, a);
}

static inline void lc_v_stream_end(void)
{
    _mm_sfence();
}

static inline lc_v lc_v_add(lc_v a, lc_v b)
{
    return _mm512_add_ps(a, b);
}

static inline lc_v lc_v_sub(lc_v a, lc_v b)
{
    return _mm512_sub_ps(a, b);
}

static inline lc_v lc_v_mul(lc_v a, lc_v b)
{
    return _mm512_mul_ps(a, b);
}

static inline lc_v lc_v_div(lc_v a, lc_v b)
{
    return _mm512_div_ps(a, b);
}

static inline lc_v lc_v_fma(lc_v a, lc_v b, lc_v c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline lc_v lc_v_fnma(lc_v a, lc_v b, lc_v c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

static inline lc_v lc_v_sqrt(lc_v a)
{
    return _mm512_sqrt_ps(a);
}

static inline lc_v lc_v_round(lc_v a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline lc_v lc_v_min(lc_v a, lc_v b)
{
    return _mm512_min_ps(a, b);
}

static inline lc_v lc_v_max(lc_v a, lc_v b)
{
    return _mm512_max_ps(a, b);
}

static inline lc_v lc_v_max_nan(lc_v a, lc_v b)
{
    return _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}

static inline lc_v lc_v_relu(lc_v a)
{
    return _mm512_max_ps(_mm512_setzero_ps(), a);
}

static inline lc_vm lc_v_first(int n)
{
    return (lc_vm)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

static inline lc_vm lc_v_gt(lc_v a, lc_v b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

static inline lc_vm lc_v_eq(lc_v a, lc_v b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

static inline lc_v lc_v_select(lc_vm m, lc_v a, lc_v b)
{
    return _mm512_mask_mov_ps(b, m, a);
}

static inline lc_v lc_v_maskload(const float *p, lc_vm m)
{
    return _mm512_maskz_loadu_ps(m, p);
}

static inline void lc_v_maskstore(float *p, lc_vm m, lc_v a)
{
    _mm512_mask_storeu_ps(p, m, a);
}

static inline lc_vi lc_vi_loadu(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

static inline lc_v lc_v_perm(lc_v a, lc_vi idx)
{
    return _mm512_permutexvar_ps(idx, a);
}

/* Lane i + lane i + 8 first, then as in simd_avx2.h. */
static inline float lc_v_hsum(lc_v a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline lc_v lc_v_scale(lc_v a, lc_v n)
{
    return _mm512_scalef_ps(a, n);
}

/* *a += *x * w, the element from memory: one operation. */
static inline __attribute__((always_inline)) void lc_v_fma_one(lc_v *a, const float *x, lc_v w)
{
    __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(*a) : "m"(*x), "v"(w));
}

#include "base/simd_fma.h"

#endif

#include "base/simd_math.h"

#endif
