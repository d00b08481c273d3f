/* The second half of test_ops.c: descriptions, reductions, movement, layouts, split attention,
 * wrong arguments. */

/* ---- descriptions ---- */

static void test_desc(void)
{
    lc_desc d;
    char text[LC_SHAPE_TEXT];
    CHECK(lc_desc_init(&d, LC_F32, 4, (int64_t[]){2, 20, 5, 7}) == LC_OK);
    CHECK(lc_desc_count(&d) == 1400 && lc_desc_bytes(&d) == 5600);
    CHECK(strcmp(lc_shape_text(&d, text), "(2, 20, 5, 7)") == 0);
    d.layout = lc_layout_blocked(8, 20, 4);
    CHECK(d.layout.groups == 4 && lc_desc_padded_channels(&d) == 32 &&
          lc_desc_bytes(&d) == 2 * 32 * 35 * 4);
    CHECK(lc_desc_channel_slot(&d, 4) == 4 && lc_desc_channel_slot(&d, 5) == 8 &&
          lc_desc_channel_slot(&d, 19) == 28);
    CHECK(lc_layout_equal(lc_layout_blocked(8, 32, 4), (lc_layout){8, 1})); /* nothing to pad */
    CHECK(lc_layout_equal(lc_layout_blocked(16, 32, 4),
                          (lc_layout){16, 1})); /* groups share blocks */
    CHECK(lc_layout_equal(lc_layout_blocked(16, 96, 4), (lc_layout){16, 4}));
    CHECK(lc_layout_equal(lc_layout_blocked(1, 96, 4), LC_PLAIN));
    d.layout = (lc_layout){8, 1};
    CHECK(lc_desc_padded_channels(&d) == 24 && lc_desc_channel_slot(&d, 19) == 19);
    CHECK(!lc_layout_same_memory(&d, LC_PLAIN, d.layout) &&
          lc_layout_same_memory(&d, d.layout, d.layout));
    CHECK(lc_desc_init(&d, LC_F32, 4, (int64_t[]){2, 24, 1, 1}) == LC_OK);
    CHECK(lc_layout_same_memory(&d, LC_PLAIN, (lc_layout){8, 1}) &&
          !lc_layout_same_memory(&d, LC_PLAIN, (lc_layout){16, 1}));
    CHECK(!lc_layout_same_memory(&d, (lc_layout){8, 1}, (lc_layout){8, 4}));
    CHECK(lc_desc_init(&d, LC_F32, 4, (int64_t[]){2, 24, 2, 1}) == LC_OK);
    CHECK(!lc_layout_same_memory(&d, LC_PLAIN, (lc_layout){8, 1}));
    CHECK(lc_desc_init(&d, LC_F32, 0, NULL) == LC_OK && lc_desc_count(&d) == 1);
    CHECK(strcmp(lc_shape_text(&d, text), "()") == 0);
    CHECK(lc_desc_init(&d, LC_I64, 1, (int64_t[]){3}) == LC_OK && lc_desc_bytes(&d) == 24);
    CHECK(strcmp(lc_shape_text(&d, text), "(3,)") == 0);
    CHECK(lc_desc_init(&d, LC_F32, 9, (int64_t[9]){0}) == LC_ERR_VALUE);
    CHECK(lc_desc_init(&d, LC_F32, 2, (int64_t[]){3, -1}) == LC_ERR_VALUE);
    CHECK(lc_desc_init(&d, LC_F32, 3, (int64_t[]){1 << 30, 1 << 30, 4}) == LC_ERR_VALUE);
    CHECK(lc_desc_init(&d, LC_F32, 3, (int64_t[]){INT64_MAX, INT64_MAX, 0}) == LC_ERR_VALUE);
}

/* ---- reductions ---- */

