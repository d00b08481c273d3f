/* Recordings: one per thread at a time, discarded on any exception that leaves the outermost call.
 */
#include "base/mem.h"
#include "binding/core.h"

struct lcpy_recording {
    lc_graph *graph;
    int depth;
    lc_module *host;    /* whose forward in Python is at work */
    lcpy_tensor *first; /* tensors that have a number in it */
    PyObject *keep;     /* list: arrays whose memory the graph points to */
};

static _Thread_local lcpy_recording *current;
static _Thread_local lc_profile *profile; /* where this thread's runs are described, or NULL */

lcpy_recording *lcpy_current(void)
{
    return current;
}

lc_graph *lcpy_graph_of(lcpy_recording *r)
{
    return r->graph;
}

/* One is kept for the next call, so that a repeated call allocates nothing. Guarded by the GIL. */
static lcpy_recording *spare;

lcpy_recording *lcpy_enter(void)
{
    if (current) {
        current->depth++;
        return current;
    }
    lcpy_recording *r = spare;
    spare = NULL;
    if (!r && !(r = lc_alloc_zero(sizeof *r))) {
        lcpy_raise(LC_ERR_MEMORY);
        return NULL;
    }
    r->depth = 1;
    r->first = NULL;
    r->host = NULL;
    r->keep = PyList_New(0);
    if (!r->keep || lcpy_check(lc_graph_create(&r->graph))) {
        Py_XDECREF(r->keep);
        lc_free(r);
        return NULL;
    }
    current = r;
    return r;
}

lcpy_recording *lcpy_suspend(void)
{
    lcpy_recording *r = current;
    current = NULL;
    return r;
}

void lcpy_resume(lcpy_recording *r)
{
    current = r;
}

int lcpy_is_nested(const lcpy_recording *r)
{
    return r->depth > 1;
}

lc_module *lcpy_set_host(lcpy_recording *r, lc_module *m)
{
    lc_module *before = r->host;
    r->host = m;
    return before;
}

static void link_tensor(lcpy_recording *r, lcpy_tensor *t, lc_value v)
{
    t->recording = r;
    t->value = v;
    t->prev = NULL;
    t->next = r->first;
    if (r->first)
        r->first->prev = t;
    r->first = t;
}

void lcpy_unlink(lcpy_tensor *t)
{
    if (!t->recording)
        return;
    if (t->prev)
        t->prev->next = t->next;
    else
        t->recording->first = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->prev = t->next = NULL;
    t->recording = NULL;
}

PyObject *lcpy_tensor_from_value(lcpy_recording *r, lc_value v)
{
    lcpy_tensor *t = (lcpy_tensor *)lcpy_tensor_from_array(NULL);
    if (t)
        link_tensor(r, t, v);
    return (PyObject *)t;
}

/* The graph runs without the GIL; a signal that arrives meanwhile is looked at by taking it back
 * for a moment. */
typedef struct running {
    PyThreadState *thread;
} running;

static bool signals_pending(void *ctx)
{
    running *run = ctx;
    PyEval_RestoreThread(run->thread);
    bool stop = PyErr_CheckSignals() != 0;
    run->thread = PyEval_SaveThread();
    return stop;
}

/* Python code may run meanwhile on this thread (signal handlers): what it computes is none of this
 * recording's business. */
static lc_status run_without_gil(lc_graph *g, int n, const lc_value *values, void *const *data)
{
    lc_profile *described = profile;
    profile = NULL;
    lcpy_recording *outer = lcpy_suspend();
    running run = {NULL};
    lc_run_options options = {lcpy_on_main_thread() ? signals_pending : NULL, &run, described};
    run.thread = PyEval_SaveThread();
    lc_status status = lc_graph_run(g, n, values, data, &options);
    PyEval_RestoreThread(run.thread);
    lcpy_resume(outer);
    profile = described;
    return status;
}

/* A tensor whose contents are wanted, and the array that they go to; strong references while the
 * GIL is away. */
typedef struct wanted {
    lcpy_tensor *tensor;
    PyObject *array;
} wanted;

/* Value v becomes an input with the contents of `array`: a copy, since the array is in Python's
 * hands from now on. */
static int settle_value(lcpy_recording *r, lc_value v, PyObject *array)
{
    PyArrayObject *copy = (PyArrayObject *)PyArray_NewCopy((PyArrayObject *)array, NPY_CORDER);
    int status = !copy || PyList_Append(r->keep, (PyObject *)copy) < 0 ||
                         lcpy_check(lc_graph_settle(r->graph, v, PyArray_DATA(copy)))
                     ? -1
                     : 0;
    Py_XDECREF((PyObject *)copy);
    return status;
}

/* Computes every living tensor that has no contents yet. `go_on`: they become inputs of what is
 * recorded from now on. */
