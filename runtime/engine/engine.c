/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/engine.h"

#include "base/io.h"
#include "base/show.h"
#include "runtime/engine/attach.h"
#include "runtime/engine/core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

/* Tokens of a batch; bytes that a batch larger than MIN_BATCH may take in addition. */
enum { MIN_BATCH = 16, MAX_BATCH = 1024, BATCH_BYTES = 512 << 20 };

/* What decides how much memory an engine takes, where batch and context are those of `o`. */
struct sizes {
    const struct moe_config *c;
    struct moe_cpu_options o;
    int threads;
    bool cuda;
    enum moe_latent_type latents;
};

/* The bytes that an engine holds at most besides mapped files, or on its GPU besides the weights: a full
 * cache, the buffers of a batch, states and logits, and memory for sampling. */
static uint64_t estimate(const struct sizes *s)
{
    const struct moe_config *c = s->c;
    const struct moe_cpu_options *o = &s->o;
    uint64_t sampling = (uint64_t)c->vocab_size * (2 * sizeof(float) + sizeof(int32_t)),
             ids = (uint64_t)o->context * sizeof(int32_t);
    return moe_latent_estimate(c, s->latents, c->num_hidden_layers, moe_latent_pages(o->context)) +
           (s->cuda ? moe_cuda_estimate(c, o->activations, o->max_tokens, o->context)
                    : moe_cpu_estimate(c, o, s->threads)) +
           moe_forward_estimate(c, o->max_tokens) + sampling + ids;
}

/* The largest n in [lo, hi] for which an engine with n in the place of the context and batch of `s`, where
 * they are 0, is estimated to take at most `limit` bytes; lo - 1 when there is none.  The estimate grows with
 * n. */
static int64_t max_that_fits(const struct sizes *s, int64_t lo, int64_t hi, uint64_t limit)
{
    while (lo <= hi) {
        int64_t n = lo + (hi - lo) / 2;
        struct sizes with = *s;
        if (!s->o.context) with.o.context = n;
        if (!s->o.max_tokens) with.o.max_tokens = n;
        if (estimate(&with) <= limit) lo = n + 1;
        else hi = n - 1;
    }
    return hi;
}

/* The bytes that the engine may hold, by its estimate; *held: those that the process has already. */
static uint64_t limit_of(const struct moe_engine *e, const struct moe_engine_options *o, uint64_t *held)
{
    uint64_t limit;
    *held = o->cuda ? 0 : moe_peak_anonymous();
    if (o->cuda) limit = moe_cuda_room(e->device);
    else if (o->memory) limit = o->memory > *held ? o->memory - *held : 1;
    else limit = moe_available_memory();
    if (!limit) limit = UINT64_MAX; /* it is not known how much memory is available */
    return o->sharers > 1 ? limit / (uint64_t)o->sharers : limit;
}

/* least: the bytes that the shortest context needs. */
static enum moe_code fail_context(const struct moe_engine_options *o, int64_t context, uint64_t bytes,
                                  uint64_t least, uint64_t limit, uint64_t held, struct moe_err *err)
{
    char need[16], have[16];
    const char *remedy = least <= limit ? "a smaller --context"
                                        : "--device cpu, or a container with smaller weights";
    if (o->cuda)
        return moe_fail(err, MOE_NOMEM,
                        "a context of %lld needs %s of GPU %d besides the model's weights, %s are free "
                        "(try %s)", (long long)context, moe_human_bytes(bytes, need), o->gpu,
                        moe_human_bytes(limit, have), remedy);
    return moe_fail(
        err, MOE_NOMEM,
        "a context of %lld needs %s besides the model's files, %s %s (try a smaller --context%s)",
        (long long)context, moe_human_bytes(bytes + (o->memory ? held : 0), need),
        moe_human_bytes(o->memory ? o->memory : limit, have), o->memory ? "are allowed" : "are available",
        o->memory ? " or a larger --memory" : "");
}

