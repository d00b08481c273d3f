/* Tests of the gradient ops, of batch statistics, random ops and losses: each op by hand in every
 * layout and with every kernel table (op_run.h), against loops in double. That they are the
 * gradients of their forward ops is tested through Python, numerically and against PyTorch
 * (test_gradients.py). */
#include "op_run.h"

#include "base/random.h"
#include "ops/ops.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(LC_NO_AVX2)
#define HAVE_VECTORS 1
#pragma GCC push_options
#define LC_EMULATE_AVX512
#pragma GCC target("avx2,fma")
#include "kernels/grad_kernels_avx512.c"
#include "kernels/vec_kernels_avx512.c"
#pragma GCC pop_options
#endif

static double *doubles(int64_t n)
{
    return calloc((size_t)n + 1, sizeof(double));
}

/* The fourth one has several parts per plane. */
static const int64_t shapes[][4] = {
    {3, 17, 5, 7}, {2, 24, 1, 1}, {2, 1, 3, 3}, {2, 8, 65, 67}, {3, 20, 2, 9}};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

/* ---- batch norm ---- */

/* Mean and variance of channel k over images and pixels. */
static void channel_moments(const tensor *x, int64_t c, int64_t pixels, int64_t k, double *mean,
                            double *var)
{
    int64_t n = x->d.dim[0];
    double sum = 0.0, square = 0.0;
    for (int64_t i = 0; i < n * pixels; i++)
        sum += (double)x->f[(i / pixels * c + k) * pixels + i % pixels];
    *mean = sum / (double)(n * pixels);
    for (int64_t i = 0; i < n * pixels; i++) {
        double d = (double)x->f[(i / pixels * c + k) * pixels + i % pixels] - *mean;
        square += d * d;
    }
    *var = square / (double)(n * pixels);
}

static void test_batch_stats(void)
{
    for (int s = 0; s < N_SHAPES; s++)
        for (int rank = 2; rank <= 4; rank++)
            for (uint32_t track = 0; track < 3; track++) {
                tensor in[4] = {tensor_of(rank, shapes[s])};
                int64_t n = in[0].d.dim[0], c = in[0].d.dim[1];
                int64_t pixels = lc_desc_count(&in[0].d) / (n * c);
                if (n * pixels < 2)
                    continue;
                /* far from zero: sums of squares would lose all digits */
                for (int64_t i = 0; i < lc_desc_count(&in[0].d); i++)
                    in[0].f[i] = in[0].f[i] * 0.1f + (float)(300 * (i / pixels % c % 3 - 1));
                in[1] = tensor_of(1, &c);
                in[2] = tensor_of(1, &c);
                in[3] = T(1);
                in[3].f[0] = 4.0f;
                lc_batch_stats_attr a = {.eps = 1e-5f, .momentum = 0.3f, .track = track};
                double *want[4] = {doubles(c), doubles(c), doubles(c), doubles(c)};
                double m = track == LC_STATS_COUNT ? 0.2 : (double)a.momentum;
                for (int64_t k = 0; k < c; k++) {
                    double mean, var, count = (double)(n * pixels);
                    channel_moments(&in[0], c, pixels, k, &mean, &var);
                    want[0][k] = mean;
                    want[1][k] = 1.0 / sqrt(var + (double)a.eps);
                    want[2][k] = (1.0 - m) * (double)in[1].f[k] + m * mean;
                    want[3][k] = (1.0 - m) * (double)in[2].f[k] + m * var * count / (count - 1.0);
                }
                try_grad("batch_stats", &lc_op_batch_stats, &a, track ? track + 2 : 1, in,
                         (const double *const *)want, 3e-6, 1.0, c % 4 ? 1 : 4);
                for (int k = 0; k < 4; k++) {
                    free(want[k]);
                    tensor_free(&in[k]);
                }
            }
}

static void test_batch_norm_with_batch_statistics(void)
{
    for (int s = 0; s < N_SHAPES; s++)
        for (int rank = 2; rank <= 4; rank++)
            for (uint32_t flags = 0; flags < 8; flags++) {
                lc_batch_norm_attr a = {
                    .affine = flags & 1, .relu = flags >> 1 & 1, .batch = 1, .add = flags >> 2};
                tensor x = tensor_of(rank, shapes[s]), r = tensor_of(rank, shapes[s]), in[6];
                int64_t c = shapes[s][1], n = lc_desc_count(&x.d), pixels = n / shapes[s][0] / c;
                tensor v[4] = {tensor_of(1, &c), tensor_of(1, &c), tensor_of(1, &c),
                               tensor_of(1, &c)};
                int k = 0;
                in[k++] = x;
                if (a.affine) {
                    in[k++] = v[0];
                    in[k++] = v[1];
                }
                in[k++] = v[2];
                in[k++] = v[3];
                if (a.add)
                    in[k++] = r;
                double *want = doubles(n);
                for (int64_t i = 0; i < n; i++) {
                    int64_t at = i / pixels % c;
                    double y = ((double)x.f[i] - (double)v[2].f[at]) * (double)v[3].f[at];
                    if (a.affine)
                        y = y * (double)v[0].f[at] + (double)v[1].f[at];
                    y += a.add ? (double)r.f[i] : 0.0;
                    want[i] = a.relu && y < 0.0 ? 0.0 : y;
                }
                try_grad("batch_norm", &lc_op_batch_norm, &a, k, in, (const double *const *)&want,
                         1e-6, 8.0, c % 4 ? 1 : 4);
                free(want);
                tensor_free(&x);
                tensor_free(&r);
                for (int i = 0; i < 4; i++)
                    tensor_free(&v[i]);
            }
}

