/* Tests of convolution by Winograd's and Strassen's algorithms: csrc/kernels/winograd_*,
 * csrc/ops/conv2d_winograd.c, conv_choose.c, on every kernel table that this CPU can run, and with
 * the kernels for AVX-512 emulated on AVX2. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "check.h"
#include "ops/conv2d_winograd.h"
#include "ops/conv_form.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(LC_NO_AVX2)
#define HAVE_EMULATED 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LC_EMULATE_AVX512
#define lc_winograd_kernels_fill__avx512 winograd_fill_emulated
#include "kernels/winograd_avx512.c"
#pragma GCC pop_options
#endif

#define BOUND 2e-5 /* of the largest value; measured: below 5e-6 */

enum { B = LC_CONV_BIAS, BN = LC_CONV_BN, A = LC_CONV_ADD, R = LC_CONV_RELU };

typedef struct wino_case {
    int64_t n, ic, h, w, oc, p[4], g;
    uint32_t flags;
    int64_t y_g; /* grouping of y, for groups == 1 */
    int64_t stride;
    lc_conv_algorithm algorithm; /* 0: LC_CONV_WINOGRAD, or for stride 2 its form for that */
} wino_case;

static lc_conv_algorithm algorithm_of(const wino_case *t)
{
    return t->algorithm ? t->algorithm : t->stride == 2 ? LC_CONV_WINOGRAD_S2 : LC_CONV_WINOGRAD;
}

static int64_t kernel_of(const wino_case *t)
{
    return lc_conv_winograd_form(algorithm_of(t))->kernel;
}

typedef struct wino_data {
    lc_conv2d_attr attr;
    int n_in;
    lc_desc in[8], out;
    float *data[8]; /* plain */
    double *ref;
    double largest;
} wino_data;

static void *poisoned(size_t bytes)
{
    void *p = lc_alloc(bytes + 64);
    memset(p, 0xff, bytes + 64); /* NaN in every float */
    return p;
}

static float *random_floats(int64_t n, float lo, float hi)
{
    static uint64_t stream = 1;
    float *p = lc_alloc((size_t)n * sizeof *p + 4);
    lc_random_uniform(p, n, 5, stream++, 0, lo, hi);
    return p;
}

static void reference(wino_data *d, const wino_case *t)
{
    const int64_t icg = t->ic / t->g, ocg = t->oc / t->g, oh_n = d->out.dim[2],
                  ow_n = d->out.dim[3];
    const int64_t side = kernel_of(t), taps = side * side;
    const float *x = d->data[0], *w = d->data[1];
    int64_t at = 0;
    d->ref = lc_alloc((size_t)lc_desc_count(&d->out) * sizeof(double));
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t oc = 0; oc < t->oc; oc++) {
            int next = 2;
            double scale = 1, shift = t->flags & B ? d->data[next++][oc] : 0;
            if (t->flags & BN) {
                scale = d->data[next][oc] /
                        sqrt((double)d->data[next + 3][oc] + (double)d->attr.bn_eps);
                shift = d->data[next + 1][oc] + (shift - d->data[next + 2][oc]) * scale;
            }
            for (int64_t oh = 0; oh < oh_n; oh++)
                for (int64_t ow = 0; ow < ow_n; ow++, at++) {
                    double sum = 0;
                    for (int64_t i = 0; i < icg; i++)
                        for (int64_t k = 0; k < taps; k++) {
                            const int64_t ih = oh * d->attr.stride[0] + k / side - t->p[0];
                            const int64_t iw = ow * d->attr.stride[1] + k % side - t->p[2];
                            if (ih < 0 || ih >= t->h || iw < 0 || iw >= t->w)
                                continue;
                            const int64_t ic = oc / ocg * icg + i;
                            sum += (double)x[((n * t->ic + ic) * t->h + ih) * t->w + iw] *
                                   w[(oc * icg + i) * taps + k];
                        }
                    sum = sum * scale + shift + (t->flags & A ? d->data[d->n_in - 1][at] : 0);
                    d->ref[at] = t->flags & R && sum < 0 ? 0 : sum;
                    d->largest = fmax(d->largest, fabs(sum));
                }
        }
}

