/* Tests of csrc/nn: the tree, its names, calling, initialisation, errors, and memory that runs out.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "graph/ir.h"
#include "graph/graph.h"
#include "nn/layers.h"
#include "nn/walk.h"

#define OK(expr) CHECK((expr) == LC_OK)
/* Fails with this status, and the message contains this text. */
#define FAILS(expr, code, text) check_failure((expr), (code), (text), #expr, __LINE__)

static void check_failure(lc_status got, lc_status code, const char *text, const char *what,
                          int line)
{
    int ok = got == code && strstr(lc_error_message(), text) != NULL;
    check(ok, what, __FILE__, line);
    if (!ok)
        fprintf(stderr, "  status %d, \"%s\"; expected %d with \"%s\"\n", got, lc_error_message(),
                code, text);
}

static lc_module *conv(int64_t in, int64_t out, int64_t kernel, bool bias)
{
    lc_conv2d_config c = {in, out, {kernel, kernel}, .bias = bias};
    lc_module *m = NULL;
    OK(lc_conv2d_create(&c, &m));
    return m;
}

static lc_module *norm(int64_t features)
{
    lc_batch_norm_config c;
    lc_module *m = NULL;
    lc_batch_norm_config_init(&c, features);
    OK(lc_batch_norm2d_create(&c, &m));
    return m;
}

static lc_module *identity(void)
{
    lc_module *m = NULL;
    OK(lc_identity_create(&m));
    return m;
}

static lc_module *sequential(void)
{
    lc_module *m = NULL;
    OK(lc_sequential_create(&m));
    return m;
}

/* ---- the tree ---- */

static int destroyed;

static void count_destroy(lc_module *m)
{
    (void)m;
    destroyed++;
}

static const lc_module_class counted = {.name = "Counted", .destroy = count_destroy};

static lc_module *make_counted(void)
{
    lc_module *m = NULL;
    OK(lc_module_create(&counted, 8, &m));
    return m;
}

static void test_entries(void)
{
    lc_module *m = make_counted(), *a = make_counted(), *b = make_counted();
    lc_entry e;
    memset(lc_module_config(m), 7, 8);
    CHECK(lc_module_config_bytes(m) == 8 && lc_module_class_of(m) == &counted &&
          !lc_module_is_training(m));
    OK(lc_module_set_child(m, "a", a));
    OK(lc_module_new_param(m, "w", 2, (int64_t[]){2, 3}));
    OK(lc_module_set_child(m, "none", NULL));
    OK(lc_module_set_buffer(m, "none_buffer", NULL, false));
    CHECK(lc_module_entry_count(m) == 4);
    CHECK(lc_module_find(m, "a", &e) && e.kind == LC_ENTRY_CHILD && e.child == a && !e.param);
    CHECK(lc_module_find(m, "w", &e) && e.kind == LC_ENTRY_PARAM &&
          lc_param_desc(e.param)->dim[1] == 3);
    CHECK(lc_module_find(m, "none", &e) && e.kind == LC_ENTRY_CHILD && !e.child);
    CHECK(!lc_module_find(m, "b", &e) && !lc_module_find(m, "", &e));

    /* Replaced in place, also by another kind; the old one goes. */
    lc_module_release(a);
    CHECK(destroyed == 0);
    OK(lc_module_set_child(m, "a", b));
    CHECK(destroyed == 1 && strcmp(lc_module_entry(m, 0).name, "a") == 0 &&
          lc_module_entry(m, 0).child == b);
    OK(lc_module_set_child(m, "w", b));
    CHECK(lc_module_entry(m, 1).kind == LC_ENTRY_CHILD && lc_module_entry_count(m) == 4);
    OK(lc_module_remove(m, "a"));
    CHECK(strcmp(lc_module_entry(m, 0).name, "w") == 0 && lc_module_entry_count(m) == 3);
    FAILS(lc_module_remove(m, "a"), LC_ERR_KEY, "'a'");

    FAILS(lc_module_set_child(m, "", b), LC_ERR_KEY, "empty");
    FAILS(lc_module_set_child(m, "x.y", b), LC_ERR_KEY, "x.y");
    FAILS(lc_module_set_child(m, NULL, b), LC_ERR_KEY, "empty");
    FAILS(lc_module_new_param(m, "p", 1, (int64_t[]){-1}), LC_ERR_VALUE, "Counted.p");
    CHECK(lc_module_entry_count(m) == 3);

    lc_module_release(b);
    lc_module_release(m);
    lc_module_release(NULL);
    CHECK(destroyed == 3);
}

