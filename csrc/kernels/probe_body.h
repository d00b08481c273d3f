/* The probes with vectors; included by probe_<isa>.c after base/simd_<isa>.h.
 *
 * Twelve chains of FMA: two units of latency four or five need eight to ten. */
#define PROBE_CHAINS 12
#define PROBE_SUMS 8

static float add_up(const lc_v *v, int n)
{
    float lane[LC_VLEN], sum = 0;
    for (int i = 0; i < n; i++) {
        lc_v_storeu(lane, v[i]);
        for (int l = 0; l < LC_VLEN; l++)
            sum += lane[l];
    }
    return sum;
}

static float probe_multiply_add(int64_t rounds)
{
    const lc_v scale = lc_v_set1(0.999f), shift = lc_v_set1(0.001f);
    lc_v v[PROBE_CHAINS];
    for (int i = 0; i < PROBE_CHAINS; i++)
        v[i] = lc_v_set1((float)i);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < PROBE_CHAINS; i++)
            v[i] = lc_v_fma(v[i], scale, shift);
    }
    return add_up(v, PROBE_CHAINS);
}

static float probe_read(const float *x, int64_t n)
{
    lc_v v[PROBE_SUMS];
    for (int i = 0; i < PROBE_SUMS; i++)
        v[i] = lc_v_zero();
    for (int64_t at = 0; at < n; at += PROBE_SUMS * LC_VLEN) {
#pragma GCC unroll 8
        for (int i = 0; i < PROBE_SUMS; i++)
            v[i] = lc_v_add(v[i], lc_v_loadu(x + at + i * LC_VLEN));
    }
    return add_up(v, PROBE_SUMS);
}

static void probe_fill(lc_probe_kernels *k)
{
    k->multiply_add = probe_multiply_add;
    k->round_flops = 2 * PROBE_CHAINS * LC_VLEN;
    k->read = probe_read;
}
