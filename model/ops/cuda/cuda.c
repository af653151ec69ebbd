/* SPDX-License-Identifier: Apache-2.0 */
/* The device itself: its buffers, its memory, what it knows of a batch, and the table of its operations. */
#include "base/minmax.h"
#include "base/show.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/dense-fast.h"
#include "kernels/cuda/digits.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/tiles.h"
#include "model/ops/cuda/cuda-internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- calls of the GPU ---- */

void moe_cuda_write(struct moe_cuda *d, uint64_t to, const void *from, uint64_t bytes)
{
    moe_cuda_flush(d);
    if (d->code == MOE_OK) d->code = moe_gpu_write(d->gpu, (struct moe_addr){ to }, from, bytes, &d->err);
}

void moe_cuda_read(struct moe_cuda *d, void *to, uint64_t from, uint64_t bytes)
{
    moe_cuda_flush(d);
    if (d->code == MOE_OK) d->code = moe_gpu_read(d->gpu, to, (struct moe_addr){ from }, bytes, &d->err);
}

/* ---- buffers ---- */

/* Gives out places in the memory of all buffers, which begins at `base`; 0: only their bytes count. */
struct taker { uint64_t base, at; };

static uint64_t take(struct taker *t, int64_t n, uint64_t size)
{
    uint64_t at = t->at;
    t->at += ((uint64_t)n * size + 255) / 256 * 256;
    return t->base + at;
}

static int64_t max3(int64_t a, int64_t b, int64_t c) { return moe_max_i64(moe_max_i64(a, b), c); }

/* The widest input of a product that is not an MLP's. */
static int64_t widest(const struct moe_config *c)
{
    return max3(c->hidden_size, c->q_lora_rank, c->num_attention_heads * c->v_head_dim);
}

/* Of attention: the floats of what split tokens leave for their merge.  One token of the longest context has
 * room, and more than that up to 256 MiB. */
static int64_t part_floats(const struct moe_config *c, int64_t t, int64_t context)
{
    int64_t one = (context + MOE_CHUNK - 1) / MOE_CHUNK * c->num_attention_heads * (c->kv_lora_rank + 2);
    return moe_max_i64(one, moe_min_i64(one * moe_min_i64(t, MOE_CUDA_SLAB), (int64_t)64 << 20));
}

static void take_products(struct taker *b, struct moe_cuda *d, const struct moe_config *c, int64_t t)
{
    int64_t k = c->num_experts_per_tok, chosen = t * k;
    int64_t common = moe_max_i64(c->intermediate_size, c->n_shared_experts * c->moe_intermediate_size);
    int64_t inter = moe_max_i64(t * common, chosen * c->moe_intermediate_size);
    int64_t wide = moe_max_i64(t * moe_max_i64(widest(c), common), chosen * c->hidden_size);
    int64_t groups = max3(t * moe_cuda_digit_groups(moe_max_i64(widest(c), common)),
                          chosen * moe_cuda_digit_groups(c->moe_intermediate_size),
                          moe_activations_nvfp4(d->o.activations)
                              ? chosen * moe_cuda_digit_groups(c->hidden_size)
                              : 0);
    d->at.quantized = moe_activations_nvfp4(d->o.activations) ? take(b, wide, 4) : 0;
    d->at.digits = take(b, groups, 1024);
    d->at.factors = take(b, groups, 64);
    d->at.done = take(b, MOE_CUDA_DENSE_FAST_TILES, 4);
    d->at.acted = take(b, chosen * moe_cuda_digit_groups(c->moe_intermediate_size), 1024);
    d->at.acted_factors = take(b, chosen * moe_cuda_digit_groups(c->moe_intermediate_size), 64);
    d->at.gate = take(b, inter, 4);
    d->at.up = take(b, inter, 4);
    d->at.sorted = take(b, c->n_routed_experts + 1, 4);
    d->at.pair = take(b, chosen, 4);
    d->at.token = take(b, chosen, 4);
    d->at.items = take(b, MOE_CUDA_BUCKETS * chosen, sizeof(struct moe_cuda_item));
    d->at.counts = take(b, MOE_CUDA_BUCKETS, 4);
    d->at.tiles = take(b, MOE_CUDA_TILE_LISTS * chosen, sizeof(struct moe_cuda_item));
    d->at.tile_counts = take(b, MOE_CUDA_TILE_LISTS, 4);
}

