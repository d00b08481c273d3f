/* Tests of csrc/models: the 24 variants, their names, sizes and costs, blocks of a host, options,
 * errors, the C API. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "lucid_c.h"
#include "models/info.h"
#include "models/resnet.h"

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

/* ---- sizes and costs ---- */

/* macs at 224x224 (0: not known from elsewhere); the model card's size and FLOPs (0: not on it) */
static const struct expected {
    const char *name;
    int64_t params, macs, card_size, card_flops;
} expected[] = {
    {"resnet_18", 11689512, 1814073344, 224, 2337073152},
    {"resnet_34", 21797672, 0, 0, 0},
    {"resnet_50", 25557032, 4089184256, 224, 5282531328},
    {"resnet_101", 44549160, 0, 0, 0},
    {"resnet_152", 60192808, 0, 0, 0},
    {"resnet_200", 64669864, 15007481856, 0, 0},
    {"resnet_269", 102069416, 0, 0, 0},
    {"resnet_1001", 149071016, 0, 0, 0},
    {"wide_resnet_50", 68883240, 0, 0, 0},
    {"wide_resnet_101", 126886696, 0, 0, 0},
    {"resnext_50_32x4d", 25028904, 4230479872, 224, 5472648192},
    {"resnext_101_32x4d", 44177704, 0, 0, 0},
    {"resnext_101_32x8d", 88791336, 0, 0, 0},
    {"resnext_101_32x16d", 194026792, 0, 0, 0},
    {"resnext_101_32x32d", 468530472, 0, 0, 0},
    {"resnext_101_64x4d", 83455272, 0, 0, 0},
    {"resnest_14", 10611688, 2749405184, 224, 3548594464},
    {"resnest_26", 17069448, 0, 224, 4678918720},
    {"resnest_50", 27483240, 5371160576, 224, 6937106336},
    {"resnest_101", 48275016, 0, 256, 17423183648},
    {"resnest_200", 70201544, 0, 320, 45954387872},
    {"resnest_269", 110929480, 0, 416, 100830307104},
    {"resnest_50_4s2x40d", 30417592, 4369060736, 224, 5657064720},
    {"resnest_50_1s4x24d", 25677000, 4399827456, 224, 5686764544},
};
enum { VARIANTS = sizeof expected / sizeof *expected };

static lc_status add_params(void *ctx, const char *name, lc_param *p, bool is_buffer)
{
    (void)name;
    CHECK(!lc_param_is_set(p)); /* making a model costs no memory for its weights */
    if (!is_buffer)
        *(int64_t *)ctx += lc_desc_count(lc_param_desc(p));
    return LC_OK;
}

static lc_module *make(const lc_resnet_config *c)
{
    lc_module *m = NULL;
    OK(lc_resnet_create(c, &m));
    return m;
}

static void test_counts(void)
{
    CHECK(lc_variant_count() == VARIANTS && lc_model_count() == VARIANTS);
    for (int i = 0; i < VARIANTS; i++) {
        const struct expected *e = &expected[i];
        const lc_variant *v = lc_variant_find(e->name);
        CHECK(v && v == lc_variant_get(i) && strcmp(lc_model_variant(i), e->name) == 0);
        for (int lucid2 = 0; lucid2 < 2; lucid2++) {
            lc_resnet_config c = v->config;
            if (lucid2)
                OK(lc_resnet_config_lucid2(&c));
            lc_module *m = make(&c);
            int64_t count = 0;
            /* lucid 2.x's deep stem lacks the last batch norm */
            int64_t fewer = lucid2 && c.stem == LC_STEM_DEEP ? 4 * c.stem_width : 0;
            OK(lc_module_each_state(m, add_params, &count));
            if (count != e->params - fewer)
                fprintf(stderr, "  %s: %lld\n", e->name, (long long)count);
            CHECK(count == e->params - fewer);
            lc_module_release(m);
        }
    }
    CHECK(!lc_variant_find("resnet_51") && !lc_variant_find(NULL) && !lc_variant_get(-1));
    CHECK(!lc_variant_get(VARIANTS) && !lc_model_variant(VARIANTS));
}

