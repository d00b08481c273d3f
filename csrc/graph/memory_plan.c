/* Memory planning: one arena for all intermediate values.
 *
 * A value lives from the step that writes it to the last one that reads it or a view of it; where
 * parts of the batch take turns (parts.c), from before the first turn or until after the last one,
 * unless it is of no use outside: then it needs room for one part only.
 * Placement is greedy by size (Pisarchyk and Lee 2020, "Efficient memory management for deep neural
 * net inference"): the largest values first, each at the lowest offset that is free during its
 * life. While the arena is larger than what is alive at once, the block that sticks out is placed
 * first, and all again. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/plan.h"

typedef struct block {
    int value;       /* or -1 - step for a step's shared scratch */
    int first, last; /* steps, both included */
    size_t bytes, at;
    size_t tried; /* at in the placement under way */
} block;

/* Tries to come closer to the bound; each takes about 0.1 ms for 250 blocks. */
#define TRIES 16

static size_t round_up(size_t bytes)
{
    return (bytes + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
}

/* The value whose memory v shares in the end. */
static int root(const lc_plan *plan, int v)
{
    while (plan->places[v].kind == LC_PLACE_VIEW)
        v = (int)plan->places[v].at;
    return v;
}

static int by_size(const void *pa, const void *pb)
{
    const block *a = pa, *b = pb;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return a->first - b->first;
}

/* The lowest offset where b fits among `placed` (sorted by offset). */
static size_t lowest_offset(const block *b, block *const *placed, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const block *p = placed[i];
        if (p->last < b->first || p->first > b->last || p->tried + p->bytes <= at)
            continue;
        if (at + b->bytes <= p->tried)
            return at;
        at = p->tried + p->bytes;
    }
    return at;
}

/* Places the blocks one after the other; returns the bytes of the arena. */
static size_t place_in_order(block *const *order, int n, block **placed)
{
    size_t arena = 0;
    for (int i = 0; i < n; i++) {
        block *b = order[i];
        b->tried = lowest_offset(b, placed, i);
        int slot = i;
        for (; slot > 0 && placed[slot - 1]->tried > b->tried; slot--)
            placed[slot] = placed[slot - 1];
        placed[slot] = b;
        if (b->tried + b->bytes > arena)
            arena = b->tried + b->bytes;
    }
    return arena;
}

static lc_status place_blocks(block *blocks, int n, size_t bound, size_t *arena_bytes)
{
    if (n == 0) {
        *arena_bytes = 0;
        return LC_OK;
    }
    block **placed = lc_alloc(2 * (size_t)n * sizeof *placed), **order = placed + n;
    if (!placed)
        return LC_ERR_MEMORY;
    qsort(blocks, (size_t)n, sizeof *blocks, by_size);
    for (int i = 0; i < n; i++)
        order[i] = &blocks[i];
    *arena_bytes = SIZE_MAX;
    for (int t = 0; t < TRIES && *arena_bytes > bound; t++) {
        const size_t arena = place_in_order(order, n, placed);
        if (arena < *arena_bytes) {
            *arena_bytes = arena;
            for (int i = 0; i < n; i++)
                blocks[i].at = blocks[i].tried;
        }
        int top = 0;
        while (top < n - 1 && order[top]->tried + order[top]->bytes < arena)
            top++;
        block *b = order[top];
        for (; top > 0; top--)
            order[top] = order[top - 1];
        order[0] = b;
    }
    lc_free(placed);
    return LC_OK;
}

static size_t largest_alive(const block *blocks, int n, int n_steps, size_t *per_step)
{
    memset(per_step, 0, (size_t)n_steps * sizeof *per_step);
    size_t most = 0;
    for (int i = 0; i < n; i++)
        for (int s = blocks[i].first; s <= blocks[i].last; s++)
            per_step[s] += blocks[i].bytes;
    for (int s = 0; s < n_steps; s++)
        most = per_step[s] > most ? per_step[s] : most;
    return most;
}

