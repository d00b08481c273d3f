/* Tests of csrc/train, csrc/kernels/train_*, and of the gradient slot of parameters. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "check.h"
#include "train/optim.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(LC_NO_AVX2)
#define HAVE_EMULATED 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LC_EMULATE_AVX512
#define lc_train_kernels_fill__avx512 train_fill_emulated
#include "kernels/train_avx512.c"
#pragma GCC pop_options
#endif

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

static bool holds(lc_storage *s, int64_t n, float first, float step)
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

    /* The memory of a deleted gradient comes back, unless somebody else holds it. */
    OK(lc_param_new_grad(p, &g));
    CHECK(g != a && lc_storage_bytes(g) == lc_storage_bytes(a));
    lc_param_set_grad(p, g);
    lc_storage_release(g);
    lc_param_set_grad(p, NULL);
    lc_param_set_grad(p, NULL);
    OK(lc_param_new_grad(p, &h));
    CHECK(h == g);
    lc_param_set_grad(p, h);
    lc_param_set_grad(p, NULL); /* ours as well */
    OK(lc_param_new_grad(p, &g));
    CHECK(g != h);
    lc_storage_release(g);
    lc_storage_release(h);
    lc_param_set_grad(p, b); /* goes with the parameter */
    lc_param_release(p);

    OK(lc_param_create(LC_I64, 0, NULL, &p));
    CHECK(lc_param_accumulate_grad(p, a) == LC_ERR_TYPE);
    lc_param_release(p);
    lc_storage_release(a);
    lc_storage_release(b);
}

/* ---- kernels: every table gives the bits of the plain loops ---- */

enum { MOST = 77, SLOTS = 9 };

typedef struct kernel_data {
    float in[5][MOST + 2], out[4][MOST + 2];
} kernel_data;

static lc_train_part part_in(kernel_data *d, int64_t n, bool first, bool top)
{
    /* One float off: no alignment but that of float. */
    return (lc_train_part){n,
                           d->in[0] + 1,
                           d->in[1] + 1,
                           first ? NULL : d->in[2] + 1,
                           d->in[3] + 1,
                           top ? d->in[4] + 1 : NULL,
                           d->out[0] + 1,
                           d->out[1] + 1,
                           d->out[2] + 1,
                           top ? d->out[3] + 1 : NULL};
}

static kernel_data fresh_data(void)
{
    kernel_data d;
    memset(&d, 0, sizeof d);
    for (int i = 0; i < 5; i++)
        lc_random_normal(d.in[i], MOST + 2, 7, (uint64_t)i, 0, 0.0f, 1.0f);
    for (int i = 3; i < 5; i++)
        for (int k = 0; k < MOST + 2; k++)
            d.in[i][k] *= d.in[i][k];
    d.in[0][5] = NAN;
    d.in[1][6] = INFINITY;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < MOST + 2; k++)
            d.out[i][k] = 123.0f; /* what is not written stays */
    return d;
}

static void run_kernels(const lc_train_kernels *k, int64_t n, kernel_data out[], double sums[])
{
    int at = 0;
    lc_sgd_scalars s = {0.1f, -1.0f, 0.01f, 0.9f, 0.8f, false};
    for (int mode = 0; mode < 4; mode++) {
        out[at] = fresh_data();
        lc_train_part part = part_in(&out[at++], n, mode == 1, false);
        if (mode == 0)
            part.m_out = NULL;
        s.nesterov = mode == 3;
        s.decay = mode == 2 ? 0.0f : 0.01f;
        k->sgd(&part, &s);
    }
    lc_adam_scalars a = {0.1f, 1.0f, 0.02f, 0.99f, 0.1f, 0.95f, 0.05f, 2.5f, 1.5f, 1e-6f};
    for (int mode = 0; mode < 4; mode++) {
        out[at] = fresh_data();
        lc_train_part part = part_in(&out[at++], n, false, mode == 1);
        a.decay = mode == 0 ? 0.0f : 0.02f;
        (mode < 2 ? k->adam : mode == 2 ? k->lamb_moments : k->lamb_apply)(&part, &a);
    }
    out[at] = fresh_data();
    k->lerp(out[at].out[0] + 1, out[at].in[1] + 1, out[at].in[2] + 1, n, 0.3f);
    sums[0] = k->squares(out[at].in[1] + 10, n < MOST - 10 ? n : MOST - 10);
    sums[1] = k->squares(out[at].in[3] + 1, n);
}

