/* Layer constructors: each sets up an allocated wrapper. And the other way round: what a layer was
 * made with, as a dict. */
#include <string.h>

#include "binding/core.h"

static PyObject *set_up(PyObject *self, lc_status status, lc_module *m)
{
    if (lcpy_check(status))
        return NULL;
    if (!PyObject_TypeCheck(self, lcpy.module_base)) {
        lc_module_release(m);
        PyErr_SetString(PyExc_TypeError, "self must be a module");
        return NULL;
    }
    if (lcpy_module_assign((lcpy_module *)self, m) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* padding: int, (h, w), (top, bottom, left, right), "same" or "valid" */
static int parse_padding(PyObject *obj, lc_conv2d_config *c)
{
    if (PyUnicode_Check(obj)) {
        const char *text = PyUnicode_AsUTF8AndSize(obj, NULL);
        c->pad_mode = text && strcmp(text, "same") == 0    ? 1
                      : text && strcmp(text, "valid") == 0 ? 2
                                                           : 0;
        if (text && !c->pad_mode)
            PyErr_Format(PyExc_ValueError, "padding must be integers, 'same' or 'valid', not '%s'",
                         text);
        return c->pad_mode ? 0 : -1;
    }
    int64_t p[4];
    int n = lcpy_int_list(obj, "padding", 4, p);
    if (n < 0)
        return -1;
    if (n == 1 || n == 2) {
        int64_t h = p[0], w = p[n - 1];
        c->pad[0] = c->pad[1] = h;
        c->pad[2] = c->pad[3] = w;
        return 0;
    }
    if (n != 4) {
        PyErr_Format(PyExc_ValueError, "padding must be 1, 2 or 4 integers, got %d", n);
        return -1;
    }
    memcpy(c->pad, p, sizeof p);
    return 0;
}

static int parse_conv(lc_conv2d_config *c, PyObject *kernel, PyObject *stride, PyObject *padding,
                      PyObject *dilation)
{
    return lcpy_ints(kernel, "kernel_size", 2, c->kernel) ||
           lcpy_ints(stride, "stride", 2, c->stride) || parse_padding(padding, c) ||
           lcpy_ints(dilation, "dilation", 2, c->dilation);
}

/* The C defaults are written as 0; from Python a 0 is a mistake. */
static int no_zeros(const lc_conv2d_config *c)
{
    const char *wrong = !c->stride[0] || !c->stride[1]       ? "stride"
                        : !c->dilation[0] || !c->dilation[1] ? "dilation"
                        : !c->groups                         ? "groups"
                                                             : NULL;
    if (!wrong)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be positive, got 0", wrong);
    return -1;
}

static PyObject *init_conv2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *kernel, *stride, *padding, *dilation;
    long long in, out, groups;
    int bias;
    lc_conv2d_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OLLOOOOLp:init_conv2d", &self, &in, &out, &kernel, &stride,
                          &padding, &dilation, &groups, &bias) ||
        parse_conv(&c, kernel, stride, padding, dilation))
        return NULL;
    c.in_channels = in;
    c.out_channels = out;
    c.groups = groups;
    c.bias = bias != 0;
    if (no_zeros(&c))
        return NULL;
    lc_module *m = NULL;
    lc_status status = lc_conv2d_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_conv_bn_relu2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *kernel, *stride, *padding, *dilation;
    long long in, out, groups;
    int bias;
    double eps, momentum;
    lc_conv2d_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OLLOOOOLpdd:init_conv_bn_relu2d", &self, &in, &out, &kernel,
                          &stride, &padding, &dilation, &groups, &bias, &eps, &momentum) ||
        parse_conv(&c, kernel, stride, padding, dilation))
        return NULL;
    c.in_channels = in;
    c.out_channels = out;
    c.groups = groups;
    c.bias = bias != 0;
    if (no_zeros(&c))
        return NULL;
    lc_module *m = NULL;
    lc_status status = lc_conv_bn_relu2d_create(&c, eps, momentum, &m);
    return set_up(self, status, m);
}

