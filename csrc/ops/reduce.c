/* sum, mean, max, min and argmax over any axes.
 *
 * x is seen as kept and reduced dimensions, neighbours of a kind merged and sizes of 1 dropped.
 * If the innermost one is reduced, outputs go one by one along contiguous runs; otherwise by
 * strips of up to STRIP neighbouring outputs, row by row. What an output reduces is cut into
 * parts of fixed length (a function of nothing else, so that bits do not depend on the
 * schedule); few outputs of many parts are done in two phases, parts first. */
#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"
#include "ops/ops.h"

#define STRIP 128
#define RUN_PART 32768 /* elements */
#define ROW_PART 512   /* rows of a strip */
#define MANY_UNITS 64  /* outputs or strips from which on threads share those rather than parts */

/* Positions 0, 1, ... of some of x's dimensions, last one fastest, and where they lie in memory. */
typedef struct walk {
    int rank;
    int64_t count, dim[LC_MAX_RANK], stride[LC_MAX_RANK];
} walk;

/* What is known of one output after some of its elements: their sum, or the best one and its
 * position. */
typedef struct partial {
    double value;
    int64_t index;
} partial;

typedef struct prep {
    lc_units units, combine;
    bool planes;         /* blocked x, means or sums over height and width */
    bool runs;           /* the innermost dimension is reduced */
    walk kept, reduced;  /* without the innermost dimension */
    int64_t inner;       /* size of the innermost dimension */
    int64_t total;       /* elements that an output reduces */
    int64_t part, parts; /* in elements (runs) or rows */
    int64_t strips;      /* per position of kept */
    int64_t outputs;
} prep;

static const char *const names[] = {[LC_REDUCE_SUM] = "sum",
                                    [LC_REDUCE_MEAN] = "mean",
                                    [LC_REDUCE_MAX] = "max",
                                    [LC_REDUCE_MIN] = "min",
                                    [LC_REDUCE_ARGMAX] = "argmax"};

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_reduce_attr *a = attr;
    if (a->kind > LC_REDUCE_ARGMAX)
        return lc_fail(LC_ERR_VALUE, "reduce: no function has number %u", a->kind);
    const char *op = names[a->kind];
    char text[LC_SHAPE_TEXT];
    LC_TRY(lc_check_inputs(op, n_in, 1));
    LC_TRY(lc_check_f32(op, "x", &in[0]));
    uint32_t all = (1u << in[0].rank) - 1u;
    if (a->axes & ~all)
        return lc_fail(LC_ERR_INDEX, "%s: an axis is out of range for x of shape %s", op,
                       lc_shape_text(&in[0], text));
    if (a->kind == LC_REDUCE_ARGMAX && a->axes != all &&
        (a->axes == 0 || (a->axes & (a->axes - 1u))))
        return lc_fail(LC_ERR_VALUE, "argmax: takes one axis of x, or all of them");
    int64_t dim[LC_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < in[0].rank; i++) {
        bool gone = a->axes >> i & 1u;
        if (gone && in[0].dim[i] == 0 && a->kind >= LC_REDUCE_MAX)
            return lc_fail(LC_ERR_VALUE, "%s: x of shape %s has no elements along axis %d", op,
                           lc_shape_text(&in[0], text), i);
        if (!gone || a->keepdim)
            dim[rank++] = gone ? 1 : in[0].dim[i];
    }
    *n_out = 1;
    return lc_desc_init(&out[0], a->kind == LC_REDUCE_ARGMAX ? LC_I64 : LC_F32, rank, dim);
}

static bool over_planes(const lc_reduce_attr *a, const lc_desc *x)
{
    return x->rank == 4 && a->axes == 0xcu &&
           (a->kind == LC_REDUCE_SUM || a->kind == LC_REDUCE_MEAN);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    const lc_reduce_attr *a = q->attr;
    bool blocked = over_planes(a, &q->in[0]) && q->in[0].layout.block > 1;
    in[0] = blocked ? q->in[0].layout : LC_PLAIN;
    out[0] = blocked && a->keepdim ? in[0] : LC_PLAIN;
}

static void walk_add(walk *w, int64_t size, int64_t stride)
{
    w->dim[w->rank] = size;
    w->stride[w->rank++] = stride;
    w->count *= size;
}

