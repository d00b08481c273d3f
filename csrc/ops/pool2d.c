/* max_pool2d and avg_pool2d, plain and blocked. A unit of work is one row of outputs of one block
 * (plain: one channel).
 *
 * In a row, windows that lie inside the image from left to right go to the kernel in one call;
 * the few at the borders are clipped and go one by one. */
#include <math.h>
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define LARGE_WINDOW 256 /* pixels from which on means are summed in double */

typedef struct prep {
    lc_units units;
    int64_t inside_from, inside_to; /* output columns whose windows need no clipping */
} prep;

/* One axis of one window, clipped to the image. */
typedef struct clip {
    int64_t start, count; /* first pixel inside, and how many (0: none) */
    int64_t covered;      /* pixels of the window with padding counted, as PyTorch counts them */
    bool pads;            /* some of them are padding */
} clip;

static clip clip_window(const lc_pool2d_attr *a, int axis, int64_t size, int64_t out)
{
    int64_t start = out * a->stride[axis] - a->pad[axis], step = a->dilation[axis];
    int64_t reach = start + (a->kernel[axis] - 1) * step; /* the last pixel */
    clip c;
    int64_t skipped = start < 0 ? (-start + step - 1) / step : 0;
    c.start = start + skipped * step;
    int64_t last = reach < size ? reach : size - 1;
    c.count = c.start <= last ? (last - c.start) / step + 1 : 0;
    int64_t stop = start + a->kernel[axis], limit = size + a->pad[axis];
    c.covered = (stop < limit ? stop : limit) - start;
    /* The first pixel of the window beyond the image, if any, may be padding or lie beyond even
     * that (ceil_mode). */
    int64_t beyond = start + (skipped + c.count) * step;
    c.pads = start < 0 || (beyond <= reach && beyond < limit);
    return c;
}

static const char *name_of(uint32_t kind)
{
    return kind == LC_POOL_MAX ? "max_pool2d" : "avg_pool2d";
}

/* The output's size along one axis. */
static lc_status out_size(const lc_pool2d_attr *a, int axis, int64_t size, int64_t *out)
{
    static const char *const sides[] = {"height", "width"};
    const char *op = name_of(a->kind), *side = sides[axis];
    int64_t k = a->kernel[axis], s = a->stride[axis], p = a->pad[axis], d = a->dilation[axis];
    if (k <= 0 || k > INT32_MAX)
        return lc_fail(LC_ERR_VALUE, "%s: kernel_size must be positive, not %lld (%s)", op,
                       (long long)k, side);
    if (s <= 0 || s > INT32_MAX)
        return lc_fail(LC_ERR_VALUE, "%s: stride must be positive, not %lld (%s)", op, (long long)s,
                       side);
    if (d <= 0 || d > INT32_MAX)
        return lc_fail(LC_ERR_VALUE, "%s: dilation must be positive, not %lld (%s)", op,
                       (long long)d, side);
    if (p < 0 || p > k / 2)
        return lc_fail(LC_ERR_VALUE,
                       "%s: padding must be 0 to half of kernel_size %lld, not %lld (%s)", op,
                       (long long)k, (long long)p, side);
    int64_t window = d * (k - 1) + 1, room = size + 2 * p - window + (a->ceil_mode ? s - 1 : 0);
    if (room < 0)
        return lc_fail(LC_ERR_VALUE,
                       "%s: a window of %lld pixels does not fit x of %s %lld with padding %lld",
                       op, (long long)window, side, (long long)size, (long long)p);
    *out = room / s + 1;
    if (a->ceil_mode && (*out - 1) * s >= size + p) /* it would start in the right padding */
        --*out;
    return LC_OK;
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_pool2d_attr *a = attr;
    if (a->kind != LC_POOL_MAX && a->kind != LC_POOL_AVG)
        return lc_fail(LC_ERR_VALUE, "pool2d: no kind has number %u", a->kind);
    const char *op = name_of(a->kind);
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs(op, n_in, 1));
    LC_TRY(lc_check_f32(op, "x", &in[0]));
    LC_TRY(lc_check_rank(op, "x", &in[0], 4, 4));
    if (in[0].dim[1] == 0 || in[0].dim[2] == 0 || in[0].dim[3] == 0)
        return lc_fail(LC_ERR_VALUE,
                       "%s: x of shape %s has no pixels (only the batch may be empty)", op,
                       lc_shape_text(&in[0], text));
    if (a->kind == LC_POOL_AVG && (a->dilation[0] != 1 || a->dilation[1] != 1))
        return lc_fail(LC_ERR_VALUE, "avg_pool2d: dilation must be 1, not (%lld, %lld)",
                       (long long)a->dilation[0], (long long)a->dilation[1]);
    int64_t dim[4] = {in[0].dim[0], in[0].dim[1]};
    for (int i = 0; i < 2; i++)
        LC_TRY(out_size(a, i, in[0].dim[2 + i], &dim[2 + i]));
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, 4, dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = out[0] = q->in[0].layout;
}

