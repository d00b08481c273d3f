/* How the nodes of a graph would be done, without doing them. */
#ifndef LC_GRAPH_EXPLAIN_H
#define LC_GRAPH_EXPLAIN_H

#include "graph/graph.h"

/* A node as its op sees it when the algorithm is chosen: fused, layouts decided, not packed. */
typedef struct lc_choice {
    const char *scope; /* path of the module that it belongs to, as in profiles */
    const lc_op *op;
    const void *attr;
    int n_in;
    const lc_desc *in, *out;
} lc_choice;

/* Calls fn for every node whose op has several algorithms (lc_op.candidate) and that the values
 * outs[0 .. n) need, in order. What fn returns, unless LC_OK, ends it and is returned. */
typedef lc_status (*lc_choice_fn)(void *ctx, const lc_choice *choice);
lc_status lc_graph_explain(lc_graph *g, int n, const lc_value *outs, lc_choice_fn fn, void *ctx);

#endif
