/* Plain loops for either block size. */
#include "kernels/winograd_kernels.h"

#include <stdbool.h>

/* t = B^T d; strides of both in floats */
static void input4(const float *d, int64_t ds, float *t, int64_t ts)
{
    t[0 * ts] = d[0] - d[2 * ds];
    t[1 * ts] = d[1 * ds] + d[2 * ds];
    t[2 * ts] = d[2 * ds] - d[1 * ds];
    t[3 * ts] = d[3 * ds] - d[1 * ds];
}

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

static void input7(const float *d, int64_t ds, float *t, int64_t ts)
{
    const float d1 = d[ds], d2 = d[2 * ds], d3 = d[3 * ds], d4 = d[4 * ds], d5 = d[5 * ds];
    const float a = (d5 - 5.0f * d3) + 4.0f * d1, b = (d4 - 5.0f * d2) + 4.0f * d[0];
    const float p = d3 - 4.0f * d1, q = d4 - 4.0f * d2, r = d5 - 4.0f * d3, s = d4 - d2;
    t[0 * ts] = a - 0.5f * b;
    t[1 * ts] = (r - 0.5f * p) + 0.5f * q;
    t[2 * ts] = (r + 0.5f * p) - 1.5f * q;
    t[3 * ts] = ((d5 - d3) - (d3 - d1)) + 1.5f * s;
    t[4 * ts] = ((d5 - d3) + (d3 - d1)) - 2.5f * s;
    t[5 * ts] = a;
    t[6 * ts] = ((d[6 * ds] - 5.0f * d4) + 4.0f * d2) - 0.5f * a;
}

/* y = A^T m */
static void output2(const float *m, int64_t ms, float *y, int64_t ys)
{
    y[0 * ys] = m[0] + (m[1 * ms] + m[2 * ms]);
    y[1 * ys] = m[3 * ms] + (m[1 * ms] - m[2 * ms]);
}

static void output4(const float *m, int64_t ms, float *y, int64_t ys)
{
    float s = m[1 * ms] + m[2 * ms], d = m[1 * ms] - m[2 * ms], a = m[3 * ms], b = m[4 * ms];
    y[0 * ys] = (m[0] + s) + (a + b);
    y[1 * ys] = (d + 0.5f * a) - 2.0f * b;
    y[2 * ys] = (s + 0.25f * a) + 4.0f * b;
    y[3 * ys] = ((d + m[5 * ms]) + 0.125f * a) - 8.0f * b;
}

static void input_even(const float *d, int64_t ds, float *t, int64_t ts)
{
    const float e[5] = {d[0], d[ds], d[2 * ds], d[3 * ds], d[4 * ds]};
    t[0 * ts] = (e[0] + e[3]) - 1.5f * (e[1] + e[2]);
    t[1 * ts] = (e[1] + e[3]) - 2.5f * e[2];
    t[2 * ts] = (e[3] - e[2]) - 2.0f * e[1];
    t[3 * ts] = e[3] + 0.5f * (e[2] - e[1]);
    t[4 * ts] = (e[1] + e[4]) - 1.5f * (e[2] + e[3]);
}

/* Stride 2: nine inputs along an axis, the even ones transformed, then the odd ones. */
static void input9(const float *d, int64_t ds, float *t, int64_t ts)
{
    input_even(d, 2 * ds, t, ts);
    for (int i = 0; i < 4; i++)
        t[(5 + i) * ts] = d[(2 * i + 1) * ds];
}

/* Up: five inputs, transformed, then as they are. */
static void input_up(const float *d, int64_t ds, float *t, int64_t ts)
{
    input_even(d, ds, t, ts);
    for (int i = 0; i < 4; i++)
        t[(5 + i) * ts] = d[i * ds];
}

static void output4_late(const float *m, int64_t ms, float *y, int64_t ys)
{
    const float s = (m[1 * ms] + m[2 * ms]) * (1.0f / 3), d = (m[1 * ms] - m[2 * ms]) * (1.0f / 3);
    const float a = m[3 * ms] * (1.0f / 15), b = m[4 * ms] * (1.0f / 15);
    y[0 * ys] = m[0] + s - a * 4 + b;
    y[1 * ys] = d - a * 2 - b * 2;
    y[2 * ys] = s - a + b * 4;
    y[3 * ys] = d - a * 0.5f - b * 8 + m[5 * ms];
}

