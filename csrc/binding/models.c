/* Blocks and models: configs from Python dicts, Python block classes as host blocks, and the table
 * of variants. */
#include <string.h>

#include "binding/core.h"
#include "models/info.h"
#include "nn/walk.h"

/* --- reading a dict; a missing key leaves the default */

static int get_int(PyObject *dict, const char *key, int64_t *out)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    return value ? lcpy_ints(value, key, 1, out) : 0;
}

static int get_ints(PyObject *dict, const char *key, int n, int64_t *out)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    if (!value)
        return 0;
    int got = lcpy_int_list(value, key, n, out);
    if (got >= 0 && (got != n || PyIndex_Check(value))) {
        PyErr_Format(PyExc_ValueError, "%s must be %d integers, got %R", key, n, value);
        got = -1;
    }
    return got < 0 ? -1 : 0;
}

static int get_bool(PyObject *dict, const char *key, bool *out)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    int flag = value ? PyObject_IsTrue(value) : *out;
    *out = flag > 0;
    return flag < 0 ? -1 : 0;
}

static int get_double(PyObject *dict, const char *key, double *out)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    if (value)
        *out = PyFloat_AsDouble(value);
    return PyErr_Occurred() ? -1 : 0;
}

static int read_block_args(PyObject *dict, lc_block_args *a)
{
    return get_int(dict, "cardinality", &a->cardinality) ||
           get_int(dict, "base_width", &a->base_width) || get_int(dict, "dilation", &a->dilation) ||
           get_int(dict, "radix", &a->radix) || get_bool(dict, "avd", &a->avd) ||
           get_bool(dict, "avd_first", &a->avd_first) || get_bool(dict, "lucid2", &a->lucid2) ||
           get_bool(dict, "zero_last_gamma", &a->zero_last_gamma);
}

static const lc_block_type *const block_types[] = {&lc_block_basic, &lc_block_bottleneck,
                                                   &lc_block_preact_bottleneck,
                                                   &lc_block_resnest_bottleneck};

static const lc_block_type *find_block(const char *name)
{
    for (size_t i = 0; i < sizeof block_types / sizeof *block_types; i++)
        if (strcmp(block_types[i]->name, name) == 0)
            return block_types[i];
    PyErr_Format(PyExc_ValueError, "unknown block '%s'", name);
    return NULL;
}

/* --- blocks written in Python */

/* ctx of a host block: what makes one, and what was made so far (the wrappers live until the
 * model's own wrapper holds them). */
typedef struct host_block {
    PyObject *make; /* make(in_channels, out_channels, stride, downsample or None) -> Module */
    PyObject *made; /* list */
} host_block;

static lc_status make_host_block(void *ctx, const lc_block_args *a, lc_module **out)
{
    host_block *host = ctx;
    PyObject *make = Py_NewRef(host->make);
    PyObject *downsample = a->downsample ? lcpy_wrap_module(a->downsample) : Py_NewRef(Py_None);
    lc_module_release(a->downsample);
    PyObject *block = downsample ? PyObject_CallFunction(make, "LLLO", (long long)a->in_channels,
                                                         (long long)a->out_channels,
                                                         (long long)a->stride, downsample)
                                 : NULL;
    Py_XDECREF(downsample);
    Py_DECREF(make);
    lc_module *m = block ? lcpy_module_of(block, "what the block class makes") : NULL;
    if (!m || PyList_Append(host->made, block) < 0) {
        Py_XDECREF(block);
        return lc_fail(LC_ERR_HOST, "the block class raised");
    }
    *out = lc_module_retain(m);
    Py_DECREF(block);
    return LC_OK;
}

/* Makes wrappers along every path that leads to a module with Python state, so that the tree of
 * wrappers holds it. */
static int hold_wrappers(PyObject *self, int depth)
{
    lc_module *m = ((lcpy_module *)self)->module;
    if (depth > LC_MAX_NESTING) {
        PyErr_Format(PyExc_ValueError, "modules are nested more than %d deep", LC_MAX_NESTING);
        return -1;
    }
    for (int i = 0; i < lc_module_entry_count(m); i++) {
        lc_entry e = lc_module_entry(m, i);
        if (e.kind != LC_ENTRY_CHILD || !e.child)
            continue;
        PyObject *child = PyObject_CallMethod(self, "_get", "s", e.name);
        int status = child ? hold_wrappers(child, depth + 1) : -1;
        Py_XDECREF(child);
        if (status < 0)
            return -1;
    }
    return 0;
}

/* --- models */

static int read_block(PyObject *dict, lc_resnet_config *c, host_block *host)
{
    PyObject *block = PyDict_GetItemString(dict, "block");
    if (!block)
        return 0;
    if (PyUnicode_Check(block)) {
        const char *name = PyUnicode_AsUTF8AndSize(block, NULL);
        const lc_block_type *type = name ? find_block(name) : NULL;
        if (type)
            c->block = *type;
        return type ? 0 : -1;
    }
    const char *name;
    long long expansion;
    if (!PyTuple_Check(block) ||
        !PyArg_ParseTuple(block, "sLO:block", &name, &expansion, &host->make))
        return -1;
    c->block = (lc_block_type){name, expansion, false, make_host_block, host};
    return 0;
}