static void reduce_case(tensor x, uint32_t axes, uint32_t keepdim, bool planes)
{
    for (uint32_t kind = 0; kind <= LC_REDUCE_ARGMAX; kind++) {
        lc_reduce_attr a = {.kind = kind, .axes = axes, .keepdim = keepdim};
        uint32_t all = (1u << x.d.rank) - 1;
        if (kind == LC_REDUCE_ARGMAX && axes != all && (axes == 0 || (axes & (axes - 1))))
            continue;
        int64_t n = lc_desc_count(&x.d), size[LC_MAX_RANK + 1] = {0}, outputs = 1, total = 1;
        for (int i = 0; i < x.d.rank; i++) {
            size[i] = axes >> i & 1 ? 1 : x.d.dim[i];
            outputs *= size[i];
            total *= axes >> i & 1 ? x.d.dim[i] : 1;
        }
        if (total == 0 && kind >= LC_REDUCE_MAX)
            continue;
        double *best = doubles(outputs), *want = doubles(outputs);
        int64_t *seen = calloc((size_t)outputs + 1, sizeof *seen);
        for (int64_t o = 0; o < outputs; o++)
            best[o] = want[o] = 0.0;
        for (int64_t i = 0; i < n; i++) {
            int64_t o = 0, rest = i, run = 1;
            for (int k = x.d.rank - 1; k >= 0; k--) {
                o += axes >> k & 1 ? 0 : rest % x.d.dim[k] * run;
                run *= size[k];
                rest /= x.d.dim[k];
            }
            double v = (double)x.f[i];
            if (kind <= LC_REDUCE_MEAN) {
                want[o] += v;
            } else if (seen[o] == 0 || (kind == LC_REDUCE_MIN ? v < best[o] : v > best[o]) ||
                       (isnan(v) && !isnan(best[o]))) {
                best[o] = v;
                want[o] = kind == LC_REDUCE_ARGMAX ? (double)seen[o] : v;
            }
            seen[o]++;
        }
        for (int64_t o = 0; o < outputs && kind == LC_REDUCE_MEAN; o++)
            want[o] /= (double)total;
        try_case("reduce", &lc_op_reduce, &a, 1, &x, want,
                 (options){.rel = kind <= LC_REDUCE_MEAN ? 6e-7 : 0.0,
                           .scale = kind == LC_REDUCE_MEAN ? 2.0 : sqrt((double)total),
                           .groups = x.d.rank == 4 && x.d.dim[1] % 4 == 0 ? 4 : 1,
                           .batch = !(axes & 1) && x.d.rank > 1 && kind != LC_REDUCE_ARGMAX,
                           .blocked = planes && keepdim && kind <= LC_REDUCE_MEAN});
        free(best);
        free(want);
        free(seen);
    }
    free(x.f);
}

static void test_reduce(void)
{
    for (uint32_t axes = 0; axes < 16; axes++)
        for (uint32_t keepdim = 0; keepdim < 2; keepdim++) {
            reduce_case(T(3, 20, 5, 7), axes, keepdim, axes == 12);
            reduce_case(T(2, 1, 67, 1), axes, keepdim, axes == 12);
        }
    for (uint32_t axes = 0; axes < 8; axes++) {
        reduce_case(T(40, 3, 90), axes, 0, false);
        tensor x = T(6, 7, 5);
        x.f[11] = x.f[60] = NAN;
        x.f[70] = INFINITY;
        x.f[71] = -INFINITY;
        reduce_case(x, axes, 1, false);
        x = T(4, 5, 6); /* equals: the first counts */
        for (int i = 0; i < 120; i++)
            x.f[i] = (float)(i % 3);
        reduce_case(x, axes, 0, false);
    }
    /* several parts, in two phases and in one */
    reduce_case(T(70001), 1, 0, false);
    reduce_case(T(3, 2, 40000), 6, 0, false);
    reduce_case(T(70, 33000), 2, 0, false);
    reduce_case(T(2, 1200, 70), 2, 0, false);
    reduce_case(T(2, 700, 5, 2), 2, 1, false);
    reduce_case(T(513, 4200), 1, 0, false);
    /* nothing to reduce, nothing to give */
    reduce_case(T(3, 0), 2, 0, false);
    reduce_case(T(3, 0), 1, 0, false);
    reduce_case(T(0), 1, 1, false);
    reduce_case(T(2, 0, 3), 2, 0, false);
    reduce_case(tensor_new(0, NULL), 0, 0, false);
    tensor x = T(2000003); /* a long sum does not drift */
    for (int64_t i = 0; i < 2000003; i++)
        x.f[i] = 0.1f;
    reduce_case(x, 1, 0, false);
}

/* ---- movement ---- */

static void decode(const lc_desc *d, int64_t i, int64_t at[LC_MAX_RANK])
{
    for (int k = d->rank - 1; k >= 0; k--) {
        at[k] = i % d->dim[k];
        i /= d->dim[k];
    }
}

static int64_t encode(const lc_desc *d, const int64_t *at)
{
    int64_t i = 0;
    for (int k = 0; k < d->rank; k++)
        i = i * d->dim[k] + at[k];
    return i;
}

/* Checks an op against "element `at` of the output is element source(at) of input 0, or
 * `other`". */
