/* Walking a tree whose modules may stand in several places: who has been seen is marked in the
 * module, by the number of the walk. For nn/ only, but for the limit; walks belong to building and
 * changing a tree, thus to one thread. */
#ifndef LC_NN_WALK_H
#define LC_NN_WALK_H

#include "nn/module.h"

/* Deeper trees can be neither called nor listed nor initialised: recursion has to end before the
 * stack does. */
#define LC_MAX_NESTING 500

uint64_t lc_walk_begin(void);
bool lc_walk_enter(lc_module *m, uint64_t walk); /* true the first time that this walk comes here */

#endif
