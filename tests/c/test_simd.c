/* Tests of the vector headers csrc/base/simd_*.h.
 *
 * LC_TEST_SIMD chooses the one under test: 8 is AVX2, 16 (default) the emulated sixteen lanes on
 * AVX2, 512 real AVX-512. The Makefile builds one program for each; where the compiler or the CPU
 * lacks the instructions it says so and passes. */
#define _POSIX_C_SOURCE 200809L /* sysconf */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "check.h"

#ifndef LC_TEST_SIMD
#define LC_TEST_SIMD 16
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#if !defined(__clang__)
#pragma GCC push_options
#if LC_TEST_SIMD == 512
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#else
#pragma GCC target("avx2,fma")
#endif
#endif

#ifdef __AVX2__
#define HAVE_SIMD 1
#if LC_TEST_SIMD == 8
#include "base/simd_avx2.h"
#else
#if LC_TEST_SIMD == 16 && !defined(LC_EMULATE_AVX512)
#define LC_EMULATE_AVX512
#endif
#include "base/simd_avx512.h"
#endif

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int same_bits(float a, float b)
{
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

typedef struct lanes {
    _Alignas(64) float v[LC_VLEN];
} lanes;

static lanes lanes_of(lc_v v)
{
    lanes out;
    lc_v_store(out.v, v);
    return out;
}

#define EACH(vector, expr)                                                                         \
    do {                                                                                           \
        lanes got_ = lanes_of(vector);                                                             \
        int ok_ = 1;                                                                               \
        for (int i = 0; i < LC_VLEN; i++)                                                          \
            ok_ &= same_bits(got_.v[i], (expr));                                                   \
        check(ok_, #vector " == " #expr, __FILE__, __LINE__);                                      \
    } while (0)

static void test_simd_arithmetic(void)
{
    static const float odd[12] = {0.0f,        -0.0f,   INFINITY, -INFINITY, NAN,  1.0f,
                                  -1.0000001f, 3.4e38f, -1e-38f,  1e-45f,    7.5f, -2.5f};
    for (int shift = 0; shift < 12; shift++) {
        lanes a, b, c;
        for (int i = 0; i < LC_VLEN; i++) {
            a.v[i] = odd[i % 12];
            b.v[i] = odd[(i + shift) % 12];
            c.v[i] = odd[(i * 5 + shift) % 12];
        }
        lc_v x = lc_v_load(a.v), y = lc_v_load(b.v), z = lc_v_loadu(c.v);
        EACH(lc_v_add(x, y), a.v[i] + b.v[i]);
        EACH(lc_v_sub(x, y), a.v[i] - b.v[i]);
        EACH(lc_v_mul(x, y), a.v[i] * b.v[i]);
        EACH(lc_v_div(x, y), a.v[i] / b.v[i]);
        EACH(lc_v_fma(x, y, z), fmaf(a.v[i], b.v[i], c.v[i]));
        EACH(lc_v_fnma(x, y, z), fmaf(-a.v[i], b.v[i], c.v[i]));
        EACH(lc_v_sqrt(x), sqrtf(a.v[i]));
        EACH(lc_v_round(x), rintf(a.v[i]));
        EACH(lc_v_min(x, y), a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
        EACH(lc_v_max(x, y), a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
        EACH(lc_v_max_nan(x, y), isnan(a.v[i]) ? a.v[i] : a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
        EACH(lc_v_max_nan(y, x), isnan(b.v[i]) ? b.v[i] : b.v[i] > a.v[i] ? b.v[i] : a.v[i]);
        EACH(lc_v_add(lc_v_relu(x), lc_v_zero()), isnan(a.v[i]) ? NAN : a.v[i] > 0 ? a.v[i] : 0.0f);
        EACH(lc_v_select(lc_v_gt(x, y), z, x), a.v[i] > b.v[i] ? c.v[i] : a.v[i]);
        EACH(lc_v_select(lc_v_eq(x, y), z, x), a.v[i] == b.v[i] ? c.v[i] : a.v[i]);
        EACH(lc_v_select(lc_v_eq(x, x), z, y), a.v[i] == a.v[i] ? c.v[i] : b.v[i]);
    }
    /* a product that only a true FMA keeps */
    float e = 1.0f + FLT_EPSILON;
    EACH(lc_v_fma(lc_v_set1(e), lc_v_set1(e), lc_v_set1(-1.0f - 2 * FLT_EPSILON)),
         FLT_EPSILON * FLT_EPSILON);
    EACH(lc_v_broadcast(&e), e);
}

static void test_simd_lanes(void)
{
    float from[LC_VLEN + 1], to[LC_VLEN + 1];
    int32_t index[LC_VLEN];
    for (int i = 0; i <= LC_VLEN; i++)
        from[i] = (float)(i + 1);
    long page = sysconf(_SC_PAGESIZE);
    char *edge = aligned_alloc((size_t)page, (size_t)page);
    for (int n = -1; n <= LC_VLEN + 1; n++) {
        int count = n < 0 ? 0 : n > LC_VLEN ? LC_VLEN : n;
        lc_vm m = lc_v_first(n);
        EACH(lc_v_maskload(from + 1, m), i < count ? from[i + 1] : 0.0f);
        EACH(lc_v_select(m, lc_v_set1(1), lc_v_set1(2)), i < count ? 1.0f : 2.0f);
        memset(to, 0, sizeof to);
        lc_v_maskstore(to, m, lc_v_loadu(from));
        int ok = to[LC_VLEN] == 0;
        for (int i = 0; i < LC_VLEN; i++)
            ok &= to[i] == (i < count ? from[i] : 0);
        CHECK(ok);
        /* the last bytes of a page: what follows must not be touched */
        float *last = (float *)(void *)(edge + page) - count;
        lc_v_maskstore(last, m, lc_v_loadu(from));
        EACH(lc_v_maskload(last, m), i < count ? from[i] : 0.0f);
    }
    free(edge);
    for (int shift = 0; shift < LC_VLEN; shift++) {
        for (int i = 0; i < LC_VLEN; i++)
            index[i] = (i * 3 + shift) % LC_VLEN;
        EACH(lc_v_perm(lc_v_loadu(from), lc_vi_loadu(index)), from[index[i]]);
    }
    lc_v_storeu(to + 1, lc_v_loadu(from + 1));
    CHECK(memcmp(to + 1, from + 1, LC_VLEN * sizeof *to) == 0);

    /* the order of the sum: halves onto each other, down to one */
    float x[LC_VLEN], fold[LC_VLEN];
    for (int round = 0; round < 100; round++) {
        lc_random_normal(x, LC_VLEN, 3, (uint64_t)round, 0, 0, 1e3f);
        memcpy(fold, x, sizeof x);
        for (int half = LC_VLEN / 2; half > 0; half /= 2)
            for (int i = 0; i < half; i++)
                fold[i] += fold[i + half];
        if (!same_bits(lc_v_hsum(lc_v_loadu(x)), fold[0]))
            CHECK(!"lc_v_hsum");
    }
}

static void test_simd_exp(void)
{
    double worst = 0, worst_sigmoid = 0, worst_subnormal = 0;
    lanes x;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 131 * LC_VLEN) {
        for (int i = 0; i < LC_VLEN; i++)
            x.v[i] = of_bits((uint32_t)(bits + 131 * (uint64_t)i));
        if (isnan(x.v[0]) || isnan(x.v[LC_VLEN - 1]))
            continue;
        lanes y = lanes_of(lc_v_exp(lc_v_load(x.v))), s = lanes_of(lc_v_sigmoid(lc_v_load(x.v)));
        for (int i = 0; i < LC_VLEN; i++) {
            if (fabsf(x.v[i]) < 1e-30f || fabsf(x.v[i]) > 200)
                i = LC_VLEN; /* nothing new there; the ends are looked at below */
            else {
                double true_exp = exp((double)x.v[i]),
                       true_sigmoid = 1 / (1 + exp(-(double)x.v[i]));
                double error = fabs(y.v[i] - true_exp);
                if (true_exp > FLT_MAX)
                    error = isinf(y.v[i]) || y.v[i] == FLT_MAX ? 0 : INFINITY;
                if (true_exp < FLT_MIN)
                    worst_subnormal = fmax(worst_subnormal, error / 0x1p-149);
                else
                    worst = fmax(worst, error / ldexp(1, ilogb(true_exp) - 23));
                error = fabs(s.v[i] - true_sigmoid);
                worst_sigmoid =
                    fmax(worst_sigmoid, error / ldexp(1, ilogb(fmax(true_sigmoid, 0x1p-126)) - 23));
            }
        }
    }
    if (getenv("LC_TEST_SPEED"))
        fprintf(stderr, "exp %.3f ulp (%.3f units below the normal numbers)\n", worst,
                worst_subnormal);
    CHECK(worst < 1.5 && worst_subnormal < 1.5);
    CHECK(worst_sigmoid < 3 + 1.1754944e-38 / 0x1p-149);
    EACH(lc_v_exp(lc_v_zero()), 1.0f);
    EACH(lc_v_exp(lc_v_set1(INFINITY)), INFINITY);
    EACH(lc_v_exp(lc_v_set1(-INFINITY)), 0.0f);
    EACH(lc_v_exp(lc_v_set1(FLT_MAX)), INFINITY);
    EACH(lc_v_exp(lc_v_set1(-FLT_MAX)), 0.0f);
    EACH(lc_v_exp(lc_v_set1(88.8f)), INFINITY);
    EACH(lc_v_exp(lc_v_set1(-104.0f)), 0.0f);
    EACH(lc_v_exp(lc_v_set1(NAN)), NAN);
    EACH(lc_v_exp(lc_v_set1(-NAN)), NAN);
    EACH(lc_v_sigmoid(lc_v_zero()), 0.5f);
    EACH(lc_v_sigmoid(lc_v_set1(INFINITY)), 1.0f);
    EACH(lc_v_sigmoid(lc_v_set1(-INFINITY)), 0.0f);
    EACH(lc_v_sigmoid(lc_v_set1(NAN)), NAN);
}

static void test_simd(void)
{
    test_simd_arithmetic();
    test_simd_lanes();
    test_simd_exp();
}

#endif
#if !defined(__clang__)
#pragma GCC pop_options
#endif
#endif

static int simd_runs(void)
{
#ifdef HAVE_SIMD
    if (LC_TEST_SIMD == 512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}
int main(void)
{
    if (!simd_runs()) {
        printf("skipped: no such instructions here\n");
        return 0;
    }
#ifdef HAVE_SIMD
    test_simd();
#endif
    return check_report();
}
