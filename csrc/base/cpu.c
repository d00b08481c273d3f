#define _GNU_SOURCE /* sched_getaffinity, _SC_LEVEL*_CACHE_SIZE */
#include "base/cpu.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define IS_X86 1
#include <cpuid.h>
#else
#define IS_X86 0
#endif

static lc_cpu cpu;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if IS_X86

static uint64_t xgetbv0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0)); /* the intrinsic would need -mxsave */
    return (uint64_t)hi << 32 | lo;
}

/* Whether the CPU has the instructions and the OS saves the registers, for AVX2 with FMA and for
 * AVX-512 F, DQ, BW, VL. */
static void x86_features(bool *avx2, bool *avx512)
{
    uint32_t a, b, c, d;
    *avx2 = *avx512 = false;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return;
    bool osxsave = c >> 27 & 1, avx = c >> 28 & 1, fma = c >> 12 & 1;
    if (!osxsave || !avx || !fma || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return;
    uint64_t saved = xgetbv0();
    uint64_t ymm = 1 << 1 | 1 << 2,
             zmm = ymm | 1 << 5 | 1 << 6 | 1 << 7; /* XMM, YMM; masks, two halves of ZMM */
    uint32_t wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    *avx2 = (b >> 5 & 1) && (saved & ymm) == ymm;
    *avx512 = *avx2 && (b & wanted) == wanted && (saved & zmm) == zmm;
}

static void x86_names(void)
{
    uint32_t r[12], a, b, c, d;
    if (__get_cpuid(0, &a, &b, &c, &d)) {
        memcpy(cpu.vendor, &b, 4);
        memcpy(cpu.vendor + 4, &d, 4);
        memcpy(cpu.vendor + 8, &c, 4);
    }
    if (__get_cpuid_max(0x80000000u, NULL) < 0x80000004u)
        return;
    for (uint32_t i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]);
    memcpy(cpu.brand, r, sizeof r);
    size_t n = strlen(cpu.brand);
    while (n > 0 && cpu.brand[n - 1] == ' ')
        cpu.brand[--n] = '\0';
}

static void x86_caches(void)
{
    uint32_t a, b, c, d, leaf = 4;
    if (strcmp(cpu.vendor, "AuthenticAMD") == 0 || strcmp(cpu.vendor, "HygonGenuine") == 0) {
        if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !(c >> 22 & 1)) /* topology extensions */
            return;
        leaf = 0x8000001Du;
    }
    for (uint32_t i = 0; i < 16; i++) {
        if (!__get_cpuid_count(leaf, i, &a, &b, &c, &d) || (a & 31) == 0)
            break;
        uint32_t type = a & 31, level = a >> 5 & 7; /* type 1: data, 2: instructions, 3: both */
        size_t ways = (b >> 22) + 1, parts = (b >> 12 & 1023) + 1, line = (b & 4095) + 1,
               sets = (size_t)c + 1;
        size_t bytes = ways * parts * line * sets;
        if (type == 2)
            continue;
        if (level == 1)
            cpu.l1d = bytes;
        else if (level == 2)
            cpu.l2 = bytes;
        else if (level == 3)
            cpu.l3 = bytes;
    }
}

#endif

/* What no other source told: the C library, then a guess that fits most machines. */
static void fill_caches(void)
{
#ifdef _SC_LEVEL1_DCACHE_SIZE
    size_t *size[3] = {&cpu.l1d, &cpu.l2, &cpu.l3};
    const int name[3] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    for (int i = 0; i < 3; i++) {
        long bytes = *size[i] ? 0 : sysconf(name[i]);
        if (bytes > 0)
            *size[i] = (size_t)bytes;
    }
#endif
    if (cpu.l1d < (size_t)4 << 10)
        cpu.l1d = (size_t)32 << 10;
    if (cpu.l2 < cpu.l1d)
        cpu.l2 = (size_t)512 << 10;
    if (cpu.l3 < cpu.l2)
        cpu.l3 = (size_t)8 << 20;
}

