/* relu, sigmoid, exp, ...: one input, element by element, in any layout. */
#include <math.h>

#include "ops/grad_util.h"
#include "ops/op_util.h"
#include "ops/ops.h"

#define UNIT 64 /* floats: a multiple of every block */

typedef struct prep {
    lc_vec_map_fn *fn;
    lc_units units;
    bool clear_pads; /* f(0) is not 0 */
} prep;

static const struct {
    const char *name;
    int cost; /* against relu */
} kinds[LC_UNARY_COUNT] = {
    [LC_UNARY_RELU] = {"relu", 1},  [LC_UNARY_SIGMOID] = {"sigmoid", 6},
    [LC_UNARY_EXP] = {"exp", 4},    [LC_UNARY_LOG] = {"log", 16},
    [LC_UNARY_SQRT] = {"sqrt", 2},  [LC_UNARY_CLAMP] = {"clamp", 1},
    [LC_UNARY_NEG] = {"neg", 1},    [LC_UNARY_ABS] = {"abs", 1},
    [LC_UNARY_TANH] = {"tanh", 32}, [LC_UNARY_SCALE_SHIFT] = {"scale_shift", 1},
    [LC_UNARY_SIGN] = {"sign", 1},  [LC_UNARY_INSIDE] = {"inside", 1},
};

static lc_vec_map_fn *pick(const lc_vec_kernels *v, uint32_t kind)
{
    lc_vec_map_fn *const fns[LC_UNARY_COUNT] = {
        [LC_UNARY_RELU] = v->relu, [LC_UNARY_SIGMOID] = v->sigmoid,
        [LC_UNARY_EXP] = v->exp,   [LC_UNARY_LOG] = v->log,
        [LC_UNARY_SQRT] = v->sqrt, [LC_UNARY_CLAMP] = v->clamp,
        [LC_UNARY_NEG] = v->neg,   [LC_UNARY_ABS] = v->abs,
        [LC_UNARY_TANH] = v->tanh, [LC_UNARY_SCALE_SHIFT] = v->scale_shift,
        [LC_UNARY_SIGN] = v->sign, [LC_UNARY_INSIDE] = v->inside,
    };
    return fns[kind];
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_unary_attr *a = attr;
    if (a->kind >= LC_UNARY_COUNT)
        return lc_fail(LC_ERR_VALUE, "unary: no function has number %u", a->kind);
    LC_TRY(lc_check_inputs(kinds[a->kind].name, n_in, 1));
    LC_TRY(lc_check_f32(kinds[a->kind].name, "x", &in[0]));
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = out[0] = q->in[0].layout;
}

static lc_status prepare(lc_step *step)
{
    const lc_unary_attr *a = step->attr;
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->fn = pick(&step->kernels->vec, a->kind);
    int64_t n = lc_memory_floats(&step->out[0]);
    step->items[0] = lc_units_set(&p->units, (n + UNIT - 1) / UNIT, UNIT * kinds[a->kind].cost);
    float zero = 0.0f, at_zero;
    p->fn(&at_zero, &zero, 1, a->lo, a->hi);
    p->clear_pads = lc_has_pads(&step->out[0]) && at_zero != 0.0f; /* NaN counts */
    step->algorithm = kinds[a->kind].name;
    return LC_OK;
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const lc_unary_attr *a = step->attr;
    const prep *p = step->prep;
    int64_t first, last, n = lc_memory_floats(&step->out[0]);
    lc_units_range(&p->units, begin, end, &first, &last);
    first *= UNIT;
    last = last * UNIT < n ? last * UNIT : n;
    if (first >= last)
        return LC_OK;
    const float *x = bind->in[0];
    float *y = bind->out[0];
    if (a->kind == LC_UNARY_CLAMP && (isnan(a->lo) || isnan(a->hi))) /* as PyTorch */
        for (int64_t i = first; i < last; i++)
            y[i] = NAN;
    else
        p->fn(y + first, x + first, last - first, a->lo, a->hi);
    if (p->clear_pads)
        lc_clear_pads(&step->out[0], y, first, last);
    return LC_OK;
}

static lc_status backward(const lc_backward *g)
{
    const lc_unary_attr *a = g->attr;
    const lc_builder *b = g->b;
    lc_value x = g->in[0], y = g->out[0], dy = g->dy[0], t;
    switch (a->kind) {
    case LC_UNARY_RELU:
        return lc_grad_binary(b, LC_BINARY_MASK, dy, y, g->dx);
    case LC_UNARY_SIGMOID: /* dy * y * (1 - y) */
        LC_TRY(lc_grad_unary(b, LC_UNARY_SCALE_SHIFT, -1.0f, 1.0f, y, &t));
        LC_TRY(lc_grad_binary(b, LC_BINARY_MUL, t, y, &t));
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, g->dx);
    case LC_UNARY_TANH: /* dy * (1 - y * y) */
        LC_TRY(lc_grad_binary(b, LC_BINARY_MUL, y, y, &t));
        LC_TRY(lc_grad_unary(b, LC_UNARY_SCALE_SHIFT, -1.0f, 1.0f, t, &t));
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, g->dx);
    case LC_UNARY_EXP:
        return lc_grad_binary(b, LC_BINARY_MUL, dy, y, g->dx);
    case LC_UNARY_LOG:
        return lc_grad_binary(b, LC_BINARY_DIV, dy, x, g->dx);
    case LC_UNARY_SQRT: /* dy / (2 * y) */
        LC_TRY(lc_grad_scale(b, 2.0f, y, &t));
        return lc_grad_binary(b, LC_BINARY_DIV, dy, t, g->dx);
    case LC_UNARY_CLAMP:
        LC_TRY(lc_grad_unary(b, LC_UNARY_INSIDE, a->lo, a->hi, x, &t));
        return lc_grad_binary(b, LC_BINARY_MASK, dy, t, g->dx);
    case LC_UNARY_NEG:
        return lc_grad_unary(b, LC_UNARY_NEG, 0.0f, 0.0f, dy, g->dx);
    case LC_UNARY_ABS:
        LC_TRY(lc_grad_unary(b, LC_UNARY_SIGN, 0.0f, 0.0f, x, &t));
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, g->dx);
    case LC_UNARY_SCALE_SHIFT:
        return lc_grad_scale(b, a->lo, dy, g->dx);
    default: /* sign, inside: steps */
        return LC_OK;
    }
}

const lc_op lc_op_unary = {
    .name = "unary",
    .attr_size = sizeof(lc_unary_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
