#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/matrix.h"
#include "ops/op_util.h"

typedef struct pack_attr {
    uint32_t flags; /* LC_CONV_BIAS */
    int32_t block;
} pack_attr;

/* Where the biases start in the blob, in bytes. */
static size_t bias_at(const lc_matrix *p, int block)
{
    return ((size_t)lc_matrix_packed_floats(p, block) * sizeof(float) + 63) & ~(size_t)63;
}

/* --- linear: x (..., K), w (OC, K), [b (OC)] -> y (..., OC) */

static lc_status linear_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                              lc_desc *out)
{
    const lc_linear_attr *a = attr;
    const bool packed = (a->flags & LC_CONV_PACKED) != 0, bias = (a->flags & LC_CONV_BIAS) != 0;
    const lc_desc *x = &in[0];
    char xt[LC_SHAPE_TEXT], wt[LC_SHAPE_TEXT];
    int expected = packed || !bias ? 2 : 3;
    if (n_in != expected)
        return lc_fail(LC_ERR_VALUE, "linear: %d inputs given, %d expected", n_in, expected);
    if (x->dtype != LC_F32 ||
        (!packed && (in[1].dtype != LC_F32 || (bias && in[2].dtype != LC_F32))))
        return lc_fail(LC_ERR_TYPE, "linear: input, weight and bias must be float32");
    if (x->rank < 1)
        return lc_fail(LC_ERR_VALUE, "linear: the input must have at least one dimension");
    int64_t oc = a->out_features;
    if (!packed) {
        const lc_desc *w = &in[1];
        oc = w->dim[0];
        if (w->rank != 2)
            return lc_fail(LC_ERR_VALUE,
                           "linear: weight must have 2 dimensions (out, in), not shape %s",
                           lc_shape_text(w, wt));
        if (x->dim[x->rank - 1] != w->dim[1])
            return lc_fail(LC_ERR_VALUE,
                           "linear: weight of shape %s expects %lld input features, but the input "
                           "has shape %s",
                           lc_shape_text(w, wt), (long long)w->dim[1], lc_shape_text(x, xt));
        if (bias && (in[2].rank != 1 || in[2].dim[0] != oc))
            return lc_fail(LC_ERR_VALUE,
                           "linear: bias of shape %s does not fit %lld output features",
                           lc_shape_text(&in[2], wt), (long long)oc);
    }
    int64_t dim[LC_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 1] = oc;
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, x->rank, dim);
}

static bool linear_pack(const void *attr, int n_in, const lc_desc *in, const lc_desc *out,
                        const lc_kernels *kernels, lc_pack_spec *spec)
{
    const lc_linear_attr *a = attr;
    (void)in;
    (void)out;
    if (a->flags & LC_CONV_PACKED)
        return false;
    memset(spec, 0, sizeof *spec);
    pack_attr pack = {.flags = a->flags & LC_CONV_BIAS, .block = kernels->block};
    spec->op = &lc_op_linear_pack;
    memcpy(spec->attr, &pack, sizeof pack);
    spec->first = 1;
    spec->count = n_in - 1;
    return true;
}

static void linear_set_packed(void *attr, int n_in, const lc_desc *in, const lc_pack_spec *spec)
{
    (void)n_in, (void)spec;
    lc_linear_attr *a = attr;
    a->out_features = in[1].dim[0];
    a->flags |= LC_CONV_PACKED;
}

static lc_status linear_prepare(lc_step *step)
{
    const lc_linear_attr *a = step->attr;
    const lc_desc *x = &step->in[0];
    if (!(a->flags & LC_CONV_PACKED))
        return lc_fail(LC_ERR_RUNTIME, "linear: weights have not been packed");
    LC_TRY(lc_step_prep(step, sizeof(lc_matrix)));
    int64_t m = 1;
    for (int i = 0; i + 1 < x->rank; i++)
        m *= x->dim[i];
    lc_matrix *p = step->prep;
    *p = lc_matrix_plan(m, a->out_features, x->dim[x->rank - 1], 1, step->threads,
                        step->kernels->block);
    step->items[0] = p->m == 0 || p->n == 0 ? 0 : p->tiles * p->splits;
    step->algorithm = step->kernels->conv.dense_name;
    return LC_OK;
}

static lc_status linear_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                            int64_t end)
{
    (void)phase;
    const lc_matrix *p = step->prep;
    const float *w = bind->in[1];
    const float *bias = (const float *)((const char *)w + bias_at(p, step->kernels->block));
    for (int64_t item = begin; item < end; item++)
        lc_matrix_item(p, step->kernels, item, bind->out[0], bind->in[0], w, bias);
    return LC_OK;
}

static int64_t linear_macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr;
    (void)n_in;
    return lc_count_mul(lc_desc_count(&out[0]), in[0].dim[in[0].rank - 1]);
}

/* dx = dy w, dw = dy' x, db = the sum of dy over its rows */
static lc_status linear_backward(const lc_backward *g)
{
    lc_desc x = *g->b->desc(g->b->ctx, g->in[0]), w = *g->b->desc(g->b->ctx, g->in[1]);
    lc_value dy = g->dy[0], rows = g->in[0];
    if (g->needs[0])
        LC_TRY(lc_grad_node(g->b, &lc_op_matmul, &(lc_matmul_attr){0}, 2,
                            (lc_value[]){dy, g->in[1]}, &g->dx[0]));
    if (x.rank != 2) {
        int64_t m = 1;
        for (int i = 0; i + 1 < x.rank; i++)
            m *= x.dim[i];
        LC_TRY(lc_grad_shape(g->b, dy, 2, (int64_t[]){m, w.dim[0]}, &dy));
        LC_TRY(lc_grad_shape(g->b, rows, 2, (int64_t[]){m, w.dim[1]}, &rows));
    }
    if (g->needs[1])
        LC_TRY(lc_grad_node(g->b, &lc_op_matmul, &(lc_matmul_attr){.transpose_a = 1}, 2,
                            (lc_value[]){dy, rows}, &g->dx[1]));
    lc_reduce_attr sum = {.kind = LC_REDUCE_SUM, .axes = 1};
    if (g->n_in > 2 && g->needs[2])
        LC_TRY(lc_grad_node(g->b, &lc_op_reduce, &sum, 1, &dy, &g->dx[2]));
    return LC_OK;
}