#ifdef __linux__

#define MASK_CPUS 8192 /* as large as Linux can be built for */

typedef union cpu_mask {
    cpu_set_t set; /* the type that the call wants; shorter than the mask */
    unsigned long word[MASK_CPUS / (CHAR_BIT * sizeof(unsigned long))];
} cpu_mask;

static bool in_mask(const cpu_mask *mask, long i)
{
    const long bits = CHAR_BIT * sizeof(unsigned long);
    return i >= 0 && i < MASK_CPUS && (mask->word[i / bits] >> (i % bits) & 1);
}

/* Whether processor i is the first allowed one of its core; the kernel lists the core's as "3,67"
 * or "6-7". */
static bool first_of_core(const cpu_mask *mask, int i)
{
    char path[96], list[512];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
    FILE *file = fopen(path, "r");
    if (!file)
        return true;
    char *at = fgets(list, sizeof list, file);
    fclose(file);
    while (at && *at >= '0' && *at <= '9') {
        long from = strtol(at, &at, 10), to = from;
        if (*at == '-')
            to = strtol(at + 1, &at, 10);
        for (long j = from; j <= to && j < i; j++)
            if (in_mask(mask, j))
                return false;
        if (*at == ',')
            at++;
    }
    return true;
}

static void count_processors(void)
{
    static cpu_mask mask; /* called once */
    if (sched_getaffinity(0, sizeof mask, &mask.set) == 0) {
        for (int i = 0; i < MASK_CPUS; i++) {
            if (in_mask(&mask, i)) {
                cpu.logical++;
                cpu.physical += first_of_core(&mask, i);
            }
        }
    }
}

#else

static void count_processors(void)
{
}

#endif

static void choose_isa(bool avx2, bool avx512)
{
#ifdef LC_EMULATE_AVX512
    avx512 = avx2; /* the kernels for sixteen lanes are made of AVX2 instructions */
#endif
#ifdef LC_NO_AVX2
    avx2 = false;
#endif
#ifdef LC_NO_AVX512
    avx512 = false;
#endif
    cpu.isa_best = avx512 ? LC_ISA_AVX512 : avx2 ? LC_ISA_AVX2 : LC_ISA_SCALAR;
    cpu.isa = cpu.isa_best;
    const char *cap = getenv("LUCID_C_ISA");
    if (!cap || !*cap || strcmp(cap, "avx512") == 0)
        return;
    if (strcmp(cap, "avx2") == 0)
        cpu.isa = avx2 ? LC_ISA_AVX2 : LC_ISA_SCALAR;
    else if (strcmp(cap, "scalar") == 0)
        cpu.isa = LC_ISA_SCALAR;
    else
        cpu.isa_env_bad = true;
}

static void look(void)
{
    bool avx2 = false, avx512 = false;
#if IS_X86
    x86_names();
    x86_features(&avx2, &avx512);
    x86_caches();
#endif
    fill_caches();
    choose_isa(avx2, avx512);
    count_processors();
    if (cpu.logical < 1) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cpu.logical = online > 0 && online < INT_MAX ? (int)online : 1;
    }
    if (cpu.physical < 1)
        cpu.physical = cpu.logical;
}

const lc_cpu *lc_cpu_get(void)
{
    pthread_once(&once, look);
    return &cpu;
}

/* Of larger caches one team hardly has more to itself. */
#define MAX_L3 ((size_t)64 << 20)

/* A quarter of 32 MiB did as well as anything from 6 to 12 MiB. */
int64_t lc_cpu_cache(int threads)
{
    const lc_cpu *c = lc_cpu_get();
    const size_t shared = c->l3 < MAX_L3 ? c->l3 : MAX_L3;
    return (int64_t)(shared / 4 + c->l2 * (size_t)threads);
}

const char *lc_isa_name(lc_isa isa)
{
    static const char *const name[LC_ISA_COUNT] = {"scalar", "avx2", "avx512"};
    return isa >= 0 && isa < LC_ISA_COUNT ? name[isa] : "unknown";
}
