/* Tests of the gradients of convolution: conv_wgrad_* and winograd_wgrad_* of
 * csrc/kernels, csrc/ops/conv2d_weight_grad.c, the transposed form of conv2d.c, on every kernel table that this CPU can run, and with the kernels
 * for AVX-512 emulated on AVX2. The reference is a sum in double over all pixels and taps. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "check.h"
#include "ops/conv_form.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(LC_NO_AVX2)
#define HAVE_EMULATED 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LC_EMULATE_AVX512
#define lc_winograd_kernels_fill__avx512 winograd_fill_emulated
#define lc_wgrad_kernels_fill__avx512 wgrad_fill_emulated
#include "kernels/conv_wgrad_avx512.c"
#include "kernels/winograd_avx512.c"
#pragma GCC pop_options
#endif

/* Of the largest value. Measured: below 1e-6 and 5e-6. */
#define BOUND_DIRECT 2e-6
#define BOUND_WINOGRAD 1e-5

typedef struct grad_case {
    int64_t n, ic, h, w, oc, kh, kw, s[2], p[4], d[2], g;
    bool x_plain;     /* x of the weight gradient as it is */
    int64_t x_g, y_g; /* groupings of the layouts, for groups == 1 */
    uint32_t flags;   /* LC_CONV_ADD, LC_CONV_RELU: of the input gradient */
} grad_case;

typedef struct grad_data {
    lc_conv2d_attr attr; /* of the convolution */
    lc_desc x, w, y;
    float *px, *pw, *pdy, *padd; /* plain */
    double *dx, *dw, largest_dx, largest_dw;
} grad_data;

static void *poisoned(size_t bytes)
{
    void *p = lc_alloc(bytes + 64);
    memset(p, 0xff, bytes + 64); /* NaN in every float */
    return p;
}

static float *random_floats(const lc_desc *d)
{
    static uint64_t stream = 1;
    const int64_t n = lc_desc_count(d);
    float *p = lc_alloc((size_t)n * sizeof *p + 4);
    lc_random_uniform(p, n, 11, stream++, 0, -1.0f, 1.0f);
    return p;
}

static void reference(grad_data *d, const grad_case *t)
{
    const int64_t icg = t->ic / t->g, ocg = t->oc / t->g, oh_n = d->y.dim[2], ow_n = d->y.dim[3];
    const int64_t dx_n = lc_desc_count(&d->x), dw_n = lc_desc_count(&d->w);
    d->dx = lc_alloc_zero((size_t)dx_n * sizeof(double) + 8);
    d->dw = lc_alloc_zero((size_t)dw_n * sizeof(double) + 8);
    for (int64_t n = 0, at = 0; n < t->n; n++)
        for (int64_t oc = 0; oc < t->oc; oc++)
            for (int64_t o = 0; o < oh_n * ow_n; o++, at++)
                for (int64_t i = 0; i < icg; i++)
                    for (int64_t k = 0; k < t->kh * t->kw; k++) {
                        const int64_t ih = o / ow_n * t->s[0] + k / t->kw * t->d[0] - t->p[0];
                        const int64_t iw = o % ow_n * t->s[1] + k % t->kw * t->d[1] - t->p[2];
                        if (ih < 0 || ih >= t->h || iw < 0 || iw >= t->w)
                            continue;
                        const int64_t ic = oc / ocg * icg + i;
                        const int64_t xi = ((n * t->ic + ic) * t->h + ih) * t->w + iw;
                        const int64_t wi = (oc * icg + i) * t->kh * t->kw + k;
                        d->dx[xi] += (double)d->pdy[at] * d->pw[wi];
                        d->dw[wi] += (double)d->pdy[at] * d->px[xi];
                    }
    for (int64_t i = 0; i < dw_n; i++)
        d->largest_dw = fmax(d->largest_dw, fabs(d->dw[i]));
    for (int64_t i = 0; i < dx_n; i++) {
        d->dx[i] += t->flags & LC_CONV_ADD ? d->padd[i] : 0;
        d->largest_dx = fmax(d->largest_dx, fabs(d->dx[i]));
        if (t->flags & LC_CONV_RELU && d->dx[i] < 0)
            d->dx[i] = 0;
    }
}

static grad_data make(const grad_case *t)
{
    grad_data d;
    int n_out;
    memset(&d, 0, sizeof d);
    memcpy(d.attr.stride, t->s, sizeof t->s);
    memcpy(d.attr.pad, t->p, sizeof t->p);
    memcpy(d.attr.dilation, t->d, sizeof t->d);
    d.attr.groups = t->g;
    lc_desc_init(&d.x, LC_F32, 4, (int64_t[]){t->n, t->ic, t->h, t->w});
    lc_desc_init(&d.w, LC_F32, 4, (int64_t[]){t->oc, t->ic / t->g, t->kh, t->kw});
    CHECK(lc_op_conv2d.infer(&d.attr, 2, (lc_desc[]){d.x, d.w}, &n_out, &d.y) == LC_OK);
    d.px = random_floats(&d.x);
    d.pw = random_floats(&d.w);
    d.pdy = random_floats(&d.y);
    d.padd = random_floats(&d.x);
    reference(&d, t);
    return d;
}