static int read_config(PyObject *dict, lc_resnet_config *c, host_block *host)
{
    bool deep = c->stem == LC_STEM_DEEP, average = c->shortcut == LC_SHORTCUT_AVG_POOL;
    PyObject *name = PyDict_GetItemString(dict, "class_name");
    if (name) {
        const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
        if (!text)
            return -1;
        c->class_name = strcmp(text, "ResNeSt") == 0   ? "ResNeSt"
                        : strcmp(text, "ResNeXt") == 0 ? "ResNeXt"
                                                       : "ResNet";
    }
    if (get_double(dict, "drop_rate", &c->drop_rate) ||
        get_double(dict, "drop_block_rate", &c->drop_block_rate) ||
        get_double(dict, "drop_path_rate", &c->drop_path_rate) || read_block(dict, c, host) ||
        get_ints(dict, "layers", 4, c->layers) || get_ints(dict, "channels", 4, c->channels) ||
        get_int(dict, "num_classes", &c->num_classes) ||
        get_int(dict, "in_channels", &c->in_channels) ||
        get_int(dict, "stem_width", &c->stem_width) || get_bool(dict, "deep_stem", &deep) ||
        get_bool(dict, "avg_shortcut", &average) || get_bool(dict, "final_norm", &c->final_norm) ||
        get_bool(dict, "bare_stem", &c->bare_stem) ||
        get_bool(dict, "zero_padded_pool", &c->zero_padded_pool) || read_block_args(dict, &c->args))
        return -1;
    c->stem = deep ? LC_STEM_DEEP : LC_STEM_PLAIN;
    c->shortcut = average ? LC_SHORTCUT_AVG_POOL : LC_SHORTCUT_CONV;
    return 0;
}

static PyObject *init_resnet(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *dict;
    if (!PyArg_ParseTuple(args, "OO!:init_resnet", &self, &PyDict_Type, &dict))
        return NULL;
    lc_resnet_config c;
    lc_resnet_config_init(&c);
    host_block host = {NULL, PyList_New(0)};
    lc_module *m = NULL;
    PyObject *result = NULL;
    if (host.made && read_config(dict, &c, &host) == 0 &&
        lcpy_check(lc_resnet_create(&c, &m)) == 0 &&
        lcpy_module_assign((lcpy_module *)self, m) == 0 &&
        (!host.make || hold_wrappers(self, 0) == 0))
        result = Py_NewRef(Py_None);
    Py_XDECREF(host.made);
    return result;
}

