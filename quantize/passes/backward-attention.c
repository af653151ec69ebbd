/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head latent attention backward, in the expanded form (forward: model/ops/cpu/attention.c).
 *
 * For one head of one sequence, with q = {q_nope, rotated q_pe}, k = {Wuk c, rotated k_pe}, v = Wuv c,
 * p = softmax(scale q k^T) over the keys up to the query's own, and o = p v:
 *
 *   do = Wo^T dh,  dv = p^T do,  dp = do v^T,  ds = p (dp - sum_j p dp)
 *   dq = scale ds k,  dk = scale ds^T q
 *   dc = sum over heads of Wuk^T dk_nope + Wuv^T dv
 *
 * dk_pe and dq_pe are rotated back; then come the norms and projections, last to first.
 *
 * The scores are computed again, BLOCK queries at a time.  The gradients of all heads' keys and values
 * are kept, so that kv_b's transposed product adds the heads in order, whichever thread computed them. */
#include "quantize/passes/backward-internal.h"

#include <string.h>

enum { BLOCK = 64 };

struct attention {
    struct moe_backward *b;
    const struct moe_layer *y;
    const int64_t *lengths;
    int64_t n_sequences, tokens, heads, nope, rope, v, kl, ql, width, qd, kvd;
    float *x, *dx;                       /* [T, H] */
    float *qa, *normed_qa, *dqa;         /* [T, ql]; normed_qa later holds the gradient of qa */
    float *q;                            /* [T, heads, qd], rotated; later its gradient */
    /* [T, width]; latent as the cache has it, later the gradient of ckv */
    float *ckv, *latent, *dlatent;
    float *d_o, *dkv, *dpe;              /* [T, heads, v], [T, heads, nope + v], [T, heads, rope] */
    float *cos, *sin;                    /* [T, rope / 2] */
};

static void describe(struct attention *a, const struct moe_config *c, struct moe_backward_room *r, int64_t n)
{
    a->tokens = n, a->heads = c->num_attention_heads, a->nope = c->qk_nope_head_dim,
    a->rope = c->qk_rope_head_dim, a->v = c->v_head_dim;
    a->kl = c->kv_lora_rank, a->ql = c->q_lora_rank, a->width = a->kl + a->rope, a->qd = a->nope + a->rope,
    a->kvd = a->nope + a->v;
    a->x = moe_backward_take(r, n * c->hidden_size);
    a->dx = moe_backward_take(r, n * c->hidden_size);
    a->qa = moe_backward_take(r, n * a->ql);
    a->normed_qa = moe_backward_take(r, n * a->ql);
    a->dqa = moe_backward_take(r, n * a->ql);
    a->q = moe_backward_take(r, n * a->heads * a->qd);
    a->ckv = moe_backward_take(r, n * a->width);
    a->latent = moe_backward_take(r, n * a->width);
    a->dlatent = moe_backward_take(r, n * a->width);
    a->d_o = moe_backward_take(r, n * a->heads * a->v);
    a->dkv = moe_backward_take(r, n * a->heads * a->kvd);
    a->dpe = moe_backward_take(r, n * a->heads * a->rope);
    a->cos = moe_backward_take(r, n * a->rope / 2);
    a->sin = moe_backward_take(r, n * a->rope / 2);
}

int64_t moe_backward_attention_floats(const struct moe_config *c, int64_t n)
{
    struct moe_backward_room r = { 0 };
    struct attention a = { 0 };
    describe(&a, c, &r, n);
    return r.used;
}

int64_t moe_backward_attention_worker_floats(const struct moe_config *c, int64_t sequence)
{
    return sequence * (2 * (c->qk_nope_head_dim + c->qk_rope_head_dim) + c->v_head_dim + 2 * BLOCK);
}

/* ---- q, ckv and the latent again ---- */

