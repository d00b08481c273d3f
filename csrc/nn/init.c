#include "nn/init.h"

#include "base/mem.h"
#include "base/random.h"

/* FNV-1a, 64 bits, of "path.name". */
static uint64_t stream_of(const char *path, const char *name)
{
    const char *parts[] = {path, path[0] ? "." : "", name};
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < 3; i++)
        for (const char *c = parts[i]; *c; c++)
            h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    return h;
}

static lc_param *array_of(const lc_module *m, const char *name)
{
    lc_entry e;
    return lc_module_find(m, name, &e) && e.param && lc_param_desc(e.param)->dtype == LC_F32
               ? e.param
               : NULL;
}

typedef enum law { CONSTANT, UNIFORM, NORMAL } law;

static lc_status fill(lc_module *m, const char *name, law how, uint64_t seed, const char *path,
                      float a)
{
    lc_param *p = array_of(m, name);
    if (!p)
        return LC_OK;
    const lc_desc *desc = lc_param_desc(p);
    lc_storage *s;
    LC_TRY(lc_storage_create(lc_desc_bytes(desc), &s));
    void *contents = NULL;
    (void)lc_storage_borrow(s, &contents); /* it is new, so this cannot fail */
    float *data = contents;
    int64_t n = lc_desc_count(desc);
    if (how == UNIFORM)
        lc_random_uniform(data, n, seed, stream_of(path, name), 0, -a, a);
    else if (how == NORMAL)
        lc_random_normal(data, n, seed, stream_of(path, name), 0, 0.0f, a);
    else
        for (int64_t i = 0; i < n; i++)
            data[i] = a;
    lc_storage_give_back(s, NULL, NULL);
    lc_param_replace(p, s);
    lc_storage_release(s);
    return LC_OK;
}

lc_status lc_init_constant(lc_module *m, const char *name, float value)
{
    return fill(m, name, CONSTANT, 0, "", value);
}

lc_status lc_init_uniform(lc_module *m, const char *name, uint64_t seed, const char *path,
                          double bound)
{
    return fill(m, name, UNIFORM, seed, path, (float)bound);
}

lc_status lc_init_normal(lc_module *m, const char *name, uint64_t seed, const char *path,
                         double std)
{
    return fill(m, name, NORMAL, seed, path, (float)std);
}

static double fan(const lc_module *m, const char *name, int axis)
{
    lc_param *p = array_of(m, name);
    if (!p || lc_param_desc(p)->rank < 2)
        return 1;
    const lc_desc *d = lc_param_desc(p);
    double n = (double)d->dim[axis];
    for (int i = 2; i < d->rank; i++)
        n *= (double)d->dim[i];
    return n > 0 ? n : 1;
}

double lc_init_fan_in(const lc_module *m, const char *name)
{
    return fan(m, name, 1);
}

double lc_init_fan_out(const lc_module *m, const char *name)
{
    return fan(m, name, 0);
}
