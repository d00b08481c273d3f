/* Tests of packing and of the way back: csrc/kernels/pack_*, csrc/ops/conv2d_pack.c, linear.c,
 * csrc/graph/residue.c. Packed bytes are compared
 * with plain loops over the definition of each form (ops/conv_form.h), on every kernel table that
 * this CPU can run; tables of AVX-512's block size are filled with the other kernels too. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "check.h"
#include "graph/param.h"
#include "ops/conv_form.h"

enum { B = LC_CONV_BIAS, BN = LC_CONV_BN, T = LC_CONV_TRANSPOSED };

/* --- the definition, element by element */

typedef struct fold {
    double scale, shift;
} fold;

static fold channel_fold(const lc_conv_pack_attr *a, const float *const *in, int64_t oc)
{
    fold f = {1.0, 0.0};
    int next = 1;
    if (a->flags & B)
        f.shift = in[next++][oc];
    if (a->flags & BN) {
        double gamma = in[next][oc], beta = in[next + 1][oc];
        double mean = in[next + 2][oc], var = in[next + 3][oc];
        f.scale = gamma / sqrt(var + (double)a->bn_eps);
        f.shift = beta + (f.shift - mean) * f.scale;
    }
    return f;
}

/* Six, or four for tiles of 2x2, of three numbers. */
static void spread(lc_conv_algorithm algorithm, double a, double b, double c, double u[6])
{
    const double s = (a + c) * (1. / 3), m = b * (1. / 3);
    if (algorithm == LC_CONV_WINOGRAD_S2) {
        const double v[6] = {
            a, (c - a) * (2. / 9), (a * 2 + c) * (-4. / 9), (a + c * 2) * (1. / 9), c, b};
        memcpy(u, v, sizeof v);
    } else if (algorithm == LC_CONV_WINOGRAD_2X2) {
        const double v[4] = {a, (a + c) * 0.5 + b * 0.5, (a + c) * 0.5 - b * 0.5, c};
        memcpy(u, v, sizeof v);
    } else {
        const double v[6] = {
            a, m + s, m - s, (a * 4 + b * 2 + c) * (-4. / 15), (a - b * 2 + c * 4) * (1. / 15), c};
        memcpy(u, v, sizeof v);
    }
}

/* Returns how many. */
static int winograd_weights(lc_conv_algorithm algorithm, const double w[9], double u[36])
{
    const int side = algorithm == LC_CONV_WINOGRAD_2X2 ? 4 : 6;
    double t[3][6], row[6];
    for (int j = 0; j < 3; j++)
        spread(algorithm, w[j], w[3 + j], w[6 + j], t[j]);
    for (int i = 0; i < side; i++) {
        spread(algorithm, t[0][i], t[1][i], t[2][i], row);
        memcpy(u + i * side, row, (size_t)side * sizeof *row);
    }
    return side * side;
}

static void strassen_weights(double b11, double b12, double b21, double b22, double u[7])
{
    u[0] = b11;
    u[1] = b21;
    u[2] = b22;
    u[4] = b12 - b11;
    u[5] = b22 - u[4];
    u[3] = u[5] - b21;
    u[6] = b22 - b12;
}

/* The weight of (slot of y, k-step of its group's input, tap), or 0 for padding; scaled. */
typedef struct layer {
    const lc_conv_pack_attr *attr;
    lc_conv_shape shape;
    lc_conv_form form;
    const float *const *in;
} layer;

static double weight(const layer *l, int64_t group, int64_t slot, int64_t k, int64_t tap)
{
    const lc_conv_form *f = &l->form;
    const int64_t icg = l->shape.ic / l->shape.groups, ocg = l->shape.oc / l->shape.groups;
    const int64_t oc = slot < 0 ? -1 : lc_conv_slot_channel(l->shape.y, l->shape.oc, slot);
    int64_t ic = k;
    if (!f->lanes) {
        ic = lc_conv_slot_channel(l->shape.x, l->shape.ic, group * f->ib * f->cb + k);
        ic = ic < 0 ? ic : ic - group * icg;
    }
    if (oc < 0 || ic < 0)
        return 0;
    const int64_t pair = l->attr->flags & LC_CONV_TRANSPOSED
                             ? (oc / ocg * icg + ic) * ocg + oc % ocg
                             : oc * icg + ic;
    return l->in[0][pair * l->shape.kh * l->shape.kw + tap] *
           channel_fold(l->attr, l->in, oc).scale;
}

