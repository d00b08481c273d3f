/* Graphs: recording, passes (fused and unfused forms agree), settling, the plan cache, memory,
 * errors. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "check.h"
#include "graph/ir.h"
#include "graph/plan.h"
#include "graph/profile.h"
#include "ops/ops.h"

#define OK(expr) CHECK(succeeds(expr, __LINE__))

static bool succeeds(lc_status status, int line)
{
    if (status != LC_OK)
        fprintf(stderr, "%d: %s\n", line, lc_error_message());
    return status == LC_OK;
}

static uint32_t state = 1;

static float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

static lc_param *make_param(int rank, const int64_t *dim, float lo, float hi)
{
    lc_param *p = NULL;
    lc_storage *s = NULL;
    OK(lc_param_create(LC_F32, rank, dim, &p));
    OK(lc_storage_create(lc_desc_bytes(lc_param_desc(p)), &s));
    float *data = lc_storage_data(s);
    for (int64_t i = 0; i < lc_desc_count(lc_param_desc(p)); i++)
        data[i] = lo + (hi - lo) * (noise() + 1) / 2;
    lc_param_replace(p, s);
    lc_storage_release(s);
    return p;
}

/* conv -> bn -> + shortcut conv -> relu, twice the parameters: what a residual block records. */
enum { W1, G1, B1, M1, V1, W2, N_PARAMS };
typedef struct net {
    lc_param *p[N_PARAMS];
    lc_value x, conv, bn, shortcut, sum, y;
    lc_graph *g;
} net;

static void make_params(net *n, int64_t ic, int64_t oc)
{
    int64_t w1[] = {oc, ic, 3, 3}, w2[] = {oc, ic, 1, 1};
    n->p[W1] = make_param(4, w1, -0.2f, 0.2f);
    n->p[W2] = make_param(4, w2, -0.5f, 0.5f);
    n->p[G1] = make_param(1, &oc, 0.5f, 1.5f);
    n->p[B1] = make_param(1, &oc, -0.5f, 0.5f);
    n->p[M1] = make_param(1, &oc, -0.3f, 0.3f);
    n->p[V1] = make_param(1, &oc, 0.5f, 1.5f);
}

static void drop_params(net *n)
{
    for (int i = 0; i < N_PARAMS; i++)
        lc_param_release(n->p[i]);
}

static void record(net *n, const lc_desc *in, const float *data)
{
    lc_value v[N_PARAMS], list[5];
    OK(lc_graph_create(&n->g));
    OK(lc_graph_input(n->g, in, data, &n->x));
    for (int i = 0; i < N_PARAMS; i++)
        OK(lc_graph_param(n->g, n->p[i], &v[i]));
    lc_conv2d_attr conv;
    memset(&conv, 0, sizeof conv);
    conv.stride[0] = conv.stride[1] = conv.dilation[0] = conv.dilation[1] = conv.groups = 1;
    lc_conv2d_attr shortcut = conv;
    for (int i = 0; i < 4; i++)
        conv.pad[i] = 1;
    list[0] = n->x, list[1] = v[W1];
    OK(lc_graph_set_scope(n->g, "a.conv"));
    OK(lc_graph_append(n->g, &lc_op_conv2d, &conv, 2, list, &n->conv));
    OK(lc_graph_set_scope(n->g, "a.bn"));
    lc_batch_norm_attr bn;
    memset(&bn, 0, sizeof bn);
    bn.eps = 1e-5f;
    bn.affine = 1;
    list[0] = n->conv, list[1] = v[G1], list[2] = v[B1], list[3] = v[M1], list[4] = v[V1];
    OK(lc_graph_append(n->g, &lc_op_batch_norm, &bn, 5, list, &n->bn));
    list[0] = n->x, list[1] = v[W2];
    OK(lc_graph_set_scope(n->g, "b"));
    OK(lc_graph_append(n->g, &lc_op_conv2d, &shortcut, 2, list, &n->shortcut));
    lc_binary_attr add;
    memset(&add, 0, sizeof add);
    list[0] = n->bn, list[1] = n->shortcut;
    OK(lc_graph_append(n->g, &lc_op_binary, &add, 2, list, &n->sum));
    lc_unary_attr relu;
    memset(&relu, 0, sizeof relu);
    OK(lc_graph_append(n->g, &lc_op_unary, &relu, 1, &n->sum, &n->y));
}