static void rotate(void *ctx, int64_t t, int worker)
{
    struct attention *a = ctx;
    const struct moe_model *m = a->b->m;
    const struct moe_kernels *k = a->b->k;
    int64_t half = a->rope / 2, pos = t;
    float *cs = a->cos + t * half, *sn = a->sin + t * half, *row = a->latent + t * a->width;
    (void)worker;
    for (const int64_t *n = a->lengths; pos >= *n; n++) pos -= *n;
    moe_rope_angles(&m->rope, m->inv_freq, pos, cs, sn);
    for (int64_t h = 0; h < a->heads; h++) k->rope(a->q + (t * a->heads + h) * a->qd + a->nope, cs, sn, half);
    k->rmsnorm(a->ckv + t * a->width, a->y->kv_a_norm, m->lora_eps, a->kl, row);
    memcpy(row + a->kl, a->ckv + t * a->width + a->kl, (size_t)a->rope * sizeof *row);
    k->rope(row + a->kl, cs, sn, half);
}

static void project(struct attention *a, const float *h)
{
    struct moe_backward *b = a->b;
    int64_t hidden = b->m->config.hidden_size, n = a->tokens;
    moe_backward_recompute_norm(b, h, a->y->input_norm, b->m->eps, hidden, hidden, n, a->x);
    if (a->ql) {
        moe_backward_product(b, &a->y->q_a, a->x, hidden, n, a->qa);
        moe_backward_recompute_norm(b, a->qa, a->y->q_a_norm, b->m->lora_eps, a->ql, a->ql, n, a->normed_qa);
        moe_backward_product(b, &a->y->q_b, a->normed_qa, a->ql, n, a->q);
    } else {
        moe_backward_product(b, &a->y->q, a->x, hidden, n, a->q);
    }
    moe_backward_product(b, &a->y->kv_a, a->x, hidden, n, a->ckv);
    moe_backward_each(b, n, n * (a->heads * a->rope + a->width + 512 * a->rope), rotate, a);
}

/* ---- a head of a sequence ---- */

/* One head of one sequence of n tokens.  Where its rows begin in the arrays of all heads: q (ldq floats
 * apart), d_o (ld_o), dk and right after it dv (ldkv), dpe (ldpe).  Its own memory: k [n, qd], k^T, v^T,
 * and p and ds [BLOCK, keys]. */
struct head {
    const struct moe_kernels *kern;
    int64_t n, ldq, ld_o, ldkv, ldpe, nope, rope, v, qd;
    float scale, *q, *d_o, *dk, *dpe, *k, *kt, *vt, *p, *ds;
};

/* out [cols, rows] = x [rows, cols] (ldx apart) transposed, in squares that stay in cache. */
static void transpose(const float *x, int64_t ldx, int64_t rows, int64_t cols, float *out)
{
    enum { SIDE = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE)
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = r0; r < rows && r < r0 + SIDE; r++) out[c * rows + r] = x[r * ldx + c];
}

static void zero(float *x, int64_t ld, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) memset(x + r * ld, 0, (size_t)cols * sizeof *x);
}

/* Computes keys and values from the latents, and k^T and v^T from them.  The values are first put where their
 * gradients will be; that place is zeroed at the end. */
static void keys(const struct attention *a, const struct head *e, const float *latent, int64_t r0)
{
    const struct moe_weight *w = &a->y->kv_b;
    float *v = e->dk + a->nope;
    e->kern->matmul(w, r0, r0 + a->nope, latent, a->width, e->n, e->k, a->qd);
    e->kern->matmul(w, r0 + a->nope, r0 + a->kvd, latent, a->width, e->n, v, e->ldkv);
    for (int64_t j = 0; j < e->n; j++)
        memcpy(e->k + j * a->qd + a->nope, latent + j * a->width + a->kl, (size_t)a->rope * sizeof *latent);
    transpose(e->k, a->qd, e->n, a->qd, e->kt);
    transpose(v, e->ldkv, e->n, a->v, e->vt);
    zero(e->dk, e->ldkv, e->n, a->kvd);
    zero(e->dpe, e->ldpe, e->n, a->rope);
}

/* For m queries from i0 on: turns e->p from scores into p and e->ds from dp into ds.  Beyond a query's
 * own key both are 0. */
