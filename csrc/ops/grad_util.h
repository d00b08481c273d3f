/* Short forms for the backward of ops: append one node, get its value. */
#ifndef LC_OPS_GRAD_UTIL_H
#define LC_OPS_GRAD_UTIL_H

#include "ops/ops.h"

/* The first output of a node with these inputs. */
lc_status lc_grad_node(const lc_builder *b, const lc_op *op, const void *attr, int n_in,
                       const lc_value *in, lc_value *out);
lc_status lc_grad_unary(const lc_builder *b, uint32_t kind, float lo, float hi, lc_value x,
                        lc_value *out);
lc_status lc_grad_binary(const lc_builder *b, uint32_t kind, lc_value x, lc_value y, lc_value *out);
/* x * factor */
lc_status lc_grad_scale(const lc_builder *b, float factor, lc_value x, lc_value *out);
/* x with other sizes. */
lc_status lc_grad_shape(const lc_builder *b, lc_value x, int rank, const int64_t *dim,
                        lc_value *out);
lc_status lc_grad_reshape(const lc_builder *b, lc_value x, const lc_desc *like, lc_value *out);
lc_status lc_grad_expand(const lc_builder *b, lc_value x, const lc_desc *like, lc_value *out);
/* What broadcasting `like` to the shape of dy asks for: the sum of dy over what was repeated. */
lc_status lc_grad_sum_to(const lc_builder *b, lc_value dy, const lc_desc *like, lc_value *out);

#endif
