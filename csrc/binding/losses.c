/* Losses and random zeros as functions on tensors and arrays. */
#include <string.h>

#include "binding/core.h"

static const char *const target_names[] = {"input", "target", "weight", "pos_weight"};

static int find_reduction(const char *given, uint32_t *out)
{
    static const char *const names[] = {"none", "mean", "sum"};
    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(names[i], given) == 0) {
            *out = i;
            return 0;
        }
    PyErr_Format(PyExc_ValueError, "reduction must be 'none', 'mean' or 'sum', not '%s'", given);
    return -1;
}

static PyObject *cross_entropy(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *inputs[3];
    long long ignore_index;
    const char *reduction;
    int log_probs;
    lc_cross_entropy_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOOLsdp:cross_entropy", &inputs[0], &inputs[1], &inputs[2],
                          &ignore_index, &reduction, &attr.label_smoothing, &log_probs) ||
        find_reduction(reduction, &attr.reduction))
        return NULL;
    attr.ignore_index = ignore_index;
    attr.weighted = inputs[2] != Py_None;
    attr.log_probs = (uint32_t)log_probs;
    return lcpy_apply_as(&lc_op_cross_entropy, &attr, attr.weighted ? 3 : 2, inputs, target_names,
                         true, NULL);
}

static PyObject *bce_with_logits(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *target, *weight, *pos_weight;
    const char *reduction;
    lc_bce_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOOOs:bce_with_logits", &x, &target, &weight, &pos_weight,
                          &reduction) ||
        find_reduction(reduction, &attr.reduction))
        return NULL;
    PyObject *inputs[4] = {x, target};
    const char *names[4] = {"input", "target"};
    int n = 2;
    if (weight != Py_None) {
        attr.weighted = 1;
        names[n] = "weight";
        inputs[n++] = weight;
    }
    if (pos_weight != Py_None) {
        attr.pos_weighted = 1;
        names[n] = "pos_weight";
        inputs[n++] = pos_weight;
    }
    return lcpy_apply(&lc_op_bce_with_logits, &attr, n, inputs, names);
}

static PyObject *mse(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *inputs[2];
    const char *reduction;
    lc_mse_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOs:mse", &inputs[0], &inputs[1], &reduction) ||
        find_reduction(reduction, &attr.reduction))
        return NULL;
    return lcpy_apply(&lc_op_mse, &attr, 2, inputs, target_names);
}

static PyObject *dropout(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    double p;
    if (!PyArg_ParseTuple(args, "Od:dropout", &x, &p))
        return NULL;
    return lcpy_apply_as(&lc_op_dropout, NULL, 1, &x, target_names, false, &p);
}

static PyObject *drop_path(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    int scale_by_keep;
    double p;
    lc_drop_path_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "Odp:drop_path", &x, &p, &scale_by_keep))
        return NULL;
    attr.scale_by_keep = (uint32_t)scale_by_keep;
    return lcpy_apply_as(&lc_op_drop_path, &attr, 1, &x, target_names, false, &p);
}

static PyObject *drop_block(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    long long block_size;
    double p;
    lc_drop_block_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OdL:drop_block", &x, &p, &block_size))
        return NULL;
    attr.block_size = block_size;
    return lcpy_apply_as(&lc_op_drop_block, &attr, 1, &x, target_names, false, &p);
}

PyMethodDef lcpy_loss_methods[] = {
    {"cross_entropy", cross_entropy, METH_VARARGS,
     "cross_entropy(x, target, weight or None, ignore_index, reduction, label_smoothing, "
     "log_probs)"},
    {"bce_with_logits", bce_with_logits, METH_VARARGS,
     "bce_with_logits(x, target, weight or None, pos_weight or None, reduction)"},
    {"mse", mse, METH_VARARGS, "mse(x, target, reduction)"},
    {"dropout", dropout, METH_VARARGS, "dropout(x, p)"},
    {"drop_path", drop_path, METH_VARARGS, "drop_path(x, p, scale_by_keep)"},
    {"drop_block", drop_block, METH_VARARGS, "drop_block(x, p, block_size)"},
    {NULL, NULL, 0, NULL},
};
