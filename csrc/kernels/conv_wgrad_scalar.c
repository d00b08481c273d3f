/* Plain loops for either block size. */
#include "kernels/wgrad_kernels.h"

/* sums[c][v][lane] of one tap. `group`: lanes that meet channels of their own; 0: all meet the
 * same ones. */
static void add_tap(const lc_wgrad_run *r, int64_t kh, int64_t kw, int64_t group, float *sums)
{
    const int64_t ah = kh * r->dilation[0] - r->pad[0], aw = kw * r->dilation[1] - r->pad[1];
    int64_t oh0 = r->oh0, oh1 = r->oh1, ow0 = r->ow0, ow1 = r->ow1;
    lc_wgrad_inside(r->h, r->stride[0], ah, &oh0, &oh1);
    lc_wgrad_inside(r->w, r->stride[1], aw, &ow0, &ow1);
    for (int64_t c = 0; c < r->cb; c++)
        for (int32_t v = 0; v < r->nv; v++) {
            float acc[16] = {0};
            for (int64_t n = 0; n < r->images; n++)
                for (int64_t oh = oh0; oh < oh1; oh++)
                    for (int64_t ow = ow0; ow < ow1; ow++) {
                        const float *d = r->dy + n * r->dy_image + v * r->dy_vec + oh * r->dy_row +
                                         ow * r->block;
                        const float *x = r->x + n * r->x_image +
                                         (oh * r->stride[0] + ah) * r->x_row +
                                         (ow * r->stride[1] + aw) * r->x_col + c;
                        for (int32_t l = 0; l < r->block; l++)
                            acc[l] += x[group ? l / group * group : 0] * d[l];
                    }
            for (int32_t l = 0; l < r->block; l++)
                *sums++ += acc[l];
        }
}

static void add_band(const lc_wgrad_run *r, int64_t group)
{
    const int64_t each = r->cb * r->nv * r->block;
    for (int64_t kh = 0; kh < r->kh; kh++)
        for (int64_t kw = 0; kw < r->kw; kw++)
            add_tap(r, kh, kw, group, r->sums + (kh * r->kw + kw) * each);
}

static void dense(const lc_wgrad_run *r)
{
    add_band(r, 0);
}

static void lanes(const lc_wgrad_run *r)
{
    add_band(r, r->cb);
}

/* t = A y: values of the polynomial y of four numbers; strides of both in floats. At p: */
static float value_at(const float *y, int64_t ys, float p)
{
    return (y[0] + p * p * y[2 * ys]) + p * (y[ys] + p * p * y[3 * ys]);
}

/* At 0, n points and infinity. */
static void values_at(const float *y, int64_t ys, float *t, int64_t ts, const float *points, int n)
{
    t[0] = y[0];
    for (int i = 0; i < n; i++)
        t[(1 + i) * ts] = value_at(y, ys, points[i]);
    t[(1 + n) * ts] = y[3 * ys];
}

static void tile6(const float *y, int64_t ys, float *t, int64_t ts)
{
    values_at(y, ys, t, ts, (const float[]){1, -1, 0.5f, -2}, 4);
}

static void tile9(const float *y, int64_t ys, float *t, int64_t ts)
{
    values_at(y, ys, t, ts, (const float[]){-1, 0.5f, 2}, 3);
    for (int i = 0; i < 4; i++)
        t[(5 + i) * ts] = y[i * ys];
}

static void tile7(const float *y, int64_t ys, float *t, int64_t ts)
{
    values_at(y, ys, t, ts, (const float[]){1, -1, 2, -2, 0.5f}, 5);
}

/* w = G^T m */
static void taps6(const float *m, int64_t ms, float *w, int64_t ws)
{
    const float s = (m[ms] + m[2 * ms]) * (1.0f / 3), d = (m[ms] - m[2 * ms]) * (1.0f / 3);
    const float a = m[3 * ms] * (4.0f / 15), b = m[4 * ms] * (1.0f / 15);
    w[0] = (m[0] + d) + (b - 4.0f * a);
    w[ws] = s - 2.0f * (a + b);
    w[2 * ws] = (m[5 * ms] + d) + (4.0f * b - a);
}

static void taps_shared(const float *m, int64_t ms, float *w, int64_t ws)
{
    const float a = m[ms] * (2.0f / 9), b = m[2 * ms] * (4.0f / 9), c = m[3 * ms] * (1.0f / 9);
    w[0] = (m[0] - a) + (c - 2.0f * b);
    w[ws] = m[5 * ms];
    w[2 * ws] = (m[4 * ms] + a) + (2.0f * c - b);
}

