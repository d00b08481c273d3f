/* Recordings: one per thread at a time, discarded on any exception that leaves the outermost call.
 */
#include "base/mem.h"
#include "binding/core.h"
#include "nn/layer_util.h"

struct lcpy_recording {
    lc_graph *graph;
    int depth;
    int keep_grads;
    lc_module *host;    /* whose forward in Python is at work */
    lcpy_tensor *first; /* tensors that have a number in it */
    PyObject *arrays;   /* dict: value -> array whose memory the graph points to */
    PyObject *edges;    /* dict: value -> where its gradient goes */
};

static _Thread_local lcpy_recording *current;
static _Thread_local lcpy_grad_mode grad_mode;
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
    r->keep_grads = grad_mode == LCPY_GRAD_ON;
    r->first = NULL;
    r->host = NULL;
    r->arrays = PyDict_New();
    r->edges = NULL;
    if (!r->arrays || lcpy_check(lc_graph_create(&r->graph))) {
        Py_XDECREF(r->arrays);
        lc_free(r);
        return NULL;
    }
    lc_graph_set_grad(r->graph, grad_mode != LCPY_GRAD_OFF);
    current = r;
    return r;
}

lcpy_grad_mode lcpy_grad_get(void)
{
    return grad_mode;
}

void lcpy_grad_set(lcpy_grad_mode mode)
{
    grad_mode = mode;
    if (!current)
        return;
    lc_graph_set_grad(current->graph, mode != LCPY_GRAD_OFF);
    current->keep_grads |= mode == LCPY_GRAD_ON;
}

void lcpy_keep_grads(lcpy_recording *r)
{
    r->keep_grads |= grad_mode != LCPY_GRAD_OFF;
}

int lcpy_keeps_grads(const lcpy_recording *r)
{
    return r ? r->keep_grads || lc_graph_is_training(r->graph) : grad_mode != LCPY_GRAD_OFF;
}

/* dict[v] = item */
static int put(PyObject *dict, lc_value v, PyObject *item)
{
    PyObject *key = PyLong_FromLong(v);
    int status = key ? PyDict_SetItem(dict, key, item) : -1;
    Py_XDECREF(key);
    return status;
}

int lcpy_require_grad(lcpy_recording *r, lc_value v, PyObject *edge)
{
    if (!r->edges && !(r->edges = PyDict_New()))
        return -1;
    return lcpy_check(lc_graph_require_grad(r->graph, v)) || put(r->edges, v, edge) ? -1 : 0;
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
static bool signals_pending(void *ctx)
{
    lcpy_unlocked *u = ctx;
    PyEval_RestoreThread(u->thread);
    bool stop = PyErr_CheckSignals() != 0;
    u->thread = PyEval_SaveThread();
    return stop;
}

/* Python code may run meanwhile on this thread (signal handlers): what it computes is none of this
 * recording's business. */
void lcpy_unlock(lcpy_unlocked *u)
{
    u->profile = profile;
    profile = NULL;
    u->outer = lcpy_suspend();
    u->options = (lc_run_options){lcpy_on_main_thread() ? signals_pending : NULL, u, u->profile};
    u->thread = PyEval_SaveThread();
}

void lcpy_relock(lcpy_unlocked *u)
{
    PyEval_RestoreThread(u->thread);
    lcpy_resume(u->outer);
    profile = u->profile;
}

/* *tape is NULL where nothing is kept. */
static lc_status run_without_gil(lcpy_recording *r, int n, const lc_value *values,
                                 void *const *data, lc_tape **tape)
{
    lcpy_unlocked u;
    bool kept = lcpy_keeps_grads(r);
    *tape = NULL;
    lcpy_unlock(&u);
    lc_status status = kept ? lc_graph_run_kept(r->graph, n, values, data, &u.options, tape)
                            : lc_graph_run(r->graph, n, values, data, &u.options);
    lcpy_relock(&u);
    return status;
}

/* A tensor whose contents are wanted, and the array that they go to; strong references while the
 * GIL is away. */
typedef struct wanted {
    lcpy_tensor *tensor;
    PyObject *array;
} wanted;

/* Nobody else can write to it: it has its memory to itself, and gave up the right. */
static int is_private(PyArrayObject *array)
{
    return !PyArray_ISWRITEABLE(array) && !PyArray_BASE(array);
}

static PyArrayObject *private_copy_of(PyArrayObject *array)
{
    PyArrayObject *copy = (PyArrayObject *)PyArray_NewCopy(array, NPY_CORDER);
    if (copy)
        PyArray_CLEARFLAGS(copy, NPY_ARRAY_WRITEABLE);
    return copy;
}

/* Value v becomes an input with the contents of `array`: a copy, since the array is in Python's
 * hands from now on. */
static int settle_value(lcpy_recording *r, lc_value v, PyObject *array)
{
    PyArrayObject *copy = private_copy_of((PyArrayObject *)array);
    int status = !copy || put(r->arrays, v, (PyObject *)copy) < 0 ||
                         lcpy_check(lc_graph_settle(r->graph, v, PyArray_DATA(copy)))
                     ? -1
                     : 0;
    Py_XDECREF((PyObject *)copy);
    return status;
}

/* The arrays that backward reads, each one nobody else can change; the tape points to them from
 * now on. New reference: a list. */
static PyObject *arrays_of_tape(lcpy_recording *r, lc_tape *tape)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < lc_tape_input_count(tape); i++) {
        const void **data;
        PyObject *key = PyLong_FromLong(lc_tape_input_at(tape, i, &data));
        PyObject *array = key ? PyDict_GetItemWithError(r->arrays, key) : NULL;
        Py_XDECREF(key);
        if (!array) { /* a constant, whose memory is the core's */
            if (PyErr_Occurred())
                Py_CLEAR(list);
            continue;
        }
        PyArrayObject *own = is_private((PyArrayObject *)array)
                                 ? (PyArrayObject *)Py_NewRef(array)
                                 : private_copy_of((PyArrayObject *)array);
        if (!own || PyList_Append(list, (PyObject *)own) < 0)
            Py_CLEAR(list);
        else
            *data = PyArray_DATA(own);
        Py_XDECREF((PyObject *)own);
    }
    return list;
}