static bool same_kernels(const lc_train_kernels *k)
{
    lc_kernels plain;
    lc_kernels_fill(&plain, LC_ISA_SCALAR);
    static kernel_data a[SLOTS], b[SLOTS];
    double x[2], y[2];
    bool same = true;
    for (int64_t n = 0; n <= MOST; n++) {
        run_kernels(&plain.train, n, a, x);
        run_kernels(k, n, b, y);
        for (int i = 0; i < SLOTS; i++)
            for (int o = 0; o < 4; o++)
                for (int e = 0; e < MOST + 2; e++) {
                    float p = a[i].out[o][e], q = b[i].out[o][e];
                    same &= p == q || (p != p && q != q);
                }
        same &= x[0] == y[0] && x[1] == y[1];
    }
    return same;
}

static void test_kernels(void)
{
    lc_kernels k;
    for (int isa = 0; isa <= (int)lc_cpu_get()->isa_best; isa++) {
        lc_kernels_fill(&k, (lc_isa)isa);
        CHECK(same_kernels(&k.train));
    }
#ifdef HAVE_EMULATED
    if (lc_cpu_get()->isa_best >= LC_ISA_AVX2) {
        lc_train_kernels emulated;
        train_fill_emulated(&emulated);
        CHECK(same_kernels(&emulated));
    }
#endif
    float huge[40] = {3e30f, -4e30f}; /* squares beyond float */
    lc_kernels_fill(&k, LC_ISA_SCALAR);
    CHECK(fabs(sqrt(k.train.squares(huge, 40)) / 5e30 - 1.0) < 1e-6);
}

/* ---- passes ---- */

enum { ROWS = 6, STATE = 3 };

static const int64_t sizes[ROWS] = {1, 100003, 0, 16384, 333, 49153};

typedef struct tensors {
    lc_param *param[ROWS], *state[STATE][ROWS];
} tensors;

static lc_param *new_param(int64_t n)
{
    lc_param *p = NULL;
    OK(lc_param_create(LC_F32, 1, &n, &p));
    return p;
}

static void set_random(lc_param *p, int64_t n, int stream, bool grad)
{
    lc_storage *s = NULL;
    OK(lc_storage_create((size_t)n * sizeof(float), &s));
    lc_random_normal(lc_storage_data(s), n, 3, (uint64_t)stream, 0, 0.0f, 1.0f);
    if (grad)
        lc_param_set_grad(p, s);
    else
        lc_param_replace(p, s);
    lc_storage_release(s);
}

static void make(tensors *t)
{
    for (int i = 0; i < ROWS; i++) {
        t->param[i] = new_param(sizes[i]);
        set_random(t->param[i], sizes[i], i, false);
        set_random(t->param[i], sizes[i], 10 + i, true);
        for (int k = 0; k < STATE; k++)
            t->state[k][i] = new_param(sizes[i]);
    }
}

static void drop(tensors *t)
{
    for (int i = 0; i < ROWS; i++) {
        lc_param_release(t->param[i]);
        for (int k = 0; k < STATE; k++)
            lc_param_release(t->state[k][i]);
    }
}

typedef enum kind { SGD, ADAM, LAMB, LARS, AVERAGE, KINDS } kind;