static void define_direct(const layer *l, int64_t group, int64_t first, int64_t width,
                          const lc_conv_axis axis[2], float *to)
{
    const int64_t cb = l->form.cb;
    for (int64_t b = 0; b < l->form.ib; b++)
        for (int64_t t = 0; t < axis[0].taps * axis[1].taps; t++) {
            const int64_t kh = axis[0].tap + t / axis[1].taps * axis[0].tap_step;
            const int64_t kw = axis[1].tap + t % axis[1].taps * axis[1].tap_step;
            for (int64_t c = 0; c < cb; c++)
                for (int64_t i = 0; i < width; i++)
                    *to++ = (float)weight(l, group, first + i, b * cb + c, kh * l->shape.kw + kw);
        }
}

static void define_winograd(const layer *l, int64_t group, int64_t first, int64_t there, float *to)
{
    const int64_t channels = l->form.ib * l->form.cb, width = 2 * l->shape.block;
    const bool turned = (l->attr->flags & LC_CONV_TRANSPOSED) != 0;
    for (int64_t k = 0; k < channels; k++)
        for (int64_t i = 0; i < width; i++) {
            double w[9], u[36];
            for (int t = 0; t < 9; t++)
                w[t] = weight(l, group, i < there ? first + i : -1, k, turned ? 8 - t : t);
            const int n = winograd_weights((lc_conv_algorithm)l->shape.algorithm, w, u);
            for (int t = 0; t < n; t++)
                to[(t * channels + k) * width + i] = (float)u[t];
        }
}

static void define_strassen(const layer *l, int64_t first, int parts, float *to)
{
    const int64_t part = l->shape.ic / parts, width = 2 * l->shape.block;
    const int64_t out = l->form.ob / parts * l->shape.block; /* slots of a part */
    for (int64_t k = 0; k < part; k++)
        for (int64_t i = 0; i < width; i++) {
            double b[4][4], t[4][7], u[49];
            for (int r = 0; r < parts; r++)
                for (int q = 0; q < parts; q++)
                    b[r][q] = weight(l, 0, first + q * out + i, r * part + k, 0);
            if (parts == 2)
                strassen_weights(b[0][0], b[0][1], b[1][0], b[1][1], u);
            for (int e = 0; parts == 4 && e < 4; e++) {
                const int r = e / 2, q = e % 2;
                strassen_weights(b[r][q], b[r][q + 2], b[r + 2][q], b[r + 2][q + 2], t[e]);
            }
            for (int f = 0; parts == 4 && f < 7; f++)
                strassen_weights(t[0][f], t[1][f], t[2][f], t[3][f], u + f * 7);
            for (int f = 0; f < (parts == 2 ? 7 : 49); f++)
                to[(f * part + k) * width + i] = (float)u[f];
        }
}

static void define_biases(const layer *l, float *to)
{
    for (int64_t slot = 0; slot < lc_conv_slots(l->shape.y, l->shape.oc); slot++) {
        const int64_t oc = lc_conv_slot_channel(l->shape.y, l->shape.oc, slot);
        to[slot] = oc < 0 ? 0.0f : (float)channel_fold(l->attr, l->in, oc).shift;
    }
}

