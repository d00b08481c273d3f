/* Gradients: from the IR of a forward to one of forward and backward.
 *
 * The nodes are walked in reverse. Each op appends the nodes of its gradient through the builder;
 * gradients that meet at a value are summed as they come. What backward reads of forward stays
 * alive in the plan by that alone. */
#include <string.h>

#include "base/mem.h"
#include "graph/ir.h"
#include "ops/ops.h"

typedef struct walk {
    lc_ir *ir;
    int n_nodes, n_values; /* of forward */
    bool *needs;           /* per value of forward */
    lc_value *grad;        /* per value of forward: its gradient so far, or LC_NONE */
    lc_value *alias;       /* per value of forward: what backward reads in its place */
    lc_value *seeds;       /* per wanted output: its gradient as it comes in, or LC_NONE */
    int part_args;         /* longest argument list of a forward node */
    int group;             /* the one whose nodes have been appended again last */
    int32_t scope;         /* of nodes to be appended: that of the forward node at hand */
} walk;

void lc_ir_find_needs(const lc_ir *ir, bool *needs)
{
    for (int v = 0; v < ir->n_values; v++)
        needs[v] = ir->values[v].kind != LC_VALUE_NODE && ir->values[v].grad;
    for (int i = 0; i < ir->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in && !n->detached; k++)
            any |= needs[lc_ir_in(ir, n)[k]];
        for (int o = 0; o < n->n_out; o++) {
            lc_value y = lc_ir_out(ir, n)[o];
            if (ir->values[y].kind == LC_VALUE_NODE) /* in a recording it may be settled */
                needs[y] = any && ir->values[y].desc.dtype == LC_F32;
        }
    }
}

static lc_status append(void *ctx, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                        lc_value *out)
{
    walk *w = ctx;
    lc_ir *ir = w->ir;
    int n_out;
    lc_value made[LC_MAX_OUT];
    LC_TRY(lc_ir_infer(ir, op, attr, n_in, in, ir->n_nodes, &n_out, made));
    LC_TRY(lc_ir_add_node(ir, op, attr, n_in, in, n_out, made));
    ir->nodes[ir->n_nodes - 1].part = 1;
    ir->nodes[ir->n_nodes - 1].scope = w->scope;
    memcpy(out, made, (size_t)n_out * sizeof *out);
    return LC_OK;
}

static const lc_desc *desc(void *ctx, lc_value v)
{
    const walk *w = ctx;
    return &w->ir->values[v].desc;
}

/* Adds dv to the gradient of value v. */
static lc_status accumulate(walk *w, const lc_op *op, lc_value v, lc_value dv)
{
    const lc_ir_value *value = &w->ir->values[v], *gradient = &w->ir->values[dv];
    if (gradient->desc.dtype != LC_F32 || !lc_desc_same_shape(&value->desc, &gradient->desc)) {
        char want[LC_SHAPE_TEXT], got[LC_SHAPE_TEXT];
        return lc_fail(LC_ERR_RUNTIME, "%s: a gradient of shape %s for a value of shape %s",
                       op->name, lc_shape_text(&gradient->desc, got),
                       lc_shape_text(&value->desc, want));
    }
    if (w->grad[v] == LC_NONE) {
        w->grad[v] = dv;
        return LC_OK;
    }
    lc_binary_attr add;
    memset(&add, 0, sizeof add);
    add.kind = LC_BINARY_ADD;
    lc_value both[2] = {w->grad[v], dv};
    return append(w, &lc_op_binary, &add, 2, both, &w->grad[v]);
}

/* --- nodes that backward computes again rather than keep their results */

/* Is the result of node i read, or wanted, outside of its group? */
static bool leaves_group(const walk *w, const bool *outside, int i)
{
    const lc_ir_node *n = &w->ir->nodes[i];
    for (int o = 0; o < n->n_out; o++)
        if (outside[lc_ir_out(w->ir, n)[o]])
            return true;
    return false;
}

/* Appends the nodes of a group once more; from now on backward reads the copies. Results that are
 * read elsewhere and small ones (statistics) stay. What nobody reads of the copies goes later. */
