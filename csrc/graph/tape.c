#include "graph/tape.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/plan.h"

enum { READY, RUNNING, SPENT };

/* An input that backward reads. */
typedef struct kept_input {
    int number; /* in the plan */
    lc_value value;
    lc_storage *storage; /* a constant of the recording, else NULL: the caller's memory */
} kept_input;

struct lc_tape {
    atomic_int refs, state;
    lc_plan *plan;
    lc_execution *execution; /* NULL once spent */
    int n_kept_inputs;
    kept_input *kept_inputs;
    const void **inputs;   /* by number; behind those of forward come gradients of outputs */
    void **outputs;        /* by number */
    lc_source *sources;    /* of parameters, with references of the tape's own */
    lc_value *leaf_inputs; /* per leaf: the recording's number of an input */
    lc_scopes *scopes;     /* NULL once spent */
};

/* --- life */

static void give_up_kept(lc_tape *t)
{
    if (t->execution)
        lc_execution_release(t->plan, t->execution);
    t->execution = NULL;
    lc_free(t->scopes);
    t->scopes = NULL;
    for (int i = 0; i < t->n_kept_inputs; i++) {
        lc_storage_release(t->kept_inputs[i].storage);
        t->kept_inputs[i].storage = NULL;
    }
    for (int i = 0; t->sources && i < t->plan->ir.n_params; i++) {
        lc_storage_release(t->sources[i].storage);
        t->sources[i].storage = NULL;
    }
}

static void destroy(lc_tape *t)
{
    give_up_kept(t);
    for (int i = 0; t->sources && i < t->plan->ir.n_params; i++)
        lc_param_release(t->sources[i].param);
    lc_free(t->kept_inputs);
    lc_free(t->inputs);
    lc_free(t->outputs);
    lc_free(t->sources);
    lc_free(t->leaf_inputs);
    if (t->plan)
        lc_plan_release(t->plan);
    lc_free(t);
}

