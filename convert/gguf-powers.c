/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-powers.c - the type of each tensor, and where the powers of two of NVFP4's global scales go.
 *
 * llama.cpp's deepseek2 multiplies by no global scale, so a file from which it computes the right values must
 * not need one.  A global scale that is a power of two can be moved elsewhere without rounding.  With
 * W = 2^p * B (B: e2m1 codes times block scales), a group of weights that read the same vector x can be
 * written as W x = (2^(p - n) B) (2^n x).  One n for the whole group goes into the numbers that x is
 * computed with; the rest of each weight's own power, p - n, goes into its block scales, which are e4m3 and
 * have 15 exponents.
 *
 *     what is multiplied by 2^n        the weights that read it
 *     input norm                       q_a, kv_a, q
 *     q_a's norm                       q_b
 *     v rows of kv_b                   o
 *     post-attention norm              router; gate and up of the dense MLP, the
 *                                      shared expert and all experts
 *     final norm                       head
 *     the factor of routing weights    down of all experts of all layers: there is one factor for the model
 *
 * Down of a dense MLP or of the shared expert has no such place: its whole power must go into its block
 * scales, or it is not NVFP4 in the file.  n is chosen as near to 0 as possible, because llama.cpp's
 * products round their inputs to 8 bits under an F16 scale, which small inputs would make subnormal.
 *
 * Whether block scales can be shifted, and whether they are too small for the types with F16 scales, follows
 * from how often each code occurs.  So the scales are read once before the export. */
#include "convert/gguf-internal.h"

#include "kernels/scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The shifts of block scales that are tried: a shift by -18 makes even 448, the largest, smaller than 2^-9,
 * the smallest.  POWER_MOST: the largest |n| that is tried for a group. */
enum { SHIFT_LEAST = -18, SHIFT_MOST = 17, SHIFTS = SHIFT_MOST - SHIFT_LEAST + 1, POWER_MOST = 40 };
#define ANY_SHIFT UINT64_MAX   /* `fits` of a weight whose values are almost zero */
#define NEXT_TO_ZERO (-90)     /* such a weight's global scale has a smaller exponent than this */
#define ROUNDING_MOST 1e-8     /* the squared error of rounded block scales, at most, per sum of squares */

struct work {
    const struct moe_source *src;
    struct moe_gguf_powers *p;
    uint64_t *fits;      /* [n_tensors] bit k: a shift by SHIFT_LEAST + k costs at most ROUNDING_MOST */
    uint64_t *exact;     /* [n_tensors] bit k: that shift rounds no block scale */
    int16_t *least;      /* [n_tensors] moe_gguf_least_power */
    int16_t *whole;      /* [n_tensors] moe_gguf_exact_power, of INT4 */
    int64_t *todo, n;    /* [n] the tensors whose block scales are read */
    uint8_t *buf;        /* [slots][CHUNK] */
    /* A unit is all tensors of one role in one layer (unit_of). */
    bool *bad;           /* [units] a tensor of it does not fit the power that is tried */
    double *weights;     /* [units] the number of its NVFP4 weights */
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
};
enum { CHUNK = 64 << 10 };

/* Sets of roles, a bit each. */
#define BIT(role) (1u << MOE_ROLE_##role)
static_assert(MOE_ROLE_COUNT <= 32, "roles are bits of a word");
#define FIXED (BIT(DOWN) | BIT(SHARED_DOWN)) /* no n can be chosen for these: it is 0 */
#define NO_PLACE (BIT(EMBED) | BIT(KV_B))    /* the file never has these as NVFP4 */

/* The rows of the table at the top of this file; place MOE_ROLE_COUNT: the factor of routing weights. */
static const struct group { enum moe_role place; uint32_t readers; } groups[] = {
    { MOE_ROLE_INPUT_NORM, BIT(Q_A) | BIT(KV_A) | BIT(Q) },
    { MOE_ROLE_Q_A_NORM, BIT(Q_B) },
    { MOE_ROLE_KV_B, BIT(O) },
    { MOE_ROLE_POST_NORM, BIT(ROUTER) | BIT(GATE) | BIT(UP) | BIT(SHARED_GATE) | BIT(SHARED_UP) |
                          BIT(EXPERT_GATE) | BIT(EXPERT_UP) },
    { MOE_ROLE_NORM, BIT(HEAD) },
    { MOE_ROLE_COUNT, BIT(EXPERT_DOWN) },
};

static bool has_role(uint32_t roles, const struct moe_tensor *t) { return roles >> t->role & 1; }

