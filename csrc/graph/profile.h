/* What runs did, one row per step, in execution order. A run adds its rows to those that are there;
 * a run that fails adds none. */
#ifndef LC_GRAPH_PROFILE_H
#define LC_GRAPH_PROFILE_H

#include "graph/graph.h"

typedef struct lc_profile_row {
    char *scope;    /* path of the module that it belongs to (of a fused step, the convolution's; of
                       backward, of the op that it differentiates); "" where it belongs to none */
    const char *op; /* static strings */
    const char *algorithm;
    double seconds;
    int64_t macs;  /* multiply-adds; 0 where that means nothing */
    int64_t bytes; /* read and written once, padding included */
    lc_desc in0, out0;
} lc_profile_row;

typedef struct lc_profile {
    int count;
    lc_profile_row *rows; /* lc_profile_free */
    int threads;          /* of the largest team */
    /* planned memory of intermediate values and its lower bound, the most that is alive at once; of
     * the run that needs most */
    int64_t arena_bytes, arena_bound;
    int64_t constant_bytes; /* packed weights, of all runs together */
} lc_profile;
void lc_profile_free(lc_profile *p);

#endif