/* Written past the caches or not: the same numbers, and nothing beyond them. */
static void test_affine_streams(void)
{
    enum { N = 1000, ROOM = N + 16 };
    float *x = lc_alloc(ROOM * sizeof *x), *r = lc_alloc(ROOM * sizeof *r);
    float *y[4] = {0};
    for (int i = 0; i < 4; i++)
        y[i] = lc_alloc(ROOM * sizeof *y[i]);
    lc_random_uniform(x, ROOM, 5, 1, 0, -1, 1);
    lc_random_uniform(r, ROOM, 5, 2, 0, -1, 1);
    for (int t = 0; t < n_tables; t++)
        for (int64_t n = tables[t].block; n <= N; n += 7 * tables[t].block)
            for (unsigned relu = 0; relu <= LC_AFFINE_RELU; relu++) {
                const int block = tables[t].block;
                for (int i = 0; i < 4; i++) {
                    const unsigned how = relu | (i % 2 ? LC_AFFINE_STREAM : 0);
                    memset(y[i], 0xff, ROOM * sizeof *y[i]);
                    if (i < 2)
                        tables[t].vec.affine(y[i], x, r, x + 3, n, LC_SPAN_LANES, block, how);
                    else
                        tables[t].grad.affine_add(y[i], x, r, x + 3, r, n, block, how);
                }
                CHECK(memcmp(y[0], y[1], ROOM * sizeof *x) == 0);
                CHECK(memcmp(y[2], y[3], ROOM * sizeof *x) == 0);
                CHECK(y[0][0] == y[0][0] && y[0][n] != y[0][n]);
            }
    for (int i = 0; i < 4; i++)
        lc_free(y[i]);
    lc_free(x);
    lc_free(r);
}

static void norm_grad_case(int rank, const int64_t *shape, lc_batch_norm_grad_attr a)
{
    tensor dy = tensor_of(rank, shape), x = tensor_of(rank, shape), y = tensor_of(rank, shape);
    int64_t c = shape[1], n = lc_desc_count(&x.d), pixels = n / shape[0] / c;
    double count = (double)(shape[0] * pixels);
    tensor gamma = tensor_of(1, &c), beta = tensor_of(1, &c), mean = tensor_of(1, &c);
    tensor spread = tensor_of(1, &c), in[MAX_TENSORS];
    for (int64_t k = 0; k < c; k++)
        spread.f[k] = fabsf(spread.f[k]) + 0.5f;
    int n_in = 0, o = 0;
    in[n_in++] = dy;
    in[n_in++] = x;
    if (a.affine)
        in[n_in++] = gamma;
    in[n_in++] = mean;
    in[n_in++] = spread;
    if (a.mask == LC_NORM_MASK_Y)
        in[n_in++] = y;
    if (a.mask == LC_NORM_MASK_X && a.affine)
        in[n_in++] = beta;
    double *want[LC_MAX_OUT] = {NULL}, *dx = doubles(n), *masked = doubles(n);
    double *sum = doubles(c), *product = doubles(c);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i / pixels % c;
        double invstd =
            a.batch ? (double)spread.f[k] : 1.0 / sqrt((double)spread.f[k] + (double)a.eps);
        double h = ((double)x.f[i] - (double)mean.f[k]) * invstd;
        double of_x =
            h * (a.affine ? (double)gamma.f[k] : 1.0) + (a.affine ? (double)beta.f[k] : 0.0);
        bool through =
            a.mask == LC_NORM_MASK_NONE || (a.mask == LC_NORM_MASK_Y ? (double)y.f[i] : of_x) > 0.0;
        masked[i] = through ? (double)dy.f[i] : 0.0;
        sum[k] += masked[i];
        product[k] += masked[i] * h;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i / pixels % c;
        double invstd =
            a.batch ? (double)spread.f[k] : 1.0 / sqrt((double)spread.f[k] + (double)a.eps);
        double h = ((double)x.f[i] - (double)mean.f[k]) * invstd, g = masked[i];
        if (a.batch)
            g -= sum[k] / count + h * product[k] / count;
        dx[i] = g * invstd * (a.affine ? (double)gamma.f[k] : 1.0);
    }
    if (a.residual)
        want[o++] = masked;
    want[o++] = dx;
    if (a.params) {
        want[o++] = product;
        want[o++] = sum;
    }
    try_grad("batch_norm_grad", &lc_op_batch_norm_grad, &a, n_in, in, (const double *const *)want,
             2e-6, sqrt(count) + 4.0, c % 4 ? 1 : 4);
    free(dx);
    free(masked);
    free(sum);
    free(product);
    tensor *all[] = {&dy, &x, &y, &gamma, &beta, &mean, &spread};
    for (int i = 0; i < 7; i++)
        tensor_free(all[i]);
}

