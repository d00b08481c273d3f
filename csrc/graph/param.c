#include "graph/param.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"

struct lc_storage {
    atomic_int refs;
    size_t bytes;
    void (*release)(void *ctx);
    void *ctx;
    /* guarded by LC_LOCK_PACKS */
    void *data;       /* NULL: reduced */
    lc_storage *slab; /* the block that data lies in, or NULL: data is a block of its own */
    lc_residue *residue;
    int readers; /* loans */
    bool kept;   /* somebody has the address for good */
};

/* A packed form and what it was made from. */
typedef struct pack_entry {
    struct pack_entry *next;
    lc_storage *blob;
    const lc_op *op;
    lc_desc out;
    int n_stamps;
    uint64_t *stamps;    /* behind the struct */
    unsigned char *attr; /* behind the stamps */
} pack_entry;

struct lc_param {
    atomic_int refs;
    atomic_bool requires_grad;
    lc_desc desc;
    void *host;
    void (*release_host)(void *);
    /* guarded by LC_LOCK_PACKS */
    lc_storage *storage; /* NULL: not set yet */
    lc_storage *grad;    /* NULL: none */
    lc_storage *spare;   /* what a deleted gradient was in, for the next one; or NULL */
    uint64_t stamp;
    pack_entry *packs;
};

/* How many forms of one weight are kept: inference needs one per layout that its plans use. */
#define MAX_PACKS 4

static _Atomic uint64_t next_stamp = 1;

lc_status lc_storage_adopt(void *data, size_t bytes, void (*release)(void *ctx), void *ctx,
                           lc_storage **out)
{
    lc_storage *s = lc_alloc_zero(sizeof *s);
    if (!s)
        return LC_ERR_MEMORY;
    atomic_init(&s->refs, 1);
    s->data = data;
    s->bytes = bytes;
    s->release = release;
    s->ctx = ctx;
    *out = s;
    return LC_OK;
}

lc_status lc_storage_create(size_t bytes, lc_storage **out)
{
    void *data = lc_alloc(bytes);
    if (!data)
        return LC_ERR_MEMORY;
    lc_status status = lc_storage_adopt(data, bytes, NULL, NULL, out);
    if (status != LC_OK)
        lc_free(data);
    return status;
}

lc_status lc_storage_create_copy(const void *data, size_t bytes, lc_storage **out)
{
    LC_TRY(lc_storage_create(bytes, out));
    memcpy((*out)->data, data, bytes);
    return LC_OK;
}

/* Parts of a slab begin with a page, so that they can give back all of their pages. Smaller arrays
 * are blocks of their own, and not worth a residue. */
#define PAGE ((size_t)4096)
#define MIN_PART (16 * PAGE)

bool lc_space_bytes(size_t bytes, size_t *taken)
{
    const bool fits = lc_size_add(bytes, PAGE - 1, taken);
    *taken -= *taken % PAGE;
    return fits;
}

lc_status lc_space_take(lc_space *space, size_t bytes, lc_storage **out)
{
    size_t taken;
    (void)lc_space_bytes(bytes, &taken);
    LC_TRY(lc_storage_adopt(space->data, bytes, NULL, NULL, out));
    (*out)->slab = lc_storage_retain(space->slab);
    space->data = (char *)space->data + taken;
    space->bytes -= taken;
    return LC_OK;
}

lc_status lc_storage_create_many(int n, const size_t *bytes, lc_storage **out)
{
    lc_space slab = {0};
    for (int i = 0; i < n; i++) {
        size_t pages;
        if (bytes[i] >= MIN_PART &&
            !(lc_space_bytes(bytes[i], &pages) && lc_size_add(slab.bytes, pages, &slab.bytes)))
            return lc_fail(LC_ERR_MEMORY, "%d arrays exceed the address space", n);
    }
    LC_TRY(lc_storage_create(slab.bytes, &slab.slab));
    slab.data = slab.slab->data;
    lc_status status = LC_OK;
    int made = 0;
    for (; made < n && status == LC_OK; made += status == LC_OK)
        status = bytes[made] < MIN_PART ? lc_storage_create(bytes[made], &out[made])
                                        : lc_space_take(&slab, bytes[made], &out[made]);
    while (status != LC_OK && made > 0)
        lc_storage_release(out[--made]);
    lc_storage_release(slab.slab);
    return status;
}

void lc_storage_filled(const lc_storage *s)
{
    lc_filled(s->slab ? s->slab->data : s->data);
}

