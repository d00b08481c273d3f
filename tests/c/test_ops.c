/* Tests of csrc/ops (all but convolution and products) and of kernels/vec_*: every op by hand
 * through infer, layout, prepare and run, against naive loops in double. Plain: prints "N passed, 0
 * failed" and returns 0, or says what failed and returns 1.
 *
 * Each case runs with the scalar, the AVX2 and the sixteen-lane table, in plain and in blocked
 * layouts, its items shared out to 1, 2, 3 and 5 threads (same bits each time), the images of a
 * batch one by one (same bits again) and in place where the op allows it. Outputs and scratch begin
 * as NaN; memory ends where the tensor does, for sanitizers to see.
 *
 * The sixteen-lane kernels are compiled into this file from pairs of AVX2 registers;
 * -DLC_TEST_SIMD=512 takes real AVX-512. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#include "base/mem.h"
#include "base/threads.h"
#include "ops/op_util.h"
#include "ops/ops.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(LC_NO_AVX2)
#define HAVE_VECTORS 1
#pragma GCC push_options
#if defined(LC_TEST_SIMD) && LC_TEST_SIMD == 512
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#else
#ifndef LC_EMULATE_AVX512
#define LC_EMULATE_AVX512
#endif
#pragma GCC target("avx2,fma")
#endif
#include "kernels/vec_kernels_avx512.c"
#pragma GCC pop_options
#endif

/* ---- tensors ---- */

static uint64_t seed = 88172645463325252u;

static double draw(void) /* in -2 .. 2 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / (double)(1ull << 53) * 4.0 - 2.0;
}

#define MAX_IN 20

typedef struct tensor {
    lc_desc d; /* plain */
    float *f;  /* its elements */
} tensor;

static tensor tensor_new(int rank, const int64_t *dim)
{
    tensor t;
    if (lc_desc_init(&t.d, LC_F32, rank, dim) != LC_OK)
        abort();
    int64_t n = lc_desc_count(&t.d);
    t.f = malloc((size_t)n * sizeof(float) + 1);
    for (int64_t i = 0; i < n; i++)
        t.f[i] = (float)draw();
    return t;
}

