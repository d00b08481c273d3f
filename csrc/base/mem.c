#define _GNU_SOURCE /* mmap flags, madvise */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"

#if defined(__unix__) || defined(__APPLE__)
#define HAVE_MMAP 1
#include <sys/mman.h>
#include <unistd.h>
#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif
#else
#define HAVE_MMAP 0
#endif

/* What a system does not know is not asked for. */
#define NO_ADVICE (-1)
#ifndef MADV_DONTNEED
#define MADV_DONTNEED NO_ADVICE
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE NO_ADVICE
#endif

#define LARGE                                                                                      \
    ((size_t)4 << 20) /* from here on blocks are mapped: they go back to the OS when freed */
#define HUGE_PAGE ((size_t)2 << 20)
#define FRONT_PAGE                                                                                 \
    ((size_t)64 << 10) /* in front of a mapped block; a multiple of any page size in use */

/* Stands right in front of every block, in LC_ALIGN bytes of its own. */
typedef struct header {
    size_t bytes;  /* as asked for */
    void *map;     /* the mapping that holds a large block, or NULL */
    size_t mapped; /* its length */
    bool small;    /* huge pages were slow, so some of it does without */
} header;
_Static_assert(sizeof(header) <= LC_ALIGN, "the header must fit in front of a block");

static atomic_int_least64_t allocations, live_bytes, peak_bytes;
static atomic_int_least64_t fail_in;
static atomic_bool fail_armed;

static header *header_of(void *block)
{
    return (header *)(void *)((char *)block - LC_ALIGN);
}

static bool must_fail(void)
{
    return atomic_load_explicit(&fail_armed, memory_order_relaxed) &&
           atomic_fetch_sub(&fail_in, 1) <= 1;
}

static void count_block(size_t bytes)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    int64_t live = atomic_fetch_add_explicit(&live_bytes, (int64_t)bytes, memory_order_relaxed) +
                   (int64_t)bytes;
    int_least64_t peak = atomic_load_explicit(&peak_bytes, memory_order_relaxed);
    while (live > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, live))
        ;
}

#if HAVE_MMAP
#ifdef MADV_HUGEPAGE
#define SAMPLE_EACH ((size_t)16 << 20)
#define SAMPLED_BYTES ((size_t)128 << 20) /* no more of a block: who asks for it may not use it */
#define SLOW_SECONDS 1e-3                 /* the small pages of a huge one take 0.7 ms together */

