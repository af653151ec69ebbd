/* SPDX-License-Identifier: Apache-2.0 */
/* formats/source.h - a model on disk, whatever its layout, seen as canonical tensors.
 *
 * One reader serves both a Hugging Face checkpoint directory (BF16, F32, FP8 with 128 x 128 blocks, INT4
 * pack-quantized, NVFP4 in both of its spellings, also mixed) and a container NAME.moe.  It owns descriptors,
 * names and file handles and does no arithmetic.  Opening reads headers only, never weights.  Once open, a
 * source does not change and is safe from any thread. */
#ifndef MOE_FORMATS_SOURCE_H
#define MOE_FORMATS_SOURCE_H

#include "base/err.h"
#include "formats/config.h"
#include "formats/dtype.h"

enum moe_role {
#define ROLE(ID, id, class, name) MOE_ROLE_##ID = id,
#include "formats/role.def"
#undef ROLE
    MOE_ROLE_COUNT
};
/* How many tensors of a role there are, and in which layers: formats/role.def. */
enum moe_class {
    MOE_CLASS_MODEL,
    MOE_CLASS_ATTN,
    MOE_CLASS_DENSE,
    MOE_CLASS_MOE,
    MOE_CLASS_SHARED,
    MOE_CLASS_EXPERT
};
enum moe_class moe_role_class(enum moe_role role);
/* The role of the weight that engines fuse with this one, to read both with one global scale: gate and up of
 * an MLP, q_a and kv_a.  -1: none. */
int moe_role_fused_partner(enum moe_role role);

/* The canonical name: "model.layers.3.mlp.experts.17.gate_proj.weight", "lm_head.weight".  Returns out. */
const char *moe_tensor_name(enum moe_role role, int layer, int expert, char out[128]);

/* The word for a role in reports and manifests, a constant: "gate" of a routed expert, "shared_up", "q_a". */
const char *moe_role_word(enum moe_role role);

/* The shape that the config demands of a tensor; a vector (norms, router bias) has rows 1.  False when the
 * config has no such tensor. */
bool moe_tensor_shape(const struct moe_config *c, enum moe_role role, int layer, int64_t *rows,
                      int64_t *cols);

/* A range of bytes in a file: the file's index in moe_source.files (-1: absent), and the offset from its
 * start. */
struct moe_span { int32_t file; uint64_t offset, bytes; };

struct moe_tensor {
    int16_t role, layer;   /* layer -1: the tensor belongs to no layer */
    int32_t expert;        /* -1: to no routed expert */
    uint8_t type, layout;  /* enum moe_dtype, enum moe_layout of the scale plane */
    bool reciprocal;       /* NVFP4: divide by global scales, not multiply */
    int64_t rows, cols;
    struct moe_span plane[MOE_PLANE_COUNT];
    uint64_t hash[MOE_PLANE_COUNT]; /* in a container the XXH3-64 of each plane; in a checkpoint 0 */
    float global, input_scale;      /* NVFP4, read when the source is opened; input_scale 0: absent */
};

/* Bytes of all planes that are there, as the source stores them. */
uint64_t moe_tensor_bytes(const struct moe_tensor *t);

/* A tensor under the name that it has in a checkpoint; they are in the order of the files.  Experts that are
 * fused into one tensor (formats/checkpoint/fused.h) appear as one raw for each slice, under the name that
 * the slice has elsewhere.  Containers have no raws. */
struct moe_raw {
    const char *name;
    char dtype[8];         /* safetensors: "BF16", "F8_E4M3", "I32" ... */
    int32_t ndim;
    bool fused;            /* it is a slice of a fused tensor */
    int64_t shape[8];
    struct moe_span span;
    int32_t tensor, plane; /* its canonical tensor's index, and its plane; tensor -1: it is not used */
    /* the reason why it is not used: "vision", "rotary buffer", "multi-token prediction", "kv scale",
     * "weight_shape", MOE_SUPERSEDED; else NULL */
    const char *skipped;
};

/* The reason for a copy of a tensor that does not count, because model.safetensors.index.json names another
 * file for it. */
#define MOE_SUPERSEDED "superseded"

struct moe_file {
    char *name;      /* within the directory */
    char *path;
    int fd;          /* -1: not open */
    uint64_t size;   /* bytes */
    const unsigned char *map; /* NULL: not mapped */
    uint64_t header_hash;     /* XXH3-64 of its header, of a shard with its table */
    int64_t written; /* moe_written_at (base/io.h) when the file was opened */
};

enum moe_kind { MOE_CHECKPOINT, MOE_CONTAINER };

/* The layers that a part of a model holds (moe-quantize --layers), first to last.  The embedding belongs to
 * layer 0, the final norm and the head to the model's last layer. */
struct moe_layer_range { int32_t first, last; };
/* Whether the part with these layers has this tensor. */
bool moe_range_has(const struct moe_layer_range *p, const struct moe_config *c, enum moe_role role,
                   int layer);

/* What a staged part holds of its container (moe-plan stage): the routed experts that ranks `first` to `last`
 * of a plan for `ranks` ranks need, and everything else.  The planes of an absent expert have file -1 and
 * cannot be read. */
struct moe_staged {
    char from[33];                    /* the checksum in the manifest of the whole container, hex */
    char plan[33];                    /* a digest of the plan, hex */
    int32_t first, last, ranks;
    int64_t absent;                   /* absent experts, summed over all layers */
};

struct moe_source {
    enum moe_kind kind;
    char *path;
    struct moe_config config;
    enum moe_scheme scheme;
    const char *layout; /* the type of most routed experts' weights: "bf16", "fp8-block128", "nvfp4" ... */