typedef bool (*source_fn)(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                          int64_t *from);

static void move_case(const char *what, const lc_op *op, const void *attr, tensor x,
                      source_fn source, double other)
{
    lc_desc y;
    int n_out;
    if (op->infer(attr, 1, &x.d, &n_out, &y) != LC_OK) {
        check(0, lc_error_message(), __FILE__, __LINE__);
        return;
    }
    int64_t n = lc_desc_count(&y), at[LC_MAX_RANK], from[LC_MAX_RANK];
    double *want = doubles(n);
    for (int64_t i = 0; i < n; i++) {
        decode(&y, i, at);
        want[i] = source(attr, &x.d, &y, at, from) ? (double)x.f[encode(&x.d, from)] : other;
    }
    try_case(what, op, attr, 1, &x, want, (options){.rel = 0.0});

    /* the same with numbers of 8 bytes: two halves that must stay together */
    if (op != &lc_op_pad && n_tables) {
        lc_desc in = x.d, out;
        in.dtype = LC_I64;
        CHECK(op->infer(attr, 1, &in, &n_out, &out) == LC_OK && out.dtype == LC_I64);
        int64_t count = lc_desc_count(&in), *data = malloc((size_t)count * 8 + 8);
        for (int64_t i = 0; i < count; i++)
            data[i] = i * 0x100000003;
        lc_step step = {.op = op,
                        .attr = attr,
                        .n_in = 1,
                        .n_out = 1,
                        .in = &in,
                        .out = &out,
                        .threads = 3,
                        .kernels = &tables[0],
                        .phases = 1,
                        .items = {1, 1, 1, 1}};
        CHECK(op->prepare(&step) == LC_OK);
        const float *ins[1] = {(const float *)data};
        char *block = run_shared(&step, ins, 3, false);
        bool same = block != NULL;
        for (int64_t i = 0; i < n && same; i++) {
            int64_t got, expected = 0;
            memcpy(&got, block + 4 + i * 8, 8);
            decode(&y, i, at);
            if (source(attr, &x.d, &y, at, from))
                expected = data[encode(&x.d, from)];
            same = got == expected;
        }
        check(same, what, __FILE__, __LINE__);
        free(block);
        free(data);
        lc_free(step.prep);
    }
    free(want);
    free(x.f);
}

static bool from_permute(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                         int64_t *from)
{
    (void)x;
    for (int i = 0; i < y->rank; i++)
        from[((const lc_permute_attr *)attr)->axis[i]] = at[i];
    return true;
}

static bool from_slice(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                       int64_t *from)
{
    (void)y;
    const lc_slice_attr *a = attr;
    for (int i = 0; i < x->rank; i++)
        from[i] = a->start[i] + (at[i] ? at[i] * a->step[i] : 0);
    return true;
}

static bool from_expand(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                        int64_t *from)
{
    (void)attr;
    for (int i = 0; i < x->rank; i++)
        from[i] = x->dim[i] == 1 ? 0 : at[i + y->rank - x->rank];
    return true;
}

static bool from_pad(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                     int64_t *from)
{
    (void)y;
    bool inside = true;
    for (int i = 0; i < x->rank; i++) {
        from[i] = at[i] - ((const lc_pad_attr *)attr)->before[i];
        inside &= from[i] >= 0 && from[i] < x->dim[i];
    }
    return inside;
}

static bool from_reshape(const void *attr, const lc_desc *x, const lc_desc *y, const int64_t *at,
                         int64_t *from)
{
    (void)attr;
    decode(x, encode(y, at), from);
    return true;
}

static void cat_case(int n_in, const tensor *in, int axis, bool blocked)
{
    lc_cat_attr a = {axis};
    lc_desc descs[MAX_IN], y;
    int n_out;
    for (int k = 0; k < n_in; k++)
        descs[k] = in[k].d;
    if (lc_op_cat.infer(&a, n_in, descs, &n_out, &y) != LC_OK) {
        check(0, lc_error_message(), __FILE__, __LINE__);
        return;
    }
    int64_t n = lc_desc_count(&y), at[LC_MAX_RANK];
    double *want = doubles(n);
    for (int64_t i = 0; i < n; i++) {
        decode(&y, i, at);
        int k = 0;
        for (; at[axis] >= in[k].d.dim[axis]; k++)
            at[axis] -= in[k].d.dim[axis];
        want[i] = (double)in[k].f[encode(&in[k].d, at)];
    }
    try_case("cat", &lc_op_cat, &a, n_in, in, want,
             (options){.rel = 0.0, .batch = axis > 0, .blocked = blocked});
    free(want);
    for (int k = 0; k < n_in; k++)
        free(in[k].f);
}

