/* What this machine can do at most, measured: the two lines of a roofline plot (Williams, Waterman
 * and Patterson 2009). */
#ifndef LC_GRAPH_ROOFLINE_H
#define LC_GRAPH_ROOFLINE_H

#include "base/status.h"

typedef struct lc_roofline {
    int threads;  /* of the team that was measured; fewer than asked for if there were no more */
    double flops; /* per second: multiplications and additions on registers */
    double bytes; /* per second: reads of memory that no cache holds */
} lc_roofline;

/* Measures a team of `threads` threads on first use, which takes tens of milliseconds and a buffer
 * of 64 to 256 MiB; later calls give the same numbers. LC_ERR_MEMORY. */
lc_status lc_roofline_measure(int threads, lc_roofline *out);

#endif