static void test_cycles(void)
{
    lc_module *a = sequential(), *b = sequential(), *c = sequential();
    OK(lc_module_set_child(a, "b", b));
    OK(lc_module_set_child(b, "c", c));
    FAILS(lc_module_set_child(a, "self", a), LC_ERR_VALUE, "own tree");
    FAILS(lc_module_set_child(c, "a", a), LC_ERR_VALUE, "own tree");
    FAILS(lc_module_set_child(b, "a", a), LC_ERR_VALUE, "own tree");
    CHECK(lc_module_entry_count(c) == 0);
    OK(lc_module_set_child(a, "c", c)); /* twice in a tree is no cycle */
    lc_module_release(a);
    lc_module_release(b);
    lc_module_release(c);

    /* A chain of diamonds has 2^60 paths. */
    lc_module *top = sequential();
    for (int i = 0; i < 60; i++) {
        lc_module *next = sequential();
        OK(lc_module_set_child(next, "x", top));
        OK(lc_module_set_child(next, "y", top));
        lc_module_release(top);
        top = next;
    }
    lc_module_train(top, true);
    CHECK(lc_module_is_training(top));
    OK(lc_module_init(top, 1));
    lc_module_release(top);
}

static lc_status count_state(void *ctx, const char *name, lc_param *p, bool is_buffer)
{
    (void)name, (void)p, (void)is_buffer;
    ++*(int *)ctx;
    return LC_OK;
}

static void test_depth(void)
{
    int count = 0;
    lc_module *top = sequential(), *leaf = top;
    int i = 0;
    for (; i < 200000; i++) { /* from the top down: no depth can be seen while building */
        lc_module *next = NULL;
        if (lc_sequential_create(&next) != LC_OK || lc_module_adopt(leaf, "0", next) != LC_OK)
            break;
        leaf = next;
    }
    CHECK(i == 200000);
    lc_graph *g = NULL;
    lc_value x, y;
    lc_desc d;
    OK(lc_graph_create(&g));
    OK(lc_desc_init(&d, LC_F32, 1, (int64_t[]){1}));
    OK(lc_graph_input(g, &d, NULL, &x));
    FAILS(lc_module_append(top, g, 1, &x, &y), LC_ERR_RUNTIME, "nested more than");
    FAILS(lc_module_each_state(top, count_state, &count), LC_ERR_RUNTIME, "nested more than");
    FAILS(lc_module_init(top, 1), LC_ERR_RUNTIME, "nested more than");
    lc_module_train(top, true);
    lc_module *above = sequential();
    FAILS(lc_module_set_child(above, "0", top), LC_ERR_VALUE, "nested more than");
    lc_module_release(above);
    lc_graph_destroy(g);
    lc_module_release(top); /* and no stack runs over */
}

/* ---- state ---- */

typedef struct names {
    char text[512];
    int arrays, buffers;
} names;

static lc_status collect(void *ctx, const char *name, lc_param *p, bool is_buffer)
{
    names *n = ctx;
    CHECK(p != NULL);
    strncat(n->text, name, sizeof n->text - strlen(n->text) - 2);
    strcat(n->text, " ");
    n->arrays++;
    n->buffers += is_buffer;
    return LC_OK;
}

static lc_module *small_net(void)
{
    lc_module *m = sequential(), *inner = sequential();
    OK(lc_container_push(m, conv(3, 4, 3, true)));
    OK(lc_container_push(m, norm(4)));
    OK(lc_container_push(inner, identity()));
    OK(lc_container_push(inner, conv(4, 2, 1, false)));
    OK(lc_module_adopt(m, "tail", inner));
    return m;
}

