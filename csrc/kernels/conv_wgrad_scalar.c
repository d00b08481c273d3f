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

/* t = A y; strides of both in floats */
static void tile6(const float *y, int64_t ys, float *t, int64_t ts)
{
    const float a = y[0], b = y[ys], c = y[2 * ys], d = y[3 * ys];
    t[0] = a;
    t[ts] = (a + c) + (b + d);
    t[2 * ts] = (a + c) - (b + d);
    t[3 * ts] = (a + 0.25f * c) + 0.5f * (b + 0.25f * d);
    t[4 * ts] = (a + 4.0f * c) - 2.0f * (b + 4.0f * d);
    t[5 * ts] = d;
}

/* w = G^T m */
static void taps3(const float *m, int64_t ms, float *w, int64_t ws)
{
    const float s = (m[ms] + m[2 * ms]) * (1.0f / 3), d = (m[ms] - m[2 * ms]) * (1.0f / 3);
    const float a = m[3 * ms] * (4.0f / 15), b = m[4 * ms] * (1.0f / 15);
    w[0] = (m[0] + d) + (b - 4.0f * a);
    w[ws] = s - 2.0f * (a + b);
    w[2 * ws] = (m[5 * ms] + d) + (4.0f * b - a);
}

static void tiles(const lc_winograd_run *r)
{
    for (int64_t b = 0; b < r->blocks; b++) {
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            const float *x =
                r->x + at->n * r->x_image + b * r->x_blk + at->oh * r->x_row + at->ow * r->block;
            for (int c = 0; c < r->block; c++) {
                float d[16], t[24], v[36];
                for (int k = 0; k < 16; k++) {
                    const bool in = k / 4 < at->rows && k % 4 < at->columns;
                    d[k] = in ? x[k / 4 * r->x_row + k % 4 * r->block + c] : 0.0f;
                }
                for (int k = 0; k < 4; k++)
                    tile6(d + k, 4, t + k, 4);
                for (int k = 0; k < 6; k++)
                    tile6(t + k * 4, 1, v + k * 6, 1);
                for (int k = 0; k < 36; k++)
                    r->v[k * r->v_pos + b * r->v_blk + i * r->block + c] = v[k];
            }
        }
    }
}

static void product(const lc_wgrad_product *p)
{
    float *m = p->m;
    for (int64_t c = 0; c < p->blocks * p->block; c++)
        for (int32_t v = 0; v < p->nv; v++, m += p->block) {
            const float *x = p->v + c / p->block * p->v_blk + c % p->block;
            const float *d = p->w + v * p->w_vec;
            float acc[16] = {0};
            for (int64_t t = 0; t < p->tiles; t++)
                for (int32_t l = 0; l < p->block; l++)
                    acc[l] += x[t * p->block] * d[t * p->block + l];
            for (int32_t l = 0; l < p->block; l++)
                m[l] = p->first ? acc[l] : m[l] + acc[l];
        }
}

static void taps(const float *m, int64_t m_pos, float *to, int64_t tap, int64_t vectors,
                 int32_t block)
{
    for (int64_t i = 0; i < vectors * block; i++) {
        float t[18], w[9];
        for (int j = 0; j < 6; j++)
            taps3(m + i + j * m_pos, 6 * m_pos, t + j, 6);
        for (int k = 0; k < 3; k++)
            taps3(t + k * 6, 1, w + k * 3, 1);
        for (int k = 0; k < 9; k++)
            to[k * tap + i] = w[k];
    }
}

void lc_wgrad_kernels_fill__scalar(lc_wgrad_kernels *k)
{
    k->dense = dense;
    k->lanes = lanes;
    k->tiles = tiles;
    k->product = product;
    k->taps = taps;
    k->dense_name = "direct";
    k->lanes_name = "small groups";
    k->winograd_name = "winograd 3x3";
}
