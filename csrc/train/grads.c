/* Gradients of many parameters at once, and averages of weights. */
#include <math.h>

#include "train/optim.h"
#include "train/pass.h"

/* A pass over the gradients that there are: begun and run, to be ended or not, and destroyed. */
static lc_status run_on_grads(lc_pass *pass, int n, lc_param *const *params)
{
    pass->slots = 1;
    pass->rows = n;
    LC_TRY(lc_pass_create(pass));
    pass->rows = 0;
    for (int i = 0; i < n; i++) {
        lc_storage *grad = lc_param_grad(params[i]);
        if (grad)
            pass->row[pass->rows++].slot[0].param = params[i];
        lc_storage_release(grad);
    }
    LC_TRY(lc_pass_begin(pass));
    lc_pass_run(pass);
    return LC_OK;
}

static void squares_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                          double *sum)
{
    (void)pass;
    sum[0] += lc_kernels_get()->train.squares(row->slot[0].in + first, n);
}

lc_status lc_grads_norm(int n, lc_param *const *params, double *norm)
{
    static const lc_slot_use use[] = {LC_SLOT_READ_GRAD};
    lc_pass pass = {.use = use, .phase = {squares_piece}, .sums = true};
    lc_status status = run_on_grads(&pass, n, params);
    if (status == LC_OK) {
        double total = 0.0;
        for (int i = 0; i < pass.rows; i++)
            total += pass.row[i].sum[0];
        *norm = sqrt(total);
    }
    lc_pass_destroy(&pass);
    return status;
}

static void scale_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                        double *sum)
{
    (void)sum;
    const lc_slot *g = &row->slot[0];
    lc_kernels_get()->vec.mul(g->out + first, g->in + first, pass->user, n, LC_SPAN_ALL,
                              LC_SPAN_ONE, 1);
}

static void clamp_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                        double *sum)
{
    (void)sum;
    const lc_slot *g = &row->slot[0];
    float limit = *(const float *)pass->user;
    lc_kernels_get()->vec.clamp(g->out + first, g->in + first, n, -limit, limit);
}

static lc_status change_grads(int n, lc_param *const *params, lc_piece_fn piece, float number)
{
    static const lc_slot_use use[] = {LC_SLOT_WRITE_GRAD};
    lc_pass pass = {.use = use, .phase = {piece}, .user = &number};
    lc_status status = run_on_grads(&pass, n, params);
    if (status == LC_OK)
        lc_pass_end(&pass);
    lc_pass_destroy(&pass);
    return status;
}

lc_status lc_grads_scale(int n, lc_param *const *params, double factor)
{
    return change_grads(n, params, scale_piece, (float)factor);
}

lc_status lc_grads_clamp(int n, lc_param *const *params, double limit)
{
    return change_grads(n, params, clamp_piece, (float)limit);
}

/* --- averages */

static void lerp_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                       double *sum)
{
    (void)sum;
    lc_kernels_get()->train.lerp(row->slot[0].out + first, row->slot[0].in + first,
                                 row->slot[1].in + first, n, *(const float *)pass->user);
}

static lc_status share(int n, lc_param *const *to, lc_param *const *from)
{
    lc_storage *s;
    for (int i = 0; i < n; i++) { /* after this loop nothing fails */
        if (!lc_desc_same_shape(lc_param_desc(to[i]), lc_param_desc(from[i])) ||
            lc_param_desc(to[i])->dtype != lc_param_desc(from[i])->dtype)
            return lc_fail(LC_ERR_VALUE, "tensor %d and its average have different shapes", i);
        LC_TRY(lc_param_storage(from[i], &s));
        lc_storage_release(s);
    }
    for (int i = 0; i < n; i++) {
        LC_TRY(lc_param_storage(from[i], &s));
        lc_param_replace(to[i], s);
        lc_storage_release(s);
    }
    return LC_OK;
}

lc_status lc_average_update(int n, lc_param *const *average, lc_param *const *source, double weight)
{
    static const lc_slot_use use[] = {LC_SLOT_WRITE, LC_SLOT_READ};
    float t = (float)weight;
    if (t == 1.0f)
        return share(n, average, source);
    lc_pass pass = {.rows = n, .slots = 2, .use = use, .phase = {lerp_piece}, .user = &t};
    LC_TRY(lc_pass_create(&pass));
    for (int i = 0; i < n; i++) {
        pass.row[i].slot[0].param = average[i];
        pass.row[i].slot[1].param = source[i];
    }
    lc_status status = lc_pass_begin(&pass);
    if (status == LC_OK) {
        lc_pass_run(&pass);
        lc_pass_end(&pass);
    }
    lc_pass_destroy(&pass);
    return status;
}
