/* Tests of csrc/base: statuses, memory, random numbers. */
#define _POSIX_C_SOURCE 200809L /* sysconf */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/status.h"
#include "base/threads.h"
#include "check.h"

/* ---- status ---- */

static lc_status fails_twice(void)
{
    LC_TRY(lc_fail(LC_ERR_INDEX, "axis %d", 7));
    return LC_OK;
}

static lc_status jumps(int *cleaned)
{
    lc_status status = LC_OK;
    LC_TRY_GOTO(LC_OK, done);
    LC_TRY_GOTO(lc_fail(LC_ERR_KEY, "no child"), done);
    *cleaned = -1;
done:
    *cleaned += 1;
    return status;
}

static void *other_thread_message(void *out)
{
    strcpy(out, lc_error_message());
    lc_fail(LC_ERR_VALUE, "theirs");
    return NULL;
}

static void test_status(void)
{
    CHECK(lc_error_message() && lc_error_message()[0] == '\0');
    CHECK(fails_twice() == LC_ERR_INDEX);
    CHECK(strcmp(lc_error_message(), "axis 7") == 0);
    CHECK(lc_fail_in(LC_ERR_VALUE, "layer%d", 1) == LC_ERR_VALUE);
    CHECK(strcmp(lc_error_message(), "layer1: axis 7") == 0);
    lc_fail(LC_ERR_VALUE, "again %s",
            lc_error_message()); /* an argument that is the message itself */
    CHECK(strcmp(lc_error_message(), "again layer1: axis 7") == 0);
    int cleaned = 0;
    CHECK(jumps(&cleaned) == LC_ERR_KEY && cleaned == 1);

    char theirs[64] = "x";
    pthread_t thread;
    pthread_create(&thread, NULL, other_thread_message, theirs);
    pthread_join(thread, NULL);
    CHECK(theirs[0] == '\0' && strcmp(lc_error_message(), "no child") == 0);

    /* Cut messages are whole characters, whichever byte the cut falls on. */
    char text[3000];
    for (int shift = 0; shift < 3; shift++) {
        memset(text, 'a', 3);
        for (int i = shift; i + 3 < 2900; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 4);
        lc_fail(LC_ERR_VALUE, "%s", text);
        size_t n = strlen(lc_error_message());
        CHECK(n > 1000 && n < 1024 && (n - (size_t)shift) % 3 == 0);
        lc_fail_in(LC_ERR_VALUE, "x");
        CHECK(strlen(lc_error_message()) < 1024 &&
              (strlen(lc_error_message()) - 3 - (size_t)shift) % 3 == 0);
    }
}

/* ---- mem ---- */