static lc_info info_of(lc_module *m, int64_t height, int64_t width)
{
    lc_info info = {0};
    OK(lc_model_info(m, NULL, (int64_t[]){1, 3, height, width}, &info));
    return info;
}

static void test_costs(void)
{
    for (int i = 0; i < VARIANTS; i++) {
        const struct expected *e = &expected[i];
        if (!e->macs && !e->card_size)
            continue;
        lc_module *m = make(&lc_variant_find(e->name)->config);
        if (e->macs) {
            lc_info info = info_of(m, 224, 224);
            CHECK(info.macs == e->macs && info.params == e->params);
            lc_info_free(&info);
        }
        if (e->card_size) {
            lc_info info = info_of(m, e->card_size, e->card_size * 1546 / 1213);
            CHECK(info.card_flops == e->card_flops);
            lc_info_free(&info);
        }
        lc_module_release(m);
    }
}

static void test_info_rows(void)
{
    lc_resnet_config c = lc_variant_find("resnest_14")->config;
    c.num_classes = 7;
    lc_module *m = make(&c);
    lc_info info = info_of(m, 64, 96);
    int64_t params = 0, macs = 0, card = 0;
    for (int i = 0; i < info.count; i++) {
        params += info.rows[i].params;
        macs += info.rows[i].macs;
        card += info.rows[i].card_flops;
    }
    CHECK(params == info.params && macs == info.macs && card == info.card_flops);
    const lc_info_row *first = &info.rows[0], *last = &info.rows[info.count - 1];
    CHECK(strcmp(first->scope, "conv1.0") == 0 && strcmp(first->op, "conv2d") == 0);
    CHECK(first->params == 32 * 27 && first->out.dim[1] == 32 && first->out.dim[3] == 48);
    CHECK(first->macs == 32 * 27 * 32 * 48);
    CHECK(strcmp(last->scope, "fc") == 0 && strcmp(last->op, "linear") == 0 &&
          last->params == 2049 * 7);
    CHECK(last->in.rank == 2 && last->in.dim[1] == 2048 && last->out.dim[1] == 7);
    CHECK(info.largest_bytes == 2 * 64 * 32 * 48 * 4);
    lc_info_free(&info);

    /* Shared modules count once, in the tree and in the rows. */
    lc_entry e;
    int64_t before = info.params;
    CHECK(lc_module_find(m, "layer4", &e));
    OK(lc_module_set_child(m, "again", e.child));
    info = info_of(m, 64, 96);
    CHECK(info.params > before);
    params = info.params;
    lc_info_free(&info);
    OK(lc_module_remove(m, "again"));
    info = info_of(m, 64, 96);
    CHECK(info.params == params);
    lc_info_free(&info);

    /* In a graph of the caller's, after what is there already. */
    lc_graph *g = NULL;
    lc_desc d;
    lc_value x;
    OK(lc_graph_create(&g));
    OK(lc_desc_init(&d, LC_F32, 4, (int64_t[]){1, 3, 64, 96}));
    OK(lc_graph_input(g, &d, NULL, &x));
    OK(lc_graph_append(g, &lc_op_unary, &(lc_unary_attr){0}, 1, &x, &x));
    OK(lc_model_info(m, g, (int64_t[]){1, 3, 64, 96}, &info));
    CHECK(info.count == lc_graph_node_count(g) - 1 && strcmp(info.rows[0].scope, "conv1.0") == 0);
    lc_info_free(&info);
    lc_graph_destroy(g);

    FAILS(lc_model_info(m, NULL, (int64_t[]){1, 4, 64, 64}, &info), LC_ERR_VALUE, "conv1.0: ");
    FAILS(lc_model_info(m, NULL, (int64_t[]){1, 3, -1, 64}, &info), LC_ERR_VALUE, "-1");
    lc_module_release(m);
}