static void test_movement(void)
{
    move_case("permute", &lc_op_permute, &(lc_permute_attr){2, {1, 0}}, T(33, 70), from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){4, {0, 2, 3, 1}}, T(2, 17, 13, 11),
              from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){4, {0, 1, 2, 3}}, T(2, 17, 13, 11),
              from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){4, {3, 1, 0, 2}}, T(2, 1, 13, 11),
              from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){4, {1, 0, 2, 3}}, T(1, 7, 3, 5),
              from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){8, {7, 0, 6, 1, 5, 2, 4, 3}},
              T(2, 3, 1, 2, 3, 2, 3, 2), from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){0, {0}}, tensor_new(0, NULL),
              from_permute, 0);
    move_case("permute", &lc_op_permute, &(lc_permute_attr){3, {2, 0, 1}}, T(3, 0, 2), from_permute,
              0);

    move_case("slice", &lc_op_slice, &(lc_slice_attr){{1, 3}, {2, 1}, {4, 30}}, T(9, 41),
              from_slice, 0);
    move_case("slice", &lc_op_slice, &(lc_slice_attr){{8, 40}, {-2, -1}, {5, 41}}, T(9, 41),
              from_slice, 0);
    move_case("slice", &lc_op_slice, &(lc_slice_attr){{0, 0, 12, 1}, {1, 1, -3, 2}, {2, 17, 5, 5}},
              T(2, 17, 13, 11), from_slice, 0);
    move_case("slice", &lc_op_slice, &(lc_slice_attr){{0, 0, 0}, {1, 1, 1}, {3, 4, 5}}, T(3, 4, 5),
              from_slice, 0);
    move_case("slice", &lc_op_slice, &(lc_slice_attr){{2, 0, 0}, {INT64_MIN, 1, 7}, {1, 4, 1}},
              T(3, 4, 5), from_slice, 0);
    move_case("slice", &lc_op_slice, &(lc_slice_attr){{99, 0, 0}, {1, 1, 1}, {0, 4, 5}}, T(3, 4, 5),
              from_slice, 0);

    move_case("expand", &lc_op_expand, &(lc_expand_attr){3, {5, 3, 7}}, T(3, 1), from_expand, 0);
    move_case("expand", &lc_op_expand, &(lc_expand_attr){4, {2, 17, 5, 7}}, T(17, 1, 1),
              from_expand, 0);
    move_case("expand", &lc_op_expand, &(lc_expand_attr){2, {300, 400}}, tensor_new(0, NULL),
              from_expand, 0);
    move_case("expand", &lc_op_expand, &(lc_expand_attr){3, {1, 4, 5}}, T(4, 5), from_expand, 0);
    move_case("expand", &lc_op_expand, &(lc_expand_attr){2, {0, 5}}, T(1, 5), from_expand, 0);

    move_case("pad", &lc_op_pad, &(lc_pad_attr){{0, 0, 1, 2}, {0, 0, 3, 0}, 1.5f, 0}, T(2, 3, 5, 7),
              from_pad, 1.5);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{0, 4, 0, 0}, {1, 4, 0, 0}, 0.0f, 0},
              T(2, 16, 5, 7), from_pad, 0.0);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{-1, 2, -2}, {1, -3, -2}, -1.0f, 0}, T(3, 5, 9),
              from_pad, -1.0);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{-9}, {12}, 2.0f, 0}, T(5), from_pad, 2.0);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{2, 1}, {1, 0}, 3.0f, 0}, T(0, 4), from_pad, 3.0);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{100}, {70000}, 3.0f, 0}, T(1000), from_pad, 3.0);
    move_case("pad", &lc_op_pad, &(lc_pad_attr){{0}, {0}, 3.0f, 0}, tensor_new(0, NULL), from_pad,
              3.0);

    move_case("reshape", &lc_op_reshape, &(lc_reshape_attr){2, {34, 143}}, T(2, 17, 13, 11),
              from_reshape, 0);
    move_case("reshape", &lc_op_reshape, &(lc_reshape_attr){0, {0}}, T(1, 1), from_reshape, 0);
    move_case("reshape", &lc_op_reshape, &(lc_reshape_attr){2, {0, 7}}, T(3, 0), from_reshape, 0);

    cat_case(2, (tensor[]){T(3), T(5)}, 0, false);
    cat_case(3, (tensor[]){T(3, 5), T(3, 0), T(3, 2)}, 1, false);
    cat_case(2, (tensor[]){T(2, 17, 3, 5), T(2, 15, 3, 5)}, 1, false);
    cat_case(3, (tensor[]){T(2, 16, 3, 5), T(2, 32, 3, 5), T(2, 5, 3, 5)}, 1, true);
    cat_case(2, (tensor[]){T(2, 16, 30, 50), T(2, 16, 30, 50)}, 1, true);
    cat_case(2, (tensor[]){T(2, 3, 4, 5), T(2, 3, 4, 1)}, 3, false);
    cat_case(1, (tensor[]){T(4, 3)}, 1, false);
    tensor many[MAX_IN];
    for (int k = 0; k < MAX_IN; k++)
        many[k] = T(3, k % 4, 2);
    cat_case(MAX_IN, many, 1, false);
}

