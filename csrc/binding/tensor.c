/* The tensor type: contents, a recorded value, or a parameter. What users call is added by the
 * Python subclass. */
#include <string.h>

#include "binding/core.h"

int lcpy_is_tensor(PyObject *obj)
{
    return PyObject_TypeCheck(obj, lcpy.tensor_base);
}

static PyObject *new_of(PyObject *cls)
{
    PyTypeObject *type = cls ? (PyTypeObject *)cls : lcpy.tensor_base;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

PyObject *lcpy_tensor_from_array(PyObject *array)
{
    lcpy_tensor *t = (lcpy_tensor *)new_of(lcpy.tensor_class);
    if (!t) {
        Py_XDECREF(array);
        return NULL;
    }
    t->array = array;
    t->value = LC_NONE;
    return (PyObject *)t;
}

PyObject *lcpy_tensor_from_param(lc_param *p, int is_buffer)
{
    lc_param_retain(p); /* first: making the object may run Python code that drops the parameter */
    lcpy_tensor *t = (lcpy_tensor *)new_of(is_buffer ? lcpy.tensor_class : lcpy.parameter_class);
    if (!t) {
        lc_param_release(p);
        return NULL;
    }
    t->param = p;
    t->value = LC_NONE;
    return (PyObject *)t;
}

PyObject *lcpy_tensor_array(lcpy_tensor *t)
{
    if (t->param)
        return lcpy_param_array(t->param);
    if (!t->array && t->recording) {
        if (t->recording != lcpy_current()) {
            PyErr_SetString(
                PyExc_RuntimeError,
                "this tensor is being recorded by another thread's call; it has no value yet");
            return NULL;
        }
        if (lcpy_settle(t->recording) < 0)
            return NULL;
    }
    if (!t->array) {
        PyErr_SetString(PyExc_RuntimeError,
                        t->lost ? "this tensor was recorded by a call that failed; it has no value"
                                : "this tensor has no value");
        return NULL;
    }
    return Py_NewRef(t->array);
}

int lcpy_tensor_desc(lcpy_tensor *t, lc_desc *out)
{
    if (t->param)
        *out = *lc_param_desc(t->param);
    else if (t->array)
        return lcpy_desc_of((PyArrayObject *)t->array, out);
    else if (t->recording)
        *out = *lc_graph_desc(lcpy_graph_of(t->recording), t->value);
    else {
        PyErr_SetString(PyExc_RuntimeError,
                        "this tensor was recorded by a call that failed; it has no value");
        return -1;
    }
    return 0;
}

/* Tensor(array): an array of numbers or booleans is wrapped as it is. */
static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *data;
    static char *names[] = {"data", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Tensor", names, &data))
        return NULL;
    PyObject *array = lcpy_is_tensor(data) ? lcpy_tensor_array((lcpy_tensor *)data)
                                           : PyArray_FromAny(data, NULL, 0, 0, 0, NULL);
    if (!array)
        return NULL;
    int kind = PyArray_TYPE((PyArrayObject *)array);
    if (!PyTypeNum_ISNUMBER(kind) && !PyTypeNum_ISBOOL(kind)) {
        PyErr_Format(PyExc_TypeError, "a tensor holds numbers, not %S",
                     (PyObject *)PyArray_DESCR((PyArrayObject *)array));
        Py_DECREF(array);
        return NULL;
    }
    lcpy_tensor *t = (lcpy_tensor *)new_of((PyObject *)type);
    if (!t) {
        Py_DECREF(array);
        return NULL;
    }
    t->array = array;
    t->value = LC_NONE;
    return (PyObject *)t;
}

static int tensor_clear(PyObject *self)
{
    lcpy_tensor *t = (lcpy_tensor *)self;
    lcpy_unlink(t);
    Py_CLEAR(t->array);
    Py_CLEAR(t->node);
    Py_CLEAR(t->slot);
    return 0;
}

static int tensor_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((lcpy_tensor *)self)->array);
    Py_VISIT(((lcpy_tensor *)self)->node);
    Py_VISIT(((lcpy_tensor *)self)->slot);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void tensor_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tensor_clear(self);
    lc_param_release(((lcpy_tensor *)self)->param);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int is_tracked(const lcpy_tensor *t)
{
    return !t->param && (t->requires_grad || t->node);
}

