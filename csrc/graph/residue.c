#include "graph/residue.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "graph/param.h"

/* One weight in so many may be kept whole. */
#define ROOM 24
#define MAX_IN 8

/* A weight whose difference has no code. */
typedef struct whole {
    uint32_t at;
    float w;
} whole;

struct lc_residue {
    lc_step step; /* with copies of its own */
    lc_desc in[MAX_IN], out;
    const void *data[MAX_IN]; /* [0]: NULL */
    unsigned char *attr;      /* behind the struct, then the contents of in[1 ..] */
    lc_storage *blob;         /* NULL: not bound yet */
    void *packed;             /* its contents */
    int bits;
    int64_t row; /* floats */
    size_t row_codes;
    unsigned char *codes; /* per row: `bits` for each weight, filled up to whole bytes */
    whole *wholes;
    int64_t room;
    atomic_int_least64_t used; /* beyond `room`: too many */
};

lc_status lc_residue_create(const lc_step *step, const void *const *in, lc_residue **out)
{
    *out = NULL;
    const lc_desc *w = &step->in[0];
    const lc_unpack *unpack = step->op->unpack;
    const int64_t count = lc_desc_count(w);
    const int bits = unpack ? unpack->bits(step) : 0;
    if (!bits || w->dtype != LC_F32 || count > UINT32_MAX || step->n_in > MAX_IN)
        return LC_OK;
    size_t extra = (step->op->attr_size + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    for (int i = 1; i < step->n_in; i++)
        extra += lc_desc_bytes(&step->in[i]);
    lc_residue *r = lc_alloc_zero(sizeof *r + LC_ALIGN + extra);
    if (!r)
        return LC_ERR_MEMORY;
    r->attr = (unsigned char *)r + (sizeof *r + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    memcpy(r->attr, step->attr, step->op->attr_size);
    unsigned char *copy = r->attr + (step->op->attr_size + LC_ALIGN - 1) / LC_ALIGN * LC_ALIGN;
    memcpy(r->in, step->in, (size_t)step->n_in * sizeof *r->in);
    for (int i = 1; i < step->n_in; i++) {
        memcpy(copy, in[i], lc_desc_bytes(&step->in[i]));
        r->data[i] = copy;
        copy += lc_desc_bytes(&step->in[i]);
    }
    r->out = step->out[0];
    r->step = (lc_step){.op = step->op,
                        .attr = r->attr,
                        .n_in = step->n_in,
                        .n_out = 1,
                        .in = r->in,
                        .out = &r->out,
                        .threads = 1,
                        .kernels = step->kernels,
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
    r->bits = bits;
    r->row = w->dim[0] ? count / w->dim[0] : 0;
    r->row_codes = (size_t)(r->row * bits + 7) / 8;
    r->room = count / ROOM + 16;
    atomic_init(&r->used, 0);
    r->codes = lc_alloc(r->row_codes * (size_t)w->dim[0]);
    r->wholes = lc_alloc((size_t)r->room * sizeof *r->wholes);
    lc_status status = r->codes && r->wholes ? step->op->prepare(&r->step) : LC_ERR_MEMORY;
    if (status != LC_OK) {
        lc_residue_destroy(r);
        return status;
    }
    *out = r;
    return LC_OK;
}

void lc_residue_bind(lc_residue *r, lc_storage *blob)
{
    r->blob = lc_storage_retain(blob);
    r->packed = lc_storage_data(blob);
}

void lc_residue_destroy(lc_residue *r)
{
    if (!r)
        return;
    lc_storage_release(r->blob);
    lc_free(r->codes);
    lc_free(r->wholes);
    lc_free(r->step.prep);
    lc_free(r);
}

/* The ranges of rows that an item has packed. */
typedef struct ranges {
    int n;
    int64_t first[LC_UNPACK_RANGES], count;
} ranges;

static ranges ranges_of(const lc_residue *r, int64_t item)
{
    ranges g = {0};
    g.n = r->step.op->unpack->rows(&r->step, item, g.first, &g.count);
    return g;
}

static void guess(const lc_residue *r, int64_t item, float *const *to)
{
    void *out[1] = {r->packed};
    const lc_bind bind = {.in = r->data, .out = out};
    r->step.op->unpack->run(&r->step, &bind, item, to);
}

size_t lc_residue_scratch(const lc_residue *r)
{
    int64_t most = 0;
    for (int64_t item = 0; item < r->step.items[0]; item++) {
        const ranges g = ranges_of(r, item);
        most = g.n * g.count > most ? g.n * g.count : most;
    }
    return (size_t)(most * r->row);
}

#define PART 1024 /* weights of a call */

static void add_row(lc_residue *r, int64_t row, const float *w, const float *g)
{
    uint32_t far[PART / 32];
    for (int64_t at = 0; at < r->row; at += PART) {
        const int64_t n = r->row - at < PART ? r->row - at : PART;
        r->step.kernels->pack.differences(w + at, g + at, n, r->bits,
                                          r->codes + (size_t)row * r->row_codes + at * r->bits / 8,
                                          far);
        for (int64_t k = 0; k * 32 < n; k++)
            for (uint32_t rest = far[k]; rest; rest &= rest - 1) {
                const int64_t i = at + k * 32 + __builtin_ctz(rest);
                const int64_t slot = atomic_fetch_add_explicit(&r->used, 1, memory_order_relaxed);
                if (slot < r->room)
                    r->wholes[slot] = (whole){(uint32_t)(row * r->row + i), w[i]};
            }
    }
}

void lc_residue_add(lc_residue *r, const float *w, int64_t begin, int64_t end, float *scratch)
{
    for (int64_t item = begin; item < end; item++) {
        const ranges g = ranges_of(r, item);
        float *to[LC_UNPACK_RANGES];
        if (g.count == 0 || atomic_load_explicit(&r->used, memory_order_relaxed) > r->room)
            continue;
        for (int i = 0; i < g.n; i++)
            to[i] = scratch + i * g.count * r->row;
        guess(r, item, to);
        for (int64_t k = 0; k < g.n * g.count; k++) {
            const int64_t row = g.first[k / g.count] + k % g.count;
            add_row(r, row, w + row * r->row, scratch + k * r->row);
        }
    }
}

bool lc_residue_finish(lc_residue *r)
{
    const int64_t used = atomic_load(&r->used);
    if (used > r->room)
        return false;
    whole *exact =
        lc_realloc(r->wholes, (size_t)used * sizeof *exact, (size_t)used * sizeof *exact);
    if (exact)
        r->wholes = exact;
    return true;
}

static void restore_row(const lc_residue *r, int64_t row, float *w)
{
    const uint32_t middle = (UINT32_C(1) << (r->bits - 1)) - 1, mask = 2 * middle + 1;
    const unsigned char *codes = r->codes + (size_t)row * r->row_codes;
    const int each = 8 / r->bits;
    for (int64_t i = 0; i < r->row; i++) {
        uint32_t bits;
        memcpy(&bits, w + i, sizeof bits);
        const uint32_t code = (uint32_t)codes[i / each] >> i % each * r->bits & mask;
        bits = lc_ordered(lc_ordered(bits) + code - middle);
        memcpy(w + i, &bits, sizeof bits);
    }
}

void lc_residue_restore(const lc_residue *r, float *w)
{
    for (int64_t item = 0; item < r->step.items[0]; item++) {
        const ranges g = ranges_of(r, item);
        float *to[LC_UNPACK_RANGES];
        if (g.count == 0)
            continue;
        for (int i = 0; i < g.n; i++)
            to[i] = w + g.first[i] * r->row;
        guess(r, item, to);
        for (int i = 0; i < g.n; i++)
            for (int64_t row = g.first[i]; row < g.first[i] + g.count; row++)
                restore_row(r, row, w + row * r->row);
    }
    const int64_t used = atomic_load(&r->used);
    for (int64_t k = 0; k < used; k++)
        w[r->wholes[k].at] = r->wholes[k].w;
}