static void drop(grad_data *d)
{
    lc_free(d->px);
    lc_free(d->pw);
    lc_free(d->pdy);
    lc_free(d->padd);
    lc_free(d->dx);
    lc_free(d->dw);
}

/* --- layouts */

static int64_t place(const lc_desc *d, int64_t n, int64_t c, int64_t hw)
{
    const int64_t b = d->layout.block, plane = d->dim[2] * d->dim[3];
    const int64_t slot = lc_desc_channel_slot(d, c);
    return ((n * lc_desc_padded_channels(d) / b + slot / b) * plane + hw) * b + slot % b;
}

/* Moves between plain and blocked; `to_blocked` fills pads with zeros. */
static float *move(const lc_desc *d, const float *from, bool to_blocked)
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

static bool pads_are_zero(const lc_desc *d, const float *blocked)
{
    const int64_t plane = d->dim[2] * d->dim[3], slots = lc_desc_padded_channels(d);
    char *used = lc_alloc_zero((size_t)slots);
    bool zero = true;
    for (int64_t c = 0; c < d->dim[1]; c++)
        used[lc_desc_channel_slot(d, c)] = 1;
    for (int64_t i = 0; i < d->dim[0] * slots * plane; i++) {
        const int64_t b = d->layout.block, slot = i / (plane * b) % (slots / b) * b + i % b;
        zero &= used[slot] || blocked[i] == 0.0f;
    }
    lc_free(used);
    return zero;
}

static lc_step step_of(const lc_op *op, const void *attr, int n_in, const lc_desc *in,
                       const lc_desc *out, const lc_kernels *k, int threads)
{
    return (lc_step){.op = op,
                     .attr = attr,
                     .n_in = n_in,
                     .n_out = 1,
                     .in = in,
                     .out = out,
                     .threads = threads,
                     .kernels = k,
                     .phases = 1,
                     .items = {1, 1, 1, 1}};
}

/* Runs all items of a prepared step as its threads would, one after the other. */
static void run_items(lc_step *s, const void *const *data, void *to)
{
    void *scratch = poisoned(s->thread_bytes), *shared = poisoned(s->shared_bytes);
    void *outs[1] = {to};
    lc_bind bind = {.in = data, .out = outs, .scratch = scratch, .shared = shared};
    for (int phase = 0; phase < s->phases; phase++)
        for (int t = s->threads - 1; t >= 0; t--) {
            int64_t begin, end;
            lc_share(s->items[phase], t, s->threads, &begin, &end);
            memset(scratch, 0xff, s->thread_bytes);
            CHECK(s->op->run(s, &bind, phase, begin, end) == LC_OK);
        }
    lc_free(scratch);
    lc_free(shared);
    lc_free(s->prep);
}

/* --- the gradient of the weights */

static void check_name(const lc_step *s, lc_conv_algorithm algorithm)
{
    const lc_winograd_form *form = lc_conv_winograd_form(algorithm);
    CHECK(form ? strcmp(s->algorithm, form->name) == 0
               : !strstr(s->algorithm, "winograd") && !strstr(s->algorithm, "strassen"));
}

static float *weight_grad(const grad_data *d, const grad_case *t, const lc_kernels *k, int threads,
                          lc_conv_algorithm algorithm)
{
    lc_conv2d_attr attr = d->attr;
    lc_desc in[2] = {d->y, d->x}, out;
    lc_layout want[2], give;
    int n_out;
    attr.kernel[0] = t->kh;
    attr.kernel[1] = t->kw;
    CHECK(lc_op_conv2d_weight_grad.infer(&attr, 2, in, &n_out, &out) == LC_OK);
    CHECK(lc_desc_same_shape(&out, &d->w));
    in[0].layout = (lc_layout){k->block, (int32_t)t->y_g};
    in[1].layout = t->x_plain ? LC_PLAIN : (lc_layout){k->block, (int32_t)t->x_g};
    lc_op_conv2d_weight_grad.layout(
        &(lc_layout_query){
            .attr = &attr, .n_in = 2, .n_out = 1, .in = in, .out = &out, .block = k->block},
        want, &give);
    for (int i = 0; i < 2; i++) {
        if (t->g == 1 && !(t->x_plain && t->ic > 4))
            CHECK(lc_layout_equal(want[i], in[i].layout));
        in[i].layout = want[i];
    }
    CHECK(give.block == 1);
    float *dy = move(&in[0], d->pdy, true), *x = move(&in[1], d->px, true);
    const void *data[2] = {dy, x};
    lc_step s = step_of(&lc_op_conv2d_weight_grad, &attr, 2, in, &out, k, threads);
    CHECK(lc_conv_weight_grad_prepare(&s, algorithm) == LC_OK);
    check_name(&s, algorithm);
    float *dw = poisoned(lc_desc_bytes(&out));
    run_items(&s, data, dw);
    lc_free(dy);
    lc_free(x);
    return dw;
}

