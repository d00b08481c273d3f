#include "graph/ir.h"

#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"

lc_status lc_ir_reserve(void **array, size_t size, int count, int *cap)
{
    if (count <= *cap)
        return LC_OK;
    int target = *cap < 32 ? 64 : *cap;
    while (target < count) {
        if (target > INT32_MAX / 2)
            return lc_fail(LC_ERR_MEMORY, "a graph of more than %d elements", INT32_MAX / 2);
        target *= 2;
    }
    void *grown = lc_realloc(*array, (size_t)*cap * size, (size_t)target * size);
    if (!grown)
        return LC_ERR_MEMORY;
    *array = grown;
    *cap = target;
    return LC_OK;
}

void lc_ir_free(lc_ir *ir)
{
    lc_free(ir->values);
    lc_free(ir->nodes);
    lc_free(ir->args);
    lc_free(ir->outs);
    memset(ir, 0, sizeof *ir);
}

lc_status lc_ir_add_value(lc_ir *ir, const lc_desc *desc, lc_value_kind kind, int index,
                          lc_value *out)
{
    LC_TRY(
        lc_ir_reserve((void **)&ir->values, sizeof *ir->values, ir->n_values + 1, &ir->cap_values));
    ir->values[ir->n_values] = (lc_ir_value){*desc, kind, index, false};
    *out = ir->n_values++;
    return LC_OK;
}

static lc_status push_args(lc_ir *ir, int n, const lc_value *v, int32_t *at)
{
    LC_TRY(lc_ir_reserve((void **)&ir->args, sizeof *ir->args, ir->n_args + n, &ir->cap_args));
    *at = ir->n_args;
    if (n)
        memcpy(ir->args + ir->n_args, v, (size_t)n * sizeof *v);
    ir->n_args += n;
    return LC_OK;
}

lc_status lc_ir_add_node(lc_ir *ir, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                         int n_out, const lc_value *out)
{
    LC_TRY(lc_ir_reserve((void **)&ir->nodes, sizeof *ir->nodes, ir->n_nodes + 1, &ir->cap_nodes));
    lc_ir_node *n = &ir->nodes[ir->n_nodes];
    n->op = op;
    n->n_in = n_in;
    n->n_out = n_out;
    n->scope = -1;
    n->part = n->group = 0;
    n->detached = false;
    LC_TRY(push_args(ir, n_in, in, &n->in));
    LC_TRY(push_args(ir, n_out, out, &n->out));
    if (op->attr_size)
        memcpy(n->attr, attr, op->attr_size);
    ir->n_nodes++;
    return LC_OK;
}

lc_status lc_ir_set_inputs(lc_ir *ir, int node, int n_in, const lc_value *in)
{
    int32_t at;
    LC_TRY(push_args(ir, n_in, in, &at));
    ir->nodes[node].in = at;
    ir->nodes[node].n_in = n_in;
    return LC_OK;
}

lc_status lc_ir_set_outputs(lc_ir *ir, int node, int n_out, const lc_value *out)
{
    int32_t at;
    LC_TRY(push_args(ir, n_out, out, &at));
    ir->nodes[node].out = at;
    ir->nodes[node].n_out = n_out;
    return LC_OK;
}

#define INFER_ON_STACK 16

lc_status lc_ir_infer(lc_ir *ir, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                      int index, int *n_out, lc_value out[LC_MAX_OUT])
{
    lc_desc local[INFER_ON_STACK] = {{0}}, *descs = local, results[LC_MAX_OUT];
    if (n_in > INFER_ON_STACK && !(descs = lc_alloc((size_t)n_in * sizeof *descs)))
        return LC_ERR_MEMORY;
    for (int i = 0; i < n_in; i++)
        descs[i] = ir->values[in[i]].desc;
    memset(results, 0, sizeof results);
    *n_out = 1;
    lc_status status = op->infer(attr, n_in, descs, n_out, results);
    if (descs != local)
        lc_free(descs);
    LC_TRY(status);
    for (int i = 0; i < *n_out; i++)
        LC_TRY(lc_ir_add_value(ir, &results[i], LC_VALUE_NODE, index, &out[i]));
    return LC_OK;
}

