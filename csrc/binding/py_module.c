/* The module type: a wrapper of lc_module, one per module at most, and the trampoline for modules
 * whose forward is Python. */
#include <string.h>

#include "base/mem.h"
#include "binding/core.h"
#include "models/blocks.h"
#include "nn/walk.h"

/* Modules that are written in Python: a bare tree node; calling it goes through the override below.
 */
static lc_status python_append(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                               lc_value *out)
{
    (void)self, (void)g, (void)n_in, (void)in, (void)out;
    return lc_fail(LC_ERR_RUNTIME, "this module has no forward");
}

static const lc_module_class python_class = {.name = "Module", .append = python_append};

lc_module *lcpy_module_of(PyObject *obj, const char *what)
{
    if (!PyObject_TypeCheck(obj, lcpy.module_base)) {
        PyErr_Format(PyExc_TypeError, "%s must be a lucid_c.nn.Module, not %R", what, obj);
        return NULL;
    }
    lc_module *m = ((lcpy_module *)obj)->module;
    if (!m)
        PyErr_SetString(PyExc_RuntimeError,
                        "this module is not set up yet; call super().__init__() first");
    return m;
}

int lcpy_module_assign(lcpy_module *self, lc_module *m)
{
    int is_module = PyObject_TypeCheck((PyObject *)self, lcpy.module_base);
    lc_module *old = is_module ? self->module : NULL;
    if (!is_module) {
        PyErr_SetString(PyExc_TypeError, "self must be a lucid_c.nn.Module");
    } else if (old && (lc_module_class_of(old) != &python_class || lc_module_entry_count(old))) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this module is set up already; __init__ cannot be called twice");
    } else if (self->children || (self->children = PyDict_New())) {
        self->module = m;
        lc_module_set_peer(m, self);
        if (old) {
            lc_module_set_peer(old, NULL);
            lc_module_set_override(old, NULL);
            lc_module_release(old);
        }
        return 0;
    }
    lc_module_release(m);
    return -1;
}