/* --- the gradient of the input */

/* Images [n0, n1). */
static float *input_grad(const grad_data *d, const grad_case *t, const lc_kernels *k, int threads,
                         lc_conv_algorithm algorithm, int64_t n0, int64_t n1)
{
    const bool add = (t->flags & LC_CONV_ADD) != 0;
    lc_conv2d_attr attr = d->attr;
    int n_in = 2 + add, n_out;
    lc_desc in[3] = {d->y, d->w, d->x}, out, blob;
    lc_layout want[3], give;
    attr.flags = LC_CONV_TRANSPOSED | t->flags;
    attr.out[0] = t->h;
    attr.out[1] = t->w;
    in[0].dim[0] = in[2].dim[0] = n1 - n0;
    CHECK(lc_op_conv2d.infer(&attr, n_in, in, &n_out, &out) == LC_OK);
    CHECK(lc_desc_same_shape(&out, &in[2]));
    in[0].layout = (lc_layout){k->block, (int32_t)t->y_g};
    out.layout = (lc_layout){k->block, (int32_t)t->x_g};
    lc_op_conv2d.layout(
        &(lc_layout_query){
            .attr = &attr, .n_in = n_in, .n_out = 1, .in = in, .out = &out, .block = k->block},
        want, &give);
    for (int i = 0; i < n_in; i++)
        in[i].layout = want[i];
    out.layout = give;

    lc_pack_spec spec;
    lc_conv_pack_attr pack;
    CHECK(lc_op_conv2d.pack(&attr, n_in, in, &out, k, &spec));
    CHECK(spec.first == 1 && spec.count == 1);
    memcpy(&pack, spec.attr, sizeof pack);
    CHECK(pack.algorithm == (uint32_t)lc_conv_choose(&attr, in, &out));
    pack.algorithm = algorithm;
    memcpy(spec.attr, &pack, sizeof pack);
    CHECK(spec.op->infer(spec.attr, 1, in + 1, &n_out, &blob) == LC_OK);
    void *weights[2];
    for (int i = 0; i < 2; i++) {
        weights[i] = poisoned(lc_desc_bytes(&blob));
        lc_step s = step_of(spec.op, spec.attr, 1, in + 1, &blob, k, 1 + 2 * i);
        CHECK(s.op->prepare(&s) == LC_OK);
        run_items(&s, (const void *[]){d->pw}, weights[i]);
    }
    CHECK(memcmp(weights[0], weights[1], lc_desc_bytes(&blob)) == 0);
    lc_op_conv2d.set_packed(&attr, n_in, in, &spec);
    attr.algorithm = algorithm;
    in[1] = blob;
    CHECK(lc_op_conv2d.infer(&attr, n_in, in, &n_out, &blob) == LC_OK); /* packed */
    CHECK(lc_desc_same_shape(&out, &blob));

    const int64_t dy_image = lc_desc_count(&d->y) / (t->n ? t->n : 1),
                  x_image = lc_desc_count(&d->x) / (t->n ? t->n : 1);
    float *dy = move(&in[0], d->pdy + n0 * dy_image, true);
    float *more = add ? move(&in[2], d->padd + n0 * x_image, true) : NULL;
    lc_step s = step_of(&lc_op_conv2d, &attr, n_in, in, &out, k, threads);
    CHECK(s.op->prepare(&s) == LC_OK);
    check_name(&s, algorithm);
    float *dx = poisoned(lc_desc_bytes(&out));
    run_items(&s, (const void *[]){dy, weights[0], more}, dx);
    CHECK(pads_are_zero(&out, dx));
    float *plain = move(&out, dx, false);
    lc_free(weights[0]);
    lc_free(weights[1]);
    lc_free(dy);
    lc_free(more);
    lc_free(dx);
    return plain;
}

/* --- cases */

static double worst[2][1 + LC_WINOGRAD_KINDS]; /* [input, weights][algorithm] */

static double error_of(const float *y, const double *ref, int64_t n, double largest)
{
    double error = 0;
    for (int64_t i = 0; i < n; i++)
        error = larger_error(error, y[i] - ref[i]);
    return error == 0 ? 0 : error / largest;
}

static bool pads_at_most(const grad_case *t, int64_t most)
{
    return t->p[0] <= most && t->p[1] <= most && t->p[2] <= most && t->p[3] <= most;
}

