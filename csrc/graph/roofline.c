#include "graph/roofline.h"

#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "kernels/kernels.h"

/* The fastest of many short turns counts: what disturbs only ever slows down, and a turn of half a
 * millisecond has a good chance to be left alone even on a busy machine. */
#define COMPUTE_TURNS 40
#define COMPUTE_FLOPS 25e6 /* of one turn and thread */
#define READ_SLICES 16     /* a turn reads a slice of the buffer, and the next one the next slice */
#define READ_TURNS (4 * READ_SLICES)

#define MIN_BUFFER ((size_t)64 << 20)
#define MAX_BUFFER ((size_t)256 << 20)

static lc_roofline known[LC_MAX_THREADS + 1]; /* by threads asked for; guarded by LC_LOCK_PLANS */

typedef struct probe {
    const lc_probe_kernels *kernels;
    float *buffer;
    int64_t pieces; /* of LC_PROBE_READ floats, in a slice */
    int64_t rounds;
    double compute_seconds, read_seconds; /* the fastest turns; written by thread 0 */
    int team;
    float sink[LC_MAX_THREADS]; /* results, so that somebody wants them */
} probe;

static void keep_fastest(double *fastest, double started)
{
    double seconds = lc_seconds() - started;
    if (*fastest == 0 || seconds < *fastest)
        *fastest = seconds;
}

static void probe_main(void *ctx, int tid, int team)
{
    probe *p = ctx;
    int64_t begin, end;
    lc_share(p->pieces, tid, team, &begin, &end);
    float *part = p->buffer + begin * READ_SLICES * LC_PROBE_READ, sum = 0;
    const int64_t n = (end - begin) * LC_PROBE_READ; /* of a slice */
    memset(part, 0, (size_t)(n * READ_SLICES) * sizeof *part);
    for (int turn = 0; turn < COMPUTE_TURNS + READ_TURNS; turn++) {
        const bool compute = turn < COMPUTE_TURNS;
        const float *slice = part + turn % READ_SLICES * n;
        lc_barrier();
        double started = tid == 0 ? lc_seconds() : 0;
        sum += compute ? p->kernels->multiply_add(p->rounds) : p->kernels->read(slice, n);
        lc_barrier();
        if (tid == 0)
            keep_fastest(compute ? &p->compute_seconds : &p->read_seconds, started);
    }
    p->sink[tid] = sum;
    if (tid == 0)
        p->team = team;
}

static size_t buffer_bytes(void)
{
    size_t bytes = 4 * lc_cpu_get()->l3;
    return bytes < MIN_BUFFER ? MIN_BUFFER : bytes > MAX_BUFFER ? MAX_BUFFER : bytes;
}

lc_status lc_roofline_measure(int threads, lc_roofline *out)
{
    threads = threads < 1 ? 1 : threads > LC_MAX_THREADS ? LC_MAX_THREADS : threads;
    lc_lock_take(LC_LOCK_PLANS);
    *out = known[threads];
    lc_lock_give(LC_LOCK_PLANS);
    if (out->threads)
        return LC_OK;

    const size_t bytes = buffer_bytes();
    probe p;
    memset(&p, 0, sizeof p);
    p.kernels = &lc_kernels_get()->probe;
    p.buffer = lc_alloc(bytes);
    if (!p.buffer)
        return LC_ERR_MEMORY;
    p.pieces = (int64_t)(bytes / (READ_SLICES * LC_PROBE_READ * sizeof *p.buffer));
    p.rounds = (int64_t)(COMPUTE_FLOPS / (double)p.kernels->round_flops);
    int got = lc_threads_acquire(threads);
    lc_parallel(got, probe_main, &p);
    lc_threads_release(got);
    lc_free(p.buffer);

    const double flops = (double)(p.rounds * p.kernels->round_flops) * p.team;
    const double read = (double)p.pieces * LC_PROBE_READ * sizeof *p.buffer;
    *out = (lc_roofline){p.team, flops / p.compute_seconds, read / p.read_seconds};
    lc_lock_take(LC_LOCK_PLANS);
    if (known[threads].threads) /* another thread was as quick: everybody gets one answer */
        *out = known[threads];
    known[threads] = *out;
    lc_lock_give(LC_LOCK_PLANS);
    return LC_OK;
}