static wino_data make(const wino_case *t)
{
    wino_data d;
    int n_out;
    memset(&d, 0, sizeof d);
    for (int i = 0; i < 2; i++) {
        d.attr.stride[i] = t->stride;
        d.attr.dilation[i] = 1;
    }
    memcpy(d.attr.pad, t->p, sizeof t->p);
    d.attr.groups = t->g;
    d.attr.flags = t->flags & ~(uint32_t)A;
    d.attr.bn_eps = 1e-3f;
    lc_desc_init(&d.in[0], LC_F32, 4, (int64_t[]){t->n, t->ic, t->h, t->w});
    lc_desc_init(&d.in[1], LC_F32, 4, (int64_t[]){t->oc, t->ic / t->g, kernel_of(t), kernel_of(t)});
    d.n_in = 2;
    for (int i = (t->flags & B ? 1 : 0) + (t->flags & BN ? 4 : 0); i > 0; i--)
        lc_desc_init(&d.in[d.n_in++], LC_F32, 1, &t->oc);
    CHECK(lc_op_conv2d.infer(&d.attr, d.n_in, d.in, &n_out, &d.out) == LC_OK);
    d.attr.flags = t->flags;
    const int last = d.n_in - 1;
    if (t->flags & A)
        d.in[d.n_in++] = d.out;
    for (int i = 0; i < d.n_in; i++) /* variances are positive */
        d.data[i] =
            random_floats(lc_desc_count(&d.in[i]), t->flags & BN && i == last ? 0.5f : -1.0f, 1.0f);
    reference(&d, t);
    return d;
}

static void drop(wino_data *d)
{
    for (int i = 0; i < d->n_in; i++)
        lc_free(d->data[i]);
    lc_free(d->ref);
}

static int64_t place(const lc_desc *d, int64_t n, int64_t c, int64_t hw)
{
    const int64_t b = d->layout.block, plane = d->dim[2] * d->dim[3];
    const int64_t slot = lc_desc_channel_slot(d, c);
    return ((n * lc_desc_padded_channels(d) / b + slot / b) * plane + hw) * b + slot % b;
}

/* Moves between plain and blocked; `to_blocked` fills pads with zeros. */
static float *move(const lc_desc *d, const float *from, int to_blocked)
{
    const int64_t plane = d->dim[2] * d->dim[3];
    float *to = lc_alloc_zero(lc_desc_bytes(d) + 4);
    for (int64_t n = 0; n < d->dim[0]; n++)
        for (int64_t c = 0; c < d->dim[1]; c++)
            for (int64_t i = 0; i < plane; i++) {
                const int64_t plain = (n * d->dim[1] + c) * plane + i, blocked = place(d, n, c, i);
                to[to_blocked ? blocked : plain] = from[to_blocked ? plain : blocked];
            }
    return to;
}

static int pads_are_zero(const lc_desc *d, const float *blocked)
{
    const int64_t plane = d->dim[2] * d->dim[3], slots = lc_desc_padded_channels(d);
    char *used = lc_alloc_zero((size_t)slots);
    int zero = 1;
    for (int64_t c = 0; c < d->dim[1]; c++)
        used[lc_desc_channel_slot(d, c)] = 1;
    for (int64_t i = 0; i < d->dim[0] * slots * plane; i++) {
        const int64_t b = d->layout.block, slot = i / (plane * b) % (slots / b) * b + i % b;
        zero &= used[slot] || blocked[i] == 0.0f;
    }
    lc_free(used);
    return zero;
}

/* Runs all items of a prepared step as `threads` threads would. */
static void run_items(const lc_step *s, const void *const *data, void *to, int threads)
{
    void *scratch = poisoned(s->thread_bytes), *outs[1] = {to};
    lc_bind bind = {.in = data, .out = outs, .scratch = scratch};
    for (int t = threads - 1; t >= 0; t--) {
        int64_t begin, end;
        lc_share(s->items[0], t, threads, &begin, &end);
        memset(scratch, 0xff, s->thread_bytes);
        CHECK(s->op->run(s, &bind, 0, begin, end) == LC_OK);
    }
    lc_free(scratch);
}

static lc_step step_of(const lc_op *op, const void *attr, int n_in, const lc_desc *in,
                       const lc_desc *out, const lc_kernels *k, int threads)
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
    return s;
}

