#include "kernels/kernels.h"

#include <pthread.h>
#include <string.h>

static lc_kernels chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

void lc_kernels_fill(lc_kernels *table, lc_isa isa)
{
    memset(table, 0, sizeof *table);
    table->isa = LC_ISA_SCALAR;
    table->block = 8;
    lc_conv_kernels_fill__scalar(&table->conv);
    lc_vec_kernels_fill__scalar(&table->vec);
    lc_winograd_kernels_fill__scalar(&table->winograd);
    lc_pack_kernels_fill__scalar(&table->pack);
#ifndef LC_NO_AVX2
    if (isa == LC_ISA_AVX2) {
        table->isa = LC_ISA_AVX2;
        lc_conv_kernels_fill__avx2(&table->conv);
        lc_vec_kernels_fill__avx2(&table->vec);
        lc_winograd_kernels_fill__avx2(&table->winograd);
        lc_pack_kernels_fill__avx2(&table->pack);
    }
#endif
#ifndef LC_NO_AVX512
    /* Nothing of AVX2 may stay in this table, since its kernels know blocks of 8 only; those that
     * pack know any width, and wait for memory anyhow. */
    if (isa == LC_ISA_AVX512) {
        table->isa = LC_ISA_AVX512;
        table->block = 16;
        lc_conv_kernels_fill__avx512(&table->conv);
        lc_vec_kernels_fill__avx512(&table->vec);
        lc_winograd_kernels_fill__avx512(&table->winograd);
#ifndef LC_NO_AVX2
        lc_pack_kernels_fill__avx2(&table->pack);
#endif
    }
#endif
    (void)isa;
}

static void choose(void)
{
    lc_kernels_fill(&chosen, lc_cpu_get()->isa);
}

const lc_kernels *lc_kernels_get(void)
{
    pthread_once(&once, choose);
    return &chosen;
}
