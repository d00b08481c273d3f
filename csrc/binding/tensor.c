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
    return 0;
}

static int tensor_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((lcpy_tensor *)self)->array);
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

static PyObject *tensor_numpy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return lcpy_tensor_array((lcpy_tensor *)self);
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
    lcpy_tensor *t = (lcpy_tensor *)self;
    return PyBool_FromLong(t->param ? lc_param_requires_grad(t->param) : t->requires_grad);
}

static int tensor_set_requires_grad(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    int flag = value ? PyObject_IsTrue(value) : 0;
    if (flag < 0)
        return -1;
    lcpy_tensor *t = (lcpy_tensor *)self;
    if (t->param)
        lc_param_set_requires_grad(t->param, flag != 0);
    else
        t->requires_grad = flag;
    return 0;
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
    if (plain && lcpy_check(lc_storage_create(lc_desc_bytes(d), &storage)) == 0)
        memcpy(lc_storage_data(storage), PyArray_DATA(plain), lc_desc_bytes(d));
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
    if (!lcpy_is_tensor(other) || t->param || !t->recording || t->recording != o->recording) {
        PyErr_SetString(PyExc_TypeError, "two tensors of one recording are expected");
        return NULL;
    }
    PyObject *old = t->array;
    t->array = Py_XNewRef(o->array);
    t->value = o->value;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyMethodDef tensor_methods[] = {
    {"numpy", tensor_numpy, METH_NOARGS,
     "The contents as a NumPy array, without a copy; read-only for parameters and buffers."},
    {"_key", tensor_key, METH_NOARGS, "A number that identifies the parameter behind the tensor."},
    {"_own", tensor_own, METH_NOARGS,
     "The contents, to be written to: a recording does not see the change."},
    {"_become", tensor_become, METH_O,
     "Stands for another tensor of the same recording from now on."},
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
    {"requires_grad", tensor_get_requires_grad, tensor_set_requires_grad,
     "Whether the tensor is trained.", NULL},
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
