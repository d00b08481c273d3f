/* Memory for packed forms: what weights leave as soon as they are packed, and where that does not
 * do, fresh blocks. Used memory has its pages already; getting 100 MiB of new ones from the system
 * takes longer than packing weights of that size. */
#ifndef LC_GRAPH_SPACE_H
#define LC_GRAPH_SPACE_H

#include "graph/param.h"

typedef struct lc_spaces {
    lc_space *left; /* no two of them can be joined */
    int n, capacity;
    lc_space fresh; /* what of the newest block was never used */
    size_t wanted;  /* bytes that are expected and not taken yet: blocks are no larger */
} lc_spaces;

/* Says that so many bytes will be taken. LC_ERR_MEMORY: the sum exceeds the address space. */
lc_status lc_spaces_expect(lc_spaces *all, size_t bytes);
/* A storage of that size, which was expected. *used: whether its memory was in use before.
 * LC_ERR_MEMORY. */
lc_status lc_spaces_take(lc_spaces *all, size_t bytes, lc_storage **out, bool *used);
/* Takes over a space, which may be empty. */
void lc_spaces_add(lc_spaces *all, lc_space space);
/* Gives what is left back to the system. */
void lc_spaces_clear(lc_spaces *all);

#endif