static void test_batch_norm_grad(void)
{
    lc_batch_norm_grad_attr large = {.batch = 1, .mask = LC_NORM_MASK_X};
    norm_grad_case(4, (int64_t[]){1, 2, 200, 170}, large); /* parts of plain planes */
    large = (lc_batch_norm_grad_attr){.batch = 1, .mask = LC_NORM_MASK_Y, .residual = 1};
    const int64_t image = 32 * 100, floats = (int64_t)lc_cpu_get()->l3 / 16;
    const int64_t rows = floats / (2 * image) + 1; /* does not stay in a cache */
    norm_grad_case(4, (int64_t[]){2, 32, rows < 900 ? rows : 900, 100}, large);
    for (int s = 0; s < N_SHAPES; s++)
        for (int rank = 2; rank <= 4; rank += 2)
            for (uint32_t mask = 0; mask < 3; mask++)
                for (uint32_t flags = 0; flags < 16; flags += shapes[s][2] > 60 ? 7 : 1) {
                    lc_batch_norm_grad_attr a = {.eps = 1e-3f,
                                                 .affine = flags & 1,
                                                 .batch = flags >> 1 & 1,
                                                 .params = (flags >> 2 & 1) && (flags & 1),
                                                 .mask = mask,
                                                 .residual = flags >> 3};
                    norm_grad_case(rank, shapes[s], a);
                }
}

/* ---- pooling ---- */

/* dx of max over windows: the first largest in window order, or the last NaN; zeros of the padding
 * take part where asked for. */
static void pool_case(tensor x, lc_pool2d_attr p, int groups)
{
    lc_pool2d_grad_attr a = {.pool = p, .size = {x.d.dim[2], x.d.dim[3]}};
    lc_desc y;
    int n_out;
    if (lc_op_pool2d.infer(&p, 1, &x.d, &n_out, &y) != LC_OK)
        return;
    tensor dy = tensor_of(4, y.dim);
    int64_t h = x.d.dim[2], w = x.d.dim[3];
    double *want = doubles(lc_desc_count(&x.d));
    for (int64_t o = 0; o < lc_desc_count(&y); o++) {
        int64_t ow = o % y.dim[3], oh = o / y.dim[3] % y.dim[2], plane = o / (y.dim[2] * y.dim[3]);
        int64_t best = -1, inside = 0, covered = 0;
        double most = NAN;
        bool any = false;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = 0; i < p.kernel[0]; i++)
                for (int64_t j = 0; j < p.kernel[1]; j++) {
                    int64_t r = oh * p.stride[0] - p.pad[0] + i * p.dilation[0];
                    int64_t c = ow * p.stride[1] - p.pad[1] + j * p.dilation[1];
                    bool in_pad = r < h + p.pad[0] && c < w + p.pad[1];
                    bool in_x = r >= 0 && r < h && c >= 0 && c < w;
                    if (pass == 1) {
                        double by = p.divisor             ? (double)p.divisor
                                    : p.count_include_pad ? (double)covered
                                                          : (double)inside;
                        if (in_x && p.kind == LC_POOL_AVG)
                            want[(plane * h + r) * w + c] += (double)dy.f[o] / by;
                        continue;
                    }
                    covered += in_pad;
                    inside += in_x;
                    if (!in_x && !(p.pad_with_zeros && in_pad))
                        continue;
                    int64_t at = in_x ? (plane * h + r) * w + c : -1;
                    double v = in_x ? (double)x.f[at] : 0.0;
                    if (!any || v > most || isnan(v)) {
                        most = v;
                        best = at;
                    }
                    any = true;
                }
        if (p.kind == LC_POOL_MAX && best >= 0)
            want[best] += (double)dy.f[o];
    }
    tensor in[2] = {dy, x};
    try_grad("pool2d_grad", &lc_op_pool2d_grad, &a, p.kind == LC_POOL_MAX ? 2 : 1, in,
             (const double *const *)&want, 1e-6, 4.0, groups);
    free(want);
    tensor_free(&dy);
}

static void test_pool2d_grad(void)
{
    static const int64_t forms[][8] = {
        {2, 2, 2, 2, 0, 0, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 1}, {3, 3, 1, 1, 1, 1, 1, 1},
        {3, 2, 2, 3, 1, 0, 1, 1}, {2, 5, 1, 4, 1, 2, 1, 1}, {2, 2, 5, 5, 0, 1, 1, 1},
        {3, 3, 2, 2, 1, 1, 2, 3}, {2, 2, 1, 2, 1, 1, 4, 2}, {7, 7, 7, 7, 3, 2, 1, 1},
    };
    static const int64_t sizes[][4] = {{2, 20, 13, 17}, {1, 9, 7, 7}, {0, 2, 9, 9}, {2, 5, 4, 5}};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (uint32_t flags = 0; flags < 8; flags++) {
                lc_pool2d_attr p = {.kind = flags & 1, .ceil_mode = flags >> 1 & 1};
                memcpy(p.kernel, forms[f], sizeof forms[f]);
                if (p.kind == LC_POOL_MAX)
                    p.pad_with_zeros = flags >> 2;
                else
                    p.count_include_pad = flags >> 2;
                if (p.kind == LC_POOL_AVG && (p.dilation[0] > 1 || p.dilation[1] > 1))
                    continue;
                if (f == 3)
                    p.divisor = 5 * (p.kind == LC_POOL_AVG);
                tensor x = tensor_of(4, sizes[s]);
                for (int64_t i = 0; i < lc_desc_count(&x.d); i++) /* many equals, and zeros */
                    x.f[i] = flags & 2 ? x.f[i] : fmaxf(0.0f, roundf(x.f[i]));
                if (f == 1 && lc_desc_count(&x.d) > 60) {
                    x.f[20] = x.f[21] = NAN;
                    x.f[40] = -INFINITY;
                }
                pool_case(x, p, sizes[s][1] == 20 ? 4 : 1);
                tensor_free(&x);
            }
}

