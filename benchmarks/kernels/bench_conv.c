/* Times lc_op_conv2d (and lc_op_linear) on the layers of resnet_50, checks every result against a
 * float64 loop.
 *
 *     make -C benchmarks/kernels run ARGS="[-b batch] [-t threads] [-c] [-n] [-w] [-s seconds]
 *                                          [name ...]"
 *
 * -c: cold, weights of each call are other memory (as in a real model); -n: no check; -w: wall time
 * rather than the CPU time of the busiest thread; names: substrings of layer names. The share is
 * that of the FMA peak of one thread, measured here, times threads. GFLOP/s count 2 flops per
 * multiply-add of direct sums, those with padding included. A layer that gets another algorithm is
 * also timed with direct sums, in a line of its own that the totals leave out. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "bench_util.h"
#include "ops/conv_form.h"
#include "ops/ops.h"

typedef struct layer {
    const char *name;
    int count; /* in resnet_50; 0: other models, not summed */
    int ic, size, oc, kernel, stride, groups;
} layer;

static const layer layers[] = {
    {"stem 7x7/2", 1, 3, 224, 64, 7, 2, 1},
    {"1x1 64-64@56", 1, 64, 56, 64, 1, 1, 1},
    {"3x3 64@56", 3, 64, 56, 64, 3, 1, 1},
    {"1x1 64-256@56", 4, 64, 56, 256, 1, 1, 1},
    {"1x1 256-64@56", 2, 256, 56, 64, 1, 1, 1},
    {"1x1 256-128@56", 1, 256, 56, 128, 1, 1, 1},
    {"3x3/2 128@56", 1, 128, 56, 128, 3, 2, 1},
    {"1x1/2 256-512@56", 1, 256, 56, 512, 1, 2, 1},
    {"1x1 128-512@28", 4, 128, 28, 512, 1, 1, 1},
    {"1x1 512-128@28", 3, 512, 28, 128, 1, 1, 1},
    {"3x3 128@28", 3, 128, 28, 128, 3, 1, 1},
    {"1x1 512-256@28", 1, 512, 28, 256, 1, 1, 1},
    {"3x3/2 256@28", 1, 256, 28, 256, 3, 2, 1},
    {"1x1/2 512-1024@28", 1, 512, 28, 1024, 1, 2, 1},
    {"1x1 256-1024@14", 6, 256, 14, 1024, 1, 1, 1},
    {"1x1 1024-256@14", 5, 1024, 14, 256, 1, 1, 1},
    {"3x3 256@14", 5, 256, 14, 256, 3, 1, 1},
    {"1x1 1024-512@14", 1, 1024, 14, 512, 1, 1, 1},
    {"3x3/2 512@14", 1, 512, 14, 512, 3, 2, 1},
    {"1x1/2 1024-2048@14", 1, 1024, 14, 2048, 1, 2, 1},
    {"1x1 512-2048@7", 3, 512, 7, 2048, 1, 1, 1},
    {"1x1 2048-512@7", 2, 2048, 7, 512, 1, 1, 1},
    {"3x3 512@7", 2, 512, 7, 512, 3, 1, 1},
    {"fc 2048-1000", 1, 2048, 1, 1000, 0, 1, 1},
    /* resnext_50_32x4d, resnext_101_32x8d, resnest_50_4s2x40d, resnest_50, depthwise */
    {"g32 3x3 128@56", 0, 128, 56, 128, 3, 1, 32},
    {"g32 3x3 256@28", 0, 256, 28, 256, 3, 1, 32},
    {"g32 3x3 512@14", 0, 512, 14, 512, 3, 1, 32},
    {"g32 3x3 1024@7", 0, 1024, 7, 1024, 3, 1, 32},
    {"g32 3x3 256@56", 0, 256, 56, 256, 3, 1, 32},
    {"g4 3x3 96@56", 0, 96, 56, 96, 3, 1, 4},
    {"g8 3x3 320@28", 0, 320, 28, 640, 3, 1, 8},
    {"deep stem 3x3/2", 0, 3, 224, 32, 3, 2, 1},
    {"deep stem 3x3 32@112", 0, 32, 112, 32, 3, 1, 1},
    {"g2 3x3 64-128@56", 0, 64, 56, 128, 3, 1, 2},
    {"depthwise 3x3 256@28", 0, 256, 28, 256, 3, 1, 256},
};

