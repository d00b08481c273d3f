#include "ops/conv2d_winograd.h"

#include <string.h>

#include "ops/conv_form.h"
#include "ops/op_util.h"

/* The parts of V and M, one per position, should not start at the same place in the sets of the L1
 * cache. */
#define SKEW 16

/* Tiles per block: at least so many, even if V then leaves the L2 cache, since the weights are read
 * once per block (+ 25 % at 256 channels of 14x14). */
#define MIN_BLOCK 16
/* Late: the filters are transformed once per block, which costs more than reading V from the next
 * cache. Blocks twice as large: resnet_34, eight images, 1.03 to 1.04 times as fast. */
#define LATE_BLOCKS 2

typedef struct winograd_prep {
    lc_conv_form form;
    lc_winograd_run run; /* what is the same for all calls */
    bool add, stream;
    int64_t tiles;  /* of all images */
    int64_t blocks; /* parts into which those are cut */
    int64_t splits; /* parts into which the panels are cut, each an item of its own */
    int64_t x_group, v_floats, m_floats, late_floats;
    int64_t slot_each, slot_padded; /* channels of an output group of the layout: valid, padded */
} winograd_prep;

static int64_t tiles_of_plane(const lc_winograd_run *r)
{
    const lc_winograd_form *f = r->form;
    if (f->parts > 1)
        return lc_ceil_div(r->oh * r->ow, f->parts);
    return lc_ceil_div(r->oh, f->tile) * lc_ceil_div(r->ow, f->tile);
}

static void arrange_pixels(const lc_winograd_run *r, int64_t first, lc_winograd_place *place)
{
    const int parts = r->form->parts;
    const int64_t plane = tiles_of_plane(r);
    lc_winograd_place p = {first / plane, 0, first % plane * parts, 1, parts};
    for (int64_t i = 0; i < r->tiles; i++, p.ow += parts) {
        if (p.ow >= r->oh * r->ow)
            p = (lc_winograd_place){p.n + 1, 0, 0, 1, parts};
        place[i] = p;
    }
}

/* An axis of outputs, cut into tiles. */
typedef struct axis {
    int64_t size, tiles, whole;
    int tile;
} axis;

static axis axis_of(int64_t size, int tile)
{
    return (axis){size, lc_ceil_div(size, tile), lc_winograd_whole(size, tile), tile};
}

/* Where the k-th tile begins; *outputs: how many it has. */
static int64_t tile_begin(const axis *a, int64_t k, int32_t *outputs)
{
    const int64_t begin = k * (a->tile - 1) + lc_min64(k, a->whole);
    *outputs = (int32_t)lc_min64(a->size - begin, k < a->whole ? a->tile : a->tile - 1);
    return begin;
}

void lc_winograd_arrange(lc_winograd_run *r, int64_t first, lc_winograd_place *place)
{
    static const bool order[4][2] = {{false, true}, {true, true}, {true, false}, {false, false}};
    r->place = place;
    for (int i = 0; i < 4; i++)
        r->taking[i] = (lc_winograd_range){0, r->tiles};
    if (r->form->parts > 1) {
        arrange_pixels(r, first, place);
        return;
    }
    const axis rows = axis_of(r->oh, r->form->tile), columns = axis_of(r->ow, r->form->tile);
    int64_t begin[4], placed = 0;
    for (int k = 0; k < 4; k++) {
        lc_winograd_place p = {.n = first / (rows.tiles * columns.tiles)};
        int64_t row = first / columns.tiles % rows.tiles, column = first % columns.tiles;
        begin[k] = placed;
        for (int64_t i = 0; i < r->tiles; i++) {
            if ((row < rows.whole) == order[k][0] && (column < columns.whole) == order[k][1]) {
                p.oh = tile_begin(&rows, row, &p.rows);
                p.ow = tile_begin(&columns, column, &p.columns);
                place[placed++] = p;
            }
            if (++column < columns.tiles)
                continue;
            column = 0;
            if (++row == rows.tiles) {
                row = 0;
                p.n++;
            }
        }
    }
    r->taking[LC_WINOGRAD_LAST_ROW] = (lc_winograd_range){begin[1], begin[3]};
    r->taking[LC_WINOGRAD_LAST_COLUMN] = (lc_winograd_range){0, begin[2]};
    r->taking[LC_WINOGRAD_LAST_ROW | LC_WINOGRAD_LAST_COLUMN] =
        (lc_winograd_range){begin[1], begin[2]};
}

