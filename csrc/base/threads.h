/* Threads behind one small seam; the only header that OpenMP hides behind (threads.c).
 *
 * A region runs one function on a team; `lc_barrier` is called by every thread of the team, the
 * same number of times. No thread is started before the first region. See csrc/README.md,
 * "Threads", for fork, quotas and failure. */
#ifndef LC_BASE_THREADS_H
#define LC_BASE_THREADS_H

#include <stdint.h>

#include "base/status.h"

#define LC_MAX_THREADS 256

/* The count in force for the calling thread and the rule that gave it ("LUCID_C_NUM_THREADS",
 * "set_num_threads", "cgroup quota", ...). A thread on which omp_set_num_threads was called with
 * less (threadpoolctl does that) gets no more than that. */
int lc_threads_get(void);
const char *lc_threads_rule(void);
/* LC_ERR_VALUE unless 1 <= count <= LC_MAX_THREADS. Applies to later runs of the whole process. */
lc_status lc_threads_set(int count);

/* Takes up to `want` threads (the caller's included) from the process's budget; returns how many it
 * got, at least one. The same number goes back through lc_threads_release. Concurrent runs so never
 * exceed the budget by more than one thread each. */
int lc_threads_acquire(int want);
void lc_threads_release(int got);

/* Runs fn(ctx, tid, team) for tid = 0 .. team - 1 on a team of at most `want` threads, tid 0 being
 * the caller. The team may be smaller than asked for (nested regions, no more threads to be had);
 * fn must use `team`. A process forked by fn itself has to exec or exit before fn returns: the rest
 * of its team does not exist. */
typedef void (*lc_region_fn)(void *ctx, int tid, int team);
void lc_parallel(int want, lc_region_fn fn, void *ctx);
void lc_barrier(void);

/* The part [*begin, *end) of n items that thread tid of a team does: contiguous, sizes differ by at
 * most one. */
static inline void lc_share(int64_t n, int tid, int team, int64_t *begin, int64_t *end)
{
    int64_t each = n / team, rest = n % team;
    *begin = tid * each + (tid < rest ? tid : rest);
    *end = *begin + each + (tid < rest ? 1 : 0);
}

const char *lc_threads_backend(void); /* "openmp" or "serial" */

/* The few locks of the process. All are held over fork by the forking thread and are free in the
 * child. A thread that holds one may take only later ones of this list. None is held while a region
 * runs, nor while waiting for a lock of the host language, which a thread that forks may hold. */
typedef enum lc_lock {
    LC_LOCK_PLANS = 0,
    LC_LOCK_PIECES,
    LC_LOCK_PACKS,
    LC_LOCK_THREADS,
    LC_LOCK_MODEL,
    LC_LOCK_TUNING,
    LC_LOCK_RANDOM,
    LC_LOCK_COUNT
} lc_lock;
void lc_lock_take(lc_lock which);
void lc_lock_give(lc_lock which);

double lc_seconds(void); /* a monotonic clock */

#endif
