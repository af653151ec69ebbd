/* SPDX-License-Identifier: Apache-2.0 */
/* The device itself: its buffers, its memory, and the table of its operations. */
#include "base/minmax.h"
#include "kernels/many.h"
#include "model/ops/cpu/cpu-internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- buffers ---- */

/* Allocates all buffers; or only counts their bytes (struct moe_aligned). */
static void take_all(struct moe_host *d, const struct moe_config *c, int threads)
{
    struct moe_aligned *a = &d->owned;
    int64_t t = d->o.max_tokens, k = c->num_experts_per_tok, e = c->n_routed_experts;
    int64_t shared = c->n_shared_experts * c->moe_intermediate_size;
    int64_t inter = t * moe_max_i64(c->intermediate_size, k * c->moe_intermediate_size + shared);
    int64_t widest =
        moe_max_i64(moe_max_i64(c->hidden_size, c->q_lora_rank), c->num_attention_heads * c->v_head_dim);

    d->x = moe_aligned_take(a, t * c->hidden_size, sizeof *d->x);
    d->cos = moe_aligned_take(a, t * c->qk_rope_head_dim / 2, sizeof *d->cos);
    d->sin = moe_aligned_take(a, t * c->qk_rope_head_dim / 2, sizeof *d->sin);
    d->router = moe_aligned_take(a, t * e, sizeof *d->router);
    d->choose = moe_aligned_take(a, 2 * threads * e, sizeof *d->choose);
    d->first = moe_aligned_take(a, e + 1, sizeof *d->first);
    d->active = moe_aligned_take(a, e, sizeof *d->active);
    d->from = moe_aligned_take(a, t * k, sizeof *d->from);
    d->gate = moe_aligned_take(a, moe_max_i64(inter, t * widest), sizeof *d->gate);
    d->quantized = d->gate;
    d->up = moe_aligned_take(a, inter, sizeof *d->up);
    d->served = moe_aligned_take(a, d->o.serves ? t * k * c->hidden_size : 0, sizeof *d->served);
    d->slot = moe_aligned_take(a, d->o.serves ? t * k : 0, sizeof *d->slot);
    d->absorbed = moe_aligned_take(a, moe_attention_floats(c, t, d->o.context, d->o.mla, threads),
                                   sizeof *d->absorbed);
    d->worker_floats = moe_attention_worker_floats(c, d->o.context, d->o.mla);
    d->worker = moe_aligned_take(a, threads * d->worker_floats, sizeof *d->worker);
    d->order = moe_aligned_take(a, threads * c->vocab_size, sizeof *d->order);
    d->p = moe_aligned_take(a, threads * c->vocab_size, sizeof *d->p);
}

uint64_t moe_cpu_estimate(const struct moe_config *c, const struct moe_cpu_options *o, int threads)
{
    struct moe_host d = { .owned = { .counting = true }, .o = *o };
    take_all(&d, c, threads);
    return d.owned.bytes + sizeof d;
}

/* ---- memory ---- */

/* What stands before memory that was given, which begins at a multiple of 64 bytes. */
union head { uint64_t bytes; char room[64]; };