static void define(const layer *l, char *blob)
{
    const lc_conv_form *f = &l->form;
    const lc_winograd_form *winograd = lc_conv_packed_form(l->attr->algorithm);
    float *to = (float *)(void *)blob;
    memset(blob, 0, f->bytes);
    define_biases(l, (float *)(void *)(blob + f->bias_at));
    for (int64_t group = 0; group < f->groups && winograd; group++)
        for (int64_t panel = 0; panel < f->panels; panel++, to += 2 * f->w_ob) {
            const int64_t ob = 2 * panel, there = (f->ob - ob < 2 ? 1 : 2) * l->shape.block;
            const int64_t slot = (group * f->ob + ob) * l->shape.block;
            if (winograd->parts > 1)
                define_strassen(l, slot, winograd->parts, to);
            else
                define_winograd(l, group, slot, there, to);
        }
    if (winograd)
        return;
    lc_conv2d_attr conv;
    memset(&conv, 0, sizeof conv);
    conv.flags = l->attr->flags;
    for (int i = 0; i < 2; i++) {
        conv.stride[i] = l->attr->stride[i] ? l->attr->stride[i] : 1;
        conv.dilation[i] = l->attr->dilation[i] ? l->attr->dilation[i] : 1;
        conv.pad[2 * i] = l->attr->pad[i];
    }
    for (int64_t h = 0; h < lc_conv_parts(&conv, 0, l->shape.kh); h++)
        for (int64_t w = 0; w < lc_conv_parts(&conv, 1, l->shape.kw); w++) {
            const lc_conv_axis axis[2] = {lc_conv_axis_get(&conv, 0, l->shape.kh, h),
                                          lc_conv_axis_get(&conv, 1, l->shape.kw, w)};
            float *part =
                (float *)(void *)blob + lc_conv_part_at(f, l->shape.kh, l->shape.kw, axis);
            for (int64_t ob = 0; ob < f->groups * f->ob; ob++) {
                if (ob % f->ob % 2)
                    continue;
                const int64_t width = (f->ob - ob % f->ob < 2 ? 1 : 2) * l->shape.block;
                define_direct(l, ob / f->ob, ob * l->shape.block, width, axis, part);
                part += width * f->ib * f->cb * axis[0].taps * axis[1].taps;
            }
        }
}

/* --- cases */

typedef struct pack_case {
    int64_t ic, oc, kh, kw, groups; /* ic: of all groups */
    int x;                          /* 0: a plain input; else its groups in blocks */
    int64_t y_groups;               /* for groups == 1 */
    uint32_t flags;
    lc_conv_algorithm algorithm;
    int stride, dilation; /* of transposed ones */
} pack_case;

#define D LC_CONV_DIRECT
#define W LC_CONV_WINOGRAD
#define W2 LC_CONV_WINOGRAD_S2
#define WL LC_CONV_WINOGRAD_LATE
#define WS LC_CONV_WINOGRAD_2X2
#define S LC_CONV_STRASSEN
#define S2 LC_CONV_STRASSEN_TWICE
static const pack_case cases[] = {
    {64, 64, 1, 1, 1, 1, 1, BN, D, 0, 0},
    {64, 40, 1, 1, 1, 1, 1, B, D, 0, 0},
    {3, 64, 7, 7, 1, 0, 1, BN, D, 0, 0},
    {4, 24, 3, 3, 1, 0, 1, 0, D, 0, 0},
    {72, 8, 3, 3, 1, 1, 1, B | BN, D, 0, 0},
    {33, 50, 1, 1, 1, 1, 1, BN, D, 0, 0},
    {33, 72, 3, 3, 1, 3, 3, BN, D, 0, 0},
    {60, 60, 1, 1, 1, 3, 3, B, D, 0, 0},
    {64, 64, 3, 3, 4, 1, 1, BN, D, 0, 0},
    {60, 36, 3, 3, 3, 3, 1, BN, D, 0, 0},
    {32, 32, 3, 3, 8, 1, 1, BN, D, 0, 0},
    {32, 32, 3, 3, 32, 1, 1, B, D, 0, 0},
    {20, 20, 5, 2, 10, 1, 1, 0, D, 0, 0},
    {17, 9, 2, 3, 1, 1, 1, BN, D, 0, 0},
    {128, 16, 1, 1, 1, 1, 1, BN, D, 0, 0},
    {64, 64, 3, 3, 1, 1, 1, BN, W, 0, 0},
    {72, 44, 3, 3, 1, 1, 1, B | BN, W, 0, 0},
    {33, 72, 3, 3, 1, 3, 3, BN, W, 0, 0},
    {120, 72, 3, 3, 3, 3, 1, BN, W, 0, 0},
    {128, 64, 3, 3, 2, 1, 1, 0, W, 0, 0},
    {17, 8, 3, 3, 1, 1, 1, B, W, 0, 0},
    {64, 64, 3, 3, 1, 1, 1, BN, W2, 0, 0},
    {40, 72, 3, 3, 2, 1, 1, B, W2, 0, 0},
    {64, 64, 3, 3, 1, 1, 1, BN, WS, 0, 0},
    {120, 72, 3, 3, 3, 3, 1, BN, WS, 0, 0},
    {17, 8, 3, 3, 1, 1, 1, B, WS, 0, 0},
    {72, 44, 3, 3, 1, 1, 1, B | BN, WL, 0, 0},
    {120, 72, 3, 3, 3, 3, 1, BN, WL, 0, 0},
    {128, 64, 1, 1, 1, 1, 1, BN, S, 0, 0},
    {96, 192, 1, 1, 1, 1, 1, B, S, 0, 0},
    {128, 128, 1, 1, 1, 1, 1, BN, S2, 0, 0},
    {192, 256, 1, 1, 1, 1, 1, 0, S2, 0, 0},
    /* for the gradient of the input */
    {64, 64, 1, 1, 1, 1, 1, T, D, 1, 1},
    {40, 24, 3, 3, 1, 1, 1, T, D, 1, 1},
    {24, 40, 3, 3, 1, 1, 1, T, D, 2, 1},
    {24, 16, 5, 4, 1, 1, 1, T, D, 2, 3},
    {64, 32, 3, 3, 4, 1, 1, T, D, 2, 1},
    {32, 32, 3, 3, 8, 1, 1, T, D, 1, 1},
    {64, 48, 3, 3, 1, 1, 1, T, W, 1, 1},
    {64, 64, 3, 3, 2, 1, 1, T, W, 1, 1},
    {64, 48, 3, 3, 1, 1, 1, T, WS, 1, 1},
    {64, 48, 3, 3, 1, 1, 1, T, WL, 1, 1},
    {128, 64, 1, 1, 1, 1, 1, T, S, 1, 1},
};