static lc_status step(kind which, tensors *t, int number)
{
    static const lc_sgd_options sgd = {0.1, 0.9, 0.1, 0.01, false, false};
    static const lc_adam_options adam = {0.1, 0.9, 0.99, 1e-8, 0.01, true, false};
    static const lc_lamb_options lamb = {0.1, 0.9, 0.99, 1e-6, 0.01, true, false, false};
    static const lc_lars_options lars = {0.1, 0.9, 0.01, 0.02, 1e-8, false, false};
    lc_sgd_row sgd_row[ROWS];
    lc_adam_row adam_row[ROWS];
    lc_lamb_row lamb_row[ROWS];
    lc_lars_row lars_row[ROWS];
    for (int i = 0; i < ROWS; i++) {
        lc_param *p = t->param[i], *a = t->state[0][i], *b = t->state[1][i];
        sgd_row[i] = (lc_sgd_row){p, a, &sgd};
        adam_row[i] = (lc_adam_row){p, a, b, t->state[2][i], number, &adam};
        lamb_row[i] = (lc_lamb_row){p, a, b, number, &lamb};
        lars_row[i] = (lc_lars_row){p, a, &lars};
    }
    switch (which) {
    case SGD:
        return lc_sgd_step(ROWS, sgd_row);
    case ADAM:
        return lc_adam_step(ROWS, adam_row);
    case LAMB:
        return lc_lamb_step(ROWS, lamb_row);
    case LARS:
        return lc_lars_step(ROWS, lars_row);
    default:
        return lc_average_update(ROWS, t->state[0], t->param, 0.25);
    }
}

static lc_storage *contents(lc_param *p)
{
    lc_storage *s = NULL;
    OK(lc_param_storage(p, &s));
    return s;
}

static bool equal(lc_param *p, lc_param *q)
{
    lc_storage *a = contents(p), *b = contents(q);
    bool same =
        memcmp(lc_storage_data(a), lc_storage_data(b), lc_desc_bytes(lc_param_desc(p))) == 0;
    lc_storage_release(a);
    lc_storage_release(b);
    return same;
}

static bool equal_tensors(tensors *t, tensors *u)
{
    bool same = true;
    for (int i = 0; i < ROWS; i++) {
        same &= equal(t->param[i], u->param[i]);
        for (int k = 0; k < STATE; k++)
            same &= equal(t->state[k][i], u->state[k][i]);
    }
    return same;
}

static void test_threads_give_the_same_bits(void)
{
    int before = lc_threads_get();
    for (int which = 0; which < KINDS; which++) {
        tensors one, many;
        make(&one);
        OK(lc_threads_set(1));
        for (int i = 1; i <= 3; i++)
            OK(step((kind)which, &one, i));
        double norm = 0.0, other = 0.0;
        OK(lc_grads_norm(ROWS, one.param, &norm));
        for (int team = 2; team <= 5; team += 3) {
            make(&many);
            OK(lc_threads_set(team));
            for (int i = 1; i <= 3; i++)
                OK(step((kind)which, &many, i));
            OK(lc_grads_norm(ROWS, many.param, &other));
            CHECK(equal_tensors(&one, &many));
            CHECK(norm == other && norm > 100.0);
            drop(&many);
        }
        drop(&one);
    }
    OK(lc_threads_set(before));
}

static void test_copy_on_write(void)
{
    for (int which = 0; which < KINDS; which++) {
        tensors t, kept;
        make(&t);
        make(&kept);
        lc_param *changed = which == AVERAGE ? t.state[0][1] : t.param[1];
        OK(step((kind)which, &t, 1)); /* takes what is shared or not there */
        uint64_t stamp = lc_param_stamp(changed);
        lc_storage *a = contents(changed);
        const void *memory = lc_storage_data(a);
        lc_storage_release(a);
        OK(step((kind)which, &t, 2));
        a = contents(changed);
        CHECK(lc_storage_data(a) == memory); /* in place */
        CHECK(lc_param_stamp(changed) != stamp);

        /* held: the holder's numbers stay */
        float first = ((float *)lc_storage_data(a))[77];
        OK(step((kind)which, &t, 3));
        CHECK(((float *)lc_storage_data(a))[77] == first);
        lc_storage *b = contents(changed);
        CHECK(lc_storage_data(b) != memory && ((float *)lc_storage_data(b))[77] != first);
        lc_storage_release(a);
        lc_storage_release(b);
        drop(&t);
        drop(&kept);
    }
}