void lc_ir_compact(lc_ir *ir)
{
    int kept = 0;
    for (int i = 0; i < ir->n_nodes; i++)
        if (ir->nodes[i].op) {
            if (kept != i)
                ir->nodes[kept] = ir->nodes[i];
            kept++;
        }
    ir->n_nodes = kept;
}

lc_status lc_ir_sort_parts(lc_ir *ir)
{
    int kept = 0, n_later = 0;
    lc_ir_node *later = lc_alloc((size_t)ir->n_nodes * sizeof *later + 1);
    if (!later)
        return LC_ERR_MEMORY;
    for (int i = 0; i < ir->n_nodes; i++) {
        if (ir->nodes[i].part)
            later[n_later++] = ir->nodes[i];
        else
            ir->nodes[kept++] = ir->nodes[i];
    }
    memcpy(ir->nodes + kept, later, (size_t)n_later * sizeof *later);
    lc_free(later);
    return LC_OK;
}

lc_status lc_ir_add_out(lc_ir *ir, lc_value v)
{
    LC_TRY(lc_ir_reserve((void **)&ir->outs, sizeof *ir->outs, ir->n_outs + 1, &ir->cap_outs));
    ir->outs[ir->n_outs++] = v;
    return LC_OK;
}

lc_status lc_ir_copy(const lc_ir *from, lc_ir *to)
{
    memset(to, 0, sizeof *to);
    lc_status status = LC_OK;
    LC_TRY_GOTO(
        lc_ir_reserve((void **)&to->values, sizeof *to->values, from->n_values, &to->cap_values),
        fail);
    LC_TRY_GOTO(
        lc_ir_reserve((void **)&to->nodes, sizeof *to->nodes, from->n_nodes, &to->cap_nodes), fail);
    LC_TRY_GOTO(lc_ir_reserve((void **)&to->args, sizeof *to->args, from->n_args, &to->cap_args),
                fail);
    LC_TRY_GOTO(lc_ir_reserve((void **)&to->outs, sizeof *to->outs, from->n_outs, &to->cap_outs),
                fail);
    if (from->n_values)
        memcpy(to->values, from->values, (size_t)from->n_values * sizeof *to->values);
    if (from->n_nodes)
        memcpy(to->nodes, from->nodes, (size_t)from->n_nodes * sizeof *to->nodes);
    if (from->n_args)
        memcpy(to->args, from->args, (size_t)from->n_args * sizeof *to->args);
    if (from->n_outs)
        memcpy(to->outs, from->outs, (size_t)from->n_outs * sizeof *to->outs);
    to->n_values = from->n_values;
    to->n_nodes = from->n_nodes;
    to->n_args = from->n_args;
    to->n_outs = from->n_outs;
    to->n_wanted = from->n_wanted;
    to->n_forward = from->n_forward;
    to->n_inputs = from->n_inputs;
    to->n_params = from->n_params;
    return LC_OK;
fail:
    lc_ir_free(to);
    return status;
}

/* map[v] during extraction: not needed, needed, or the value's new number. */
enum { UNSEEN = -1, NEEDED = -2 };

/* Marks what is needed, walking the nodes backwards (their order is topological). */
static void mark(const lc_graph *g, int n, const lc_value *outs, lc_value *map)
{
    const lc_ir *rec = lc_graph_ir(g);
    int n_effects;
    const lc_effect *effects = lc_graph_effects(g, &n_effects);
    for (int v = 0; v < rec->n_values; v++)
        map[v] = UNSEEN;
    for (int i = 0; i < n; i++)
        map[outs[i]] = NEEDED;
    for (int i = 0; i < n_effects; i++)
        if (!effects[i].done)
            map[effects[i].value] = NEEDED;
    for (int i = rec->n_nodes - 1; i >= 0; i--) {
        const lc_ir_node *node = &rec->nodes[i];
        bool needed = false;
        for (int o = 0; o < node->n_out; o++) {
            lc_value v = lc_ir_out(rec, node)[o];
            needed |= map[v] == NEEDED && rec->values[v].kind == LC_VALUE_NODE; /* not settled */
        }
        for (int k = 0; needed && k < node->n_in; k++)
            map[lc_ir_in(rec, node)[k]] = NEEDED;
    }
}

