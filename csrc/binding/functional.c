/* Ops as functions on tensors and arrays. Each parses its arguments into the op's attribute struct
 * and applies the op; shapes are checked by the op itself. */
#include <string.h>

#include "base/mem.h"
#include "binding/core.h"

const char *const lcpy_unary_kinds[] = {"relu",  "sigmoid", "exp", "log",  "sqrt",
                                        "clamp", "neg",     "abs", "tanh", NULL};
const char *const lcpy_binary_kinds[] = {"add",     "sub",     "mul", "div",
                                         "maximum", "minimum", "pow", NULL};
const char *const lcpy_reduce_kinds[] = {"sum", "mean", "max", "min", "argmax", NULL};

/* Rank of a tensor or array-like without running anything; -1 with an exception. Array-likes are
 * converted once: *obj is replaced by a new reference that the caller releases. */
static int rank_of(PyObject **obj, lc_desc *d)
{
    if (lcpy_is_tensor(*obj)) {
        Py_INCREF(*obj);
        if (lcpy_tensor_desc((lcpy_tensor *)*obj, d) == 0)
            return d->rank;
        Py_DECREF(*obj);
        return -1;
    }
    PyArrayObject *array = lcpy_float_array(*obj, "the input");
    if (!array || lcpy_desc_of(array, d)) {
        Py_XDECREF((PyObject *)array);
        return -1;
    }
    *obj = (PyObject *)array;
    return d->rank;
}

static int axis_in_range(int64_t axis, int rank, int64_t *out)
{
    if (axis < -rank || axis >= rank) {
        PyErr_Format(PyExc_IndexError, "axis %lld is out of range for a tensor of %d dimensions",
                     (long long)axis, rank);
        return -1;
    }
    *out = axis < 0 ? axis + rank : axis;
    return 0;
}

static int find_kind(const char *const *names, const char *given, const char *what)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], given) == 0)
            return i;
    PyErr_Format(PyExc_ValueError, "unknown %s '%s'", what, given);
    return -1;
}

static PyObject *conv2d(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *w, *b, *stride, *pad, *dilation;
    long long groups;
    lc_conv2d_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOOOOOL:conv2d", &x, &w, &b, &stride, &pad, &dilation, &groups) ||
        lcpy_ints(stride, "stride", 2, attr.stride) || lcpy_ints(pad, "padding", 4, attr.pad) ||
        lcpy_ints(dilation, "dilation", 2, attr.dilation))
        return NULL;
    attr.groups = groups;
    attr.flags = b != Py_None ? LC_CONV_BIAS : 0;
    static const char *const names[] = {"input", "weight", "bias"};
    PyObject *inputs[3] = {x, w, b};
    return lcpy_apply(&lc_op_conv2d, &attr, b != Py_None ? 3 : 2, inputs, names);
}

static PyObject *linear(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *w, *b;
    lc_linear_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOO:linear", &x, &w, &b))
        return NULL;
    attr.flags = b != Py_None ? LC_CONV_BIAS : 0;
    static const char *const names[] = {"input", "weight", "bias"};
    PyObject *inputs[3] = {x, w, b};
    return lcpy_apply(&lc_op_linear, &attr, b != Py_None ? 3 : 2, inputs, names);
}

static PyObject *matmul(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *inputs[2];
    if (!PyArg_ParseTuple(args, "OO:matmul", &inputs[0], &inputs[1]))
        return NULL;
    static const char *const names[] = {"input", "other"};
    return lcpy_apply(&lc_op_matmul, &(lc_matmul_attr){0}, 2, inputs, names);
}

/* Batch norm by the statistics of x, in one recording; running statistics that are given (buffers)
 * go on by `momentum`. */
