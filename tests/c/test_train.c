/* Tests of csrc/train, and of the gradient slot of parameters. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "graph/param.h"

#define OK(expr) CHECK((expr) == LC_OK)

/* ---- the gradient slot ---- */

static lc_storage *storage_of(int64_t n, float first, float step)
{
    lc_storage *s = NULL;
    OK(lc_storage_create((size_t)n * sizeof(float), &s));
    for (int64_t i = 0; i < n; i++)
        ((float *)lc_storage_data(s))[i] = first + step * (float)(int)(i % 1000);
    return s;
}

static bool holds(const lc_storage *s, int64_t n, float first, float step)
{
    for (int64_t i = 0; i < n; i++)
        if (((const float *)lc_storage_data(s))[i] != first + step * (float)(int)(i % 1000))
            return false;
    return true;
}

static void test_gradient_slot(void)
{
    enum { N = 200001 }; /* enough for a team */
    lc_param *p = NULL;
    OK(lc_param_create(LC_F32, 1, (int64_t[]){N}, &p));
    uint64_t stamp = lc_param_stamp(p);
    CHECK(lc_param_grad(p) == NULL);

    lc_storage *a = storage_of(N, 1.0f, 0.5f), *b = storage_of(N, -3.0f, 0.25f);
    OK(lc_param_accumulate_grad(p, a));
    lc_storage *g = lc_param_grad(p);
    CHECK(g == a); /* the memory itself */
    lc_storage_release(g);

    /* Somebody else (a) holds it: the sum goes elsewhere. */
    OK(lc_param_accumulate_grad(p, b));
    g = lc_param_grad(p);
    CHECK(g != a && holds(a, N, 1.0f, 0.5f) && holds(g, N, -2.0f, 0.75f));
    lc_storage_release(g);

    /* Nobody else does: in place. */
    OK(lc_param_accumulate_grad(p, b));
    lc_storage *h = lc_param_grad(p);
    CHECK(h == g && holds(h, N, -5.0f, 1.0f) && holds(b, N, -3.0f, 0.25f));

    lc_mem_fail_after(1);
    CHECK(lc_param_accumulate_grad(p, b) == LC_ERR_MEMORY); /* h is ours as well */
    lc_mem_fail_after(0);
    CHECK(holds(h, N, -5.0f, 1.0f));
    lc_storage_release(h);

    lc_param_set_grad(p, a);
    g = lc_param_grad(p);
    CHECK(g == a);
    lc_storage_release(g);
    lc_param_set_grad(p, NULL);
    CHECK(lc_param_grad(p) == NULL);
    CHECK(lc_param_stamp(p) == stamp);
    lc_param_set_grad(p, b); /* goes with the parameter */
    lc_param_release(p);

    OK(lc_param_create(LC_I64, 0, NULL, &p));
    CHECK(lc_param_accumulate_grad(p, a) == LC_ERR_TYPE);
    lc_param_release(p);
    lc_storage_release(a);
    lc_storage_release(b);
}

int main(void)
{
    int64_t before = lc_mem_stats_get().live_bytes;
    test_gradient_slot();
    CHECK(lc_mem_stats_get().live_bytes == before);
    return check_report();
}