/* Winograd's algorithm for a case, or LC_CONV_DIRECT; groups may still forbid it. */
static lc_conv_algorithm winograd_of(const grad_case *t, bool of_input)
{
    const int64_t k = t->kh, s = t->s[0];
    if (t->kw != k || t->s[1] != s || t->d[0] != 1 || t->d[1] != 1 || t->n == 0)
        return LC_CONV_DIRECT;
    if (!of_input && t->x_plain)
        return k == 7 && s == 2 && t->ic <= 4 && pads_at_most(t, 6) ? LC_CONV_WINOGRAD_7X7
                                                                    : LC_CONV_DIRECT;
    if (k != 3 || !pads_at_most(t, 2))
        return LC_CONV_DIRECT;
    if (s == 2 && of_input)
        return t->p[0] == 1 && t->p[2] == 1 ? LC_CONV_WINOGRAD_UP : LC_CONV_DIRECT;
    return s == 1 ? LC_CONV_WINOGRAD : s == 2 ? LC_CONV_WINOGRAD_S2 : LC_CONV_DIRECT;
}

/* As conv_choose.c has them, but for any number of channels and pixels. */
static bool can_be_strassen_weights(const grad_case *t, int64_t parts, int64_t block)
{
    return t->kh == 1 && t->kw == 1 && t->s[0] == t->s[1] && t->g == 1 && t->x_g == 1 &&
           t->y_g == 1 && !t->x_plain && !t->p[0] && !t->p[1] && !t->p[2] && !t->p[3] &&
           t->oc % (parts * block) == 0 && t->ic % (parts * block) == 0;
}

static bool can_be_strassen(const grad_case *t, int64_t parts, int64_t block)
{
    return t->kh == 1 && t->kw == 1 && t->s[0] == 1 && t->s[1] == 1 && t->g == 1 && t->x_g == 1 &&
           t->y_g == 1 && !t->p[0] && !t->p[1] && !t->p[2] && !t->p[3] && t->n > 0 &&
           t->oc % (parts * block) == 0 && t->ic % (parts * 2 * block) == 0;
}

static const int teams[] = {2, 3, 5};

static void check_weights(const grad_data *d, const grad_case *t, const lc_kernels *k,
                          lc_conv_algorithm algorithm)
{
    const int64_t n = lc_desc_count(&d->w);
    float *dw = weight_grad(d, t, k, 1, algorithm), *other;
    const double error = error_of(dw, d->dw, n, d->largest_dw);
    CHECK(error <= (algorithm == LC_CONV_DIRECT ? BOUND_DIRECT : BOUND_WINOGRAD));
    worst[1][algorithm] = fmax(worst[1][algorithm], error);
    for (size_t i = 0; i < sizeof teams / sizeof *teams; i++) {
        other = weight_grad(d, t, k, teams[i], algorithm);
        CHECK(memcmp(dw, other, (size_t)n * sizeof *dw) == 0);
        lc_free(other);
    }
    lc_free(dw);
}

static void check_input(const grad_data *d, const grad_case *t, const lc_kernels *k,
                        lc_conv_algorithm algorithm)
{
    const int64_t n_all = lc_desc_count(&d->x);
    float *dx = input_grad(d, t, k, 1, algorithm, 0, t->n), *other;
    const double error = error_of(dx, d->dx, n_all, d->largest_dx);
    CHECK(error <= (algorithm == LC_CONV_DIRECT ? BOUND_DIRECT : BOUND_WINOGRAD));
    worst[0][algorithm] = fmax(worst[0][algorithm], error);
    for (size_t i = 0; i < sizeof teams / sizeof *teams; i++) {
        other = input_grad(d, t, k, teams[i], algorithm, 0, t->n);
        CHECK(memcmp(dx, other, (size_t)n_all * sizeof *dx) == 0);
        lc_free(other);
    }
    for (int64_t n = 0; t->n > 1 && n < t->n; n++) { /* whatever else is in the batch */
        const int64_t image = n_all / t->n;
        other = input_grad(d, t, k, 2, algorithm, n, n + 1);
        CHECK(memcmp(dx + n * image, other, (size_t)image * sizeof *dx) == 0);
        lc_free(other);
    }
    lc_free(dx);
}