static int64_t walk_at(const walk *w, int64_t i)
{
    if (w->rank == 1)
        return i * w->stride[0];
    int64_t at = 0;
    for (int k = w->rank - 1; k >= 0; k--) {
        at += i % w->dim[k] * w->stride[k];
        i /= w->dim[k];
    }
    return at;
}

/* Merged dimensions from the first: size and whether it is reduced. Returns how many. */
static int merge(const lc_reduce_attr *a, const lc_desc *x, int64_t size[LC_MAX_RANK],
                 bool gone[LC_MAX_RANK])
{
    int n = 0;
    for (int i = 0; i < x->rank; i++) {
        bool g = a->axes >> i & 1u;
        if (x->dim[i] == 1)
            continue;
        if (n > 0 && gone[n - 1] == g) {
            size[n - 1] *= x->dim[i];
        } else {
            size[n] = x->dim[i];
            gone[n++] = g;
        }
    }
    return n;
}

static lc_status prepare_planes(lc_step *step)
{
    const lc_desc *x = &step->in[0];
    prep *p = step->prep;
    p->planes = true;
    p->total = x->dim[2] * x->dim[3];
    step->items[0] =
        lc_units_set(&p->units, x->dim[0] * lc_block_count(x), p->total * x->layout.block);
    return LC_OK;
}

static lc_status prepare(lc_step *step)
{
    const lc_reduce_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    step->algorithm = names[a->kind];
    if (x->layout.block > 1)
        return prepare_planes(step);

    int64_t size[LC_MAX_RANK], stride[LC_MAX_RANK + 1];
    bool gone[LC_MAX_RANK];
    int n = merge(a, x, size, gone);
    stride[n] = 1;
    for (int i = n - 1; i >= 0; i--)
        stride[i] = stride[i + 1] * size[i]; /* of dimension i - 1 */
    p->runs = n > 0 && gone[n - 1];
    p->inner = n > 0 ? size[n - 1] : 1;
    p->kept.count = p->reduced.count = 1;
    for (int i = 0; i < n - 1; i++)
        walk_add(gone[i] ? &p->reduced : &p->kept, size[i], stride[i + 1]);
    p->total = p->reduced.count * (p->runs ? p->inner : 1);
    p->part = p->runs ? RUN_PART : ROW_PART;
    p->parts = (p->total + p->part - 1) / p->part;
    p->strips = p->runs ? 1 : (p->inner + STRIP - 1) / STRIP;
    p->outputs = p->kept.count * (p->runs ? 1 : p->inner);

    int64_t units = p->kept.count * p->strips, width = p->runs            ? 1
                                                       : p->inner < STRIP ? p->inner
                                                                          : STRIP;
    int64_t in_part = p->total < p->part ? p->total : p->part;
    if (p->parts > 1 && units < MANY_UNITS) {
        step->phases = 2;
        step->shared_bytes = (size_t)(p->outputs * p->parts) * sizeof(partial);
        step->items[0] = lc_units_set(&p->units, units * p->parts, 2 * in_part * width);
        step->items[1] = lc_units_set(&p->combine, p->outputs, 4 * p->parts);
    } else {
        step->items[0] = lc_units_set(&p->units, units, 2 * p->total * width);
    }
    return LC_OK;
}

/* Does v come before the best so far? NaN beats all, of equals the first stays. */
static inline bool better(bool is_min, double v, double best)
{
    return (is_min ? v < best : v > best) || (v != v && best == best);
}

static inline void join(uint32_t kind, partial *into, const partial *p, bool first)
{
    if (kind == LC_REDUCE_SUM || kind == LC_REDUCE_MEAN)
        into->value = first ? p->value : into->value + p->value;
    else if (first || better(kind == LC_REDUCE_MIN, p->value, into->value))
        *into = *p;
}

