/* include/lucid_c.h. */
#include "lucid_c.h"

#include <inttypes.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/threads.h"
#include "models/resnet.h"

/* An lc_model is a module around the net that keeps the list of its state: behind this API the
 * tree does not change. */
typedef struct state_row {
    char *name;
    lc_param *param; /* borrowed from the net */
} state_row;

typedef struct handle {
    lc_module *net;
    state_row *rows;
    int count, capacity;
    int64_t in_channels;
} handle;

static lc_status append(lc_module *self, lc_graph *g, int n_in, const lc_value *in, lc_value *out)
{
    const handle *h = lc_module_config(self);
    return lc_module_append(h->net, g, n_in, in, out);
}

static void destroy(lc_module *self)
{
    handle *h = lc_module_config(self);
    for (int i = 0; i < h->count; i++)
        lc_free(h->rows[i].name);
    lc_free(h->rows);
    lc_module_release(h->net);
}

static const lc_module_class class_model = {"Model", append, destroy, NULL, sizeof(handle)};

static lc_status list_state(void *ctx, const char *name, lc_param *p, bool is_buffer)
{
    (void)is_buffer;
    handle *h = ctx;
    if (!lc_grow((void **)&h->rows, sizeof *h->rows, h->count, &h->capacity))
        return LC_ERR_MEMORY;
    char *copy = lc_strdup(name);
    if (!copy)
        return LC_ERR_MEMORY;
    h->rows[h->count++] = (state_row){copy, p};
    return LC_OK;
}

static lc_status configure(const char *name, int64_t num_classes, int64_t in_channels,
                           const char *compat, lc_resnet_config *c)
{
    const lc_variant *v = lc_variant_find(name);
    if (!v)
        return lc_fail(LC_ERR_KEY, "unknown model '%s'; lc_model_variant(i) gives the names",
                       name ? name : "");
    *c = v->config;
    c->num_classes = num_classes;
    c->in_channels = in_channels;
    if (!compat)
        return LC_OK;
    if (strcmp(compat, "lucid2") != 0)
        return lc_fail(LC_ERR_VALUE, "compat is NULL or \"lucid2\", got '%s'", compat);
    return lc_resnet_config_lucid2(c);
}

int lc_model_create(const char *name, int64_t num_classes, int64_t in_channels, const char *compat,
                    lc_model **out)
{
    lc_resnet_config c;
    LC_TRY(configure(name, num_classes, in_channels, compat, &c));
    lc_module *m;
    LC_TRY(lc_module_create(&class_model, sizeof(handle), &m));
    handle *h = lc_module_config(m);
    h->in_channels = in_channels;
    lc_status status = lc_resnet_create(&c, &h->net);
    if (status == LC_OK)
        status = lc_module_each_state(h->net, list_state, h);
    if (status != LC_OK)
        lc_module_release(m);
    else
        *out = m;
    return status;
}

void lc_model_destroy(lc_model *model)
{
    lc_module_release(model);
}

int lc_model_init(lc_model *model, uint64_t seed)
{
    const handle *h = lc_module_config(model);
    return lc_module_init(h->net, seed);
}

int lc_model_count(void)
{
    return lc_variant_count();
}

const char *lc_model_variant(int i)
{
    const lc_variant *v = lc_variant_get(i);
    return v ? v->name : NULL;
}

/* ---- state ---- */

int lc_model_state_count(const lc_model *model)
{
    const handle *h = lc_module_config(model);
    return h->count;
}

int lc_model_state(const lc_model *model, int i, const char **name, int *rank, int64_t shape[8])
{
    const handle *h = lc_module_config(model);
    if (i < 0 || i >= h->count)
        return lc_fail(LC_ERR_INDEX, "the state has %d arrays, there is no number %d", h->count, i);
    const lc_desc *d = lc_param_desc(h->rows[i].param);
    *name = h->rows[i].name;
    *rank = d->rank;
    for (int k = 0; k < d->rank; k++)
        shape[k] = d->dim[k];
    return LC_OK;
}

int lc_model_set(lc_model *model, const char *name, const float *data, int rank,
                 const int64_t *shape)
{
    const handle *h = lc_module_config(model);
    lc_param *p;
    lc_desc given;
    char want_text[LC_SHAPE_TEXT], given_text[LC_SHAPE_TEXT];
    if (!name || !data)
        return lc_fail(LC_ERR_VALUE, "lc_model_set: %s is NULL", name ? "data" : "name");
    LC_TRY(lc_module_find_state(h->net, name, &p));
    LC_TRY(lc_desc_init(&given, LC_F32, rank, shape));
    const lc_desc *want = lc_param_desc(p);
    if (!lc_desc_same_shape(&given, want))
        return lc_fail(LC_ERR_VALUE, "%s has shape %s, got %s", name,
                       lc_shape_text(want, want_text), lc_shape_text(&given, given_text));
    lc_storage *s;
    LC_TRY(lc_storage_create_copy(data, lc_desc_bytes(want), &s));
    lc_param_replace(p, s);
    lc_storage_release(s);
    return LC_OK;
}

int lc_model_get(lc_model *model, const char *name, float *data, int64_t capacity)
{
    const handle *h = lc_module_config(model);
    lc_param *p;
    if (!name || !data)
        return lc_fail(LC_ERR_VALUE, "lc_model_get: %s is NULL", name ? "data" : "name");
    LC_TRY(lc_module_find_state(h->net, name, &p));
    const lc_desc *d = lc_param_desc(p);
    if (capacity < lc_desc_count(d))
        return lc_fail(LC_ERR_VALUE, "%s has %" PRId64 " elements, there is room for %" PRId64,
                       name, lc_desc_count(d), capacity);
    lc_storage *s;
    void *contents;
    LC_TRY(lc_param_contents(p, &s, &contents));
    memcpy(data, contents, lc_desc_bytes(d));
    lc_storage_give_back(s, NULL, NULL);
    lc_storage_release(s);
    return LC_OK;
}

/* ---- running ---- */

static lc_status run_recorded(lc_model *model, lc_graph *g, const lc_desc *desc,
                              const float *images, float *logits)
{
    lc_value x, y;
    LC_TRY(lc_graph_input(g, desc, images, &x));
    LC_TRY(lc_module_append(model, g, 1, &x, &y));
    void *data = logits;
    return lc_desc_count(lc_graph_desc(g, y)) ? lc_graph_run(g, 1, &y, &data, NULL) : LC_OK;
}

int lc_model_run(lc_model *model, const float *images, int64_t n, int64_t height, int64_t width,
                 float *logits)
{
    const handle *h = lc_module_config(model);
    lc_desc desc;
    lc_graph *g;
    LC_TRY(lc_desc_init(&desc, LC_F32, 4, (int64_t[]){n, h->in_channels, height, width}));
    if (n > 0 && (!images || !logits))
        return lc_fail(LC_ERR_VALUE, "lc_model_run: %s is NULL", images ? "logits" : "images");
    LC_TRY(lc_graph_create(&g));
    lc_status status = run_recorded(model, g, &desc, images, logits);
    lc_graph_destroy(g);
    return status;
}

/* ---- configuration ---- */

const char *lc_error_text(void)
{
    return lc_error_message();
}

const char *lc_config_isa(void)
{
    return lc_isa_name(lc_cpu_get()->isa);
}

int lc_config_threads(void)
{
    return lc_threads_get();
}

int lc_config_set_threads(int count)
{
    return lc_threads_set(count);
}