static void check_case(const grad_case *t, const lc_kernels *tables, int n_tables)
{
    grad_data d = make(t);
    for (int i = 0; i < n_tables; i++) {
        const int before = failed;
        const lc_layout x = t->g > 1 ? lc_conv_group_layout(tables[i].block, t->g, t->ic, t->oc, 0)
                                     : (lc_layout){tables[i].block, 1};
        check_weights(&d, t, &tables[i], LC_CONV_DIRECT);
        check_input(&d, t, &tables[i], LC_CONV_DIRECT);
        /* Winograd needs blocks that no two groups share. */
        if (t->g == 1 || x.groups > 1 || t->ic / t->g > tables[i].block) {
            if (winograd_of(t, false))
                check_weights(&d, t, &tables[i], winograd_of(t, false));
            if (winograd_of(t, true))
                check_input(&d, t, &tables[i], winograd_of(t, true));
        }
        if (can_be_strassen(t, 2, tables[i].block))
            check_input(&d, t, &tables[i], LC_CONV_STRASSEN);
        if (can_be_strassen(t, 4, tables[i].block))
            check_input(&d, t, &tables[i], LC_CONV_STRASSEN_TWICE);
        if (can_be_strassen_weights(t, 2, tables[i].block))
            check_weights(&d, t, &tables[i], LC_CONV_STRASSEN);
        if (can_be_strassen_weights(t, 4, tables[i].block))
            check_weights(&d, t, &tables[i], LC_CONV_STRASSEN_TWICE);
        if (failed > before)
            fprintf(stderr,
                    "  isa %d block %d: n %lld ic %lld %lldx%lld oc %lld kernel %lldx%lld stride "
                    "%lld,%lld pad %lld,%lld,%lld,%lld dilation %lld,%lld groups %lld\n",
                    tables[i].isa, tables[i].block, (long long)t->n, (long long)t->ic,
                    (long long)t->h, (long long)t->w, (long long)t->oc, (long long)t->kh,
                    (long long)t->kw, (long long)t->s[0], (long long)t->s[1], (long long)t->p[0],
                    (long long)t->p[1], (long long)t->p[2], (long long)t->p[3], (long long)t->d[0],
                    (long long)t->d[1], (long long)t->g);
    }
    drop(&d);
}

enum { A = LC_CONV_ADD, R = LC_CONV_RELU };