static void test_state(void)
{
    lc_module *m = small_net();
    names n = {0};
    lc_param *p;
    /* parameters come before children, as in PyTorch, whenever they were added */
    OK(lc_module_new_param(m, "late", 0, NULL));
    OK(lc_module_set_buffer(m, "hidden", NULL, true));
    OK(lc_module_each_state(m, collect, &n));
    CHECK(strcmp(n.text, "late 0.weight 0.bias 1.weight 1.bias 1.running_mean 1.running_var "
                         "tail.1.weight ") == 0);
    CHECK(n.arrays == 8 && n.buffers == 2);
    OK(lc_module_find_state(m, "tail.1.weight", &p));
    CHECK(lc_param_desc(p)->rank == 4 && lc_param_desc(p)->dim[0] == 2 && !lc_param_is_set(p));
    OK(lc_module_find_state(m, "late", &p));
    const char *wrong[] = {"",
                           ".",
                           "tail",
                           "tail.",
                           "tail.1",
                           "tail.1.bias",
                           "tail.1.weight.x",
                           "0..weight",
                           "0.weigh",
                           "hidden",
                           "tail.1.weight."};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        FAILS(lc_module_find_state(m, wrong[i], &p), LC_ERR_KEY, wrong[i]);

    /* a buffer that is not persistent is no state */
    OK(lc_param_create(LC_F32, 1, (int64_t[]){2}, &p));
    OK(lc_module_set_buffer(m, "cache", p, false));
    lc_param_release(p);
    names again = {0};
    OK(lc_module_each_state(m, collect, &again));
    CHECK(strcmp(n.text, again.text) == 0);
    FAILS(lc_module_find_state(m, "cache", &p), LC_ERR_KEY, "cache");
    lc_module_release(m);
}

static void test_paths(void)
{
    lc_module *m = small_net();
    lc_entry tail, last;
    char *path;
    CHECK(lc_module_find(m, "tail", &tail) && lc_module_find(tail.child, "1", &last));
    OK(lc_module_path(m, last.child, &path));
    CHECK(path && strcmp(path, "tail.1") == 0);
    lc_free(path);
    OK(lc_module_path(m, tail.child, &path));
    CHECK(path && strcmp(path, "tail") == 0);
    lc_free(path);
    OK(lc_module_path(m, m, &path));
    CHECK(!path);
    OK(lc_module_path(tail.child, m, &path));
    CHECK(!path);
    lc_mem_fail_after(1);
    CHECK(lc_module_path(m, last.child, &path) == LC_ERR_MEMORY && !path);
    lc_mem_fail_after(0);
    lc_module_release(m);
}

/* ---- initialisation ---- */

static const float *values(lc_module *m, const char *name, int64_t *n)
{
    lc_param *p = NULL;
    lc_storage *s = NULL;
    OK(lc_module_find_state(m, name, &p));
    OK(lc_param_storage(p, &s));
    *n = lc_desc_count(lc_param_desc(p));
    const float *data = lc_storage_data(s);
    lc_storage_release(s); /* the parameter keeps it */
    return data;
}

static double deviation(const float *x, int64_t n, double *largest)
{
    double sum = 0;
    *largest = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
        *largest = fmax(*largest, fabs(x[i]));
    }
    return sqrt(sum / (double)n);
}

