/* adaptive_avg_pool2d and adaptive_max_pool2d, plain and blocked; global pooling is the case of one
 * output.
 *
 * Output i of n takes pixels floor(i * size / n) to ceil((i + 1) * size / n) - 1, as in PyTorch.
 * Means are summed in double from float sums of fixed parts. */
#include <math.h>
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

typedef struct prep {
    lc_units units; /* one row of outputs of one block */
} prep;

static const char *name_of(uint32_t kind)
{
    return kind == LC_POOL_MAX ? "adaptive_max_pool2d" : "adaptive_avg_pool2d";
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_adaptive_pool2d_attr *a = attr;
    if (a->kind != LC_POOL_MAX && a->kind != LC_POOL_AVG)
        return lc_fail(LC_ERR_VALUE, "adaptive_pool2d: no kind has number %u", a->kind);
    const char *op = name_of(a->kind);
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs(op, n_in, 1));
    LC_TRY(lc_check_f32(op, "x", &in[0]));
    LC_TRY(lc_check_rank(op, "x", &in[0], 4, 4));
    if (in[0].dim[1] == 0 || in[0].dim[2] == 0 || in[0].dim[3] == 0)
        return lc_fail(LC_ERR_VALUE,
                       "%s: x of shape %s has no pixels (only the batch may be empty)", op,
                       lc_shape_text(&in[0], text));
    if (a->out[0] < 0 || a->out[1] < 0 || a->out[0] > INT32_MAX || a->out[1] > INT32_MAX)
        return lc_fail(LC_ERR_VALUE,
                       "%s: output_size must not be negative, and below 2**31: (%lld, %lld)", op,
                       (long long)a->out[0], (long long)a->out[1]);
    int64_t dim[4] = {in[0].dim[0], in[0].dim[1], a->out[0], a->out[1]};
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, 4, dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = out[0] = q->in[0].layout;
}

static lc_status prepare(lc_step *step)
{
    const lc_adaptive_pool2d_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    int64_t rows = a->out[0] ? x->dim[2] / a->out[0] + 1 : 0;
    /* Rows of no pixels, of which there may be billions, are left out. */
    int64_t units = a->out[1] ? x->dim[0] * lc_block_count(x) * a->out[0] : 0;
    step->items[0] =
        lc_units_set(&p->units, units, lc_count_mul(rows * x->layout.block, x->dim[3] + a->out[1]));
    step->algorithm = name_of(a->kind);
    return LC_OK;
}

static void window(int64_t i, int64_t size, int64_t outputs, int64_t *start, int64_t *count)
{
    /* i < 2^31 and size < 2^52: split the product so that it does not overflow */
    int64_t whole = size / outputs, rest = size % outputs;
    *start = i * whole + i * rest / outputs;
    *count = (i + 1) * whole + ((i + 1) * rest + outputs - 1) / outputs - *start;
}

static void mean(const lc_vec_kernels *v, float *y, const float *x, int64_t rows, int64_t cols,
                 int64_t width, int block)
{
    double sum[LC_MAX_BLOCK] = {0.0};
    if (cols == width)
        v->sum(sum, x, rows * cols * block, block);
    else
        for (int64_t r = 0; r < rows; r++)
            v->sum(sum, x + r * width * block, cols * block, block);
    for (int l = 0; l < block; l++)
        y[l] = (float)(sum[l] / (double)(rows * cols));
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const lc_adaptive_pool2d_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_vec_kernels *v = &step->kernels->vec;
    const lc_desc *in = &step->in[0];
    int block = in->layout.block;
    int64_t width = in->dim[3], first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const float *x = (const float *)bind->in[0] + u / a->out[0] * in->dim[2] * width * block;
        float *y = (float *)bind->out[0] + u * a->out[1] * block;
        int64_t row, rows, col, cols;
        window(u % a->out[0], in->dim[2], a->out[0], &row, &rows);
        for (int64_t i = 0; i < a->out[1]; i++, y += block) {
            window(i, width, a->out[1], &col, &cols);
            const float *from = x + (row * width + col) * block;
            lc_vec_window w = {rows, cols, width * block, block, 1};
            if (a->kind == LC_POOL_MAX)
                v->pool_max(y, from, 1, &w, -INFINITY, block);
            else
                mean(v, y, from, rows, cols, width, block);
        }
    }
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    lc_adaptive_pool2d_grad_attr attr = {.pool = *(const lc_adaptive_pool2d_attr *)g->attr,
                                         .size = {x.dim[2], x.dim[3]}};
    lc_value in[2] = {g->dy[0], g->in[0]};
    return lc_grad_node(g->b, &lc_op_adaptive_pool2d_grad, &attr,
                        attr.pool.kind == LC_POOL_MAX ? 2 : 1, in, &g->dx[0]);
}