/* --- running a step as the graph's runner does */

typedef struct job {
    lc_step *step;
    const void **in;
    void *out;
    void **scratch;
    int times;
    int copies; /* of the weights: call i uses copy i % copies */
    const void *const *weights;
    double busy[LC_MAX_THREADS]; /* of each thread, in run() */
} job;

static void job_region(void *ctx, int tid, int team)
{
    job *j = ctx;
    for (int i = 0; i < j->times; i++) {
        const void *in[8];
        memcpy(in, j->in, sizeof in);
        in[1] = j->weights[i % j->copies];
        lc_bind bind = {.in = in, .out = &j->out, .scratch = j->scratch[tid]};
        int64_t begin, end;
        lc_share(j->step->items[0], tid, team, &begin, &end);
        double t = now();
        if (begin < end)
            j->step->op->run(j->step, &bind, 0, begin, end);
        j->busy[tid] += now() - t;
        lc_barrier();
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Largest error relative to the largest result, at a few thousand places, against float64. */
static double conv_error(const layer *l, const lc_desc *x, const float *px, const float *w,
                         const lc_desc *y, const float *py)
{
    int64_t icg = l->ic / l->groups, ocg = l->oc / l->groups, k = l->kernel, pad = k / 2,
            size = l->size;
    int64_t total = lc_desc_count(y), plane = y->dim[2] * y->dim[3];
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < total; i += total / 1500 + 1) {
        int64_t n = i / (plane * l->oc), oc = i / plane % l->oc, oh = i % plane / y->dim[3],
                ow = i % y->dim[3];
        double sum = 0;
        for (int64_t c = 0; c < icg; c++)
            for (int64_t kh = 0; kh < k; kh++)
                for (int64_t kw = 0; kw < k; kw++) {
                    int64_t ih = oh * l->stride + kh - pad, iw = ow * l->stride + kw - pad;
                    if (ih >= 0 && ih < size && iw >= 0 && iw < size)
                        sum += w[((oc * icg + c) * k + kh) * k + kw] *
                               element(x, px, n, oc / ocg * icg + c, ih * size + iw);
                }
        sum = sum > 0 ? sum : 0; /* ReLU */
        worst = fmax(worst, fabs(sum - element(y, py, n, oc, i % plane)));
        largest = fmax(largest, sum);
    }
    return worst / largest;
}

/* The same for a linear layer, every result. */
static double linear_error(const layer *l, int64_t batch, const float *x, const float *w,
                           const float *y)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < batch * l->oc; i++) {
        double sum = 0;
        for (int64_t c = 0; c < l->ic; c++)
            sum += (double)w[i % l->oc * l->ic + c] * x[i / l->oc * l->ic + c];
        worst = fmax(worst, fabs(sum - y[i]));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

typedef struct options {
    int64_t batch;
    int threads, cold, check, wall;
    double seconds;
} options;

typedef struct result {
    double seconds, macs, error;
    const char *algorithm;
    int direct; /* by direct sums */
} result;

/* direct: with direct sums, whatever is chosen for the layer. */
static result bench(const layer *l, const options *o, const lc_kernels *k, int direct)
{
    const int fc = l->kernel == 0;
    const lc_op *op = fc ? &lc_op_linear : &lc_op_conv2d;
    lc_desc in[8], out;
    lc_conv2d_attr ca;
    lc_linear_attr la;
    memset(&ca, 0, sizeof ca);
    memset(&la, 0, sizeof la);
    ca.stride[0] = ca.stride[1] = l->stride;
    ca.dilation[0] = ca.dilation[1] = 1;
    ca.groups = l->groups;
    for (int i = 0; i < 4; i++)
        ca.pad[i] = l->kernel / 2;
    ca.flags = LC_CONV_RELU;
    void *attr = fc ? (void *)&la : (void *)&ca;
    if (fc) {
        lc_desc_init(&in[0], LC_F32, 2, (int64_t[]){o->batch, l->ic});
        lc_desc_init(&in[1], LC_F32, 2, (int64_t[]){l->oc, l->ic});
    } else {
        lc_desc_init(&in[0], LC_F32, 4, (int64_t[]){o->batch, l->ic, l->size, l->size});
        lc_desc_init(&in[1], LC_F32, 4,
                     (int64_t[]){l->oc, l->ic / l->groups, l->kernel, l->kernel});
    }
    int n_out;
    if (op->infer(attr, 2, in, &n_out, &out) != LC_OK)
        exit(puts(lc_error_message()) + 1);
    result r = {.macs = (double)op->macs(attr, 2, in, &out)};
    if (!fc) {
        lc_layout want[8];
        out.layout.block = k->block;
        op->layout(
            &(lc_layout_query){
                .attr = attr, .n_in = 2, .n_out = 1, .in = in, .out = &out, .block = k->block},
            want, &out.layout);
        in[0].layout = want[0];
    }
    float *w = lc_alloc(lc_desc_bytes(&in[1])), *y = lc_alloc(lc_desc_bytes(&out)), *x;
    lc_random_normal(w, lc_desc_count(&in[1]), 1, 1, 0, 0, 1);
    if (fc) {
        x = lc_alloc(lc_desc_bytes(&in[0]));
        lc_random_normal(x, lc_desc_count(&in[0]), 1, 2, 0, 0, 1);
    } else {
        x = blocked_random(&in[0], 2);
    }
    lc_desc w_desc = in[1];
    lc_pack_spec spec;
    op->pack(attr, 2, in, &out, k, &spec);
    op->set_packed(attr, 2, in, &spec);
    if (direct && !fc)
        ((lc_conv_pack_attr *)(void *)spec.attr)->algorithm = ca.algorithm = LC_CONV_DIRECT;
    r.direct = fc || ca.algorithm == LC_CONV_DIRECT;
    spec.op->infer(spec.attr, 1, &w_desc, &n_out, &in[1]);
    int copies = o->cold ? (int)(80e6 / (double)lc_desc_bytes(&in[1])) + 1 : 1;
    copies = copies > 200 ? 200 : copies;
    void **blobs = lc_alloc((size_t)copies * sizeof *blobs);
    for (int i = 0; i < copies; i++) {
        blobs[i] = lc_alloc(lc_desc_bytes(&in[1]));
        if (i > 0) {
            memcpy(blobs[i], blobs[0], lc_desc_bytes(&in[1]));
            continue;
        }
        lc_step pack = {.op = spec.op,
                        .attr = spec.attr,
                        .n_in = 1,
                        .n_out = 1,
                        .in = &w_desc,
                        .out = &in[1],
                        .threads = 1,
                        .kernels = k,
                        .items = {1}};
        const void *pw = w;
        lc_bind bind = {.in = &pw, .out = &blobs[0]};
        spec.op->prepare(&pack);
        spec.op->run(&pack, &bind, 0, 0, pack.items[0]);
        lc_free(pack.prep);
    }
    lc_step step = {.op = op,
                    .attr = attr,
                    .n_in = 2,
                    .n_out = 1,
                    .in = in,
                    .out = &out,
                    .threads = o->threads,
                    .kernels = k,
                    .phases = 1,
                    .items = {1}};
    if (op->prepare(&step) != LC_OK)
        exit(puts(lc_error_message()) + 1);
    r.algorithm = step.algorithm;
    const void *data[8] = {x, blobs[0]};
    void *scratch[LC_MAX_THREADS];
    for (int i = 0; i < o->threads; i++)
        scratch[i] = lc_alloc(step.thread_bytes + 64);
    job j = {.step = &step,
             .in = data,
             .out = y,
             .scratch = scratch,
             .times = copies > 1 ? copies : 3,
             .copies = copies,
             .weights = (const void *const *)blobs};
    double t = lc_seconds();
    lc_parallel(o->threads, job_region, &j);
    t = (lc_seconds() - t) / j.times;
    if (copies == 1)
        j.times = (int)(1e-3 / t) + 1; /* short samples fit between the slices of other processes */
    double samples[500];
    int n = 0;
    for (double start = lc_seconds(); n < 500 && (n < 5 || lc_seconds() - start < o->seconds);
         n++) {
        memset(j.busy, 0, sizeof j.busy);
        t = lc_seconds();
        lc_parallel(o->threads, job_region, &j);
        samples[n] = lc_seconds() - t;
        for (int i = 0; i < o->threads && !o->wall; i++)
            samples[n] = i == 0 || j.busy[i] > samples[n] ? j.busy[i] : samples[n];
        samples[n] /= j.times;
    }
    qsort(samples, (size_t)n, sizeof *samples, by_value);
    r.seconds = samples[n / 20]; /* neighbours only ever slow us down */
    if (o->check)
        r.error = fc ? linear_error(l, o->batch, x, w, y) : conv_error(l, &in[0], x, w, &out, y);
    for (int i = 0; i < copies; i++)
        lc_free(blobs[i]);
    for (int i = 0; i < o->threads; i++)
        lc_free(scratch[i]);
    lc_free(blobs);
    lc_free(step.prep);
    lc_free(w);
    lc_free(x);
    lc_free(y);
    return r;
}

static int wanted(const layer *l, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strstr(l->name, argv[i]))
            return 1;
    return argc == 0;
}