/* Takes all buffers; or only counts their bytes, where b->base is 0. */
static void take_all(struct taker *b, struct moe_cuda *d, const struct moe_config *c, int64_t t,
                     int64_t context)
{
    int64_t heads = c->num_attention_heads, kl = c->kv_lora_rank, slab = moe_min_i64(t, MOE_CUDA_SLAB);
    int64_t chunks = moe_cuda_sample_chunks(c->vocab_size), half = c->qk_rope_head_dim / 2;
    d->part_floats = part_floats(c, t, context);
    d->at.word = take(b, 1, 4);
    d->at.input = take(b, t * (3 + moe_latent_pages(context) + 2 * half), 4);
    d->at.x = take(b, t * c->hidden_size, 4);
    d->at.rows = take(b, t, 4);
    d->at.router = take(b, t * c->n_routed_experts, 4);
    take_products(b, d, c, t);
    d->at.query = take(b, slab * heads * (kl + c->qk_rope_head_dim), 4);
    d->at.latent = take(b, slab * heads * kl, 4);
    d->at.part = take(b, d->part_floats, 4);
    d->at.drawing = take(b, t, sizeof(struct moe_cuda_drawing));
    d->at.most = take(b, t * chunks, 8);
    d->at.weight = take(b, t * chunks * MOE_CUDA_SAMPLE_PARTS, 8);
    d->at.count = take(b, t * chunks * MOE_CUDA_SAMPLE_PARTS, 4);
}

uint64_t moe_cuda_estimate(const struct moe_config *c, enum moe_activations a, int64_t max_tokens,
                           int64_t context)
{
    struct moe_cuda d = { .o = { .activations = a } };
    struct taker b = { 0 };
    take_all(&b, &d, c, max_tokens, context);
    int64_t launches = (c->num_hidden_layers + 1) * MOE_CUDA_LAYER_LAUNCHES;
    return b.at + (uint64_t)(launches * MOE_CUDA_GRAPHS) * MOE_CUDA_NODE_BYTES;
}

/* ---- memory ---- */

static enum moe_code allocate(struct moe_device *d, uint64_t bytes, struct moe_addr *out, struct moe_err *err)
{
    struct moe_gpu *g = moe_cuda_of(d)->gpu;
    struct moe_err ignored = MOE_ERR_INIT;
    uint64_t left;
    enum moe_code code = moe_gpu_alloc(g, bytes, out, err);
    bool too_little = code == MOE_DEVICE && moe_gpu_free_now(g, &left, &ignored) == MOE_OK && left < bytes;
    return too_little ? moe_err_remedy(err, "try a smaller --context") : code;
}

static void release(struct moe_device *d, struct moe_addr a)
{
    moe_cuda_flush(moe_cuda_of(d));
    moe_gpu_free(moe_cuda_of(d)->gpu, a);
}

static void write_bytes(struct moe_device *d, struct moe_addr to, const void *from, uint64_t bytes)
{
    moe_cuda_write(moe_cuda_of(d), to.at, from, bytes);
}

static void read_bytes(struct moe_device *d, void *to, struct moe_addr from, uint64_t bytes)
{
    moe_cuda_read(moe_cuda_of(d), to, from.at, bytes);
}

static enum moe_code wait(struct moe_device *device, uint32_t *word, struct moe_err *err)
{
    struct moe_cuda *d = moe_cuda_of(device);
    *word = 0;
    moe_cuda_read(d, &d->word, d->at.word, sizeof d->word);
    if (d->code == MOE_OK) d->code = moe_gpu_fill(d->gpu, (struct moe_addr){ d->at.word }, 0, 4, &d->err);
    if (d->code == MOE_OK) d->code = moe_gpu_wait(d->gpu, &d->err);
    if (d->code == MOE_OK && d->word & MOE_CUDA_WORD_ABSENT)
        d->code = moe_fail(&d->err, MOE_DEVICE, "GPU %d: a token chose an expert that is not in its memory",
                           d->o.index);
    if (d->code != MOE_OK) {
        *err = d->err;
        return d->code;
    }
    *word = d->word;
    return MOE_OK;
}

