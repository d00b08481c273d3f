#include "graph/explain.h"

#include <string.h>

#include "base/mem.h"
#include "graph/ir.h"

#define MAX_IN 8 /* of a node with several algorithms */

static lc_status tell(const lc_graph *g, const lc_graph_work *work, const lc_ir *ir,
                      const lc_ir_node *n, lc_choice_fn fn, void *ctx)
{
    lc_desc in[MAX_IN], out[LC_MAX_OUT];
    if (!n->op->candidate || n->n_in > MAX_IN)
        return LC_OK;
    for (int k = 0; k < n->n_in; k++)
        in[k] = ir->values[lc_ir_in(ir, n)[k]].desc;
    for (int k = 0; k < n->n_out; k++)
        out[k] = ir->values[lc_ir_out(ir, n)[k]].desc;
    const char *scope = n->scope < 0 ? "" : lc_graph_scope_at(g, work->ir.nodes[n->scope].scope);
    lc_choice choice = {scope, n->op, n->attr, n->n_in, in, out};
    return fn(ctx, &choice);
}

lc_status lc_graph_explain(lc_graph *g, int n, const lc_value *outs, lc_choice_fn fn, void *ctx)
{
    lc_graph_work *work = lc_graph_workspace(g);
    lc_ir ir;
    lc_status status = LC_OK;
    LC_TRY(lc_ir_extract(g, n, outs, false, work));
    LC_TRY(lc_ir_copy(&work->ir, &ir));
    for (int i = 0; i < ir.n_nodes; i++)
        ir.nodes[i].scope = i;
    for (const lc_pass *pass = lc_passes; pass->name && strcmp(pass->name, "pack") != 0; pass++)
        LC_TRY_GOTO(pass->run(&ir, lc_kernels_get()), done);
    for (int i = 0; i < ir.n_nodes; i++)
        LC_TRY_GOTO(tell(g, work, &ir, &ir.nodes[i], fn, ctx), done);
done:
    lc_ir_free(&ir);
    return status;
}
