/* The layout pass: which values are channel-blocked, and the conversions where two sides disagree.
 *
 * Wishes travel backwards (a grouped convolution insists on its input's grouping; ops that keep
 * layouts pass the wish of their output on), then layouts are settled forwards. A conversion is
 * made once per value and layout. */
#include <string.h>

#include "base/mem.h"
#include "graph/ir.h"
#include "ops/ops.h"

static bool blockable(const lc_desc *d)
{
    return d->rank == 4 && d->dtype == LC_F32;
}

static lc_layout default_wish(const lc_desc *d, int block)
{
    return blockable(d) ? lc_layout_blocked(block, d->dim[1], 1) : LC_PLAIN;
}

#define ON_STACK 16

/* Scratch for one node's question; lists longer than ON_STACK (cat of many) come from the heap. */
typedef struct question {
    lc_layout_query q;
    lc_desc in[ON_STACK], out[LC_MAX_OUT];
    lc_layout want[ON_STACK], give[LC_MAX_OUT];
    lc_desc *ins;
    lc_layout *wants;
    void *heap;
} question;

static lc_status ask(question *s, const lc_ir *ir, const lc_ir_node *n, const lc_layout *wish,
                     int block)
{
    s->heap = NULL;
    s->ins = s->in;
    s->wants = s->want;
    if (n->n_in > ON_STACK) {
        s->heap = lc_alloc((size_t)n->n_in * (sizeof(lc_desc) + sizeof(lc_layout)));
        if (!s->heap)
            return LC_ERR_MEMORY;
        s->ins = s->heap;
        s->wants = (lc_layout *)(s->ins + n->n_in);
    }
    for (int k = 0; k < n->n_in; k++)
        s->ins[k] = ir->values[lc_ir_in(ir, n)[k]].desc;
    for (int o = 0; o < n->n_out; o++) {
        s->out[o] = ir->values[lc_ir_out(ir, n)[o]].desc;
        s->out[o].layout = wish[lc_ir_out(ir, n)[o]];
    }
    s->q = (lc_layout_query){n->attr, n->n_in, n->n_out, s->ins, s->out, block};
    return LC_OK;
}

static lc_status find_wishes(const lc_ir *ir, int block, lc_layout *wish)
{
    for (int v = 0; v < ir->n_values; v++)
        wish[v] = default_wish(&ir->values[v].desc, block);
    for (int i = ir->n_nodes - 1; i >= 0; i--) {
        const lc_ir_node *n = &ir->nodes[i];
        if (n->op->flags & LC_OP_KEEPS_LAYOUT) {
            lc_value y = lc_ir_out(ir, n)[0];
            for (int k = 0; k < n->n_in; k++) {
                lc_value x = lc_ir_in(ir, n)[k];
                if (blockable(&ir->values[x].desc) && blockable(&ir->values[y].desc) &&
                    ir->values[x].desc.dim[1] == ir->values[y].desc.dim[1])
                    wish[x] = wish[y];
            }
        }
        if (!n->op->insists)
            continue;
        question s;
        LC_TRY(ask(&s, ir, n, wish, block));
        for (int k = 0; k < n->n_in; k++) {
            lc_layout want;
            if (n->op->insists(&s.q, k, &want))
                wish[lc_ir_in(ir, n)[k]] = want;
        }
        lc_free(s.heap);
    }
    return LC_OK;
}

/* A conversion of value v that exists already. */
typedef struct conversion {
    lc_value from, to;
} conversion;

typedef struct context {
    lc_ir *ir;
    conversion *made;
    int n_made, cap_made;
    int part; /* of the node that is being placed */
} context;

/* The value that holds v in that layout; adds a reorder node, with that scope, if there is none
 * yet. */