static PyObject *init_batch_norm2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    long long features;
    int affine, track;
    lc_batch_norm_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OLddpp:init_batch_norm2d", &self, &features, &c.eps, &c.momentum,
                          &affine, &track))
        return NULL;
    c.features = features;
    c.affine = affine != 0;
    c.track_running_stats = track != 0;
    lc_module *m = NULL;
    lc_status status = lc_batch_norm2d_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_linear(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    long long in, out;
    int bias;
    if (!PyArg_ParseTuple(args, "OLLp:init_linear", &self, &in, &out, &bias))
        return NULL;
    lc_linear_config c = {in, out, bias != 0};
    lc_module *m = NULL;
    lc_status status = lc_linear_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_pool2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *kernel, *stride, *pad, *dilation;
    const char *kind;
    int ceil_mode, count_include_pad;
    long long divisor;
    lc_pool2d_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OsOOOOppL:init_pool2d", &self, &kind, &kernel, &stride, &pad,
                          &dilation, &ceil_mode, &count_include_pad, &divisor) ||
        lcpy_ints(kernel, "kernel_size", 2, c.attr.kernel) ||
        lcpy_ints(stride, "stride", 2, c.attr.stride) || lcpy_ints(pad, "padding", 2, c.attr.pad) ||
        lcpy_ints(dilation, "dilation", 2, c.attr.dilation))
        return NULL;
    bool max = strcmp(kind, "max") == 0;
    c.attr.kind = max ? LC_POOL_MAX : LC_POOL_AVG;
    c.attr.ceil_mode = (uint32_t)ceil_mode;
    c.attr.count_include_pad = (uint32_t)count_include_pad;
    c.attr.divisor = divisor;
    lc_module *m = NULL;
    lc_status status = max ? lc_max_pool2d_create(&c, &m) : lc_avg_pool2d_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_adaptive_avg_pool2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *h, *w;
    lc_adaptive_pool2d_config c = {{0, 0}};
    if (!PyArg_ParseTuple(args, "O(OO):init_adaptive_avg_pool2d", &self, &h, &w) ||
        (h != Py_None && lcpy_ints(h, "output_size", 1, &c.out[0])) ||
        (w != Py_None && lcpy_ints(w, "output_size", 1, &c.out[1])))
        return NULL;
    if ((h != Py_None && c.out[0] < 1) || (w != Py_None && c.out[1] < 1)) {
        PyErr_Format(PyExc_ValueError, "output_size must be positive or None, got (%R, %R)", h, w);
        return NULL;
    }
    lc_module *m = NULL;
    lc_status status = lc_adaptive_avg_pool2d_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_relu(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    int inplace;
    if (!PyArg_ParseTuple(args, "Op:init_relu", &self, &inplace))
        return NULL;
    lc_module *m = NULL;
    lc_status status = lc_relu_create(inplace != 0, &m);
    return set_up(self, status, m);
}

static PyObject *init_sigmoid(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = NULL;
    lc_status status = lc_sigmoid_create(&m);
    return set_up(self, status, m);
}

static PyObject *init_identity(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = NULL;
    lc_status status = lc_identity_create(&m);
    return set_up(self, status, m);
}

static PyObject *init_sequential(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = NULL;
    lc_status status = lc_sequential_create(&m);
    return set_up(self, status, m);
}

static PyObject *init_module_list(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = NULL;
    lc_status status = lc_module_list_create(&m);
    return set_up(self, status, m);
}

static PyObject *init_softmax(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *dim;
    lc_softmax_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OO:init_softmax", &self, &dim) ||
        (dim != Py_None && lcpy_ints(dim, "dim", 1, &c.dim)))
        return NULL;
    c.has_dim = dim != Py_None;
    lc_module *m = NULL;
    lc_status status = lc_softmax_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_dropout(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    int inplace;
    lc_dropout_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "Odp:init_dropout", &self, &c.p, &inplace))
        return NULL;
    c.inplace = inplace != 0;
    lc_module *m = NULL;
    lc_status status = lc_dropout_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_drop_path(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    int scale;
    lc_drop_path_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "Odp:init_drop_path", &self, &c.p, &scale))
        return NULL;
    c.scale_by_keep = scale != 0;
    lc_module *m = NULL;
    lc_status status = lc_drop_path_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_drop_block2d(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    long long block_size;
    lc_drop_block_config c;
    memset(&c, 0, sizeof c);
    if (!PyArg_ParseTuple(args, "OdL:init_drop_block2d", &self, &c.p, &block_size))
        return NULL;
    c.block_size = block_size;
    lc_module *m = NULL;
    lc_status status = lc_drop_block2d_create(&c, &m);
    return set_up(self, status, m);
}

