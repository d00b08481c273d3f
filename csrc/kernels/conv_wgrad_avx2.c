/* The weight gradient with 8 lanes: 4 channels x 3 vectors = 12 sums, 3 registers of dy, 1 of x. */
#include "kernels/wgrad_kernels.h"

#include "base/simd_avx2.h"

#define WGRAD_IC 4
#define WGRAD_IC1 8

/* Channel i of each group of `group` (1, 2, 4), spread over the lanes of its group. The numbers are
 * part of the instruction: with 12 sums there are no registers for them. */
static inline __attribute__((always_inline)) lc_v wgrad_spread(const float *x, const int group,
                                                               const int i, lc_vi lanes)
{
    const lc_v v = lc_v_loadu(x);
    (void)lanes;
    if (group == 1)
        return v;
    if (group == 2)
        return i == 0 ? _mm256_moveldup_ps(v) : _mm256_movehdup_ps(v);
    switch (i) {
    case 0:
        return _mm256_permute_ps(v, 0x00);
    case 1:
        return _mm256_permute_ps(v, 0x55);
    case 2:
        return _mm256_permute_ps(v, 0xaa);
    default:
        return _mm256_permute_ps(v, 0xff);
    }
}

#include "kernels/conv_wgrad_body.h"
#include "kernels/winograd_wgrad_body.h"

void lc_wgrad_kernels_fill__avx2(lc_wgrad_kernels *k)
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
    k->dense_name = "direct 4x24";
    k->lanes_name = "small groups 4x3x8";
}
