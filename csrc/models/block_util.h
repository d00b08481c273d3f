/* What the blocks and the models are put together from. */
#ifndef LC_MODELS_BLOCK_UTIL_H
#define LC_MODELS_BLOCK_UTIL_H

#include "models/blocks.h"

/* Each adds a new child `name` to m. Convolutions have no bias unless their config says so; norms
 * have PyTorch's defaults. */
lc_status lc_add_conv(lc_module *m, const char *name, int64_t in, int64_t out, int64_t kernel,
                      int64_t stride);
lc_status lc_add_conv_config(lc_module *m, const char *name, const lc_conv2d_config *c);
lc_status lc_add_norm(lc_module *m, const char *name, int64_t features, bool zero_init);
lc_status lc_add_relu(lc_module *m, const char *name);
lc_status lc_add_identity(lc_module *m, const char *name);
lc_status lc_add_avg_pool(lc_module *m, const char *name, const lc_pool2d_attr *attr);
/* The child "drop_block", of squares of 3x3 as the authors of ResNeSt have it; none for p = 0. */
lc_status lc_add_drop_block(lc_module *m, double p);

/* A square convolution's config: padding keeps the size at stride 1. */
lc_conv2d_config lc_square_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                int64_t dilation, int64_t groups);

/* The module of a block class: checks the sizes in `a`, makes the module with `a` as its config,
 * calls build, and adds what drops, and `downsample` last, whose reference it takes, also on
 * failure. */
lc_status lc_block_make(const lc_module_class *cls, const lc_block_args *a,
                        lc_status (*build)(lc_module *m, const lc_block_args *a), lc_module **out);
/* Channels inside a bottleneck: int(out_channels * base_width / 64) * cardinality, at least 1. */
lc_status lc_block_width(const char *name, const lc_block_args *a, int64_t *out);

/* Is there a child of that name, and not None? */
bool lc_has_child(const lc_module *m, const char *name);
/* x through children names[0 .. n), in turn; "?name" passes over a child that is not there. */
lc_status lc_call_chain(lc_module *m, lc_graph *g, int n, const char *const *names, lc_value x,
                        lc_value *out);
/* The shortcut: x through `downsample`, or x itself where there is none. */
lc_status lc_call_shortcut(lc_module *m, lc_graph *g, lc_value x, lc_value *out);
lc_status lc_append_add(lc_graph *g, lc_value a, lc_value b, lc_value *out);

#define LC_CALL_CHAIN(m, g, x, out, ...)                                                           \
    lc_call_chain((m), (g), (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),         \
                  (const char *[]){__VA_ARGS__}, (x), (out))

#endif
