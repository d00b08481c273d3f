/* Losses element by element: binary cross-entropy with logits, and squared error; and their
 * gradients. Sums are taken in double over parts of PART elements, then over the parts in order. */
#include <math.h>
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define PART 4096

typedef struct prep {
    lc_units units; /* parts */
    int64_t count;
} prep;

static lc_status infer(const char *op, uint32_t reduction, int expected, int n_in,
                       const lc_desc *in, int *n_out, lc_desc *out)
{
    char xt[LC_SHAPE_TEXT], tt[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs(op, n_in, expected));
    if (reduction > LC_LOSS_SUM)
        return lc_fail(LC_ERR_VALUE, "%s: no reduction has number %u", op, reduction);
    for (int k = 0; k < n_in; k++) {
        LC_TRY(lc_check_f32(op, k == 0 ? "input" : k == 1 ? "target" : "weight", &in[k]));
        if (!lc_desc_same_shape(&in[0], &in[k]))
            return lc_fail(LC_ERR_VALUE, "%s: %s of shape %s does not fit the input of shape %s",
                           op, k == 1 ? "target" : "weight", lc_shape_text(&in[k], tt),
                           lc_shape_text(&in[0], xt));
    }
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, reduction == LC_LOSS_NONE ? in[0].rank : 0, in[0].dim);
}

/* `x`: the desc of the loss's input. */
static lc_status prepare_parts(lc_step *step, const lc_desc *x, bool reduce, int64_t work)
{
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->count = lc_desc_count(x);
    int64_t parts = (p->count + PART - 1) / PART;
    step->items[0] = lc_units_set(&p->units, parts, work * PART);
    if (reduce) {
        step->phases = 2;
        step->shared_bytes = (size_t)parts * sizeof(double);
    }
    return LC_OK;
}

/* The loss of element i. */
typedef double element_fn(const void *attr, const void *const *in, int64_t i);

static lc_status run_parts(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                           int64_t end, uint32_t reduction, element_fn *of)
{
    const prep *p = step->prep;
    double *sums = bind->shared;
    float *y = bind->out[0];
    int64_t first, last;
    if (phase == 1) {
        double sum = 0.0;
        for (int64_t i = 0; i < p->units.count && begin < end; i++)
            sum += sums[i];
        if (begin < end)
            y[0] = (float)(reduction == LC_LOSS_MEAN ? sum / (double)p->count : sum);
        return LC_OK;
    }
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        double sum = 0.0;
        for (int64_t i = u * PART; i < (u + 1) * PART && i < p->count; i++) {
            double loss = of(step->attr, bind->in, i);
            if (reduction == LC_LOSS_NONE)
                y[i] = (float)loss;
            sum += loss;
        }
        if (reduction != LC_LOSS_NONE)
            sums[u] = sum;
    }
    return LC_OK;
}

/* `of`: dx of an element if dy were 1. */
static lc_status run_grad(const lc_step *step, const lc_bind *bind, int64_t begin, int64_t end,
                          uint32_t reduction, element_fn *of)
{
    const prep *p = step->prep;
    const float *dy = bind->in[0];
    float *dx = bind->out[0];
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t i = first * PART; i < last * PART && i < p->count; i++) {
        double d = (double)dy[reduction == LC_LOSS_NONE ? i : 0];
        if (reduction == LC_LOSS_MEAN)
            d /= (double)p->count;
        dx[i] = (float)(d * of(step->attr, bind->in + 1, i));
    }
    return LC_OK;
}

static lc_status check_dy(const char *op, const lc_desc *y, const lc_desc *dy)
{
    if (dy->dtype != LC_F32 || !lc_desc_same_shape(y, dy))
        return lc_fail(LC_ERR_VALUE, "%s: dy has a wrong shape", op);
    return LC_OK;
}

/* ---- bce_with_logits ---- */

/* Inputs x, t, [w], [pos_weight]:
 * w * ((1 - t) * x + (1 + (pos_weight - 1) * t) * log(1 + exp(-x))) */

static int bce_inputs(const lc_bce_attr *a)
{
    return 2 + (a->weighted != 0) + (a->pos_weighted != 0);
}

static void bce_weights(const lc_bce_attr *a, const void *const *in, int64_t i, double *w,
                        double *pos)
{
    *w = a->weighted ? (double)((const float *)in[2])[i] : 1.0;
    *pos = a->pos_weighted ? (double)((const float *)in[a->weighted ? 3 : 2])[i] : 1.0;
}

/* log(1 + exp(-x)) without overflow */
static double softplus_of_minus(double x)
{
    return log1p(exp(-fabs(x))) + (x < 0.0 ? -x : 0.0);
}

static double bce(const void *attr, const void *const *in, int64_t i)
{
    double x = (double)((const float *)in[0])[i], t = (double)((const float *)in[1])[i], w, pos;
    bce_weights(attr, in, i, &w, &pos);
    return w * ((1.0 - t) * x + (1.0 + (pos - 1.0) * t) * softplus_of_minus(x));
}

static double bce_dx(const void *attr, const void *const *in, int64_t i)
{
    const lc_bce_grad_attr *a = attr;
    double x = (double)((const float *)in[0])[i], t = (double)((const float *)in[1])[i], w, pos;
    bce_weights(&a->loss, in, i, &w, &pos);
    if (a->to_target)
        return w * ((pos - 1.0) * softplus_of_minus(x) - x);
    double e = exp(-fabs(x)), below = x < 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e); /* sigmoid(-x) */
    return w * ((1.0 - t) - (1.0 + (pos - 1.0) * t) * below);
}

