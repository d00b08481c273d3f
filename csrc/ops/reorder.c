/* Between plain and channel-blocked memory, and between blocked layouts of different padding. */
#include <string.h>

#include "ops/op_util.h"
#include "ops/ops.h"

typedef struct prep {
    lc_units units;
    int64_t pixels, part, parts;
    int64_t planes; /* per image: blocks of the blocked side, of the output if both are */
} prep;

static lc_status infer(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out)
{
    (void)attr;
    LC_TRY(lc_check_inputs("reorder", n_in, 1));
    LC_TRY(lc_check_f32("reorder", "x", &in[0]));
    LC_TRY(lc_check_rank("reorder", "x", &in[0], 4, 4));
    *n_out = 1;
    return lc_desc_init(&out[0], LC_F32, in[0].rank, in[0].dim);
}

/* The pass that inserts it decides; asked, it takes and gives what there is. */
static void layout(const lc_layout_query *q, lc_layout *in, lc_layout *out)
{
    in[0] = q->in[0].layout;
    out[0] = q->out[0].layout;
}

static bool is_view(const void *attr, int n_in, const lc_desc *in, const lc_desc *out)
{
    (void)attr, (void)n_in;
    return lc_layout_same_memory(in, in->layout, out->layout);
}

static lc_status prepare(lc_step *step)
{
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    LC_TRY(lc_step_prep(step, sizeof(prep)));
    prep *p = step->prep;
    if (x->layout.block > 1 && y->layout.block > 1 && x->layout.block != y->layout.block)
        return lc_fail(LC_ERR_RUNTIME, "reorder: from blocks of %d to blocks of %d",
                       x->layout.block, y->layout.block);
    const lc_desc *b = y->layout.block > 1 ? y : x;
    p->pixels = x->dim[2] * x->dim[3];
    p->planes = lc_block_count(b);
    p->part = lc_pixel_part(p->pixels, 2 * b->layout.block, &p->parts);
    step->items[0] =
        lc_units_set(&p->units, x->dim[0] * p->planes * p->parts, 2 * p->part * b->layout.block);
    return LC_OK;
}

/* Pixels [from, from + n) of block b of image i. */
static void between_blocks(const lc_step *step, const float *x, float *y, int64_t i, int64_t b,
                           int64_t from, int64_t n)
{
    const lc_desc *in = &step->in[0], *out = &step->out[0];
    const prep *p = step->prep;
    const int block = out->layout.block;
    int64_t blocks[LC_MAX_BLOCK];
    lc_vec_pick pick;
    lc_pick_blocks(&pick, blocks, in, out, b);
    for (int k = 0; k < pick.sources; k++)
        pick.x[k] = x + ((i * lc_block_count(in) + blocks[k]) * p->pixels + from) * block;
    y += ((i * p->planes + b) * p->pixels + from) * block;
    step->kernels->vec.pick(y, &pick, n, block);
}

static lc_status run(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end)
{
    (void)phase;
    const lc_desc *in = &step->in[0], *out = &step->out[0];
    const lc_vec_kernels *v = &step->kernels->vec;
    const prep *p = step->prep;
    const float *x = bind->in[0];
    float *y = bind->out[0];
    int64_t first, last;
    lc_units_range(&p->units, begin, end, &first, &last);
    for (int64_t u = first; u < last; u++) {
        int64_t plane = u / p->parts, from = u % p->parts * p->part;
        int64_t n = p->pixels - from < p->part ? p->pixels - from : p->part;
        int64_t i = plane / p->planes, b = plane % p->planes, c = 0;
        if (in->layout.block > 1 && out->layout.block > 1) {
            between_blocks(step, x, y, i, b, from, n);
        } else if (out->layout.block > 1) {
            int block = out->layout.block, valid = lc_block_channels(out, b, &c);
            v->to_block(y + (plane * p->pixels + from) * block,
                        x + (i * in->dim[1] + c) * p->pixels + from, p->pixels, valid, n, block);
        } else if (in->layout.block > 1) {
            int block = in->layout.block, valid = lc_block_channels(in, b, &c);
            v->from_block(y + (i * in->dim[1] + c) * p->pixels + from, p->pixels,
                          x + (plane * p->pixels + from) * block, valid, n, block);
        } else {
            memcpy(y + plane * p->pixels + from, x + plane * p->pixels + from,
                   (size_t)n * sizeof *y);
        }
    }
    return LC_OK;
}

const lc_op lc_op_reorder = {
    .name = "reorder",
    .flags = LC_OP_CPU_ONLY_MOVE | LC_OP_PER_IMAGE,
    .infer = infer,
    .layout = layout,
    .is_view = is_view,
    .prepare = prepare,
    .run = run,
};
