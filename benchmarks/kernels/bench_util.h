/* What the kernel benchmarks share: the FMA peak of one thread, CPU time, random tensors. */
#ifndef LC_BENCH_UTIL_H
#define LC_BENCH_UTIL_H

#include <immintrin.h>
#include <time.h>

#include "base/mem.h"
#include "base/random.h"
#include "ops/ops.h"

/* --- the peak: independent chains of FMA in registers */

#define CHAINS(V, SET1, FMA)                                                                       \
    V s[12], a = SET1(1.0f + (float)rounds * 1e-12f), b = SET1(0.0f);                              \
    for (int i = 0; i < 12; i++)                                                                   \
        s[i] = SET1((float)i);                                                                     \
    for (int64_t r = 0; r < rounds; r++) {                                                         \
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) s[i] = FMA(a, s[i], b);              \
        __asm__ volatile("" : "+x"(a));                                                            \
    }                                                                                              \
    for (int i = 1; i < 12; i++)                                                                   \
        s[0] = FMA(s[i], a, s[0]);                                                                 \
    return (float)s[0][0];

static __attribute__((target("avx2,fma"))) float chains_avx2(int64_t rounds)
{
    CHAINS(__m256, _mm256_set1_ps, _mm256_fmadd_ps)
}

static __attribute__((target("avx512f"))) float chains_avx512(int64_t rounds)
{
    CHAINS(__m512, _mm512_set1_ps, _mm512_fmadd_ps)
}

static volatile float sink;
static const int64_t peak_rounds = 100000;

/* CPU time of this thread: what other processes do hardly matters. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_gflops(lc_isa isa, int threads)
{
    double best = 0;
    if (isa == LC_ISA_SCALAR)
        return 1;
    for (int i = 0; i < 200; i++) {
        double t = now();
        sink = isa == LC_ISA_AVX512 ? chains_avx512(peak_rounds) : chains_avx2(peak_rounds);
        t = now() - t;
        double g = 2.0 * 12 * (isa == LC_ISA_AVX512 ? 16 : 8) * (double)peak_rounds / t * 1e-9;
        best = g > best ? g : best;
    }
    return best * threads;
}

static float *blocked_random(const lc_desc *d, uint64_t stream)
{
    float *p = lc_alloc_zero(lc_desc_bytes(d));
    int64_t plane = d->dim[2] * d->dim[3], b = d->layout.block, slots = lc_desc_padded_channels(d);
    float *row = lc_alloc((size_t)plane * 4);
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++) {
            int64_t slot = lc_desc_channel_slot(d, c);
            lc_random_normal(row, plane, 1, stream, (n * d->dim[1] + c) * plane, 0, 1);
            for (int64_t i = 0; i < plane; i++)
                p[((n * slots / b + slot / b) * plane + i) * b + slot % b] = row[i];
        }
    lc_free(row);
    return p;
}

static double element(const lc_desc *d, const float *p, int64_t n, int64_t c, int64_t hw)
{
    int64_t plane = d->dim[2] * d->dim[3], b = d->layout.block, slot = lc_desc_channel_slot(d, c);
    return p[((n * lc_desc_padded_channels(d) / b + slot / b) * plane + hw) * b + slot % b];
}

#endif
