/* Counter-based random numbers (Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3").
 *
 * Element i of the stream (seed, stream) is a pure function of the three, so any part can be drawn
 * again, in any order, by any number of threads, with the same bits on every ISA. */
#ifndef LC_BASE_RANDOM_H
#define LC_BASE_RANDOM_H

#include <stdint.h>

/* Four 32-bit words of the counter block `block`. */
void lc_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]);

/* out[0 .. n) = elements first .. first + n - 1 of the stream: uniform in [lo, hi), or normal(mean,
 * std). */
void lc_random_uniform(float *out, int64_t n, uint64_t seed, uint64_t stream, int64_t first,
                       float lo, float hi);
void lc_random_normal(float *out, int64_t n, uint64_t seed, uint64_t stream, int64_t first,
                      float mean, float std);

/* The seed of the process and the next stream of it (0 and 0 at first): who needs random numbers
 * takes a stream, which nobody else gets. */
typedef struct lc_random_state {
    uint64_t seed, stream;
} lc_random_state;
lc_random_state lc_random_take(void);
lc_random_state lc_random_get(void); /* without taking it */
void lc_random_set(lc_random_state state);

#endif
