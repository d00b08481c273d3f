/* Shared by the files of the binding, the only folder that knows Python and NumPy.
 *
 * A wrapper parses, borrows, calls the core once, and wraps. Everything here needs the GIL unless
 * it says otherwise; recording happens with the GIL held, running without it. */
#ifndef LC_BINDING_CORE_H
#define LC_BINDING_CORE_H

/* The build sets Py_LIMITED_API and the version of NumPy's API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdio.h> /* NumPy's headers need FILE, which Python.h leaves out under the limited API */

#define PY_ARRAY_UNIQUE_SYMBOL lc_numpy_api
#ifndef LC_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "graph/profile.h"
#include "graph/tape.h"
#include "models/resnet.h"
#include "nn/layers.h"

/* --- errors (errors.c) */
/* Raises the exception that goes with a status and the core's message. Always returns NULL. */
PyObject *lcpy_raise(lc_status status);
/* For int-returning code: 0 if LC_OK, else -1 with the exception set. */
int lcpy_check(lc_status status);

/* --- what the module keeps (core_module.c); one interpreter, one instance */
typedef struct lcpy_state {
    PyTypeObject *tensor_base, *module_base; /* the C types */
    PyTypeObject *segment_type;
    PyObject *tensor_class, *parameter_class,
        *module_class;        /* their Python subclasses, registered by the facade */
    PyObject *slot_class;     /* what keeps gradient and hooks of a tensor */
    PyObject *module_classes; /* dict: class name in C -> Python class */
} lcpy_state;
extern lcpy_state lcpy;

/* --- arrays (arrays.c) */
/* A C-contiguous, aligned float32 array with the contents of `obj` (array-like; float64 and float16
 * are converted, scalars are 0-d). TypeError that names `what` and the dtype for anything else;
 * Python ints and floats are taken. New reference. */
PyArrayObject *lcpy_float_array(PyObject *obj, const char *what);
/* The same, or of int64 if `obj` holds integers (not bools). */
PyArrayObject *lcpy_number_array(PyObject *obj, const char *what);
/* Desc of an array's shape; -1 with an exception for rank > 8. */
int lcpy_desc_of(PyArrayObject *array, lc_desc *out);
/* A fresh array for a desc (float32 or int64). */
PyArrayObject *lcpy_new_array(const lc_desc *d);
/* An array that looks into a storage (takes the reference, also on failure) and has its contents on
 * loan. */
PyObject *lcpy_storage_array(lc_storage *storage, const lc_desc *d, int writable);
/* The storage of such an array (borrowed), or NULL. */
lc_storage *lcpy_array_storage(PyArrayObject *array);
/* A read-only array that looks into a parameter's storage. */
PyObject *lcpy_param_array(lc_param *p);
PyObject *lcpy_shape_tuple(const lc_desc *d);

/* --- tensors and recordings (tensor.c, recording.c) */
typedef struct lcpy_recording lcpy_recording;

/* A tensor is one of: contents (array), a recorded value (array NULL, recording set), a parameter
 * (param set). One with contents that has entered a recording is both: then value is its number
 * there. */
typedef struct lcpy_tensor {
    PyObject_HEAD PyObject *array;
    lc_param *param;
    lcpy_recording *recording;       /* borrowed while linked */
    struct lcpy_tensor *prev, *next; /* the recording's list of tensors */
    lc_value value;
    int lost; /* its recording was discarded by an error: using it raises */
    int requires_grad;
    /* History: output `out` of `node` (a segment, or a node written in Python); NULL: none. */
    PyObject *node;
    int out;
    PyObject *slot; /* gradient and hooks of a leaf that is no parameter; NULL until needed */
} lcpy_tensor;

int lcpy_is_tensor(PyObject *obj);
/* A tensor of the registered class around an array (steals the reference, also on failure). */
PyObject *lcpy_tensor_from_array(PyObject *array);
PyObject *lcpy_tensor_from_param(lc_param *p, int is_buffer);
PyObject *lcpy_tensor_from_value(lcpy_recording *r, lc_value v);
/* The contents as an array (new reference); runs what has been recorded so far if need be. */
PyObject *lcpy_tensor_array(lcpy_tensor *t);
/* Shape as known now, without running anything. */
int lcpy_tensor_desc(lcpy_tensor *t, lc_desc *out);
PyTypeObject *lcpy_tensor_type(PyObject *module);

/* The recording of this thread, or NULL. */
lcpy_recording *lcpy_current(void);
lc_graph *lcpy_graph_of(lcpy_recording *r);
/* Enters a recording: the current one, or a new one if there is none. Every enter is matched by one
 * leave. */
lcpy_recording *lcpy_enter(void);
/* Leaves. The outermost leave runs the graph and gives every living tensor its contents (ok != 0),
 * or discards the recording. Returns 0, or -1 with an exception set. */
int lcpy_leave(lcpy_recording *r, int ok);
/* Puts the thread's recording aside, so that a new one may begin, and takes it up again. */
lcpy_recording *lcpy_suspend(void);
void lcpy_resume(lcpy_recording *r);
int lcpy_is_nested(const lcpy_recording *r); /* Python code is at work within an outer call */
/* The module whose forward, in Python, is at work in the recording: the innermost one, borrowed, or
 * NULL. Sets it and returns the one before. */
