/* Constants of a plan: packed weights. They are found on their parameters, or made: all that are
 * missing in one parallel region, in which threads take pieces of about the same number of bytes, the
 * largest constants first. As soon as one is ready, its weights are reduced to their residue: so the
 * process never holds all weights twice. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/plan.h"

#define MAX_IN 16
#define PIECE_BYTES (256 << 10)
#define TEAM_BYTES (1 << 20) /* less is packed by the caller alone */
#define STOP_CHECK_SECONDS 0.05

/* A constant to be made. */
typedef struct job {
    int constant;
    int same; /* an earlier job that makes the same blob, or -1 */
    const lc_step *step;
    size_t bytes;
    lc_storage *source[MAX_IN]; /* on loan; released by the graph */
    const void *in[MAX_IN];
    int borrowed;
    uint64_t stamps[MAX_IN];
    lc_storage *blob;
    void *out;
    lc_residue *residue;             /* of input 0, or NULL */
    int64_t items_each, first_piece; /* items of a piece; number of the first piece */
    atomic_int_least64_t items_left;
    bool ready;
} job;

typedef struct pack_run {
    job *jobs; /* in order of size */
    int n_jobs;
    int64_t n_pieces;
    atomic_int_least64_t next_piece;
    size_t scratch_bytes; /* per thread */
    unsigned char *scratch;
    const lc_run_options *options;
    double next_check; /* caller's thread only */
    atomic_int failed; /* an lc_status */
    char message[512]; /* guarded by `failed` having been won */
} pack_run;

static void fail(pack_run *r, lc_status status)
{
    int expected = LC_OK;
    if (atomic_compare_exchange_strong(&r->failed, &expected, (int)status)) {
        strncpy(r->message, lc_error_message(), sizeof r->message - 1);
        r->message[sizeof r->message - 1] = 0;
    }
}

static void check_stop(pack_run *r)
{
    const lc_run_options *o = r->options;
    double now = lc_seconds();
    if (!o || !o->stop || now < r->next_check)
        return;
    r->next_check = now + STOP_CHECK_SECONDS;
    if (o->stop(o->stop_ctx))
        fail(r, lc_fail(LC_ERR_INTERRUPTED, "interrupted"));
}

/* All items are packed: the weights may go. */
static void finish_job(job *j)
{
    lc_residue *r = j->residue;
    j->residue = NULL;
    if (r && !lc_residue_finish(r)) {
        lc_residue_destroy(r);
        r = NULL;
    }
    lc_storage_give_back(j->source[0], r);
    for (int k = 1; k < j->borrowed; k++)
        lc_storage_give_back(j->source[k], NULL);
    j->borrowed = 0;
    j->ready = true;
}

static void pack_piece(pack_run *r, job *j, int64_t piece, unsigned char *scratch)
{
    const int64_t items = j->step->items[0], begin = (piece - j->first_piece) * j->items_each;
    const int64_t end = begin + j->items_each < items ? begin + j->items_each : items;
    void *out[1] = {j->out};
    const lc_bind bind = {.in = j->in, .out = out, .scratch = scratch};
    const size_t item_bytes = j->bytes / (size_t)items;
    lc_prefault((char *)j->out + item_bytes * (size_t)begin, item_bytes * (size_t)(end - begin));
    lc_status status = j->step->op->run(j->step, &bind, 0, begin, end);
    if (status != LC_OK) {
        fail(r, status);
        return;
    }
    if (j->residue)
        lc_residue_add(j->residue, j->in[0], begin, end, (float *)(void *)scratch);
    if (atomic_fetch_sub(&j->items_left, end - begin) == end - begin)
        finish_job(j);
}