static PyObject *init_block(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *downsample;
    const char *name;
    long long in, out, stride, cardinality, base_width, dilation, radix;
    int avd, avd_first, is_first, lucid2, zero_last_gamma;
    if (!PyArg_ParseTuple(args, "OsLLLOLLLLppppp:init_block", &self, &name, &in, &out, &stride,
                          &downsample, &cardinality, &base_width, &dilation, &radix, &avd,
                          &avd_first, &is_first, &lucid2, &zero_last_gamma))
        return NULL;
    const lc_block_type *type = find_block(name);
    lc_block_args a;
    lc_block_args_init(&a);
    if (!type ||
        (downsample != Py_None && !(a.downsample = lcpy_module_of(downsample, "downsample"))))
        return NULL;
    if (a.downsample)
        lc_module_retain(a.downsample);
    a.in_channels = in;
    a.out_channels = out;
    a.stride = stride;
    a.cardinality = cardinality;
    a.base_width = base_width;
    a.dilation = dilation;
    a.radix = radix;
    a.avd = avd;
    a.avd_first = avd_first;
    a.is_first = is_first;
    a.lucid2 = lucid2;
    a.zero_last_gamma = zero_last_gamma;
    lc_module *m;
    if (lcpy_check(type->create(type->ctx, &a, &m)) ||
        lcpy_module_assign((lcpy_module *)self, m) < 0)
        return NULL;
    if (downsample != Py_None &&
        PyDict_SetItemString(((lcpy_module *)self)->children, "downsample", downsample) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *init_split_attention(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self;
    long long in, out, stride, pad, dilation, cardinality, radix;
    int lucid2;
    if (!PyArg_ParseTuple(args, "OLLLLLLLp:init_split_attention", &self, &in, &out, &stride, &pad,
                          &dilation, &cardinality, &radix, &lucid2))
        return NULL;
    lc_split_attention_config c = {in,          out,   stride,      pad, dilation,
                                   cardinality, radix, lucid2 != 0, 0};
    lc_module *m;
    if (lcpy_check(lc_split_attention_create(&c, &m)) ||
        lcpy_module_assign((lcpy_module *)self, m) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- the table of variants */

static PyObject *four(const int64_t v[4])
{
    return Py_BuildValue("(LLLL)", (long long)v[0], (long long)v[1], (long long)v[2],
                         (long long)v[3]);
}

static PyObject *truth(bool flag)
{
    return PyBool_FromLong(flag);
}

static PyObject *config_dict(const lc_resnet_config *c)
{
    const lc_block_args *a = &c->args;
    return Py_BuildValue(
        "{sssssNsNsLsLsLsNsNsNsNsNsdsLsLsLsLsNsNsNsN}", "class_name", c->class_name, "block",
        c->block.name, "layers", four(c->layers), "channels", four(c->channels), "num_classes",
        (long long)c->num_classes, "in_channels", (long long)c->in_channels, "stem_width",
        (long long)c->stem_width, "deep_stem", truth(c->stem == LC_STEM_DEEP), "avg_shortcut",
        truth(c->shortcut == LC_SHORTCUT_AVG_POOL), "final_norm", truth(c->final_norm), "bare_stem",
        truth(c->bare_stem), "zero_padded_pool", truth(c->zero_padded_pool), "drop_rate",
        c->drop_rate, "cardinality", (long long)a->cardinality, "base_width",
        (long long)a->base_width, "dilation", (long long)a->dilation, "radix", (long long)a->radix,
        "avd", truth(a->avd), "avd_first", truth(a->avd_first), "lucid2", truth(a->lucid2),
        "zero_last_gamma", truth(a->zero_last_gamma));
}

static PyObject *variants(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < lc_variant_count(); i++) {
        PyObject *name = PyUnicode_FromString(lc_variant_get(i)->name);
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *variant(PyObject *module, PyObject *name)
{
    (void)module;
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    const lc_variant *v = text ? lc_variant_find(text) : NULL;
    if (!v) {
        if (text)
            PyErr_SetObject(PyExc_KeyError, name);
        return NULL;
    }
    return config_dict(&v->config);
}

static PyObject *lucid2(PyObject *module, PyObject *dict)
{
    (void)module;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "a config dict is expected");
        return NULL;
    }
    lc_resnet_config c;
    lc_resnet_config_init(&c);
    host_block host = {NULL, NULL};
    if (read_config(dict, &c, &host) || lcpy_check(lc_resnet_config_lucid2(&c)))
        return NULL;
    return config_dict(&c);
}

/* --- info */

static PyObject *info(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *self, *shape;
    if (!PyArg_ParseTuple(args, "OO:info", &self, &shape))
        return NULL;
    lc_module *m = lcpy_module_of(self, "module");
    int64_t dim[4];
    int n = m ? lcpy_int_list(shape, "shape", 4, dim) : -1;
    if (n >= 0 && n != 4)
        PyErr_Format(PyExc_ValueError, "shape must be 4 integers (N, C, H, W), got %d", n);
    if (n != 4)
        return NULL;
    lc_info result;
    memset(&result, 0, sizeof result);
    lcpy_recording *outer = lcpy_suspend();
    lcpy_recording *r =
        lcpy_enter(); /* Python modules in the tree record through it; nothing of it is run */
    if (!r) {
        lcpy_resume(outer);
        return NULL;
    }
    lc_module_retain(m);
    lc_status status = lc_model_info(m, lcpy_graph_of(r), dim, &result);
    if (lcpy_check(status)) {
        lcpy_leave(r, 0);
        lcpy_resume(outer);
        lc_module_release(m);
        return NULL;
    }
    PyObject *rows = PyList_New(0);
    for (int i = 0; rows && i < result.count; i++) {
        const lc_info_row *row = &result.rows[i];
        PyObject *item =
            Py_BuildValue("{sssssNsNsLsLsL}", "op", row->op, "scope", row->scope, "in_shape",
                          lcpy_shape_tuple(&row->in), "out_shape", lcpy_shape_tuple(&row->out),
                          "params", (long long)row->params, "macs", (long long)row->macs,
                          "card_flops", (long long)row->card_flops);
        if (!item || PyList_Append(rows, item) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(item);
    }
    PyObject *dict =
        rows ? Py_BuildValue("{sNsLsLsL}", "rows", rows, "params", (long long)result.params, "macs",
                             (long long)result.macs, "card_flops", (long long)result.card_flops)
             : NULL;
    lc_info_free(&result);
    lcpy_leave(r, 0);
    lcpy_resume(outer);
    lc_module_release(m);
    return dict;
}

PyMethodDef lcpy_model_methods[] = {
    {"init_resnet", init_resnet, METH_VARARGS, "init_resnet(self, config)"},
    {"init_block", init_block, METH_VARARGS,
     "init_block(self, name, in_channels, out_channels, stride, downsample, cardinality, "
     "base_width, dilation, radix, avd, avd_first, "
     "is_first, lucid2, zero_last_gamma)"},
    {"init_split_attention", init_split_attention, METH_VARARGS,
     "init_split_attention(self, in_channels, out_channels, stride, padding, dilation, "
     "cardinality, radix, lucid2)"},
    {"variants", variants, METH_NOARGS, "Names of the 24 variants."},
    {"variant", variant, METH_O, "The config of a variant as a dict."},
    {"lucid2", lucid2, METH_O, "The config of lucid 2.x's form of a ResNeSt config."},
    {"info", info, METH_VARARGS, "info(module, (N, C, H, W)) -> rows and totals"},
    {NULL, NULL, 0, NULL},
};