static void test_fused_equals_unfused(void)
{
    net n;
    make_params(&n, 21, 19);
    lc_desc d;
    int64_t shape[] = {2, 21, 9, 11}, out_shape[] = {2, 19, 9, 11};
    OK(lc_desc_init(&d, LC_F32, 4, shape));
    int64_t in_count = lc_desc_count(&d),
            count = out_shape[0] * out_shape[1] * out_shape[2] * out_shape[3];
    float *x = lc_alloc((size_t)in_count * 4), *y[6];
    for (int64_t i = 0; i < in_count; i++)
        x[i] = noise();
    for (int i = 0; i < 6; i++)
        y[i] = lc_alloc((size_t)count * 4);
    record(&n, &d, x);
    lc_profile profile;
    memset(&profile, 0, sizeof profile);
    lc_run_options options = {NULL, NULL, &profile};
    void *fused[] = {y[0]};
    OK(lc_graph_run(n.g, 1, &n.y, fused, &options));
    int convolutions = 0, other = 0, named = 0;
    for (int i = 0; i < profile.count; i++) {
        bool conv = strcmp(profile.rows[i].op, "conv2d") == 0;
        named += conv && strcmp(profile.rows[i].scope, convolutions ? "b" : "a.conv") == 0;
        convolutions += conv;
        other += strcmp(profile.rows[i].op, "batch_norm") == 0 ||
                 strcmp(profile.rows[i].op, "unary") == 0;
    }
    CHECK(convolutions == 2 && other == 0 && named == 2);
    CHECK(profile.arena_bytes >= profile.arena_bound && profile.threads >= 1);
    const int rows = profile.count;
    OK(lc_graph_run(n.g, 1, &n.y, fused, &options));
    CHECK(profile.count == 2 * rows); /* a second run adds its rows */
    lc_mem_fail_after(3);             /* of those that describe the next run */
    CHECK(lc_graph_run(n.g, 1, &n.y, fused, &options) == LC_ERR_MEMORY);
    lc_mem_fail_after(0);
    CHECK(profile.count == 2 * rows);
    lc_profile_free(&profile);
    /* Every value wanted: nothing can be fused. */
    lc_value all[] = {n.conv, n.bn, n.shortcut, n.sum, n.y, n.y};
    void *unfused[] = {y[1], y[2], y[3], y[4], y[5], y[1]};
    OK(lc_graph_run(n.g, 5, all, unfused, NULL));
    double worst = 0, largest = 0, sum_error = 0;
    for (int64_t i = 0; i < count; i++) {
        worst = larger_error(worst, (double)y[0][i] - y[5][i]);
        largest = fmax(largest, fabs((double)y[5][i]));
        float s = y[2][i] + y[3][i];
        sum_error = larger_error(sum_error, (double)s - y[4][i]);
        if (y[5][i] != (y[4][i] > 0 ? y[4][i] : 0))
            worst = 1;
    }
    CHECK(largest > 0.5 && worst <= 2e-6 * largest && sum_error == 0);

    /* One value wanted twice, and an input wanted as it is. */
    lc_value twice[] = {n.y, n.x, n.y};
    float *copy = lc_alloc((size_t)in_count * 4);
    void *data[] = {y[1], copy, y[2]};
    OK(lc_graph_run(n.g, 3, twice, data, NULL));
    CHECK(memcmp(y[1], y[2], (size_t)count * 4) == 0 && memcmp(copy, x, (size_t)in_count * 4) == 0);

    /* Settling: the sum is given; what led to it is not computed any more. */
    for (int64_t i = 0; i < count; i++)
        y[4][i] = (float)(i % 7) - 3;
    OK(lc_graph_settle(n.g, n.sum, y[4]));
    OK(lc_graph_run(n.g, 1, &n.y, fused, NULL));
    bool right = true;
    for (int64_t i = 0; i < count; i++)
        right &= y[0][i] == (y[4][i] > 0 ? y[4][i] : 0);
    CHECK(right);
    lc_graph_destroy(n.g);
    drop_params(&n);
    lc_free(copy);
    lc_free(x);
    for (int i = 0; i < 6; i++)
        lc_free(y[i]);
}