static float *random_floats(int64_t n, float lo, float hi)
{
    static uint64_t stream = 1;
    float *p = lc_alloc((size_t)n * sizeof *p + 4);
    lc_random_uniform(p, n, 9, stream++, 0, lo, hi);
    return p;
}

/* Numbers that packing must pass on as they come: zeros of both signs, tiny, huge, not finite. */
static void add_odd_numbers(float *w, int64_t n)
{
    static const float odd[] = {0.0f, -0.0f, 1e-41f, -3e-39f, 3e38f, INFINITY, 1e-20f, -INFINITY};
    for (int64_t i = 0; i < n / 7; i++)
        w[i * 7 + 3] = odd[i % (int64_t)(sizeof odd / sizeof *odd)];
}

static void *poisoned(size_t bytes)
{
    void *p = lc_alloc(bytes + 64);
    memset(p, 0xff, bytes + 64);
    return p;
}

static lc_step step_of(const lc_op *op, const void *attr, int n_in, const lc_desc *in,
                       const lc_desc *out, const lc_kernels *k)
{
    lc_step s = {.op = op,
                 .attr = attr,
                 .n_in = n_in,
                 .n_out = 1,
                 .in = in,
                 .out = out,
                 .threads = 1,
                 .kernels = k,
                 .phases = 1,
                 .items = {1, 1, 1, 1}};
    CHECK(op->prepare(&s) == LC_OK);
    return s;
}

/* NaN compares equal to NaN: its sign and payload are no part of the definition. */
static bool same_floats(const void *a, const void *b, size_t bytes)
{
    const float *p = a, *q = b;
    for (size_t i = 0; i < bytes / sizeof *p; i++)
        if (memcmp(p + i, q + i, sizeof *p) != 0 && !(isnan(p[i]) && isnan(q[i])))
            return false;
    return true;
}

static void run(lc_step *s, const void *const *in, void *blob)
{
    void *out[1] = {blob};
    lc_bind bind = {.in = in, .out = out};
    for (int64_t item = s->items[0]; item-- > 0;) /* in any order */
        CHECK(s->op->run(s, &bind, 0, item, item + 1) == LC_OK);
}