static PyObject *norm_of_batch(PyObject *const *inputs, lc_batch_norm_attr *attr, PyObject *mean,
                               PyObject *var, double momentum)
{
    static const char *const names[] = {"input", "weight", "bias"};
    lcpy_tensor *running[2] = {NULL, NULL};
    if (mean != Py_None)
        for (int i = 0; i < 2; i++) {
            PyObject *given = i ? var : mean;
            running[i] = lcpy_is_tensor(given) ? (lcpy_tensor *)given : NULL;
            if (!running[i] || !running[i]->param) {
                PyErr_SetString(PyExc_TypeError,
                                "batch_norm with training=True changes running_mean and "
                                "running_var: they must be buffers of a module, or None");
                return NULL;
            }
        }
    lc_batch_stats_attr stats_attr;
    memset(&stats_attr, 0, sizeof stats_attr);
    stats_attr.eps = attr->eps;
    stats_attr.momentum = running[0] ? (float)momentum : 0.0f;
    stats_attr.track = running[0] ? LC_STATS_MOMENTUM : LC_STATS_ALONE;
    attr->batch = 1;
    PyObject *result = NULL;
    lcpy_recording *r = lcpy_enter();
    if (!r)
        return NULL;
    lc_graph *g = lcpy_graph_of(r);
    lc_value in[5], stats_in[3], stats[LC_MAX_OUT], out[LC_MAX_OUT];
    int n = attr->affine ? 3 : 1;
    for (int i = 0; i < n; i++)
        if ((in[i] = lcpy_argument(r, inputs[i], names[i], 0)) == LC_NONE)
            goto done;
    stats_in[0] = in[0];
    for (int i = 0; running[0] && i < 2; i++)
        if (lcpy_check(lc_graph_param(g, running[i]->param, &stats_in[1 + i])))
            goto done;
    if (lcpy_check(lc_graph_append(g, &lc_op_batch_stats, &stats_attr, running[0] ? 3 : 1, stats_in,
                                   stats)))
        goto done;
    in[n++] = stats[0];
    in[n++] = stats[1];
    if (lcpy_check(lc_graph_append(g, &lc_op_batch_norm, attr, n, in, out)))
        goto done;
    for (int i = 0; running[0] && i < 2; i++)
        if (lcpy_check(lc_graph_effect(g, stats[2 + i], running[i]->param)))
            goto done;
    result = lcpy_tensor_from_value(r, out[0]);
done:
    if (lcpy_leave(r, result != NULL) < 0)
        Py_CLEAR(result);
    return result;
}

static PyObject *batch_norm(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *mean, *var, *weight, *bias, *ones = NULL, *zeros = NULL, *result = NULL;
    double eps, momentum;
    int training;
    if (!PyArg_ParseTuple(args, "OOOOOdpd:batch_norm", &x, &mean, &var, &weight, &bias, &eps,
                          &training, &momentum))
        return NULL;
    lc_batch_norm_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.eps = (float)eps;
    attr.affine = weight != Py_None || bias != Py_None;
    static const char *const affine_names[] = {"input", "weight", "bias", "running_mean",
                                               "running_var"};
    static const char *const plain_names[] = {"input", "running_mean", "running_var"};
    if (!attr.affine) {
        PyObject *inputs[3] = {x, mean, var};
        return training ? norm_of_batch(inputs, &attr, mean, var, momentum)
                        : lcpy_apply(&lc_op_batch_norm, &attr, 3, inputs, plain_names);
    }
    /* One of the two given: the other is 1 or 0 for every channel. */
    npy_intp channels = 0;
    lc_desc d;
    PyObject *given = weight != Py_None ? weight : bias;
    if (rank_of(&given, &d) < 0)
        return NULL;
    Py_DECREF(given);
    channels = d.rank == 1 ? (npy_intp)d.dim[0] : 0;
    if (bias == Py_None && !(bias = zeros = PyArray_ZEROS(1, &channels, NPY_FLOAT, 0)))
        return NULL;
    if (weight == Py_None) {
        weight = ones = PyArray_SimpleNew(1, &channels, NPY_FLOAT);
        for (npy_intp i = 0; ones && i < channels; i++)
            ((float *)PyArray_DATA((PyArrayObject *)ones))[i] = 1;
    }
    if (weight && bias) {
        PyObject *inputs[5] = {x, weight, bias, mean, var};
        result = training ? norm_of_batch(inputs, &attr, mean, var, momentum)
                          : lcpy_apply(&lc_op_batch_norm, &attr, 5, inputs, affine_names);
    }
    Py_XDECREF(ones);
    Py_XDECREF(zeros);
    return result;
}