static void team_main(void *ctx, int tid, int team)
{
    (void)team;
    pack_run *r = ctx;
    unsigned char *scratch = r->scratch + (size_t)tid * r->scratch_bytes;
    int at = 0;
    while (atomic_load_explicit(&r->failed, memory_order_relaxed) == LC_OK) {
        const int64_t piece = atomic_fetch_add(&r->next_piece, 1);
        if (piece >= r->n_pieces)
            break;
        while (at + 1 < r->n_jobs && r->jobs[at + 1].first_piece <= piece)
            at++;
        pack_piece(r, &r->jobs[at], piece, scratch);
        if (tid == 0)
            check_stop(r);
    }
}

static int by_size(const void *pa, const void *pb)
{
    const job *a = pa, *b = pb;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return a->constant - b->constant;
}

/* Looks constant c up; if it is missing, fills in a job. */
static lc_status find(const lc_plan *plan, lc_execution *e, int c, const lc_source *sources, job *j,
                      bool *missing)
{
    const lc_constant *constant = &plan->constants[c];
    const lc_step *step = &plan->steps[constant->node];
    if (constant->n_params > MAX_IN || step->phases != 1 || step->shared_bytes)
        return lc_fail(LC_ERR_RUNTIME, "%s cannot be a packed form", step->op->name);
    for (int k = 0; k < constant->n_params; k++)
        e->stamps[k] = sources[constant->params[k]].stamp;
    const lc_pack_key key = {step->op, step->attr, step->out, constant->n_params, e->stamps};
    e->constants[c] = lc_param_find_pack(sources[constant->params[0]].param, &key);
    *missing = !e->constants[c];
    if (!*missing || !j)
        return LC_OK;
    memset(j, 0, sizeof *j);
    j->constant = c;
    j->same = -1;
    j->step = step;
    j->bytes = lc_desc_bytes(step->out);
    memcpy(j->stamps, e->stamps, (size_t)constant->n_params * sizeof *j->stamps);
    for (int k = 0; k < constant->n_params; k++)
        j->source[k] = sources[constant->params[k]].storage;
    return LC_OK;
}

static bool makes_the_same(const job *a, const job *b)
{
    return a->step->op == b->step->op && a->step->n_in == b->step->n_in &&
           memcmp(a->step->out, b->step->out, sizeof *a->step->out) == 0 &&
           memcmp(a->step->attr, b->step->attr, a->step->op->attr_size) == 0 &&
           memcmp(a->stamps, b->stamps, (size_t)a->step->n_in * sizeof *a->stamps) == 0;
}

static lc_status make_blobs(job *jobs, int n)
{
    size_t *bytes = lc_alloc((size_t)n * (sizeof *bytes + sizeof(lc_storage *)));
    if (!bytes)
        return LC_ERR_MEMORY;
    lc_storage **blobs = (lc_storage **)(void *)(bytes + n);
    for (int i = 0; i < n; i++)
        bytes[i] = jobs[i].bytes;
    lc_status status = lc_storage_create_many(n, bytes, blobs);
    for (int i = 0; i < n && status == LC_OK; i++) {
        jobs[i].blob = blobs[i];
        jobs[i].out = lc_storage_data(blobs[i]);
    }
    lc_free(bytes);
    return status;
}

static lc_status borrow_inputs(job *j)
{
    for (; j->borrowed < j->step->n_in; j->borrowed++) {
        void *data;
        LC_TRY(lc_storage_borrow(j->source[j->borrowed], &data));
        j->in[j->borrowed] = data;
    }
    return LC_OK;
}

