/* Times the gradients of lc_op_conv2d on layers of ResNet, ResNeXt and ResNeSt, checks each against
 * float64 sums at some places.
 *
 *     gcc -std=c11 -O2 -Icsrc benchmarks/kernels/bench_conv_grad.c build/c/liblucid_c.a \
 *         -fopenmp -lm
 *     ./a.out [-b batch] [-r rounds] [-n] [name ...]
 *
 * Per layer: milliseconds of one thread's CPU time (the least of `rounds`; the share of its FMA
 * peak, measured here, in brackets) for the gradient of the weights and that of the input; `error`:
 * the largest error, relative to the largest value. -n: no check; names: substrings of layer
 * names. LUCID_C_CONV=direct shows direct sums. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_util.h"

typedef struct layer {
    const char *name;
    int ic, size, oc, kernel, stride, groups;
} layer;

static const layer layers[] = {
    {"stem 7x7/2", 3, 224, 64, 7, 2, 1},
    {"deep stem 3x3/2", 3, 224, 32, 3, 2, 1},
    {"deep stem 3x3 32@112", 32, 112, 32, 3, 1, 1},
    {"3x3 64@56", 64, 56, 64, 3, 1, 1},
    {"3x3 128@28", 128, 28, 128, 3, 1, 1},
    {"3x3 256@14", 256, 14, 256, 3, 1, 1},
    {"3x3 512@7", 512, 7, 512, 3, 1, 1},
    {"1x1 64-64@56", 64, 56, 64, 1, 1, 1},
    {"1x1 64-256@56", 64, 56, 256, 1, 1, 1},
    {"1x1 256-64@56", 256, 56, 64, 1, 1, 1},
    {"1x1 128-512@28", 128, 28, 512, 1, 1, 1},
    {"1x1 512-128@28", 512, 28, 128, 1, 1, 1},
    {"1x1 256-1024@14", 256, 14, 1024, 1, 1, 1},
    {"1x1 1024-256@14", 1024, 14, 256, 1, 1, 1},
    {"1x1 512-2048@7", 512, 7, 2048, 1, 1, 1},
    {"1x1 2048-512@7", 2048, 7, 512, 1, 1, 1},
    {"3x3/2 64-128@56", 64, 56, 128, 3, 2, 1},
    {"3x3/2 128@56", 128, 56, 128, 3, 2, 1},
    {"3x3/2 256@28", 256, 28, 256, 3, 2, 1},
    {"3x3/2 512@14", 512, 14, 512, 3, 2, 1},
    {"1x1/2 256-512@56", 256, 56, 512, 1, 2, 1},
    {"1x1/2 1024-2048@14", 1024, 14, 2048, 1, 2, 1},
    {"g32 3x3 128@56", 128, 56, 128, 3, 1, 32},
    {"g32 3x3 256@28", 256, 28, 256, 3, 1, 32},
    {"g32 3x3 512@14", 512, 14, 512, 3, 1, 32},
    {"g32 3x3 1024@7", 1024, 7, 1024, 3, 1, 32},
    {"g32 3x3/2 256@56", 256, 56, 256, 3, 2, 32},
    {"g2 3x3 64-128@56", 64, 56, 128, 3, 1, 2},
    {"g2 3x3 256-512@14", 256, 14, 512, 3, 1, 2},
    {"g4 3x3 96@56", 96, 56, 96, 3, 1, 4},
    {"g8 3x3 320-640@28", 320, 28, 640, 3, 1, 8},
    {"depthwise 3x3 256@28", 256, 28, 256, 3, 1, 256},
};

/* A step of one op for one thread, its inputs packed if it wants that. */
typedef struct job {
    lc_conv2d_attr attr;
    lc_desc in[3], out;
    const void *data[3];
    float *to;
    void *blob;
    lc_step step;
    void *scratch, *shared;
} job;

