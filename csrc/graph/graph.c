/* Recording. */
#include "graph/graph.h"

#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/ir.h"

/* What a value of a recording is tied to, beside what lc_ir_value says. */
typedef struct binding {
    const void *data; /* input */
    lc_param *param;  /* parameter, or what an effect gives its value to: the graph's reference */
    lc_storage *storage; /* a parameter's contents as of recording, a constant's memory */
    uint64_t stamp;      /* of the parameter, when this value was made to stand for it */
} binding;

struct lc_graph {
    lc_ir ir;          /* its inputs and parameters are numbered by value */
    binding *bindings; /* per value */
    int cap_bindings;
    lc_value *param_slots; /* open addressing: parameter -> value + 1 */
    int n_slots, n_params;
    char *scopes; /* module paths, one after the other, each with its 0; a node holds its offset */
    int used_scopes, cap_scopes, scope;
    lc_effect *effects;
    int n_effects, cap_effects;
    int groups, group, group_depth; /* recomputed nodes */
    bool no_grad, training;
    lc_graph_work work;
    lc_graph *next; /* in the pool */
};

/* Graphs are made for every call, so a few are kept with their arrays: a repeated call then
 * allocates nothing. */
#define POOL_SIZE 4
#define POOL_MAX_NODES 4096 /* larger ones give their memory back */
static lc_graph *pool;      /* guarded by LC_LOCK_PLANS, as is its size */
static int pool_count;

lc_status lc_graph_create(lc_graph **out)
{
    lc_lock_take(LC_LOCK_PLANS);
    lc_graph *g = pool;
    if (g) {
        pool = g->next;
        pool_count--;
    }
    lc_lock_give(LC_LOCK_PLANS);
    if (!g) {
        g = lc_alloc_zero(sizeof *g);
        if (!g)
            return LC_ERR_MEMORY;
    }
    g->scope = g->used_scopes = 0;
    g->groups = g->group = g->group_depth = 0;
    g->no_grad = g->training = false;
    lc_status status = lc_graph_set_scope(g, "");
    if (status != LC_OK) {
        lc_graph_destroy(g);
        return status;
    }
    *out = g;
    return LC_OK;
}

static void free_graph(lc_graph *g)
{
    lc_free(g->scopes);
    lc_free(g->effects);
    lc_free(g->bindings);
    lc_free(g->param_slots);
    lc_ir_free(&g->ir);
    lc_ir_free(&g->work.ir);
    lc_free(g->work.map);
    lc_free(g->work.inputs);
    lc_free(g->work.params);
    lc_free(g->work.key);
    lc_free(g->work.input_data);
    lc_free(g->work.sources);
    lc_free(g->work.out_data);
    lc_free(g);
}

void lc_graph_destroy(lc_graph *g)
{
    if (!g)
        return;
    for (int v = 0; v < g->ir.n_values; v++) {
        lc_param_release(g->bindings[v].param);
        lc_storage_release(g->bindings[v].storage);
    }
    for (int i = 0; i < g->n_effects; i++)
        lc_param_release(g->effects[i].param);
    g->ir.n_values = g->ir.n_nodes = g->ir.n_args = g->n_params = g->n_effects = 0;
    if (g->param_slots)
        memset(g->param_slots, 0, (size_t)g->n_slots * sizeof *g->param_slots);
    lc_lock_take(LC_LOCK_PLANS);
    bool keep = pool_count < POOL_SIZE && g->ir.cap_nodes <= POOL_MAX_NODES;
    if (keep) {
        g->next = pool;
        pool = g;
        pool_count++;
    }
    lc_lock_give(LC_LOCK_PLANS);
    if (!keep)
        free_graph(g);
}

void lc_graph_pool_clear(void)
{
    lc_lock_take(LC_LOCK_PLANS);
    lc_graph *g = pool;
    pool = NULL;
    pool_count = 0;
    lc_lock_give(LC_LOCK_PLANS);
    while (g) {
        lc_graph *next = g->next;
        free_graph(g);
        g = next;
    }
}

