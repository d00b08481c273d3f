/* The kernel table: which inner loops this process uses.
 *
 * A kernel is pure: pointers in, pointers out, one thread, no allocation, no errors. The scalar
 * kernels fill the whole table for either block size; a better ISA then overwrites the slots that
 * it improves (fill functions below, one per family and ISA). So a table is always complete, and
 * reading an ISA's file shows what it improves. */
#ifndef LC_KERNELS_KERNELS_H
#define LC_KERNELS_KERNELS_H

#include "base/cpu.h"
#include "kernels/conv_kernels.h"
#include "kernels/pack_kernels.h"
#include "kernels/probe_kernels.h"
#include "kernels/grad_kernels.h"
#include "kernels/train_kernels.h"
#include "kernels/vec_kernels.h"
#include "kernels/wgrad_kernels.h"
#include "kernels/winograd_kernels.h"

typedef struct lc_kernels {
    lc_isa isa;
    int block; /* channels per block of activations: 8 (scalar, AVX2) or 16 (AVX-512) */
    lc_conv_kernels conv;
    lc_vec_kernels vec;
    lc_grad_kernels grad;
    lc_winograd_kernels winograd;
    lc_pack_kernels pack;
    lc_probe_kernels probe;
    lc_wgrad_kernels wgrad;
    lc_train_kernels train;
} lc_kernels;

/* The table for lc_cpu_get()->isa. Filled on first use, then constant. */
const lc_kernels *lc_kernels_get(void);

/* Tests: a freshly filled table for `isa`, which the CPU must have (or, built with
 * LC_EMULATE_AVX512, needs not). */
void lc_kernels_fill(lc_kernels *table, lc_isa isa);

#endif