static PyObject *init_flatten(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    long long start, end;
    if (!PyArg_ParseTuple(args, "OLL:init_flatten", &self, &start, &end))
        return NULL;
    lc_flatten_config c = {start, end};
    lc_module *m = NULL;
    lc_status status = lc_flatten_create(&c, &m);
    return set_up(self, status, m);
}

/* --- configs as dicts */

static PyObject *pair(const int64_t v[2])
{
    return Py_BuildValue("(LL)", (long long)v[0], (long long)v[1]);
}

static PyObject *conv_config(const lc_conv2d_config *c)
{
    PyObject *padding = c->pad_mode == 1   ? PyUnicode_FromString("same")
                        : c->pad_mode == 2 ? PyUnicode_FromString("valid")
                        : c->pad[0] == c->pad[1] && c->pad[2] == c->pad[3]
                            ? Py_BuildValue("(LL)", (long long)c->pad[0], (long long)c->pad[2])
                            : Py_BuildValue("(LLLL)", (long long)c->pad[0], (long long)c->pad[1],
                                            (long long)c->pad[2], (long long)c->pad[3]);
    return Py_BuildValue("{sLsLsNsNsNsNsLsO}", "in_channels", (long long)c->in_channels,
                         "out_channels", (long long)c->out_channels, "kernel_size", pair(c->kernel),
                         "stride", pair(c->stride), "padding", padding, "dilation",
                         pair(c->dilation), "groups", (long long)c->groups, "bias",
                         c->bias ? Py_True : Py_False);
}

static PyObject *pool_config(const lc_pool2d_attr *a)
{
    if (a->kind == LC_POOL_MAX)
        return Py_BuildValue("{sNsNsNsNsO}", "kernel_size", pair(a->kernel), "stride",
                             pair(a->stride), "padding", pair(a->pad), "dilation",
                             pair(a->dilation), "ceil_mode", a->ceil_mode ? Py_True : Py_False);
    return Py_BuildValue("{sNsNsNsOsOsO}", "kernel_size", pair(a->kernel), "stride",
                         pair(a->stride), "padding", pair(a->pad), "ceil_mode",
                         a->ceil_mode ? Py_True : Py_False, "count_include_pad",
                         a->count_include_pad ? Py_True : Py_False, "divisor_override", Py_None);
}

static PyObject *optional_size(int64_t size)
{
    return size ? PyLong_FromLongLong(size) : Py_NewRef(Py_None);
}

static PyObject *module_config(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = lcpy_module_of(self, "module");
    if (!m)
        return NULL;
    const lc_module_class *cls = lc_module_class_of(m);
    const void *config = lc_module_config(m);
    if (cls == &lc_class_conv2d)
        return conv_config(config);
    if (cls == &lc_class_batch_norm2d) {
        const lc_batch_norm_config *c = config;
        PyObject *momentum = c->momentum < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(c->momentum);
        return Py_BuildValue("{sLsdsNsOsO}", "num_features", (long long)c->features, "eps", c->eps,
                             "momentum", momentum, "affine", c->affine ? Py_True : Py_False,
                             "track_running_stats", c->track_running_stats ? Py_True : Py_False);
    }
    if (cls == &lc_class_linear) {
        const lc_linear_config *c = config;
        return Py_BuildValue("{sLsLsO}", "in_features", (long long)c->in_features, "out_features",
                             (long long)c->out_features, "bias", c->bias ? Py_True : Py_False);
    }
    if (cls == &lc_class_max_pool2d || cls == &lc_class_avg_pool2d) {
        PyObject *dict = pool_config(&((const lc_pool2d_config *)config)->attr);
        int64_t divisor = ((const lc_pool2d_config *)config)->attr.divisor;
        if (dict && divisor) {
            PyObject *number = PyLong_FromLongLong(divisor);
            if (!number || PyDict_SetItemString(dict, "divisor_override", number) < 0)
                Py_CLEAR(dict);
            Py_XDECREF(number);
        }
        return dict;
    }
    if (cls == &lc_class_adaptive_avg_pool2d) {
        const lc_adaptive_pool2d_config *c = config;
        return Py_BuildValue("{s(NN)}", "output_size", optional_size(c->out[0]),
                             optional_size(c->out[1]));
    }
    if (cls == &lc_class_relu)
        return Py_BuildValue("{sO}", "inplace", *(const bool *)config ? Py_True : Py_False);
    if (cls == &lc_class_softmax) {
        const lc_softmax_config *c = config;
        return Py_BuildValue("{sN}", "dim",
                             c->has_dim ? PyLong_FromLongLong(c->dim) : Py_NewRef(Py_None));
    }
    if (cls == &lc_class_dropout) {
        const lc_dropout_config *c = config;
        return Py_BuildValue("{sdsO}", "p", c->p, "inplace", c->inplace ? Py_True : Py_False);
    }
    if (cls == &lc_class_drop_path) {
        const lc_drop_path_config *c = config;
        return Py_BuildValue("{sdsO}", "drop_prob", c->p, "scale_by_keep",
                             c->scale_by_keep ? Py_True : Py_False);
    }
    if (cls == &lc_class_drop_block2d) {
        const lc_drop_block_config *c = config;
        return Py_BuildValue("{sdsL}", "p", c->p, "block_size", (long long)c->block_size);
    }
    if (cls == &lc_class_flatten) {
        const lc_flatten_config *c = config;
        return Py_BuildValue("{sLsL}", "start_dim", (long long)c->start_dim, "end_dim",
                             (long long)c->end_dim);
    }
    return PyDict_New();
}