static lc_status extract_leaf(const lc_ir *rec, lc_value v, bool kept, lc_graph_work *w)
{
    const lc_ir_value *value = &rec->values[v];
    lc_ir *ir = &w->ir;
    if (value->kind == LC_VALUE_INPUT) {
        LC_TRY(lc_ir_reserve((void **)&w->inputs, sizeof *w->inputs, ir->n_inputs + 1,
                             &w->cap_inputs));
        w->inputs[ir->n_inputs] = v;
        LC_TRY(lc_ir_add_value(ir, &value->desc, LC_VALUE_INPUT, ir->n_inputs++, &w->map[v]));
    } else {
        LC_TRY(lc_ir_reserve((void **)&w->params, sizeof *w->params, ir->n_params + 1,
                             &w->cap_params));
        w->params[ir->n_params] = v;
        LC_TRY(lc_ir_add_value(ir, &value->desc, LC_VALUE_PARAM, ir->n_params++, &w->map[v]));
    }
    ir->values[w->map[v]].grad = kept && value->grad;
    return LC_OK;
}

static lc_status extract_node(const lc_ir *rec, const lc_ir_node *node, bool kept, lc_graph_work *w)
{
    lc_ir *ir = &w->ir;
    for (int k = 0; k < node->n_in; k++)
        if (w->map[lc_ir_in(rec, node)[k]] == NEEDED)
            LC_TRY(extract_leaf(rec, lc_ir_in(rec, node)[k], kept, w));
    int32_t in, out;
    LC_TRY(push_args(ir, node->n_in, lc_ir_in(rec, node), &in));
    for (int k = 0; k < node->n_in; k++)
        ir->args[in + k] = w->map[ir->args[in + k]];
    LC_TRY(push_args(ir, node->n_out, lc_ir_out(rec, node), &out));
    for (int o = 0; o < node->n_out; o++) {
        lc_value v = lc_ir_out(rec, node)[o], fresh;
        LC_TRY(lc_ir_add_value(ir, &rec->values[v].desc, LC_VALUE_NODE, ir->n_nodes, &fresh));
        if (rec->values[v].kind == LC_VALUE_NODE)
            w->map[v] = fresh; /* a settled output is computed again, but nobody reads it */
        ir->args[out + o] = fresh;
    }
    LC_TRY(lc_ir_reserve((void **)&ir->nodes, sizeof *ir->nodes, ir->n_nodes + 1, &ir->cap_nodes));
    lc_ir_node *copy = &ir->nodes[ir->n_nodes++];
    copy->op = node->op;
    copy->n_in = node->n_in;
    copy->n_out = node->n_out;
    copy->in = in;
    copy->out = out;
    copy->scope = node->scope;
    copy->part = 0;
    copy->group = kept ? node->group : 0;
    copy->detached = kept && node->detached;
    memcpy(copy->attr, node->attr, node->op->attr_size);
    return LC_OK;
}

static lc_status extract_out(const lc_ir *rec, lc_value v, bool kept, lc_graph_work *w)
{
    if (w->map[v] == NEEDED) /* an input or a parameter that is wanted itself */
        LC_TRY(extract_leaf(rec, v, kept, w));
    return lc_ir_add_out(&w->ir, w->map[v]);
}

