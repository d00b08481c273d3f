/* cross_entropy and nll_loss: x (N, C, ...), seen as (outer, classes, inner), and its gradient.
 *
 * The loss of a place is the sum over classes of -q[c] * log p[c]. q comes from class numbers or
 * from shares, label smoothing and weights (PyTorch's definitions): with class number t
 *     q[c] = (1 - s) * w[t] * (c == t) + s / C * w[c],
 * with shares q[c] = ((1 - s) * share[c] + s / C) * w[c]. A unit is one place. Sums are in double;
 * the total is taken over the places in order. */
#include <math.h>
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define CHUNK 256 /* classes at a time */

typedef struct prep {
    lc_units units;
    int64_t outer, classes, inner, places;
    bool shares; /* float targets */
} prep;

/* Inputs; the gradient has dy before them. */
enum { X, TARGET, WEIGHT };

static lc_status check(const lc_cross_entropy_attr *a, int n_in, const lc_desc *in)
{
    const char *op = a->log_probs ? "nll_loss" : "cross_entropy";
    char xt[LC_SHAPE_TEXT], tt[LC_SHAPE_TEXT];
    const lc_desc *x = &in[X], *t = &in[TARGET];
    LC_TRY(lc_check_inputs(op, n_in, a->weighted ? 3 : 2));
    LC_TRY(lc_check_f32(op, "input", x));
    LC_TRY(lc_check_rank(op, "input", x, 1, LC_MAX_RANK));
    if (a->reduction > LC_LOSS_SUM)
        return lc_fail(LC_ERR_VALUE, "%s: no reduction has number %u", op, a->reduction);
    if (!(a->label_smoothing >= 0.0 && a->label_smoothing <= 1.0))
        return lc_fail(LC_ERR_VALUE, "%s: label_smoothing must be between 0 and 1, not %g", op,
                       a->label_smoothing);
    const int axis = x->rank > 1;
    const int64_t classes = x->dim[axis];
    lc_shape_text(x, xt);
    lc_shape_text(t, tt);
    if (classes == 0)
        return lc_fail(LC_ERR_VALUE, "%s: the input of shape %s has no classes", op, xt);
    bool fits = t->dtype == LC_F32 ? lc_desc_same_shape(x, t) : t->rank == x->rank - 1;
    for (int i = 0; t->dtype != LC_F32 && fits && i < t->rank; i++)
        fits = t->dim[i] == x->dim[i < axis ? i : i + 1];
    if (t->dtype == LC_F32 && a->log_probs)
        return lc_fail(LC_ERR_TYPE, "nll_loss: target must be int64, not float32");
    if (!fits)
        return lc_fail(LC_ERR_VALUE,
                       "%s: target of shape %s (%s) does not fit the input of shape %s: class "
                       "numbers are integers and have that shape without its axis %d%s",
                       op, tt, lc_dtype_name(t->dtype), xt, axis,
                       a->log_probs ? "" : ", shares are floats and have the whole shape");
    if (a->weighted) {
        LC_TRY(lc_check_f32(op, "weight", &in[WEIGHT]));
        if (in[WEIGHT].rank != 1 || in[WEIGHT].dim[0] != classes)
            return lc_fail(LC_ERR_VALUE,
                           "%s: weight must have shape (%lld,), one value per class, not %s", op,
                           (long long)classes, lc_shape_text(&in[WEIGHT], tt));
    }
    return LC_OK;
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_cross_entropy_attr *a = attr;
    LC_TRY(check(a, n_in, in));
    int64_t dim[LC_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < in[X].rank && a->reduction == LC_LOSS_NONE; i++)
        if (i != (in[X].rank > 1))
            dim[rank++] = in[X].dim[i];
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, rank, dim);
}

static void find_sizes(prep *p, const lc_desc *x, const lc_desc *target)
{
    const int axis = x->rank > 1;
    p->outer = axis ? x->dim[0] : 1;
    p->classes = x->dim[axis];
    p->inner = 1;
    for (int i = 2; i < x->rank; i++)
        p->inner *= x->dim[i];
    p->places = p->outer * p->inner;
    p->shares = target->dtype == LC_F32;
}

/* What one place has: pointers to its first class, and its q. */
typedef struct place {
    const float *x, *share;
    int64_t at, target; /* at: offset of the first class; target: class number, -1: ignored */
} place;

