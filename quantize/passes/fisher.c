/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/passes/fisher.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/minmax.h"
#include "base/newfile.h"
#include "kernels/kernels.h"
#include "quantize/passes/backward.h"
#include "quantize/passes/gradient.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1024 };

struct work {
    const struct moe_fisher *o;
    struct moe_walk walk;
    struct moe_backward *back;
    const char *dir;
    struct moe_states *before;          /* [layers] the states before each layer */
    int layers;
    struct moe_states dh;               /* gradients of the states after the layer at hand */
    struct moe_states dx;               /* gradients of the inputs of its MLPs */
    float *dot;                         /* [n, k] gradients of routing weights */
    float *x, *dy, *out;                /* a piece, or a batch: [.., H] */
    float *dots;                        /* [PIECE] */
    int64_t *lengths;                   /* of the sequences of a batch */
    struct moe_hessian hessian;
    struct moe_meter *meter;
    int first; /* the first layer with experts */
    int from;  /* the layer after which gradients are known: the last, or where an earlier run stopped */
};

/* Whether dh holds the gradients of an earlier run. */
static bool resumed(const struct work *w) { return w->from < w->layers - 1; }

static enum moe_code file_of(const char *dir, int layer, char path[PATH_MAX], struct moe_err *err)
{
    char name[32];
    snprintf(name, sizeof name, "fisher-%03d.work", layer);
    return moe_path_join(path, PATH_MAX, dir, name, err);
}

/* A file of F begins with this; then F [width, width] in float32 follows, whose XXH3-64 is the hash.  It
 * is in the byte order of the machine, since it never leaves it. */
struct head { char magic[8]; int64_t layer, width; uint64_t hash; };
static_assert(sizeof(struct head) == 32, "no padding");

static size_t matrix_bytes(int64_t width) { return (size_t)width * (size_t)width * sizeof(float); }

static enum moe_code write_file(const char *path, int layer, int64_t width, const float *form,
                                struct moe_err *err)
{
    struct moe_newfile f;
    size_t bytes = matrix_bytes(width);
    const struct head h = { "MOEFISH", layer, width, moe_hash64(form, bytes) };
    MOE_TRY(moe_newfile_open(&f, path, err));
    enum moe_code code = moe_pwrite(f.fd, path, &h, sizeof h, 0, err);
    if (code == MOE_OK) code = moe_pwrite(f.fd, path, form, bytes, sizeof h, err);
    if (code == MOE_OK) return moe_newfile_publish(&f, true, err);
    moe_newfile_abort(&f);
    return code;
}

/* *fits: the file has the size and a head for that layer and width.  Older versions wrote no head. */
static enum moe_code read_head(int fd, const char *path, uint64_t size, int layer, int64_t width,
                               struct head *h, bool *fits, struct moe_err *err)
{
    *fits = size == sizeof *h + matrix_bytes(width);
    if (!*fits) return MOE_OK;
    MOE_TRY(moe_pread(fd, path, h, sizeof *h, 0, err));
    *fits = !memcmp(h->magic, "MOEFISH", sizeof h->magic) && h->layer == layer && h->width == width;
    return MOE_OK;
}

static enum moe_code hash_file(int fd, const char *path, uint64_t size, const struct moe_cancel *cancel,
                               uint64_t *hash, struct moe_err *err)
{
    enum { BYTES = 1 << 20 };
    struct moe_hash *state = moe_hash_new();
    char *piece = malloc(BYTES);
    enum moe_code code = state && piece ? MOE_OK
                                        : moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to check it");
    if (code == MOE_OK) moe_hash_reset64(state);
    for (uint64_t at = sizeof(struct head); code == MOE_OK && at < size; at += BYTES) {
        size_t n = size - at < BYTES ? (size_t)(size - at) : BYTES;
        code = moe_pread(fd, path, piece, n, at, err);
        if (code == MOE_OK) moe_hash_add64(state, piece, n);
        if (code == MOE_OK) code = moe_cancel_check_resumable(cancel, err);
    }
    if (code == MOE_OK) *hash = moe_hash_get64(state);
    moe_hash_free(state);
    free(piece);
    return code;
}

