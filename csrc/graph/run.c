/* Running a graph: plan, memory, packed weights, and one parallel region with a barrier after every
 * phase. */
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/plan.h"

#define STOP_CHECK_SECONDS 0.05

/* A list of steps to be run by one team. */
typedef struct team_run {
    const lc_plan *plan;
    const int *nodes; /* plan->steps[nodes[i]] */
    int n_steps;
    const void *const *in; /* argument lists, one after the other */
    void *const *out;
    const int64_t *shared_at; /* NULL: no step has shared scratch */
    unsigned char *arena, *scratch;
    const lc_run_options *options;
    double *seconds; /* per step, or NULL */

    double next_check; /* caller's thread only */
    atomic_int failed; /* an lc_status; set by whoever fails or is told to stop first */
    int leave[2]; /* by parity of the barrier: written by thread 0 before it, read by all after it
                   */
    char message[512]; /* of the failure; guarded by `failed` having been won */
} team_run;

static void fail(team_run *r, lc_status status)
{
    int expected = LC_OK;
    if (atomic_compare_exchange_strong(&r->failed, &expected, (int)status)) {
        strncpy(r->message, lc_error_message(), sizeof r->message - 1);
        r->message[sizeof r->message - 1] = 0;
    }
}

static void check_stop(team_run *r)
{
    const lc_run_options *o = r->options;
    if (!o || !o->stop)
        return;
    double now = lc_seconds();
    if (now < r->next_check)
        return;
    r->next_check = now + STOP_CHECK_SECONDS;
    if (o->stop(o->stop_ctx)) {
        (void)lc_fail(LC_ERR_INTERRUPTED, "interrupted");
        fail(r, LC_ERR_INTERRUPTED);
    }
}

static void run_phase(team_run *r, const lc_step *s, const lc_bind *bind, int phase, int tid,
                      int team)
{
    int64_t begin, end;
    lc_share(s->items[phase], tid, team, &begin, &end);
    int pieces = r->plan->pieces[s - r->plan->steps];
    int64_t piece = (end - begin + pieces - 1) / pieces;
    for (int64_t at = begin; at < end; at += piece) {
        if (atomic_load_explicit(&r->failed, memory_order_relaxed) != LC_OK)
            return;
        lc_status status = s->op->run(s, bind, phase, at, at + piece < end ? at + piece : end);
        if (status != LC_OK)
            fail(r, status);
        if (tid == 0)
            check_stop(r);
    }
}

static void team_main(void *ctx, int tid, int team)
{
    team_run *r = ctx;
    int barrier = 0;
    size_t in_at = 0, out_at = 0;
    double started = r->seconds ? lc_seconds() : 0;
    for (int i = 0; i < r->n_steps; i++) {
        const lc_step *s = &r->plan->steps[r->nodes[i]];
        lc_bind bind = {r->in + in_at, r->out + out_at,
                        r->shared_at ? r->arena + r->shared_at[i] : NULL,
                        r->scratch + (size_t)tid * r->plan->thread_bytes};
        in_at += (size_t)s->n_in;
        out_at += (size_t)s->n_out;
        for (int p = 0; p < s->phases; p++, barrier ^= 1) {
            run_phase(r, s, &bind, p, tid, team);
            /* Thread 0 decides before the barrier, and the slot is not written again before
             * everybody has passed the next one: so all threads leave after the same barrier. */
            if (tid == 0)
                r->leave[barrier] = atomic_load(&r->failed) != LC_OK;
            lc_barrier();
            if (r->leave[barrier])
                return;
        }
        if (r->seconds && tid == 0) {
            double now = lc_seconds();
            r->seconds[i] = now - started;
            started = now;
        }
    }
}

static lc_status run_team(team_run *r, int threads)
{
    atomic_init(&r->failed, LC_OK);
    r->leave[0] = r->leave[1] = 0;
    r->next_check = r->options && r->options->stop ? lc_seconds() + STOP_CHECK_SECONDS : 0;
    int got = lc_threads_acquire(threads);
    lc_parallel(got, team_main, r);
    lc_threads_release(got);
    lc_status status = (lc_status)atomic_load(&r->failed);
    return status == LC_OK ? LC_OK : lc_fail(status, "%s", r->message);
}

static void drop_constants(const lc_plan *plan, lc_execution *e)
{
    for (int c = 0; c < plan->n_constants; c++) {
        lc_storage_release(e->constants[c]);
        e->constants[c] = NULL;
    }
}

/* --- binding values to memory */

/* Fills in what the recording knows of this run's parameters. */
static lc_status find_sources(const lc_graph *g, lc_graph_work *w)
{
    LC_TRY(
        lc_ir_reserve((void **)&w->sources, sizeof *w->sources, w->ir.n_params, &w->cap_sources));
    for (int i = 0; i < w->ir.n_params; i++)
        LC_TRY(lc_graph_source(g, w->params[i], &w->sources[i]));
    return LC_OK;
}

