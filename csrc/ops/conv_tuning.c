/* The table of measured layers: guarded by LC_LOCK_TUNING, but for its version. */
#include "ops/conv_tuning.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"

static lc_conv_tuned_layer *table;
static int count;
static _Atomic uint32_t version;

uint32_t lc_tuning_version(void)
{
    return atomic_load(&version);
}

void lc_conv_tuning_key(const lc_conv2d_attr *a, const lc_desc *in, int64_t key[LC_CONV_KEY])
{
    const lc_desc *x = &in[0], *w = &in[1];
    const int64_t numbers[LC_CONV_KEY] = {
        x->dim[1], w->dim[0], w->dim[2], w->dim[3],       a->stride[0],    a->stride[1],
        a->pad[0], a->pad[1], a->pad[2], a->pad[3],       a->dilation[0],  a->dilation[1],
        a->groups, x->dim[2], x->dim[3], x->layout.block, x->layout.groups};
    memcpy(key, numbers, sizeof numbers);
}

int lc_conv_tuning_find(const lc_conv2d_attr *attr, const lc_desc *in)
{
    int64_t key[LC_CONV_KEY];
    int found = -1;
    lc_conv_tuning_key(attr, in, key);
    lc_lock_take(LC_LOCK_TUNING);
    for (int i = 0; i < count && found < 0; i++)
        if (memcmp(table[i].key, key, sizeof key) == 0)
            found = (int)table[i].algorithm;
    lc_lock_give(LC_LOCK_TUNING);
    return found;
}

lc_status lc_conv_tuning_set(int n, const lc_conv_tuned_layer *layers)
{
    lc_conv_tuned_layer *fresh = NULL;
    if (n) {
        fresh = lc_alloc((size_t)n * sizeof *fresh);
        if (!fresh)
            return LC_ERR_MEMORY;
        memcpy(fresh, layers, (size_t)n * sizeof *fresh);
    }
    lc_lock_take(LC_LOCK_TUNING);
    lc_conv_tuned_layer *old = table;
    bool same = n == count && (n == 0 || memcmp(old, layers, (size_t)n * sizeof *old) == 0);
    table = fresh;
    count = n;
    if (!same)
        atomic_fetch_add(&version, 1);
    lc_lock_give(LC_LOCK_TUNING);
    lc_free(old);
    return LC_OK;
}
