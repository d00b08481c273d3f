/* A module's recording as Python data: what an exporter reads. */
#include <string.h>

#include "binding/core.h"
#include "models/info.h"
#include "ops/ops.h"

/* --- attributes, as a dict */

static PyObject *int_list(const int64_t *v, int64_t n)
{
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; list && i < n; i++) {
        PyObject *item = PyLong_FromLongLong(v[i]);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *bit_list(uint32_t bits)
{
    int64_t axis[LC_MAX_RANK], n = 0;
    for (int i = 0; i < LC_MAX_RANK; i++)
        if (bits & 1u << i)
            axis[n++] = i;
    return int_list(axis, n);
}

static PyObject *conv2d_attr(const void *attr, int rank)
{
    const lc_conv2d_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sNsNsNsLsN}", "stride", int_list(a->stride, 2), "pad",
                         int_list(a->pad, 4), "dilation", int_list(a->dilation, 2), "groups",
                         (long long)a->groups, "bias", PyBool_FromLong(a->flags & LC_CONV_BIAS));
}

static PyObject *linear_attr(const void *attr, int rank)
{
    (void)rank;
    return Py_BuildValue("{sN}", "bias",
                         PyBool_FromLong(((const lc_linear_attr *)attr)->flags & LC_CONV_BIAS));
}

static PyObject *no_attr(const void *attr, int rank)
{
    (void)attr, (void)rank;
    return PyDict_New();
}

static PyObject *batch_norm_attr(const void *attr, int rank)
{
    const lc_batch_norm_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sdsN}", "eps", (double)a->eps, "affine",
                         PyBool_FromLong((long)a->affine));
}

static PyObject *unary_attr(const void *attr, int rank)
{
    const lc_unary_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sssdsd}", "kind", lcpy_unary_kinds[a->kind], "lo", (double)a->lo, "hi",
                         (double)a->hi);
}

static PyObject *binary_attr(const void *attr, int rank)
{
    (void)rank;
    return Py_BuildValue("{ss}", "kind", lcpy_binary_kinds[((const lc_binary_attr *)attr)->kind]);
}

static PyObject *softmax_attr(const void *attr, int rank)
{
    const lc_softmax_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sisN}", "axis", (int)a->axis, "log", PyBool_FromLong((long)a->log));
}

static const char *pool_kind(uint32_t kind)
{
    return kind == LC_POOL_MAX ? "max" : "avg";
}

static PyObject *pool2d_attr(const void *attr, int rank)
{
    const lc_pool2d_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sssNsNsNsNsLsNsN}", "kind", pool_kind(a->kind), "kernel",
                         int_list(a->kernel, 2), "stride", int_list(a->stride, 2), "pad",
                         int_list(a->pad, 2), "dilation", int_list(a->dilation, 2), "divisor",
                         (long long)a->divisor, "count_include_pad",
                         PyBool_FromLong((long)a->count_include_pad), "pad_with_zeros",
                         PyBool_FromLong((long)a->pad_with_zeros));
}

static PyObject *adaptive_pool2d_attr(const void *attr, int rank)
{
    (void)rank;
    return Py_BuildValue("{ss}", "kind", pool_kind(((const lc_adaptive_pool2d_attr *)attr)->kind));
}

static PyObject *reduce_attr(const void *attr, int rank)
{
    const lc_reduce_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sssNsN}", "kind", lcpy_reduce_kinds[a->kind], "axes", bit_list(a->axes),
                         "keepdim", PyBool_FromLong((long)a->keepdim));
}

static PyObject *permute_attr(const void *attr, int rank)
{
    const lc_permute_attr *a = attr;
    int64_t axis[LC_MAX_RANK];
    (void)rank;
    for (int i = 0; i < a->rank; i++)
        axis[i] = a->axis[i];
    return Py_BuildValue("{sN}", "axes", int_list(axis, a->rank));
}

static PyObject *cat_attr(const void *attr, int rank)
{
    (void)rank;
    return Py_BuildValue("{si}", "axis", (int)((const lc_cat_attr *)attr)->axis);
}

static PyObject *pad_attr(const void *attr, int rank)
{
    const lc_pad_attr *a = attr;
    return Py_BuildValue("{sNsNsd}", "before", int_list(a->before, rank), "after",
                         int_list(a->after, rank), "value", (double)a->value);
}

static PyObject *slice_attr(const void *attr, int rank)
{
    const lc_slice_attr *a = attr;
    return Py_BuildValue("{sNsNsN}", "start", int_list(a->start, rank), "step",
                         int_list(a->step, rank), "count", int_list(a->count, rank));
}

static PyObject *split_attr(const void *attr, int rank)
{
    const lc_split_attr *a = attr;
    (void)rank;
    return Py_BuildValue("{sisisN}", "radix", (int)a->radix, "cardinality", (int)a->cardinality,
                         "plain_view", PyBool_FromLong((long)a->plain_view));
}