static void test_adaptive_pool2d_grad(void)
{
    static const int64_t sizes[][4] = {{2, 20, 7, 7}, {1, 9, 13, 5}, {3, 16, 1, 6}, {0, 4, 5, 5}};
    static const int64_t outs[][2] = {{1, 1}, {2, 3}, {7, 7}, {11, 9}, {0, 2}};
    for (int s = 0; s < 4; s++)
        for (int o = 0; o < 5; o++)
            for (uint32_t kind = 0; kind < 2; kind++) {
                int64_t h = sizes[s][2], w = sizes[s][3], oh = outs[o][0], ow = outs[o][1];
                lc_adaptive_pool2d_grad_attr a = {{{oh, ow}, kind, 0}, {h, w}};
                tensor x = tensor_of(4, sizes[s]), dy = T(sizes[s][0], sizes[s][1], oh, ow);
                double *want = doubles(lc_desc_count(&x.d));
                for (int64_t i = 0; i < lc_desc_count(&dy.d); i++) {
                    int64_t plane = i / (oh * ow), r = i / ow % oh, c = i % ow, best = -1;
                    int64_t r0 = r * h / oh, r1 = ((r + 1) * h + oh - 1) / oh;
                    int64_t c0 = c * w / ow, c1 = ((c + 1) * w + ow - 1) / ow;
                    for (int64_t k = r0; k < r1; k++)
                        for (int64_t l = c0; l < c1; l++) {
                            int64_t at = (plane * h + k) * w + l;
                            if (kind == LC_POOL_AVG)
                                want[at] += (double)dy.f[i] / (double)((r1 - r0) * (c1 - c0));
                            else if (best < 0 || x.f[at] > x.f[best])
                                best = at;
                        }
                    if (kind == LC_POOL_MAX)
                        want[best] += (double)dy.f[i];
                }
                tensor in[2] = {dy, x};
                try_grad("adaptive_pool2d_grad", &lc_op_adaptive_pool2d_grad, &a,
                         kind == LC_POOL_MAX ? 2 : 1, in, (const double *const *)&want, 1e-6, 4.0,
                         sizes[s][1] % 5 ? 1 : 4);
                free(want);
                tensor_free(&x);
                tensor_free(&dy);
            }
}

/* ---- softmax, extremes, slices, products ---- */

static void test_softmax_grad(void)
{
    for (int axis = 0; axis < 4; axis++)
        for (uint32_t log_form = 0; log_form < 2; log_form++) {
            tensor in[2] = {T(3, 17, 5, 71), T(3, 17, 5, 71)};
            lc_softmax_attr a = {axis, log_form};
            int64_t n = lc_desc_count(&in[0].d), length = in[0].d.dim[axis], inner = 1;
            for (int i = axis + 1; i < 4; i++)
                inner *= in[0].d.dim[i];
            double *want = doubles(n);
            for (int64_t o = 0; o < n / length; o++) {
                int64_t at = o / inner * length * inner + o % inner;
                double sum = 0.0;
                for (int64_t i = 0; i < length; i++) {
                    double d = (double)in[0].f[at + i * inner], y = (double)in[1].f[at + i * inner];
                    sum += log_form ? d : d * y;
                }
                for (int64_t i = 0; i < length; i++) {
                    double d = (double)in[0].f[at + i * inner], y = (double)in[1].f[at + i * inner];
                    want[at + i * inner] = log_form ? d - exp(y) * sum : y * (d - sum);
                }
            }
            try_grad("softmax_grad", &lc_op_softmax_grad, &a, 2, in, (const double *const *)&want,
                     2e-6, 16.0, 1);
            free(want);
            tensor_free(&in[0]);
            tensor_free(&in[1]);
        }
}

static void test_extreme_grad(void)
{
    for (uint32_t axes = 0; axes < 16; axes++)
        for (uint32_t flags = 0; flags < 4; flags++) {
            lc_reduce_attr a = {.kind = flags & 1 ? LC_REDUCE_MAX : LC_REDUCE_MIN,
                                .axes = axes,
                                .to_first = flags >> 1};
            tensor x = T(3, 4, 5, 131);
            int64_t n = lc_desc_count(&x.d);
            for (int64_t i = 0; i < n; i++)
                x.f[i] = roundf(x.f[i]);
            x.f[77] = NAN;
            lc_desc yd;
            int n_out;
            CHECK(lc_op_reduce.infer(&a, 1, &x.d, &n_out, &yd) == LC_OK);
            tensor y = tensor_of(yd.rank, yd.dim), dy = tensor_of(yd.rank, yd.dim);
            int64_t outputs = lc_desc_count(&yd), *to = calloc((size_t)n, sizeof *to);
            int64_t *equals = calloc((size_t)outputs, sizeof *equals);
            for (int64_t o = 0; o < outputs; o++)
                y.f[o] = a.kind == LC_REDUCE_MAX ? -INFINITY : INFINITY;
            for (int64_t i = 0; i < n; i++) {
                int64_t rest = i, run = 1;
                for (int k = 3; k >= 0; k--) {
                    if (!(axes >> k & 1)) {
                        to[i] += rest % x.d.dim[k] * run;
                        run *= x.d.dim[k];
                    }
                    rest /= x.d.dim[k];
                }
                float *best = &y.f[to[i]];
                if (isnan(x.f[i]) || (a.kind == LC_REDUCE_MAX ? x.f[i] > *best : x.f[i] < *best))
                    *best = isnan(*best) ? *best : x.f[i];
            }
            double *want = doubles(n);
            for (int pass = 0; pass < 2; pass++)
                for (int64_t i = 0; i < n; i++) {
                    bool hit = isnan(y.f[to[i]]) ? isnan(x.f[i]) : x.f[i] == y.f[to[i]];
                    if (pass == 0)
                        equals[to[i]] += hit;
                    else if (hit && !a.to_first)
                        want[i] = (double)dy.f[to[i]] / (double)equals[to[i]];
                    else if (hit && equals[to[i]] > 0) {
                        want[i] = (double)dy.f[to[i]];
                        equals[to[i]] = 0;
                    }
                }
            tensor in[3] = {dy, x, y};
            try_grad("extreme_grad", &lc_op_extreme_grad, &a, 3, in, (const double *const *)&want,
                     1e-7, 0.0, 1);
            free(want);
            free(to);
            free(equals);
            tensor_free(&x);
            tensor_free(&y);
            tensor_free(&dy);
        }
}

