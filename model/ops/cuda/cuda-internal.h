/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/cuda-internal.h - the state of a GPU as a device, and what the files of this folder share.
 * Letters in shapes are those of ops.h. */
#ifndef MOE_MODEL_OPS_CUDA_CUDA_INTERNAL_H
#define MOE_MODEL_OPS_CUDA_CUDA_INTERNAL_H

#include "base/arena.h"
#include "base/hash.h"
#include "kernels/cuda/weight.h"
#include "model/ops/cuda/kept.h"
#include "model/ops/cuda/space.h"

/* A weight on the GPU: the first of E that lie `stride` bytes apart, or one alone.  global: the address of
 * NVFP4's second scale.  input_scale: moe_input_scale; has_scale: whether the source gives it.  w.data 0:
 * there is no such weight. */
struct moe_cuda_matrix { struct moe_cuda_weight w; uint64_t global; float input_scale; bool has_scale; };
struct moe_cuda_mlp { struct moe_cuda_matrix gate, up, down; };

/* The experts of a layer.  resident: the bitmap of those that may be used (space.h).
 * gate_scale, down_scale: float [E], what the inputs of gate and up, and of down, are quantized under; 0 for
 * an expert whose input is not quantized.  They are there with NVFP4 activations alone. */
struct moe_cuda_experts {
    struct moe_cuda_mlp mlp;
    int64_t stride;
    uint64_t resident, gate_scale, down_scale;
};

struct moe_cuda_layer {
    uint64_t input_norm, post_norm, q_a_norm, kv_a_norm, router_bias; /* float32; router_bias may be 0 */
    struct moe_cuda_matrix q_a, q_b, q, kv_a, kv_b, o, router;
    struct moe_cuda_mlp common;       /* the dense MLP, or the shared expert */
    struct moe_cuda_experts experts;
};

struct moe_cuda_weights {
    struct moe_cuda_matrix embed, head;
    uint64_t norm;
    struct moe_cuda_layer *layers;
    uint64_t bytes, shared_bytes;     /* of the memory that they take; of block and space together */
    uint64_t granularity;
    struct moe_hash128 layout;        /* of where things lie in these two */
    struct moe_space *block; uint64_t block_bytes;         /* what belongs to no routed expert, as expert 0 */
    struct moe_addr own; uint64_t own_bytes;               /* what follows from options: input scales */
    struct moe_space *space; uint64_t *expert_bytes;       /* [layers]: of an expert; 0: there are none */
    struct moe_load_piece *piece; size_t n_pieces, cap_pieces; /* what is to be loaded */
    struct moe_arena arena;           /* of the descriptors, and of input scales until they are loaded */
};

/* Launches that wait to be handed over, and the graphs of lists that came before (steps.c).  used: the value
 * of `clock` when the graph was launched last.  A step has at most so many launches for each layer, and as
 * many besides; the driver takes memory for each launch of a graph: how much is not documented, and NODE is
 * an assumption. */
enum { MOE_CUDA_GRAPHS = 32, MOE_CUDA_SEEN = 64, MOE_CUDA_LAYER_LAUNCHES = 48, MOE_CUDA_NODE_BYTES = 8192 };
struct moe_cuda_graph {
    uint64_t hash, used;
    unsigned char *list; size_t bytes;
    struct moe_gpu_graph *graph;
};
struct moe_cuda_steps {
    unsigned char *list; size_t n, cap; int64_t calls;
    struct moe_cuda_graph graph[MOE_CUDA_GRAPHS]; uint64_t clock;
    uint64_t seen[MOE_CUDA_SEEN]; int next_seen; /* hashes of lists that came last */
    bool refused;                                /* a recording has failed: there are no more */
};

struct moe_cuda {
    struct moe_device device;
    struct moe_cuda_options o;
    struct moe_gpu *gpu;
    struct moe_cuda_weights weights;
    struct moe_load_result load;
    struct moe_cuda_steps steps;
    struct moe_cuda_counts counts;
    uint64_t room;
    struct moe_hooks hooks;
    enum moe_code code; struct moe_err err;   /* the first failure */
    uint32_t word;                            /* of the last wait, in host memory */