    struct moe_file *files;
    int32_t n_files;
    struct moe_tensor *tensors;       /* ascending by (layer, expert, role) */
    int64_t n_tensors;
    struct moe_raw *raws;
    int64_t n_raws;

    struct moe_container *container;  /* formats/container/container.h; NULL for a checkpoint */
    bool is_part;
    struct moe_layer_range part;      /* valid when is_part */
    struct moe_staged *staged;        /* NULL: not a staged part */
    struct moe_source_index *index;
};

/* Open a directory of either kind: with a container's manifest.json it is a container, with a config.json a
 * checkpoint.  Completeness is checked: every canonical tensor that the config calls for exists once, with
 * the right shape and type and its bytes inside its file, and every tensor has a known purpose.  The message
 * names the first problem and how many more there are; moe_source_survey lists all.  A part of a model is
 * refused: one with some of the layers with MOE_UNSUPPORTED, a staged one with MOE_MISMATCH, naming an absent
 * expert (that is how a staged part of an older version is known, which did not mark its parts).  Nothing is
 * owned on failure. */
enum moe_code moe_source_open(struct moe_source **src, const char *path, struct moe_err *err);
void moe_source_close(struct moe_source **src); /* NULL-safe; nulls */

/* Like moe_source_open, for one rank of several: a staged part is accepted.  The caller must not use an
 * expert for which moe_source_has_expert returns false. */
enum moe_code moe_source_open_staged(struct moe_source **src, const char *path, struct moe_err *err);
/* False for an expert that is absent from this staged part, and for one that the model does not have. */
bool moe_source_has_expert(const struct moe_source *src, int layer, int expert);

/* Like moe_source_open, but every problem is collected as a line "file: tensor: what" in a JSON array (the
 * caller deletes it), and MOE_OK is returned when the rest could be read; *src must then only be inspected.
 * *err is the first problem; its code is MOE_OK when there is none.  A part of a model is accepted; it is
 * complete with its own layers or experts. */
enum moe_code moe_source_survey(struct moe_source **src, const char *path, cJSON **problems,
                                struct moe_err *err);

/* Open n >= 1 parts of one model, in any order, as the whole: a container source whose files lie in several
 * directories.  It has the identity and origin of a whole container; its manifest is that of the part with
 * the lowest layers, without "part" and without the option "layers"; src->container->parts are the parts,
 * ascending.  MOE_MISMATCH when they were not made from the same input with the same options, when layers are
 * missing or there twice, when one is no part, and, unless mix_kernels, when different kernels calibrated
 * them (with mix_kernels, moe_source_kernels of the whole is then "mixed"). */
enum moe_code moe_source_merge(struct moe_source **src, char *const *paths, int n, bool mix_kernels,
                               struct moe_err *err);
/* The source.jsonl of merged parts, as if one run had written it.  Memory: twice its size.  free(*text). */
enum moe_code moe_source_merge_lines(const struct moe_source *src, char **text, size_t *bytes,
                                     struct moe_err *err);
/* The same for routing.json, of calibrated parts that have experts.  *text is NULL when no part has a
 * routing.json. */
enum moe_code moe_source_merge_routing(const struct moe_source *src, char **text, size_t *bytes,
                                       struct moe_err *err);

/* MOE_USAGE when the output `out`, or out.partial, is the directory of the model or of one of its parts, lies
 * in it or contains it. */
enum moe_code moe_source_check_overlap(const struct moe_source *src, const char *out, struct moe_err *err);

/* Open a directory that need only have a config.json, for plans and estimates: then only src->config and
 * src->scheme are filled in.  A container is opened as by moe_source_open, without the check that it is
 * whole. */
enum moe_code moe_source_open_config(struct moe_source **src, const char *path, struct moe_err *err);

/* Look up a tensor in constant time; NULL when the model has no such tensor.  Where the config ties the head
 * to the embedding and the head is not stored, it is the embedding. */
const struct moe_tensor *moe_source_find(const struct moe_source *src, enum moe_role role, int layer,
                                         int expert);
/* The tensor that engines fuse with t (moe_role_fused_partner); NULL when there is none. */
const struct moe_tensor *moe_source_fused_partner(const struct moe_source *src, const struct moe_tensor *t);

/* Map all files read-only, unless they are mapped; then the planes of every tensor can be read in place.
 * Opening has checked that they lie inside the files; for a file that shrinks later see moe_map_guard
 * (base/io.h). */
enum moe_code moe_source_map(struct moe_source *src, struct moe_err *err);
/* Fill in the descriptor that kernels read; moe_source_map must have been called. */
void moe_source_weight(const struct moe_source *src, const struct moe_tensor *t, struct moe_weight *w);

/* Read bytes [offset, offset + bytes) of one plane, for work in bounded memory.  A failure names file and
 * tensor. */
enum moe_code moe_source_read(const struct moe_source *src, const struct moe_tensor *t, int plane,
                              uint64_t offset, size_t bytes, void *buf, struct moe_err *err);
/* The same for a raw tensor. */
enum moe_code moe_source_read_raw(const struct moe_source *src, const struct moe_raw *r, uint64_t offset,
                                  size_t bytes, void *buf, struct moe_err *err);
/* Tell the kernel that these bytes will not be needed again (posix_fadvise DONTNEED); errors are ignored. */
void moe_source_drop(const struct moe_source *src, const struct moe_span *span);
void moe_source_drop_file(const struct moe_source *src, int32_t file); /* the same for a whole file */

#endif