/* Of this thread: what other programs do on its core does not count. */
static double cpu_seconds(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Huge pages, until they are slow. The first touch of one takes 0.1 ms, an eighth of what its small
 * pages take. But some virtual machines give free memory back to their host, in large pieces; then it
 * takes 4 ms until the host has found the pages again (Firecracker), where small pages, from pieces
 * that were never given back, cost what they always do. So a page is touched here and there: loading
 * and first running resnet_50 takes 150 rather than 240 ms in such a machine that was idle before.
 * Returns whether all of the block may have them. */
static bool ask_for_huge_pages(char *block, size_t bytes)
{
    madvise(block, bytes, MADV_HUGEPAGE); /* advice: that it is refused is no error */
    for (size_t at = 0; at + HUGE_PAGE < bytes && at < SAMPLED_BYTES; at += SAMPLE_EACH) {
        const double start = cpu_seconds();
        *(volatile char *)(block + at) = 0;
        if (cpu_seconds() - start < SLOW_SECONDS)
            continue;
        at += HUGE_PAGE;
        madvise(block + at, bytes - at, MADV_NOHUGEPAGE);
        return false;
    }
    return true;
}
#endif

/* Maps the block with its start on a 2 MiB boundary and gives the slack on both sides back. */
static void *map_large(size_t bytes)
{
    size_t body = (bytes + FRONT_PAGE - 1) / FRONT_PAGE * FRONT_PAGE;
    size_t total = body + FRONT_PAGE + HUGE_PAGE;
    char *start = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((void *)start == MAP_FAILED)
        return NULL;
    uintptr_t first = (uintptr_t)start + FRONT_PAGE;
    char *block = start + FRONT_PAGE + (HUGE_PAGE - first % HUGE_PAGE) % HUGE_PAGE;
    char *front = block - FRONT_PAGE, *end = block + body;
    if (front > start)
        munmap(start, (size_t)(front - start));
    if (start + total > end)
        munmap(end, (size_t)(start + total - end));
    header *h = header_of(block);
    h->map = front;
    h->mapped = FRONT_PAGE + body;
    h->small = false;
#ifdef MADV_HUGEPAGE
    h->small = !ask_for_huge_pages(block, body);
#endif
    return block;
}
#endif

static void *take_block(size_t bytes, bool zero)
{
    void *block = NULL;
    if (bytes <= PTRDIFF_MAX / 2 && !must_fail()) {
#if HAVE_MMAP
        if (bytes >= LARGE) {
            block = map_large(bytes);
            zero = false;
        } else
#endif
        {
            size_t total = (bytes + 2 * LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
            char *start = aligned_alloc(LC_ALIGN, total);
            if (start) {
                block = start + LC_ALIGN;
                header_of(block)->map = NULL;
            }
        }
    }
    if (!block) {
        lc_fail(LC_ERR_MEMORY, "out of memory: could not get %zu bytes", bytes);
        return NULL;
    }
    header_of(block)->bytes = bytes;
    count_block(bytes);
    if (zero)
        memset(block, 0, bytes);
    return block;
}

void *lc_alloc(size_t bytes)
{
    return take_block(bytes, false);
}

void *lc_alloc_zero(size_t bytes)
{
    return take_block(bytes, true);
}

void *lc_realloc(void *block, size_t old_bytes, size_t new_bytes)
{
    void *fresh = take_block(new_bytes, false);
    if (fresh && block) {
        memcpy(fresh, block, old_bytes < new_bytes ? old_bytes : new_bytes);
        lc_free(block);
    }
    return fresh;
}

void lc_free(void *block)
{
    if (!block)
        return;
    header *h = header_of(block);
    atomic_fetch_sub_explicit(&live_bytes, (int64_t)h->bytes, memory_order_relaxed);
#if HAVE_MMAP
    if (h->map) {
        munmap(h->map, h->mapped);
        return;
    }
#endif
    free(h);
}

/* Advice on the pages that lie wholly inside. */
static void advise(void *from, size_t bytes, int advice)
{
#if HAVE_MMAP
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)from + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)from + bytes) / page * page;
    if (advice != NO_ADVICE && begin < end)
        madvise((void *)begin, end - begin, advice);
#else
    (void)from, (void)bytes, (void)advice;
#endif
}

void lc_discard(void *from, size_t bytes)
{
    advise(from, bytes, MADV_DONTNEED);
}

/* Where pages are small, this takes three quarters of the time of a fault for each (AMD Zen 4 in a
 * virtual machine). Linux 5.14 and later; others refuse. */
void lc_prefault(void *from, size_t bytes)
{
    advise(from, bytes, MADV_POPULATE_WRITE);
}

void lc_filled(void *block)
{
#if HAVE_MMAP && defined(MADV_HUGEPAGE)
    header *h = header_of(block);
    if (!h->map || !h->small)
        return;
    h->small = false;
    madvise(block, h->mapped - FRONT_PAGE, MADV_HUGEPAGE);
#else
    (void)block;
#endif
}

char *lc_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = lc_alloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

bool lc_size_mul(size_t a, size_t b, size_t *out)
{
    *out = a * b;
    return b == 0 || a <= SIZE_MAX / b;
}

bool lc_size_add(size_t a, size_t b, size_t *out)
{
    *out = a + b;
    return a <= SIZE_MAX - b;
}

lc_mem_stats lc_mem_stats_get(void)
{
    return (lc_mem_stats){atomic_load(&allocations), atomic_load(&live_bytes),
                          atomic_load(&peak_bytes)};
}

void lc_mem_fail_after(int64_t n)
{
    atomic_store(&fail_in, n);
    atomic_store(&fail_armed, n > 0);
}

bool lc_grow(void **array, size_t size, int count, int *capacity)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity < 8 ? 8 : 2 * (size_t)*capacity, bytes;
    if (count == INT32_MAX || wanted > INT32_MAX)
        wanted = INT32_MAX;
    if (count >= (int64_t)wanted || !lc_size_mul(wanted, size, &bytes)) {
        lc_fail(LC_ERR_MEMORY, "an array of %d elements of %zu bytes cannot grow", count, size);
        return false;
    }
    void *grown = lc_realloc(*array, (size_t)count * size, bytes);
    if (!grown)
        return false;
    *array = grown;
    *capacity = (int)wanted;
    return true;
}