/* ---- structure ---- */

static int has_state(lc_module *m, const char *name, int rank, const int64_t *dim)
{
    lc_param *p;
    if (lc_module_find_state(m, name, &p) != LC_OK)
        return 0;
    const lc_desc *d = lc_param_desc(p);
    return d->rank == rank && memcmp(d->dim, dim, (size_t)rank * sizeof *dim) == 0;
}

#define HAS(m, name, ...)                                                                          \
    CHECK(has_state((m), (name), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),        \
                    (int64_t[]){__VA_ARGS__}))
#define LACKS(m, name)                                                                             \
    do {                                                                                           \
        lc_param *p_;                                                                              \
        CHECK(lc_module_find_state((m), (name), &p_) == LC_ERR_KEY);                               \
    } while (0)

/* The dotted path's module. */
static lc_module *at(lc_module *m, const char *path)
{
    char part[64];
    while (m && *path) {
        size_t n = strcspn(path, ".");
        lc_entry e;
        memcpy(part, path, n);
        part[n] = '\0';
        m = lc_module_find(m, part, &e) ? e.child : NULL;
        path += n + (path[n] == '.');
    }
    return m;
}

static void test_structure(void)
{
    static const char *const children[] = {"conv1",  "bn1",    "relu",   "maxpool",     "layer1",
                                           "layer2", "layer3", "layer4", "global_pool", "fc"};
    lc_module *m = make(&lc_variant_find("resnet_50")->config);
    CHECK(lc_module_entry_count(m) == 10 && lc_module_class_of(m) == &lc_class_resnet);
    for (int i = 0; i < 10; i++)
        CHECK(strcmp(lc_module_entry(m, i).name, children[i]) == 0);
    HAS(m, "conv1.weight", 64, 3, 7, 7);
    LACKS(m, "conv1.bias");
    HAS(m, "layer1.0.downsample.0.weight", 256, 64, 1, 1);
    HAS(m, "layer1.0.downsample.1.running_var", 256);
    LACKS(m, "layer1.1.downsample.0.weight");
    HAS(m, "layer4.2.conv2.weight", 512, 512, 3, 3);
    HAS(m, "fc.weight", 1000, 2048);
    const lc_conv2d_config *conv2 = lc_module_config(at(m, "layer2.0.conv2"));
    const lc_conv2d_config *conv1 = lc_module_config(at(m, "layer2.0.conv1"));
    CHECK(conv2->stride[0] == 2 && conv2->pad[3] == 1 && conv1->stride[0] == 1);
    const lc_resnet_config *config = lc_module_config(m);
    CHECK(config->layers[2] == 6 && !config->class_name && !config->block.create);
    CHECK(lc_module_class_find("Bottleneck") == lc_module_class_of(at(m, "layer3.5")));
    CHECK(lc_module_class_find("ResNet") == &lc_class_resnet && !lc_module_class_find("Nothing"));
    CHECK(lc_module_class_of(m)->config_bytes == lc_module_config_bytes(m));
    lc_module_release(m);

    m = make(&lc_variant_find("resnet_18")->config);
    LACKS(m, "layer1.0.downsample.0.weight");
    HAS(m, "layer2.0.downsample.0.weight", 128, 64, 1, 1);
    LACKS(m, "layer1.0.conv3.weight");
    lc_module_release(m);

    m = make(&lc_variant_find("resnext_50_32x4d")->config);
    HAS(m, "layer1.0.conv2.weight", 128, 4, 3, 3);
    lc_module_release(m);

    lc_resnet_config c = lc_variant_find("resnet_200")->config;
    m = make(&c);
    HAS(m, "layer1.0.bn1.weight", 64);
    HAS(m, "layer1.0.bn3.weight", 64);
    LACKS(m, "norm.weight");
    lc_module_release(m);
    c.final_norm = true;
    c.drop_rate = 0.2;
    c.num_classes = 0;
    m = make(&c);
    HAS(m, "norm.running_mean", 2048);
    LACKS(m, "fc.weight");
    CHECK(lc_module_class_of(at(m, "drop")) == &lc_class_dropout);
    CHECK(lc_module_class_of(at(m, "fc")) == &lc_class_identity);
    lc_module_release(m);

    m = make(&lc_variant_find("resnest_50_4s2x40d")->config);
    HAS(m, "conv1.6.weight", 64, 32, 3, 3);
    HAS(m, "bn1.weight", 64);
    HAS(m, "layer1.0.conv2.conv.weight", 320, 10, 3, 3);
    HAS(m, "layer1.0.conv2.fc1.weight", 80, 40, 1, 1);
    HAS(m, "layer1.0.conv2.fc2.bias", 320);
    HAS(m, "layer1.0.downsample.1.weight", 256, 64, 1, 1);
    HAS(m, "layer2.0.downsample.2.weight", 512);
    CHECK(at(m, "layer2.0.avd_first") && !at(m, "layer2.0.avd_last") &&
          !at(m, "layer1.0.avd_first"));
    CHECK(lc_module_class_of(at(m, "layer1.0.downsample.0")) == &lc_class_identity);
    CHECK(lc_module_class_of(at(m, "layer2.0.downsample.0")) == &lc_class_avg_pool2d);
    lc_module_release(m);

    c = lc_variant_find("resnest_50_4s2x40d")->config;
    OK(lc_resnet_config_lucid2(&c));
    m = make(&c);
    LACKS(m, "bn1.weight");
    HAS(m, "layer2.0.downsample.1.weight", 512, 256, 1, 1);
    CHECK(!at(m, "layer2.0.avd_first") && at(m, "layer2.0.avd_last"));
    CHECK(lc_module_class_of(at(m, "layer2.0.downsample.0")) == &lc_class_identity);
    conv1 = lc_module_config(at(m, "layer2.0.downsample.1"));
    CHECK(conv1->stride[0] == 2);
    const lc_pool2d_config *pool = lc_module_config(at(m, "maxpool"));
    CHECK(pool->attr.pad_with_zeros == 1);
    lc_module_release(m);
}