/* Finds place i; LC_ERR_VALUE if its class number is none. */
static lc_status find_place(const prep *p, const lc_cross_entropy_attr *a, const void *const *in,
                            const lc_desc *target, int64_t i, place *out)
{
    out->at = i / p->inner * p->classes * p->inner + i % p->inner;
    out->x = (const float *)in[X] + out->at;
    out->share = p->shares ? (const float *)in[TARGET] + out->at : NULL;
    out->target = 0;
    if (p->shares)
        return LC_OK;
    memcpy(&out->target, (const char *)in[TARGET] + 8 * i, 8); /* aligned to 4 bytes at least */
    if (out->target == a->ignore_index) {
        out->target = -1;
        return LC_OK;
    }
    if (out->target >= 0 && out->target < p->classes)
        return LC_OK;
    char text[LC_SHAPE_TEXT];
    lc_desc position = {.rank = target->rank};
    for (int k = target->rank - 1; k >= 0; k--) {
        position.dim[k] = i % target->dim[k];
        i /= target->dim[k];
    }
    return lc_fail(LC_ERR_VALUE,
                   "%s: target %lld at position %s is out of range: classes are 0 to %lld",
                   a->log_probs ? "nll_loss" : "cross_entropy", (long long)out->target,
                   lc_shape_text(&position, text), (long long)(p->classes - 1));
}

/* q of class c. */
static inline double q_of(const prep *p, const lc_cross_entropy_attr *a, const float *weight,
                          const place *at, int64_t c)
{
    double w = weight ? (double)weight[c] : 1.0, s = a->label_smoothing;
    double q = s / (double)p->classes;
    if (at->share)
        q += (1.0 - s) * (double)at->share[c * p->inner];
    else if (c == at->target)
        q += 1.0 - s;
    return q * w;
}

/* log p of a class is (x - most) - log_sum: in this form, since most may be huge. */
typedef struct scale {
    double most, log_sum;
} scale;

static scale scale_of(const lc_vec_kernels *v, const float *x, int64_t n, int64_t step)
{
    float part[CHUNK];
    float most = x[0];
    double sum = 0.0;
    for (int64_t c = 1; c < n; c++)
        most = x[c * step] > most || x[c * step] != x[c * step] ? x[c * step] : most;
    if (isinf(most) && most < 0.0f)
        return (scale){NAN, NAN}; /* nothing is possible: NaN, as in PyTorch */
    for (int64_t from = 0; from < n; from += CHUNK) {
        int64_t m = n - from < CHUNK ? n - from : CHUNK;
        for (int64_t c = 0; c < m; c++)
            part[c] = x[(from + c) * step] - most;
        v->exp(part, part, m, 0.0f, 0.0f);
        v->sum(&sum, part, m, 1);
    }
    return (scale){(double)most, log(sum)};
}

static double loss_of(const prep *p, const lc_cross_entropy_attr *a, const lc_vec_kernels *v,
                      const float *weight, const place *at)
{
    if (at->target < 0)
        return 0.0;
    scale s = {0.0, 0.0};
    double loss = 0.0;
    if (!a->log_probs)
        s = scale_of(v, at->x, p->classes, p->inner);
    if (!at->share && a->label_smoothing == 0.0) {
        double w = weight ? (double)weight[at->target] : 1.0;
        return w * (s.log_sum - ((double)at->x[at->target * p->inner] - s.most));
    }
    for (int64_t c = 0; c < p->classes; c++)
        loss += q_of(p, a, weight, at, c) * (s.log_sum - ((double)at->x[c * p->inner] - s.most));
    return loss;
}

/* What a mean divides by: class numbers: the weights of those that are not ignored; shares: places. */
static double share_of_mean(const prep *p, const float *weight, const place *at)
{
    if (p->shares)
        return 1.0;
    return at->target < 0 ? 0.0 : weight ? (double)weight[at->target] : 1.0;
}

static lc_status prepare(lc_step *step)
{
    const lc_cross_entropy_attr *a = step->attr;
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    find_sizes(p, &step->in[X], &step->in[TARGET]);
    step->items[0] = lc_units_set(&p->units, p->places, 16 * p->classes);
    if (a->reduction != LC_LOSS_NONE) {
        step->phases = 2;
        step->shared_bytes = 2 * (size_t)p->places * sizeof(double);
    }
    step->algorithm = a->log_probs ? "nll_loss" : "cross_entropy";
    return LC_OK;
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    const lc_cross_entropy_attr *a = step->attr;
    const prep *p = step->prep;
    const float *weight = a->weighted ? bind->in[WEIGHT] : NULL;
    double *each = bind->shared;
    float *y = bind->out[0];
    int64_t first, last;
    if (phase == 1) {
        double loss = 0.0, count = 0.0;
        for (int64_t i = 0; i < p->places && begin < end; i++) {
            loss += each[2 * i];
            count += each[2 * i + 1];
        }
        if (begin < end)
            y[0] = (float)(a->reduction == LC_LOSS_MEAN ? loss / count : loss);
        return LC_OK;
    }
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t i = first; i < last; i++) {
        place at;
        LC_TRY(find_place(p, a, bind->in, &step->in[TARGET], i, &at));
        double loss = loss_of(p, a, &step->kernels->vec, weight, &at);
        if (a->reduction == LC_LOSS_NONE) {
            y[i] = (float)loss;
        } else {
            each[2 * i] = loss;
            each[2 * i + 1] = share_of_mean(p, weight, &at);
        }
    }
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    lc_value in[4] = {g->dy[0]};
    for (int k = 1; k < g->n_in; k++)
        if (g->needs[k])
            return lc_fail(LC_ERR_RUNTIME,
                           "only the input has a gradient; detach the target and the weight");
    memcpy(in + 1, g->in, (size_t)g->n_in * sizeof *in);
    return lc_grad_node(g->b, &lc_op_cross_entropy_grad, g->attr, g->n_in + 1, in, g->dx);
}