static void test_slice_grad(void)
{
    static const int64_t forms[][3][4] = {/* start, step, count */
                                          {{0, 0, 0, 0}, {1, 1, 1, 1}, {3, 4, 5, 6}},
                                          {{2, 1, 0, 5}, {-1, 2, 1, -2}, {3, 2, 4, 3}},
                                          {{1, 0, 3, 5}, {7, 1, -3, -5}, {1, 4, 2, 2}},
                                          {{0, 0, 0, 0}, {1, 1, 1, 1}, {0, 4, 5, 6}},
                                          {{2, 3, 4, 0}, {-9, -9, -9, 5}, {1, 1, 1, 2}}};
    for (int f = 0; f < 5; f++) {
        int64_t dim[4] = {3, 4, 5, 6};
        lc_slice_grad_attr a = {0};
        memcpy(a.start, forms[f][0], sizeof forms[f][0]);
        memcpy(a.step, forms[f][1], sizeof forms[f][1]);
        memcpy(a.dim, dim, sizeof dim);
        tensor dy = tensor_of(4, forms[f][2]);
        double *want = doubles(3 * 4 * 5 * 6);
        for (int64_t i = 0; i < lc_desc_count(&dy.d); i++) {
            int64_t rest = i, at = 0, run = 1;
            for (int k = 3; k >= 0; k--) {
                at += (a.start[k] + rest % dy.d.dim[k] * a.step[k]) * run;
                rest /= dy.d.dim[k];
                run *= dim[k];
            }
            want[at] = (double)dy.f[i];
        }
        try_grad("slice_grad", &lc_op_slice_grad, &a, 1, &dy, (const double *const *)&want, 0.0,
                 0.0, 1);
        free(want);
        tensor_free(&dy);
    }
}

static void test_transposed_matmul(void)
{
    static const int64_t sizes[][4] = {{1, 5, 7, 3}, {2, 70, 33, 41}, {3, 1, 300, 19}};
    const lc_kernels *kernels = lc_kernels_get();
    for (int s = 0; s < 3; s++)
        for (uint32_t t = 0; t < 4; t++) {
            int64_t batch = sizes[s][0], m = sizes[s][1], k = sizes[s][2], n = sizes[s][3];
            lc_matmul_attr a = {t & 1, t >> 1};
            tensor in[2] = {a.transpose_a ? T(batch, k, m) : T(batch, m, k),
                            a.transpose_b ? T(batch, n, k) : T(batch, k, n)};
            for (int one_b = 0; one_b < 2; one_b++) {
                if (one_b)
                    in[1].d.dim[0] = 1;
                double *want = doubles(batch * m * n);
                for (int64_t i = 0; i < batch * m * n; i++) {
                    int64_t b = i / (m * n), r = i / n % m, c = i % n;
                    const float *ap = in[0].f + b * m * k;
                    const float *bp = in[1].f + (one_b ? 0 : b) * k * n;
                    for (int64_t j = 0; j < k; j++)
                        want[i] += (double)ap[a.transpose_a ? j * m + r : r * k + j] *
                                   (double)bp[a.transpose_b ? c * k + j : j * n + c];
                }
                lc_layout given[2] = {LC_PLAIN, LC_PLAIN};
                outcome r =
                    run_op(&lc_op_matmul, &a, 2, in, given, LC_PLAIN, kernels, "matmul transposed");
                double worst = 0.0;
                for (int64_t i = 0; r.n == 1 && r.f[0] && i < batch * m * n; i++)
                    worst = larger_error(worst, r.f[0][i] - want[i]);
                CHECK(r.n == 1 && r.f[0] && worst < 1e-6 * (double)k);
                outcome_free(&r);
                free(want);
            }
            tensor_free(&in[0]);
            tensor_free(&in[1]);
        }
}

/* ---- split attention ---- */