/* Makes sure that bindings[v] exists and is empty. */
static lc_status bind_value(lc_graph *g, lc_value v)
{
    while (v >= g->cap_bindings)
        if (!lc_grow((void **)&g->bindings, sizeof *g->bindings, g->cap_bindings, &g->cap_bindings))
            return LC_ERR_MEMORY;
    memset(&g->bindings[v], 0, sizeof g->bindings[v]);
    return LC_OK;
}

static lc_status add_value(lc_graph *g, const lc_desc *desc, lc_value_kind kind, lc_value *out)
{
    LC_TRY(bind_value(g, g->ir.n_values));
    return lc_ir_add_value(&g->ir, desc, kind, g->ir.n_values, out);
}

lc_status lc_graph_input(lc_graph *g, const lc_desc *desc, const void *data, lc_value *out)
{
    LC_TRY(add_value(g, desc, LC_VALUE_INPUT, out));
    g->bindings[*out].data = data;
    return LC_OK;
}

lc_status lc_graph_constant(lc_graph *g, const lc_desc *desc, const void *data, lc_value *out)
{
    lc_storage *storage;
    LC_TRY(lc_storage_create(lc_desc_bytes(desc), &storage));
    memcpy(lc_storage_data(storage), data, lc_desc_bytes(desc));
    lc_status status = lc_graph_input(g, desc, lc_storage_data(storage), out);
    if (status != LC_OK)
        lc_storage_release(storage);
    else
        g->bindings[*out].storage = storage;
    return status;
}

static size_t slot_hash(const lc_param *p)
{
    uint64_t h = (uint64_t)(uintptr_t)p;
    return (size_t)((h >> 6) * UINT64_C(0x9E3779B97F4A7C15) >> 20);
}

/* The slot that holds p, or the empty one where it belongs. */
static lc_value *find_slot(const lc_graph *g, const lc_param *p)
{
    size_t mask = (size_t)g->n_slots - 1, i = slot_hash(p) & mask;
    while (g->param_slots[i] && g->bindings[g->param_slots[i] - 1].param != p)
        i = (i + 1) & mask;
    return &g->param_slots[i];
}

static lc_status grow_slots(lc_graph *g)
{
    int n = g->n_slots ? g->n_slots * 2 : 64;
    lc_value *slots = lc_alloc_zero((size_t)n * sizeof *slots), *old = g->param_slots;
    if (!slots)
        return LC_ERR_MEMORY;
    int old_n = g->n_slots;
    g->param_slots = slots;
    g->n_slots = n;
    for (int i = 0; i < old_n; i++)
        if (old[i])
            *find_slot(g, g->bindings[old[i] - 1].param) = old[i];
    lc_free(old);
    return LC_OK;
}

static lc_status reserve_slot(lc_graph *g)
{
    return 2 * (g->n_params + 1) > g->n_slots ? grow_slots(g) : LC_OK;
}

lc_status lc_graph_param(lc_graph *g, lc_param *p, lc_value *out)
{
    LC_TRY(reserve_slot(g));
    lc_value *slot = find_slot(g, p);
    /* A parameter that was changed since it was recorded gets a new value with the new contents. */
    if (*slot && g->bindings[*slot - 1].stamp == lc_param_stamp(p)) {
        *out = *slot - 1;
        return LC_OK;
    }
    bool fresh = *slot == 0;
    lc_storage *storage;
    uint64_t stamp;
    lc_param_snapshot(p, &storage, &stamp);
    lc_status status = add_value(g, lc_param_desc(p), LC_VALUE_PARAM, out);
    if (status != LC_OK) {
        lc_storage_release(storage);
        return status;
    }
    g->bindings[*out] = (binding){NULL, lc_param_retain(p), storage, stamp};
    g->ir.values[*out].grad = lc_param_requires_grad(p);
    *slot = *out + 1;
    g->n_params += fresh;
    return LC_OK;
}

