/* The extension module lucid_c._core: types, functions, and the classes that the facade registers.
 */
#define LC_IMPORTS_NUMPY
#include "binding/core.h"

lcpy_state lcpy;

static unsigned long main_thread;

int lcpy_on_main_thread(void)
{
    return PyThread_get_thread_ident() == main_thread;
}

static int find_main_thread(void)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *thread = threading ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;
    PyObject *ident = thread ? PyObject_GetAttrString(thread, "ident") : NULL;
    main_thread = ident && ident != Py_None ? PyLong_AsUnsignedLong(ident) : 0;
    Py_XDECREF(threading);
    Py_XDECREF(thread);
    Py_XDECREF(ident);
    return PyErr_Occurred() ? -1 : 0;
}

static void replace(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    *slot = Py_NewRef(value);
    Py_XDECREF(old);
}

static PyObject *register_classes(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    PyObject *tensor, *parameter, *cls, *classes, *slot;
    static char *names[] = {"tensor", "parameter", "module", "classes", "slot", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!O:register", names, &tensor, &parameter,
                                     &cls, &PyDict_Type, &classes, &slot))
        return NULL;
    PyObject *given[3] = {tensor, parameter, cls},
             *base[3] = {(PyObject *)lcpy.tensor_base, (PyObject *)lcpy.tensor_base,
                         (PyObject *)lcpy.module_base};
    for (int i = 0; i < 3; i++) {
        int derived = PyObject_IsSubclass(given[i], base[i]);
        if (derived < 0)
            return NULL;
        if (!derived) {
            PyErr_Format(PyExc_TypeError, "%R does not derive from %R", given[i], base[i]);
            return NULL;
        }
    }
    replace(&lcpy.tensor_class, tensor);
    replace(&lcpy.parameter_class, parameter);
    replace(&lcpy.module_class, cls);
    replace(&lcpy.module_classes, classes);
    replace(&lcpy.slot_class, slot);
    Py_RETURN_NONE;
}

static PyMethodDef own_methods[] = {
    {"register", (PyCFunction)(void (*)(void))register_classes, METH_VARARGS | METH_KEYWORDS,
     "register(tensor, parameter, module, classes, slot): the Python classes of what the core "
     "makes"},
    {NULL, NULL, 0, NULL},
};

static int add_methods(PyObject *module)
{
    PyMethodDef *tables[] = {own_methods,           lcpy_loss_methods,      lcpy_functional_methods,
                             lcpy_layer_methods,    lcpy_model_methods,     lcpy_config_methods,
                             lcpy_recorded_methods, lcpy_algorithm_methods, lcpy_autograd_methods,
                             lcpy_train_methods};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    return 0;
}

static int execute(PyObject *module)
{
    if (lcpy.tensor_base) {
        PyErr_SetString(PyExc_ImportError,
                        "lucid_c._core can be imported once per process (no subinterpreters)");
        return -1;
    }
    if (PyArray_ImportNumPyAPI() < 0 || find_main_thread() < 0)
        return -1;
    lcpy.tensor_base = lcpy_tensor_type(module);
    lcpy.module_base = lcpy_module_type(module);
    lcpy.segment_type = lcpy_segment_type(module);
    lcpy.module_classes = PyDict_New();
    if (!lcpy.tensor_base || !lcpy.module_base || !lcpy.segment_type || !lcpy.module_classes)
        return -1;
    lcpy.tensor_class = Py_NewRef((PyObject *)lcpy.tensor_base);
    lcpy.parameter_class = Py_NewRef((PyObject *)lcpy.tensor_base);
    lcpy.module_class = Py_NewRef((PyObject *)lcpy.module_base);
    lcpy.slot_class = Py_NewRef((PyObject *)&PyBaseObject_Type);
    if (PyModule_AddObjectRef(module, "Tensor", (PyObject *)lcpy.tensor_base) < 0 ||
        PyModule_AddObjectRef(module, "Module", (PyObject *)lcpy.module_base) < 0 ||
        PyModule_AddObjectRef(module, "Segment", (PyObject *)lcpy.segment_type) < 0)
        return -1;
    return add_methods(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "lucid_c._core",
    .m_doc = "The C core of lucid_c; use the lucid_c package.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