/* Does the tensor's value come from something that requires gradients, as far as is recorded? */
static int needs_grad(const lcpy_tensor *t, bool *needs)
{
    *needs = t->param ? lc_param_requires_grad(t->param) : t->requires_grad || t->node;
    if (t->param || t->array || !t->recording)
        return 0;
    return lcpy_check(lc_graph_needs_grad(lcpy_graph_of(t->recording), t->value, needs));
}

static PyObject *tensor_array(PyObject *self, PyObject *unused)
{
    (void)unused;
    return lcpy_tensor_array((lcpy_tensor *)self);
}

static PyObject *tensor_numpy(PyObject *self, PyObject *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    PyObject *array = lcpy_tensor_array(t); /* first: it may give the tensor a history */
    if (array && is_tracked(t)) {
        PyErr_SetString(PyExc_RuntimeError, "Can't call numpy() on Tensor that requires grad. Use "
                                            "tensor.detach().numpy() instead.");
        Py_CLEAR(array);
    }
    return array;
}

static PyObject *tensor_get_shape(PyObject *self, void *unused)
{
    (void)unused;
    lc_desc d;
    if (lcpy_tensor_desc((lcpy_tensor *)self, &d))
        return NULL;
    return lcpy_shape_tuple(&d);
}

static PyObject *tensor_get_is_param(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((lcpy_tensor *)self)->param != NULL);
}

static PyObject *tensor_get_recorded(PyObject *self, void *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    return PyBool_FromLong(!t->array && !t->param && t->recording != NULL);
}

static PyObject *tensor_get_is_float32(PyObject *self, void *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    if (t->array)
        return PyBool_FromLong(PyArray_TYPE((PyArrayObject *)t->array) == NPY_FLOAT);
    lc_desc d;
    if (lcpy_tensor_desc(t, &d))
        return NULL;
    return PyBool_FromLong(d.dtype == LC_F32);
}

static PyObject *tensor_get_requires_grad(PyObject *self, void *unused)
{
    (void)unused;
    bool needs;
    return needs_grad((lcpy_tensor *)self, &needs) ? NULL : PyBool_FromLong(needs);
}

static int tensor_set_requires_grad(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    int flag = value ? PyObject_IsTrue(value) : 0;
    if (flag < 0)
        return -1;
    lcpy_tensor *t = (lcpy_tensor *)self;
    if (t->param) {
        lc_param_set_requires_grad(t->param, flag != 0);
        return 0;
    }
    PyObject *array = lcpy_tensor_array(t);
    if (!array)
        return -1;
    int type = PyArray_TYPE((PyArrayObject *)array);
    Py_DECREF(array);
    if (t->node) {
        if (flag)
            return 0;
        PyErr_SetString(PyExc_RuntimeError,
                        "you can only change requires_grad flags of leaf variables. If you want to "
                        "use a computed variable in a subgraph that doesn't require "
                        "differentiation use var_no_grad = var.detach().");
        return -1;
    }
    if (flag && type != NPY_FLOAT) {
        PyErr_SetString(PyExc_RuntimeError, "only float32 tensors can require gradients");
        return -1;
    }
    t->requires_grad = flag;
    if (!flag || !t->recording) /* what is recorded already goes on as it was */
        return 0;
    PyObject *edge = lcpy_edge_of(t);
    int status = edge ? lcpy_require_grad(t->recording, t->value, edge) : -1;
    Py_XDECREF(edge);
    lcpy_keep_grads(t->recording);
    return status;
}

PyObject *lcpy_edge_of(lcpy_tensor *t)
{
    if (t->node)
        return Py_BuildValue("(Oi)", t->node, t->out);
    if (!t->slot)
        t->slot = PyObject_CallObject(lcpy.slot_class, NULL);
    return Py_XNewRef(t->slot);
}

/* (node, output), or None for a tensor without a history. */
static PyObject *tensor_get_history(PyObject *self, void *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    if (!t->node)
        Py_RETURN_NONE;
    return lcpy_edge_of(t);
}

/* A value that came out of a node written in Python. */
static int tensor_set_history(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    PyObject *node;
    int out;
    if (t->param || t->recording || t->node || !t->array) {
        PyErr_SetString(PyExc_RuntimeError, "this tensor cannot be given a history");
        return -1;
    }
    if (!value || !PyArg_ParseTuple(value, "Oi", &node, &out))
        return -1;
    t->node = Py_NewRef(node);
    t->out = out;
    return 0;
}