lc_module *lcpy_set_host(lcpy_recording *r, lc_module *m);
/* Runs what living tensors need so far; they become inputs and the recording goes on. */
int lcpy_settle(lcpy_recording *r);
void lcpy_unlink(lcpy_tensor *t);
/* The number of a tensor or array-like in the recording. `private_copy`: a writable array is
 * copied, since Python code may change it before the run. LC_NONE with an exception set on failure.
 */
lc_value lcpy_value_of(lcpy_recording *r, PyObject *obj, int private_copy, const char *what);

/* --- gradients: whether they are kept, by thread */
typedef enum lcpy_grad_mode { LCPY_GRAD_AUTO, LCPY_GRAD_OFF, LCPY_GRAD_ON } lcpy_grad_mode;
lcpy_grad_mode lcpy_grad_get(void);
void lcpy_grad_set(lcpy_grad_mode mode);
/* From here on the recording's run keeps what backward needs (unless gradients are off). */
void lcpy_keep_grads(lcpy_recording *r);
int lcpy_keeps_grads(const lcpy_recording *r); /* NULL: outside of any recording */
/* Gradients with respect to value v, an input, go to `edge`: (node, output) or a slot. */
int lcpy_require_grad(lcpy_recording *r, lc_value v, PyObject *edge);
/* Where the gradient of a tensor goes: (node, output), or its slot (made if need be); new
 * reference. */
PyObject *lcpy_edge_of(lcpy_tensor *t);
/* The node of a kept run: `edges` per leaf of the tape (stolen), `arrays`: dict of what its inputs
 * were. Takes the tape, also on failure. */
PyObject *lcpy_segment_new(lc_tape *tape, PyObject *edges, PyObject *arrays);
PyTypeObject *lcpy_segment_type(PyObject *module);

/* Runs without the GIL: a stop check for this thread, and what takes and gives the GIL. */
typedef struct lcpy_unlocked {
    PyThreadState *thread;
    lcpy_recording *outer;
    lc_profile *profile;
    lc_run_options options;
} lcpy_unlocked;
void lcpy_unlock(lcpy_unlocked *u);
void lcpy_relock(lcpy_unlocked *u);

/* Has this thread's runs from now on describe themselves in `into`, one after the other; NULL: no
 * more. Returns what was set before. */
lc_profile *lcpy_profile_runs(lc_profile *into);

/* The number of an op's argument; what is done with it from here on is part of the recording.
 * `integers`: it may hold integers. LC_NONE with an exception set. */
lc_value lcpy_argument(lcpy_recording *r, PyObject *obj, const char *what, int integers);
/* One op on tensors: appended to the current recording, or run at once. New reference. */
PyObject *lcpy_apply(const lc_op *op, const void *attr, int n, PyObject *const *inputs,
                     const char *const *names);
/* The same; `integers`: input 1 may hold integers; `share`: of an op that drops at random, whose draw
 * becomes the last input, else NULL. */
PyObject *lcpy_apply_as(const lc_op *op, const void *attr, int n, PyObject *const *inputs,
                        const char *const *names, bool integers, const double *share);

/* --- modules (py_module.c) */
typedef struct lcpy_module {
    PyObject_HEAD lc_module *module;
    PyObject *children; /* dict: name -> wrapper; keeps what Python knows of children alive */
} lcpy_module;
PyTypeObject *lcpy_module_type(PyObject *module);
int lcpy_on_main_thread(void); /* where Python handles signals (core_module.c) */
lc_module *lcpy_module_of(PyObject *obj, const char *what); /* borrowed; TypeError */
/* The wrapper of a module (new reference); makes one of the registered class if there is none. */
PyObject *lcpy_wrap_module(lc_module *m);
/* Gives a wrapper its module (takes the reference, also on failure). RuntimeError if it has one
 * already. */
int lcpy_module_assign(lcpy_module *self, lc_module *m);

/* --- method tables, one per file */
extern PyMethodDef lcpy_functional_methods[]; /* functional.c */
extern PyMethodDef lcpy_loss_methods[];       /* losses.c: losses, dropout */
extern PyMethodDef lcpy_layer_methods[];      /* layers.c: constructors of layers */
extern PyMethodDef lcpy_model_methods[];      /* models.c */
extern PyMethodDef lcpy_config_methods[];     /* config.c */
extern PyMethodDef lcpy_recorded_methods[];   /* recorded.c */
extern PyMethodDef lcpy_algorithm_methods[];  /* algorithms.c */

/* Names of the kinds of ops, in the order of their enums, NULL at the end (functional.c). */
extern const char *const lcpy_unary_kinds[], *const lcpy_binary_kinds[], *const lcpy_reduce_kinds[];
extern PyMethodDef lcpy_autograd_methods[]; /* autograd.c */
extern PyMethodDef lcpy_train_methods[];    /* train.c */

/* Integers out of a Python int or sequence: exactly n numbers; an int stands for n equal ones. -1
 * with an exception that names `what`. */
int lcpy_ints(PyObject *obj, const char *what, int n, int64_t *out);
/* A sequence of up to `most` integers; returns their number, or -1. An int is a sequence of one. */
int lcpy_int_list(PyObject *obj, const char *what, int most, int64_t *out);

#endif
