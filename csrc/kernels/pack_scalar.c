/* Lanes moved number by number. */
#include "kernels/pack_kernels.h"

#include <string.h>

#include "kernels/pack_body.h"

static void gather8(const float *w, const int64_t lane[L], const int64_t *from, int n, float *f)
{
    for (int e = 0; e < n; e++)
        for (int i = 0; i < L; i++)
            f[e * L + i] = lane[i] < 0 ? 0.0f : w[lane[i] + from[e]];
}

static void scatter8(const float *f, const int64_t lane[L], const int64_t *from, int n, float *w)
{
    for (int e = 0; e < n; e++)
        for (int i = 0; i < L; i++)
            if (lane[i] >= 0)
                w[lane[i] + from[e]] = f[e * L + i];
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
    k->strassen = strassen;
    k->unstrassen = unstrassen;
    k->differences = differences;
}