static void test_attention_width(void)
{
    /* in, radix -> timm's rule, lucid's; the last is rounded down by more than a tenth first */
    static const int64_t cases[][4] = {{64, 2, 32, 32},  {128, 2, 64, 64}, {80, 4, 80, 80},
                                       {10, 1, 32, 32},  {148, 1, 40, 37}, {84, 2, 40, 42},
                                       {178, 1, 48, 44}, {143, 1, 40, 35}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int lucid2 = 0; lucid2 < 2; lucid2++) {
            lc_split_attention_config c = {cases[i][0], cases[i][0], 1,      1, 1,
                                           1,           cases[i][1], lucid2, 0};
            lc_module *m = NULL;
            OK(lc_split_attention_create(&c, &m));
            HAS(m, "fc1.weight", cases[i][2 + lucid2], cases[i][0], 1, 1);
            lc_module_release(m);
        }
}

static void test_options(void)
{
    lc_resnet_config c;
    lc_info info;
    lc_resnet_config_init(&c);
    c.block = lc_block_resnest_bottleneck;
    c.args.radix = 0;
    c.args.cardinality = 2;
    c.args.zero_last_gamma = true;
    c.stem = LC_STEM_DEEP;
    c.stem_width = 5;
    c.channels[0] = 16;
    lc_module *m = make(&c);
    HAS(m, "conv1.6.weight", 10, 5, 3, 3);
    HAS(m, "layer1.0.conv2.weight", 32, 16, 3, 3);
    HAS(m, "layer1.0.bn2.weight", 32);
    OK(lc_module_init(m, 3));
    lc_param *p = NULL;
    lc_storage *s = NULL;
    OK(lc_module_find_state(m, "layer2.1.bn3.weight", &p));
    OK(lc_param_storage(p, &s));
    CHECK(((float *)lc_storage_data(s))[0] == 0);
    lc_storage_release(s);
    OK(lc_module_find_state(m, "layer2.1.bn2.weight", &p));
    OK(lc_param_storage(p, &s));
    CHECK(((float *)lc_storage_data(s))[0] == 1);
    lc_storage_release(s);
    info = info_of(m, 33, 47);
    CHECK(info.rows[info.count - 1].out.dim[1] == 1000);
    lc_info_free(&info);
    lc_module_release(m);

    /* A pool that leaves images is flattened for the head. */
    lc_resnet_config_init(&c);
    m = make(&c);
    lc_module *adaptive = NULL;
    OK(lc_adaptive_avg_pool2d_create(&(lc_adaptive_pool2d_config){{1, 1}}, &adaptive));
    OK(lc_module_adopt(m, "global_pool", adaptive));
    info = info_of(m, 64, 64);
    CHECK(info.rows[info.count - 1].out.rank == 2);
    lc_info_free(&info);

    /* A child that is taken away is missed by name. */
    OK(lc_module_remove(at(m, "layer3.1"), "bn2"));
    FAILS(lc_model_info(m, NULL, (int64_t[]){1, 3, 64, 64}, &info), LC_ERR_KEY,
          "layer3.1: BasicBlock has no child 'bn2'");
    lc_module_release(m);
}

