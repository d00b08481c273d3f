/* A kept forward run, and its backward.
 *
 * lc_graph_run_kept differentiates the wanted part of a recording and plans forward and backward
 * together: one list of steps with a split, one arena. The forward steps run at once; what backward
 * reads stays in the arena, which belongs to the tape until it is released. lc_tape_backward runs
 * the rest.
 *
 * The plan is cached like any other; its key says for which inputs and parameters gradients are
 * wanted. Packed weights are ordinary steps in such a plan, since parameters change at every step. */
#ifndef LC_GRAPH_TAPE_H
#define LC_GRAPH_TAPE_H

#include "graph/graph.h"

typedef struct lc_tape lc_tape; /* counted; any thread may release, one at a time may run */

/* As lc_graph_run. *out is NULL if no wanted output depends on anything that requires a gradient:
 * then this is lc_graph_run. The graph keeps nothing of the tape, which holds the parameters'
 * contents of this moment; the memory of inputs is the caller's (see lc_tape_input_count). */
lc_status lc_graph_run_kept(lc_graph *g, int n, const lc_value *outs, void *const *data,
                            const lc_run_options *options, lc_tape **out);
lc_tape *lc_tape_retain(lc_tape *t);
void lc_tape_release(lc_tape *t); /* NULL-safe */

/* What gradients it gives, in a fixed order: one row per input and parameter that requires one and
 * is reached; then one per wanted output that other outputs depend on (or that is wanted twice): its
 * whole gradient, of which dy is a part. */
typedef struct lc_tape_leaf {
    lc_param *param; /* borrowed; else NULL */
    lc_value input;  /* an input's number in the recording, else LC_NONE */
    int output;      /* an output's number, else -1 */
    lc_desc desc;    /* plain */
} lc_tape_leaf;
int lc_tape_leaf_count(const lc_tape *t);
lc_tape_leaf lc_tape_leaf_at(const lc_tape *t, int i);
int lc_tape_output_count(const lc_tape *t);
const lc_desc *lc_tape_output_desc(const lc_tape *t, int i); /* plain */
bool lc_tape_reaches(const lc_tape *t, int out);             /* does output i depend on a leaf? */

/* The inputs whose contents backward reads: they must stay valid and unchanged at `*data`, which
 * may be set to a copy, until the tape is released or has run backward. */
int lc_tape_input_count(const lc_tape *t);
lc_value lc_tape_input_at(const lc_tape *t, int i, const void ***data);

/* dy[i]: gradient of wanted output i, plain, of its desc; NULL: zero. dx[i]: memory for leaf i's
 * gradient (plain), which is overwritten. Gives up what was kept unless `keep`; a later call is
 * then LC_ERR_RUNTIME. So is a parameter that backward reads and whose stamp has changed since
 * forward (the message names it by shape); then the tape stays as it was. On other failures dx[] is
 * undefined, and what was kept is given up all the same unless `keep`. */
lc_status lc_tape_backward(lc_tape *t, const void *const *dy, void *const *dx, bool keep,
                           const lc_run_options *options);
bool lc_tape_is_spent(const lc_tape *t); /* what was kept is given up */

#endif