/* Makes what jobs[0 .. n) ask for; blobs are in the jobs afterwards, whatever the status. */
static lc_status make(job *jobs, int n, int threads, const lc_run_options *options)
{
    pack_run r = {.jobs = jobs, .n_jobs = n, .options = options};
    lc_status status;
    size_t total = 0, scratch = 0;
    atomic_init(&r.failed, LC_OK);
    atomic_init(&r.next_piece, 0);
    LC_TRY(make_blobs(jobs, n));
    for (int i = 0; i < n; i++) {
        job *j = &jobs[i];
        const int64_t items = j->step->items[0], pieces = (int64_t)(j->bytes / PIECE_BYTES) + 1;
        LC_TRY(borrow_inputs(j));
        if (lc_storage_wants_residue(j->source[0]))
            LC_TRY(lc_residue_create(j->step, j->in, j->blob, &j->residue));
        j->items_each = items / pieces + 1;
        j->first_piece = r.n_pieces;
        atomic_init(&j->items_left, items);
        r.n_pieces += (items + j->items_each - 1) / j->items_each;
        total += j->bytes;
        if (j->step->thread_bytes > scratch)
            scratch = j->step->thread_bytes;
        if (j->residue && lc_residue_scratch(j->residue) * sizeof(float) > scratch)
            scratch = lc_residue_scratch(j->residue) * sizeof(float);
        if (items == 0)
            finish_job(j);
    }
    r.scratch_bytes = (scratch + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    r.next_check = lc_seconds() + STOP_CHECK_SECONDS;
    const int got = lc_threads_acquire(total < TEAM_BYTES ? 1 : threads);
    r.scratch = lc_alloc(r.scratch_bytes * (size_t)got);
    if (r.scratch)
        lc_parallel(got, team_main, &r);
    lc_threads_release(got);
    status = r.scratch ? (lc_status)atomic_load(&r.failed) : LC_ERR_MEMORY;
    lc_free(r.scratch);
    if (status == LC_OK)
        lc_storage_filled(jobs[0].blob);
    return status == LC_OK || status == LC_ERR_MEMORY ? status : lc_fail(status, "%s", r.message);
}

/* Ends all loans, and what else a job holds. */
static void drop_job(job *j)
{
    lc_residue_destroy(j->residue);
    for (int k = 0; k < j->borrowed; k++)
        lc_storage_give_back(j->source[k], NULL);
    lc_storage_release(j->blob);
}

lc_status lc_provide_constants(const lc_plan *plan, lc_execution *e, const lc_source *sources,
                               const lc_run_options *options)
{
    int n = 0, distinct = 0;
    bool missing;
    for (int c = 0; c < plan->n_constants; c++) {
        LC_TRY(find(plan, e, c, sources, NULL, &missing));
        n += missing;
    }
    if (n == 0)
        return LC_OK;
    job *jobs = lc_alloc((size_t)n * sizeof *jobs);
    if (!jobs)
        return LC_ERR_MEMORY;
    lc_status status = LC_OK;
    n = 0;
    for (int c = 0; c < plan->n_constants; c++) {
        if (e->constants[c])
            continue;
        LC_TRY_GOTO(find(plan, e, c, sources, &jobs[n], &missing), done);
        for (int i = 0; missing && i < n && jobs[n].same < 0; i++)
            if (makes_the_same(&jobs[i], &jobs[n]))
                jobs[n].same = jobs[i].constant;
        n += missing;
    }
    /* Those that make what another one makes come last, and are not made. */
    for (int i = 0; i < n; i++)
        if (jobs[i].same < 0) {
            job swap = jobs[distinct];
            jobs[distinct++] = jobs[i];
            jobs[i] = swap;
        }
    qsort(jobs, (size_t)distinct, sizeof *jobs, by_size);
    status = make(jobs, distinct, lc_threads_get(), options);
    for (int i = 0; i < distinct; i++) { /* after a stop too: what is ready may have a residue */
        job *j = &jobs[i];
        const lc_constant *constant = &plan->constants[j->constant];
        const lc_pack_key key = {j->step->op, j->step->attr, j->step->out, constant->n_params,
                                 j->stamps};
        if (!j->ready)
            continue;
        /* without memory for it, it is made again next time */
        (void)lc_param_keep_pack(sources[constant->params[0]].param, &key, j->blob);
        e->constants[j->constant] = lc_storage_retain(j->blob);
    }
    for (int i = distinct; i < n && status == LC_OK; i++)
        e->constants[jobs[i].constant] = lc_storage_retain(e->constants[jobs[i].same]);
done:
    for (int i = 0; i < distinct; i++)
        drop_job(&jobs[i]);
    lc_free(jobs);
    return status;
}
