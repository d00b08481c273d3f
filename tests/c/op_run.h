/* Runs any op by hand through infer, layout, prepare and run: several outputs, int64 inputs, every
 * kernel table, any layouts. Outputs and scratch begin as NaN, pads of outputs must end as zero, and
 * teams of 1, 2, 3 and 5 threads must give the same bits. */
#ifndef LC_TESTS_OP_RUN_H
#define LC_TESTS_OP_RUN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#include "base/mem.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "ops/grad_ops.h"
#include "ops/op_util.h"

#define MAX_TENSORS 8

typedef struct tensor {
    lc_desc d; /* plain */
    float *f;  /* its elements, or of an int64 tensor NULL */
    int64_t *i;
} tensor;

static uint64_t random_state = 88172645463325252u;

static inline double draw(void) /* in -2 .. 2 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / (double)(1ull << 53) * 4.0 - 2.0;
}

static inline tensor tensor_of(int rank, const int64_t *dim)
{
    tensor t = {0};
    if (lc_desc_init(&t.d, LC_F32, rank, dim) != LC_OK)
        exit(2);
    int64_t n = lc_desc_count(&t.d);
    t.f = malloc((size_t)n * sizeof *t.f + 1);
    for (int64_t k = 0; k < n; k++)
        t.f[k] = (float)draw();
    return t;
}

#define T(...)                                                                                     \
    tensor_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static inline tensor ints_of(int rank, const int64_t *dim, int64_t limit)
{
    tensor t = {0};
    if (lc_desc_init(&t.d, LC_I64, rank, dim) != LC_OK)
        exit(2);
    int64_t n = lc_desc_count(&t.d);
    t.i = malloc((size_t)n * sizeof *t.i + 1);
    for (int64_t k = 0; k < n; k++)
        t.i[k] = (int64_t)((draw() + 2.0) / 4.0 * (double)limit) % limit;
    return t;
}

static inline void tensor_free(tensor *t)
{
    free(t->f);
    free(t->i);
}

/* Where channel element (n, c, pixel) lies. */
static inline int64_t place_of(const lc_desc *d, int64_t n, int64_t c, int64_t pixel)
{
    int64_t slot = lc_desc_channel_slot(d, c), pixels = d->dim[2] * d->dim[3];
    int b = d->layout.block;
    return n * lc_desc_padded_channels(d) * pixels + (slot / b * pixels + pixel) * b + slot % b;
}

/* The elements in the layout of d; memory 4 bytes past an aligned address, ending with the tensor. */
static inline void *lay_out(const tensor *t, const lc_desc *d, void **block)
{
    size_t bytes = lc_desc_bytes(d);
    *block = malloc(bytes + 4);
    char *m = (char *)*block + 4;
    if (d->layout.block == 1) {
        memcpy(m, t->i ? (const void *)t->i : (const void *)t->f, bytes);
        return m;
    }
    memset(m, 0, bytes);
    int64_t pixels = d->dim[2] * d->dim[3];
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t p = 0; p < pixels; p++)
                ((float *)m)[place_of(d, n, c, p)] = t->f[(n * d->dim[1] + c) * pixels + p];
    return m;
}

/* Back to plain; false if a pad is not zero. */
static inline bool gather(const lc_desc *d, const float *m, float *plain)
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
                int64_t at = place_of(d, i, c, p);
                plain[(i * d->dim[1] + c) * pixels + p] = m[at];
                is_channel[at] = 1;
            }
    bool zero = true;
    for (size_t i = 0; i < n; i++)
        zero &= is_channel[i] || m[i] == 0.0f;
    free(is_channel);
    return zero;
}

static lc_kernels tables[3];
static int n_tables;

/* `in_place`: output 0 is the memory of input 0. Returns blocks of memory of outputs, whose data
 * begin 4 bytes in; false if running failed. */
static inline bool run_step(lc_step *step, const void *const *in, int team, bool in_place,
                            char *blocks[LC_MAX_OUT])
{
    const void *ins[MAX_TENSORS];
    void *outs[LC_MAX_OUT];
    memcpy(ins, in, (size_t)step->n_in * sizeof *ins);
    for (int o = 0; o < step->n_out; o++) {
        size_t bytes = lc_desc_bytes(&step->out[o]);
        blocks[o] = malloc(bytes + 4);
        outs[o] = blocks[o] + 4;
        memset(outs[o], 0xff, bytes);
    }
    if (in_place) {
        memcpy(outs[0], in[0], lc_desc_bytes(&step->out[0]));
        ins[0] = outs[0];
    }
    char *shared = malloc(step->shared_bytes + 64);
    memset(shared, 0xff, step->shared_bytes);
    bool ok = true;
    for (int phase = 0; phase < step->phases; phase++)
        for (int tid = team - 1; tid >= 0; tid--) { /* backwards: order must not matter */
            char *scratch = malloc(step->thread_bytes + 64);
            memset(scratch, 0xff, step->thread_bytes);
            int64_t begin, end;
            lc_share(step->items[phase], tid, team, &begin, &end);
            lc_bind bind = {.in = ins, .out = outs, .shared = shared, .scratch = scratch};
            ok &= step->op->run(step, &bind, phase, begin, end) == LC_OK;
            free(scratch);
        }
    free(shared);
    return ok;
}

typedef struct outcome {
    int n;
    lc_desc d[LC_MAX_OUT]; /* with layouts */
    float *f[LC_MAX_OUT];  /* plain; NULL after a failure */
} outcome;

static inline void outcome_free(outcome *r)
{
    for (int o = 0; o < r->n; o++)
        free(r->f[o]);
}