/* The largest or smallest of n > 0 contiguous elements; NaN if any is. */
static float best_of_run(lc_vec_binary_fn *pick, const float *x, int64_t n)
{
    enum { LANES = 64 };
    float lane[LANES];
    int64_t i = n < LANES ? n : LANES, lanes = i;
    memcpy(lane, x, (size_t)i * sizeof *x);
    for (; i < n; i += LANES)
        pick(lane, lane, x + i, n - i < LANES ? n - i : LANES, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    for (; lanes > 1; lanes -= lanes / 2)
        pick(lane, lane, lane + (lanes - lanes / 2), lanes / 2, LC_SPAN_ALL, LC_SPAN_ALL, 1);
    return lane[0];
}

/* n > 0 contiguous elements, the first at position `index` of what is reduced. */
static void scan_run(const lc_step *step, partial *p, const float *x, int64_t n, int64_t index,
                     bool first)
{
    const lc_reduce_attr *a = step->attr;
    if (a->kind == LC_REDUCE_SUM || a->kind == LC_REDUCE_MEAN) {
        step->kernels->vec.sum(&p->value, x, n, 1);
        return;
    }
    bool is_min = a->kind == LC_REDUCE_MIN;
    const lc_vec_kernels *v = &step->kernels->vec;
    float best = best_of_run(is_min ? v->min : v->max, x, n);
    if (!first && !better(is_min, (double)best, p->value))
        return;
    *p = (partial){(double)best, index};
    if (a->kind == LC_REDUCE_ARGMAX) /* the first of equals, or the first NaN */
        for (int64_t i = 0; !(x[i] == best || x[i] != x[i]); i++)
            p->index = index + i + 1;
}

/* Elements [from, to) of the output whose elements begin at x. */
static partial reduce_runs(const lc_step *step, const float *x, int64_t from, int64_t to)
{
    const prep *p = step->prep;
    partial result = {0.0, 0};
    for (int64_t i = from; i < to;) {
        int64_t row = i / p->inner, col = i % p->inner;
        int64_t n = p->inner - col < to - i ? p->inner - col : to - i;
        scan_run(step, &result, x + walk_at(&p->reduced, row) + col, n, i, i == from);
        i += n;
    }
    return result;
}

/* Rows [from, to) of n neighbouring outputs whose elements begin at x. */
static void reduce_rows(const lc_step *step, partial *out, const float *x, int64_t n, int64_t from,
                        int64_t to)
{
    const lc_reduce_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_vec_kernels *v = &step->kernels->vec;
    double sum[STRIP] = {0.0};
    float best[STRIP] = {0.0f};
    int64_t index[STRIP] = {0};
    for (int64_t r = from; r < to; r++) {
        const float *row = x + walk_at(&p->reduced, r);
        if (a->kind == LC_REDUCE_SUM || a->kind == LC_REDUCE_MEAN) {
            for (int64_t i = 0; i < n; i++)
                sum[i] += (double)row[i];
        } else if (r == from) {
            memcpy(best, row, (size_t)n * sizeof *best);
            for (int64_t i = 0; i < n; i++)
                index[i] = r;
        } else if (a->kind != LC_REDUCE_ARGMAX) {
            lc_vec_binary_fn *pick = a->kind == LC_REDUCE_MIN ? v->min : v->max;
            pick(best, best, row, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
        } else {
            for (int64_t i = 0; i < n; i++)
                if (better(false, (double)row[i], (double)best[i])) {
                    best[i] = row[i];
                    index[i] = r;
                }
        }
    }
    bool is_sum = a->kind == LC_REDUCE_SUM || a->kind == LC_REDUCE_MEAN;
    for (int64_t i = 0; i < n; i++)
        out[i] = (partial){is_sum ? sum[i] : (double)best[i], index[i]};
}

static void store(const lc_step *step, const lc_bind *bind, int64_t output, const partial *p)
{
    const lc_reduce_attr *a = step->attr;
    if (a->kind == LC_REDUCE_ARGMAX)
        memcpy((char *)bind->out[0] + output * 8, &p->index, 8); /* aligned to 4 bytes at least */
    else if (a->kind == LC_REDUCE_MEAN)
        ((float *)bind->out[0])[output] =
            (float)(p->value / (double)((const prep *)step->prep)->total);
    else
        ((float *)bind->out[0])[output] = (float)p->value;
}

/* One part of one unit: up to STRIP partial results. */
static void reduce_part(const lc_step *step, const float *x, int64_t unit, int64_t part,
                        partial *out, int64_t *n)
{
    const prep *p = step->prep;
    int64_t col = unit % p->strips * STRIP, from = part * p->part;
    int64_t to = from + p->part < p->total ? from + p->part : p->total;
    const float *at = x + walk_at(&p->kept, unit / p->strips);
    if (p->runs) {
        *n = 1;
        out[0] = reduce_runs(step, at, from, to);
    } else {
        *n = p->inner - col < STRIP ? p->inner - col : STRIP;
        reduce_rows(step, out, at + col, *n, from, to);
    }
}

/* The first output of a unit. */
static int64_t first_output(const prep *p, int64_t unit)
{
    return p->runs ? unit : unit / p->strips * p->inner + unit % p->strips * STRIP;
}

static void run_planes(const lc_step *step, const lc_bind *bind, int64_t first, int64_t last)
{
    const lc_reduce_attr *a = step->attr;
    const prep *p = step->prep;
    const lc_desc *x = &step->in[0];
    int block = x->layout.block;
    int64_t blocks = lc_block_count(x), channel = 0;
    for (int64_t u = first; u < last; u++) {
        double sum[LC_MAX_BLOCK] = {0.0};
        int64_t plane = p->total * block;
        step->kernels->vec.sum(sum, (const float *)bind->in[0] + u * plane, plane, block);
        if (a->kind == LC_REDUCE_MEAN)
            for (int l = 0; l < block; l++)
                sum[l] /= (double)p->total;
        int valid = lc_block_channels(x, u % blocks, &channel);
        bool keep = step->out[0].layout.block > 1;
        float *y = (float *)bind->out[0] + (keep ? u * block : u / blocks * x->dim[1] + channel);
        for (int l = 0; l < (keep ? block : valid); l++)
            y[l] = l < valid ? (float)sum[l] : 0.0f;
    }
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    const lc_reduce_attr *a = step->attr;
    const prep *p = step->prep;
    const float *x = bind->in[0];
    partial *shared = bind->shared, part[STRIP], total[STRIP];
    int64_t first, last, n = 0;
    lc_units_range(phase ? &p->combine : &p->units, begin, end, &first, &last);
    if (p->planes) {
        run_planes(step, bind, first, last);
    } else if (phase == 1) {
        for (int64_t o = first; o < last; o++) {
            total[0] = (partial){0.0, 0};
            for (int64_t k = 0; k < p->parts; k++)
                join(a->kind, total, &shared[o * p->parts + k], k == 0);
            store(step, bind, o, total);
        }
    } else if (step->phases == 2) {
        for (int64_t u = first; u < last; u++) {
            int64_t unit = u / p->parts, k = u % p->parts, at = first_output(p, unit);
            reduce_part(step, x, unit, k, part, &n);
            for (int64_t i = 0; i < n; i++)
                shared[(at + i) * p->parts + k] = part[i];
        }
    } else {
        for (int64_t u = first; u < last; u++) {
            /* Even of nothing there is a first part: the sum 0. */
            for (int64_t k = 0; k == 0 || k < p->parts; k++) {
                reduce_part(step, x, u, k, part, &n);
                for (int64_t i = 0; i < n; i++)
                    join(a->kind, &total[i], &part[i], k == 0);
            }
            for (int64_t i = 0; i < n; i++)
                store(step, bind, first_output(p, u) + i, &total[i]);
        }
    }
    return LC_OK;
}

/* sum, mean: dy for every element that went into it. */
static lc_status backward(const lc_backward *g)
{
    const lc_reduce_attr *a = g->attr;
    const lc_desc x = *g->b->desc(g->b->ctx, g->in[0]);
    lc_desc kept = x;
    lc_value dy = g->dy[0];
    int64_t count = 1;
    if (a->kind == LC_REDUCE_ARGMAX)
        return lc_fail(LC_ERR_RUNTIME, "argmax has no gradient");
    if (a->kind != LC_REDUCE_SUM && a->kind != LC_REDUCE_MEAN)
        return lc_extreme_backward(g);
    for (int i = 0; i < x.rank; i++)
        if (a->axes >> i & 1u) {
            count *= x.dim[i];
            kept.dim[i] = 1;
        }
    if (a->kind == LC_REDUCE_MEAN)
        LC_TRY(lc_grad_scale(g->b, (float)(1.0 / (double)count), dy, &dy));
    LC_TRY(lc_grad_reshape(g->b, dy, &kept, &dy));
    return lc_grad_expand(g->b, dy, &x, g->dx);
}

const lc_op lc_op_reduce = {
    .name = "reduce",
    .attr_size = sizeof(lc_reduce_attr),
    .infer = infer,
    .layout = layout,
    .prepare = prepare,
    .run = run,
    .backward = backward,
};
