/* The passes: rewrites of the IR that keep what it computes. A flat list, run in order, once per
 * plan. */
#include <string.h>

#include "base/mem.h"
#include "graph/ir.h"
#include "ops/grad_ops.h"

/* Who produces and who consumes each value, for passes that fuse. */
typedef struct uses {
    int *producer;  /* node, or -1 */
    int *consumers; /* how many reads; a wanted output counts as one */
} uses;

static lc_status count_uses(const lc_ir *ir, uses *u)
{
    u->producer = lc_alloc(2 * (size_t)ir->n_values * sizeof(int));
    if (!u->producer)
        return LC_ERR_MEMORY;
    u->consumers = u->producer + ir->n_values;
    for (int v = 0; v < ir->n_values; v++) {
        u->producer[v] = -1;
        u->consumers[v] = 0;
    }
    for (int i = 0; i < ir->n_nodes; i++) {
        const lc_ir_node *n = &ir->nodes[i];
        if (!n->op)
            continue;
        for (int k = 0; k < n->n_in; k++)
            u->consumers[lc_ir_in(ir, n)[k]]++;
        for (int o = 0; o < n->n_out; o++)
            u->producer[lc_ir_out(ir, n)[o]] = i;
    }
    for (int i = 0; i < ir->n_outs; i++)
        u->consumers[ir->outs[i]]++;
    return LC_OK;
}

/* The node whose result v feeds node i alone, if its op is `op` and it is of the same part (forward
 * or backward); NULL otherwise. */
static lc_ir_node *sole_producer(lc_ir *ir, const uses *u, int i, lc_value v, const lc_op *op)
{
    int p = u->producer[v];
    return p >= 0 && u->consumers[v] == 1 && ir->nodes[p].op == op &&
                   ir->nodes[p].part == ir->nodes[i].part
               ? &ir->nodes[p]
               : NULL;
}

static bool is_param(const lc_ir *ir, lc_value v)
{
    return ir->values[v].kind == LC_VALUE_PARAM;
}

/* `kept` now computes what node i computed, from the inputs in[0 .. n_in), at i's place: there all
 * of them are ready. */
static lc_status move_into(lc_ir *ir, uses *u, lc_ir_node *kept, int i, int n_in,
                           const lc_value *in)
{
    lc_ir_node moved = *kept;
    moved.out = ir->nodes[i].out;
    kept->op = NULL;
    ir->nodes[i] = moved;
    LC_TRY(lc_ir_set_inputs(ir, i, n_in, in));
    u->producer[lc_ir_out(ir, &ir->nodes[i])[0]] = i;
    return LC_OK;
}

#define MAX_CONV_IN 8 /* x, w, b, gamma, beta, mean, var, residual */

/* conv2d -> batch_norm (its four parameters at hand)  =>  conv2d with LC_CONV_BN */
static lc_status fold_batch_norm(lc_ir *ir, uses *u, int i)
{
    const lc_ir_node *bn = &ir->nodes[i];
    const lc_batch_norm_attr *attr = (const lc_batch_norm_attr *)bn->attr;
    if (bn->op != &lc_op_batch_norm || !attr->affine || attr->relu || attr->batch || attr->add)
        return LC_OK;
    lc_value in[MAX_CONV_IN];
    const lc_value *bn_in = lc_ir_in(ir, bn);
    lc_ir_node *conv = sole_producer(ir, u, i, bn_in[0], &lc_op_conv2d);
    if (!conv || ir->values[bn_in[0]].desc.rank != 4)
        return LC_OK;
    lc_conv2d_attr *conv_attr = (lc_conv2d_attr *)conv->attr;
    if (conv_attr->flags & ~(uint32_t)LC_CONV_BIAS)
        return LC_OK;
    for (int k = 1; k < 5; k++)
        if (!is_param(ir, bn_in[k]))
            return LC_OK;
    int n = conv->n_in;
    memcpy(in, lc_ir_in(ir, conv), (size_t)n * sizeof *in);
    memcpy(in + n, bn_in + 1, 4 * sizeof *in);
    conv_attr->flags |= LC_CONV_BN;
    conv_attr->bn_eps = attr->eps;
    return move_into(ir, u, conv, i, n + 4, in);
}

