/* kernels/body/feedback.h - NVFP4 rounding against a quadratic form, sixteen rows at a time: a row a lane.
 * Included once by each kernels/<isa>/feedback.c, after its lanes.h and vf_any (some lane is not zero). */
#include "kernels/scalar.h"


/* s * e2m1(t / s): nearest, ties to the even code, saturating.  Adding and taking away 1.5 * 2^23 units rounds to a unit. */
LANE vf round_e2m1(vf t, vf s)
{
    vf y = vf_div(t, s), a = vf_abs(y), sign = vf_bits(vi_sub(vi_bits(y), vi_bits(a)));
    vf unit = vf_blend(vf_lt(a, vf_set(2)), vf_set(0x1.8p22f), vf_blend(vf_lt(a, vf_set(4)), vf_set(0x1.8p23f), vf_set(0x1.8p24f)));
    vf v = vf_min(vf_sub(vf_add(a, unit), unit), vf_set(6));
    return vf_mul(vf_bits(vi_add(vi_bits(v), vi_bits(sign))), s);
}

/* The value of positive e4m3 codes. */
LANE vf e4m3_of(vi c)
{
    vf whole = vf_bits(vi_shl(vi_add(c, vi_set(960)), 20));
    vf small = vf_mul(vf_sub(vf_bits(vi_add(c, vi_set(0x4b000000))), vf_set(0x1p23f)), vf_set(0x1p-9f));
    return vf_blend(vf_lt(small, vf_set(0x1p-6f)), small, whole);
}

struct block { const float *l, *d, *w, *a; int64_t ldl, ld; };

LANE vf column(const float *p, int64_t n) { return n >= 16 ? vf_load(p) : vf_loadn(p, n); }

/* The 16 columns of n <= 16 rows under the steps s; returns the cost. */
LANE vf try_step(const struct block *b, int64_t n, vf s, vf q[16])
{
    vf e[16], cost = vf_zero();
    for (int j = 15; j >= 0; j--) {
        vf t = column(b->a + j * b->ld, n);
        for (int i = 15; i > j; i--) t = vf_fma(vf_set(b->l[i * b->ldl + j]), e[i], t);
        q[j] = round_e2m1(t, s);
        e[j] = vf_sub(column(b->w + j * b->ld, n), q[j]);
        t = vf_sub(t, q[j]);
        cost = vf_fma(vf_mul(vf_set(b->d[j]), t), t, cost);
    }
    return cost;
}

/* The codes a row tries: span of them, from low. */
struct codes { int32_t low[16]; float span[16]; };

static void codes_of(const float amax[16], int64_t n, float global, const uint8_t *only, struct codes *c)
{
    for (int r = 0; r < 16; r++) {
        int mid = r < n && amax[r] > 0 ? moe_f32_to_ue4m3(amax[r] / (6.0f * global)) : 0x38, low = mid, high = mid;
        if (r < n && only[r]) low = high = only[r];
        else if (r < n && amax[r] > 0) low = mid < 3 ? 1 : mid - 2, high = mid < 14 ? mid + 12 : mid > 120 ? 126 : mid + 6;
        c->low[r] = low;
        c->span[r] = (float)(high - low + 1);
    }
}

static void feedback_lanes(const struct block *b, int64_t n, float global, float *q, int64_t ldq, uint8_t *scale, float *cost)
{
    struct codes c;
    float amax[16], code[16];
    vf most = vf_zero(), best[16], v[16], least, chosen = vf_zero();
    for (int j = 0; j < 16; j++) most = vf_max(most, vf_abs(column(b->a + j * b->ld, n)));
    vf_store(amax, most);
    codes_of(amax, n, global, scale, &c);
    vi low = vi_bits(vf_load(c.low));
    vf span = vf_load(c.span);
    least = try_step(b, n, vf_mul(e4m3_of(low), vf_set(global)), best);
    for (int k = 1; k < 15; k++) {
        vm in = vf_lt(vf_set((float)k), span);
        if (!vf_any(vf_blend(in, vf_set(1), vf_zero()))) break;
        vf x = try_step(b, n, vf_mul(e4m3_of(vi_add(low, vi_set(k))), vf_set(global)), v);
        x = vf_blend(in, x, vf_set(INFINITY));
        vm better = vf_lt(x, least);
        least = vf_blend(better, x, least);
        chosen = vf_blend(better, vf_set((float)k), chosen);
        EACH(j, 16) best[j] = vf_blend(better, v[j], best[j]);
    }
    vf_store(code, chosen);
    for (int r = 0; r < n; r++) scale[r] = (uint8_t)(c.low[r] + (int)code[r]);
    vf_storen(cost, n, least);
    EACH(j, 16) vf_storen(q + j * ldq, n, best[j]);
}

void VARIANT(nvfp4_feedback)(const float *l, int64_t ldl, const float *d, const float *w, const float *a, int64_t ld, int64_t n, float global,
                             float *q, uint8_t *scale, float *cost)
{
    for (int64_t r = 0; r < n; r += 16) {
        const struct block b = { l, d, w + r, a + r, ldl, ld };
        feedback_lanes(&b, n - r < 16 ? n - r : 16, global, q + r, ld, scale + r, cost + r);
    }
}

void VARIANT(nvfp4_descend)(const float *h, int64_t ldh, int64_t b, const float *s, float *q, float *g, float *d, int64_t ld, int64_t n)
{
    for (int64_t r = 0; r < n; r += 16) {
        int64_t m = n - r < 16 ? n - r : 16;
        for (int64_t j = 0; j < b; j++) {
            float *at = q + j * ld + r, *gj = g + j * ld + r;
            vf old = column(at, m), step = column(s + j / 16 * ld + r, m);
            if (m < 16) step = vf_blend(vm_first(m), step, vf_set(1));
            vf t = vf_sub(old, vf_div(column(gj, m), vf_set(h[j * ldh + j]))), to = round_e2m1(t, step), x = vf_sub(to, old);
            if (!vf_any(x)) continue;
            vf_storen(at, m, to);
            vf_storen(d + j * ld + r, m, vf_add(column(d + j * ld + r, m), x));
            const float *row = h + j * ldh;
            float *to_g = g + r;
            if (m == 16) for (int64_t k = 0; k < b; k++, to_g += ld) vf_store(to_g, vf_fma(x, vf_set(row[k]), vf_load(to_g)));
            else for (int64_t k = 0; k < b; k++, to_g += ld) vf_storen(to_g, m, vf_fma(x, vf_set(row[k]), vf_loadn(to_g, m)));
        }
    }
}
