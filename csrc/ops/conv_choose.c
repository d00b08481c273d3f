/* Which algorithm a convolution gets: the first of a list that accepts it. A function of the
 * layer, H, W, the block (ISA) and LUCID_C_CONV; never of N, threads or caches, nor are the bits.
 */
#include "ops/conv_form.h"
#include "ops/op_util.h"

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
} algorithms[] = {
    {LC_CONV_WINOGRAD, refuse_winograd},
    {LC_CONV_DIRECT, refuse_nothing},
};

lc_conv_algorithm lc_conv_choose(const lc_conv2d_attr *attr, const lc_desc *in, const char **why)
{
    conv_layer l = {attr, &in[0], &in[1], 0, 0};
    l.oh = in[0].dim[2] + attr->pad[0] + attr->pad[1] - 2; /* of a 3x3 one with stride 1 */
    l.ow = in[0].dim[3] + attr->pad[2] + attr->pad[3] - 2;
    if (attr->flags & LC_CONV_TRANSPOSED) {
        l.oh = attr->out[0];
        l.ow = attr->out[1];
    }
    const char *reason = NULL;
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
        const char *no = algorithms[i].refuses(&l);
        if (!no) {
            if (why)
                *why = reason;
            return algorithms[i].algorithm;
        }
        reason = no;
    }
    return LC_CONV_DIRECT; /* not reached: direct sums take everything */
}

/* --- the gradient of the weights. As above, but the sums run over the tiles of all images, whose
 * number may decide: it changes the sums anyway. */

/* The 36 sums of a pair of channels become nine weights once; with fewer tiles than this that takes
 * longer than what the products save. */
#define MIN_ALL_TILES 32

static const char *refuse_winograd_weight_grad(const lc_conv2d_attr *a, const lc_desc *dy,
                                               const lc_desc *x)
{
    pthread_once(&once, read_environment);
    if (force_direct)
        return "LUCID_C_CONV=direct";
    if (a->kernel[0] != 3 || a->kernel[1] != 3)
        return "the kernel is not 3x3";
    if (a->stride[0] != 1 || a->stride[1] != 1 || a->dilation[0] != 1 || a->dilation[1] != 1)
        return "stride or dilation is not 1";
    for (int i = 0; i < 4; i++)
        if (a->pad[i] > 2)
            return "padding is larger than the kernel's reach";
    if (x->layout.block == 1)
        return "the input is not blocked";
    const int64_t least = MIN_BLOCKS * (int64_t)x->layout.block;
    if (x->dim[1] / a->groups < least || dy->dim[1] / a->groups < least)
        return "too few channels per group";
    if (lc_count_mul(dy->dim[0], (dy->dim[2] + LC_WINOGRAD_TILE - 1) / LC_WINOGRAD_TILE *
                                     ((dy->dim[3] + LC_WINOGRAD_TILE - 1) / LC_WINOGRAD_TILE)) <
        MIN_ALL_TILES)
        return "too few tiles";
    return NULL;
}

lc_conv_algorithm lc_conv_choose_weight_grad(const lc_conv2d_attr *attr, const lc_desc *in,
                                             const char **why)
{
    const char *reason = refuse_winograd_weight_grad(attr, &in[0], &in[1]);
    if (why)
        *why = reason;
    return reason ? LC_CONV_DIRECT : LC_CONV_WINOGRAD;
}
