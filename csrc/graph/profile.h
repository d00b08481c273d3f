/* What a run did, one row per step, in execution order. */
#ifndef LC_GRAPH_PROFILE_H
#define LC_GRAPH_PROFILE_H

#include "graph/graph.h"

typedef struct lc_profile_row {
    const char *op; /* static strings */
    const char *algorithm;
    double seconds;
    int64_t macs;  /* multiply-adds; 0 where that means nothing */
    int64_t bytes; /* read and written once, padding included */
    lc_desc in0, out0;
} lc_profile_row;

typedef struct lc_profile {
    int count;
    lc_profile_row *rows;   /* lc_profile_free */
    int64_t arena_bytes;    /* planned memory of intermediate values */
    int64_t arena_bound;    /* its lower bound: the most that is alive at once */
    int64_t constant_bytes; /* packed weights */
} lc_profile;
void lc_profile_free(lc_profile *p);

#endif
