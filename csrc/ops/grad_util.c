#include "ops/grad_util.h"

#include <string.h>

lc_status lc_grad_node(const lc_builder *b, const lc_op *op, const void *attr, int n_in,
                       const lc_value *in, lc_value *out)
{
    lc_value made[LC_MAX_OUT];
    LC_TRY(b->append(b->ctx, op, attr, n_in, in, made));
    *out = made[0];
    return LC_OK;
}

lc_status lc_grad_unary(const lc_builder *b, uint32_t kind, float lo, float hi, lc_value x,
                        lc_value *out)
{
    lc_unary_attr a = {kind, lo, hi};
    return lc_grad_node(b, &lc_op_unary, &a, 1, &x, out);
}

lc_status lc_grad_binary(const lc_builder *b, uint32_t kind, lc_value x, lc_value y, lc_value *out)
{
    lc_binary_attr a = {kind, 0};
    return lc_grad_node(b, &lc_op_binary, &a, 2, (lc_value[]){x, y}, out);
}

lc_status lc_grad_scale(const lc_builder *b, float factor, lc_value x, lc_value *out)
{
    return lc_grad_unary(b, LC_UNARY_SCALE_SHIFT, factor, 0.0f, x, out);
}

lc_status lc_grad_shape(const lc_builder *b, lc_value x, int rank, const int64_t *dim,
                        lc_value *out)
{
    lc_reshape_attr a;
    memset(&a, 0, sizeof a);
    a.rank = rank;
    memcpy(a.dim, dim, (size_t)rank * sizeof *a.dim);
    return lc_grad_node(b, &lc_op_reshape, &a, 1, &x, out);
}

lc_status lc_grad_reshape(const lc_builder *b, lc_value x, const lc_desc *like, lc_value *out)
{
    *out = x;
    if (lc_desc_same_shape(b->desc(b->ctx, x), like))
        return LC_OK;
    return lc_grad_shape(b, x, like->rank, like->dim, out);
}

lc_status lc_grad_expand(const lc_builder *b, lc_value x, const lc_desc *like, lc_value *out)
{
    lc_expand_attr a;
    memset(&a, 0, sizeof a);
    *out = x;
    if (lc_desc_same_shape(b->desc(b->ctx, x), like))
        return LC_OK;
    a.rank = like->rank;
    memcpy(a.dim, like->dim, (size_t)like->rank * sizeof *a.dim);
    return lc_grad_node(b, &lc_op_expand, &a, 1, &x, out);
}

lc_status lc_grad_sum_to(const lc_builder *b, lc_value dy, const lc_desc *like, lc_value *out)
{
    const lc_desc d = *b->desc(b->ctx, dy), want = *like;
    lc_reduce_attr a;
    memset(&a, 0, sizeof a);
    a.kind = LC_REDUCE_SUM;
    a.keepdim = 1;
    for (int i = 0; i < d.rank; i++) {
        int own = i - (d.rank - want.rank);
        if (own < 0 || want.dim[own] != d.dim[i])
            a.axes |= 1u << i;
    }
    *out = dy;
    if (a.axes)
        LC_TRY(lc_grad_node(b, &lc_op_reduce, &a, 1, &dy, out));
    return lc_grad_reshape(b, *out, &want, out);
}