static PyObject *unary(PyObject *self, PyObject *args)
{
    (void)self;
    const char *kind;
    PyObject *x;
    if (!PyArg_ParseTuple(args, "sO:unary", &kind, &x))
        return NULL;
    lc_unary_attr attr;
    memset(&attr, 0, sizeof attr);
    int k = find_kind(lcpy_unary_kinds, kind, "function");
    if (k < 0)
        return NULL;
    attr.kind = (uint32_t)k;
    static const char *const names[] = {"input"};
    return lcpy_apply(&lc_op_unary, &attr, 1, &x, names);
}

static PyObject *clamp(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    lc_unary_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.kind = LC_UNARY_CLAMP;
    if (!PyArg_ParseTuple(args, "Off:clamp", &x, &attr.lo, &attr.hi))
        return NULL;
    static const char *const names[] = {"input"};
    return lcpy_apply(&lc_op_unary, &attr, 1, &x, names);
}

static PyObject *binary(PyObject *self, PyObject *args)
{
    (void)self;
    const char *kind;
    PyObject *inputs[2];
    if (!PyArg_ParseTuple(args, "sOO:binary", &kind, &inputs[0], &inputs[1]))
        return NULL;
    lc_binary_attr attr;
    memset(&attr, 0, sizeof attr);
    int k = find_kind(lcpy_binary_kinds, kind, "function");
    if (k < 0)
        return NULL;
    attr.kind = (uint32_t)k;
    static const char *const names[] = {"input", "other"};
    return lcpy_apply(&lc_op_binary, &attr, 2, inputs, names);
}

static PyObject *softmax(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *result = NULL;
    long long axis;
    int log_form;
    if (!PyArg_ParseTuple(args, "OLp:softmax", &x, &axis, &log_form))
        return NULL;
    lc_desc d;
    int rank = rank_of(&x, &d);
    if (rank < 0)
        return NULL;
    int64_t resolved;
    /* PyTorch takes axis 0 or -1 of a scalar, whose softmax is 1. */
    int scalar = rank == 0 && (axis == 0 || axis == -1);
    if (scalar || axis_in_range(axis, rank, &resolved) == 0) {
        lc_softmax_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.axis = scalar ? 0 : (int32_t)resolved;
        attr.log = (uint32_t)log_form;
        result = lcpy_apply(&lc_op_softmax, &attr, 1, &x, NULL);
    }
    Py_DECREF(x);
    return result;
}

static PyObject *pool2d(PyObject *self, PyObject *args)
{
    (void)self;
    const char *kind;
    PyObject *x, *kernel, *stride, *pad, *dilation;
    int ceil_mode, count_include_pad;
    long long divisor;
    lc_pool2d_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "sOOOOOppL:pool2d", &kind, &x, &kernel, &stride, &pad, &dilation,
                          &ceil_mode, &count_include_pad, &divisor) ||
        lcpy_ints(kernel, "kernel_size", 2, attr.kernel) ||
        lcpy_ints(stride, "stride", 2, attr.stride) || lcpy_ints(pad, "padding", 2, attr.pad) ||
        lcpy_ints(dilation, "dilation", 2, attr.dilation))
        return NULL;
    attr.kind = strcmp(kind, "max") == 0 ? LC_POOL_MAX : LC_POOL_AVG;
    attr.ceil_mode = (uint32_t)ceil_mode;
    attr.count_include_pad = (uint32_t)count_include_pad;
    attr.divisor = divisor;
    static const char *const names[] = {"input"};
    return lcpy_apply(&lc_op_pool2d, &attr, 1, &x, names);
}

