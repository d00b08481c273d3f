#include "base/random.h"

#include <math.h>
#include <string.h>

#include "base/threads.h"

/* Philox4x32-10, with the constants of the paper and of Random123. */
#define MUL0 0xD2511F53u
#define MUL1 0xCD9E8D57u
#define WEYL0 0x9E3779B9u /* the golden ratio */
#define WEYL1 0xBB67AE85u /* sqrt(3) - 1 */

void lc_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t x0 = (uint32_t)block, x1 = (uint32_t)(block >> 32);
    uint32_t x2 = (uint32_t)stream, x3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)MUL0 * x0, p1 = (uint64_t)MUL1 * x2;
        x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
        x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
        x1 = (uint32_t)p1;
        x3 = (uint32_t)p0;
        k0 += WEYL0;
        k1 += WEYL1;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

/* Turns the four words of a block into four elements. */
typedef void (*make_fn)(const uint32_t word[4], float a, float b, float out[4]);

static void make_uniform(const uint32_t word[4], float lo, float hi, float out[4])
{
    float width = hi - lo;
    for (int j = 0; j < 4; j++) {
        float x = lo + (float)(int32_t)(word[j] >> 8) * 0x1p-24f * width;
        /* Rounding may reach hi, which does not belong to the range. */
        out[j] = x < hi || !(lo < hi) ? x : nextafterf(hi, lo);
    }
}

/* The natural logarithm of a positive normal number: Cephes' logf (Moshier). libm's differs among
 * platforms in the last bit; this one is additions and multiplications only, which do not, as long
 * as no FMA is formed from them. */
static inline float log_portable(float x)
{
    int32_t bits, e;
    memcpy(&bits, &x, sizeof bits);
    bits -= 0x3f3504f3; /* sqrt(1/2): the mantissa goes to [sqrt(1/2), sqrt(2)) */
    e = bits >> 23;
    bits = (bits & 0x7fffff) + 0x3f3504f3;
    memcpy(&x, &bits, sizeof x);
    float f = x - 1.0f, z = f * f, n = (float)e;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    float y = p * f * z + n * -2.12194440e-4f - 0.5f * z;
    return f + y + n * 0.693359375f;
}

/* Two independent standard normal numbers from two words (Box and Muller 1958). */
static inline void box_muller(uint32_t w0, uint32_t w1, float *z0, float *z1)
{
    /* (w + 1/2) / 2^31, in [2^-32, 1]: the tails reach 6.66 standard deviations. */
    float u = ((float)(int32_t)(w0 >> 1) + 0.5f) * 0x1p-31f;
    float r = sqrtf(-2.0f * log_portable(u));
    /* The angle: two bits name a quarter turn, thirty an angle in [-pi/4, pi/4) around it. */
    float a = (float)((int32_t)(w1 & 0x3fffffff) - 0x20000000) * (0x1p-30f * 1.57079632679489662f);
    float a2 = a * a;
    float sine = ((-1.9515295891e-4f * a2 + 8.3321608736e-3f) * a2 - 1.6666654611e-1f) * a2 * a + a;
    float cosine =
        ((2.443315711809948e-5f * a2 - 1.388731625493765e-3f) * a2 + 4.166664568298827e-2f) * a2 *
            a2 -
        0.5f * a2 + 1.0f;
    float s = w1 & 0x40000000u ? cosine : sine, c = w1 & 0x40000000u ? sine : cosine;
    *z0 = r * ((w1 ^ w1 << 1) & 0x80000000u ? -c : c);
    *z1 = r * (w1 & 0x80000000u ? -s : s);
}

static void make_normal(const uint32_t word[4], float mean, float std, float out[4])
{
    float z[4];
    box_muller(word[0], word[1], &z[0], &z[1]);
    box_muller(word[2], word[3], &z[2], &z[3]);
    for (int j = 0; j < 4; j++)
        out[j] = mean + std * z[j];
}

/* Element i is lane i % 4 of block i / 4, whatever part is asked for. */
static inline void fill(float *out, int64_t n, uint64_t seed, uint64_t stream, int64_t first,
                        make_fn make, float a, float b)
{
    uint32_t word[4];
    int64_t i = 0;
    while (i < n) {
        uint64_t at = (uint64_t)first + (uint64_t)i;
        int lane = (int)(at % 4);
        lc_philox(seed, stream, at / 4, word);
        if (lane == 0 && n - i >= 4) {
            make(word, a, b, out + i);
            i += 4;
        } else {
            float part[4];
            make(word, a, b, part);
            while (lane < 4 && i < n)
                out[i++] = part[lane++];
        }
    }
}

void lc_random_uniform(float *out, int64_t n, uint64_t seed, uint64_t stream, int64_t first,
                       float lo, float hi)
{
    fill(out, n, seed, stream, first, make_uniform, lo, hi);
}

void lc_random_normal(float *out, int64_t n, uint64_t seed, uint64_t stream, int64_t first,
                      float mean, float std)
{
    fill(out, n, seed, stream, first, make_normal, mean, std);
}

static lc_random_state state; /* guarded by LC_LOCK_RANDOM */

lc_random_state lc_random_take(void)
{
    lc_lock_take(LC_LOCK_RANDOM);
    lc_random_state taken = state;
    state.stream++;
    lc_lock_give(LC_LOCK_RANDOM);
    return taken;
}

lc_random_state lc_random_get(void)
{
    lc_lock_take(LC_LOCK_RANDOM);
    lc_random_state copy = state;
    lc_lock_give(LC_LOCK_RANDOM);
    return copy;
}

void lc_random_set(lc_random_state next)
{
    lc_lock_take(LC_LOCK_RANDOM);
    state = next;
    lc_lock_give(LC_LOCK_RANDOM);
}