static void taps7(const float *m, int64_t ms, float *w, int64_t ws)
{
    const float a = m[ms] * (-1.0f / 3), b = m[2 * ms] * (1.0f / 9), c = m[3 * ms] * (1.0f / 36);
    const float d = m[4 * ms] * (1.0f / 60), e = m[5 * ms] * (4.0f / 45);
    const float s = a + b, t = a - b;
    w[0] = ((s - 0.5f * m[0]) + (c - d)) + 8.0f * e;
    w[ws] = (t + 2.0f * (c + d)) + 4.0f * e;
    w[2 * ws] = (s + 4.0f * (c - d)) + 2.0f * e;
    w[3 * ws] = ((t + m[6 * ms]) + 8.0f * (c + d)) + e;
}

typedef void axis_fn(const float *from, int64_t from_step, float *to, int64_t to_step);

static void tiles(const lc_winograd_run *r, lc_winograd_kind kind, axis_fn *axis)
{
    const int side = lc_winograd_side(kind);
    for (int64_t b = 0; b < r->blocks; b++) {
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            const float *x =
                r->x + at->n * r->x_image + b * r->x_blk + at->oh * r->x_row + at->ow * r->block;
            for (int c = 0; c < r->block; c++) {
                float d[16], t[36], v[81];
                for (int k = 0; k < 16; k++) {
                    const bool in = k / 4 < at->rows && k % 4 < at->columns;
                    d[k] = in ? x[k / 4 * r->x_row + k % 4 * r->block + c] : 0.0f;
                }
                for (int k = 0; k < 4; k++)
                    axis(d + k, 4, t + k, 4);
                for (int k = 0; k < side; k++)
                    axis(t + k * 4, 1, v + k * side, 1);
                for (int k = 0; k < side * side; k++)
                    r->v[lc_winograd_position(kind, k / side, k % side) * r->v_pos + b * r->v_blk +
                         i * r->block + c] = v[k];
            }
        }
    }
}

static void tiles_3x3(const lc_winograd_run *r)
{
    tiles(r, LC_WINOGRAD_3X3, tile6);
}

static void tiles_s2(const lc_winograd_run *r)
{
    tiles(r, LC_WINOGRAD_3X3_S2, tile9);
}

static void tiles_7x7(const lc_winograd_run *r)
{
    tiles(r, LC_WINOGRAD_7X7_S2, tile7);
}

static void product(const lc_wgrad_product *p)
{
    float *m = p->m;
    for (int64_t c = 0; c < (p->blocks - 1) * p->block + p->last; c++)
        for (int32_t v = 0; v < p->nv; v++, m += p->block) {
            const float *x = p->v + c / p->block * p->v_blk + c % p->block;
            const float *d = p->w + v * p->w_vec;
            float acc[16] = {0};
            for (int64_t i = 0; i < p->positions; i++, x += p->v_pos, d += p->w_pos)
                for (int64_t t = 0; t < p->tiles; t++)
                    for (int32_t l = 0; l < p->block; l++)
                        acc[l] += x[t * p->block] * d[t * p->block + l];
            for (int32_t l = 0; l < p->block; l++)
                m[l] = p->first ? acc[l] : m[l] + acc[l];
        }
}

/* side x side sums become n x n taps. */
static void taps(axis_fn *axis, int side, int n, const float *m, int64_t m_pos, float *to,
                 int64_t tap, int64_t floats)
{
    for (int64_t i = 0; i < floats; i++) {
        float t[28], w[16];
        for (int j = 0; j < side; j++)
            axis(m + i + j * m_pos, side * m_pos, t + j, side);
        for (int k = 0; k < n; k++)
            axis(t + k * side, 1, w + k * n, 1);
        for (int k = 0; k < n * n; k++)
            to[k * tap + i] = w[k];
    }
}

static void taps_3x3(const float *m, int64_t m_pos, float *to, int64_t tap, int64_t vectors,
                     int32_t block)
{
    taps(taps6, 6, 3, m, m_pos, to, tap, vectors * block);
}

static void taps_s2(const float *m, int64_t m_pos, float *to, int64_t tap, int64_t vectors,
                    int32_t block)
{
    taps(taps_shared, 6, 3, m, m_pos, to, tap, vectors * block);
}

static void taps_7x7(const float *m, int64_t m_pos, float *to, int64_t tap, int64_t vectors,
                     int32_t block)
{
    taps(taps7, 7, 4, m, m_pos, to, tap, vectors * block);
}

void lc_wgrad_kernels_fill__scalar(lc_wgrad_kernels *k)
{
    k->dense = dense;
    k->lanes = lanes;
    k->tiles[LC_WINOGRAD_3X3] = tiles_3x3;
    k->tiles[LC_WINOGRAD_3X3_S2] = tiles_s2;
    k->tiles[LC_WINOGRAD_7X7_S2] = tiles_7x7;
    k->product = product;
    k->taps[LC_WINOGRAD_3X3] = taps_3x3;
    k->taps[LC_WINOGRAD_3X3_S2] = taps_s2;
    k->taps[LC_WINOGRAD_7X7_S2] = taps_7x7;
    k->dense_name = "direct";
    k->lanes_name = "small groups";
}