/* Set *e to the exponent of t's global scale as a factor; false when that is not a power of two. */
static bool get_exponent(const struct moe_tensor *t, int *e)
{
    bool power = t->global > 0 && isfinite(t->global) && frexpf(t->global, e) == 0.5f;
    *e = t->reciprocal ? 1 - *e : *e - 1;
    return power;
}

static bool is_nvfp4(const struct work *x, int64_t i) { return x->p->type[i] == MOE_GGUF_NVFP4; }

/* Whether all values are almost zero, so that its block scales need no shift. */
static bool near_zero(const struct moe_tensor *t)
{
    int e;
    return get_exponent(t, &e) && e < NEXT_TO_ZERO;
}

/* ---- block scales times a power of two ---- */

void moe_gguf_fill_shift_table(int by, struct moe_gguf_shift_table *s)
{
    for (int c = 0; c < 127; c++) {
        double v = ldexp((double)moe_e4m3_to_f32((uint8_t)c), by);
        s->code[c] = v > 448 ? MOE_GGUF_NO_SCALE : moe_f32_to_e4m3_satfinite((float)v);
        s->exact[c] = v <= 448 && (double)moe_e4m3_to_f32(s->code[c]) == v;
    }
    s->by = by;
    s->code[127] = MOE_GGUF_NO_SCALE;
    s->exact[127] = false;
}

/* Find the shifts that cost at most ROUNDING_MOST, and in *exact those that round nothing, as bits, for a
 * weight in which the block scale with code c occurs count[c] times. */
static uint64_t find_shifts(const uint64_t count[128], uint64_t *exact)
{
    uint64_t fits = 0;
    *exact = 0;
    for (int k = 0; k < SHIFTS; k++) {
        struct moe_gguf_shift_table s;
        double num = 0, den = 0;
        moe_gguf_fill_shift_table(SHIFT_LEAST + k, &s);
        for (int c = 1; c < 127; c++) {
            double v = (double)moe_e4m3_to_f32((uint8_t)c), n = (double)count[c];
            if (!count[c]) continue;
            double d = v - ldexp((double)moe_e4m3_to_f32(s.code[c] & 0x7f), -SHIFT_LEAST - k);
            if (s.code[c] == MOE_GGUF_NO_SCALE) d = INFINITY;
            num += n * d * d;
            den += n * v * v;
        }
        if (num <= ROUNDING_MOST * den) fits |= (uint64_t)1 << k;
        if (num == 0) *exact |= (uint64_t)1 << k;
    }
    return fits;
}

/* Set *zero to whether t is an NVFP4 weight of which every code is 0 or -0, so that its scales do not
 * matter. */
static enum moe_code check_all_zero(const struct work *x, const struct moe_tensor *t, uint8_t *buf,
                                    bool *zero, struct moe_err *err)
{
    uint64_t bytes = (uint64_t)moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, t->rows, t->cols);
    *zero = t->type == MOE_NVFP4;
    for (uint64_t at = 0; at < bytes && *zero; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
        MOE_TRY(moe_source_read(x->src, t, MOE_PLANE_DATA, at, n, buf, err));
        for (size_t i = 0; i < n; i++) *zero &= !(buf[i] & 0x77);
    }
    moe_source_drop(x->src, &t->plane[MOE_PLANE_DATA]);
    return MOE_OK;
}

/* Read the block scales of one tensor, and set what follows from them: fits, exact, least, whole. */
static enum moe_code read_scales(void *ctx, int64_t item, int slot, struct moe_err *err)
{
    struct work *x = ctx;
    int64_t tensor = x->todo[item];
    const struct moe_tensor *t = &x->src->tensors[tensor];
    uint8_t *buf = x->buf + (size_t)slot * CHUNK;
    uint64_t count[256] = { 0 };
    uint64_t bytes = (uint64_t)moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, t->rows, t->cols);
    bool zero = false;
    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
        MOE_TRY(moe_source_read(x->src, t, MOE_PLANE_SCALE, at, n, buf, err));
        moe_gguf_count_scales(t, buf, n, count);
    }
    moe_source_drop(x->src, &t->plane[MOE_PLANE_SCALE]);
    if (is_nvfp4(x, tensor) && !near_zero(t)) x->fits[tensor] = find_shifts(count, &x->exact[tensor]);
    int least = moe_gguf_least_power(t, count);
    if (least > 0) MOE_TRY(check_all_zero(x, t, buf, &zero, err));
    if (moe_dtype_like(t->type) == MOE_INT4_G32) x->whole[tensor] = (int16_t)moe_gguf_exact_power(t, count);
    x->least[tensor] = zero ? INT16_MIN : (int16_t)least;
    return MOE_OK;
}

