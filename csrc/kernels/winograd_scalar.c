/* Plain loops for either block size. */
#include "kernels/winograd_kernels.h"

#include <stdbool.h>

/* t = B^T d; strides of both in floats */
static void input6(const float *d, int64_t ds, float *t, int64_t ts)
{
    float p = d[3 * ds] - d[1 * ds], q = d[4 * ds] - d[2 * ds];
    t[0 * ts] = ((d[0] - d[2 * ds]) + q) + 1.5f * p;
    t[1 * ts] = (q + p) + 1.5f * (d[2 * ds] + d[3 * ds]);
    t[2 * ts] = (q - p) + 1.5f * (d[3 * ds] - d[2 * ds]);
    t[3 * ts] = q + 2.0f * p;
    t[4 * ts] = q - 0.5f * p;
    t[5 * ts] = ((d[5 * ds] - d[3 * ds]) - p) + 1.5f * q;
}

/* y = A^T m */
static void output4(const float *m, int64_t ms, float *y, int64_t ys)
{
    float s = m[1 * ms] + m[2 * ms], d = m[1 * ms] - m[2 * ms], a = m[3 * ms], b = m[4 * ms];
    y[0 * ys] = (m[0] + s) + (a + b);
    y[1 * ys] = (d + 0.5f * a) - 2.0f * b;
    y[2 * ys] = (s + 0.25f * a) + 4.0f * b;
    y[3 * ys] = ((d + m[5 * ms]) + 0.125f * a) - 8.0f * b;
}

static void input(const lc_winograd_run *r)
{
    for (int64_t b = 0; b < r->blocks; b++)
        for (int64_t i = 0; i < r->tiles; i++) {
            const int64_t tile = r->tile + i;
            const int64_t ih = tile / r->tile_columns * LC_WINOGRAD_TILE - r->pad[0];
            const int64_t iw = tile % r->tile_columns * LC_WINOGRAD_TILE - r->pad[1];
            for (int c = 0; c < r->block; c++) {
                float d[36], t[36], v[36];
                for (int k = 0; k < 36; k++) {
                    const int64_t h = ih + k / 6, w = iw + k % 6;
                    const bool in = h >= 0 && h < r->h && w >= 0 && w < r->w;
                    d[k] = in ? r->x[b * r->x_blk + h * r->x_row + w * r->block + c] : 0.0f;
                }
                for (int k = 0; k < 6; k++)
                    input6(d + k, 6, t + k, 6);
                for (int k = 0; k < 6; k++)
                    input6(t + k * 6, 1, v + k * 6, 1);
                for (int k = 0; k < 36; k++)
                    r->v[k * r->v_pos + b * r->v_blk + i * r->block + c] = v[k];
            }
        }
}

static void multiply(const lc_winograd_run *r)
{
    const int64_t width = 2 * r->block, channels = r->blocks * r->block;
    for (int64_t pos = 0; pos < LC_WINOGRAD_POSITIONS; pos++)
        for (int64_t i = 0; i < r->tiles; i++) {
            float *m = r->m + pos * r->m_pos + i * width;
            const float *u = r->u + pos * channels * width;
            for (int64_t k = 0; k < channels; k += LC_WINOGRAD_CHUNK) {
                float sum[32] = {0};
                for (int64_t c = k; c < channels && c < k + LC_WINOGRAD_CHUNK; c++)
                    for (int64_t l = 0; l < width; l++)
                        sum[l] += u[c * width + l] * r->v[pos * r->v_pos + c / r->block * r->v_blk +
                                                          i * r->block + c % r->block];
                for (int64_t l = 0; l < width; l++)
                    m[l] = k ? m[l] + sum[l] : sum[l];
            }
        }
}

static void output(const lc_winograd_run *r)
{
    for (int64_t i = 0; i < r->tiles; i++) {
        const int64_t oh = (r->tile + i) / r->tile_columns * LC_WINOGRAD_TILE;
        const int64_t ow = (r->tile + i) % r->tile_columns * LC_WINOGRAD_TILE;
        for (int l = 0; l < r->nv * r->block; l++) {
            const int vec = l / r->block, lane = l % r->block;
            const float *m = r->m + (i * 2 + vec) * r->block + lane;
            float t[24], y[16];
            for (int k = 0; k < 6; k++)
                output4(m + k * r->m_pos, 6 * r->m_pos, t + k, 6);
            for (int k = 0; k < 4; k++)
                output4(t + k * 6, 1, y + k * 4, 1);
            for (int k = 0; k < 16; k++) {
                const int64_t row = oh + k / 4, column = ow + k % 4;
                if (row >= r->oh || column >= r->ow)
                    continue;
                const int64_t to = vec * r->y_vec + row * r->y_row + column * r->block + lane;
                float s = y[k] + r->bias[l];
                if (r->add)
                    s += r->add[to];
                if (r->relu && s < 0.0f)
                    s = 0.0f; /* NaN stays */
                r->y[to] = lane < r->lanes[vec] ? s : 0.0f;
            }
        }
    }
}

void lc_winograd_kernels_fill__scalar(lc_winograd_kernels *k)
{
    k->input = input;
    k->multiply = multiply;
    k->output = output;
    k->tiles = 4;
    k->name = "winograd 4x4";
}
