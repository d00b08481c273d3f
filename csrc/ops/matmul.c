#include <string.h>

#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/matrix.h"
#include "ops/op_util.h"

/* a (..., M, K), b (..., K, N) as in numpy.matmul, or transposed. Phase 0 packs b and turns a
 * transposed a, phase 1 multiplies. */

typedef struct matmul_prep {
    lc_matrix matrix;
    int64_t batch;   /* products */
    int64_t b_count; /* matrices of b */
    int32_t rank;    /* of the batch dimensions */
    int64_t dim[LC_MAX_RANK], a_stride[LC_MAX_RANK],
        b_stride[LC_MAX_RANK]; /* strides count matrices */
    int64_t packed;            /* floats of one packed matrix of b */
    int64_t m, pieces;         /* a transposed: rows of one matrix, pieces of TURN of them */
} matmul_prep;

#define TURN 32 /* rows that are turned at a time */

/* The matrix sizes of an operand: a vector counts as one row (a) or one column (b). */
static int64_t a_rows(const lc_matmul_attr *attr, const lc_desc *a)
{
    return a->rank < 2 ? 1 : a->dim[a->rank - (attr->transpose_a ? 1 : 2)];
}

static int64_t a_columns(const lc_matmul_attr *attr, const lc_desc *a)
{
    return a->dim[a->rank - (attr->transpose_a && a->rank > 1 ? 2 : 1)];
}

static int64_t b_columns(const lc_matmul_attr *attr, const lc_desc *b)
{
    return b->rank < 2 ? 1 : b->dim[b->rank - (attr->transpose_b ? 2 : 1)];
}

static int64_t b_rows(const lc_matmul_attr *attr, const lc_desc *b)
{
    return b->rank < 2 ? b->dim[0] : b->dim[b->rank - (attr->transpose_b ? 1 : 2)];
}

static int batch_rank(const lc_desc *d)
{
    return d->rank > 2 ? d->rank - 2 : 0;
}

/* Size of batch axis i of `rank`, counted with the axes aligned at their ends. */
static int64_t batch_dim(const lc_desc *d, int rank, int i)
{
    int at = i - (rank - batch_rank(d));
    return at < 0 ? 1 : d->dim[at];
}

static lc_status matmul_infer(const void *attr, int n_in, const lc_desc *in, int *n_out,
                              lc_desc *out)
{
    const lc_matmul_attr *t = attr;
    char at[LC_SHAPE_TEXT], bt[LC_SHAPE_TEXT];
    if (n_in != 2)
        return lc_fail(LC_ERR_VALUE, "matmul: %d inputs given, 2 expected", n_in);
    const lc_desc *a = &in[0], *b = &in[1];
    lc_shape_text(a, at);
    lc_shape_text(b, bt);
    if (a->dtype != LC_F32 || b->dtype != LC_F32)
        return lc_fail(LC_ERR_TYPE, "matmul: both inputs must be float32");
    if (a->rank < 1 || b->rank < 1)
        return lc_fail(LC_ERR_VALUE,
                       "matmul: both inputs must have at least one dimension, not shapes %s and %s",
                       at, bt);
    if ((t->transpose_a && a->rank < 2) || (t->transpose_b && b->rank < 2))
        return lc_fail(LC_ERR_VALUE, "matmul: a vector cannot be transposed");
    if (a_columns(t, a) != b_rows(t, b))
        return lc_fail(LC_ERR_VALUE, "matmul: shapes %s and %s do not fit: %lld columns, %lld rows",
                       at, bt, (long long)a_columns(t, a), (long long)b_rows(t, b));
    int ra = batch_rank(a), rb = batch_rank(b), rank = ra > rb ? ra : rb;
    int64_t dim[LC_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        int64_t da = batch_dim(a, rank, i), db = batch_dim(b, rank, i);
        if (da != db && da != 1 && db != 1)
            return lc_fail(LC_ERR_VALUE,
                           "matmul: the batch dimensions of shapes %s and %s do not broadcast", at,
                           bt);
        dim[i] = da == 1 ? db : da;
    }
    if (a->rank > 1)
        dim[rank++] = a_rows(t, a);
    if (b->rank > 1)
        dim[rank++] = b_columns(t, b);
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, rank, dim);
}