/* ---- the batch ---- */

/* The pages of the longest block table of the batch, rounded up so that many steps have the same. */
static int64_t longest_table(const struct moe_cuda *d, const struct moe_batch *b)
{
    int64_t n = 0, rounded = 1;
    for (int64_t i = 0; i < b->n_segments; i++)
        n = moe_max_i64(n, moe_latent_pages(b->segment[i].first + b->segment[i].n));
    while (rounded < n) rounded *= 2;
    return moe_min_i64(rounded, moe_latent_pages(d->device.context));
}

/* Where the parts of at.input are, for a batch of n tokens; returns the bytes of all. */
static uint64_t place_input(struct moe_cuda *d, int64_t n, int64_t segments)
{
    uint64_t floats = (uint64_t)(n * moe_cuda_config(d)->qk_rope_head_dim / 2), at = d->at.input;
    d->in.tokens = at, at += (uint64_t)n * 4;
    d->in.segment = at, at += (uint64_t)n * 4;
    d->in.pos = at, at += (uint64_t)n * 4;
    d->in.cosine = at, at += floats * 4;
    d->in.sine = at, at += floats * 4;
    d->in.pages = at, at += (uint64_t)(segments * d->table) * 4;
    return at - d->at.input;
}

static void *host_input(struct moe_cuda *d, uint64_t at) { return d->input + (at - d->at.input); }

/* Fills in what a kernel must know about the tokens of the batch's segments. */
static void describe_segments(struct moe_cuda *d, const struct moe_batch *b)
{
    const struct moe_model *m = d->device.model;
    int64_t half = m->config.qk_rope_head_dim / 2, t = 0;
    int32_t *segment = host_input(d, d->in.segment), *pos = host_input(d, d->in.pos);
    int32_t *pages = host_input(d, d->in.pages);
    float *cosine = host_input(d, d->in.cosine), *sine = host_input(d, d->in.sine);
    for (int64_t i = 0; i < b->n_segments; i++) {
        const struct moe_segment *s = &b->segment[i];
        int64_t n = moe_latent_pages(s->first + s->n);
        MOE_CHECK(s->first + s->n <= d->device.context && s->cache == b->segment->cache);
        memcpy(pages + i * d->table, s->page, (size_t)n * sizeof *pages);
        memset(pages + i * d->table + n, 0, (size_t)(d->table - n) * sizeof *pages);
        for (int64_t j = 0; j < s->n; j++, t++) {
            segment[t] = (int32_t)i;
            d->first[t] = s->first + j;
            pos[t] = (int32_t)d->first[t];
            moe_rope_angles(&m->rope, m->inv_freq, d->first[t], cosine + t * half, sine + t * half);
        }
    }
}

static void begin(struct moe_device *device, const struct moe_batch *b)
{
    struct moe_cuda *d = moe_cuda_of(device);
    MOE_CHECK(b->n <= device->max_tokens);
    d->batch = *b;
    d->table = longest_table(d, b);
    uint64_t bytes = place_input(d, b->n, b->n_segments);
    if (!b->tokens && !b->n_segments) return;
    if (b->tokens) memcpy(d->input, b->tokens, (size_t)b->n * sizeof *b->tokens);
    else memset(d->input, 0, (size_t)b->n * sizeof *b->tokens);
    if (b->n_segments) describe_segments(d, b);
    else bytes = (uint64_t)b->n * sizeof *b->tokens;
    moe_cuda_write(d, d->at.input, d->input, bytes);
}

/* ---- the observer, and what a GPU does not do ---- */

static void set_hooks(struct moe_device *device, const struct moe_hooks *hooks)
{
    struct moe_cuda *d = moe_cuda_of(device);
    d->hooks = hooks ? *hooks : (struct moe_hooks){ .ctx = NULL };
    MOE_CHECK(!d->hooks.input);
}

static void serve(struct moe_device *d, int layer, const struct moe_choice *list, int64_t n)
{
    (void)d, (void)layer, (void)list;
    MOE_CHECK(n == 0);
}

/* ---- open and close ---- */