/* Images [n0, n1), plain. l2: size of the cache that the schedule is made for; 0: the machine's. */
static float *compute(const wino_data *d, const wino_case *t, const lc_kernels *k, int64_t n0,
                      int64_t n1, int threads, int64_t l2)
{
    lc_conv2d_attr attr = d->attr;
    const int n_in = d->n_in, add = (t->flags & A) != 0;
    lc_desc in[8], out = d->out, blob;
    lc_layout want[8], give[1];
    memcpy(in, d->in, sizeof in);
    in[0].dim[0] = out.dim[0] = n1 - n0;
    if (add)
        in[n_in - 1].dim[0] = n1 - n0;
    if (!lc_conv_winograd_form(algorithm_of(t))->folded)
        in[0].layout = lc_layout_blocked(k->block, t->ic, 1);
    out.layout = (lc_layout){k->block, (int32_t)t->y_g};
    lc_op_conv2d.layout(
        &(lc_layout_query){
            .attr = &attr, .n_in = n_in, .n_out = 1, .in = in, .out = &out, .block = k->block},
        want, give);
    for (int i = 0; i < n_in; i++)
        in[i].layout = want[i];
    out.layout = give[0];

    /* The choice is the test's: small shapes too. */
    lc_pack_spec spec;
    lc_conv_pack_attr pack;
    int n_out;
    CHECK(lc_op_conv2d.pack(&attr, n_in, in, &out, k, &spec));
    memcpy(&pack, spec.attr, sizeof pack);
    CHECK(pack.algorithm == (uint32_t)lc_conv_choose(&attr, in, &out));
    pack.algorithm = algorithm_of(t);
    memcpy(spec.attr, &pack, sizeof pack);
    CHECK(spec.op->infer(spec.attr, spec.count, in + 1, &n_out, &blob) == LC_OK);
    void *weights = poisoned(lc_desc_bytes(&blob)), *again = poisoned(lc_desc_bytes(&blob));
    lc_step s = step_of(spec.op, spec.attr, spec.count, in + 1, &blob, k, 1);
    run_items(&s, (const void *const *)d->data + 1, weights, 1);
    run_items(&s, (const void *const *)d->data + 1, again, 3);
    CHECK(memcmp(weights, again, lc_desc_bytes(&blob)) == 0);
    lc_free(again);
    lc_free(s.prep);
    lc_op_conv2d.set_packed(&attr, n_in, in, &spec);
    CHECK(attr.algorithm == (uint32_t)algorithm_of(t));

    const int64_t x_image = lc_desc_count(&d->in[0]) / t->n,
                  y_image = lc_desc_count(&d->out) / t->n;
    float *x = move(&in[0], d->data[0] + n0 * x_image, 1);
    float *residual = add ? move(&out, d->data[n_in - 1] + n0 * y_image, 1) : NULL;
    const lc_desc packed[3] = {in[0], blob, out};
    const void *data[3] = {x, weights, residual};
    s = step_of(&lc_op_conv2d, &attr, 2 + add, packed, &out, k, threads);
    CHECK(s.algorithm == lc_conv_winograd_form(algorithm_of(t))->name);
    if (l2)
        lc_winograd_schedule(&s, l2);
    float *y = poisoned(lc_desc_bytes(&out));
    run_items(&s, data, y, threads);
    CHECK(pads_are_zero(&out, y));
    float *plain = move(&out, y, 0);
    lc_free(s.prep);
    lc_free(weights);
    lc_free(x);
    lc_free(residual);
    lc_free(y);
    return plain;
}

static double worst; /* error over all cases */

static void check_case(const wino_case *t, const lc_kernels *tables, int n_tables)
{
    static const int teams[] = {2, 3, 5};
    static const int64_t caches[] = {1, 1 << 18, 1 << 30};
    wino_data d = make(t);
    const int64_t count = lc_desc_count(&d.out), image = count / t->n;
    for (int i = 0; i < n_tables; i++) {
        const lc_kernels *k = &tables[i];
        const int before = failed;
        float *y = compute(&d, t, k, 0, t->n, 1, 0), *z;
        double error = 0;
        for (int64_t e = 0; e < count; e++)
            error = larger_error(error, y[e] - d.ref[e]);
        CHECK(error <= BOUND * d.largest);
        worst = fmax(worst, error / d.largest);
        for (size_t j = 0; j < sizeof teams / sizeof *teams; j++) {
            z = compute(&d, t, k, 0, t->n, teams[j], 0);
            CHECK(memcmp(y, z, (size_t)count * sizeof *y) == 0);
            lc_free(z);
        }
        for (size_t j = 0; j < sizeof caches / sizeof *caches; j++) {
            z = compute(&d, t, k, 0, t->n, 1 + (int)j, caches[j]);
            CHECK(memcmp(y, z, (size_t)count * sizeof *y) == 0);
            lc_free(z);
        }
        for (int64_t n = 0; t->n > 1 && n < t->n; n++) {
            z = compute(&d, t, k, n, n + 1, 2, 0);
            CHECK(memcmp(y + n * image, z, (size_t)image * sizeof *y) == 0);
            lc_free(z);
        }
        lc_free(y);
        if (failed > before)
            fprintf(
                stderr,
                "  %s isa %d block %d: n %lld ic %lld %lldx%lld oc %lld pad %lld,%lld,%lld,%lld "
                "groups %lld flags %u, error %.3g of the largest\n",
                lc_conv_winograd_form(algorithm_of(t))->name, k->isa, k->block, (long long)t->n,
                (long long)t->ic, (long long)t->h, (long long)t->w, (long long)t->oc,
                (long long)t->p[0], (long long)t->p[1], (long long)t->p[2], (long long)t->p[3],
                (long long)t->g, t->flags, error / d.largest);
    }
    drop(&d);
}

