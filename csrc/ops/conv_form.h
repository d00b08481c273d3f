/* How a convolution is laid out for the kernels; shared by conv2d.c and conv2d_pack.c.
 *
 *     dense     `groups` independent convolutions of ib input blocks and ob output blocks, in
 *               panels of two output blocks (the last one may have one):
 *               weights [group][panel][ib][kh][kw][cb][blocks of the panel * block]
 *     lanes     groups of 1, 2, 4 .. block channels share a block; each block is a convolution of
 *               its own: weights [block][kh][kw][channels per group][block]
 *     winograd  dense, with transformed weights, and zeros in the place of a missing second block:
 *               weights [group][panel][36, 16, 7 or 49 matrices][ib][cb][2 * block]; 1x1
 *               (Strassen): ib and panels are those of a half or quarter of the channels. Folded
 *               (7x7): ib blocks hold four channels for each of x. Late: the weights of the dense
 *               form
 *
 * Then the biases, one per padded output channel, from a multiple of 64 bytes on. */
#ifndef LC_OPS_CONV_FORM_H
#define LC_OPS_CONV_FORM_H

#include "ops/ops.h"

/* A plain input with so few channels is read as it is; padded to a block most of the work would be
 * on zeros. */
#define LC_CONV_MAX_PLAIN_CHANNELS 4

/* How the sums are done. A function of the layer, its height and width, never of N or threads. */
typedef enum lc_conv_algorithm {
    LC_CONV_DIRECT = 0,
    LC_CONV_WINOGRAD = 1 + LC_WINOGRAD_3X3, /* and on: 1 + lc_winograd_kind */
    LC_CONV_WINOGRAD_LATE = 1 + LC_WINOGRAD_3X3_LATE,
    LC_CONV_WINOGRAD_2X2 = 1 + LC_WINOGRAD_3X3_2X2,
    LC_CONV_WINOGRAD_S2 = 1 + LC_WINOGRAD_3X3_S2,
    LC_CONV_WINOGRAD_UP = 1 + LC_WINOGRAD_3X3_UP,
    LC_CONV_WINOGRAD_7X7 = 1 + LC_WINOGRAD_7X7_S2,
    LC_CONV_STRASSEN = 1 + LC_WINOGRAD_1X1,
    LC_CONV_STRASSEN_TWICE = 1 + LC_WINOGRAD_1X1_TWICE
} lc_conv_algorithm;

/* NULL for direct sums. */
static inline const lc_winograd_form *lc_conv_winograd_form(uint32_t algorithm)
{
    return algorithm == LC_CONV_DIRECT ? NULL : &lc_winograd_forms[algorithm - 1];
}

/* The same for packed weights: NULL if they are laid out for direct sums. */
static inline const lc_winograd_form *lc_conv_packed_form(uint32_t algorithm)
{
    const lc_winograd_form *form = lc_conv_winograd_form(algorithm);
    return form && !form->late ? form : NULL;
}

typedef struct lc_conv_shape {
    int64_t groups, ic, oc, kh, kw;
    lc_layout x, y;
    int32_t block;
    int32_t algorithm; /* lc_conv_algorithm */
} lc_conv_shape;

typedef struct lc_conv_form {
    bool lanes;
    int32_t cb;     /* channels per input block and tap: the block; 1 for plain inputs, unless they
                       are folded; channels per group for lanes */
    int64_t groups; /* convolutions that are done one by one */
    int64_t ib, ob; /* blocks of each: in, out */
    int64_t panels; /* of each: ceil(ob / 2); of one part where the outputs are taken in parts */
    int64_t w_ob;   /* floats of weights per output block and part: ib * kh * kw * cb * block
                       (winograd: the number of its matrices for kh * kw; ib of one part) */
    int64_t w_floats; /* of all weights */
    size_t bias_at;   /* bytes */
    size_t bytes;
} lc_conv_form;

/* A convolution is a number of parts per axis, which are summed like ordinary convolutions: one, or
 * for a transposed convolution with stride s one for each of the s sets of outputs i, i + s, i + 2 *
 * s .. that any tap falls on. The parts share out w's taps; their weights follow one another. */
typedef struct lc_conv_axis {
    int64_t taps, stride, dilation, pad; /* pad: before; may be negative */
    int64_t from, step;                  /* its outputs are from, from + step, .. */
    int64_t tap,
        tap_step;   /* its taps, in the order of the inputs, are w's tap, tap + tap_step, .. */
    int64_t before; /* taps of the parts before */
} lc_conv_axis;

int64_t lc_conv_parts(const lc_conv2d_attr *a, int axis, int64_t kernel);
lc_conv_axis lc_conv_axis_get(const lc_conv2d_attr *a, int axis, int64_t kernel, int64_t part);
/* Where the weights of a part begin, in floats; f: of the whole kernel. */
int64_t lc_conv_part_at(const lc_conv_form *f, int64_t kh, int64_t kw, const lc_conv_axis axis[2]);

/* Attributes of lc_op_conv2d_pack: all that shapes the blob and nothing else, so that one blob
 * serves every size of input. */
typedef struct lc_conv_pack_attr {
    int64_t groups;
    lc_layout x, y;
    int32_t block;
    uint32_t flags; /* LC_CONV_BIAS, LC_CONV_BN, LC_CONV_TRANSPOSED */
    float bn_eps;
    uint32_t algorithm;                     /* lc_conv_algorithm */
    int64_t stride[2], dilation[2], pad[2]; /* of a transposed convolution with strides, else 0 */
} lc_conv_pack_attr;

/* The layouts that a convolution with groups > 1 takes and gives. Groups of equal, small size share
 * blocks; otherwise each group starts at a block of its own. */
lc_layout lc_conv_group_layout(int block, int64_t groups, int64_t ic, int64_t oc, bool of_y);

lc_conv_form lc_conv_form_get(const lc_conv_shape *s);

/* Do groups share blocks? Then in and out widths are equal and their lanes need not move. */
bool lc_conv_small_groups(int block, int64_t groups, int64_t ic, int64_t oc);

/* The algorithm for a convolution that is not packed yet, its layouts decided: in[0] is x, in[1] w,
 * out[0] y. conv_choose.c. */
lc_conv_algorithm lc_conv_choose(const lc_conv2d_attr *attr, const lc_desc *in, const lc_desc *out);
/* lc_op.candidate of convolutions. */
bool lc_conv_candidate(const void *attr, const lc_desc *in, const lc_desc *out, int i,
                       lc_candidate *found);
/* The lc_conv_algorithm of that name in the list, or -1. */
int lc_conv_algorithm_named(const char *name);

/* The same for the gradient of the weights; in: dy, x. */
lc_conv_algorithm lc_conv_choose_weight_grad(const lc_conv2d_attr *attr, const lc_desc *in,
                                             const char **why);
/* What lc_op_conv2d_weight_grad.prepare does once that is chosen. */
lc_status lc_conv_weight_grad_prepare(lc_step *step, lc_conv_algorithm algorithm);

/* lc_op_conv2d.backward; conv2d_grad.c. */
lc_status lc_conv_backward(const lc_backward *g);

/* The channel at a position among the padded channels of a layout, or -1 for padding. */
int64_t lc_conv_slot_channel(lc_layout l, int64_t channels, int64_t slot);
int64_t lc_conv_slots(lc_layout l, int64_t channels);

#endif
