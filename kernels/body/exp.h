/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/exp.h - the exponential and the largest element, which sums over vectors and attention share.
 * For kernels/body/, after an instruction set's lanes.h. */
#include <math.h>

/* Sixteen values at p, of which m exist; the others are 0, and are not stored. */
LANE vf load_to(const float *p, int64_t m) { return m >= 16 ? vf_load(p) : vf_loadn(p, m); }
LANE void store_to(float *p, int64_t m, vf v)
{
    if (m >= 16) vf_store(p, v);
    else vf_storen(p, m, v);
}

/* e^x within 2 units in the last place: 0 from -104 down, Inf from 88.73 up; NaN stays.
 *
 * x = k ln 2 + r with |r| <= 0.347.  ln 2 is split into a first part of few bits, so that x - k times it is
 * exact, and the rest.  e^r is its Taylor polynomial to r^7, which is off by less than 2^-27.  2^k is
 * multiplied in two halves: the first product is exact, and the second rounds once, also into subnormals and
 * to Inf. */
LANE vf exp_lanes(vf x)
{
    const vf magic = vf_set(0x1.8p23f);
    static const float c[] = { 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f };
    x = vf_min(vf_set(90), vf_max(vf_set(-105), x));
    vf shifted = vf_fma(x, vf_set(0x1.715476p0f), magic), k = vf_sub(shifted, magic);
    vf r = vf_fma(k, vf_set(-0x1.63p-1f), x), p = vf_set(1.f / 5040);
    r = vf_fma(k, vf_set(0x1.bd0106p-13f), r);
    for (int i = 0; i < 5; i++) p = vf_fma(p, r, vf_set(c[i]));
    vf e = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set(1));
    vi n = vi_sub(vi_bits(shifted), vi_bits(magic)), half = vi_sar(n, 1), rest = vi_sub(n, half);
    e = vf_mul(e, vf_bits(vi_shl(vi_add(half, vi_set(127)), 23)));
    return vf_mul(e, vf_bits(vi_shl(vi_add(rest, vi_set(127)), 23)));
}

LANE float largest(const float *x, int64_t n)
{
    float lane[16], most = -INFINITY;
    vf m = vf_set(-INFINITY);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) m = vf_max(vf_load(x + i), m);
    if (i < n) m = vf_max(vf_blend(vm_first(n - i), vf_loadn(x + i, n - i), m), m);
    vf_store(lane, m);
    for (int j = 0; j < 16; j++)
        if (lane[j] > most) most = lane[j];
    return most;
}