static const grad_case cases[] = {
    /* n ic h w oc kh kw stride pad dilation groups plain x_g y_g flags; what networks have */
    {2, 32, 14, 14, 48, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A},
    {3, 40, 7, 7, 24, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, A | R},
    {2, 24, 17, 30, 40, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {2, 128, 5, 7, 64, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, A},
    {1, 64, 9, 6, 96, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, R},
    {2, 24, 14, 13, 32, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A},
    {1, 16, 13, 14, 64, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    {2, 40, 14, 15, 72, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, A},
    {2, 3, 37, 40, 24, 7, 7, {2, 2}, {3, 3, 3, 3}, {1, 1}, 1, 1, 1, 1, 0},
    {2, 3, 23, 61, 16, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 1, 1, 1, A},
    {5, 8, 5, 6, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    /* with strides: short tiles, half pairs, several bands, tiles of channels, groups */
    {5, 24, 28, 29, 16, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A | R},
    {1, 8, 57, 43, 8, 3, 3, {2, 2}, {1, 0, 1, 2}, {1, 1}, 1, 0, 1, 1, 0},
    {2, 16, 20, 19, 24, 3, 3, {2, 2}, {2, 1, 0, 2}, {1, 1}, 1, 0, 1, 1, 0},
    {3, 144, 9, 10, 160, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    {2, 80, 13, 11, 160, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 4, 0, 1, 1, A},
    {1, 48, 8, 9, 60, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 3, 5, A},
    {2, 8, 2, 1, 8, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A},
    {3, 1, 30, 41, 24, 7, 7, {2, 2}, {3, 3, 3, 3}, {1, 1}, 1, 1, 1, 1, 0},
    {2, 4, 50, 33, 72, 7, 7, {2, 2}, {0, 3, 6, 2}, {1, 1}, 1, 1, 1, 1, 0},
    {1, 2, 7, 8, 8, 7, 7, {2, 2}, {3, 2, 3, 3}, {1, 1}, 1, 1, 1, 1, 0},
    /* Strassen: runs and pixels that are left over, tiles of many channels, many runs */
    {3, 32, 14, 15, 64, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {5, 64, 29, 30, 128, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {9, 128, 15, 9, 32, 1, 1, {3, 3}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {7, 544, 14, 14, 32, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {35, 32, 7, 7, 64, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {19, 64, 13, 17, 64, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 16, 1, 359819, 16, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0}, /* 900 left over */
    {6, 32, 9, 16, 576, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {2, 32, 37, 43, 32, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    /* groups: of 4, 8, 16, 32, depthwise, of padded blocks, of other widths */
    {2, 32, 9, 11, 32, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 8, 0, 1, 1, A},
    {1, 32, 9, 11, 32, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 8, 0, 1, 1, A},
    {2, 32, 10, 7, 32, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 4, 0, 1, 1, 0},
    {1, 16, 10, 7, 16, 3, 3, {2, 1}, {1, 1, 1, 1}, {1, 1}, 2, 0, 1, 1, A | R},
    {1, 64, 12, 12, 64, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 4, 0, 1, 1, A},
    {2, 64, 6, 9, 64, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2, 0, 1, 1, 0},
    {2, 40, 11, 8, 40, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 40, 0, 1, 1, A},
    {2, 12, 11, 8, 12, 5, 5, {2, 2}, {2, 2, 2, 2}, {1, 1}, 12, 0, 1, 1, 0},
    {1, 16, 11, 8, 16, 3, 3, {1, 1}, {2, 2, 2, 2}, {2, 2}, 8, 0, 1, 1, 0},
    {1, 80, 7, 9, 160, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 4, 0, 1, 1, A},
    {1, 30, 8, 8, 60, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 3, 0, 1, 1, A},
    {1, 16, 8, 8, 8, 1, 1, {1, 1}, {0, 0, 0, 0}, {1, 1}, 2, 0, 1, 1, 0},
    /* layouts with groups of their own around a dense convolution */
    {1, 36, 8, 9, 60, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 3, 5, A},
    {1, 36, 8, 9, 60, 1, 1, {2, 2}, {0, 0, 0, 0}, {1, 1}, 1, 0, 3, 5, A},
    /* kernels, paddings, strides, dilations of every kind */
    {1, 9, 10, 12, 11, 3, 3, {1, 1}, {0, 2, 1, 0}, {1, 1}, 1, 0, 1, 1, A | R},
    {1, 9, 10, 12, 11, 3, 3, {2, 3}, {0, 2, 1, 0}, {1, 1}, 1, 0, 1, 1, A | R},
    {1, 9, 10, 12, 11, 2, 4, {1, 1}, {1, 0, 3, 2}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 9, 10, 12, 11, 2, 4, {3, 2}, {1, 0, 3, 2}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 9, 10, 12, 11, 1, 1, {1, 1}, {2, 1, 0, 3}, {1, 1}, 1, 0, 1, 1, A},
    {1, 9, 10, 12, 11, 1, 1, {2, 3}, {2, 1, 0, 3}, {1, 1}, 1, 0, 1, 1, A},
    {1, 9, 10, 12, 11, 3, 3, {1, 1}, {5, 4, 3, 6}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 9, 4, 3, 11, 3, 3, {2, 2}, {7, 8, 9, 6}, {1, 1}, 1, 0, 1, 1, A},
    {1, 8, 13, 15, 8, 3, 3, {1, 1}, {2, 2, 3, 3}, {2, 3}, 1, 0, 1, 1, 0},
    {1, 8, 13, 15, 8, 3, 3, {2, 4}, {2, 2, 3, 3}, {2, 2}, 1, 0, 1, 1, A},
    {1, 8, 13, 15, 8, 3, 2, {4, 6}, {2, 2, 3, 3}, {2, 4}, 1, 0, 1, 1, R},
    {1, 8, 13, 15, 8, 4, 3, {3, 2}, {2, 2, 3, 3}, {2, 3}, 1, 0, 1, 1, 0},
    {1, 8, 19, 11, 8, 2, 2, {5, 4}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, A},
    {1, 2, 9, 13, 20, 3, 3, {1, 1}, {2, 2, 2, 2}, {2, 2}, 1, 1, 1, 1, 0},
    {1, 4, 9, 13, 20, 2, 5, {2, 1}, {0, 3, 4, 1}, {1, 1}, 1, 1, 1, 1, 0},
    {1, 1, 9, 13, 9, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 1, 1, 1, 0},
    {1, 6, 9, 13, 9, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 1, 1, 1, 0},
    {1, 8, 5, 5, 8, 5, 5, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 8, 1, 1, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A},
    {0, 8, 5, 5, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, A},
    {0, 8, 5, 5, 8, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    /* bands of columns, of images */
    {1, 4, 2, 700, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    {1, 16, 2, 450, 16, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 4, 0, 1, 1, 0},
    {1, 3, 3, 900, 8, 3, 3, {2, 2}, {1, 1, 1, 1}, {1, 1}, 1, 1, 1, 1, 0},
    {9, 16, 6, 5, 16, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
    {40, 8, 4, 4, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0},
};

/* --- cases without end */

static uint32_t next_number(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static int64_t pick(int64_t from, int64_t to) /* both included */
{
    return from + next_number() % (to - from + 1);
}

static grad_case random_case(void)
{
    grad_case t;
    memset(&t, 0, sizeof t);
    t.n = pick(1, 3);
    t.g = pick(0, 2) ? 1 : pick(1, 4);
    t.ic = t.g * pick(1, 20);
    t.oc = t.g > 1 && pick(0, 1) ? t.ic : t.g * pick(1, 30);
    t.kh = pick(1, 4);
    t.kw = pick(0, 1) ? t.kh : pick(1, 4);
    for (int i = 0; i < 2; i++) {
        t.s[i] = pick(0, 1) ? 1 : pick(1, 4);
        t.d[i] = pick(0, 2) ? 1 : pick(1, 3);
        t.p[2 * i] = pick(0, 4);
        t.p[2 * i + 1] = pick(0, 4);
    }
    t.h = (t.kh - 1) * t.d[0] + pick(1, 12);
    t.w = (t.kw - 1) * t.d[1] + pick(1, 12);
    t.x_plain = t.g == 1 && t.ic <= 4;
    t.x_g = t.y_g = 1;
    t.flags = (pick(0, 1) ? LC_CONV_ADD : 0u) | (pick(0, 1) ? LC_CONV_RELU : 0u);
    return t;
}

/* What Winograd's algorithm with strides takes. */
static grad_case random_strided(void)
{
    grad_case t = random_case();
    t.x_plain = pick(0, 1);
    t.g = t.x_plain ? 1 : pick(1, 2);
    t.ic = t.x_plain ? pick(1, 4) : t.g * pick(1, 40);
    t.oc = t.g * pick(1, 40);
    t.kh = t.kw = t.x_plain ? 7 : 3;
    for (int i = 0; i < 2; i++) {
        t.s[i] = 2;
        t.d[i] = 1;
        t.p[2 * i] = t.x_plain ? pick(0, 6) : pick(0, 2) ? 1 : pick(0, 2);
        t.p[2 * i + 1] = t.x_plain ? pick(0, 6) : pick(0, 2);
    }
    t.h = t.kh + pick(0, 20);
    t.w = t.kw + pick(0, 20);
    return t;
}

/* Sums of many pixels do not lose accuracy: batch 16 of 56x56, few channels. */
static void check_long_sums(const lc_kernels *k)
{
    const grad_case t = {16, 8, 56, 56, 8, 3, 3, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 0, 1, 1, 0};
    grad_data d = make(&t);
    for (int a = 0; a < 2; a++) {
        float *dw = weight_grad(&d, &t, k, 2, (lc_conv_algorithm)a);
        const double error = error_of(dw, d.dw, lc_desc_count(&d.w), d.largest_dw);
        CHECK(error <= (a == LC_CONV_WINOGRAD ? 5e-6 : 1e-6));
        worst[1][a] = fmax(worst[1][a], error);
        lc_free(dw);
    }
    drop(&d);
}

static void check_choice(void)
{
    lc_conv2d_attr a = {
        .stride = {1, 1}, .pad = {1, 1, 1, 1}, .dilation = {1, 1}, .groups = 1, .kernel = {3, 3}};
    lc_desc in[2];
    const char *why;
    for (int i = 0; i < 2; i++) {
        lc_desc_init(&in[i], LC_F32, 4, (int64_t[]){2, 64, 28, 28});
        in[i].layout.block = 8;
    }
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_WINOGRAD && !why);
    a.stride[1] = 2;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "stride"));
    a.stride[0] = 2;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_WINOGRAD_S2 && !why);
    in[1].layout.block = 1;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "blocked"));
    a.kernel[0] = a.kernel[1] = 7;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "input"));
    in[1].dim[1] = 3;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_WINOGRAD_7X7 && !why);
    a.pad[3] = 7;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "padding"));
    a.pad[3] = 1;
    in[1].layout.block = 8;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "blocked"));
    in[1].dim[1] = 64;
    a.stride[0] = a.stride[1] = 1;
    a.kernel[0] = 3;
    a.kernel[1] = 1;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "kernel"));
    a.kernel[0] = 1;
    memset(a.pad, 0, sizeof a.pad);
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "channels"));
    in[0].dim[1] = in[1].dim[1] = 256;
    in[0].dim[0] = in[1].dim[0] = 1;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "pixels"));
    in[0].dim[0] = in[1].dim[0] = 2;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_STRASSEN_TWICE && !why);
    in[0].layout.block = in[1].layout.block = 16;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_STRASSEN && !why);
    in[0].layout.block = in[1].layout.block = 8;
    in[1].dim[1] = 272;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_STRASSEN && !why);
    in[1].dim[1] = 264;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "halved"));
    in[0].dim[1] = in[1].dim[1] = 64;
    a.pad[0] = a.pad[1] = a.pad[2] = a.pad[3] = 1;
    a.kernel[0] = a.kernel[1] = 3;
    a.groups = 16;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "channels"));
    a.groups = 1;
    in[0].dim[2] = in[0].dim[3] = in[1].dim[2] = in[1].dim[3] = 7;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_DIRECT && strstr(why, "tiles"));
    in[0].dim[0] = in[1].dim[0] = 16;
    CHECK(lc_conv_choose_weight_grad(&a, in, &why) == LC_CONV_WINOGRAD && !why);
}

