#include <string.h>

#include "ops/matrix.h"
#include "ops/op_util.h"
#include "ops/ops.h"

/* a (..., M, K), b (..., K, N) as in numpy.matmul. Phase 0 packs b, phase 1 multiplies. */

typedef struct matmul_prep {
    lc_matrix matrix;
    int64_t batch;   /* products */
    int64_t b_count; /* matrices of b */
    int32_t rank;    /* of the batch dimensions */
    int64_t dim[LC_MAX_RANK], a_stride[LC_MAX_RANK],
        b_stride[LC_MAX_RANK]; /* strides count matrices */
    int64_t packed;            /* floats of one packed matrix of b */
} matmul_prep;

/* The matrix sizes of an operand: a vector counts as one row (a) or one column (b). */
static int64_t a_rows(const lc_desc *a)
{
    return a->rank < 2 ? 1 : a->dim[a->rank - 2];
}

static int64_t b_columns(const lc_desc *b)
{
    return b->rank < 2 ? 1 : b->dim[b->rank - 1];
}

static int64_t b_rows(const lc_desc *b)
{
    return b->rank < 2 ? b->dim[0] : b->dim[b->rank - 2];
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
    (void)attr;
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
    if (a->dim[a->rank - 1] != b_rows(b))
        return lc_fail(LC_ERR_VALUE, "matmul: shapes %s and %s do not fit: %lld columns, %lld rows",
                       at, bt, (long long)a->dim[a->rank - 1], (long long)b_rows(b));
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
        dim[rank++] = a_rows(a);
    if (b->rank > 1)
        dim[rank++] = b_columns(b);
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, rank, dim);
}

static lc_status matmul_prepare(lc_step *step)
{
    const lc_desc *a = &step->in[0], *b = &step->in[1];
    const int block = step->kernels->block;
    LC_TRY(lc_step_prep(step, sizeof(matmul_prep)));
    matmul_prep *p = step->prep;
    int ra = batch_rank(a), rb = batch_rank(b);
    int64_t m = a_rows(a), a_count = 1, b_count = 1;
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
    if (b_count == 1 &&
        a_count == p->batch) { /* one b for all: the matrices of a are one tall matrix */
        m *= p->batch;
        p->batch = 1;
        p->rank = 0;
    }
    p->b_count = b_count;
    p->matrix = lc_matrix_plan(m, b_columns(b), b_rows(b), p->batch, step->threads, block);
    p->packed = lc_matrix_packed_floats(&p->matrix, block);
    bool empty = m == 0 || p->matrix.n == 0 || p->batch == 0;
    step->phases = 2;
    step->items[0] = empty ? 0 : p->b_count * p->matrix.panels;
    step->items[1] = empty ? 0 : p->batch * p->matrix.tiles * p->matrix.splits;
    step->shared_bytes = (size_t)(p->b_count * p->packed) * sizeof(float);
    step->algorithm = step->kernels->conv.dense_name;
    return LC_OK;
}

static lc_status matmul_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                            int64_t end)
{
    const matmul_prep *p = step->prep;
    const lc_matrix *mat = &p->matrix;
    float *packed = bind->shared;
    const int64_t each = mat->tiles * mat->splits;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0) {
            int64_t i = item / mat->panels, panel = item % mat->panels;
            const float *b = (const float *)bind->in[1] + i * mat->k * mat->n;
            lc_matrix_pack_panel(mat, step->kernels->block, panel, packed + i * p->packed, b,
                                 mat->n, 1);
            continue;
        }
        int64_t product = item / each, rest = product, ia = 0, ib = 0;
        for (int i = p->rank - 1; i >= 0; i--) {
            ia += rest % p->dim[i] * p->a_stride[i];
            ib += rest % p->dim[i] * p->b_stride[i];
            rest /= p->dim[i];
        }
        lc_matrix_item(
            mat, step->kernels, item % each, (float *)bind->out[0] + product * mat->m * mat->n,
            (const float *)bind->in[0] + ia * mat->m * mat->k, packed + ib * p->packed, NULL);
    }
    return LC_OK;
}

static int64_t matmul_macs(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr;
    (void)n_in;
    return lc_count_mul(lc_desc_count(&out[0]), in[0].dim[in[0].rank - 1]);
}

const lc_op lc_op_matmul = {
    .name = "matmul",
    .attr_size = 0,
    .infer = matmul_infer,
    .prepare = matmul_prepare,
    .run = matmul_run,
    .macs = matmul_macs,
};