const lc_op lc_op_linear = {
    .name = "linear",
    .attr_size = sizeof(lc_linear_attr),
    .flags = LC_OP_PER_IMAGE,
    .infer = linear_infer,
    .pack = linear_pack,
    .set_packed = linear_set_packed,
    .prepare = linear_prepare,
    .run = linear_run,
    .backward = linear_backward,
    .macs = linear_macs,
};

/* --- linear_pack: w (OC, K), [b (OC)] -> blob: panels as in matrix.h, then the biases */

static lc_matrix pack_matrix(const lc_desc *w, int block)
{
    return lc_matrix_plan(1, w->dim[0], w->dim[1], 1, 1, block);
}

static lc_status pack_infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const pack_attr *a = attr;
    if (n_in != (a->flags & LC_CONV_BIAS ? 2 : 1) || in[0].rank != 2 || a->block < 1)
        return lc_fail(LC_ERR_VALUE, "linear_pack: wrong inputs");
    lc_matrix p = pack_matrix(&in[0], a->block);
    size_t bytes = bias_at(&p, a->block) + (size_t)(p.blocks * a->block) * sizeof(float);
    *n_out = 1;
    return lc_desc_init(&out[0], LC_BLOB, 1, (int64_t[]){(int64_t)bytes});
}

static lc_status pack_prepare(lc_step *step)
{
    const pack_attr *a = step->attr;
    LC_TRY(lc_step_prep(step, sizeof(lc_matrix)));
    lc_matrix *p = step->prep;
    *p = pack_matrix(&step->in[0], a->block);
    step->items[0] = p->panels;
    return LC_OK;
}

/* The lanes of a panel: rows of w from the first one on, as they are. Returns how many there are. */
static int64_t find_lanes(const lc_matrix *p, int block, int64_t panel, lc_pack_lanes *l)
{
    const int64_t rest = p->n - panel * 2 * block;
    l->width = (p->blocks - panel * 2 < 2 ? 1 : 2) * block;
    for (int i = 0; i < l->width; i++) {
        l->lane[i] = i < rest ? i * p->k : -1;
        l->scale[i] = i < rest ? 1 : 0;
    }
    return rest < l->width ? rest : l->width;
}

static bool next_elements(int64_t k, int64_t *at, lc_pack_elements *e)
{
    for (e->n = 0; e->n < LC_PACK_TILE && *at < k; e->n++, ++*at) {
        e->from[e->n] = *at;
        e->row[e->n] = *at * e->lanes->width;
    }
    return e->n > 0;
}

static lc_status pack_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                          int64_t end)
{
    (void)phase;
    const pack_attr *a = step->attr;
    const lc_matrix *p = step->prep;
    for (int64_t panel = begin; panel < end; panel++) {
        const int64_t first = panel * 2 * a->block * p->k; /* in w and in the blob */
        lc_pack_lanes l;
        lc_pack_elements e = {.lanes = &l};
        find_lanes(p, a->block, panel, &l);
        for (int64_t at = 0; next_elements(p->k, &at, &e);)
            step->kernels->pack.pack(&e, (const float *)bind->in[0] + first,
                                     (float *)bind->out[0] + first);
    }
    if (begin == 0 && end > 0) {
        const size_t used = (size_t)lc_matrix_packed_floats(p, a->block) * sizeof(float);
        const size_t at = bias_at(p, a->block),
                     bytes = (size_t)(p->blocks * a->block) * sizeof(float);
        memset((char *)bind->out[0] + used, 0, at - used + bytes);
        if (a->flags & LC_CONV_BIAS)
            memcpy((char *)bind->out[0] + at, bind->in[1], (size_t)p->n * sizeof(float));
    }
    return LC_OK;
}

static int unpack_bits(const lc_step *step)
{
    (void)step;
    return 2;
}

static int unpack_rows(const lc_step *step, int64_t item, int64_t *first, int64_t *count)
{
    const int block = ((const pack_attr *)step->attr)->block;
    lc_pack_lanes l;
    *count = find_lanes(step->prep, block, item, &l);
    *first = item * 2 * block;
    return 1;
}

static void unpack_run(const lc_step *step, const lc_bind *bind, int64_t item, float *const *to)
{
    const int block = ((const pack_attr *)step->attr)->block;
    const lc_matrix *p = step->prep;
    lc_pack_lanes l;
    lc_pack_elements e = {.lanes = &l};
    find_lanes(p, block, item, &l);
    for (int64_t at = 0; next_elements(p->k, &at, &e);)
        step->kernels->pack.unpack(&e, (const float *)bind->out[0] + item * 2 * block * p->k,
                                   to[0]);
}

static const lc_unpack unpack = {unpack_bits, unpack_rows, unpack_run};

const lc_op lc_op_linear_pack = {
    .name = "linear_pack",
    .attr_size = sizeof(pack_attr),
    .infer = pack_infer,
    .prepare = pack_prepare,
    .run = pack_run,
    .unpack = &unpack,
};
