/* NumPy arrays in and out. */
#include "binding/core.h"

PyArrayObject *lcpy_float_array(PyObject *obj, const char *what)
{
    if (lcpy_is_tensor(obj)) {
        PyObject *contents = lcpy_tensor_array((lcpy_tensor *)obj);
        if (!contents)
            return NULL;
        PyArrayObject *array = lcpy_float_array(contents, what);
        Py_DECREF(contents);
        return array;
    }
    int scalar = PyLong_Check(obj) || PyFloat_Check(obj);
    PyArrayObject *any = (PyArrayObject *)PyArray_FromAny(obj, NULL, 0, 0, 0, NULL);
    if (!any)
        return NULL;
    int type = PyArray_TYPE(any);
    int is_float =
        type == NPY_FLOAT || type == NPY_DOUBLE || type == NPY_HALF || type == NPY_LONGDOUBLE;
    if (!is_float && !(scalar && PyTypeNum_ISINTEGER(type))) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a float array (float32, float64 or float16), not %S; convert it, "
                     "e.g. x.astype(numpy.float32)",
                     what, (PyObject *)PyArray_DESCR(any));
        Py_DECREF(any);
        return NULL;
    }
    PyArray_Descr *f32 = PyArray_DescrFromType(NPY_FLOAT);
    PyArrayObject *array = (PyArrayObject *)PyArray_FromArray(
        any, f32,
        NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST);
    Py_DECREF(any);
    return array;
}

PyArrayObject *lcpy_number_array(PyObject *obj, const char *what)
{
    if (lcpy_is_tensor(obj)) {
        PyObject *contents = lcpy_tensor_array((lcpy_tensor *)obj);
        PyArrayObject *array = contents ? lcpy_number_array(contents, what) : NULL;
        Py_XDECREF(contents);
        return array;
    }
    PyArrayObject *any = (PyArrayObject *)PyArray_FromAny(obj, NULL, 0, 0, 0, NULL);
    if (!any)
        return NULL;
    PyArrayObject *array;
    if (PyTypeNum_ISINTEGER(PyArray_TYPE(any)))
        array = (PyArrayObject *)PyArray_FromArray(any, PyArray_DescrFromType(NPY_INT64),
                                                   NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED |
                                                       NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST);
    else if (PyTypeNum_ISFLOAT(PyArray_TYPE(any)))
        array = lcpy_float_array((PyObject *)any, what);
    else
        array = (PyArrayObject *)PyErr_Format(PyExc_TypeError,
                                              "%s must hold integers or floats, not %S", what,
                                              (PyObject *)PyArray_DESCR(any));
    Py_DECREF(any);
    return array;
}

int lcpy_desc_of(PyArrayObject *array, lc_desc *out)
{
    int64_t dim[LC_MAX_RANK];
    int rank = PyArray_NDIM(array);
    if (rank > LC_MAX_RANK) {
        PyErr_Format(PyExc_ValueError, "arrays of up to %d dimensions are taken, this one has %d",
                     LC_MAX_RANK, rank);
        return -1;
    }
    for (int i = 0; i < rank; i++)
        dim[i] = PyArray_DIM(array, i);
    return lcpy_check(
        lc_desc_init(out, PyArray_TYPE(array) == NPY_INT64 ? LC_I64 : LC_F32, rank, dim));
}

PyArrayObject *lcpy_new_array(const lc_desc *d)
{
    npy_intp dim[LC_MAX_RANK];
    for (int i = 0; i < d->rank; i++)
        dim[i] = (npy_intp)d->dim[i];
    return (PyArrayObject *)PyArray_SimpleNew(d->rank, dim,
                                              d->dtype == LC_I64 ? NPY_INT64 : NPY_FLOAT);
}

#define LOAN "lucid_c.contents" /* the name of capsules that hold a storage and its contents */

static void end_loan(PyObject *capsule)
{
    lc_storage *storage = PyCapsule_GetPointer(capsule, LOAN);
    lc_storage_give_back(storage, NULL, NULL);
    lc_storage_release(storage);
}