/* A transposed convolution gets the algorithm of an ordinary one of its shape; with strides, one of its
 * own or direct sums. */
static void check_transposed_choice(void)
{
    lc_conv2d_attr a = {.stride = {1, 1},
                        .pad = {1, 1, 1, 1},
                        .dilation = {1, 1},
                        .groups = 1,
                        .out = {28, 28},
                        .flags = LC_CONV_TRANSPOSED};
    lc_desc in[2], out;
    lc_desc_init(&in[0], LC_F32, 4, (int64_t[]){2, 512, 28, 28});
    lc_desc_init(&in[1], LC_F32, 4, (int64_t[]){512, 512, 3, 3});
    in[0].layout.block = 8;
    out = in[0];
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_WINOGRAD);
    in[1].dim[2] = in[1].dim[3] = 1;
    memset(a.pad, 0, sizeof a.pad);
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_STRASSEN_TWICE);
    a.stride[0] = a.stride[1] = 2;
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_DIRECT);
    in[1].dim[2] = in[1].dim[3] = 3;
    in[0].dim[2] = in[0].dim[3] = 14;
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_DIRECT); /* for its padding */
    a.pad[0] = a.pad[1] = a.pad[2] = a.pad[3] = 1;
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_WINOGRAD_UP);
    a.stride[1] = 1;
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_DIRECT);
    a.stride[1] = 2;
    in[0].dim[2] = in[0].dim[3] = 7;
    out.dim[2] = out.dim[3] = 14;
    CHECK(lc_conv_choose(&a, in, &out) == LC_CONV_DIRECT); /* few pixels */
}