static const wino_case cases[] = {
    /* what networks are made of */
    {2, 64, 14, 14, 64, {1, 1, 1, 1}, 1, BN | A | R, 1, 1, 0},
    {1, 64, 28, 31, 64, {1, 1, 1, 1}, 1, BN | R, 1, 1, 0},
    {1, 256, 14, 13, 48, {1, 1, 1, 1}, 1, BN | A | R, 1, 1, 0},
    {1, 320, 9, 10, 32, {1, 1, 1, 1}, 1, B, 1, 1, 0},
    {2, 64, 15, 12, 128, {1, 1, 1, 1}, 2, BN | R, 1, 1, 0},
    {1, 128, 11, 9, 64, {1, 1, 1, 1}, 4, BN | A, 1, 1, 0},
    /* padded output blocks, padded groups, a last panel of one block */
    {2, 40, 10, 11, 44, {1, 1, 1, 1}, 1, B | A | R, 1, 1, 0},
    {1, 33, 8, 9, 72, {1, 1, 1, 1}, 1, B | A | R, 3, 1, 0},
    {1, 72, 9, 14, 120, {1, 1, 1, 1}, 3, BN | A | R, 1, 1, 0},
    {2, 80, 7, 6, 80, {1, 1, 1, 1}, 2, BN | R, 1, 1, 0},
    /* paddings, and planes smaller than a tile */
    {1, 32, 12, 17, 32, {0, 0, 0, 0}, 1, B | R, 1, 1, 0},
    {1, 32, 13, 16, 32, {2, 2, 2, 2}, 1, B | A, 1, 1, 0},
    {2, 16, 6, 7, 16, {0, 2, 1, 0}, 1, B | A | R, 1, 1, 0},
    {1, 16, 5, 30, 16, {2, 0, 0, 1}, 1, 0, 1, 1, 0},
    {2, 8, 1, 1, 8, {1, 1, 1, 1}, 1, B | A | R, 1, 1, 0},
    {1, 8, 1, 29, 8, {1, 1, 1, 1}, 1, R, 1, 1, 0},
    {1, 8, 30, 1, 8, {1, 1, 1, 1}, 1, A, 1, 1, 0},
    {1, 8, 3, 3, 8, {0, 0, 0, 0}, 1, B, 1, 1, 0},
    {1, 8, 1, 1, 8, {2, 2, 2, 2}, 1, B, 1, 1, 0},
    /* few tiles, several chunks of channels */
    {1, 136, 7, 8, 64, {1, 1, 1, 1}, 1, BN | A | R, 1, 1, 0},
    {1, 72, 3, 11, 40, {1, 1, 1, 1}, 1, B | R, 1, 1, 0},
    {2, 150, 4, 3, 72, {1, 1, 1, 1}, 1, BN | R, 3, 1, 0},
    /* stride 2: even and odd sizes, padding, groups, padded blocks, several chunks of channels */
    {2, 64, 28, 28, 64, {1, 1, 1, 1}, 1, BN | R, 1, 2, 0},
    {1, 48, 15, 18, 40, {1, 1, 1, 1}, 1, BN | A | R, 1, 2, 0},
    {1, 256, 9, 14, 32, {1, 1, 1, 1}, 1, B, 1, 2, 0},
    {2, 80, 11, 8, 64, {1, 1, 1, 1}, 2, BN | R, 1, 2, 0},
    {1, 33, 17, 16, 72, {0, 1, 0, 1}, 1, B | A | R, 3, 2, 0},
    {2, 16, 13, 33, 16, {0, 0, 0, 0}, 1, B | A, 1, 2, 0},
    {1, 16, 10, 7, 16, {2, 2, 2, 2}, 1, R, 1, 2, 0},
    {2, 8, 1, 1, 8, {1, 1, 1, 1}, 1, B | A | R, 1, 2, 0},
    {1, 8, 3, 40, 8, {1, 1, 1, 1}, 1, B, 1, 2, 0},
    /* 7x7 at stride 2 from plain inputs of one to four channels, short tiles, padding on all sides */
    {2, 3, 64, 64, 64, {3, 3, 3, 3}, 1, BN | R, 1, 2, LC_CONV_WINOGRAD_7X7},
    {1, 3, 37, 30, 24, {3, 3, 3, 3}, 1, BN | A | R, 1, 2, LC_CONV_WINOGRAD_7X7},
    {2, 1, 23, 41, 20, {3, 2, 1, 3}, 1, B | A, 1, 2, LC_CONV_WINOGRAD_7X7},
    {1, 2, 14, 19, 40, {0, 0, 0, 0}, 1, B | R, 1, 2, LC_CONV_WINOGRAD_7X7},
    {2, 4, 31, 26, 16, {6, 6, 6, 6}, 1, R, 1, 2, LC_CONV_WINOGRAD_7X7},
    {1, 4, 12, 7, 33, {6, 0, 5, 1}, 1, A, 3, 2, LC_CONV_WINOGRAD_7X7},
    {1, 3, 7, 7, 8, {0, 0, 0, 0}, 1, 0, 1, 2, LC_CONV_WINOGRAD_7X7},
    {2, 3, 1, 1, 8, {3, 3, 3, 3}, 1, B | A | R, 1, 2, LC_CONV_WINOGRAD_7X7},
    {1, 3, 8, 70, 72, {3, 3, 3, 3}, 1, BN | A | R, 1, 2, LC_CONV_WINOGRAD_7X7},
    /* 1x1: halves and quarters, odd numbers of pixels, strides, several chunks of channels */
    {2, 128, 14, 14, 128, {0}, 1, BN | A | R, 1, 1, LC_CONV_STRASSEN},
    {1, 352, 7, 7, 64, {0}, 1, BN | R, 1, 1, LC_CONV_STRASSEN},
    {2, 64, 9, 11, 192, {0}, 1, B | A, 1, 2, LC_CONV_STRASSEN},
    {1, 32, 1, 1, 64, {0}, 1, B | A | R, 1, 1, LC_CONV_STRASSEN},
    {2, 32, 5, 5, 64, {0}, 1, 0, 1, 3, LC_CONV_STRASSEN},
    {1, 32, 37, 10, 64, {0}, 1, R, 1, 1, LC_CONV_STRASSEN},
    {2, 256, 14, 14, 256, {0}, 1, BN | A | R, 1, 1, LC_CONV_STRASSEN_TWICE},
    {1, 704, 7, 7, 128, {0}, 1, BN | R, 1, 1, LC_CONV_STRASSEN_TWICE},
    {2, 64, 9, 11, 128, {0}, 1, B | A, 1, 2, LC_CONV_STRASSEN_TWICE},
    {1, 64, 1, 3, 128, {0}, 1, B | A | R, 1, 1, LC_CONV_STRASSEN_TWICE},
    {2, 64, 1, 1, 128, {0}, 1, A, 1, 1, LC_CONV_STRASSEN_TWICE},
    {1, 64, 37, 10, 256, {0}, 1, R, 1, 1, LC_CONV_STRASSEN_TWICE},
};

