/* Settings, statistics, parameters' contents and random numbers. */
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/threads.h"
#include "binding/core.h"
#include "graph/roofline.h"

static PyObject *config(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    const lc_cpu *cpu = lc_cpu_get();
    PyObject *available = PyList_New(0);
    for (int i = 0; available && i <= (int)cpu->isa_best; i++) {
        PyObject *name = PyUnicode_FromString(lc_isa_name((lc_isa)i));
        if (!name || PyList_Append(available, name) < 0)
            Py_CLEAR(available);
        Py_XDECREF(name);
    }
    if (!available)
        return NULL;
    return Py_BuildValue(
        "{ss ss sN ss ss sL sL sL si si si ss ss ss si}", "isa", lc_isa_name(cpu->isa), "isa_best",
        lc_isa_name(cpu->isa_best), "isa_available", available, "cpu", cpu->brand, "vendor",
        cpu->vendor, "l1d", (long long)cpu->l1d, "l2", (long long)cpu->l2, "l3", (long long)cpu->l3,
        "logical", cpu->logical, "physical", cpu->physical, "num_threads", lc_threads_get(),
        "threads_rule", lc_threads_rule(), "threads_backend", lc_threads_backend(), "isa_setting",
        cpu->isa_env_bad ? "LUCID_C_ISA not understood" : "", "block", lc_kernels_get()->block);
}

static PyObject *set_num_threads(PyObject *module, PyObject *arg)
{
    (void)module;
    int64_t n;
    if (lcpy_ints(arg, "the number of threads", 1, &n))
        return NULL;
    if (n < 1 || n > LC_MAX_THREADS) {
        PyErr_Format(PyExc_ValueError, "the number of threads must be 1 to %d, got %lld",
                     LC_MAX_THREADS, (long long)n);
        return NULL;
    }
    if (lcpy_check(lc_threads_set((int)n)))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_num_threads(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(lc_threads_get());
}

static PyObject *memory_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    lc_mem_stats s = lc_mem_stats_get();
    return Py_BuildValue("{sLsLsL}", "allocations", (long long)s.allocations, "bytes",
                         (long long)s.live_bytes, "peak", (long long)s.peak_bytes);
}

static PyObject *plan_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    lc_plan_stats s = lc_plan_cache_stats();
    return Py_BuildValue("{sLsLsLsL}", "plans", (long long)s.plans, "hits", (long long)s.hits,
                         "misses", (long long)s.misses, "arena_bytes", (long long)s.arena_bytes);
}

static PyObject *clear_plans(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    lc_plan_cache_clear();
    Py_RETURN_NONE;
}

/* --- profiles */

static PyObject *profile_dict(const lc_profile *p)
{
    PyObject *rows = PyList_New(0);
    for (int i = 0; rows && i < p->count; i++) {
        const lc_profile_row *r = &p->rows[i];
        PyObject *row = Py_BuildValue(
            "{sssssssdsLsLsNsN}", "scope", r->scope, "op", r->op, "algorithm", r->algorithm,
            "seconds", r->seconds, "macs", (long long)r->macs, "bytes", (long long)r->bytes,
            "in_shape", lcpy_shape_tuple(&r->in0), "out_shape", lcpy_shape_tuple(&r->out0));
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    if (!rows)
        return NULL;
    return Py_BuildValue("{sNsisLsLsL}", "rows", rows, "threads", p->threads, "arena_bytes",
                         (long long)p->arena_bytes, "arena_bound", (long long)p->arena_bound,
                         "constant_bytes", (long long)p->constant_bytes);
}

static PyObject *profile_call(PyObject *module, PyObject *args)
{
    (void)module;
    if (PyTuple_Size(args) < 1) {
        PyErr_SetString(PyExc_TypeError, "profile(callable, *args)");
        return NULL;
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_Size(args));
    if (!rest)
        return NULL;
    lc_profile p;
    memset(&p, 0, sizeof p);
    lc_profile *before = lcpy_profile_runs(&p);
    PyObject *result = PyObject_CallObject(PyTuple_GetItem(args, 0), rest);
    lcpy_profile_runs(before);
    Py_DECREF(rest);
    PyObject *dict = result ? profile_dict(&p) : NULL;
    lc_profile_free(&p);
    if (!dict) {
        Py_XDECREF(result);
        return NULL;
    }
    return Py_BuildValue("(NN)", result, dict);
}

static PyObject *roofline(PyObject *module, PyObject *arg)
{
    (void)module;
    int64_t threads;
    lc_roofline r;
    lc_status status;
    if (lcpy_ints(arg, "threads", 1, &threads))
        return NULL;
    if (threads < 1 || threads > LC_MAX_THREADS) {
        PyErr_Format(PyExc_ValueError, "threads must be 1 to %d, got %lld", LC_MAX_THREADS,
                     (long long)threads);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS status = lc_roofline_measure((int)threads, &r);
    Py_END_ALLOW_THREADS return lcpy_check(status)
        ? NULL
        : Py_BuildValue("(ddi)", r.flops, r.bytes, r.threads);
}

/* --- parameters' contents */

static void release_array(void *array)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)array);
    PyGILState_Release(gil);
}