/* Loading a model onto a GPU takes long: a cache that will not fit beside it is refused before. */
static enum moe_code check_cache(const struct moe_engine *e, const struct moe_config *c,
                                 const struct moe_engine_options *o, struct moe_err *err)
{
    uint64_t page = moe_core_page_bytes(c, o->latents);
    uint64_t pages = (uint64_t)moe_latent_pages(e->context) + e->spare / page;
    char asked[16], have[16];
    if (!o->cuda || o->cache_bytes / page <= pages) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "a cache of %s does not fit what the model leaves of GPU %d for it, %s "
                    "(try a smaller --cache)", moe_human_bytes(o->cache_bytes, asked), o->gpu,
                    moe_human_bytes(pages * page, have));
}

/* Chooses the context, then as large a batch as the rest of the memory allows, up to MAX_BATCH.  In a larger
 * batch the weights of an expert are read once for more tokens; a batch that is a few tokens smaller costs
 * little, so it is rounded down to a multiple of MIN_BATCH. */
static enum moe_code fit(struct moe_engine *e, const struct moe_config *c, const struct moe_engine_options *o,
                         struct moe_cpu_options *cpu, int threads, struct moe_err *err)
{
    bool bounded = o->max_context > 0 && o->max_context < c->max_position_embeddings;
    int64_t max_context = bounded ? o->max_context : c->max_position_embeddings;
    int64_t min_batch = max_context < MIN_BATCH ? max_context : MIN_BATCH;
    uint64_t held, limit = limit_of(e, o, &held);
    int64_t batch = o->batch > 0 && o->batch < MAX_BATCH ? o->batch : MAX_BATCH;
    struct sizes s = { .c = c,
                       .o = { .max_tokens = min_batch,
                              .context = o->context,
                              .mla = o->mla,
                              .activations = o->activations,
                              .serves = o->dense_only },
                       .threads = threads,
                       .cuda = o->cuda,
                       .latents = o->latents };
    if (o->context <= 0) s.o.context = max_that_fits(&s, 1, max_context, limit);
    e->context = s.o.context;
    if (!s.o.context) s.o.context = 1; /* which does not fit, as the message says */
    uint64_t bytes = estimate(&s);
    struct sizes least = s;
    least.o.context = least.o.max_tokens = 1;
    if (bytes > limit) return fail_context(o, s.o.context, bytes, estimate(&least), limit, held, err);
    uint64_t room = limit - bytes < BATCH_BYTES ? limit - bytes : BATCH_BYTES;
    s.o.max_tokens = 0;
    e->batch = max_that_fits(&s, min_batch, e->context < batch ? e->context : batch, bytes + room);
    if (e->batch > MIN_BATCH) e->batch -= e->batch % MIN_BATCH;
    if (e->batch < 1) e->batch = 1;
    s.o.max_tokens = e->batch;
    e->spare = limit - estimate(&s);
    *cpu = s.o;
    return check_cache(e, c, o, err);
}

/* ---- open and close ---- */

/* Opens source and tokenizer, or borrows the lender's.  staged: the source may be a staged part. */
static enum moe_code open_source(struct moe_engine *e, const char *path, const struct moe_engine_options *o,
                                 bool staged, struct moe_err *err)
{
    if (o->lender) {
        e->borrowed = true;
        e->source = o->lender->source;
        e->tokenizer = o->lender->tokenizer;
    } else {
        MOE_TRY(staged ? moe_source_open_staged(&e->source, path, err)
                       : moe_source_open(&e->source, path, err));
    }
    const struct moe_config *c = &e->source->config;
    if (o->context > c->max_position_embeddings)
        return moe_fail(err, MOE_USAGE, "--context %lld is more than the model's %lld positions",
                        (long long)o->context, (long long)c->max_position_embeddings);
    e->vocab = c->vocab_size;
    enum moe_code code = o->lender ? MOE_OK : moe_tokenizer_open(&e->tokenizer, path, c->vocab_size, err);
    if (code != MOE_OK && (o->tokenizer || code != MOE_NOT_FOUND)) return code;
    if (e->tokenizer && !o->lender)
        moe_tokenizer_limit(e->tokenizer, o->memory ? o->memory : moe_available_memory());
    if (e->tokenizer && moe_tokenizer_size(e->tokenizer) < e->vocab)
        e->vocab = moe_tokenizer_size(e->tokenizer);
    return MOE_OK;
}