static void test_refusals(void)
{
    lc_module *m = NULL;
    lc_resnet_config good, c;
    lc_resnet_config_init(&good);
    good.block = lc_block_bottleneck;
#define REFUSED(change, text)                                                                      \
    do {                                                                                           \
        c = good;                                                                                  \
        change;                                                                                    \
        FAILS(lc_resnet_create(&c, &m), LC_ERR_VALUE, text);                                       \
    } while (0)
    REFUSED(c.layers[1] = 0, "layers[1] must be at least 1, got 0");
    REFUSED(c.layers[3] = -3, "layers[3]");
    REFUSED(c.layers[0] = 1000000, "layers[0] is too large");
    REFUSED(c.channels[2] = 0, "channels[2]");
    REFUSED(c.channels[2] = INT64_MAX, "channels[2] is too large");
    REFUSED(c.channels[2] = INT32_MAX, "expansion");
    REFUSED(c.num_classes = -1, "num_classes");
    REFUSED(c.in_channels = 0, "in_channels");
    REFUSED(c.stem_width = 0, "stem_width");
    REFUSED(c.class_name = "VGG", "VGG");
    REFUSED(c.class_name = NULL, "class");
    REFUSED(c.block.create = NULL, "no block");
    REFUSED(c.block.expansion = 0, "expansion");
    REFUSED(c.drop_rate = 2, "between 0 and 1");
    REFUSED(c.args.cardinality = 0, "cardinality");
    REFUSED(c.args.base_width = 0, "base_width");
    REFUSED((c.channels[0] = 1, c.args.base_width = 4), "a width of 0");
    REFUSED(c.args.cardinality = INT32_MAX, "a width of more than");
    REFUSED((c.block = lc_block_basic, c.args.cardinality = 2), "BasicBlock");
    REFUSED((c.block = lc_block_resnest_bottleneck, c.args.radix = -1), "radix");
    c.block = lc_block_resnest_bottleneck;
    c.args = (lc_block_args){.cardinality = 3, .base_width = 8, .dilation = 1, .radix = 1};
    FAILS(lc_resnet_create(&c, &m), LC_ERR_VALUE, "divisible by groups"); /* attention width 32 */

    c = lc_variant_find("resnest_14")->config;
    c.stem = LC_STEM_PLAIN;
    FAILS(lc_resnet_config_lucid2(&c), LC_ERR_VALUE, "deep stem");
}

