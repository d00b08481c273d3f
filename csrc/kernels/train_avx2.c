/* Optimizers with 8 lanes. */
#include "base/simd_avx2.h"
#include "kernels/train_body.h"

void lc_train_kernels_fill__avx2(lc_train_kernels *t)
{
    fill(t);
}