static void output9(const float *m, int64_t ms, float *y, int64_t ys)
{
    const float a = m[1 * ms], b = m[2 * ms], c = m[3 * ms];
    y[0 * ys] = m[5 * ms] + ((m[0] + a) + (b + c));
    y[1 * ys] = ((m[6 * ms] - a) + 0.5f * b) + 2.0f * c;
    y[2 * ys] = ((m[7 * ms] + a) + 0.25f * b) + 4.0f * c;
    y[3 * ys] = (((m[8 * ms] - a) + m[4 * ms]) + 0.125f * b) + 8.0f * c;
}

static void output_pairs(const float *m, int64_t ms, float *y, int64_t ys)
{
    const float a = m[1 * ms], b = m[2 * ms], c = m[3 * ms];
    for (int i = 0; i < 4; i++)
        y[2 * i * ys] = m[(5 + i) * ms];
    y[1 * ys] = (m[0] + a) + (b + c);
    y[3 * ys] = (0.5f * b - a) + 2.0f * c;
    y[5 * ys] = (a + 0.25f * b) + 4.0f * c;
    y[7 * ys] = ((m[4 * ms] - a) + 0.125f * b) + 8.0f * c;
}

static void output7(const float *m, int64_t ms, float *y, int64_t ys)
{
    const float s = m[1 * ms] + m[2 * ms], d = m[1 * ms] - m[2 * ms], c = m[5 * ms];
    const float s2 = m[3 * ms] + m[4 * ms], d2 = m[3 * ms] - m[4 * ms];
    y[0 * ys] = (m[0] + s) + (s2 + c);
    y[1 * ys] = (d + 2.0f * d2) + 0.5f * c;
    y[2 * ys] = (s + 4.0f * s2) + 0.25f * c;
    y[3 * ys] = ((d + m[6 * ms]) + 8.0f * d2) + 0.125f * c;
}

typedef void axis_fn(const float *from, int64_t from_step, float *to, int64_t to_step);

/* Transforms along both axes: n x n numbers become m x m. */
static void both_axes(axis_fn *axis, int n, int m, const float *from, float *to)
{
    float t[81] = {0};
    for (int k = 0; k < n; k++)
        axis(from + k, n, t + k, n);
    for (int k = 0; k < m; k++)
        axis(t + k * n, 1, to + k * m, 1);
}

/* Tiles of n x n inputs. */
static void input_tiles(const lc_winograd_run *r, int n, axis_fn *axis)
{
    const lc_winograd_kind kind = lc_winograd_kind_of(r->form);
    const int side = lc_winograd_side(kind);
    const int64_t stride = r->form->up ? 1 : r->form->stride;
    for (int64_t b = 0; b < r->blocks; b++)
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            const float *x = r->x + at->n * r->x_image + b * r->x_blk;
            const int64_t ih = at->oh * stride - r->pad[0];
            const int64_t iw = at->ow * stride - r->pad[1];
            for (int c = 0; c < r->block; c++) {
                float d[81], v[81];
                for (int k = 0; k < n * n; k++) {
                    const int64_t h = ih + k / n, w = iw + k % n;
                    const bool in = h >= 0 && h < r->h && w >= 0 && w < r->w;
                    d[k] = in ? x[h * r->x_row + w * r->block + c] : 0.0f;
                }
                both_axes(axis, n, side, d, v);
                for (int k = 0; k < side * side; k++)
                    r->v[lc_winograd_position(kind, k / side, k % side) * r->v_pos + b * r->v_blk +
                         i * r->block + c] = v[k];
            }
        }
}

static void input_3x3(const lc_winograd_run *r)
{
    input_tiles(r, 6, input6);
}

static void input_2x2(const lc_winograd_run *r)
{
    input_tiles(r, 4, input4);
}