/* By each algorithm for the case's kernel and stride, unless it names one. */
static void check_all(wino_case t, const lc_kernels *tables, int n_tables)
{
    static const lc_conv_algorithm others[] = {LC_CONV_WINOGRAD_LATE, LC_CONV_WINOGRAD_2X2};
    const bool each = t.algorithm == 0 && t.stride == 1;
    check_case(&t, tables, n_tables);
    for (int i = 0; i < 2 && each; i++) {
        t.algorithm = others[i];
        check_case(&t, tables, n_tables);
    }
}

/* Every height with some width, flags and channels going along. */
static void check_sizes(const lc_kernels *tables, int n_tables)
{
    for (int64_t h = 1; h <= 31; h++) {
        wino_case t = {1 + h % 2,
                       8 * (1 + h % 5),
                       h,
                       1 + h * 7 % 31,
                       5 + h * 3 % 29,
                       {1, 1, 1, 1},
                       1,
                       (uint32_t)h % 16 & (B | BN | A | R),
                       1,
                       1,
                       0};
        check_all(t, tables, n_tables);
        t.stride = 2;
        check_all(t, tables, n_tables);
    }
}

/* A value that is not finite stays in its image and in the tiles that read it; where the direct sum
 * is not finite, neither is the result; padded channels stay zero (compute checks that). */
