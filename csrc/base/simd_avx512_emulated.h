/* The types and operations of simd_avx512.h as pairs of AVX2 registers; included by it under
 * LC_EMULATE_AVX512. */
#ifndef LC_BASE_SIMD_AVX512_EMULATED_H
#define LC_BASE_SIMD_AVX512_EMULATED_H

#if !defined(__AVX2__) || !defined(__FMA__)
#error "LC_EMULATE_AVX512 needs -mavx2 -mfma"
#endif

/* Lanes 0 .. 7 are lo, 8 .. 15 are hi. A struct, because a 64-byte vector type would change the ABI
 * (-Wpsabi). */
typedef struct lc_v {
    __m256 lo, hi;
} lc_v;

typedef struct lc_vi {
    __m256i lo, hi;
} lc_vi;

typedef uint16_t lc_vm;

static inline lc_v lc_v_zero(void)
{
    return (lc_v){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

static inline lc_v lc_v_set1(float x)
{
    return (lc_v){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline lc_v lc_v_broadcast(const float *p)
{
    return lc_v_set1(*p);
}

static inline lc_v lc_v_load(const float *p)
{
    return (lc_v){_mm256_load_ps(p), _mm256_load_ps(p + 8)};
}

static inline lc_v lc_v_loadu(const float *p)
{
    return (lc_v){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void lc_v_store(float *p, lc_v a)
{
    _mm256_store_ps(p, a.lo);
    _mm256_store_ps(p + 8, a.hi);
}

static inline void lc_v_storeu(float *p, lc_v a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

static inline void lc_v_stream(float *p, lc_v a)
{
    _mm256_stream_ps(p, a.lo);
    _mm256_stream_ps(p + 8, a.hi);
}

static inline void lc_v_stream_end(void)
{
    _mm_sfence();
}

static inline lc_v lc_v_add(lc_v a, lc_v b)
{
    return (lc_v){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_sub(lc_v a, lc_v b)
{
    return (lc_v){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_mul(lc_v a, lc_v b)
{
    return (lc_v){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_div(lc_v a, lc_v b)
{
    return (lc_v){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_fma(lc_v a, lc_v b, lc_v c)
{
    return (lc_v){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline lc_v lc_v_fnma(lc_v a, lc_v b, lc_v c)
{
    return (lc_v){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}

static inline lc_v lc_v_sqrt(lc_v a)
{
    return (lc_v){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}

static inline lc_v lc_v_round(lc_v a)
{
    return (lc_v){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                  _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

static inline lc_v lc_v_min(lc_v a, lc_v b)
{
    return (lc_v){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_max(lc_v a, lc_v b)
{
    return (lc_v){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline lc_v lc_v_relu(lc_v a)
{
    return lc_v_max(lc_v_zero(), a);
}

static inline lc_vm lc_v_first(int n)
{
    return (lc_vm)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

static inline lc_vm lc_v_gt(lc_v a, lc_v b)
{
    int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ));
    int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ));
    return (lc_vm)(lo | hi << 8);
}

static inline lc_vm lc_v_eq(lc_v a, lc_v b)
{
    int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
    int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
    return (lc_vm)(lo | hi << 8);
}

/* The mask in the form that AVX2 wants: all ones or all zeros per lane. */
static inline lc_vi lc_vm_spread(lc_vm m)
{
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i lo = _mm256_and_si256(_mm256_set1_epi32(m), bit);
    __m256i hi = _mm256_and_si256(_mm256_set1_epi32(m >> 8), bit);
    return (lc_vi){_mm256_cmpeq_epi32(lo, bit), _mm256_cmpeq_epi32(hi, bit)};
}

static inline lc_v lc_v_select(lc_vm m, lc_v a, lc_v b)
{
    lc_vi s = lc_vm_spread(m);
    return (lc_v){_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(s.lo)),
                  _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(s.hi))};
}

static inline lc_v lc_v_max_nan(lc_v a, lc_v b)
{
    lc_v m = lc_v_max(a, b);
    return (lc_v){_mm256_blendv_ps(m.lo, a.lo, _mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q)),
                  _mm256_blendv_ps(m.hi, a.hi, _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q))};
}

static inline lc_v lc_v_maskload(const float *p, lc_vm m)
{
    lc_vi s = lc_vm_spread(m);
    return (lc_v){_mm256_maskload_ps(p, s.lo), _mm256_maskload_ps(p + 8, s.hi)};
}

static inline void lc_v_maskstore(float *p, lc_vm m, lc_v a)
{
    lc_vi s = lc_vm_spread(m);
    _mm256_maskstore_ps(p, s.lo, a.lo);
    _mm256_maskstore_ps(p + 8, s.hi, a.hi);
}

static inline lc_vi lc_vi_loadu(const int32_t *p)
{
    return (lc_vi){_mm256_loadu_si256((const __m256i *)p),
                   _mm256_loadu_si256((const __m256i *)(p + 8))};
}

static inline __m256 lc_v_perm_half(lc_v a, __m256i idx)
{
    __m256 from_hi = _mm256_castsi256_ps(_mm256_slli_epi32(idx, 28)); /* bit 3 to the sign */
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a.lo, idx),
                            _mm256_permutevar8x32_ps(a.hi, idx), from_hi);
}

static inline lc_v lc_v_perm(lc_v a, lc_vi idx)
{
    return (lc_v){lc_v_perm_half(a, idx.lo), lc_v_perm_half(a, idx.hi)};
}

static inline float lc_v_hsum(lc_v a)
{
    __m256 h = _mm256_add_ps(a.lo, a.hi);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline __m256 lc_v_scale_half(__m256 a, __m256 n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half), bias = _mm256_set1_epi32(127);
    __m256i f = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i g = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(f)), _mm256_castsi256_ps(g));
}

static inline lc_v lc_v_scale(lc_v a, lc_v n)
{
    return (lc_v){lc_v_scale_half(a.lo, n.lo), lc_v_scale_half(a.hi, n.hi)};
}

static inline __attribute__((always_inline)) void lc_v_fma_one(lc_v *a, const float *x, lc_v w)
{
    *a = lc_v_fma(lc_v_broadcast(x), w, *a);
}

static inline __attribute__((always_inline)) void lc_v_fma_pair(lc_v *a, lc_v *b, const float *x,
                                                                lc_v v, lc_v w)
{
    lc_v_fma_one(a, x, v);
    lc_v_fma_one(b, x, w);
}

static inline __attribute__((always_inline)) void
lc_v_fma_triple(lc_v *a, lc_v *b, lc_v *c, const float *x, lc_v u, lc_v v, lc_v w)
{
    lc_v_fma_pair(a, b, x, u, v);
    lc_v_fma_one(c, x, w);
}

#endif
