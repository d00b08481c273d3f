/* All module classes by name. */
#include <string.h>

#include "models/resnet.h"

static const lc_module_class *const classes[] = {
    &lc_class_conv2d,
    &lc_class_batch_norm2d,
    &lc_class_linear,
    &lc_class_max_pool2d,
    &lc_class_avg_pool2d,
    &lc_class_adaptive_avg_pool2d,
    &lc_class_relu,
    &lc_class_global_avg_pool2d,
    &lc_class_sigmoid,
    &lc_class_softmax,
    &lc_class_dropout,
    &lc_class_drop_path,
    &lc_class_drop_block2d,
    &lc_class_identity,
    &lc_class_flatten,
    &lc_class_sequential,
    &lc_class_module_list,
    &lc_class_conv_bn_relu2d,
    &lc_class_split_attention,
    &lc_class_basic_block,
    &lc_class_bottleneck,
    &lc_class_preact_bottleneck,
    &lc_class_resnest_bottleneck,
    &lc_class_resnet,
    &lc_class_resnext,
    &lc_class_resnest,
};

const lc_module_class *lc_module_class_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i]->name, name) == 0)
            return classes[i];
    return NULL;
}
