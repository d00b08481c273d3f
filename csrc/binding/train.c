/* Optimizer steps, gradients of many parameters, averages. The GIL stays held: a step is a few
 * milliseconds, and meanwhile nobody may begin to read the parameters that it changes in place. */
#include "base/mem.h"
#include "binding/core.h"
#include "train/optim.h"

/* The parameter behind a tensor (borrowed); NULL for None if that is allowed, and on failure, with
 * an exception set. */
static lc_param *param_of(PyObject *obj, int optional)
{
    if (optional && obj == Py_None)
        return NULL;
    if (lcpy_is_tensor(obj) && ((lcpy_tensor *)obj)->param)
        return ((lcpy_tensor *)obj)->param;
    PyErr_Format(PyExc_TypeError, "a parameter or buffer is expected, not %R",
                 (PyObject *)Py_TYPE(obj));
    return NULL;
}

/* The arguments (rows, groups) of a step, as arrays: a row of C per row of Python. */
typedef struct step_args {
    PyObject *rows, *groups; /* tuples */
    Py_ssize_t n, n_groups;
    void *row, *group;
} step_args;

static void free_args(step_args *a)
{
    Py_XDECREF(a->rows);
    Py_XDECREF(a->groups);
    lc_free(a->row);
    lc_free(a->group);
}

static int get_args(PyObject *args, size_t row_size, size_t group_size, step_args *out)
{
    PyObject *rows, *groups;
    if (!PyArg_ParseTuple(args, "OO:step", &rows, &groups))
        return -1;
    out->rows = PySequence_Tuple(rows);
    out->groups = out->rows ? PySequence_Tuple(groups) : NULL;
    if (!out->groups)
        return -1;
    out->n = PyTuple_Size(out->rows);
    out->n_groups = PyTuple_Size(out->groups);
    out->row = lc_alloc_zero((size_t)out->n * row_size);
    out->group = lc_alloc_zero((size_t)out->n_groups * group_size);
    if (!out->row || !out->group) {
        lcpy_raise(LC_ERR_MEMORY);
        return -1;
    }
    return 0;
}

/* Item i of a tuple, which has to be a tuple itself (borrowed). */
static PyObject *tuple_at(PyObject *tuple, Py_ssize_t i)
{
    PyObject *item = PyTuple_GetItem(tuple, i);
    if (item && !PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a tuple is expected");
        return NULL;
    }
    return item;
}

/* Parses row i: a group number, a step number, a parameter, and `states` tensors that may be None
 * from the `needed`-th on. Returns the group number, or -1. */
static int get_row(const step_args *a, Py_ssize_t i, lc_param **param, int64_t *step, int states,
                   int needed, lc_param **state)
{
    PyObject *row = tuple_at(a->rows, i), *p, *s[3] = {Py_None, Py_None, Py_None};
    int group;
    long long number;
    if (!row || !PyArg_ParseTuple(row, "iLOO|OO:row", &group, &number, &p, &s[0], &s[1], &s[2]) ||
        !(*param = param_of(p, 0)))
        return -1;
    for (int k = 0; k < states; k++)
        if (!(state[k] = param_of(s[k], k >= needed)) && PyErr_Occurred())
            return -1;
    if (group < 0 || group >= a->n_groups || number < 1) {
        PyErr_SetString(PyExc_ValueError, "a row names a group or a step that there is not");
        return -1;
    }
    *step = number;
    return group;
}

