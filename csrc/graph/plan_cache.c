/* The process-wide cache of plans, and the executions that idle with them. */
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "graph/plan.h"

/* Bounds. One model at one input size is one plan; what costs memory is arenas, so those are
 * bounded by bytes. */
#define MAX_PLANS 64
#define MAX_IDLE_PER_PLAN 4
#define MAX_IDLE_BYTES ((int64_t)256 << 20)
/* Beyond them stays what the plan used last keeps, and what one other keeps while it is in use,
 * which means among so many acquisitions. A training step has a plan for the loss beside that of
 * the model, whose memory would else go back to the system after every step, to be zeroed by it in
 * the next one: 930 MiB and 1.2 times as long for resnet_50 at batch 16. */
#define RECENT 64

static lc_plan *newest, *oldest;
static lc_plan_stats stats;

/* Functions named *_locked run with LC_LOCK_PLANS held. What they take out is handed back through a
 * list and freed unlocked. */
static void unlink_locked(lc_plan *p)
{
    *(p->newer ? &p->newer->older : &newest) = p->older;
    *(p->older ? &p->older->newer : &oldest) = p->newer;
    p->newer = p->older = NULL;
}

static int64_t acquisitions_locked(void)
{
    return stats.hits + stats.misses;
}

static void link_newest_locked(lc_plan *p)
{
    p->used = acquisitions_locked();
    p->older = newest;
    p->newer = NULL;
    *(newest ? &newest->newer : &oldest) = p;
    newest = p;
}

static uint64_t hash_bytes(const unsigned char *data, size_t bytes)
{
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15) ^ bytes;
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint64_t w;
        memcpy(&w, data, 8);
        h = (h ^ w) * UINT64_C(0xBF58476D1CE4E5B9);
        h ^= h >> 29;
    }
    for (; bytes; data++, bytes--)
        h = (h ^ *data) * UINT64_C(0x94D049BB133111EB);
    return h ^ (h >> 31);
}

static lc_plan *find_locked(const lc_graph_work *work, uint64_t hash)
{
    for (lc_plan *p = newest; p; p = p->older)
        if (p->hash == hash && p->key_bytes == work->key_bytes &&
            memcmp(p->key, work->key, work->key_bytes) == 0)
            return p;
    return NULL;
}

/* The cache's own reference counts as one, so a plan in use survives its eviction. */
static lc_plan *evict_locked(void)
{
    lc_plan *gone = NULL;
    while (stats.plans > MAX_PLANS) {
        lc_plan *p = oldest;
        unlink_locked(p);
        stats.plans--;
        if (--p->refs == 0) {
            for (lc_execution *e = p->idle; e; e = e->next)
                stats.arena_bytes -= (int64_t)e->bytes;
            p->older = gone;
            gone = p;
        }
    }
    return gone;
}

static void destroy_list(lc_plan *p)
{
    while (p) {
        lc_plan *next = p->older;
        lc_plan_destroy(p);
        p = next;
    }
}

lc_status lc_plan_acquire(const lc_graph_work *work, int threads, lc_plan **out)
{
    uint64_t hash = hash_bytes(work->key, work->key_bytes);
    lc_lock_take(LC_LOCK_PLANS);
    lc_plan *found = find_locked(work, hash);
    if (found) {
        stats.hits++;
        found->refs++;
        unlink_locked(found);
        link_newest_locked(found);
    } else {
        stats.misses++;
    }
    lc_lock_give(LC_LOCK_PLANS);
    if (found) {
        *out = found;
        return LC_OK;
    }

    lc_plan *made;
    LC_TRY(lc_plan_create(&work->ir, threads, &made));
    made->key = lc_alloc(work->key_bytes);
    if (!made->key) {
        lc_plan_destroy(made);
        return LC_ERR_MEMORY;
    }
    memcpy(made->key, work->key, work->key_bytes);
    made->key_bytes = work->key_bytes;
    made->hash = hash;

    lc_lock_take(LC_LOCK_PLANS);
    found = find_locked(work, hash); /* another thread may have been as quick */
    if (!found) {
        made->refs = 1;
        link_newest_locked(made);
        stats.plans++;
        found = made;
        made = NULL;
    }
    found->refs++;
    lc_plan *gone = evict_locked();
    lc_lock_give(LC_LOCK_PLANS);
    lc_plan_destroy(made);
    destroy_list(gone);
    *out = found;
    return LC_OK;
}

void lc_plan_release(lc_plan *plan)
{
    lc_lock_take(LC_LOCK_PLANS);
    bool last = --plan->refs == 0;
    if (last)
        for (lc_execution *e = plan->idle; e; e = e->next)
            stats.arena_bytes -= (int64_t)e->bytes;
    lc_lock_give(LC_LOCK_PLANS);
    if (last)
        lc_plan_destroy(plan);
}

