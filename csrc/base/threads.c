#define _GNU_SOURCE
#include "base/threads.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/quota.h"

#ifndef LC_NO_OPENMP
#include <omp.h>
#endif

typedef enum rule {
    RULE_AFFINITY = 0,
    RULE_CORES,
    RULE_QUOTA,
    RULE_OMP_NUM,
    RULE_OMP_LIMIT,
    RULE_MAXIMUM,
    RULE_ENV,
    RULE_SET,
    RULE_OMP_SET,
    RULE_CREATED,
    RULE_SERIAL,
    RULE_COUNT
} rule;

static const char *const rule_text[RULE_COUNT] = {
    [RULE_AFFINITY] = "affinity mask",
    [RULE_CORES] = "physical cores",
    [RULE_QUOTA] = "cgroup quota",
    [RULE_OMP_NUM] = "OMP_NUM_THREADS",
    [RULE_OMP_LIMIT] = "OMP_THREAD_LIMIT",
    [RULE_MAXIMUM] = "the most that lucid_c uses",
    [RULE_ENV] = "LUCID_C_NUM_THREADS",
    [RULE_SET] = "set_num_threads",
    [RULE_OMP_SET] = "omp_set_num_threads (threadpool_limits)",
    [RULE_CREATED] = "threads that could be created",
    [RULE_SERIAL] = "built without threads",
};

/* Set at the start if LUCID_C_NUM_THREADS could not be used: the default rules must say so, once
 * for all. */
static char rule_env_bad[RULE_ENV][96];
static bool env_bad;

/* A count and the rule that gave it, in one word, so that readers never see a mixture. */
typedef struct choice {
    int count;
    rule why;
} choice;

static atomic_int in_force; /* a packed choice */
static atomic_int in_use;   /* threads that acquire has given out */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t locks[LC_LOCK_COUNT] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                               PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                               PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                               PTHREAD_MUTEX_INITIALIZER};
_Static_assert(LC_LOCK_COUNT == 7, "one initializer for each lock");

static void pack(choice c)
{
    atomic_store(&in_force, (int)c.why << 16 | c.count);
}

static choice unpack(void)
{
    int word = atomic_load(&in_force);
    return (choice){word & 0xffff, (rule)(word >> 16)};
}

/* The positive number that the variable starts with ("4" and the list "4,2" give 4); 0 where there
 * is none. */
static int env_count(const char *name, bool list)
{
    const char *text = getenv(name);
    if (!text)
        return 0;
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    while (*end == ' ' || *end == '\t')
        end++;
    if (end == text || errno || n < 1 || (*end && !(list && *end == ',')))
        return 0;
    return n > INT_MAX ? INT_MAX : (int)n;
}

static choice no_more_than(choice c, int count, rule why)
{
    return count > 0 && count < c.count ? (choice){count, why} : c;
}

/* Of two that say the same, the later says more: the machine has two cores, but the user asked for
 * two. */
static choice rather(choice c, int count, rule why)
{
    return count > 0 && count <= c.count ? (choice){count, why} : c;
}

static choice default_choice(void)
{
    const lc_cpu *cpu = lc_cpu_get();
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    choice c = {cpu->logical, online > cpu->logical ? RULE_AFFINITY : RULE_CORES};
    c = no_more_than(c, cpu->physical, RULE_CORES);
    c = rather(c, lc_quota_get(), RULE_QUOTA);
    c = rather(c, env_count("OMP_NUM_THREADS", true), RULE_OMP_NUM);
    c = rather(c, env_count("OMP_THREAD_LIMIT", false), RULE_OMP_LIMIT);
    c = no_more_than(c, LC_MAX_THREADS, RULE_MAXIMUM);
    int own = env_count("LUCID_C_NUM_THREADS", false);
    const char *text = getenv("LUCID_C_NUM_THREADS");
    if (own >= 1 && own <= LC_MAX_THREADS)
        return (choice){own, RULE_ENV};
    if (text && *text) {
        env_bad = true;
        for (int i = 0; i < RULE_ENV; i++)
            snprintf(rule_env_bad[i], sizeof rule_env_bad[i],
                     "%s (LUCID_C_NUM_THREADS ignored: not from 1 to %d)", rule_text[i],
                     LC_MAX_THREADS);
    }
    return c;
}