/* The pipeline calls this in order after read_scales. */
static enum moe_code count_read_scales(void *ctx, int64_t item, int slot, struct moe_err *err)
{
    struct work *x = ctx;
    (void)slot;
    moe_progress_add(x->progress, x->src->tensors[x->todo[item]].plane[MOE_PLANE_SCALE].bytes);
    return moe_cancel_check(x->cancel, err);
}

/* ---- types ---- */

/* The type that a tensor would have if every NVFP4 weight could stay NVFP4. */
static uint32_t choose_type(const struct moe_tensor *t, enum moe_outtype o)
{
    uint32_t decoded = o == MOE_OUT_F32 ? MOE_GGUF_F32 : MOE_GGUF_BF16;
    if (moe_gguf_keeps_f32((enum moe_role)t->role) || t->type == MOE_F32) return MOE_GGUF_F32;
    if (t->type == MOE_BF16) return MOE_GGUF_BF16;
    if (t->type == MOE_F16) return MOE_GGUF_F16;
    if (t->role == MOE_ROLE_KV_B) return decoded; /* its halves are split, one transposed */
    if (o == MOE_OUT_BF16 || o == MOE_OUT_F32) return decoded;
    if (t->type == MOE_NVFP4) return MOE_GGUF_NVFP4;
    return moe_dtype_like(t->type) == MOE_INT4_G32 ? MOE_GGUF_Q4_0 : decoded;
}

static int64_t unit_of(const struct moe_tensor *t)
{
    return (int64_t)(t->layer + 1) * MOE_ROLE_COUNT + t->role;
}

/* Makes an NVFP4 weight Q6_K, or BF16 where rows are not a whole number of Q6_K's blocks. */
static void drop_weight(struct work *x, int64_t i, enum moe_gguf_why why)
{
    const struct moe_tensor *t = &x->src->tensors[i];
    struct moe_gguf_dropped *d = &x->p->dropped[why];
    x->p->type[i] = t->cols % 256 ? MOE_GGUF_BF16 : MOE_GGUF_Q6_K;
    if (t->expert > 0) return;
    if (!d->n++) d->first = i;
}

/* Drops all NVFP4 weights of the unit of tensor i, which is its first. */
static void drop_unit(struct work *x, int64_t i, enum moe_gguf_why why)
{
    const struct moe_tensor *first = &x->src->tensors[i];
    for (int64_t k = i; k < x->src->n_tensors && x->src->tensors[k].layer == first->layer; k++)
        if (x->src->tensors[k].role == first->role && is_nvfp4(x, k)) drop_weight(x, k, why);
}

/* Whether a weight cannot be NVFP4 in the file, whatever the powers; *why is then set. */
static bool cannot_stay_nvfp4(const struct moe_tensor *t, enum moe_outtype o, enum moe_gguf_why *why)
{
    int e;
    if (o == MOE_OUT_Q6_K) *why = t->cols % 256 ? MOE_GGUF_ROWS : MOE_GGUF_ASKED;
    else if (t->cols % 64) *why = MOE_GGUF_ROWS;
    else if (!get_exponent(t, &e)) *why = MOE_GGUF_GLOBAL;
    else if (has_role(NO_PLACE, t)) *why = MOE_GGUF_RANGE;
    else return false;
    return true;
}

/* Set the types of all tensors, before any power is chosen. */
static void set_first_types(struct work *x, enum moe_outtype o)
{
    const struct moe_source *src = x->src;
    enum moe_gguf_why why;
    for (int64_t i = 0; i < src->n_tensors; i++) x->p->type[i] = (uint8_t)choose_type(&src->tensors[i], o);
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (!is_nvfp4(x, i) || !cannot_stay_nvfp4(t, o, &why)) continue;
        if (t->expert > 0) t = moe_source_find(src, (enum moe_role)t->role, t->layer, 0);
        drop_unit(x, t - src->tensors, why);
    }
}

/* ---- exponents ---- */

/* Whether the block scales of tensor i can be shifted by `shift` at a cost of at most ROUNDING_MOST. */
static bool can_shift(const struct work *x, int64_t i, int shift)
{
    if (x->fits[i] == ANY_SHIFT) return true;
    return shift >= SHIFT_LEAST && shift <= SHIFT_MOST && (x->fits[i] >> (shift - SHIFT_LEAST) & 1);
}

/* For the units of these roles among the tensors first .. end - 1, sets whether they are bad under power n.
 * Returns how many NVFP4 weights are in the others. */
