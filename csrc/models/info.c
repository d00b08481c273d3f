#include "models/info.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ops/op_util.h"
#include "ops/ops.h"

/* The arrays of the tree, each once, sorted by address. */
typedef struct array_row {
    lc_param *param;
    bool is_buffer, counted;
} array_row;

typedef struct arrays {
    array_row *rows;
    int count, capacity;
} arrays;

static lc_status list_array(void *ctx, const char *name, lc_param *p, bool is_buffer)
{
    (void)name;
    arrays *a = ctx;
    if (!lc_grow((void **)&a->rows, sizeof *a->rows, a->count, &a->capacity))
        return LC_ERR_MEMORY;
    a->rows[a->count++] = (array_row){p, is_buffer, false};
    return LC_OK;
}

static int by_address(const void *x, const void *y)
{
    uintptr_t a = (uintptr_t)((const array_row *)x)->param,
              b = (uintptr_t)((const array_row *)y)->param;
    return a < b ? -1 : a > b;
}

/* Sorts, drops repeated ones, adds up. */
static void sort_arrays(arrays *a, lc_info *info)
{
    int kept = 0;
    if (a->count)
        qsort(a->rows, (size_t)a->count, sizeof *a->rows, by_address);
    for (int i = 0; i < a->count; i++) {
        if (kept && a->rows[kept - 1].param == a->rows[i].param)
            continue;
        a->rows[kept++] = a->rows[i];
        int64_t n = lc_desc_count(lc_param_desc(a->rows[i].param));
        *(a->rows[i].is_buffer ? &info->buffers : &info->params) += n;
    }
    a->count = kept;
}

static int64_t count_params(arrays *a, const lc_graph *g, const lc_node_view *n)
{
    int64_t sum = 0;
    for (int i = 0; i < n->n_in; i++) {
        array_row key = {lc_graph_value_param(g, n->in[i]), false, false};
        if (!key.param || !a->count)
            continue;
        array_row *row = bsearch(&key, a->rows, (size_t)a->count, sizeof key, by_address);
        if (!row || row->is_buffer || row->counted)
            continue;
        row->counted = true;
        sum += lc_desc_count(lc_param_desc(key.param));
    }
    return sum;
}

static int64_t count_macs(const lc_graph *g, const lc_node_view *n)
{
    lc_desc in[8], out[LC_MAX_OUT];
    if (!n->op->macs || n->n_in > 8)
        return 0;
    for (int i = 0; i < n->n_in; i++)
        in[i] = *lc_graph_desc(g, n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        out[i] = *lc_graph_desc(g, n->out[i]);
    return n->op->macs(n->attr, n->n_in, in, out);
}

/* Elements of the input that one output of an adaptive pool looks at. */
static int64_t window(const lc_desc *in, const lc_desc *out)
{
    int64_t n = 1;
    for (int axis = 2; axis < 4; axis++)
        n *= out->dim[axis] ? (in->dim[axis] + out->dim[axis] - 1) / out->dim[axis] : 0;
    return n;
}

static int64_t count_card_flops(const lc_info_row *row, const lc_node_view *n)
{
    int64_t outputs = lc_desc_count(&row->out);
    if (n->op == &lc_op_conv2d)
        return lc_count_add(row->macs,
                            ((const lc_conv2d_attr *)n->attr)->flags & LC_CONV_BIAS ? outputs : 0);
    if (n->op == &lc_op_batch_norm)
        return 2 * outputs;
    if (n->op == &lc_op_pool2d)
        return ((const lc_pool2d_attr *)n->attr)->kind == LC_POOL_AVG ? outputs : 0;
    if (n->op == &lc_op_adaptive_pool2d)
        return (window(&row->in, &row->out) + 1) * outputs;
    return 0;
}

/* Rows of the nodes from number `first` on. */
static lc_status make_rows(const lc_graph *g, int first, arrays *a, lc_info *info)
{
    int count = lc_graph_node_count(g) - first;
    size_t text = 0;
    for (int i = 0; i < count; i++)
        text += strlen(lc_graph_node(g, first + i).scope) + 1;
    info->rows = lc_alloc_zero((size_t)count * sizeof *info->rows);
    info->text = lc_alloc(text);
    if (!info->rows || !info->text)
        return LC_ERR_MEMORY;
    info->count = count;
    text = 0;
    for (int i = 0; i < count; i++) {
        lc_node_view n = lc_graph_node(g, first + i);
        lc_info_row *row = &info->rows[i];
        size_t length = strlen(n.scope) + 1;
        row->scope = memcpy(info->text + text, n.scope, length);
        text += length;
        row->op = n.op->name;
        row->in = *lc_graph_desc(g, n.in[0]);
        row->out = *lc_graph_desc(g, n.out[0]);
        row->params = count_params(a, g, &n);
        row->macs = count_macs(g, &n);
        row->card_flops = count_card_flops(row, &n);
        int64_t bytes = (int64_t)(lc_desc_bytes(&row->in) + lc_desc_bytes(&row->out));
        if (bytes > info->largest_bytes)
            info->largest_bytes = bytes;
        info->macs = lc_count_add(info->macs, row->macs);
        info->card_flops = lc_count_add(info->card_flops, row->card_flops);
    }
    return LC_OK;
}

lc_status lc_module_record(lc_module *m, lc_graph *g, const lc_desc *desc, const void *data,
                           lc_value *x, lc_value *y)
{
    LC_TRY(lc_graph_input(g, desc, data, x));
    return lc_module_append(m, g, 1, x, y);
}

lc_status lc_model_info(lc_module *m, lc_graph *g, const int64_t shape[4], lc_info *out)
{
    lc_info info = {0};
    arrays a = {0};
    lc_graph *own = NULL;
    lc_desc desc;
    lc_value x, y;
    lc_status status = LC_OK;
    LC_TRY_GOTO(lc_module_each_state(m, list_array, &a), done);
    sort_arrays(&a, &info);
    if (!g)
        LC_TRY_GOTO(lc_graph_create(&own), done);
    g = g ? g : own;
    int first = lc_graph_node_count(g);
    LC_TRY_GOTO(lc_desc_init(&desc, LC_F32, 4, shape), done);
    LC_TRY_GOTO(lc_module_record(m, g, &desc, NULL, &x, &y), done);
    LC_TRY_GOTO(make_rows(g, first, &a, &info), done);
    *out = info;
done:
    if (status != LC_OK)
        lc_info_free(&info);
    lc_graph_destroy(own);
    lc_free(a.rows);
    return status;
}

void lc_info_free(lc_info *info)
{
    lc_free(info->rows);
    lc_free(info->text);
    memset(info, 0, sizeof *info);
}