static void find_inside(prep *p, const lc_pool2d_attr *a, int64_t width, int64_t outputs)
{
    int64_t reach = (a->kernel[1] - 1) * a->dilation[1];
    p->inside_from = (a->pad[1] + a->stride[1] - 1) / a->stride[1];
    int64_t last =
        width - 1 - reach + a->pad[1]; /* start of the last window inside, padding counted */
    p->inside_to = last < 0 ? 0 : last / a->stride[1] + 1;
    if (p->inside_to > outputs)
        p->inside_to = outputs;
    if (p->inside_to < p->inside_from)
        p->inside_from = p->inside_to = 0;
}

static lc_status prepare(lc_step *step)
{
    const lc_pool2d_attr *a = step->attr;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    int64_t width = x->dim[3];
    find_inside(p, a, width, y->dim[3]);
    int64_t area = a->kernel[0] < x->dim[2] ? a->kernel[0] : x->dim[2];
    area *= a->kernel[1] < width ? a->kernel[1] : width;
    step->items[0] = lc_units_set(&p->units, x->dim[0] * lc_block_count(x) * y->dim[2],
                                  lc_count_mul(y->dim[3] * x->layout.block, area + 1));
    step->algorithm = name_of(a->kind);
    return LC_OK;
}

static float divisor_of(const lc_pool2d_attr *a, const clip *rows, const clip *cols)
{
    return (float)(a->divisor             ? a->divisor
                   : a->count_include_pad ? rows->covered * cols->covered
                                          : rows->count * cols->count);
}

/* Means over many pixels. */
static void mean_in_double(const lc_vec_kernels *v, float *y, const float *x, int64_t n,
                           const lc_vec_window *w, float divisor, int block)
{
    for (int64_t i = 0; i < n; i++, x += w->out_step, y += block) {
        double sum[LC_MAX_BLOCK] = {0.0};
        for (int64_t r = 0; r < w->rows; r++)
            v->sum(sum, x + r * w->row_step, w->cols * block, block);
        for (int l = 0; l < block; l++)
            y[l] = (float)(sum[l] / (double)divisor);
    }
}

typedef struct row {
    const lc_step *step;
    const float *x; /* the plane */
    float *y;       /* the row of outputs */
    clip rows;
    int valid; /* lanes that are channels */
} row;