static void test_cache_and_stamps(void)
{
    net n;
    make_params(&n, 8, 8);
    lc_desc d;
    int64_t shape[] = {1, 8, 6, 5};
    OK(lc_desc_init(&d, LC_F32, 4, shape));
    float x[240], a[240], b[240], c[240];
    for (int i = 0; i < 240; i++)
        x[i] = noise();
    void *out[] = {a};
    record(&n, &d, x);
    OK(lc_graph_run(n.g, 1, &n.y, out, NULL));
    lc_graph_destroy(n.g);
    lc_plan_stats before = lc_plan_cache_stats();
    int64_t allocations = lc_mem_stats_get().allocations;
    record(&n, &d, x);
    out[0] = b;
    OK(lc_graph_run(n.g, 1, &n.y, out, NULL));
    lc_graph_destroy(n.g);
    CHECK(lc_plan_cache_stats().hits == before.hits + 1 &&
          lc_plan_cache_stats().misses == before.misses);
    CHECK(lc_mem_stats_get().allocations == allocations); /* a repeated call allocates nothing */
    CHECK(memcmp(a, b, sizeof a) == 0);
    /* A change of a running mean alone must be seen, though weights are packed and cached. */
    lc_storage *s;
    OK(lc_param_storage(n.p[M1], &s));
    ((float *)lc_storage_data(s))[3] += 1;
    lc_param_touch(n.p[M1]);
    lc_storage_release(s);
    record(&n, &d, x);
    out[0] = c;
    OK(lc_graph_run(n.g, 1, &n.y, out, NULL));
    lc_graph_destroy(n.g);
    CHECK(memcmp(a, c, sizeof a) != 0 && lc_plan_cache_stats().misses == before.misses);
    /* Many sizes: the cache stays bounded. */
    for (int64_t h = 3; h < 120; h++) {
        int64_t size[] = {1, 8, h, 5};
        float *big = lc_alloc((size_t)(8 * h * 5) * 4), *res = lc_alloc((size_t)(8 * h * 5) * 4);
        for (int64_t i = 0; i < 8 * h * 5; i++)
            big[i] = noise();
        OK(lc_desc_init(&d, LC_F32, 4, size));
        record(&n, &d, big);
        void *to[] = {res};
        OK(lc_graph_run(n.g, 1, &n.y, to, NULL));
        lc_graph_destroy(n.g);
        lc_free(big);
        lc_free(res);
    }
    CHECK(lc_plan_cache_stats().plans <= 64);
    drop_params(&n);
}

static bool stop_now(void *ctx)
{
    ++*(int *)ctx;
    return true;
}

static void test_errors(void)
{
    net n;
    make_params(&n, 8, 8);
    lc_desc d;
    int64_t shape[] = {1, 8, 6, 5}, wrong[] = {1, 9, 6, 5};
    OK(lc_desc_init(&d, LC_F32, 4, shape));
    record(&n, &d, NULL);
    float y[240];
    void *out[] = {y};
    CHECK(lc_graph_run(n.g, 1, &n.y, out, NULL) == LC_ERR_RUNTIME);
    int values = lc_graph_value_count(n.g), nodes = lc_graph_node_count(n.g);
    lc_value bad, list[2], w;
    lc_desc wide;
    OK(lc_desc_init(&wide, LC_F32, 4, wrong));
    OK(lc_graph_input(n.g, &wide, NULL, &bad));
    OK(lc_graph_param(n.g, n.p[W1], &w));
    lc_conv2d_attr conv;
    memset(&conv, 0, sizeof conv);
    conv.stride[0] = conv.stride[1] = conv.dilation[0] = conv.dilation[1] = conv.groups = 1;
    list[0] = bad, list[1] = w;
    CHECK(lc_graph_append(n.g, &lc_op_conv2d, &conv, 2, list, &bad) == LC_ERR_VALUE);
    CHECK(lc_graph_value_count(n.g) == values + 1 && lc_graph_node_count(n.g) == nodes);
    list[0] = 1000;
    CHECK(lc_graph_append(n.g, &lc_op_conv2d, &conv, 2, list, &bad) == LC_ERR_RUNTIME);
    lc_graph_destroy(n.g);

    /* A stop during a long run; the next run is right again. */
    net big;
    make_params(&big, 128, 128);
    int64_t large[] = {24, 128, 112, 112};
    OK(lc_desc_init(&d, LC_F32, 4, large));
    size_t bytes = lc_desc_bytes(&d);
    float *x = lc_alloc_zero(bytes), *z = lc_alloc(bytes);
    record(&big, &d, x);
    int asked = 0;
    lc_run_options options = {stop_now, &asked, NULL};
    void *to[] = {z};
    CHECK(lc_graph_run(big.g, 1, &big.y, to, &options) == LC_ERR_INTERRUPTED);
    CHECK(asked == 1);
    lc_graph_destroy(big.g);
    drop_params(&big);
    lc_free(x);
    lc_free(z);
    drop_params(&n);
}

