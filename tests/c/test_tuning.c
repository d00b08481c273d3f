/* The list of algorithms of a convolution, the table of measured layers, explaining a graph. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "graph/explain.h"
#include "kernels/kernels.h"
#include "ops/conv_tuning.h"

static lc_conv2d_attr attr3x3(void)
{
    lc_conv2d_attr a;
    memset(&a, 0, sizeof a);
    a.stride[0] = a.stride[1] = a.dilation[0] = a.dilation[1] = 1;
    for (int i = 0; i < 4; i++)
        a.pad[i] = 1;
    a.groups = 1;
    return a;
}

static void layer(lc_desc in[2], int64_t n, int64_t size)
{
    lc_desc_init(&in[0], LC_F32, 4, (int64_t[]){n, 64, size, size});
    lc_desc_init(&in[1], LC_F32, 4, (int64_t[]){48, 64, 3, 3});
    in[0].layout = lc_layout_blocked(lc_kernels_get()->block, 64, 1);
}

/* y of a layer */
static lc_desc output(const lc_conv2d_attr *a, const lc_desc in[2])
{
    lc_desc out;
    int n_out;
    CHECK(lc_op_conv2d.infer(a, 2, in, &n_out, &out) == LC_OK);
    out.layout = lc_layout_blocked(lc_kernels_get()->block, out.dim[1], 1);
    return out;
}

static lc_conv_algorithm choose(const lc_conv2d_attr *a, const lc_desc in[2])
{
    const lc_desc out = output(a, in);
    return lc_conv_choose(a, in, &out);
}

static void check_candidates(void)
{
    lc_conv2d_attr a = attr3x3();
    lc_desc in[2];
    lc_candidate c;
    layer(in, 2, 24);
    const lc_desc out = output(&a, in);
    int chosen = 0, count = 0, first = -1;
    for (; lc_conv_candidate(&a, in, &out, count, &c); count++) {
        CHECK(lc_conv_algorithm_named(c.name) >= 0);
        if (!c.refuses && !c.avoids && first < 0)
            first = count;
        if (c.chosen) {
            chosen++;
            CHECK(count == first && lc_conv_algorithm_named(c.name) == (int)choose(&a, in));
        }
    }
    CHECK(count >= 2 && chosen == 1);
    CHECK(!lc_conv_candidate(&a, in, &out, -1, &c) && !lc_conv_candidate(&a, in, &out, count, &c));
    CHECK(lc_conv_algorithm_named("fastest") == -1);
}

static void check_table(void)
{
    lc_conv2d_attr a = attr3x3();
    lc_desc in[2], other[2];
    layer(in, 1, 24);
    layer(other, 1, 25);
    const lc_conv_algorithm usual = choose(&a, in);
    CHECK(usual != LC_CONV_DIRECT);
    lc_conv_tuned_layer tuned = {{0}, LC_CONV_DIRECT};
    lc_conv_tuning_key(&a, in, tuned.key);
    uint32_t version = lc_tuning_version();
    CHECK(lc_conv_tuning_find(&a, in) == -1);
    CHECK(lc_conv_tuning_set(1, &tuned) == LC_OK && lc_tuning_version() != version);
    version = lc_tuning_version();
    CHECK(choose(&a, in) == LC_CONV_DIRECT);
    in[0].dim[0] = 33; /* whatever the batch */
    CHECK(choose(&a, in) == LC_CONV_DIRECT);
    CHECK(choose(&a, other) == usual);
    CHECK(lc_conv_tuning_set(1, &tuned) == LC_OK && lc_tuning_version() == version);
    lc_mem_fail_after(1);
    CHECK(lc_conv_tuning_set(1, &tuned) == LC_ERR_MEMORY);
    lc_mem_fail_after(0);
    CHECK(choose(&a, in) == LC_CONV_DIRECT);
    a.flags = LC_CONV_FORCED; /* stronger than the table */
    a.algorithm = usual;
    CHECK(choose(&a, in) == usual);
    a = attr3x3();
    CHECK(lc_conv_tuning_set(0, NULL) == LC_OK && lc_tuning_version() != version);
    CHECK(choose(&a, in) == usual);
    /* what refuses a layer does not get it */
    a.stride[0] = 2;
    lc_conv_tuning_key(&a, in, tuned.key);
    tuned.algorithm = usual;
    CHECK(lc_conv_tuning_set(1, &tuned) == LC_OK);
    CHECK(choose(&a, in) != usual);
    CHECK(lc_conv_tuning_set(0, NULL) == LC_OK);
}

typedef struct seen {
    int count;
    bool stop, right;
} seen;

static lc_status see(void *ctx, const lc_choice *c)
{
    seen *s = ctx;
    s->count++;
    s->right = strcmp(c->scope, "a.conv") == 0 && c->op == &lc_op_conv2d && c->n_in == 2 &&
               c->in[1].dim[0] == 48 && c->in[0].layout.block == lc_kernels_get()->block &&
               (((const lc_conv2d_attr *)c->attr)->flags & LC_CONV_RELU);
    return s->stop ? lc_fail(LC_ERR_HOST, "enough") : LC_OK;
}

static void check_explain(void)
{
    lc_graph *g;
    lc_param *p;
    lc_value x, in[2], y;
    lc_desc d[2];
    lc_conv2d_attr a = attr3x3();
    lc_unary_attr relu;
    memset(&relu, 0, sizeof relu);
    layer(d, 1, 24);
    d[0].layout = LC_PLAIN;
    CHECK(lc_graph_create(&g) == LC_OK);
    CHECK(lc_param_create(LC_F32, 4, d[1].dim, &p) == LC_OK);
    CHECK(lc_graph_input(g, &d[0], NULL, &x) == LC_OK);
    CHECK(lc_graph_param(g, p, &in[1]) == LC_OK);
    in[0] = x;
    CHECK(lc_graph_set_scope(g, "a.conv") == LC_OK);
    CHECK(lc_graph_append(g, &lc_op_conv2d, &a, 2, in, &y) == LC_OK);
    CHECK(lc_graph_set_scope(g, "a.relu") == LC_OK);
    CHECK(lc_graph_append(g, &lc_op_unary, &relu, 1, &y, &y) == LC_OK);
    seen s = {0, false, false};
    CHECK(lc_graph_explain(g, 1, &y, see, &s) == LC_OK && s.count == 1 && s.right);
    s.stop = true;
    CHECK(lc_graph_explain(g, 1, &y, see, &s) == LC_ERR_HOST && s.count == 2);
    for (int i = 1; i < 12; i++) { /* memory that runs out leaves nothing behind */
        lc_mem_fail_after(i);
        lc_status status = lc_graph_explain(g, 1, &y, see, &s);
        lc_mem_fail_after(0);
        CHECK(status == LC_ERR_MEMORY || status == LC_ERR_HOST);
    }
    lc_graph_destroy(g);
    lc_param_release(p);
}

int main(void)
{
    check_candidates();
    check_table();
    check_explain();
    return check_report();
}
