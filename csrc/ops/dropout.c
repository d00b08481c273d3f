/* dropout, drop_path and drop_block: what is dropped is drawn from the seed at hand, for the place
 * of each element in plain memory, so that it can be drawn again for the gradient. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define UNIT 1024 /* elements of plain memory */

static lc_status check(const char *op, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    LC_TRY(lc_check_inputs(op, n_in, 2));
    LC_TRY(lc_check_f32(op, "x", &in[0]));
    if (in[1].dtype != LC_I64 || in[1].rank != 1 || in[1].dim[0] != LC_DRAW_WORDS)
        return lc_fail(LC_ERR_TYPE, "%s: the draw must be %d int64", op, LC_DRAW_WORDS);
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = out[0] = q->in[0].layout;
    in[1] = LC_PLAIN;
}

/* The same zeros and factors on dy. */
static lc_status again(const lc_backward *g, const lc_op *op)
{
    return lc_grad_node(g->b, op, g->attr, 2, (lc_value[]){g->dy[0], g->in[1]}, g->dx);
}

static lc_draw draw_of(const lc_bind *bind)
{
    lc_draw d;
    memcpy(&d, bind->in[1], sizeof d); /* aligned to 4 bytes at least */
    return d;
}

/* ---- dropout ---- */

/* Blocked: a unit is a part of the pixels of a block; the factors of its lanes, each a run in plain
 * memory, are drawn into scratch first. */
typedef struct prep {
    lc_units units;
    int64_t count;
    int64_t pixels, part, parts;
} prep;

static lc_status dropout_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                               lc_desc *out)
{
    (void)attr;
    return check("dropout", n_in, in, n_out, out);
}

static lc_status dropout_prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    int block = x->layout.block;
    p->count = lc_desc_count(x);
    if (block == 1) {
        step->items[0] = lc_units_set(&p->units, (p->count + UNIT - 1) / UNIT, 8 * UNIT);
        step->thread_bytes = UNIT * sizeof(float);
        return LC_OK;
    }
    p->pixels = x->dim[2] * x->dim[3];
    p->part = p->pixels < UNIT ? p->pixels : UNIT;
    p->parts = p->part ? (p->pixels + p->part - 1) / p->part : 0;
    step->thread_bytes = (size_t)(p->part * block) * sizeof(float);
    step->items[0] =
        lc_units_set(&p->units, x->dim[0] * lc_block_count(x) * p->parts, 8 * p->part * block);
    return LC_OK;
}

/* Factors of n elements from `first` on: 0, or 1 / (1 - p). */
static void draw_factors(float *to, int64_t n, const lc_draw *s, int64_t first)
{
    const float limit = (float)s->p, scale = s->p < 1.0 ? (float)(1.0 / (1.0 - s->p)) : 0.0f;
    lc_random_uniform(to, n, s->seed, s->stream, first, 0.0f, 1.0f);
    for (int64_t i = 0; i < n; i++)
        to[i] = to[i] >= limit ? scale : 0.0f;
}

static lc_status dropout_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                             int64_t end)
{
    (void)phase;
    const prep *p = step->prep;
    const lc_desc *d = &step->in[0];
    const lc_draw s = draw_of(bind);
    const int block = d->layout.block;
    float *factor = bind->scratch;
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        if (block == 1) {
            int64_t at = u * UNIT, n = p->count - at < UNIT ? p->count - at : UNIT;
            draw_factors(factor, n, &s, at);
            step->kernels->vec.mul((float *)bind->out[0] + at, (const float *)bind->in[0] + at,
                                   factor, n, LC_SPAN_ALL, LC_SPAN_ALL, 1);
            continue;
        }
        int64_t plane = u / p->parts, from = u % p->parts * p->part, blocks = lc_block_count(d);
        int64_t n = p->pixels - from < p->part ? p->pixels - from : p->part, c = 0;
        int valid = lc_block_channels(d, plane % blocks, &c);
        const float *x = (const float *)bind->in[0] + (plane * p->pixels + from) * block;
        float *y = (float *)bind->out[0] + (plane * p->pixels + from) * block;
        for (int l = 0; l < valid; l++)
            draw_factors(factor + l * n, n, &s,
                         (plane / blocks * d->dim[1] + c + l) * p->pixels + from);
        for (int64_t i = 0; i < n; i++)
            for (int l = 0; l < block; l++)
                y[i * block + l] = l < valid ? x[i * block + l] * factor[l * n + i] : 0.0f;
    }
    return LC_OK;
}