#define T(...)                                                                                     \
    tensor_new((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

/* Where channel element (n, c, pixel) of a tensor lies. */
static int64_t place(const lc_desc *d, int64_t n, int64_t c, int64_t pixel)
{
    int64_t slot = lc_desc_channel_slot(d, c), pixels = d->dim[2] * d->dim[3];
    int b = d->layout.block;
    return n * lc_desc_padded_channels(d) * pixels + (slot / b * pixels + pixel) * b + slot % b;
}

/* Elements of t in the layout of d. The block ends with the tensor and begins 4 bytes past an
 * aligned address. */
static float *lay_out(const tensor *t, const lc_desc *d, void **block)
{
    size_t bytes = lc_desc_bytes(d);
    *block = malloc(bytes + 4);
    float *m = (float *)((char *)*block + 4);
    if (d->layout.block == 1) {
        memcpy(m, t->f, bytes);
        return m;
    }
    memset(m, 0, bytes);
    int64_t pixels = d->dim[2] * d->dim[3];
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t p = 0; p < pixels; p++)
                m[place(d, n, c, p)] = t->f[(n * d->dim[1] + c) * pixels + p];
    return m;
}

/* Back to plain; false if a pad is not zero. */
static bool gather(const lc_desc *d, const float *m, float *plain)
{
    if (d->layout.block == 1) {
        memcpy(plain, m, lc_desc_bytes(d));
        return true;
    }
    size_t n = lc_desc_bytes(d) / sizeof(float);
    char *is_channel = calloc(n + 1, 1);
    int64_t pixels = d->dim[2] * d->dim[3];
    for (int64_t i = 0; i < d->dim[0]; i++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t p = 0; p < pixels; p++) {
                int64_t at = place(d, i, c, p);
                plain[(i * d->dim[1] + c) * pixels + p] = m[at];
                is_channel[at] = 1;
            }
    bool zero = true;
    for (size_t i = 0; i < n; i++)
        zero &= is_channel[i] || m[i] == 0.0f;
    free(is_channel);
    return zero;
}

/* ---- running an op ---- */

static lc_kernels tables[3];
static int n_tables;

static void poison(void *p, size_t bytes)
{
    memset(p, 0xff, bytes); /* NaN as float, and as double */
}

static int last_block; /* of the output of the last run */

/* Runs the op on `team` threads, one after the other. Returns the output's memory (to be freed)
 * or NULL. */
static void *run_shared(lc_step *step, const float *const *in, int team, bool in_place)
{
    const lc_op *op = step->op;
    size_t bytes = lc_desc_bytes(&step->out[0]);
    char *block = malloc(bytes + 4);
    void *out = block + 4;
    poison(out, bytes);
    const void *ins[MAX_IN];
    memcpy(ins, in, (size_t)step->n_in * sizeof *ins);
    if (in_place) {
        memcpy(out, in[0], bytes);
        ins[0] = out;
    }
    char *shared = malloc(step->shared_bytes + 64);
    poison(shared, step->shared_bytes);
    bool ok = true;
    for (int phase = 0; phase < step->phases; phase++)
        for (int tid = team - 1; tid >= 0; tid--) { /* backwards: order must not matter */
            char *scratch = malloc(step->thread_bytes + 64);
            poison(scratch, step->thread_bytes);
            int64_t begin, end;
            lc_share(step->items[phase], tid, team, &begin, &end);
            lc_bind bind = {.in = ins, .out = &out, .shared = shared, .scratch = scratch};
            ok &= op->run(step, &bind, phase, begin, end) == LC_OK;
            free(scratch);
        }
    free(shared);
    if (!ok) {
        free(block);
        return NULL;
    }
    return block;
}

/* The op's output as plain elements (to be freed), or NULL after a message. `wish`: of the
 * output, as consumers say. */
static void *run_op(const lc_op *op, const void *attr, int n_in, const tensor *in,
                    const lc_layout *given, lc_layout wish, const lc_kernels *kernels,
                    const char *what)
{
    lc_desc descs[MAX_IN], out[LC_MAX_OUT];
    lc_layout want[MAX_IN], give[LC_MAX_OUT] = {LC_PLAIN, LC_PLAIN};
    int n_out = 0;
    for (int k = 0; k < n_in; k++) {
        descs[k] = in[k].d;
        want[k] = LC_PLAIN;
    }
    if (op->infer(attr, n_in, descs, &n_out, out) != LC_OK || n_out != 1) {
        fprintf(stderr, "%s: infer: %s\n", what, lc_error_message());
        return NULL;
    }
    for (int k = 0; k < n_in; k++)
        descs[k].layout = given[k];
    out[0].layout = wish;
    lc_layout_query q = {attr, n_in, 1, descs, out, kernels->block};
    if (op->layout)
        op->layout(&q, want, give);
    out[0].layout = give[0];
    last_block = give[0].block;
    const float *data[MAX_IN];
    void *blocks[MAX_IN];
    for (int k = 0; k < n_in; k++) {
        descs[k].layout = want[k];
        data[k] = lay_out(&in[k], &descs[k], &blocks[k]);
    }

    void *first = NULL, *plain = NULL;
    static const int teams[] = {1, 2, 3, 5};
    bool good = true;
    for (int t = 0; t < 4 && good; t++) {
        lc_step step = {.op = op,
                        .attr = attr,
                        .n_in = n_in,
                        .n_out = 1,
                        .in = descs,
                        .out = out,
                        .threads = teams[t],
                        .kernels = kernels,
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
        if (op->prepare(&step) != LC_OK) {
            good = false;
            break;
        }
        char *block = run_shared(&step, data, teams[t], false);
        size_t bytes = lc_desc_bytes(&out[0]);
        if (!block) {
            good = false;
        } else if (!first) {
            first = block;
        } else {
            if (memcmp((char *)first + 4, block + 4, bytes) != 0) {
                fprintf(stderr, "%s: %d threads give other bits\n", what, teams[t]);
                good = false;
            }
            free(block);
        }
        if (good && (op->flags & LC_OP_INPLACE) && memcmp(&descs[0], &out[0], sizeof out[0]) == 0) {
            block = run_shared(&step, data, teams[t], true);
            if (!block || memcmp((char *)first + 4, block + 4, bytes) != 0) {
                fprintf(stderr, "%s: in place gives other bits\n", what);
                good = false;
            }
            free(block);
        }
        if (good && op->is_view && op->is_view(attr, n_in, descs, out) && bytes &&
            memcmp(data[0], (char *)first + 4, bytes) != 0) {
            fprintf(stderr, "%s: is no view\n", what);
            good = false;
        }
        lc_free(step.prep);
    }
    if (good) {
        plain = malloc((size_t)lc_desc_count(&out[0]) * 8 + 8);
        if (!gather(&out[0], (float *)((char *)first + 4), plain)) {
            fprintf(stderr, "%s: pads are not zero\n", what);
            free(plain);
            plain = NULL;
        }
    }
    free(first);
    for (int k = 0; k < n_in; k++)
        free(blocks[k]);
    return plain;
}

/* |got - want| <= rel * max(|want|, scale); the same kind of NaN or infinity. */
static bool close_to(float got, double want, double rel, double scale)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf((float)want) || isinf(got))
        return got == (float)want;
    double size = fabs(want) > scale ? fabs(want) : scale;
    return fabs((double)got - want) <= rel * size;
}