/* Input 0 of a step that has packed it into `blob`, got back from what a residue keeps. Weights that
 * are not small numbers in a large crowd may be refused (`must` is false then), never changed. */
static void check_way_back(const lc_step *s, const void *const *in, const void *blob, bool must)
{
    const size_t bytes = lc_desc_bytes(&s->in[0]);
    lc_storage *packed;
    lc_residue *r;
    CHECK(lc_storage_create_copy(blob, lc_desc_bytes(s->out), &packed) == LC_OK);
    CHECK(lc_residue_create(s, in, &r) == LC_OK);
    CHECK((r != NULL) == (s->op->unpack->bits(s) != 0));
    if (r)
        lc_residue_bind(r, packed);
    lc_storage_release(packed); /* the residue holds it */
    if (!r)
        return;
    float *scratch = poisoned(lc_residue_scratch(r) * sizeof(float));
    for (int64_t item = 0; item < s->items[0]; item += 2)
        lc_residue_add(r, in[0], item, item + 2 < s->items[0] ? item + 2 : s->items[0], scratch);
    const bool small = lc_residue_finish(r);
    CHECK(small || !must);
    if (small) {
        char *back = poisoned(bytes);
        lc_residue_restore(r, (float *)(void *)back);
        CHECK(memcmp(back, in[0], bytes) == 0);
        CHECK((unsigned char)back[bytes] == 0xff);
        lc_free(back);
    }
    lc_free(scratch);
    lc_residue_destroy(r);
}

static void check_conv(const pack_case *c, const lc_kernels *k, bool odd)
{
    const lc_layout x = {c->x ? k->block : 1, c->x ? c->x : 1};
    const int64_t icg = c->ic / c->groups;
    lc_conv_pack_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.groups = c->groups;
    attr.x = c->groups > 1 ? lc_conv_group_layout(k->block, c->groups, c->ic, c->oc, false) : x;
    attr.y = c->groups > 1 ? lc_conv_group_layout(k->block, c->groups, c->ic, c->oc, true)
                           : (lc_layout){k->block, (int32_t)c->y_groups};
    attr.block = k->block;
    attr.flags = c->flags;
    attr.bn_eps = 1e-5f;
    attr.algorithm = c->algorithm;
    const bool transposed = (c->flags & T) != 0;
    for (int i = 0; i < 2 && c->stride > 1; i++) {
        attr.stride[i] = c->stride;
        attr.dilation[i] = c->dilation;
        attr.pad[i] = 1;
    }
    lc_desc in[6], out;
    float *data[6] = {0};
    int n_in = 1, n_out;
    lc_desc_init(&in[0], LC_F32, 4,
                 transposed ? (int64_t[]){c->ic, c->oc / c->groups, c->kh, c->kw}
                            : (int64_t[]){c->oc, icg, c->kh, c->kw});
    data[0] = random_floats(lc_desc_count(&in[0]), -1, 1);
    if (odd)
        add_odd_numbers(data[0], lc_desc_count(&in[0]));
    for (int i = (c->flags & B ? 1 : 0) + (c->flags & BN ? 4 : 0); i > 0; i--, n_in++) {
        lc_desc_init(&in[n_in], LC_F32, 1, &c->oc);
        data[n_in] = random_floats(c->oc, c->flags & BN && i == 1 ? 0.1f : -1, 1);
    }
    CHECK(lc_op_conv2d_pack.infer(&attr, n_in, in, &n_out, &out) == LC_OK);
    layer l = {.attr = &attr,
               .shape = {c->groups, c->ic, c->oc, c->kh, c->kw, attr.x, attr.y, k->block,
                         (int32_t)c->algorithm},
               .in = (const float *const *)data};
    l.form = lc_conv_form_get(&l.shape);
    const size_t bytes = lc_desc_bytes(&out);
    CHECK(bytes == l.form.bytes);
    char *want = poisoned(bytes), *got = poisoned(bytes);
    define(&l, want);
    lc_step s = step_of(&lc_op_conv2d_pack, &attr, n_in, in, &out, k);
    const int before = failed;
    run(&s, (const void *const *)data, got);
    CHECK(odd ? same_floats(want, got, bytes) : memcmp(want, got, bytes) == 0);
    CHECK((unsigned char)got[bytes] == 0xff); /* nothing beyond the end */
    check_way_back(&s, (const void *const *)data, got, !odd);
    if (odd) { /* few enough of them are kept whole */
        for (int64_t i = 0; i < lc_desc_count(&in[0]); i++)
            if (i % 7 == 3 && i % 5)
                data[0][i] = 0.5f;
        run(&s, (const void *const *)data, got);
        check_way_back(&s, (const void *const *)data, got, c->algorithm == D || c->algorithm == W2);
    }
    if (failed > before)
        fprintf(stderr, "  isa %d block %d: %lld -> %lld, %lldx%lld, groups %lld, algorithm %d\n",
                k->isa, k->block, (long long)c->ic, (long long)c->oc, (long long)c->kh,
                (long long)c->kw, (long long)c->groups, (int)c->algorithm);
    lc_free(s.prep);
    lc_free(want);
    lc_free(got);
    for (int i = 0; i < n_in; i++)
        lc_free(data[i]);
}

