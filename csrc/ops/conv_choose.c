/* Which algorithm a convolution gets: the first of a list that can do it and is expected to pay. A
 * function of the layer, H, W, the block (ISA) and LUCID_C_CONV; never of N, threads or caches, nor
 * are the bits. Only tuning, which somebody has to ask for, prefers another one that can.
 */
#include "ops/conv_form.h"
#include "ops/conv_tuning.h"
#include "ops/op_util.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Fewer blocks of channels than this per group, in or out, and the transforms cost what the
 * products save. Measured with blocks of 8, against direct sums: 1.6 to 2 times as fast at 16
 * channels, and at 10, which fill two blocks as well. */
#define MIN_BLOCKS 2
/* Tiles of one image. With four (7x7) the transformed weights, four times as many bytes, are read
 * for little work: with AVX-512 direct sums are faster then, with AVX2 they are not (512 channels,
 * weights from memory: 0.42 of the direct time on one thread, 0.62 on two). */
#define MIN_TILES 4
#define MIN_TILES_AVX512 9
/* Stride 2 saves less; in 7x7 outputs what it saves goes into reading the larger weights. */
#define MIN_S2_PIXELS 100
/* Strassen's algorithm saves an eighth of the products. With fewer channels, or weights that few
 * pixels use, the additions and the larger weights cost as much. Measured with AVX2, one thread,
 * against direct sums: 1.13 times as fast at 128 to 256 channels; twice: 1.28 at 512 and 1024, no
 * more than once at 256, for weights of 3.1 rather than 1.8 times the size. */
#define MIN_STRASSEN_CHANNELS 128
#define MIN_STRASSEN_PIXELS 100
#define MIN_TWICE_CHANNELS 256
#define MIN_TWICE_INPUTS 512

static bool force_direct;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
    const char *mode = getenv("LUCID_C_CONV");
    force_direct = mode && strcmp(mode, "direct") == 0;
}

typedef struct conv_layer {
    const lc_conv2d_attr *attr;
    const lc_desc *x, *w, *y;
} conv_layer;

static const char *refuse_all(void)
{
    pthread_once(&once, read_environment);
    return force_direct ? "LUCID_C_CONV=direct" : NULL;
}

/* What keeps both forms of Winograd's convolution from a layer. */
static const char *refuse_tiles(const conv_layer *l)
{
    const int64_t block = l->x->layout.block;
    for (int i = 0; i < 4; i++)
        if (l->attr->pad[i] > 2)
            return "padding is larger than the kernel's reach";
    if (block == 1)
        return "the input is not blocked";
    const int64_t groups = l->attr->groups;
    if ((l->x->dim[1] / groups + block - 1) / block < MIN_BLOCKS ||
        (l->y->dim[1] / groups + block - 1) / block < MIN_BLOCKS)
        return "too few channels per group";
    return refuse_all();
}

static const char *avoid_few_tiles(const conv_layer *l)
{
    const int64_t tile = LC_WINOGRAD_TILE;
    const int64_t tiles = (l->y->dim[2] + tile - 1) / tile * ((l->y->dim[3] + tile - 1) / tile);
    const int64_t least = l->x->layout.block > 8 ? MIN_TILES_AVX512 : MIN_TILES;
    return tiles < least ? "too few tiles" : NULL;
}

static const char *avoid_s2(const conv_layer *l)
{
    return l->y->dim[2] * l->y->dim[3] < MIN_S2_PIXELS ? "too few pixels" : avoid_few_tiles(l);
}

static const char *refuse_parts(const conv_layer *l, int64_t parts)
{
    const lc_conv2d_attr *a = l->attr;
    const int64_t block = l->x->layout.block;
    if (a->pad[0] || a->pad[1] || a->pad[2] || a->pad[3])
        return "padding";
    if (a->groups != 1)
        return "groups";
    if (block == 1)
        return "the input is not blocked";
    if (l->x->layout.groups != 1 || l->y->layout.groups != 1 || l->x->dim[1] % (parts * block) ||
        l->y->dim[1] % (parts * 2 * block))
        return "channels cannot be halved";
    return refuse_all();
}

static const char *refuse_strassen_twice(const conv_layer *l)
{
    return refuse_parts(l, 4);
}

static const char *refuse_strassen(const conv_layer *l)
{
    return refuse_parts(l, 2);
}