typedef struct options {
    double rel, scale; /* rel 0: exact */
    int groups;        /* of blocked inputs, as a third layout beside plain and blocked */
    bool batch;        /* images do not influence one another */
    bool blocked;      /* the op must stay blocked */
    int64_t rows;      /* batch: images, if not the first size of the output */
} options;

/* One image of a batch: inputs whose first size is the batch's are cut. */
static tensor image_of(const tensor *t, int64_t batch, int64_t i)
{
    tensor one = *t;
    if (t->d.rank == 0 || t->d.dim[0] != batch || batch < 2)
        return one;
    one.d.dim[0] = 1;
    one.f = t->f + i * lc_desc_count(&one.d);
    return one;
}

static void try_case(const char *what, const lc_op *op, const void *attr, int n_in,
                     const tensor *in, const double *want, options o)
{
    lc_desc descs[MAX_IN], out[LC_MAX_OUT];
    int n_out;
    for (int k = 0; k < n_in; k++)
        descs[k] = in[k].d;
    if (op->infer(attr, n_in, descs, &n_out, out) != LC_OK) {
        check(0, what, __FILE__, __LINE__);
        fprintf(stderr, "  %s\n", lc_error_message());
        return;
    }
    int64_t n = lc_desc_count(&out[0]);
    for (int t = 0; t < n_tables; t++)
        for (int mode = 0; mode < 3; mode++) { /* plain, blocked, grouped */
            int b = tables[t].block;
            lc_layout given[MAX_IN], wish = LC_PLAIN;
            bool any = mode == 0;
            for (int k = 0; k < n_in; k++) {
                given[k] = LC_PLAIN;
                if (mode == 0 || in[k].d.rank != 4)
                    continue;
                given[k] = lc_layout_blocked(b, in[k].d.dim[1], mode == 2 ? o.groups : 1);
                any = true;
            }
            if (!any || (mode == 2 && o.groups < 2))
                continue;
            if (mode && out[0].rank == 4)
                wish = lc_layout_blocked(b, out[0].dim[1], 1);
            char label[256];
            snprintf(label, sizeof label, "%s (table %d, layout %d)", what, t, mode);
            float *got = run_op(op, attr, n_in, in, given, wish, &tables[t], label);
            check(got != NULL, label, __FILE__, __LINE__);
            if (!got)
                continue;
            if (o.blocked && mode)
                check(last_block == b, label, __FILE__, __LINE__);
            int64_t bad = -1;
            for (int64_t i = 0; i < n && bad < 0; i++)
                if (out[0].dtype == LC_I64
                        ? (double)((int64_t *)got)[i] != want[i]
                        : !close_to(got[i], o.rel == 0.0 ? (double)(float)want[i] : want[i], o.rel,
                                    o.scale))
                    bad = i;
            check(bad < 0, label, __FILE__, __LINE__);
            if (bad >= 0 && out[0].dtype == LC_F32)
                fprintf(stderr, "  element %lld: %.9g, not %.9g\n", (long long)bad,
                        (double)got[bad], want[bad]);
            if (o.batch && out[0].rank && out[0].dim[0] > 1) {
                int64_t batch = out[0].dim[0], each = n / batch;
                for (int64_t i = 0; i < batch; i += batch - 1) {
                    tensor one[MAX_IN];
                    for (int k = 0; k < n_in; k++)
                        one[k] = image_of(&in[k], batch, i);
                    float *alone = run_op(op, attr, n_in, one, given, wish, &tables[t], label);
                    check(alone && memcmp(alone, got + i * each, (size_t)each * sizeof(float)) == 0,
                          "an image alone gives the same bits", __FILE__, __LINE__);
                    free(alone);
                }
            }
            free(got);
        }
}

static double *doubles(int64_t n)
{
    return malloc((size_t)n * sizeof(double) + 1);
}

/* ---- elementwise ---- */

