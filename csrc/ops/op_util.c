#include "ops/op_util.h"

#include "base/cpu.h"
#include "base/mem.h"

int64_t lc_units_set(lc_units *u, int64_t count, int64_t work)
{
    int64_t each = LC_ITEM_WORK / (work > 0 ? work : 1);
    u->count = count;
    u->each = each > 0 ? each : 1;
    return (count + u->each - 1) / u->each;
}

void lc_units_range(const lc_units *u, int64_t begin, int64_t end, int64_t *first, int64_t *last)
{
    *first = begin * u->each;
    *last = end * u->each < u->count ? end * u->each : u->count;
}

int64_t lc_pixel_part(int64_t pixels, int64_t lanes, int64_t *parts)
{
    int64_t most = lanes < LC_ITEM_WORK ? LC_ITEM_WORK / lanes : 1;
    int64_t part = pixels < most ? pixels : most;
    *parts = part ? (pixels + part - 1) / part : 0;
    return part;
}

int64_t lc_count_mul(int64_t a, int64_t b)
{
    return b > 0 && a > INT64_MAX / b ? INT64_MAX : a * b;
}

int64_t lc_count_add(int64_t a, int64_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

const char *lc_dtype_name(int32_t dtype)
{
    return dtype == LC_F32 ? "float32" : dtype == LC_I64 ? "int64" : "packed weights";
}

lc_status lc_check_inputs(const char *op, int n_in, int expected)
{
    if (n_in != expected)
        return lc_fail(LC_ERR_VALUE, "%s: takes %d input%s, not %d", op, expected,
                       expected == 1 ? "" : "s", n_in);
    return LC_OK;
}

lc_status lc_check_f32(const char *op, const char *arg, const lc_desc *d)
{
    if (d->dtype != LC_F32)
        return lc_fail(LC_ERR_TYPE, "%s: %s must be float32, not %s", op, arg,
                       lc_dtype_name(d->dtype));
    return LC_OK;
}

lc_status lc_check_rank(const char *op, const char *arg, const lc_desc *d, int lowest, int highest)
{
    char text[LC_SHAPE_TEXT];
    if (d->rank >= lowest && d->rank <= highest)
        return LC_OK;
    if (lowest == highest)
        return lc_fail(LC_ERR_VALUE, "%s: %s must have %d dimensions, not %d: its shape is %s", op,
                       arg, lowest, d->rank, lc_shape_text(d, text));
    return lc_fail(LC_ERR_VALUE, "%s: %s must have %d to %d dimensions, not %d: its shape is %s",
                   op, arg, lowest, highest, d->rank, lc_shape_text(d, text));
}

lc_status lc_check_movable(const char *op, const lc_desc *d)
{
    if (d->dtype != LC_F32 && d->dtype != LC_I64)
        return lc_fail(LC_ERR_TYPE, "%s: x must be float32 or int64, not %s", op,
                       lc_dtype_name(d->dtype));
    return LC_OK;
}

int lc_block_channels(const lc_desc *d, int64_t b, int64_t *first)
{
    int block = d->layout.block;
    int64_t each = d->dim[1] / d->layout.groups, per_group = (each + block - 1) / block;
    if (!per_group) /* no channels */
        return 0;
    int64_t in_group = b % per_group * block;
    *first = b / per_group * each + in_group;
    return each - in_group < block ? (int)(each - in_group) : block;
}

void lc_pick_blocks(lc_vec_pick *pick, int64_t from[LC_MAX_BLOCK], const lc_desc *in,
                    const lc_desc *out, int64_t b)
{
    const int block = out->layout.block;
    int64_t first = 0;
    const int valid = lc_block_channels(out, b, &first);
    pick->sources = 0;
    for (int l = 0; l < block; l++) {
        pick->source[l] = -1;
        if (l >= valid)
            continue;
        const int64_t slot = lc_desc_channel_slot(in, first + l);
        if (!pick->sources || slot / block != from[pick->sources - 1])
            from[pick->sources++] = slot / block;
        pick->source[l] = pick->sources - 1;
        pick->lane[l] = (int32_t)(slot % block);
    }
}

bool lc_has_pads(const lc_desc *d)
{
    return d->layout.block > 1 && lc_desc_padded_channels(d) != d->dim[1];
}

void lc_clear_pads(const lc_desc *d, float *data, int64_t begin, int64_t end)
{
    int block = d->layout.block;
    int64_t plane = d->dim[2] * d->dim[3] * block, blocks = lc_block_count(d), first;
    while (begin < end) {
        int64_t b = begin / plane, stop = (b + 1) * plane < end ? (b + 1) * plane : end;
        int valid = lc_block_channels(d, b % blocks, &first);
        if (valid < block)
            for (int64_t i = begin; i < stop; i += block)
                for (int l = valid; l < block; l++)
                    data[i + l] = 0.0f;
        begin = stop;
    }
}

bool lc_streams(const lc_step *step, const lc_desc *y)
{
    return y->layout.block == step->kernels->block && lc_desc_bytes(y) > lc_cpu_get()->l3 / 8;
}

bool lc_is_aligned(const void *p)
{
    return (uintptr_t)p % LC_ALIGN == 0;
}

int64_t lc_memory_floats(const lc_desc *d)
{
    return (int64_t)(lc_desc_bytes(d) / sizeof(float));
}