/* Whether the file of a layer's F is there and undamaged. */
static enum moe_code is_whole(const char *dir, int layer, int64_t width, const struct moe_cancel *cancel,
                              bool *whole, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    uint64_t size, hash = 0;
    struct head h;
    int fd;

    *whole = false;
    MOE_TRY(file_of(dir, layer, path, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_FILE) return MOE_OK;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = read_head(fd, path, size, layer, width, &h, whole, err);
    if (code == MOE_OK && *whole) code = hash_file(fd, path, size, cancel, &hash, err);
    *whole = code == MOE_OK && *whole && hash == h.hash;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return code;
}

/* ---- forward ---- */

static enum moe_code save_states(struct work *w, struct moe_err *err)
{
    struct moe_states *to = &w->before[w->walk.layer];
    for (int64_t at = 0, n; at < w->o->n; at += n) {
        n = moe_min_i64(PIECE, w->o->n - at);
        MOE_TRY(moe_states_read(&w->walk.h, at, n, w->x, err));
        MOE_TRY(moe_states_write(to, at, n, w->x, err));
    }
    return MOE_OK;
}

/* Takes the tokens forward and keeps the states before each layer that the backward half passes, from the
 * first with experts on.  Where the backward half starts at the head, the walk then has the states after the
 * last layer. */
static enum moe_code keep_states(struct work *w, struct moe_err *err)
{
    if (resumed(w) && w->from == w->first) return MOE_OK; /* only its own Fisher matrix is missing */
    while (w->walk.layer < w->layers) {
        if (w->walk.layer >= w->first) MOE_TRY(save_states(w, err));
        if (resumed(w) && w->walk.layer == w->from) break;
        MOE_TRY(moe_walk_pass_layer_by_source(&w->walk, err));
    }
    return MOE_OK;
}

/* ---- backward ---- */

/* Sets dh to the gradients of the states after the last layer. */
static enum moe_code start(struct work *w, struct moe_err *err)
{
    for (int64_t at = 0, n; at < w->o->n; at += n) {
        n = moe_min_i64(PIECE, w->o->n - at);
        MOE_TRY(moe_states_read(&w->walk.h, at, n, w->x, err));
        MOE_TRY(moe_backward_head(w->back, w->x, n, at, w->o->seed, w->dy, NULL, err));
        MOE_TRY(moe_states_write(&w->dh, at, n, w->dy, err));
        moe_meter_add(w->meter, moe_work_head_back(&w->walk.src->config, (double)n));
        MOE_TRY(moe_cancel_check_resumable(w->o->cancel, err));
    }
    return MOE_OK;
}

/* Computes and writes F of the layer for whose states dh holds the gradients. */
static enum moe_code write_fisher(struct work *w, int layer, struct moe_err *err)
{
    char path[PATH_MAX];
    int64_t h = w->dh.width;
    moe_hessian_clear(&w->hessian);
    for (int64_t at = 0, n; at < w->o->n; at += n) {
        n = moe_min_i64(PIECE, w->o->n - at);
        MOE_TRY(moe_states_read(&w->dh, at, n, w->dy, err));
        moe_hessian_add(&w->hessian, w->dy, h, n, w->walk.pool);
        moe_meter_add(w->meter, moe_work_fisher(&w->walk.src->config, (double)n));
    }
    MOE_TRY(file_of(w->dir, layer, path, err));
    return write_file(path, layer, h, w->hessian.h, err);
}

/* Adds to dx what one MLP gives for its tokens.  e >= 0: it is expert e, and the gradients of its routing
 * weights go into w->dot, at the tokens' choices of e. */
static enum moe_code mlp_back(struct work *w, const struct moe_weight mlp[3], const struct moe_mlp_tokens *t,
                              int64_t e, struct moe_err *err)
{
    int64_t h = w->dh.width, k = w->walk.src->config.num_experts_per_tok;

    for (int64_t at = 0, n; at < t->n; at += n) {
        n = moe_min_i64(PIECE, t->n - at);
        MOE_TRY(moe_states_gather(&w->walk.h, t->row + at, n, w->x, err));
        for (int64_t i = 0; i < n; i++)
            moe_kernels()->rmsnorm(w->x + i * h, t->norm, t->eps, h, w->x + i * h);
        MOE_TRY(moe_states_gather(&w->dh, t->row + at, n, w->dy, err));
        memset(w->out, 0, (size_t)(n * h) * sizeof *w->out);
        moe_backward_mlp(w->back, mlp, w->x, n, w->dy, t->weight ? t->weight + at : NULL, w->out,
                         e >= 0 ? w->dots : NULL);
        for (int64_t i = 0; e >= 0 && i < n; i++)
            for (int64_t j = 0, token = t->row[at + i]; j < k; j++)
                if (w->walk.experts[token * k + j] == e) w->dot[token * k + j] = w->dots[i];
        MOE_TRY(moe_states_add(&w->dx, t->row + at, n, w->out, NULL, w->x, err));
        moe_meter_add(w->meter, moe_work_mlp_back(h, mlp[0].rows, (double)n));
    }
    return MOE_OK;
}

/* dx = the gradients of the MLPs' input: of the MLP that all tokens pass, and of the routed experts. */
static enum moe_code mlps_back(struct work *w, int layer, struct moe_err *err)
{
    struct moe_shard_unit u;
    struct moe_weight mlp[3];
    const struct moe_layer *y = &w->walk.m->layers[layer];
    const struct moe_expert *common = y->moe ? &y->shared : &y->dense;

    MOE_TRY(moe_states_zero(&w->dx, err));
    if (common->gate.data) {
        const struct moe_weight each[3] = { common->gate, common->up, common->down };
        struct moe_mlp_tokens all = moe_walk_all(&w->walk);
        MOE_TRY(mlp_back(w, each, &all, -1, err));
    }
    if (!y->moe) return MOE_OK;
    MOE_TRY(moe_walk_unit(&w->walk, layer, &u, err));
    enum moe_code code = MOE_OK;
    for (int64_t g = 0; code == MOE_OK && g < u.n_items; g++) {
        int64_t e = u.out[u.items[g].first].expert;
        struct moe_mlp_tokens t = moe_walk_expert(&w->walk, e);
        for (int i = 0; code == MOE_OK && i < 3; i++)
            code = moe_walk_read(&w->walk, &w->walk.raw, &w->walk.src->tensors[u.in[u.items[g].first + i]], i,
                                 &mlp[i], err);
        if (code == MOE_OK) code = mlp_back(w, mlp, &t, e, err);
        if (code == MOE_OK) code = moe_cancel_check_resumable(w->o->cancel, err);
    }
    moe_unit_release(&u);
    return code;
}

/* Takes dx backward through the router, if there is one, and the norm before the MLPs, and adds it to dh,
 * which is then the gradient of the states between attention and MLPs. */
static enum moe_code norm_back(struct work *w, int layer, struct moe_err *err)
{
    const struct moe_layer *y = &w->walk.m->layers[layer];
    int64_t h = w->dh.width, k = w->walk.src->config.num_experts_per_tok;

    for (int64_t at = 0, n; at < w->o->n; at += n) {
        n = moe_min_i64(PIECE, w->o->n - at);
        MOE_TRY(moe_states_read(&w->walk.h, at, n, w->x, err));
        MOE_TRY(moe_states_read(&w->dx, at, n, w->out, err));
        for (int64_t i = 0; i < n; i++)
            moe_kernels()->rmsnorm(w->x + i * h, y->post_norm, w->walk.m->eps, h, w->dy + i * h);
        if (y->moe)
            moe_backward_router(w->back, layer, w->dy, n, w->walk.experts + at * k, w->dot + at * k, w->out);
        MOE_TRY(moe_states_read(&w->dh, at, n, w->dy, err));
        moe_backward_norm(w->back, w->x, y->post_norm, w->walk.m->eps, h, h, n, w->out, w->dy);
        if (y->moe) moe_meter_add(w->meter, moe_work_router_back(&w->walk.src->config, (double)n));
        MOE_TRY(moe_states_write(&w->dh, at, n, w->dy, err));
    }
    return MOE_OK;
}

static enum moe_code attention_back(struct work *w, int layer, struct moe_err *err)
{
    for (int64_t at = 0, n; at < w->o->n; at += n) {
        int64_t s = w->o->sequence, count = 0;
        n = moe_min_i64(moe_walk_batch(s), w->o->n - at);
        for (int64_t i = 0; i < n; i += s) w->lengths[count++] = moe_min_i64(s, n - i);
        MOE_TRY(moe_states_read(&w->before[layer], at, n, w->x, err));
        MOE_TRY(moe_states_read(&w->dh, at, n, w->dy, err));
        moe_backward_attention(w->back, layer, w->x, w->lengths, count, w->dy);
        moe_meter_add(w->meter, moe_work_attention_back(&w->walk.src->config, (double)n, (double)s));
        MOE_TRY(moe_states_write(&w->dh, at, n, w->dy, err));
        MOE_TRY(moe_cancel_check_resumable(w->o->cancel, err));
    }
    return MOE_OK;
}

/* Restores the kept states before `layer` and takes the walk through its attention and router again. */
static enum moe_code go_back(struct work *w, int layer, struct moe_err *err)
{
    for (int64_t at = 0, n; at < w->o->n; at += n) {
        n = moe_min_i64(PIECE, w->o->n - at);
        MOE_TRY(moe_states_read(&w->before[layer], at, n, w->x, err));
        MOE_TRY(moe_states_write(&w->walk.h, at, n, w->x, err));
    }
    w->walk.layer = layer;
    w->walk.routed = false;
    return moe_walk_to_experts(&w->walk, layer, err);
}

static enum moe_code backward(struct work *w, struct moe_err *err)
{
    if (!resumed(w)) MOE_TRY(start(w, err));
    for (int l = w->from; l >= w->first; l--) {
        if (w->walk.m->layers[l].moe) MOE_TRY(write_fisher(w, l, err));
        if (l == w->first) break;
        MOE_TRY(go_back(w, l, err));
        MOE_TRY(mlps_back(w, l, err));
        MOE_TRY(norm_back(w, l, err));
        MOE_TRY(attention_back(w, l, err));
        MOE_TRY(moe_gradient_save(w->dir, l - 1, &w->dh, err));
    }
    return moe_gradient_drop(w->dir, err);
}

/* ---- the whole ---- */

static enum moe_code open_work(struct work *w, struct moe_source *src, int resume_layer, const char *states,
                               struct moe_pool *pool, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    int64_t n = w->o->n;
    int64_t h = c->hidden_size;
    int64_t k = c->num_experts_per_tok;
    int64_t piece = moe_max_i64(PIECE, moe_walk_batch(w->o->sequence));

    MOE_TRY(moe_walk_open(&w->walk, src, w->o->tokens, n, w->o->sequence, states, pool, w->o->cancel, err));
    w->walk.meter = w->meter;
    MOE_TRY(moe_backward_open(&w->back, w->walk.m, piece, w->o->sequence, pool, err));
    MOE_TRY(moe_hessian_open(&w->hessian, h, err));
    w->layers = (int)c->num_hidden_layers;
    w->before = calloc((size_t)w->layers, sizeof *w->before);
    w->dot = calloc((size_t)(n * k) + 1, sizeof *w->dot);
    w->x = malloc((size_t)(piece * h) * sizeof *w->x);
    w->dy = malloc((size_t)(piece * h) * sizeof *w->dy);
    w->out = malloc((size_t)(PIECE * h) * sizeof *w->out);
    w->dots = malloc(PIECE * sizeof *w->dots);
    w->lengths = malloc((size_t)(piece + 1) * sizeof *w->lengths);
    if (!w->before || !w->dot || !w->x || !w->dy || !w->out || !w->dots || !w->lengths)
        return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)n);
    for (int l = 0; l < w->layers; l++) w->before[l].fd = -1;
    w->first = (int)moe_config_first_moe(c);
    for (int l = w->first; l < w->layers; l++) MOE_TRY(moe_states_open(&w->before[l], n, h, states, err));
    MOE_TRY(moe_states_open(&w->dh, n, h, states, err));
    MOE_TRY(moe_states_open(&w->dx, n, h, states, err));
    w->from = resume_layer >= 0 ? resume_layer : w->layers - 1;
    return resumed(w) ? moe_gradient_read(w->dir, &w->dh, err) : MOE_OK;
}