static void test_init(void)
{
    lc_module *a = sequential(), *b = sequential();
    int64_t n;
    double largest;
    lc_conv2d_config grouped = {64, 96, {3, 3}, .groups = 4, .bias = true};
    for (int i = 0; i < 2; i++) {
        lc_module *m = NULL;
        if (i) /* the values do not depend on neighbours */
            OK(lc_module_adopt(b, "first", norm(9)));
        OK(lc_conv2d_create(&grouped, &m));
        OK(lc_module_adopt(i ? b : a, "conv", m));
        OK(lc_linear_create(&(lc_linear_config){100, 300, true}, &m));
        OK(lc_module_adopt(i ? b : a, "fc", m));
        OK(lc_module_adopt(i ? b : a, "bn", norm(5)));
        OK(lc_module_init(i ? b : a, 42));
    }
    const char *all[] = {"conv.weight", "conv.bias", "fc.weight",
                         "fc.bias",     "bn.weight", "bn.running_var"};
    for (int i = 0; i < 6; i++) {
        const float *x = values(a, all[i], &n);
        CHECK(memcmp(x, values(b, all[i], &n), (size_t)n * sizeof *x) == 0);
    }
    const float *w = values(a, "conv.weight", &n);
    CHECK(fabs(deviation(w, n, &largest) / sqrt(2.0 / (96 * 9)) - 1) <
          0.03);                               /* groups do not count */
    CHECK(largest > 3 * sqrt(2.0 / (96 * 9))); /* a normal law has tails */
    w = values(a, "conv.bias", &n);
    deviation(w, n, &largest);
    CHECK(largest <= 1 / sqrt(16 * 9) && largest > 0.8 / sqrt(16 * 9));
    w = values(a, "fc.weight", &n);
    CHECK(fabs(deviation(w, n, &largest) / (0.1 / sqrt(3)) - 1) < 0.03 && largest <= 0.1f);
    w = values(a, "bn.weight", &n);
    CHECK(w[0] == 1 && w[4] == 1 && values(a, "bn.running_var", &n)[3] == 1);
    CHECK(values(a, "bn.bias", &n)[2] == 0 && values(a, "bn.running_mean", &n)[1] == 0);

    w = values(a, "conv.weight", &n);
    float first = w[0];
    OK(lc_module_init(a, 43));
    CHECK(values(a, "conv.weight", &n)[0] != first);
    OK(lc_module_init(a, 42));
    CHECK(values(a, "conv.weight", &n)[0] == first);
    lc_module_release(a);
    lc_module_release(b);

    lc_batch_norm_config c;
    lc_batch_norm_config_init(&c, 3);
    c.zero_init = true;
    OK(lc_batch_norm2d_create(&c, &a));
    OK(lc_module_init(a, 1));
    CHECK(values(a, "weight", &n)[1] == 0 && values(a, "running_var", &n)[1] == 1);
    lc_module_release(a);
}

/* ---- arguments of layers ---- */

static void test_arguments(void)
{
    lc_module *m = NULL;
    lc_conv2d_config c = {4, 6, {3, 5}, .bias = false};
    OK(lc_conv2d_create(&c, &m));
    const lc_conv2d_config *made = lc_module_config(m);
    CHECK(made->stride[0] == 1 && made->dilation[1] == 1 && made->groups == 1 && made->pad[3] == 0);
    lc_module_release(m);

    c = (lc_conv2d_config){4, 6, {4, 3}, .dilation = {3, 2}, .pad_mode = 1};
    OK(lc_conv2d_create(&c, &m));
    made = lc_module_config(m);
    CHECK(made->pad[0] == 4 && made->pad[1] == 5 && made->pad[2] == 2 && made->pad[3] == 2);
    lc_module_release(m);

    c.stride[0] = 2;
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "padding='same' is not supported for strided");
    c = (lc_conv2d_config){4, 6, {3, 3}, .groups = 3};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "in_channels must be divisible by groups");
    c = (lc_conv2d_config){6, 4, {3, 3}, .groups = 3};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "out_channels must be divisible by groups");
    c = (lc_conv2d_config){0, 4, {3, 3}, .bias = false};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "in_channels must be at least 1, got 0");
    c = (lc_conv2d_config){4, -4, {3, 3}, .bias = false};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "out_channels");
    c = (lc_conv2d_config){4, 4, {3, 0}, .bias = false};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "kernel width");
    c = (lc_conv2d_config){4, 4, {3, 3}, .stride = {1, -1}};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "stride width");
    c = (lc_conv2d_config){4, 4, {3, 3}, .pad = {0, 0, -1, 0}};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "padding");
    c = (lc_conv2d_config){4, 4, {INT32_MAX, 3}, .dilation = {INT32_MAX, 1}, .pad_mode = 1};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "too large");
    c = (lc_conv2d_config){INT32_MAX, INT32_MAX, {INT32_MAX, INT32_MAX}, .bias = false};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "weight");
    c = (lc_conv2d_config){INT64_MAX, 1, {1, 1}, .bias = false};
    FAILS(lc_conv2d_create(&c, &m), LC_ERR_VALUE, "too large");

    lc_batch_norm_config b;
    lc_batch_norm_config_init(&b, 0);
    FAILS(lc_batch_norm2d_create(&b, &m), LC_ERR_VALUE, "num_features");
    FAILS(lc_linear_create(&(lc_linear_config){0, 3, true}, &m), LC_ERR_VALUE, "in_features");
    FAILS(lc_linear_create(&(lc_linear_config){3, -3, true}, &m), LC_ERR_VALUE, "out_features");
    FAILS(lc_dropout_create(&(lc_dropout_config){1.5, false}, &m), LC_ERR_VALUE,
          "between 0 and 1, but got 1.5");
    FAILS(lc_dropout_create(&(lc_dropout_config){NAN, false}, &m), LC_ERR_VALUE, "between 0 and 1");
    lc_pool2d_config p = {{.kernel = {3, 0}}};
    FAILS(lc_max_pool2d_create(&p, &m), LC_ERR_VALUE, "kernel width");
    p.attr.kernel[1] = 2;
    OK(lc_avg_pool2d_create(&p, &m));
    const lc_pool2d_attr *a = &((const lc_pool2d_config *)lc_module_config(m))->attr;
    CHECK(a->kind == LC_POOL_AVG && a->stride[0] == 3 && a->stride[1] == 2 && a->dilation[0] == 1);
    lc_module_release(m);
    FAILS(lc_adaptive_avg_pool2d_create(&(lc_adaptive_pool2d_config){{1, -1}}, &m), LC_ERR_VALUE,
          "output size");
}

