/* The plain loops: every slot of the table, any block. */
#include "kernels/grad_kernels.h"

static void moments(double *mean, double *m2, const float *x, int64_t n, int block)
{
    double count = (double)(n / block);
    for (int l = 0; l < block; l++) {
        double sum = 0.0, square = 0.0;
        for (int64_t i = l; i < n; i += block)
            sum += (double)x[i];
        mean[l] = sum / count;
        for (int64_t i = l; i < n; i += block)
            square += ((double)x[i] - mean[l]) * ((double)x[i] - mean[l]);
        m2[l] = square;
    }
}

static void affine_add(float *y, const float *x, const float *scale, const float *shift,
                       const float *r, int64_t n, int block, unsigned how)
{
    for (int64_t i = 0; i < n; i += block)
        for (int l = 0; l < block; l++) {
            float v = x[i + l] * scale[l] + shift[l] + r[i + l];
            y[i + l] = (how & LC_AFFINE_RELU) && v < 0.0f ? 0.0f : v;
        }
}

/* Element i, which is of lane l. */
static inline float masked_dy(const lc_grad_norm *g, int64_t i, int l)
{
    if (g->y)
        return g->y[i] > 0.0f ? g->dy[i] : 0.0f;
    if (g->scale)
        return g->x[i] * g->scale[l] + g->shift[l] > 0.0f ? g->dy[i] : 0.0f;
    return g->dy[i];
}

static void norm_sums(double *sum, const lc_grad_norm *g, int64_t n, int block)
{
    for (int64_t i = 0; i < n; i += block)
        for (int l = 0; l < block; l++) {
            float dy = masked_dy(g, i + l, l);
            sum[l] += (double)dy;
            sum[block + l] += (double)dy * (double)(g->x[i + l] - g->mean[l]);
            if (g->masked)
                g->masked[i + l] = dy;
        }
}

static void norm_apply(const lc_grad_norm *g, int64_t n, int block)
{
    for (int64_t i = 0; i < n; i += block)
        for (int l = 0; l < block; l++)
            g->dx[i + l] =
                masked_dy(g, i + l, l) * g->a[l] + ((g->x[i + l] - g->mean[l]) * g->b[l] + g->c[l]);
}

static void dot(double *sum, const float *a, const float *b, int64_t n, int block)
{
    for (int64_t i = 0; i < n; i += block)
        for (int l = 0; l < block; l++)
            sum[l] += (double)a[i + l] * (double)b[i + l];
}

void lc_grad_pool_max_f32__scalar(float *dx, const float *x, const float *dy, int64_t n,
                                  const lc_vec_window *w, int block)
{
    for (int64_t i = 0; i < n; i++, x += w->out_step, dx += w->out_step, dy += block)
        for (int l = 0; l < block; l++) {
            int64_t best = l;
            for (int64_t r = 0; r < w->rows; r++)
                for (int64_t c = 0; c < w->cols; c++) {
                    int64_t at = r * w->row_step + c * w->col_step + l;
                    if (x[at] > x[best] || x[at] != x[at])
                        best = at;
                }
            dx[best] += dy[l];
        }
}

void lc_grad_pool_mean_f32__scalar(float *dx, const float *dy, int64_t n, const lc_vec_window *w,
                                   float c, int block)
{
    for (int64_t i = 0; i < n; i++, dx += w->out_step, dy += block)
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t k = 0; k < w->cols; k++)
                for (int l = 0; l < block; l++)
                    dx[r * w->row_step + k * w->col_step + l] += dy[l] / c;
}

void lc_grad_kernels_fill__scalar(lc_grad_kernels *t)
{
    *t = (lc_grad_kernels){
        .moments = moments,
        .affine_add = affine_add,
        .norm_sums = norm_sums,
        .norm_apply = norm_apply,
        .dot = dot,
        .pool_max = lc_grad_pool_max_f32__scalar,
        .pool_mean = lc_grad_pool_mean_f32__scalar,
    };
}