static void probabilities(const struct head *e, int64_t i0, int64_t m)
{
    int64_t all = i0 + m;
    for (int64_t i = 0; i < m; i++) {
        int64_t live = i0 + i + 1;
        float *p = e->p + i * all, *ds = e->ds + i * all;
        double mean = 0;
        e->kern->softmax(p, live);
        for (int64_t j = 0; j < live; j++) mean += (double)p[j] * (double)ds[j];
        for (int64_t j = 0; j < live; j++) ds[j] = p[j] * (float)((double)ds[j] - mean);
        memset(p + live, 0, (size_t)(all - live) * sizeof *p);
        memset(ds + live, 0, (size_t)(all - live) * sizeof *ds);
    }
}

/* Adds what m queries from i0 on give to dk, dv and dpe; the keys are those up to the last of the
 * queries.  Their q is replaced by dq. */
static void queries(const struct head *e, int64_t i0, int64_t m)
{
    const struct moe_kernels *k = e->kern;
    int64_t all = i0 + m;
    float *q = e->q + i0 * e->ldq, *d_o = e->d_o + i0 * e->ld_o;

    zero(e->p, all, m, all);
    zero(e->ds, all, m, all);
    k->gemm(m, all, e->qd, e->scale, q, e->ldq, 1, e->kt, e->n, e->p, all);
    k->gemm(m, all, e->v, 1, d_o, e->ld_o, 1, e->vt, e->n, e->ds, all);
    probabilities(e, i0, m);
    k->gemm(all, e->v, m, 1, e->p, 1, all, d_o, e->ld_o, e->dk + e->nope, e->ldkv);
    k->gemm(all, e->nope, m, e->scale, e->ds, 1, all, q, e->ldq, e->dk, e->ldkv);
    k->gemm(all, e->rope, m, e->scale, e->ds, 1, all, q + e->nope, e->ldq, e->dpe, e->ldpe);
    zero(q, e->ldq, m, e->qd);
    k->gemm(m, e->qd, all, e->scale, e->ds, all, 1, e->k, e->qd, q, e->ldq);
}

static void head(void *ctx, int64_t item, int worker)
{
    struct attention *a = ctx;
    int64_t h = item % a->heads, t0 = 0, n = a->lengths[item / a->heads];

    for (int64_t i = 0; i < item / a->heads; i++) t0 += a->lengths[i];
    struct head e = { a->b->k,
                      n,
                      a->heads * a->qd,
                      a->heads * a->v,
                      a->heads * a->kvd,
                      a->heads * a->rope,
                      a->nope,
                      a->rope,
                      a->v,
                      a->qd,
                      .scale = a->b->m->softmax_scale };
    e.q = a->q + t0 * e.ldq + h * a->qd;
    e.d_o = a->d_o + t0 * e.ld_o + h * a->v;
    e.dk = a->dkv + t0 * e.ldkv + h * a->kvd;
    e.dpe = a->dpe + t0 * e.ldpe + h * a->rope;
    e.k = a->b->worker + worker * a->b->worker_floats;
    e.kt = e.k + n * a->qd;
    e.vt = e.kt + n * a->qd;
    e.p = e.vt + n * a->v;
    e.ds = e.p + n * BLOCK;
    keys(a, &e, a->latent + t0 * a->width, h * a->kvd);
    for (int64_t i = 0; i < n; i += BLOCK) queries(&e, i, n - i < BLOCK ? n - i : BLOCK);
}

/* ---- from dq, dk and dv to dx ---- */

/* Undoes the rotation of token t's dq_pe and of its dk_pe, which is first summed over the heads in
 * order.  The transpose of a rotation is the rotation by the opposite angle.  The token's row of
 * a->latent becomes the gradient of ckv; its first part, before the norm, is still 0. */