static lc_status bce_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_bce_attr *a = attr;
    return infer("binary_cross_entropy_with_logits", a->reduction, bce_inputs(a), n_in, in, n_out,
                 out);
}

static lc_status bce_prepare(lc_step *step)
{
    const lc_bce_attr *a = step->attr;
    return prepare_parts(step, &step->in[0], a->reduction != LC_LOSS_NONE, 32);
}

static lc_status bce_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end)
{
    return run_parts(step, bind, phase, begin, end, ((const lc_bce_attr *)step->attr)->reduction,
                     bce);
}

static lc_status bce_backward(const lc_backward *g)
{
    lc_bce_grad_attr attr = {.loss = *(const lc_bce_attr *)g->attr};
    lc_value in[5] = {g->dy[0]};
    for (int k = 2; k < g->n_in; k++)
        if (g->needs[k])
            return lc_fail(LC_ERR_RUNTIME, "weights have no gradient; detach them");
    memcpy(in + 1, g->in, (size_t)g->n_in * sizeof *in);
    for (attr.to_target = 0; attr.to_target < 2; attr.to_target++)
        if (g->needs[attr.to_target])
            LC_TRY(lc_grad_node(g->b, &lc_op_bce_with_logits_grad, &attr, g->n_in + 1, in,
                                &g->dx[attr.to_target]));
    return LC_OK;
}

const lc_op lc_op_bce_with_logits = {
    .name = "bce_with_logits",
    .attr_size = sizeof(lc_bce_attr),
    .infer = bce_infer,
    .prepare = bce_prepare,
    .run = bce_run,
    .backward = bce_backward,
};

static lc_status bce_grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                                lc_desc *out)
{
    const lc_bce_grad_attr *a = attr;
    lc_desc y;
    LC_TRY(lc_check_inputs("bce_with_logits_grad", n_in, bce_inputs(&a->loss) + 1));
    LC_TRY(bce_infer(&a->loss, n_in - 1, in + 1, n_out, &y));
    LC_TRY(check_dy("bce_with_logits_grad", &y, &in[0]));
    return lc_desc_init(&out[0], LC_F32, in[1].rank, in[1].dim);
}

static lc_status grad_prepare(lc_step *step)
{
    return prepare_parts(step, &step->out[0], false, 32);
}

static lc_status bce_grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                              int64_t end)
{
    (void)phase;
    return run_grad(step, bind, begin, end, ((const lc_bce_grad_attr *)step->attr)->loss.reduction,
                    bce_dx);
}

const lc_op lc_op_bce_with_logits_grad = {
    .name = "bce_with_logits_grad",
    .attr_size = sizeof(lc_bce_grad_attr),
    .infer = bce_grad_infer,
    .prepare = grad_prepare,
    .run = bce_grad_run,
};

/* ---- mse: (x - t)^2 ---- */

static double mse(const void *attr, const void *const *in, int64_t i)
{
    (void)attr;
    double d = (double)((const float *)in[0])[i] - (double)((const float *)in[1])[i];
    return d * d;
}

static double mse_dx(const void *attr, const void *const *in, int64_t i)
{
    (void)attr;
    return 2.0 * ((double)((const float *)in[0])[i] - (double)((const float *)in[1])[i]);
}

static lc_status mse_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    return infer("mse_loss", ((const lc_mse_attr *)attr)->reduction, 2, n_in, in, n_out, out);
}

static lc_status mse_prepare(lc_step *step)
{
    const lc_mse_attr *a = step->attr;
    return prepare_parts(step, &step->in[0], a->reduction != LC_LOSS_NONE, 4);
}

static lc_status mse_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end)
{
    return run_parts(step, bind, phase, begin, end, ((const lc_mse_attr *)step->attr)->reduction,
                     mse);
}

static lc_status mse_backward(const lc_backward *g)
{
    lc_value dx;
    LC_TRY(lc_grad_node(g->b, &lc_op_mse_grad, g->attr, 3,
                        (lc_value[]){g->dy[0], g->in[0], g->in[1]}, &dx));
    if (g->needs[0])
        g->dx[0] = dx;
    return g->needs[1] ? lc_grad_unary(g->b, LC_UNARY_NEG, 0.0f, 0.0f, dx, &g->dx[1]) : LC_OK;
}

const lc_op lc_op_mse = {
    .name = "mse",
    .attr_size = sizeof(lc_mse_attr),
    .infer = mse_infer,
    .prepare = mse_prepare,
    .run = mse_run,
    .backward = mse_backward,
};

static lc_status mse_grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                                lc_desc *out)
{
    lc_desc y;
    LC_TRY(lc_check_inputs("mse_grad", n_in, 3));
    LC_TRY(mse_infer(attr, 2, in + 1, n_out, &y));
    LC_TRY(check_dy("mse_grad", &y, &in[0]));
    return lc_desc_init(&out[0], LC_F32, in[1].rank, in[1].dim);
}

static lc_status mse_grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                              int64_t end)
{
    (void)phase;
    return run_grad(step, bind, begin, end, ((const lc_mse_attr *)step->attr)->reduction, mse_dx);
}

const lc_op lc_op_mse_grad = {
    .name = "mse_grad",
    .attr_size = sizeof(lc_mse_attr),
    .infer = mse_grad_infer,
    .prepare = grad_prepare,
    .run = mse_grad_run,
};