#ifndef LC_NO_OPENMP

/* What this thread knows about its own OpenMP team. libgomp keeps one pool of workers per calling
 * thread. */
typedef struct own_team {
    unsigned epoch; /* of what follows; older knowledge is void */
    int proven;     /* a team of this size has been seen to start */
    int most;       /* no larger one could be started */
    int alone;      /* depth of calls that run without a team */
} own_team;

static _Thread_local own_team own;
static atomic_uint epoch = 1;
static int omp_at_start; /* omp_get_max_threads() before anyone had a reason to lower it for us */

static own_team *own_get(void)
{
    unsigned now = atomic_load(&epoch);
    if (own.epoch != now) {
        own.epoch = now;
        own.proven = 1;
        own.most = LC_MAX_THREADS;
    }
    return &own;
}

/* Before fork: libgomp's workers do not exist in the child, but its pool of this thread would still
 * count on them and the next region would wait for ever. So let the pool go; both sides start
 * workers anew when they need them. The pools of other threads do not matter: those threads do not
 * exist in the child either. Their regions go on meanwhile; waiting for them could deadlock with a
 * host lock that the forking thread holds. Inside a region of the forking thread itself nothing can
 * be done: that child has to exec or exit before the region ends. */
static void leave_team(void)
{
#if (defined(__GNUC__) && __GNUC__ >= 9) || defined(__clang__)
    if (omp_get_level() == 0)
        omp_pause_resource_all(omp_pause_soft);
#endif
}

static void forget_team(void)
{
    own_get()->proven = 1;
}

static void in_child(void)
{
    atomic_fetch_add(&epoch, 1);
}

static void start_backend(void)
{
    omp_at_start = omp_get_max_threads();
}

/* The choice in force, within the limits of the calling thread. */
static choice choice_here(void)
{
    choice c = unpack();
    int omp = omp_get_max_threads();
    /* OMP_NUM_THREADS does not lower an explicit count; what was said later does. */
    if ((c.why != RULE_ENV && c.why != RULE_SET) || omp < omp_at_start)
        c = no_more_than(c, omp, RULE_OMP_SET);
    c = no_more_than(c, omp_get_thread_limit(), RULE_OMP_LIMIT);
    return no_more_than(c, own_get()->most, RULE_CREATED);
}

#else

static void leave_team(void)
{
}

static void forget_team(void)
{
}

static void in_child(void)
{
}

static void start_backend(void)
{
}

static choice choice_here(void)
{
    return (choice){1, RULE_SERIAL};
}

#endif

static void before_fork(void)
{
    leave_team();
    for (int i = 0; i < LC_LOCK_COUNT; i++)
        pthread_mutex_lock(&locks[i]);
}

static void after_fork_parent(void)
{
    for (int i = LC_LOCK_COUNT; i-- > 0;)
        pthread_mutex_unlock(&locks[i]);
    forget_team();
}

static void after_fork_child(void)
{
    atomic_store(&in_use, 0);
    in_child();
    after_fork_parent();
}

static void start(void)
{
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    start_backend();
    pack(default_choice());
}

static void ready(void)
{
    pthread_once(&once, start);
}

int lc_threads_get(void)
{
    ready();
    return choice_here().count;
}

const char *lc_threads_rule(void)
{
    ready();
    rule why = choice_here().why;
    return env_bad && why < RULE_ENV ? rule_env_bad[why] : rule_text[why];
}

lc_status lc_threads_set(int count)
{
    ready();
    if (count < 1 || count > LC_MAX_THREADS)
        return lc_fail(LC_ERR_VALUE, "the number of threads must be from 1 to %d, got %d",
                       LC_MAX_THREADS, count);
    pack((choice){count, RULE_SET});
#ifndef LC_NO_OPENMP
    atomic_fetch_add(&epoch, 1); /* a limit that was met may be gone: try again */
#endif
    return LC_OK;
}

int lc_threads_acquire(int want)
{
    ready();
    int here = choice_here().count, budget = unpack().count;
    int used = atomic_load(&in_use), got;
    if (want > here)
        want = here;
    do {
        got = want < budget - used ? want : budget - used;
        if (got < 1)
            got = 1;
    } while (!atomic_compare_exchange_weak(&in_use, &used, used + got));
    return got;
}

