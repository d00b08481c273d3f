/* Plans and executions; internal to graph/.
 *
 * A plan is an immutable list of steps with the place of every value: it holds no weights and no
 * data. An execution is the memory that one run of it needs; idle ones are kept with the plan. */
#ifndef LC_GRAPH_PLAN_H
#define LC_GRAPH_PLAN_H

#include "graph/ir.h"
#include "graph/profile.h"

typedef enum lc_place_kind {
    LC_PLACE_NONE,   /* never read and never written (a dropped value) */
    LC_PLACE_ARENA,  /* at = byte offset in the execution's arena */
    LC_PLACE_INPUT,  /* at = number of the input */
    LC_PLACE_PARAM,  /* at = number of the parameter */
    LC_PLACE_CONST,  /* at = number of the constant */
    LC_PLACE_OUTPUT, /* at = number of the wanted output: the caller's memory */
    LC_PLACE_VIEW    /* at = the value whose memory it shares; resolved before the plan is ready */
} lc_place_kind;

typedef struct lc_place {
    lc_place_kind kind;
    int64_t at;
} lc_place;

/* A node that depends on parameters alone; its one output, a blob, is kept on its first parameter.
 */
typedef struct lc_constant {
    int node;
    int n_params;
    const int *params; /* numbers, in the order of the node's inputs */
} lc_constant;

typedef struct lc_plan lc_plan;
typedef struct lc_execution lc_execution;

struct lc_plan {
    lc_plan *newer,
        *older; /* in the cache, by last use; guarded by LC_LOCK_PLANS, as are the next three */
    int refs;
    lc_execution *idle;
    int n_idle;

    unsigned char *key;
    size_t key_bytes;
    uint64_t hash;

    lc_ir ir;              /* after all passes; steps refer to its values */
    lc_place *places;      /* per value */
    lc_step *steps;        /* per node */
    lc_desc *descs;        /* what the steps' in and out point into */
    unsigned char *pieces; /* per node: in how many pieces a thread does its share, so that a stop
                              is noticed within long steps */
    int *step_nodes;       /* the nodes that are run, in order */
    int64_t *shared_at;    /* per run step: arena offset of its shared scratch */
    lc_constant *constants;
    int *constant_params;
    int n_steps, n_constants;
    int n_in, n_out; /* arguments of all run steps together */

    int threads;         /* team that it is made for; 1 for little work */
    size_t arena_bytes;  /* values and shared scratch */
    size_t bound_bytes;  /* the most bytes that are alive at once: no arena can be smaller */
    size_t thread_bytes; /* scratch of each thread */
};

/* Runs the passes over a copy of `ir` and plans the result. */
lc_status lc_plan_create(const lc_ir *ir, int threads, lc_plan **out);
void lc_plan_destroy(lc_plan *plan);

/* Drops views from plan->step_nodes, gives every value a place (those of constants have theirs),
 * and sets shared_at, arena_bytes and bound_bytes (memory_plan.c). */
lc_status lc_plan_memory(lc_plan *plan);

struct lc_execution {
    lc_execution *next;
    unsigned char *arena; /* arena_bytes, then thread_bytes for each thread */
    size_t bytes;
    void **data;            /* per value */
    lc_storage **constants; /* per constant, held while running */
    uint64_t *stamps;       /* room for the stamps of one constant's parameters */
    const void **in;        /* argument lists of all steps, one after the other */
    void **out;
};

/* The plan for work->ir (work->key made), from the cache or new; give it back with lc_plan_release.
 */
lc_status lc_plan_acquire(const lc_graph_work *work, int threads, lc_plan **out);
void lc_plan_release(lc_plan *plan);
lc_status lc_execution_acquire(lc_plan *plan, lc_execution **out);
void lc_execution_release(lc_plan *plan, lc_execution *e);
void lc_execution_destroy(lc_execution *e);

/* Fills e->constants (constants.c), one reference each; sources: the plan's parameters by number.
 * LC_ERR_INTERRUPTED if stopped. */
lc_status lc_provide_constants(const lc_plan *plan, lc_execution *e, const lc_source *sources,
                               const lc_run_options *options);

#endif
