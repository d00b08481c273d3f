/* Where in a tree a module stands. */
#include <string.h>

#include "base/mem.h"
#include "nn/module.h"
#include "nn/walk.h"

/* The names on the way down, the last one first. */
typedef struct way {
    const struct way *up;
    const char *name;
} way;

static char *write_path(const way *w)
{
    size_t length = 0;
    for (const way *step = w; step; step = step->up)
        length += strlen(step->name) + 1;
    char *path = lc_alloc(length);
    if (!path)
        return NULL;
    char *at = path + length, after = '\0';
    for (; w; w = w->up, after = '.') {
        size_t n = strlen(w->name);
        *--at = after;
        memcpy(at -= n, w->name, n);
    }
    return path;
}

/* Modules near the top are what is looked for most: all of a level before what is below it. */
static lc_status look(lc_module *m, const lc_module *wanted, uint64_t walk, int depth,
                      const way *up, char **path)
{
    if (depth > LC_MAX_NESTING || !lc_walk_enter(m, walk))
        return LC_OK;
    for (int below = 0; below < 2; below++)
        for (int i = 0; i < lc_module_entry_count(m) && !*path; i++) {
            lc_entry e = lc_module_entry(m, i);
            way here = {up, e.name};
            if (!e.child)
                continue;
            if (below)
                LC_TRY(look(e.child, wanted, walk, depth + 1, &here, path));
            else if (e.child == wanted && !(*path = write_path(&here)))
                return LC_ERR_MEMORY;
        }
    return LC_OK;
}

lc_status lc_module_path(lc_module *m, const lc_module *wanted, char **path)
{
    *path = NULL;
    return look(m, wanted, lc_walk_begin(), 0, NULL, path);
}