void lc_threads_release(int got)
{
    int used = atomic_load(&in_use), left;
    do {
        left = used > got ? used - got : 0; /* a child that was forked during a run starts from 0 */
    } while (!atomic_compare_exchange_weak(&in_use, &used, left));
}

#ifndef LC_NO_OPENMP

static void *probe_main(void *gate)
{
    pthread_mutex_lock(gate); /* held by the starter until all have started */
    pthread_mutex_unlock(gate);
    return NULL;
}

/* The number of threads of this process as the kernel counts them, or 0. */
static long kernel_threads(void)
{
    struct stat info;
    return stat("/proc/self/task", &info) == 0 ? (long)info.st_nlink : 0;
}

/* Starts up to `extra` threads that live at the same time, ends them, and returns how many there
 * were. */
static int probe(int extra)
{
    pthread_t started[LC_MAX_THREADS];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int n = 0;
    long before = kernel_threads();
    pthread_mutex_lock(&gate);
    while (n < extra && pthread_create(&started[n], NULL, probe_main, &gate) == 0)
        n++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < n; i++)
        pthread_join(started[i], NULL);
    pthread_mutex_destroy(&gate);
    /* A joined thread still counts against the limits for some microseconds, and libgomp does not
     * try twice. */
    double until = lc_seconds() + 0.02;
    while (kernel_threads() > before && lc_seconds() < until)
        sched_yield();
    return n;
}

/* libgomp ends the process when it cannot start a thread. So no team grows before that many threads
 * have been seen to start. */
static int startable(int want)
{
    own_team *team = own_get();
    if (want > team->most)
        want = team->most;
    if (want > team->proven) {
        int extra = want - team->proven, n = probe(extra);
        team->proven += n;
        if (n < extra)
            want = team->most = team->proven;
    }
    return want;
}

static void run_alone(lc_region_fn fn, void *ctx)
{
    own.alone++;
    fn(ctx, 0, 1);
    own.alone--;
}

/* Where a team meets. Not OpenMP's barrier, which spins for milliseconds: where other programs want
 * the cores as well, the thread that everybody waits for may be the one that does not run. */
typedef struct meeting {
    atomic_int arrived;
    atomic_uint turn;
} meeting;
static _Thread_local meeting *current; /* of the region that this thread is in */
static _Thread_local int team_size;

#define MAX_SPINS 2000 /* about 10 to 100 us, then the processor is offered to others */

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

void lc_parallel(int want, lc_region_fn fn, void *ctx)
{
    ready();
    if (want > LC_MAX_THREADS)
        want = LC_MAX_THREADS;
    if (want > 1)
        want = omp_in_parallel() ? 1 : startable(want);
    if (want <= 1) {
        run_alone(fn, ctx);
        return;
    }
    meeting m;
    atomic_init(&m.arrived, 0);
    atomic_init(&m.turn, 0);
#pragma omp parallel num_threads(want)
    {
        current = &m;
        team_size = omp_get_num_threads();
        fn(ctx, omp_get_thread_num(), team_size);
        current = NULL;
    }
}

void lc_barrier(void)
{
    meeting *m = current;
    if (own.alone != 0 || !m)
        return;
    const unsigned turn = atomic_load_explicit(&m->turn, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) == team_size - 1) {
        atomic_store_explicit(&m->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&m->turn, turn + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&m->turn, memory_order_acquire) == turn; spins++) {
        if (spins < MAX_SPINS)
            relax();
        else
            sched_yield();
    }
}

const char *lc_threads_backend(void)
{
    return "openmp";
}

#else

void lc_parallel(int want, lc_region_fn fn, void *ctx)
{
    (void)want;
    fn(ctx, 0, 1);
}

void lc_barrier(void)
{
}

const char *lc_threads_backend(void)
{
    return "serial";
}

#endif

void lc_lock_take(lc_lock which)
{
    ready();
    pthread_mutex_lock(&locks[which]);
}

void lc_lock_give(lc_lock which)
{
    pthread_mutex_unlock(&locks[which]);
}

double lc_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
