/* The weight gradient with 16 lanes: 8 channels x 3 vectors = 24 sums, 3 registers of dy, 1 of x.
 */
#include "kernels/wgrad_kernels.h"

#include "base/simd_avx512.h"

#define WGRAD_IC 8
#define WGRAD_IC1 16

static inline __attribute__((always_inline)) lc_v wgrad_spread(const float *x, const int nc,
                                                               const int i, lc_vi lanes)
{
    (void)nc;
    (void)i;
    return lc_v_perm(lc_v_loadu(x), lanes);
}

#include "kernels/conv_wgrad_body.h"
#include "kernels/winograd_wgrad_body.h"

void lc_wgrad_kernels_fill__avx512(lc_wgrad_kernels *k)
{
    k->dense = wgrad_dense;
    k->lanes = wgrad_lanes;
    k->tiles[LC_WINOGRAD_3X3] = wgrad_tiles_3x3;
    k->tiles[LC_WINOGRAD_3X3_S2] = wgrad_tiles_s2;
    k->tiles[LC_WINOGRAD_7X7_S2] = wgrad_tiles_7x7;
    k->product = wgrad_product;
    k->taps[LC_WINOGRAD_3X3] = wgrad_taps_3x3;
    k->taps[LC_WINOGRAD_3X3_S2] = wgrad_taps_s2;
    k->taps[LC_WINOGRAD_7X7_S2] = wgrad_taps_7x7;
    k->dense_name = "direct 8x48";
    k->lanes_name = "small groups 4x3x16";
}