/* What follows from the shapes of inputs and outputs is left out. `rank`: of the first input. */
static const struct {
    const lc_op *op;
    PyObject *(*read)(const void *attr, int rank);
} readers[] = {
    {&lc_op_conv2d, conv2d_attr},
    {&lc_op_linear, linear_attr},
    {&lc_op_matmul, no_attr},
    {&lc_op_batch_norm, batch_norm_attr},
    {&lc_op_unary, unary_attr},
    {&lc_op_binary, binary_attr},
    {&lc_op_softmax, softmax_attr},
    {&lc_op_pool2d, pool2d_attr},
    {&lc_op_adaptive_pool2d, adaptive_pool2d_attr},
    {&lc_op_reduce, reduce_attr},
    {&lc_op_reshape, no_attr},
    {&lc_op_permute, permute_attr},
    {&lc_op_cat, cat_attr},
    {&lc_op_pad, pad_attr},
    {&lc_op_slice, slice_attr},
    {&lc_op_expand, no_attr},
    {&lc_op_split_gap, split_attr},
    {&lc_op_split_softmax, split_attr},
    {&lc_op_split_apply, split_attr},
};

/* None for an op that is not in the list. */
static PyObject *attr_dict(const lc_node_view *n, int rank)
{
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (readers[i].op == n->op)
            return readers[i].read(n->attr, rank);
    return Py_NewRef(Py_None);
}

/* --- nodes and values */

static PyObject *value_list(const lc_value *v, int n)
{
    int64_t numbers[16];
    if (n > 16) { /* a long cat */
        PyObject *list = PyList_New(0);
        for (int i = 0; list && i < n; i++) {
            PyObject *item = PyLong_FromLong(v[i]);
            if (!item || PyList_Append(list, item) < 0)
                Py_CLEAR(list);
            Py_XDECREF(item);
        }
        return list;
    }
    for (int i = 0; i < n; i++)
        numbers[i] = v[i];
    return int_list(numbers, n);
}

static PyObject *node_list(const lc_graph *g)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < lc_graph_node_count(g); i++) {
        lc_node_view n = lc_graph_node(g, i);
        int rank = n.n_in ? lc_graph_desc(g, n.in[0])->rank : 0;
        PyObject *item = Py_BuildValue("(ssNNN)", n.op->name, n.scope, attr_dict(&n, rank),
                                       value_list(n.in, n.n_in), value_list(n.out, n.n_out));
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* An input's contents as an array of its own. */
static PyObject *constant_array(const lc_desc *d, const void *data)
{
    PyArrayObject *array = lcpy_new_array(d);
    if (array)
        memcpy(PyArray_DATA(array), data, lc_desc_bytes(d));
    return (PyObject *)array;
}

static PyObject *value_row(const lc_graph *g, lc_value v)
{
    const lc_desc *d = lc_graph_desc(g, v);
    lc_param *p = lc_graph_value_param(g, v);
    const void *data = lc_graph_input_data(g, v);
    const char *dtype = d->dtype == LC_I64 ? "int64" : "float32";
    if (p)
        return Py_BuildValue("(sNsNN)", "param", lcpy_shape_tuple(d), dtype, PyLong_FromVoidPtr(p),
                             lcpy_param_array(p));
    if (data)
        return Py_BuildValue("(sNsON)", "constant", lcpy_shape_tuple(d), dtype, Py_None,
                             constant_array(d, data));
    return Py_BuildValue("(sNsOO)", "computed", lcpy_shape_tuple(d), dtype, Py_None, Py_None);
}

static PyObject *recorded_dict(const lc_graph *g, lc_value x, lc_value y)
{
    PyObject *values = PyList_New(0);
    for (int v = 0; values && v < lc_graph_value_count(g); v++) {
        PyObject *row = value_row(g, v);
        if (!row || PyList_Append(values, row) < 0)
            Py_CLEAR(values);
        Py_XDECREF(row);
    }
    if (!values)
        return NULL;
    return Py_BuildValue("{sNsNsisi}", "nodes", node_list(g), "values", values, "input", (int)x,
                         "output", (int)y);
}

static PyObject *record(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *shape, *dict = NULL;
    int64_t dim[LC_MAX_RANK];
    lc_desc d;
    if (!PyArg_ParseTuple(args, "OO:record", &self, &shape))
        return NULL;
    lc_module *m = lcpy_module_of(self, "module");
    int rank = m ? lcpy_int_list(shape, "shape", LC_MAX_RANK, dim) : -1;
    if (rank < 0 || lcpy_check(lc_desc_init(&d, LC_F32, rank, dim)))
        return NULL;
    lcpy_recording *outer = lcpy_suspend();
    lcpy_recording *r = lcpy_enter();
    if (r) {
        lc_value x, y;
        lc_module_retain(m);
        if (lcpy_check(lc_module_record(m, lcpy_graph_of(r), &d, NULL, &x, &y)) == 0)
            dict = recorded_dict(lcpy_graph_of(r), x, y);
        lcpy_leave(r, 0);
        lc_module_release(m);
    }
    lcpy_resume(outer);
    return dict;
}

PyMethodDef lcpy_recorded_methods[] = {
    {"record", record, METH_VARARGS,
     "record(module, shape) -> what a call on an input of that shape records"},
    {NULL, NULL, 0, NULL},
};
