/* What the layers share. */
#ifndef LC_NN_LAYER_UTIL_H
#define LC_NN_LAYER_UTIL_H

#include "nn/module.h"

/* LC_ERR_TYPE unless the module was given one input. */
lc_status lc_layer_one_input(const lc_module *m, int n_in);

/* LC_ERR_VALUE unless min <= value < 2^31: products of two sizes then fit. */
lc_status lc_layer_size(const char *layer, const char *what, int64_t value, int64_t min);

/* A node with one input and one output. */
lc_status lc_layer_unary(lc_graph *g, const lc_op *op, const void *attr, lc_value x, lc_value *out);
lc_status lc_layer_reshape(lc_graph *g, lc_value x, int rank, const int64_t *dim, lc_value *out);

/* The draw of a random op, with a stream that nobody else gets. LC_ERR_VALUE unless p is a share. */
lc_status lc_layer_draw(lc_graph *g, double p, lc_value *out);

/* An unbatched image (C, H, W) becomes a batch of one and *added is set; others go through. */
lc_status lc_layer_batch(lc_graph *g, lc_value x, lc_value *out, bool *added);
/* And back, where *added was set. */
lc_status lc_layer_unbatch(lc_graph *g, lc_value y, bool added, lc_value *out);
/* The node between those two. */
lc_status lc_layer_image_op(lc_graph *g, const lc_op *op, const void *attr, lc_value x,
                            lc_value *out);

#endif
