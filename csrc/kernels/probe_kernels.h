/* Loops that do nothing but keep a core busy: how fast can this ISA compute, and read memory? They
 * are the two lines of a roofline plot (graph/roofline.h). */
#ifndef LC_KERNELS_PROBE_KERNELS_H
#define LC_KERNELS_PROBE_KERNELS_H

#include <stdint.h>

typedef struct lc_probe_kernels {
    /* Multiplies and adds on registers, in chains that do not wait for each other; the result
     * depends on all of them. */
    float (*multiply_add)(int64_t rounds);
    int64_t round_flops; /* of one round; a multiplication and an addition are two */
    /* The sum of n floats, n a multiple of LC_PROBE_READ, in whatever order is fastest. */
    float (*read)(const float *x, int64_t n);
} lc_probe_kernels;

#define LC_PROBE_READ 256

void lc_probe_kernels_fill__scalar(lc_probe_kernels *k);
void lc_probe_kernels_fill__avx2(lc_probe_kernels *k);
void lc_probe_kernels_fill__avx512(lc_probe_kernels *k);

#endif