static void check_not_finite(const lc_kernels *k, lc_conv_algorithm algorithm)
{
    const int n = lc_conv_winograd_form(algorithm)->tile;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    wino_case t = {2, 32, 12, 12, 36, {1, 1, 1, 1}, 1, B, 1, 1, algorithm};
    wino_data d = make(&t);
    for (int i = 0; i < 12; i++) {
        const int at = i * 13 % 36 / 6 * 12 + i * 13 % 6, ih = at / 12, iw = at % 12;
        const float good = d.data[0][7 * 144 + at];
        d.data[0][7 * 144 + at] = bad[i % 3];
        float *y = compute(&d, &t, k, 0, 2, 2, 0);
        int far = 0, lost = 0;
        for (int c = 0; c < 36; c++)
            for (int p = 0; p < 144; p++) {
                const int h = p / 12, w = p % 12, tile_h = h / n * n, tile_w = w / n * n;
                const bool finite = isfinite(y[c * 144 + p]) != 0;
                if (ih >= h - 1 && ih <= h + 1 && iw >= w - 1 && iw <= w + 1)
                    lost += finite;
                if (ih < tile_h - 1 || ih > tile_h + n || iw < tile_w - 1 || iw > tile_w + n)
                    far += !finite;
                far += !isfinite(y[(36 + c) * 144 + p]);
            }
        CHECK(far == 0);
        CHECK(lost == 0);
        d.data[0][7 * 144 + at] = good;
        lc_free(y);
    }
    drop(&d);
}

/* Strassen's algorithm spreads it over the pixels of a tile and over all channels. */
static void check_not_finite_1x1(const lc_kernels *k, lc_conv_algorithm algorithm)
{
    wino_case t = {2, 64, 5, 7, 128, {0}, 1, B | R, 1, 1, algorithm};
    const int parts = lc_conv_winograd_form(algorithm)->parts;
    wino_data d = make(&t);
    for (int at = 0; at < 35; at += 6) {
        const float good = d.data[0][9 * 35 + at];
        d.data[0][9 * 35 + at] = at % 4 ? NAN : INFINITY;
        float *y = compute(&d, &t, k, 0, 2, 2, 0);
        int far = 0, lost = 0;
        for (int c = 0; c < 128; c++)
            for (int p = 0; p < 35; p++) {
                /* ReLU makes 0 of -inf */
                lost += p == at && at % 4 && isfinite(y[c * 35 + p]);
                far += p / parts != at / parts && !isfinite(y[c * 35 + p]);
                far += !isfinite(y[(128 + c) * 35 + p]);
            }
        CHECK(far == 0);
        CHECK(lost == 0);
        d.data[0][9 * 35 + at] = good;
        lc_free(y);
    }
    drop(&d);
}

/* `reason`: part of why some other algorithm refuses, or NULL. */
static void expect_choice(wino_case t, int block, int64_t kernel, lc_conv_algorithm want,
                          const char *reason)
{
    lc_conv2d_attr a;
    lc_desc in[2], out;
    memset(&a, 0, sizeof a);
    a.stride[0] = a.stride[1] = t.stride;
    a.dilation[0] = a.dilation[1] = 1;
    memcpy(a.pad, t.p, sizeof a.pad);
    a.groups = t.g;
    for (t.n = 0; t.n < 100; t.n += 33) { /* whatever the batch */
        int n_out;
        lc_desc_init(&in[0], LC_F32, 4, (int64_t[]){t.n, t.ic, t.h, t.w});
        lc_desc_init(&in[1], LC_F32, 4, (int64_t[]){t.oc, t.ic / t.g, kernel, kernel});
        CHECK(lc_op_conv2d.infer(&a, 2, in, &n_out, &out) == LC_OK);
        if (kernel < 7 || t.ic > LC_CONV_MAX_PLAIN_CHANNELS)
            in[0].layout = lc_layout_blocked(block, t.ic, 1);
        out.layout = (lc_layout){block, (int32_t)t.y_g};
        CHECK(lc_conv_choose(&a, in, &out) == want);
        lc_candidate c;
        int found = 0;
        for (int i = 0; reason && lc_conv_candidate(&a, in, &out, i, &c); i++)
            found +=
                (c.refuses && strstr(c.refuses, reason)) || (c.avoids && strstr(c.avoids, reason));
        CHECK(!reason || found > 0);
    }
}

