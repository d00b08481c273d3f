/* Memory for packed forms, csrc/graph/space.c. */
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "graph/space.h"

#define PAGE ((size_t)4096)
#define OK(expr) CHECK((expr) == LC_OK)

static lc_storage *take(lc_spaces *all, size_t bytes, bool used)
{
    lc_storage *s = NULL;
    bool was_used = !used;
    OK(lc_spaces_expect(all, bytes));
    OK(lc_spaces_take(all, bytes, &s, &was_used));
    CHECK(was_used == used && lc_storage_bytes(s) == bytes);
    return s;
}

/* The pages [first, first + n) of a block. */
static lc_space pages(lc_storage *slab, size_t first, size_t n)
{
    char *data = lc_storage_data(slab);
    return (lc_space){data + first * PAGE, n * PAGE, lc_storage_retain(slab)};
}

/* What was left is used first, the smallest space that has room; neighbours are joined. */
static void test_reuse(void)
{
    const int64_t before = lc_mem_stats_get().live_bytes;
    lc_spaces all = {0};
    lc_storage *a, *b, *s[6];
    OK(lc_storage_create(100 * PAGE, &a));
    OK(lc_storage_create(100 * PAGE, &b));
    char *in_a = lc_storage_data(a), *in_b = lc_storage_data(b);
    lc_spaces_add(&all, (lc_space){0}); /* none */
    lc_spaces_add(&all, pages(a, 10, 20));
    lc_spaces_add(&all, pages(a, 40, 10));
    lc_spaces_add(&all, pages(b, 0, 15));
    CHECK(all.n == 3);
    s[0] = take(&all, 9 * PAGE + 1, true);
    CHECK(lc_storage_data(s[0]) == in_a + 40 * PAGE && all.n == 2);
    s[1] = take(&all, 11 * PAGE, true);
    CHECK(lc_storage_data(s[1]) == in_b && all.n == 2);
    s[2] = take(&all, 12 * PAGE, true);
    CHECK(lc_storage_data(s[2]) == in_a + 10 * PAGE && all.n == 2);
    lc_spaces_add(&all, pages(a, 30, 10)); /* behind 8 that are left of the first 20 */
    CHECK(all.n == 2);
    s[3] = take(&all, 18 * PAGE, true);
    CHECK(lc_storage_data(s[3]) == in_a + 22 * PAGE && all.n == 1);
    s[4] = take(&all, 5 * PAGE, false);
    s[5] = take(&all, 1, true);
    CHECK(lc_storage_data(s[5]) == in_b + 11 * PAGE);
    /* between two others: all three become one */
    lc_spaces_add(&all, pages(b, 50, 10));
    lc_spaces_add(&all, pages(b, 70, 10));
    CHECK(all.n == 3);
    lc_spaces_add(&all, pages(b, 60, 10));
    CHECK(all.n == 2);
    lc_spaces_clear(&all);
    CHECK(all.n == 0 && all.left == NULL);
    for (int i = 0; i < 6; i++)
        lc_storage_release(s[i]);
    lc_storage_release(a);
    lc_storage_release(b);
    CHECK(lc_mem_stats_get().live_bytes == before);
}

/* Fresh blocks are as large as what is expected, up to a bound, and no smaller than what is asked. */
static void test_blocks(void)
{
    const int64_t before = lc_mem_stats_get().live_bytes;
    lc_spaces all = {0};
    lc_storage *s[3];
    bool used;
    OK(lc_spaces_expect(&all, 100));
    OK(lc_spaces_expect(&all, 3 * PAGE));
    OK(lc_spaces_take(&all, 100, &s[0], &used));
    CHECK(!used && all.fresh.bytes == 3 * PAGE);
    OK(lc_spaces_take(&all, 3 * PAGE, &s[1], &used));
    CHECK(!used && all.fresh.bytes == 0 && all.wanted == 0);
    CHECK((char *)lc_storage_data(s[1]) == (char *)lc_storage_data(s[0]) + PAGE);
    OK(lc_spaces_expect(&all, (size_t)20 << 20));
    OK(lc_spaces_expect(&all, (size_t)20 << 20));
    OK(lc_spaces_take(&all, (size_t)20 << 20, &s[2], &used));
    CHECK(!used && all.fresh.bytes == 0);
    CHECK(lc_spaces_expect(&all, SIZE_MAX - 100) == LC_ERR_MEMORY);
    for (int i = 0; i < 3; i++)
        lc_storage_release(s[i]);
    lc_spaces_clear(&all);
    CHECK(lc_mem_stats_get().live_bytes == before);
}

/* Storages come and their memory goes back in any order: none overlaps another, nothing is lost. */
static void test_many(void)
{
    enum { N = 40, STEPS = 4000 };
    const int64_t before = lc_mem_stats_get().live_bytes;
    lc_spaces all = {0};
    lc_storage *alive[N] = {0}, *slab;
    size_t size[N];
    unsigned seed = 1;
    OK(lc_storage_create(300 * PAGE, &slab));
    for (size_t at = 0; at < 300; at += 50)
        lc_spaces_add(&all, pages(slab, at, 50 - at % 100 / 10));
    lc_storage_release(slab);
    for (int step = 0; step < STEPS; step++) {
        seed = seed * 1103515245 + 12345;
        const int i = (int)(seed >> 16) % N;
        if (alive[i]) {
            const unsigned char *p = lc_storage_data(alive[i]);
            size_t wrong = 0;
            for (size_t k = 0; k < size[i]; k++)
                wrong += p[k] != (unsigned char)i;
            CHECK(wrong == 0);
            lc_storage_release(alive[i]);
            alive[i] = NULL;
            continue;
        }
        size[i] = (seed >> 8) % (12 * PAGE) + 1;
        bool used;
        OK(lc_spaces_expect(&all, size[i]));
        OK(lc_spaces_take(&all, size[i], &alive[i], &used));
        memset(lc_storage_data(alive[i]), i, size[i]);
    }
    for (int i = 0; i < N; i++)
        lc_storage_release(alive[i]);
    lc_spaces_clear(&all);
    CHECK(lc_mem_stats_get().live_bytes == before);
}

static void test_failure(void)
{
    const int64_t before = lc_mem_stats_get().live_bytes;
    for (int n = 1; n < 7; n++) {
        lc_spaces all = {0};
        lc_storage *slab, *s = NULL, *t = NULL;
        bool used;
        OK(lc_storage_create(10 * PAGE, &slab));
        const lc_space left = pages(slab, 2, 3);
        lc_storage_release(slab);
        OK(lc_spaces_expect(&all, 6 * PAGE));
        lc_mem_fail_after(n);
        lc_spaces_add(&all, left);
        const lc_status first = lc_spaces_take(&all, 3 * PAGE, &s, &used);
        const lc_status second = lc_spaces_take(&all, 3 * PAGE, &t, &used);
        lc_mem_fail_after(0);
        CHECK((first == LC_OK) == (s != NULL) && (second == LC_OK) == (t != NULL));
        CHECK(second == LC_OK || second == LC_ERR_MEMORY);
        CHECK(n < 6 || second == LC_OK);
        lc_storage_release(s);
        lc_storage_release(t);
        lc_spaces_clear(&all);
        CHECK(lc_mem_stats_get().live_bytes == before);
    }
}

int main(void)
{
    test_reuse();
    test_blocks();
    test_many();
    test_failure();
    return check_report();
}
