/* What a model consists of and costs on an input of a given size, found by recording it with no
 * data. */
#ifndef LC_MODELS_INFO_H
#define LC_MODELS_INFO_H

#include "nn/module.h"

typedef struct lc_info_row { /* a recorded node */
    const char *scope;       /* path of the module that appended it, "layer1.0.conv1" */
    const char *op;          /* "conv2d" */
    lc_desc in, out;         /* of its first input, its output */
    int64_t params;          /* elements of the parameters that it reads and no row before it */
    int64_t macs;            /* multiply-adds: convolution, linear, matmul */
    int64_t card_flops;      /* as ResNeSt's model card counts; see lc_info */
} lc_info_row;

typedef struct lc_info {
    int count;
    lc_info_row *rows;
    int64_t params;  /* elements of all parameters of the tree, each counted once; no buffers */
    int64_t buffers; /* likewise of persistent buffers */
    int64_t macs;
    /* The figure of the ResNeSt model card, which goes with an input of height S and width
     * S * 1546 / 1213. Convolution: multiply-adds, plus 1 per output if it has a bias; batch norm:
     * 2 per element; average pool: 1 per output; adaptive pool: window + 1 per output; all else,
     * the linear head too: 0. */
    int64_t card_flops;
    int64_t largest_bytes; /* largest input + output of one row */
    char *text;            /* the paths */
} lc_info;

/* Appends m to g on a new input; data may be NULL where nothing will be run. */
lc_status lc_module_record(lc_module *m, lc_graph *g, const lc_desc *desc, const void *data,
                           lc_value *x, lc_value *y);

/* Records m on an input (N, C, H, W), in g, which keeps the nodes, or in a graph of its own where g
 * is NULL. The info is the caller's, for lc_info_free. */
lc_status lc_model_info(lc_module *m, lc_graph *g, const int64_t shape[4], lc_info *out);
void lc_info_free(lc_info *info); /* safe on a zeroed one */

#endif