static double unary_of(const lc_unary_attr *a, double x)
{
    switch (a->kind) {
    case LC_UNARY_RELU:
        return isnan(x) || x > 0 ? x : 0.0;
    case LC_UNARY_SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case LC_UNARY_EXP:
        return exp(x);
    case LC_UNARY_LOG:
        return log(x);
    case LC_UNARY_SQRT:
        return sqrt(x);
    case LC_UNARY_CLAMP:
        return isnan(x) ? x : fmin(fmax(x, (double)a->lo), (double)a->hi);
    case LC_UNARY_NEG:
        return -x;
    case LC_UNARY_ABS:
        return fabs(x);
    case LC_UNARY_SCALE_SHIFT:
        return x * (double)a->lo + (double)a->hi;
    case LC_UNARY_SIGN:
        return isnan(x) ? x : x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0;
    case LC_UNARY_INSIDE:
        return x >= (double)a->lo && x <= (double)a->hi;
    default:
        return tanh(x);
    }
}

static const int64_t shapes4[][4] = {{1, 1, 1, 1},   {2, 17, 5, 7},  {3, 16, 3, 3}, {2, 24, 1, 1},
                                     {2, 20, 11, 2}, {1, 8, 70, 61}, {0, 5, 3, 3},  {3, 12, 2, 0}};
#define N_SHAPES4 ((int)(sizeof shapes4 / sizeof *shapes4))

static void test_unary(void)
{
    for (uint32_t kind = 0; kind < LC_UNARY_COUNT; kind++)
        for (int s = 0; s < N_SHAPES4; s++) {
            tensor x = tensor_new(4, shapes4[s]);
            int64_t n = lc_desc_count(&x.d);
            if (n > 20) {
                x.f[3] = NAN;
                x.f[5] = INFINITY;
                x.f[n - 1] = -INFINITY;
                x.f[n - 2] = -0.0f;
                x.f[7] = 100.0f;
                x.f[8] = -104.0f;
            }
            lc_unary_attr a = {0};
            a.kind = kind;
            a.lo = s % 2 ? 0.25f : -INFINITY; /* clamp(0) is not 0 */
            a.hi = s % 3 ? 1.0f : INFINITY;
            double *want = doubles(n);
            for (int64_t i = 0; i < n; i++)
                want[i] = unary_of(&a, (double)x.f[i]);
            bool exact = kind != LC_UNARY_SIGMOID && kind != LC_UNARY_EXP && kind != LC_UNARY_LOG &&
                         kind != LC_UNARY_TANH;
            try_case("unary", &lc_op_unary, &a, 1, &x, want,
                     (options){.rel = exact ? 0.0 : 3e-7,
                               .scale = 1e-37,
                               .groups = x.d.dim[1] % 4 ? 1 : 4,
                               .batch = true,
                               .blocked = true});
            free(want);
            free(x.f);
        }
    lc_unary_attr a = {.kind = LC_UNARY_CLAMP, .lo = NAN, .hi = 1.0f};
    tensor x = T(5);
    double want[5] = {NAN, NAN, NAN, NAN, NAN};
    try_case("clamp to NaN", &lc_op_unary, &a, 1, &x, want, (options){.rel = 0.0});
    free(x.f);
}

static double binary_of(uint32_t kind, double a, double b)
{
    switch (kind) {
    case LC_BINARY_ADD:
        return a + b;
    case LC_BINARY_SUB:
        return a - b;
    case LC_BINARY_MUL:
        return a * b;
    case LC_BINARY_DIV:
        return a /
               b; /* of two floats in double, then to float: the same as at once (Figueroa 1995) */
    case LC_BINARY_MAXIMUM:
        return isnan(a) || a > b ? a : b;
    case LC_BINARY_MINIMUM:
        return isnan(a) || a < b ? a : b;
    case LC_BINARY_MASK:
        return b > 0 ? a : 0.0;
    default:
        return pow(a, b);
    }
}

/* The element of x (plain) that goes with element i of y under broadcasting. */
static int64_t broadcast_at(const lc_desc *x, const lc_desc *y, int64_t i)
{
    int64_t at = 0, run = 1;
    for (int k = 1; k <= y->rank; k++) {
        int64_t own = k <= x->rank ? x->dim[x->rank - k] : 1;
        at += (own == 1 ? 0 : i % y->dim[y->rank - k]) * run;
        i /= y->dim[y->rank - k];
        run *= own;
    }
    return at;
}

