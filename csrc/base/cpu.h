/* What this CPU and OS can run, and its caches. Read once, on first use; safe from any thread.
 *
 * Macros of the build: LC_NO_AVX2 and LC_NO_AVX512 where those kernels are left out;
 * LC_EMULATE_AVX512 where the kernels for AVX-512 are made of AVX2 instructions (tests), so that
 * AVX2 is enough to choose them. */
#ifndef LC_BASE_CPU_H
#define LC_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lc_isa {
    LC_ISA_SCALAR = 0,
    LC_ISA_AVX2 = 1,
    LC_ISA_AVX512 = 2,
    LC_ISA_COUNT = 3
} lc_isa;

typedef struct lc_cpu {
    char vendor[16];
    char brand[64];
    lc_isa isa_best;    /* CPUID and XGETBV allow it and it was compiled in */
    lc_isa isa;         /* isa_best capped by LUCID_C_ISA=scalar|avx2|avx512 */
    bool isa_env_bad;   /* LUCID_C_ISA was set to something else; isa == isa_best then */
    size_t l1d, l2, l3; /* bytes; l1d and l2 per core, l3 shared; sensible guesses where unknown */
    int logical;        /* processors that the process may run on (affinity mask) */
    int physical;       /* distinct cores among those */
} lc_cpu;

const lc_cpu *lc_cpu_get(void);
/* Bytes of activations that a step of a team may touch so that they stay in the caches: its own ones
 * and some of the one that it shares with others, and with weights. */
int64_t lc_cpu_cache(int threads);
const char *lc_isa_name(lc_isa isa); /* "scalar", "avx2", "avx512" */

#endif
