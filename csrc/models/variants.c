/* The 24 variants by name. */
#include <string.h>

#include "base/threads.h"
#include "models/resnet.h"

enum { DEEP_AVG = 1, AVD_FIRST = 2 }; /* the ResNeSt form; where its pool stands */

typedef struct row {
    const char *name, *class_name;
    const lc_block_type *block;
    int layers[4];
    int cardinality, base_width, radix, stem_width;
    unsigned form;
} row;

#define BASIC &lc_block_basic
#define BOTTLENECK &lc_block_bottleneck
#define PREACT &lc_block_preact_bottleneck
#define SPLIT &lc_block_resnest_bottleneck

/* name, class, block, layers, cardinality, base width, radix, stem width, form */
static const row rows[] = {
    {"resnet_18", "ResNet", BASIC, {2, 2, 2, 2}, 1, 64, 0, 64, 0},
    {"resnet_34", "ResNet", BASIC, {3, 4, 6, 3}, 1, 64, 0, 64, 0},
    {"resnet_50", "ResNet", BOTTLENECK, {3, 4, 6, 3}, 1, 64, 0, 64, 0},
    {"resnet_101", "ResNet", BOTTLENECK, {3, 4, 23, 3}, 1, 64, 0, 64, 0},
    {"resnet_152", "ResNet", BOTTLENECK, {3, 8, 36, 3}, 1, 64, 0, 64, 0},
    {"resnet_200", "ResNet", PREACT, {3, 24, 36, 3}, 1, 64, 0, 64, 0},
    {"resnet_269", "ResNet", PREACT, {3, 30, 48, 8}, 1, 64, 0, 64, 0},
    {"resnet_1001", "ResNet", PREACT, {3, 94, 94, 3}, 1, 64, 0, 64, 0},
    {"wide_resnet_50", "ResNet", BOTTLENECK, {3, 4, 6, 3}, 1, 128, 0, 64, 0},
    {"wide_resnet_101", "ResNet", BOTTLENECK, {3, 4, 23, 3}, 1, 128, 0, 64, 0},
    {"resnext_50_32x4d", "ResNeXt", BOTTLENECK, {3, 4, 6, 3}, 32, 4, 0, 64, 0},
    {"resnext_101_32x4d", "ResNeXt", BOTTLENECK, {3, 4, 23, 3}, 32, 4, 0, 64, 0},
    {"resnext_101_32x8d", "ResNeXt", BOTTLENECK, {3, 4, 23, 3}, 32, 8, 0, 64, 0},
    {"resnext_101_32x16d", "ResNeXt", BOTTLENECK, {3, 4, 23, 3}, 32, 16, 0, 64, 0},
    {"resnext_101_32x32d", "ResNeXt", BOTTLENECK, {3, 4, 23, 3}, 32, 32, 0, 64, 0},
    {"resnext_101_64x4d", "ResNeXt", BOTTLENECK, {3, 4, 23, 3}, 64, 4, 0, 64, 0},
    {"resnest_14", "ResNeSt", SPLIT, {1, 1, 1, 1}, 1, 64, 2, 32, DEEP_AVG},
    {"resnest_26", "ResNeSt", SPLIT, {2, 2, 2, 2}, 1, 64, 2, 32, DEEP_AVG},
    {"resnest_50", "ResNeSt", SPLIT, {3, 4, 6, 3}, 1, 64, 2, 32, DEEP_AVG},
    {"resnest_101", "ResNeSt", SPLIT, {3, 4, 23, 3}, 1, 64, 2, 64, DEEP_AVG},
    {"resnest_200", "ResNeSt", SPLIT, {3, 24, 36, 3}, 1, 64, 2, 64, DEEP_AVG},
    {"resnest_269", "ResNeSt", SPLIT, {3, 30, 48, 8}, 1, 64, 2, 64, DEEP_AVG},
    {"resnest_50_4s2x40d", "ResNeSt", SPLIT, {3, 4, 6, 3}, 2, 40, 4, 32, DEEP_AVG | AVD_FIRST},
    {"resnest_50_1s4x24d", "ResNeSt", SPLIT, {3, 4, 6, 3}, 4, 24, 1, 32, DEEP_AVG | AVD_FIRST},
};

enum { COUNT = sizeof rows / sizeof *rows };

static void fill(lc_variant *v, const row *r)
{
    lc_resnet_config *c = &v->config;
    v->name = r->name;
    lc_resnet_config_init(c);
    c->class_name = r->class_name;
    c->block = *r->block;
    for (int s = 0; s < 4; s++)
        c->layers[s] = r->layers[s];
    c->stem_width = r->stem_width;
    c->args.cardinality = r->cardinality;
    c->args.base_width = r->base_width;
    if (r->form & DEEP_AVG) {
        c->stem = LC_STEM_DEEP;
        c->shortcut = LC_SHORTCUT_AVG_POOL;
        c->args.radix = r->radix;
        c->args.avd_first = (r->form & AVD_FIRST) != 0;
    }
}

static const lc_variant *table(void)
{
    static lc_variant variants[COUNT];
    static bool filled;
    lc_lock_take(LC_LOCK_MODEL);
    for (int i = 0; !filled && i < COUNT; i++)
        fill(&variants[i], &rows[i]);
    filled = true;
    lc_lock_give(LC_LOCK_MODEL);
    return variants;
}

int lc_variant_count(void)
{
    return COUNT;
}

const lc_variant *lc_variant_get(int i)
{
    return i >= 0 && i < COUNT ? &table()[i] : NULL;
}

const lc_variant *lc_variant_find(const char *name)
{
    for (int i = 0; name && i < COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &table()[i];
    return NULL;
}

lc_status lc_resnet_config_lucid2(lc_resnet_config *c)
{
    /* lucid's ResNets and ResNeXts are ours: nothing negative reaches their max pool, so that
     * padding with zeros is padding with -inf. */
    if (strcmp(c->class_name, "ResNeSt") != 0)
        return LC_OK;
    if (c->stem != LC_STEM_DEEP)
        return lc_fail(LC_ERR_VALUE, "compat=\"lucid2\": lucid's ResNeSt has a deep stem");
    if (c->args.radix < 1)
        return lc_fail(LC_ERR_VALUE, "compat=\"lucid2\": lucid's ResNeSt has a radix of 1 or more");
    c->bare_stem = true;
    c->zero_padded_pool = true;
    c->args.lucid2 = true;
    return LC_OK;
}
