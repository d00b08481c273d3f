/* Tests of convolution, linear layers and matrix products: csrc/kernels/conv_*, csrc/ops/conv2d*.c,
 * linear.c, matmul.c, on every kernel table that this CPU can run, and with the kernels for AVX-512
 * emulated on AVX2. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "check.h"
#include "ops/ops.h"

/* The AVX-512 kernels once more, under other names, built from pairs of AVX2 registers. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(LC_NO_AVX2)
#define HAVE_EMULATED 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LC_EMULATE_AVX512
#define lc_conv_dense_f32__avx512 conv_dense_emulated
#define lc_conv_lanes_f32__avx512 conv_lanes_emulated
#define lc_conv_kernels_fill__avx512 conv_fill_emulated
#include "kernels/conv_direct_avx512.c"
#pragma GCC pop_options
#endif

/* --- running an op by hand */

static const int teams[] = {1, 2, 3, 5};

static void *poisoned(size_t bytes)
{
    void *p = lc_alloc(bytes + 64);
    memset(p, 0xff, bytes + 64); /* NaN in every float */
    return p;
}

/* Runs all items as `threads` threads would, one after the other, in turns that differ from run to
 * run. */
static void run_op(const lc_op *op, const void *attr, int n_in, const lc_desc *in,
                   const void *const *data, const lc_desc *out, void *to, const lc_kernels *k,
                   int threads)
{
    lc_step s = {.op = op,
                 .attr = attr,
                 .n_in = n_in,
                 .n_out = 1,
                 .in = in,
                 .out = out,
                 .threads = threads,
                 .kernels = k,
                 .phases = 1,
                 .items = {1, 1, 1, 1}};
    CHECK(op->prepare(&s) == LC_OK);
    void *shared = poisoned(s.shared_bytes), *scratch = poisoned(s.thread_bytes);
    for (int phase = 0; phase < s.phases; phase++)
        for (int t = threads - 1; t >= 0; t--) {
            int64_t begin, end;
            lc_share(s.items[phase], t, threads, &begin, &end);
            void *outs[1] = {to};
            lc_bind bind = {.in = data, .out = outs, .shared = shared, .scratch = scratch};
            memset(scratch, 0xff, s.thread_bytes);
            CHECK(op->run(&s, &bind, phase, begin, end) == LC_OK);
        }
    lc_free(shared);
    lc_free(scratch);
    lc_free(s.prep);
}

/* Packs as the packing pass does: edits attr, in and data; returns the blob. */
static void *pack_op(const lc_op *op, void *attr, int *n_in, lc_desc *in, const void **data,
                     const lc_desc *out, const lc_kernels *k)
{
    lc_pack_spec spec;
    memset(&spec, 0, sizeof spec);
    CHECK(op->pack(attr, *n_in, in, out, k, &spec));
    lc_desc blob;
    int n_out;
    CHECK(spec.op->infer(spec.attr, spec.count, in + spec.first, &n_out, &blob) == LC_OK);
    void *memory = poisoned(lc_desc_bytes(&blob)), *again = poisoned(lc_desc_bytes(&blob));
    run_op(spec.op, spec.attr, spec.count, in + spec.first, data + spec.first, &blob, memory, k, 1);
    run_op(spec.op, spec.attr, spec.count, in + spec.first, data + spec.first, &blob, again, k, 3);
    CHECK(memcmp(memory, again, lc_desc_bytes(&blob)) == 0);
    lc_free(again);
    op->set_packed(attr, *n_in, in, &spec);
    int rest = *n_in - spec.first - spec.count;
    in[spec.first] = blob;
    data[spec.first] = memory;
    memmove(in + spec.first + 1, in + spec.first + spec.count, (size_t)rest * sizeof *in);
    memmove(data + spec.first + 1, data + spec.first + spec.count, (size_t)rest * sizeof *data);
    *n_in = spec.first + 1 + rest;
    return memory;
}

/* --- data */

static uint64_t next_stream = 1;

static float *random_floats(int64_t n, float lo, float hi)
{
    float *p = lc_alloc((size_t)n * sizeof *p + 4);
    lc_random_uniform(p, n, 7, next_stream++, 0, lo, hi);
    return p;
}

static int64_t at_blocked(const lc_desc *d, int64_t n, int64_t c, int64_t hw)
{
    int64_t plane = d->dim[2] * d->dim[3], slots = lc_desc_padded_channels(d), b = d->layout.block;
    int64_t slot = lc_desc_channel_slot(d, c);
    return ((n * slots / b + slot / b) * plane + hw) * b + slot % b;
}

