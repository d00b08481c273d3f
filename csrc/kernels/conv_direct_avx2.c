/* Direct convolution with 8 lanes: 6 pixels x 2 vectors = 12 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/conv_kernels.h"

#include "base/simd_avx2.h"

#define CONV_PX2 6 /* pixels per block, panels of two vectors */
#define CONV_PX1                                                                                   \
    12 /* panels of one: 12 sums again, since 8 must be in flight to hide the latency of an FMA */
#define CONV_PXG 8  /* small groups: 8 sums, the weights, one copy of the input */
#define CONV_PX3 10 /* small groups, 3 wide: 10 sums, 3 weights, one copy of the input */

/* out[i] = x[lanes[i]]; groups of 8 are done otherwise, so that no lane leaves its half. */
static inline __attribute__((always_inline)) lc_v conv_permute(lc_v x, lc_vi lanes)
{
    return _mm256_permutevar_ps(x, lanes);
}

/* The same for groups of four. */
static inline __attribute__((always_inline)) lc_v conv_permute4(lc_v x, const int c, lc_vi lanes)
{
    (void)lanes;
    return c == 0   ? _mm256_permute_ps(x, 0x00)
           : c == 1 ? _mm256_permute_ps(x, 0x55)
           : c == 2 ? _mm256_permute_ps(x, 0xaa)
                    : _mm256_permute_ps(x, 0xff);
}

#include "kernels/conv_direct_body.h"

void lc_conv_dense_f32__avx2(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                             int64_t ow1)
{
    conv_dense(r, oh0, oh1, ow0, ow1);
}

void lc_conv_lanes_f32__avx2(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                             int64_t ow1)
{
    conv_lanes(r, oh0, oh1, ow0, ow1);
}

void lc_conv_kernels_fill__avx2(lc_conv_kernels *k)
{
    k->dense = lc_conv_dense_f32__avx2;
    k->lanes = lc_conv_lanes_f32__avx2;
    k->dense_px = CONV_PX2;
    k->dense_name = "direct 6x16";
    k->lanes_name = "small groups 10x8";
}