/* Where the gradients of the tape's leaves go: parameters, and what tensors came in with; for
 * outputs, their number. */
static PyObject *edges_of_tape(lcpy_recording *r, const lc_tape *tape)
{
    int n = lc_tape_leaf_count(tape);
    PyObject *edges = PyTuple_New(n);
    for (int i = 0; edges && i < n; i++) {
        lc_tape_leaf leaf = lc_tape_leaf_at(tape, i);
        PyObject *edge = NULL;
        if (leaf.param) {
            edge = lcpy_tensor_from_param(leaf.param, 0);
        } else if (leaf.output >= 0) {
            edge = PyLong_FromLong(leaf.output);
        } else {
            PyObject *key = PyLong_FromLong(leaf.input);
            edge = key && r->edges ? Py_XNewRef(PyDict_GetItemWithError(r->edges, key)) : NULL;
            Py_XDECREF(key);
            if (!edge && !PyErr_Occurred())
                PyErr_SetString(PyExc_SystemError, "an input that nobody wants the gradient of");
        }
        if (!edge || PyTuple_SetItem(edges, i, edge) < 0)
            Py_CLEAR(edges);
    }
    return edges;
}

/* A segment for a tape (taken, also on failure). */
static PyObject *segment_of(lcpy_recording *r, lc_tape *tape)
{
    PyObject *arrays = arrays_of_tape(r, tape), *edges = arrays ? edges_of_tape(r, tape) : NULL;
    if (!edges) {
        Py_XDECREF(arrays);
        lc_tape_release(tape);
        return NULL;
    }
    return lcpy_segment_new(tape, edges, arrays);
}

/* Tensor t has been computed as output i of a segment. `go_on`: value v stands for it in what is
 * recorded from now on. */
static int give_history(lcpy_recording *r, lcpy_tensor *t, PyObject *segment, int i, int go_on,
                        lc_value v)
{
    if (!t->node) {
        t->node = Py_NewRef(segment);
        t->out = i;
    }
    if (!go_on)
        return 0;
    PyObject *edge = Py_BuildValue("(Oi)", segment, i);
    int status = edge ? lcpy_require_grad(r, v, edge) : -1;
    Py_XDECREF(edge);
    return status;
}

/* Computes every living tensor that has no contents yet. `go_on`: they become inputs of what is
 * recorded from now on. */