static void split_case(int32_t radix, int32_t cardinality, int64_t channels, int64_t h, int64_t w)
{
    int64_t n = 2, total = channels * radix, pixels = h * w, each = channels / cardinality;
    tensor dy = T(n, channels, h, w), x = T(n, total, h, w), attention = T(n, total, 1, 1);
    tensor gap = T(n, channels, 1, 1), da = T(n, total, 1, 1);
    lc_split_attr a = {radix, cardinality, 0};
    int groups = radix * cardinality;
    double *dx = doubles(n * total * pixels), *datt = doubles(n * total);
    double *dgap = doubles(n * total * pixels);
    for (int64_t i = 0; i < n * total * pixels; i++) {
        int64_t p = i % pixels, c = i / pixels % total, img = i / (pixels * total);
        int64_t small = img * channels + c % channels;
        dgap[i] = (double)gap.f[small] / (double)pixels;
        dx[i] = (double)dy.f[small * pixels + p] * (double)attention.f[img * total + c];
        datt[img * total + c] += (double)dy.f[small * pixels + p] * (double)x.f[i];
    }
    lc_split_gap_grad_attr g = {.split = a, .size = {h, w}};
    try_grad("split_gap_grad", &lc_op_split_gap_grad, &g, 1, &gap, (const double *const *)&dgap,
             1e-6, 0.0, cardinality);
    tensor in[3] = {dy, attention, gap};
    try_grad("split_apply_grad", &lc_op_split_apply_grad, &a, 2, in, (const double *const *)&dx,
             1e-6, 1.0, groups);
    for (int64_t i = 0; i < n * total * pixels; i++)
        dx[i] += dgap[i];
    try_grad("split_apply_grad with gap", &lc_op_split_apply_grad, &a, 3, in,
             (const double *const *)&dx, 1e-6, 1.0, groups);
    tensor both[2] = {dy, x};
    try_grad("split_attention_grad", &lc_op_split_attention_grad, &a, 2, both,
             (const double *const *)&datt, 2e-6, sqrt((double)pixels) + 1.0, groups);
    for (a.plain_view = 0; a.plain_view < 2; a.plain_view++) {
        double *dl = doubles(n * total);
        for (int64_t i = 0; i < n * channels; i++) {
            int64_t img = i / channels, c = i % channels, k = c / each, j = c % each;
            const float *d = da.f + img * total + c, *y = attention.f + img * total + c;
            double sum = 0.0;
            for (int r = 0; r < radix; r++)
                sum += (double)d[r * channels] * (double)y[r * channels];
            for (int r = 0; r < radix; r++) {
                int64_t to = a.plain_view ? r * channels + c : (k * radix + r) * each + j;
                double v = (double)y[r * channels], e = (double)d[r * channels];
                dl[img * total + to] = radix == 1 ? e * v * (1.0 - v) : v * (e - sum);
            }
        }
        tensor soft[2] = {da, attention};
        try_grad("split_softmax_grad", &lc_op_split_softmax_grad, &a, 2, soft,
                 (const double *const *)&dl, 1e-6, 1.0, groups);
        free(dl);
    }
    free(dx);
    free(datt);
    free(dgap);
    tensor *all[] = {&dy, &x, &attention, &gap, &da};
    for (int i = 0; i < 5; i++)
        tensor_free(all[i]);
}

static void test_split(void)
{
    split_case(2, 1, 16, 7, 5);
    split_case(2, 1, 12, 3, 3); /* slices that do not begin at blocks */
    split_case(1, 4, 40, 9, 8);
    split_case(2, 2, 20, 70, 33);
    split_case(4, 2, 80, 4, 4);
    split_case(3, 1, 24, 1, 1);
}

/* ---- random zeros ---- */

static void test_dropout(void)
{
    for (int s = 0; s < N_SHAPES; s++) {
        tensor x = tensor_of(4, shapes[s]), seed = ints_of(1, (int64_t[]){LC_DRAW_WORDS}, 1000);
        int64_t n = lc_desc_count(&x.d), each = n / shapes[s][0];
        for (double p = 0.0; p <= 1.0; p += 0.25) {
            double *want = doubles(n), *path = doubles(n);
            memcpy(&seed.i[2], &p, sizeof p);
            for (int64_t i = 0; i < n; i++) {
                float u, v;
                lc_random_uniform(&u, 1, (uint64_t)seed.i[0], (uint64_t)seed.i[1], i, 0.0f, 1.0f);
                lc_random_uniform(&v, 1, (uint64_t)seed.i[0], (uint64_t)seed.i[1], i / each, 0.0f,
                                  1.0f);
                want[i] = (double)u < p ? 0.0 : (double)x.f[i] / (1.0 - p);
                path[i] = (double)v < p ? 0.0 : (double)x.f[i];
            }
            tensor in[2] = {x, seed};
            try_grad("dropout", &lc_op_dropout, NULL, 2, in, (const double *const *)&want, 2e-7,
                     0.0, shapes[s][1] % 4 ? 1 : 4);
            lc_drop_path_attr b = {0};
            try_grad("drop_path", &lc_op_drop_path, &b, 2, in, (const double *const *)&path, 2e-7,
                     0.0, shapes[s][1] % 4 ? 1 : 4);
            free(want);
            free(path);
        }
        tensor_free(&x);
        tensor_free(&seed);
    }
}