static lc_status bind_values(const lc_graph *g, const lc_plan *plan, const lc_graph_work *work,
                             lc_execution *e, void *const *outputs)
{
    for (int v = 0; v < plan->ir.n_values; v++) {
        int64_t at = plan->places[v].at;
        void *data = NULL;
        switch (plan->places[v].kind) {
        case LC_PLACE_ARENA:
            data = e->arena + at;
            break;
        case LC_PLACE_INPUT:
            data = (void *)(uintptr_t)lc_graph_input_data(g, work->inputs[at]);
            if (!data && lc_desc_count(&plan->ir.values[v].desc))
                return lc_fail(LC_ERR_RUNTIME, "an input of this recording has no contents");
            break;
        case LC_PLACE_PARAM:
            data = lc_storage_data(work->sources[at].storage);
            if (!data)
                return LC_ERR_MEMORY;
            break;
        case LC_PLACE_CONST:
            data = lc_storage_data(e->constants[at]);
            break;
        case LC_PLACE_OUTPUT:
            data = outputs[at];
            break;
        case LC_PLACE_NONE:
        case LC_PLACE_VIEW:
            break;
        }
        e->data[v] = data;
    }
    size_t in_at = 0, out_at = 0;
    for (int s = 0; s < plan->n_steps; s++) {
        const lc_ir_node *n = &plan->ir.nodes[plan->step_nodes[s]];
        for (int k = 0; k < n->n_in; k++)
            e->in[in_at++] = e->data[lc_ir_in(&plan->ir, n)[k]];
        for (int o = 0; o < n->n_out; o++)
            e->out[out_at++] = e->data[lc_ir_out(&plan->ir, n)[o]];
    }
    return LC_OK;
}

/* --- profile */

static lc_status start_profile(const lc_plan *plan, lc_profile *p, double **seconds)
{
    lc_profile_free(p);
    p->rows = lc_alloc_zero((size_t)plan->n_steps * sizeof *p->rows + 1);
    *seconds = lc_alloc_zero((size_t)plan->n_steps * sizeof **seconds + 1);
    return p->rows && *seconds ? LC_OK : LC_ERR_MEMORY;
}

static void finish_profile(const lc_plan *plan, lc_profile *p, const double *seconds)
{
    p->count = plan->n_steps;
    p->arena_bytes = (int64_t)plan->arena_bytes;
    p->arena_bound = (int64_t)plan->bound_bytes;
    for (int c = 0; c < plan->n_constants; c++)
        p->constant_bytes += (int64_t)lc_desc_bytes(plan->steps[plan->constants[c].node].out);
    for (int i = 0; i < plan->n_steps; i++) {
        const lc_step *s = &plan->steps[plan->step_nodes[i]];
        lc_profile_row *row = &p->rows[i];
        row->op = s->op->name;
        row->algorithm = s->algorithm;
        row->seconds = seconds[i];
        row->macs = s->op->macs ? s->op->macs(s->attr, s->n_in, s->in, s->out) : 0;
        for (int k = 0; k < s->n_in; k++)
            row->bytes += (int64_t)lc_desc_bytes(&s->in[k]);
        for (int k = 0; k < s->n_out; k++)
            row->bytes += (int64_t)lc_desc_bytes(&s->out[k]);
        if (s->n_in)
            row->in0 = s->in[0];
        row->out0 = s->out[0];
    }
}

void lc_profile_free(lc_profile *p)
{
    lc_free(p->rows);
    memset(p, 0, sizeof *p);
}

lc_status lc_graph_run(lc_graph *g, int n, const lc_value *outs, void *const *data,
                       const lc_run_options *options)
{
    lc_graph_work *work = lc_graph_workspace(g);
    lc_plan *plan = NULL;
    lc_execution *e = NULL;
    double *seconds = NULL;
    lc_status status = LC_OK;
    int threads = lc_threads_get();
    LC_TRY(lc_ir_extract(g, n, outs, work));
    LC_TRY(lc_ir_make_key(work, threads));
    LC_TRY(lc_plan_acquire(work, threads, &plan));
    LC_TRY_GOTO(lc_execution_acquire(plan, &e), done);
    LC_TRY_GOTO(find_sources(g, work), done);
    LC_TRY_GOTO(lc_provide_constants(plan, e, work->sources, options), done);
    LC_TRY_GOTO(bind_values(g, plan, work, e, data), done);
    if (options && options->profile)
        LC_TRY_GOTO(start_profile(plan, options->profile, &seconds), done);
    team_run r = {.plan = plan,
                  .nodes = plan->step_nodes,
                  .n_steps = plan->n_steps,
                  .in = e->in,
                  .out = e->out,
                  .shared_at = plan->shared_at,
                  .arena = e->arena,
                  .scratch = e->arena + plan->arena_bytes,
                  .options = options,
                  .seconds = seconds};
    LC_TRY_GOTO(run_team(&r, plan->threads), done);
    if (seconds)
        finish_profile(plan, options->profile, seconds);
done:
    lc_free(seconds);
    if (e) {
        drop_constants(plan, e);
        lc_execution_release(plan, e);
    }
    lc_plan_release(plan);
    return status;
}