static const char *avoid_few(const conv_layer *l, int64_t min_channels)
{
    if (l->x->dim[1] < min_channels || l->y->dim[1] < min_channels)
        return "too few channels";
    return l->y->dim[2] * l->y->dim[3] < MIN_STRASSEN_PIXELS ? "too few pixels" : NULL;
}

static const char *avoid_strassen_twice(const conv_layer *l)
{
    const char *why = avoid_few(l, MIN_TWICE_CHANNELS);
    return why ? why : l->x->dim[1] < MIN_TWICE_INPUTS ? "too few input channels" : NULL;
}

static const char *avoid_strassen(const conv_layer *l)
{
    return avoid_few(l, MIN_STRASSEN_CHANNELS);
}

static const char *never(const conv_layer *l)
{
    (void)l;
    return NULL;
}

static const struct {
    lc_conv_algorithm algorithm;
    const char *name;
    int kernel, stride;                          /* that it is made for, with dilation 1; 0: any */
    const char *(*refuses)(const conv_layer *l); /* why it cannot do the layer; NULL: it can */
    const char *(*avoids)(const conv_layer *l);  /* why that would not pay; NULL: it should */
} algorithms[] = {
    {LC_CONV_WINOGRAD, "winograd", 3, 1, refuse_tiles, avoid_few_tiles},
    {LC_CONV_WINOGRAD_S2, "winograd /2", 3, 2, refuse_tiles, avoid_s2},
    {LC_CONV_STRASSEN_TWICE, "strassen twice", 1, 0, refuse_strassen_twice, avoid_strassen_twice},
    {LC_CONV_STRASSEN, "strassen", 1, 0, refuse_strassen, avoid_strassen},
    {LC_CONV_DIRECT, "direct", 0, 0, never, never},
};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms };

/* Why row i cannot do the layer; NULL: it can. */
static const char *refusal(const conv_layer *l, int i)
{
    const lc_conv2d_attr *a = l->attr;
    const int kernel = algorithms[i].kernel, stride = algorithms[i].stride;
    if (kernel && (l->w->dim[2] != kernel || l->w->dim[3] != kernel))
        return kernel == 3 ? "the kernel is not 3x3" : "the kernel is not 1x1";
    if (kernel && (a->flags & LC_CONV_TRANSPOSED) && (a->stride[0] != 1 || a->stride[1] != 1))
        return "transposed with a stride";
    if (kernel && (a->stride[0] != a->stride[1] || (stride && a->stride[0] != stride) ||
                   a->dilation[0] != 1 || a->dilation[1] != 1))
        return "not its stride, or a dilation";
    return algorithms[i].refuses(l);
}

/* The row that is taken. */
static int choose(const lc_conv2d_attr *attr, const lc_desc *in, const lc_desc *out)
{
    const conv_layer l = {attr, &in[0], &in[1], &out[0]};
    const int preferred =
        attr->flags & LC_CONV_FORCED ? (int)attr->algorithm : lc_conv_tuning_find(attr, in);
    int first = -1;
    for (int i = 0; i < ALGORITHMS; i++) {
        if (refusal(&l, i))
            continue;
        if ((int)algorithms[i].algorithm == preferred)
            return i;
        if (first < 0 && !algorithms[i].avoids(&l))
            first = i;
    }
    return first; /* there is one: direct sums take everything */
}

lc_conv_algorithm lc_conv_choose(const lc_conv2d_attr *attr, const lc_desc *in, const lc_desc *out)
{
    return algorithms[choose(attr, in, out)].algorithm;
}

bool lc_conv_candidate(const void *attr, const lc_desc *in, const lc_desc *out, int i,
                       lc_candidate *found)
{
    if (i < 0 || i >= ALGORITHMS)
        return false;
    const conv_layer l = {attr, &in[0], &in[1], &out[0]};
    const char *refuses = refusal(&l, i);
    *found = (lc_candidate){.name = algorithms[i].name,
                            .refuses = refuses,
                            .avoids = refuses ? NULL : algorithms[i].avoids(&l),
                            .chosen = choose(attr, in, out) == i};
    return true;
}

int lc_conv_algorithm_named(const char *name)
{
    for (int i = 0; i < ALGORITHMS; i++)
        if (strcmp(algorithms[i].name, name) == 0)
            return (int)algorithms[i].algorithm;
    return -1;
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