static void rotate_back(void *ctx, int64_t t, int worker)
{
    struct attention *a = ctx;
    int64_t half = a->rope / 2;
    float *cs = a->cos + t * half;
    float *sn = a->sin + t * half;
    float *row = a->latent + t * a->width;
    float *pe = row + a->kl;

    (void)worker;
    memset(row, 0, (size_t)a->width * sizeof *row);
    for (int64_t i = 0; i < half; i++) sn[i] = -sn[i];
    for (int64_t h = 0; h < a->heads; h++) {
        const float *from = a->dpe + (t * a->heads + h) * a->rope;
        a->b->k->rope(a->q + (t * a->heads + h) * a->qd + a->nope, cs, sn, half);
        for (int64_t i = 0; i < a->rope; i++) pe[i] += from[i];
    }
    a->b->k->rope(pe, cs, sn, half);
}

/* dx = w^T dy (fresh) or dx += w^T dy, and shows dy to the observer. */
static void back(const struct attention *a, enum moe_role role, const struct moe_weight *w, const float *dy,
                 float *dx, int64_t lddx, bool fresh)
{
    if (role != MOE_ROLE_O) moe_backward_show(a->b, role, dy, w->rows, a->tokens);
    moe_backward_transposed(
        &(struct moe_backward_transposed){ a->b, w, 0, w->rows, dy, w->rows, a->tokens, dx, lddx, fresh });
}

static void unproject(struct attention *a)
{
    struct moe_backward *b = a->b;
    int64_t n = a->tokens, hidden = b->m->config.hidden_size;

    moe_backward_each(b, n, 4 * n * a->heads * a->rope, rotate_back, a);
    back(a, MOE_ROLE_KV_B, &a->y->kv_b, a->dkv, a->dlatent, a->width, true);
    moe_backward_norm(b, a->ckv, a->y->kv_a_norm, b->m->lora_eps, a->kl, a->width, n, a->dlatent, a->latent);
    back(a, MOE_ROLE_KV_A, &a->y->kv_a, a->latent, a->dx, hidden, true);
    if (!a->ql) {
        back(a, MOE_ROLE_Q, &a->y->q, a->q, a->dx, hidden, false);
        return;
    }
    back(a, MOE_ROLE_Q_B, &a->y->q_b, a->q, a->dqa, a->ql, true);
    zero(a->normed_qa, a->ql, n, a->ql);
    moe_backward_norm(b, a->qa, a->y->q_a_norm, b->m->lora_eps, a->ql, a->ql, n, a->dqa, a->normed_qa);
    back(a, MOE_ROLE_Q_A, &a->y->q_a, a->normed_qa, a->dx, hidden, false);
}

static void attention(struct attention *a, const float *h, float *dh)
{
    struct moe_backward *b = a->b;
    int64_t hidden = b->m->config.hidden_size, pairs = 0;
    for (int64_t i = 0; i < a->n_sequences; i++) pairs += a->lengths[i] * a->lengths[i];
    project(a, h);
    back(a, MOE_ROLE_O, &a->y->o, dh, a->d_o, a->heads * a->v, true);
    moe_backward_each(b, a->n_sequences * a->heads,
                      a->heads * (a->tokens * a->kvd * a->kl + pairs * 2 * (a->qd + a->v)), head, a);
    unproject(a);
    moe_backward_norm(b, h, a->y->input_norm, b->m->eps, hidden, hidden, a->tokens, a->dx, dh);
}

void moe_backward_attention(struct moe_backward *b, int layer, const float *h, const int64_t *lengths,
                            int64_t n_sequences, float *dh)
{
    int64_t hidden = b->m->config.hidden_size;

    for (int64_t i = 0, n = 0; i < n_sequences; i += n) {
        struct moe_backward_room room = { b->rows, 0 };
        struct attention a = { .b = b, .y = &b->m->layers[layer], .lengths = lengths + i };
        int64_t tokens = 0;
        for (n = 0; i + n < n_sequences && tokens + lengths[i + n] <= b->max_tokens; n++) {
            MOE_CHECK(lengths[i + n] > 0 && lengths[i + n] <= b->sequence);
            tokens += lengths[i + n];
        }
        MOE_CHECK(n > 0);
        a.n_sequences = n;
        describe(&a, &b->m->config, &room, tokens);
        attention(&a, h, dh);
        h += tokens * hidden, dh += tokens * hidden;
    }
}