static void check_choice(void)
{
    const wino_case fits = {1, 64, 17, 17, 64, {1, 1, 1, 1}, 1, 0, 1, 1, 0};
    wino_case t = fits;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD, NULL);
    t.stride = 3;
    expect_choice(t, 8, 3, LC_CONV_DIRECT, "stride");
    t = fits;
    t.p[2] = 3;
    expect_choice(t, 8, 3, LC_CONV_DIRECT, "padding");
    t = fits;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD, "many tiles");
    expect_choice(t, 16, 3, LC_CONV_WINOGRAD, "save more");
    t.h = t.w = 16;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_LATE, "save more");
    t.w = 17;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD, "many tiles");
    t.h = t.w = 7;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_LATE, "save more");
    expect_choice(t, 16, 3, LC_CONV_WINOGRAD_LATE, "save more");
    t.h = 4;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_LATE, NULL);
    t.h = t.w = 5;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_2X2, NULL);
    t.w = 6;
    expect_choice(t, 16, 3, LC_CONV_WINOGRAD_2X2, NULL);
    t.h = t.w = 3;
    expect_choice(t, 16, 3, LC_CONV_WINOGRAD_LATE, NULL);
    t.w = 2;
    expect_choice(t, 16, 3, LC_CONV_DIRECT, "pixels");
    t = fits;
    t.g = 8;
    expect_choice(t, 8, 3, LC_CONV_DIRECT, "channels");
    t.g = 4;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD, NULL);
    expect_choice(t, 16, 3, LC_CONV_DIRECT, "share");
    t.ic = 40; /* 10 per group */
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD, NULL);
    expect_choice(t, 16, 3, LC_CONV_WINOGRAD, NULL);
    t = fits;
    t.stride = 2;
    t.h = t.w = 28;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_S2, NULL);
    t.h = 18;
    expect_choice(t, 8, 3, LC_CONV_WINOGRAD_S2, NULL);
    t.h = 14;
    expect_choice(t, 8, 3, LC_CONV_DIRECT, "pixels");

    const wino_case stem = {1, 3, 32, 33, 32, {3, 3, 3, 3}, 1, 0, 1, 2, 0};
    t = stem;
    expect_choice(t, 8, 7, LC_CONV_WINOGRAD_7X7, NULL);
    expect_choice(t, 16, 7, LC_CONV_WINOGRAD_7X7, "not 3x3");
    t.oc = 15;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "output channels");
    t = stem;
    t.h = t.w = 4;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "pixels");
    t = stem;
    t.stride = 1;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "stride");
    t = stem;
    t.p[3] = 7;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "padding");
    t = stem;
    t.ic = 5;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "blocked");
    t.ic = 3;
    t.g = 3;
    t.oc = 33;
    expect_choice(t, 8, 7, LC_CONV_DIRECT, "groups");

    const wino_case flat = {1, 128, 14, 14, 512, {0}, 1, 0, 1, 1, 0};
    t = flat;
    expect_choice(t, 8, 1, LC_CONV_STRASSEN, NULL);
    t.ic = 512;
    expect_choice(t, 8, 1, LC_CONV_STRASSEN_TWICE, NULL);
    expect_choice(t, 16, 1, LC_CONV_STRASSEN_TWICE, NULL);
    t.oc = 160;
    expect_choice(t, 8, 1, LC_CONV_STRASSEN, NULL);
    expect_choice(t, 16, 1, LC_CONV_DIRECT, "halved");
    t = flat;
    t.ic = 64;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "channels");
    t = flat;
    t.w = 7;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "pixels");
    t.h = 7;
    t.ic = 1024;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "pixels");
    t.oc = 640;
    expect_choice(t, 8, 1, LC_CONV_STRASSEN, "pixels");
    t.h = 5;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "pixels");
    t = flat;
    t.y_g = 32;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "halved");
    t = flat;
    t.p[0] = 1;
    expect_choice(t, 8, 1, LC_CONV_DIRECT, "padding");
}

/* Products of tiles [first, first + tiles) of planes of h x w outputs, per pair of channels. Every output
 * of theirs has to be made once, and those tiles that are whole, or short in what a position has no
 * need of, take part in it. */