static void close_cuda(struct moe_device *device)
{
    struct moe_cuda *d = moe_cuda_of(device);
    if (d->gpu) {
        moe_cuda_steps_free(d);
        moe_gpu_free(d->gpu, d->buffers);
        moe_cuda_weights_free(d);
    }
    moe_gpu_close(&d->gpu);
    free(d->input);
    free(d->first);
    free(d->experts);
    free(d->chosen);
    free(d);
}

static const struct moe_ops ops = { .name = "cuda",
                                    .close = close_cuda,
                                    .alloc = allocate,
                                    .free = release,
                                    .write = write_bytes,
                                    .read = read_bytes,
                                    .wait = wait,
                                    .copy = moe_cuda_op_copy,
                                    .begin = begin,
                                    .embed = moe_cuda_op_embed,
                                    .norm = moe_cuda_op_norm,
                                    .linear = moe_cuda_op_linear,
                                    .append = moe_cuda_op_append,
                                    .attend = moe_cuda_op_attend,
                                    .route = moe_cuda_op_route,
                                    .mlps = moe_cuda_op_mlps,
                                    .combine = moe_cuda_op_combine,
                                    .logits = moe_cuda_op_logits,
                                    .sample = moe_cuda_op_sample,
                                    .check = moe_cuda_op_check,
                                    .hooks = set_hooks,
                                    .serve = serve };

/* What does not fit the grids and the shared memory of the kernels.  The rows of products are the y of a grid
 * with at least 8 rows a block, heads are its y or z. */
static enum moe_code check_sizes(const struct moe_config *c, struct moe_err *err)
{
    const struct { const char *what; int64_t is, most; } size[] = {
        { "routed experts", c->n_routed_experts, MOE_CUDA_GROUP_EXPERTS },
        { "attention heads", c->num_attention_heads, MOE_CUDA_GRID_YZ },
        { "tokens in its vocabulary", c->vocab_size, 8 * MOE_CUDA_GRID_YZ },
        { "values in a state", c->hidden_size, 8 * MOE_CUDA_GRID_YZ },
        { "values in a token's queries", c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim),
          8 * MOE_CUDA_GRID_YZ },
        { "values in a dense MLP", c->intermediate_size, 8 * MOE_CUDA_GRID_YZ },
        { "values in its experts' MLPs", c->moe_intermediate_size * moe_max_i64(c->n_shared_experts, 1),
          8 * MOE_CUDA_GRID_YZ },
    };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i].is > size[i].most)
            return moe_fail(err, MOE_UNSUPPORTED,
                            "the model has %lld %s, and a GPU computes at most %lld (try --device cpu)",
                            (long long)size[i].is, size[i].what, (long long)size[i].most);
    return MOE_OK;
}

/* What the kernels cannot compute. */
static enum moe_code check_shape(const struct moe_config *c, struct moe_err *err)
{
    int64_t width = c->kv_lora_rank + c->qk_rope_head_dim;
    MOE_TRY(check_sizes(c, err));
    if (c->kv_lora_rank <= MOE_CUDA_ATTEND_KL && width <= MOE_CUDA_ATTEND_WIDTH) return MOE_OK;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "the model's latents have %lld values and keys %lld, and a GPU computes at most %d and "
                    "%d (try --device cpu)", (long long)c->kv_lora_rank, (long long)width, MOE_CUDA_ATTEND_KL,
                    MOE_CUDA_ATTEND_WIDTH);
}

static enum moe_code open_parts(struct moe_cuda *d, struct moe_err *err)
{
    uint64_t bytes;
    char need[16], have[16];
    MOE_TRY(check_shape(moe_cuda_config(d), err));
    MOE_TRY(moe_gpu_open(&d->gpu, d->o.index, err));
    if (moe_gpu_info(d->gpu)->multiprocessors < 1) /* grids are made for so many */
        return moe_fail(err, MOE_DEVICE, "GPU %d: the driver does not say how many multiprocessors it has",
                        d->o.index);
    MOE_TRY(moe_cuda_weights_plan(d, err));
    MOE_TRY(moe_gpu_free_now(d->gpu, &bytes, err));
    bytes -= bytes / 64; /* allocations take somewhat more than their bytes */
    d->room = bytes - (bytes < d->weights.bytes ? bytes : d->weights.bytes);
    if (d->room) return MOE_OK;
    return moe_fail(err, MOE_NOMEM,
                    "GPU %d: the model needs %s, and %s are free (try --device cpu, or a container with "
                    "smaller weights)",
                    d->o.index, moe_human_bytes(d->weights.bytes, need), moe_human_bytes(bytes, have));
}