/* A storage with the contents of a float32, C-contiguous array of the parameter's shape: that of
 * `fresh`, or one that looks into the array and keeps it alive. The array becomes read-only; one
 * that looks into other memory is copied, since that could still be written to. */
static int adopt_array(lc_param *p, PyObject *obj, lc_storage **out)
{
    const lc_desc *d = lc_param_desc(p);
    if (!PyArray_Check(obj) || d->dtype != LC_F32 ||
        PyArray_TYPE((PyArrayObject *)obj) != NPY_FLOAT ||
        !PyArray_ISCARRAY_RO((PyArrayObject *)obj)) {
        PyErr_SetString(PyExc_TypeError, "parameters take C-contiguous float32 arrays");
        return -1;
    }
    lc_desc given;
    if (lcpy_desc_of((PyArrayObject *)obj, &given))
        return -1;
    if (!lc_desc_same_shape(&given, d)) {
        char a[LC_SHAPE_TEXT], b[LC_SHAPE_TEXT];
        PyErr_Format(PyExc_ValueError, "a parameter of shape %s cannot take an array of shape %s",
                     lc_shape_text(d, a), lc_shape_text(&given, b));
        return -1;
    }
    lc_storage *own = lcpy_array_storage((PyArrayObject *)obj);
    if (own && lc_storage_bytes(own) == lc_desc_bytes(d) && lc_storage_is_exclusive(own, 1)) {
        PyArray_CLEARFLAGS((PyArrayObject *)obj, NPY_ARRAY_WRITEABLE);
        *out = lc_storage_retain(own);
        return 0;
    }
    if (PyArray_BASE((PyArrayObject *)obj) ||
        !PyArray_CHKFLAGS((PyArrayObject *)obj, NPY_ARRAY_OWNDATA))
        return lcpy_check(
            lc_storage_create_copy(PyArray_DATA((PyArrayObject *)obj), lc_desc_bytes(d), out));
    if (lcpy_check(lc_storage_adopt(PyArray_DATA((PyArrayObject *)obj), lc_desc_bytes(d),
                                    release_array, obj, out)))
        return -1;
    PyArray_CLEARFLAGS((PyArrayObject *)obj, NPY_ARRAY_WRITEABLE);
    Py_INCREF(obj);
    return 0;
}

/* One storage for each of n parameters, all in one block of memory. */
static int make_storages(PyObject *tensors, Py_ssize_t n, lc_storage **out)
{
    size_t *bytes = lc_alloc((size_t)n * sizeof *bytes + 1);
    if (!bytes)
        return lcpy_check(LC_ERR_MEMORY);
    int status = 0;
    for (Py_ssize_t i = 0; i < n && !status; i++) {
        PyObject *tensor = PyTuple_GetItem(tensors, i);
        lc_param *p = lcpy_is_tensor(tensor) ? ((lcpy_tensor *)tensor)->param : NULL;
        if (p) {
            bytes[i] = lc_desc_bytes(lc_param_desc(p));
            continue;
        }
        PyErr_SetString(PyExc_TypeError, "a parameter or buffer is expected");
        status = -1;
    }
    if (!status)
        status = lcpy_check(lc_storage_create_many((int)n, bytes, out));
    lc_free(bytes);
    return status;
}