/* ---- forwards ---- */

static lc_graph *graph;

static lc_value input(int rank, const int64_t *dim, const float *data)
{
    lc_desc d;
    lc_value x = LC_NONE;
    OK(lc_desc_init(&d, LC_F32, rank, dim));
    OK(lc_graph_input(graph, &d, data, &x));
    return x;
}

#define INPUT(...)                                                                                 \
    input((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}, NULL)

/* Appends, releases the module, and compares the output's shape. */
static int gives(lc_module *m, lc_value x, int rank, const int64_t *dim)
{
    lc_value y;
    lc_status status = lc_module_append(m, graph, 1, &x, &y);
    lc_module_release(m);
    if (status != LC_OK) {
        fprintf(stderr, "  %s\n", lc_error_message());
        return 0;
    }
    const lc_desc *d = lc_graph_desc(graph, y);
    return d->rank == rank && (rank == 0 || memcmp(d->dim, dim, (size_t)rank * sizeof *dim) == 0);
}

#define GIVES(m, x, ...)                                                                           \
    CHECK(gives((m), (x), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),               \
                (int64_t[]){__VA_ARGS__}))

static lc_module *softmax(int64_t dim, bool has)
{
    lc_module *m = NULL;
    OK(lc_softmax_create(&(lc_softmax_config){dim, has}, &m));
    return m;
}

static lc_module *flatten(int64_t from, int64_t to)
{
    lc_module *m = NULL;
    OK(lc_flatten_create(&(lc_flatten_config){from, to}, &m));
    return m;
}

static lc_module *adaptive(int64_t h, int64_t w)
{
    lc_module *m = NULL;
    OK(lc_adaptive_avg_pool2d_create(&(lc_adaptive_pool2d_config){{h, w}}, &m));
    return m;
}

static lc_status append_once(lc_module *m, lc_value x)
{
    lc_value y;
    lc_status status = lc_module_append(m, graph, 1, &x, &y);
    lc_module_release(m);
    return status;
}

static int softmax_axis(int rank, int64_t dim, bool has)
{
    lc_value x = input(rank, (int64_t[]){2, 3, 4, 5}, NULL);
    OK(append_once(softmax(dim, has), x));
    lc_node_view n = lc_graph_node(graph, lc_graph_node_count(graph) - 1);
    CHECK(n.op == &lc_op_softmax);
    return ((const lc_softmax_attr *)n.attr)->axis;
}