/* batch_norm -> add(., r)  =>  batch_norm with `add`; the later one of two. */
static lc_status fuse_add_norm(lc_ir *ir, uses *u, int i)
{
    const lc_value *terms = lc_ir_in(ir, &ir->nodes[i]);
    lc_ir_node *norm = NULL;
    lc_value residual = LC_NONE;
    for (int k = 0; k < 2; k++) {
        lc_ir_node *c = sole_producer(ir, u, i, terms[k], &lc_op_batch_norm);
        const lc_batch_norm_attr *attr = c ? (const lc_batch_norm_attr *)c->attr : NULL;
        if (c && !attr->add && !attr->relu && c > norm) {
            norm = c;
            residual = terms[1 - k];
        }
    }
    if (!norm)
        return LC_OK;
    lc_value in[MAX_CONV_IN];
    int n = norm->n_in;
    memcpy(in, lc_ir_in(ir, norm), (size_t)n * sizeof *in);
    in[n] = residual;
    ((lc_batch_norm_attr *)norm->attr)->add = 1;
    return move_into(ir, u, norm, i, n + 1, in);
}

/* conv2d -> add(., r)  =>  conv2d with LC_CONV_ADD. Of two convolutions the later one takes the
 * sum. */
static lc_status fuse_add(lc_ir *ir, uses *u, int i)
{
    const lc_ir_node *add = &ir->nodes[i];
    const lc_binary_attr *attr = (const lc_binary_attr *)add->attr;
    if (add->op != &lc_op_binary || attr->kind != LC_BINARY_ADD || attr->relu)
        return LC_OK;
    lc_value a = lc_ir_in(ir, add)[0], b = lc_ir_in(ir, add)[1];
    if (a == b || ir->values[a].desc.rank != 4 ||
        !lc_desc_same_shape(&ir->values[a].desc, &ir->values[b].desc))
        return LC_OK;
    lc_ir_node *conv = NULL;
    lc_value residual = LC_NONE;
    for (int k = 0; k < 2; k++) {
        lc_ir_node *c = sole_producer(ir, u, i, k ? b : a, &lc_op_conv2d);
        if (c && !(((lc_conv2d_attr *)c->attr)->flags & (LC_CONV_ADD | LC_CONV_RELU)) && c > conv) {
            conv = c;
            residual = k ? a : b;
        }
    }
    if (!conv)
        return fuse_add_norm(ir, u, i);
    lc_value in[MAX_CONV_IN];
    int n = conv->n_in;
    memcpy(in, lc_ir_in(ir, conv), (size_t)n * sizeof *in);
    in[n] = residual;
    ((lc_conv2d_attr *)conv->attr)->flags |= LC_CONV_ADD;
    return move_into(ir, u, conv, i, n + 1, in);
}

/* conv2d, batch_norm or add -> relu  =>  the first with its ReLU flag */
static lc_status fuse_relu(lc_ir *ir, uses *u, int i)
{
    const lc_ir_node *relu = &ir->nodes[i];
    if (relu->op != &lc_op_unary || ((const lc_unary_attr *)relu->attr)->kind != LC_UNARY_RELU)
        return LC_OK;
    lc_value x = lc_ir_in(ir, relu)[0];
    lc_ir_node *p;
    if ((p = sole_producer(ir, u, i, x, &lc_op_conv2d))) {
        ((lc_conv2d_attr *)p->attr)->flags |= LC_CONV_RELU; /* relu(relu(x)) == relu(x) */
    } else if ((p = sole_producer(ir, u, i, x, &lc_op_batch_norm))) {
        ((lc_batch_norm_attr *)p->attr)->relu = 1;
    } else if ((p = sole_producer(ir, u, i, x, &lc_op_binary)) &&
               ((lc_binary_attr *)p->attr)->kind == LC_BINARY_ADD) {
        ((lc_binary_attr *)p->attr)->relu = 1;
    } else {
        return LC_OK;
    }
    lc_value in[MAX_CONV_IN];
    int n = p->n_in;
    memcpy(in, lc_ir_in(ir, p), (size_t)n * sizeof *in);
    return move_into(ir, u, p, i, n, in);
}

