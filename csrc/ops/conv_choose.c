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

/* Fewer channels than this per group, in or out, and the transforms cost what the products save.
 * Measured against direct sums, 10 channels in, 40 out: 1.6 to 2 times as fast with blocks of 8, 2.6
 * with blocks of 16. */
#define MIN_CHANNELS 9
/* With few tiles of 4x4 per image the transformed weights, four times as many bytes as the filters,
 * are read for little work: up to this many, 14x14 outputs, they are made on the way. Measured
 * against weights that are transformed before, whole models, one image and eight, two threads: at 7x7
 * with AVX-512 (Zen 4) resnet_18 and resnet_34 1.13 and 1.0 times as fast, with AVX2 there 1.05 to 1.1
 * and 1.0. At 14x14 as well (Zen 5, with AVX-512 and AVX2): 1.02 to 0.98, but resnet_50 takes 35 MiB
 * less and packs in 47 ms rather than 61. */
#define MAX_LATE_TILES 16
/* Outputs (3x3): in fewer, direct sums step over the padding. With one tile whole resnet_18 was 1.1
 * to 1.2 times as fast as with direct sums with AVX-512, one image and eight. */
#define MIN_TILE_PIXELS 9
/* Stride 2 saves less; in 7x7 outputs what it saves goes into reading the larger weights. */
#define MIN_S2_PIXELS 100
/* Strassen's algorithm saves an eighth of the products. With fewer channels, or weights that few
 * pixels use, the additions and the larger weights cost as much. Measured with AVX2, one thread,
 * against direct sums: 1.13 times as fast at 128 to 256 channels, 1.03 at 96, 0.97 at 64; twice:
 * 1.28 at 512 and 1024, no more than once at 256, for weights of 3.1 rather than 1.8 times the
 * size. */
#define MIN_STRASSEN_CHANNELS 96
#define MIN_STRASSEN_PIXELS 100
/* The weights of as many channels as this pay for few pixels, too (7x7), once: 1.04 to 1.1 times as
 * fast on two threads of Zen 4, batch 1 and 8. Twice is as fast then and reads more. So would 512
 * channels be, for 22 MiB in resnet_50. */
#define MIN_WIDE_CHANNELS 640
#define MIN_WIDE_PIXELS 40
#define MIN_TWICE_CHANNELS 256
#define MIN_TWICE_INPUTS 512

/* 7x7 at stride 2: the input is transformed for these alone. With 64, and pooling after it, 1.85 times
 * as fast as direct sums with AVX-512 and AVX2 (Zen 4, one thread). */
#define MIN_7X7_OUTPUTS 16

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

static int64_t least_channels(const conv_layer *l)
{
    const int64_t in = l->x->dim[1], out = l->y->dim[1];
    return (in < out ? in : out) / l->attr->groups;
}

/* Of Winograd's algorithm, in both directions; reach: of the kernel, beyond its first tap. */
static const char *refuse_padding(const conv_layer *l, int64_t reach)
{
    for (int i = 0; i < 4; i++)
        if (l->attr->pad[i] > reach)
            return "padding is larger than the kernel's reach";
    return NULL;
}

static const char *refuse_groups(const conv_layer *l)
{
    if (least_channels(l) < MIN_CHANNELS)
        return "too few channels per group";
    if (lc_conv_small_groups(l->x->layout.block, l->attr->groups, l->x->dim[1], l->y->dim[1]))
        return "groups share a block";
    return NULL;
}

/* What keeps all forms of Winograd's convolution from a layer. */
static const char *refuse_tiles(const conv_layer *l)
{
    const char *why = refuse_padding(l, 2);
    if (!why && l->x->layout.block == 1)
        why = "the input is not blocked";
    if (!why)
        why = refuse_groups(l);
    return why ? why : refuse_all();
}

static int64_t tiles_of(const conv_layer *l, int64_t tile)
{
    return lc_count_mul(lc_ceil_div(l->y->dim[2], tile), lc_ceil_div(l->y->dim[3], tile));
}

static const char *avoid_tiles(const conv_layer *l)
{
    return l->y->dim[2] * l->y->dim[3] < MIN_TILE_PIXELS ? "too few pixels" : NULL;
}

static const char *avoid_late(const conv_layer *l)
{
    if (tiles_of(l, LC_WINOGRAD_TILE) > MAX_LATE_TILES)
        return "weights are used by many tiles";
    return avoid_tiles(l);
}

/* Outputs of 5x5 and 6x6. Short tiles make fewer products of the late form, 100 for 121 and 144, but
 * its transforms cost more: resnet_18 on images of 160x160, one and eight, with 2x2: 0.92 and 1.05
 * times as fast (AVX-512), 1.06 and 1.02 (AVX2). */
