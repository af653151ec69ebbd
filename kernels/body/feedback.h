/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/feedback.h - NVFP4 rounding of a row against a quadratic form.  All scales that a block may
 * get are tried at once, each in a lane of its own.  Included once by each kernels/<isa>/feedback.c, after
 * its lanes.h. */
#include "kernels/scalar.h"

/* s * e2m1(t / s): to the nearest value, to the even code on a tie, saturating.  e2m1 values below 2 are
 * multiples of 1/2, below 4 of 1, and above of 2.  Adding and subtracting 1.5 * 2^23 such units rounds to a
 * unit. */
LANE vf round_e2m1(vf t, vf s)
{
    vf y = vf_div(t, s), a = vf_abs(y), sign = vf_bits(vi_sub(vi_bits(y), vi_bits(a)));
    vf unit = vf_blend(vf_lt(a, vf_set(2)), vf_set(0x1.8p22f),
                       vf_blend(vf_lt(a, vf_set(4)), vf_set(0x1.8p23f), vf_set(0x1.8p24f)));
    vf v = vf_min(vf_sub(vf_add(a, unit), unit), vf_set(6));
    return vf_mul(vf_bits(vi_add(vi_bits(v), vi_bits(sign))), s);
}

/* The values of positive e4m3 codes: `whole` for normal, `small` for subnormal ones. */
LANE vf e4m3_of(vi c)
{
    vf whole = vf_bits(vi_shl(vi_add(c, vi_set(960)), 20));
    vf small = vf_mul(vf_sub(vf_bits(vi_add(c, vi_set(0x4b000000))), vf_set(0x1p23f)), vf_set(0x1p-9f));
    return vf_blend(vf_lt(small, vf_set(0x1p-6f)), small, whole);
}

/* One block of nvfp4_feedback: pointers to its first column, with the names of kernels.def. */
struct block {
    const float *l, *d, *w;
    float *a;
    int64_t ldl;
    float global;
};

/* The block under 16 scales s: q and t [column][scale] get its values and targets; returns the costs. */
LANE vf try_scales(const struct block *b, vf s, float q[16][16], float t[16][16])
{
    vf e[16], cost = vf_zero();
    for (int j = 15; j >= 0; j--) {
        vf x = vf_set(b->a[j]);
        for (int i = 15; i > j; i--) x = vf_fma(e[i], vf_set(b->l[i * b->ldl + j]), x);
        vf v = round_e2m1(x, s);
        e[j] = vf_sub(vf_set(b->w[j]), v);
        vf_store(q[j], v);
        vf_store(t[j], x);
        x = vf_sub(x, v);
        cost = vf_fma(vf_mul(vf_set(b->d[j]), x), x, cost);
    }
    return cost;
}

/* The scales of the codes low .. high, one in each lane; lanes past the end get that of high. */
LANE vf steps(int low, int high, float global)
{
    int32_t code[16];
    for (int k = 0; k < 16; k++) code[k] = low + k < high ? low + k : high;
    return vf_mul(e4m3_of(vi_bits(vf_load(code))), vf_set(global));
}

/* Round one block.  Returns its scale code, fills q [16], and makes b->a its targets. */
static uint8_t feedback_block(const struct block *b, float *q)
{
    float amax = 0, cost[16], v[16][16], t[16][16];
    for (int j = 0; j < 16; j++) amax = fmaxf(amax, fabsf(b->a[j]));

    int c = moe_f32_to_ue4m3(amax / (6.0f * b->global));
    int low = c < 3 ? 1 : c - 2;
    int high = c < 14 ? c + 12 : c > 120 ? 126 : c + 6;
    int best = 0;
    if (!(amax > 0)) low = high = 0x38;
    vf_store(cost, try_scales(b, steps(low, high, b->global), v, t));
    for (int k = 1; k <= high - low; k++)
        if (cost[k] < cost[best]) best = k;
    for (int j = 0; j < 16; j++) q[j] = v[j][best], b->a[j] = t[j][best];
    return (uint8_t)(low + best);
}

void VARIANT(nvfp4_feedback)(const float *l, int64_t ldl, const float *d, int64_t b, const float *w, float *a,
                             float global, float *q, uint8_t *scale)
{
    for (int64_t j0 = b - 16; j0 >= 0; j0 -= 16) {
        const struct block x = { l + j0 * ldl + j0, d + j0, w + j0, a + j0, ldl, global };
        scale[j0 / 16] = feedback_block(&x, q + j0);
        for (int64_t k = 0; k < j0; k += 16) {
            vf s = vf_load(a + k);
            for (int i = 15; i >= 0; i--)
                s = vf_fma(vf_set(w[j0 + i] - q[j0 + i]), vf_load(l + (j0 + i) * ldl + k), s);
            vf_store(a + k, s);
        }
    }
}

void VARIANT(nvfp4_descend)(const float *h, int64_t ldh, int64_t b, const float *s, float *q, float *g,
                            float *d)
{
    for (int64_t j = 0; j < b; j++) {
        float step = s[j / 16], t = q[j] - g[j] / h[j * ldh + j],
              to = moe_e2m1_to_f32(moe_f32_to_e2m1(t / step)) * step, x = to - q[j];
        if (x == 0) continue;
        q[j] = to;
        d[j] += x;
        const float *row = h + j * ldh;
        for (int64_t k = 0; k < b; k += 16)
            vf_store(g + k, vf_fma(vf_set(x), vf_load(row + k), vf_load(g + k)));
    }
}
