/* Winograd convolution with 8 lanes: 6 tiles x 2 vectors = 12 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/winograd_kernels.h"

#include "base/simd_avx2.h"

#define WINO_PX 6

/* *a += *x * v, *b += *x * w. In assembly for the reason given in conv_direct_avx2.c. */
static inline __attribute__((always_inline)) void wino_fma2(lc_v *a, lc_v *b, const float *x,
                                                            lc_v v, lc_v w)
{
    lc_v t;
    __asm__("vbroadcastss %3, %2\n\t"
            "vfmadd231ps %4, %2, %0\n\t"
            "vfmadd231ps %5, %2, %1"
            : "+x"(*a), "+x"(*b), "=&x"(t)
            : "m"(*x), "x"(v), "x"(w));
}

#include "kernels/winograd_body.h"

void lc_winograd_kernels_fill__avx2(lc_winograd_kernels *k)
{
    k->input = wino_input;
    k->multiply = wino_multiply;
    k->output = wino_output;
    k->tiles = WINO_PX;
    k->name = "winograd 4x4";
}