/* Does a node between `from` and `to` read v? */
static bool read_between(const lc_ir *ir, lc_value v, int from, int to)
{
    for (int i = from + 1; i < to; i++)
        for (int k = 0; ir->nodes[i].op && k < ir->nodes[i].n_in; k++)
            if (lc_ir_in(ir, &ir->nodes[i])[k] == v)
                return true;
    return false;
}

/* Is y the ReLU of the norm of x that `grad` is the gradient of? Then the mask can be had from x. */
static const lc_ir_node *norm_with_relu(const lc_ir *ir, const uses *u, const lc_ir_node *grad,
                                        lc_value y)
{
    const lc_batch_norm_grad_attr *a = (const lc_batch_norm_grad_attr *)grad->attr;
    const lc_ir_node *norm = u->producer[y] >= 0 ? &ir->nodes[u->producer[y]] : NULL;
    if (!norm || norm->op != &lc_op_batch_norm)
        return NULL;
    const lc_batch_norm_attr *f = (const lc_batch_norm_attr *)norm->attr;
    int mean = f->affine ? 3 : 1, grad_mean = a->affine ? 3 : 2;
    bool same = f->relu && !f->add && f->affine == a->affine && f->batch == a->batch &&
                lc_ir_in(ir, norm)[0] == lc_ir_in(ir, grad)[1];
    for (int k = 0; k < 2; k++)
        same = same && lc_ir_in(ir, norm)[mean + k] == lc_ir_in(ir, grad)[grad_mean + k];
    return same ? norm : NULL;
}

/* relu_grad -> batch_norm_grad  =>  batch_norm_grad with a mask. Others that read the masked
 * gradient (what was added before the ReLU) get it from there. */
static lc_status fuse_norm_mask(lc_ir *ir, uses *u, int i)
{
    if (ir->nodes[i].op != &lc_op_batch_norm_grad)
        return LC_OK;
    lc_ir_node grad = ir->nodes[i];
    lc_batch_norm_grad_attr *a = (lc_batch_norm_grad_attr *)grad.attr;
    lc_value in[MAX_CONV_IN], out[LC_MAX_OUT], dy = lc_ir_in(ir, &grad)[0];
    int at = u->producer[dy], n = grad.n_in;
    if (a->mask || at < 0 || ir->nodes[at].op != &lc_op_binary || ir->nodes[at].part != grad.part ||
        ((lc_binary_attr *)ir->nodes[at].attr)->kind != LC_BINARY_MASK ||
        !lc_desc_same_shape(&ir->values[lc_ir_in(ir, &ir->nodes[at])[1]].desc,
                            &ir->values[dy].desc) ||
        (u->consumers[dy] > 1 && read_between(ir, dy, at, i)))
        return LC_OK;
    lc_value y = lc_ir_in(ir, &ir->nodes[at])[1];
    memcpy(in, lc_ir_in(ir, &grad), (size_t)n * sizeof *in);
    in[0] = lc_ir_in(ir, &ir->nodes[at])[0];
    const lc_ir_node *norm = norm_with_relu(ir, u, &grad, y);
    a->mask = norm ? LC_NORM_MASK_X : LC_NORM_MASK_Y;
    if (!norm)
        in[n++] = y;
    else if (a->affine)
        in[n++] = lc_ir_in(ir, norm)[2];
    if (--u->consumers[y] == 0 && norm) /* it was computed again for the mask alone */
        ir->nodes[u->producer[y]].op = NULL;
    if (u->consumers[dy] > 1) {
        a->residual = 1;
        out[0] = dy;
        memcpy(out + 1, lc_ir_out(ir, &grad), (size_t)grad.n_out * sizeof *out);
        LC_TRY(lc_ir_set_outputs(ir, i, grad.n_out + 1, out));
        u->producer[dy] = i;
        u->consumers[dy]--;
    }
    memcpy(ir->nodes[i].attr, grad.attr, sizeof grad.attr);
    ir->nodes[at].op = NULL;
    return lc_ir_set_inputs(ir, i, n, in);
}

