#include "kernels/kernels.h"

#include <pthread.h>
#include <string.h>

static lc_kernels chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const uint8_t uses_s2[36] = {1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 4,
                                    1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4, 16};

/* Positions of row i of a transformed tile, the last ones with LC_WINOGRAD_LAST_COLUMN; odd rows of
 * column j, with _ROW. */
#define LAST_4(i) i, i, i, i | 2
#define LAST_6(i) i, i, i, i, i, i | 2
#define LAST_7(i) i, i, i, i, i, i, i | 2
#define LAST_9(i) i, i, i, i, i | 2, i, i, i, i | 2
#define LAST_ODD(j) j, j, j, j | 1
static const uint8_t last_2x2[16] = {LAST_4(0), LAST_4(0), LAST_4(0), LAST_4(1)};
static const uint8_t last_3x3[36] = {LAST_6(0), LAST_6(0), LAST_6(0),
                                     LAST_6(0), LAST_6(0), LAST_6(1)};
static const uint8_t last_7x7[49] = {LAST_7(0), LAST_7(0), LAST_7(0), LAST_7(0),
                                     LAST_7(0), LAST_7(0), LAST_7(1)};
/* even rows; odd rows of the even columns; odd rows and columns */
static const uint8_t last_s2[81] = {LAST_9(0),   LAST_9(0),   LAST_9(0),   LAST_9(0),   LAST_9(1),
                                    LAST_ODD(0), LAST_ODD(0), LAST_ODD(0), LAST_ODD(0), LAST_ODD(2),
                                    LAST_4(0),   LAST_4(0),   LAST_4(0),   LAST_4(1)};

const lc_winograd_form lc_winograd_forms[LC_WINOGRAD_KINDS] = {
    [LC_WINOGRAD_3X3] = {"winograd 4x4", 36, 36, NULL, last_3x3, 1, 3, 1, 4, false, false, false},
    [LC_WINOGRAD_3X3_LATE] = {"winograd 4x4 late", 36, 9, NULL, last_3x3, 1, 3, 1, 4, true, false,
                              false},
    [LC_WINOGRAD_3X3_2X2] = {"winograd 2x2", 16, 16, NULL, last_2x2, 1, 3, 1, 2, false, false,
                             false},
    [LC_WINOGRAD_3X3_S2] = {"winograd 4x4 /2", 81, 36, uses_s2, last_s2, 1, 3, 2, 4, false, false,
                            false},
    [LC_WINOGRAD_3X3_UP] = {"winograd 4x4 up", 81, 36, uses_s2, last_s2, 1, 3, 2, 4, false, false,
                            true},
    [LC_WINOGRAD_7X7_S2] = {"winograd 4x4 7x7", 49, 49, NULL, last_7x7, 1, 7, 2, 4, false, true,
                            false},
    [LC_WINOGRAD_1X1] = {"strassen", 7, 7, NULL, NULL, 2, 1, 0, 0, false, false, false},
    [LC_WINOGRAD_1X1_TWICE] = {"strassen twice", 49, 49, NULL, NULL, 4, 1, 0, 0, false, false,
                               false},
};

void lc_kernels_fill(lc_kernels *table, lc_isa isa)
{
    memset(table, 0, sizeof *table);
    table->isa = LC_ISA_SCALAR;
    table->block = 8;
    lc_conv_kernels_fill__scalar(&table->conv);
    lc_vec_kernels_fill__scalar(&table->vec);
    lc_grad_kernels_fill__scalar(&table->grad);
    lc_winograd_kernels_fill__scalar(&table->winograd);
    lc_pack_kernels_fill__scalar(&table->pack);
    lc_probe_kernels_fill__scalar(&table->probe);
    lc_wgrad_kernels_fill__scalar(&table->wgrad);
    lc_train_kernels_fill__scalar(&table->train);
#ifndef LC_NO_AVX2
    if (isa == LC_ISA_AVX2) {
        table->isa = LC_ISA_AVX2;
        lc_conv_kernels_fill__avx2(&table->conv);
        lc_vec_kernels_fill__avx2(&table->vec);
        lc_grad_kernels_fill__avx2(&table->grad);
        lc_winograd_kernels_fill__avx2(&table->winograd);
        lc_pack_kernels_fill__avx2(&table->pack);
        lc_probe_kernels_fill__avx2(&table->probe);
        lc_wgrad_kernels_fill__avx2(&table->wgrad);
        lc_train_kernels_fill__avx2(&table->train);
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
        lc_grad_kernels_fill__avx512(&table->grad);
        lc_winograd_kernels_fill__avx512(&table->winograd);
#ifndef LC_NO_AVX2
        lc_pack_kernels_fill__avx2(&table->pack);
#endif
        lc_probe_kernels_fill__avx512(&table->probe);
        lc_wgrad_kernels_fill__avx512(&table->wgrad);
        lc_train_kernels_fill__avx512(&table->train);
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