lc_storage *lc_storage_retain(lc_storage *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void lc_space_drop(lc_space space)
{
    if (!space.slab)
        return;
    lc_discard(space.data, space.bytes);
    lc_storage_release(space.slab);
}

/* Takes the contents out of a storage: a space, or none after a block of their own has been freed. */
static lc_space free_contents(void *data, size_t bytes, lc_storage *slab)
{
    lc_space space = {data, 0, slab};
    (void)lc_space_bytes(bytes, &space.bytes);
    if (!slab)
        lc_free(data);
    return space;
}

void lc_storage_release(lc_storage *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (s->release)
        s->release(s->ctx);
    else
        lc_space_drop(free_contents(s->data, s->bytes, s->slab));
    lc_residue_destroy(s->residue);
    lc_free(s);
}

size_t lc_storage_bytes(const lc_storage *s)
{
    return s->bytes;
}

bool lc_storage_is_exclusive(const lc_storage *s, int holders)
{
    return !s->release && atomic_load_explicit(&s->refs, memory_order_acquire) == holders;
}

static lc_status restore_locked(lc_storage *s)
{
    if (s->data)
        return LC_OK;
    void *data = lc_alloc(s->bytes);
    if (!data)
        return LC_ERR_MEMORY;
    lc_residue_restore(s->residue, data);
    s->data = data;
    s->slab = NULL;
    return LC_OK;
}

void *lc_storage_data(lc_storage *s)
{
    lc_residue *gone = NULL;
    lc_lock_take(LC_LOCK_PACKS);
    void *data = restore_locked(s) == LC_OK ? s->data : NULL;
    if (data) {
        s->kept = true;
        gone = s->residue;
        s->residue = NULL;
    }
    lc_lock_give(LC_LOCK_PACKS);
    lc_residue_destroy(gone);
    return data;
}

lc_status lc_storage_borrow(lc_storage *s, void **data)
{
    lc_lock_take(LC_LOCK_PACKS);
    lc_status status = restore_locked(s);
    if (status == LC_OK) {
        s->readers++;
        *data = s->data;
    }
    lc_lock_give(LC_LOCK_PACKS);
    return status;
}

bool lc_storage_wants_residue(const lc_storage *s)
{
    lc_lock_take(LC_LOCK_PACKS);
    bool wants = !s->kept && !s->release && s->readers == 1 && s->bytes >= MIN_PART;
    lc_lock_give(LC_LOCK_PACKS);
    return wants;
}

void lc_storage_give_back(lc_storage *s, lc_residue *r, lc_space *left)
{
    void *data = NULL;
    lc_storage *slab = NULL;
    lc_lock_take(LC_LOCK_PACKS);
    if (--s->readers == 0 && !s->kept && (r || s->residue)) {
        data = s->data;
        slab = s->slab;
        s->data = NULL;
        s->slab = NULL;
        if (r) { /* the newer one: the blob of the older one may be of no other use any more */
            lc_residue *older = s->residue;
            s->residue = r;
            r = older;
        }
    }
    lc_lock_give(LC_LOCK_PACKS);
    const lc_space space = data ? free_contents(data, s->bytes, slab) : (lc_space){0};
    if (left)
        *left = space;
    else
        lc_space_drop(space);
    lc_residue_destroy(r);
}

lc_status lc_param_create(lc_dtype dtype, int rank, const int64_t *dim, lc_param **out)
{
    lc_desc desc;
    LC_TRY(lc_desc_init(&desc, dtype, rank, dim));
    lc_param *p = lc_alloc_zero(sizeof *p);
    if (!p)
        return LC_ERR_MEMORY;
    atomic_init(&p->refs, 1);
    atomic_init(&p->requires_grad, true);
    p->desc = desc;
    p->stamp = atomic_fetch_add(&next_stamp, 1);
    *out = p;
    return LC_OK;
}

lc_param *lc_param_retain(lc_param *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

static void free_packs(pack_entry *e)
{
    while (e) {
        pack_entry *next = e->next;
        lc_storage_release(e->blob);
        lc_free(e);
        e = next;
    }
}

void lc_param_release(lc_param *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    lc_storage_release(p->storage);
    lc_storage_release(p->grad);
    lc_storage_release(p->spare);
    free_packs(p->packs);
    lc_free(p);
}

const lc_desc *lc_param_desc(const lc_param *p)
{
    return &p->desc;
}

uint64_t lc_param_stamp(const lc_param *p)
{
    lc_lock_take(LC_LOCK_PACKS);
    uint64_t stamp = p->stamp;
    lc_lock_give(LC_LOCK_PACKS);
    return stamp;
}

bool lc_param_is_set(const lc_param *p)
{
    lc_lock_take(LC_LOCK_PACKS);
    bool set = p->storage != NULL;
    lc_lock_give(LC_LOCK_PACKS);
    return set;
}

bool lc_param_requires_grad(const lc_param *p)
{
    return atomic_load_explicit(&p->requires_grad, memory_order_relaxed);
}

void lc_param_set_requires_grad(lc_param *p, bool on)
{
    atomic_store_explicit(&p->requires_grad, on, memory_order_relaxed);
}

void lc_param_set_host(lc_param *p, void *data, void (*release)(void *))
{
    void *old = p->host;
    void (*release_old)(void *) = p->release_host;
    p->host = data;
    p->release_host = release;
    if (old && release_old)
        release_old(old);
}

void *lc_param_host(const lc_param *p)
{
    return p->host;
}

void lc_param_snapshot(lc_param *p, lc_storage **storage, uint64_t *stamp)
{
    lc_lock_take(LC_LOCK_PACKS);
    *storage = p->storage ? lc_storage_retain(p->storage) : NULL;
    *stamp = p->stamp;
    lc_lock_give(LC_LOCK_PACKS);
}

lc_status lc_param_storage(lc_param *p, lc_storage **out)
{
    lc_lock_take(LC_LOCK_PACKS);
    if (!p->storage) {
        size_t bytes = lc_desc_bytes(&p->desc);
        lc_status status = lc_storage_create(bytes, &p->storage);
        if (status != LC_OK) {
            lc_lock_give(LC_LOCK_PACKS);
            return status;
        }
        memset(p->storage->data, 0, bytes);
    }
    *out = lc_storage_retain(p->storage);
    lc_lock_give(LC_LOCK_PACKS);
    return LC_OK;
}

lc_status lc_param_contents(lc_param *p, lc_storage **out, void **data)
{
    LC_TRY(lc_param_storage(p, out));
    lc_status status = lc_storage_borrow(*out, data);
    if (status != LC_OK)
        lc_storage_release(*out);
    return status;
}

void lc_param_exchange(int n, lc_param *const *p, lc_storage **s)
{
    pack_entry *gone = NULL;
    lc_lock_take(LC_LOCK_PACKS);
    for (int i = 0; i < n; i++) {
        lc_storage *old = p[i]->storage;
        p[i]->storage = s[i];
        s[i] = old;
        p[i]->stamp = atomic_fetch_add(&next_stamp, 1);
        while (p[i]->packs) {
            pack_entry *e = p[i]->packs;
            p[i]->packs = e->next;
            e->next = gone;
            gone = e;
        }
    }
    lc_lock_give(LC_LOCK_PACKS);
    free_packs(gone);
}

void lc_param_replace(lc_param *p, lc_storage *s)
{
    lc_storage_retain(s);
    lc_param_exchange(1, &p, &s);
    lc_storage_release(s);
}

void lc_param_touch(lc_param *p)
{
    lc_lock_take(LC_LOCK_PACKS);
    pack_entry *packs = p->packs;
    p->packs = NULL;
    p->stamp = atomic_fetch_add(&next_stamp, 1);
    lc_lock_give(LC_LOCK_PACKS);
    free_packs(packs);
}

lc_storage *lc_param_grad(lc_param *p)
{
    lc_lock_take(LC_LOCK_PACKS);
    lc_storage *grad = p->grad ? lc_storage_retain(p->grad) : NULL;
    lc_lock_give(LC_LOCK_PACKS);
    return grad;
}

void lc_param_set_grad(lc_param *p, lc_storage *grad)
{
    if (grad)
        lc_storage_retain(grad);
    lc_lock_take(LC_LOCK_PACKS);
    lc_storage *old = p->grad, *spare = p->spare;
    p->grad = grad;
    p->spare = NULL;
    if (!grad && (!old || lc_storage_is_exclusive(old, 1))) {
        p->spare = old ? old : spare;
        spare = old ? spare : NULL;
        old = NULL;
    }
    lc_lock_give(LC_LOCK_PACKS);
    lc_storage_release(old);
    lc_storage_release(spare);
}

/* Its reference goes to the caller; NULL: none. */
static lc_storage *take_spare(lc_param *p)
{
    lc_lock_take(LC_LOCK_PACKS);
    lc_storage *spare = p->spare;
    p->spare = NULL;
    lc_lock_give(LC_LOCK_PACKS);
    return spare;
}

lc_status lc_param_new_grad(lc_param *p, lc_storage **out)
{
    *out = take_spare(p);
    return *out ? LC_OK : lc_storage_create(lc_desc_bytes(&p->desc), out);
}

/* Sums of fewer elements are not worth a team. */
#define ADD_ALONE 65536

typedef struct add_job {
    float *out;
    const float *a, *b;
    int64_t n;
} add_job;

static void add_share(void *ctx, int tid, int team)
{
    const add_job *job = ctx;
    int64_t i, end;
    lc_share(job->n, tid, team, &i, &end);
    lc_kernels_get()->vec.add(job->out + i, job->a + i, job->b + i, end - i, LC_SPAN_ALL,
                              LC_SPAN_ALL, 1);
}

static void add_into(lc_storage *out, const lc_storage *a, const lc_storage *b, int64_t n)
{
    add_job job = {out->data, a->data, b->data, n};
    int got = lc_threads_acquire(n < ADD_ALONE ? 1 : LC_MAX_THREADS);
    lc_parallel(got, add_share, &job);
    lc_threads_release(got);
}

lc_status lc_param_accumulate_grads(int n, lc_param *const *p, lc_storage *const *s)
{
    /* Per parameter: its gradient so far, and memory for the sum where somebody else holds that. */
    lc_storage **old = lc_alloc_zero(2 * (size_t)n * sizeof *old + 1), **fresh = old + n;
    lc_status status = LC_OK;
    if (!old)
        return LC_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        if (p[i]->desc.dtype != LC_F32) {
            status = lc_fail(LC_ERR_TYPE, "only float32 parameters have gradients");
            goto done;
        }
        old[i] = lc_param_grad(p[i]);
        if (old[i] && !lc_storage_is_exclusive(old[i], 2)) /* the slot's reference and ours */
            LC_TRY_GOTO(lc_storage_create(lc_desc_bytes(&p[i]->desc), &fresh[i]), done);
    }
    for (int i = 0; i < n; i++) { /* nothing fails from here on */
        if (old[i])
            add_into(fresh[i] ? fresh[i] : old[i], old[i], s[i], lc_desc_count(&p[i]->desc));
        if (!old[i] || fresh[i])
            lc_param_set_grad(p[i], fresh[i] ? fresh[i] : s[i]);
    }
done:
    for (int i = 0; i < 2 * n; i++)
        lc_storage_release(old[i]);
    lc_free(old);
    return status;
}

lc_status lc_param_accumulate_grad(lc_param *p, lc_storage *s)
{
    return lc_param_accumulate_grads(1, &p, &s);
}

static bool same_form(const pack_entry *e, const lc_pack_key *key)
{
    return e->op == key->op && memcmp(&e->out, key->out, sizeof e->out) == 0 &&
           memcmp(e->attr, key->attr, key->op->attr_size) == 0;
}

static bool same_stamps(const pack_entry *e, const lc_pack_key *key)
{
    return e->n_stamps == key->n_stamps &&
           memcmp(e->stamps, key->stamps, (size_t)e->n_stamps * sizeof *e->stamps) == 0;
}

lc_storage *lc_param_find_pack(lc_param *p, const lc_pack_key *key)
{
    lc_storage *found = NULL;
    lc_lock_take(LC_LOCK_PACKS);
    for (pack_entry *e = p->packs; e && !found; e = e->next)
        if (same_form(e, key) && same_stamps(e, key))
            found = lc_storage_retain(e->blob);
    lc_lock_give(LC_LOCK_PACKS);
    return found;
}

lc_status lc_param_keep_pack(lc_param *p, const lc_pack_key *key, lc_storage *blob)
{
    lc_storage_release(take_spare(p)); /* this is inference */
    if (key->stamps[0] != lc_param_stamp(p))
        return LC_OK; /* made from contents that are gone: for this run only */
    size_t stamps_bytes = (size_t)key->n_stamps * sizeof *key->stamps;
    pack_entry *e = lc_alloc(sizeof *e + stamps_bytes + key->op->attr_size);
    if (!e)
        return LC_ERR_MEMORY;
    e->blob = lc_storage_retain(blob);
    e->op = key->op;
    e->out = *key->out;
    e->n_stamps = key->n_stamps;
    e->stamps = (uint64_t *)(e + 1);
    e->attr = (unsigned char *)e->stamps + stamps_bytes;
    memcpy(e->stamps, key->stamps, stamps_bytes);
    memcpy(e->attr, key->attr, key->op->attr_size);

    /* Newest first. What was made from older contents of p goes, and so does whatever exceeds the
     * limit, and the same once more (two threads have packed at the same time); the same form with other stamps may stay, since one weight can stand before several
     * batch norms. */
    pack_entry *dropped = NULL;
    lc_lock_take(LC_LOCK_PACKS);
    int kept = 1;
    for (pack_entry **link = &p->packs; *link;) {
        pack_entry *old = *link;
        if (old->stamps[0] != p->stamp || kept >= MAX_PACKS ||
            (same_form(old, key) && same_stamps(old, key))) {
            *link = old->next;
            old->next = dropped;
            dropped = old;
        } else {
            kept++;
            link = &old->next;
        }
    }
    e->next = p->packs;
    p->packs = e;
    lc_lock_give(LC_LOCK_PACKS);
    free_packs(dropped);
    return LC_OK;
}