/* Cuts finer until there are enough items for the team: the larger of tiles and output channels
 * first, since every block of tiles reads all weights and every part of the panels makes V anew.
 * Then their number should be a multiple of the team's. */
static void share_out(winograd_prep *p, int threads, int64_t most_blocks)
{
    const lc_conv_form *f = &p->form;
    const int64_t want = threads == 1 ? 1 : 4 * (int64_t)threads;
    const bool tiles_first = p->tiles > 2 * f->panels * p->run.block;
    for (int turn = 0; turn < 2; turn++) {
        const int64_t have = f->groups * p->blocks * p->splits, factor = lc_ceil_div(want, have);
        if (factor <= 1)
            break;
        if (tiles_first == (turn == 0))
            p->blocks = lc_max64(p->blocks, lc_min64(most_blocks, p->blocks * factor));
        else
            p->splits = lc_min64(f->panels, p->splits * factor);
    }
    for (int64_t b = p->blocks; b < p->blocks + threads && b <= most_blocks; b++)
        if (f->groups * b * p->splits % threads == 0) {
            p->blocks = b;
            break;
        }
}

/* An item is a block of tiles of one group, which may be of several images, and a part of the panels;
 * its V and M are the thread's own. */
void lc_winograd_schedule(lc_step *step, int64_t l2)
{
    winograd_prep *p = step->prep;
    lc_winograd_run *r = &p->run;
    const lc_conv_form *f = &p->form;
    const int64_t block = r->block, px = step->kernels->winograd.tiles;
    const int64_t positions = r->form->positions, channels = r->blocks * block;
    const int64_t each = positions * (int64_t)sizeof(float);
    const int64_t longer = r->form->late ? LATE_BLOCKS : 1;
    const int64_t fit = lc_max64(l2 / (each * (channels + 2 * block)), MIN_BLOCK);
    const int64_t most = lc_min64(fit, (r->form->parts == 1 ? 4 : 16) * px);
    p->blocks = lc_ceil_div(p->tiles, longer * most);
    p->splits = 1;
    share_out(p, step->threads, lc_ceil_div(p->tiles, px));
    const int64_t tiles = lc_ceil_div(p->tiles, p->blocks);
    r->v_blk = tiles * block;
    r->v_pos = r->blocks * r->v_blk + SKEW;
    r->m_pos = tiles * 2 * block + SKEW;
    p->v_floats = positions * r->v_pos;
    p->m_floats = positions * r->m_pos;
    step->items[0] = f->groups * p->blocks * p->splits;
    const int64_t late = r->form->late ? positions * LC_WINOGRAD_LATE_POS(block) : 0;
    p->late_floats = late;
    step->thread_bytes = (size_t)(p->v_floats + p->m_floats + late) * sizeof(float) +
                         (size_t)tiles * sizeof(lc_winograd_place);
}