static void input_s2(const lc_winograd_run *r)
{
    input_tiles(r, 9, input9);
}

static void input_3x3_up(const lc_winograd_run *r)
{
    input_tiles(r, 5, input_up);
}

/* 7x7: channel, row parity and column parity are the channels of V. */
static void input_7x7(const lc_winograd_run *r)
{
    const int64_t channels = (r->blocks - 1) * r->block + r->last;
    for (int64_t i = 0; i < r->tiles; i++) {
        const lc_winograd_place *at = &r->place[i];
        const float *x = r->x + at->n * r->x_image;
        for (int64_t c = 0; c < r->blocks * r->block; c++) {
            float d[49] = {0}, v[49];
            for (int k = 0; k < 49 && c < channels; k++) {
                const int64_t row = 2 * (k / 7) + c / 2 % 2, column = 2 * (k % 7) + c % 2;
                const int64_t h = at->oh * 2 - r->pad[0] + row, w = at->ow * 2 - r->pad[1] + column;
                const bool in = h >= 0 && h < r->h && w >= 0 && w < r->w;
                if (in && row < 13 && column < 13)
                    d[k] = x[c / 4 * r->x_blk + h * r->x_row + w];
            }
            both_axes(input7, 7, 7, d, v);
            for (int k = 0; k < 49; k++)
                r->v[k * r->v_pos + c / r->block * r->v_blk + i * r->block + c % r->block] = v[k];
        }
    }
}

/* Strassen: the left factors of the seven products of a = [[a0, a1], [a2, a3]] */
static void strassen_in(const float a[4], float t[7])
{
    t[0] = a[0];
    t[1] = a[1];
    t[3] = a[3];
    t[4] = a[2] + a[3];
    t[5] = t[4] - a[0];
    t[2] = a[1] - t[5];
    t[6] = a[0] - a[2];
}

static void strassen_out(const float p[7], float c[4])
{
    const float u2 = p[0] + p[5], u3 = u2 + p[6];
    c[0] = p[0] + p[1];
    c[1] = (u2 + p[4]) + p[2];
    c[2] = u3 - p[3];
    c[3] = u3 + p[4];
}

/* Pixels and parts as rows and columns; twice: those of halves of halves. */
static void input_1x1(const lc_winograd_run *r)
{
    const int n = r->form->parts;
    for (int64_t b = 0; b < r->blocks; b++)
        for (int64_t i = 0; i < r->tiles; i++) {
            const lc_winograd_place *at = &r->place[i];
            for (int c = 0; c < r->block; c++) {
                float a[4][4] = {{0}}, t[4][7], v[49];
                for (int k = 0; k < n; k++) {
                    const int64_t p = at->ow + k;
                    if (p >= r->oh * r->ow)
                        break;
                    const float *x = r->x + at->n * r->x_image + b * r->x_blk +
                                     p / r->ow * r->stride * r->x_row +
                                     p % r->ow * r->stride * r->block + c;
                    for (int q = 0; q < n; q++)
                        a[k][q] = x[q * r->blocks * r->x_blk];
                }
                if (n == 2)
                    strassen_in((float[4]){a[0][0], a[0][1], a[1][0], a[1][1]}, v);
                for (int e = 0; n == 4 && e < 4; e++) {
                    const int k = e / 2, q = e % 2;
                    strassen_in((float[4]){a[k][q], a[k][q + 2], a[k + 2][q], a[k + 2][q + 2]},
                                t[e]);
                }
                for (int f = 0; n == 4 && f < 7; f++)
                    strassen_in((float[4]){t[0][f], t[1][f], t[2][f], t[3][f]}, v + f * 7);
                for (int k = 0; k < r->form->positions; k++)
                    r->v[k * r->v_pos + b * r->v_blk + i * r->block + c] = v[k];
            }
        }
}