static float *to_layout(const lc_desc *d, const float *plain)
{
    float *p = lc_alloc_zero(lc_desc_bytes(d) + 4);
    int64_t plane = d->dim[2] * d->dim[3];
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t i = 0; i < plane; i++)
                p[at_blocked(d, n, c, i)] = plain[(n * d->dim[1] + c) * plane + i];
    return p;
}

/* Takes the values out and sets `*pads_zero`. */
static float *from_layout(const lc_desc *d, const float *blocked, int *pads_zero)
{
    float *p = lc_alloc((size_t)lc_desc_count(d) * sizeof *p + 4);
    char *seen = lc_alloc_zero(lc_desc_bytes(d) / 4 + 1);
    int64_t plane = d->dim[2] * d->dim[3];
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t i = 0; i < plane; i++) {
                p[(n * d->dim[1] + c) * plane + i] = blocked[at_blocked(d, n, c, i)];
                seen[at_blocked(d, n, c, i)] = 1;
            }
    *pads_zero = 1;
    for (size_t i = 0; i < lc_desc_bytes(d) / 4; i++)
        if (!seen[i] && blocked[i] != 0.0f)
            *pads_zero = 0;
    lc_free(seen);
    return p;
}

/* --- convolution */

typedef struct conv_case {
    int64_t n, ic, h, w, oc, kh, kw, s[2], p[4], d[2], g;
    uint32_t flags;
    int x_plain;      /* give x as it is */
    int64_t x_g, y_g; /* groupings of the layouts, for groups == 1 */
} conv_case;

typedef struct conv_data {
    lc_conv2d_attr attr;
    int n_in;
    lc_desc in[8], out;
    float *data[8];
    double *ref, *bound; /* the result, and the sum of absolute values */
} conv_data;

static double channel_scale(const conv_data *c, int64_t oc, double *shift)
{
    int next = 2;
    double scale = 1.0;
    *shift = c->attr.flags & LC_CONV_BIAS ? c->data[next++][oc] : 0.0;
    if (c->attr.flags & LC_CONV_BN) {
        scale = c->data[next][oc] / sqrt((double)c->data[next + 3][oc] + (double)c->attr.bn_eps);
        *shift = c->data[next + 1][oc] + (*shift - c->data[next + 2][oc]) * scale;
    }
    return scale;
}

static void conv_reference(conv_data *c, const conv_case *t)
{
    const float *x = c->data[0], *w = c->data[1];
    int64_t oh_n = c->out.dim[2], ow_n = c->out.dim[3], icg = t->ic / t->g, ocg = t->oc / t->g,
            at = 0;
    c->ref = lc_alloc((size_t)lc_desc_count(&c->out) * sizeof(double) + 8);
    c->bound = lc_alloc((size_t)lc_desc_count(&c->out) * sizeof(double) + 8);
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t oc = 0; oc < t->oc; oc++)
            for (int64_t oh = 0; oh < oh_n; oh++)
                for (int64_t ow = 0; ow < ow_n; ow++, at++) {
                    double sum = 0, sum_abs = 0, shift, scale = channel_scale(c, oc, &shift);
                    for (int64_t i = 0; i < icg; i++)
                        for (int64_t kh = 0; kh < t->kh; kh++)
                            for (int64_t kw = 0; kw < t->kw; kw++) {
                                int64_t ih = oh * t->s[0] + kh * t->d[0] - t->p[0],
                                        iw = ow * t->s[1] + kw * t->d[1] - t->p[2];
                                if (ih < 0 || ih >= t->h || iw < 0 || iw >= t->w)
                                    continue;
                                int64_t ic = oc / ocg * icg + i;
                                double v = (double)x[((n * t->ic + ic) * t->h + ih) * t->w + iw] *
                                           w[((oc * icg + i) * t->kh + kh) * t->kw + kw] * scale;
                                sum += v;
                                sum_abs += fabs(v);
                            }
                    sum += shift;
                    sum_abs += fabs(shift);
                    if (t->flags & LC_CONV_ADD) {
                        double r = c->data[c->n_in - 1][at];
                        sum += r;
                        sum_abs += fabs(r);
                    }
                    c->ref[at] = t->flags & LC_CONV_RELU && sum < 0 ? 0 : sum;
                    c->bound[at] = sum_abs;
                }
}

