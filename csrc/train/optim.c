#include "train/optim.h"

#include <math.h>

#include "train/pass.h"

/* What the rows of all optimizers have. */
enum { GRAD = 1, MOMENTUM = 2, FIRST = 2, SECOND = 3, LARGEST = 4 };

static lc_status begin(lc_pass *pass)
{
    LC_TRY(lc_pass_begin(pass));
    for (int i = 0; i < pass->rows; i++)
        if (!pass->row[i].slot[GRAD].in)
            return lc_fail(LC_ERR_VALUE, "parameter %d has no gradient", i);
    return LC_OK;
}

/* Begins, runs and ends a pass whose rows are filled in; destroys it in any case. */
static lc_status finish(lc_pass *pass)
{
    lc_status status = begin(pass);
    if (status == LC_OK) {
        lc_pass_run(pass);
        lc_pass_end(pass);
    }
    lc_pass_destroy(pass);
    return status;
}

/* The part of a row from `first` on. */
static lc_train_part part_of(const lc_pass_row *row, int64_t first, int64_t n)
{
    const lc_slot *s = row->slot;
#define AT(p) ((p) ? (p) + first : NULL)
    return (lc_train_part){n,
                           AT(s[GRAD].in),
                           AT(s[0].in),
                           AT(s[FIRST].in),
                           AT(s[SECOND].in),
                           AT(s[LARGEST].in),
                           AT(s[0].out),
                           AT(s[FIRST].out),
                           AT(s[SECOND].out),
                           AT(s[LARGEST].out)};
#undef AT
}

/* --- SGD */

static void sgd_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                      double *sum)
{
    (void)pass, (void)sum;
    const lc_sgd_options *o = row->user;
    lc_sgd_scalars s = {(float)o->lr,       o->maximize ? -1.0f : 1.0f,  (float)o->weight_decay,
                        (float)o->momentum, (float)(1.0 - o->dampening), o->nesterov};
    lc_train_part part = part_of(row, first, n);
    lc_kernels_get()->train.sgd(&part, &s);
}

lc_status lc_sgd_step(int n, const lc_sgd_row *rows)
{
    static const lc_slot_use use[] = {LC_SLOT_WRITE, LC_SLOT_READ_GRAD, LC_SLOT_WRITE_NEW};
    lc_pass pass = {.rows = n, .slots = 3, .use = use, .phase = {sgd_piece}};
    LC_TRY(lc_pass_create(&pass));
    for (int i = 0; i < n; i++) {
        lc_slot *s = pass.row[i].slot;
        s[0].param = s[GRAD].param = rows[i].param;
        s[MOMENTUM].param = rows[i].momentum;
        pass.row[i].user = rows[i].options;
    }
    return finish(&pass);
}

/* --- Adam, AdamW */

static void correct_bias(lc_adam_scalars *s, double beta1, double beta2, int64_t step)
{
    s->scale1 = (float)(1.0 / (1.0 - pow(beta1, (double)step)));
    s->scale2 = (float)(1.0 / sqrt(1.0 - pow(beta2, (double)step)));
}

static void adam_piece(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                       double *sum)
{
    (void)pass, (void)sum;
    const lc_adam_row *r = row->user;
    const lc_adam_options *o = r->options;
    lc_adam_scalars s = {.lr = (float)o->lr,
                         .sign = o->maximize ? -1.0f : 1.0f,
                         .decay = o->decoupled ? 0.0f : (float)o->weight_decay,
                         .shrink = o->decoupled ? (float)(1.0 - o->lr * o->weight_decay) : 1.0f,
                         .keep1 = (float)(1.0 - o->beta1),
                         .beta2 = (float)o->beta2,
                         .keep2 = (float)(1.0 - o->beta2),
                         .eps = (float)o->eps};
    correct_bias(&s, o->beta1, o->beta2, r->step);
    lc_train_part part = part_of(row, first, n);
    lc_kernels_get()->train.adam(&part, &s);
}

static const lc_slot_use adam_use[] = {LC_SLOT_WRITE, LC_SLOT_READ_GRAD, LC_SLOT_WRITE,
                                       LC_SLOT_WRITE, LC_SLOT_WRITE};

lc_status lc_adam_step(int n, const lc_adam_row *rows)
{
    lc_pass pass = {.rows = n, .slots = 5, .use = adam_use, .phase = {adam_piece}};
    LC_TRY(lc_pass_create(&pass));
    for (int i = 0; i < n; i++) {
        lc_slot *s = pass.row[i].slot;
        s[0].param = s[GRAD].param = rows[i].param;
        s[FIRST].param = rows[i].first;
        s[SECOND].param = rows[i].second;
        s[LARGEST].param = rows[i].largest;
        pass.row[i].user = &rows[i];
    }
    return finish(&pass);
}

