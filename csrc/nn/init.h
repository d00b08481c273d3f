/* First values of parameters, for the reset functions of module classes. */
#ifndef LC_NN_INIT_H
#define LC_NN_INIT_H

#include "nn/module.h"

/* Each fills parameter or buffer `name` of m, whose dotted path is `path` ("": the root); nothing
 * happens where it is None or missing. Random values are drawn from the stream (seed, hash of the
 * array's dotted name), uniform ones from [-bound, bound). */
lc_status lc_init_constant(lc_module *m, const char *name, float value);
lc_status lc_init_uniform(lc_module *m, const char *name, uint64_t seed, const char *path,
                          double bound);
lc_status lc_init_normal(lc_module *m, const char *name, uint64_t seed, const char *path,
                         double std);

/* Inputs that one output sums over, and outputs that one input goes to, of the weight `name`,
 * (OC, C / groups, KH, KW) or (OC, K). PyTorch's definitions: fan out does not look at groups. 1
 * where the weight is None or missing. */
double lc_init_fan_in(const lc_module *m, const char *name);
double lc_init_fan_out(const lc_module *m, const char *name);

#endif