static conv_data conv_make(const conv_case *t)
{
    conv_data c;
    memset(&c, 0, sizeof c);
    memcpy(c.attr.stride, t->s, sizeof t->s);
    memcpy(c.attr.pad, t->p, sizeof t->p);
    memcpy(c.attr.dilation, t->d, sizeof t->d);
    c.attr.groups = t->g;
    c.attr.flags = t->flags;
    c.attr.bn_eps = 1e-3f;
    lc_desc_init(&c.in[0], LC_F32, 4, (int64_t[]){t->n, t->ic, t->h, t->w});
    lc_desc_init(&c.in[1], LC_F32, 4, (int64_t[]){t->oc, t->ic / t->g, t->kh, t->kw});
    c.n_in = 2;
    int vectors = (t->flags & LC_CONV_BIAS ? 1 : 0) + (t->flags & LC_CONV_BN ? 4 : 0);
    for (int i = 0; i < vectors; i++)
        lc_desc_init(&c.in[c.n_in++], LC_F32, 1, &t->oc);
    for (int i = 0; i < c.n_in; i++)
        c.data[i] = random_floats(lc_desc_count(&c.in[i]),
                                  i == c.n_in - 1 && t->flags & LC_CONV_BN ? 0.5f : -1.0f, 1.5f);
    if (t->flags & LC_CONV_ADD) {
        lc_conv2d_attr bare = c.attr;
        bare.flags &= ~(uint32_t)LC_CONV_ADD;
        int n_out;
        CHECK(lc_op_conv2d.infer(&bare, c.n_in, c.in, &n_out, &c.in[c.n_in]) == LC_OK);
        c.data[c.n_in] = random_floats(lc_desc_count(&c.in[c.n_in]), -2.0f, 2.0f);
        c.n_in++;
    }
    int n_out;
    lc_status ok = lc_op_conv2d.infer(&c.attr, c.n_in, c.in, &n_out, &c.out);
    CHECK(ok == LC_OK);
    if (ok != LC_OK)
        fprintf(stderr, "%s\n", lc_error_message());
    conv_reference(&c, t);
    return c;
}

static void conv_free(conv_data *c)
{
    for (int i = 0; i < c->n_in; i++)
        lc_free(c->data[i]);
    lc_free(c->ref);
    lc_free(c->bound);
}

/* The convolution of images [n0, n1) through the op: layouts, packing, run. Returns plain
 * values. */
static float *conv_compute(const conv_data *c, const conv_case *t, const lc_kernels *k, int64_t n0,
                           int64_t n1, int threads, int *pads_zero)
{
    lc_conv2d_attr attr = c->attr;
    int n_in = c->n_in;
    lc_desc in[8], out = c->out;
    lc_layout want[8], give[1];
    const void *data[8];
    float *owned[2];
    memcpy(in, c->in, sizeof in);
    in[0].dim[0] = out.dim[0] = n1 - n0;
    if (t->flags & LC_CONV_ADD)
        in[n_in - 1].dim[0] = n1 - n0;
    in[0].layout = t->x_plain ? LC_PLAIN : (lc_layout){k->block, (int32_t)t->x_g};
    out.layout = (lc_layout){k->block, (int32_t)t->y_g};
    lc_op_conv2d.layout(
        &(lc_layout_query){
            .attr = &attr, .n_in = n_in, .n_out = 1, .in = in, .out = &out, .block = k->block},
        want, give);
    if (t->g == 1) { /* it can give any, but prefers another where the padding costs too much */
        CHECK(lc_layout_equal(give[0], out.layout) ||
              lc_layout_equal(give[0], lc_layout_blocked(k->block, out.dim[1], 1)));
        give[0] = out.layout;
        if (t->flags & LC_CONV_ADD)
            want[n_in - 1] = out.layout;
    }
    for (int i = 0; i < n_in; i++) {
        in[i].layout = want[i];
        data[i] = c->data[i];
    }
    out.layout = give[0];
    int64_t x_image = lc_desc_count(&c->in[0]) / (t->n ? t->n : 1),
            y_image = lc_desc_count(&c->out) / (t->n ? t->n : 1);
    if (in[0].layout.block == 1) { /* the user's own array: aligned to 4 bytes only */
        owned[0] = lc_alloc((size_t)(x_image * (n1 - n0) + 2) * sizeof(float));
        memcpy(owned[0] + 1, c->data[0] + n0 * x_image,
               (size_t)(x_image * (n1 - n0)) * sizeof(float));
        data[0] = owned[0] + 1;
    } else {
        data[0] = owned[0] = to_layout(&in[0], c->data[0] + n0 * x_image);
    }
    owned[1] = NULL;
    if (t->flags & LC_CONV_ADD)
        data[n_in - 1] = owned[1] = to_layout(&in[n_in - 1], c->data[n_in - 1] + n0 * y_image);
    void *blob = pack_op(&lc_op_conv2d, &attr, &n_in, in, data, &out, k);
    lc_desc again;
    int n_out;
    CHECK(lc_op_conv2d.infer(&attr, n_in, in, &n_out, &again) == LC_OK &&
          lc_desc_same_shape(&again, &out));
    float *y = poisoned(lc_desc_bytes(&out));
    run_op(&lc_op_conv2d, &attr, n_in, in, data, &out, y, k, threads);
    float *plain = from_layout(&out, y, pads_zero);
    lc_free(y);
    lc_free(blob);
    lc_free(owned[0]);
    lc_free(owned[1]);
    return plain;
}

