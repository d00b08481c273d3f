/* What an op is. One file per op (or family) in this folder fills one of these tables; the graph
 * knows ops only through it.
 *
 * - infer (record): checks shapes, gives output descs; any wrong use is caught here, with names and
 *   sizes.
 * - layout (passes): which layouts it takes and gives.
 * - pack (passes): which inputs it wants packed into one blob.
 * - prepare (plan): chooses kernels and the schedule, books scratch.
 * - run: does items [begin, end) of a phase; every thread of the team calls it for parts of its own
 *   share, then of what others leave over.
 *
 * An op opens no parallel region and allocates nothing while running. */
#ifndef LC_OPS_OP_H
#define LC_OPS_OP_H

#include "kernels/kernels.h"
#include "ops/tensor_desc.h"

#define LC_MAX_ATTR 256 /* bytes of attributes, stored in the node */
#define LC_MAX_OUT 4    /* outputs of a node */
#define LC_MAX_PHASES 4 /* phases of a step; the runner puts a barrier between them */

typedef struct lc_op lc_op;

/* A value of a graph, by number. */
typedef int32_t lc_value;
#define LC_NONE ((lc_value) - 1)

/* One planned execution of an op. The graph sets the first part, op->prepare the second. */
typedef struct lc_step {
    const lc_op *op;
    const void *attr;
    int n_in, n_out;
    const lc_desc *in, *out; /* layouts decided */
    int threads;             /* team that the plan is for: may shape the schedule, never the bits */
    const lc_kernels *kernels;

    int phases;                   /* default 1 */
    int64_t items[LC_MAX_PHASES]; /* work items of each phase; default 1 */
    size_t
        thread_bytes; /* scratch of each thread, 64-byte aligned, contents undefined; default 0 */
    size_t shared_bytes; /* scratch of the team during this step; default 0 */
    void *prep;          /* lc_step_prep; freed with the plan */
    size_t prep_bytes;
    const char *algorithm; /* a static string, e.g. "direct 6x16", for profiles; default op->name */
} lc_step;

/* Memory for what prepare works out, zeroed; step->prep. LC_ERR_MEMORY. */
lc_status lc_step_prep(lc_step *step, size_t bytes);

/* Where the data of a run lies. in[i], out[i] as the step's descs say (64-byte aligned unless they
 * are the user's own arrays: in[] may then be aligned to 4 bytes only, and so may out[]). */
typedef struct lc_bind {
    const void *const *in;
    void *const *out;
    void *shared;  /* step->shared_bytes */
    void *scratch; /* step->thread_bytes, of this thread */
    bool follows; /* item begin - 1 of the phase was this thread's last: scratch is as it left it */
} lc_bind;

/* Question and answer of layout negotiation. */
typedef struct lc_layout_query {
    const void *attr;
    int n_in, n_out;
    const lc_desc *in;  /* .layout: what the producer gives */
    const lc_desc *out; /* .layout: what consumers would like (blocked for rank 4, or plain) */
    int block;          /* of the kernel table */
} lc_layout_query;

/* Which inputs become one packed blob, by which op. The blob takes the place of inputs [first,
 * first + count). */
typedef struct lc_pack_spec {
    const lc_op *op;                             /* its inputs are those, its one output the blob */
    _Alignas(8) unsigned char attr[LC_MAX_ATTR]; /* op->attr_size bytes, the rest zero */
    int first, count;
} lc_pack_spec;

/* One of several algorithms for a node; static strings. */
typedef struct lc_candidate {
    const char *name;
    const char *refuses; /* why it cannot do this one; NULL: it could */
    const char *avoids;  /* why it should not, as far as nobody has measured; NULL: it should */
    bool chosen;
} lc_candidate;

/* --- gradients
 *
 * An op says how its gradient is computed by appending nodes, through a builder that graph/
 * implements. Those are ordinary nodes: fusion, layouts, packing and memory planning see forward
 * and backward as one graph. A forward value that an appended node reads is thereby kept until
 * backward; nothing else is. */
typedef struct lc_builder {
    void *ctx;
    lc_status (*append)(void *ctx, const lc_op *op, const void *attr, int n_in, const lc_value *in,
                        lc_value *out);
    const lc_desc *(*desc)(void *ctx, lc_value v); /* valid until the next append; plain layout */
} lc_builder;

typedef struct lc_backward {
    const lc_builder *b;
    const void *attr; /* of the forward node */
    int n_in, n_out;
    const lc_value *in, *out; /* its values */
    const lc_value *dy; /* gradient of each output, of its shape; LC_NONE: none (not all are) */
    const bool *needs;  /* is the gradient of input i wanted? (at least one is) */
    lc_value *dx; /* to be set for wanted inputs, of the input's shape; LC_NONE (as it comes): zero
                   */
} lc_backward;

