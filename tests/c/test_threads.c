/* Tests of csrc/base: what the CPU and the cgroup allow, teams of threads, fork, and threads that
 * cannot be created. */
#define _GNU_SOURCE /* RTLD_NEXT, mkdtemp */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#else
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int count);
#endif
/* There is no OpenMP library behind the serial backend. */
#pragma weak omp_get_max_threads
#pragma weak omp_set_num_threads

#include "base/cpu.h"
#include "base/cpu.h"
#include "base/quota.h"
#include "base/status.h"
#include "base/threads.h"
#include "check.h"

/* ---- a pthread_create that fails when more than `alive_limit` threads would be alive ---- */

static atomic_int alive, alive_limit = INT_MAX, created;

typedef struct started {
    void *(*main)(void *);
    void *arg;
} started;

static void *run_started(void *arg)
{
    started s = *(started *)arg;
    free(arg);
    void *result = s.main(s.arg);
    atomic_fetch_sub(&alive, 1);
    return result;
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread,
                                                          const pthread_attr_t *attr,
                                                          void *(*thread_main)(void *), void *arg)
{
    typedef int (*create_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    static create_fn real;
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&real, &symbol, sizeof real); /* ISO C has no conversion from void * to a function */
    }
    if (atomic_fetch_add(&alive, 1) >= atomic_load(&alive_limit)) {
        atomic_fetch_sub(&alive, 1);
        return EAGAIN;
    }
    started *s = malloc(sizeof *s);
    *s = (started){thread_main, arg};
    atomic_fetch_add(&created, 1);
    int error = real(thread, attr, run_started, s);
    if (error) {
        atomic_fetch_sub(&alive, 1);
        free(s);
    }
    return error;
}

/* ---- processes: run a function, or this program with other variables, and see how it ends ---- */