static void conv_describe(const conv_case *t, const lc_kernels *k, const char *what)
{
    fprintf(stderr,
            "  %s: isa %d block %d: n %lld ic %lld %lldx%lld oc %lld k %lldx%lld s %lld,%lld p "
            "%lld,%lld,%lld,%lld "
            "d %lld,%lld g %lld flags %u plain %d xg %lld yg %lld\n",
            what, k->isa, k->block, (long long)t->n, (long long)t->ic, (long long)t->h,
            (long long)t->w, (long long)t->oc, (long long)t->kh, (long long)t->kw,
            (long long)t->s[0], (long long)t->s[1], (long long)t->p[0], (long long)t->p[1],
            (long long)t->p[2], (long long)t->p[3], (long long)t->d[0], (long long)t->d[1],
            (long long)t->g, t->flags, t->x_plain, (long long)t->x_g, (long long)t->y_g);
}

static void conv_check(const conv_case *t, const lc_kernels *tables, int n_tables)
{
    conv_data c = conv_make(t);
    int64_t count = lc_desc_count(&c.out), image = t->n ? count / t->n : 0;
    for (int i = 0; i < n_tables; i++) {
        const lc_kernels *k = &tables[i];
        int pads_zero, before = failed;
        float *y = conv_compute(&c, t, k, 0, t->n, 1, &pads_zero);
        CHECK(pads_zero);
        int64_t wrong = 0;
        for (int64_t e = 0; e < count; e++)
            wrong += !(fabs(y[e] - c.ref[e]) <= 1e-6 + 2e-6 * c.bound[e]);
        CHECK(wrong == 0);
        for (size_t j = 1; j < sizeof teams / sizeof *teams; j++) {
            float *z = conv_compute(&c, t, k, 0, t->n, teams[j], &pads_zero);
            CHECK(memcmp(y, z, (size_t)count * sizeof *y) == 0);
            lc_free(z);
        }
        for (int64_t n = 0; t->n > 1 && n < t->n; n++) {
            float *z = conv_compute(&c, t, k, n, n + 1, 2, &pads_zero);
            CHECK(memcmp(y + n * image, z, (size_t)image * sizeof *y) == 0);
            lc_free(z);
        }
        lc_free(y);
        if (failed > before)
            conv_describe(t, k, "conv2d");
    }
    conv_free(&c);
}

enum { B = LC_CONV_BIAS, BN = LC_CONV_BN, A = LC_CONV_ADD, R = LC_CONV_RELU };