/* Opens the GPU, chooses sizes, and brings the weights onto it or attaches to them. */
static enum moe_code open_cuda(struct moe_engine *e, const char *path, const struct moe_engine_options *o,
                               int threads, struct moe_err *err)
{
    const struct moe_cuda_options cuda = {
        .index = o->gpu, .activations = o->activations, .fast = o->fast, .latents = o->latents,
        .attached = o->attach
    };
    struct moe_cpu_options sizes = { .max_tokens = 0 };
    struct moe_attach a = { .fd = -1 };
    MOE_TRY(moe_cuda_open(&e->device, e->model, &cuda, err));
    if (o->attach) MOE_TRY(moe_attach_open(&a, o->attach, e->device, path, o->cancel, err));
    enum moe_code code = fit(e, &e->source->config, o, &sizes, threads, err);
    const struct moe_cuda_start start = { .max_tokens = sizes.max_tokens,
                                          .context = sizes.context,
                                          .path = o->load,
                                          .lender = o->attach ? &a.lender : NULL,
                                          .progress = o->progress,
                                          .cancel = o->cancel };
    if (code == MOE_OK) code = moe_cuda_begin(e->device, &start, err);
    if (o->attach) moe_attach_close(&a);
    return code;
}

static enum moe_code open_parts(struct moe_engine *e, const char *path, const struct moe_engine_options *o,
                                struct moe_pool *pool, struct moe_err *err)
{
    MOE_TRY(open_source(e, path, o, false, err));
    if (o->dense_only) MOE_TRY(moe_resident_open(&e->resident, e->source, err));
    MOE_TRY(moe_model_open(&e->model, e->resident ? &e->resident->source : e->source, o->lora_eps, err));
    /* sizes are chosen after opening, so that they count the memory that descriptors and tokenizer take */
    if (o->cuda) {
        MOE_TRY(open_cuda(e, path, o, moe_pool_threads(pool), err));
    } else {
        struct moe_cpu_options cpu;
        MOE_TRY(fit(e, &e->source->config, o, &cpu, moe_pool_threads(pool), err));
        MOE_TRY(moe_cpu_open(&e->device, e->model, &cpu, pool, err));
    }
    return moe_forward_open(&e->forward, e->device, err);
}

enum moe_code moe_engine_open(struct moe_engine **out, const char *path, const struct moe_engine_options *o,
                              struct moe_pool *pool, struct moe_err *err)
{
    struct moe_engine *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e) return moe_fail(err, MOE_NOMEM, "no memory for an engine");
    e->cancel = o->cancel;
    e->cuda = o->cuda;
    e->cache_bytes = o->cache_bytes;
    e->max_sequences = o->max_sequences;
    enum moe_code code = open_parts(e, path, o, pool, err);
    if (code != MOE_OK) moe_engine_close(&e);
    *out = e;
    return code;
}

enum moe_code moe_engine_open_lender(struct moe_engine **out, const char *path,
                                     const struct moe_engine_options *o, struct moe_err *err)
{
    struct moe_engine *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e) return moe_fail(err, MOE_NOMEM, "no memory for an engine");
    e->cancel = o->cancel;
    enum moe_code code = open_source(e, path, o, true, err);
    if (code != MOE_OK) moe_engine_close(&e);
    *out = e;
    return code;
}

void moe_engine_close(struct moe_engine **pe)
{
    struct moe_engine *e = *pe;
    if (!e) return;
    moe_forward_close(&e->forward);
    moe_device_close(&e->device);
    moe_model_close(&e->model);
    moe_resident_close(&e->resident);
    if (!e->borrowed) {
        moe_tokenizer_close(&e->tokenizer);
        moe_source_close(&e->source);
    }
    free(e);
    *pe = NULL;
}
