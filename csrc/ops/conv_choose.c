/* Which algorithm a convolution gets: the first of a list that accepts it. A function of the
 * layer, H, W, the block (ISA) and LUCID_C_CONV; never of N, threads or caches, nor are the bits.
 * Only tuning, which somebody has to ask for, prefers another one that accepts.
 */
#include "ops/conv_form.h"
#include "ops/conv_tuning.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Fewer blocks of channels than this per group, in or out, and the transforms cost what the
 * products save. Measured with blocks of 8, against direct sums: 1.6 to 2 times as fast at 16
 * channels. */
#define MIN_BLOCKS 2
/* Tiles of one image. With four (7x7) the transformed weights, four times as many bytes, are read
 * for too little work. */
#define MIN_TILES 9

static bool force_direct;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
    const char *mode = getenv("LUCID_C_CONV");
    force_direct = mode && strcmp(mode, "direct") == 0;
}

typedef struct conv_layer {
    const lc_conv2d_attr *attr;
    const lc_desc *x, *w;
    int64_t oh, ow;
} conv_layer;

/* NULL if Winograd is the right thing to do, or why it is not. */
static const char *refuse_winograd(const conv_layer *l)
{
    const lc_conv2d_attr *a = l->attr;
    pthread_once(&once, read_environment);
    if (force_direct)
        return "LUCID_C_CONV=direct";
    if (l->w->dim[2] != 3 || l->w->dim[3] != 3)
        return "the kernel is not 3x3";
    if (a->stride[0] != 1 || a->stride[1] != 1 || a->dilation[0] != 1 || a->dilation[1] != 1)
        return "stride or dilation is not 1";
    for (int i = 0; i < 4; i++)
        if (a->pad[i] > 2)
            return "padding is larger than the kernel's reach";
    if (l->x->layout.block == 1)
        return "the input is not blocked";
    const int64_t least = MIN_BLOCKS * (int64_t)l->x->layout.block;
    if (l->w->dim[1] < least || l->w->dim[0] / a->groups < least)
        return "too few channels per group";
    if ((l->oh + LC_WINOGRAD_TILE - 1) / LC_WINOGRAD_TILE *
            ((l->ow + LC_WINOGRAD_TILE - 1) / LC_WINOGRAD_TILE) <
        MIN_TILES)
        return "too few tiles";
    return NULL;
}

static const char *refuse_nothing(const conv_layer *l)
{
    (void)l;
    return NULL;
}

static const struct {
    lc_conv_algorithm algorithm;
    const char *(*refuses)(const conv_layer *l);
    const char *name;
} algorithms[] = {
    {LC_CONV_WINOGRAD, refuse_winograd, "winograd"},
    {LC_CONV_DIRECT, refuse_nothing, "direct"},
};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms };

static conv_layer describe(const lc_conv2d_attr *attr, const lc_desc *in)
{
    conv_layer l = {attr, &in[0], &in[1], 0, 0};
    l.oh = in[0].dim[2] + attr->pad[0] + attr->pad[1] - 2; /* of a 3x3 one with stride 1 */
    l.ow = in[0].dim[3] + attr->pad[2] + attr->pad[3] - 2;
    return l;
}

/* The row that is taken. */
static int choose(const lc_conv2d_attr *attr, const lc_desc *in)
{
    const conv_layer l = describe(attr, in);
    const int preferred =
        attr->flags & LC_CONV_FORCED ? (int)attr->algorithm : lc_conv_tuning_find(attr, in);
    int first = -1;
    for (int i = 0; i < ALGORITHMS; i++) {
        if (algorithms[i].refuses(&l))
            continue;
        if ((int)algorithms[i].algorithm == preferred)
            return i;
        if (first < 0)
            first = i;
    }
    return first; /* there is one: direct sums take everything */
}

lc_conv_algorithm lc_conv_choose(const lc_conv2d_attr *attr, const lc_desc *in, const char **why)
{
    const conv_layer l = describe(attr, in);
    const int row = choose(attr, in);
    if (why)
        *why = row ? algorithms[row - 1].refuses(&l) : NULL;
    return algorithms[row].algorithm;
}

bool lc_conv_candidate(const void *attr, const lc_desc *in, int i, lc_candidate *out)
{
    if (i < 0 || i >= ALGORITHMS)
        return false;
    const conv_layer l = describe(attr, in);
    *out = (lc_candidate){algorithms[i].name, algorithms[i].refuses(&l), choose(attr, in) == i};
    return true;
}

int lc_conv_algorithm_named(const char *name)
{
    for (int i = 0; i < ALGORITHMS; i++)
        if (strcmp(algorithms[i].name, name) == 0)
            return (int)algorithms[i].algorithm;
    return -1;
}
