/* From an IR to a plan. */
#include "graph/plan.h"

#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"

/* Below this many seconds (a rough estimate) a team costs more than it gives: opening a region and
 * a barrier per step. */
#define REGION_SECONDS 20e-6
#define BARRIER_SECONDS 2e-6

static double node_seconds(const lc_ir *ir, const lc_ir_node *n)
{
    double seconds = 0;
    lc_desc in[8], out[LC_MAX_OUT];
    for (int k = 0; k < n->n_in; k++) {
        const lc_desc *d = &ir->values[lc_ir_in(ir, n)[k]].desc;
        if (k < 8)
            in[k] = *d;
        seconds += (double)lc_desc_bytes(d) / 10e9;
    }
    for (int k = 0; k < n->n_out; k++)
        out[k] = ir->values[lc_ir_out(ir, n)[k]].desc;
    if (n->op->macs && n->n_in <= 8)
        seconds += (double)n->op->macs(n->attr, n->n_in, in, out) / 50e9;
    return seconds;
}

static double estimate_seconds(const lc_ir *ir)
{
    double seconds = 0;
    for (int i = 0; i < ir->n_nodes; i++)
        seconds += node_seconds(ir, &ir->nodes[i]);
    return seconds;
}

/* Pieces of a share: one for the short steps that nearly all are, as tiles that follow each other
 * share data in cache. */
#define PIECE_SECONDS 2e-3
#define MAX_PIECES 64

static unsigned char pieces_for(double seconds)
{
    double pieces = seconds / PIECE_SECONDS;
    return (unsigned char)(pieces < 1 ? 1 : pieces > MAX_PIECES ? MAX_PIECES : pieces);
}

/* The step of node i with that part of the batch; descs go to *d. */
static lc_status prepare_step(lc_plan *plan, lc_step *s, int i, int64_t part,
                              const lc_kernels *kernels, lc_desc **d)
{
    const lc_ir *ir = &plan->ir;
    const lc_ir_node *n = &ir->nodes[i];
    s->op = n->op;
    s->attr = n->attr;
    s->n_in = n->n_in;
    s->n_out = n->n_out;
    s->in = *d;
    for (int k = 0; k < n->n_in; k++)
        *(*d)++ = lc_plan_part_desc(plan, i, lc_ir_in(ir, n)[k], part);
    s->out = *d;
    for (int k = 0; k < n->n_out; k++)
        *(*d)++ = lc_plan_part_desc(plan, i, lc_ir_out(ir, n)[k], part);
    s->threads = plan->threads;
    s->kernels = kernels;
    s->phases = 1;
    for (int p = 0; p < LC_MAX_PHASES; p++)
        s->items[p] = 1;
    s->algorithm = n->op->name;
    plan->pieces[s - plan->steps] = pieces_for(node_seconds(ir, n) / (double)plan->parts[i]);
    if (n->op->prepare)
        LC_TRY(n->op->prepare(s));
    if (s->thread_bytes > plan->thread_bytes)
        plan->thread_bytes = (s->thread_bytes + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    return LC_OK;
}

static lc_status prepare_steps(lc_plan *plan, const lc_kernels *kernels)
{
    lc_ir *ir = &plan->ir;
    size_t total = 0;
    const size_t n_steps = 2 * (size_t)ir->n_nodes;
    for (int i = 0; i < ir->n_nodes; i++)
        total += 2 * (size_t)(ir->nodes[i].n_in + ir->nodes[i].n_out);
    plan->steps = lc_alloc_zero(n_steps * sizeof *plan->steps + 1);
    plan->descs = lc_alloc(total * sizeof *plan->descs + 1);
    plan->pieces = lc_alloc(n_steps + 1);
    if (!plan->steps || !plan->descs || !plan->pieces)
        return LC_ERR_MEMORY;
    lc_desc *d = plan->descs;
    for (int i = 0; i < ir->n_nodes; i++) {
        const int64_t last = plan->parts[i] - 1;
        LC_TRY(prepare_step(plan, &plan->steps[i], i, 0, kernels, &d));
        if (lc_plan_part_images(plan, i, last) < lc_plan_part_images(plan, i, 0))
            LC_TRY(prepare_step(plan, &plan->steps[ir->n_nodes + i], i, last, kernels, &d));
    }
    return LC_OK;
}

bool lc_ir_is_constant(const lc_ir *ir, const lc_ir_node *n)
{
    if (n->n_out != 1 || ir->values[lc_ir_out(ir, n)[0]].desc.dtype != LC_BLOB)
        return false;
    for (int k = 0; k < n->n_in; k++)
        if (ir->values[lc_ir_in(ir, n)[k]].kind != LC_VALUE_PARAM)
            return false;
    return n->n_in > 0;
}

/* Splits the nodes into constants and run steps; parameters that are being trained change before
 * the next run, so there everything is run. */
static lc_status split_constants(lc_plan *plan)
{
    const lc_ir *ir = &plan->ir;
    size_t n_nodes = (size_t)ir->n_nodes;
    plan->step_nodes = lc_alloc(n_nodes * sizeof *plan->step_nodes + 1);
    plan->shared_at = lc_alloc_zero(n_nodes * sizeof *plan->shared_at + 1);
    plan->constants = lc_alloc(n_nodes * sizeof *plan->constants + 1);
    plan->constant_params = lc_alloc((size_t)ir->n_args * sizeof *plan->constant_params + 1);
    plan->places = lc_alloc_zero((size_t)ir->n_values * sizeof *plan->places + 1);
    if (!plan->step_nodes || !plan->shared_at || !plan->constants || !plan->constant_params ||
        !plan->places)
        return LC_ERR_MEMORY;
    int *params = plan->constant_params;
    for (int i = 0; i < ir->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        if (plan->gradients.reached || !lc_ir_is_constant(ir, n)) {
            plan->step_nodes[plan->n_steps++] = i;
            continue;
        }
        plan->places[lc_ir_out(ir, n)[0]] =
            (lc_place){.kind = LC_PLACE_CONST, .at = plan->n_constants};
        plan->constants[plan->n_constants++] = (lc_constant){i, n->n_in, params};
        for (int k = 0; k < n->n_in; k++)
            *params++ = ir->values[lc_ir_in(ir, n)[k]].index;
    }
    return LC_OK;
}

static bool wants_gradients(const lc_ir *ir)
{
    for (int v = 0; v < ir->n_values; v++)
        if (ir->values[v].grad)
            return true;
    return false;
}

/* Where backward begins, and what it reads of forward. Views count as reads, whoever makes them. */
static lc_status split_parts(lc_plan *plan)
{
    const lc_ir *ir = &plan->ir;
    size_t n_leaves = (size_t)(ir->n_params + plan->n_given);
    plan->kept = lc_alloc((size_t)ir->n_values * sizeof *plan->kept + 1);
    plan->param_read = lc_alloc_zero(n_leaves + 1);
    bool *forward = lc_alloc_zero((size_t)ir->n_values + 1); /* made by forward, not counted yet */
    if (!plan->kept || !plan->param_read || !forward) {
        lc_free(forward);
        return LC_ERR_MEMORY;
    }
    plan->input_read = plan->param_read + ir->n_params;
    for (int i = 0; i < ir->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        for (int o = 0; o < n->n_out; o++)
            forward[lc_ir_out(ir, n)[o]] = n->part == 0;
        for (int k = 0; k < n->n_in && n->part == 1; k++) {
            lc_value v = lc_ir_in(ir, n)[k];
            lc_place place = plan->places[v];
            if (place.kind == LC_PLACE_PARAM)
                plan->param_read[place.at] = true;
            else if (place.kind == LC_PLACE_INPUT && place.at < plan->n_given)
                plan->input_read[place.at] = true;
            else if (place.kind == LC_PLACE_ARENA && forward[v])
                plan->kept[plan->n_kept++] = v;
            forward[v] = false;
        }
    }
    lc_free(forward);
    for (int t = 0; t < plan->n_turns; t++) {
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[plan->turns[t].row]];
        if (n->part == 0) {
            plan->n_first = t + 1;
            plan->first_in += n->n_in;
            plan->first_out += n->n_out;
        }
    }
    return LC_OK;
}