/* What keeps the gradient and the hooks of a leaf; a parameter's hangs on the parameter, so that all
 * its wrappers share it. */
static void release_object(void *object)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)object);
    PyGILState_Release(gil);
}

static PyObject *tensor_slot(PyObject *self, PyObject *make)
{
    lcpy_tensor *t = (lcpy_tensor *)self;
    PyObject *slot = t->param ? lc_param_host(t->param) : t->slot;
    int wanted = PyObject_IsTrue(make);
    if (slot || wanted <= 0)
        return wanted < 0 ? NULL : Py_NewRef(slot ? slot : Py_None);
    slot = PyObject_CallObject(lcpy.slot_class, NULL);
    if (slot && t->param)
        lc_param_set_host(t->param, Py_NewRef(slot), release_object);
    else if (slot)
        t->slot = Py_NewRef(slot);
    return slot;
}

/* Whether operators on it go through the core: its value is not known yet, belongs to a module, or
 * has gradients that flow through it. */
static PyObject *tensor_get_records(PyObject *self, void *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    return PyBool_FromLong(t->param || (!t->array && t->recording) ||
                           (is_tracked(t) && lcpy_grad_get() != LCPY_GRAD_OFF));
}

static PyObject *tensor_get_grad(PyObject *self, void *unused)
{
    (void)unused;
    lc_param *p = ((lcpy_tensor *)self)->param;
    lc_storage *grad = p ? lc_param_grad(p) : NULL;
    if (!grad)
        Py_RETURN_NONE;
    PyObject *array = lcpy_storage_array(grad, lc_param_desc(p), 1);
    return array ? lcpy_tensor_from_array(array) : NULL;
}

/* A copy of the numbers of a float32 tensor or array of the parameter's shape. */
static lc_storage *grad_storage(const lc_desc *d, PyObject *value)
{
    PyObject *array = NULL;
    if (lcpy_is_tensor(value))
        array = lcpy_tensor_array((lcpy_tensor *)value);
    else if (PyArray_Check(value))
        array = Py_NewRef(value);
    else
        PyErr_Format(PyExc_TypeError, "grad must be a tensor, an array or None, not %R",
                     (PyObject *)Py_TYPE(value));
    if (!array)
        return NULL;
    PyArrayObject *plain = NULL;
    lc_storage *storage = NULL;
    lc_desc given;
    if (PyArray_TYPE((PyArrayObject *)array) != NPY_FLOAT) {
        PyErr_Format(PyExc_TypeError, "grad must be float32, not %S",
                     (PyObject *)PyArray_DESCR((PyArrayObject *)array));
        goto done;
    }
    if (lcpy_desc_of((PyArrayObject *)array, &given))
        goto done;
    if (!lc_desc_same_shape(&given, d)) {
        char a[LC_SHAPE_TEXT], b[LC_SHAPE_TEXT];
        PyErr_Format(PyExc_ValueError, "a parameter of shape %s cannot have a gradient of shape %s",
                     lc_shape_text(d, a), lc_shape_text(&given, b));
        goto done;
    }
    plain = lcpy_float_array(array, "grad");
    if (plain)
        (void)lcpy_check(lc_storage_create_copy(PyArray_DATA(plain), lc_desc_bytes(d), &storage));
done:
    Py_XDECREF((PyObject *)plain);
    Py_DECREF(array);
    return storage;
}

static int tensor_set_grad(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    lc_param *p = ((lcpy_tensor *)self)->param;
    lc_storage *storage = NULL;
    if (value && value != Py_None) {
        if (!p) {
            PyErr_SetString(PyExc_RuntimeError, "only the grad of a parameter can be set");
            return -1;
        }
        storage = grad_storage(lc_param_desc(p), value);
        if (!storage)
            return -1;
    }
    if (p)
        lc_param_set_grad(p, storage);
    lc_storage_release(storage);
    return 0;
}

/* A number that is equal for two wrappers of one parameter, and an identity for everything else. */
static PyObject *tensor_key(PyObject *self, PyObject *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    return PyLong_FromVoidPtr(t->param ? (void *)t->param : (void *)t);
}