PyObject *lcpy_wrap_module(lc_module *m)
{
    if (lc_module_peer(m))
        return Py_NewRef((PyObject *)lc_module_peer(m));
    PyObject *cls = PyDict_GetItemString(lcpy.module_classes, lc_module_class_of(m)->name);
    PyTypeObject *type = (PyTypeObject *)(cls ? cls : lcpy.module_class);
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    lcpy_module *self = (lcpy_module *)alloc(type, 0);
    if (self && lcpy_module_assign(self, lc_module_retain(m)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* --- the trampoline */

/* A module whose Python side decides: hooks, or a forward of its own. `peer` lives as long as
 * whoever holds the tree. */
static lc_status call_python(lc_module *m, void *peer, lc_graph *g, int n_in, const lc_value *in,
                             lc_value *out)
{
    lcpy_recording *r = lcpy_current();
    if (!r || lcpy_graph_of(r) != g)
        return lc_fail(LC_ERR_RUNTIME, "a module written in Python was called outside of Python");
    Py_INCREF((PyObject *)peer); /* Python code below may take it out of the tree */
    lc_module *host = lcpy_set_host(r, m);
    PyObject *args = PyTuple_New(n_in);
    for (int i = 0; args && i < n_in; i++) {
        PyObject *t = lcpy_tensor_from_value(r, in[i]);
        if (!t || PyTuple_SetItem(args, i, t) < 0)
            Py_CLEAR(args);
    }
    PyObject *method =
        args ? PyObject_GetAttrString((PyObject *)peer, "_forward_with_hooks") : NULL;
    PyObject *result = method ? PyObject_CallObject(method, args) : NULL;
    Py_XDECREF(method);
    Py_XDECREF(args);
    lcpy_set_host(r, host);
    Py_DECREF((PyObject *)peer);
    if (!result)
        return lc_fail(LC_ERR_HOST, "a module written in Python raised");
    *out = lcpy_value_of(r, result, 1, "what forward() returns inside of a model");
    Py_DECREF(result);
    return *out == LC_NONE
               ? lc_fail(LC_ERR_HOST,
                         "a module written in Python returned something else than a tensor")
               : LC_OK;
}

/* A call from Python code names no path, so it is looked for below the module whose forward is at
 * work. */
typedef struct visit {
    lcpy_recording *recording;
    lc_module *host; /* before */
    char *scope;     /* before; NULL: it did not change */
} visit;

/* m is called: nodes get its path from now on. `python`: through a forward in Python. */
static int begin_visit(lcpy_recording *r, lc_module *m, bool python, visit *v)
{
    lc_graph *g = lcpy_graph_of(r);
    char *below = NULL, *path = NULL;
    *v = (visit){r, lcpy_set_host(r, NULL), NULL};
    lcpy_set_host(r, python ? m : v->host);
    if (!v->host || v->host == m)
        return 0;
    lc_status status = lc_module_path(v->host, m, &below);
    if (below) {
        const char *above = lc_graph_scope(g);
        size_t bytes = strlen(above) + strlen(below) + 2;
        v->scope = lc_strdup(above);
        path = lc_alloc(bytes);
        status = v->scope && path ? LC_OK : LC_ERR_MEMORY;
        if (status == LC_OK) {
            snprintf(path, bytes, "%s%s%s", above, above[0] ? "." : "", below);
            status = lc_graph_set_scope(g, path);
        }
    }
    lc_free(path);
    lc_free(below);
    return lcpy_check(status);
}

static void end_visit(visit *v)
{
    lcpy_set_host(v->recording, v->host);
    if (v->scope)
        (void)lc_graph_set_scope(lcpy_graph_of(v->recording), v->scope);
    lc_free(v->scope);
}

/* --- methods */

static PyObject *init_python(PyObject *self, PyObject *unused)
{
    (void)unused;
    lc_module *m = ((lcpy_module *)self)->module;
    if (m && lc_module_class_of(m) == &python_class)
        Py_RETURN_NONE; /* several bases may each call it */
    if (lcpy_check(lc_module_create(&python_class, 0, &m)))
        return NULL;
    if (lcpy_module_assign((lcpy_module *)self, m) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* `name` is e's name as an object of its own: making objects may run Python code that changes the
 * entries. */
static PyObject *wrap_entry(lcpy_module *self, const lc_entry *e, PyObject *name)
{
    if (e->kind != LC_ENTRY_CHILD)
        return e->param ? lcpy_tensor_from_param(e->param, e->kind == LC_ENTRY_BUFFER)
                        : Py_NewRef(Py_None);
    if (!e->child)
        return Py_NewRef(Py_None);
    PyObject *known = PyDict_GetItemWithError(self->children, name);
    if (known && PyObject_TypeCheck(known, lcpy.module_base) &&
        ((lcpy_module *)known)->module == e->child)
        return Py_NewRef(known);
    lc_module *m = lc_module_retain(e->child);
    PyObject *child = lcpy_wrap_module(m);
    lc_module_release(m);
    if (child && PyDict_SetItem(self->children, name, child) < 0)
        Py_CLEAR(child);
    return child;
}

static PyObject *get_entry(PyObject *self, PyObject *name)
{
    lc_module *m = lcpy_module_of(self, "self");
    const char *text = m ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    lc_entry e;
    if (!text)
        return NULL;
    if (!lc_module_find(m, text, &e)) {
        PyErr_SetObject(PyExc_KeyError, name);
        return NULL;
    }
    return wrap_entry((lcpy_module *)self, &e, name);
}

static PyObject *entries(PyObject *self, PyObject *unused)
{
    (void)unused;
    static const char *kinds[] = {"param", "buffer", "child"};
    lc_module *m = lcpy_module_of(self, "self");
    PyObject *list = m ? PyList_New(0) : NULL;
    for (int i = 0; list && i < lc_module_entry_count(m); i++) {
        lc_entry e = lc_module_entry(m, i);
        PyObject *name = PyUnicode_FromString(e.name);
        PyObject *value = name ? wrap_entry((lcpy_module *)self, &e, name) : NULL;
        PyObject *row = value ? Py_BuildValue("(OsNO)", name, kinds[e.kind], value,
                                              e.persistent ? Py_True : Py_False)
                              : NULL;
        if (!row || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
        Py_XDECREF(row);
    }
    return list;
}

static PyObject *set_param(PyObject *self, PyObject *args)
{
    const char *name;
    PyObject *value;
    int buffer = 0, persistent = 1;
    lc_module *m = lcpy_module_of(self, "self");
    if (!m || !PyArg_ParseTuple(args, "sO|pp:_set_param", &name, &value, &buffer, &persistent))
        return NULL;
    lc_param *p = NULL;
    if (value != Py_None) {
        if (!lcpy_is_tensor(value) || !((lcpy_tensor *)value)->param) {
            PyErr_SetString(PyExc_TypeError, "a parameter or buffer is expected");
            return NULL;
        }
        p = ((lcpy_tensor *)value)->param;
    }
    lc_status status = buffer ? lc_module_set_buffer(m, name, p, persistent != 0)
                              : lc_module_set_param(m, name, p);
    if (lcpy_check(status))
        return NULL;
    if (PyDict_GetItemString(((lcpy_module *)self)->children, name))
        PyDict_DelItemString(((lcpy_module *)self)->children, name);
    Py_RETURN_NONE;
}

static PyObject *set_child(PyObject *self, PyObject *args)
{
    const char *name;
    PyObject *value;
    lc_module *m = lcpy_module_of(self, "self"), *child = NULL;
    if (!m || !PyArg_ParseTuple(args, "sO:_set_child", &name, &value))
        return NULL;
    if (value != Py_None && !(child = lcpy_module_of(value, name)))
        return NULL;
    if (lcpy_check(lc_module_set_child(m, name, child)))
        return NULL;
    if (PyDict_SetItemString(((lcpy_module *)self)->children, name, value) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *remove_entry(PyObject *self, PyObject *name)
{
    lc_module *m = lcpy_module_of(self, "self");
    const char *text = m ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    if (!text || lcpy_check(lc_module_remove(m, text)))
        return NULL;
    PyObject *children = ((lcpy_module *)self)->children;
    if (PyDict_GetItemString(children, text) && PyDict_DelItemString(children, text) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Does m or any module below it run Python code when it is appended? Deeper ones are not reached:
 * appending refuses the tree. */
static bool runs_python(lc_module *m, int depth)
{
    if (lc_module_has_override(m) || depth > LC_MAX_NESTING)
        return true;
    for (int i = 0; i < lc_module_entry_count(m); i++) {
        lc_entry e = lc_module_entry(m, i);
        if (e.child && runs_python(e.child, depth + 1))
            return true;
    }
    return false;
}

/* The C class appended to the recording (or run at once): what forward() of a built-in class does.
 */
static PyObject *call_native(PyObject *self, PyObject *args)
{
    lc_module *m = lcpy_module_of(self, "self");
    if (!m)
        return NULL;
    int n = (int)PyTuple_Size(args);
    lc_value in[8], out[LC_MAX_OUT];
    if (n > 8) {
        PyErr_Format(PyExc_TypeError, "%s takes fewer inputs than %d", lc_module_class_of(m)->name,
                     n);
        return NULL;
    }
    lcpy_recording *r = lcpy_enter();
    if (!r)
        return NULL;
    PyObject *result = NULL;
    lc_module_retain(m); /* Python code below may drop the wrapper */
    bool begun = lc_module_begin(m, lcpy_graph_of(r));
    int private_copy = lcpy_is_nested(r) || runs_python(m, 0);
    visit v;
    if (begin_visit(r, m, false, &v) < 0)
        goto done;
    for (int i = 0; i < n; i++) {
        in[i] = lcpy_value_of(r, PyTuple_GetItem(args, i), private_copy, "the input");
        if (in[i] == LC_NONE)
            goto done;
    }
    if (lcpy_check(lc_module_class_of(m)->append(m, lcpy_graph_of(r), n, in, out)) == 0)
        result = lcpy_tensor_from_value(r, out[0]);
done:
    end_visit(&v);
    lc_module_end(begun, lcpy_graph_of(r));
    lc_module_release(m);
    if (lcpy_leave(r, result != NULL) < 0)
        Py_CLEAR(result);
    return result;
}

/* A call through Python's forward: everything inside is one recording. */
static PyObject *call_recorded(PyObject *self, PyObject *args, PyObject *kwargs)
{
    lc_module *m = lcpy_module_of(self, "self");
    lcpy_recording *r = m ? lcpy_enter() : NULL;
    if (!r)
        return NULL;
    visit v;
    lc_module_retain(m);
    bool begun = lc_module_begin(m, lcpy_graph_of(r));
    PyObject *method = begin_visit(r, m, true, &v) < 0
                           ? NULL
                           : PyObject_GetAttrString(self, "_forward_with_hooks");
    PyObject *result = method ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    end_visit(&v);
    lc_module_end(begun, lcpy_graph_of(r));
    lc_module_release(m);
    if (lcpy_leave(r, result != NULL) < 0)
        Py_CLEAR(result);
    return result;
}

static PyObject *set_override(PyObject *self, PyObject *flag)
{
    lc_module *m = lcpy_module_of(self, "self");
    int on = m ? PyObject_IsTrue(flag) : -1;
    if (on < 0)
        return NULL;
    lc_module_set_override(m, on ? call_python : NULL);
    Py_RETURN_NONE;
}

static PyObject *set_training(PyObject *self, PyObject *flag)
{
    lc_module *m = lcpy_module_of(self, "self");
    int on = m ? PyObject_IsTrue(flag) : -1;
    if (on < 0)
        return NULL;
    lc_module_set_training(m, on != 0);
    Py_RETURN_NONE;
}

static PyObject *set_recompute(PyObject *self, PyObject *flag)
{
    lc_module *m = lcpy_module_of(self, "self");
    int on = m ? PyObject_IsTrue(flag) : -1;
    if (on < 0)
        return NULL;
    lc_module_set_recompute(m, on != 0);
    Py_RETURN_NONE;
}

static PyObject *get_recompute(PyObject *self, void *unused)
{
    (void)unused;
    lc_module *m = lcpy_module_of(self, "self");
    return m ? PyBool_FromLong(lc_module_recomputes(m)) : NULL;
}

static PyObject *reset(PyObject *self, PyObject *seed)
{
    lc_module *m = lcpy_module_of(self, "self");
    unsigned long long value = m ? PyLong_AsUnsignedLongLongMask(seed) : 0;
    if (!m || PyErr_Occurred())
        return NULL;
    if (lcpy_check(lc_module_init(m, value))) /* with the GIL: the tree must not change meanwhile */
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_training(PyObject *self, void *unused)
{
    (void)unused;
    lc_module *m = lcpy_module_of(self, "self");
    return m ? PyBool_FromLong(lc_module_is_training(m)) : NULL;
}

static PyObject *get_class_name(PyObject *self, void *unused)
{
    (void)unused;
    lc_module *m = lcpy_module_of(self, "self");
    return m ? PyUnicode_FromString(lc_module_class_of(m)->name) : NULL;
}

static PyObject *get_is_set_up(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((lcpy_module *)self)->module != NULL);
}

static PyObject *get_id(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(((lcpy_module *)self)->module);
}

/* --- type */

static int module_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((lcpy_module *)self)->children);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int module_clear(PyObject *self)
{
    Py_CLEAR(((lcpy_module *)self)->children);
    return 0;
}

static void module_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    lcpy_module *m = (lcpy_module *)self;
    PyObject_GC_UnTrack(self);
    if (m->module) {
        lc_module_set_peer(m->module, NULL);
        lc_module_set_override(m->module, NULL);
        lc_module_release(m->module);
        m->module = NULL;
    }
    module_clear(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *module_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

static PyMethodDef module_methods[] = {
    {"_init_python", init_python, METH_NOARGS, "Sets up a module written in Python."},
    {"_get", get_entry, METH_O, "The parameter, buffer or child of that name; KeyError."},
    {"_entries", entries, METH_NOARGS,
     "[(name, 'param' | 'buffer' | 'child', object or None, persistent)] in order."},
    {"_set_param", set_param, METH_VARARGS,
     "_set_param(name, tensor or None, buffer=False, persistent=True)"},
    {"_set_child", set_child, METH_VARARGS, "_set_child(name, module or None)"},
    {"_remove", remove_entry, METH_O, "Removes the entry of that name."},
    {"_call_native", call_native, METH_VARARGS,
     "Records or runs the C class of this module alone."},
    {"_call_recorded", (PyCFunction)(void (*)(void))call_recorded, METH_VARARGS | METH_KEYWORDS,
     "Calls self._forward_with_hooks(...) inside of a recording; the outermost call runs it."},
    {"_set_override", set_override, METH_O, "Whether C parents call this module through Python."},
    {"_set_training", set_training, METH_O, "Sets the training flag of this module alone."},
    {"_set_recompute", set_recompute, METH_O, "Sets the recompute flag of this module alone."},
    {"_reset", reset, METH_O, "Initial values for all parameters of the tree, from a seed."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef module_getset[] = {
    {"training", get_training, NULL, "Whether the module is in training mode.", NULL},
    {"recompute", get_recompute, NULL, "Whether backward computes the module again.", NULL},
    {"_class_name", get_class_name, NULL, "Name of the C class.", NULL},
    {"_is_set_up", get_is_set_up, NULL, "Whether __init__ has run.", NULL},
    {"_id", get_id, NULL, "Identity of the C module.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject *lcpy_module_type(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_new, (void *)module_new},
        {Py_tp_dealloc, (void *)module_dealloc},
        {Py_tp_traverse, (void *)module_traverse},
        {Py_tp_clear, (void *)module_clear},
        {Py_tp_methods, module_methods},
        {Py_tp_getset, module_getset},
        {0, NULL},
    };
    static PyType_Spec spec = {"lucid_c._core.Module", sizeof(lcpy_module), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               slots};
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}