static double try_power(struct work *x, int64_t first, int64_t end, uint32_t roles, int n)
{
    double kept = 0;
    int e = 0;
    for (int64_t i = first; i < end; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (has_role(roles, t)) x->bad[unit_of(t)] = false, x->weights[unit_of(t)] = 0;
    }
    for (int64_t i = first; i < end; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (!has_role(roles, t) || !is_nvfp4(x, i)) continue;
        get_exponent(t, &e);
        if (!can_shift(x, i, e - n)) x->bad[unit_of(t)] = true;
        x->weights[unit_of(t)] += (double)t->rows * (double)t->cols;
    }
    for (int64_t i = first; i < end; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (has_role(roles, t) && t->expert <= 0 && !x->bad[unit_of(t)]) kept += x->weights[unit_of(t)];
    }
    return kept;
}

/* The power n that keeps the most weights NVFP4, the one nearest to 0 if there are several; with `fixed` it
 * is 0.  Units that do not fit it get another type. */
static int choose_power(struct work *x, int64_t first, int64_t end, uint32_t roles, bool fixed)
{
    double most = 0;
    int n = 0;
    bool any = false;
    for (int64_t i = first; i < end; i++) any |= has_role(roles, &x->src->tensors[i]) && is_nvfp4(x, i);
    if (!any) return 0;
    for (int k = 0; k <= (fixed ? 0 : 2 * POWER_MOST); k++) {
        int tried = k & 1 ? -(k + 1) / 2 : k / 2; /* 0, -1, 1, -2 .. */
        double kept = try_power(x, first, end, roles, tried);
        if (kept > most) most = kept, n = tried;
    }
    try_power(x, first, end, roles, n);
    for (int64_t i = first; i < end; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (!has_role(roles, t) || !is_nvfp4(x, i) || !x->bad[unit_of(t)] || t->expert > 0) continue;
        drop_unit(x, i, MOE_GGUF_RANGE);
    }
    return n;
}

/* Chooses the power of a group among the tensors first .. end - 1, and sets it for all of them. */
static void place_group(struct work *x, int64_t first, int64_t end, const struct group *g)
{
    int n = choose_power(x, first, end, g->readers, false);
    for (int64_t i = first; i < end; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (has_role(g->readers, t)) x->p->power[i] = (int16_t)-n;
        if (t->role == (int)g->place) x->p->power[i] = (int16_t)n;
    }
    if (g->place == MOE_ROLE_COUNT) x->p->routing = n;
}

/* Choose the powers of all groups, layer by layer, and then the one for the whole model. */
static void place_groups(struct work *x)
{
    const struct moe_source *src = x->src;
    for (int64_t first = 0, end; first < src->n_tensors; first = end) {
        end = first + 1;
        while (end < src->n_tensors && src->tensors[end].layer == src->tensors[first].layer) end++;
        for (size_t k = 0; k < sizeof groups / sizeof *groups; k++)
            if (groups[k].place != MOE_ROLE_COUNT) place_group(x, first, end, &groups[k]);
        choose_power(x, first, end, FIXED, true);
    }
    place_group(x, 0, src->n_tensors, &groups[sizeof groups / sizeof *groups - 1]);
}

/* ---- scales too small for F16 ---- */

/* Whether the scales of tensor i are too small for the F16 scales of its type. */
static bool is_small(const struct work *x, int64_t i)
{
    uint32_t type = x->p->type[i];
    return (type == MOE_GGUF_Q6_K || type == MOE_GGUF_Q4_0) && x->p->power[i] < x->least[i];
}

/* Makes a tensor with such scales BF16, and with it all experts of its stack. */
static void widen_small(struct work *x)
{
    struct moe_gguf_dropped *d = &x->p->dropped[MOE_GGUF_SMALL];
    for (int64_t i = 0; i < x->src->n_tensors; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        if (!is_small(x, i)) continue;
        if (!d->n++) d->first = i;
        int64_t k = t->expert < 0
                      ? i
                      : moe_source_find(x->src, (enum moe_role)t->role, t->layer, 0) - x->src->tensors;
        for (; k < x->src->n_tensors && x->src->tensors[k].layer == t->layer; k++)
            if (x->src->tensors[k].role == t->role) x->p->type[k] = MOE_GGUF_BF16;
    }
}

/* Makes an F16 tensor that is multiplied by a power of two F32, where it is exact; it might leave F16's
 * range. */
static void widen_f16(struct work *x)
{
    for (int64_t i = 0; i < x->src->n_tensors; i++)
        if (x->p->type[i] == MOE_GGUF_F16 && x->p->power[i]) x->p->type[i] = MOE_GGUF_F32;
}

