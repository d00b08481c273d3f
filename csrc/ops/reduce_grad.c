/* The gradient of max and min over any axes: dy, x, y -> dx.
 *
 * A unit is a strip of up to STRIP neighbouring outputs; it passes twice over what they reduce:
 * once to count the elements that equal the result, once to write. */
#include "ops/grad_ops.h"
#include "ops/grad_util.h"
#include "ops/op_util.h"

#define STRIP 128

typedef struct axes {
    int rank;
    int64_t count, dim[LC_MAX_RANK], stride[LC_MAX_RANK];
} axes;

typedef struct prep {
    lc_units units;
    axes kept, reduced;
    int64_t inner, strips; /* neighbouring outputs, strips of them */
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    const lc_reduce_attr *a = attr;
    lc_desc y;
    LC_TRY(lc_check_inputs("extreme_grad", n_in, 3));
    if (a->kind != LC_REDUCE_MAX && a->kind != LC_REDUCE_MIN)
        return lc_fail(LC_ERR_VALUE, "extreme_grad: no gradient of kind %u", a->kind);
    for (int i = 0; i < 3; i++)
        LC_TRY(lc_check_f32("extreme_grad", "an input", &in[i]));
    LC_TRY(lc_op_reduce.infer(attr, 1, &in[1], n_out, &y));
    if (lc_desc_count(&y) != lc_desc_count(&in[0]) || lc_desc_count(&y) != lc_desc_count(&in[2]))
        return lc_fail(LC_ERR_VALUE, "extreme_grad: dy or y has a wrong shape");
    return lc_desc_init(&out[0], LC_F32, in[1].rank, in[1].dim);
}

static void add_axis(axes *a, int64_t size, int64_t stride)
{
    a->dim[a->rank] = size;
    a->stride[a->rank++] = stride;
    a->count *= size;
}

static lc_status prepare(lc_step *step)
{
    const lc_reduce_attr *a = step->attr;
    const lc_desc *x = &step->in[1];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    p->kept.count = p->reduced.count = p->inner = 1;
    int64_t stride[LC_MAX_RANK], run = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        stride[i] = run;
        run *= x->dim[i];
    }
    int end = x->rank; /* from here on all is kept */
    while (end > 0 && !(a->axes >> (end - 1) & 1u))
        p->inner *= x->dim[--end];
    for (int i = 0; i < end; i++)
        add_axis(a->axes >> i & 1u ? &p->reduced : &p->kept, x->dim[i], stride[i]);
    p->strips = (p->inner + STRIP - 1) / STRIP;
    step->items[0] =
        lc_units_set(&p->units, p->kept.count * p->strips,
                     lc_count_mul(3 * p->reduced.count, p->inner < STRIP ? p->inner : STRIP));
    return LC_OK;
}

/* Steps to the next position; returns the change of the offset. */
static int64_t next(const axes *a, int64_t *at)
{
    int64_t change = 0;
    for (int i = a->rank - 1; i >= 0; i--) {
        change += a->stride[i];
        if (++at[i] < a->dim[i])
            return change;
        change -= a->dim[i] * a->stride[i];
        at[i] = 0;
    }
    return change;
}

static inline bool equal(float a, float b)
{
    return a == b || (a != a && b != b);
}

static void strip(const lc_step *step, float *dx, const float *dy, const float *x, const float *y,
                  int64_t n)
{
    const lc_reduce_attr *a = step->attr;
    const prep *p = step->prep;
    int64_t count[STRIP] = {0}, at[LC_MAX_RANK] = {0}, off = 0;
    for (int64_t r = 0; r < p->reduced.count && !a->to_first; r++, off += next(&p->reduced, at))
        for (int64_t i = 0; i < n; i++)
            count[i] += equal(x[off + i], y[i]);
    off = 0;
    for (int i = 0; i < LC_MAX_RANK; i++)
        at[i] = 0;
    for (int64_t r = 0; r < p->reduced.count; r++, off += next(&p->reduced, at))
        for (int64_t i = 0; i < n; i++) {
            bool hit = equal(x[off + i], y[i]);
            if (!a->to_first)
                dx[off + i] = hit ? dy[i] / (float)count[i] : 0.0f;
            else
                dx[off + i] = hit && count[i]++ == 0 ? dy[i] : 0.0f;
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
        int64_t kept = u / p->strips, from = u % p->strips * STRIP, rest = kept, off = from;
        for (int i = p->kept.rank - 1; i >= 0; i--) {
            off += rest % p->kept.dim[i] * p->kept.stride[i];
            rest /= p->kept.dim[i];
        }
        int64_t output = kept * p->inner + from;
        strip(step, (float *)bind->out[0] + off, (const float *)bind->in[0] + output,
              (const float *)bind->in[1] + off, (const float *)bind->in[2] + output,
              p->inner - from < STRIP ? p->inner - from : STRIP);
    }
    return LC_OK;
}

const lc_op lc_op_extreme_grad = {
    .name = "extreme_grad",
    .attr_size = sizeof(lc_reduce_attr),
    .infer = infer,
    .prepare = prepare,
    .run = run,
};

lc_status lc_extreme_backward(const lc_backward *g)
{
    return lc_grad_node(g->b, &lc_op_extreme_grad, g->attr, 3,
                        (lc_value[]){g->dy[0], g->in[0], g->out[0]}, &g->dx[0]);
}