static lc_status dropout_backward(const lc_backward *g)
{
    return again(g, &lc_op_dropout);
}

const lc_op lc_op_dropout = {
    .name = "dropout",
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT,
    .infer = dropout_infer,
    .layout = layout,
    .prepare = dropout_prepare,
    .run = dropout_run,
    .backward = dropout_backward,
};

/* ---- drop_path: one number per sample ---- */

typedef struct path_prep {
    lc_units units;
    int64_t each, part, parts; /* floats of a sample, of a unit; units of a sample */
} path_prep;

static lc_status path_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    (void)attr;
    LC_TRY(check("drop_path", n_in, in, n_out, out));
    return lc_check_rank("drop_path", "x", &in[0], 1, LC_MAX_RANK);
}

static lc_status path_prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(path_prep)));
    path_prep *p = step->prep;
    p->each = x->dim[0] ? lc_memory_floats(x) / x->dim[0] : 0;
    p->part = lc_pixel_part(p->each, 1, &p->parts);
    step->items[0] = lc_units_set(&p->units, x->dim[0] * p->parts, p->part);
    return LC_OK;
}

static lc_status path_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const lc_drop_path_attr *a = step->attr;
    const path_prep *p = step->prep;
    const lc_draw s = draw_of(bind);
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t n = u / p->parts, from = u % p->parts * p->part, at = n * p->each + from;
        int64_t count = p->each - from < p->part ? p->each - from : p->part;
        float draw_of_n;
        lc_random_uniform(&draw_of_n, 1, s.seed, s.stream, n, 0.0f, 1.0f);
        float factor = draw_of_n < (float)s.p          ? 0.0f
                       : a->scale_by_keep && s.p < 1.0 ? (float)(1.0 / (1.0 - s.p))
                                                       : 1.0f;
        step->kernels->vec.mul((float *)bind->out[0] + at, (const float *)bind->in[0] + at, &factor,
                               count, LC_SPAN_ALL, LC_SPAN_ONE, 1);
    }
    return LC_OK;
}

static lc_status path_backward(const lc_backward *g)
{
    return again(g, &lc_op_drop_path);
}

const lc_op lc_op_drop_path = {
    .name = "drop_path",
    .attr_size = sizeof(lc_drop_path_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT,
    .infer = path_infer,
    .layout = layout,
    .prepare = path_prepare,
    .run = path_run,
    .backward = path_backward,
};

/* ---- drop_block: squares around drawn corners are zeros (Ghiasi, Lin, Le 2018, algorithm 1).
 *
 * A corner is dropped with probability p / block_size^2 * H * W / (places of corners), all corners
 * being such that the square lies inside of the plane; then all is multiplied by elements / elements
 * left, over the whole tensor. Phase 0 draws and counts what is left, phase 1 draws again and
 * applies: that is cheaper than memory for a mask as large as x. ---- */

typedef struct block_prep {
    lc_units units; /* planes of one block */
    int64_t size[2], corners[2];
    int64_t pixels, count; /* count: elements of x */
    double area;           /* of the squares of all corners of a plane */
} block_prep;

static lc_status block_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                             lc_desc *out)
{
    const lc_drop_block_attr *a = attr;
    LC_TRY(check("drop_block", n_in, in, n_out, out));
    if (a->block_size < 1)
        return lc_fail(LC_ERR_VALUE, "drop_block: block_size must be positive, not %lld",
                       (long long)a->block_size);
    return lc_check_rank("drop_block", "x", &in[0], 4, 4);
}

