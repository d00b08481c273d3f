#include "ops/strided.h"

#include <string.h>

void lc_plain_strides(const lc_desc *d, int64_t stride[LC_MAX_RANK])
{
    int64_t run = 1;
    for (int i = d->rank - 1; i >= 0; i--) {
        stride[i] = run;
        run *= d->dim[i];
    }
}

lc_status lc_strided_prepare(lc_step *step, const lc_desc *y, int64_t offset, const int64_t *stride)
{
    LC_TRY(lc_step_prep(step, sizeof(lc_strided)));
    lc_strided *p = step->prep;
    int64_t scale = y->dtype == LC_I64 ? 2 : 1;
    int n = 0;
    p->words = lc_desc_count(y) * scale;
    p->offset = offset * scale;
    for (int i = 0; i <= y->rank; i++) { /* the last one: the words of an element */
        int64_t size = i < y->rank ? y->dim[i] : scale, s = i < y->rank ? stride[i] * scale : 1;
        if (size == 1)
            continue;
        if (n > 0 && p->stride[n - 1] == s * size) {
            p->dim[n - 1] *= size;
            p->stride[n - 1] = s;
        } else {
            p->dim[n] = size;
            p->stride[n] = s;
            n++;
        }
    }
    if (n == 0) {
        p->dim[0] = p->stride[0] = 1;
        n = 1;
    }
    p->rank = n;
    step->items[0] = lc_units_set(&p->units, (p->words + LC_STRIDED_UNIT - 1) / LC_STRIDED_UNIT,
                                  2 * LC_STRIDED_UNIT);
    return LC_OK;
}

static void copy_run(float *y, const float *x, int64_t stride, int64_t n)
{
    if (stride == 1)
        memcpy(y, x, (size_t)n * sizeof *y);
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i * stride];
}

lc_status lc_strided_run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                         int64_t end)
{
    (void)phase;
    const lc_strided *p = step->prep;
    int64_t first, last, at[LC_MAX_RANK + 1];
    lc_units_range(&p->units, begin, end, &first, &last);
    first *= LC_STRIDED_UNIT;
    last = last * LC_STRIDED_UNIT < p->words ? last * LC_STRIDED_UNIT : p->words;
    if (first >= last)
        return LC_OK;
    int inner = p->rank - 1;
    const float *x = (const float *)bind->in[0] + p->offset;
    float *y = bind->out[0];
    int64_t rest = first, from = 0;
    for (int i = inner; i >= 0; i--) {
        at[i] = rest % p->dim[i];
        rest /= p->dim[i];
        from += at[i] * p->stride[i];
    }
    while (first < last) {
        int64_t n =
            p->dim[inner] - at[inner] < last - first ? p->dim[inner] - at[inner] : last - first;
        copy_run(y + first, x + from, p->stride[inner], n);
        first += n;
        at[inner] += n;
        from += n * p->stride[inner];
        for (int i = inner; i > 0 && at[i] == p->dim[i]; i--) { /* carry */
            at[i] = 0;
            at[i - 1]++;
            from += p->stride[i - 1] - p->dim[i] * p->stride[i];
        }
    }
    return LC_OK;
}
