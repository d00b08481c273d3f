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
    LC_PLACE_INPUT,  /* at = number of the input (gradients of outputs follow forward's inputs) */
    LC_PLACE_PARAM,  /* at = number of the parameter */
    LC_PLACE_CONST,  /* at = number of the constant */
    LC_PLACE_OUTPUT, /* at = number of the output: the caller's memory */
    LC_PLACE_VIEW    /* at = the value whose memory it shares; resolved before the plan is ready */
} lc_place_kind;

typedef struct lc_place {
    lc_place_kind kind;
    bool one_part; /* ARENA: every part of the batch lies here in its turn; else all together */
    int64_t at;
} lc_place;

/* A node that depends on parameters alone; its one output, a blob, is kept on its first parameter.
 */
typedef struct lc_constant {
    int node;
    int n_params;
    const int *params; /* numbers, in the order of the node's inputs */
} lc_constant;

/* One execution of a run step: on all images, or on one part of them (parts.c). */
typedef struct lc_turn {
    const lc_step *step;
    int row;           /* number of the run step */
    int64_t image;     /* the first of those that it is for */
    int64_t shared_at; /* arena offset of its shared scratch */
} lc_turn;

typedef struct lc_plan lc_plan;
typedef struct lc_execution lc_execution;

struct lc_plan {
    lc_plan *newer,
        *older; /* in the cache, by last use; guarded by LC_LOCK_PLANS, as are the next four */
    int refs;
    lc_execution *idle;
    int n_idle;
    int64_t used; /* acquisitions of all plans up to its last one */

    unsigned char *key;
    size_t key_bytes;
    uint64_t hash;

    lc_ir ir;              /* after all passes; steps refer to its values */
    lc_place *places;      /* per value */
    lc_step *steps;        /* per node; then again, for its shorter parts */
    lc_desc *descs;        /* what the steps' in and out point into */
    unsigned char *pieces; /* per step: in how many pieces a thread does its share, so that a stop
                              is noticed within long steps */
    int *step_nodes;       /* the nodes that are run, in order */
    int64_t *shared_at;    /* per run step: arena offset of its shared scratch */
    int64_t *parts;        /* per node: in how many parts it does the batch */
    int *sections;         /* per node: the same number for those that take turns */
    lc_turn *turns;        /* what is run, in order */
    lc_constant *constants;
    int *constant_params;
    int n_steps, n_turns, n_constants;
    int n_in, n_out; /* arguments of all turns together */

    /* With backward: turns [n_first, n_turns) are its, and constants are run steps too. */
    int n_first;
    int first_in, first_out; /* arguments of the turns before n_first */
    lc_gradients gradients;
    lc_value *kept; /* values in the arena that backward reads of forward */
    int n_kept;
    bool *param_read, *input_read; /* per parameter and given input: does backward read it? */
    int n_given;                   /* inputs of forward */

    int threads;         /* team that it is made for; 1 for little work */
    size_t arena_bytes;  /* values and shared scratch */
    size_t bound_bytes;  /* the most bytes that are alive at once: no arena can be smaller */
    size_t thread_bytes; /* scratch of each thread */
};

/* Appends backward if a leaf wants a gradient, runs the passes over that copy of `ir` and plans the
 * result. */
lc_status lc_plan_create(const lc_ir *ir, int threads, lc_plan **out);
void lc_plan_destroy(lc_plan *plan);

/* --- parts of the batch (parts.c). Sizes of parts differ by one at most, the larger come first. */
/* Decides which nodes run on parts of the batch: plan->parts and plan->sections. */
lc_status lc_plan_find_parts(lc_plan *plan);
int64_t lc_plan_part_images(const lc_plan *plan, int i, int64_t part);
/* The desc of value v as node i sees it with that part. */
lc_desc lc_plan_part_desc(const lc_plan *plan, int i, lc_value v, int64_t part);
/* First and last of the run steps that are run together for one part after the other: `step` itself
 * where a turn is for all images. */
void lc_plan_section(const lc_plan *plan, int step, int *first, int *last);
/* plan->turns from the run steps, and the numbers of arguments. */
lc_status lc_plan_make_turns(lc_plan *plan);

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

/* --- running (run.c) */
/* The memory of one run beside the arena, by number. */
typedef struct lc_run_memory {
    const void *const *inputs;
    const lc_source *sources; /* parameters */
    void *const *outputs;
} lc_run_memory;
/* Points all values and steps of `e` to their memory. LC_ERR_MEMORY. */
lc_status lc_run_bind(const lc_plan *plan, lc_execution *e, const lc_run_memory *memory);
/* The module paths of the nodes that were extracted last, which plans do not know. */
typedef struct lc_scopes {
    const char *text; /* paths, each with its 0 */
    int32_t at[];     /* per extracted node: where its path starts */
} lc_scopes;
lc_status lc_scopes_take(lc_graph *g, lc_scopes **out); /* lc_free */
/* Run turns [begin, end); those before have been skipped or run. scopes: for the profile; NULL: none
 * is asked for. */
lc_status lc_run_steps(const lc_scopes *scopes, const lc_plan *plan, lc_execution *e, int begin,
                       int end, const lc_run_options *options);
/* Forward of the recording that was extracted last into data[0 .. ir.n_wanted), then its effects. The
 * workspace of g says afterwards where inputs and parameters were read. */
lc_status lc_run_forward(lc_graph *g, const lc_plan *plan, lc_execution *e, void *const *data,
                         const lc_run_options *options);

/* Fills e->constants (constants.c), one reference each; sources: the plan's parameters by number.
 * LC_ERR_INTERRUPTED if stopped. */
lc_status lc_provide_constants(const lc_plan *plan, lc_execution *e, const lc_source *sources,
                               const lc_run_options *options);

#endif