/* split_apply_grad + split_gap_grad  =>  split_apply_grad with three inputs */
static lc_status fuse_split_grad(lc_ir *ir, uses *u, int i)
{
    const lc_ir_node *add = &ir->nodes[i];
    if (add->op != &lc_op_binary || ((const lc_binary_attr *)add->attr)->kind != LC_BINARY_ADD ||
        ((const lc_binary_attr *)add->attr)->relu)
        return LC_OK;
    for (int k = 0; k < 2; k++) {
        const lc_value *terms = lc_ir_in(ir, add);
        lc_ir_node *apply = sole_producer(ir, u, i, terms[k], &lc_op_split_apply_grad);
        lc_ir_node *gap = sole_producer(ir, u, i, terms[1 - k], &lc_op_split_gap_grad);
        if (!apply || !gap || apply->n_in != 2 ||
            ((lc_split_attr *)apply->attr)->radix !=
                ((lc_split_gap_grad_attr *)gap->attr)->split.radix ||
            ((lc_split_attr *)apply->attr)->cardinality !=
                ((lc_split_gap_grad_attr *)gap->attr)->split.cardinality)
            continue;
        lc_value in[3] = {lc_ir_in(ir, apply)[0], lc_ir_in(ir, apply)[1], lc_ir_in(ir, gap)[0]};
        gap->op = NULL;
        return move_into(ir, u, apply, i, 3, in);
    }
    return LC_OK;
}

static lc_status for_each_node(lc_ir *ir, lc_status (*rewrite)(lc_ir *, uses *, int))
{
    uses u;
    LC_TRY(count_uses(ir, &u));
    lc_status status = LC_OK;
    for (int i = 0; i < ir->n_nodes && status == LC_OK; i++)
        if (ir->nodes[i].op)
            status = rewrite(ir, &u, i);
    lc_free(u.producer);
    if (status == LC_OK)
        lc_ir_compact(ir);
    return status;
}

static lc_status pass_fold_batch_norm(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    return for_each_node(ir, fold_batch_norm);
}

static lc_status pass_fuse_add(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    return for_each_node(ir, fuse_add);
}

static lc_status pass_fuse_relu(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    return for_each_node(ir, fuse_relu);
}

static lc_status pass_fuse_norm_mask(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    return for_each_node(ir, fuse_norm_mask);
}

static lc_status pass_fuse_split_grad(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    return for_each_node(ir, fuse_split_grad);
}

/* Which values may be written straight into the memory of an output: those that a node makes, in
 * the part whose outputs they are, and that backward does not read when they are in the user's
 * hands (also through views). */
static void find_ownable(const lc_ir *ir, bool *later, bool *ownable[2])
{
    for (int i = ir->n_nodes - 1; i >= 0; i--) {
        const lc_ir_node *n = &ir->nodes[i];
        for (int k = 0; k < n->n_in; k++)
            if (n->part || (n->op->is_view && later[lc_ir_out(ir, n)[0]]))
                later[lc_ir_in(ir, n)[k]] = true;
    }
    for (int i = 0; i < ir->n_nodes; i++)
        for (int o = 0; o < ir->nodes[i].n_out; o++) {
            lc_value v = lc_ir_out(ir, &ir->nodes[i])[o];
            ownable[ir->nodes[i].part][v] = ir->nodes[i].part == 1 || !later[v];
        }
}

/* Outputs that no step of their own would write (inputs, parameters, values wanted twice), and
 * those that backward reads after they are in the user's hands, get a copy. */
static lc_status pass_own_outputs(lc_ir *ir, const lc_kernels *kernels)
{
    (void)kernels;
    lc_status status = LC_OK;
    size_t n_values = (size_t)ir->n_values;
    bool *later = lc_alloc_zero(3 * n_values + 1);
    if (!later)
        return LC_ERR_MEMORY;
    bool *ownable[2] = {later + n_values, later + 2 * n_values};
    find_ownable(ir, later, ownable);
    for (int i = 0; i < ir->n_outs; i++) {
        lc_value v = ir->outs[i];
        bool own = ir->values[v].kind == LC_VALUE_NODE && ownable[i >= ir->n_forward][v];
        for (int k = 0; k < i; k++)
            own &= ir->outs[k] != v;
        if (own)
            continue;
        lc_reshape_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.rank = ir->values[v].desc.rank;
        memcpy(attr.dim, ir->values[v].desc.dim, sizeof attr.dim);
        int n_out;
        lc_value copy[LC_MAX_OUT];
        LC_TRY_GOTO(lc_ir_infer(ir, &lc_op_reshape, &attr, 1, &v, ir->n_nodes, &n_out, copy), done);
        LC_TRY_GOTO(lc_ir_add_node(ir, &lc_op_reshape, &attr, 1, &v, 1, copy), done);
        ir->nodes[ir->n_nodes - 1].part = i >= ir->n_forward;
        ir->outs[i] = copy[0];
    }
    status = lc_ir_sort_parts(ir);
done:
    lc_free(later);
    return status;
}

