/* Sums of squares, for train_<isa>.c: with sixteen lanes in plain C, which compilers make vectors
 * of. */
#ifndef LC_KERNELS_TRAIN_SQUARES_H
#define LC_KERNELS_TRAIN_SQUARES_H

#include <stdint.h>

#define LANES 16

static double squares(const float *x, int64_t n)
{
    double part[LANES] = {0.0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            part[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i < n; i++, l++)
        part[l] += (double)x[i] * (double)x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            part[l] += part[l + half];
    return part[0];
}

#endif