/* ---- layouts ---- */

static void test_reorder(void)
{
    static const int64_t shapes[][4] = {{2, 20, 5, 7},  {1, 3, 9, 9},   {3, 16, 1, 1},
                                        {2, 48, 13, 3}, {1, 8, 70, 61}, {0, 8, 3, 3},
                                        {2, 40, 8, 8},  {1, 9, 3, 683}};
    for (int s = 0; s < 8; s++) {
        tensor x = tensor_new(4, shapes[s]);
        for (int t = 0; t < n_tables; t++) {
            int b = tables[t].block;
            lc_layout l[4] = {LC_PLAIN, lc_layout_blocked(b, shapes[s][1], 1),
                              lc_layout_blocked(b, shapes[s][1], 4),
                              lc_layout_blocked(b, shapes[s][1], 2)};
            for (int from = 0; from < 4; from++)
                for (int to = 0; to < 4; to++) {
                    float *got =
                        run_op(&lc_op_reorder, NULL, 1, &x, &l[from], l[to], &tables[t], "reorder");
                    CHECK(got && memcmp(got, x.f, lc_desc_bytes(&x.d)) == 0);
                    free(got);
                }
        }
        free(x.f);
    }
}

/* ---- split attention ---- */

static void split_case(int64_t n, int r, int k, int64_t each, int64_t h, int64_t w, bool blocked)
{
    int64_t c = k * each, total = r * c;
    tensor x = T(n, total, h, w), logits = T(n, total, 1, 1);
    lc_split_attr a = {r, k, 0};
    double *gap = doubles(n * c), *soft = doubles(n * total), *sum = doubles(n * c * h * w);
    for (int64_t i = 0; i < n * c; i++) {
        gap[i] = 0.0;
        for (int64_t q = 0; q < r; q++)
            for (int64_t p = 0; p < h * w; p++)
                gap[i] += (double)x.f[((i / c * r + q) * c + i % c) * h * w + p] / (double)(h * w);
    }
    options o = {.rel = 4e-7, .scale = 1.0, .groups = r * k, .batch = true};
    try_case("split_gap", &lc_op_split_gap, &a, 1, &x, gap, o);
    for (a.plain_view = 0; a.plain_view < 2; a.plain_view++) {
        for (int64_t i = 0; i < n * c; i++) {
            double e[8], all = 0.0;
            for (int64_t q = 0; q < r; q++) {
                int64_t g = i % c / each, j = i % each;
                int64_t from = a.plain_view ? (q * k + g) * each + j : (g * r + q) * each + j;
                e[q] = exp((double)logits.f[i / c * total + from]);
                all += e[q];
            }
            for (int64_t q = 0; q < r; q++)
                soft[i / c * total + q * c + i % c] = r == 1 ? e[q] / (1.0 + e[q]) : e[q] / all;
        }
        o.groups = k; /* as a grouped convolution gives it */
        try_case("split_softmax", &lc_op_split_softmax, &a, 1, &logits, soft, o);
    }
    a.plain_view = 0;
    for (int64_t i = 0; i < n * c * h * w; i++) {
        int64_t image = i / (c * h * w), rest = i % (c * h * w);
        sum[i] = 0.0;
        for (int64_t q = 0; q < r; q++)
            sum[i] += (double)x.f[(image * r + q) * c * h * w + rest] *
                      (double)logits.f[(image * r + q) * c + rest / (h * w)];
    }
    o.groups = r * k;
    o.blocked = blocked;
    o.scale = 4.0 * r; /* products of up to 4 */
    try_case("split_apply", &lc_op_split_apply, &a, 2, (tensor[]){x, logits}, sum, o);
    free(gap);
    free(soft);
    free(sum);
    free(x.f);
    free(logits.f);
}