static const conv_case conv_cases[] = {
    /* what networks are made of */
    {2, 3, 31, 29, 64, 7, 7, {2, 2}, {3, 3, 3, 3}, {1, 1}, 1, BN | R, 1, 1, 1},
    {1, 4, 20, 23, 24, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, B | R, 1, 1, 1},
    {2, 64, 14, 13, 64, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, BN | A | R, 0, 1, 1},
    {1, 128, 7, 7, 160, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, BN | A | R, 0, 1, 1},
    {2, 128, 15, 14, 72, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, BN | R, 0, 1, 1},
    {3, 320, 7, 7, 136, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, BN | A | R, 0, 1, 1},
    {1, 1040, 3, 3, 32, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, B, 0, 1, 1},
    {1, 64, 15, 15, 64, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, BN, 0, 1, 1},
    /* odd sizes */
    {2, 5, 9, 11, 7, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, B | A | R, 0, 1, 1},
    {1, 17, 10, 6, 19, 5, 2, {3, 1}, {2, 0, 1, 3}, {1, 2}, 1, B | BN | A, 0, 1, 1},
    {1, 9, 5, 5, 33, 3, 3, {1, 1}, {7, 2, 0, 9}, {2, 1}, 1, 0, 0, 1, 1}, /* padding larger than the
                                                                            kernel */
    {1, 9, 5, 5, 33, 3, 3, {1, 2}, {1, 1, 70, 61}, {1, 1}, 1, B | R, 0, 1, 1}, /* too wide to copy
                                                                                */
    {2, 64, 3, 3, 48, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, BN | A, 0, 1, 1},
    {1, 24, 13, 13, 40, 5, 3, {2, 2}, {2, 2, 1, 1}, {1, 1}, 1, BN | R, 0, 1, 1},
    {1, 24, 30, 7, 40, 3, 3, {4, 1}, {9, 3, 1, 1}, {3, 1}, 1, BN | A | R, 0, 1, 1},
    {1, 64, 1, 9, 64, 1, 1, {1, 2}, {0, 0, 0, 0}, {1, 1}, 1, B | A, 0, 1, 1},
    {2, 40, 8, 9, 40, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 4, B | A, 0, 1, 1},
    {1, 4, 8, 9, 24, 1, 1, {2, 3}, {0, 0, 0, 0}, {1, 1}, 1, B | A, 1, 1, 1},
    {1, 9, 4, 70, 8, 1, 67, {1, 2}, {0, 0, 5, 5}, {1, 1}, 1, B, 0, 1, 1}, /* wide kernel */
    {1, 3, 3, 4, 8, 9, 9, {1, 1}, {4, 4, 4, 4}, {1, 1}, 1, B, 1, 1, 1},   /* kernel larger than the
                                                                             input */
    {1, 1, 1, 1, 1, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 1},
    {1, 2, 1, 40, 3, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, R, 1, 1, 1},
    {0, 8, 6, 6, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, B, 0, 1, 1}, /* empty batch */
    /* groupings of dense layouts */
    {1, 40, 6, 7, 30, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, B | A | R, 0, 4, 3},
    {2, 40, 6, 7, 60, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, B | A, 0, 2, 5},
    {1, 12, 9, 9, 40, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, B | R, 0, 1, 4},
    /* groups: multiples of the block, padded, sharing blocks, unequal */
    {2, 64, 9, 9, 96, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2, BN | A | R, 0, 1, 1},
    {1, 96, 8, 8, 96, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 4, BN | R, 0, 1, 1},
    {1, 40, 8, 8, 80, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 4, BN | R, 0, 1, 1},
    {2, 32, 9, 20, 32, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 32, BN | A | R, 0, 1, 1},
    {1, 12, 9, 9, 12, 7, 7, {2, 2}, {3, 3, 3, 3}, {1, 1}, 12, B, 0, 1, 1},
    {1, 3, 9, 9, 3, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 3, B, 1, 1, 1},
    {2, 12, 9, 21, 12, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 2}, 6, B | A | R, 0, 1, 1},
    {2, 128, 9, 11, 128, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 32, BN | R, 0, 1, 1},
    {1, 128, 9, 11, 128, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 32, BN | A | R, 0, 1, 1},
    {1, 64, 10, 19, 64, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 8, BN | R, 0, 1, 1},
    {1, 64, 10, 9, 64, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 4, BN | R, 0, 1, 1},
    {1, 6, 7, 7, 12, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 6, B | A | R, 0, 1, 1},
    {1, 16, 7, 7, 24, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 8, B | R, 0, 1, 1},
    {1, 64, 1, 1, 32, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 2, BN | R, 0, 1, 1},
};

static uint32_t draw(uint32_t below)
{
    static uint64_t block;
    uint32_t out[4];
    lc_philox(11, 3, block++, out);
    return out[0] % below;
}

static conv_case random_case(void)
{
    conv_case t;
    memset(&t, 0, sizeof t);
    int64_t icg = 1 + draw(draw(2) ? 10 : 40), ocg = draw(3) ? 1 + draw(30) : icg;
    t.g = draw(2) ? 1 : 1 + draw(5);
    t.n = 1 + draw(2);
    t.ic = icg * t.g;
    t.oc = ocg * t.g;
    t.kh = 1 + draw(4);
    t.kw = 1 + draw(4);
    for (int i = 0; i < 2; i++) {
        t.s[i] = 1 + draw(3);
        t.d[i] = 1 + draw(2);
    }
    for (int i = 0; i < 4; i++)
        t.p[i] = draw(4);
    t.h = t.d[0] * (t.kh - 1) + 1 + draw(12);
    t.w = t.d[1] * (t.kw - 1) + 1 + draw(30);
    t.flags = draw(16) & (B | BN | A | R);
    t.x_plain = t.g > 1 || t.ic > 4 ? 0 : (int)draw(2);
    t.x_g = t.y_g = 1;
    for (int64_t i = 2; i <= 4; i++) {
        if (t.g == 1 && t.ic % i == 0 && draw(2))
            t.x_g = i;
        if (t.g == 1 && t.oc % i == 0 && draw(2))
            t.y_g = i;
    }
    return t;
}

