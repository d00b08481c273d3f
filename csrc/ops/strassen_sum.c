#include "ops/strassen_sum.h"

/* A factor of a product: a quarter of the side as it is, or a sum that goes to the buffer. With X11
 * .. X22 the quarters, first index: half of a's channels or of the pixels. */
typedef enum source { X11, X12, X21, X22, BUFFER } source;
typedef enum action { IS, PLUS, MINUS } action;
typedef struct factor {
    source first;
    action action;
    source second;
} factor;

/* In an order in which each sum needs but the one before it. a: [halves of channels][halves of
 * pixels], b: [halves of pixels][halves of channels]. */
static const factor factors[7][2] = {
    {{X11, IS, X11}, {X11, IS, X11}},       {{X12, IS, X12}, {X21, IS, X21}},
    {{X21, PLUS, X22}, {X12, MINUS, X11}},  {{BUFFER, MINUS, X11}, {X22, MINUS, BUFFER}},
    {{X12, MINUS, BUFFER}, {X22, IS, X22}}, {{X22, IS, X22}, {BUFFER, MINUS, X21}},
    {{X11, MINUS, X21}, {X22, MINUS, X12}},
};

typedef struct task {
    const lc_kernels *k;
    int64_t pixels; /* of a run */
    float *m;       /* the next product */
} task;

/* The half of a side's channels and of its runs. */
static lc_strassen_side quarter(const lc_strassen_side *x, int runs, int channels, int pixels)
{
    lc_strassen_side q = {.step = x->step, .blocks = x->blocks / 2};
    for (int r = 0; r < runs / 2; r++)
        q.run[r] = x->run[pixels * (runs / 2) + r] + channels * q.blocks * x->step;
    return q;
}

static lc_strassen_side buffer_side(float *buffer, int64_t blocks, int runs, int64_t run)
{
    lc_strassen_side q = {.step = runs * run, .blocks = blocks};
    for (int r = 0; r < runs; r++)
        q.run[r] = buffer + r * run;
    return q;
}

/* is_b: of the second side, whose quarters have the pixels first. */
static lc_strassen_side find_factor(const task *t, const lc_strassen_side *x, int runs,
                                    const factor *f, bool is_b, float *buffer)
{
    const int64_t run = t->pixels * t->k->block;
    lc_strassen_side q[2];
    const lc_strassen_side sum = buffer_side(buffer, x->blocks / 2, runs / 2, run);
    const source from[2] = {f->first, f->second};
    for (int i = 0; i < 2; i++) {
        const int first = from[i] >> 1 & 1, second = from[i] & 1;
        q[i] = from[i] == BUFFER ? sum
                                 : quarter(x, runs, is_b ? second : first, is_b ? first : second);
    }
    if (f->action == IS)
        return q[0];
    lc_vec_binary_fn *const add = f->action == PLUS ? t->k->vec.add : t->k->vec.sub;
    for (int64_t b = 0; b < sum.blocks; b++)
        for (int r = 0; r < runs / 2; r++)
            add(buffer + (b * (runs / 2) + r) * run, q[0].run[r] + b * q[0].step,
                q[1].run[r] + b * q[1].step, run, LC_SPAN_ALL, LC_SPAN_ALL, t->k->block);
    return sum;
}

static void multiply(task *t, const lc_strassen_side *a, const lc_strassen_side *b)
{
    const int64_t block = t->k->block;
    lc_wgrad_product p = {.v = b->run[0],
                          .v_blk = b->step,
                          .w_vec = a->step,
                          .blocks = b->blocks,
                          .tiles = t->pixels,
                          .block = t->k->block};
    for (int64_t o = 0; o < a->blocks; o += p.nv) {
        p.nv = lc_wgrad_panel(a->blocks - o);
        p.w = a->run[0] + o * a->step;
        p.m = t->m;
        t->k->wgrad.product(&p);
        t->m += b->blocks * block * p.nv * block;
    }
}

static int64_t sum_floats(const lc_strassen_side *x, int runs, int64_t run)
{
    return x->blocks / 2 * (runs / 2) * run;
}

static void add_level(task *t, int levels, const lc_strassen_side *a, const lc_strassen_side *b,
                      float *scratch)
{
    if (levels == 0) {
        multiply(t, a, b);
        return;
    }
    const int runs = 1 << levels;
    const int64_t run = t->pixels * t->k->block;
    float *a_sum = scratch, *b_sum = a_sum + sum_floats(a, runs, run);
    float *rest = b_sum + sum_floats(b, runs, run);
    for (int i = 0; i < 7; i++) {
        const lc_strassen_side l = find_factor(t, a, runs, &factors[i][0], false, a_sum);
        const lc_strassen_side r = find_factor(t, b, runs, &factors[i][1], true, b_sum);
        add_level(t, levels - 1, &l, &r, rest);
    }
}

int64_t lc_strassen_scratch(int levels, int64_t a_blocks, int64_t b_blocks, int64_t pixels,
                            int block)
{
    int64_t floats = 0;
    for (; levels > 0; levels--) {
        a_blocks /= 2;
        b_blocks /= 2;
        floats += (a_blocks + b_blocks) * (1 << (levels - 1)) * pixels * block;
    }
    return floats;
}

void lc_strassen_add(const lc_kernels *k, int levels, const lc_strassen_side *a,
                     const lc_strassen_side *b, int64_t pixels, float *scratch, float *m)
{
    task t = {.k = k, .pixels = pixels, .m = m};
    add_level(&t, levels, a, b, scratch);
}

/* Seven products, `step` floats apart, become the four sums; in the order of factors[]. */
static void finish_seven(float *m, int64_t step, int64_t floats)
{
    float *m0 = m, *m1 = m0 + step, *m2 = m1 + step, *m3 = m2 + step, *m4 = m3 + step,
          *m5 = m4 + step, *m6 = m5 + step;
    for (int64_t i = 0; i < floats; i++) {
        const float u2 = m0[i] + m3[i], u3 = u2 + m6[i], u4 = u2 + m2[i];
        m0[i] += m1[i];
        m1[i] = u4 + m4[i];
        const float c22 = u3 + m2[i];
        m2[i] = u3 - m5[i];
        m3[i] = c22;
    }
}

void lc_strassen_finish(int levels, float *m, int64_t floats)
{
    if (levels == 1) {
        finish_seven(m, floats, floats);
        return;
    }
    for (int i = 0; i < 7; i++)
        finish_seven(m + 7 * i * floats, floats, floats);
    finish_seven(m, 7 * floats, 4 * floats); /* the four sums of each of the seven are neighbours */
}

int64_t lc_strassen_place(int levels, int64_t i, int64_t j)
{
    return levels == 1 ? 2 * i + j : 7 * (2 * (i >> 1) + (j >> 1)) + 2 * (i & 1) + (j & 1);
}