static void test_drop_block(void)
{
    for (int s = 0; s < N_SHAPES; s++)
        for (int64_t size = 1; size < 9; size += 3) {
            tensor x = tensor_of(4, shapes[s]), seed = ints_of(1, (int64_t[]){LC_DRAW_WORDS}, 1000);
            int64_t n = lc_desc_count(&x.d), h = shapes[s][2], w = shapes[s][3], left = 0;
            int64_t b = size < h ? size : h;
            b = b < w ? b : w;
            int64_t ch = h - b + 1, cw = w - b + 1;
            double p = 0.3, rate = p * (double)(h * w) / (double)(b * b * ch * cw);
            double *want = doubles(n);
            memcpy(&seed.i[2], &p, sizeof p);
            for (int64_t i = 0; i < n; i++) {
                int64_t plane = i / (h * w), r = i / w % h, c = i % w;
                bool stays = true;
                for (int64_t k = r - b + 1; k <= r; k++)
                    for (int64_t l = c - b + 1; l <= c; l++) {
                        float u;
                        if (k < 0 || k >= ch || l < 0 || l >= cw)
                            continue;
                        lc_random_uniform(&u, 1, (uint64_t)seed.i[0], (uint64_t)seed.i[1],
                                          plane * ch * cw + k * cw + l, 0.0f, 1.0f);
                        stays &= u >= (float)rate;
                    }
                left += stays;
                want[i] = stays ? (double)x.f[i] : 0.0;
            }
            for (int64_t i = 0; i < n; i++)
                want[i] *= left ? (double)n / (double)left : 0.0;
            tensor in[2] = {x, seed};
            lc_drop_block_attr a = {size};
            try_grad("drop_block", &lc_op_drop_block, &a, 2, in, (const double *const *)&want, 3e-7,
                     0.0, shapes[s][1] % 4 ? 1 : 4);
            free(want);
            tensor_free(&x);
            tensor_free(&seed);
        }
}

/* ---- losses ---- */

static void cross_entropy_case(int rank, const int64_t *shape, lc_cross_entropy_attr a, bool shares)
{
    int64_t n = shape[0], c = shape[1], inner = 1, target_dim[4] = {n};
    for (int i = 2; i < rank; i++)
        inner *= target_dim[i - 1] = shape[i];
    int64_t places = n * inner;
    tensor x = tensor_of(rank, shape), w = tensor_of(1, &c);
    tensor target = shares ? tensor_of(rank, shape) : ints_of(rank - 1, target_dim, c);
    bool each = a.reduction == LC_LOSS_NONE;
    tensor dy = tensor_of(each ? rank - 1 : 0, target_dim);
    if (!shares && places > 2)
        target.i[1] = a.ignore_index;
    double *loss = doubles(places), *dx = doubles(n * c * inner), total = 0.0, count = 0.0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < places; i++) {
            int64_t at = i / inner * c * inner + i % inner;
            bool ignored = !shares && target.i[i] == a.ignore_index;
            double most = -INFINITY, sum = 0.0, all_q = 0.0, s = a.label_smoothing, l = 0.0;
            for (int64_t k = 0; k < c; k++)
                most = fmax(most, (double)x.f[at + k * inner]);
            for (int64_t k = 0; k < c; k++)
                sum += exp((double)x.f[at + k * inner] - most);
            double lse = a.log_probs ? 0.0 : most + log(sum);
            for (int sweep = 0; sweep < 2 && !ignored; sweep++)
                for (int64_t k = 0; k < c; k++) {
                    double q = s / (double)c, v = (double)x.f[at + k * inner];
                    q += shares             ? (1.0 - s) * (double)target.f[at + k * inner]
                         : k == target.i[i] ? 1.0 - s
                                            : 0.0;
                    q *= a.weighted ? (double)w.f[k] : 1.0;
                    double d = (double)dy.f[each ? i : 0];
                    if (a.reduction == LC_LOSS_MEAN)
                        d /= count;
                    if (sweep == 0) {
                        all_q += q;
                        l += q * (lse - v);
                    } else if (pass == 1) {
                        dx[at + k * inner] = d * ((a.log_probs ? 0.0 : exp(v - lse) * all_q) - q);
                    }
                }
            if (pass == 0) {
                loss[i] = l;
                total += l;
                count += ignored ? 0.0 : shares || !a.weighted ? 1.0 : (double)w.f[target.i[i]];
            }
        }
    if (!each)
        loss[0] = a.reduction == LC_LOSS_MEAN ? total / count : total;
    tensor in[4] = {dy, x, target, w};
    double scale = 4.0 + (each ? 0.0 : (double)places / (a.reduction == LC_LOSS_MEAN ? count : 1));
    try_grad("cross_entropy", &lc_op_cross_entropy, &a, a.weighted ? 3 : 2, in + 1,
             (const double *const *)&loss, 2e-6, fabs(scale), 1);
    try_grad("cross_entropy_grad", &lc_op_cross_entropy_grad, &a, a.weighted ? 4 : 3, in,
             (const double *const *)&dx, 2e-6, 4.0, 1);
    free(loss);
    free(dx);
    tensor *all[] = {&x, &w, &target, &dy};
    for (int i = 0; i < 4; i++)
        tensor_free(all[i]);
}