/* --- LAMB */

#define LAMB_RUN 1024 /* elements whose direction is worked out before it is summed */

static lc_adam_scalars lamb_scalars(const lc_lamb_row *r)
{
    const lc_lamb_options *o = r->options;
    lc_adam_scalars s = {.lr = (float)o->lr,
                         .sign = o->maximize ? -1.0f : 1.0f,
                         .decay = (float)o->weight_decay,
                         .keep1 = (float)(1.0 - o->beta1),
                         .beta2 = (float)o->beta2,
                         .keep2 = (float)(1.0 - o->beta2),
                         .scale1 = 1.0f,
                         .scale2 = 1.0f,
                         .eps = (float)o->eps};
    if (o->bias_correction)
        correct_bias(&s, o->beta1, o->beta2, r->step);
    return s;
}

static void lamb_measure(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                         double *sum)
{
    (void)pass;
    const lc_train_kernels *k = &lc_kernels_get()->train;
    lc_adam_scalars s = lamb_scalars(row->user);
    float direction[LAMB_RUN];
    for (int64_t end = first + n; first < end; first += LAMB_RUN) {
        int64_t run = end - first < LAMB_RUN ? end - first : LAMB_RUN;
        lc_train_part part = part_of(row, first, run);
        part.p_out = direction;
        k->lamb_moments(&part, &s);
        sum[0] += k->squares(part.p, run);
        sum[1] += k->squares(direction, run);
    }
}

static void lamb_apply(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                       double *sum)
{
    (void)pass, (void)sum;
    const lc_lamb_row *r = row->user;
    lc_adam_scalars s = lamb_scalars(r);
    if ((r->options->weight_decay != 0.0 || r->options->always_adapt) && row->sum[0] > 0.0 &&
        row->sum[1] > 0.0)
        s.lr = (float)(r->options->lr * sqrt(row->sum[0] / row->sum[1]));
    lc_train_part part = part_of(row, first, n);
    part.m = part.m_out; /* what the first phase left there */
    part.v = part.v_out;
    lc_kernels_get()->train.lamb_apply(&part, &s);
}

lc_status lc_lamb_step(int n, const lc_lamb_row *rows)
{
    lc_pass pass = {
        .rows = n, .slots = 4, .use = adam_use, .phase = {lamb_measure, lamb_apply}, .sums = true};
    LC_TRY(lc_pass_create(&pass));
    for (int i = 0; i < n; i++) {
        lc_slot *s = pass.row[i].slot;
        s[0].param = s[GRAD].param = rows[i].param;
        s[FIRST].param = rows[i].first;
        s[SECOND].param = rows[i].second;
        pass.row[i].user = &rows[i];
    }
    return finish(&pass);
}

/* --- LARS */

static void lars_measure(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                         double *sum)
{
    (void)pass;
    const lc_train_kernels *k = &lc_kernels_get()->train;
    sum[0] += k->squares(row->slot[0].in + first, n);
    sum[1] += k->squares(row->slot[GRAD].in + first, n);
}

static void lars_apply(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                       double *sum)
{
    (void)pass, (void)sum;
    const lc_lars_options *o = row->user;
    double weights = sqrt(row->sum[0]), gradient = sqrt(row->sum[1]), lr = o->lr;
    if ((o->weight_decay != 0.0 || o->always_adapt) && weights > 0.0 && gradient > 0.0)
        lr *= o->trust_coeff * weights / (gradient + o->weight_decay * weights + o->eps);
    lc_train_part part = part_of(row, first, n);
    lc_sgd_scalars s = {.sign = o->maximize ? -1.0f : 1.0f,
                        .decay = (float)o->weight_decay,
                        .momentum = (float)o->momentum};
    if (part.m_out) { /* the rate goes into the momentum */
        s.lr = 1.0f;
        s.keep = (float)lr;
    } else {
        s.lr = (float)lr;
    }
    lc_kernels_get()->train.sgd(&part, &s);
}

lc_status lc_lars_step(int n, const lc_lars_row *rows)
{
    static const lc_slot_use use[] = {LC_SLOT_WRITE, LC_SLOT_READ_GRAD, LC_SLOT_WRITE};
    lc_pass pass = {
        .rows = n, .slots = 3, .use = use, .phase = {lars_measure, lars_apply}, .sums = true};
    LC_TRY(lc_pass_create(&pass));
    for (int i = 0; i < n; i++) {
        lc_slot *s = pass.row[i].slot;
        s[0].param = s[GRAD].param = rows[i].param;
        s[MOMENTUM].param = rows[i].momentum;
        pass.row[i].user = rows[i].options;
    }
    return finish(&pass);
}