static long resident_bytes(void)
{
    long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return -1;
    if (fscanf(file, "%ld %ld", &size, &pages) != 2)
        pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static void test_mem_blocks(void)
{
    lc_mem_stats before = lc_mem_stats_get();
    size_t sizes[] = {0, 1, 63, 64, 65, 4096, (4u << 20) - 1, 4u << 20, (4u << 20) + 1, 9u << 20};
    enum { N = sizeof sizes / sizeof *sizes };
    unsigned char *block[N];
    int64_t sum = 0;
    for (int i = 0; i < N; i++) {
        block[i] = i % 2 ? lc_alloc_zero(sizes[i]) : lc_alloc(sizes[i]);
        CHECK(block[i] && (uintptr_t)block[i] % LC_ALIGN == 0);
        if (sizes[i] >= 4u << 20)
            CHECK((uintptr_t)block[i] % (2u << 20) == 0);
        if (i % 2)
            CHECK(sizes[i] == 0 || (block[i][0] == 0 && block[i][sizes[i] - 1] == 0));
        memset(block[i], 0xa5, sizes[i]);
        sum += (int64_t)sizes[i];
        CHECK(lc_mem_stats_get().live_bytes - before.live_bytes == sum);
    }
    CHECK(block[0] != block[1]);
    CHECK(lc_mem_stats_get().allocations - before.allocations == N);
    for (int i = 0; i < N; i++)
        lc_free(block[i]);
    lc_free(NULL);
    CHECK(lc_mem_stats_get().live_bytes == before.live_bytes);
    CHECK(lc_mem_stats_get().peak_bytes >= before.live_bytes + sum);

    unsigned char *p = lc_alloc(100);
    for (int i = 0; i < 100; i++)
        p[i] = (unsigned char)i;
    p = lc_realloc(p, 100, (size_t)5 << 20);
    CHECK(p && p[0] == 0 && p[99] == 99);
    p = lc_realloc(p, (size_t)5 << 20, 50);
    CHECK(p && p[49] == 49 && lc_mem_stats_get().live_bytes - before.live_bytes == 50);
    lc_free(p);
    char *copy = lc_strdup("h\xc3\xa9llo");
    CHECK(copy && strcmp(copy, "h\xc3\xa9llo") == 0);
    lc_free(copy);

    long rss0 = resident_bytes();
    if (rss0 > 0) {
        char *big = lc_alloc((size_t)64 << 20);
        memset(big, 1, (size_t)64 << 20);
        long rss1 = resident_bytes();
        lc_free(big);
        long rss2 = resident_bytes();
        CHECK(rss1 - rss0 > 60L << 20);
        CHECK(rss1 - rss2 > 60L << 20);
    }
}

/* Pages are got and given back inside a range only; the bytes around it stay as they are. */
static void test_mem_pages(void)
{
    const size_t bytes = (size_t)32 << 20, from = 5000, end = bytes - 7000;
    unsigned char *p = lc_alloc_zero(bytes);
    memset(p, 1, (size_t)1 << 20); /* some are there already */
    lc_prefault(p + from, end - from);
    size_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += p[i];
    CHECK(sum == (size_t)1 << 20);
    memset(p, 2, bytes);
    long rss0 = resident_bytes();
    lc_discard(p + from, end - from);
    long rss1 = resident_bytes();
    CHECK(rss0 <= 0 || rss0 - rss1 > 30L << 20);
    CHECK(p[0] == 2 && p[from - 1] == 2 && p[from] == 2 && p[end] == 2 && p[bytes - 1] == 2);
    memset(p, 3, bytes);
    lc_filled(p);
    CHECK(p[0] == 3 && p[bytes / 2] == 3 && p[bytes - 1] == 3);
    lc_prefault(p, 0);
    lc_discard(p, 0);
    lc_free(p);
}

static void test_mem_failure(void)
{
    lc_mem_stats before = lc_mem_stats_get();
    CHECK(lc_alloc(SIZE_MAX) == NULL && lc_alloc(SIZE_MAX - 64) == NULL &&
          lc_alloc(SIZE_MAX / 2) == NULL);
    CHECK(strstr(lc_error_message(), "out of memory") != NULL);
    CHECK(lc_alloc((size_t)1 << 62) == NULL && lc_alloc_zero((size_t)PTRDIFF_MAX / 2) == NULL);
    char *p = lc_alloc(10);
    p[9] = 'x';
    lc_mem_fail_after(2);
    char *q = lc_alloc(10);
    CHECK(q != NULL);
    CHECK(lc_alloc(10) == NULL && lc_alloc_zero((size_t)8 << 20) == NULL && lc_strdup("a") == NULL);
    CHECK(lc_realloc(p, 10, 1000) == NULL && p[9] == 'x');
    int capacity = 0;
    void *array = NULL;
    CHECK(!lc_grow(&array, 4, 0, &capacity) && array == NULL && capacity == 0);
    lc_mem_fail_after(0);
    char *r = lc_alloc(10);
    CHECK(r != NULL);
    lc_free(p);
    lc_free(q);
    lc_free(r);
    CHECK(lc_mem_stats_get().live_bytes == before.live_bytes);
    CHECK(lc_mem_stats_get().allocations == before.allocations + 3);

    int *numbers = NULL;
    capacity = 0;
    for (int i = 0; i < 1000; i++) {
        if (!lc_grow((void **)&numbers, sizeof *numbers, i, &capacity))
            break;
        numbers[i] = i;
    }
    CHECK(capacity >= 1000 && capacity < 4000 && numbers[0] == 0 && numbers[999] == 999);
    int *same = numbers, full = INT_MAX;
    CHECK(!lc_grow((void **)&numbers, sizeof *numbers, INT_MAX, &full) && numbers == same &&
          full == INT_MAX);
    lc_free(numbers);

    size_t out;
    CHECK(lc_size_mul(3, 5, &out) && out == 15);
    CHECK(lc_size_mul(0, SIZE_MAX, &out) && out == 0 && lc_size_mul(SIZE_MAX, 0, &out) && out == 0);
    CHECK(lc_size_mul(SIZE_MAX, 1, &out) && !lc_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    CHECK(lc_size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX && !lc_size_add(SIZE_MAX, 1, &out));
}
/* ---- random ---- */

static void test_philox(void)
{
    /* the known answers of Random123 (kat_vectors: philox4x32 10) */
    static const struct {
        uint64_t seed, stream, block;
        uint32_t out[4];
    } known[3] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        lc_philox(known[i].seed, known[i].stream, known[i].block, out);
        CHECK(memcmp(out, known[i].out, sizeof out) == 0);
    }
}

static void test_random(void)
{
    enum { N = 1 << 20 };
    float *x = lc_alloc(N * sizeof *x), *y = lc_alloc(N * sizeof *y);
    lc_random_uniform(x, N, 1, 2, 0, 0, 1);
    double sum = 0, sum2 = 0, lo = 1, hi = 0;
    for (int i = 0; i < N; i++) {
        sum += x[i];
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    CHECK(fabs(sum / N - 0.5) < 2e-3 && lo >= 0 && lo < 1e-4 && hi < 1 && hi > 1 - 1e-4);
    lc_random_uniform(y, N, 1, 2, 0, -3, 1);
    float top = -3;
    for (int i = 0; i < N; i++)
        top = y[i] > top ? y[i] : top;
    CHECK(top < 1);
    /* so narrow that rounding would reach the upper end */
    lc_random_uniform(y, 4096, 1, 2, 0, 1, 1 + FLT_EPSILON);
    int all = 1;
    for (int i = 0; i < 4096; i++)
        all &= y[i] == 1;
    CHECK(all);
    lc_random_uniform(y, 4, 1, 2, 0, 5, 5);
    CHECK(y[0] == 5 && y[3] == 5);

    lc_random_normal(x, N, 1, 2, 0, 0, 1);
    double third = 0, fourth = 0, worst = 0, pair = 0;
    int tail = 0;
    sum = 0;
    for (int i = 0; i < N; i++) {
        double z = x[i];
        sum += z;
        sum2 += z * z;
        third += z * z * z;
        fourth += z * z * z * z;
        tail += fabs(z) > 1.959964;
        if (i % 2)
            pair += z * x[i - 1];
    }
    CHECK(fabs(sum / N) < 4e-3 && fabs(sum2 / N - 1) < 6e-3 && fabs(third / N) < 1.5e-2);
    CHECK(fabs(fourth / N - 3) < 4e-2 && fabs((double)tail / N - 0.05) < 1.2e-3 &&
          fabs(pair / N) < 4e-3);
    /* against the definition in double, from the words */
    for (int i = 0; i < N; i += 4) {
        uint32_t w[4];
        lc_philox(1, 2, (uint64_t)i / 4, w);
        for (int j = 0; j < 4; j += 2) {
            double r = sqrt(-2 * log(((float)(int32_t)(w[j] >> 1) + 0.5f) * 0x1p-31));
            double turn = (w[j + 1] >> 30) + ((double)(w[j + 1] & 0x3fffffff) - 0x1p29) * 0x1p-30;
            double angle = turn * 1.5707963267948966;
            worst = fmax(
                worst, fmax(fabs(x[i + j] - r * cos(angle)), fabs(x[i + j + 1] - r * sin(angle))));
        }
    }
    CHECK(worst < 3e-6);
    /* any part, drawn in any order */
    int same = 1;
    for (int first = 0; first < 9; first++) {
        for (int n = 0; n < 12; n++) {
            y[n] = 77;
            lc_random_normal(y, n, 1, 2, first, 0, 1);
            same &= memcmp(y, x + first, (size_t)n * sizeof *y) == 0 && y[n] == 77;
        }
    }
    CHECK(same);
    lc_random_normal(y, 8, 1, 3, 0, 0, 1);
    CHECK(memcmp(x, y, 8 * sizeof *y) != 0);
    lc_random_normal(y, 8, 2, 2, 0, 0, 1);
    CHECK(memcmp(x, y, 8 * sizeof *y) != 0);
    lc_random_normal(y, 8, 1, 2, INT64_C(4) << 40, 0, 1); /* past 32 bits of blocks */
    CHECK(memcmp(x, y, 8 * sizeof *y) != 0);
    lc_random_normal(y, 3, 1, 2, 0, 10, 0.5f);
    CHECK(y[0] == 10 + 0.5f * x[0] && y[2] == 10 + 0.5f * x[2]);

    /* The bits on every platform, compiler and ISA: one wrong bit changes the hash. */
    uint64_t hash = UINT64_C(1469598103934665603);
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(1099511628211);
    }
    CHECK(hash == UINT64_C(6428052559632951558));
    if (getenv("LC_TEST_SPEED")) {
        fprintf(stderr, "hash %llu\n", (unsigned long long)hash);
        double start = lc_seconds();
        for (int i = 0; i < 50; i++)
            lc_random_normal(x, N, 1, 2, 0, 0, 1);
        double middle = lc_seconds();
        for (int i = 0; i < 50; i++)
            lc_random_uniform(x, N, 1, 2, 0, 0, 1);
        fprintf(stderr, "%.0f M normals/s, %.0f M uniforms/s\n", 50e-6 * N / (middle - start),
                50e-6 * N / (lc_seconds() - middle));
    }
    lc_free(x);
    lc_free(y);
}

int main(void)
{
    test_status();
    test_mem_blocks();
    test_mem_pages();
    test_mem_failure();
    test_philox();
    test_random();
    return check_report();
}
