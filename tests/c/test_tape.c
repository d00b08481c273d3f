/* Kept runs and their backward: gradients against finite differences, what is kept and given up,
 * stamps, effects, stops, failing allocations, parts of a recording, recomputation. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "check.h"
#include "graph/ir.h"
#include "graph/plan.h"
#include "graph/tape.h"
#include "ops/ops.h"

#define OK(expr)                                                                                   \
    do {                                                                                           \
        lc_status ok_ = (expr);                                                                    \
        CHECK(ok_ == LC_OK);                                                                       \
        if (ok_ != LC_OK)                                                                          \
            fprintf(stderr, "  %s\n", lc_error_message());                                         \
    } while (0)
#define FAILS(expr, code, text)                                                                    \
    do {                                                                                           \
        CHECK((expr) == (code));                                                                   \
        CHECK(strstr(lc_error_message(), text) != NULL);                                           \
    } while (0)

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

static float *contents(lc_param *p)
{
    lc_storage *s = NULL;
    OK(lc_param_storage(p, &s));
    float *data = lc_storage_data(s);
    lc_storage_release(s); /* p holds it */
    return data;
}

/* A block of a network: relu(norm(conv(x)) + shortcut(x)), then a mean per channel and a product.
 * x and all parameters get gradients; `unused` does not. */
enum { W1, GAMMA, BETA, W2, SCALE, UNUSED, MEAN, VAR, N_PARAMS };
enum { N = 3, C = 5, H = 7, W = 6, OC = 9 };

typedef struct net {
    lc_graph *g;
    lc_param *p[N_PARAMS];
    float *x;
    lc_value in, block, y; /* the input, what leaves the block, (N, OC) */
    bool track, recompute, grad;
} net;

static lc_value apply(net *n, const lc_op *op, const void *attr, int n_in, const lc_value *in)
{
    lc_value out[LC_MAX_OUT] = {0};
    OK(lc_graph_append(n->g, op, attr, n_in, in, out));
    return out[0];
}

static lc_value value_of(net *n, int i)
{
    lc_value v = LC_NONE;
    OK(lc_graph_param(n->g, n->p[i], &v));
    return v;
}

static lc_value batch_norm(net *n, lc_value x)
{
    lc_batch_stats_attr stats = {.eps = 1e-5f, .momentum = 0.1f, .track = n->track};
    lc_batch_norm_attr norm = {.eps = 1e-5f, .affine = 1, .batch = 1};
    lc_value in[5] = {x}, out[LC_MAX_OUT];
    if (n->track) {
        in[1] = value_of(n, MEAN);
        in[2] = value_of(n, VAR);
    }
    OK(lc_graph_append(n->g, &lc_op_batch_stats, &stats, n->track ? 3 : 1, in, out));
    if (n->track) {
        OK(lc_graph_effect(n->g, out[2], n->p[MEAN]));
        OK(lc_graph_effect(n->g, out[3], n->p[VAR]));
    }
    in[1] = value_of(n, GAMMA);
    in[2] = value_of(n, BETA);
    in[3] = out[0];
    in[4] = out[1];
    return apply(n, &lc_op_batch_norm, &norm, 5, in);
}

static void record_block(net *n)
{
    lc_conv2d_attr conv = {.stride = {1, 1}, .pad = {1, 1, 1, 1}, .dilation = {1, 1}, .groups = 1};
    lc_binary_attr add = {LC_BINARY_ADD, 0};
    lc_unary_attr relu = {.kind = LC_UNARY_RELU};
    if (n->recompute)
        lc_graph_begin_recompute(n->g);
    lc_value main = apply(n, &lc_op_conv2d, &conv, 2, (lc_value[]){n->in, value_of(n, W1)});
    main = apply(n, &lc_op_unary, &relu, 1, (lc_value[]){batch_norm(n, main)});
    memset(conv.pad, 0, sizeof conv.pad);
    lc_value shortcut = apply(n, &lc_op_conv2d, &conv, 2, (lc_value[]){n->in, value_of(n, W2)});
    lc_value sum = apply(n, &lc_op_binary, &add, 2, (lc_value[]){main, shortcut});
    n->block = apply(n, &lc_op_unary, &relu, 1, &sum);
    if (n->recompute)
        lc_graph_end_recompute(n->g);
}

