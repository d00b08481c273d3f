/* The graph: what a forward pass computes, as recorded. Values are numbers 0, 1, ... in order of
 * creation.
 *
 * record -> lc_graph_input / _param / _append      run -> lc_graph_run (passes, plan and cache are
 * inside)
 *
 * A graph belongs to one thread. Shapes are checked as nodes are appended; a failed append leaves
 * the graph as it was. */
#ifndef LC_GRAPH_GRAPH_H
#define LC_GRAPH_GRAPH_H

#include "graph/param.h"

typedef struct lc_graph lc_graph;

lc_status lc_graph_create(lc_graph **out);
void lc_graph_destroy(lc_graph *g); /* NULL-safe; releases the parameters */

/* A value whose contents come from outside; `data` (plain layout, desc's size) may be given now or
 * later by lc_graph_settle, and must stay valid until the graph is destroyed. */
lc_status lc_graph_input(lc_graph *g, const lc_desc *desc, const void *data, lc_value *out);
/* The value of a parameter; an unchanged parameter gives the same value again. The graph keeps the
 * contents of this moment. */
lc_status lc_graph_param(lc_graph *g, lc_param *p, lc_value *out);
/* Appends a node. `attr` (op->attr_size bytes) is copied. out[] receives the op's outputs (usually
 * one). */
lc_status lc_graph_append(lc_graph *g, const lc_op *op, const void *attr, int n_in,
                          const lc_value *in, lc_value *out);

const lc_desc *lc_graph_desc(const lc_graph *g, lc_value v); /* valid until the next append */
int lc_graph_value_count(const lc_graph *g);

/* --- reading a recording (info, export) */
typedef struct lc_node_view {
    const lc_op *op;
    const void *attr;
    int n_in, n_out;
    const lc_value *in, *out;
    const char *scope; /* dotted path of the module that appended it; "" outside of any */
} lc_node_view;
int lc_graph_node_count(const lc_graph *g);
lc_node_view lc_graph_node(const lc_graph *g, int i);          /* valid until the next append */
lc_param *lc_graph_value_param(const lc_graph *g, lc_value v); /* NULL: not a parameter */
/* The contents of an input; NULL where none were given, and for all other values. */
const void *lc_graph_input_data(const lc_graph *g, lc_value v);
/* The path that goes into nodes appended from now on; copied. lc_graph_scope is valid until the
 * next set. */
lc_status lc_graph_set_scope(lc_graph *g, const char *path);
const char *lc_graph_scope(const lc_graph *g);

/* A value with a copy of `data` (desc's size, plain layout), for seeds and factors that differ from
 * call to call: only its desc is part of a plan. */
lc_status lc_graph_constant(lc_graph *g, const lc_desc *desc, const void *data, lc_value *out);

/* Turns any value into an input with these contents: what was needed for it alone is not computed
 * any more. Used after a run in the middle of a recording, whose results go on as inputs; value
 * numbers held elsewhere stay right. */
lc_status lc_graph_settle(lc_graph *g, lc_value v, const void *data);

/* What a run is asked to do beside computing. */
typedef struct lc_run_options {
    /* Called on the calling thread now and then (at most every 50 ms): true = stop. NULL: never. */
    bool (*stop)(void *ctx);
    void *stop_ctx;
    struct lc_profile *profile; /* NULL, or gets one more row per step (graph/profile.h) */
} lc_run_options;

/* Computes values outs[0 .. n) into data[i] (plain layout, lc_desc_bytes of the value's desc; not
 * overlapping anything). LC_ERR_INTERRUPTED if stopped; LC_ERR_RUNTIME if an input that is needed
 * has no data. On failure data[] is undefined and nothing else has changed. Any number of threads
 * may run graphs at once. `options` may be NULL. */
lc_status lc_graph_run(lc_graph *g, int n, const lc_value *outs, void *const *data,
                       const lc_run_options *options);

/* --- effects: contents that a parameter or buffer gets from a run (running statistics) */
/* After the next run that succeeds, `p` has the contents of v (of p's shape): runs compute v even if
 * nobody else wants it, into memory of its own, which replaces p's storage once all steps have
 * succeeded. Committed once: a later run of the same recording may compute v again, but does not
 * commit it again. From here on lc_graph_param of p gives v. */
lc_status lc_graph_effect(lc_graph *g, lc_value v, lc_param *p);
bool lc_graph_has_effects(const lc_graph *g); /* that are not committed yet */

/* --- gradients: see graph/tape.h */
/* Says that gradients with respect to v are wanted (parameters: lc_param_requires_grad decides, as
 * of recording). Only inputs. */
lc_status lc_graph_require_grad(lc_graph *g, lc_value v);
/* Does v depend on something that requires a gradient, as recorded? LC_ERR_MEMORY. */
lc_status lc_graph_needs_grad(const lc_graph *g, lc_value v, bool *out);
/* Nodes that are appended from now on let no gradient through (off), or do (on, at first). Returns
 * what it was. */
bool lc_graph_set_grad(lc_graph *g, bool on);
/* Nodes that are appended until the matching end are computed again by backward, from what entered
 * them, rather than kept. Within such a pair more of them change nothing. */
void lc_graph_begin_recompute(lc_graph *g);
void lc_graph_end_recompute(lc_graph *g);
/* Something in training mode has been appended while gradients were on. */
void lc_graph_note_training(lc_graph *g);
bool lc_graph_is_training(const lc_graph *g);

/* --- the plan cache (process-wide, bounded, least recently used out first) */
typedef struct lc_plan_stats {
    int64_t plans, hits, misses;
    int64_t arena_bytes; /* of idle executions kept */
} lc_plan_stats;
lc_plan_stats lc_plan_cache_stats(void);
void lc_plan_cache_clear(void);

#endif