/* --- copies: the class and the config, without entries */

static PyObject *dump(PyObject *module, PyObject *self)
{
    (void)module;
    lc_module *m = lcpy_module_of(self, "module");
    if (!m)
        return NULL;
    return Py_BuildValue("(sy#)", lc_module_class_of(m)->name, (const char *)lc_module_config(m),
                         (Py_ssize_t)lc_module_config_bytes(m));
}

static PyObject *restore(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    const char *name, *bytes;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "Osy#:restore", &self, &name, &bytes, &n))
        return NULL;
    const lc_module_class *cls = lc_module_class_find(name);
    if (!cls || (size_t)n != cls->config_bytes) {
        PyErr_Format(PyExc_ValueError, "a pickled %s module of another version", name);
        return NULL;
    }
    lc_module *m = NULL;
    lc_status status = lc_module_create(cls, (size_t)n, &m);
    if (status == LC_OK && n)
        memcpy(lc_module_config(m), bytes, (size_t)n);
    return set_up(self, status, m);
}

PyMethodDef lcpy_layer_methods[] = {
    {"init_conv2d", init_conv2d, METH_VARARGS,
     "init_conv2d(self, in_channels, out_channels, kernel, stride, padding, dilation, groups, "
     "bias)"},
    {"init_conv_bn_relu2d", init_conv_bn_relu2d, METH_VARARGS,
     "As init_conv2d, then eps, momentum."},
    {"init_batch_norm2d", init_batch_norm2d, METH_VARARGS,
     "init_batch_norm2d(self, features, eps, momentum, affine, track)"},
    {"init_linear", init_linear, METH_VARARGS,
     "init_linear(self, in_features, out_features, bias)"},
    {"init_pool2d", init_pool2d, METH_VARARGS,
     "init_pool2d(self, kind, kernel, stride, pad, dilation, ceil_mode, count_include_pad, "
     "divisor)"},
    {"init_adaptive_avg_pool2d", init_adaptive_avg_pool2d, METH_VARARGS,
     "init_adaptive_avg_pool2d(self, (oh, ow))"},
    {"init_relu", init_relu, METH_VARARGS, "init_relu(self, inplace)"},
    {"init_sigmoid", init_sigmoid, METH_O, "init_sigmoid(self)"},
    {"init_softmax", init_softmax, METH_VARARGS, "init_softmax(self, dim or None)"},
    {"init_dropout", init_dropout, METH_VARARGS, "init_dropout(self, p, inplace)"},
    {"init_drop_path", init_drop_path, METH_VARARGS, "init_drop_path(self, p, scale_by_keep)"},
    {"init_drop_block2d", init_drop_block2d, METH_VARARGS,
     "init_drop_block2d(self, p, block_size)"},
    {"init_identity", init_identity, METH_O, "init_identity(self)"},
    {"init_flatten", init_flatten, METH_VARARGS, "init_flatten(self, start_dim, end_dim)"},
    {"init_sequential", init_sequential, METH_O, "init_sequential(self)"},
    {"init_module_list", init_module_list, METH_O, "init_module_list(self)"},
    {"module_config", module_config, METH_O, "What a layer was made with, as a dict."},
    {"dump", dump, METH_O, "(class name, config bytes)"},
    {"restore", restore, METH_VARARGS, "restore(new, class name, config bytes)"},
    {NULL, NULL, 0, NULL},
};