const lc_op lc_op_adaptive_pool2d = {
    .name = "adaptive_pool2d",
    .attr_size = sizeof(lc_adaptive_pool2d_attr),
    .flags = LC_OP_KEEPS_LAYOUT | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};

/* ---- the gradient: dy, [x of max] -> dx. A unit is a plane of dx. ---- */

static lc_status grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_adaptive_pool2d_grad_attr *a = attr;
    bool is_max = a->pool.kind == LC_POOL_MAX;
    LC_TRY(lc_check_inputs("adaptive_pool2d_grad", n_in, is_max ? 2 : 1));
    LC_TRY(lc_check_rank("adaptive_pool2d_grad", "dy", &in[0], 4, 4));
    lc_desc x, y;
    LC_TRY(lc_desc_init(&x, LC_F32, 4,
                        (int64_t[]){in[0].dim[0], in[0].dim[1], a->size[0], a->size[1]}));
    LC_TRY(infer(&a->pool, 1, &x, n_out, &y));
    if (!lc_desc_same_shape(&y, &in[0]) || (is_max && !lc_desc_same_shape(&x, &in[1])))
        return lc_fail(LC_ERR_VALUE, "adaptive_pool2d_grad: dy or x has a wrong shape");
    out[0] = x;
    return LC_OK;
}

static void grad_layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    out[0] = q->n_in > 1 ? q->in[1].layout : q->out[0].layout; /* dy may be small: as is wished */
    for (int i = 0; i < q->n_in; i++)
        in[i] = out[0];
}

static lc_status grad_prepare(lc_step *step)
{
    const lc_desc *dy = &step->in[0], *dx = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    int64_t pixels = dx->dim[2] * dx->dim[3];
    step->items[0] = lc_units_set(&p->units, dx->dim[0] * lc_block_count(dx),
                                  2 * (pixels + dy->dim[2] * dy->dim[3]) * dx->layout.block);
    return LC_OK;
}

static lc_status grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const lc_adaptive_pool2d_grad_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_grad_kernels *k = &step->kernels->grad;
    int block = step->out[0].layout.block;
    int64_t width = a->size[1], plane = a->size[0] * width * block, first, last;
    int64_t rows_out = a->pool.out[1] ? a->pool.out[0] : 0; /* rows of nothing: left out */
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        const float *dy = (const float *)bind->in[0] + u * a->pool.out[0] * a->pool.out[1] * block;
        float *dx = (float *)bind->out[0] + u * plane;
        memset(dx, 0, (size_t)plane * sizeof *dx);
        for (int64_t r = 0; r < rows_out; r++)
            for (int64_t i = 0; i < a->pool.out[1]; i++, dy += block) {
                int64_t row, rows, col, cols;
                window(r, a->size[0], a->pool.out[0], &row, &rows);
                window(i, width, a->pool.out[1], &col, &cols);
                int64_t at = (row * width + col) * block;
                lc_vec_window w = {rows, cols, width * block, block, 1};
                if (a->pool.kind == LC_POOL_MAX)
                    k->pool_max(dx + at, (const float *)bind->in[1] + u * plane + at, dy, 1, &w,
                                block);
                else
                    k->pool_mean(dx + at, dy, 1, &w, (float)(rows * cols), block);
            }
    }
    return LC_OK;
}

const lc_op lc_op_adaptive_pool2d_grad = {
    .name = "adaptive_pool2d_grad",
    .attr_size = sizeof(lc_adaptive_pool2d_grad_attr),
    .infer = grad_infer,
    .layout = grad_layout,
    .prepare = grad_prepare,
    .run = grad_run,
};
