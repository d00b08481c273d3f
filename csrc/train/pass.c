#include "train/pass.h"

#include "base/mem.h"
#include "base/threads.h"

/* Elements that are worth a thread of their own: below, starting a team costs more. */
#define THREAD_WORK 65536

lc_status lc_pass_create(lc_pass *pass)
{
    pass->row = lc_alloc_zero((size_t)pass->rows * sizeof *pass->row);
    return pass->row ? LC_OK : LC_ERR_MEMORY;
}

static lc_status check_slot(const lc_pass_row *row, const lc_slot *slot)
{
    const lc_desc *wanted = lc_param_desc(row->slot[0].param), *given = lc_param_desc(slot->param);
    if (given->dtype != LC_F32)
        return lc_fail(LC_ERR_TYPE, "only float32 tensors are trained");
    if (!lc_desc_same_shape(wanted, given)) {
        char a[LC_SHAPE_TEXT], b[LC_SHAPE_TEXT];
        return lc_fail(LC_ERR_VALUE, "a parameter of shape %s has a state of shape %s",
                       lc_shape_text(wanted, a), lc_shape_text(given, b));
    }
    return LC_OK;
}

static lc_status open_slot(lc_slot *slot, lc_slot_use use, size_t bytes)
{
    bool grad = use == LC_SLOT_READ_GRAD || use == LC_SLOT_WRITE_GRAD;
    bool write = use == LC_SLOT_WRITE || use == LC_SLOT_WRITE_NEW || use == LC_SLOT_WRITE_GRAD;
    if (grad) {
        slot->held = lc_param_grad(slot->param);
        if (!slot->held)
            return LC_OK;
    } else if (use == LC_SLOT_WRITE_NEW) {
        uint64_t stamp;
        lc_param_snapshot(slot->param, &slot->held, &stamp);
    } else {
        LC_TRY(lc_param_storage(slot->param, &slot->held));
    }
    if (slot->held && !(slot->in = lc_storage_data(slot->held)))
        return LC_ERR_MEMORY;
    if (!write)
        return LC_OK;
    /* The parameter and this slot are the two holders that may be. */
    lc_storage *to = slot->held;
    if (!to || !lc_storage_is_exclusive(to, 2)) {
        LC_TRY(lc_storage_create(bytes, &slot->fresh));
        to = slot->fresh;
    }
    slot->out = lc_storage_data(to);
    return LC_OK;
}

lc_status lc_pass_begin(lc_pass *pass)
{
    for (int i = 0; i < pass->rows; i++) {
        lc_pass_row *row = &pass->row[i];
        const lc_desc *d = lc_param_desc(row->slot[0].param);
        row->n = lc_desc_count(d);
        row->start = pass->n;
        row->piece = pass->pieces;
        pass->n += row->n;
        pass->pieces += (row->n + LC_PASS_PIECE - 1) / LC_PASS_PIECE;
        for (int k = 0; k < pass->slots; k++)
            if (row->slot[k].param) {
                LC_TRY(check_slot(row, &row->slot[k]));
                LC_TRY(open_slot(&row->slot[k], pass->use[k], lc_desc_bytes(d)));
            }
    }
    if (pass->sums && !(pass->sum = lc_alloc_zero((size_t)pass->pieces * sizeof *pass->sum)))
        return LC_ERR_MEMORY;
    return LC_OK;
}

/* The pieces that begin at elements [begin, end) of all rows together: a thread's share, a fixed
 * function of the rows and the team. */
static void run_share(const lc_pass *pass, int phase, int64_t begin, int64_t end)
{
    for (int i = 0; i < pass->rows; i++) {
        const lc_pass_row *row = &pass->row[i];
        if (row->start >= end || row->start + row->n <= begin)
            continue;
        int64_t skipped = begin > row->start ? begin - row->start : 0;
        int64_t number = (skipped + LC_PASS_PIECE - 1) / LC_PASS_PIECE;
        for (int64_t at = number * LC_PASS_PIECE; at < row->n && row->start + at < end;
             at += LC_PASS_PIECE, number++) {
            int64_t n = row->n - at < LC_PASS_PIECE ? row->n - at : LC_PASS_PIECE;
            double *sum = pass->sum ? pass->sum[row->piece + number] : NULL;
            pass->phase[phase](pass, row, at, n, sum);
        }
    }
}

static void add_up(const lc_pass *pass, lc_pass_row *row)
{
    int64_t end = row->piece + (row->n + LC_PASS_PIECE - 1) / LC_PASS_PIECE;
    for (int64_t i = row->piece; i < end; i++) {
        row->sum[0] += pass->sum[i][0];
        row->sum[1] += pass->sum[i][1];
    }
}

static void team_main(void *ctx, int tid, int team)
{
    const lc_pass *pass = ctx;
    int64_t begin, end;
    lc_share(pass->n, tid, team, &begin, &end);
    run_share(pass, 0, begin, end);
    if (pass->sums) {
        int64_t i, last;
        lc_barrier();
        lc_share(pass->rows, tid, team, &i, &last);
        for (; i < last; i++)
            add_up(pass, &pass->row[i]);
    }
    if (pass->phase[1]) {
        lc_barrier();
        run_share(pass, 1, begin, end);
    }
}

void lc_pass_run(lc_pass *pass)
{
    int64_t want = 1 + pass->n / THREAD_WORK;
    int got = lc_threads_acquire(want < LC_MAX_THREADS ? (int)want : LC_MAX_THREADS);
    lc_parallel(got, team_main, pass);
    lc_threads_release(got);
}

void lc_pass_end(lc_pass *pass)
{
    for (int i = 0; i < pass->rows; i++)
        for (int k = 0; k < pass->slots; k++) {
            const lc_slot *slot = &pass->row[i].slot[k];
            if (pass->use[k] == LC_SLOT_WRITE_GRAD) {
                if (slot->fresh)
                    lc_param_set_grad(slot->param, slot->fresh);
            } else if (slot->fresh) {
                lc_param_replace(slot->param, slot->fresh);
            } else if (slot->out) {
                lc_param_touch(slot->param);
            }
        }
}

void lc_pass_destroy(lc_pass *pass)
{
    for (int i = 0; pass->row && i < pass->rows; i++)
        for (int k = 0; k < pass->slots; k++) {
            lc_storage_release(pass->row[i].slot[k].held);
            lc_storage_release(pass->row[i].slot[k].fresh);
        }
    lc_free(pass->sum);
    lc_free(pass->row);
}
