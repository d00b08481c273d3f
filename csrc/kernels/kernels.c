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

#define FORM_3X3(N, WEIGHTS) .positions = N, .weights = WEIGHTS, .parts = 1, .kernel = 3
#define FORM_1X1(N, PARTS) .positions = N, .weights = N, .parts = PARTS, .kernel = 1
const lc_winograd_form lc_winograd_forms[LC_WINOGRAD_KINDS] = {
    [LC_WINOGRAD_3X3] = {"winograd 4x4", FORM_3X3(36, 36), .stride = 1, .tile = 4,
                         .last = last_3x3},
    [LC_WINOGRAD_3X3_LATE] = {"winograd 4x4 late", FORM_3X3(36, 9), .stride = 1, .tile = 4,
                              .last = last_3x3, .late = true},
    [LC_WINOGRAD_3X3_2X2] = {"winograd 2x2", FORM_3X3(16, 16), .stride = 1, .tile = 2,
                             .last = last_2x2},
    [LC_WINOGRAD_3X3_S2] = {"winograd 4x4 /2", FORM_3X3(81, 36), .stride = 2, .tile = 4,
                            .last = last_s2, .uses = uses_s2},
    [LC_WINOGRAD_3X3_UP] = {"winograd 4x4 up", FORM_3X3(81, 36), .stride = 2, .tile = 4,
                            .last = last_s2, .uses = uses_s2, .up = true},
    [LC_WINOGRAD_7X7_S2] = {"winograd 4x4 7x7", .positions = 49, .weights = 49, .parts = 1,
                            .kernel = 7, .stride = 2, .tile = 4, .last = last_7x7, .folded = true},
    [LC_WINOGRAD_1X1] = {"strassen", FORM_1X1(7, 2)},
    [LC_WINOGRAD_1X1_TWICE] = {"strassen twice", FORM_1X1(49, 4)},
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