static void test_cross_entropy(void)
{
    static const int64_t sizes[][4] = {{5, 7, 1, 1}, {3, 1000, 1, 1}, {2, 4, 3, 5}};
    for (int s = 0; s < 3; s++)
        for (uint32_t reduction = 0; reduction < 3; reduction++)
            for (uint32_t flags = 0; flags < 8; flags++) {
                lc_cross_entropy_attr a = {.ignore_index = flags & 1 ? 2 : -100,
                                           .label_smoothing = flags & 2 ? 0.1 : 0.0,
                                           .reduction = reduction,
                                           .weighted = flags >> 2};
                cross_entropy_case(s == 2 ? 4 : 2, sizes[s], a, false);
                cross_entropy_case(s == 2 ? 4 : 2, sizes[s], a, true);
                a.log_probs = 1;
                if (a.label_smoothing == 0.0)
                    cross_entropy_case(s == 2 ? 4 : 2, sizes[s], a, false);
            }
    /* labels out of range, by run */
    tensor in[2] = {T(2, 3, 4), ints_of(2, (int64_t[]){2, 4}, 3)};
    in[1].i[6] = 3;
    lc_cross_entropy_attr a = {.ignore_index = -100, .reduction = LC_LOSS_MEAN};
    lc_layout plain[2] = {LC_PLAIN, LC_PLAIN};
    outcome r = run_op(&lc_op_cross_entropy, &a, 2, in, plain, LC_PLAIN, &tables[0], "labels");
    CHECK(r.n == 1 && !r.f[0]);
    CHECK(strstr(lc_error_message(), "target 3 at position (1, 2) is out of range") != NULL);
    outcome_free(&r);
    tensor_free(&in[0]);
    tensor_free(&in[1]);
}

static void test_pointwise_losses(void)
{
    static const int64_t lengths[] = {1, 37, 4096, 9001};
    for (int s = 0; s < 4; s++)
        for (uint32_t reduction = 0; reduction < 3; reduction++)
            for (uint32_t flags = 0; flags < 4; flags++) {
                int64_t n = lengths[s];
                tensor dy = tensor_of(reduction ? 0 : 1, &n), x = tensor_of(1, &n);
                tensor t = tensor_of(1, &n), w = tensor_of(1, &n), pos = tensor_of(1, &n);
                double *want[4] = {doubles(n), doubles(n), doubles(n), doubles(n)};
                double *square = doubles(n), *dsquare = doubles(n);
                double sum = 0.0, squares = 0.0, by = reduction == LC_LOSS_MEAN ? (double)n : 1.0;
                bool weighted = flags & 1, positive = flags >> 1;
                for (int64_t i = 0; i < n; i++) {
                    double v = (double)x.f[i] * 20.0, e = (double)t.f[i];
                    x.f[i] = (float)v;
                    v = (double)x.f[i];
                    double sp = v < 0 ? log1p(exp(v)) - v : log1p(exp(-v));
                    double k = weighted ? (double)w.f[i] : 1.0, q = positive ? (double)pos.f[i] : 1;
                    double d = (double)dy.f[reduction ? 0 : i] / by;
                    want[0][i] = k * ((1 - e) * v + (1 + (q - 1) * e) * sp);
                    want[1][i] = d * k * (1 - e - (1 + (q - 1) * e) / (1 + exp(v)));
                    want[2][i] = d * k * (-v + (q - 1) * sp);
                    square[i] = (v - e) * (v - e);
                    dsquare[i] = d * 2 * (v - e);
                    sum += want[0][i];
                    squares += square[i];
                }
                if (reduction) {
                    want[0][0] = sum / by;
                    square[0] = squares / by;
                }
                lc_bce_grad_attr a = {{reduction, weighted, positive}, 0};
                tensor in[5] = {dy, x, t, weighted ? w : pos, pos};
                int n_in = 2 + weighted + positive;
                double scale = reduction == LC_LOSS_SUM ? 100.0 * sqrt((double)n) : 40.0;
                try_grad("bce", &lc_op_bce_with_logits, &a.loss, n_in, in + 1,
                         (const double *const *)&want[0], 2e-6, scale, 1);
                for (; a.to_target < 2; a.to_target++)
                    try_grad("bce_grad", &lc_op_bce_with_logits_grad, &a, n_in + 1, in,
                             (const double *const *)&want[1 + a.to_target], 1e-6, 1e-3, 1);
                lc_mse_attr m = {reduction};
                try_grad("mse", &lc_op_mse, &m, 2, in + 1, (const double *const *)&square, 1e-6,
                         1.0, 1);
                try_grad("mse_grad", &lc_op_mse_grad, &m, 3, in, (const double *const *)&dsquare,
                         1e-6, 1e-3, 1);
                for (int i = 0; i < 4; i++)
                    free(want[i]);
                free(square);
                free(dsquare);
                tensor *all[] = {&dy, &x, &t, &w, &pos};
                for (int i = 0; i < 5; i++)
                    tensor_free(all[i]);
            }
}

int main(void)
{
    lc_vec_kernels_fill__scalar(&tables[0].vec);
    lc_grad_kernels_fill__scalar(&tables[0].grad);
    tables[0].block = 8;
    n_tables = 1;
#ifdef HAVE_VECTORS
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        tables[1] = tables[2] = tables[0];
        lc_vec_kernels_fill__avx2(&tables[1].vec);
        lc_grad_kernels_fill__avx2(&tables[1].grad);
        tables[2].block = 16;
        lc_vec_kernels_fill__avx512(&tables[2].vec);
        lc_grad_kernels_fill__avx512(&tables[2].grad);
        n_tables = 3;
    }
#endif
    test_batch_stats();
    test_batch_norm_with_batch_statistics();
    test_affine_streams();
    test_batch_norm_grad();
    test_pool2d_grad();
    test_adaptive_pool2d_grad();
    test_softmax_grad();
    test_extreme_grad();
    test_slice_grad();
    test_transposed_matmul();
    test_split();
    test_dropout();
    test_drop_block();
    test_cross_entropy();
    test_pointwise_losses();
    return check_report();
}