/* Outputs [from, from + n), whose windows are clipped alike. */
static void pool_some(const row *r, int64_t from, int64_t n)
{
    const lc_step *step = r->step;
    const lc_pool2d_attr *a = step->attr;
    const lc_vec_kernels *v = &step->kernels->vec;
    int block = step->in[0].layout.block;
    int64_t width = step->in[0].dim[3];
    clip cols = clip_window(a, 1, width, from);
    lc_vec_window w = {r->rows.count, cols.count, width * block * a->dilation[0],
                       a->dilation[1] * block, a->stride[1] * block};
    const float *x = r->x + (r->rows.start * width + cols.start) * block;
    float *y = r->y + from * block;
    if (a->kind == LC_POOL_MAX) {
        float lowest = a->pad_with_zeros && (r->rows.pads || cols.pads) ? 0.0f : -INFINITY;
        if (w.rows == 0 || w.cols == 0) { /* dilated windows may step over the image */
            for (int64_t i = 0; i < n * block; i++)
                y[i] = i % block < r->valid ? lowest : 0.0f;
            return;
        }
        v->pool_max(y, x, n, &w, lowest, block);
        return;
    }
    float divisor = divisor_of(a, &r->rows, &cols);
    if (a->kernel[0] > LARGE_WINDOW / a->kernel[1])
        mean_in_double(v, y, x, n, &w, divisor, block);
    else
        v->pool_mean(y, x, n, &w, divisor, block);
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const lc_pool2d_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_desc *in = &step->in[0], *out = &step->out[0];
    int block = in->layout.block;
    int64_t blocks = lc_block_count(in), oh = out->dim[2], ow = out->dim[3], first, last, c;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t plane = u / oh;
        row r = {.step = step,
                 .x = (const float *)bind->in[0] + plane * in->dim[2] * in->dim[3] * block,
                 .y = (float *)bind->out[0] + u * ow * block,
                 .rows = clip_window(a, 0, in->dim[2], u % oh),
                 .valid = lc_block_channels(in, plane % blocks, &c)};
        for (int64_t i = 0; i < p->inside_from; i++)
            pool_some(&r, i, 1);
        if (p->inside_to > p->inside_from)
            pool_some(&r, p->inside_from, p->inside_to - p->inside_from);
        for (int64_t i = p->inside_to; i < ow; i++)
            pool_some(&r, i, 1);
    }
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    lc_pool2d_grad_attr attr = {.pool = *(const lc_pool2d_attr *)g->attr,
                                .size = {x.dim[2], x.dim[3]}};
    lc_value in[2] = {g->dy[0], g->in[0]};
    return lc_grad_node(g->b, &lc_op_pool2d_grad, &attr, attr.pool.kind == LC_POOL_MAX ? 2 : 1, in,
                        &g->dx[0]);
}

const lc_op lc_op_pool2d = {
    .name = "pool2d",
    .attr_size = sizeof(lc_pool2d_attr),
    .flags = LC_OP_KEEPS_LAYOUT | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};

/* ---- the gradient: dy, [x of max] -> dx. A unit is a plane of dx, which all of its windows are
 * added to in order. ---- */

static lc_status grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_pool2d_grad_attr *a = attr;
    bool is_max = a->pool.kind == LC_POOL_MAX;
    LC_TRY(lc_check_inputs("pool2d_grad", n_in, is_max ? 2 : 1));
    LC_TRY(lc_check_rank("pool2d_grad", "dy", &in[0], 4, 4));
    lc_desc x, y;
    LC_TRY(lc_desc_init(&x, LC_F32, 4,
                        (int64_t[]){in[0].dim[0], in[0].dim[1], a->size[0], a->size[1]}));
    LC_TRY(infer(&a->pool, 1, &x, n_out, &y));
    if (!lc_desc_same_shape(&y, &in[0]) || (is_max && !lc_desc_same_shape(&x, &in[1])))
        return lc_fail(LC_ERR_VALUE, "pool2d_grad: dy or x has a wrong shape");
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
    const lc_pool2d_grad_attr *a = step->attr;
    const lc_desc *dy = &step->in[0], *dx = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    find_inside(p, &a->pool, a->size[1], dy->dim[3]);
    int64_t area = lc_count_mul(a->pool.kernel[0], a->pool.kernel[1]);
    step->items[0] = lc_units_set(
        &p->units, dx->dim[0] * lc_block_count(dx),
        lc_count_add(a->size[0] * a->size[1] * dx->layout.block,
                     lc_count_mul(dy->dim[2] * dy->dim[3] * dx->layout.block, 2 * area)));
    return LC_OK;
}

typedef struct grad_row {
    const lc_step *step;
    const float *x, *dy; /* the plane, the row of outputs */
    float *dx;           /* the plane */
    int64_t oh;
    clip rows;
    int valid;
} grad_row;