/* Every allocation of a first run fails once: an error, no leak, and the run after it is right. */
static void test_out_of_memory(void)
{
    net n;
    make_params(&n, 8, 8);
    lc_desc d;
    int64_t shape[] = {1, 8, 6, 5};
    OK(lc_desc_init(&d, LC_F32, 4, shape));
    float x[240], want[240], y[240];
    for (int i = 0; i < 240; i++)
        x[i] = noise();
    void *out[] = {want};
    record(&n, &d, x);
    OK(lc_graph_run(n.g, 1, &n.y, out, NULL));
    lc_graph_destroy(n.g);
    out[0] = y;
    bool done = false;
    for (int fail_at = 1; fail_at < 400 && !done; fail_at++) {
        for (int i = 0; i < N_PARAMS; i++)
            lc_param_touch(n.p[i]);
        record(&n, &d, x);
        lc_plan_cache_clear();
        int64_t live = lc_mem_stats_get().live_bytes;
        lc_mem_fail_after(fail_at);
        lc_status status = lc_graph_run(n.g, 1, &n.y, out, NULL);
        lc_mem_fail_after(0);
        done = status == LC_OK;
        if (!done) {
            lc_graph_destroy(n.g);
            lc_plan_cache_clear();
            for (int i = 0; i < N_PARAMS; i++)
                lc_param_touch(n.p[i]);
            if (status != LC_ERR_MEMORY || lc_mem_stats_get().live_bytes > live) {
                printf("allocation %d: status %d, %lld bytes alive, %lld before\n", fail_at,
                       (int)status, (long long)lc_mem_stats_get().live_bytes, (long long)live);
                failed++;
            } else {
                passed++;
            }
        } else {
            lc_graph_destroy(n.g);
        }
    }
    CHECK(done && memcmp(want, y, sizeof y) == 0);
    drop_params(&n);
}

/* --- what a slow thread leaves over */

#define SHARED_ITEMS 64

static atomic_int times_done[SHARED_ITEMS], items_done, strangers;

static lc_status waiting_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                               lc_desc *out)
{
    (void)attr, (void)n_in;
    *n_out = 1;
    out[0] = in[0];
    return LC_OK;
}

static lc_status waiting_prepare(lc_step *step)
{
    step->items[0] = SHARED_ITEMS;
    step->thread_bytes = sizeof(int64_t); /* the end of the thread's last call */
    return LC_OK;
}

static int64_t waiting_macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr, (void)n_in, (void)in, (void)out;
    return 1 << 30; /* worth a team */
}

/* Whoever has item 0 is slow: it waits until all items but those of its call are done. */
static lc_status waiting_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                             int64_t end)
{
    (void)step, (void)phase;
    int64_t *last = bind->scratch;
    if (bind->follows && *last != begin)
        atomic_fetch_add(&strangers, 1);
    *last = end;
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&times_done[i], 1);
    const double until = lc_seconds() + 20;
    while (begin == 0 && atomic_load(&items_done) < SHARED_ITEMS - end && lc_seconds() < until)
        ;
    atomic_fetch_add(&items_done, (int)(end - begin));
    return LC_OK;
}

static const lc_op waiting_op = {.name = "waiting",
                                 .infer = waiting_infer,
                                 .prepare = waiting_prepare,
                                 .run = waiting_run,
                                 .macs = waiting_macs};

static void test_a_slow_thread_is_helped(void)
{
    lc_desc d;
    float x[4] = {0}, y[4];
    lc_graph *g;
    lc_value in, out;
    const int before = lc_threads_get();
    OK(lc_threads_set(3));
    OK(lc_desc_init(&d, LC_F32, 1, (int64_t[]){4}));
    OK(lc_graph_create(&g));
    OK(lc_graph_input(g, &d, x, &in));
    OK(lc_graph_append(g, &waiting_op, NULL, 1, &in, &out));
    const double start = lc_seconds();
    OK(lc_graph_run(g, 1, &out, (void *[]){y}, NULL));
    CHECK(lc_seconds() - start < 20);
    CHECK(atomic_load(&strangers) == 0);
    for (int i = 0; i < SHARED_ITEMS; i++)
        CHECK(atomic_load(&times_done[i]) == 1);
    lc_graph_destroy(g);
    lc_plan_cache_clear();
    OK(lc_threads_set(before));
}

int main(void)
{
    test_fused_equals_unfused();
    test_cache_and_stamps();
    test_errors();
    test_out_of_memory();
    test_a_slow_thread_is_helped();
    lc_plan_cache_clear();
    CHECK(lc_mem_stats_get().live_bytes == 0);
    return check_report();
}