/* Marks the weights of which the file may hold rounded block scales. */
static void mark_inexact(struct work *x)
{
    for (int64_t i = 0; i < x->src->n_tensors; i++) {
        if (x->p->type[i] == MOE_GGUF_Q4_0) x->p->inexact[i] = x->p->power[i] < x->whole[i];
        if (!is_nvfp4(x, i)) continue;
        int shift = moe_gguf_shift_power(x->p, x->src, i);
        bool known = shift >= SHIFT_LEAST && shift <= SHIFT_MOST;
        x->p->inexact[i] = !(known && x->exact[i] >> (shift - SHIFT_LEAST) & 1);
    }
}

/* ---- the whole ---- */

/* List the tensors whose block scales must be read; a dry run leaves the experts out. */
static void list_todo(struct work *x, const struct moe_gguf_options *o)
{
    for (int64_t i = 0; i < x->src->n_tensors; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        uint32_t type = x->p->type[i];
        bool has_scales = type == MOE_GGUF_NVFP4 || type == MOE_GGUF_Q6_K || type == MOE_GGUF_Q4_0;
        x->fits[i] = ANY_SHIFT;
        x->least[i] = INT16_MIN;
        x->whole[i] = INT16_MAX; /* not known unless it is read */
        if (has_scales && o->outtype == MOE_OUT_AUTO && !(o->dry_run && t->expert >= 0)) x->todo[x->n++] = i;
    }
}

static bool allocate(struct work *x, int slots)
{
    struct moe_gguf_powers *p = x->p;
    size_t n = (size_t)x->src->n_tensors + 1;
    size_t units = (size_t)(x->src->config.num_hidden_layers + 1) * MOE_ROLE_COUNT;
    p->type = calloc(n, sizeof *p->type);
    p->power = calloc(n, sizeof *p->power);
    p->inexact = calloc(n, sizeof *p->inexact);
    x->fits = calloc(n, sizeof *x->fits);
    x->exact = calloc(n, sizeof *x->exact);
    x->least = calloc(n, sizeof *x->least);
    x->whole = calloc(n, sizeof *x->whole);
    x->todo = calloc(n, sizeof *x->todo);
    x->bad = calloc(units, sizeof *x->bad);
    x->weights = calloc(units, sizeof *x->weights);
    x->buf = malloc((size_t)slots * CHUNK);
    return p->type && p->power && p->inexact && x->fits && x->exact && x->least && x->whole && x->todo &&
           x->bad && x->weights && x->buf;
}

static void release(struct work *x)
{
    free(x->fits);
    free(x->exact);
    free(x->least);
    free(x->whole);
    free(x->todo);
    free(x->bad);
    free(x->weights);
    free(x->buf);
}

enum moe_code moe_gguf_place_powers(struct moe_gguf_powers *p, const struct moe_source *src,
                                    const struct moe_gguf_options *o, struct moe_pool *pool,
                                    struct moe_progress *progress, struct moe_err *err)
{
    int slots = moe_pool_threads(pool) + 1;
    struct work x = { .src = src, .p = p, .progress = progress, .cancel = o->cancel };
    *p = (struct moe_gguf_powers){ 0 };
    enum moe_code code = allocate(&x, slots) ? MOE_OK
                                             : moe_fail(err, MOE_NOMEM, "no memory for a list of tensors");
    if (code == MOE_OK) {
        uint64_t bytes = 0;
        set_first_types(&x, o->outtype);
        list_todo(&x, o);
        for (int64_t i = 0; i < x.n; i++) bytes += src->tensors[x.todo[i]].plane[MOE_PLANE_SCALE].bytes;
        if (x.n) moe_progress_begin(progress, "block scales", bytes, MOE_UNIT_BYTES);
        code = moe_pipe_run(pool, x.n, slots, read_scales, count_read_scales, &x, err);
        if (x.n) moe_progress_end(progress);
    }
    if (code == MOE_OK) {
        place_groups(&x);
        widen_small(&x);
        widen_f16(&x);
        mark_inexact(&x);
    }
    release(&x);
    if (code != MOE_OK) moe_gguf_powers_release(p);
    return code;
}

void moe_gguf_powers_release(struct moe_gguf_powers *p)
{
    free(p->type);
    free(p->power);
    free(p->inexact);
    *p = (struct moe_gguf_powers){ 0 };
}

int moe_gguf_shift_power(const struct moe_gguf_powers *p, const struct moe_source *src, int64_t i)
{
    int e = 0;
    get_exponent(&src->tensors[i], &e);
    return e + p->power[i];
}
