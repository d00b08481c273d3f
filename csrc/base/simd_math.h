/* Functions built from the operations of simd_avx2.h and simd_avx512.h, which include this file at
 * their ends. */
#ifndef LC_BASE_SIMD_MATH_H
#define LC_BASE_SIMD_MATH_H

#ifndef LC_VLEN
#error "include base/simd_avx2.h or base/simd_avx512.h instead"
#endif

/* e^a within one unit in the last place or so; 0, inf and NaN where expf gives them, subnormals
 * included. */
static inline lc_v lc_v_exp(lc_v a)
{
    /* Outside these bounds the result is 0 or inf anyway. NaN stays as second operand. */
    a = lc_v_max(lc_v_set1(-104.5f), lc_v_min(lc_v_set1(89.0f), a));
    /* a = n ln 2 + r; ln 2 in two parts, the first with so few bits that n times it is exact. */
    lc_v n = lc_v_round(lc_v_mul(a, lc_v_set1(1.44269504088896341f)));
    lc_v r = lc_v_fnma(n, lc_v_set1(0.693359375f), a);
    r = lc_v_fnma(n, lc_v_set1(-2.12194440e-4f), r);
    /* The minimax polynomial of Cephes' expf (Moshier). */
    lc_v p = lc_v_set1(1.9875691500e-4f);
    p = lc_v_fma(p, r, lc_v_set1(1.3981999507e-3f));
    p = lc_v_fma(p, r, lc_v_set1(8.3334519073e-3f));
    p = lc_v_fma(p, r, lc_v_set1(4.1665795894e-2f));
    p = lc_v_fma(p, r, lc_v_set1(1.6666665459e-1f));
    p = lc_v_fma(p, r, lc_v_set1(5.0000001201e-1f));
    p = lc_v_fma(p, lc_v_mul(r, r), r);
    return lc_v_scale(lc_v_add(p, lc_v_set1(1.0f)), n);
}

/* 1 / (1 + e^-a); 0 below about -88.7, where the value is below the smallest normal number. */
static inline lc_v lc_v_sigmoid(lc_v a)
{
    lc_v one = lc_v_set1(1.0f);
    return lc_v_div(one, lc_v_add(one, lc_v_exp(lc_v_sub(lc_v_zero(), a))));
}

#endif
