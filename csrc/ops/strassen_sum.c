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

/* What the products of a level fetch meanwhile: quarters that the next factors are the first to read.
 */
#define MOST_AHEAD 3
typedef struct ahead {
    lc_strassen_side side[MOST_AHEAD];
    int sides, runs; /* runs: of each side */
    int64_t next;    /* run of the first of them */
} ahead;

typedef struct task {
    const lc_kernels *k;
    int64_t pixels; /* of a run */
    float *m;       /* the next product */
    bool first;
    ahead ahead;
} task;

/* is_b: of the second side, whose quarters have the pixels first. */
static lc_strassen_side quarter(const lc_strassen_side *x, int runs, source which, bool is_b)
{
    const int first = which >> 1, second = which & 1;
    const int channels = is_b ? second : first, pixels = is_b ? first : second;
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

static lc_strassen_side find_factor(const task *t, const lc_strassen_side *x, int runs,
                                    const factor *f, bool is_b, float *buffer)
{
    const int64_t run = t->pixels * t->k->block;
    lc_strassen_side q[2];
    const lc_strassen_side sum = buffer_side(buffer, x->blocks / 2, runs / 2, run);
    const source from[2] = {f->first, f->second};
    for (int i = 0; i < 2; i++)
        q[i] = from[i] == BUFFER ? sum : quarter(x, runs, from[i], is_b);
    if (f->action == IS)
        return q[0];
    lc_vec_binary_fn *const add = f->action == PLUS ? t->k->vec.add : t->k->vec.sub;
    for (int64_t b = 0; b < sum.blocks; b++)
        for (int r = 0; r < runs / 2; r++)
            add(buffer + (b * (runs / 2) + r) * run, q[0].run[r] + b * q[0].step,
                q[1].run[r] + b * q[1].step, run, LC_SPAN_ALL, LC_SPAN_ALL, t->k->block);
    return sum;
}

/* The next run to fetch; NULL: no more. */
static const float *next_ahead(ahead *s)
{
    while (s->sides > 0) {
        const lc_strassen_side *x = &s->side[s->sides - 1];
        const int64_t i = s->next++;
        if (i < x->blocks * s->runs)
            return x->run[i % s->runs] + i / s->runs * x->step;
        s->next = 0;
        s->sides--;
    }
    return NULL;
}

/* The first product that reads a quarter of a side. */
static int first_reader(source which, bool is_b)
{
    int i = 0;
    while (factors[i][is_b].first != which && factors[i][is_b].second != which)
        i++;
    return i;
}

/* While product i is made: what the next one is the first to read. */
static void look_ahead(task *t, int i, int runs, const lc_strassen_side *a,
                       const lc_strassen_side *b, const lc_strassen_side next[2])
{
    t->ahead = (ahead){.runs = runs / 2};
    for (int side = 0; side < 2; side++) {
        const lc_strassen_side *x = i == 6 ? &next[side] : side == 0 ? a : b;
        for (source q = X11; q <= X22 && x->blocks > 0; q++)
            if (first_reader(q, side) == (i + 1) % 7)
                t->ahead.side[t->ahead.sides++] = quarter(x, runs, q, side);
    }
}

static void multiply(task *t, const lc_strassen_side *a, const lc_strassen_side *b)
{
    const int64_t block = t->k->block;
    lc_wgrad_product p = {.w_vec = a->step,
                          .positions = 1,
                          .blocks = 1,
                          .last = t->k->block,
                          .tiles = t->pixels,
                          .next = {.images = 1},
                          .block = t->k->block,
                          .first = t->first};
    for (int64_t o = 0; o < a->blocks; o += p.nv) {
        p.nv = lc_wgrad_panel(a->blocks - o);
        p.w = a->run[0] + o * a->step;
        for (int64_t i = 0; i < b->blocks; i++, t->m += block * p.nv * block) {
            p.v = b->run[0] + i * b->step;
            p.m = t->m;
            for (int n = 0; n < LC_WGRAD_NEXT; n++) {
                p.next.row[n] = next_ahead(&t->ahead);
                p.next.floats[n] = p.next.row[n] ? t->pixels * block : 0;
            }
            t->k->wgrad.product(&p);
        }
    }
}

static int64_t sum_floats(const lc_strassen_side *x, int runs, int64_t run)
{
    return x->blocks / 2 * (runs / 2) * run;
}

static void add_level(task *t, int levels, const lc_strassen_side *a, const lc_strassen_side *b,
                      const lc_strassen_side *next, float *scratch)
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
        if (next)
            look_ahead(t, i, runs, a, b, next);
        add_level(t, levels - 1, &l, &r, NULL, rest);
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
                     const lc_strassen_side *b, const lc_strassen_side next[2], int64_t pixels,
                     float *scratch, float *m, bool first)
{
    task t = {.k = k, .pixels = pixels, .m = m, .first = first};
    add_level(&t, levels, a, b, next, scratch);
}

/* Seven products, `step` floats apart and in the order of factors[], become two rows of two sums; these
 * may be where the first four were. */
static void finish_seven(const float *m, int64_t step, int64_t floats, float *sums, int64_t column,
                         int64_t row)
{
    const float *m1 = m + step, *m2 = m1 + step, *m3 = m2 + step, *m4 = m3 + step, *m5 = m4 + step,
                *m6 = m5 + step;
    float *c11 = sums, *c12 = sums + column, *c21 = sums + row, *c22 = c21 + column;
#pragma GCC ivdep
    for (int64_t i = 0; i < floats; i++) {
        const float u2 = m[i] + m3[i], u3 = u2 + m6[i], u4 = u2 + m2[i], s = u3 + m2[i];
        const float t = u3 - m5[i], u = u4 + m4[i];
        c11[i] = m[i] + m1[i];
        c12[i] = u;
        c21[i] = t;
        c22[i] = s;
    }
}

void lc_strassen_finish(int levels, float *m, int64_t floats, float *sums)
{
    if (levels == 1) {
        finish_seven(m, floats, floats, sums, floats, 2 * floats);
        return;
    }
    for (int i = 0; i < 7; i++) { /* the four sums of each of the seven are neighbours */
        float *inner = m + 7 * i * floats;
        finish_seven(inner, floats, floats, inner, floats, 2 * floats);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            finish_seven(m + (2 * i + j) * floats, 7 * floats, floats, sums + (4 * i + j) * floats,
                         2 * floats, 8 * floats);
}
