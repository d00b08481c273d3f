/* add, sub, mul, ...: two inputs, element by element, with broadcasting.
 *
 * Three ways: the same memory layout for all three tensors; a blocked tensor with one number per
 * channel (or per image and channel: squeeze-and-excitation); plain memory with any
 * broadcasting, walked along the longest common runs. */
#include <string.h>

#include "ops/grad_util.h"
#include "ops/op_util.h"
#include "ops/ops.h"

#define UNIT 64 /* floats: a multiple of every block */

typedef enum way { SAME, CHANNELS, STRIDED } way;

typedef struct prep {
    way way;
    lc_vec_binary_fn *fn;
    lc_units units;
    bool clear_pads; /* f(0, 0) is not 0 */
    int full;        /* CHANNELS: the input with the output's shape */
    int64_t part, parts;
    int rank; /* STRIDED: dimensions that run together are one; strides in floats */
    int64_t dim[LC_MAX_RANK], stride[2][LC_MAX_RANK];
} prep;

static const struct {
    const char *name;
    int cost;
} kinds[LC_BINARY_COUNT] = {
    [LC_BINARY_ADD] = {"add", 1},         [LC_BINARY_SUB] = {"sub", 1},
    [LC_BINARY_MUL] = {"mul", 1},         [LC_BINARY_DIV] = {"div", 2},
    [LC_BINARY_MAXIMUM] = {"maximum", 1}, [LC_BINARY_MINIMUM] = {"minimum", 1},
    [LC_BINARY_POW] = {"pow", 32},        [LC_BINARY_MASK] = {"relu_grad", 1},
};

static lc_vec_binary_fn *pick(const lc_vec_kernels *v, const lc_binary_attr *a)
{
    lc_vec_binary_fn *const fns[LC_BINARY_COUNT] = {
        [LC_BINARY_ADD] = a->relu ? v->add_relu : v->add,
        [LC_BINARY_SUB] = v->sub,
        [LC_BINARY_MUL] = v->mul,
        [LC_BINARY_DIV] = v->div,
        [LC_BINARY_MAXIMUM] = v->max,
        [LC_BINARY_MINIMUM] = v->min,
        [LC_BINARY_POW] = v->pow,
        [LC_BINARY_MASK] = v->mask,
    };
    return fns[a->kind];
}

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_binary_attr *a = attr;
    if (a->kind >= LC_BINARY_COUNT)
        return lc_fail(LC_ERR_VALUE, "binary: no function has number %u", a->kind);
    const char *name = kinds[a->kind].name;
    LC_TRY(lc_check_inputs(name, n_in, 2));
    LC_TRY(lc_check_f32(name, "the first operand", &in[0]));
    LC_TRY(lc_check_f32(name, "the second operand", &in[1]));
    if (a->relu && a->kind != LC_BINARY_ADD)
        return lc_fail(LC_ERR_VALUE, "%s: only add can be followed by a ReLU", name);
    int rank = in[0].rank > in[1].rank ? in[0].rank : in[1].rank;
    int64_t dim[LC_MAX_RANK];
    for (int i = 1; i <= rank; i++) { /* from the last dimension */
        int64_t d[2];
        for (int k = 0; k < 2; k++)
            d[k] = i <= in[k].rank ? in[k].dim[in[k].rank - i] : 1;
        if (d[0] != d[1] && d[0] != 1 && d[1] != 1) {
            char left[LC_SHAPE_TEXT], right[LC_SHAPE_TEXT];
            return lc_fail(
                LC_ERR_VALUE,
                "%s: shapes %s and %s do not go together: %lld against %lld in dimension -%d", name,
                lc_shape_text(&in[0], left), lc_shape_text(&in[1], right), (long long)d[0],
                (long long)d[1], i);
        }
        dim[rank - i] = d[0] == 1 ? d[1] : d[0];
    }
    *n_out = 1;
    lc_status status = lc_desc_init(&out[0], LC_F32, rank, dim);
    return status == LC_OK ? LC_OK : lc_fail_in(status, "%s", name);
}