lc_status lc_graph_effect(lc_graph *g, lc_value v, lc_param *p)
{
    char want[LC_SHAPE_TEXT], got[LC_SHAPE_TEXT];
    if (v < 0 || v >= g->ir.n_values || g->ir.values[v].kind != LC_VALUE_NODE ||
        g->bindings[v].param)
        return lc_fail(LC_ERR_RUNTIME, "value %d cannot become the contents of a parameter", v);
    const lc_desc *d = &g->ir.values[v].desc, *own = lc_param_desc(p);
    if (d->dtype != own->dtype || !lc_desc_same_shape(d, own))
        return lc_fail(LC_ERR_VALUE, "a value of shape %s cannot go into a parameter of shape %s",
                       lc_shape_text(d, got), lc_shape_text(own, want));
    LC_TRY(reserve_slot(g));
    if (g->n_effects == g->cap_effects &&
        !lc_grow((void **)&g->effects, sizeof *g->effects, g->n_effects, &g->cap_effects))
        return LC_ERR_MEMORY;
    g->effects[g->n_effects++] = (lc_effect){v, lc_param_retain(p), false};
    /* Whoever reads p from here on reads v, unless p is changed by somebody else. */
    lc_value *slot = find_slot(g, p);
    g->n_params += *slot == 0;
    g->bindings[v].param = lc_param_retain(p);
    g->bindings[v].stamp = lc_param_stamp(p);
    *slot = v + 1;
    return LC_OK;
}

bool lc_graph_has_effects(const lc_graph *g)
{
    for (int i = 0; i < g->n_effects; i++)
        if (!g->effects[i].done)
            return true;
    return false;
}

lc_effect *lc_graph_effects(const lc_graph *g, int *n)
{
    *n = g->n_effects;
    return g->effects;
}

lc_status lc_graph_require_grad(lc_graph *g, lc_value v)
{
    if (v < 0 || v >= g->ir.n_values || g->ir.values[v].kind != LC_VALUE_INPUT)
        return lc_fail(LC_ERR_RUNTIME, "value %d is not an input of this recording", (int)v);
    if (g->ir.values[v].desc.dtype != LC_F32)
        return lc_fail(LC_ERR_TYPE, "only float32 tensors can have gradients");
    g->ir.values[v].grad = true;
    return LC_OK;
}

lc_status lc_graph_needs_grad(const lc_graph *g, lc_value v, bool *out)
{
    bool *needs = lc_alloc((size_t)g->ir.n_values + 1);
    if (!needs)
        return LC_ERR_MEMORY;
    lc_ir_find_needs(&g->ir, needs);
    *out = needs[v];
    lc_free(needs);
    return LC_OK;
}

bool lc_graph_set_grad(lc_graph *g, bool on)
{
    bool before = !g->no_grad;
    g->no_grad = !on;
    return before;
}

void lc_graph_begin_recompute(lc_graph *g)
{
    if (g->group_depth++ == 0)
        g->group = ++g->groups;
}

void lc_graph_end_recompute(lc_graph *g)
{
    if (--g->group_depth == 0)
        g->group = 0;
}

void lc_graph_note_training(lc_graph *g)
{
    g->training |= !g->no_grad;
}

bool lc_graph_is_training(const lc_graph *g)
{
    return g->training;
}

lc_status lc_graph_append(lc_graph *g, const lc_op *op, const void *attr, int n_in,
                          const lc_value *in, lc_value *out)
{
    for (int i = 0; i < n_in; i++)
        if (in[i] < 0 || in[i] >= g->ir.n_values)
            return lc_fail(LC_ERR_RUNTIME, "%s: input %d is not a value of this recording",
                           op->name, i);
    int n_values = g->ir.n_values, n_out;
    lc_value produced[LC_MAX_OUT];
    lc_status status = LC_OK;
    LC_TRY_GOTO(lc_ir_infer(&g->ir, op, attr, n_in, in, g->ir.n_nodes, &n_out, produced), fail);
    for (int i = 0; i < n_out; i++)
        LC_TRY_GOTO(bind_value(g, produced[i]), fail);
    LC_TRY_GOTO(lc_ir_add_node(&g->ir, op, attr, n_in, in, n_out, produced), fail);
    lc_ir_node *node = &g->ir.nodes[g->ir.n_nodes - 1];
    node->scope = g->scope;
    node->group = g->group;
    node->detached = g->no_grad;
    memcpy(out, produced, (size_t)n_out * sizeof *out);
    return LC_OK;
fail:
    g->ir.n_values = n_values;
    return status;
}

