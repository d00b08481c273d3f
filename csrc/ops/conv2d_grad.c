/* The gradient of convolution: dy and w make dx, dy and x make dw, dy alone makes db. */
#include <string.h>

#include "ops/conv_form.h"
#include "ops/ops.h"

static lc_status append_input_grad(const lc_backward *g, const lc_conv2d_attr *forward)
{
    const lc_desc *x = g->b->desc(g->b->ctx, g->in[0]);
    lc_conv2d_attr a = *forward;
    a.flags = LC_CONV_TRANSPOSED;
    a.out[0] = x->dim[2];
    a.out[1] = x->dim[3];
    return g->b->append(g->b->ctx, &lc_op_conv2d, &a, 2, (lc_value[]){g->dy[0], g->in[1]},
                        &g->dx[0]);
}

static lc_status append_weight_grad(const lc_backward *g, const lc_conv2d_attr *forward)
{
    const lc_desc *w = g->b->desc(g->b->ctx, g->in[1]);
    lc_conv2d_attr a = *forward;
    a.flags = 0;
    a.kernel[0] = w->dim[2];
    a.kernel[1] = w->dim[3];
    return g->b->append(g->b->ctx, &lc_op_conv2d_weight_grad, &a, 2,
                        (lc_value[]){g->dy[0], g->in[0]}, &g->dx[1]);
}

/* Over height and width first, which takes blocked layouts as they are. */
static lc_status append_bias_grad(const lc_backward *g)
{
    lc_reduce_attr a;
    lc_value planes;
    memset(&a, 0, sizeof a);
    a.kind = LC_REDUCE_SUM;
    a.axes = 1u << 2 | 1u << 3;
    LC_TRY(g->b->append(g->b->ctx, &lc_op_reduce, &a, 1, &g->dy[0], &planes));
    a.axes = 1u << 0;
    return g->b->append(g->b->ctx, &lc_op_reduce, &a, 1, &planes, &g->dx[2]);
}

lc_status lc_conv_backward(const lc_backward *g)
{
    const lc_conv2d_attr *a = g->attr;
    if (a->flags & ~(uint32_t)LC_CONV_BIAS)
        return lc_fail(LC_ERR_RUNTIME, "conv2d: no gradient through a fused convolution");
    if (g->needs[0])
        LC_TRY(append_input_grad(g, a));
    if (g->needs[1])
        LC_TRY(append_weight_grad(g, a));
    if (a->flags & LC_CONV_BIAS && g->needs[2])
        LC_TRY(append_bias_grad(g));
    return LC_OK;
}
