/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/plain-forward.h - the forward pass again, in double, straight from the equations: no batches, no
 * cache, no absorbed form, every score of every pair of tokens.  Shares with the code under test the decoding
 * of stored weights alone. */
#include "kernels/kernels.h"
#include "kernels/scalar.h"
#include "model/forward.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct plain {
    const struct moe_model *m;
    int64_t n;                    /* tokens */
    double *h;                    /* [n, H] */
    int32_t *experts;             /* [n, k] of the layer at hand */
    double *weights, *gap;        /* [n, k]; [n]: how clear the choice of this layer was */
};

static void *room(int64_t n, size_t size)
{
    void *p = calloc((size_t)(n + 1), size);
    if (!p) abort();
    return p;
}

static double *decoded(const struct moe_weight *w)
{
    double *out = room(w->rows * w->cols, sizeof *out);
    float *row = room(w->cols, sizeof *row);
    for (int64_t r = 0; r < w->rows; r++) {
        moe_kernels()->dequantize(w, r, 0, w->cols, row);
        for (int64_t c = 0; c < w->cols; c++) out[r * w->cols + c] = (double)row[c];
    }
    free(row);
    return out;
}

/* Products' inputs are quantized first: of NVFP4 weights, or of all that have an input scale (forward.h). */
static enum moe_activations plain_activations;

static bool plain_quantizes(const struct moe_weight *w)
{
    return plain_activations == MOE_ACTIVATIONS_NVFP4
             ? w->type == MOE_NVFP4
             : plain_activations == MOE_ACTIVATIONS_NVFP4_ALL && w->input_scale > 0;
}

static float plain_scale(const struct moe_weight *w)
{
    return !(w->input_scale > 0) ? 1 : w->reciprocal ? 1 / w->input_scale : w->input_scale;
}

/* x [n, cols] as an NVFP4 product sees it, by codes and scales one at a time; malloc'd. */
static double *plain_quantized(const double *x, int64_t cols, int64_t n, float scale)
{
    double *q = room(n * cols, sizeof *q);
    for (int64_t b = 0; b < n * cols; b += 16) {
        float most = 0, s = 0;
        for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf((float)x[b + i]));
        for (int c = 1; c <= 126; c++) /* the e4m3 value nearest to what is asked */
            if (fabsf(moe_e4m3_to_f32((uint8_t)c) - most / 6 / scale) < fabsf(s - most / 6 / scale))
                s = moe_e4m3_to_f32((uint8_t)c);
        for (int i = 0; i < 16 && s > 0; i++)
            q[b + i] = (double)moe_e2m1_to_f32(moe_f32_to_e2m1((float)x[b + i] / (s * scale))) *
                       (double)(s * scale);
    }
    return q;
}

static double *times(const struct moe_weight *w, const double *x, int64_t n);
/* The same with the input as a product under `scale` sees it; 0: as it is. */
static double *times_under(const struct moe_weight *w, float scale, const double *x, int64_t n)
{
    enum moe_activations was = plain_activations;
    double *q = scale > 0 ? plain_quantized(x, w->cols, n, scale) : NULL;
    plain_activations = MOE_ACTIVATIONS_FLOAT;
    double *y = times(w, q ? q : x, n);
    plain_activations = was;
    free(q);
    return y;
}

/* y [n, rows] = W x [n, cols]; malloc'd. */
static double *times(const struct moe_weight *w, const double *x, int64_t n)
{
    if (plain_quantizes(w)) return times_under(w, plain_scale(w), x, n);
    double *m = decoded(w), *y = room(n * w->rows, sizeof *y);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < w->rows; r++) {
            double s = 0;
            for (int64_t c = 0; c < w->cols; c++) s += m[r * w->cols + c] * x[t * w->cols + c];
            y[t * w->rows + r] = s;
        }
    free(m);
    return y;
}

static double *normed(const double *x, int64_t ldx, const float *w, double eps, int64_t dim, int64_t n)
{
    double *y = room(n * dim, sizeof *y);
    for (int64_t t = 0; t < n; t++) {
        double s = 0;
        for (int64_t i = 0; i < dim; i++) s += x[t * ldx + i] * x[t * ldx + i];
        for (int64_t i = 0; i < dim; i++)
            y[t * dim + i] = x[t * ldx + i] / sqrt(s / (double)dim + eps) * (double)w[i];
    }
    return y;
}

/* ---- rotary ---- */

static double yarn_m(const struct moe_config *c, double a)
{
    return c->yarn && c->yarn_factor > 1 ? 0.1 * a * log(c->yarn_factor) + 1 : 1;
}