static PyObject *done(step_args *a, int failed, lc_status (*run)(int, const void *))
{
    if (!failed)
        failed = lcpy_check(run((int)a->n, a->row));
    free_args(a);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static lc_status run_sgd(int n, const void *rows)
{
    return lc_sgd_step(n, rows);
}

static PyObject *sgd_step(PyObject *module, PyObject *args)
{
    (void)module;
    step_args a = {0};
    int failed = get_args(args, sizeof(lc_sgd_row), sizeof(lc_sgd_options), &a);
    lc_sgd_options *o = a.group;
    lc_sgd_row *row = a.row;
    for (Py_ssize_t i = 0; !failed && i < a.n_groups; i++) {
        PyObject *t = tuple_at(a.groups, i);
        int nesterov, maximize;
        failed = !t || !PyArg_ParseTuple(t, "ddddpp:group", &o[i].lr, &o[i].momentum,
                                         &o[i].dampening, &o[i].weight_decay, &nesterov, &maximize);
        if (!failed) {
            o[i].nesterov = nesterov != 0;
            o[i].maximize = maximize != 0;
        }
    }
    for (Py_ssize_t i = 0; !failed && i < a.n; i++) {
        int64_t step;
        int group = get_row(&a, i, &row[i].param, &step, 1, 0, &row[i].momentum);
        failed = group < 0;
        row[i].options = failed ? NULL : &o[group];
    }
    return done(&a, failed, run_sgd);
}

static lc_status run_adam(int n, const void *rows)
{
    return lc_adam_step(n, rows);
}

static PyObject *adam_step(PyObject *module, PyObject *args)
{
    (void)module;
    step_args a = {0};
    int failed = get_args(args, sizeof(lc_adam_row), sizeof(lc_adam_options), &a);
    lc_adam_options *o = a.group;
    lc_adam_row *row = a.row;
    for (Py_ssize_t i = 0; !failed && i < a.n_groups; i++) {
        PyObject *t = tuple_at(a.groups, i);
        int decoupled, maximize;
        failed = !t || !PyArg_ParseTuple(t, "dddddpp:group", &o[i].lr, &o[i].beta1, &o[i].beta2,
                                         &o[i].eps, &o[i].weight_decay, &decoupled, &maximize);
        if (!failed) {
            o[i].decoupled = decoupled != 0;
            o[i].maximize = maximize != 0;
        }
    }
    for (Py_ssize_t i = 0; !failed && i < a.n; i++) {
        lc_param *state[3];
        int group = get_row(&a, i, &row[i].param, &row[i].step, 3, 2, state);
        failed = group < 0;
        if (!failed) {
            row[i].first = state[0];
            row[i].second = state[1];
            row[i].largest = state[2];
            row[i].options = &o[group];
        }
    }
    return done(&a, failed, run_adam);
}

static lc_status run_lamb(int n, const void *rows)
{
    return lc_lamb_step(n, rows);
}

static PyObject *lamb_step(PyObject *module, PyObject *args)
{
    (void)module;
    step_args a = {0};
    int failed = get_args(args, sizeof(lc_lamb_row), sizeof(lc_lamb_options), &a);
    lc_lamb_options *o = a.group;
    lc_lamb_row *row = a.row;
    for (Py_ssize_t i = 0; !failed && i < a.n_groups; i++) {
        PyObject *t = tuple_at(a.groups, i);
        int bias, always, maximize;
        failed = !t || !PyArg_ParseTuple(t, "dddddppp:group", &o[i].lr, &o[i].beta1, &o[i].beta2,
                                         &o[i].eps, &o[i].weight_decay, &bias, &always, &maximize);
        if (!failed) {
            o[i].bias_correction = bias != 0;
            o[i].always_adapt = always != 0;
            o[i].maximize = maximize != 0;
        }
    }
    for (Py_ssize_t i = 0; !failed && i < a.n; i++) {
        lc_param *state[2];
        int group = get_row(&a, i, &row[i].param, &row[i].step, 2, 2, state);
        failed = group < 0;
        if (!failed) {
            row[i].first = state[0];
            row[i].second = state[1];
            row[i].options = &o[group];
        }
    }
    return done(&a, failed, run_lamb);
}

static lc_status run_lars(int n, const void *rows)
{
    return lc_lars_step(n, rows);
}

static PyObject *lars_step(PyObject *module, PyObject *args)
{
    (void)module;
    step_args a = {0};
    int failed = get_args(args, sizeof(lc_lars_row), sizeof(lc_lars_options), &a);
    lc_lars_options *o = a.group;
    lc_lars_row *row = a.row;
    for (Py_ssize_t i = 0; !failed && i < a.n_groups; i++) {
        PyObject *t = tuple_at(a.groups, i);
        int always, maximize;
        failed = !t ||
                 !PyArg_ParseTuple(t, "dddddpp:group", &o[i].lr, &o[i].momentum, &o[i].weight_decay,
                                   &o[i].trust_coeff, &o[i].eps, &always, &maximize);
        if (!failed) {
            o[i].always_adapt = always != 0;
            o[i].maximize = maximize != 0;
        }
    }
    for (Py_ssize_t i = 0; !failed && i < a.n; i++) {
        int64_t step;
        int group = get_row(&a, i, &row[i].param, &step, 1, 0, &row[i].momentum);
        failed = group < 0;
        row[i].options = failed ? NULL : &o[group];
    }
    return done(&a, failed, run_lars);
}

/* --- lists of parameters */

/* An array of the parameters in a sequence, borrowed from the tuple *keep; NULL with an exception.
 */
static lc_param **param_list(PyObject *obj, PyObject **keep, int *n)
{
    *keep = PySequence_Tuple(obj);
    if (!*keep)
        return NULL;
    *n = (int)PyTuple_Size(*keep);
    lc_param **list = lc_alloc((size_t)*n * sizeof *list);
    if (!list)
        lcpy_raise(LC_ERR_MEMORY);
    for (int i = 0; list && i < *n; i++)
        if (!(list[i] = param_of(PyTuple_GetItem(*keep, i), 0))) {
            lc_free(list);
            list = NULL;
        }
    if (!list)
        Py_CLEAR(*keep);
    return list;
}

static PyObject *grads_norm(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *keep;
    int n;
    double norm;
    lc_param **list = param_list(arg, &keep, &n);
    if (!list)
        return NULL;
    int failed = lcpy_check(lc_grads_norm(n, list, &norm));
    lc_free(list);
    Py_DECREF(keep);
    return failed ? NULL : PyFloat_FromDouble(norm);
}

static PyObject *change_grads(PyObject *args, lc_status (*change)(int, lc_param *const *, double))
{
    PyObject *params, *keep;
    int n;
    double number;
    if (!PyArg_ParseTuple(args, "Od:change_grads", &params, &number))
        return NULL;
    lc_param **list = param_list(params, &keep, &n);
    if (!list)
        return NULL;
    int failed = lcpy_check(change(n, list, number));
    lc_free(list);
    Py_DECREF(keep);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *grads_scale(PyObject *module, PyObject *args)
{
    (void)module;
    return change_grads(args, lc_grads_scale);
}

static PyObject *grads_clamp(PyObject *module, PyObject *args)
{
    (void)module;
    return change_grads(args, lc_grads_clamp);
}

static PyObject *average(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *to, *from, *keep_to, *keep_from;
    int n = 0, m = 0, failed = 1;
    double weight;
    if (!PyArg_ParseTuple(args, "OOd:average", &to, &from, &weight))
        return NULL;
    lc_param **a = param_list(to, &keep_to, &n), **b = a ? param_list(from, &keep_from, &m) : NULL;
    if (b && n != m)
        PyErr_SetString(PyExc_ValueError, "two lists of one length are expected");
    else if (b)
        failed = lcpy_check(lc_average_update(n, a, b, weight));
    if (b)
        Py_DECREF(keep_from);
    if (a)
        Py_DECREF(keep_to);
    lc_free(a);
    lc_free(b);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *new_like(PyObject *module, PyObject *obj)
{
    (void)module;
    lc_param *like = param_of(obj, 0), *p;
    if (!like)
        return NULL;
    const lc_desc *d = lc_param_desc(like);
    if (lcpy_check(lc_param_create(d->dtype, d->rank, d->dim, &p)))
        return NULL;
    lc_param_set_requires_grad(p, false);
    PyObject *tensor = lcpy_tensor_from_param(p, 1);
    lc_param_release(p);
    return tensor;
}

static PyObject *has_grad(PyObject *module, PyObject *obj)
{
    (void)module;
    lc_param *p = param_of(obj, 0);
    if (!p)
        return NULL;
    lc_storage *grad = lc_param_grad(p);
    lc_storage_release(grad);
    return PyBool_FromLong(grad != NULL);
}

PyMethodDef lcpy_train_methods[] = {
    {"sgd_step", sgd_step, METH_VARARGS,
     "sgd_step([(group, 1, param, momentum or None)], [(lr, momentum, dampening, weight_decay, "
     "nesterov, maximize)])"},
    {"adam_step", adam_step, METH_VARARGS,
     "adam_step([(group, step, param, first, second, largest or None)], [(lr, beta1, beta2, eps, "
     "weight_decay, decoupled, maximize)])"},
    {"lamb_step", lamb_step, METH_VARARGS,
     "lamb_step([(group, step, param, first, second)], [(lr, beta1, beta2, eps, weight_decay, "
     "bias_correction, always_adapt, maximize)])"},
    {"lars_step", lars_step, METH_VARARGS,
     "lars_step([(group, 1, param, momentum or None)], [(lr, momentum, weight_decay, trust_coeff, "
     "eps, always_adapt, maximize)])"},
    {"grads_norm", grads_norm, METH_O, "The 2-norm of the gradients of all these parameters."},
    {"grads_scale", grads_scale, METH_VARARGS, "grads_scale(params, factor)"},
    {"grads_clamp", grads_clamp, METH_VARARGS, "grads_clamp(params, limit)"},
    {"average", average, METH_VARARGS,
     "average(to, from, weight): to += (from - to) * weight; a weight of 1 shares the memory."},
    {"new_like", new_like, METH_O, "A buffer of the parameter's shape, not set yet (zeros)."},
    {"has_grad", has_grad, METH_O, "Whether the parameter has a gradient."},
    {NULL, NULL, 0, NULL},
};