lc_tape *lc_tape_retain(lc_tape *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void lc_tape_release(lc_tape *t)
{
    if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
        destroy(t);
}

static lc_status create(lc_plan *plan, lc_tape **out)
{
    lc_tape *t = lc_alloc_zero(sizeof *t);
    if (!t) {
        lc_plan_release(plan);
        return LC_ERR_MEMORY;
    }
    atomic_init(&t->refs, 1);
    atomic_init(&t->state, READY);
    t->plan = plan;
    const lc_ir *ir = &plan->ir;
    t->kept_inputs = lc_alloc_zero((size_t)plan->n_given * sizeof *t->kept_inputs + 1);
    t->inputs = lc_alloc_zero((size_t)ir->n_inputs * sizeof *t->inputs + 1);
    t->outputs = lc_alloc_zero((size_t)ir->n_outs * sizeof *t->outputs + 1);
    t->sources = lc_alloc_zero((size_t)ir->n_params * sizeof *t->sources + 1);
    t->leaf_inputs = lc_alloc_zero((size_t)plan->gradients.n * sizeof *t->leaf_inputs + 1);
    if (!t->kept_inputs || !t->inputs || !t->outputs || !t->sources || !t->leaf_inputs) {
        lc_tape_release(t);
        return LC_ERR_MEMORY;
    }
    *out = t;
    return LC_OK;
}

/* After forward: notes where backward finds inputs and parameters. */
static void take_sources(lc_tape *t, const lc_graph *g, const lc_graph_work *w)
{
    const lc_plan *plan = t->plan;
    for (int i = 0; i < plan->ir.n_params; i++) {
        t->sources[i] = w->sources[i];
        lc_param_retain(t->sources[i].param);
        if (plan->param_read[i])
            lc_storage_retain(t->sources[i].storage);
        else
            t->sources[i].storage = NULL;
    }
    for (int i = 0; i < plan->n_given; i++) {
        if (!plan->input_read[i])
            continue;
        lc_storage *own = lc_graph_input_storage(g, w->inputs[i]);
        t->kept_inputs[t->n_kept_inputs++] =
            (kept_input){i, w->inputs[i], own ? lc_storage_retain(own) : NULL};
        t->inputs[i] = w->input_data[i];
    }
    for (int i = 0; i < plan->gradients.n; i++) {
        const lc_ir_leaf *leaf = &plan->gradients.leaves[i];
        t->leaf_inputs[i] = leaf->kind == LC_VALUE_INPUT ? w->inputs[leaf->index] : LC_NONE;
    }
}

static lc_status any_reached(const lc_ir *ir, bool *any)
{
    bool *needs = lc_alloc((size_t)ir->n_values + 1);
    if (!needs)
        return LC_ERR_MEMORY;
    lc_ir_find_needs(ir, needs);
    *any = false;
    for (int i = 0; i < ir->n_wanted; i++)
        *any |= needs[ir->outs[i]];
    lc_free(needs);
    return LC_OK;
}

lc_status lc_graph_run_kept(lc_graph *g, int n, const lc_value *outs, void *const *data,
                            const lc_run_options *options, lc_tape **out)
{
    lc_graph_work *work = lc_graph_workspace(g);
    lc_plan *plan;
    lc_tape *t;
    bool any;
    lc_status status = LC_OK;
    int threads = lc_threads_get();
    *out = NULL;
    LC_TRY(lc_ir_extract(g, n, outs, true, work));
    LC_TRY(any_reached(&work->ir, &any));
    if (!any)
        return lc_graph_run(g, n, outs, data, options);
    LC_TRY(lc_ir_make_key(work, threads));
    LC_TRY(lc_plan_acquire(work, threads, &plan));
    LC_TRY(create(plan, &t));
    LC_TRY_GOTO(lc_execution_acquire(plan, &t->execution), fail);
    LC_TRY_GOTO(lc_scopes_take(g, &t->scopes), fail);
    LC_TRY_GOTO(lc_run_forward(g, plan, t->execution, data, options), fail);
    take_sources(t, g, work);
    *out = t;
    return LC_OK;
fail:
    lc_tape_release(t);
    return status;
}

/* --- what it gives and keeps */

int lc_tape_leaf_count(const lc_tape *t)
{
    return t->plan->gradients.n;
}

lc_tape_leaf lc_tape_leaf_at(const lc_tape *t, int i)
{
    const lc_ir *ir = &t->plan->ir;
    const lc_ir_leaf *leaf = &t->plan->gradients.leaves[i];
    lc_tape_leaf result = {NULL, t->leaf_inputs[i], -1,
                           ir->values[ir->outs[ir->n_forward + i]].desc};
    if (leaf->kind == LC_VALUE_PARAM)
        result.param = t->sources[leaf->index].param;
    if (leaf->kind == LC_VALUE_NODE)
        result.output = leaf->index;
    return result;
}

int lc_tape_output_count(const lc_tape *t)
{
    return t->plan->ir.n_wanted;
}

const lc_desc *lc_tape_output_desc(const lc_tape *t, int i)
{
    return &t->plan->ir.values[t->plan->ir.outs[i]].desc;
}

bool lc_tape_reaches(const lc_tape *t, int out)
{
    return t->plan->gradients.reached[out];
}

int lc_tape_input_count(const lc_tape *t)
{
    return t->n_kept_inputs;
}

lc_value lc_tape_input_at(const lc_tape *t, int i, const void ***data)
{
    *data = &t->inputs[t->kept_inputs[i].number];
    return t->kept_inputs[i].value;
}

/* --- backward */

static lc_status check_stamps(const lc_tape *t)
{
    char text[LC_SHAPE_TEXT];
    for (int i = 0; i < t->plan->ir.n_params; i++) {
        lc_param *p = t->sources[i].param;
        if (t->plan->param_read[i] && lc_param_stamp(p) != t->sources[i].stamp)
            return lc_fail(LC_ERR_RUNTIME,
                           "a parameter of shape %s that backward needs was changed after forward; "
                           "call backward() before changing parameters, or run forward again",
                           lc_shape_text(lc_param_desc(p), text));
    }
    return LC_OK;
}

/* Zeros for outputs whose gradient is not given; *zeros is to be freed. */
static lc_status bind_gradients(lc_tape *t, const void *const *dy, void *const *dx, void **zeros)
{
    const lc_ir *ir = &t->plan->ir;
    size_t most = 0;
    *zeros = NULL;
    for (int i = 0; i < ir->n_wanted; i++) {
        size_t bytes = lc_desc_bytes(lc_tape_output_desc(t, i));
        if (lc_tape_reaches(t, i) && !dy[i] && bytes > most)
            most = bytes;
    }
    if (most && !(*zeros = lc_alloc_zero(most)))
        return LC_ERR_MEMORY;
    for (int i = 0; i < ir->n_wanted; i++)
        t->inputs[t->plan->n_given + i] = dy[i] ? dy[i] : *zeros;
    for (int i = 0; i < t->plan->gradients.n; i++)
        t->outputs[ir->n_forward + i] = dx[i];
    return LC_OK;
}

/* Runs on a copy of what was kept, so that it can be run once more. */
static lc_status copy_execution(const lc_tape *t, lc_execution **out)
{
    const lc_plan *plan = t->plan;
    LC_TRY(lc_execution_acquire(t->plan, out));
    for (int i = 0; i < plan->n_kept; i++) {
        lc_value v = plan->kept[i];
        memcpy((*out)->arena + plan->places[v].at, t->execution->arena + plan->places[v].at,
               lc_desc_bytes(&plan->ir.values[v].desc));
    }
    return LC_OK;
}

static lc_status run_backward(lc_tape *t, const void *const *dy, void *const *dx, bool keep,
                              const lc_run_options *options)
{
    lc_execution *e = t->execution;
    void *zeros = NULL;
    lc_status status = LC_OK;
    LC_TRY_GOTO(bind_gradients(t, dy, dx, &zeros), done);
    if (keep)
        LC_TRY_GOTO(copy_execution(t, &e), done);
    lc_run_memory memory = {t->inputs, t->sources, t->outputs};
    status = lc_run_bind(t->plan, e, &memory);
    if (status == LC_OK)
        status = lc_run_steps(t->scopes, t->plan, e, t->plan->n_first, t->plan->n_turns, options);
    if (e != t->execution)
        lc_execution_release(t->plan, e);
done:
    lc_free(zeros);
    return status;
}

lc_status lc_tape_backward(lc_tape *t, const void *const *dy, void *const *dx, bool keep,
                           const lc_run_options *options)
{
    int state = READY;
    if (!atomic_compare_exchange_strong(&t->state, &state, RUNNING))
        return lc_fail(LC_ERR_RUNTIME,
                       state == SPENT
                           ? "backward has been through this graph already, and what it had kept "
                             "is gone; pass retain_graph=True the first time to call it again"
                           : "another thread is running backward through this graph");
    lc_status status = check_stamps(t);
    if (status != LC_OK) {
        atomic_store(&t->state, READY);
        return status;
    }
    status = run_backward(t, dy, dx, keep, options);
    if (!keep)
        give_up_kept(t);
    atomic_store(&t->state, keep ? READY : SPENT);
    return status;
}

bool lc_tape_is_spent(const lc_tape *t)
{
    return atomic_load(&t->state) == SPENT;
}