static void multiply(const lc_winograd_run *r)
{
    const int64_t width = 2 * r->block, channels = r->blocks * r->block;
    int weight = 0, uses = 0;
    for (int64_t pos = 0; pos < r->form->positions; pos++) {
        const float *u = r->u + weight * channels * width;
        const lc_winograd_range taking = lc_winograd_taking(r, pos);
        for (int64_t i = taking.from; i < taking.to; i++) {
            float *m = r->m + pos * r->m_pos + i * width;
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
        if (++uses == (r->form->uses ? r->form->uses[weight] : 1)) {
            weight++;
            uses = 0;
        }
    }
}

/* u = G w, without the factors of output4_late */
static void weights6(const float *w, int64_t ws, float *u, int64_t us)
{
    const float a = w[0], b = w[ws], c = w[2 * ws], s = a + c;
    u[0 * us] = a;
    u[1 * us] = b + s;
    u[2 * us] = b - s;
    u[3 * us] = a * 4 + b * 2 + c;
    u[4 * us] = a - b * 2 + c * 4;
    u[5 * us] = c;
}

static void multiply_late(const lc_winograd_run *r)
{
    const int64_t width = r->nv * r->block, pos = LC_WINOGRAD_LATE_POS(r->block);
    for (int64_t first = 0; first < r->blocks * r->block; first += LC_WINOGRAD_LATE) {
        int64_t n = r->blocks * r->block - first;
        n = n < LC_WINOGRAD_LATE ? n : LC_WINOGRAD_LATE;
        for (int64_t c = 0; c < n; c++)
            for (int64_t l = 0; l < width; l++) {
                const int64_t b = (first + c) / r->block, k = (first + c) % r->block;
                float w[9], t[18], u[36];
                for (int j = 0; j < 9; j++)
                    w[j] = r->u[((b * 9 + j) * r->block + k) * width + l];
                for (int j = 0; j < 3; j++)
                    weights6(w + j, 3, t + j, 3);
                for (int j = 0; j < 6; j++)
                    weights6(t + j * 3, 1, u + j * 6, 1);
                for (int j = 0; j < 36; j++)
                    r->late[j * pos + c * width + l] = u[j];
            }
        for (int j = 0; j < 36; j++) {
            const lc_winograd_range taking = lc_winograd_taking(r, j);
            for (int64_t i = taking.from; i < taking.to; i++) {
                float sum[32] = {0}, *m = r->m + j * r->m_pos + i * 2 * r->block;
                for (int64_t c = 0; c < n; c++)
                    for (int64_t l = 0; l < width; l++)
                        sum[l] += r->late[j * pos + c * width + l] *
                                  r->v[j * r->v_pos + (first + c) / r->block * r->v_blk +
                                       i * r->block + (first + c) % r->block];
                for (int64_t l = 0; l < width; l++)
                    m[l] = first ? m[l] + sum[l] : sum[l];
            }
        }
    }
}

/* One output: bias, residual, ReLU. */
static void put(const lc_winograd_run *r, int64_t to, float s, float bias)
{
    s += bias;
    if (r->add)
        s += r->add[to];
    r->y[to] = r->relu && s < 0.0f ? 0.0f : s; /* NaN stays */
}

static void output_tiles(const lc_winograd_run *r, axis_fn *axis)
{
    const lc_winograd_kind kind = lc_winograd_kind_of(r->form);
    const int side = lc_winograd_side(kind);
    const int each = r->form->up ? 2 : 1, n = r->form->tile * each;
    for (int64_t i = 0; i < r->tiles; i++) {
        const lc_winograd_place *at = &r->place[i];
        for (int l = 0; l < r->nv * r->block; l++) {
            const int vec = l / r->block, lane = l % r->block;
            const float *from = r->m + (i * 2 + vec) * r->block + lane;
            float m[81], t[72], y[64];
            for (int k = 0; k < side * side; k++)
                m[k] = from[lc_winograd_position(kind, k / side, k % side) * r->m_pos];
            for (int k = 0; k < side; k++)
                axis(m + k, side, t + k, side);
            for (int k = 0; k < n; k++)
                axis(t + k * side, 1, y + k * n, 1);
            for (int k = 0; k < n * n; k++) {
                const int64_t row = at->oh * each + k / n, column = at->ow * each + k % n;
                if (k / n >= at->rows * each || k % n >= at->columns * each || row >= r->y_h ||
                    column >= r->y_w)
                    continue;
                const int64_t to =
                    at->n * r->y_image + vec * r->y_vec + row * r->y_row + column * r->block + lane;
                if (lane < r->lanes[vec])
                    put(r, to, y[k], r->bias[l]);
                else
                    r->y[to] = 0.0f;
            }
        }
    }
}

static void output_3x3(const lc_winograd_run *r)
{
    output_tiles(r, output4);
}

static void output_late(const lc_winograd_run *r)
{
    output_tiles(r, output4_late);
}

static void output_2x2(const lc_winograd_run *r)
{
    output_tiles(r, output2);
}

static void output_s2(const lc_winograd_run *r)
{
    output_tiles(r, output9);
}

static void output_3x3_up(const lc_winograd_run *r)
{
    output_tiles(r, output_pairs);
}

static void output_7x7(const lc_winograd_run *r)
{
    output_tiles(r, output7);
}

static void output_1x1(const lc_winograd_run *r)
{
    const int n = r->form->parts;
    for (int64_t i = 0; i < r->tiles; i++) {
        const lc_winograd_place *at = &r->place[i];
        for (int l = 0; l < r->nv * r->block; l++) {
            const int vec = l / r->block, lane = l % r->block;
            float p[49], s[7][4], c[4][4];
            for (int k = 0; k < r->form->positions; k++)
                p[k] = r->m[k * r->m_pos + (i * 2 + vec) * r->block + lane];
            for (int f = 0; f < r->form->positions / 7; f++)
                strassen_out(p + f * 7, s[f]);
            for (int e = 0; e < 4; e++) {
                const int k = e / 2, q = e % 2;
                float t[7], four[4];
                if (n == 2) {
                    c[k][q] = s[0][e];
                    continue;
                }
                for (int f = 0; f < 7; f++)
                    t[f] = s[f][e];
                strassen_out(t, four);
                c[k][q] = four[0];
                c[k][q + 2] = four[1];
                c[k + 2][q] = four[2];
                c[k + 2][q + 2] = four[3];
            }
            for (int k = 0; k < n; k++) {
                const int64_t pixel = at->ow + k;
                const int64_t to = at->n * r->y_image + vec * r->y_vec + pixel * r->block + lane;
                for (int q = 0; q < n && pixel < r->oh * r->ow; q++)
                    put(r, to + q * r->y_part, c[k][q], r->bias[q * r->bias_part + l]);
            }
        }
    }
}

void lc_winograd_kernels_fill__scalar(lc_winograd_kernels *k)
{
    k->input[LC_WINOGRAD_3X3] = input_3x3;
    k->input[LC_WINOGRAD_3X3_LATE] = input_3x3;
    k->input[LC_WINOGRAD_3X3_2X2] = input_2x2;
    k->input[LC_WINOGRAD_3X3_S2] = input_s2;
    k->input[LC_WINOGRAD_3X3_UP] = input_3x3_up;
    k->input[LC_WINOGRAD_7X7_S2] = input_7x7;
    k->input[LC_WINOGRAD_1X1] = input_1x1;
    k->input[LC_WINOGRAD_1X1_TWICE] = input_1x1;
    for (int i = 0; i < LC_WINOGRAD_KINDS; i++)
        k->multiply[i] = multiply;
    k->multiply[LC_WINOGRAD_3X3_LATE] = multiply_late;
    k->output[LC_WINOGRAD_3X3] = output_3x3;
    k->output[LC_WINOGRAD_3X3_LATE] = output_late;
    k->output[LC_WINOGRAD_3X3_2X2] = output_2x2;
    k->output[LC_WINOGRAD_3X3_S2] = output_s2;
    k->output[LC_WINOGRAD_3X3_UP] = output_3x3_up;
    k->output[LC_WINOGRAD_7X7_S2] = output_7x7;
    k->output[LC_WINOGRAD_1X1] = output_1x1;
    k->output[LC_WINOGRAD_1X1_TWICE] = output_1x1;
    k->tiles = 4;
}