static void binary_case(tensor a, tensor b, int groups, bool blocked)
{
    for (uint32_t kind = 0; kind <= LC_BINARY_COUNT; kind++) {
        lc_binary_attr attr = {kind % LC_BINARY_COUNT, kind == LC_BINARY_COUNT};
        lc_desc in[2] = {a.d, b.d}, y;
        int n_out;
        CHECK(lc_op_binary.infer(&attr, 2, in, &n_out, &y) == LC_OK);
        int64_t n = lc_desc_count(&y);
        double *want = doubles(n);
        for (int64_t i = 0; i < n; i++) {
            double v = binary_of(attr.kind, (double)a.f[broadcast_at(&a.d, &y, i)],
                                 (double)b.f[broadcast_at(&b.d, &y, i)]);
            want[i] = attr.relu && v < 0 ? 0.0 : v;
        }
        tensor ins[2] = {a, b};
        try_case("binary", &lc_op_binary, &attr, 2, ins, want,
                 (options){.rel = attr.kind == LC_BINARY_POW ? 2e-7 : 0.0,
                           .scale = 1e-37,
                           .groups = groups,
                           .batch = a.d.rank == 4 && b.d.rank == 4,
                           .blocked = blocked});
        free(want);
    }
    free(a.f);
    free(b.f);
}

static void test_binary(void)
{
    for (int s = 0; s < N_SHAPES4; s++) {
        tensor a = tensor_new(4, shapes4[s]), b = tensor_new(4, shapes4[s]);
        if (lc_desc_count(&a.d) > 20) {
            a.f[3] = NAN;
            b.f[4] = NAN;
            a.f[5] = b.f[6] = INFINITY;
            b.f[7] = 0.0f;
            a.f[8] = a.f[9] = 0.0f;
            b.f[8] = -0.0f;
        }
        binary_case(a, b, shapes4[s][1] % 4 ? 1 : 4, true);
    }
    /* one number per channel, per image and channel, or for all */
    binary_case(T(2, 20, 5, 7), T(2, 20, 1, 1), 4, true);
    binary_case(T(2, 20, 1, 1), T(2, 20, 65, 67), 4, true);
    binary_case(T(3, 17, 5, 7), T(1, 17, 1, 1), 1, true);
    binary_case(T(3, 17, 5, 7), T(17, 1, 1), 1, true);
    binary_case(T(17, 1, 1), T(3, 17, 5, 7), 1, true);
    binary_case(T(2, 24, 5, 7), T(2, 1, 1, 1), 1, true);
    binary_case(T(2, 12, 5, 7), T(1), 4, true);
    { /* a number without dimensions */
        tensor x = T(2, 12, 5, 7);
        binary_case(x, tensor_new(0, NULL), 4, true);
    }
    /* any other broadcasting */
    binary_case(T(2, 17, 5, 7), T(7), 1, false);
    binary_case(T(2, 17, 5, 7), T(5, 1), 1, false);
    binary_case(T(2, 1, 5, 1), T(1, 17, 1, 7), 1, false);
    binary_case(T(2, 17, 5, 7), T(2, 1, 5, 7), 1, false);
    binary_case(T(2, 3, 4, 2, 5), T(4, 1, 5), 1, false);
    binary_case(T(1, 3, 1, 2, 1, 2), T(2, 3, 2, 1, 3, 1), 1, false);
    binary_case(T(2, 5, 1, 1), T(2, 5, 1, 1), 1, true);
    binary_case(T(0, 3), T(1, 3), 1, false);
    binary_case(T(70001), T(1), 1, false);
    binary_case(T(1), T(211, 331), 1, false);
}

static void test_batch_norm(void)
{
    static const int64_t shapes[][5] = {
        {3, 17, 5, 7, 2}, {2, 24, 65, 67, 1}, {4, 12, 1, 1, 1}, {2, 1, 3, 3, 3}};
    for (int s = 0; s < 4; s++)
        for (int rank = 2; rank <= 5; rank++)
            for (uint32_t flags = 0; flags < 4; flags++) {
                tensor in[5] = {tensor_new(rank, shapes[s])};
                int64_t c = shapes[s][1], n = lc_desc_count(&in[0].d),
                        pixels = n / shapes[s][0] / c;
                lc_batch_norm_attr a = {.eps = 1e-5f, .affine = flags & 1, .relu = flags >> 1};
                for (int k = 1; k < 5; k++)
                    in[k] = tensor_new(1, &c);
                for (int64_t i = 0; i < c; i++)
                    in[4].f[i] = fabsf(in[4].f[i]);
                double *want = doubles(n);
                for (int64_t i = 0; i < n; i++) {
                    int64_t k = i / pixels % c;
                    double v = ((double)in[0].f[i] - (double)in[3].f[k]) /
                               sqrt((double)in[4].f[k] + (double)a.eps);
                    if (a.affine)
                        v = v * (double)in[1].f[k] + (double)in[2].f[k];
                    want[i] = a.relu && v < 0 ? 0.0 : v;
                }
                tensor ins[5] = {in[0], in[a.affine ? 1 : 3], in[a.affine ? 2 : 4], in[3], in[4]};
                /* scaled by up to 1 / sqrt(eps): terms of that size cancel */
                try_case("batch_norm", &lc_op_batch_norm, &a, a.affine ? 5 : 3, ins, want,
                         (options){.rel = 4e-7,
                                   .scale = 8.0 / sqrt(1e-3),
                                   .groups = c % 4 ? 1 : 4,
                                   .batch = c != shapes[s][0],
                                   .blocked = rank == 4});
                free(want);
                for (int k = 0; k < 5; k++)
                    free(in[k].f);
            }
}

