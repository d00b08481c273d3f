#include "nn/module.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "nn/walk.h"

typedef struct entry {
    char *name;
    lc_entry_kind kind;
    bool persistent;
    lc_param *param; /* references of the module's own */
    lc_module *child;
} entry;

struct lc_module {
    atomic_int refs;
    bool training, recompute;
    const lc_module_class *cls;
    entry *entries;
    int count, capacity;
    size_t config_bytes;
    void *peer;
    lc_module_override override;
    _Atomic uint64_t mark; /* the last walk that came here */
    lc_module *next_dead;
    alignas(max_align_t) unsigned char config[];
};

/* ---- life ---- */

lc_status lc_module_create(const lc_module_class *cls, size_t config_bytes, lc_module **out)
{
    size_t bytes;
    if (!lc_size_add(sizeof(lc_module), config_bytes, &bytes))
        return lc_fail(LC_ERR_MEMORY, "%s: a config of %zu bytes", cls->name, config_bytes);
    lc_module *m = lc_alloc_zero(bytes);
    if (!m)
        return LC_ERR_MEMORY;
    atomic_init(&m->refs, 1);
    m->cls = cls;
    m->config_bytes = config_bytes;
    *out = m;
    return LC_OK;
}

lc_module *lc_module_retain(lc_module *m)
{
    if (m)
        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

static void destroy(lc_module *m)
{
    if (m->cls->destroy)
        m->cls->destroy(m);
    for (int i = 0; i < m->count; i++) {
        lc_free(m->entries[i].name);
        lc_param_release(m->entries[i].param);
        lc_module_release(m->entries[i].child);
    }
    lc_free(m->entries);
    lc_free(m);
}

void lc_module_release(lc_module *m)
{
    /* A list instead of recursion: a tree may be deeper than the stack. */
    static _Thread_local lc_module *dead;
    static _Thread_local bool draining;
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    m->next_dead = dead;
    dead = m;
    if (draining)
        return;
    draining = true;
    while (dead) {
        lc_module *next = dead;
        dead = next->next_dead;
        destroy(next);
    }
    draining = false;
}

const lc_module_class *lc_module_class_of(const lc_module *m)
{
    return m->cls;
}

void *lc_module_config(const lc_module *m)
{
    return ((lc_module *)m)->config;
}

size_t lc_module_config_bytes(const lc_module *m)
{
    return m->config_bytes;
}

void lc_module_set_peer(lc_module *m, void *peer)
{
    m->peer = peer;
}

void *lc_module_peer(const lc_module *m)
{
    return m->peer;
}

void lc_module_set_override(lc_module *m, lc_module_override fn)
{
    m->override = fn;
}

bool lc_module_has_override(const lc_module *m)
{
    return m->override != NULL;
}

/* ---- walks ---- */

uint64_t lc_walk_begin(void)
{
    static _Atomic uint64_t walks;
    return atomic_fetch_add(&walks, 1) + 1;
}

bool lc_walk_enter(lc_module *m, uint64_t walk)
{
    if (atomic_load_explicit(&m->mark, memory_order_relaxed) == walk)
        return false;
    atomic_store_explicit(&m->mark, walk, memory_order_relaxed);
    return true;
}

/* Does the tree of `from` contain m? */
static lc_status refuse_cycle(lc_module *from, const lc_module *m, uint64_t walk, int depth)
{
    if (from == m)
        return lc_fail(LC_ERR_VALUE, "a %s cannot be put into its own tree", m->cls->name);
    if (depth > LC_MAX_NESTING)
        return lc_fail(LC_ERR_VALUE, "modules are nested more than %d deep", LC_MAX_NESTING);
    if (!lc_walk_enter(from, walk))
        return LC_OK;
    for (int i = 0; i < from->count; i++)
        if (from->entries[i].child)
            LC_TRY(refuse_cycle(from->entries[i].child, m, walk, depth + 1));
    return LC_OK;
}

static void train(lc_module *m, bool training, uint64_t walk, int depth)
{
    if (depth > LC_MAX_NESTING || !lc_walk_enter(m, walk))
        return;
    m->training = training;
    for (int i = 0; i < m->count; i++)
        if (m->entries[i].child)
            train(m->entries[i].child, training, walk, depth + 1);
}

bool lc_module_is_training(const lc_module *m)
{
    return m->training;
}

void lc_module_train(lc_module *m, bool training)
{
    train(m, training, lc_walk_begin(), 0);
}

void lc_module_set_training(lc_module *m, bool training)
{
    m->training = training;
}

bool lc_module_recomputes(const lc_module *m)
{
    return m->recompute;
}

void lc_module_set_recompute(lc_module *m, bool recompute)
{
    m->recompute = recompute;
}

/* ---- entries ---- */

static entry *find(const lc_module *m, const char *name)
{
    for (int i = 0; i < m->count; i++)
        if (strcmp(m->entries[i].name, name) == 0)
            return &m->entries[i];
    return NULL;
}

static lc_entry view(const entry *e)
{
    return (lc_entry){e->name, e->kind, e->persistent, e->param, e->child};
}

int lc_module_entry_count(const lc_module *m)
{
    return m->count;
}

lc_entry lc_module_entry(const lc_module *m, int i)
{
    return view(&m->entries[i]);
}

bool lc_module_find(const lc_module *m, const char *name, lc_entry *out)
{
    const entry *e = find(m, name);
    if (e)
        *out = view(e);
    return e != NULL;
}

/* Sets or adds; takes references to what `what` holds. */
static lc_status set_entry(lc_module *m, const char *name, entry what)
{
    if (!name || !name[0] || strchr(name, '.'))
        return lc_fail(LC_ERR_KEY, "%s: a name must not be empty or contain a dot, got '%s'",
                       m->cls->name, name ? name : "");
    if (what.child)
        LC_TRY(refuse_cycle(what.child, m, lc_walk_begin(), 0));
    entry *e = find(m, name), old = {0};
    if (e) {
        old = *e;
        what.name = old.name;
    } else {
        if (!lc_grow((void **)&m->entries, sizeof *m->entries, m->count, &m->capacity))
            return LC_ERR_MEMORY;
        what.name = lc_strdup(name);
        if (!what.name)
            return LC_ERR_MEMORY;
        e = &m->entries[m->count++];
    }
    if (what.param)
        lc_param_retain(what.param);
    lc_module_retain(what.child);
    *e = what;
    /* Last, since a host's destructor may look at the tree. */
    lc_param_release(old.param);
    lc_module_release(old.child);
    return LC_OK;
}

lc_status lc_module_set_param(lc_module *m, const char *name, lc_param *p)
{
    return set_entry(m, name, (entry){.kind = LC_ENTRY_PARAM, .param = p});
}

lc_status lc_module_set_buffer(lc_module *m, const char *name, lc_param *p, bool persistent)
{
    return set_entry(m, name,
                     (entry){.kind = LC_ENTRY_BUFFER, .persistent = persistent, .param = p});
}

lc_status lc_module_set_child(lc_module *m, const char *name, lc_module *child)
{
    return set_entry(m, name, (entry){.kind = LC_ENTRY_CHILD, .child = child});
}

lc_status lc_module_remove(lc_module *m, const char *name)
{
    entry *e = find(m, name);
    if (!e)
        return lc_fail(LC_ERR_KEY, "%s has no parameter, buffer or child '%s'", m->cls->name, name);
    entry old = *e;
    int i = (int)(e - m->entries);
    memmove(e, e + 1, (size_t)(m->count - i - 1) * sizeof *e);
    m->count--;
    lc_free(old.name);
    lc_param_release(old.param);
    lc_module_release(old.child);
    return LC_OK;
}

static lc_status new_array(lc_module *m, const char *name, int rank, const int64_t *dim,
                           bool buffer)
{
    lc_param *p;
    lc_status status = lc_param_create(LC_F32, rank, dim, &p);
    if (status != LC_OK)
        return lc_fail_in(status, "%s.%s", m->cls->name, name);
    lc_param_set_requires_grad(p, !buffer);
    status = buffer ? lc_module_set_buffer(m, name, p, true) : lc_module_set_param(m, name, p);
    lc_param_release(p);
    return status;
}

lc_status lc_module_new_param(lc_module *m, const char *name, int rank, const int64_t *dim)
{
    return new_array(m, name, rank, dim, false);
}

lc_status lc_module_new_buffer(lc_module *m, const char *name, int rank, const int64_t *dim)
{
    return new_array(m, name, rank, dim, true);
}

lc_status lc_module_adopt(lc_module *m, const char *name, lc_module *child)
{
    lc_status status = lc_module_set_child(m, name, child);
    lc_module_release(child);
    return status;
}

/* ---- calling ---- */

bool lc_module_begin(const lc_module *m, lc_graph *g)
{
    bool begun = m->recompute;
    if (m->training)
        lc_graph_note_training(g);
    if (begun)
        lc_graph_begin_recompute(g);
    return begun;
}

void lc_module_end(bool begun, lc_graph *g)
{
    if (begun)
        lc_graph_end_recompute(g);
}

lc_status lc_module_append(lc_module *m, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    static _Thread_local int depth;
    if (depth >= LC_MAX_NESTING)
        return lc_fail(LC_ERR_RUNTIME, "modules are nested more than %d deep", LC_MAX_NESTING);
    if (!m->override && !m->cls->append)
        return lc_fail(LC_ERR_RUNTIME, "%s has no forward", m->cls->name);
    depth++;
    bool begun = lc_module_begin(m, g);
    lc_status status = m->override ? m->override(m, m->peer, g, n_in, in, out)
                                   : m->cls->append(m, g, n_in, in, out);
    lc_module_end(begun, g);
    depth--;
    return status;
}

/* Has this thread's last failure been given its path? The innermost call has all of it, so the
 * others add nothing. */
static _Thread_local bool located;

#define MAX_SHOWN 300 /* characters of a path: it must leave room for the message itself */

/* Appends the child while the graph's scope is its path, made in path[]; afterwards the scope is
 * the first `parent` bytes of it again. */
static lc_status call_in_scope(lc_module *child, const char *name, lc_graph *g, char *path,
                               size_t parent, lc_value x, lc_value *out)
{
    size_t length = parent;
    memcpy(path, lc_graph_scope(g), parent);
    if (parent)
        path[length++] = '.';
    memcpy(path + length, name, strlen(name) + 1);
    LC_TRY(lc_graph_set_scope(g, path));
    located = false;
    lc_status status = lc_module_append(child, g, 1, &x, out);
    if (status != LC_OK && status != LC_ERR_HOST && status != LC_ERR_INTERRUPTED && !located) {
        size_t shown = strlen(path) > MAX_SHOWN ? strlen(path) - MAX_SHOWN : 0;
        lc_fail_in(status, "%s%s", shown ? "..." : "", path + shown);
        located = true;
    }
    path[parent] = '\0';
    if (status != LC_OK) {
        (void)lc_graph_set_scope(g, path); /* the recording is lost anyway */
        return status;
    }
    return lc_graph_set_scope(g, path);
}

lc_status lc_module_call(lc_module *m, const char *name, lc_graph *g, lc_value x, lc_value *out)
{
    located = false;
    const entry *e = find(m, name);
    if (!e || e->kind != LC_ENTRY_CHILD)
        return lc_fail(LC_ERR_KEY, "%s has no child '%s'", m->cls->name, name);
    if (!e->child)
        return lc_fail(LC_ERR_KEY, "child '%s' of this %s is None", name, m->cls->name);
    char small[256], *path = small;
    size_t parent = strlen(lc_graph_scope(g)), bytes = parent + strlen(name) + 2;
    if (bytes > sizeof small && !(path = lc_alloc(bytes)))
        return LC_ERR_MEMORY;
    /* Held, and the name copied before it runs: a host's forward may change the tree. */
    lc_module *child = lc_module_retain(e->child);
    lc_status status = call_in_scope(child, name, g, path, parent, x, out);
    lc_module_release(child);
    if (path != small)
        lc_free(path);
    return status;
}

lc_status lc_module_value(lc_module *m, const char *name, lc_graph *g, lc_value *out)
{
    const entry *e = find(m, name);
    if (!e || e->kind == LC_ENTRY_CHILD)
        return lc_fail(LC_ERR_KEY, "%s has no parameter or buffer '%s'", m->cls->name, name);
    *out = LC_NONE;
    return e->param ? lc_graph_param(g, e->param, out) : LC_OK;
}