enum moe_code moe_cuda_open(struct moe_device **out, const struct moe_model *m,
                            const struct moe_cuda_options *o, struct moe_err *err)
{
    struct moe_cuda *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d) return moe_fail(err, MOE_NOMEM, "no memory for a GPU's state");
    MOE_CHECK(o->activations != MOE_ACTIVATIONS_INT16);
    MOE_CHECK(o->latents == MOE_LATENT_F32 || (o->fast && !moe_activations_nvfp4(o->activations)));
    d->device = (struct moe_device){ .ops = &ops, .model = m, .latents = o->latents };
    d->o = *o;
    d->err = (struct moe_err)MOE_ERR_INIT;
    enum moe_code code = open_parts(d, err);
    if (code != MOE_OK) close_cuda(&d->device);
    else *out = &d->device;
    return code;
}

static enum moe_code take_buffers(struct moe_cuda *d, struct moe_err *err)
{
    const struct moe_config *c = moe_cuda_config(d);
    int64_t t = d->device.max_tokens, context = d->device.context, k = c->num_experts_per_tok;
    struct taker b = { 0 };
    take_all(&b, d, c, t, context);
    MOE_TRY(moe_gpu_alloc(d->gpu, b.at, &d->buffers, err));
    b = (struct taker){ .base = d->buffers.at };
    take_all(&b, d, c, t, context);
    d->input = malloc((size_t)(d->at.x - d->at.input));
    d->first = calloc((size_t)t + 1, sizeof *d->first);
    d->experts = calloc((size_t)(t * k) + 1, sizeof *d->experts);
    d->chosen = calloc((size_t)(t * k) + 1, sizeof *d->chosen);
    if (!d->input || !d->first || !d->experts || !d->chosen)
        return moe_fail(err, MOE_NOMEM, "no memory for batches of %lld tokens", (long long)t);
    MOE_TRY(moe_gpu_fill(d->gpu, (struct moe_addr){ d->at.done }, 0, d->at.gate - d->at.done, err));
    return moe_gpu_fill(d->gpu, (struct moe_addr){ d->at.word }, 0, 4, err);
}

enum moe_code moe_cuda_begin(struct moe_device *device, const struct moe_cuda_start *start,
                             struct moe_err *err)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_config *c = &device->model->config;
    /* a product's items are the z of its grid, and there are most of those with more than 4 pairs */
    if (moe_cuda_group_most(start->max_tokens * c->num_experts_per_tok, c->n_routed_experts,
                            MOE_CUDA_BUCKETS - 1) > MOE_CUDA_GRID_YZ)
        return moe_fail(err, MOE_UNSUPPORTED,
                        "batches of %lld tokens with %lld experts each are too large for a GPU (it computes "
                        "at most %d choices at a time)", (long long)start->max_tokens,
                        (long long)c->num_experts_per_tok, 5 * MOE_CUDA_GRID_YZ);
    MOE_CHECK(d->o.attached == (start->lender != NULL));
    device->max_tokens = start->max_tokens;
    device->context = start->context;
    MOE_TRY(take_buffers(d, err));
    return moe_cuda_weights_load(d, start, err);
}

uint64_t moe_cuda_room(const struct moe_device *d)
{
    return ((const struct moe_cuda *)(const void *)d)->room;
}

struct moe_cuda_counts moe_cuda_counts(const struct moe_device *d)
{
    return ((const struct moe_cuda *)(const void *)d)->counts;
}

struct moe_load_result moe_cuda_loaded(const struct moe_device *d)
{
    return ((const struct moe_cuda *)(const void *)d)->load;
}

const struct moe_gpu_info *moe_cuda_info(const struct moe_device *d)
{
    return moe_gpu_info(((const struct moe_cuda *)(const void *)d)->gpu);
}