/* Prints a line; 1 if the error is too large. */
static int report(const layer *l, const options *o, const result *r, double peak)
{
    double g = 2 * r->macs / r->seconds * 1e-9;
    printf("%-22s %2d %10.1f %10.1f %6.1f%%  %9.1e  %s\n", l->name, l->count,
           r->seconds * 1e6 / (double)o->batch, g, 100 * g / peak, r->error, r->algorithm);
    fflush(stdout);
    return r->error > 5e-6;
}

int main(int argc, char **argv)
{
    options o = {.batch = 1, .threads = 2, .check = 1, .seconds = 0.15};
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        char c = argv[at][1];
        if (c == 'c')
            o.cold = 1;
        else if (c == 'n')
            o.check = 0;
        else if (c == 'w')
            o.wall = 1;
        else if (at + 1 < argc && c == 'b')
            o.batch = atoi(argv[++at]);
        else if (at + 1 < argc && c == 't')
            o.threads = atoi(argv[++at]);
        else if (at + 1 < argc && c == 's')
            o.seconds = atof(argv[++at]);
    }
    const lc_kernels *k = lc_kernels_get();
    lc_threads_set(o.threads);
    double peak = peak_gflops(k->isa, o.threads), seconds = 0, macs = 0;
    int bad = 0;
    printf("%s, %d threads, batch %d, %s weights, FMA peak %.1f GFLOP/s\n", lc_isa_name(k->isa),
           o.threads, (int)o.batch, o.cold ? "cold" : "hot", peak);
    printf("%-22s %2s %10s %10s %7s  %9s  %s\n", "layer", "x", "us/image", "GFLOP/s", "peak",
           "error", "algorithm");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const layer *l = &layers[i];
        if (!wanted(l, argc - at, argv + at))
            continue;
        result r = bench(l, &o, k, 0);
        bad += report(l, &o, &r, peak);
        if (!r.direct) {
            result sums = bench(l, &o, k, 1);
            bad += report(l, &o, &sums, peak);
        }
        seconds += l->count * r.seconds;
        macs += l->count * r.macs;
    }
    if (seconds > 0)
        printf(
            "resnet_50 convolutions: %.2f ms/image, %.1f GFLOP/s, %.1f%% of peak (peak now %.1f)\n",
            seconds * 1e3 / (double)o.batch, 2 * macs / seconds * 1e-9,
            200 * macs / seconds * 1e-9 / peak, peak_gflops(k->isa, o.threads));
    return bad != 0;
}