static int flush(lcpy_recording *r, int go_on)
{
    int n = 0, result = -1;
    for (lcpy_tensor *t = r->first; t; t = t->next)
        n += t->array == NULL;
    if (n == 0 && !lc_graph_has_effects(r->graph))
        return 0;
    PyObject *segment = NULL;
    lc_tape *tape = NULL;
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
    if (lcpy_check(run_without_gil(r, n, values, data, &tape)))
        goto done;
    if (tape && !(segment = segment_of(r, lc_tape_retain(tape))))
        goto done;
    for (i = 0; i < n; i++) {
        if (go_on && settle_value(r, values[i], w[i].array))
            goto done;
        if (w[i].tensor->array)
            continue;
        w[i].tensor->array = Py_NewRef(w[i].array);
        if (segment && lc_tape_reaches(tape, i) &&
            give_history(r, w[i].tensor, segment, i, go_on, values[i]))
            goto done;
    }
    result = 0;
done:
    lc_tape_release(tape);
    Py_XDECREF(segment);
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
    Py_DECREF(r->arrays);
    Py_CLEAR(r->edges);
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

/* A tensor that requires gradients stands for input v. */
static int track(lcpy_recording *r, lcpy_tensor *t, lc_value v)
{
    if (!t->node && !t->requires_grad)
        return 0;
    PyObject *edge = lcpy_edge_of(t);
    int status = edge ? lcpy_require_grad(r, v, edge) : -1;
    Py_XDECREF(edge);
    lcpy_keep_grads(r);
    return status;
}

static lc_value value_of(lcpy_recording *r, PyObject *obj, int private_copy, const char *what,
                         PyArrayObject *(*convert)(PyObject *, const char *))
{
    lcpy_tensor *t = lcpy_is_tensor(obj) ? (lcpy_tensor *)obj : NULL;
    lc_value v = LC_NONE;
    if (t && t->recording == r && r) {
        if (t->node || t->requires_grad)
            lcpy_keep_grads(r);
        return t->value;
    }
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
    PyArrayObject *array = convert(source, what);
    if (!array)
        return LC_NONE;
    if (private_copy && (PyObject *)array == source && !is_private(array)) {
        PyArrayObject *copy = private_copy_of(array);
        Py_DECREF(array);
        array = copy;
        if (!array)
            return LC_NONE;
    }
    lc_desc desc;
    if (lcpy_desc_of(array, &desc) == 0 &&
        lcpy_check(lc_graph_input(r->graph, &desc, PyArray_DATA(array), &v)) == 0 &&
        put(r->arrays, v, (PyObject *)array) == 0 && (!t || t->param || track(r, t, v) == 0)) {
        if (t && !t->recording && !t->param)
            link_tensor(r, t, v);
    } else {
        v = LC_NONE;
    }
    Py_DECREF(array);
    return v;
}

lc_value lcpy_value_of(lcpy_recording *r, PyObject *obj, int private_copy, const char *what)
{
    return value_of(r, obj, private_copy, what, lcpy_float_array);
}

lc_value lcpy_argument(lcpy_recording *r, PyObject *obj, const char *what, int integers)
{
    lc_value v =
        value_of(r, obj, r->depth > 1, what, integers ? lcpy_number_array : lcpy_float_array);
    const lcpy_tensor *t = lcpy_is_tensor(obj) ? (lcpy_tensor *)obj : NULL;
    if (v != LC_NONE && r->depth == 1 && t && t->param && lc_param_requires_grad(t->param))
        lcpy_keep_grads(r); /* a parameter that is used outside of modules */
    return v;
}

PyObject *lcpy_apply_as(const lc_op *op, const void *attr, int n, PyObject *const *inputs,
                        const char *const *names, bool integers, const double *share)
{
    lc_value local[16], *in = local, out[LC_MAX_OUT];
    PyObject *result = NULL;
    lcpy_recording *r = lcpy_enter();
    if (!r)
        return NULL;
    if (n > 15 && !(in = lc_alloc((size_t)(n + 1) * sizeof *in))) {
        lcpy_raise(LC_ERR_MEMORY);
        goto done;
    }
    for (int i = 0; i < n; i++) {
        in[i] = lcpy_argument(r, inputs[i], names ? names[i] : "every input", i == 1 && integers);
        if (in[i] == LC_NONE)
            goto done;
    }
    if (share && lcpy_check(lc_layer_draw(r->graph, *share, &in[n++])))
        goto done;
    if (lcpy_check(lc_graph_append(r->graph, op, attr, n, in, out)) == 0)
        result = lcpy_tensor_from_value(r, out[0]);
done:
    if (in != local)
        lc_free(in);
    if (lcpy_leave(r, result != NULL) < 0)
        Py_CLEAR(result);
    return result;
}

PyObject *lcpy_apply(const lc_op *op, const void *attr, int n, PyObject *const *inputs,
                     const char *const *names)
{
    return lcpy_apply_as(op, attr, n, inputs, names, false, NULL);
}