lc_status lc_plan_create(const lc_ir *ir, int threads, lc_plan **out)
{
    lc_plan *plan = lc_alloc_zero(sizeof *plan);
    if (!plan)
        return LC_ERR_MEMORY;
    lc_status status = LC_OK;
    const lc_kernels *kernels = lc_kernels_get();
    LC_TRY_GOTO(lc_ir_copy(ir, &plan->ir), fail);
    for (int i = 0; i < plan->ir.n_nodes; i++)
        plan->ir.nodes[i].scope = i;
    plan->n_given = ir->n_inputs;
    if (wants_gradients(ir))
        LC_TRY_GOTO(lc_ir_differentiate(&plan->ir, &plan->gradients), fail);
    for (const lc_pass *pass = lc_passes; pass->name; pass++)
        LC_TRY_GOTO(pass->run(&plan->ir, kernels), fail);
    plan->threads = threads;
    if (estimate_seconds(&plan->ir) < REGION_SECONDS + BARRIER_SECONDS * plan->ir.n_nodes)
        plan->threads = 1;
    LC_TRY_GOTO(lc_plan_find_parts(plan), fail);
    LC_TRY_GOTO(prepare_steps(plan, kernels), fail);
    LC_TRY_GOTO(split_constants(plan), fail);
    LC_TRY_GOTO(lc_plan_memory(plan), fail);
    LC_TRY_GOTO(lc_plan_make_turns(plan), fail);
    LC_TRY_GOTO(split_parts(plan), fail);
    *out = plan;
    return LC_OK;
fail:
    lc_plan_destroy(plan);
    return status;
}

void lc_plan_destroy(lc_plan *plan)
{
    if (!plan)
        return;
    while (plan->idle) {
        lc_execution *e = plan->idle;
        plan->idle = e->next;
        lc_execution_destroy(e);
    }
    for (int i = 0; plan->steps && i < 2 * plan->ir.n_nodes; i++)
        lc_free(plan->steps[i].prep);
    lc_free(plan->steps);
    lc_free(plan->descs);
    lc_free(plan->pieces);
    lc_free(plan->step_nodes);
    lc_free(plan->shared_at);
    lc_free(plan->parts);
    lc_free(plan->sections);
    lc_free(plan->turns);
    lc_free(plan->constants);
    lc_free(plan->constant_params);
    lc_free(plan->places);
    lc_free(plan->kept);
    lc_free(plan->param_read);
    lc_gradients_free(&plan->gradients);
    lc_free(plan->key);
    lc_ir_free(&plan->ir);
    lc_free(plan);
}