static void close_work(struct work *w)
{
    for (int l = 0; w->before && l < w->layers; l++) moe_states_close(&w->before[l]);
    moe_states_close(&w->dh);
    moe_states_close(&w->dx);
    moe_backward_close(&w->back);
    moe_hessian_release(&w->hessian);
    if (w->walk.src) moe_walk_close(&w->walk);
    free(w->before);
    free(w->dot);
    free(w->x);
    free(w->dy);
    free(w->out);
    free(w->dots);
    free(w->lengths);
}

enum moe_code moe_fisher_complete(const struct moe_source *src, const char *dir,
                                  const struct moe_cancel *cancel, bool *complete, struct moe_err *err)
{
    *complete = true;
    for (int l = 0; l < src->config.num_hidden_layers && *complete; l++)
        if (moe_layer_is_moe(&src->config, l))
            MOE_TRY(is_whole(dir, l, src->config.hidden_size, cancel, complete, err));
    return MOE_OK;
}

enum moe_code moe_fisher_resume_layer(const struct moe_source *src, const struct moe_fisher *o,
                                      const char *dir, int *layer, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    MOE_TRY(moe_gradient_layer(dir, o->n, c->hidden_size, layer, err));
    if (*layer < moe_config_first_moe(c) || *layer >= c->num_hidden_layers - 1) *layer = -1;
    for (int l = *layer + 1; *layer >= 0 && l < c->num_hidden_layers; l++) {
        bool whole;
        if (!moe_layer_is_moe(c, l)) continue;
        MOE_TRY(is_whole(dir, l, c->hidden_size, o->cancel, &whole, err));
        if (!whole) *layer = -1; /* the file was removed or damaged: start again */
    }
    return MOE_OK;
}