static PyObject *adaptive_pool2d(PyObject *self, PyObject *args)
{
    (void)self;
    const char *kind;
    PyObject *x, *size;
    lc_adaptive_pool2d_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "sOO:adaptive_pool2d", &kind, &x, &size) ||
        lcpy_ints(size, "output_size", 2, attr.out))
        return NULL;
    attr.kind = strcmp(kind, "max") == 0 ? LC_POOL_MAX : LC_POOL_AVG;
    static const char *const names[] = {"input"};
    return lcpy_apply(&lc_op_adaptive_pool2d, &attr, 1, &x, names);
}

static PyObject *reduce(PyObject *self, PyObject *args)
{
    (void)self;
    const char *kind;
    PyObject *x, *axes, *result = NULL;
    int keepdim;
    if (!PyArg_ParseTuple(args, "sOOp:reduce", &kind, &x, &axes, &keepdim))
        return NULL;
    lc_reduce_attr attr;
    memset(&attr, 0, sizeof attr);
    int k = find_kind(lcpy_reduce_kinds, kind, "reduction");
    lc_desc d;
    int rank = k < 0 ? -1 : rank_of(&x, &d);
    if (rank < 0)
        return NULL;
    attr.kind = (uint32_t)k;
    attr.keepdim = (uint32_t)keepdim;
    attr.axes = (1u << rank) - 1;
    /* As PyTorch: along one axis given as a number, gradients go where the index points. */
    attr.to_first = PyIndex_Check(axes) && (k == LC_REDUCE_MAX || k == LC_REDUCE_MIN);
    if (axes != Py_None) {
        int64_t list[LC_MAX_RANK], axis;
        int n = lcpy_int_list(axes, "dim", LC_MAX_RANK, list);
        if (n < 0)
            goto done;
        if (n > 0)
            attr.axes = 0;
        for (int i = 0; i < n; i++) {
            if (rank == 0 && (list[i] == 0 || list[i] == -1))
                continue;
            if (axis_in_range(list[i], rank, &axis))
                goto done;
            if (attr.axes & 1u << axis) {
                PyErr_Format(PyExc_ValueError, "axis %lld appears twice in dim",
                             (long long)list[i]);
                goto done;
            }
            attr.axes |= 1u << axis;
        }
    }
    result = lcpy_apply(&lc_op_reduce, &attr, 1, &x, NULL);
done:
    Py_DECREF(x);
    return result;
}

static PyObject *reshape(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *dims, *result = NULL;
    if (!PyArg_ParseTuple(args, "OO:reshape", &x, &dims))
        return NULL;
    lc_reshape_attr attr;
    memset(&attr, 0, sizeof attr);
    int n = lcpy_int_list(dims, "shape", LC_MAX_RANK, attr.dim);
    lc_desc d;
    if (n < 0 || rank_of(&x, &d) < 0)
        return NULL;
    attr.rank = n;
    int open = -1;
    int64_t known = 1, count = lc_desc_count(&d);
    for (int i = 0; i < n; i++) {
        if (attr.dim[i] == -1 && open < 0) {
            open = i;
        } else if (attr.dim[i] < 0) {
            PyErr_Format(PyExc_ValueError,
                         "reshape: size %lld at position %d; at most one size may be -1, all "
                         "others are >= 0",
                         (long long)attr.dim[i], i);
            goto done;
        } else if (__builtin_mul_overflow(known, attr.dim[i], &known)) {
            PyErr_SetString(PyExc_ValueError, "reshape: the sizes are too large");
            goto done;
        }
    }
    if (open >= 0) {
        if (known == 0 || count % known) {
            PyErr_Format(PyExc_ValueError, "reshape: %lld elements cannot be arranged as %R",
                         (long long)count, dims);
            goto done;
        }
        attr.dim[open] = count / known;
    }
    result = lcpy_apply(&lc_op_reshape, &attr, 1, &x, NULL);
done:
    Py_DECREF(x);
    return result;
}