    /* ---- the batch ---- */
    struct moe_batch batch;
    int64_t table;                            /* pages in a row of the block tables */
    int64_t *first;                           /* [T] the position of each token */
    unsigned char *input;                     /* what `begin` copies to at.input, as host memory */
    struct { uint64_t tokens, segment, pos, pages, cosine, sine; } in; /* addresses within at.input */

    /* ---- buffers on the GPU; all of them are one allocation ---- */
    struct moe_addr buffers;
    struct {
        uint64_t word, input;
        uint64_t x;                           /* [T, H] the normed rows of `logits` */
        uint64_t rows;                        /* [T] int32 which rows `logits` takes */
        uint64_t router;                      /* [T, E] */
        uint64_t quantized;                   /* [T, the widest input], and [T k, H] in MoE layers */
        uint64_t digits, factors;             /* of the input of a product with NVFP4 weights; fast: halves */
        uint64_t done;                        /* of dense-fast.h; its `part` is the `part` of attention */
        uint64_t acted, acted_factors;        /* the same of the input of `down`, [T k] rows, padded with 0 */
        uint64_t gate, up;                    /* [T k, inter], or [T, inter] of the common MLP */
        uint64_t query, latent;               /* [SLAB, heads, kl + rope], [SLAB, heads, kl] */
        uint64_t part;                        /* what split attention merges */
        uint64_t sorted, pair, token, items, counts; /* of group.h: first, pair, token, items, item_count */
        uint64_t tiles, tile_counts;          /* of tiles.h: items, item_count */
        uint64_t drawing, most, weight, count;/* of sample.h */
    } at;
    int64_t part_floats;
    int32_t *experts; float *chosen;          /* [T, k] in host memory, for the observer */
};

/* Bits of the word besides those of ops.h. */
enum { MOE_CUDA_WORD_ABSENT = 1u << 16 };

/* Tokens whose queries are in the space of latents at once. */
enum { MOE_CUDA_SLAB = 128 };

static inline struct moe_cuda *moe_cuda_of(struct moe_device *d) { return (struct moe_cuda *)(void *)d; }
static inline const struct moe_config *moe_cuda_config(const struct moe_cuda *d)
{
    return &d->device.model->config;
}

/* ---- steps.c ---- */

