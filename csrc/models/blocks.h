/* Residual blocks. Child names are those of timm and torchvision, so their checkpoints fit.
 *
 * Source: He et al. 2015 "Deep residual learning" (basic, bottleneck), He et al. 2016 "Identity
 * mappings" (pre-activation), Xie et al. 2016 (ResNeXt), Zhang et al. 2020 (ResNeSt, split
 * attention). */
#ifndef LC_MODELS_BLOCKS_H
#define LC_MODELS_BLOCKS_H

#include "nn/layers.h"

/* What a block is built from. `out_channels` is the width before expansion (64, 128, 256, 512). */
typedef struct lc_block_args {
    int64_t in_channels, out_channels, stride;
    lc_module *downsample; /* shortcut, or NULL: identity. The block takes the reference, also on
                              failure. */
    int64_t cardinality;   /* 1 */
    int64_t base_width;    /* 64 */
    int64_t dilation;      /* 1 */
    /* ResNeSt only */
    int64_t radix;        /* 2; 0: a plain conv2, bn2, relu */
    bool avd, avd_first;  /* average pool that carries the stride, after or before conv2 */
    bool is_first;        /* first block of a stage; for host blocks, ours do not look at it */
    bool lucid2;          /* lucid 2.x: radix view and attention width (compat="lucid2") */
    bool zero_last_gamma; /* the last norm of the branch starts at 0 */
    double drop_block;    /* DropBlock after every norm of the branch (pre-activation: after
                             every convolution); 0: none */
    double drop_path;     /* leaves out the branch of whole images; 0: never */
} lc_block_args;
void lc_block_args_init(lc_block_args *a); /* the defaults above, avd = true */

typedef lc_status (*lc_block_create_fn)(void *ctx, const lc_block_args *a, lc_module **out);

/* A block class: ours, or a host's (ctx is its object). */
typedef struct lc_block_type {
    const char *name;
    int64_t expansion;
    bool preact; /* the norm comes first, shortcuts read the activated input, and no ReLU follows
                    the sum */
    lc_block_create_fn create;
    void *ctx;
} lc_block_type;

/* Child names: conv1, bn1, conv2, bn2, [conv3, bn3], relu, [drop_block, drop_path], downsample;
 * ResNeSt also avd_first or avd_last where there is a pool. The config of a block module is its
 * lc_block_args, with downsample NULL. */
extern const lc_block_type lc_block_basic, lc_block_bottleneck, lc_block_preact_bottleneck,
    lc_block_resnest_bottleneck;
extern const lc_module_class lc_class_basic_block, lc_class_bottleneck, lc_class_preact_bottleneck,
    lc_class_resnest_bottleneck, lc_class_split_attention;

/* Split attention alone (conv2 of a ResNeSt block): children conv, bn0, act0, fc1, bn1, act1, fc2,
 * and drop_block after bn0 if asked for. */
typedef struct lc_split_attention_config {
    int64_t in_channels, out_channels, stride, pad, dilation, cardinality, radix;
    bool lucid2;
    double drop_block; /* 0: none */
} lc_split_attention_config;
lc_status lc_split_attention_create(const lc_split_attention_config *c, lc_module **out);

#endif
