/* The state dict: dotted names of parameters and persistent buffers. */
#include <string.h>

#include "base/mem.h"
#include "nn/module.h"
#include "nn/walk.h"

typedef struct dotted {
    char *text;
    size_t length, capacity;
} dotted;

/* Adds ".name"; the caller cuts back to the old length. */
static lc_status push_name(dotted *d, const char *name)
{
    size_t n = strlen(name), needed = d->length + n + 2;
    if (needed > d->capacity) {
        size_t capacity = 2 * needed < 128 ? 128 : 2 * needed;
        char *grown = lc_realloc(d->text, d->capacity, capacity);
        if (!grown)
            return LC_ERR_MEMORY;
        d->text = grown;
        d->capacity = capacity;
    }
    if (d->length)
        d->text[d->length++] = '.';
    memcpy(d->text + d->length, name, n + 1);
    d->length += n;
    return LC_OK;
}

static bool in_state(const lc_entry *e)
{
    return e->param && (e->kind == LC_ENTRY_PARAM || (e->kind == LC_ENTRY_BUFFER && e->persistent));
}

/* PyTorch's order: a module's parameters, its buffers, then its children. */
static lc_status each_state(lc_module *m, dotted *path, int depth, lc_state_fn fn, void *ctx)
{
    if (depth > LC_MAX_NESTING)
        return lc_fail(LC_ERR_RUNTIME, "modules are nested more than %d deep", LC_MAX_NESTING);
    size_t length = path->length;
    for (int kind = LC_ENTRY_PARAM; kind <= LC_ENTRY_CHILD; kind++) {
        for (int i = 0; i < lc_module_entry_count(m); i++) {
            lc_entry e = lc_module_entry(m, i);
            if ((int)e.kind != kind || !(e.child || in_state(&e)))
                continue;
            LC_TRY(push_name(path, e.name));
            if (e.child)
                LC_TRY(each_state(e.child, path, depth + 1, fn, ctx));
            else
                LC_TRY(fn(ctx, path->text, e.param, kind == LC_ENTRY_BUFFER));
            path->length = length;
        }
    }
    return LC_OK;
}

lc_status lc_module_each_state(lc_module *m, lc_state_fn fn, void *ctx)
{
    dotted path = {0};
    lc_status status = each_state(m, &path, 0, fn, ctx);
    lc_free(path.text);
    return status;
}

/* The entry whose name is text[0 .. length). */
static bool find_part(const lc_module *m, const char *text, size_t length, lc_entry *out)
{
    for (int i = 0; i < lc_module_entry_count(m); i++) {
        *out = lc_module_entry(m, i);
        if (strlen(out->name) == length && memcmp(out->name, text, length) == 0)
            return true;
    }
    return false;
}

lc_status lc_module_find_state(lc_module *m, const char *name, lc_param **out)
{
    const char *rest = name;
    lc_entry e = {0};
    for (lc_module *at = m; at; at = e.child) {
        size_t n = strcspn(rest, ".");
        if (!find_part(at, rest, n, &e))
            break;
        if (!rest[n]) {
            if (!in_state(&e))
                break;
            *out = e.param;
            return LC_OK;
        }
        rest += n + 1;
    }
    return lc_fail(LC_ERR_KEY, "%s has no parameter or buffer '%s'", lc_module_class_of(m)->name,
                   name);
}

static lc_status reset_tree(lc_module *m, uint64_t seed, uint64_t walk, dotted *path, int depth)
{
    if (depth > LC_MAX_NESTING)
        return lc_fail(LC_ERR_RUNTIME, "modules are nested more than %d deep", LC_MAX_NESTING);
    if (!lc_walk_enter(m, walk)) /* stands in two places: the first gives the name */
        return LC_OK;
    const lc_module_class *cls = lc_module_class_of(m);
    if (cls->reset)
        LC_TRY(cls->reset(m, seed, path->length ? path->text : ""));
    size_t length = path->length;
    for (int i = 0; i < lc_module_entry_count(m); i++) {
        lc_entry e = lc_module_entry(m, i);
        if (!e.child)
            continue;
        LC_TRY(push_name(path, e.name));
        LC_TRY(reset_tree(e.child, seed, walk, path, depth + 1));
        path->length = length;
        path->text[length] = '\0';
    }
    return LC_OK;
}

lc_status lc_module_init(lc_module *m, uint64_t seed)
{
    dotted path = {0};
    lc_status status = reset_tree(m, seed, lc_walk_begin(), &path, 0);
    lc_free(path.text);
    return status;
}