static PyObject *permute(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *axes, *result = NULL;
    int64_t list[LC_MAX_RANK], axis;
    if (!PyArg_ParseTuple(args, "OO:permute", &x, &axes))
        return NULL;
    int n = lcpy_int_list(axes, "dims", LC_MAX_RANK, list);
    lc_desc d;
    if (n < 0 || rank_of(&x, &d) < 0)
        return NULL;
    lc_permute_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.rank = n;
    if (n != d.rank) {
        PyErr_Format(PyExc_ValueError, "permute: %d axes were given for a tensor of %d dimensions",
                     n, d.rank);
        goto done;
    }
    for (int i = 0; i < n; i++) {
        if (axis_in_range(list[i], n, &axis))
            goto done;
        attr.axis[i] = (int32_t)axis;
    }
    result = lcpy_apply(&lc_op_permute, &attr, 1, &x, NULL);
done:
    Py_DECREF(x);
    return result;
}

static PyObject *cat(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *list, *result = NULL;
    long long axis;
    if (!PyArg_ParseTuple(args, "OL:cat", &list, &axis))
        return NULL;
    PyObject *tuple = PySequence_Tuple(list);
    if (!tuple)
        return NULL;
    Py_ssize_t n = PyTuple_Size(tuple);
    PyObject **inputs = NULL;
    if (n == 0 || n > 100000) {
        PyErr_Format(PyExc_ValueError, "cat: 1 to 100000 tensors are expected, got %zd", n);
        goto done;
    }
    if (!(inputs = lc_alloc_zero((size_t)n * sizeof *inputs))) {
        lcpy_raise(LC_ERR_MEMORY);
        goto done;
    }
    lc_desc d;
    int64_t resolved = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GetItem(tuple, i);
        int rank = rank_of(&item, &d);
        if (rank < 0)
            goto done;
        inputs[i] = item;
        if (i == 0 && axis_in_range(axis, rank, &resolved))
            goto done;
    }
    lc_cat_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.axis = (int32_t)resolved;
    result = lcpy_apply(&lc_op_cat, &attr, (int)n, inputs, NULL);
done:
    for (Py_ssize_t i = 0; inputs && i < n; i++)
        Py_XDECREF(inputs[i]);
    lc_free(inputs);
    Py_DECREF(tuple);
    return result;
}

/* Checks that a per-axis list is as long as the tensor has dimensions. */
static int per_axis(int n, int rank, const char *what)
{
    if (n == rank)
        return 0;
    if (n >= 0)
        PyErr_Format(PyExc_ValueError, "%s: %d numbers were given for a tensor of %d dimensions",
                     what, n, rank);
    return -1;
}

static PyObject *pad(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *before, *after, *result = NULL;
    lc_pad_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOOf:pad", &x, &before, &after, &attr.value))
        return NULL;
    lc_desc d;
    int rank = rank_of(&x, &d);
    if (rank < 0)
        return NULL;
    if (per_axis(lcpy_int_list(before, "pad", LC_MAX_RANK, attr.before), rank, "pad") == 0 &&
        per_axis(lcpy_int_list(after, "pad", LC_MAX_RANK, attr.after), rank, "pad") == 0)
        result = lcpy_apply(&lc_op_pad, &attr, 1, &x, NULL);
    Py_DECREF(x);
    return result;
}

static PyObject *slice(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *start, *step, *count, *result = NULL;
    lc_slice_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OOOO:slice", &x, &start, &step, &count))
        return NULL;
    lc_desc d;
    int rank = rank_of(&x, &d);
    if (rank < 0)
        return NULL;
    if (per_axis(lcpy_int_list(start, "start", LC_MAX_RANK, attr.start), rank, "slice") == 0 &&
        per_axis(lcpy_int_list(step, "step", LC_MAX_RANK, attr.step), rank, "slice") == 0 &&
        per_axis(lcpy_int_list(count, "count", LC_MAX_RANK, attr.count), rank, "slice") == 0)
        result = lcpy_apply(&lc_op_slice, &attr, 1, &x, NULL);
    Py_DECREF(x);
    return result;
}