static void test_shapes(void)
{
    OK(lc_graph_create(&graph));
    lc_value image = INPUT(2, 3, 9, 7), single = INPUT(3, 9, 7);
    GIVES(conv(3, 5, 3, true), image, 2, 5, 7, 5);
    GIVES(conv(3, 5, 3, true), single, 5, 7, 5);
    lc_module *m = NULL;
    lc_conv2d_config same = {3, 4, {4, 2}, .pad_mode = 1};
    OK(lc_conv2d_create(&same, &m));
    GIVES(m, image, 2, 4, 9, 7);
    lc_pool2d_config p = {{.kernel = {2, 2}, .ceil_mode = 1}};
    OK(lc_max_pool2d_create(&p, &m));
    GIVES(m, single, 3, 5, 4);
    OK(lc_avg_pool2d_create(&p, &m));
    GIVES(m, image, 2, 3, 5, 4);
    GIVES(adaptive(0, 2), image, 2, 3, 9, 2);
    GIVES(adaptive(4, 0), single, 3, 4, 7);
    OK(lc_global_avg_pool2d_create(&m));
    GIVES(m, image, 2, 3);
    OK(lc_global_avg_pool2d_create(&m));
    GIVES(m, single, 3);
    OK(lc_linear_create(&(lc_linear_config){7, 11, false}, &m));
    GIVES(m, image, 2, 3, 9, 11);
    GIVES(flatten(1, -1), image, 2, 189);
    GIVES(flatten(0, -1), image, 378);
    GIVES(flatten(-3, 2), image, 2, 27, 7);
    GIVES(flatten(2, 2), image, 2, 3, 9, 7);
    GIVES(flatten(0, -1), input(0, NULL, NULL), 1);
    GIVES(sequential(), image, 2, 3, 9, 7);
    GIVES(small_net(), image, 2, 2, 7, 5);
    OK(lc_conv_bn_relu2d_create(&same, 1e-3, 0.1, &m));
    GIVES(m, image, 2, 4, 9, 7);

    CHECK(softmax_axis(1, 0, false) == 0 && softmax_axis(2, 0, false) == 1);
    CHECK(softmax_axis(3, 0, false) == 0 && softmax_axis(4, 0, false) == 1);
    CHECK(softmax_axis(4, -1, true) == 3 && softmax_axis(4, 2, true) == 2);
    CHECK(gives(softmax(-1, true), input(0, NULL, NULL), 0, NULL));

    FAILS(append_once(softmax(4, true), image), LC_ERR_INDEX, "[-4, 3], but got 4");
    FAILS(append_once(flatten(2, 1), image), LC_ERR_RUNTIME, "start_dim cannot come after end_dim");
    FAILS(append_once(flatten(1, -1), input(0, NULL, NULL)), LC_ERR_INDEX, "[-1, 0], but got 1");
    FAILS(append_once(norm(3), single), LC_ERR_VALUE, "expected 4D input (got 3D input)");
    CHECK(append_once(norm(4), image) != LC_OK && append_once(conv(4, 4, 1, true), image) != LC_OK);
    CHECK(append_once(conv(3, 4, 1, true), INPUT(3, 3)) != LC_OK);
    CHECK(append_once(adaptive(0, 0), INPUT(3)) != LC_OK);
    OK(lc_module_list_create(&m));
    FAILS(append_once(m, image), LC_ERR_RUNTIME, "ModuleList");
    FAILS(append_once(make_counted(), image), LC_ERR_RUNTIME, "Counted has no forward");
    m = identity();
    FAILS(lc_module_append(m, graph, 2, (lc_value[]){image, image}, &image), LC_ERR_TYPE,
          "takes 1 input, got 2");
    lc_module_release(m);
    lc_graph_destroy(graph);
}

static void test_training_mode(void)
{
    lc_module *m, *drop = NULL;
    lc_value x, y;
    OK(lc_graph_create(&graph));
    x = INPUT(2, 3, 4, 4);
    m = norm(3);
    lc_module_train(m, true);
    OK(append_once(m, x));
    int effects;
    lc_graph_effects(graph, &effects); /* running mean and variance */
    CHECK(effects == 2);
    OK(lc_dropout_create(&(lc_dropout_config){0.5, false}, &drop));
    OK(lc_module_append(drop, graph, 1, &x, &y));
    CHECK(y == x);
    lc_module_train(drop, true);
    int nodes = lc_graph_node_count(graph);
    OK(append_once(drop, x));
    CHECK(lc_graph_node_count(graph) == nodes + 1);
    OK(lc_dropout_create(&(lc_dropout_config){0, false}, &drop));
    lc_module_train(drop, true);
    nodes = lc_graph_node_count(graph);
    OK(append_once(drop, x)); /* nothing is dropped */
    CHECK(lc_graph_node_count(graph) == nodes);
    lc_graph_destroy(graph);
}

