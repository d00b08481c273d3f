#include "ops/tensor_desc.h"

#include <stdio.h>
#include <string.h>

/* Elements of a tensor. Small enough that neither bytes nor padding to a block of 16 channels
 * can overflow. */
#define MAX_COUNT ((int64_t)1 << 52)

lc_status lc_desc_init(lc_desc *d, lc_dtype dtype, int rank, const int64_t *dim)
{
    memset(d, 0, sizeof *d);
    d->dtype = dtype;
    d->layout = LC_PLAIN;
    if (rank < 0 || rank > LC_MAX_RANK)
        return lc_fail(LC_ERR_VALUE, "a tensor has 0 to %d dimensions, not %d", LC_MAX_RANK, rank);
    d->rank = rank;
    int64_t count = 1; /* zeros left out: strides are products of some of the sizes */
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0)
            return lc_fail(LC_ERR_VALUE, "size %lld of dimension %d is negative", (long long)dim[i],
                           i);
        if (dim[i] > 0 && count > MAX_COUNT / dim[i])
            return lc_fail(LC_ERR_VALUE,
                           "a tensor of that shape is too large: size %lld of dimension %d",
                           (long long)dim[i], i);
        count *= dim[i] > 0 ? dim[i] : 1;
        d->dim[i] = dim[i];
    }
    return LC_OK;
}

int64_t lc_desc_count(const lc_desc *d)
{
    int64_t count = 1;
    for (int i = 0; i < d->rank; i++)
        count *= d->dim[i];
    return count;
}

size_t lc_desc_bytes(const lc_desc *d)
{
    if (d->dtype == LC_BLOB)
        return (size_t)d->dim[0];
    int64_t count = lc_desc_count(d);
    if (d->layout.block > 1)
        count = d->dim[0] * lc_desc_padded_channels(d) * d->dim[2] * d->dim[3];
    return (size_t)count * (d->dtype == LC_I64 ? sizeof(int64_t) : sizeof(float));
}

bool lc_desc_same_shape(const lc_desc *a, const lc_desc *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

bool lc_layout_equal(lc_layout a, lc_layout b)
{
    return a.block == b.block && a.groups == b.groups;
}

lc_layout lc_layout_blocked(int block, int64_t channels, int64_t groups)
{
    if (block <= 1)
        return LC_PLAIN;
    lc_layout shared = {block, 1};
    if (groups <= 1 || channels < groups || channels % groups != 0)
        return shared;
    int64_t each = channels / groups;
    return each % block == 0 || block % each == 0 ? shared : (lc_layout){block, (int32_t)groups};
}

/* Padded channels of each group, and the channels in it. */
static int64_t group_channels(const lc_desc *d, lc_layout l, int64_t *padded)
{
    int64_t each = d->dim[1] / l.groups;
    *padded = (each + l.block - 1) / l.block * l.block;
    return each;
}

static int64_t channel_slot(const lc_desc *d, lc_layout l, int64_t c)
{
    int64_t padded, each = group_channels(d, l, &padded);
    return l.groups == 1 ? c : c / each * padded + c % each;
}

static int64_t padded_channels(const lc_desc *d, lc_layout l)
{
    int64_t padded;
    group_channels(d, l, &padded);
    return padded * l.groups;
}

bool lc_layout_same_memory(const lc_desc *d, lc_layout a, lc_layout b)
{
    if (lc_layout_equal(a, b))
        return true;
    if (d->rank != 4 || d->dtype != LC_F32 || padded_channels(d, a) != padded_channels(d, b))
        return false;
    if (a.block != b.block && d->dim[2] * d->dim[3] != 1)
        return false;
    if (a.groups == b.groups)
        return true;
    for (int64_t c = 0; c < d->dim[1]; c++)
        if (channel_slot(d, a, c) != channel_slot(d, b, c))
            return false;
    return true;
}

int64_t lc_desc_padded_channels(const lc_desc *d)
{
    return padded_channels(d, d->layout);
}

int64_t lc_desc_channel_slot(const lc_desc *d, int64_t c)
{
    return channel_slot(d, d->layout, c);
}

const char *lc_shape_text(const lc_desc *d, char buf[LC_SHAPE_TEXT])
{
    size_t at = 0;
    buf[at++] = '(';
    for (int i = 0; i < d->rank; i++)
        at += (size_t)snprintf(buf + at, LC_SHAPE_TEXT - at, "%s%lld", i ? ", " : "",
                               (long long)d->dim[i]);
    snprintf(buf + at, LC_SHAPE_TEXT - at, d->rank == 1 ? ",)" : ")");
    return buf;
}
