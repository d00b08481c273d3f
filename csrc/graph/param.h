/* Parameters and buffers: named arrays that outlive graphs.
 *
 * A storage is a counted piece of memory; a parameter points to one and has a stamp, a number drawn
 * from one process-wide counter at every change and never used twice. Whoever derives something
 * from parameters (packed weights) keeps the stamps that it was made from; equal stamps mean equal
 * contents.
 *
 * A storage whose contents were packed may be reduced: its memory goes, a residue (residue.h) stays,
 * and the contents are made again, bit for bit, when somebody asks for them. */
#ifndef LC_GRAPH_PARAM_H
#define LC_GRAPH_PARAM_H

#include "graph/residue.h"

/* Whole pages of a block of memory that storages share, and that none of them uses. */
typedef struct lc_space {
    void *data;
    size_t bytes;
    lc_storage *slab; /* the block, held; NULL: no space */
} lc_space;

/* Takes over `data`; release(ctx) is called when the last reference goes (NULL: data came from
 * lc_alloc). */
lc_status lc_storage_adopt(void *data, size_t bytes, void (*release)(void *ctx), void *ctx,
                           lc_storage **out);
lc_status lc_storage_create(size_t bytes, lc_storage **out); /* contents undefined */
/* With a copy of `data` as contents. */
lc_status lc_storage_create_copy(const void *data, size_t bytes, lc_storage **out);
/* n storages in one block of memory; each gives its pages back on its own. All or none. */
lc_status lc_storage_create_many(int n, const size_t *bytes, lc_storage **out);
/* Of one of them: that all of them have been written. */
void lc_storage_filled(const lc_storage *s);
lc_storage *lc_storage_retain(lc_storage *s);
void lc_storage_release(lc_storage *s); /* NULL-safe */
size_t lc_storage_bytes(const lc_storage *s);
/* May it be written to in place? Yes if there are no references but those `holders` that the caller
 * knows of, and the memory came from lc_alloc (adopted memory may be known to its giver still). */
bool lc_storage_is_exclusive(const lc_storage *s, int holders);
/* The contents, for as long as the storage lives: from now on it is never reduced. NULL
 * (LC_ERR_MEMORY) only if it is reduced now and there is no memory for the contents. */
void *lc_storage_data(lc_storage *s);
/* The contents until they are given back. LC_ERR_MEMORY. */
lc_status lc_storage_borrow(lc_storage *s, void **data);
/* Would the only borrower do well to offer a residue? */
bool lc_storage_wants_residue(const lc_storage *s);
/* Ends a loan. `r` (may be NULL) is taken over: unless somebody else reads the contents or has been
 * given them for good, the storage is reduced to its residue. The memory goes back to the system, or
 * to `left` (may be NULL), which is empty if there is none or it was a block of its own. */
void lc_storage_give_back(lc_storage *s, lc_residue *r, lc_space *left);

/* What a storage takes of a space: its bytes, filled up to whole pages. False on overflow. */
bool lc_space_bytes(size_t bytes, size_t *taken);
/* The beginning of a space that has room becomes a storage. LC_ERR_MEMORY. */
lc_status lc_space_take(lc_space *space, size_t bytes, lc_storage **out);
/* Gives the pages back to the system. An empty space may be dropped. */
void lc_space_drop(lc_space space);

typedef struct lc_param lc_param;
/* A parameter of this shape with no contents yet (reads as zeros). One reference, the caller's. */
lc_status lc_param_create(lc_dtype dtype, int rank, const int64_t *dim, lc_param **out);
lc_param *lc_param_retain(lc_param *p);
void lc_param_release(lc_param *p); /* NULL-safe */

const lc_desc *lc_param_desc(const lc_param *p); /* plain */
uint64_t lc_param_stamp(const lc_param *p);
bool lc_param_is_set(const lc_param *p);
/* Whether gradients are wanted; parameters start with true, whoever makes a buffer clears it. */
bool lc_param_requires_grad(const lc_param *p);
void lc_param_set_requires_grad(lc_param *p, bool on);

/* The contents: a reference of the caller's. Allocates zeros if nothing was set. */
lc_status lc_param_storage(lc_param *p, lc_storage **out);
/* The contents on loan: a reference, and memory that is to be given back before it is released. */
lc_status lc_param_contents(lc_param *p, lc_storage **out, void **data);
/* The contents of this moment and their stamp; *out is NULL if nothing was set. */
void lc_param_snapshot(lc_param *p, lc_storage **out, uint64_t *stamp);
/* Replaces the contents by a storage of the same size (taking a reference of its own) and draws a
 * stamp. Readers of the old storage keep it. Derived blobs are dropped. */
void lc_param_replace(lc_param *p, lc_storage *s);
/* The same for n parameters at once, so that other threads see all changes or none. The references
 * in s[] are given up for those of the old contents (or NULL), which the caller releases. */
void lc_param_exchange(int n, lc_param *const *p, lc_storage **s);
/* Says that the contents were changed in place: draws a stamp. */
void lc_param_touch(lc_param *p);

/* --- gradient: a storage of the parameter's desc, or none. Setting it draws no stamp. */
/* A reference of the caller's, or NULL: none. */
lc_storage *lc_param_grad(lc_param *p);
/* Replaces it, taking a reference of its own; NULL deletes it. */
void lc_param_set_grad(lc_param *p, lc_storage *grad);
/* Memory for one, contents undefined; a reference of the caller's. That of a deleted gradient, if
 * nobody else holds it and no weights have been packed for inference since: fresh memory has to be
 * zeroed by the system in every step (4 % of a step of resnet_50). */
lc_status lc_param_new_grad(lc_param *p, lc_storage **out);
/* grad += s. Without a gradient the storage itself becomes it (no copy; a reference is taken);
 * where somebody else holds the old gradient, the sum goes into fresh memory and they keep the old
 * one. float32 parameters only (LC_ERR_TYPE). On failure nothing has changed. */
lc_status lc_param_accumulate_grad(lc_param *p, lc_storage *s);
/* The same for n different parameters: all or none. */
lc_status lc_param_accumulate_grads(int n, lc_param *const *p, lc_storage *const *s);

/* What the host keeps with a parameter (its gradient); release(data) is called when it is replaced
 * or the parameter goes. Neither is guarded against concurrent calls. */
void lc_param_set_host(lc_param *p, void *data, void (*release)(void *data));
void *lc_param_host(const lc_param *p);

/* --- packed forms, kept on the parameter that they are made from first */
typedef struct lc_pack_key {
    const lc_op *op;
    const void *attr; /* op->attr_size bytes */
    const lc_desc *out;
    int n_stamps;
    const uint64_t *stamps; /* of all its inputs, in order */
} lc_pack_key;
/* A reference to the blob made under that key, or NULL. */
lc_storage *lc_param_find_pack(lc_param *p, const lc_pack_key *key);
/* Keeps it (retaining), unless p has changed since; forms made from older contents go.
 * LC_ERR_MEMORY leaves things as they are. */
lc_status lc_param_keep_pack(lc_param *p, const lc_pack_key *key, lc_storage *blob);

#endif