static lc_status matmul_prepare(lc_step *step)
{
    const lc_matmul_attr *t = step->attr;
    const lc_desc *a = &step->in[0], *b = &step->in[1];
    const int block = step->kernels->block;
    LC_TRY(lc_step_prep(step, sizeof(matmul_prep)));
    matmul_prep *p = step->prep;
    int ra = batch_rank(a), rb = batch_rank(b);
    int64_t m = a_rows(t, a), a_count = 1, b_count = 1;
    p->rank = ra > rb ? ra : rb;
    p->batch = 1;
    for (int i = p->rank - 1; i >= 0; i--) {
        int64_t da = batch_dim(a, p->rank, i), db = batch_dim(b, p->rank, i);
        p->dim[i] = da == 1 ? db : da;
        p->a_stride[i] = da == 1 ? 0 : a_count;
        p->b_stride[i] = db == 1 ? 0 : b_count;
        a_count *= da;
        b_count *= db;
        p->batch *= p->dim[i];
    }
    p->m = m;
    p->pieces = t->transpose_a ? a_count * ((m + TURN - 1) / TURN) : 0;
    if (b_count == 1 &&
        a_count == p->batch) { /* one b for all: the matrices of a are one tall matrix */
        m *= p->batch;
        p->batch = 1;
        p->rank = 0;
    }
    p->b_count = b_count;
    p->matrix = lc_matrix_plan(m, b_columns(t, b), b_rows(t, b), p->batch, step->threads, block);
    p->packed = lc_matrix_packed_floats(&p->matrix, block);
    bool empty = m == 0 || p->matrix.n == 0 || p->batch == 0;
    step->phases = 2;
    step->items[0] = empty ? 0 : p->b_count * p->matrix.panels + p->pieces;
    step->items[1] = empty ? 0 : p->batch * p->matrix.tiles * p->matrix.splits;
    step->shared_bytes = (size_t)(p->b_count * p->packed) * sizeof(float);
    if (p->pieces)
        step->shared_bytes += lc_desc_bytes(a);
    step->algorithm = step->kernels->conv.dense_name;
    return LC_OK;
}

/* Rows [TURN * piece, ...) of the matrices of a, which lie as columns. */
static void turn_rows(const matmul_prep *p, int64_t piece, float *to, const float *a)
{
    const int64_t each = (p->m + TURN - 1) / TURN, k = p->matrix.k;
    const int64_t from = piece % each * TURN, until = from + TURN < p->m ? from + TURN : p->m;
    const int64_t at = piece / each * p->m * k;
    for (int64_t i = 0; i < k; i++)
        for (int64_t r = from; r < until; r++)
            to[at + r * k + i] = a[at + i * p->m + r];
}

static lc_status matmul_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                            int64_t end)
{
    const matmul_prep *p = step->prep;
    const lc_matmul_attr *t = step->attr;
    const lc_matrix *mat = &p->matrix;
    float *packed = bind->shared, *turned = packed + p->b_count * p->packed;
    const float *a = p->pieces ? turned : bind->in[0];
    const int64_t each = mat->tiles * mat->splits;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0 && item >= p->b_count * mat->panels) {
            turn_rows(p, item - p->b_count * mat->panels, turned, bind->in[0]);
            continue;
        }
        if (phase == 0) {
            int64_t i = item / mat->panels, panel = item % mat->panels;
            const float *b = (const float *)bind->in[1] + i * mat->k * mat->n;
            lc_matrix_pack_panel(mat, step->kernels->block, panel, packed + i * p->packed, b,
                                 t->transpose_b ? 1 : mat->n, t->transpose_b ? mat->k : 1);
            continue;
        }
        int64_t product = item / each, rest = product, ia = 0, ib = 0;
        for (int i = p->rank - 1; i >= 0; i--) {
            ia += rest % p->dim[i] * p->a_stride[i];
            ib += rest % p->dim[i] * p->b_stride[i];
            rest /= p->dim[i];
        }
        lc_matrix_item(mat, step->kernels, item % each,
                       (float *)bind->out[0] + product * mat->m * mat->n, a + ia * mat->m * mat->k,
                       packed + ib * p->packed, NULL);
    }
    return LC_OK;
}

static int64_t matmul_macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)n_in;
    return lc_count_mul(lc_desc_count(&out[0]), a_columns(attr, &in[0]));
}

