#include "graph/space.h"

#include "base/mem.h"

#define BLOCK_BYTES ((size_t)16 << 20)

static char *end_of(const lc_space *s)
{
    return (char *)s->data + s->bytes;
}

/* Takes space i out of the list and puts it to one that it touches. */
static void join(lc_spaces *all, int i, lc_space *to)
{
    const lc_space from = all->left[i];
    all->left[i] = all->left[--all->n];
    if (from.data < to->data)
        to->data = from.data;
    to->bytes += from.bytes;
    lc_storage_release(from.slab); /* the other one holds it too */
}

void lc_spaces_add(lc_spaces *all, lc_space space)
{
    if (!space.slab)
        return;
    for (int i = all->n - 1; i >= 0; i--) {
        const lc_space *s = &all->left[i];
        if (s->slab == space.slab && (end_of(s) == space.data || end_of(&space) == s->data))
            join(all, i, &space);
    }
    if (lc_grow((void **)&all->left, sizeof *all->left, all->n, &all->capacity))
        all->left[all->n++] = space;
    else
        lc_space_drop(space);
}

/* The smallest space that has room, or NULL. */
static lc_space *find(lc_spaces *all, size_t bytes)
{
    lc_space *best = NULL;
    for (lc_space *s = all->left; s < all->left + all->n; s++)
        if (s->bytes >= bytes && (!best || s->bytes < best->bytes))
            best = s;
    return best;
}

lc_status lc_spaces_expect(lc_spaces *all, size_t bytes)
{
    size_t taken;
    if (lc_space_bytes(bytes, &taken) && lc_size_add(all->wanted, taken, &all->wanted))
        return LC_OK;
    return lc_fail(LC_ERR_MEMORY, "packed weights exceed the address space");
}

static lc_status new_block(lc_spaces *all, size_t at_least)
{
    lc_space block = {.bytes = all->wanted < BLOCK_BYTES ? all->wanted : BLOCK_BYTES};
    if (block.bytes < at_least)
        block.bytes = at_least;
    LC_TRY(lc_storage_create(block.bytes, &block.slab));
    block.data = lc_storage_data(block.slab);
    lc_spaces_add(all, all->fresh);
    all->fresh = block;
    return LC_OK;
}

lc_status lc_spaces_take(lc_spaces *all, size_t bytes, lc_storage **out, bool *used)
{
    size_t taken;
    (void)lc_space_bytes(bytes, &taken);
    lc_space *space = find(all, taken);
    *used = space != NULL;
    if (!space) {
        space = &all->fresh;
        if (!space->slab || space->bytes < taken)
            LC_TRY(new_block(all, taken));
    }
    LC_TRY(lc_space_take(space, bytes, out));
    all->wanted -= taken;
    if (*used && space->bytes == 0) {
        lc_storage_release(space->slab);
        *space = all->left[--all->n];
    }
    return LC_OK;
}

void lc_spaces_clear(lc_spaces *all)
{
    while (all->n > 0)
        lc_space_drop(all->left[--all->n]);
    lc_space_drop(all->fresh);
    lc_free(all->left);
    *all = (lc_spaces){0};
}