/* More slices than floats in an item of work. */
static void split_many(void)
{
    enum { SLICES = 40000, PIXELS = 4 };
    tensor x = T(1, SLICES, 2, 2), attention = T(1, SLICES, 1, 1);
    double want[PIXELS] = {0.0};
    for (int i = 0; i < SLICES * PIXELS; i++)
        want[i % PIXELS] += (double)x.f[i] * (double)attention.f[i / PIXELS];
    try_case("split_apply", &lc_op_split_apply, &(lc_split_attr){SLICES, 1, 0}, 2,
             (tensor[]){x, attention}, want,
             (options){.rel = 4e-7, .scale = 4.0 * SLICES, .groups = SLICES, .batch = true});
    free(x.f);
    free(attention.f);
    /* no channels, and as many slices of them as can be asked for */
    x = T(2, 0, 2, 2);
    attention = T(2, 0, 1, 1);
    try_case("split_apply", &lc_op_split_apply, &(lc_split_attr){INT32_MAX, 1, 0}, 2,
             (tensor[]){x, attention}, want, (options){.groups = 1});
    free(x.f);
    free(attention.f);
}

static void test_split(void)
{
    split_many();
    split_case(2, 2, 1, 64, 5, 7, true);
    split_case(1, 2, 1, 16, 70, 61, true);
    split_case(2, 4, 2, 20, 5, 3, true); /* resnest_50_4s2x40d: 10, 20, 40, 80 per group */
    split_case(2, 4, 2, 10, 5, 3, true);
    split_case(2, 1, 4, 24, 5, 3, true);  /* resnest_50_1s4x24d */
    split_case(1, 2, 3, 10, 9, 16, true); /* written dense: more pixels than are moved at a time */
    split_case(2, 1, 7, 3, 3, 3, true);   /* .. each block from many */
    split_case(2, 1, 1, 12, 3, 3, true);
    split_case(2, 3, 1, 24, 4, 4, true);
    split_case(3, 2, 1, 4, 3, 5, false); /* groups share blocks, slices do not begin at one */
    split_case(2, 2, 2, 4, 3, 5, false);
    split_case(2, 2, 1, 1, 1, 1, false);
    split_case(0, 2, 1, 8, 3, 3, false);
    /* who feeds x is told the layout */
    lc_desc x;
    CHECK(lc_desc_init(&x, LC_F32, 4, (int64_t[]){1, 160, 3, 3}) == LC_OK);
    lc_split_attr a = {4, 2, 0};
    lc_layout want;
    lc_layout_query q = {&a, 1, 1, &x, &x, 8};
    CHECK(lc_op_split_gap.insists(&q, 0, &want) && lc_layout_equal(want, (lc_layout){8, 8}));
    CHECK(lc_op_split_apply.insists(&q, 0, &want) && lc_layout_equal(want, (lc_layout){8, 8}));
    CHECK(!lc_op_split_apply.insists(&q, 1, &want));
    x.dim[1] = 8;
    a = (lc_split_attr){2, 1, 0};
    CHECK(lc_op_split_gap.insists(&q, 0, &want) && lc_layout_equal(want, LC_PLAIN));
}

/* ---- wrong arguments ---- */

static void refuse(int line, const lc_op *op, const void *attr, int n_in, const lc_desc *in,
                   lc_status status, const char *part)
{
    lc_desc out[LC_MAX_OUT];
    int n_out;
    lc_status got = op->infer(attr, n_in, in, &n_out, out);
    if (got != status || !strstr(lc_error_message(), part))
        fprintf(stderr, "  status %d: %s\n", (int)got, lc_error_message());
    check(got == status && strstr(lc_error_message(), part), part, __FILE__, line);
}

#define REFUSE(...) refuse(__LINE__, __VA_ARGS__)

static lc_desc desc(int rank, const int64_t *dim)
{
    lc_desc d;
    CHECK(lc_desc_init(&d, LC_F32, rank, dim) == LC_OK);
    return d;
}

