/* Which algorithms the convolutions of a model get, and the table of measured layers. */
#include <string.h>

#include "base/mem.h"
#include "binding/core.h"
#include "graph/explain.h"
#include "models/info.h"
#include "ops/conv_tuning.h"

static PyObject *number_tuple(const int64_t *v, int n)
{
    PyObject *tuple = PyTuple_New(n);
    for (int i = 0; tuple && i < n; i++) {
        PyObject *number = PyLong_FromLongLong(v[i]);
        if (!number || PyTuple_SetItem(tuple, i, number) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *candidate_list(const lc_choice *c)
{
    PyObject *list = PyList_New(0);
    lc_candidate candidate;
    for (int i = 0; list && c->op->candidate(c->attr, c->in, c->out, i, &candidate); i++) {
        PyObject *row = Py_BuildValue("(szzN)", candidate.name, candidate.refuses, candidate.avoids,
                                      PyBool_FromLong(candidate.chosen));
        if (!row || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static lc_status add_choice(void *ctx, const lc_choice *c)
{
    int64_t key[LC_CONV_KEY];
    if (c->op != &lc_op_conv2d)
        return LC_OK;
    lc_conv_tuning_key((const lc_conv2d_attr *)c->attr, c->in, key);
    PyObject *row = Py_BuildValue(
        "{sssNsNsNsNsN}", "scope", c->scope, "in_shape", lcpy_shape_tuple(&c->in[0]),
        "weight_shape", lcpy_shape_tuple(&c->in[1]), "out_shape", lcpy_shape_tuple(&c->out[0]),
        "key", number_tuple(key, LC_CONV_KEY), "candidates", candidate_list(c));
    int failed = !row || PyList_Append(ctx, row) < 0;
    Py_XDECREF(row);
    return failed ? lc_fail(LC_ERR_HOST, "a list could not be made") : LC_OK;
}

static PyObject *algorithms(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *input, *list = NULL;
    lc_desc d;
    if (!PyArg_ParseTuple(args, "OO:algorithms", &self, &input))
        return NULL;
    lc_module *m = lcpy_module_of(self, "module");
    PyArrayObject *array = m ? lcpy_float_array(input, "the input") : NULL;
    if (!array)
        return NULL;
    lcpy_recording *outer = lcpy_suspend();
    lcpy_recording *r = lcpy_desc_of(array, &d) == 0 ? lcpy_enter() : NULL;
    if (r) {
        lc_graph *g = lcpy_graph_of(r);
        lc_value x, y;
        lc_module_retain(m);
        list = PyList_New(0);
        if (list && (lcpy_check(lc_module_record(m, g, &d, PyArray_DATA(array), &x, &y)) ||
                     lcpy_check(lc_graph_explain(g, 1, &y, add_choice, list))))
            Py_CLEAR(list);
        lcpy_leave(r, 0);
        lc_module_release(m);
    }
    lcpy_resume(outer);
    Py_DECREF(array);
    return list;
}

static int find_algorithm(const char *name)
{
    int found = lc_conv_algorithm_named(name);
    if (found < 0)
        PyErr_Format(PyExc_ValueError, "unknown algorithm '%s'", name);
    return found;
}

static PyObject *conv2d_by(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    PyObject *inputs[2], *stride, *pad, *dilation;
    long long groups;
    lc_conv2d_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "sOOOOOL:conv2d_by", &name, &inputs[0], &inputs[1], &stride, &pad,
                          &dilation, &groups) ||
        lcpy_ints(stride, "stride", 2, attr.stride) || lcpy_ints(pad, "padding", 4, attr.pad) ||
        lcpy_ints(dilation, "dilation", 2, attr.dilation))
        return NULL;
    int algorithm = find_algorithm(name);
    if (algorithm < 0)
        return NULL;
    attr.groups = groups;
    attr.flags = LC_CONV_FORCED;
    attr.algorithm = (uint32_t)algorithm;
    static const char *const names[] = {"input", "weight"};
    return lcpy_apply(&lc_op_conv2d, &attr, 2, inputs, names);
}

static PyObject *set_tuning(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *rows = PySequence_Tuple(arg), *result = NULL;
    if (!rows)
        return NULL;
    int n = (int)PyTuple_Size(rows);
    lc_conv_tuned_layer *layers = lc_alloc_zero((size_t)n * sizeof *layers + 1);
    if (!layers) {
        Py_DECREF(rows);
        return lcpy_raise(LC_ERR_MEMORY);
    }
    for (int i = 0; i < n; i++) {
        PyObject *key, *row = PyTuple_GetItem(rows, i);
        const char *name;
        if (!PyTuple_Check(row) || !PyArg_ParseTuple(row, "Os:set_tuning", &key, &name) ||
            lcpy_ints(key, "a layer", LC_CONV_KEY, layers[i].key) ||
            (layers[i].algorithm = find_algorithm(name)) < 0)
            goto done;
    }
    if (lcpy_check(lc_conv_tuning_set(n, layers)) == 0)
        result = Py_NewRef(Py_None);
done:
    if (!result && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "pairs of a layer and an algorithm are expected");
    lc_free(layers);
    Py_DECREF(rows);
    return result;
}

PyMethodDef lcpy_algorithm_methods[] = {
    {"algorithms", algorithms, METH_VARARGS,
     "algorithms(module, array) -> the convolutions of a call and their possible algorithms"},
    {"conv2d_by", conv2d_by, METH_VARARGS,
     "conv2d_by(algorithm, x, w, stride, pad, dilation, groups): by that one if it accepts"},
    {"set_tuning", set_tuning, METH_O,
     "set_tuning([(layer, algorithm), ...]): replaces the table of measured layers"},
    {NULL, NULL, 0, NULL},
};