static int prepare(job *j, const lc_op *op, const lc_kernels *k)
{
    int n_in = 2;
    if (op->pack) {
        lc_pack_spec spec;
        lc_desc w = j->in[1];
        int n_out;
        op->pack(&j->attr, n_in, j->in, &j->out, k, &spec);
        op->set_packed(&j->attr, n_in, j->in, &spec);
        if (spec.op->infer(spec.attr, 1, &w, &n_out, &j->in[1]) != LC_OK)
            return 0;
        j->blob = lc_alloc(lc_desc_bytes(&j->in[1]));
        lc_step pack = {.op = spec.op,
                        .attr = spec.attr,
                        .n_in = 1,
                        .n_out = 1,
                        .in = &w,
                        .out = &j->in[1],
                        .threads = 1,
                        .kernels = k,
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
        lc_bind bind = {.in = &j->data[1], .out = &j->blob};
        if (spec.op->prepare(&pack) != LC_OK ||
            spec.op->run(&pack, &bind, 0, 0, pack.items[0]) != LC_OK)
            return 0;
        lc_free(pack.prep);
        j->data[1] = j->blob;
    }
    j->step = (lc_step){.op = op,
                        .attr = &j->attr,
                        .n_in = n_in,
                        .n_out = 1,
                        .in = j->in,
                        .out = &j->out,
                        .threads = 1,
                        .kernels = k,
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
    if (op->prepare(&j->step) != LC_OK)
        return 0;
    j->scratch = lc_alloc(j->step.thread_bytes);
    j->shared = lc_alloc(j->step.shared_bytes);
    j->to = lc_alloc(lc_desc_bytes(&j->out));
    return 1;
}

static double run(job *j)
{
    void *out[1] = {j->to};
    lc_bind bind = {.in = j->data, .out = out, .scratch = j->scratch, .shared = j->shared};
    const double t = now();
    for (int phase = 0; phase < j->step.phases; phase++)
        j->step.op->run(&j->step, &bind, phase, 0, j->step.items[phase]);
    return now() - t;
}

static void drop(job *j)
{
    lc_free(j->scratch);
    lc_free(j->shared);
    lc_free(j->to);
    lc_free(j->blob);
    lc_free(j->step.prep);
}

static double weight_error(const layer *l, const job *j)
{
    const lc_desc *dy = &j->in[0], *x = &j->in[1];
    const int64_t icg = l->ic / l->groups, ocg = l->oc / l->groups, pad = l->kernel / 2,
                  kk = l->kernel, total = l->oc * icg * kk * kk;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < total; i += total / 200 + 1) {
        const int64_t kw = i % kk, kh = i / kk % kk, ic = i / (kk * kk) % icg,
                      oc = i / (kk * kk * icg);
        double sum = 0;
        for (int64_t n = 0; n < dy->dim[0]; n++)
            for (int64_t oh = 0; oh < dy->dim[2]; oh++)
                for (int64_t ow = 0; ow < dy->dim[3]; ow++) {
                    const int64_t ih = oh * l->stride + kh - pad, iw = ow * l->stride + kw - pad;
                    if (ih >= 0 && ih < l->size && iw >= 0 && iw < l->size)
                        sum += element(dy, j->data[0], n, oc, oh * dy->dim[3] + ow) *
                               element(x, j->data[1], n, oc / ocg * icg + ic, ih * l->size + iw);
                }
        worst = fmax(worst, fabs(sum - j->to[i]));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

static double input_error(const layer *l, const job *j, const float *w)
{
    const lc_desc *dy = &j->in[0], *x = &j->out;
    const int64_t icg = l->ic / l->groups, ocg = l->oc / l->groups, pad = l->kernel / 2,
                  kk = l->kernel, total = lc_desc_count(x);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < total; i += total / 1500 + 1) {
        const int64_t iw = i % l->size, ih = i / l->size % l->size,
                      c = i / (l->size * l->size) % l->ic, n = i / (l->size * l->size * l->ic);
        double sum = 0;
        for (int64_t o = 0; o < ocg; o++)
            for (int64_t t = 0; t < kk * kk; t++) {
                const int64_t h = ih + pad - t / kk, v = iw + pad - t % kk;
                const int64_t oh = h / l->stride, ow = v / l->stride, oc = c / icg * ocg + o;
                if (h >= 0 && v >= 0 && oh * l->stride == h && ow * l->stride == v &&
                    oh < dy->dim[2] && ow < dy->dim[3])
                    sum += w[(oc * icg + c % icg) * kk * kk + t] *
                           element(dy, j->data[0], n, oc, oh * dy->dim[3] + ow);
            }
        worst = fmax(worst, fabs(sum - element(x, j->to, n, c, i % (l->size * l->size))));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

typedef struct result {
    double seconds, error, macs;
    const char *algorithm;
} result;

/* The gradient of the input if `transposed`, else of the weights. */
static result bench(const layer *l, int transposed, int64_t batch, int rounds, int check,
                    const lc_kernels *k)
{
    job j;
    memset(&j, 0, sizeof j);
    lc_conv2d_attr *a = &j.attr;
    a->stride[0] = a->stride[1] = l->stride;
    a->dilation[0] = a->dilation[1] = 1;
    a->groups = l->groups;
    for (int i = 0; i < 4; i++)
        a->pad[i] = l->kernel / 2;
    lc_desc x, w, y;
    int n_out;
    lc_desc_init(&x, LC_F32, 4, (int64_t[]){batch, l->ic, l->size, l->size});
    lc_desc_init(&w, LC_F32, 4, (int64_t[]){l->oc, l->ic / l->groups, l->kernel, l->kernel});
    if (lc_op_conv2d.infer(a, 2, (lc_desc[]){x, w}, &n_out, &y) != LC_OK)
        exit(puts(lc_error_message()) + 1);
    result r = {.seconds = 1e9, .macs = (double)lc_op_conv2d.macs(a, 2, (lc_desc[]){x, w}, &y)};
    y.layout = lc_layout_blocked(k->block, l->oc, l->groups);
    if (l->ic > 4 || transposed)
        x.layout = lc_layout_blocked(k->block, l->ic, l->groups);
    const lc_op *op = transposed ? &lc_op_conv2d : &lc_op_conv2d_weight_grad;
    lc_layout want[2], give;
    j.in[0] = y;
    j.in[1] = transposed ? w : x;
    j.out = transposed ? x : w;
    if (transposed) {
        a->flags = LC_CONV_TRANSPOSED;
        a->out[0] = a->out[1] = l->size;
    } else {
        a->kernel[0] = a->kernel[1] = l->kernel;
    }
    op->layout(
        &(lc_layout_query){
            .attr = a, .n_in = 2, .n_out = 1, .in = j.in, .out = &j.out, .block = k->block},
        want, &give);
    j.in[0].layout = want[0];
    j.in[1].layout = want[1];
    j.out.layout = give;
    float *data[2] = {blocked_random(&j.in[0], 1), blocked_random(&j.in[1], 2)};
    j.data[0] = data[0];
    j.data[1] = data[1];
    if (!prepare(&j, op, k))
        exit(puts(lc_error_message()) + 1);
    r.algorithm = j.step.algorithm;
    for (int i = 0; i < rounds; i++)
        r.seconds = fmin(r.seconds, run(&j));
    if (check)
        r.error = transposed ? input_error(l, &j, data[1]) : weight_error(l, &j);
    drop(&j);
    lc_free(data[0]);
    lc_free(data[1]);
    return r;
}

static int wanted(const layer *l, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strstr(l->name, argv[i]))
            return 1;
    return argc == 0;
}

int main(int argc, char **argv)
{
    int batch = 16, rounds = 5, check = 1, at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        const char c = argv[at][1];
        if (c == 'n')
            check = 0;
        else if (at + 1 < argc && c == 'b')
            batch = atoi(argv[++at]);
        else if (at + 1 < argc && c == 'r')
            rounds = atoi(argv[++at]);
    }
    const lc_kernels *k = lc_kernels_get();
    const double peak = peak_gflops(k->isa, 1);
    printf("%s, one thread, batch %d, FMA peak %.1f GFLOP/s\n", lc_isa_name(k->isa), batch, peak);
    printf("%-21s  %-43s  input: ms, share, error, algorithm\n", "layer",
           "weights: ms, share, error, algorithm");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const layer *l = &layers[i];
        if (!wanted(l, argc - at, argv + at))
            continue;
        printf("%-21s", l->name);
        for (int transposed = 0; transposed < 2; transposed++) {
            const result r = bench(l, transposed, batch, rounds, check, k);
            printf("  %8.2f %5.1f%% %7.1e %-18s", r.seconds * 1e3,
                   200e-9 * r.macs / r.seconds / peak, r.error, r.algorithm);
        }
        puts("");
        fflush(stdout);
    }
    return 0;
}