/* Weights that a node wants packed become the output of a node of their own, put right before it.
 */
static lc_status pass_pack(lc_ir *ir, const lc_kernels *kernels)
{
    int n_nodes = ir->n_nodes;
    lc_ir_node *old = lc_alloc((size_t)n_nodes * sizeof *old + 1);
    if (!old)
        return LC_ERR_MEMORY;
    memcpy(old, ir->nodes, (size_t)n_nodes * sizeof *old);
    ir->n_nodes = 0;
    lc_status status = LC_OK;
    for (int i = 0; i < n_nodes; i++) {
        lc_ir_node *n = &old[i];
        lc_pack_spec spec;
        lc_desc in[MAX_CONV_IN], out[LC_MAX_OUT];
        lc_value args[MAX_CONV_IN];
        int n_in = n->n_in;
        bool pack = n->op->pack && n_in <= MAX_CONV_IN;
        if (pack) {
            memcpy(args, lc_ir_in(ir, n), (size_t)n_in * sizeof *args);
            for (int k = 0; k < n_in; k++)
                in[k] = ir->values[args[k]].desc;
            for (int k = 0; k < n->n_out; k++)
                out[k] = ir->values[lc_ir_out(ir, n)[k]].desc;
            memset(&spec, 0, sizeof spec);
            pack = n->op->pack(n->attr, n_in, in, out, kernels, &spec);
        }
        if (pack) {
            int n_out;
            lc_value blob[LC_MAX_OUT];
            LC_TRY_GOTO(lc_ir_infer(ir, spec.op, spec.attr, spec.count, args + spec.first,
                                    ir->n_nodes, &n_out, blob),
                        done);
            LC_TRY_GOTO(
                lc_ir_add_node(ir, spec.op, spec.attr, spec.count, args + spec.first, 1, blob),
                done);
            ir->nodes[ir->n_nodes - 1].scope = n->scope;
            n->op->set_packed(n->attr, n_in, in, &spec);
            args[spec.first] = blob[0];
            for (int k = spec.first + spec.count; k < n_in; k++)
                args[k - spec.count + 1] = args[k];
            n_in -= spec.count - 1;
        }
        lc_value outs[LC_MAX_OUT];
        memcpy(outs, lc_ir_out(ir, n), (size_t)n->n_out * sizeof *outs);
        if (pack) {
            ir->nodes[ir->n_nodes - 1].part = n->part;
            LC_TRY_GOTO(lc_ir_add_node(ir, n->op, n->attr, n_in, args, n->n_out, outs), done);
            ir->nodes[ir->n_nodes - 1].part = n->part;
        } else { /* its argument lists stay where they are */
            LC_TRY_GOTO(lc_ir_add_node(ir, n->op, n->attr, 0, NULL, 0, NULL), done);
            ir->nodes[ir->n_nodes - 1] = *n;
        }
        ir->nodes[ir->n_nodes - 1].scope = n->scope;
    }
done:
    lc_free(old);
    return status;
}

const lc_pass lc_passes[] = {
    {"fold_batch_norm", pass_fold_batch_norm},
    {"fuse_add", pass_fuse_add},
    {"fuse_relu", pass_fuse_relu},
    {"fuse_norm_mask", pass_fuse_norm_mask},
    {"fuse_split_grad", pass_fuse_split_grad},
    {"remake", lc_pass_remake},
    {"layout", lc_pass_layout},
    {"own_outputs", pass_own_outputs},
    {"pack", pass_pack},
    {NULL, NULL},
};