/* May node `n` write output 0 over input 0, whose memory dies at this step? */
static bool in_place(const lc_plan *plan, const lc_ir_node *n, const int *last, int step)
{
    const lc_ir *ir = &plan->ir;
    if (!(n->op->flags & LC_OP_INPLACE))
        return false;
    int x = lc_ir_in(ir, n)[0], y = lc_ir_out(ir, n)[0], r = root(plan, x);
    const bool parts = plan->parts[plan->step_nodes[step]] > 1;
    return plan->places[r].kind == LC_PLACE_ARENA && plan->places[y].kind == LC_PLACE_ARENA &&
           plan->places[r].one_part == parts && plan->places[y].one_part == parts &&
           last[r] == step &&
           memcmp(&ir->values[x].desc, &ir->values[y].desc, sizeof(lc_desc)) == 0;
}

/* The values of which no more than one part is alive: touched in one section alone, and there as
 * parts. from: room for a number per value. */
static void find_one_part(lc_plan *plan, int *from)
{
    const lc_ir *ir = &plan->ir;
    for (int v = 0; v < ir->n_values; v++) {
        plan->places[v].one_part = plan->places[v].kind == LC_PLACE_ARENA;
        from[v] = -1;
    }
    for (int s = 0, first, last; s < plan->n_steps; s++) {
        const lc_step *step = &plan->steps[plan->step_nodes[s]];
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[s]];
        lc_plan_section(plan, s, &first, &last);
        for (int k = 0; k < n->n_in + n->n_out; k++) {
            const bool in = k < n->n_in;
            const lc_value v = in ? lc_ir_in(ir, n)[k] : lc_ir_out(ir, n)[k - n->n_in];
            const lc_desc *d = in ? &step->in[k] : &step->out[k - n->n_in];
            const int r = root(plan, v);
            if (from[r] < 0)
                from[r] = first;
            if (from[r] != first || d->dim[0] == ir->values[v].desc.dim[0])
                plan->places[r].one_part = false;
        }
    }
}

static size_t value_bytes(const lc_plan *plan, int v, int step)
{
    lc_desc d = plan->ir.values[v].desc;
    if (plan->places[v].one_part)
        d.dim[0] = lc_plan_part_images(plan, plan->step_nodes[step], 0);
    return lc_desc_bytes(&d);
}

