/* One pass over the elements of many tensors at once: what optimizer steps, clipping and averages
 * are made of.
 *
 * A pass has rows, one per parameter that it changes, each with up to LC_PASS_SLOTS tensors of that
 * parameter's shape. lc_pass_begin finds memory for all of them: what is written is written in place
 * where nobody else holds the storage, and else into a fresh one. lc_pass_run goes through the
 * elements in one parallel region. lc_pass_end puts fresh storages in place and draws stamps. A
 * failure in lc_pass_begin changes nothing; nothing after it fails.
 *
 * The caller sees to it that no other thread begins to read or write the same parameters between
 * begin and end (runs that began before have references of their own). */
#ifndef LC_TRAIN_PASS_H
#define LC_TRAIN_PASS_H

#include "graph/param.h"

#define LC_PASS_SLOTS 5
#define LC_PASS_PIECE 16384 /* elements; a row's sums are sums of the pieces' sums, in order */

typedef enum lc_slot_use {
    LC_SLOT_READ,       /* contents, for reading; in only */
    LC_SLOT_READ_GRAD,  /* its gradient, for reading; in is NULL if there is none */
    LC_SLOT_WRITE,      /* contents, read and written; not set: zeros */
    LC_SLOT_WRITE_NEW,  /* the same, but in is NULL if not set */
    LC_SLOT_WRITE_GRAD, /* its gradient, read and written; NULL if there is none */
} lc_slot_use;

typedef struct lc_slot {
    lc_param *param; /* set by the caller; NULL: in and out are NULL */
    const float *in;
    float *out;
    lc_storage *held, *fresh; /* of the pass */
} lc_slot;

typedef struct lc_pass_row {
    lc_slot slot[LC_PASS_SLOTS]; /* slot 0 gives the number of elements */
    const void *user;            /* the caller's */
    int64_t n, start;            /* of the pass: elements, and those of the rows before */
    int64_t piece;               /* of the pass: number of its first piece */
    double sum[2];               /* after the first phase */
} lc_pass_row;

typedef struct lc_pass lc_pass;
/* Does elements [first, first + n) of a row. Adds to sum[] (zeros before, of this piece alone if
 * the phase sums). */
typedef void (*lc_piece_fn)(const lc_pass *pass, const lc_pass_row *row, int64_t first, int64_t n,
                            double *sum);

struct lc_pass {
    int rows, slots;
    const lc_slot_use *use; /* of each slot */
    lc_piece_fn phase[2];   /* the second may be NULL */
    bool sums;              /* does the first phase sum? */
    const void *user;
    /* of the pass */
    lc_pass_row *row;
    int64_t n, pieces;
    double (*sum)[2]; /* of each piece */
};

/* pass: zeroed, with the first part set. The caller fills rows' slot[].param and user after
 * lc_pass_create, then begins. Both: LC_ERR_MEMORY. lc_pass_begin: LC_ERR_VALUE for tensors of a
 * row with different shapes, LC_ERR_TYPE for what is not float32. */
lc_status lc_pass_create(lc_pass *pass);
lc_status lc_pass_begin(lc_pass *pass);
void lc_pass_run(lc_pass *pass);
void lc_pass_end(lc_pass *pass);
/* Releases everything; after a create that succeeded. */
void lc_pass_destroy(lc_pass *pass);

#endif