const lc_desc *lc_graph_desc(const lc_graph *g, lc_value v)
{
    return &g->ir.values[v].desc;
}

int lc_graph_value_count(const lc_graph *g)
{
    return g->ir.n_values;
}

int lc_graph_node_count(const lc_graph *g)
{
    return g->ir.n_nodes;
}

lc_node_view lc_graph_node(const lc_graph *g, int i)
{
    const lc_ir_node *n = &g->ir.nodes[i];
    return (lc_node_view){n->op,
                          n->attr,
                          n->n_in,
                          n->n_out,
                          lc_ir_in(&g->ir, n),
                          lc_ir_out(&g->ir, n),
                          g->scopes + n->scope};
}

lc_param *lc_graph_value_param(const lc_graph *g, lc_value v)
{
    return g->ir.values[v].kind == LC_VALUE_PARAM ? g->bindings[v].param : NULL;
}

lc_status lc_graph_set_scope(lc_graph *g, const char *path)
{
    size_t length = strlen(path) + 1;
    if (g->used_scopes && strcmp(g->scopes + g->scope, path) == 0)
        return LC_OK;
    if (length > (size_t)(INT32_MAX / 2 - g->used_scopes))
        return lc_fail(LC_ERR_MEMORY, "the module paths of this recording are too long");
    int needed = g->used_scopes + (int)length;
    if (needed > g->cap_scopes) {
        int cap = needed < 2048 ? 4096 : 2 * needed;
        char *grown = lc_realloc(g->scopes, (size_t)g->cap_scopes, (size_t)cap);
        if (!grown)
            return LC_ERR_MEMORY;
        g->scopes = grown;
        g->cap_scopes = cap;
    }
    memcpy(g->scopes + g->used_scopes, path, length);
    g->scope = g->used_scopes;
    g->used_scopes = needed;
    return LC_OK;
}

const char *lc_graph_scope(const lc_graph *g)
{
    return g->scopes + g->scope;
}

lc_status lc_graph_settle(lc_graph *g, lc_value v, const void *data)
{
    if (v < 0 || v >= g->ir.n_values)
        return lc_fail(LC_ERR_RUNTIME, "value %d is not of this recording", (int)v);
    if (g->ir.values[v].kind == LC_VALUE_PARAM)
        return LC_OK; /* it has its contents */
    g->ir.values[v].kind = LC_VALUE_INPUT;
    g->ir.values[v].index = v;
    g->bindings[v].data = data;
    return LC_OK;
}

const void *lc_graph_input_data(const lc_graph *g, lc_value v)
{
    return g->bindings[v].data;
}

lc_storage *lc_graph_input_storage(const lc_graph *g, lc_value v)
{
    const binding *b = &g->bindings[v];
    return b->storage && b->data == lc_storage_data(b->storage) ? b->storage : NULL;
}

lc_status lc_graph_source(const lc_graph *g, lc_value v, lc_source *out)
{
    binding *b = &g->bindings[v];
    if (!b->storage) /* never set: zeros, and memory for them only now that they are read */
        LC_TRY(lc_param_storage(b->param, &b->storage));
    *out = (lc_source){b->param, b->storage, b->stamp};
    return LC_OK;
}

const lc_ir *lc_graph_ir(const lc_graph *g)
{
    return &g->ir;
}

const char *lc_graph_scope_at(const lc_graph *g, int32_t scope)
{
    return g->scopes + scope;
}

lc_graph_work *lc_graph_workspace(lc_graph *g)
{
    return &g->work;
}