/* `given`: layouts of inputs as they come; `wish`: of output 0 if it has rank 4. */
static inline outcome run_op(const lc_op *op, const void *attr, int n_in, const tensor *in,
                             const lc_layout *given, lc_layout wish, const lc_kernels *kernels,
                             const char *what)
{
    outcome r = {0};
    lc_desc d[MAX_TENSORS];
    lc_layout want[MAX_TENSORS], give[LC_MAX_OUT];
    for (int k = 0; k < n_in; k++) {
        d[k] = in[k].d;
        want[k] = LC_PLAIN;
    }
    if (op->infer(attr, n_in, d, &r.n, r.d) != LC_OK) {
        fprintf(stderr, "%s: infer: %s\n", what, lc_error_message());
        r.n = 0;
        return r;
    }
    for (int o = 0; o < r.n; o++) {
        give[o] = LC_PLAIN;
        r.d[o].layout = r.d[o].rank == 4 ? wish : LC_PLAIN;
    }
    for (int k = 0; k < n_in; k++)
        d[k].layout = given[k];
    lc_layout_query q = {attr, n_in, r.n, d, r.d, kernels->block};
    if (op->layout)
        op->layout(&q, want, give);
    for (int o = 0; o < r.n; o++)
        r.d[o].layout = give[o];
    const void *data[MAX_TENSORS];
    void *blocks[MAX_TENSORS];
    for (int k = 0; k < n_in; k++) {
        d[k].layout = want[k];
        data[k] = lay_out(&in[k], &d[k], &blocks[k]);
    }
    static const int teams[] = {1, 2, 3, 5};
    char *first[LC_MAX_OUT] = {NULL}, *made[LC_MAX_OUT] = {NULL};
    bool good = true;
    for (int t = 0; t < 4 && good; t++) {
        lc_step step = {.op = op,
                        .attr = attr,
                        .n_in = n_in,
                        .n_out = r.n,
                        .in = d,
                        .out = r.d,
                        .threads = teams[t],
                        .kernels = kernels,
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
        good = op->prepare(&step) == LC_OK;
        bool inplace = (op->flags & LC_OP_INPLACE) && memcmp(&d[0], &r.d[0], sizeof d[0]) == 0;
        for (int again = 0; again < (inplace ? 2 : 1) && good; again++) {
            good = run_step(&step, data, teams[t], again != 0, made);
            for (int o = 0; o < r.n; o++) {
                if (first[o] && good &&
                    memcmp(first[o] + 4, made[o] + 4, lc_desc_bytes(&r.d[o])) != 0) {
                    fprintf(stderr, "%s: output %d of %d threads%s has other bits\n", what, o,
                            teams[t], again ? " in place" : "");
                    good = false;
                }
                if (first[o])
                    free(made[o]);
                else
                    first[o] = made[o];
            }
        }
        lc_free(step.prep);
    }
    for (int o = 0; o < r.n && good; o++) {
        r.f[o] = malloc((size_t)lc_desc_count(&r.d[o]) * sizeof(float) + 1);
        if (!gather(&r.d[o], (float *)(first[o] + 4), r.f[o])) {
            fprintf(stderr, "%s: pads of output %d are not zero\n", what, o);
            free(r.f[o]);
            r.f[o] = NULL;
        }
    }
    for (int o = 0; o < r.n; o++)
        free(first[o]);
    for (int k = 0; k < n_in; k++)
        free(blocks[k]);
    return r;
}

/* Runs in plain, blocked and (groups > 1) grouped layouts with every table and compares output o
 * with want[o] (NULL: not compared): differences of at most rel * max(scale, |want|). */
static inline void try_grad(const char *what, const lc_op *op, const void *attr, int n_in,
                            const tensor *in, const double *const *want, double rel, double scale,
                            int groups)
{
    for (int t = 0; t < n_tables; t++)
        for (int mode = 0; mode < (groups > 1 ? 3 : 2); mode++) {
            lc_layout given[MAX_TENSORS], wish = LC_PLAIN;
            bool any = mode == 0;
            for (int k = 0; k < n_in; k++) {
                given[k] = LC_PLAIN;
                if (mode == 0 || in[k].d.rank != 4 || in[k].i)
                    continue;
                any = true;
                given[k] =
                    lc_layout_blocked(tables[t].block, in[k].d.dim[1], mode == 2 ? groups : 1);
                wish = (lc_layout){tables[t].block, 1};
            }
            if (!any)
                continue;
            char label[200];
            snprintf(label, sizeof label, "%s (table %d, layout %d)", what, t, mode);
            outcome r = run_op(op, attr, n_in, in, given, wish, &tables[t], label);
            check(r.n > 0, label, __FILE__, __LINE__);
            for (int o = 0; o < r.n; o++) {
                check(r.f[o] != NULL, label, __FILE__, __LINE__);
                int64_t bad = -1;
                for (int64_t i = 0; r.f[o] && want[o] && i < lc_desc_count(&r.d[o]) && bad < 0;
                     i++) {
                    double w = want[o][i], got = (double)r.f[o][i], size = fabs(w);
                    bool same = isnan(w) ? isnan(got)
                                         : fabs(got - w) <= rel * (size > scale ? size : scale);
                    if (!same)
                        bad = i;
                }
                check(bad < 0, label, __FILE__, __LINE__);
                if (bad >= 0)
                    fprintf(stderr, "  output %d, element %lld: %.9g, not %.9g\n", o,
                            (long long)bad, (double)r.f[o][bad], want[o][bad]);
            }
            outcome_free(&r);
        }
}

#endif
