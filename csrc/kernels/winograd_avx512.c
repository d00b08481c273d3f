/* Winograd convolution with 16 lanes: 14 tiles x 2 vectors = 28 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/winograd_kernels.h"

#include "base/simd_avx512.h"

#define WINO_PX 14

/* *a += *x * v, *b += *x * w. With 32 registers the compiler does well by itself. */
static inline __attribute__((always_inline)) void wino_fma2(lc_v *a, lc_v *b, const float *x,
                                                            lc_v v, lc_v w)
{
    lc_v t = lc_v_broadcast(x);
    *a = lc_v_fma(t, v, *a);
    *b = lc_v_fma(t, w, *b);
}

#include "kernels/winograd_body.h"

void lc_winograd_kernels_fill__avx512(lc_winograd_kernels *k)
{
    k->input = wino_input;
    k->multiply = wino_multiply;
    k->output = wino_output;
    k->tiles = WINO_PX;
    k->name = "winograd 4x4";
}