static void test_memory_that_runs_out_changes_nothing(void)
{
    for (int which = 0; which < KINDS; which++) {
        tensors t, same;
        make(&t);
        make(&same);
        lc_storage *held[ROWS]; /* so that every step has to allocate */
        for (int i = 0; i < ROWS; i++)
            held[i] = contents(which == AVERAGE ? t.state[0][i] : t.param[i]);
        int64_t n = 0;
        for (lc_status status = LC_ERR_MEMORY; status != LC_OK && n < 100;) {
            lc_mem_fail_after(++n);
            status = step((kind)which, &t, 1);
            lc_mem_fail_after(0);
            CHECK(status == LC_OK || (status == LC_ERR_MEMORY && equal_tensors(&t, &same)));
        }
        CHECK(n > 3 && n < 100 && !equal_tensors(&t, &same));
        for (int i = 0; i < ROWS; i++)
            lc_storage_release(held[i]);
        drop(&t);
        drop(&same);
    }
}

static float element(lc_param *p, int i, bool grad)
{
    lc_storage *s = grad ? lc_param_grad(p) : contents(p);
    float value = ((float *)lc_storage_data(s))[i];
    lc_storage_release(s);
    return value;
}

static void test_gradients(void)
{
    tensors t;
    make(&t);
    float before = element(t.param[1], 5, true);
    double norm = 0.0, after = 0.0;
    OK(lc_grads_norm(ROWS, t.param, &norm));
    lc_param_set_grad(t.param[3], NULL); /* passed over */
    OK(lc_grads_scale(ROWS, t.param, 0.5));
    CHECK(element(t.param[1], 5, true) == 0.5f * before);
    OK(lc_grads_norm(ROWS, t.param, &after));
    CHECK(after < 0.5 * norm && after > 0.4 * norm);
    lc_storage *held = lc_param_grad(t.param[1]);
    OK(lc_grads_clamp(ROWS, t.param, 1e-3));
    CHECK(fabsf(element(t.param[1], 5, true)) <= 1e-3f);
    CHECK(((float *)lc_storage_data(held))[5] == 0.5f * before);
    lc_storage_release(held);

    lc_sgd_options o = {0.1, 0, 0, 0, false, false};
    lc_sgd_row row = {t.param[3], NULL, &o};
    CHECK(lc_sgd_step(1, &row) == LC_ERR_VALUE); /* no gradient */
    row = (lc_sgd_row){t.param[1], t.param[4], &o};
    CHECK(lc_sgd_step(1, &row) == LC_ERR_VALUE); /* shapes */
    OK(lc_sgd_step(0, NULL));

    /* A weight of one shares the storage. */
    OK(lc_average_update(ROWS, t.state[0], t.param, 1.0));
    lc_storage *a = contents(t.state[0][1]), *b = contents(t.param[1]);
    CHECK(a == b);
    lc_storage_release(a);
    lc_storage_release(b);
    float was = element(t.param[1], 5, false);
    row = (lc_sgd_row){t.param[1], NULL, &o};
    OK(lc_sgd_step(1, &row));
    CHECK(element(t.state[0][1], 5, false) == was && element(t.param[1], 5, false) != was);
    CHECK(lc_average_update(1, t.state[0], t.param + 1, 1.0) == LC_ERR_VALUE);
    drop(&t);
}

int main(void)
{
    int64_t before = lc_mem_stats_get().live_bytes;
    test_gradient_slot();
    test_kernels();
    test_threads_give_the_same_bits();
    test_copy_on_write();
    test_memory_that_runs_out_changes_nothing();
    test_gradients();
    CHECK(lc_mem_stats_get().live_bytes == before);
    return check_report();
}