static lc_status convert(context *c, lc_value v, lc_layout layout, int32_t scope, lc_value *out)
{
    lc_ir *ir = c->ir;
    if (lc_layout_equal(ir->values[v].desc.layout, layout)) {
        *out = v;
        return LC_OK;
    }
    for (int i = 0; i < c->n_made; i++)
        if (c->made[i].from == v &&
            lc_layout_equal(ir->values[c->made[i].to].desc.layout, layout)) {
            *out = c->made[i].to;
            return LC_OK;
        }
    lc_desc desc = ir->values[v].desc;
    desc.layout = layout;
    LC_TRY(lc_ir_add_value(ir, &desc, LC_VALUE_NODE, ir->n_nodes, out));
    LC_TRY(lc_ir_add_node(ir, &lc_op_reorder, NULL, 1, &v, 1, out));
    ir->nodes[ir->n_nodes - 1].scope = scope;
    ir->nodes[ir->n_nodes - 1].part = c->part;
    if (c->n_made == c->cap_made &&
        !lc_grow((void **)&c->made, sizeof *c->made, c->n_made, &c->cap_made))
        return LC_ERR_MEMORY;
    c->made[c->n_made++] = (conversion){v, *out};
    return LC_OK;
}

static lc_status place(context *c, const lc_ir_node *n, const lc_layout *wish, int block)
{
    lc_ir *ir = c->ir;
    question s;
    LC_TRY(ask(&s, ir, n, wish, block));
    for (int k = 0; k < n->n_in; k++)
        s.wants[k] = LC_PLAIN;
    for (int o = 0; o < n->n_out; o++)
        s.give[o] = LC_PLAIN;
    if (n->op->layout)
        n->op->layout(&s.q, s.wants, s.give);

    lc_status status = LC_OK;
    int32_t in_at = n->in;
    for (int k = 0; k < n->n_in; k++) {
        lc_value converted;
        LC_TRY_GOTO(convert(c, ir->args[in_at + k], s.wants[k], n->scope, &converted), done);
        ir->args[in_at + k] = converted;
    }
    for (int o = 0; o < n->n_out; o++)
        ir->values[lc_ir_out(ir, n)[o]].desc.layout = s.give[o];
    LC_TRY_GOTO(lc_ir_add_node(ir, n->op, n->attr, 0, NULL, 0, NULL), done);
    lc_ir_node *placed = &ir->nodes[ir->n_nodes - 1];
    placed->n_in = n->n_in;
    placed->n_out = n->n_out;
    placed->in = n->in;
    placed->out = n->out;
    placed->scope = n->scope;
    placed->part = n->part;
done:
    lc_free(s.heap);
    return status;
}

/* Users get plain arrays. */
static lc_status place_outs(context *c, int begin, int end)
{
    for (int i = begin; i < end; i++)
        LC_TRY(convert(c, c->ir->outs[i], LC_PLAIN, -1, &c->ir->outs[i]));
    return LC_OK;
}

lc_status lc_pass_layout(lc_ir *ir, const lc_kernels *kernels)
{
    int n_nodes = ir->n_nodes, n_values = ir->n_values;
    context c = {ir, NULL, 0, 0, 0};
    lc_status status = LC_OK;
    lc_ir_node *old =
        lc_alloc((size_t)n_nodes * sizeof *old + (size_t)n_values * sizeof(lc_layout) + 1);
    if (!old)
        return LC_ERR_MEMORY;
    lc_layout *wish = (lc_layout *)(old + n_nodes);
    LC_TRY_GOTO(find_wishes(ir, kernels->block, wish), done);
    memcpy(old, ir->nodes, (size_t)n_nodes * sizeof *old);
    ir->n_nodes = 0;
    for (int i = 0; i < n_nodes; i++) {
        if (old[i].part != c.part) {
            LC_TRY_GOTO(place_outs(&c, 0, ir->n_forward), done);
            c.part = old[i].part;
        }
        LC_TRY_GOTO(place(&c, &old[i], wish, kernels->block), done);
    }
    LC_TRY_GOTO(place_outs(&c, c.part ? ir->n_forward : 0, ir->n_outs), done);
done:
    lc_free(c.made);
    lc_free(old);
    return status;
}
