/* Memory. All that the core allocates comes from here, is counted, and fails with a status. */
#ifndef LC_BASE_MEM_H
#define LC_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LC_ALIGN 64 /* bytes: a cache line, and one AVX-512 register */

/* 64-byte aligned memory, or NULL (after lc_fail with LC_ERR_MEMORY). Blocks from 4 MiB on are 2
 * MiB aligned and advised to use huge pages, unless those are slow to come. Contents are undefined.
 * bytes == 0 gives a unique pointer that may be freed. */
void *lc_alloc(size_t bytes);
void *lc_alloc_zero(size_t bytes);
/* Grows or shrinks; on failure the old block stays valid and NULL is returned. NULL-safe. */
void *lc_realloc(void *block, size_t old_bytes, size_t new_bytes);
void lc_free(void *block); /* NULL-safe */
/* Gives the pages that lie wholly inside back to the system: they hold zeros or what they held
 * before, and may be written again. Any part of a block. */
void lc_discard(void *from, size_t bytes);
/* Gets the pages that lie wholly inside, which are about to be written for the first time. Advice:
 * whether or not the system does it, memory may be written. Any part of a block. */
void lc_prefault(void *from, size_t bytes);
/* Says that all of a block has been written. If huge pages were too slow to get for that, the system
 * may join its small pages into huge ones from now on, in its own time (Linux: khugepaged): with
 * them, models are 1.02 to 1.08 times as fast (Zen 4). One thread at a time. */
void lc_filled(void *block);
char *lc_strdup(const char *text);

/* Overflow-checked size arithmetic: false on overflow. */
bool lc_size_mul(size_t a, size_t b, size_t *out);
bool lc_size_add(size_t a, size_t b, size_t *out);

typedef struct lc_mem_stats {
    int64_t allocations; /* calls that gave memory since the start of the process */
    int64_t live_bytes;  /* allocated and not yet freed */
    int64_t peak_bytes;  /* largest live_bytes so far */
} lc_mem_stats;
lc_mem_stats lc_mem_stats_get(void);

/* Tests: the n-th allocation from now fails (and every later one until reset); n <= 0 turns that
 * off. */
void lc_mem_fail_after(int64_t n);

/* Growable array: room for `count + 1` elements of `size` bytes. `*capacity` counts elements. */
bool lc_grow(void **array, size_t size, int count, int *capacity);

#endif
