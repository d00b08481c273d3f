/* Modules: a tree of nodes that own parameters and know how to append themselves to a graph.
 *
 * A module has a class (what it appends), a config (the class's own struct), and named entries in
 * order of creation: parameters, buffers and children, each of which may be NULL ("present but
 * None", e.g. no bias). A parent calls a child through its name (lc_module_call), whatever the
 * child's class, so any child may be replaced. A host-language module is the same thing with a
 * class of the host's making (its trampoline).
 *
 * Modules are counted; a tree must have no cycles (lc_module_set_child refuses them). Building and
 * changing a tree is for one thread; calling it is for any number of threads. */
#ifndef LC_NN_MODULE_H
#define LC_NN_MODULE_H

#include "graph/graph.h"

typedef struct lc_module lc_module;

typedef struct lc_module_class {
    const char *name; /* "Conv2d" */
    /* Appends the module's computation; one output. LC_ERR_HOST if the host raised. */
    lc_status (*append)(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out);
    void (*destroy)(
        lc_module *self); /* frees what config points to, not config itself; may be NULL */
    /* Gives its own parameters and buffers (not its children's) their first values, drawn from
     * (seed, path); NULL: it has none. */
    lc_status (*reset)(lc_module *self, uint64_t seed, const char *path);
    size_t config_bytes; /* of every module of the class, for copies and pickles */
} lc_module_class;

/* A new module with one reference, in eval mode, with config_bytes of zeroed config. */
lc_status lc_module_create(const lc_module_class *cls, size_t config_bytes, lc_module **out);
lc_module *lc_module_retain(lc_module *m);
void lc_module_release(lc_module *m); /* NULL-safe */

const lc_module_class *lc_module_class_of(const lc_module *m);
void *lc_module_config(const lc_module *m);
size_t lc_module_config_bytes(const lc_module *m);

/* --- entries */
typedef enum lc_entry_kind { LC_ENTRY_PARAM, LC_ENTRY_BUFFER, LC_ENTRY_CHILD } lc_entry_kind;
typedef struct lc_entry {
    const char *name;
    lc_entry_kind kind;
    bool persistent;  /* buffers: part of the state dict */
    lc_param *param;  /* borrowed; NULL for a child or "None" */
    lc_module *child; /* borrowed; NULL for a parameter or "None" */
} lc_entry;
int lc_module_entry_count(const lc_module *m);
lc_entry lc_module_entry(const lc_module *m, int i);
bool lc_module_find(const lc_module *m, const char *name, lc_entry *out);
/* Sets or replaces an entry in place (its position stays). Takes references of its own. A name with
 * a dot or empty: LC_ERR_KEY. A name of another kind is replaced by the new kind, as setattr does.
 */
lc_status lc_module_set_param(lc_module *m, const char *name, lc_param *p);
lc_status lc_module_set_buffer(lc_module *m, const char *name, lc_param *p, bool persistent);
lc_status lc_module_set_child(lc_module *m, const char *name, lc_module *child);
lc_status lc_module_remove(lc_module *m, const char *name); /* LC_ERR_KEY */
/* Creates a parameter or buffer of this shape and adds it. */
lc_status lc_module_new_param(lc_module *m, const char *name, int rank, const int64_t *dim);
lc_status lc_module_new_buffer(lc_module *m, const char *name, int rank, const int64_t *dim);
/* Adds `child` and gives up the caller's reference, also on failure: for construction,
 * `LC_TRY(lc_module_adopt(m, "conv1", conv))`. */
lc_status lc_module_adopt(lc_module *m, const char *name, lc_module *child);

/* Training flag of this module alone; the walk over the tree is lc_module_train. */
bool lc_module_is_training(const lc_module *m);
void lc_module_train(lc_module *m, bool training);        /* this module and all below */
void lc_module_set_training(lc_module *m, bool training); /* this module only */

/* Whether backward computes what the module appends again, rather than keep it; of this module
 * alone. Off at first. */
bool lc_module_recomputes(const lc_module *m);
void lc_module_set_recompute(lc_module *m, bool recompute);

/* --- calling */
/* Around whatever m appends: notes that it is in training mode, and what is computed again. Only for
 * hosts that append a module by other ways than lc_module_append. `begun`: what begin returned. */
bool lc_module_begin(const lc_module *m, lc_graph *g);
void lc_module_end(bool begun, lc_graph *g);
/* Appends `m` to the graph: through its override if it has one (the host's: hooks, a subclass's own
 * forward), else its class. */
lc_status lc_module_append(lc_module *m, lc_graph *g, int n_in, const lc_value *in, lc_value *out);
/* The child `name` of m with one input; a missing child or "None" is LC_ERR_KEY, which names the
 * module. Errors are prefixed by the path. */
lc_status lc_module_call(lc_module *m, const char *name, lc_graph *g, lc_value x, lc_value *out);
/* The value of parameter or buffer `name`; LC_NONE if it is None. */
lc_status lc_module_value(lc_module *m, const char *name, lc_graph *g, lc_value *out);

/* The dotted path from m to a module below it, the first one found where there are several; for
 * lc_free. NULL if it is not there. */
lc_status lc_module_path(lc_module *m, const lc_module *wanted, char **path);

/* What the host attaches: an override of append, and a pointer of its own. Neither is owned. */
typedef lc_status (*lc_module_override)(lc_module *m, void *peer, lc_graph *g, int n_in,
                                        const lc_value *in, lc_value *out);
void lc_module_set_peer(lc_module *m, void *peer);
void *lc_module_peer(const lc_module *m);
void lc_module_set_override(lc_module *m, lc_module_override fn); /* NULL: none */
bool lc_module_has_override(const lc_module *m);

/* --- the state dict: dotted names ("layer1.0.conv1.weight") of all parameters and persistent
 * buffers, in order */
typedef lc_status (*lc_state_fn)(void *ctx, const char *name, lc_param *p, bool is_buffer);
lc_status lc_module_each_state(lc_module *m, lc_state_fn fn, void *ctx);
lc_status lc_module_find_state(lc_module *m, const char *name,
                               lc_param **out); /* borrowed; LC_ERR_KEY */

/* --- initialisation: convolutions He normal, fan out (He et al. 2015), linear uniform(+-1/sqrt(fan
 * in)), norms 1 and 0; drawn from (seed, the parameter's dotted name), so that it does not depend
 * on order or on neighbours. `zero_last_gamma` where a block class asks for it. */
lc_status lc_module_init(lc_module *m, uint64_t seed);

#endif