static lc_status repeat_group(walk *w, int group)
{
    lc_ir *ir = w->ir;
    lc_status status = LC_OK;
    bool *outside = lc_alloc_zero((size_t)w->n_values + 1);
    if (!outside)
        return LC_ERR_MEMORY;
    for (int i = 0; i < w->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        for (int k = 0; k < n->n_in && n->group != group; k++)
            outside[lc_ir_in(ir, n)[k]] = true;
    }
    for (int i = 0; i < ir->n_forward; i++)
        outside[ir->outs[i]] = true;
    lc_value *in = lc_alloc((size_t)w->part_args * sizeof *in + 1);
    if (!in) {
        status = LC_ERR_MEMORY;
        goto done;
    }
    for (int i = 0; i < w->n_nodes; i++) {
        lc_ir_node n = ir->nodes[i];
        lc_value copy[LC_MAX_OUT];
        if (n.group != group || (n.op->flags & LC_OP_STATISTICS) || leaves_group(w, outside, i))
            continue;
        for (int k = 0; k < n.n_in; k++)
            in[k] = w->alias[lc_ir_in(ir, &n)[k]];
        w->scope = n.scope;
        LC_TRY_GOTO(append(w, n.op, n.attr, n.n_in, in, copy), done);
        for (int o = 0; o < n.n_out; o++)
            w->alias[lc_ir_out(ir, &n)[o]] = copy[o];
    }
done:
    lc_free(in);
    lc_free(outside);
    return status;
}

/* --- the walk */

/* Arguments of one node in a form that survives appending. */
typedef struct arguments {
    lc_value *in, *dx, *x;
    bool *needs;
    void *memory;
} arguments;

static lc_status arguments_alloc(arguments *a, int n)
{
    size_t each = 3 * sizeof(lc_value) + sizeof(bool);
    a->memory = lc_alloc((size_t)n * each + 1);
    if (!a->memory)
        return LC_ERR_MEMORY;
    a->in = a->memory;
    a->dx = a->in + n;
    a->x = a->dx + n;
    a->needs = (bool *)(a->x + n);
    return LC_OK;
}

static lc_status backward_of(walk *w, int i, arguments *a)
{
    lc_ir *ir = w->ir;
    lc_ir_node n = ir->nodes[i]; /* a copy: appending moves the nodes */
    lc_value y[LC_MAX_OUT], out[LC_MAX_OUT], dy[LC_MAX_OUT];
    bool any_dy = false, any_needed = false;
    for (int o = 0; o < n.n_out; o++) {
        y[o] = lc_ir_out(ir, &n)[o];
        dy[o] = w->grad[y[o]];
        any_dy |= dy[o] != LC_NONE;
    }
    for (int k = 0; k < n.n_in; k++) {
        a->x[k] = lc_ir_in(ir, &n)[k];
        a->needs[k] = w->needs[a->x[k]];
        any_needed |= a->needs[k];
    }
    if (!any_dy || !any_needed || n.detached)
        return LC_OK;
    if (!n.op->backward)
        return lc_fail(LC_ERR_RUNTIME,
                       "%s has no gradient; compute it under no_grad() or on a detached tensor",
                       n.op->name);
    if (n.group && n.group != w->group) {
        LC_TRY(repeat_group(w, n.group));
        w->group = n.group;
    }
    w->scope = n.scope;
    for (int k = 0; k < n.n_in; k++) {
        a->in[k] = w->alias[a->x[k]];
        a->dx[k] = LC_NONE;
    }
    for (int o = 0; o < n.n_out; o++)
        out[o] = w->alias[y[o]];
    lc_builder builder = {w, append, desc};
    lc_backward g = {&builder, n.attr, n.n_in, n.n_out, a->in, out, dy, a->needs, a->dx};
    lc_status status = n.op->backward(&g);
    if (status != LC_OK)
        return lc_fail_in(status, "gradient of %s", n.op->name);
    for (int k = 0; k < n.n_in; k++)
        if (a->needs[k] && a->dx[k] != LC_NONE)
            LC_TRY(accumulate(w, n.op, a->x[k], a->dx[k]));
    return LC_OK;
}

/* Inputs for the gradients of what is wanted. A value that is wanted twice has two. */
static lc_status add_seeds(walk *w, bool *reached)
{
    lc_ir *ir = w->ir;
    int first = ir->n_inputs;
    for (int i = 0; i < ir->n_wanted; i++) {
        lc_value y = ir->outs[i], dy;
        reached[i] = w->needs[y];
        w->seeds[i] = LC_NONE;
        if (!reached[i])
            continue;
        lc_desc d = ir->values[y].desc;
        LC_TRY(lc_ir_add_value(ir, &d, LC_VALUE_INPUT, first + i, &dy));
        LC_TRY(accumulate(w, &lc_op_binary, y, dy));
        w->seeds[i] = dy;
    }
    ir->n_inputs = first + ir->n_wanted;
    return LC_OK;
}

