/* Winograd convolution with 8 lanes: 6 tiles x 2 vectors = 12 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/winograd_kernels.h"

#include "base/simd_avx2.h"

#define WINO_PX 6
#define WINO_LATE_PX 2

#include "kernels/winograd_body.h"

void lc_winograd_kernels_fill__avx2(lc_winograd_kernels *k)
{
    wino_fill(k);
}