static const char *avoid_2x2(const conv_layer *l)
{
    const lc_winograd_form *small = &lc_winograd_forms[LC_WINOGRAD_3X3_2X2];
    const int64_t products = tiles_of(l, small->tile) * small->positions;
    if (products > tiles_of(l, LC_WINOGRAD_TILE) * LC_WINOGRAD_POSITIONS)
        return "tiles of 4x4 save more";
    return avoid_tiles(l);
}

static const char *avoid_s2(const conv_layer *l)
{
    const lc_desc *small = l->attr->flags & LC_CONV_TRANSPOSED ? l->x : l->y;
    return small->dim[2] * small->dim[3] < MIN_S2_PIXELS ? "too few pixels" : NULL;
}

static const char *refuse_up(const conv_layer *l)
{
    if (l->attr->pad[0] != 1 || l->attr->pad[2] != 1)
        return "the padding is not 1";
    return refuse_tiles(l);
}

static const char *refuse_folded(const conv_layer *l)
{
    if (l->x->layout.block != 1)
        return "the input is blocked";
    if (l->x->dim[1] * 4 > LC_WINOGRAD_MAX_FOLDED)
        return "too many input channels";
    if (l->attr->groups != 1)
        return "groups";
    const char *why = refuse_padding(l, 6);
    return why ? why : refuse_all();
}

static const char *avoid_folded(const conv_layer *l)
{
    return l->y->dim[1] < MIN_7X7_OUTPUTS ? "too few output channels" : avoid_tiles(l);
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

static const char *avoid_few(const conv_layer *l, int64_t min_channels, int64_t min_pixels)
{
    if (least_channels(l) < min_channels)
        return "too few channels";
    return l->y->dim[2] * l->y->dim[3] < min_pixels ? "too few pixels" : NULL;
}

static const char *avoid_strassen_twice(const conv_layer *l)
{
    const char *why = avoid_few(l, MIN_TWICE_CHANNELS, MIN_STRASSEN_PIXELS);
    return why ? why : l->x->dim[1] < MIN_TWICE_INPUTS ? "too few input channels" : NULL;
}

static const char *avoid_strassen(const conv_layer *l)
{
    const bool wide = least_channels(l) >= MIN_WIDE_CHANNELS;
    return avoid_few(l, MIN_STRASSEN_CHANNELS, wide ? MIN_WIDE_PIXELS : MIN_STRASSEN_PIXELS);
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
    bool up;                                     /* for a transposed convolution with that stride */
    const char *(*refuses)(const conv_layer *l); /* why it cannot do the layer; NULL: it can */
    const char *(*avoids)(const conv_layer *l);  /* why that would not pay; NULL: it should */
} algorithms[] = {
    {LC_CONV_WINOGRAD_2X2, "winograd 2x2", 3, 1, false, refuse_tiles, avoid_2x2},
    {LC_CONV_WINOGRAD_LATE, "winograd late", 3, 1, false, refuse_tiles, avoid_late},
    {LC_CONV_WINOGRAD, "winograd", 3, 1, false, refuse_tiles, avoid_tiles},
    {LC_CONV_WINOGRAD_S2, "winograd /2", 3, 2, false, refuse_tiles, avoid_s2},
    {LC_CONV_WINOGRAD_UP, "winograd up", 3, 2, true, refuse_up, avoid_s2},
    {LC_CONV_WINOGRAD_7X7, "winograd 7x7", 7, 2, false, refuse_folded, avoid_folded},
    {LC_CONV_STRASSEN_TWICE, "strassen twice", 1, 0, false, refuse_strassen_twice,
     avoid_strassen_twice},
    {LC_CONV_STRASSEN, "strassen", 1, 0, false, refuse_strassen, avoid_strassen},
    {LC_CONV_DIRECT, "direct", 0, 0, false, never, never},
};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms };

/* Why row i cannot do the layer; NULL: it can. */
static const char *refusal(const conv_layer *l, int i)
{
    const lc_conv2d_attr *a = l->attr;
    const int kernel = algorithms[i].kernel, stride = algorithms[i].stride;
    if (kernel && (l->w->dim[2] != kernel || l->w->dim[3] != kernel))
        return kernel == 3   ? "the kernel is not 3x3"
               : kernel == 7 ? "the kernel is not 7x7"
                             : "the kernel is not 1x1";
    const bool up = (a->flags & LC_CONV_TRANSPOSED) && (a->stride[0] != 1 || a->stride[1] != 1);
    if (kernel && up != algorithms[i].up)
        return up ? "transposed with a stride" : "not transposed";
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

/* --- the gradient of the weights. As above, but the sums run over the pixels of all images, whose
 * number may decide: it changes the sums anyway. */

/* The 36 sums of a pair of channels become nine weights once; with fewer tiles than this that takes
 * longer than what the products save. */
#define MIN_ALL_TILES 32
/* Strassen's factors cost additions for each pixel, as many per channel of one side as there are
 * channels of the other to use them. Measured with AVX2, two layers at a time, against direct sums,
 * twice: 1.07 times as fast at 128 to 256 channels, 1.14 at 256 to 512 and 512 to 1024; once: 1.06
 * and 1.09. */
#define MIN_STRASSEN_GRAD_CHANNELS 128
/* Of an image, and of all: a run needs some, a band runs. */
#define MIN_RUN_PIXELS 40
#define MIN_ALL_PIXELS 1568

static int64_t images_times(const conv_layer *l, int64_t unit)
{
    return lc_count_mul(l->y->dim[0], tiles_of(l, unit));
}

static const char *refuse_few_tiles(const conv_layer *l)
{
    return images_times(l, LC_WINOGRAD_TILE) < MIN_ALL_TILES ? "too few tiles" : NULL;
}

static const char *refuse_grad_tiles(const conv_layer *l)
{
    const char *why = refuse_tiles(l);
    return why ? why : refuse_few_tiles(l);
}

static const char *refuse_grad_folded(const conv_layer *l)
{
    const char *why = refuse_folded(l);
    return why ? why : refuse_few_tiles(l);
}

static const char *refuse_grad_parts(const conv_layer *l, int64_t parts)
{
    const lc_conv2d_attr *a = l->attr;
    const int64_t multiple = parts * l->x->layout.block;
    if (a->groups != 1)
        return "groups";
    if (a->pad[0] || a->pad[1] || a->pad[2] || a->pad[3])
        return "padding";
    if (a->stride[0] != a->stride[1])
        return "strides differ";
    if (l->x->layout.block == 1)
        return "the input is not blocked";
    if (l->x->layout.groups != 1 || l->y->layout.groups != 1 || l->x->dim[1] % multiple ||
        l->y->dim[1] % multiple)
        return "channels cannot be halved";
    if (least_channels(l) < MIN_STRASSEN_GRAD_CHANNELS)
        return "too few channels";
    if (l->y->dim[2] * l->y->dim[3] < MIN_RUN_PIXELS || images_times(l, 1) < MIN_ALL_PIXELS)
        return "too few pixels";
    return NULL;
}

/* With blocks of 16 the additions cost twice as much of a product: once is as fast or faster (a step
 * of resnext_50_32x4d 1.01, resnet_50 1.0), and its sums take 1.75 rather than 3.1 times the
 * memory of the weights. */
static const char *refuse_grad_twice(const conv_layer *l)
{
    if (l->x->layout.block > 8)
        return "once is as fast";
    return refuse_grad_parts(l, 4);
}

static const char *refuse_grad_once(const conv_layer *l)
{
    return refuse_grad_parts(l, 2);
}

static const struct {
    lc_conv_algorithm algorithm;
    int kernel, stride; /* stride 0: any */
    const char *(*refuses)(const conv_layer *l);
} grad_algorithms[] = {
    {LC_CONV_WINOGRAD, 3, 1, refuse_grad_tiles},
    {LC_CONV_WINOGRAD_S2, 3, 2, refuse_grad_tiles},
    {LC_CONV_WINOGRAD_7X7, 7, 2, refuse_grad_folded},
    {LC_CONV_STRASSEN_TWICE, 1, 0, refuse_grad_twice},
    {LC_CONV_STRASSEN, 1, 0, refuse_grad_once},
};

lc_conv_algorithm lc_conv_choose_weight_grad(const lc_conv2d_attr *attr, const lc_desc *in,
                                             const char **why)
{
    const conv_layer l = {.attr = attr, .x = &in[1], .y = &in[0]};
    const char *reason = refuse_all();
    lc_conv_algorithm found = LC_CONV_DIRECT;
    if (!reason) {
        reason = "no algorithm for such a kernel or stride";
        for (size_t i = 0; reason && i < sizeof grad_algorithms / sizeof *grad_algorithms; i++) {
            const int kernel = grad_algorithms[i].kernel, stride = grad_algorithms[i].stride;
            if (attr->kernel[0] != kernel || attr->kernel[1] != kernel)
                continue;
            if (stride && (attr->stride[0] != stride || attr->stride[1] != stride ||
                           attr->dilation[0] != 1 || attr->dilation[1] != 1))
                continue;
            reason = grad_algorithms[i].refuses(&l);
            found = grad_algorithms[i].algorithm;
        }
    }
    if (why)
        *why = reason;
    return reason ? LC_CONV_DIRECT : found;
}