static int in_child(int (*run)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(20); /* a hang ends with SIGALRM */
        _exit(run());
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char reply[512];

/* What `test_threads --show` prints with these variables: "NAME=value NAME=value ...". */
static const char *show(const char *variables)
{
    char self[PATH_MAX], command[2 * PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    reply[0] = '\0';
    if (n < 0)
        return reply;
    self[n] = '\0';
    snprintf(command, sizeof command,
             "env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT -u LUCID_C_NUM_THREADS -u LUCID_C_ISA "
             "-u LUCID_C_CGROUP_ROOT %s '%s' --show",
             variables, self);
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return reply;
    size_t got = fread(reply, 1, sizeof reply - 1, pipe);
    reply[got] = '\0';
    pclose(pipe);
    return reply;
}

static int show_main(void)
{
    int before = atomic_load(&created);
    printf("%d|%s|%s|%d\n", lc_threads_get(), lc_threads_rule(), lc_isa_name(lc_cpu_get()->isa),
           lc_cpu_get()->isa_env_bad);
    return atomic_load(&created) != before; /* asking starts no threads */
}

static int starts_with(const char *text, const char *start)
{
    int same = strncmp(text, start, strlen(start)) == 0;
    if (!same)
        fprintf(stderr, "wanted \"%s\", got \"%s\"\n", start, text);
    return same;
}

/* ---- cpu ---- */

static void test_cpu(void)
{
    const lc_cpu *cpu = lc_cpu_get();
    CHECK(cpu == lc_cpu_get() && cpu->isa <= cpu->isa_best);
    CHECK(cpu->l1d >= 4096 && cpu->l2 >= cpu->l1d && cpu->l3 >= cpu->l2);
    CHECK(cpu->logical >= 1 && cpu->physical >= 1 && cpu->physical <= cpu->logical);
    CHECK(strcmp(lc_isa_name(LC_ISA_SCALAR), "scalar") == 0 &&
          strcmp(lc_isa_name(LC_ISA_AVX2), "avx2") == 0 &&
          strcmp(lc_isa_name(LC_ISA_AVX512), "avx512") == 0 &&
          strcmp(lc_isa_name((lc_isa)9), "unknown") == 0);
#if defined(__GNUC__) && defined(__x86_64__) && !defined(LC_NO_AVX2) && !defined(LC_NO_AVX512) &&  \
    !defined(LC_EMULATE_AVX512)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    CHECK(cpu->isa_best == (avx512 ? LC_ISA_AVX512 : avx2 ? LC_ISA_AVX2 : LC_ISA_SCALAR));
#endif
    char want[64];
    CHECK(strstr(show("LUCID_C_ISA=scalar"), "|scalar|0"));
    snprintf(want, sizeof want, "|%s|0",
             lc_isa_name(cpu->isa_best < LC_ISA_AVX2 ? cpu->isa_best : LC_ISA_AVX2));
    CHECK(strstr(show("LUCID_C_ISA=avx2"), want));
    snprintf(want, sizeof want, "|%s|0", lc_isa_name(cpu->isa_best));
    CHECK(strstr(show("LUCID_C_ISA=avx512"), want) && strstr(show("LUCID_C_ISA="), want));
    snprintf(want, sizeof want, "|%s|1", lc_isa_name(cpu->isa_best));
    CHECK(strstr(show("LUCID_C_ISA=sse9"), want));
}

/* ---- quota ---- */

static char mock[PATH_MAX / 4];

/* Writes a file below the mock root, with the folders that it needs. */
static void put(const char *path, const char *text)
{
    char full[PATH_MAX];
    snprintf(full, sizeof full, "%s/%s", mock, path);
    for (char *slash = strchr(full + strlen(mock) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    if (file) {
        fputs(text, file);
        fclose(file);
    }
}

static void remove_mock(void)
{
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", mock);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", mock);
}

static void new_mock(const char *cgroup, const char *mountinfo)
{
    if (mock[0])
        remove_mock();
    strcpy(mock, "/tmp/lc_mock_XXXXXX");
    if (!mkdtemp(mock))
        perror("mkdtemp");
    put("proc/self/cgroup", cgroup);
    put("proc/self/mountinfo", mountinfo);
    setenv("LUCID_C_CGROUP_ROOT", mock, 1);
}

#define V2_MOUNT "35 28 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT                                                                                   \
    "40 35 0:35 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"                            \
    "41 35 0:36 %s /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n"

static void test_quota(void)
{
    char text[512];
    new_mock("0::/a/b.slice/c\n", V2_MOUNT);
    CHECK(lc_quota_get() == 0); /* no files at all */
    put("sys/fs/cgroup/a/b.slice/c/cpu.max", "max 100000\n");
    CHECK(lc_quota_get() == 0);
    put("sys/fs/cgroup/a/b.slice/c/cpu.max", "350000 100000\n");
    CHECK(lc_quota_get() == 4); /* 3.5, rounded up */
    put("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    CHECK(lc_quota_get() == 2); /* a group above it */
    put("sys/fs/cgroup/cpu.max", "50000 100000\n");
    CHECK(lc_quota_get() == 1); /* the mount itself, as in a container */
    put("sys/fs/cgroup/cpu.max", "rubbish\n");
    CHECK(lc_quota_get() == 2);

    new_mock("0::/../elsewhere\n", V2_MOUNT);
    put("sys/fs/cgroup/cpu.max", "300000 100000\n");
    CHECK(lc_quota_get() == 3);
    new_mock("0::/x y\n", "35 28 0:30 / /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/c group/x y/cpu.max", "200000 100000\n");
    CHECK(lc_quota_get() == 2);

    /* v1; in a container the path counts from the host's root, and the mount starts at the
     * container's group */
    snprintf(text, sizeof text, V1_MOUNT, "/docker/abc");
    new_mock("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc/app\n", text);
    put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    CHECK(lc_quota_get() == 0);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK(lc_quota_get() == 3);
    put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "99999\n");
    CHECK(lc_quota_get() == 1);

    /* v1 and v2 side by side: the smaller one */
    snprintf(text, sizeof text,
             "35 28 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" V1_MOUNT, "/");
    new_mock("4:cpu,cpuacct:/s\n0::/s\n", text);
    put("sys/fs/cgroup/cpu,cpuacct/s/cpu.cfs_quota_us", "500000\n");
    put("sys/fs/cgroup/cpu,cpuacct/s/cpu.cfs_period_us", "100000\n");
    CHECK(lc_quota_get() == 5);
    put("sys/fs/cgroup/unified/s/cpu.max", "200000 50000\n");
    CHECK(lc_quota_get() == 4);
}

/* ---- threads ---- */

static int openmp(void)
{
    return strcmp(lc_threads_backend(), "openmp") == 0;
}

static void test_rules(void)
{
    if (!openmp()) {
        CHECK(starts_with(show("LUCID_C_NUM_THREADS=3"), "1|built without threads|"));
        return;
    }
    char variables[PATH_MAX], want[96];
    int cores = lc_cpu_get()->physical;
    new_mock("0::/a\n", V2_MOUNT);
    snprintf(variables, sizeof variables, "LUCID_C_CGROUP_ROOT=%s", mock);
    snprintf(want, sizeof want, "%d|", cores < LC_MAX_THREADS ? cores : LC_MAX_THREADS);
    CHECK(starts_with(show(variables), want));
    put("sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    CHECK(starts_with(show(variables), "1|cgroup quota|"));
    CHECK(starts_with(show("OMP_NUM_THREADS=1,3"), "1|OMP_NUM_THREADS|"));
    CHECK(starts_with(show("OMP_NUM_THREADS=1000"), cores == 1 ? "1|" : ""));
    CHECK(starts_with(show("OMP_THREAD_LIMIT=1"), "1|OMP_THREAD_LIMIT|"));
    CHECK(starts_with(show("LUCID_C_NUM_THREADS=7"), "7|LUCID_C_NUM_THREADS|"));
    CHECK(starts_with(show("LUCID_C_NUM_THREADS=7 OMP_NUM_THREADS=1"), "7|LUCID_C_NUM_THREADS|"));
    CHECK(strstr(show("OMP_NUM_THREADS=1 LUCID_C_NUM_THREADS=0"), "LUCID_C_NUM_THREADS ignored"));
    CHECK(starts_with(show("OMP_NUM_THREADS=1 LUCID_C_NUM_THREADS=lots"), "1|OMP_NUM_THREADS"));
    CHECK(starts_with(show("OMP_NUM_THREADS=1 LUCID_C_NUM_THREADS=257"), "1|OMP_NUM_THREADS"));
    CHECK(starts_with(show("OMP_NUM_THREADS=1 LUCID_C_NUM_THREADS=2x"), "1|OMP_NUM_THREADS"));
#ifdef __linux__
    CHECK(
        starts_with(show("taskset -c $(taskset -cp $$ | sed 's/.*: *\\([0-9]*\\).*/\\1/')"), "1|"));
#endif
}

typedef struct region {
    int team;                  /* as the threads saw it; -1 if they did not agree */
    int times[LC_MAX_THREADS]; /* calls per tid */
    atomic_int arrived[8];     /* per barrier */
    atomic_int early;          /* threads that a barrier let pass too soon */
    pthread_t caller;
    bool caller_is_zero;
} region;

static void region_work(void *ctx, int tid, int team)
{
    region *r = ctx;
    r->times[tid]++;
    if (tid == 0) {
        r->team = team;
        r->caller_is_zero = pthread_equal(r->caller, pthread_self()) != 0;
    }
    for (int i = 0; i < 8; i++) {
        atomic_fetch_add(&r->arrived[i], 1);
        lc_barrier();
        if (atomic_load(&r->arrived[i]) != team)
            atomic_fetch_add(&r->early, 1);
    }
}

/* The team's size if everything about the region was right, else 0. */
static int run_region(int want)
{
    region r;
    memset(&r, 0, sizeof r);
    r.caller = pthread_self();
    lc_parallel(want, region_work, &r);
    for (int i = 0; i < LC_MAX_THREADS; i++)
        if (r.times[i] != (i < r.team))
            return 0;
    return r.caller_is_zero && r.early == 0 && r.team <= (want < 1 ? 1 : want) ? r.team : 0;
}

static void nested_work(void *ctx, int tid, int team)
{
    (void)tid;
    (void)team;
    if (run_region(4) == 1)
        atomic_fetch_add((atomic_int *)ctx, 1);
    lc_barrier(); /* the inner region has left the outer's barrier alone */
}

/* Inside somebody else's region a team has one thread, and its barriers are none of theirs. */
static int inside_other_region(void)
{
    int good = 2;
#ifdef _OPENMP
    if (openmp()) {
        good = 0;
        for (int i = 0; i < 2; i++) {
            bool arrived = false;
#pragma omp parallel num_threads(3)
            {
                if (omp_get_thread_num() == 1)
                    arrived = run_region(4) ==
                              1; /* a barrier too many here would let the others pass below */
#pragma omp barrier
                if (omp_get_thread_num() == 0)
                    good += arrived;
            }
        }
    }
#endif
    return good != 2;
}

static void *many_regions(void *arg)
{
    for (int i = 0; i < 200; i++)
        if (run_region(1 + i % 3) != 1 + i % 3)
            atomic_fetch_add((atomic_int *)arg, 1);
    return NULL;
}

static void test_regions(void)
{
    int full = openmp() ? 4 : 1;
    CHECK(lc_threads_set(4) == LC_OK && lc_threads_get() == full);
    CHECK(strcmp(lc_threads_rule(), openmp() ? "set_num_threads" : "built without threads") == 0);
    CHECK(lc_threads_set(0) == LC_ERR_VALUE && lc_threads_set(LC_MAX_THREADS + 1) == LC_ERR_VALUE);
    CHECK(strstr(lc_error_message(), "257") && lc_threads_get() == full);
    CHECK(run_region(4) == full && run_region(1) == 1 && run_region(0) == 1);
    CHECK(run_region(2) == (openmp() ? 2 : 1) && run_region(4) == full);
    atomic_int inner = 0;
    lc_parallel(4, nested_work, &inner);
    CHECK(inner == full);
    if (openmp()) {
        atomic_int wrong = 0;
        pthread_t thread[3];
        for (int i = 0; i < 3; i++)
            pthread_create(&thread[i], NULL, many_regions, &wrong);
        for (int i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
        CHECK(wrong == 0);
    }
    CHECK(in_child(inside_other_region) == 0);
    for (int64_t n = 0; n < 20; n++) {
        for (int team = 1; team < 7; team++) {
            int64_t at = 0, begin, end, shortest = INT64_MAX, longest = 0;
            for (int tid = 0; tid < team; tid++) {
                lc_share(n, tid, team, &begin, &end);
                if (begin != at)
                    break;
                at = end;
                shortest = end - begin < shortest ? end - begin : shortest;
                longest = end - begin > longest ? end - begin : longest;
            }
            if (at != n || longest - shortest > 1)
                CHECK(!"lc_share");
        }
    }
    CHECK(lc_seconds() > 0 && lc_seconds() <= lc_seconds());
}

static void test_budget(void)
{
    lc_threads_set(4);
    if (!openmp()) {
        CHECK(lc_threads_acquire(4) == 1);
        lc_threads_release(1);
        return;
    }
    int a = lc_threads_acquire(3), b = lc_threads_acquire(3), c = lc_threads_acquire(3),
        d = lc_threads_acquire(0);
    CHECK(a == 3 && b == 1 && c == 1 && d == 1);
    lc_threads_release(a);
    lc_threads_release(c);
    lc_threads_release(d);
    CHECK((a = lc_threads_acquire(100)) == 3);
    lc_threads_release(a);
    lc_threads_release(b);
    CHECK((a = lc_threads_acquire(100)) == 4);
    lc_threads_release(a);
    int usual = omp_get_max_threads ? omp_get_max_threads() : 1;
    if (usual > 1) {
        omp_set_num_threads(1); /* what threadpoolctl does */
        CHECK(lc_threads_get() == 1 && strstr(lc_threads_rule(), "threadpool_limits"));
        CHECK((a = lc_threads_acquire(4)) == 1);
        lc_threads_release(a);
        omp_set_num_threads(usual);
        CHECK(lc_threads_get() == 4);
    }
}

static int region_of_three(void)
{
    int budget = lc_threads_acquire(4); /* nothing is in use in a child */
    lc_threads_release(budget);
    return run_region(3) == (openmp() ? 3 : 1) && budget == (openmp() ? 4 : 1) ? 0 : 1;
}

static int region_and_grandchild(void)
{
    return region_of_three() || in_child(region_of_three) ? 2 : 0;
}

static int takes_locks(void)
{
    for (int i = 0; i < LC_LOCK_COUNT; i++)
        lc_lock_take((lc_lock)i);
    for (int i = LC_LOCK_COUNT; i-- > 0;)
        lc_lock_give((lc_lock)i);
    return region_of_three();
}

static atomic_bool stop;

static void *regions_until_stopped(void *arg)
{
    while (!atomic_load(&stop))
        if (run_region(3) < 1)
            atomic_fetch_add((atomic_int *)arg, 1);
    return NULL;
}

static void *locks_until_stopped(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        for (int i = 0; i < LC_LOCK_COUNT; i++)
            lc_lock_take((lc_lock)i);
        for (int i = LC_LOCK_COUNT; i-- > 0;)
            lc_lock_give((lc_lock)i);
    }
    return NULL;
}

static void test_fork(void)
{
    lc_threads_set(4);
    int held = lc_threads_acquire(3);
    run_region(3);
    CHECK(in_child(region_of_three) == 0);
    CHECK(run_region(3) == (openmp() ? 3 : 1)); /* and the parent goes on */
    CHECK(in_child(region_and_grandchild) == 0);
    lc_threads_release(held);

    /* while other threads run regions and hold locks */
    atomic_int wrong = 0;
    pthread_t thread[2];
    int bad = 0;
    atomic_store(&stop, false);
    pthread_create(&thread[0], NULL, regions_until_stopped, &wrong);
    pthread_create(&thread[1], NULL, locks_until_stopped, NULL);
    for (int i = 0; i < 40; i++) {
        bad += in_child(takes_locks) != 0;
        bad += run_region(3) != (openmp() ? 3 : 1);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    CHECK(bad == 0 && wrong == 0);
}

static int few_threads(void)
{
    atomic_store(&alive, 0); /* threads of the parent are not ours */
    atomic_store(&alive_limit, 2);
    lc_threads_set(8);
    if (lc_threads_get() != 8 || run_region(8) != 3 || run_region(8) != 3)
        return 1;
    if (lc_threads_get() != 3 || strcmp(lc_threads_rule(), "threads that could be created") != 0)
        return 2;
    atomic_store(&alive_limit, INT_MAX);
    lc_threads_set(8); /* asked again, it tries again */
    return run_region(8) == 8 ? 0 : 3;
}

static int no_threads(void)
{
    atomic_store(&alive_limit, 0);
    lc_threads_set(8);
    return run_region(8) == 1 && lc_threads_get() == 1 ? 0 : 1;
}

/* The kernel's own limit; root is exempt from it. */
static int limited_processes(void)
{
    struct rlimit limit = {4, 4};
    if (setrlimit(RLIMIT_NPROC, &limit) != 0 || setuid(65534) != 0)
        return 77;
    lc_threads_set(16);
    int team = run_region(16);
    for (int i = 0; i < 20; i++)
        if (run_region(16) != team)
            return 1;
    return team >= 1 && team <= 4 && lc_threads_get() == team ? 0 : 2;
}

static void test_creation_failure(void)
{
    if (!openmp())
        return;
    CHECK(in_child(few_threads) == 0);
    CHECK(in_child(no_threads) == 0);
    if (getuid() == 0) {
        int bad = 0;
        for (int i = 0; i < 20; i++) {
            int code = in_child(limited_processes);
            bad += code != 0 && code != 77;
        }
        CHECK(bad == 0);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--show") == 0)
        return show_main();
    test_cpu();
    test_quota();
    test_rules();
    remove_mock();
    unsetenv("LUCID_C_CGROUP_ROOT");
    test_regions();
    test_budget();
    test_fork();
    test_creation_failure();
    return check_report();
}