/* Wrong shapes are told apart by their messages. */
static void check_errors(void)
{
    lc_conv2d_attr a = {
        .stride = {2, 2}, .pad = {1, 1, 1, 1}, .dilation = {1, 1}, .groups = 1, .kernel = {3, 3}};
    lc_desc dy, x, w, out;
    int n_out;
    lc_desc_init(&dy, LC_F32, 4, (int64_t[]){2, 8, 5, 5});
    lc_desc_init(&x, LC_F32, 4, (int64_t[]){2, 4, 9, 9});
    lc_desc_init(&w, LC_F32, 4, (int64_t[]){8, 4, 3, 3});
    const lc_op *op = &lc_op_conv2d_weight_grad;
    CHECK(op->infer(&a, 2, (lc_desc[]){dy, x}, &n_out, &out) == LC_OK);
    CHECK(op->infer(&a, 1, (lc_desc[]){dy, x}, &n_out, &out) == LC_ERR_VALUE);
    x.dim[2] = 7;
    CHECK(op->infer(&a, 2, (lc_desc[]){dy, x}, &n_out, &out) == LC_ERR_VALUE);
    CHECK(strstr(lc_error_message(), "(2, 8, 5, 5), not (2, 8, 4, 5)") != NULL);
    x.dim[2] = 9;
    a.groups = 3;
    CHECK(op->infer(&a, 2, (lc_desc[]){dy, x}, &n_out, &out) == LC_ERR_VALUE);
    a.groups = 1;
    a.kernel[0] = a.kernel[1] = 0;
    a.flags = LC_CONV_TRANSPOSED;
    for (int size = 8; size <= 11; size++) { /* stride 2: two sizes give dy's */
        a.out[0] = a.out[1] = size;
        CHECK((lc_op_conv2d.infer(&a, 2, (lc_desc[]){dy, w}, &n_out, &out) == LC_OK) ==
              (size == 9 || size == 10));
    }
    a.out[0] = a.out[1] = 9;
    a.flags |= LC_CONV_BIAS;
    CHECK(lc_op_conv2d.infer(&a, 3, (lc_desc[]){dy, w, w}, &n_out, &out) == LC_ERR_VALUE);
    a.flags = LC_CONV_TRANSPOSED;
    w.dim[0] = 16;
    CHECK(lc_op_conv2d.infer(&a, 2, (lc_desc[]){dy, w}, &n_out, &out) == LC_ERR_VALUE);
}

int main(void)
{
    lc_kernels tables[LC_ISA_COUNT + 2];
    int n = 0;
    for (int isa = 0; isa <= (int)lc_cpu_get()->isa; isa++)
        lc_kernels_fill(&tables[n++], (lc_isa)isa);
    lc_kernels_fill(&tables[n], LC_ISA_SCALAR); /* plain loops with blocks of 16 */
    tables[n++].block = 16;
#ifdef HAVE_EMULATED
    if (lc_cpu_get()->isa >= LC_ISA_AVX2) {
        tables[n] = tables[n - 1];
        winograd_fill_emulated(&tables[n].winograd);
        wgrad_fill_emulated(&tables[n++].wgrad);
    }
#endif
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i], tables, n);
    for (int i = 0; i < 225; i++) {
        const grad_case t = i % 3 ? random_case() : random_strided();
        check_case(&t, tables, n);
    }
    check_long_sums(lc_kernels_get());
    check_choice();
    check_transposed_choice();
    check_errors();
    for (int i = 0; i < 2; i++)
        for (int k = 0; k <= LC_WINOGRAD_KINDS; k++)
            if (worst[i][k] > 0)
                printf("largest error, %s: %.2g %s\n", i ? "weights" : "input", worst[i][k],
                       k ? lc_winograd_forms[k - 1].name : "direct");
    return check_report();
}