static double frequency(const struct moe_config *c, int64_t i)
{
    double d = (double)c->qk_rope_head_dim, extrapolated = pow(c->rope_theta, -2.0 * (double)i / d), edge[2];
    if (!c->yarn) return extrapolated;
    for (int k = 0; k < 2; k++)
        edge[k] = d *
                  log(c->original_max_position_embeddings /
                      ((k ? c->beta_slow : c->beta_fast) * 2 * acos(-1))) /
                  (2 * log(c->rope_theta));
    double low = floor(edge[0]) < 0 ? 0 : floor(edge[0]),
           high = ceil(edge[1]) > d - 1 ? d - 1 : ceil(edge[1]);
    double ramp = ((double)i - low) / (low == high ? .001 : high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return extrapolated * (1 - ramp) + extrapolated / c->yarn_factor * ramp;
}

static void rotate(const struct moe_config *c, double *x, int64_t pos)
{
    double f = yarn_m(c, c->mscale) / yarn_m(c, c->mscale_all_dim);
    for (int64_t i = 0; i < c->qk_rope_head_dim / 2; i++) {
        double a = (double)pos * frequency(c, i), u = x[2 * i], v = x[2 * i + 1];
        x[2 * i] = f * (u * cos(a) - v * sin(a));
        x[2 * i + 1] = f * (v * cos(a) + u * sin(a));
    }
}

/* ---- attention ---- */

static void plain_attention(struct plain *p, int layer)
{
    const struct moe_config *c = &p->m->config;
    const struct moe_layer *y = &p->m->layers[layer];
    int64_t n = p->n, H = c->hidden_size, heads = c->num_attention_heads, nope = c->qk_nope_head_dim,
            rope = c->qk_rope_head_dim;
    int64_t v = c->v_head_dim, kl = c->kv_lora_rank, qd = nope + rope, kvd = nope + v;
    double *x = normed(p->h, H, y->input_norm, (double)p->m->eps, H, n), *q;
    if (c->q_lora_rank) {
        double *a = times(&y->q_a, x, n),
               *b = normed(a, c->q_lora_rank, y->q_a_norm, (double)p->m->lora_eps, c->q_lora_rank, n);
        q = times(&y->q_b, b, n);
        free(a), free(b);
    } else {
        q = times(&y->q, x, n);
    }
    double *ckv = times(&y->kv_a, x, n),
           *latent = normed(ckv, kl + rope, y->kv_a_norm, (double)p->m->lora_eps, kl, n);
    double *kv = times(&y->kv_b, latent, n), *o = room(n * heads * v, sizeof *o), *s = room(n, sizeof *s);
    double scale = pow(yarn_m(c, c->mscale_all_dim), 2) / sqrt((double)qd);
    for (int64_t t = 0; t < n; t++) {
        rotate(c, ckv + t * (kl + rope) + kl, t);
        for (int64_t h = 0; h < heads; h++) rotate(c, q + (t * heads + h) * qd + nope, t);
    }
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < heads; h++) {
            const double *qh = q + (t * heads + h) * qd;
            double sum = 0, most = -INFINITY;
            for (int64_t j = 0; j <= t; j++) {
                s[j] = 0;
                for (int64_t i = 0; i < nope; i++) s[j] += qh[i] * kv[(j * heads + h) * kvd + i];
                for (int64_t i = 0; i < rope; i++) s[j] += qh[nope + i] * ckv[j * (kl + rope) + kl + i];
                s[j] *= scale;
                most = fmax(most, s[j]);
            }
            for (int64_t j = 0; j <= t; j++) sum += s[j] = exp(s[j] - most);
            for (int64_t j = 0; j <= t; j++)
                for (int64_t i = 0; i < v; i++)
                    o[(t * heads + h) * v + i] += s[j] / sum * kv[(j * heads + h) * kvd + nope + i];
        }
    double *out = times(&y->o, o, n);
    for (int64_t i = 0; i < n * H; i++) p->h[i] += out[i];
    free(x), free(q), free(ckv), free(latent), free(kv), free(o), free(s), free(out);
}

/* ---- feed-forward ---- */