/* Launches kernel NAME with the arguments of the struct `a`, unless something has failed before. */
#define MOE_CUDA_LAUNCH(d, NAME, a) \
    moe_cuda_launch((d), MOE_CUDA_##NAME, moe_cuda_##NAME##_grid(&(a)), &(a), sizeof(a))
void moe_cuda_launch(struct moe_cuda *d, enum moe_cuda_kernel k, struct moe_cuda_grid grid, const void *args,
                     size_t bytes);
/* Hands what was launched over to the GPU; to be called before any other use of d->gpu. */
void moe_cuda_flush(struct moe_cuda *d);
void moe_cuda_steps_free(struct moe_cuda *d);

/* ---- cuda.c ---- */

/* Copies to and from the GPU, unless something has failed before; as moe_gpu_write and moe_gpu_read. */
void moe_cuda_write(struct moe_cuda *d, uint64_t to, const void *from, uint64_t bytes);
void moe_cuda_read(struct moe_cuda *d, void *to, uint64_t from, uint64_t bytes);

/* ---- weights.c ---- */

/* Counts the bytes that the weights will take.  MOE_UNSUPPORTED, MOE_NOMEM. */
enum moe_code moe_cuda_weights_plan(struct moe_cuda *d, struct moe_err *err);
/* Takes memory and loads the weights. */
enum moe_code moe_cuda_weights_load(struct moe_cuda *d, const struct moe_cuda_start *start,
                                    struct moe_err *err);
void moe_cuda_weights_free(struct moe_cuda *d);

/* ---- kept.c ---- */

/* Gives block and space, which have addresses and no memory, that of start->lender, and sets d->load. */
enum moe_code moe_cuda_kept_import(struct moe_cuda *d, const struct moe_cuda_start *start,
                                   struct moe_err *err);

/* ---- products.c ---- */

/* Whether the input of products with this weight is quantized; the scale that gate and up of an MLP share (0:
 * their input is not quantized). */
bool moe_cuda_quantizes(const struct moe_cuda *d, const struct moe_cuda_matrix *m);
float moe_cuda_gate_scale(const struct moe_cuda *d, const struct moe_cuda_mlp *m);
/* out [n, cols] = x [n, cols] as products with NVFP4 activations take it; out may be x. */
void moe_cuda_quantize(struct moe_cuda *d, uint64_t x, float scale, int64_t cols, int64_t n, uint64_t out);
static inline bool moe_cuda_is_nvfp4(const struct moe_cuda_matrix *m)
{
    return m->w.data && m->w.codes == MOE_CUDA_NVFP4;
}
/* Sets a->method and launches. */
struct moe_cuda_activations;
void moe_cuda_quantize_rows(struct moe_cuda *d, struct moe_cuda_activations *a);
/* at.digits and at.factors of x [n, cols], for products with routed experts of NVFP4; halves of one term
 * where d is fast. */
void moe_cuda_make_digits(struct moe_cuda *d, uint64_t x, int64_t n, int64_t cols);
/* The most rows of x in an item of the kernel for n of them: 2, 4 or 8, or 8 to 32 where d is fast. */
int moe_cuda_nvfp4_tokens(const struct moe_cuda *d, int64_t n);
/* Launches nvfp4_<tokens>, or, where d is fast, nvfp4_fast_<tokens> for items and nvfp4_terms_<tokens> for
 * one weight, for one or two matrices of the same shape with at.digits, unless *a names other digits: fills
 * in of *a what follows from these. */
struct moe_cuda_nvfp4;
void moe_cuda_nvfp4(struct moe_cuda *d, const struct moe_cuda_matrix *m, int matrices,
                    struct moe_cuda_nvfp4 *a, int tokens);
/* Makes of x [n, cols of m] what products with m read besides, or in its place: digits or halves, in
 * at.digits and at.factors. read_alike: whether products with b read the same. */
void moe_cuda_prepare(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n);
bool moe_cuda_read_alike(const struct moe_cuda *d, const struct moe_cuda_matrix *a,
                         const struct moe_cuda_matrix *b);
/* y [n, rows of m] = x m^T, of an x that was prepared. */
void moe_cuda_multiply(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n,
                       uint64_t y);
/* The same, which first quantizes and prepares x. */
void moe_cuda_product(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n, uint64_t y);
/* The same in exact arithmetic, whether d is fast or not. */
void moe_cuda_product_exact(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n,
                            uint64_t y);
void moe_cuda_op_embed(struct moe_device *d, struct moe_addr h);
void moe_cuda_op_norm(struct moe_device *d, int layer, enum moe_norm which, struct moe_addr h,
                   struct moe_addr add, struct moe_addr out);
void moe_cuda_op_linear(struct moe_device *d, int layer, enum moe_role role, struct moe_addr x,
                     struct moe_addr y);
void moe_cuda_op_logits(struct moe_device *d, const int32_t *row, int64_t n, struct moe_addr h,
                     struct moe_addr logits);
void moe_cuda_op_sample(struct moe_device *d, const struct moe_drawing *w, int64_t n, int64_t vocab,
                     struct moe_addr logits, struct moe_addr ids);
void moe_cuda_op_check(struct moe_device *d, struct moe_addr x, int64_t n);

/* ---- attention.c ---- */

void moe_cuda_op_append(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr ckv);
void moe_cuda_op_attend(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr out);
void moe_cuda_op_copy(struct moe_device *d, const struct moe_latent *cache, const struct moe_page_copy *copy);

/* ---- mlps.c ---- */

void moe_cuda_op_route(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c);
void moe_cuda_op_mlps(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c,
                   struct moe_addr y);
void moe_cuda_op_combine(struct moe_device *d, const struct moe_choices *c, struct moe_addr y,
                      struct moe_addr h);

#endif