static PyObject *fresh(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *tensors = PySequence_Tuple(arg), *list = NULL;
    if (!tensors)
        return NULL;
    const Py_ssize_t n = PyTuple_Size(tensors);
    lc_storage **storages = n < INT32_MAX ? lc_alloc((size_t)n * sizeof *storages + 1) : NULL;
    if (!storages) {
        lcpy_raise(LC_ERR_MEMORY);
    } else if (make_storages(tensors, n, storages) == 0) {
        list = PyList_New(n);
        for (Py_ssize_t i = 0; i < n; i++) {
            if (!list) {
                lc_storage_release(storages[i]);
                continue;
            }
            const lc_param *p = ((lcpy_tensor *)PyTuple_GetItem(tensors, i))->param;
            PyObject *array = lcpy_storage_array(storages[i], lc_param_desc(p), 1);
            if (!array || PyList_SetItem(list, i, array) < 0)
                Py_CLEAR(list);
        }
    }
    lc_free(storages);
    Py_DECREF(tensors);
    return list;
}

static PyObject *prefault(PyObject *module, PyObject *arg)
{
    (void)module;
    if (!PyArray_Check(arg) || !PyArray_IS_C_CONTIGUOUS((PyArrayObject *)arg) ||
        !PyArray_ISWRITEABLE((PyArrayObject *)arg)) {
        PyErr_SetString(PyExc_TypeError, "a C-contiguous, writable array is expected");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    lc_prefault(PyArray_DATA((PyArrayObject *)arg), (size_t)PyArray_NBYTES((PyArrayObject *)arg));
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *commit(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *pairs = PySequence_Tuple(arg);
    if (!pairs)
        return NULL;
    Py_ssize_t n = PyTuple_Size(pairs), made = 0;
    PyObject *result = NULL;
    lc_param **params = lc_alloc_zero((size_t)n * sizeof *params + 1);
    lc_storage **storages = lc_alloc_zero((size_t)n * sizeof *storages + 1);
    if (!params || !storages) {
        lcpy_raise(LC_ERR_MEMORY);
        goto done;
    }
    for (; made < n; made++) {
        PyObject *tensor, *array, *pair = PyTuple_GetItem(pairs, made);
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "OO:commit", &tensor, &array))
            goto done;
        if (!lcpy_is_tensor(tensor) || !((lcpy_tensor *)tensor)->param) {
            PyErr_SetString(PyExc_TypeError, "a parameter or buffer is expected");
            goto done;
        }
        params[made] = ((lcpy_tensor *)tensor)->param;
        if (adopt_array(params[made], array, &storages[made]))
            goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        lc_param_replace(params[i], storages[i]);
    result = Py_NewRef(Py_None);
done:
    for (Py_ssize_t i = 0; storages && i < made; i++)
        lc_storage_release(storages[i]);
    lc_free(params);
    lc_free(storages);
    Py_DECREF(pairs);
    return result;
}

static PyObject *new_param(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *obj, *tensor = NULL;
    int buffer = 0;
    if (!PyArg_ParseTuple(args, "O|p:new_param", &obj, &buffer))
        return NULL;
    PyArrayObject *array = lcpy_float_array(obj, "a parameter");
    lc_desc d;
    lc_param *p;
    lc_storage *storage;
    if (!array)
        return NULL;
    if (lcpy_desc_of(array, &d) || lcpy_check(lc_param_create(LC_F32, d.rank, d.dim, &p)))
        goto done;
    if (lcpy_check(lc_storage_create_copy(PyArray_DATA(array), lc_desc_bytes(&d), &storage)) == 0) {
        lc_param_replace(p, storage);
        lc_storage_release(storage);
        lc_param_set_requires_grad(p, !buffer);
        tensor = lcpy_tensor_from_param(p, buffer);
    }
    lc_param_release(p);
done:
    Py_DECREF(array);
    return tensor;
}

/* --- random numbers */

static PyObject *random_fill(PyObject *args, void (*fill)(float *, int64_t, uint64_t, uint64_t,
                                                          int64_t, float, float))
{
    PyObject *shape;
    unsigned long long seed, stream;
    long long first;
    int64_t dim[LC_MAX_RANK];
    if (!PyArg_ParseTuple(args, "OKKL:random", &shape, &seed, &stream, &first))
        return NULL;
    int rank = lcpy_int_list(shape, "shape", LC_MAX_RANK, dim);
    lc_desc d;
    if (rank < 0 || lcpy_check(lc_desc_init(&d, LC_F32, rank, dim)))
        return NULL;
    PyArrayObject *array = lcpy_new_array(&d);
    if (!array)
        return NULL;
    float *data = PyArray_DATA(array);
    Py_BEGIN_ALLOW_THREADS fill(data, lc_desc_count(&d), seed, stream, first, 0.0f, 1.0f);
    Py_END_ALLOW_THREADS return (PyObject *)array;
}

static PyObject *random_normal(PyObject *module, PyObject *args)
{
    (void)module;
    return random_fill(args, lc_random_normal);
}

static PyObject *random_uniform(PyObject *module, PyObject *args)
{
    (void)module;
    return random_fill(args, lc_random_uniform);
}

static PyObject *state_tuple(lc_random_state state)
{
    return Py_BuildValue("(KK)", (unsigned long long)state.seed, (unsigned long long)state.stream);
}

static PyObject *random_take(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return state_tuple(lc_random_take());
}

static PyObject *random_get(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return state_tuple(lc_random_get());
}

static PyObject *random_set(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long seed, stream;
    if (!PyArg_ParseTuple(args, "KK:random_set", &seed, &stream))
        return NULL;
    lc_random_set((lc_random_state){seed, stream});
    Py_RETURN_NONE;
}

PyMethodDef lcpy_config_methods[] = {
    {"random_take", random_take, METH_NOARGS, "(seed, a stream of it that nobody else gets)"},
    {"random_get", random_get, METH_NOARGS, "(seed, the next stream)"},
    {"random_set", random_set, METH_VARARGS, "random_set(seed, the next stream)"},
    {"config", config, METH_NOARGS, "What this process runs with, as a dict."},
    {"set_num_threads", set_num_threads, METH_O, "Sets the number of threads of later runs."},
    {"get_num_threads", get_num_threads, METH_NOARGS, "The number of threads of later runs."},
    {"memory_stats", memory_stats, METH_NOARGS,
     "The core's allocations: calls so far, bytes alive, most bytes alive."},
    {"plan_stats", plan_stats, METH_NOARGS,
     "The plan cache: plans, hits, misses, bytes of idle arenas."},
    {"clear_plans", clear_plans, METH_NOARGS, "Drops all plans and their arenas."},
    {"profile", profile_call, METH_VARARGS,
     "profile(callable, *args) -> (result, description of the runs)"},
    {"roofline", roofline, METH_O,
     "roofline(threads) -> (flops per second, bytes per second, threads), measured once each"},
    {"fresh", fresh, METH_O,
     "fresh([parameter, ...]) -> arrays of their shapes, to be filled and committed."},
    {"prefault", prefault, METH_O,
     "prefault(array): gets the memory pages of an array that is about to be filled."},
    {"commit", commit, METH_O,
     "commit([(parameter, array), ...]): adopts the arrays as contents, all or none."},
    {"new_param", new_param, METH_VARARGS, "new_param(array, buffer=False)"},
    {"random_normal", random_normal, METH_VARARGS, "random_normal(shape, seed, stream, first)"},
    {"random_uniform", random_uniform, METH_VARARGS, "random_uniform(shape, seed, stream, first)"},
    {NULL, NULL, 0, NULL},
};