static void record_head(net *n)
{
    lc_binary_attr mul = {LC_BINARY_MUL, 0};
    lc_reduce_attr mean = {.kind = LC_REDUCE_MEAN, .axes = 12};
    lc_value pooled = apply(n, &lc_op_reduce, &mean, 1, &n->block);
    n->y = apply(n, &lc_op_binary, &mul, 2, (lc_value[]){pooled, value_of(n, SCALE)});
    /* x is used once more, and pooled twice: gradients that meet */
    lc_value square = apply(n, &lc_op_binary, &mul, 2, (lc_value[]){pooled, pooled});
    lc_binary_attr add = {LC_BINARY_ADD, 0};
    n->y = apply(n, &lc_op_binary, &add, 2, (lc_value[]){n->y, square});
    (void)value_of(n, UNUSED);
}

static void begin(net *n)
{
    lc_desc d;
    OK(lc_graph_create(&n->g));
    OK(lc_desc_init(&d, LC_F32, 4, (int64_t[]){N, C, H, W}));
    OK(lc_graph_input(n->g, &d, n->x, &n->in));
    if (n->grad)
        OK(lc_graph_require_grad(n->g, n->in));
}

static void record(net *n)
{
    begin(n);
    record_block(n);
    record_head(n);
}

static void net_make(net *n)
{
    memset(n, 0, sizeof *n);
    state = 7;
    n->p[W1] = make_param(4, (int64_t[]){OC, C, 3, 3}, -0.5f, 0.5f);
    n->p[GAMMA] = make_param(1, (int64_t[]){OC}, 0.5f, 1.5f);
    n->p[BETA] = make_param(1, (int64_t[]){OC}, -0.5f, 0.5f);
    n->p[W2] = make_param(4, (int64_t[]){OC, C, 1, 1}, -0.5f, 0.5f);
    n->p[SCALE] = make_param(1, (int64_t[]){OC}, 0.5f, 1.5f);
    n->p[UNUSED] = make_param(1, (int64_t[]){OC}, 0.5f, 1.5f);
    n->p[MEAN] = make_param(1, (int64_t[]){OC}, -0.5f, 0.5f);
    n->p[VAR] = make_param(1, (int64_t[]){OC}, 0.5f, 1.5f);
    lc_param_set_requires_grad(n->p[MEAN], false);
    lc_param_set_requires_grad(n->p[VAR], false);
    n->x = lc_alloc(N * C * H * W * sizeof(float));
    for (int i = 0; i < N * C * H * W; i++)
        n->x[i] = noise();
    n->grad = true;
}

static void net_free(net *n)
{
    for (int i = 0; i < N_PARAMS; i++)
        lc_param_release(n->p[i]);
    lc_free(n->x);
}

/* sum(y * dy) of a run, in double */
static double loss(net *n, const float *dy)
{
    float y[N * OC];
    double sum = 0;
    void *data[] = {y};
    record(n);
    OK(lc_graph_run(n->g, 1, &n->y, data, NULL));
    lc_graph_destroy(n->g);
    for (int i = 0; i < N * OC; i++)
        sum += (double)y[i] * dy[i];
    return sum;
}

/* Gradients of all leaves of a tape, one after the other; NULL where the leaf is missing. */
typedef struct grads {
    float *x, *p[N_PARAMS];
    void *dx[N_PARAMS + 1];
} grads;

static void grads_make(const net *n, const lc_tape *t, grads *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < lc_tape_leaf_count(t); i++) {
        lc_tape_leaf leaf = lc_tape_leaf_at(t, i);
        float *data = lc_alloc(lc_desc_bytes(&leaf.desc));
        out->dx[i] = data;
        if (!leaf.param) {
            CHECK(leaf.input == n->in);
            out->x = data;
        }
        for (int k = 0; k < N_PARAMS; k++)
            if (leaf.param == n->p[k])
                out->p[k] = data;
    }
}

static void grads_free(grads *g)
{
    for (int i = 0; i <= N_PARAMS; i++)
        lc_free(g->dx[i]);
}

static void fill_dy(float *dy)
{
    state = 99;
    for (int i = 0; i < N * OC; i++)
        dy[i] = noise();
}

static lc_tape *run_kept(net *n, float *y)
{
    lc_tape *t = NULL;
    void *data[] = {y};
    OK(lc_graph_run_kept(n->g, 1, &n->y, data, NULL, &t));
    CHECK(t != NULL);
    return t;
}

/* Central differences of single elements, with a step that float32 can bear. `p`: whose element it
 * is, NULL for x. */
