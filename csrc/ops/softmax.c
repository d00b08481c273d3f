/* softmax and log_softmax over one axis. x is seen as (outer, length, inner); sums are in double.
 *
 * A unit is a row (inner == 1) or a strip of up to STRIP neighbouring columns, walked row by
 * row. */
#include <math.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define STRIP 256

typedef struct prep {
    lc_units units;
    int64_t outer, length, inner;
    int64_t strips; /* per outer index */
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_softmax_attr *a = attr;
    const char *op = a->log ? "log_softmax" : "softmax";
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs(op, n_in, 1));
    LC_TRY(lc_check_f32(op, "x", &in[0]));
    if (a->axis < 0 ||
        a->axis >= (in[0].rank ? in[0].rank : 1)) /* a number has axis 0, as in PyTorch */
        return lc_fail(LC_ERR_INDEX, "%s: axis %d is out of range for x of shape %s", op, a->axis,
                       lc_shape_text(&in[0], text));
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

static lc_status prepare(lc_step *step)
{
    const lc_softmax_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->outer = p->inner = p->length = 1;
    for (int i = 0; i < x->rank; i++)
        *(i < a->axis ? &p->outer : i == a->axis ? &p->length : &p->inner) *= x->dim[i];
    p->strips = (p->inner + STRIP - 1) / STRIP;
    step->items[0] = lc_units_set(&p->units, p->length ? p->outer * p->strips : 0,
                                  12 * p->length * (p->inner < STRIP ? p->inner : STRIP));
    step->algorithm = a->log ? "log_softmax" : "softmax";
    return LC_OK;
}

