/* Weights without their array: from a packed form and what it leaves out.
 *
 * A packed form is made from weights by few operations, each rounded once; undoing them gives every
 * weight back to within a few units in the last place. A residue keeps that small difference, in 2
 * or 4 bits per weight, and those weights whole whose difference is larger (next to zero, or in a
 * channel that batch norm multiplies with zero). Blob and residue together are the weights, bit for
 * bit, in a sixteenth or an eighth of their memory. */
#ifndef LC_GRAPH_RESIDUE_H
#define LC_GRAPH_RESIDUE_H

#include "ops/op.h"

typedef struct lc_storage lc_storage;
typedef struct lc_residue lc_residue;

/* For input 0 of a packing step; in[1 ..] are copied. *out is NULL where the step's form has no way
 * back. LC_ERR_MEMORY. */
lc_status lc_residue_create(const lc_step *step, const void *const *in, lc_residue **out);
/* Says where the step's output is, once, before anything is added. `blob` is retained. */
void lc_residue_bind(lc_residue *r, lc_storage *blob);
void lc_residue_destroy(lc_residue *r); /* NULL-safe */
/* Floats of scratch that lc_residue_add wants. */
size_t lc_residue_scratch(const lc_residue *r);
/* Takes up what items [begin, end) of the step have packed: w is all of input 0. Threads may take up
 * different items at once. */
void lc_residue_add(lc_residue *r, const float *w, int64_t begin, int64_t end, float *scratch);
/* After all items: false if the differences were not small, so that the weights must be kept. */
bool lc_residue_finish(lc_residue *r);
/* The weights, all of them. */
void lc_residue_restore(const lc_residue *r, float *w);

#endif