static void check_element(net *n, lc_param *p, float *at, float gradient, const float *dy)
{
    const float step = 2e-3f, kept = *at;
    double side[3];
    for (int i = 0; i < 3; i++) {
        *at = kept + (float[]){step, -step, 0}[i];
        if (p)
            lc_param_touch(p);
        side[i] = loss(n, dy);
    }
    double want = (side[0] - side[1]) / (2 * (double)step);
    CHECK(fabs(want - (double)gradient) <= 3e-2 * (fabs(want) + 0.2)); /* a ReLU may turn */
}

static void test_gradients(void)
{
    net n;
    grads g;
    float y[N * OC], dy[N * OC];
    net_make(&n);
    fill_dy(dy);
    record(&n);
    lc_tape *t = run_kept(&n, y);
    lc_graph_destroy(n.g); /* the tape goes on without it */
    CHECK(lc_tape_output_count(t) == 1 && lc_tape_reaches(t, 0));
    CHECK(lc_tape_leaf_count(t) == 6);
    grads_make(&n, t, &g);
    CHECK(g.x && g.p[W1] && g.p[GAMMA] && g.p[BETA] && g.p[W2] && g.p[SCALE]);
    CHECK(!g.p[UNUSED] && !g.p[MEAN] && !g.p[VAR]);
    OK(lc_tape_backward(t, (const void *const[]){dy}, g.dx, false, NULL));
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < lc_desc_count(lc_param_desc(n.p[k])); i += 4 + k)
            check_element(&n, n.p[k], contents(n.p[k]) + i, g.p[k][i], dy);
    for (int i = 0; i < N * C * H * W; i += 53)
        check_element(&n, NULL, n.x + i, g.x[i], dy);
    lc_tape_release(t);
    grads_free(&g);
    net_free(&n);
}

/* The gradients of one forward and backward. */
static void gradients(net *n, grads *g)
{
    float y[N * OC], dy[N * OC];
    fill_dy(dy);
    record(n);
    lc_tape *t = run_kept(n, y);
    grads_make(n, t, g);
    OK(lc_tape_backward(t, (const void *const[]){dy}, g->dx, false, NULL));
    lc_tape_release(t);
    lc_graph_destroy(n->g);
}

static bool same(const grads *a, const grads *b)
{
    bool equal = memcmp(a->x, b->x, N * C * H * W * sizeof(float)) == 0;
    equal &= memcmp(a->p[W1], b->p[W1], OC * C * 9 * sizeof(float)) == 0;
    equal &= memcmp(a->p[GAMMA], b->p[GAMMA], OC * sizeof(float)) == 0;
    equal &= memcmp(a->p[W2], b->p[W2], OC * C * sizeof(float)) == 0;
    return equal && memcmp(a->p[SCALE], b->p[SCALE], OC * sizeof(float)) == 0;
}

static void test_threads_and_recompute(void)
{
    net n;
    grads one, three, again;
    int before = lc_threads_get();
    net_make(&n);
    OK(lc_threads_set(1));
    gradients(&n, &one);
    OK(lc_threads_set(3));
    gradients(&n, &three);
    CHECK(same(&one, &three));
    n.recompute = n.track = true;
    float mean[OC];
    memcpy(mean, contents(n.p[MEAN]), sizeof mean);
    gradients(&n, &again);
    CHECK(same(&one, &again));
    /* One update: (1 - momentum) * old + momentum * new, whatever was computed twice. */
    float first = contents(n.p[MEAN])[0];
    lc_param *untouched = make_param(1, (int64_t[]){OC}, 0, 1);
    lc_param_release(n.p[MEAN]);
    n.p[MEAN] = untouched;
    lc_param_set_requires_grad(untouched, false);
    memcpy(contents(untouched), mean, sizeof mean);
    n.recompute = false;
    grads plain;
    gradients(&n, &plain);
    CHECK(contents(n.p[MEAN])[0] == first && first != mean[0]);
    OK(lc_threads_set(before));
    grads_free(&one);
    grads_free(&three);
    grads_free(&again);
    grads_free(&plain);
    net_free(&n);
}