/* A window in which zeros of the padding take part, element by element. */
static void max_with_zeros(const grad_row *r, int64_t ow)
{
    const lc_pool2d_grad_attr *attr = r->step->attr;
    const lc_pool2d_attr *a = &attr->pool;
    const int block = r->step->out[0].layout.block;
    for (int l = 0; l < r->valid; l++) {
        int64_t best_at = -1; /* -1: padding */
        float best = 0.0f;
        bool any = false;
        for (int64_t i = 0; i < a->kernel[0] * a->kernel[1]; i++) {
            int64_t h = r->oh * a->stride[0] - a->pad[0] + i / a->kernel[1] * a->dilation[0];
            int64_t w = ow * a->stride[1] - a->pad[1] + i % a->kernel[1] * a->dilation[1];
            if (h >= attr->size[0] + a->pad[0] || w >= attr->size[1] + a->pad[1])
                continue;
            bool inside = h >= 0 && h < attr->size[0] && w >= 0 && w < attr->size[1];
            int64_t at = inside ? (h * attr->size[1] + w) * block + l : -1;
            float v = inside ? r->x[at] : 0.0f;
            if (!any || v > best || v != v) {
                best = v;
                best_at = at;
            }
            any = true;
        }
        if (best_at >= 0)
            r->dx[best_at] += r->dy[ow * block + l];
    }
}

/* Outputs [from, from + n), whose windows are clipped alike. */
static void grad_some(const grad_row *r, int64_t from, int64_t n)
{
    const lc_pool2d_grad_attr *attr = r->step->attr;
    const lc_pool2d_attr *a = &attr->pool;
    const lc_grad_kernels *k = &r->step->kernels->grad;
    int block = r->step->out[0].layout.block;
    int64_t width = attr->size[1];
    clip cols = clip_window(a, 1, width, from);
    lc_vec_window w = {r->rows.count, cols.count, width * block * a->dilation[0],
                       a->dilation[1] * block, a->stride[1] * block};
    int64_t at = (r->rows.start * width + cols.start) * block;
    if (w.rows == 0 || w.cols == 0)
        return;
    if (a->kind == LC_POOL_AVG)
        k->pool_mean(r->dx + at, r->dy + from * block, n, &w, divisor_of(a, &r->rows, &cols),
                     block);
    else if (a->pad_with_zeros && (r->rows.pads || cols.pads))
        for (int64_t i = from; i < from + n; i++)
            max_with_zeros(r, i);
    else
        k->pool_max(r->dx + at, r->x + at, r->dy + from * block, n, &w, block);
}

static lc_status grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const lc_pool2d_grad_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_desc *dy = &step->in[0], *dx = &step->out[0];
    int block = dx->layout.block;
    int64_t blocks = lc_block_count(dx), oh = dy->dim[2], ow = dy->dim[3], first, last, c;
    int64_t plane = a->size[0] * a->size[1] * block;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        grad_row r = {.step = step,
                      .x = step->n_in > 1 ? (const float *)bind->in[1] + u * plane : NULL,
                      .dx = (float *)bind->out[0] + u * plane,
                      .valid = lc_block_channels(dx, u % blocks, &c)};
        memset(r.dx, 0, (size_t)plane * sizeof *r.dx);
        for (r.oh = 0; r.oh < oh; r.oh++) {
            r.dy = (const float *)bind->in[0] + (u * oh + r.oh) * ow * block;
            r.rows = clip_window(&a->pool, 0, a->size[0], r.oh);
            for (int64_t i = 0; i < p->inside_from; i++)
                grad_some(&r, i, 1);
            if (p->inside_to > p->inside_from)
                grad_some(&r, p->inside_from, p->inside_to - p->inside_from);
            for (int64_t i = p->inside_to; i < ow; i++)
                grad_some(&r, i, 1);
        }
    }
    return LC_OK;
}

const lc_op lc_op_pool2d_grad = {
    .name = "pool2d_grad",
    .attr_size = sizeof(lc_pool2d_grad_attr),
    .infer = grad_infer,
    .layout = grad_layout,
    .prepare = grad_prepare,
    .run = grad_run,
};
