/* Plain loops, which the compiler may turn into the vectors that every processor of the kind has. */
#include "kernels/probe_kernels.h"

#define CHAINS 32
#define SUMS 32

static float multiply_add(int64_t rounds)
{
    float v[CHAINS], sum = 0;
    for (int i = 0; i < CHAINS; i++)
        v[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            v[i] = v[i] * 0.999f + 0.001f;
    for (int i = 0; i < CHAINS; i++)
        sum += v[i];
    return sum;
}

static float read_all(const float *x, int64_t n)
{
    float v[SUMS] = {0}, sum = 0;
    for (int64_t at = 0; at < n; at += SUMS)
        for (int i = 0; i < SUMS; i++)
            v[i] += x[at + i];
    for (int i = 0; i < SUMS; i++)
        sum += v[i];
    return sum;
}

void lc_probe_kernels_fill__scalar(lc_probe_kernels *k)
{
    k->multiply_add = multiply_add;
    k->round_flops = 2 * CHAINS;
    k->read = read_all;
}