static size_t kept_bytes(net *n)
{
    lc_plan *plan = NULL;
    size_t bytes = 0;
    record(n);
    lc_graph_work *w = lc_graph_workspace(n->g);
    OK(lc_ir_extract(n->g, 1, &n->y, true, w));
    OK(lc_plan_create(&w->ir, 1, &plan));
    for (int i = 0; i < plan->n_kept; i++)
        bytes += lc_desc_bytes(&plan->ir.values[plan->kept[i]].desc);
    CHECK(plan->n_first < plan->n_steps && plan->arena_bytes >= plan->bound_bytes);
    for (int s = 1; s < plan->n_steps; s++)
        CHECK(plan->ir.nodes[plan->step_nodes[s - 1]].part <=
              plan->ir.nodes[plan->step_nodes[s]].part);
    lc_plan_destroy(plan);
    lc_graph_destroy(n->g);
    return bytes;
}

static void test_what_is_kept(void)
{
    net n;
    net_make(&n);
    size_t all = kept_bytes(&n);
    n.recompute = true;
    size_t few = kept_bytes(&n);
    size_t block = (size_t)lc_kernels_get()->block;
    size_t plane = N * ((OC + block - 1) / block * block) * H * W * sizeof(float);
    /* What leaves the convolution and what leaves the block; if it is computed again, only that. */
    CHECK(all >= 2 * plane && all - few == plane);
    net_free(&n);
}

static void test_keep_and_spend(void)
{
    net n;
    grads a, b;
    float y[N * OC], dy[N * OC];
    net_make(&n);
    fill_dy(dy);
    record(&n);
    lc_tape *t = run_kept(&n, y);
    grads_make(&n, t, &a);
    grads_make(&n, t, &b);
    OK(lc_tape_backward(t, (const void *const[]){dy}, a.dx, true, NULL));
    OK(lc_tape_backward(t, (const void *const[]){dy}, b.dx, true, NULL));
    CHECK(same(&a, &b) && !lc_tape_is_spent(t));
    OK(lc_tape_backward(t, (const void *const[]){NULL}, b.dx, true, NULL)); /* no gradient: zeros */
    for (int i = 0; i < OC; i++)
        CHECK(b.p[SCALE][i] == 0 && b.p[W1][i] == 0);
    OK(lc_tape_backward(t, (const void *const[]){dy}, b.dx, false, NULL));
    CHECK(same(&a, &b) && lc_tape_is_spent(t));
    FAILS(lc_tape_backward(t, (const void *const[]){dy}, b.dx, false, NULL), LC_ERR_RUNTIME,
          "retain_graph");
    lc_tape_release(lc_tape_retain(t));
    lc_tape_release(t);
    lc_tape_release(NULL);
    lc_graph_destroy(n.g);
    grads_free(&a);
    grads_free(&b);
    net_free(&n);
}

static void test_stamps(void)
{
    net n;
    grads g;
    float y[N * OC], dy[N * OC];
    net_make(&n);
    n.track = true;
    fill_dy(dy);
    record(&n);
    lc_tape *t = run_kept(&n, y); /* changes the running statistics, which backward does not read */
    grads_make(&n, t, &g);
    lc_param_touch(n.p[BETA]); /* nor does it read beta of a norm whose output is kept... */
    lc_param_touch(n.p[W1]);   /* ...but it does read the filters */
    FAILS(lc_tape_backward(t, (const void *const[]){dy}, g.dx, false, NULL), LC_ERR_RUNTIME,
          "(9, 5, 3, 3)");
    CHECK(!lc_tape_is_spent(t));
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    grads_free(&g);
    net_free(&n);
}

static void test_nothing_reached(void)
{
    net n;
    float y[N * OC], dy[N * OC];
    net_make(&n);
    fill_dy(dy);
    n.grad = false;
    for (int i = 0; i < N_PARAMS; i++)
        lc_param_set_requires_grad(n.p[i], false);
    record(&n);
    lc_tape *t = NULL;
    void *data[] = {y};
    OK(lc_graph_run_kept(n.g, 1, &n.y, data, NULL, &t));
    CHECK(t == NULL);
    double sum = 0;
    for (int i = 0; i < N * OC; i++)
        sum += (double)y[i] * dy[i];
    lc_graph_destroy(n.g);
    CHECK(sum == loss(&n, dy));
    /* Only what is recorded while gradients are on counts. */
    lc_param_set_requires_grad(n.p[SCALE], true);
    begin(&n);
    CHECK(lc_graph_set_grad(n.g, false) == true);
    record_block(&n);
    CHECK(lc_graph_set_grad(n.g, true) == false);
    record_head(&n);
    bool needs = false;
    OK(lc_graph_needs_grad(n.g, n.block, &needs));
    CHECK(!needs);
    OK(lc_graph_needs_grad(n.g, n.y, &needs));
    CHECK(needs);
    t = run_kept(&n, y);
    CHECK(lc_tape_leaf_count(t) == 1 && lc_tape_leaf_at(t, 0).param == n.p[SCALE]);
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    net_free(&n);
}