static PyObject *expand(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x, *dims;
    lc_expand_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!PyArg_ParseTuple(args, "OO:expand", &x, &dims))
        return NULL;
    int n = lcpy_int_list(dims, "size", LC_MAX_RANK, attr.dim);
    if (n < 0)
        return NULL;
    attr.rank = n;
    return lcpy_apply(&lc_op_expand, &attr, 1, &x, NULL);
}

static PyObject *apply_split(const lc_op *op, int n, PyObject *const *inputs, int cardinality,
                             int radix, int plain_view)
{
    lc_split_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.cardinality = cardinality;
    attr.radix = radix;
    attr.plain_view = (uint32_t)plain_view;
    return lcpy_apply(op, &attr, n, inputs, NULL);
}

static PyObject *split_gap(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    int cardinality, radix;
    if (!PyArg_ParseTuple(args, "Oii:split_gap", &x, &cardinality, &radix))
        return NULL;
    return apply_split(&lc_op_split_gap, 1, &x, cardinality, radix, 0);
}

static PyObject *split_softmax(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *x;
    int cardinality, radix, plain_view;
    if (!PyArg_ParseTuple(args, "Oiip:split_softmax", &x, &cardinality, &radix, &plain_view))
        return NULL;
    return apply_split(&lc_op_split_softmax, 1, &x, cardinality, radix, plain_view);
}

static PyObject *split_apply(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *inputs[2];
    int cardinality, radix;
    if (!PyArg_ParseTuple(args, "OOii:split_apply", &inputs[0], &inputs[1], &cardinality, &radix))
        return NULL;
    return apply_split(&lc_op_split_apply, 2, inputs, cardinality, radix, 0);
}

PyMethodDef lcpy_functional_methods[] = {
    {"conv2d", conv2d, METH_VARARGS,
     "conv2d(x, w, b or None, stride, pad (top, bottom, left, right), dilation, groups)"},
    {"linear", linear, METH_VARARGS, "linear(x, w, b or None)"},
    {"matmul", matmul, METH_VARARGS, "matmul(a, b)"},
    {"batch_norm", batch_norm, METH_VARARGS,
     "batch_norm(x, mean, var, weight or None, bias or None, eps, training, momentum)"},
    {"unary", unary, METH_VARARGS, "unary(kind, x)"},
    {"clamp", clamp, METH_VARARGS, "clamp(x, lo, hi)"},
    {"binary", binary, METH_VARARGS, "binary(kind, a, b)"},
    {"softmax", softmax, METH_VARARGS, "softmax(x, axis, log)"},
    {"pool2d", pool2d, METH_VARARGS,
     "pool2d(kind, x, kernel, stride, pad, dilation, ceil_mode, count_include_pad, divisor)"},
    {"adaptive_pool2d", adaptive_pool2d, METH_VARARGS, "adaptive_pool2d(kind, x, size)"},
    {"reduce", reduce, METH_VARARGS, "reduce(kind, x, axes or None, keepdim)"},
    {"reshape", reshape, METH_VARARGS, "reshape(x, shape)"},
    {"permute", permute, METH_VARARGS, "permute(x, axes)"},
    {"cat", cat, METH_VARARGS, "cat(tensors, axis)"},
    {"pad", pad, METH_VARARGS, "pad(x, before, after, value)"},
    {"slice", slice, METH_VARARGS, "slice(x, start, step, count)"},
    {"expand", expand, METH_VARARGS, "expand(x, shape)"},
    {"split_gap", split_gap, METH_VARARGS, "split_gap(x, cardinality, radix)"},
    {"split_softmax", split_softmax, METH_VARARGS,
     "split_softmax(logits, cardinality, radix, plain_view)"},
    {"split_apply", split_apply, METH_VARARGS, "split_apply(x, attention, cardinality, radix)"},
    {NULL, NULL, 0, NULL},
};