static enum moe_code allocate(struct moe_device *d, uint64_t bytes, struct moe_addr *out, struct moe_err *err)
{
    (void)d;
    bytes += sizeof(union head);
    /* untouched pages of a mapping take no memory; it is the caller who counts what will be touched */
    union head *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *out = (struct moe_addr){ 0 };
    if (p == MAP_FAILED)
        return moe_fail(err, MOE_NOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
    p->bytes = bytes;
    out->at = (uintptr_t)(p + 1);
    return MOE_OK;
}

static void release(struct moe_device *d, struct moe_addr a)
{
    union head *p = moe_cpu_at(a);
    (void)d;
    if (p) munmap(p - 1, (size_t)p[-1].bytes);
}

static void write_bytes(struct moe_device *d, struct moe_addr to, const void *from, uint64_t bytes)
{
    (void)d;
    memcpy(moe_cpu_at(to), from, (size_t)bytes);
}

static void read_bytes(struct moe_device *d, void *to, struct moe_addr from, uint64_t bytes)
{
    (void)d;
    memcpy(to, moe_cpu_at(from), (size_t)bytes);
}

static enum moe_code wait(struct moe_device *d, uint32_t *word, struct moe_err *err)
{
    (void)err;
    *word = moe_cpu_of(d)->word;
    moe_cpu_of(d)->word = 0;
    return MOE_OK;
}

static void copy_rows(struct moe_device *d, const struct moe_latent *c, const struct moe_page_copy *copy)
{
    (void)d;
    for (int layer = 0; layer < c->layers; layer++)
        memcpy(moe_cpu_at(moe_latent_at(c, copy->to, layer)), moe_cpu_at(moe_latent_at(c, copy->from, layer)),
               (size_t)(copy->rows * c->width) * sizeof(float));
}

static void begin(struct moe_device *d, const struct moe_batch *b)
{
    MOE_CHECK(b->n <= d->max_tokens);
    for (int64_t i = 0; i < b->n_segments; i++)
        MOE_CHECK(b->segment[i].first + b->segment[i].n <= d->context);
    moe_cpu_of(d)->batch = *b;
}

static void set_hooks(struct moe_device *d, const struct moe_hooks *hooks)
{
    moe_cpu_of(d)->hooks = hooks ? *hooks : (struct moe_hooks){ .ctx = NULL };
}

/* ---- open and close ---- */

static void close_cpu(struct moe_device *d)
{
    moe_aligned_release(&moe_cpu_of(d)->owned);
    free(moe_cpu_of(d));
}

static const struct moe_ops ops = { .name = "cpu",
                                    .close = close_cpu,
                                    .alloc = allocate,
                                    .free = release,
                                    .write = write_bytes,
                                    .read = read_bytes,
                                    .wait = wait,
                                    .copy = copy_rows,
                                    .begin = begin,
                                    .embed = moe_cpu_embed,
                                    .norm = moe_cpu_norm,
                                    .linear = moe_cpu_linear,
                                    .append = moe_cpu_append,
                                    .attend = moe_cpu_attend,
                                    .route = moe_cpu_route,
                                    .mlps = moe_cpu_mlps,
                                    .combine = moe_cpu_combine,
                                    .logits = moe_cpu_logits,
                                    .sample = moe_cpu_sample,
                                    .check = moe_cpu_check,
                                    .hooks = set_hooks,
                                    .serve = moe_cpu_serve };

/* Replaces kernels as the options say. */
static void choose_kernels(struct moe_host *d)
{
    enum moe_activations a = d->o.activations;
    d->kernels = d->o.kernels ? *d->o.kernels : *moe_kernels();
    d->k = &d->kernels;
    /* INT16 is another matmul: activations themselves stay floats */
    d->activations = a == MOE_ACTIVATIONS_INT16 ? MOE_ACTIVATIONS_FLOAT : a;
    if (a == MOE_ACTIVATIONS_INT16) d->kernels.matmul = d->kernels.matmul_int16;
    else if (d->o.many) d->kernels.matmul = moe_matmul_many;
    d->kernels.nvfp4_activations = moe_activations_kernel(&d->kernels, a);
}

enum moe_code moe_cpu_open(struct moe_device **out, const struct moe_model *m,
                           const struct moe_cpu_options *o, struct moe_pool *pool, struct moe_err *err)
{
    struct moe_host *d = calloc(1, sizeof *d);

    *out = NULL;
    if (!d) return moe_fail(err, MOE_NOMEM, "no memory for a forward pass");
    d->device = (struct moe_device){
        .ops = &ops, .model = m, .max_tokens = o->max_tokens, .context = o->context
    };
    d->pool = pool;
    d->o = *o;
    choose_kernels(d);
    take_all(d, &m->config, moe_pool_threads(pool));
    if (d->owned.failed) {
        close_cpu(&d->device);
        return moe_fail(err, MOE_NOMEM,
                        "no memory for batches of %lld tokens (try fewer --threads or a smaller --context)",
                        (long long)o->max_tokens);
    }
    *out = &d->device;
    return MOE_OK;
}

void moe_cpu_use(struct moe_device *d, const struct moe_model *m) { d->model = m; }