static void test_an_op_without_gradient(void)
{
    net n;
    float y[N * OC];
    net_make(&n);
    begin(&n);
    lc_reduce_attr argmax = {.kind = LC_REDUCE_ARGMAX, .axes = 2};
    lc_value index = apply(&n, &lc_op_reduce, &argmax, 1, &n.in), sum = LC_NONE;
    lc_reduce_attr add = {.kind = LC_REDUCE_SUM, .axes = 15};
    sum = apply(&n, &lc_op_reduce, &add, 1, &n.in);
    int64_t where[N * H * W];
    lc_tape *t = NULL;
    void *data[] = {where, y};
    OK(lc_graph_run_kept(n.g, 2, (lc_value[]){index, sum}, data, NULL, &t));
    CHECK(t && !lc_tape_reaches(t, 0) && lc_tape_reaches(t, 1)); /* class numbers have none */
    grads g;
    float one = 1;
    grads_make(&n, t, &g);
    OK(lc_tape_backward(t, (const void *const[]){NULL, &one}, g.dx, false, NULL));
    CHECK(g.x[0] == 1 && g.x[N * C * H * W - 1] == 1);
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    grads_free(&g);
    net_free(&n);
}

/* The block is run first, and what it gives is an input of the rest. */
static void test_parts(void)
{
    net n;
    grads whole, first, second;
    float y[N * OC], dy[N * OC], block[N * OC * H * W];
    net_make(&n);
    n.track = true;
    fill_dy(dy);
    float before = contents(n.p[VAR])[0];
    gradients(&n, &whole);
    float after = contents(n.p[VAR])[0];
    CHECK(after != before);

    begin(&n);
    record_block(&n);
    lc_tape *a = NULL;
    void *data[] = {block};
    OK(lc_graph_run_kept(n.g, 1, &n.block, data, NULL, &a));
    uint64_t stamp = lc_param_stamp(n.p[VAR]);
    CHECK(!lc_graph_has_effects(n.g));
    OK(lc_graph_settle(n.g, n.block, block));
    OK(lc_graph_require_grad(n.g, n.block));
    lc_value x = n.in;
    n.in = n.block; /* the leaf that the second part has */
    record_head(&n);
    lc_tape *b = run_kept(&n, y);
    CHECK(lc_param_stamp(n.p[VAR]) == stamp); /* committed once */
    grads_make(&n, b, &second);
    OK(lc_tape_backward(b, (const void *const[]){dy}, second.dx, false, NULL));
    n.in = x;
    grads_make(&n, a, &first);
    OK(lc_tape_backward(a, (const void *const[]){second.x}, first.dx, false, NULL));
    for (int i = 0; i < N * C * H * W; i++)
        CHECK(fabsf(first.x[i] - whole.x[i]) <= 1e-6f);
    for (int i = 0; i < OC; i++)
        CHECK(fabsf(second.p[SCALE][i] - whole.p[SCALE][i]) <= 1e-6f);
    lc_tape_release(a);
    lc_tape_release(b);
    lc_graph_destroy(n.g);
    grads_free(&whole);
    grads_free(&first);
    grads_free(&second);
    net_free(&n);
}

static void test_effects_are_read(void)
{
    net n;
    net_make(&n);
    n.track = true;
    begin(&n);
    lc_value before = value_of(&n, MEAN);
    record_block(&n);
    lc_value after = value_of(&n, MEAN);
    CHECK(before != after && lc_graph_value_param(n.g, after) == NULL);
    float mean[OC];
    void *data[] = {mean};
    OK(lc_graph_run(n.g, 1, &after, data, NULL));
    CHECK(memcmp(mean, contents(n.p[MEAN]), sizeof mean) == 0); /* and it is committed */
    CHECK(value_of(&n, MEAN) != after);                         /* the parameter has moved on */
    FAILS(lc_graph_effect(n.g, n.in, n.p[MEAN]), LC_ERR_RUNTIME, "cannot become");
    FAILS(lc_graph_effect(n.g, n.block, n.p[MEAN]), LC_ERR_VALUE, "(3, 9, 7, 6)");
    FAILS(lc_graph_require_grad(n.g, n.block), LC_ERR_RUNTIME, "not an input");
    lc_graph_destroy(n.g);
    net_free(&n);
}

