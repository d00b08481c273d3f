/* Segments: one kept run each, a node of what backward walks over; the walk itself is Python. And the
 * functions that switch gradients on and off. */
#include <string.h>

#include "base/mem.h"
#include "binding/core.h"

typedef struct segment {
    PyObject_HEAD lc_tape *tape;
    PyObject *edges;          /* tuple: per leaf of the tape: see get_edges */
    PyObject *arrays;         /* list: inputs that backward reads; NULL once it has run */
    PyObject *slots;          /* dict: output -> what keeps its hooks and gradient; NULL: none */
    unsigned long long order; /* later ones come first in backward */
} segment;

static unsigned long long next_order;

PyObject *lcpy_segment_new(lc_tape *tape, PyObject *edges, PyObject *arrays)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(lcpy.segment_type, Py_tp_alloc);
    segment *s = (segment *)alloc(lcpy.segment_type, 0);
    if (!s) {
        lc_tape_release(tape);
        Py_DECREF(edges);
        Py_DECREF(arrays);
        return NULL;
    }
    s->tape = tape;
    s->edges = edges;
    s->arrays = arrays;
    s->order = ++next_order;
    return (PyObject *)s;
}

/* A gradient that is given: float32, C-contiguous, of that shape. Borrowed data, NULL with an
 * exception. */
static const void *check_gradient(PyObject *obj, const lc_desc *want)
{
    lc_desc d;
    char a[LC_SHAPE_TEXT], b[LC_SHAPE_TEXT];
    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_FLOAT ||
        !PyArray_ISCARRAY_RO((PyArrayObject *)obj)) {
        PyErr_SetString(PyExc_TypeError, "gradients are C-contiguous float32 arrays");
        return NULL;
    }
    if (lcpy_desc_of((PyArrayObject *)obj, &d))
        return NULL;
    if (!lc_desc_same_shape(&d, want)) {
        PyErr_Format(PyExc_ValueError, "a gradient of shape %s for a tensor of shape %s",
                     lc_shape_text(&d, a), lc_shape_text(want, b));
        return NULL;
    }
    return PyArray_DATA((PyArrayObject *)obj);
}

/* Memory for the gradient of a leaf: a parameter's is of the kind that can become its gradient. */
static PyObject *new_gradient(const lc_tape_leaf *leaf)
{
    lc_storage *storage;
    if (!leaf->param)
        return (PyObject *)lcpy_new_array(&leaf->desc);
    if (lcpy_check(lc_param_new_grad(leaf->param, &storage)))
        return NULL;
    return lcpy_storage_array(storage, &leaf->desc, 1);
}

static PyObject *segment_run(PyObject *self, PyObject *args)
{
    segment *s = (segment *)self;
    PyObject *given, *result = NULL;
    int keep, n_out = lc_tape_output_count(s->tape), n = lc_tape_leaf_count(s->tape);
    if (!PyArg_ParseTuple(args, "O!p:run", &PyTuple_Type, &given, &keep))
        return NULL;
    if (PyTuple_Size(given) != n_out) {
        PyErr_Format(PyExc_ValueError, "%d gradients are expected, one per output", n_out);
        return NULL;
    }
    void **data = lc_alloc_zero((size_t)(n_out + n) * sizeof *data + 1);
    const void **dy = (const void **)data;
    void **dx = data + n_out;
    if (!data) {
        lcpy_raise(LC_ERR_MEMORY);
        return NULL;
    }
    result = PyList_New(n);
    for (int i = 0; result && i < n_out; i++) {
        PyObject *each = PyTuple_GetItem(given, i);
        if (each != Py_None && !(dy[i] = check_gradient(each, lc_tape_output_desc(s->tape, i))))
            Py_CLEAR(result);
    }
    for (int i = 0; result && i < n; i++) {
        lc_tape_leaf leaf = lc_tape_leaf_at(s->tape, i);
        PyObject *array = new_gradient(&leaf);
        if (array)
            dx[i] = PyArray_DATA((PyArrayObject *)array);
        if (!array || PyList_SetItem(result, i, array) < 0)
            Py_CLEAR(result);
    }
    if (result) {
        lcpy_unlocked u;
        lcpy_unlock(&u);
        lc_status status = lc_tape_backward(s->tape, dy, dx, keep != 0, &u.options);
        lcpy_relock(&u);
        if (lcpy_check(status))
            Py_CLEAR(result);
        if (lc_tape_is_spent(s->tape))
            Py_CLEAR(s->arrays);
    }
    lc_free(data);
    return result;
}

