/* Multiplications with one element of memory; simd_avx2.h and simd_avx512.h include this file at
 * their ends. In assembly, because with intrinsics gcc 12 leaves the registers:
 *
 *     AVX2     sums wander between the 16 registers and some are spilled in each step: 78 % rather
 *              than 86 % of the peak in 1x1 layers, 84 % rather than 90 % in 3x3 layers (Zen 1)
 *     AVX-512  elements of many steps ahead are loaded, to the stack: half of the peak rather than
 *              85 to 90 % in 1x1 layers (Zen 4)
 *
 * The element in a register rather than in each operation from memory, which with AVX-512 is as fast
 * on Zen 4, but would leave no load to spare on processors with two multipliers of that width. */
#ifndef LC_BASE_SIMD_FMA_H
#define LC_BASE_SIMD_FMA_H

#ifndef LC_VLEN
#error "include base/simd_avx2.h or base/simd_avx512.h instead"
#endif

/* *a += *x * v, *b += *x * w. */
static inline __attribute__((always_inline)) void lc_v_fma_pair(lc_v *a, lc_v *b, const float *x,
                                                                lc_v v, lc_v w)
{
    lc_v t;
    __asm__("vbroadcastss %3, %2\n\t"
            "vfmadd231ps %4, %2, %0\n\t"
            "vfmadd231ps %5, %2, %1"
            : "+v"(*a), "+v"(*b), "=&v"(t)
            : "m"(*x), "v"(v), "v"(w));
}

static inline __attribute__((always_inline)) void
lc_v_fma_triple(lc_v *a, lc_v *b, lc_v *c, const float *x, lc_v u, lc_v v, lc_v w)
{
    lc_v t;
    __asm__("vbroadcastss %4, %3\n\t"
            "vfmadd231ps %5, %3, %0\n\t"
            "vfmadd231ps %6, %3, %1\n\t"
            "vfmadd231ps %7, %3, %2"
            : "+v"(*a), "+v"(*b), "+v"(*c), "=&v"(t)
            : "m"(*x), "v"(u), "v"(v), "v"(w));
}

#endif