/* A vector as a matrix of one row (a) or one column (b). */
static lc_status as_matrix(const lc_backward *g, int which, lc_value *out)
{
    lc_desc d = *g->b->desc(g->b->ctx, g->in[which]);
    *out = g->in[which];
    if (d.rank > 1)
        return LC_OK;
    return lc_grad_shape(g->b, *out, 2, which ? (int64_t[]){d.dim[0], 1} : (int64_t[]){1, d.dim[0]},
                         out);
}

/* Sums over the batch dimensions along which `like` was repeated, and gives it that shape. */
static lc_status reduce_to(const lc_backward *g, lc_value v, lc_value like, lc_value *out)
{
    lc_desc d = *g->b->desc(g->b->ctx, v), want = *g->b->desc(g->b->ctx, like);
    lc_reduce_attr sum = {.kind = LC_REDUCE_SUM, .keepdim = 1};
    int rank = batch_rank(&d);
    for (int i = 0; i < rank; i++)
        if (batch_dim(&want, rank, i) != d.dim[i])
            sum.axes |= 1u << i;
    if (sum.axes)
        LC_TRY(lc_grad_node(g->b, &lc_op_reduce, &sum, 1, &v, &v));
    d = *g->b->desc(g->b->ctx, v);
    *out = v;
    return lc_desc_same_shape(&d, &want) ? LC_OK : lc_grad_shape(g->b, v, want.rank, want.dim, out);
}

/* All rows of a value of many matrices as one matrix. */
static lc_status flatten(const lc_backward *g, lc_value *v)
{
    lc_desc d = *g->b->desc(g->b->ctx, *v);
    int64_t dim[2] = {1, d.dim[d.rank - 1]};
    for (int i = 0; i + 1 < d.rank; i++)
        dim[0] *= d.dim[i];
    return d.rank == 2 ? LC_OK : lc_grad_shape(g->b, *v, 2, dim, v);
}

static lc_status matmul_backward(const lc_backward *g)
{
    const lc_matmul_attr *t = g->attr;
    lc_desc a_desc = *g->b->desc(g->b->ctx, g->in[0]), b_desc = *g->b->desc(g->b->ctx, g->in[1]);
    lc_desc y = *g->b->desc(g->b->ctx, g->out[0]);
    lc_value a, b, dy = g->dy[0], dx;
    LC_TRY(as_matrix(g, 0, &a));
    LC_TRY(as_matrix(g, 1, &b));
    if (a_desc.rank < 2 || b_desc.rank < 2) { /* the axes of size 1 that the result has not */
        int rank = y.rank - (a_desc.rank > 1) - (b_desc.rank > 1);
        int64_t dim[LC_MAX_RANK];
        memcpy(dim, y.dim, sizeof dim);
        dim[rank] = a_rows(t, &a_desc);
        dim[rank + 1] = b_columns(t, &b_desc);
        LC_TRY(lc_grad_shape(g->b, dy, rank + 2, dim, &dy));
    }
    if (g->needs[0]) {
        lc_matmul_attr attr = {t->transpose_a ? t->transpose_b : 0,
                               t->transpose_a ? 1 : !t->transpose_b};
        lc_value in[2] = {t->transpose_a ? b : dy, t->transpose_a ? dy : b};
        LC_TRY(lc_grad_node(g->b, &lc_op_matmul, &attr, 2, in, &dx));
        LC_TRY(reduce_to(g, dx, g->in[0], &g->dx[0]));
    }
    if (g->needs[1]) {
        if (b_desc.rank == 2 && !t->transpose_a) { /* sums over a batch inside of the product */
            LC_TRY(flatten(g, &a));
            LC_TRY(flatten(g, &dy));
        }
        lc_matmul_attr attr = {t->transpose_b ? 1 : !t->transpose_a,
                               t->transpose_b ? t->transpose_a : 0};
        lc_value in[2] = {t->transpose_b ? dy : a, t->transpose_b ? a : dy};
        LC_TRY(lc_grad_node(g->b, &lc_op_matmul, &attr, 2, in, &dx));
        LC_TRY(reduce_to(g, dx, g->in[1], &g->dx[1]));
    }
    return LC_OK;
}

const lc_op lc_op_matmul = {
    .name = "matmul",
    .attr_size = sizeof(lc_matmul_attr),
    .infer = matmul_infer,
    .prepare = matmul_prepare,
    .run = matmul_run,
    .backward = matmul_backward,
    .macs = matmul_macs,
};