static float largest(const lc_vec_kernels *v, const float *x, int64_t n)
{
    float lane[STRIP];
    int64_t lanes = n < STRIP ? n : STRIP;
    for (int64_t i = 0; i < lanes; i++)
        lane[i] = x[i];
    for (int64_t i = lanes; i < n; i += STRIP)
        v->max(lane, lane, x + i, n - i < STRIP ? n - i : STRIP, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    for (; lanes > 1; lanes -= lanes / 2)
        v->max(lane, lane, lane + (lanes - lanes / 2), lanes / 2, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    return lane[0];
}

/* n > 0 */
static void row(const lc_step *step, float *y, const float *x, int64_t n)
{
    const lc_softmax_attr *a = step->attr;
    const lc_vec_kernels *v = &step->kernels->vec;
    float most = largest(v, x, n);
    double sum = 0.0;
    v->sub(y, x, &most, n, LC_SPAN_ALL, LC_SPAN_ONE, 1); /* -inf - -inf is NaN, as in PyTorch */
    v->exp(y, y, n, 0.0f, 0.0f);
    v->sum(&sum, y, n, 1);
    if (a->log) {
        double log_sum = (double)most + log(sum);
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)((double)x[i] - log_sum);
    } else {
        float scale = (float)(1.0 / sum);
        v->mul(y, y, &scale, n, LC_SPAN_ALL, LC_SPAN_ONE, 1);
    }
}

/* `n` columns of `length` > 0 rows that are `inner` apart. */
static void strip(const lc_step *step, float *y, const float *x, int64_t n, int64_t length,
                  int64_t inner)
{
    const lc_softmax_attr *a = step->attr;
    const lc_vec_kernels *v = &step->kernels->vec;
    float most[STRIP], scale[STRIP];
    double sum[STRIP];
    for (int64_t i = 0; i < n; i++) {
        most[i] = x[i];
        sum[i] = 0.0;
    }
    for (int64_t r = 1; r < length; r++)
        v->max(most, most, x + r * inner, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    for (int64_t r = 0; r < length; r++) {
        float *to = y + r * inner;
        v->sub(to, x + r * inner, most, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
        v->exp(to, to, n, 0.0f, 0.0f);
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)to[i];
    }
    for (int64_t i = 0; i < n; i++) {
        scale[i] = (float)(1.0 / sum[i]);
        sum[i] = (double)most[i] + log(sum[i]);
    }
    for (int64_t r = 0; r < length; r++) {
        float *to = y + r * inner;
        if (a->log)
            for (int64_t i = 0; i < n; i++)
                to[i] = (float)((double)x[r * inner + i] - sum[i]);
        else
            v->mul(to, to, scale, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    }
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const prep *p = step->prep;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t from = u % p->strips * STRIP, at = u / p->strips * p->length * p->inner + from;
        const float *x = (const float *)bind->in[0] + at;
        float *y = (float *)bind->out[0] + at;
        if (p->inner == 1)
            row(step, y, x, p->length);
        else
            strip(step, y, x, p->inner - from < STRIP ? p->inner - from : STRIP, p->length,
                  p->inner);
    }
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    return lc_grad_node(g->b, &lc_op_softmax_grad, g->attr, 2, (lc_value[]){g->dy[0], g->out[0]},
                        &g->dx[0]);
}

const lc_op lc_op_softmax = {
    .name = "softmax",
    .attr_size = sizeof(lc_softmax_attr),
    .infer = infer,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};

/* ---- the gradient: dy, y -> dx = y * (dy - sum of dy * y), or dy - exp(y) * sum of dy ---- */

static lc_status grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    LC_TRY(lc_check_inputs("softmax_grad", n_in, 2));
    LC_TRY(lc_check_f32("softmax_grad", "y", &in[1]));
    if (!lc_desc_same_shape(&in[0], &in[1]))
        return lc_fail(LC_ERR_VALUE, "softmax_grad: dy and y must have equal shapes");
    return infer(attr, 1, in, n_out, out);
}

static void grad_row(const lc_step *step, float *dx, const float *dy, const float *y, int64_t n)
{
    const lc_softmax_attr *a = step->attr;
    const lc_vec_kernels *v = &step->kernels->vec;
    double sum = 0.0;
    if (a->log)
        v->sum(&sum, dy, n, 1);
    else
        step->kernels->grad.dot(&sum, dy, y, n, 1);
    float total = (float)sum;
    if (a->log) {
        v->exp(dx, y, n, 0.0f, 0.0f);
        v->mul(dx, dx, &total, n, LC_SPAN_ALL, LC_SPAN_ONE, 1);
        v->sub(dx, dy, dx, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    } else {
        v->sub(dx, dy, &total, n, LC_SPAN_ALL, LC_SPAN_ONE, 1);
        v->mul(dx, dx, y, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    }
}

static void grad_strip(const lc_step *step, float *dx, const float *dy, const float *y, int64_t n,
                       int64_t length, int64_t inner)
{
    const lc_softmax_attr *a = step->attr;
    const lc_vec_kernels *v = &step->kernels->vec;
    double sum[STRIP] = {0.0};
    float total[STRIP];
    for (int64_t r = 0; r < length; r++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)dy[r * inner + i] * (a->log ? 1.0 : (double)y[r * inner + i]);
    for (int64_t i = 0; i < n; i++)
        total[i] = (float)sum[i];
    for (int64_t r = 0; r < length; r++) {
        float *to = dx + r * inner;
        const float *d = dy + r * inner, *of = y + r * inner;
        if (a->log) {
            v->exp(to, of, n, 0.0f, 0.0f);
            v->mul(to, to, total, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
            v->sub(to, d, to, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
        } else {
            v->sub(to, d, total, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
            v->mul(to, to, of, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
        }
    }
}

static lc_status grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const prep *p = step->prep;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t from = u % p->strips * STRIP, at = u / p->strips * p->length * p->inner + from;
        const float *dy = (const float *)bind->in[0] + at, *y = (const float *)bind->in[1] + at;
        float *dx = (float *)bind->out[0] + at;
        if (p->inner == 1)
            grad_row(step, dx, dy, y, p->length);
        else
            grad_strip(step, dx, dy, y, p->inner - from < STRIP ? p->inner - from : STRIP,
                       p->length, p->inner);
    }
    return LC_OK;
}

const lc_op lc_op_softmax_grad = {
    .name = "softmax_grad",
    .attr_size = sizeof(lc_softmax_attr),
    .infer = grad_infer,
    .prepare = prepare,
    .run = grad_run,
};
