#include "ops/matrix.h"
#include "ops/op_util.h"

#include <string.h>

#define CHUNK_STEPS 256 /* as in conv2d.c */

lc_matrix lc_matrix_plan(int64_t m, int64_t n, int64_t k, int64_t batch, int threads, int block)
{
    lc_matrix p = {.m = m, .n = n, .k = k, .tiles = 1, .splits = 1};
    p.blocks = lc_ceil_div(n, block);
    p.panels = lc_ceil_div(p.blocks, 2);
    if (m == 0 || n == 0 || batch == 0)
        return p;
    /* A tile of rows should stay in half of the L2 cache while the panels pass over it. */
    const int64_t row_bytes = (k > 0 ? k : 1) * (int64_t)sizeof(float);
    int64_t rows = (int64_t)(lc_cpu_get()->l2 / 2) / row_bytes;
    rows = rows < 24 ? 24 : rows;
    p.tiles = lc_ceil_div(m, rows);
    int64_t want = threads == 1 ? 1 : 4 * (int64_t)threads;
    if (batch * p.tiles < want)
        p.splits = lc_min64(p.panels, lc_ceil_div(want, batch * p.tiles));
    if (batch * p.tiles * p.splits < want)
        p.tiles =
            lc_min64(lc_ceil_div(m, 6), p.tiles * lc_ceil_div(want, batch * p.tiles * p.splits));
    return p;
}

int64_t lc_matrix_packed_floats(const lc_matrix *p, int block)
{
    return p->blocks * block * p->k;
}

void lc_matrix_pack_panel(const lc_matrix *p, int block, int64_t panel, float *to, const float *w,
                          int64_t k_stride, int64_t n_stride)
{
    const int64_t width = lc_min64(2, p->blocks - panel * 2) * block, first = panel * 2 * block;
    const int64_t valid = lc_min64(width, p->n - first);
    to += first * p->k;
    w += first * n_stride;
    for (int64_t k = 0; k < p->k; k++, to += width, w += k_stride) {
        for (int64_t i = 0; i < valid; i++)
            to[i] = w[i * n_stride];
        for (int64_t i = valid; i < width; i++)
            to[i] = 0.0f;
    }
}

void lc_matrix_item(const lc_matrix *p, const lc_kernels *kernels, int64_t item, float *y,
                    const float *x, const float *w, const float *bias)
{
    static const float no_bias[LC_CONV_MAX_NV * LC_MAX_BLOCK];
    const int block = kernels->block;
    const int64_t tile = item % p->tiles, split = item / p->tiles;
    const int64_t m0 = tile * p->m / p->tiles, m1 = (tile + 1) * p->m / p->tiles;
    const int64_t chunks = p->k > CHUNK_STEPS ? lc_ceil_div(p->k, CHUNK_STEPS) : 1;
    lc_conv_run r;
    memset(&r, 0, sizeof r);
    r.block = block;
    r.y_pix = p->n;
    r.y_vec = block;
    r.x_col = p->k;
    r.h = r.kh = r.kw = r.blocks = 1;
    r.w_in = p->m;
    r.stride[0] = r.stride[1] = r.dilation[0] = r.dilation[1] = 1;
    const int64_t last = (split + 1) * p->panels / p->splits;
    for (int64_t panel = split * p->panels / p->splits; panel < last; panel++) {
        const int64_t first = panel * 2 * block;
        r.nv = (int32_t)lc_min64(2, p->blocks - panel * 2);
        r.y = y + first;
        r.bias = bias ? bias + first : no_bias;
        r.flags = 0;
        for (int v = 0; v < r.nv; v++) {
            r.lanes[v] = (int32_t)lc_min64(block, p->n - first - v * block);
            if (r.lanes[v] < block)
                r.flags = LC_RUN_TAIL | LC_RUN_CROP;
        }
        const uint32_t flags = r.flags;
        for (int64_t c = 0; c < chunks; c++) {
            int64_t from = c * p->k / chunks, to = (c + 1) * p->k / chunks;
            r.x = x + from;
            r.w = w + first * p->k + from * r.nv * block;
            r.cb = to - from;
            r.flags = flags | (c == 0 ? LC_RUN_FIRST : 0) | (c == chunks - 1 ? LC_RUN_LAST : 0);
            kernels->conv.dense(&r, 0, 1, m0, m1);
        }
    }
}