/* Without running statistics the batch's own are used, in either mode. */
static void test_batch_statistics(void)
{
    float data[2 * 3 * 2 * 2], out[2 * 3 * 2 * 2];
    for (int i = 0; i < 24; i++)
        data[i] = (float)((i * 7) % 11) + (float)(i / 4 % 3) * 100;
    lc_batch_norm_config c;
    lc_batch_norm_config_init(&c, 3);
    c.track_running_stats = false;
    lc_module *m = NULL;
    lc_param *bias = NULL;
    OK(lc_batch_norm2d_create(&c, &m));
    OK(lc_module_init(m, 1));
    OK(lc_module_find_state(m, "bias", &bias));
    lc_storage *s = NULL;
    OK(lc_storage_create(3 * sizeof(float), &s));
    memcpy(lc_storage_data(s), (float[]){1, 2, 3}, 3 * sizeof(float));
    lc_param_replace(bias, s);
    lc_storage_release(s);
    OK(lc_graph_create(&graph));
    lc_value y, x = input(4, (int64_t[]){2, 3, 2, 2}, data);
    OK(lc_module_append(m, graph, 1, &x, &y));
    void *to = out;
    OK(lc_graph_run(graph, 1, &y, &to, NULL));
    for (int ch = 0; ch < 3; ch++) {
        double mean = 0, var = 0, worst = 0;
        for (int i = 0; i < 8; i++)
            mean += data[i / 4 * 12 + ch * 4 + i % 4] / 8.0;
        for (int i = 0; i < 8; i++)
            var += pow(data[i / 4 * 12 + ch * 4 + i % 4] - mean, 2) / 8;
        for (int i = 0; i < 8; i++) {
            int k = i / 4 * 12 + ch * 4 + i % 4;
            worst = larger_error(worst, out[k] - ((data[k] - mean) / sqrt(var + 1e-5) + ch + 1));
        }
        CHECK(worst < 1e-5);
    }
    x = INPUT(1, 3, 1, 1);
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_VALUE, "more than 1 value per channel");
    x = INPUT(2, 4, 2, 2);
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_VALUE, "expected 3 channels");
    x = INPUT(0, 3, 2, 2);
    OK(lc_module_append(m, graph, 1, &x, &y));
    CHECK(y == x);
    OK(lc_module_set_buffer(m, "running_mean", bias, true));
    x = INPUT(2, 3, 2, 2);
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_RUNTIME, "running_mean and running_var");
    lc_module_release(m);
    lc_graph_destroy(graph);
}

/* ---- calling through names ---- */

static int overridden;

static lc_status override(lc_module *m, void *peer, lc_graph *g, int n_in, const lc_value *in,
                          lc_value *out)
{
    overridden++;
    CHECK(peer == &overridden && lc_module_peer(m) == peer);
    CHECK(strcmp(lc_graph_scope(g), "tail.1") == 0);
    return lc_module_class_of(m)->append(m, g, n_in, in, out);
}

static lc_status host_raises(lc_module *m, void *peer, lc_graph *g, int n_in, const lc_value *in,
                             lc_value *out)
{
    (void)m, (void)peer, (void)g, (void)n_in, (void)in, (void)out;
    return lc_fail(LC_ERR_HOST, "raised");
}