static void softmax_case(tensor x, int axis, double spread)
{
    int64_t n = lc_desc_count(&x.d), length = x.d.rank ? x.d.dim[axis] : 1, inner = 1;
    for (int i = axis + 1; i < x.d.rank; i++)
        inner *= x.d.dim[i];
    for (int64_t i = 0; i < n; i++)
        x.f[i] *= (float)spread;
    double *want = doubles(n);
    for (uint32_t is_log = 0; is_log < 2; is_log++) {
        for (int64_t o = 0; o < (n ? n / length : 0); o++) {
            int64_t at = o / inner * length * inner + o % inner;
            double most = -INFINITY, sum = 0.0;
            for (int64_t i = 0; i < length; i++)
                most = isnan(most) || (double)x.f[at + i * inner] < most
                           ? most
                           : (double)x.f[at + i * inner];
            for (int64_t i = 0; i < length; i++)
                sum += exp((double)x.f[at + i * inner] - most);
            for (int64_t i = 0; i < length; i++) {
                double v = (double)x.f[at + i * inner] - most;
                want[at + i * inner] = is_log ? v - log(sum) : exp(v) / sum;
            }
        }
        lc_softmax_attr a = {axis, is_log};
        try_case("softmax", &lc_op_softmax, &a, 1, &x, want,
                 (options){.rel = is_log ? 2e-7 : 1e-6 + spread * 1e-7,
                           .scale = is_log ? 1.0 : 1e-30,
                           .batch = axis > 0});
    }
    free(want);
    free(x.f);
}

static void test_softmax(void)
{
    for (int axis = 0; axis < 4; axis++)
        softmax_case(T(3, 17, 5, 71), axis, 3.0);
    softmax_case(T(2, 1000), 1, 1.0);
    softmax_case(T(5, 1, 3), 1, 1.0);
    softmax_case(T(40000), 0, 20.0);
    softmax_case(T(0, 4), 1, 1.0);
    softmax_case(T(4, 0), 1, 1.0);
    softmax_case(tensor_new(0, NULL), 0, 1.0);
    for (int kind = 0; kind < 4; kind++) {
        tensor x = T(2, 9, 2);
        for (int i = 0; i < 9; i++)
            x.f[2 * i] = kind == 0             ? -INFINITY
                         : kind == 1 && i == 4 ? NAN
                         : kind == 2 && i == 1 ? INFINITY
                                               : x.f[2 * i];
        if (kind == 3)
            x.f[6] = -INFINITY;
        softmax_case(x, 1, 1.0);
    }
}

/* ---- pooling ---- */

static void pool_case(tensor x, lc_pool2d_attr a, int groups)
{
    lc_desc y;
    int n_out;
    if (lc_op_pool2d.infer(&a, 1, &x.d, &n_out, &y) != LC_OK) {
        check(0, lc_error_message(), __FILE__, __LINE__);
        return;
    }
    int64_t h = x.d.dim[2], w = x.d.dim[3], n = lc_desc_count(&y);
    double *want = doubles(n);
    for (int64_t o = 0; o < n; o++) {
        int64_t ow = o % y.dim[3], oh = o / y.dim[3] % y.dim[2], plane = o / (y.dim[2] * y.dim[3]);
        double best = -INFINITY, sum = 0.0;
        int64_t inside = 0, covered = 0;
        for (int64_t i = 0; i < a.kernel[0]; i++)
            for (int64_t j = 0; j < a.kernel[1]; j++) {
                int64_t r = oh * a.stride[0] - a.pad[0] + i * a.dilation[0];
                int64_t c = ow * a.stride[1] - a.pad[1] + j * a.dilation[1];
                covered += r < h + a.pad[0] && c < w + a.pad[1];
                if (r < 0 || r >= h || c < 0 || c >= w) {
                    if (a.pad_with_zeros && r < h + a.pad[0] && c < w + a.pad[1])
                        best = isnan(best) || best > 0.0 ? best : 0.0;
                    continue;
                }
                double v = (double)x.f[(plane * h + r) * w + c];
                best = isnan(best) || v < best ? best : v;
                sum += v;
                inside++;
            }
        int64_t by = a.divisor ? a.divisor : a.count_include_pad ? covered : inside;
        want[o] = a.kind == LC_POOL_MAX ? best : sum / (double)by;
    }
    bool is_max = a.kind == LC_POOL_MAX;
    try_case(is_max ? "max_pool2d" : "avg_pool2d", &lc_op_pool2d, &a, 1, &x, want,
             (options){.rel = is_max ? 0.0 : 5e-7,
                       .scale = 2.0,
                       .groups = groups,
                       .batch = true,
                       .blocked = true});
    free(want);
}