static int flush(lcpy_recording *r, int go_on)
{
    int n = 0, result = -1;
    for (lcpy_tensor *t = r->first; t; t = t->next)
        n += t->array == NULL;
    if (n == 0)
        return 0;
    wanted local[8], *w = local;
    lc_value local_values[8], *values = local_values;
    void *local_data[8], **data = local_data;
    if (n > 8) {
        w = lc_alloc((size_t)n * (sizeof *w + sizeof *data + sizeof *values));
        if (!w) {
            lcpy_raise(LC_ERR_MEMORY);
            return -1;
        }
        data = (void **)(w + n);
        values = (lc_value *)(data + n);
    }
    int i = 0;
    for (lcpy_tensor *t = r->first; t; t = t->next)
        if (!t->array) {
            w[i] = (wanted){(lcpy_tensor *)Py_NewRef((PyObject *)t), NULL};
            values[i++] = t->value;
        }
    for (i = 0; i < n; i++) {
        w[i].array = (PyObject *)lcpy_new_array(lc_graph_desc(r->graph, values[i]));
        if (!w[i].array)
            goto done;
        data[i] = PyArray_DATA((PyArrayObject *)w[i].array);
    }
    if (lcpy_check(run_without_gil(r->graph, n, values, data)))
        goto done;
    for (i = 0; i < n; i++) {
        if (go_on && settle_value(r, values[i], w[i].array))
            goto done;
        if (!w[i].tensor->array)
            w[i].tensor->array = Py_NewRef(w[i].array);
    }
    result = 0;
done:
    for (i = 0; i < n; i++) {
        Py_XDECREF(w[i].array);
        Py_DECREF((PyObject *)w[i].tensor);
    }
    if (w != local)
        lc_free(w);
    return result;
}

int lcpy_settle(lcpy_recording *r)
{
    return flush(r, 1);
}

int lcpy_leave(lcpy_recording *r, int ok)
{
    if (--r->depth > 0)
        return ok ? 0 : -1;
    int result = ok ? flush(r, 0) : -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (r->first) {
        r->first->lost = r->first->array == NULL && r->first->param == NULL;
        lcpy_unlink(r->first);
    }
    current = NULL;
    lc_graph_destroy(r->graph);
    Py_DECREF(r->keep);
    if (!spare)
        spare = r;
    else
        lc_free(r);
    PyErr_Restore(type, value, traceback);
    return result;
}

lc_profile *lcpy_profile_runs(lc_profile *into)
{
    lc_profile *before = profile;
    profile = into;
    return before;
}

lc_value lcpy_value_of(lcpy_recording *r, PyObject *obj, int private_copy, const char *what)
{
    lcpy_tensor *t = lcpy_is_tensor(obj) ? (lcpy_tensor *)obj : NULL;
    lc_value v = LC_NONE;
    if (t && t->recording == r && r)
        return t->value;
    if (t && !t->array && !t->param) {
        PyErr_SetString(
            PyExc_RuntimeError,
            t->lost
                ? "this tensor was recorded by a call that failed; it has no value"
                : "this tensor is being recorded by another thread's call; it has no value yet");
        return LC_NONE;
    }
    if (t && t->param && lc_param_desc(t->param)->dtype == LC_F32) {
        if (lcpy_check(lc_graph_param(r->graph, t->param, &v)))
            return LC_NONE;
        return v; /* parameters are found by the graph: no link needed */
    }
    PyObject *source = t && t->array ? t->array : obj;
    PyArrayObject *array = lcpy_float_array(source, what);
    if (!array)
        return LC_NONE;
    if (private_copy && (PyObject *)array == source &&
        (PyArray_ISWRITEABLE(array) || PyArray_BASE(array))) {
        PyArrayObject *copy = (PyArrayObject *)PyArray_NewCopy(array, NPY_CORDER);
        Py_DECREF(array);
        array = copy;
        if (!array)
            return LC_NONE;
    }
    lc_desc desc;
    if (lcpy_desc_of(array, &desc) == 0 && PyList_Append(r->keep, (PyObject *)array) == 0 &&
        lcpy_check(lc_graph_input(r->graph, &desc, PyArray_DATA(array), &v)) == 0) {
        if (t && !t->recording && !t->param)
            link_tensor(r, t, v);
    } else {
        v = LC_NONE;
    }
    Py_DECREF(array);
    return v;
}

PyObject *lcpy_apply(const lc_op *op, const void *attr, int n, PyObject *const *inputs,
                     const char *const *names)
{
    lc_value local[16], *in = local, out[LC_MAX_OUT];
    PyObject *result = NULL;
    lcpy_recording *r = lcpy_enter();
    if (!r)
        return NULL;
    if (n > 16 && !(in = lc_alloc((size_t)n * sizeof *in))) {
        lcpy_raise(LC_ERR_MEMORY);
        goto done;
    }
    for (int i = 0; i < n; i++) {
        in[i] = lcpy_value_of(r, inputs[i], r->depth > 1, names ? names[i] : "every input");
        if (in[i] == LC_NONE)
            goto done;
    }
    if (lcpy_check(lc_graph_append(r->graph, op, attr, n, in, out)) == 0)
        result = lcpy_tensor_from_value(r, out[0]);
done:
    if (in != local)
        lc_free(in);
    if (lcpy_leave(r, result != NULL) < 0)
        Py_CLEAR(result);
    return result;
}
