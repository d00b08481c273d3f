/* Direct convolution with 16 lanes: 14 pixels x 2 vectors = 28 sums, 2 registers of weights, 1 of
 * input. */
#include "kernels/conv_kernels.h"

#include "base/simd_avx512.h"

#define CONV_PX2 14
#define CONV_PX1 14
#define CONV_PXG 8
#define CONV_PX3 14

/* out[i] = x[lanes[i]] */
static inline __attribute__((always_inline)) lc_v conv_permute(lc_v x, lc_vi lanes)
{
    return lc_v_perm(x, lanes);
}

static inline __attribute__((always_inline)) lc_v conv_permute4(lc_v x, const int c, lc_vi lanes)
{
    (void)c;
    return lc_v_perm(x, lanes);
}

#include "kernels/conv_direct_body.h"

void lc_conv_dense_f32__avx512(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1)
{
    conv_dense(r, oh0, oh1, ow0, ow1);
}

void lc_conv_lanes_f32__avx512(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1)
{
    conv_lanes(r, oh0, oh1, ow0, ow1);
}

void lc_conv_kernels_fill__avx512(lc_conv_kernels *k)
{
    k->dense = lc_conv_dense_f32__avx512;
    k->lanes = lc_conv_lanes_f32__avx512;
    k->dense_px = CONV_PX2;
    k->dense_name = "direct 14x32";
    k->lanes_name = "small groups 14x16";
}