/* The panels of ops/matrix.h: [panel][k][lanes], then the bias. */
static void check_linear(int64_t k_n, int64_t oc, const lc_kernels *k)
{
    lc_linear_attr attr;
    lc_pack_spec spec;
    memset(&attr, 0, sizeof attr);
    memset(&spec, 0, sizeof spec);
    attr.flags = B;
    lc_desc in[3], y, out;
    int n_out;
    lc_desc_init(&in[0], LC_F32, 2, (int64_t[]){1, k_n});
    lc_desc_init(&in[1], LC_F32, 2, (int64_t[]){oc, k_n});
    lc_desc_init(&in[2], LC_F32, 1, &oc);
    lc_desc_init(&y, LC_F32, 2, (int64_t[]){1, oc});
    CHECK(lc_op_linear.pack(&attr, 3, in, &y, k, &spec));
    CHECK(spec.op->infer(spec.attr, 2, in + 1, &n_out, &out) == LC_OK);
    float *w = random_floats(oc * k_n, -1, 1), *bias = random_floats(oc, -1, 1);
    const size_t bytes = lc_desc_bytes(&out);
    char *want = poisoned(bytes), *got = poisoned(bytes);
    const int64_t blocks = (oc + k->block - 1) / k->block;
    float *to = (float *)(void *)want;
    memset(want, 0, bytes);
    for (int64_t ob = 0; ob < blocks; ob += 2) {
        const int64_t width = (blocks - ob < 2 ? 1 : 2) * k->block;
        for (int64_t e = 0; e < k_n; e++)
            for (int64_t i = 0; i < width; i++, to++)
                if (ob * k->block + i < oc)
                    *to = w[(ob * k->block + i) * k_n + e];
    }
    const size_t at = ((size_t)(blocks * k->block * k_n) * sizeof(float) + 63) / 64 * 64;
    memcpy(want + at, bias, (size_t)oc * sizeof *bias);
    lc_step s = step_of(spec.op, spec.attr, 2, in + 1, &out, k);
    run(&s, (const void *[]){w, bias}, got);
    CHECK(memcmp(want, got, bytes) == 0);
    check_way_back(&s, (const void *[]){w, bias}, got, true);
    lc_free(s.prep);
    lc_free(want);
    lc_free(got);
    lc_free(w);
    lc_free(bias);
}

int main(void)
{
    lc_kernels tables[5];
    int n = 0;
    for (int isa = LC_ISA_SCALAR; isa <= (int)lc_cpu_get()->isa; isa++)
        lc_kernels_fill(&tables[n++], (lc_isa)isa);
    for (int i = n; i-- > 0;) { /* the same kernels with blocks of 16 */
        tables[n] = tables[i];
        tables[n++].block = 16;
        if (n == 5)
            break;
    }
    for (int i = 0; i < n; i++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            check_conv(&cases[c], &tables[i], false);
            check_conv(&cases[c], &tables[i], true);
        }
        check_linear(64, 40, &tables[i]);
        check_linear(37, 1000, &tables[i]);
        check_linear(1, 3, &tables[i]);
    }
    return check_report();
}
