/* ResNet, ResNeXt and ResNeSt as one builder: children conv1, bn1, relu, maxpool, layer1 .. layer4,
 * [norm], global_pool, [drop], fc. The module's config is its lc_resnet_config, all pointers in it
 * NULL. */
#ifndef LC_MODELS_RESNET_H
#define LC_MODELS_RESNET_H

#include "models/blocks.h"

typedef enum lc_stem {
    LC_STEM_PLAIN = 0,
    LC_STEM_DEEP = 1
} lc_stem; /* 7x7; or three 3x3 (stem_width, stem_width, 2 * stem_width) */
typedef enum lc_shortcut {
    LC_SHORTCUT_CONV = 0,    /* 0: 1x1 stride s, 1: norm */
    LC_SHORTCUT_AVG_POOL = 1 /* ResNeSt. 0: average pool s (identity where s is 1), 1: 1x1, 2: norm;
                              * lucid 2.x (args.lucid2). 0: identity, 1: 1x1 stride s, 2: norm */
} lc_shortcut;

typedef struct lc_resnet_config {
    const char *class_name; /* "ResNet", "ResNeXt" or "ResNeSt" (a static string) */
    lc_block_type block;
    int64_t layers[4];
    int64_t channels[4];
    int64_t num_classes; /* 0: no head, the pooled features are returned */
    int64_t in_channels;
    int64_t stem_width; /* plain: channels of the 7x7; deep: of the first two 3x3 */
    lc_stem stem;
    lc_shortcut shortcut;
    lc_block_args args;     /* cardinality, base_width, radix, ...; sizes are filled in per block */
    double drop_rate;       /* dropout before the classifier */
    double drop_block_rate; /* DropBlock in the last two stages (of our own blocks) */
    double drop_path_rate;  /* of the last block; it grows linearly from 0 for the first one */
    bool final_norm;        /* pre-activation: BN + ReLU before pooling, key "norm" */
    bool bare_stem; /* lucid 2.x: the deep stem ends in its third convolution, without bn1 and ReLU
                     */
    bool zero_padded_pool; /* lucid 2.x: max pool padded with zeros */
} lc_resnet_config;
void lc_resnet_config_init(
    lc_resnet_config *c); /* ResNet, basic block, (2,2,2,2), (64,128,256,512), 1000, 3, 64, plain */

lc_status lc_resnet_create(const lc_resnet_config *c, lc_module **out);
extern const lc_module_class lc_class_resnet, lc_class_resnext, lc_class_resnest;

/* The class of a layer, block or model by its name ("Conv2d", "BasicBlock", "ResNet"); NULL:
 * unknown. */
const lc_module_class *lc_module_class_find(const char *name);

/* --- the 24 variants */
typedef struct lc_variant {
    const char *name; /* "resnet_50" */
    lc_resnet_config config;
} lc_variant;
int lc_variant_count(void);
const lc_variant *lc_variant_get(int i);
const lc_variant *lc_variant_find(const char *name); /* NULL: unknown */
/* Turns a config into lucid 2.x's graph (compat="lucid2"): ResNeSt differs, the others stay as they
 * are. LC_ERR_VALUE for a ResNeSt that lucid has not: one with a plain stem or radix 0. */
lc_status lc_resnet_config_lucid2(lc_resnet_config *c);

#endif