lc_status lc_ir_extract(const lc_graph *g, int n, const lc_value *outs, bool kept, lc_graph_work *w)
{
    const lc_ir *rec = lc_graph_ir(g);
    lc_ir *ir = &w->ir;
    int n_effects;
    const lc_effect *effects = lc_graph_effects(g, &n_effects);
    ir->n_values = ir->n_nodes = ir->n_args = ir->n_inputs = ir->n_params = ir->n_outs = 0;
    for (int i = 0; i < n; i++)
        if (outs[i] < 0 || outs[i] >= rec->n_values)
            return lc_fail(LC_ERR_RUNTIME, "output %d is not a value of this recording", i);
    LC_TRY(lc_ir_reserve((void **)&w->map, sizeof *w->map, rec->n_values, &w->cap_map));
    mark(g, n, outs, w->map);
    for (int i = 0; i < rec->n_nodes; i++) {
        const lc_ir_node *node = &rec->nodes[i];
        bool needed = false;
        for (int o = 0; o < node->n_out; o++) {
            lc_value v = lc_ir_out(rec, node)[o];
            needed |= w->map[v] == NEEDED && rec->values[v].kind == LC_VALUE_NODE;
        }
        if (needed)
            LC_TRY(extract_node(rec, node, kept, w));
    }
    for (int i = 0; i < n; i++)
        LC_TRY(extract_out(rec, outs[i], kept, w));
    ir->n_wanted = ir->n_outs;
    for (int i = 0; i < n_effects; i++)
        if (!effects[i].done)
            LC_TRY(extract_out(rec, effects[i].value, kept, w));
    ir->n_forward = ir->n_outs;
    return LC_OK;
}

typedef struct writer {
    unsigned char *at; /* NULL while the size is counted */
    size_t bytes;
} writer;

static void put(writer *w, const void *data, size_t bytes)
{
    if (w->at)
        memcpy(w->at + w->bytes, data, bytes);
    w->bytes += bytes;
}

static void put_desc(writer *w, const lc_desc *d)
{
    put(w, &d->dtype, sizeof d->dtype);
    put(w, &d->rank, sizeof d->rank);
    put(w, &d->layout, sizeof d->layout);
    put(w, d->dim, (size_t)d->rank * sizeof *d->dim);
}

/* Node outputs follow from ops, attributes and inputs, so inputs, parameters and nodes say
 * everything. */
static void write_key(writer *w, const lc_ir *ir, int threads)
{
    int head[8] = {threads,      ir->n_values, ir->n_nodes,  ir->n_outs,
                   ir->n_inputs, ir->n_params, ir->n_wanted, (int)lc_tuning_version()};
    put(w, head, sizeof head);
    for (int v = 0; v < ir->n_values; v++) {
        const lc_ir_value *value = &ir->values[v];
        if (value->kind == LC_VALUE_NODE)
            continue;
        int id[4] = {v, value->kind, value->index, value->grad};
        put(w, id, sizeof id);
        put_desc(w, &value->desc);
    }
    for (int i = 0; i < ir->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        int marks[3] = {n->n_in, n->group, n->detached};
        put(w, &n->op, sizeof n->op);
        put(w, marks, sizeof marks);
        put(w, lc_ir_in(ir, n), (size_t)n->n_in * sizeof(lc_value));
        put(w, lc_ir_out(ir, n), (size_t)n->n_out * sizeof(lc_value));
        put(w, n->attr, n->op->attr_size);
    }
    put(w, ir->outs, (size_t)ir->n_outs * sizeof *ir->outs);
}

lc_status lc_ir_make_key(lc_graph_work *work, int threads)
{
    writer count = {NULL, 0};
    write_key(&count, &work->ir, threads);
    if (count.bytes > work->cap_key) {
        lc_free(work->key);
        work->cap_key = 0;
        work->key = lc_alloc(2 * count.bytes);
        if (!work->key)
            return LC_ERR_MEMORY;
        work->cap_key = 2 * count.bytes;
    }
    writer real = {work->key, 0};
    write_key(&real, &work->ir, threads);
    work->key_bytes = real.bytes;
    return LC_OK;
}