static int64_t check_arranged(lc_winograd_kind kind, int64_t h, int64_t w, int64_t first,
                              int64_t tiles)
{
    lc_winograd_run r = {.form = &lc_winograd_forms[kind], .tiles = tiles, .oh = h, .ow = w};
    const int tile = r.form->tile;
    const int64_t images = 3, rows = lc_ceil_div(h, tile), columns = lc_ceil_div(w, tile);
    lc_winograd_place *place = lc_alloc((size_t)tiles * sizeof *place + 1);
    char *made = lc_alloc_zero((size_t)(images * h * w));
    int64_t products = 0, outputs = 0;
    lc_winograd_arrange(&r, first, place);
    CHECK(r.place == place);
    for (int64_t i = 0; i < tiles; i++) {
        const lc_winograd_place *at = &place[i];
        const bool inside = at->n >= 0 && at->n < images && at->oh >= 0 && at->rows > 0 &&
                            at->oh + at->rows <= h && at->ow >= 0 && at->columns > 0 &&
                            at->ow + at->columns <= w && at->rows <= tile && at->columns <= tile;
        CHECK(inside);
        for (int64_t k = 0; inside && k < (int64_t)at->rows * at->columns; k++, outputs++) {
            char *one =
                &made[(at->n * h + at->oh + k / at->columns) * w + at->ow + k % at->columns];
            CHECK(*one == 0);
            *one = 1;
        }
    }
    CHECK(tiles < images * rows * columns || outputs == images * h * w);
    for (int pos = 0; pos < r.form->positions; pos++) {
        const unsigned last = r.form->last[pos];
        const lc_winograd_range taking = lc_winograd_taking(&r, pos);
        for (int64_t i = 0; i < tiles; i++) {
            const bool needed = (!(last & LC_WINOGRAD_LAST_ROW) || place[i].rows == tile) &&
                                (!(last & LC_WINOGRAD_LAST_COLUMN) || place[i].columns == tile);
            CHECK((i >= taking.from && i < taking.to) == needed);
        }
        products += taking.to - taking.from;
    }
    lc_free(place);
    lc_free(made);
    return products;
}

static void check_tiles(void)
{
    static const lc_winograd_kind kinds[] = {LC_WINOGRAD_3X3, LC_WINOGRAD_3X3_2X2,
                                             LC_WINOGRAD_3X3_S2, LC_WINOGRAD_7X7_S2};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const int tile = lc_winograd_forms[kinds[k]].tile;
        for (int64_t h = 1; h < 19; h++)
            for (int64_t w = 1; w < 19; w += h % 3 + 1) {
                const int64_t all = 3 * lc_ceil_div(h, tile) * lc_ceil_div(w, tile);
                for (int64_t first = 0; first < all; first += 5)
                    check_arranged(kinds[k], h, w, first, all - first < 7 ? all - first : 7);
                check_arranged(kinds[k], h, w, 0, all);
            }
    }
    CHECK(check_arranged(LC_WINOGRAD_3X3, 14, 14, 0, 48) == 3 * 22 * 22);
    CHECK(check_arranged(LC_WINOGRAD_3X3, 7, 7, 0, 12) == 3 * 11 * 11);
    CHECK(check_arranged(LC_WINOGRAD_3X3, 8, 7, 4, 4) == 12 * 11);
    CHECK(check_arranged(LC_WINOGRAD_3X3_2X2, 5, 6, 0, 27) == 3 * 11 * 12);
    CHECK(check_arranged(LC_WINOGRAD_3X3_S2, 14, 14, 0, 48) == 3 * 32 * 32);
    CHECK(check_arranged(LC_WINOGRAD_7X7_S2, 15, 8, 0, 24) == 3 * 27 * 14);
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
        winograd_fill_emulated(&tables[n_tables++].winograd);
    }
#endif
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_all(cases[i], tables, n_tables);
    check_sizes(tables, n_tables);
    for (int i = 0; i < n_tables; i++) {
        check_not_finite(&tables[i], LC_CONV_WINOGRAD);
        check_not_finite(&tables[i], LC_CONV_WINOGRAD_LATE);
        check_not_finite(&tables[i], LC_CONV_WINOGRAD_2X2);
        check_not_finite_1x1(&tables[i], LC_CONV_STRASSEN);
        check_not_finite_1x1(&tables[i], LC_CONV_STRASSEN_TWICE);
    }
    check_choice();
    check_tiles();
    printf("largest error %.2g of the largest value\n", worst);
    return check_report();
}