static PyObject *tensor_stamp(PyObject *self, PyObject *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    return PyLong_FromUnsignedLongLong(t->param ? lc_param_stamp(t->param) : 0);
}

/* Writing into the contents must not reach what a recording has read or will read from them: a
 * recorded tensor leaves with a copy. */
static PyObject *tensor_own(PyObject *self, PyObject *unused)
{
    (void)unused;
    lcpy_tensor *t = (lcpy_tensor *)self;
    PyObject *array = lcpy_tensor_array(t);
    if (!array || !t->recording || t->param)
        return array;
    PyObject *copy = PyArray_NewCopy((PyArrayObject *)array, NPY_KEEPORDER);
    Py_DECREF(array);
    if (!copy)
        return NULL;
    lcpy_unlink(t);
    Py_DECREF(t->array);
    t->array = copy;
    return Py_NewRef(copy);
}

/* x += y on recorded tensors: the same Python object stands for the sum from now on. */
static PyObject *tensor_become(PyObject *self, PyObject *other)
{
    lcpy_tensor *t = (lcpy_tensor *)self, *o = (lcpy_tensor *)other;
    if (!lcpy_is_tensor(other) || t->param || t->recording != o->recording) {
        PyErr_SetString(PyExc_TypeError, "two tensors of one recording, or of none, are expected");
        return NULL;
    }
    PyObject *array = t->array, *node = t->node;
    t->array = Py_XNewRef(o->array);
    t->node = Py_XNewRef(o->node);
    t->out = o->out;
    t->value = o->value;
    Py_XDECREF(array);
    Py_XDECREF(node);
    Py_RETURN_NONE;
}

static PyMethodDef tensor_methods[] = {
    {"numpy", tensor_numpy, METH_NOARGS,
     "The contents as a NumPy array, without a copy; read-only for parameters and buffers.\n"
     "RuntimeError for other tensors that require gradients: use detach()."},
    {"_array", tensor_array, METH_NOARGS, "The contents, whatever becomes of gradients."},
    {"_slot", tensor_slot, METH_O,
     "_slot(make): what keeps the gradient and hooks of a leaf; None where there is none."},
    {"_key", tensor_key, METH_NOARGS, "A number that identifies the parameter behind the tensor."},
    {"_own", tensor_own, METH_NOARGS,
     "The contents, to be written to: a recording does not see the change."},
    {"_become", tensor_become, METH_O,
     "Stands for another tensor of the same recording (or of none) from now on."},
    {"_stamp", tensor_stamp, METH_NOARGS, "The parameter's version stamp; 0 for other tensors."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tensor_getset[] = {
    {"shape", tensor_get_shape, NULL, "Sizes as a tuple; nothing is run to find them.", NULL},
    {"_is_param", tensor_get_is_param, NULL, "True for parameters and buffers of modules.", NULL},
    {"_recorded", tensor_get_recorded, NULL, "True while the value is recorded but not computed.",
     NULL},
    {"_is_float32", tensor_get_is_float32, NULL,
     "Whether the numbers are float32; nothing is run to find out.", NULL},
    {"_records", tensor_get_records, NULL, "Whether operators on it go through the core.", NULL},
    {"_history", tensor_get_history, tensor_set_history, "(node, output), or None.", NULL},
    {"requires_grad", tensor_get_requires_grad, tensor_set_requires_grad,
     "Whether gradients with respect to the tensor are computed.", NULL},
    {"grad", tensor_get_grad, tensor_set_grad,
     "The gradient of a parameter, or None. Reading gives a tensor of the gradient's own memory;\n"
     "one that was read before an accumulation keeps its numbers. Setting copies the numbers of a\n"
     "float32 tensor or array of the parameter's shape (TypeError, ValueError); None removes it.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject *lcpy_tensor_type(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, (void *)tensor_new},
        {Py_tp_dealloc, (void *)tensor_dealloc},
        {Py_tp_traverse, (void *)tensor_traverse},
        {Py_tp_clear, (void *)tensor_clear},
        {Py_tp_methods, tensor_methods},
        {Py_tp_getset, tensor_getset},
        {0, NULL},
    };
    static PyType_Spec spec = {"lucid_c._core.Tensor", sizeof(lcpy_tensor), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               slots};
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}
