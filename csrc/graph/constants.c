/* Constants of a plan: packed weights. They are found on their parameters, or made: all that are
 * missing in one parallel region, in which threads take pieces of about the same number of bytes, the
 * largest constants first. As soon as one is ready, its weights are reduced to their residue, and
 * their memory is there for the next ones: so the process never holds all weights twice. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/plan.h"
#include "graph/space.h"

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
    lc_storage *blob; /* NULL until the first piece is taken */
    void *out;
    bool used;                       /* `out` lies in memory that was in use before */
    lc_residue *residue;             /* of input 0, or NULL */
    int64_t items_each, first_piece; /* items of a piece; number of the first piece */
    atomic_int_least64_t items_left;
    bool ready;
} job;

typedef struct pack_run {
    job *jobs; /* in order of size */
    int n_jobs;
    int64_t n_pieces;
    size_t scratch_bytes; /* per thread */
    unsigned char *scratch;
    const lc_run_options *options;
    double next_check; /* caller's thread only */
    atomic_int failed; /* an lc_status */
    char message[512]; /* guarded by `failed` having been won */
    /* guarded by LC_LOCK_PIECES */
    int64_t next_piece;
    int next_job; /* the one that the next piece is of, or one before it */
    lc_spaces spaces;
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

/* Finds memory for what the job makes. */
static lc_status place(pack_run *r, job *j)
{
    LC_TRY(lc_spaces_take(&r->spaces, j->bytes, &j->blob, &j->used));
    j->out = lc_storage_data(j->blob);
    if (j->residue)
        lc_residue_bind(j->residue, j->blob);
    return LC_OK;
}

/* The next piece and the job that it is of, which has memory then; false if there is none. */
static bool take_piece(pack_run *r, job **out, int64_t *piece)
{
    lc_status status = LC_OK;
    lc_lock_take(LC_LOCK_PIECES);
    *piece = r->next_piece;
    const bool more = *piece < r->n_pieces && atomic_load(&r->failed) == LC_OK;
    if (more) {
        r->next_piece++;
        while (r->next_job + 1 < r->n_jobs && r->jobs[r->next_job + 1].first_piece <= *piece)
            r->next_job++;
        *out = &r->jobs[r->next_job];
        if (!(*out)->blob && (status = place(r, *out)) != LC_OK)
            fail(r, status);
    }
    lc_lock_give(LC_LOCK_PIECES);
    return more && status == LC_OK;
}

/* All items are packed: the weights may go. */
static void finish_job(pack_run *r, job *j)
{
    lc_residue *residue = j->residue;
    lc_space left;
    j->residue = NULL;
    if (residue && !lc_residue_finish(residue)) {
        lc_residue_destroy(residue);
        residue = NULL;
    }
    lc_storage_give_back(j->source[0], residue, &left);
    for (int k = 1; k < j->borrowed; k++)
        lc_storage_give_back(j->source[k], NULL, NULL);
    j->borrowed = 0;
    j->ready = true;
    lc_lock_take(LC_LOCK_PIECES);
    lc_spaces_add(&r->spaces, left);
    lc_lock_give(LC_LOCK_PIECES);
}

static void pack_piece(pack_run *r, job *j, int64_t piece, unsigned char *scratch)
{
    const int64_t items = j->step->items[0], begin = (piece - j->first_piece) * j->items_each;
    const int64_t end = begin + j->items_each < items ? begin + j->items_each : items;
    void *out[1] = {j->out};
    const lc_bind bind = {.in = j->in, .out = out, .scratch = scratch};
    const size_t item_bytes = j->bytes / (size_t)items;
    if (!j->used)
        lc_prefault((char *)j->out + item_bytes * (size_t)begin,
                    item_bytes * (size_t)(end - begin));
    lc_status status = j->step->op->run(j->step, &bind, 0, begin, end);
    if (status != LC_OK) {
        fail(r, status);
        return;
    }
    if (j->residue)
        lc_residue_add(j->residue, j->in[0], begin, end, (float *)(void *)scratch);
    if (atomic_fetch_sub(&j->items_left, end - begin) == end - begin)
        finish_job(r, j);
}

static void team_main(void *ctx, int tid, int team)
{
    (void)team;
    pack_run *r = ctx;
    unsigned char *scratch = r->scratch + (size_t)tid * r->scratch_bytes;
    job *j;
    int64_t piece;
    while (take_piece(r, &j, &piece)) {
        pack_piece(r, j, piece, scratch);
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

static lc_status borrow_inputs(job *j)
{
    for (; j->borrowed < j->step->n_in; j->borrowed++) {
        void *data;
        LC_TRY(lc_storage_borrow(j->source[j->borrowed], &data));
        j->in[j->borrowed] = data;
    }
    return LC_OK;
}

/* Prepares a job, whose pieces come next, and finds what it wants of scratch memory. */
static lc_status prepare(pack_run *r, job *j)
{
    const int64_t items = j->step->items[0], pieces = (int64_t)(j->bytes / PIECE_BYTES) + 1;
    size_t scratch = j->step->thread_bytes;
    LC_TRY(borrow_inputs(j));
    if (lc_storage_wants_residue(j->source[0]))
        LC_TRY(lc_residue_create(j->step, j->in, &j->residue));
    if (j->residue && lc_residue_scratch(j->residue) * sizeof(float) > scratch)
        scratch = lc_residue_scratch(j->residue) * sizeof(float);
    if (scratch > r->scratch_bytes)
        r->scratch_bytes = scratch;
    j->items_each = items / pieces + 1;
    j->first_piece = r->n_pieces;
    atomic_init(&j->items_left, items);
    r->n_pieces += (items + j->items_each - 1) / j->items_each;
    return lc_spaces_expect(&r->spaces, j->bytes);
}

/* Makes what jobs[0 .. n) ask for; blobs are in the jobs afterwards, whatever the status. */
static lc_status make(job *jobs, int n, int threads, const lc_run_options *options)
{
    pack_run r = {.jobs = jobs, .n_jobs = n, .options = options};
    lc_status status = LC_OK;
    size_t total = 0;
    int got;
    atomic_init(&r.failed, LC_OK);
    for (int i = 0; i < n; i++) {
        LC_TRY_GOTO(prepare(&r, &jobs[i]), done);
        total += jobs[i].bytes;
    }
    for (int i = 0; i < n; i++)
        if (jobs[i].step->items[0] == 0) {
            LC_TRY_GOTO(place(&r, &jobs[i]), done);
            finish_job(&r, &jobs[i]);
        }
    r.scratch_bytes = (r.scratch_bytes + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    r.next_check = lc_seconds() + STOP_CHECK_SECONDS;
    got = lc_threads_acquire(total < TEAM_BYTES ? 1 : threads);
    r.scratch = lc_alloc(r.scratch_bytes * (size_t)got);
    if (!r.scratch)
        status = LC_ERR_MEMORY;
    else
        lc_parallel(got, team_main, &r);
    lc_threads_release(got);
    lc_free(r.scratch);
    if (atomic_load(&r.failed) != LC_OK)
        status = lc_fail((lc_status)atomic_load(&r.failed), "%s", r.message);
    for (int i = 0; i < n && status == LC_OK; i++)
        lc_storage_filled(jobs[i].blob);
done:
    lc_spaces_clear(&r.spaces);
    return status;
}

/* Ends all loans, and what else a job holds. */
static void drop_job(job *j)
{
    lc_residue_destroy(j->residue);
    for (int k = 0; k < j->borrowed; k++)
        lc_storage_give_back(j->source[k], NULL, NULL);
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