#define D(...)                                                                                     \
    desc((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static void test_errors(void)
{
    lc_desc x = D(2, 6, 5, 7), ints = x;
    ints.dtype = LC_I64;
    REFUSE(&lc_op_unary, &(lc_unary_attr){LC_UNARY_SIGMOID, 0, 0}, 1, &ints, LC_ERR_TYPE,
           "sigmoid: x must be float32, not int64");
    REFUSE(&lc_op_unary, &(lc_unary_attr){77, 0, 0}, 1, &x, LC_ERR_VALUE, "77");
    REFUSE(&lc_op_binary, &(lc_binary_attr){LC_BINARY_MUL, 0}, 2, ((lc_desc[]){x, D(2, 6, 4, 1)}),
           LC_ERR_VALUE,
           "mul: shapes (2, 6, 5, 7) and (2, 6, 4, 1) do not go together: 5 against 4 in dimension "
           "-2");
    REFUSE(&lc_op_binary, &(lc_binary_attr){LC_BINARY_ADD, 0}, 2, ((lc_desc[]){x, ints}),
           LC_ERR_TYPE, "second operand");
    REFUSE(&lc_op_binary, &(lc_binary_attr){LC_BINARY_ADD, 0}, 1, &x, LC_ERR_VALUE,
           "2 inputs, not 1");
    REFUSE(&lc_op_binary, &(lc_binary_attr){LC_BINARY_ADD, 0}, 2,
           ((lc_desc[]){D(1 << 30, 1), D(1, 1 << 30)}), LC_ERR_VALUE, "too large");
    lc_desc five = D(5), six = D(6);
    REFUSE(&lc_op_batch_norm, &(lc_batch_norm_attr){.eps = 1e-5f}, 3, ((lc_desc[]){x, six, five}),
           LC_ERR_VALUE, "running_var must have shape (6,), one value per channel of x, not (5,)");
    REFUSE(&lc_op_batch_norm, &(lc_batch_norm_attr){.eps = 1e-5f, .affine = 1}, 5,
           ((lc_desc[]){x, five, six, six, six}), LC_ERR_VALUE, "weight");
    REFUSE(&lc_op_batch_norm, &(lc_batch_norm_attr){.eps = 1e-5f}, 3, ((lc_desc[]){six, six, six}),
           LC_ERR_VALUE, "2 to 5 dimensions, not 1");
    REFUSE(&lc_op_softmax, &(lc_softmax_attr){4, 1}, 1, &x, LC_ERR_INDEX, "log_softmax: axis 4");
    REFUSE(&lc_op_softmax, &(lc_softmax_attr){-1, 0}, 1, &x, LC_ERR_INDEX, "axis -1");
    lc_pool2d_attr p = {{3, 3}, {2, 2}, {1, 1}, {1, 1}, 0, LC_POOL_MAX, 0, 0, 0}, bad = p;
    REFUSE(&lc_op_pool2d, &p, 1, &five, LC_ERR_VALUE,
           "max_pool2d: x must have 4 dimensions, not 1");
    lc_desc empty = D(2, 6, 0, 7);
    REFUSE(&lc_op_pool2d, &p, 1, &empty, LC_ERR_VALUE, "no pixels");
    REFUSE(&lc_op_pool2d, &p, 1, &ints, LC_ERR_TYPE, "int64");
    bad.pad[1] = 2;
    REFUSE(&lc_op_pool2d, &bad, 1, &x, LC_ERR_VALUE,
           "padding must be 0 to half of kernel_size 3, not 2 (width)");
    bad = p;
    bad.stride[0] = 0;
    REFUSE(&lc_op_pool2d, &bad, 1, &x, LC_ERR_VALUE, "stride must be positive, not 0 (height)");
    bad = p;
    bad.kernel[0] = -3;
    REFUSE(&lc_op_pool2d, &bad, 1, &x, LC_ERR_VALUE, "kernel_size");
    bad = p;
    bad.dilation[0] = 4;
    REFUSE(&lc_op_pool2d, &bad, 1, &x, LC_ERR_VALUE,
           "a window of 9 pixels does not fit x of height 5 with padding 1");
    bad.kind = LC_POOL_AVG;
    REFUSE(&lc_op_pool2d, &bad, 1, &x, LC_ERR_VALUE, "dilation");
    REFUSE(&lc_op_adaptive_pool2d, &(lc_adaptive_pool2d_attr){{-1, 2}, LC_POOL_AVG, 0}, 1, &x,
           LC_ERR_VALUE, "output_size");
    REFUSE(&lc_op_adaptive_pool2d, &(lc_adaptive_pool2d_attr){{1, 1}, LC_POOL_AVG, 0}, 1, &empty,
           LC_ERR_VALUE, "no pixels");
    REFUSE(&lc_op_reduce, &(lc_reduce_attr){.kind = LC_REDUCE_SUM, .axes = 16}, 1, &x, LC_ERR_INDEX,
           "sum: an axis");
    REFUSE(&lc_op_reduce, &(lc_reduce_attr){.kind = LC_REDUCE_MAX, .axes = 4}, 1, &empty,
           LC_ERR_VALUE, "no elements along axis 2");
    REFUSE(&lc_op_reduce, &(lc_reduce_attr){.kind = LC_REDUCE_ARGMAX, .axes = 3}, 1, &x,
           LC_ERR_VALUE, "one axis");
    REFUSE(&lc_op_reshape, &(lc_reshape_attr){2, {20, 20}}, 1, &x, LC_ERR_VALUE,
           "420 elements, shape (20, 20) takes 400");
    REFUSE(&lc_op_reshape, &(lc_reshape_attr){2, {-1, 20}}, 1, &x, LC_ERR_VALUE, "negative");
    REFUSE(&lc_op_reshape, &(lc_reshape_attr){9, {0}}, 1, &x, LC_ERR_VALUE, "9 dimensions");
    REFUSE(&lc_op_permute, &(lc_permute_attr){4, {0, 1, 2, 2}}, 1, &x, LC_ERR_VALUE,
           "axis 2 is given twice");
    REFUSE(&lc_op_permute, &(lc_permute_attr){4, {0, 1, 2, 4}}, 1, &x, LC_ERR_INDEX, "axis 4");
    REFUSE(&lc_op_permute, &(lc_permute_attr){3, {0, 1, 2}}, 1, &x, LC_ERR_VALUE, "3 axes");
    REFUSE(&lc_op_cat, &(lc_cat_attr){1}, 2, ((lc_desc[]){x, D(2, 6, 5, 8)}), LC_ERR_VALUE,
           "only axis 1 may differ");
    REFUSE(&lc_op_cat, &(lc_cat_attr){4}, 1, &x, LC_ERR_INDEX, "axis 4");
    REFUSE(&lc_op_cat, &(lc_cat_attr){0}, 2, ((lc_desc[]){x, ints}), LC_ERR_TYPE,
           "input 1 is int64");
    REFUSE(&lc_op_cat, &(lc_cat_attr){0}, 0, &x, LC_ERR_VALUE, "at least one");
    REFUSE(&lc_op_pad, &(lc_pad_attr){{0, -4}, {0, -3}, 0, 0}, 1, &x, LC_ERR_VALUE, "axis 1");
    REFUSE(&lc_op_slice, &(lc_slice_attr){{0, 0, 0, 0}, {1, 1, 0, 1}, {2, 6, 5, 7}}, 1, &x,
           LC_ERR_VALUE, "step along axis 2");
    REFUSE(&lc_op_slice, &(lc_slice_attr){{0, 2, 0, 0}, {1, 1, 1, 1}, {2, 5, 5, 7}}, 1, &x,
           LC_ERR_INDEX, "axis 1");
    REFUSE(&lc_op_slice, &(lc_slice_attr){{0, 2, 0, 0}, {1, -1, 1, 1}, {2, 4, 5, 7}}, 1, &x,
           LC_ERR_INDEX, "axis 1");
    REFUSE(&lc_op_expand, &(lc_expand_attr){4, {2, 6, 5, 8}}, 1, &x, LC_ERR_VALUE,
           "cannot be expanded to (2, 6, 5, 8)");
    REFUSE(&lc_op_expand, &(lc_expand_attr){1, {7}}, 1, &x, LC_ERR_VALUE, "cannot be expanded");
    REFUSE(&lc_op_split_gap, &(lc_split_attr){4, 1, 0}, 1, &x, LC_ERR_VALUE,
           "radix 4 times cardinality 1 does not divide the 6 channels");
    REFUSE(&lc_op_split_gap, &(lc_split_attr){0, 1, 0}, 1, &x, LC_ERR_VALUE,
           "must be positive, not 0 and 1");
    REFUSE(&lc_op_split_softmax, &(lc_split_attr){2, 1, 0}, 1, &x, LC_ERR_VALUE, "(N, C, 1, 1)");
    REFUSE(&lc_op_split_apply, &(lc_split_attr){2, 1, 0}, 2, ((lc_desc[]){x, D(1, 6, 1, 1)}),
           LC_ERR_VALUE, "attention must have shape (2, 6, 1, 1), not (1, 6, 1, 1)");
    REFUSE(&lc_op_reorder, NULL, 1, &five, LC_ERR_VALUE, "4 dimensions");
}