/* Does d give each channel of `full` (N, C, H, W) one number, for all images or for each? */
static bool per_channel(const lc_desc *d, const lc_desc *full)
{
    if (d->rank > 4)
        return false;
    for (int i = 1; i <= d->rank; i++) {
        int64_t size = d->dim[d->rank - i];
        if (size != 1 && (i <= 2 || size != full->dim[4 - i]))
            return false;
    }
    return true;
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = in[1] = out[0] = LC_PLAIN;
    if (q->out[0].rank != 4)
        return;
    const lc_desc *a = &q->in[0], *b = &q->in[1];
    if (lc_desc_same_shape(a, b)) {
        /* Where they differ: what the consumer would like if one has it, else the blocked one. */
        lc_layout common = a->layout.block > 1 ? a->layout : b->layout;
        if (b->layout.block > 1 && lc_layout_equal(b->layout, q->out[0].layout))
            common = b->layout;
        in[0] = in[1] = out[0] = common;
        return;
    }
    for (int full = 0; full < 2; full++) {
        const lc_desc *x = &q->in[full], *other = &q->in[1 - full];
        if (x->layout.block == 1 || !lc_desc_same_shape(x, &q->out[0]) || !per_channel(other, x))
            continue;
        in[full] = out[0] = x->layout;
        if (other->layout.block > 1 && other->dim[1] == x->dim[1])
            in[1 - full] = x->layout;
        return;
    }
}

/* Merges dimensions along which both inputs run on as one, so that inner loops are long. */
static void merge_dims(prep *p, const lc_step *step)
{
    const lc_desc *y = &step->out[0];
    p->rank = 0;
    int64_t run[2] = {1, 1};
    int64_t dim[LC_MAX_RANK], stride[2][LC_MAX_RANK];
    int n = 0; /* from the last dimension */
    for (int i = 1; i <= y->rank; i++) {
        int64_t size = y->dim[y->rank - i], s[2];
        for (int k = 0; k < 2; k++) {
            const lc_desc *x = &step->in[k];
            int64_t own = i <= x->rank ? x->dim[x->rank - i] : 1;
            s[k] = own == 1 ? 0 : run[k];
            run[k] *= own;
        }
        if (size == 1)
            continue;
        bool on = n > 0;
        for (int k = 0; k < 2 && on; k++)
            on = s[k] == stride[k][n - 1] * dim[n - 1];
        if (on) {
            dim[n - 1] *= size;
        } else {
            dim[n] = size;
            stride[0][n] = s[0];
            stride[1][n] = s[1];
            n++;
        }
    }
    if (n == 0) {
        dim[0] = 1;
        stride[0][0] = stride[1][0] = 1;
        n = 1;
    }
    p->rank = n;
    for (int i = 0; i < n; i++) {
        p->dim[i] = dim[n - 1 - i];
        for (int k = 0; k < 2; k++)
            p->stride[k][i] = stride[k][n - 1 - i];
    }
}

static lc_status prepare(lc_step *step)
{
    const lc_binary_attr *a = step->attr;
    const lc_desc *y = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->fn = pick(&step->kernels->vec, a);
    int cost = kinds[a->kind].cost;
    int64_t n = lc_memory_floats(y), count = (n + UNIT - 1) / UNIT;
    step->algorithm = kinds[a->kind].name;
    if (y->layout.block > 1) {
        float zero = 0.0f, at_zero;
        p->fn(&at_zero, &zero, &zero, 1, LC_SPAN_ALL, LC_SPAN_ALL, 1);
        p->clear_pads = lc_has_pads(y) && at_zero != 0.0f; /* NaN counts */
    }
    if (lc_desc_same_shape(&step->in[0], &step->in[1])) {
        p->way = SAME;
    } else if (y->layout.block > 1) {
        p->way = CHANNELS;
        p->full = lc_desc_same_shape(&step->in[0], y) && step->in[0].layout.block > 1 ? 0 : 1;
        p->part = lc_pixel_part(y->dim[2] * y->dim[3], y->layout.block * cost, &p->parts);
        step->items[0] = lc_units_set(&p->units, y->dim[0] * lc_block_count(y) * p->parts,
                                      p->part * y->layout.block * cost);
        return LC_OK;
    } else {
        p->way = STRIDED;
        merge_dims(p, step);
    }
    step->items[0] = lc_units_set(&p->units, count, UNIT * cost);
    return LC_OK;
}