static bool stop_at_once(void *ctx)
{
    (void)ctx;
    return true;
}

/* Large products on one thread: in both directions long enough for a stop to be asked for. All are
 * zeros, and so are their gradients. */
static void test_stop(void)
{
    net n;
    const int threads = lc_threads_get();
    net_make(&n);
    lc_threads_set(1);
    OK(lc_graph_create(&n.g));
    enum { SIDE = 1200 };
    lc_desc d;
    OK(lc_desc_init(&d, LC_F32, 2, (int64_t[]){SIDE, SIDE}));
    float *big = lc_alloc_zero((size_t)SIDE * SIDE * sizeof(float)), *dx = NULL, y = 0, one = 1;
    OK(lc_graph_input(n.g, &d, big, &n.in));
    OK(lc_graph_require_grad(n.g, n.in));
    lc_value v = n.in;
    lc_unary_attr tanh = {.kind = LC_UNARY_TANH};
    for (int i = 0; i < 7; i++)
        v = apply(&n, &lc_op_matmul, &(lc_matmul_attr){0}, 2, (lc_value[]){v, n.in});
    const lc_value same_shape = apply(&n, &lc_op_unary, &tanh, 1, &n.in);
    v = apply(&n, &lc_op_binary, &(lc_binary_attr){.kind = LC_BINARY_ADD}, 2,
              (lc_value[]){v, same_shape});
    lc_reduce_attr sum = {.kind = LC_REDUCE_SUM, .axes = 3};
    v = apply(&n, &lc_op_reduce, &sum, 1, &v);
    lc_unary_attr same = {LC_UNARY_SCALE_SHIFT, 1, 1};
    lc_value next = apply(&n, &lc_op_unary, &same, 1, (lc_value[]){value_of(&n, MEAN)});
    OK(lc_graph_effect(n.g, next, n.p[MEAN]));
    uint64_t stamp = lc_param_stamp(n.p[MEAN]);
    lc_run_options stop = {stop_at_once, NULL, NULL};
    lc_tape *t = NULL;
    void *data[] = {&y};
    CHECK(lc_graph_run_kept(n.g, 1, &v, data, &stop, &t) == LC_ERR_INTERRUPTED);
    CHECK(t == NULL && lc_param_stamp(n.p[MEAN]) == stamp && lc_graph_has_effects(n.g));
    OK(lc_graph_run_kept(n.g, 1, &v, data, NULL, &t));
    CHECK(lc_param_stamp(n.p[MEAN]) != stamp);
    dx = lc_alloc((size_t)SIDE * SIDE * sizeof(float));
    void *out[] = {dx};
    const void *dy[] = {&one};
    CHECK(lc_tape_backward(t, dy, out, true, &stop) == LC_ERR_INTERRUPTED);
    CHECK(!lc_tape_is_spent(t)); /* it was kept */
    OK(lc_tape_backward(t, dy, out, false, NULL));
    CHECK(dx[0] == 1 && dx[SIDE * SIDE - 1] == 1);
    lc_threads_set(threads);
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    lc_free(dx);
    lc_free(big);
    net_free(&n);
}

/* Every allocation fails once; each time nothing has changed, and nothing is lost. */
static void test_failing_memory(void)
{
    net n;
    net_make(&n);
    n.track = true;
    float y[N * OC], dy[N * OC];
    fill_dy(dy);
    record(&n);
    int failures = 0;
    for (int64_t i = 1;; i++) {
        lc_tape *t = NULL;
        void *data[] = {y};
        lc_plan_cache_clear();
        uint64_t stamp = lc_param_stamp(n.p[MEAN]);
        int64_t live = lc_mem_stats_get().live_bytes;
        lc_mem_fail_after(i);
        lc_status status = lc_graph_run_kept(n.g, 1, &n.y, data, NULL, &t);
        lc_mem_fail_after(0);
        if (status == LC_OK) {
            grads g;
            grads_make(&n, t, &g);
            lc_mem_fail_after(1);
            CHECK(lc_tape_backward(t, (const void *const[]){NULL}, g.dx, true, NULL) ==
                  LC_ERR_MEMORY);
            lc_mem_fail_after(0);
            OK(lc_tape_backward(t, (const void *const[]){dy}, g.dx, false, NULL));
            grads_free(&g);
            lc_tape_release(t);
            break;
        }
        failures++;
        CHECK(status == LC_ERR_MEMORY && t == NULL && lc_param_stamp(n.p[MEAN]) == stamp);
        lc_plan_cache_clear();
        /* The workspace of the graph may have grown. */
        CHECK(lc_mem_stats_get().live_bytes <= live + (1 << 20));
    }
    CHECK(failures > 50);
    lc_graph_destroy(n.g);
    net_free(&n);
}