static double *plain_mlp(const struct moe_expert *e, const double *x, int64_t n)
{
    float gate = plain_quantizes(&e->gate) ? plain_scale(&e->gate) : 0,
          up = plain_quantizes(&e->up) ? plain_scale(&e->up) : 0;
    double *g = times_under(&e->gate, fmaxf(gate, up), x, n), *u = times_under(&e->up, fmaxf(gate, up), x, n);
    for (int64_t i = 0; i < n * e->gate.rows; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    double *y = times(&e->down, g, n);
    free(g), free(u);
    return y;
}

/* True when expert e is among the topk_group best groups; a group's score is the sum of its two best. */
static bool takes_part(const struct moe_config *c, const double *biased, int64_t e)
{
    int64_t size = c->n_routed_experts / c->n_group, mine = e / size, better = 0;
    double score[64];
    for (int64_t g = 0; g < c->n_group; g++) {
        double a = -INFINITY, b = -INFINITY;
        for (int64_t i = g * size; i < (g + 1) * size; i++)
            if (biased[i] > a) b = a, a = biased[i];
            else if (biased[i] > b) b = biased[i];
        score[g] = size > 1 ? a + b : a;
    }
    for (int64_t g = 0; g < c->n_group; g++)
        better += score[g] > score[mine] || (score[g] == score[mine] && g < mine);
    return better < c->topk_group;
}

static void plain_choose(struct plain *p, int layer, const double *logits, int64_t t)
{
    const struct moe_config *c = &p->m->config;
    int64_t E = c->n_routed_experts, k = c->num_experts_per_tok;
    const float *bias = p->m->layers[layer].router_bias;
    double *biased = room(E, sizeof *biased), sum = 0, last = 0;
    bool *taken = room(E, sizeof *taken);
    for (int64_t e = 0; e < E; e++) biased[e] = 1 / (1 + exp(-logits[e])) + (double)bias[e];
    p->gap[t] = INFINITY;
    for (int64_t j = 0; j <= k && j < E; j++) { /* one more than is taken: how near was it? */
        int64_t best = -1;
        for (int64_t e = 0; e < E; e++)
            if (!taken[e] && takes_part(c, biased, e) && (best < 0 || biased[e] > biased[best])) best = e;
        if (best < 0) break;
        if (j) p->gap[t] = fmin(p->gap[t], last - biased[best]);
        last = biased[best];
        if (j == k) break;
        taken[best] = true;
        p->experts[t * k + j] = (int32_t)best;
        sum += p->weights[t * k + j] = 1 / (1 + exp(-logits[best]));
    }
    for (int64_t j = 0; j < k; j++)
        p->weights[t * k + j] *= c->routed_scaling_factor / (c->norm_topk_prob ? sum + 1e-20 : 1);
    free(biased), free(taken);
}

static void plain_ffn(struct plain *p, int layer)
{
    const struct moe_config *c = &p->m->config;
    const struct moe_layer *y = &p->m->layers[layer];
    int64_t n = p->n, H = c->hidden_size, k = c->num_experts_per_tok;
    double *x = normed(p->h, H, y->post_norm, (double)p->m->eps, H, n);
    double *out = y->moe ? (y->shared.gate.data ? plain_mlp(&y->shared, x, n) : room(n * H, sizeof *out))
                         : plain_mlp(&y->dense, x, n);
    double *logits = y->moe ? times(&y->router, x, n) : NULL;
    for (int64_t t = 0; t < n && y->moe; t++) {
        plain_choose(p, layer, logits + t * c->n_routed_experts, t);
        for (int64_t j = 0; j < k; j++) {
            double *e = plain_mlp(&y->experts[p->experts[t * k + j]], x + t * H, 1);
            for (int64_t i = 0; i < H; i++) out[t * H + i] += p->weights[t * k + j] * e[i];
            free(e);
        }
    }
    for (int64_t i = 0; i < n * H; i++) p->h[i] += out[i];
    free(x), free(out), free(logits);
}

static void plain_begin(struct plain *p, const struct moe_model *m, const int32_t *ids, int64_t n)
{
    int64_t H = m->config.hidden_size, k = m->config.num_experts_per_tok;
    *p = (struct plain){ m,
                         n,
                         room(n * H, sizeof *p->h),
                         room(n * k, sizeof *p->experts),
                         room(n * k, sizeof *p->weights),
                         room(n, sizeof *p->gap) };
    double *e = decoded(&m->embed);
    for (int64_t t = 0; t < n; t++) memcpy(p->h + t * H, e + ids[t] * H, (size_t)H * sizeof *e);
    free(e);
}

static void plain_layer(struct plain *p, int layer)
{
    plain_attention(p, layer);
    plain_ffn(p, layer);
}

/* logits [n, V]; malloc'd. */
static double *plain_logits(struct plain *p)
{
    double *x = normed(p->h, p->m->config.hidden_size, p->m->norm, (double)p->m->eps,
                       p->m->config.hidden_size, p->n),
           *y = times(&p->m->head, x, p->n);
    free(x);
    return y;
}

static void plain_end(struct plain *p) { free(p->h), free(p->experts), free(p->weights), free(p->gap); }