/* A NaN stays where it belongs: its image, its neighbourhood; pads stay zero; ReLU and infinity let
 * it through. */
static void test_conv_nan(const lc_kernels *k)
{
    conv_case t = {2, 7, 6, 6, 20, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, B | R, 0, 1, 1};
    conv_data c = conv_make(&t);
    for (int i = 0; i < 2; i++) {
        c.data[0][0] = i ? INFINITY : NAN;
        int pads_zero, finite = 0, other = 0;
        float *y = conv_compute(&c, &t, k, 0, 2, 2, &pads_zero);
        CHECK(pads_zero);
        for (int oc = 0; oc < 20; oc++)
            for (int p = 0; p < 36; p++) {
                if (i == 0 && p / 6 < 2 && p % 6 < 2)
                    finite += isfinite(y[oc * 36 + p]) != 0;
                else if (p / 6 >= 2 || p % 6 >= 3)
                    other += !isfinite(y[oc * 36 + p]);
                other += !isfinite(y[(20 + oc) * 36 + p]);
            }
        CHECK(finite == 0);
        CHECK(other == 0);
        lc_free(y);
    }
    conv_free(&c);
}

static void expect(lc_status status, lc_status want, const char *part)
{
    CHECK(status == want);
    CHECK(strstr(lc_error_message(), part) != NULL);
    if (!strstr(lc_error_message(), part))
        fprintf(stderr, "  message: %s\n", lc_error_message());
}

static void test_conv_errors(void)
{
    lc_conv2d_attr a;
    memset(&a, 0, sizeof a);
    a.stride[0] = a.stride[1] = a.dilation[0] = a.dilation[1] = a.groups = 1;
    lc_desc in[3], out;
    int n_out;
    lc_desc_init(&in[0], LC_F32, 4, (int64_t[]){1, 3, 8, 8});
    lc_desc_init(&in[1], LC_F32, 4, (int64_t[]){16, 64, 3, 3});
    lc_desc_init(&in[2], LC_F32, 1, (int64_t[]){15});
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE,
           "weight of shape (16, 64, 3, 3) with groups = 1 expects an input with 64 channels, but "
           "the input has shape (1, 3, 8, 8)");
    in[1].dim[1] = 3;
    a.flags = LC_CONV_BIAS;
    expect(lc_op_conv2d.infer(&a, 3, in, &n_out, &out), LC_ERR_VALUE, "bias of shape (15,)");
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "3 expected");
    a.flags = 0;
    a.stride[1] = 0;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE,
           "stride and dilation must be positive");
    a.stride[1] = 1;
    a.pad[3] = -1;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE,
           "padding must not be negative");
    a.pad[3] = 0;
    a.dilation[0] = 4;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "covers 9 elements");
    a.dilation[0] = INT64_MAX / 2;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "too large");
    a.dilation[0] = 1;
    a.groups = 2;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "groups = 2 does not divide");
    a.groups = 0;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "groups must be positive");
    a.groups = 1;
    in[0].rank = 3;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_VALUE, "4 dimensions");
    in[0].rank = 4;
    in[0].dtype = LC_I64;
    expect(lc_op_conv2d.infer(&a, 2, in, &n_out, &out), LC_ERR_TYPE, "float32");
}

/* --- linear and matmul */