static void test_plans_are_found_again(void)
{
    net n;
    grads g;
    net_make(&n);
    gradients(&n, &g);
    lc_plan_stats before = lc_plan_cache_stats();
    grads_free(&g);
    gradients(&n, &g);
    lc_plan_stats after = lc_plan_cache_stats();
    CHECK(after.hits == before.hits + 1 && after.misses == before.misses);
    lc_param_set_requires_grad(n.p[W1], false); /* another mask is another plan */
    grads_free(&g);
    record(&n);
    float y[N * OC];
    lc_tape *t = run_kept(&n, y);
    CHECK(lc_tape_leaf_count(t) == 5 && lc_plan_cache_stats().misses == after.misses + 1);
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    net_free(&n);
}

/* What backward reads of forward is not what the user holds: it may be overwritten. And one output
 * of a run may depend on another one. */
static void test_outputs_are_the_callers(void)
{
    net n;
    float y[N * C * H * W], dx[N * C * H * W];
    net_make(&n);
    begin(&n);
    lc_unary_attr relu = {.kind = LC_UNARY_RELU};
    lc_value v = apply(&n, &lc_op_unary, &relu, 1, &n.in);
    lc_reshape_attr flat = {.rank = 1, .dim = {N * C * H * W}};
    lc_value w = apply(&n, &lc_op_reshape, &flat, 1, &v); /* a view of it */
    lc_unary_attr power = {.kind = LC_UNARY_EXP};
    w = apply(&n, &lc_op_unary, &power, 1, &w);
    float z[N * C * H * W], dz[N * C * H * W], dy[N * C * H * W], dv[N * C * H * W];
    lc_tape *t = NULL;
    void *data[] = {y, z};
    OK(lc_graph_run_kept(n.g, 2, (lc_value[]){v, w}, data, NULL, &t));
    for (int i = 0; i < N * C * H * W; i++)
        dz[i] = 1 + (float)(i % 3), dy[i] = (float)(i % 5);
    memset(y, 0, sizeof y);
    memset(z, 0, sizeof z);
    /* w depends on v: the whole gradient of v is told as well. */
    CHECK(lc_tape_leaf_count(t) == 2 && lc_tape_leaf_at(t, 0).input == n.in);
    CHECK(lc_tape_leaf_at(t, 0).output == -1 && lc_tape_leaf_at(t, 1).output == 0);
    CHECK(lc_tape_leaf_at(t, 1).input == LC_NONE && !lc_tape_leaf_at(t, 1).param);
    OK(lc_tape_backward(t, (const void *const[]){dy, dz}, (void *const[]){dx, dv}, false, NULL));
    for (int i = 0; i < N * C * H * W; i++) {
        double relu_x = n.x[i] > 0 ? n.x[i] : 0, whole = exp(relu_x) * dz[i] + dy[i];
        CHECK(fabs(whole - dv[i]) <= 1e-6 * whole);
        CHECK(dx[i] == (n.x[i] > 0 ? dv[i] : 0));
    }
    lc_tape_release(t);
    lc_graph_destroy(n.g);
    net_free(&n);
}

int main(void)
{
    lc_graph_pool_clear();
    lc_plan_cache_clear();
    int64_t before = lc_mem_stats_get().live_bytes;
    test_gradients();
    test_threads_and_recompute();
    test_what_is_kept();
    test_keep_and_spend();
    test_stamps();
    test_nothing_reached();
    test_an_op_without_gradient();
    test_parts();
    test_effects_are_read();
    test_stop();
    test_failing_memory();
    test_plans_are_found_again();
    test_outputs_are_the_callers();
    lc_plan_cache_clear();
    CHECK(lc_mem_stats_get().live_bytes == before);
    return check_report();
}