/* The numbers of block b of image n, pads zero. */
static void load_lanes(float lanes[LC_MAX_BLOCK], const float *data, const lc_desc *d,
                       const lc_desc *full, int64_t n, int64_t b)
{
    int block = full->layout.block;
    bool images = d->rank == 4 && d->dim[0] > 1;
    if (d->layout.block > 1) {
        memcpy(lanes, data + ((images ? n * lc_block_count(full) : 0) + b) * block,
               (size_t)block * sizeof *lanes);
        return;
    }
    int64_t channels = d->rank >= 3 ? d->dim[d->rank - 3] : 1, first = 0;
    int valid = lc_block_channels(full, b, &first);
    const float *from = data + (images ? n * channels : 0);
    for (int l = 0; l < block; l++)
        lanes[l] = l >= valid ? 0.0f : from[channels > 1 ? first + l : 0];
}

static void run_channels(const lc_step *step, const lc_bind *bind, int64_t first, int64_t last)
{
    const prep *p = step->prep;
    const lc_desc *y = &step->out[0];
    int block = y->layout.block;
    int64_t pixels = y->dim[2] * y->dim[3], blocks = lc_block_count(y);
    float lanes[LC_MAX_BLOCK];
    for (int64_t u = first; u < last; u++) {
        int64_t plane = u / p->parts, from = u % p->parts * p->part;
        int64_t n = pixels - from < p->part ? pixels - from : p->part;
        int64_t at = (plane * pixels + from) * block;
        const float *x = (const float *)bind->in[p->full] + at;
        load_lanes(lanes, bind->in[1 - p->full], &step->in[1 - p->full], y, plane / blocks,
                   plane % blocks);
        if (p->full == 0)
            p->fn((float *)bind->out[0] + at, x, lanes, n * block, LC_SPAN_ALL, LC_SPAN_LANES,
                  block);
        else
            p->fn((float *)bind->out[0] + at, lanes, x, n * block, LC_SPAN_LANES, LC_SPAN_ALL,
                  block);
        if (p->clear_pads)
            lc_clear_pads(y, bind->out[0], at, at + n * block);
    }
}