static void test_linear(const lc_kernels *k, int64_t m, int64_t n, int64_t depth, int bias)
{
    lc_linear_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.flags = bias ? LC_CONV_BIAS : 0;
    lc_desc in[3], out;
    lc_desc_init(&in[0], LC_F32, 3, (int64_t[]){m, 1, depth});
    lc_desc_init(&in[1], LC_F32, 2, (int64_t[]){n, depth});
    lc_desc_init(&in[2], LC_F32, 1, &n);
    float *x = random_floats(m * depth + 1, -1, 1), *w = random_floats(n * depth, -1, 1),
          *b = random_floats(n, -1, 1);
    const void *data[3] = {x + 1, w, b};
    int n_in = 2 + bias, n_out;
    CHECK(lc_op_linear.infer(&attr, n_in, in, &n_out, &out) == LC_OK);
    void *blob = pack_op(&lc_op_linear, &attr, &n_in, in, data, &out, k);
    float *y = poisoned((size_t)(m * n) * 4);
    for (size_t j = 0; j < sizeof teams / sizeof *teams; j++) {
        float *z = poisoned((size_t)(m * n + 1) * 4 + 4);
        run_op(&lc_op_linear, &attr, n_in, in, data, &out, z + 1, k, teams[j]);
        int untouched = 1;
        for (int i = 0; i < 4; i++)
            untouched &=
                ((unsigned char *)z)[i] == 0xff && ((unsigned char *)(z + 1 + m * n))[i] == 0xff;
        CHECK(untouched);
        if (j == 0)
            memcpy(y, z + 1, (size_t)(m * n) * 4);
        CHECK(memcmp(y, z + 1, (size_t)(m * n) * 4) == 0);
        lc_free(z);
    }
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t o = 0; o < n; o++) {
            double sum = bias ? b[o] : 0, bound = fabs(sum);
            for (int64_t d = 0; d < depth; d++) {
                sum += (double)x[1 + i * depth + d] * w[o * depth + d];
                bound += fabs((double)x[1 + i * depth + d] * w[o * depth + d]);
            }
            wrong += !(fabs(sum - y[i * n + o]) <= 1e-6 + 2e-6 * bound);
        }
    CHECK(wrong == 0);
    in[0].dim[0] = out.dim[0] = 1;
    for (int64_t i = 0; i < m; i++) { /* a row alone gives the same bits */
        float *z = poisoned((size_t)n * 4);
        data[0] = x + 1 + i * depth;
        run_op(&lc_op_linear, &attr, n_in, in, data, &out, z, k, 2);
        CHECK(memcmp(y + i * n, z, (size_t)n * 4) == 0);
        lc_free(z);
    }
    lc_free(blob);
    lc_free(x);
    lc_free(w);
    lc_free(b);
    lc_free(y);
}

typedef struct matmul_case {
    int ra, rb, ry;
    int64_t a[5], b[5], y[5];
} matmul_case;

static const matmul_case matmul_cases[] = {
    {2, 2, 2, {5, 7}, {7, 9}, {5, 9}},
    {2, 2, 2, {30, 300}, {300, 33}, {30, 33}},
    {1, 1, 0, {6}, {6}, {0}},
    {1, 2, 1, {6}, {6, 4}, {4}},
    {2, 1, 1, {4, 6}, {6}, {4}},
    {3, 2, 3, {3, 4, 6}, {6, 17}, {3, 4, 17}},
    {2, 3, 3, {4, 6}, {3, 6, 17}, {3, 4, 17}},
    {4, 3, 4, {2, 1, 4, 5}, {3, 5, 2}, {2, 3, 4, 2}},
    {1, 3, 2, {5}, {3, 5, 2}, {3, 2}},
    {3, 1, 2, {3, 2, 5}, {5}, {3, 2}},
    {2, 2, 2, {3, 0}, {0, 4}, {3, 4}},
    {2, 2, 2, {0, 3}, {3, 4}, {0, 4}},
    {3, 3, 3, {0, 2, 3}, {1, 3, 4}, {0, 2, 4}},
};