double moe_fisher_done_work(const struct moe_source *src, const struct moe_fisher *o, int layer)
{
    double n = (double)o->n, s = (double)o->sequence;
    return moe_work_sensitivity(&src->config, n, s) - moe_work_sensitivity_from(&src->config, n, s, layer);
}

enum moe_code moe_fisher_run(struct moe_source *src, const struct moe_fisher *o, const char *dir,
                             int resume_layer, const char *states, struct moe_pool *pool,
                             struct moe_meter *meter, struct moe_err *err)
{
    struct work w = { .o = o, .dir = dir, .meter = meter, .dh = { .fd = -1 }, .dx = { .fd = -1 } };
    enum moe_code code = open_work(&w, src, resume_layer, states, pool, err);
    if (code == MOE_OK) code = keep_states(&w, err);
    if (code == MOE_OK) code = backward(&w, err);
    close_work(&w);
    return code;
}

enum moe_code moe_fisher_read(const char *dir, int layer, struct moe_output_hessian *m, struct moe_err *err)
{
    char path[PATH_MAX];
    uint64_t size;
    struct head h;
    int fd;
    bool whole;
    size_t bytes = matrix_bytes(m->hessian.k);

    MOE_TRY(file_of(dir, layer, path, err));
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = read_head(fd, path, size, layer, m->hessian.k, &h, &whole, err);
    if (code == MOE_OK && whole) code = moe_pread(fd, path, m->hessian.h, bytes, sizeof h, err);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    if (code != MOE_OK || (whole && moe_hash64(m->hessian.h, bytes) == h.hash)) return code;
    return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                       "was damaged after it was written (use --resume, which computes it again)");
}

void moe_fisher_estimate(const struct moe_source *src, const struct moe_fisher *o, bool in_files, int threads,
                         uint64_t *memory, uint64_t *files)
{
    const struct moe_config *c = &src->config;
    int64_t piece = moe_max_i64(PIECE, moe_walk_batch(o->sequence));
    uint64_t one = (uint64_t)(o->n * c->hidden_size) * sizeof(float);
    uint64_t states = (uint64_t)(c->num_hidden_layers - moe_config_first_moe(c) + 2) * one;
    uint64_t rows = (uint64_t)(2 * moe_min_i64(piece, o->n) + moe_min_i64(PIECE, o->n)) *
                    (uint64_t)c->hidden_size * sizeof(float);

    *memory =
        moe_walk_estimate(src, o->n, o->sequence, in_files, threads) + moe_hessian_estimate(c->hidden_size) +
        (in_files ? 0 : states) + rows +
        moe_backward_touched_bytes(c, moe_min_i64(PIECE, o->n),
                                   moe_min_i64(moe_walk_batch(o->sequence), o->n),
                                   moe_min_i64(o->sequence, o->n), threads) +
        (uint64_t)(o->n * c->num_experts_per_tok) * sizeof(float);
    *files = in_files ? states + 2 * one : 0;
}