lc_status lc_plan_memory(lc_plan *plan)
{
    const lc_ir *ir = &plan->ir;
    int n_values = ir->n_values, n_steps = plan->n_steps, n_blocks = 0;
    lc_status status = LC_OK;
    int *last = lc_alloc((size_t)n_values * sizeof *last + 1);
    int *first = lc_alloc((size_t)n_values * sizeof *first + 1);
    block *blocks = lc_alloc((size_t)(n_values + n_steps) * sizeof *blocks + 1);
    size_t *per_step = lc_alloc((size_t)n_steps * sizeof *per_step + 1);
    if (!last || !first || !blocks || !per_step) {
        status = LC_ERR_MEMORY;
        goto done;
    }

    /* Kinds of places, views not yet merged. */
    for (int v = 0; v < n_values; v++) {
        const lc_ir_value *value = &ir->values[v];
        lc_place_kind kind = value->kind == LC_VALUE_INPUT   ? LC_PLACE_INPUT
                             : value->kind == LC_VALUE_PARAM ? LC_PLACE_PARAM
                                                             : LC_PLACE_NONE;
        if (plan->places[v].kind != LC_PLACE_CONST)
            plan->places[v] = (lc_place){.kind = kind, .at = value->index};
        last[v] = first[v] = -1;
    }
    for (int s = 0; s < n_steps; s++) {
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[s]];
        for (int o = 0; o < n->n_out; o++)
            plan->places[lc_ir_out(ir, n)[o]].kind = LC_PLACE_ARENA;
    }
    for (int i = 0; i < ir->n_outs; i++)
        plan->places[ir->outs[i]] = (lc_place){.kind = LC_PLACE_OUTPUT, .at = i};

    /* Views share the memory of what they look at; their steps vanish. */
    int kept = 0;
    for (int s = 0; s < n_steps; s++) {
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[s]];
        lc_value x = n->n_in ? lc_ir_in(ir, n)[0] : LC_NONE, y = lc_ir_out(ir, n)[0];
        lc_desc in, out;
        if (x != LC_NONE && n->n_in == 1 && n->op->is_view &&
            plan->places[y].kind == LC_PLACE_ARENA) {
            in = ir->values[x].desc;
            out = ir->values[y].desc;
            if (n->op->is_view(n->attr, 1, &in, &out)) {
                plan->places[y] = (lc_place){.kind = LC_PLACE_VIEW, .at = x};
                continue;
            }
        }
        plan->step_nodes[kept++] = plan->step_nodes[s];
    }
    plan->n_steps = n_steps = kept;

    /* Lives, by root. */
    find_one_part(plan, first);
    for (int v = 0; v < n_values; v++)
        first[v] = -1;
    for (int s = 0, from, upto; s < n_steps; s++) {
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[s]];
        lc_plan_section(plan, s, &from, &upto);
        for (int k = 0; k < n->n_in; k++) {
            const int r = root(plan, lc_ir_in(ir, n)[k]);
            last[r] = plan->places[r].one_part ? s : upto;
        }
        for (int o = 0; o < n->n_out; o++) {
            const int v = lc_ir_out(ir, n)[o];
            const bool one = plan->places[v].one_part;
            first[v] = one ? s : from;
            if (last[v] < (one ? s : upto))
                last[v] = one ? s : upto;
        }
    }
    for (int v = 0; v < n_values; v++) /* read by packing alone: no run looks at it */
        if (plan->places[v].kind == LC_PLACE_PARAM && last[v] < 0)
            plan->places[v].kind = LC_PLACE_NONE;
    for (int s = 0; s < n_steps; s++) {
        const lc_ir_node *n = &ir->nodes[plan->step_nodes[s]];
        if (!in_place(plan, n, last, s))
            continue;
        int y = lc_ir_out(ir, n)[0], r = root(plan, lc_ir_in(ir, n)[0]);
        plan->places[y] = (lc_place){.kind = LC_PLACE_VIEW, .at = r};
        last[r] = last[y];
    }

    for (int v = 0; v < n_values; v++)
        if (plan->places[v].kind == LC_PLACE_ARENA)
            blocks[n_blocks++] =
                (block){v, first[v], last[v], round_up(value_bytes(plan, v, first[v])), 0, 0};
    for (int s = 0; s < n_steps; s++) {
        const lc_step *step = &plan->steps[plan->step_nodes[s]];
        const size_t a = step->shared_bytes, b = step[ir->n_nodes].shared_bytes;
        if (a || b)
            blocks[n_blocks++] = (block){-1 - s, s, s, round_up(a > b ? a : b), 0, 0};
    }
    plan->bound_bytes = largest_alive(blocks, n_blocks, n_steps, per_step);
    LC_TRY_GOTO(place_blocks(blocks, n_blocks, plan->bound_bytes, &plan->arena_bytes), done);
    for (int i = 0; i < n_blocks; i++) {
        if (blocks[i].value >= 0)
            plan->places[blocks[i].value].at = (int64_t)blocks[i].at;
        else
            plan->shared_at[-1 - blocks[i].value] = (int64_t)blocks[i].at;
    }
    for (int v = 0; v < n_values; v++)
        if (plan->places[v].kind == LC_PLACE_VIEW)
            plan->places[v] = plan->places[root(plan, v)];
done:
    lc_free(last);
    lc_free(first);
    lc_free(blocks);
    lc_free(per_step);
    return status;
}