/* ---- a block of the host's ---- */

typedef struct host {
    int calls, fail_at, downsamples, first;
} host;

static lc_status append_host(lc_module *self, lc_graph *g, int n_in, const lc_value *in,
                             lc_value *out)
{
    (void)n_in;
    lc_entry e;
    if (lc_module_find(self, "shortcut", &e) && e.child)
        return lc_module_call(self, "shortcut", g, in[0], out);
    *out = in[0];
    return LC_OK;
}

static const lc_module_class host_class = {.name = "HostBlock", .append = append_host};

static lc_status create_host(void *ctx, const lc_block_args *a, lc_module **out)
{
    host *h = ctx;
    h->calls++;
    h->first += a->is_first;
    h->downsamples += a->downsample != NULL;
    lc_status status = h->calls == h->fail_at ? lc_fail(LC_ERR_HOST, "raised") : LC_OK;
    if (status == LC_OK)
        status = lc_module_create(&host_class, 0, out);
    if (status == LC_OK)
        status = lc_module_set_child(*out, "shortcut", a->downsample);
    lc_module_release(a->downsample);
    return status;
}

static void test_host_block(void)
{
    host h = {0, 0, 0, 0};
    lc_module *m = NULL;
    lc_resnet_config c;
    lc_resnet_config_init(&c);
    c.block = (lc_block_type){"HostBlock", 3, false, create_host, &h};
    m = make(&c);
    CHECK(h.calls == 8 && h.downsamples == 4 && h.first == 4);
    HAS(m, "fc.weight", 1000, 3 * 512);
    HAS(m, "layer1.0.shortcut.0.weight", 192, 64, 1, 1);
    lc_info info = info_of(m, 64, 64);
    CHECK(info.rows[info.count - 1].out.dim[1] == 1000);
    lc_info_free(&info);
    lc_module_release(m);
    lc_graph *pool = NULL; /* what is kept between recordings is not lost */
    OK(lc_graph_create(&pool));
    lc_graph_destroy(pool);
    int64_t before = lc_mem_stats_get().live_bytes;
    for (int i = 1; i <= 8; i++) {
        h = (host){0, i, 0, 0};
        FAILS(lc_resnet_create(&c, &m), LC_ERR_HOST, "raised");
        CHECK(lc_mem_stats_get().live_bytes == before);
    }
}

/* ---- memory that runs out ---- */

static void test_out_of_memory(const char *name)
{
    int64_t before = lc_mem_stats_get().live_bytes;
    for (int n = 1;; n++) {
        lc_model *m = NULL;
        lc_mem_fail_after(n);
        lc_status status = lc_model_create(name, 10, 3, NULL, &m);
        lc_mem_fail_after(0);
        if (status == LC_OK)
            lc_model_destroy(m);
        if (lc_mem_stats_get().live_bytes != before) {
            CHECK(!"memory is lost");
            return;
        }
        if (status == LC_OK) {
            CHECK(n > 300);
            return;
        }
        CHECK(status == LC_ERR_MEMORY);
    }
}

/* ---- the C API ---- */

