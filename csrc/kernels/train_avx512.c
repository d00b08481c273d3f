/* Optimizers with 16 lanes. */
#include "base/simd_avx512.h"
#include "kernels/train_body.h"

void lc_train_kernels_fill__avx512(lc_train_kernels *t)
{
    fill(t);
}