static void test_matmul(const lc_kernels *k, const matmul_case *t)
{
    lc_desc in[2], out;
    lc_desc_init(&in[0], LC_F32, t->ra, t->a);
    lc_desc_init(&in[1], LC_F32, t->rb, t->b);
    int n_out;
    CHECK(lc_op_matmul.infer(&(lc_matmul_attr){0}, 2, in, &n_out, &out) == LC_OK);
    CHECK(out.rank == t->ry && memcmp(out.dim, t->y, (size_t)t->ry * sizeof *t->y) == 0);
    int64_t count = lc_desc_count(&out);
    float *a = random_floats(lc_desc_count(&in[0]), -1, 1),
          *b = random_floats(lc_desc_count(&in[1]), -1, 1);
    const void *data[2] = {a, b};
    float *y = poisoned((size_t)count * 4);
    for (size_t j = 0; j < sizeof teams / sizeof *teams; j++) {
        float *z = poisoned((size_t)count * 4);
        run_op(&lc_op_matmul, &(lc_matmul_attr){0}, 2, in, data, &out, z, k, teams[j]);
        if (j == 0)
            memcpy(y, z, (size_t)count * 4);
        CHECK(memcmp(y, z, (size_t)count * 4) == 0);
        lc_free(z);
    }
    /* the definition, with vectors as matrices and both batches spelled out to three axes */
    int64_t as[5] = {1, 1, 1, 1, 1}, bs[5] = {1, 1, 1, 1, 1};
    for (int i = 0; i < t->ra; i++)
        as[5 - t->ra + i] = t->a[i];
    for (int i = 0; i < t->rb; i++)
        bs[5 - t->rb + i] = t->b[i];
    if (t->rb == 1) {
        bs[3] = bs[4];
        bs[4] = 1;
    }
    int64_t m = as[3], depth = as[4], n = bs[4], at = 0, wrong = 0;
    for (int64_t p0 = 0; p0 < (as[1] == 1 ? bs[1] : as[1]); p0++)
        for (int64_t p1 = 0; p1 < (as[2] == 1 ? bs[2] : as[2]); p1++)
            for (int64_t i = 0; i < m; i++)
                for (int64_t o = 0; o < n; o++, at++) {
                    const float *pa =
                        a +
                        (((as[1] == 1 ? 0 : p0) * as[2] + (as[2] == 1 ? 0 : p1)) * m + i) * depth;
                    const float *pb =
                        b + ((bs[1] == 1 ? 0 : p0) * bs[2] + (bs[2] == 1 ? 0 : p1)) * depth * n + o;
                    double sum = 0, bound = 0;
                    for (int64_t d = 0; d < depth; d++) {
                        sum += (double)pa[d] * pb[d * n];
                        bound += fabs((double)pa[d] * pb[d * n]);
                    }
                    wrong += !(fabs(sum - y[at]) <= 1e-6 + 2e-6 * bound);
                }
    CHECK(at == count);
    CHECK(wrong == 0);
    lc_free(a);
    lc_free(b);
    lc_free(y);
}

static void test_matrix_errors(void)
{
    lc_desc in[3], out;
    int n_out;
    lc_linear_attr attr;
    memset(&attr, 0, sizeof attr);
    lc_desc_init(&in[0], LC_F32, 2, (int64_t[]){2, 5});
    lc_desc_init(&in[1], LC_F32, 2, (int64_t[]){7, 6});
    expect(lc_op_linear.infer(&attr, 2, in, &n_out, &out), LC_ERR_VALUE,
           "weight of shape (7, 6) expects 6 input features, but the input has shape (2, 5)");
    expect(lc_op_matmul.infer(&(lc_matmul_attr){0}, 2, in, &n_out, &out), LC_ERR_VALUE,
           "(2, 5) and (7, 6)");
    in[1].dtype = LC_I64;
    expect(lc_op_linear.infer(&attr, 2, in, &n_out, &out), LC_ERR_TYPE, "float32");
    lc_desc_init(&in[0], LC_F32, 3, (int64_t[]){2, 5, 7});
    lc_desc_init(&in[1], LC_F32, 3, (int64_t[]){3, 7, 6});
    expect(lc_op_matmul.infer(&(lc_matmul_attr){0}, 2, in, &n_out, &out), LC_ERR_VALUE,
           "broadcast");
}

int main(void)
{
    lc_kernels tables[LC_ISA_COUNT + 2];
    int n_tables = 0;
    for (int isa = 0; isa <= (int)lc_cpu_get()->isa; isa++)
        lc_kernels_fill(&tables[n_tables++], (lc_isa)isa);
    lc_kernels_fill(&tables[n_tables], LC_ISA_SCALAR); /* plain loops with blocks of 16 */
    tables[n_tables++].block = 16;
#ifdef HAVE_EMULATED
    if (lc_cpu_get()->isa >= LC_ISA_AVX2) {
        tables[n_tables] = tables[n_tables - 1];
        conv_fill_emulated(&tables[n_tables++].conv);
    }
#endif
    for (size_t i = 0; i < sizeof conv_cases / sizeof *conv_cases; i++)
        conv_check(&conv_cases[i], tables, n_tables);
    for (int i = 0; i < 120; i++) {
        conv_case t = random_case();
        conv_check(&t, tables, n_tables);
    }
    static const int64_t depths[] = {0, 1, 5, 256, 257, 700},
                         widths[] = {1, 7, 8, 9, 16, 17, 24, 40};
    for (int i = 0; i < n_tables; i++) {
        test_conv_nan(&tables[i]);
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
            for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
                test_linear(&tables[i], 1 + (int64_t)((d * 5 + w) % 15), widths[w], depths[d],
                            w % 2);
        test_linear(&tables[i], 0, 4, 4, 1);
        for (size_t m = 0; m < sizeof matmul_cases / sizeof *matmul_cases; m++)
            test_matmul(&tables[i], &matmul_cases[m]);
    }
    test_conv_errors();
    test_matrix_errors();
    return check_report();
}
