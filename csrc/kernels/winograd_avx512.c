/* Winograd convolution with 16 lanes: 14 tiles x 2 vectors = 28 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/winograd_kernels.h"

#include "base/simd_avx512.h"

#define WINO_PX 14
#define WINO_LATE_PX 4

#include "kernels/winograd_body.h"

void lc_winograd_kernels_fill__avx512(lc_winograd_kernels *k)
{
    wino_fill(k);
}