const lc_op lc_op_cross_entropy = {
    .name = "cross_entropy",
    .attr_size = sizeof(lc_cross_entropy_attr),
    .infer = infer,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};

/* ---- the gradient: dy, x, target, [weight] -> dx[c] = dy * (p[c] * sum of q - q[c]) ---- */

static lc_status grad_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    lc_desc y;
    if (n_in < 1)
        return lc_check_inputs("cross_entropy_grad", n_in, 3);
    LC_TRY(infer(attr, n_in - 1, in + 1, n_out, &y));
    if (in[0].dtype != LC_F32 || !lc_desc_same_shape(&y, &in[0]))
        return lc_fail(LC_ERR_VALUE, "cross_entropy_grad: dy has a wrong shape");
    return lc_desc_init(&out[0], LC_F32, in[1].rank, in[1].dim);
}

static lc_status grad_prepare(lc_step *step)
{
    const lc_cross_entropy_attr *a = step->attr;
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    find_sizes(p, &step->in[1 + X], &step->in[1 + TARGET]);
    step->phases = 2;
    step->shared_bytes = sizeof(double);
    step->items[0] = a->reduction == LC_LOSS_MEAN;
    step->items[1] = lc_units_set(&p->units, p->places, 16 * p->classes);
    return LC_OK;
}

static void grad_place(const lc_step *step, const float *weight, const place *at, double dy,
                       float *dx)
{
    const lc_cross_entropy_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_vec_kernels *v = &step->kernels->vec;
    if (at->target < 0) {
        for (int64_t c = 0; c < p->classes; c++)
            dx[c * p->inner] = 0.0f;
        return;
    }
    scale s = {0.0, 0.0};
    double total = 0.0;
    if (!a->log_probs) {
        s = scale_of(v, at->x, p->classes, p->inner);
        for (int64_t c = 0; c < p->classes; c++)
            total += q_of(p, a, weight, at, c);
    }
    float part[CHUNK];
    for (int64_t from = 0; from < p->classes; from += CHUNK) {
        int64_t m = p->classes - from < CHUNK ? p->classes - from : CHUNK;
        for (int64_t c = 0; c < m && !a->log_probs; c++)
            part[c] = (float)((double)at->x[(from + c) * p->inner] - s.most - s.log_sum);
        if (a->log_probs)
            memset(part, 0, sizeof part);
        else
            v->exp(part, part, m, 0.0f, 0.0f);
        for (int64_t c = 0; c < m; c++)
            dx[(from + c) * p->inner] =
                (float)(dy * ((double)part[c] * total - q_of(p, a, weight, at, from + c)));
    }
}

static lc_status grad_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    const lc_cross_entropy_attr *a = step->attr;
    const prep *p = step->prep;
    const void *const *in = bind->in + 1;
    const float *weight = a->weighted ? in[WEIGHT] : NULL, *dy = bind->in[0];
    double *count = bind->shared;
    int64_t first, last;
    place at;
    if (phase == 0) {
        double sum = 0.0;
        for (int64_t i = 0; i < p->places && begin < end; i++) {
            LC_TRY(find_place(p, a, in, &step->in[1 + TARGET], i, &at));
            sum += share_of_mean(p, weight, &at);
        }
        if (begin < end)
            *count = sum;
        return LC_OK;
    }
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t i = first; i < last; i++) {
        LC_TRY(find_place(p, a, in, &step->in[1 + TARGET], i, &at));
        double d = (double)dy[a->reduction == LC_LOSS_NONE ? i : 0];
        grad_place(step, weight, &at, a->reduction == LC_LOSS_MEAN ? d / *count : d,
                   (float *)bind->out[0] + at.at);
    }
    return LC_OK;
}

const lc_op lc_op_cross_entropy_grad = {
    .name = "cross_entropy_grad",
    .attr_size = sizeof(lc_cross_entropy_attr),
    .infer = grad_infer,
    .prepare = grad_prepare,
    .run = grad_run,
};