enum { /* lc_op.flags */
       /* output 0 may be input 0's memory if the descs are equal (same index read, then written) */
       LC_OP_INPLACE = 1,
       /* layout of output 0 = layout of input 0 (elementwise, pooling) */
       LC_OP_KEEPS_LAYOUT = 2,
       /* moves or renames data, computes nothing (reshape, reorder): for FLOP counts and profiles */
       LC_OP_CPU_ONLY_MOVE = 4,
       /* elementwise and cheap: backward computes it again rather than keep its result */
       LC_OP_CHEAP = 8,
       /* its results are small against its inputs: kept even where a block is computed again */
       LC_OP_STATISTICS = 16,
       /* image i (along dim 0, if the rank is 2 or more) of every output depends on image i of the
        * inputs alone, and on inputs that have no images: parameters, or one for all. So it may run on
        * a part of the batch. */
       LC_OP_PER_IMAGE = 32
};

/* How a packing op goes back, nearly: its rounded products are undone, rounded again. What is left
 * over, a few units in the last place, graph/residue.h keeps. */
#define LC_UNPACK_RANGES 4
typedef struct lc_unpack {
    /* In how many bits nearly all leftovers fit: 2 (-1 .. 1) or 4 (-7 .. 7). 0: this form has no
     * way back. */
    int (*bits)(const lc_step *step);
    /* Which rows (along dim 0) of input 0 an item packs: up to LC_UNPACK_RANGES ranges of *count
     * rows, which begin with first[]. Returns how many ranges. */
    int (*rows)(const lc_step *step, int64_t item, int64_t *first, int64_t *count);
    /* Writes the rows of range i to to[i]; bind->in[0] is not read. */
    void (*run)(const lc_step *step, const lc_bind *bind, int64_t item, float *const *to);
} lc_unpack;

struct lc_op {
    const char *name; /* PyTorch's, e.g. "conv2d" */
    size_t
        attr_size; /* of its attribute struct; attributes are compared as bytes: zero them first */
    unsigned flags;

    /* Checks inputs and attributes, gives output descs (plain layout) and *n_out. */
    lc_status (*infer)(const void *attr, int n_in, const lc_desc *in, int *n_out, lc_desc *out);

    /* Sets the layouts it wants in[0 .. n_in) and gives out[0 .. n_out). NULL: plain only. */
    void (*layout)(const lc_layout_query *q, lc_layout *in, lc_layout *out);

    /* The one layout that it insists on for input i, whoever produces it (grouped convolution):
     * true and *want. Lets the pass tell producers beforehand, so that they write it directly.
     * NULL: insists on nothing. */
    bool (*insists)(const lc_layout_query *q, int i, lc_layout *want);

    /* Layouts decided: does it want inputs packed? true and *spec. NULL: never. */
    bool (*pack)(const void *attr, int n_in, const lc_desc *in, const lc_desc *out,
                 const lc_kernels *kernels, lc_pack_spec *spec);
    /* Edits the node's attributes once its inputs are packed as `spec` says (in[]: as before),
     * when their descs are not at hand any more. */
    void (*set_packed)(void *attr, int n_in, const lc_desc *in, const lc_pack_spec *spec);

    /* Layouts decided, nothing packed: the i-th of its algorithms, in order of preference; false
     * past the last one. NULL: it has one only. */
    bool (*candidate)(const void *attr, const lc_desc *in, const lc_desc *out, int i,
                      lc_candidate *found);

    /* Is output 0 the same bytes as input 0 (a view)? The planner then shares the memory and drops
     * the step. NULL: no. */
    bool (*is_view)(const void *attr, int n_in, const lc_desc *in, const lc_desc *out);

    lc_status (*prepare)(lc_step *step);

    lc_status (*run)(const lc_step *step, const lc_bind *bind, int phase, int64_t begin,
                     int64_t end);

    /* Packing ops, which have one phase and no shared scratch: the way back. NULL: none. */
    const lc_unpack *unpack;

    /* Appends the nodes of its gradient. NULL: there is none (argmax, packing); asking for a
     * gradient through it is an error. */
    lc_status (*backward)(const lc_backward *g);

    /* Multiply-adds of one execution (convolution, linear, matmul), else NULL. */
    int64_t (*macs)(const void *attr, int n_in, const lc_desc *in, const lc_desc *out);
};

#endif