/* Gradients of leaves, and of wanted outputs that got more than what comes in: those that other
 * outputs depend on, and values that are wanted twice. */
static lc_status add_leaves(walk *w, lc_gradients *out)
{
    lc_ir *ir = w->ir;
    int n = ir->n_wanted;
    for (int v = 0; v < w->n_values; v++)
        n += ir->values[v].kind != LC_VALUE_NODE && w->grad[v] != LC_NONE;
    out->leaves = lc_alloc((size_t)n * sizeof *out->leaves + 1);
    if (!out->leaves)
        return LC_ERR_MEMORY;
    for (int v = 0; v < w->n_values; v++)
        if (ir->values[v].kind != LC_VALUE_NODE && w->grad[v] != LC_NONE) {
            out->leaves[out->n++] = (lc_ir_leaf){ir->values[v].kind, ir->values[v].index};
            LC_TRY(lc_ir_add_out(ir, w->grad[v]));
        }
    for (int i = 0; i < ir->n_wanted; i++) {
        lc_value total = w->seeds[i] == LC_NONE ? LC_NONE : w->grad[ir->outs[i]];
        if (total == w->seeds[i])
            continue;
        out->leaves[out->n++] = (lc_ir_leaf){LC_VALUE_NODE, i};
        LC_TRY(lc_ir_add_out(ir, total));
    }
    return LC_OK;
}

/* Removes backward nodes that nobody reads. */
static lc_status drop_unread(lc_ir *ir)
{
    bool *read = lc_alloc_zero((size_t)ir->n_values + 1);
    if (!read)
        return LC_ERR_MEMORY;
    for (int i = 0; i < ir->n_outs; i++)
        read[ir->outs[i]] = true;
    for (int i = ir->n_nodes - 1; i >= 0; i--) {
        lc_ir_node *n = &ir->nodes[i];
        bool used = n->part == 0;
        for (int o = 0; o < n->n_out && !used; o++)
            used = read[lc_ir_out(ir, n)[o]];
        if (!used)
            n->op = NULL;
        for (int k = 0; k < n->n_in && used; k++)
            read[lc_ir_in(ir, n)[k]] = true;
    }
    lc_free(read);
    lc_ir_compact(ir);
    return LC_OK;
}

lc_status lc_ir_differentiate(lc_ir *ir, lc_gradients *out)
{
    walk w = {.ir = ir, .n_nodes = ir->n_nodes, .n_values = ir->n_values, .scope = -1};
    arguments a = {0};
    lc_status status = LC_OK;
    size_t n = (size_t)ir->n_values;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < ir->n_nodes; i++)
        if (ir->nodes[i].n_in > w.part_args)
            w.part_args = ir->nodes[i].n_in;
    w.needs = lc_alloc(n * sizeof *w.needs + 1);
    w.grad = lc_alloc((2 * n + (size_t)ir->n_wanted) * sizeof *w.grad + 1);
    out->reached = lc_alloc_zero((size_t)ir->n_wanted + 1);
    if (!w.needs || !w.grad || !out->reached || arguments_alloc(&a, w.part_args) != LC_OK) {
        status = LC_ERR_MEMORY;
        goto done;
    }
    w.alias = w.grad + n;
    w.seeds = w.alias + n;
    for (int v = 0; v < w.n_values; v++) {
        w.grad[v] = LC_NONE;
        w.alias[v] = v;
    }
    lc_ir_find_needs(ir, w.needs);
    LC_TRY_GOTO(add_seeds(&w, out->reached), done);
    for (int i = w.n_nodes - 1; i >= 0; i--)
        LC_TRY_GOTO(backward_of(&w, i, &a), done);
    LC_TRY_GOTO(add_leaves(&w, out), done);
    LC_TRY_GOTO(drop_unread(ir), done);
done:
    lc_free(w.needs);
    lc_free(w.grad);
    lc_free(a.memory);
    if (status != LC_OK)
        lc_gradients_free(out);
    return status;
}

void lc_gradients_free(lc_gradients *g)
{
    lc_free(g->leaves);
    lc_free(g->reached);
    memset(g, 0, sizeof *g);
}
