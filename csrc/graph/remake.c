/* The remake pass: cheap results that backward reads are computed again rather than kept.
 *
 * A norm with its ReLU costs two passes over memory; its result is as large as the convolution's,
 * which the norm's gradient needs anyway. So a cheap node whose inputs are all at hand in backward
 * (kept for others, inputs or parameters) is repeated there, right before the first reader. A result
 * that is made again is not kept, so what is computed from it in turn is. */
#include <string.h>

#include "base/mem.h"
#include "graph/ir.h"

#define MAX_IN 16

typedef struct state {
    bool *kept;      /* per value: backward reads it */
    lc_value *again; /* per value: its copy in backward, or LC_NONE */
    int *maker;      /* per value: the forward node to be repeated, or -1 */
} state;

static bool can_remake(const lc_ir *ir, const state *s, const lc_ir_node *n)
{
    if (n->part || !(n->op->flags & LC_OP_CHEAP) || n->n_in > MAX_IN ||
        !s->kept[lc_ir_out(ir, n)[0]])
        return false;
    for (int k = 0; k < n->n_in; k++) {
        lc_value x = lc_ir_in(ir, n)[k];
        if (ir->values[x].kind == LC_VALUE_NODE && !s->kept[x])
            return false;
    }
    return true;
}

static void choose(const lc_ir *ir, state *s)
{
    for (int v = 0; v < ir->n_values; v++) {
        s->again[v] = LC_NONE;
        s->maker[v] = -1;
    }
    for (int i = 0; i < ir->n_nodes; i++)
        for (int k = 0; k < ir->nodes[i].n_in && ir->nodes[i].part; k++)
            s->kept[lc_ir_in(ir, &ir->nodes[i])[k]] = true;
    for (int i = 0; i < ir->n_nodes; i++) {
        lc_value y = lc_ir_out(ir, &ir->nodes[i])[0];
        if (can_remake(ir, s, &ir->nodes[i])) {
            s->maker[y] = i;
            s->kept[y] = false;
        }
    }
}

/* Appends node `from` of `old` once more, in backward. */
static lc_status repeat(lc_ir *ir, const lc_ir_node *from, state *s)
{
    lc_value y = lc_ir_out(ir, from)[0], copy, in[MAX_IN];
    lc_desc d = ir->values[y].desc;
    memcpy(in, lc_ir_in(ir, from), (size_t)from->n_in * sizeof *in);
    LC_TRY(lc_ir_add_value(ir, &d, LC_VALUE_NODE, ir->n_nodes, &copy));
    LC_TRY(lc_ir_add_node(ir, from->op, from->attr, from->n_in, in, 1, &copy));
    ir->nodes[ir->n_nodes - 1].part = 1;
    ir->nodes[ir->n_nodes - 1].scope = from->scope;
    s->again[y] = copy;
    return LC_OK;
}

static lc_status rebuild(lc_ir *ir, const lc_ir_node *old, int n_nodes, state *s)
{
    ir->n_nodes = 0;
    for (int i = 0; i < n_nodes; i++) {
        const lc_ir_node *n = &old[i];
        for (int k = 0; k < n->n_in && n->part; k++) {
            lc_value x = lc_ir_in(ir, n)[k];
            if (s->maker[x] < 0)
                continue;
            if (s->again[x] == LC_NONE)
                LC_TRY(repeat(ir, &old[s->maker[x]], s));
            lc_ir_in(ir, n)[k] = s->again[x];
        }
        LC_TRY(lc_ir_add_node(ir, n->op, n->attr, 0, NULL, 0, NULL));
        ir->nodes[ir->n_nodes - 1] = *n;
    }
    return LC_OK;
}

lc_status lc_pass_remake(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    int n_nodes = ir->n_nodes;
    size_t n_values = (size_t)ir->n_values;
    lc_status status = LC_OK;
    lc_ir_node *old = lc_alloc((size_t)n_nodes * sizeof *old + 1);
    state s = {.kept = lc_alloc_zero(n_values + 1),
               .again = lc_alloc(n_values * sizeof *s.again + 1),
               .maker = lc_alloc(n_values * sizeof *s.maker + 1)};
    if (!old || !s.kept || !s.again || !s.maker) {
        status = LC_ERR_MEMORY;
        goto done;
    }
    choose(ir, &s);
    memcpy(old, ir->nodes, (size_t)n_nodes * sizeof *old);
    status = rebuild(ir, old, n_nodes, &s);
done:
    lc_free(old);
    lc_free(s.kept);
    lc_free(s.again);
    lc_free(s.maker);
    return status;
}