static lc_status execution_create(const lc_plan *plan, lc_execution **out)
{
    lc_execution *e = lc_alloc_zero(sizeof *e);
    if (!e)
        return LC_ERR_MEMORY;
    size_t scratch, bytes;
    int most_stamps = 0;
    for (int c = 0; c < plan->n_constants; c++)
        most_stamps =
            plan->constants[c].n_params > most_stamps ? plan->constants[c].n_params : most_stamps;
    if (!lc_size_mul(plan->thread_bytes, (size_t)plan->threads, &scratch) ||
        !lc_size_add(plan->arena_bytes, scratch, &bytes)) {
        lc_free(e);
        return lc_fail(LC_ERR_MEMORY,
                       "the intermediate values of this computation exceed the address space");
    }
    e->bytes = bytes;
    e->arena = lc_alloc(bytes);
    e->data = lc_alloc_zero((size_t)plan->ir.n_values * sizeof *e->data + 1);
    e->constants = lc_alloc_zero((size_t)plan->n_constants * sizeof *e->constants + 1);
    e->stamps = lc_alloc((size_t)most_stamps * sizeof *e->stamps + 1);
    e->in = lc_alloc_zero((size_t)plan->n_in * sizeof *e->in + 1);
    e->out = lc_alloc_zero((size_t)plan->n_out * sizeof *e->out + 1);
    if (!e->arena || !e->data || !e->constants || !e->stamps || !e->in || !e->out) {
        lc_execution_destroy(e);
        return LC_ERR_MEMORY;
    }
    *out = e;
    return LC_OK;
}

lc_status lc_execution_acquire(lc_plan *plan, lc_execution **out)
{
    lc_lock_take(LC_LOCK_PLANS);
    lc_execution *e = plan->idle;
    if (e) {
        plan->idle = e->next;
        plan->n_idle--;
        stats.arena_bytes -= (int64_t)e->bytes;
    }
    lc_lock_give(LC_LOCK_PLANS);
    if (e) {
        lc_filled(e->arena); /* in an earlier run */
        *out = e;
        return LC_OK;
    }
    return execution_create(plan, out);
}

/* The plan in use that keeps most. */
static const lc_plan *largest_locked(void)
{
    const lc_plan *largest = NULL;
    const int64_t now = acquisitions_locked();
    for (const lc_plan *p = newest; p && now - p->used < RECENT; p = p->older)
        if (p->idle && (!largest || p->idle->bytes > largest->idle->bytes))
            largest = p;
    return largest;
}

/* Takes idle executions from the plans used longest ago until the bytes are within bounds. */
static lc_execution *trim_locked(void)
{
    lc_execution *gone = NULL;
    const lc_plan *largest = largest_locked();
    for (lc_plan *p = oldest; p && p != newest && stats.arena_bytes > MAX_IDLE_BYTES; p = p->newer)
        while (p->idle && (p != largest || p->n_idle > 1) && stats.arena_bytes > MAX_IDLE_BYTES) {
            lc_execution *e = p->idle;
            p->idle = e->next;
            p->n_idle--;
            stats.arena_bytes -= (int64_t)e->bytes;
            e->next = gone;
            gone = e;
        }
    return gone;
}

void lc_execution_release(lc_plan *plan, lc_execution *e)
{
    lc_lock_take(LC_LOCK_PLANS);
    bool keep = plan->n_idle < MAX_IDLE_PER_PLAN &&
                (plan->n_idle == 0 || stats.arena_bytes + (int64_t)e->bytes <= MAX_IDLE_BYTES);
    lc_execution *gone = keep ? NULL : e;
    e->next = NULL;
    if (keep) {
        e->next = plan->idle;
        plan->idle = e;
        plan->n_idle++;
        stats.arena_bytes += (int64_t)e->bytes;
        gone = trim_locked();
    }
    lc_lock_give(LC_LOCK_PLANS);
    while (gone) {
        lc_execution *next = gone->next;
        lc_execution_destroy(gone);
        gone = next;
    }
}

void lc_execution_destroy(lc_execution *e)
{
    lc_free(e->arena);
    lc_free(e->data);
    lc_free(e->constants);
    lc_free(e->stamps);
    lc_free(e->in);
    lc_free(e->out);
    lc_free(e);
}

lc_plan_stats lc_plan_cache_stats(void)
{
    lc_lock_take(LC_LOCK_PLANS);
    lc_plan_stats copy = stats;
    lc_lock_give(LC_LOCK_PLANS);
    return copy;
}

void lc_plan_cache_clear(void)
{
    lc_lock_take(LC_LOCK_PLANS);
    lc_plan *gone = NULL;
    while (oldest) {
        lc_plan *p = oldest;
        unlink_locked(p);
        stats.plans--;
        if (--p->refs == 0) {
            for (lc_execution *e = p->idle; e; e = e->next)
                stats.arena_bytes -= (int64_t)e->bytes;
            p->older = gone;
            gone = p;
        }
    }
    lc_lock_give(LC_LOCK_PLANS);
    destroy_list(gone);
    lc_graph_pool_clear();
}