static void run_strided(const lc_step *step, const lc_bind *bind, int64_t first, int64_t last)
{
    const prep *p = step->prep;
    const float *a = bind->in[0], *b = bind->in[1];
    float *y = bind->out[0];
    int inner = p->rank - 1;
    lc_span a_span = p->stride[0][inner] ? LC_SPAN_ALL : LC_SPAN_ONE;
    lc_span b_span = p->stride[1][inner] ? LC_SPAN_ALL : LC_SPAN_ONE;
    int64_t at[LC_MAX_RANK], rest = first, a_at = 0, b_at = 0;
    for (int i = inner; i >= 0; i--) {
        at[i] = rest % p->dim[i];
        rest /= p->dim[i];
        a_at += at[i] * p->stride[0][i];
        b_at += at[i] * p->stride[1][i];
    }
    while (first < last) {
        int64_t n =
            p->dim[inner] - at[inner] < last - first ? p->dim[inner] - at[inner] : last - first;
        p->fn(y + first, a + a_at, b + b_at, n, a_span, b_span, 1);
        first += n;
        at[inner] += n;
        a_at += n * p->stride[0][inner];
        b_at += n * p->stride[1][inner];
        for (int i = inner; i > 0 && at[i] == p->dim[i]; i--) { /* carry */
            at[i] = 0;
            at[i - 1]++;
            a_at += p->stride[0][i - 1] - p->dim[i] * p->stride[0][i];
            b_at += p->stride[1][i - 1] - p->dim[i] * p->stride[1][i];
        }
    }
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const prep *p = step->prep;
    int64_t first, last, n = lc_memory_floats(&step->out[0]);
    lc_units_range(&p->units, begin, end, &first, &last);
    if (p->way == CHANNELS) {
        run_channels(step, bind, first, last);
        return LC_OK;
    }
    first *= UNIT;
    last = last * UNIT < n ? last * UNIT : n;
    if (first >= last)
        return LC_OK;
    if (p->way == STRIDED) {
        run_strided(step, bind, first, last);
        return LC_OK;
    }
    const float *a = bind->in[0], *b = bind->in[1];
    float *y = bind->out[0];
    p->fn(y + first, a + first, b + first, last - first, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    if (p->clear_pads)
        lc_clear_pads(&step->out[0], y, first, last);
    return LC_OK;
}

/* The share of each input before broadcasting is undone. `i`: 0 or 1. */
static lc_status share(const lc_backward *g, int i, lc_value *out)
{
    const lc_binary_attr *attr = g->attr;
    const lc_builder *b = g->b;
    lc_value own = g->in[i], other = g->in[1 - i], dy = g->dy[0], t;
    switch (attr->kind) {
    case LC_BINARY_SUB:
        *out = dy;
        return i ? lc_grad_unary(b, LC_UNARY_NEG, 0.0f, 0.0f, dy, out) : LC_OK;
    case LC_BINARY_MUL:
        return lc_grad_binary(b, LC_BINARY_MUL, dy, other, out);
    case LC_BINARY_DIV:
        if (i == 0)
            return lc_grad_binary(b, LC_BINARY_DIV, dy, other, out);
        LC_TRY(lc_grad_binary(b, LC_BINARY_DIV, g->out[0], own, &t)); /* dy * -(y / b) */
        LC_TRY(lc_grad_unary(b, LC_UNARY_NEG, 0.0f, 0.0f, t, &t));
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, out);
    case LC_BINARY_MAXIMUM:
    case LC_BINARY_MINIMUM: { /* half where they are equal: (sign + 1) / 2 */
        bool first = attr->kind == LC_BINARY_MAXIMUM;
        LC_TRY(lc_grad_binary(b, LC_BINARY_SUB, first ? own : other, first ? other : own, &t));
        LC_TRY(lc_grad_unary(b, LC_UNARY_SIGN, 0.0f, 0.0f, t, &t));
        LC_TRY(lc_grad_unary(b, LC_UNARY_SCALE_SHIFT, 0.5f, 0.5f, t, &t));
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, out);
    }
    case LC_BINARY_POW:
        if (i == 0) { /* dy * b * a^(b - 1); 0 where b is 0, whatever a is */
            lc_value sign;
            LC_TRY(lc_grad_unary(b, LC_UNARY_SCALE_SHIFT, 1.0f, -1.0f, other, &t));
            LC_TRY(lc_grad_binary(b, LC_BINARY_POW, own, t, &t));
            LC_TRY(lc_grad_binary(b, LC_BINARY_MUL, t, other, &t));
            LC_TRY(lc_grad_unary(b, LC_UNARY_ABS, 0.0f, 0.0f, other, &sign));
            LC_TRY(lc_grad_binary(b, LC_BINARY_MASK, t, sign, &t));
        } else { /* dy * y * log(a); 0 where a is 0 */
            lc_value size;
            LC_TRY(lc_grad_unary(b, LC_UNARY_LOG, 0.0f, 0.0f, other, &t));
            LC_TRY(lc_grad_binary(b, LC_BINARY_MUL, t, g->out[0], &t));
            LC_TRY(lc_grad_unary(b, LC_UNARY_ABS, 0.0f, 0.0f, other, &size));
            LC_TRY(lc_grad_binary(b, LC_BINARY_MASK, t, size, &t));
        }
        return lc_grad_binary(b, LC_BINARY_MUL, dy, t, out);
    case LC_BINARY_MASK:
        *out = LC_NONE;
        return i == 0 ? lc_grad_binary(b, LC_BINARY_MASK, dy, other, out) : LC_OK;
    default:
        *out = dy;
        return LC_OK;
    }
}

static lc_status backward(const lc_backward *g)
{
    for (int i = 0; i < 2; i++) {
        if (!g->needs[i])
            continue;
        const lc_desc like = *g->b->desc(g->b->ctx, g->in[i]);
        lc_value full;
        LC_TRY(share(g, i, &full));
        if (full != LC_NONE)
            LC_TRY(lc_grad_sum_to(g->b, full, &like, &g->dx[i]));
    }
    return LC_OK;
}

const lc_op lc_op_binary = {
    .name = "binary",
    .attr_size = sizeof(lc_binary_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