static void test_pool2d(void)
{
    /* kernel, stride, pad, dilation: height and width of each */
    static const int64_t forms[][8] = {
        {2, 2, 2, 2, 0, 0, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 1}, {3, 3, 1, 1, 1, 1, 1, 1},
        {3, 2, 2, 3, 1, 0, 1, 1}, {2, 5, 1, 4, 1, 2, 1, 1}, {1, 1, 1, 1, 0, 0, 1, 1},
        {2, 2, 5, 5, 0, 1, 1, 1}, {3, 3, 2, 2, 1, 1, 2, 3}, {2, 2, 1, 2, 1, 1, 4, 2},
        {7, 7, 7, 7, 3, 2, 1, 1}, {2, 3, 3, 1, 1, 1, 1, 1}, {1, 3, 1, 2, 0, 0, 1, 1},
    };
    static const int64_t shapes[][4] = {{2, 20, 13, 17}, {1, 9, 7, 7}, {3, 16, 8, 12},
                                        {2, 3, 31, 40},  {0, 2, 9, 9}, {2, 5, 4, 5}};
    int tried = 0;
    for (int f = 0; f < (int)(sizeof forms / sizeof *forms); f++)
        for (int s = 0; s < (int)(sizeof shapes / sizeof *shapes); s++)
            for (uint32_t flags = 0; flags < 8; flags++) {
                lc_pool2d_attr a = {.kind = flags & 1, .ceil_mode = flags >> 1 & 1};
                memcpy(a.kernel, forms[f], sizeof forms[f]);
                if (a.kind == LC_POOL_MAX)
                    a.pad_with_zeros = flags >> 2;
                else
                    a.count_include_pad = flags >> 2;
                if (a.kind == LC_POOL_AVG && (a.dilation[0] > 1 || a.dilation[1] > 1))
                    continue;
                if (shapes[s][2] + 2 * a.pad[0] < (a.kernel[0] - 1) * a.dilation[0] + 1 ||
                    shapes[s][3] + 2 * a.pad[1] < (a.kernel[1] - 1) * a.dilation[1] + 1)
                    continue;
                tensor x = tensor_new(4, shapes[s]);
                int64_t n = lc_desc_count(&x.d);
                if (f == 1 && a.kind == LC_POOL_MAX && n > 50) {
                    x.f[20] = NAN;
                    x.f[n - 1] = INFINITY;
                    x.f[40] = -INFINITY;
                }
                if (f == 3)
                    a.divisor = 5 * (a.kind == LC_POOL_AVG);
                pool_case(x, a, shapes[s][1] == 20 ? 4 : 1);
                free(x.f);
                tried++;
            }
    CHECK(tried > 300);
    /* windows of many pixels, and one that steps over the image */
    tensor x = T(2, 11, 40, 37);
    for (int64_t i = 0; i < lc_desc_count(&x.d); i++)
        x.f[i] += 100.0f;
    pool_case(x, (lc_pool2d_attr){{40, 37}, {1, 1}, {0, 0}, {1, 1}, 0, LC_POOL_AVG, 0, 1, 0}, 1);
    pool_case(x, (lc_pool2d_attr){{21, 19}, {7, 6}, {10, 9}, {1, 1}, 0, LC_POOL_AVG, 1, 0, 0}, 1);
    free(x.f);
    x = T(1, 3, 4, 4);
    pool_case(x, (lc_pool2d_attr){{2, 2}, {1, 1}, {1, 1}, {5, 5}, 0, LC_POOL_MAX, 0, 0, 0}, 1);
    pool_case(x, (lc_pool2d_attr){{2, 2}, {1, 1}, {1, 1}, {5, 5}, 0, LC_POOL_MAX, 0, 0, 1}, 1);
    free(x.f);
}