static void test_calls(void)
{
    lc_module *m = small_net(), *tail, *last;
    lc_entry e;
    lc_value y;
    OK(lc_graph_create(&graph));
    lc_value x = INPUT(1, 3, 8, 8);
    CHECK(lc_module_find(m, "tail", &e));
    tail = e.child;
    CHECK(lc_module_find(tail, "1", &e));
    last = e.child;
    lc_module_set_peer(last, &overridden);
    lc_module_set_override(last, override);
    OK(lc_module_append(m, graph, 1, &x, &y));
    CHECK(overridden == 1 && strcmp(lc_graph_scope(graph), "") == 0);
    const char *scopes[] = {"0", "1", "tail.1"};
    CHECK(lc_graph_node_count(graph) == 3);
    for (int i = 0; i < 3; i++)
        CHECK(strcmp(lc_graph_node(graph, i).scope, scopes[i]) == 0);

    /* The path stands before the message once, whole; the host's own errors are left alone. */
    OK(lc_module_adopt(tail, "0", norm(5)));
    lc_module_append(m, graph, 1, &x, &y);
    CHECK(strncmp(lc_error_message(), "tail.0: ", 8) == 0 &&
          !strstr(lc_error_message() + 8, "tail"));
    CHECK(strcmp(lc_graph_scope(graph), "") == 0);
    lc_module_set_override(last, host_raises);
    OK(lc_module_adopt(tail, "0", identity()));
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_HOST, "raised");
    CHECK(strcmp(lc_error_message(), "raised") == 0);
    OK(lc_module_set_child(tail, "1", NULL));
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_KEY,
          "tail: child '1' of this Sequential is None");
    FAILS(lc_module_call(m, "nobody", graph, x, &y), LC_ERR_KEY,
          "Sequential has no child 'nobody'");
    CHECK(lc_module_find(m, "0", &e));
    FAILS(lc_module_call(e.child, "weight", graph, x, &y), LC_ERR_KEY,
          "Conv2d has no child 'weight'");
    FAILS(lc_module_value(m, "0", graph, &y), LC_ERR_KEY, "no parameter or buffer '0'");
    OK(lc_module_set_param(e.child, "bias", NULL));
    OK(lc_module_value(e.child, "bias", graph, &y));
    CHECK(y == LC_NONE);
    OK(lc_module_set_param(e.child, "weight", NULL));
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_RUNTIME,
          "0: the weight of this Conv2d is None");
    OK(lc_module_remove(e.child, "weight"));
    FAILS(lc_module_append(m, graph, 1, &x, &y), LC_ERR_KEY,
          "0: Conv2d has no parameter or buffer 'weight'");

    /* A name that fits no buffer on the stack. */
    char name[700];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    lc_module *outer = sequential(), *inner = sequential();
    OK(lc_module_adopt(inner, name, norm(4)));
    OK(lc_module_adopt(outer, name, inner));
    CHECK(lc_module_append(outer, graph, 1, &x, &y) != LC_OK &&
          strncmp(lc_error_message(), "...nnnn", 7) == 0);
    OK(lc_module_adopt(inner, name, norm(3)));
    OK(lc_module_append(outer, graph, 1, &x, &y));
    CHECK(strlen(lc_graph_node(graph, lc_graph_node_count(graph) - 1).scope) == 2 * 699 + 1);
    lc_module_release(outer);
    lc_module_release(m);
    lc_graph_destroy(graph);
}

static void test_containers(void)
{
    lc_module *m = sequential();
    lc_entry e;
    for (int i = 0; i < 12; i++)
        OK(lc_container_push(m, identity()));
    CHECK(lc_module_find(m, "11", &e) && lc_module_entry_count(m) == 12);
    OK(lc_module_remove(m, "3"));
    OK(lc_container_push(m, identity())); /* 11 is taken */
    CHECK(lc_module_find(m, "12", &e) && lc_module_entry_count(m) == 12);
    lc_module_release(m);
}

/* ---- memory that runs out ---- */

static void test_out_of_memory(void)
{
    lc_mem_stats before = lc_mem_stats_get();
    for (int n = 1;; n++) {
        lc_module *m = NULL;
        lc_conv2d_config c = {3, 4, {3, 3}, .bias = true};
        lc_mem_fail_after(n);
        lc_status status = lc_conv_bn_relu2d_create(&c, 1e-5, 0.1, &m);
        if (status == LC_OK)
            status = lc_module_init(m, 1);
        lc_mem_fail_after(0);
        lc_module_release(m);
        if (lc_mem_stats_get().live_bytes != before.live_bytes) {
            CHECK(!"memory is lost");
            break;
        }
        if (status == LC_OK) {
            CHECK(n > 20);
            break;
        }
        CHECK(status == LC_ERR_MEMORY);
    }
}

int main(void)
{
    test_entries();
    test_paths();
    test_cycles();
    test_depth();
    test_state();
    test_init();
    test_arguments();
    test_shapes();
    test_training_mode();
    test_batch_statistics();
    test_calls();
    test_containers();
    test_out_of_memory();
    return check_report();
}
