/* The intermediate form that passes rewrite and plans are made from; internal to graph/.
 *
 * lc_ir_extract copies the part of a recording that the wanted outputs need, renumbered densely, so
 * equal computations give equal IRs wherever they stand in a recording. Inputs and parameters are
 * numbered too: a plan knows them by number only. */
#ifndef LC_GRAPH_IR_H
#define LC_GRAPH_IR_H

#include "graph/graph.h"

typedef enum lc_value_kind { LC_VALUE_NODE, LC_VALUE_INPUT, LC_VALUE_PARAM } lc_value_kind;

typedef struct lc_ir_value {
    lc_desc desc;
    lc_value_kind kind;
    int32_t index; /* NODE: the producing node (not kept up to date by passes); INPUT, PARAM: its
                      number */
    bool grad;     /* INPUT, PARAM: a gradient with respect to it is wanted */
} lc_ir_value;

typedef struct lc_ir_node {
    const lc_op *op; /* NULL: removed by a pass */
    int32_t n_in, n_out;
    int32_t in, out; /* where its value lists start in ir->args */
    int32_t scope;   /* recordings and what is extracted from them: where the module path starts;
                      plans, which models share: the extracted node whose path it has, or -1 */
    int32_t part;    /* 0: forward, 1: backward, which comes after */
    int32_t group;   /* 0, or nodes that backward computes again */
    bool detached;   /* no gradient flows through it */
    _Alignas(8) unsigned char attr[LC_MAX_ATTR]; /* op->attr_size bytes */
} lc_ir_node;

typedef struct lc_ir {
    lc_ir_value *values;
    lc_ir_node *nodes; /* in execution order */
    lc_value *args;
    lc_value *outs; /* the wanted values, then those of effects, then gradients */
    int n_values, n_nodes, n_args, n_outs, n_inputs, n_params;
    int n_wanted, n_forward; /* outs: wanted ones, and with effects */
    int cap_values, cap_nodes, cap_args, cap_outs;
} lc_ir;

static inline lc_value *lc_ir_in(const lc_ir *ir, const lc_ir_node *n)
{
    return ir->args + n->in;
}

static inline lc_value *lc_ir_out(const lc_ir *ir, const lc_ir_node *n)
{
    return ir->args + n->out;
}

/* Room for `count` elements of `size` bytes; *cap counts elements. Contents are kept. */
lc_status lc_ir_reserve(void **array, size_t size, int count, int *cap);
void lc_ir_free(lc_ir *ir);
lc_status lc_ir_add_value(lc_ir *ir, const lc_desc *desc, lc_value_kind kind, int index,
                          lc_value *out);
/* Appends a node with these inputs and outputs; attr may be NULL for none. */
lc_status lc_ir_add_node(lc_ir *ir, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                         int n_out, const lc_value *out);
lc_status lc_ir_set_inputs(lc_ir *ir, int node, int n_in, const lc_value *in);
lc_status lc_ir_set_outputs(lc_ir *ir, int node, int n_out, const lc_value *out);
/* Calls the op's shape rule on values of `ir` and adds its outputs as values of node `index`. */
lc_status lc_ir_infer(lc_ir *ir, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                      int index, int *n_out, lc_value out[LC_MAX_OUT]);

/* A parameter as it was when it was recorded. */
typedef struct lc_source {
    lc_param *param;
    lc_storage *storage;
    uint64_t stamp;
} lc_source;

/* What lc_graph_run needs again and again; kept with the graph so that a repeated call allocates
 * nothing. */
typedef struct lc_graph_work {
    lc_ir ir;
    lc_value *map;             /* value of the recording -> value of ir, or LC_NONE */
    lc_value *inputs, *params; /* number of an input or parameter of ir -> value of the recording */
    int cap_map, cap_inputs, cap_params;
    unsigned char *key;
    size_t key_bytes, cap_key;
    /* for one run, by number: borrowed from the graph */
    const void **input_data;
    lc_source *sources;
    void **out_data;
    int cap_input_data, cap_sources, cap_out_data;
} lc_graph_work;

/* Fills work->ir with the part of the recording that outs[0 .. n) and the effects that are not
 * committed yet need, and the three maps. `kept`: with what the recording says of gradients. */
lc_status lc_ir_extract(const lc_graph *g, int n, const lc_value *outs, bool kept,
                        lc_graph_work *work);
/* Fills work->key: an image of work->ir and the thread count, equal for equal IRs. */
lc_status lc_ir_make_key(lc_graph_work *work, int threads);
/* A copy with memory of its own. */
lc_status lc_ir_copy(const lc_ir *from, lc_ir *to);
/* Does the node depend on parameters alone? Its result, a blob, is then kept. */
bool lc_ir_is_constant(const lc_ir *ir, const lc_ir_node *n);
lc_status lc_ir_add_out(lc_ir *ir, lc_value v);
/* Nodes of part 0 first, in the order they have. */
lc_status lc_ir_sort_parts(lc_ir *ir);

/* --- gradients (autodiff.c) */
/* Whether a gradient flows through each value of part 0: needs[v] for v < ir->n_values. */
void lc_ir_find_needs(const lc_ir *ir, bool *needs);

typedef struct lc_ir_leaf {
    lc_value_kind kind; /* LC_VALUE_NODE: a wanted output that others depend on as well */
    int index;          /* number of the input, parameter or output */
} lc_ir_leaf;

typedef struct lc_gradients {
    int n;
    lc_ir_leaf *leaves; /* leaf i has its gradient in outs[n_forward + i] */
    bool *reached;      /* per wanted output: does it depend on a leaf? */
} lc_gradients;

/* Appends backward as part 1: the gradient of wanted output i comes in as input n_inputs + i (of
 * those before), if it is reached, and gradients of leaves become outputs. */
lc_status lc_ir_differentiate(lc_ir *ir, lc_gradients *out);
void lc_gradients_free(lc_gradients *g);

/* The passes, in order; each keeps what the graph computes. */
typedef struct lc_pass {
    const char *name;
    lc_status (*run)(lc_ir *ir, const lc_kernels *kernels);
} lc_pass;
extern const lc_pass lc_passes[]; /* ends with name NULL */
lc_status lc_pass_remake(lc_ir *ir, const lc_kernels *kernels);
lc_status lc_pass_layout(lc_ir *ir, const lc_kernels *kernels);
/* Drops removed nodes. */
void lc_ir_compact(lc_ir *ir);

/* What the recording knows of value v (graph.c); nothing is retained. */
lc_storage *lc_graph_input_storage(const lc_graph *g, lc_value v); /* NULL: the caller's memory */
lc_status lc_graph_source(const lc_graph *g, lc_value v, lc_source *out);
const lc_ir *lc_graph_ir(const lc_graph *g);
const char *lc_graph_scope_at(const lc_graph *g, int32_t scope);

/* Effects of the recording. */
typedef struct lc_effect {
    lc_value value;
    lc_param *param; /* the graph's reference */
    bool done;
} lc_effect;
lc_effect *lc_graph_effects(const lc_graph *g, int *n);
lc_graph_work *lc_graph_workspace(lc_graph *g);
void lc_graph_pool_clear(void);

#endif