static void test_adaptive_pool2d(void)
{
    static const int64_t shapes[][4] = {{2, 20, 7, 7},   {1, 9, 13, 5},    {3, 16, 1, 6},
                                        {2, 1000, 3, 3}, {1, 17, 96, 101}, {0, 4, 5, 5}};
    static const int64_t outs[][2] = {{1, 1}, {2, 3},  {7, 7}, {5, 1},
                                      {1, 4}, {11, 9}, {0, 2}, {INT32_MAX, 0}};
    for (int s = 0; s < 6; s++)
        for (int o = 0; o < 8; o++)
            for (uint32_t kind = 0; kind < 2; kind++) {
                tensor x = tensor_new(4, shapes[s]);
                lc_adaptive_pool2d_attr a = {{outs[o][0], outs[o][1]}, kind, 0};
                int64_t h = shapes[s][2], w = shapes[s][3],
                        n = shapes[s][0] * shapes[s][1] * a.out[0] * a.out[1];
                if (kind == LC_POOL_MAX && shapes[s][0])
                    x.f[4] = NAN;
                if (kind == LC_POOL_AVG)
                    for (int64_t i = 0; i < lc_desc_count(&x.d); i++)
                        x.f[i] += 50.0f;
                double *want = doubles(n);
                for (int64_t i = 0; i < n; i++) {
                    int64_t ow = i % a.out[1], oh = i / a.out[1] % a.out[0],
                            plane = i / (a.out[0] * a.out[1]);
                    int64_t r0 = oh * h / a.out[0], r1 = ((oh + 1) * h + a.out[0] - 1) / a.out[0];
                    int64_t c0 = ow * w / a.out[1], c1 = ((ow + 1) * w + a.out[1] - 1) / a.out[1];
                    double best = -INFINITY, sum = 0.0;
                    for (int64_t r = r0; r < r1; r++)
                        for (int64_t c = c0; c < c1; c++) {
                            double v = (double)x.f[(plane * h + r) * w + c];
                            best = isnan(best) || v < best ? best : v;
                            sum += v;
                        }
                    want[i] = kind == LC_POOL_MAX ? best : sum / (double)((r1 - r0) * (c1 - c0));
                }
                try_case("adaptive_pool2d", &lc_op_adaptive_pool2d, &a, 1, &x, want,
                         (options){.rel = kind == LC_POOL_MAX ? 0.0 : 2e-7,
                                   .groups = shapes[s][1] % 5 ? 1 : 4,
                                   .batch = true,
                                   .blocked = true});
                free(want);
                free(x.f);
            }
}

#include "test_ops_move.h"

static void test_counts(void)
{
    int64_t parts;
    CHECK(lc_count_mul(3, 5) == 15 && lc_count_mul(INT64_MAX, 0) == 0);
    CHECK(lc_count_mul((int64_t)1 << 52, (int64_t)1 << 25) == INT64_MAX);
    CHECK(lc_count_add(3, 5) == 8 && lc_count_add(INT64_MAX, 1) == INT64_MAX);
    CHECK(lc_pixel_part(9, 2 * LC_ITEM_WORK, &parts) == 1 && parts == 9);
    CHECK(lc_pixel_part(0, 8, &parts) == 0 && parts == 0);
}

int main(void)
{
    lc_vec_kernels_fill__scalar(&tables[0].vec);
    tables[0].block = 8;
    n_tables = 1;
#ifdef HAVE_VECTORS
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        tables[1] = tables[2] = tables[0];
        tables[1].isa = LC_ISA_AVX2;
        lc_vec_kernels_fill__avx2(&tables[1].vec);
        tables[2].isa = LC_ISA_AVX512;
        tables[2].block = 16;
        lc_vec_kernels_fill__avx512(&tables[2].vec);
        n_tables = 3;
    }
#if defined(LC_TEST_SIMD) && LC_TEST_SIMD == 512
    if (!__builtin_cpu_supports("avx512bw"))
        n_tables = n_tables == 3 ? 2 : n_tables;
#endif
#endif
    test_desc();
    test_counts();
    test_unary();
    test_binary();
    test_batch_norm();
    test_softmax();
    test_pool2d();
    test_adaptive_pool2d();
    test_reduce();
    test_movement();
    test_reorder();
    test_split();
    test_errors();
    return check_report();
}
