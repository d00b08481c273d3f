#include "kernels/probe_kernels.h"

#include "base/simd_avx2.h"

#include "kernels/probe_body.h"

void lc_probe_kernels_fill__avx2(lc_probe_kernels *k)
{
    probe_fill(k);
}
