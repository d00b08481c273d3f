/* Plain loops for any width. */
#include "kernels/pack_kernels.h"

#include <string.h>

#include "kernels/winograd_kernels.h"

static void pack(const lc_pack_tile *t, const float *w, float *rows)
{
    for (int e = 0; e < t->n; e++)
        for (int i = 0; i < t->width; i++)
            rows[t->row[e] + i] =
                t->lane[i] < 0 ? 0.0f : (float)(w[t->lane[i] + t->at + e] * t->scale[i]);
}

static void unpack(const lc_pack_tile *t, const float *rows, float *w)
{
    for (int i = 0; i < t->width; i++)
        for (int e = 0; e < t->n && t->lane[i] >= 0; e++)
            w[t->lane[i] + t->at + e] = (float)(rows[t->row[e] + i] * t->scale[i]);
}

/* u = G w G^T */
static void transform(const double w[9], double u[LC_WINOGRAD_POSITIONS])
{
    static const double g[6][3] = {
        {1, 0, 0},
        {1. / 3, 1. / 3, 1. / 3},
        {-1. / 3, 1. / 3, -1. / 3},
        {-16. / 15, -8. / 15, -4. / 15},
        {1. / 15, -2. / 15, 4. / 15},
        {0, 0, 1},
    };
    double t[6][3];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 3; j++)
            t[i][j] = g[i][0] * w[j] + g[i][1] * w[3 + j] + g[i][2] * w[6 + j];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            u[i * 6 + j] = g[j][0] * t[i][0] + g[j][1] * t[i][1] + g[j][2] * t[i][2];
}

static void winograd(const lc_pack_tile *t, const float *w, float *u)
{
    for (int k = 0; k < t->n; k++)
        for (int i = 0; i < t->width; i++) {
            double taps[9] = {0}, v[LC_WINOGRAD_POSITIONS];
            for (int e = 0; e < 9 && t->lane[i] >= 0; e++)
                taps[e] = w[t->lane[i] + t->at + k * 9 + e] * t->scale[i];
            transform(taps, v);
            for (int p = 0; p < LC_WINOGRAD_POSITIONS; p++)
                u[p * t->pos + k * t->width + i] = (float)v[p];
        }
}

/* Rows 0 and 5 of G are weights 0 and 2; the sum of rows 1 and 2 is two thirds of weight 1. */
static void unwinograd(const lc_pack_tile *t, const float *u, float *w)
{
    for (int k = 0; k < t->n; k++)
        for (int i = 0; i < t->width; i++) {
            if (t->lane[i] < 0)
                continue;
            double rows[3][6];
            for (int p = 0; p < 6; p++) {
                const float *from = u + p * t->pos + k * t->width + i;
                rows[0][p] = from[0];
                rows[1][p] = 1.5 * ((double)from[6 * t->pos] + (double)from[12 * t->pos]);
                rows[2][p] = from[30 * t->pos];
            }
            float *to = w + t->lane[i] + t->at + k * 9;
            for (int r = 0; r < 3; r++) {
                to[r * 3] = (float)(rows[r][0] * t->scale[i]);
                to[r * 3 + 1] = (float)(1.5 * (rows[r][1] + rows[r][2]) * t->scale[i]);
                to[r * 3 + 2] = (float)(rows[r][5] * t->scale[i]);
            }
        }
}

static void differences(const float *w, const float *g, int64_t n, int bits, unsigned char *codes,
                        uint32_t *far)
{
    const uint32_t middle = (UINT32_C(1) << (bits - 1)) - 1, escape = 2 * middle + 1;
    memset(codes, 0, (size_t)(n * bits + 7) / 8);
    memset(far, 0, (size_t)(n + 31) / 32 * sizeof *far);
    for (int64_t i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy(&a, w + i, sizeof a);
        memcpy(&b, g + i, sizeof b);
        uint32_t code = lc_ordered(a) - lc_ordered(b) + middle;
        if (code >= escape) {
            code = escape;
            far[i / 32] |= UINT32_C(1) << i % 32;
        }
        codes[i * bits / 8] |= (unsigned char)(code << i * bits % 8);
    }
}

void lc_pack_kernels_fill__scalar(lc_pack_kernels *k)
{
    k->pack = pack;
    k->unpack = unpack;
    k->winograd = winograd;
    k->unwinograd = unwinograd;
    k->differences = differences;
}