static PyObject *segment_slot(PyObject *self, PyObject *args)
{
    segment *s = (segment *)self;
    int i, make;
    if (!PyArg_ParseTuple(args, "ip:slot", &i, &make))
        return NULL;
    if (!s->slots && (!make || !(s->slots = PyDict_New())))
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *key = PyLong_FromLong(i), *slot = NULL;
    if (!key)
        return NULL;
    slot = Py_XNewRef(PyDict_GetItemWithError(s->slots, key));
    if (!slot && !PyErr_Occurred()) {
        slot = make ? PyObject_CallObject(lcpy.slot_class, NULL) : Py_NewRef(Py_None);
        if (slot && make && PyDict_SetItem(s->slots, key, slot) < 0)
            Py_CLEAR(slot);
    }
    Py_DECREF(key);
    return slot;
}

static PyObject *get_edges(PyObject *self, void *unused)
{
    (void)unused;
    segment *s = (segment *)self;
    return s->edges ? Py_NewRef(s->edges) : PyTuple_New(0);
}

static PyObject *get_order(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((segment *)self)->order);
}

static PyObject *get_outputs(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(lc_tape_output_count(((segment *)self)->tape));
}

static int segment_traverse(PyObject *self, visitproc visit, void *arg)
{
    segment *s = (segment *)self;
    Py_VISIT(s->edges);
    Py_VISIT(s->arrays);
    Py_VISIT(s->slots);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int segment_clear(PyObject *self)
{
    segment *s = (segment *)self;
    Py_CLEAR(s->edges);
    Py_CLEAR(s->slots);
    return 0;
}

static void segment_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    segment *s = (segment *)self;
    PyObject_GC_UnTrack(self);
    segment_clear(self);
    lc_tape_release(s->tape);
    Py_CLEAR(s->arrays); /* after the tape, which reads them */
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef segment_methods[] = {
    {"run", segment_run, METH_VARARGS,
     "run(gradients of outputs or None, keep) -> gradients of the leaves, in the order of edges"},
    {"slot", segment_slot, METH_VARARGS,
     "slot(output, make): what keeps the hooks and the gradient of an output, or None"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef segment_getset[] = {
    {"edges", get_edges, NULL,
     "Per leaf: a parameter, a slot, or (node, output); or the number of an output of the segment "
     "itself, whose whole gradient is told.",
     NULL},
    {"order", get_order, NULL, "Grows with every node; backward takes the largest first.", NULL},
    {"outputs", get_outputs, NULL, "How many outputs it has.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject *lcpy_segment_type(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, (void *)segment_dealloc}, {Py_tp_traverse, (void *)segment_traverse},
        {Py_tp_clear, (void *)segment_clear},     {Py_tp_methods, segment_methods},
        {Py_tp_getset, segment_getset},           {0, NULL},
    };
    static PyType_Spec spec = {
        "lucid_c._core.Segment", sizeof(segment), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}

/* --- functions */

static PyObject *grad_mode(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(lcpy_grad_get());
}

static PyObject *set_grad_mode(PyObject *module, PyObject *arg)
{
    (void)module;
    long mode = PyLong_AsLong(arg);
    if (mode == -1 && PyErr_Occurred())
        return NULL;
    if (mode < LCPY_GRAD_AUTO || mode > LCPY_GRAD_ON) {
        PyErr_SetString(PyExc_ValueError, "a mode is 0 (as needed), 1 (off) or 2 (on)");
        return NULL;
    }
    long before = lcpy_grad_get();
    lcpy_grad_set((lcpy_grad_mode)mode);
    return PyLong_FromLong(before);
}

static PyObject *next_node(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(++next_order);
}

/* A recorded value whose gradient ends here. */
static PyObject *detach(PyObject *module, PyObject *obj)
{
    (void)module;
    lc_desc d;
    if (!lcpy_is_tensor(obj)) {
        PyErr_SetString(PyExc_TypeError, "a tensor is expected");
        return NULL;
    }
    if (lcpy_tensor_desc((lcpy_tensor *)obj, &d))
        return NULL;
    lc_reshape_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.rank = d.rank;
    memcpy(attr.dim, d.dim, (size_t)d.rank * sizeof *attr.dim);
    lcpy_grad_mode before = lcpy_grad_get();
    lcpy_grad_set(LCPY_GRAD_OFF);
    PyObject *result = lcpy_apply(&lc_op_reshape, &attr, 1, &obj, NULL);
    lcpy_grad_set(before);
    return result;
}

/* Calls a function outside of the recording that this thread is in. */
static PyObject *aside(PyObject *module, PyObject *args)
{
    (void)module;
    if (PyTuple_Size(args) < 1) {
        PyErr_SetString(PyExc_TypeError, "aside(callable, *args)");
        return NULL;
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_Size(args));
    if (!rest)
        return NULL;
    lcpy_recording *outer = lcpy_suspend();
    PyObject *result = PyObject_CallObject(PyTuple_GetItem(args, 0), rest);
    lcpy_resume(outer);
    Py_DECREF(rest);
    return result;
}

/* The storage of an array that becomes a parameter's gradient: its own, or a copy. New reference. */
static lc_storage *gradient_storage(PyObject *tensor, PyObject *array, lc_param **p)
{
    *p = lcpy_is_tensor(tensor) ? ((lcpy_tensor *)tensor)->param : NULL;
    if (!*p) {
        PyErr_SetString(PyExc_TypeError, "a parameter is expected");
        return NULL;
    }
    if (!check_gradient(array, lc_param_desc(*p)))
        return NULL;
    lc_storage *storage = lcpy_array_storage((PyArrayObject *)array);
    if (storage && PyArray_ISWRITEABLE((PyArrayObject *)array)) /* backward made it */
        return lc_storage_retain(storage);
    return lcpy_check(lc_storage_create_copy(PyArray_DATA((PyArrayObject *)array),
                                             lc_desc_bytes(lc_param_desc(*p)), &storage))
               ? NULL
               : storage;
}

static PyObject *accumulate(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *pairs, *slots, *result = NULL;
    if (!PyArg_ParseTuple(args, "O!O!:accumulate", &PyList_Type, &pairs, &PyList_Type, &slots))
        return NULL;
    int n = (int)PyList_Size(pairs), made = 0;
    lc_param **params = lc_alloc_zero((size_t)n * (sizeof *params + sizeof(lc_storage *)) + 1);
    lc_storage **storages = (lc_storage **)(params + n);
    if (!params) {
        lcpy_raise(LC_ERR_MEMORY);
        return NULL;
    }
    for (; made < n; made++) {
        PyObject *tensor, *array, *pair = PyList_GetItem(pairs, made);
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "OO!", &tensor, &PyArray_Type, &array))
            goto done;
        storages[made] = gradient_storage(tensor, array, &params[made]);
        if (!storages[made])
            goto done;
    }
    /* No signal is handled on this thread before everything is in its place. */
    PyThreadState *thread = PyEval_SaveThread();
    lc_status status = lc_param_accumulate_grads(n, params, storages);
    PyEval_RestoreThread(thread);
    if (lcpy_check(status))
        goto done;
    result = Py_NewRef(Py_None);
    for (Py_ssize_t i = 0; result && i < PyList_Size(slots); i++) {
        PyObject *slot, *gradient;
        if (!PyArg_ParseTuple(PyList_GetItem(slots, i), "OO", &slot, &gradient) ||
            PyObject_SetAttrString(slot, "grad", gradient) < 0)
            Py_CLEAR(result);
    }
done:
    for (int i = 0; i < made; i++)
        lc_storage_release(storages[i]);
    lc_free(params);
    return result;
}

static PyObject *keeps_grads(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(lcpy_keeps_grads(lcpy_current()));
}

PyMethodDef lcpy_autograd_methods[] = {
    {"grad_mode", grad_mode, METH_NOARGS,
     "Whether this thread keeps gradients: 0 as needed, 1 never, 2 always."},
    {"set_grad_mode", set_grad_mode, METH_O, "Sets it and returns what it was."},
    {"next_node", next_node, METH_NOARGS, "The order of a new node."},
    {"detach", detach, METH_O, "The tensor's value, recorded, without its gradient."},
    {"aside", aside, METH_VARARGS,
     "aside(callable, *args): calls it outside of this thread's recording."},
    {"accumulate", accumulate, METH_VARARGS,
     "accumulate([(parameter, array)], [(slot, tensor)]): adds to parameters' gradients and sets "
     "those of slots, all or none."},
    {"keeps_grads", keeps_grads, METH_NOARGS,
     "Whether this thread's recording keeps gradients of parameters; True outside of any, unless "
     "gradients are off."},
    {NULL, NULL, 0, NULL},
};