lc_status lc_winograd_prepare(lc_step *step)
{
    const lc_conv2d_attr *a = step->attr;
    const lc_desc *x = &step->in[0], *y = &step->out[0];
    const int block = step->kernels->block;
    LC_TRY(lc_step_prep(step, sizeof(winograd_prep)));
    winograd_prep *p = step->prep;
    p->form = lc_conv_form_get(&(lc_conv_shape){.groups = a->groups,
                                                .ic = x->dim[1],
                                                .oc = y->dim[1],
                                                .kh = a->kernel[0],
                                                .kw = a->kernel[1],
                                                .x = x->layout,
                                                .y = y->layout,
                                                .block = block,
                                                .algorithm = (int32_t)a->algorithm});
    const lc_winograd_form *form = lc_conv_winograd_form(a->algorithm);
    if (p->form.lanes || p->form.cb != block || form->folded != (x->layout.block == 1))
        return lc_fail(LC_ERR_RUNTIME, "conv2d: a layout that Winograd's algorithm cannot read");
    lc_winograd_run *r = &p->run;
    r->form = form;
    r->block = block;
    r->stride = a->stride[0];
    r->h = x->dim[2];
    r->w = x->dim[3];
    r->x_row = r->w * x->layout.block;
    r->x_blk = r->h * r->x_row;
    for (int i = 0; i < 2; i++)
        r->pad[i] = lc_conv_axis_get(a, i, a->kernel[i], 0).pad;
    if (form->up)
        r->pad[0] = r->pad[1] = 0; /* see kernels/winograd_kernels.h */
    r->blocks = p->form.ib / r->form->parts;
    const int64_t channels = x->dim[1] / a->groups * (form->folded ? 4 : 1);
    const int64_t padding = p->form.ib * block - channels;
    r->last = padding < block ? (int32_t)(block - padding) : block; /* else: within the group too */
    r->y_h = y->dim[2];
    r->y_w = y->dim[3];
    r->oh = form->up ? lc_ceil_div(r->y_h, 2) : r->y_h;
    r->ow = form->up ? lc_ceil_div(r->y_w, 2) : r->y_w;
    r->y_row = r->y_w * block;
    r->y_vec = r->y_h * r->y_row;
    r->relu = (a->flags & LC_CONV_RELU) != 0;
    r->y_part = p->form.ob / r->form->parts * r->y_vec;
    r->bias_part = p->form.ob / r->form->parts * block;
    p->add = (a->flags & LC_CONV_ADD) != 0;
    p->stream = !p->add && lc_streams(step, y);
    p->tiles = y->dim[0] * tiles_of_plane(r);
    p->x_group = (form->folded ? x->dim[1] : p->form.ib) * r->x_blk;
    r->x_image = p->x_group * p->form.groups;
    r->y_image = p->form.ob * r->y_vec * p->form.groups;
    p->slot_each = y->dim[1] / y->layout.groups;
    p->slot_padded = lc_ceil_div(p->slot_each, block) * block;
    step->algorithm = r->form->name;
    if (p->tiles == 0) {
        step->items[0] = 0;
        return LC_OK;
    }
    lc_winograd_schedule(step, (int64_t)lc_cpu_get()->l2);
    return LC_OK;
}

/* `held`: V of the item is in scratch already. */
static void run_item(const lc_step *step, const lc_bind *bind, int64_t item, bool held)
{
    const winograd_prep *p = step->prep;
    const lc_winograd_kernels *k = &step->kernels->winograd;
    const lc_conv_form *f = &p->form;
    const lc_winograd_kind kind = lc_winograd_kind_of(p->run.form);
    const int64_t split = item % p->splits, part = item / p->splits % p->blocks;
    const int64_t group = item / (p->splits * p->blocks);

    lc_winograd_run r = p->run;
    const int64_t tile = part * p->tiles / p->blocks;
    r.tiles = (part + 1) * p->tiles / p->blocks - tile;
    r.x = (const float *)bind->in[0] + group * p->x_group;
    r.v = bind->scratch;
    r.m = r.v + p->v_floats;
    r.late = r.m + p->m_floats;
    lc_winograd_arrange(&r, tile, (lc_winograd_place *)(r.late + p->late_floats));
    if (!held)
        k->input[kind](&r);
    const float *u =
        (const float *)bind->in[1] + group * (r.form->late ? f->ob : f->panels * 2) * f->w_ob;
    const float *bias = (const float *)((const char *)bind->in[1] + f->bias_at);
    const int64_t end = (split + 1) * f->panels / p->splits;
    for (int64_t panel = split * f->panels / p->splits; panel < end; panel++) {
        const int64_t block = group * f->ob + panel * 2, to = block * r.y_vec;
        r.u = u + panel * 2 * f->w_ob;
        r.nv = f->ob - panel * 2 < 2 ? 1 : 2;
        r.y = (float *)bind->out[0] + to;
        r.add = p->add ? (const float *)bind->in[2] + to : NULL;
        r.stream = p->stream && lc_is_aligned(bind->out[0]);
        r.bias = bias + block * r.block;
        for (int v = 0; v < r.nv; v++) {
            const int64_t left = p->slot_each - (block + v) * r.block % p->slot_padded;
            r.lanes[v] = (int32_t)lc_min64(left, r.block);
        }
        k->multiply[kind](&r);
        k->output[kind](&r);
    }
}

lc_status lc_winograd_run_items(const lc_step *step, const lc_bind *bind, int64_t begin,
                                int64_t end)
{
    const int64_t splits = ((const winograd_prep *)step->prep)->splits;
    for (int64_t item = begin; item < end; item++)
        run_item(step, bind, item, (item > begin || bind->follows) && item % splits != 0);
    return LC_OK;
}