static void test_c_api(void)
{
    lc_model *m = NULL;
    FAILS(lc_model_create("resnet_19", 10, 3, NULL, &m), LC_ERR_KEY, "resnet_19");
    FAILS(lc_model_create(NULL, 10, 3, NULL, &m), LC_ERR_KEY, "unknown model");
    FAILS(lc_model_create("resnet_18", 10, 0, NULL, &m), LC_ERR_VALUE, "in_channels");
    FAILS(lc_model_create("resnet_18", 10, 3, "lucid3", &m), LC_ERR_VALUE, "lucid3");
    OK(lc_model_create("resnet_18", 10, 1, "lucid2", &m));
    CHECK(lc_model_state_count(m) == 102);
    const char *name = NULL;
    int rank = 0;
    int64_t shape[8];
    OK(lc_model_state(m, 0, &name, &rank, shape));
    CHECK(strcmp(name, "conv1.weight") == 0 && rank == 4 && shape[1] == 1 && shape[3] == 7);
    OK(lc_model_state(m, 101, &name, &rank, shape));
    CHECK(strcmp(name, "fc.bias") == 0 && rank == 1 && shape[0] == 10);
    FAILS(lc_model_state(m, 102, &name, &rank, shape), LC_ERR_INDEX, "102");
    FAILS(lc_model_state(m, -1, &name, &rank, shape), LC_ERR_INDEX, "-1");

    float bias[10], got[11], logits[20], again[20];
    static float images[2 * 40 * 36];
    for (int i = 0; i < 10; i++)
        bias[i] = (float)i - 4.5f;
    for (int i = 0; i < 2 * 40 * 36; i++)
        images[i] = (float)((i * 37) % 101) / 50 - 1;
    OK(lc_model_set(m, "fc.bias", bias, 1, (int64_t[]){10}));
    OK(lc_model_get(m, "fc.bias", got, 11));
    CHECK(memcmp(bias, got, sizeof bias) == 0);
    FAILS(lc_model_get(m, "fc.bias", got, 9), LC_ERR_VALUE, "room for 9");
    FAILS(lc_model_get(m, "fc", got, 9), LC_ERR_KEY, "'fc'");
    FAILS(lc_model_set(m, "fc.bias", bias, 1, (int64_t[]){9}), LC_ERR_VALUE,
          "has shape (10,), got (9,)");
    FAILS(lc_model_set(m, "fc.bias", bias, 2, (int64_t[]){1, 10}), LC_ERR_VALUE, "got (1, 10)");
    FAILS(lc_model_set(m, "fc.bias", bias, 9, shape), LC_ERR_VALUE, "9");
    FAILS(lc_model_set(m, "fc.bias", NULL, 1, (int64_t[]){10}), LC_ERR_VALUE, "data is NULL");
    FAILS(lc_model_set(m, NULL, bias, 1, (int64_t[]){10}), LC_ERR_VALUE, "name is NULL");

    /* Unset weights are zeros: the bias comes out. */
    OK(lc_model_run(m, images, 2, 40, 36, logits));
    CHECK(memcmp(logits, bias, sizeof bias) == 0 && memcmp(logits + 10, bias, sizeof bias) == 0);
    OK(lc_model_init(m, 5));
    OK(lc_model_run(m, images, 2, 40, 36, logits));
    OK(lc_model_run(m, images + 40 * 36, 1, 40, 36, again));
    CHECK(memcmp(logits + 10, again, sizeof bias) == 0 && isfinite(logits[0]) &&
          logits[0] != logits[10]);
    OK(lc_model_run(m, NULL, 0, 40, 36, NULL));
    FAILS(lc_model_run(m, NULL, 1, 40, 36, logits), LC_ERR_VALUE, "images is NULL");
    FAILS(lc_model_run(m, images, -1, 40, 36, logits), LC_ERR_VALUE, "-1");
    CHECK(lc_model_run(m, images, 1, 0, 36, logits) != LC_OK);
    CHECK(strcmp(lc_config_isa(), "scalar") == 0 || strncmp(lc_config_isa(), "avx", 3) == 0);
    CHECK(lc_config_threads() >= 1 && lc_error_text() == lc_error_message());
    FAILS(lc_config_set_threads(0), LC_ERR_VALUE, "0");
    lc_model_destroy(m);
    lc_model_destroy(NULL);
}

int main(void)
{
    test_counts();
    test_costs();
    test_info_rows();
    test_structure();
    test_attention_width();
    test_options();
    test_refusals();
    test_host_block();
    test_out_of_memory("resnet_18");
    test_out_of_memory("resnest_14");
    test_c_api();
    return check_report();
}