static lc_status block_prepare(lc_step *step)
{
    const lc_drop_block_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    LC_TRY(lc_step_prep(step, sizeof(block_prep)));
    block_prep *p = step->prep;
    p->pixels = x->dim[2] * x->dim[3];
    p->count = lc_desc_count(x);
    int64_t least = x->dim[2] < x->dim[3] ? x->dim[2] : x->dim[3];
    for (int i = 0; i < 2; i++) {
        p->size[i] = a->block_size < least ? a->block_size : least;
        p->corners[i] = x->dim[2 + i] - p->size[i] + 1;
    }
    double corners = (double)p->corners[0] * (double)p->corners[1];
    p->area = (double)p->size[0] * (double)p->size[1] * corners;
    int block = x->layout.block;
    int64_t planes = p->pixels ? x->dim[0] * lc_block_count(x) : 0;
    step->phases = 2;
    step->items[0] = lc_units_set(&p->units, planes, lc_count_mul(8 * p->pixels, block));
    step->items[1] = step->items[0];
    step->shared_bytes = (size_t)planes * sizeof(int64_t);
    step->thread_bytes = (size_t)p->pixels * ((size_t)block + 1) * sizeof(float);
    return LC_OK;
}

/* The mask of a plane, 1 for what stays, from the numbers of its corners. Returns how many stay. */
static int64_t draw_plane(const block_prep *p, float *mask, float *corner, const lc_draw *s,
                          int64_t plane, int64_t width)
{
    const float rate = (float)(s->p * (double)p->pixels / p->area);
    int64_t n = p->corners[0] * p->corners[1], left = 0;
    lc_random_uniform(corner, n, s->seed, s->stream, plane * n, 0.0f, 1.0f);
    for (int64_t i = 0; i < p->pixels; i++)
        mask[i] = 1.0f;
    for (int64_t i = 0; i < n; i++) {
        if (corner[i] >= rate)
            continue;
        float *to = mask + i / p->corners[1] * width + i % p->corners[1];
        for (int64_t r = 0; r < p->size[0]; r++)
            memset(to + r * width, 0, (size_t)p->size[1] * sizeof *to);
    }
    for (int64_t i = 0; i < p->pixels; i++)
        left += mask[i] != 0.0f;
    return left;
}

static lc_status block_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                           int64_t end)
{
    const block_prep *p = step->prep;
    const lc_desc *d = &step->in[0];
    const lc_draw s = draw_of(bind);
    const int block = d->layout.block;
    const int64_t blocks = lc_block_count(d);
    int64_t *left = bind->shared, first, last, stay = 0;
    float *mask = bind->scratch, *corner = mask + p->pixels * block;
    lc_units_range(&p->units, begin, end, &first, &last);
    if (phase == 1 && first < last)
        for (int64_t u = 0; u < p->units.count; u++)
            stay += left[u];
    const float scale = stay ? (float)((double)p->count / (double)stay) : 0.0f;
    for (int64_t u = first; u < last; u++) {
        int64_t c = 0, n = 0;
        int valid = lc_block_channels(d, u % blocks, &c);
        for (int l = 0; l < valid; l++)
            n += draw_plane(p, mask + l * p->pixels, corner, &s, u / blocks * d->dim[1] + c + l,
                            d->dim[3]);
        if (phase == 0) {
            left[u] = n;
            continue;
        }
        const float *x = (const float *)bind->in[0] + u * p->pixels * block;
        float *y = (float *)bind->out[0] + u * p->pixels * block;
        for (int64_t i = 0; i < p->pixels; i++)
            for (int l = 0; l < block; l++)
                y[i * block + l] =
                    l < valid ? x[i * block + l] * (mask[l * p->pixels + i] * scale) : 0.0f;
    }
    return LC_OK;
}

static lc_status block_backward(const lc_backward *g)
{
    return again(g, &lc_op_drop_block);
}

const lc_op lc_op_drop_block = {
    .name = "drop_block",
    .attr_size = sizeof(lc_drop_block_attr),
    .flags = LC_OP_INPLACE | LC_OP_KEEPS_LAYOUT,
    .infer = block_infer,
    .layout = layout,
    .prepare = block_prepare,
    .run = block_run,
    .backward = block_backward,
};