PyObject *lcpy_storage_array(lc_storage *storage, const lc_desc *d, int writable)
{
    void *data;
    PyObject *capsule = NULL;
    if (lcpy_check(lc_storage_borrow(storage, &data)) == 0) {
        capsule = PyCapsule_New(storage, LOAN, end_loan);
        if (!capsule)
            lc_storage_give_back(storage, NULL, NULL);
    }
    if (!capsule) {
        lc_storage_release(storage);
        return NULL;
    }
    npy_intp dim[LC_MAX_RANK];
    for (int i = 0; i < d->rank; i++)
        dim[i] = (npy_intp)d->dim[i];
    int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | (writable ? NPY_ARRAY_WRITEABLE : 0);
    PyObject *array =
        PyArray_New(&PyArray_Type, d->rank, dim, d->dtype == LC_I64 ? NPY_INT64 : NPY_FLOAT, NULL,
                    data, 0, flags, NULL);
    if (!array || PyArray_SetBaseObject((PyArrayObject *)array, capsule) < 0) {
        if (!array)
            Py_DECREF(capsule);
        Py_XDECREF(array);
        return NULL;
    }
    return array;
}

lc_storage *lcpy_array_storage(PyArrayObject *array)
{
    PyObject *base = PyArray_BASE(array);
    return base && PyCapsule_IsValid(base, LOAN) ? PyCapsule_GetPointer(base, LOAN) : NULL;
}

PyObject *lcpy_param_array(lc_param *p)
{
    lc_storage *storage;
    if (lcpy_check(lc_param_storage(p, &storage)))
        return NULL;
    return lcpy_storage_array(storage, lc_param_desc(p), 0);
}

PyObject *lcpy_shape_tuple(const lc_desc *d)
{
    PyObject *tuple = PyTuple_New(d->rank);
    for (int i = 0; tuple && i < d->rank; i++) {
        PyObject *size = PyLong_FromLongLong(d->dim[i]);
        if (!size || PyTuple_SetItem(tuple, i, size) < 0) {
            Py_DECREF(tuple);
            return NULL;
        }
    }
    return tuple;
}

/* A whole number that may be out of int64_t's range, which the message says by name. */
static int int_of(PyObject *number, const char *what, int64_t *out)
{
    *out = PyLong_AsLongLong(number);
    if (*out != -1 || !PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%s is too large: %R", what, number);
    }
    return -1;
}

int lcpy_int_list(PyObject *obj, const char *what, int most, int64_t *out)
{
    if (PyBool_Check(obj) || PyFloat_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be integers, not %R", what, obj);
        return -1;
    }
    if (PyIndex_Check(obj)) {
        PyObject *number = PyNumber_Index(obj);
        if (!number)
            return -1;
        int failed = int_of(number, what, &out[0]);
        Py_DECREF(number);
        return failed ? -1 : 1;
    }
    Py_ssize_t n = PySequence_Check(obj) && !PyUnicode_Check(obj) ? PySequence_Size(obj) : -1;
    if (n < 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be an integer or a sequence of integers, not %R",
                     what, obj);
        return -1;
    }
    if (n > most) {
        PyErr_Format(PyExc_ValueError, "%s: at most %d integers are expected, got %zd", what, most,
                     n);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(obj, i);
        PyObject *number = item && !PyBool_Check(item) ? PyNumber_Index(item) : NULL;
        if (!number) {
            if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
                PyErr_Clear();
                PyErr_Format(PyExc_TypeError,
                             "%s must be an integer or a sequence of integers, not %R", what, obj);
            }
            Py_XDECREF(item);
            return -1;
        }
        int failed = int_of(number, what, &out[i]);
        Py_DECREF(number);
        Py_DECREF(item);
        if (failed)
            return -1;
    }
    return (int)n;
}

int lcpy_ints(PyObject *obj, const char *what, int n, int64_t *out)
{
    int got = lcpy_int_list(obj, what, n, out);
    if (got < 0)
        return -1;
    if (got == 1)
        for (int i = 1; i < n; i++)
            out[i] = out[0];
    else if (got != n) {
        PyErr_Format(PyExc_ValueError, "%s must be one integer or %d, got %d", what, n, got);
        return -1;
    }
    return 0;
}
