/* SPDX-License-Identifier: Apache-2.0 */
/* formats/source.h - a model on disk, whatever its layout, as canonical tensors.
 *
 * One reader sees a Hugging Face checkpoint directory (BF16, F32, FP8 128x128, INT4 pack-quantized, NVFP4 in
 * both spellings; mixed by tensor) and a container NAME.moe alike.  It owns descriptors, names and file
 * handles and does no arithmetic.  Opening reads headers only, never weights.  After open a source is
 * immutable and safe from any thread. */
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
enum moe_class {
    MOE_CLASS_MODEL,
    MOE_CLASS_ATTN,
    MOE_CLASS_DENSE,
    MOE_CLASS_MOE,
    MOE_CLASS_SHARED,
    MOE_CLASS_EXPERT
};
enum moe_class moe_role_class(enum moe_role role);
/* The role of the weight that engines fuse with this one, to read both under one global scale: gate and up of
 * an MLP, q_a and kv_a.  -1: none. */
int moe_role_fused(enum moe_role role);

/* The canonical name: "model.layers.3.mlp.experts.17.gate_proj.weight", "lm_head.weight".  Returns out. */
const char *moe_tensor_name(enum moe_role role, int layer, int expert, char out[128]);

/* The shape that the config demands of a tensor; a vector (norms, router bias) has rows 1.  False when the
 * config has no such tensor. */
bool moe_tensor_shape(const struct moe_config *c, enum moe_role role, int layer, int64_t *rows,
                      int64_t *cols);

/* Bytes of a file: its index in moe_source.files (-1: absent), and the offset from its start. */
struct moe_span { int32_t file; uint64_t offset, bytes; };

struct moe_tensor {
    int16_t role, layer;   /* layer -1: of the model */
    int32_t expert;        /* -1: none */
    uint8_t type, layout;  /* enum moe_dtype, enum moe_layout of the scale plane */
    bool reciprocal;       /* NVFP4 globals divide */
    int64_t rows, cols;
    struct moe_span plane[MOE_PLANE_COUNT];
    uint64_t hash[MOE_PLANE_COUNT]; /* containers: XXH3-64 of each plane; 0 in a checkpoint */
    float global, input_scale;      /* NVFP4: read at open, 4 bytes each; input_scale is 0 when absent */
};

/* A tensor as the checkpoint names it, in the order of the files.  Of experts that are fused into one tensor
 * (formats/checkpoint/fused.h) each slice is one, in order, under the name that it has elsewhere.  Of
 * checkpoints alone. */
struct moe_raw {
    const char *name;
    char dtype[8];         /* safetensors: "BF16", "F8_E4M3", "I32" ... */
    int32_t ndim;
    bool fused;            /* a slice */
    int64_t shape[8];
    struct moe_span span;
    int32_t tensor, plane; /* the index of the canonical tensor and its plane; tensor -1: it is not used */
    /* why not: */
    const char *skipped;   /* NULL, or "vision", "rotary buffer", "multi-token prediction", "kv scale",
                            * "weight_shape", MOE_SUPERSEDED */
};

/* A copy of a tensor that does not count: model.safetensors.index.json names another file for it. */
#define MOE_SUPERSEDED "superseded"

struct moe_file {
    char *name;      /* within the directory */
    char *path;
    int fd;
    uint64_t size;
    const unsigned char *map;
    uint64_t header_hash;
    int64_t written; /* moe_written_at (base/io.h) when the file was opened */
};

enum moe_kind { MOE_CHECKPOINT, MOE_CONTAINER };

/* The layers that a part of a model holds (moe-quantize --layers): first to last, the embedding with layer 0,
 * the final norm and the head with the last layer of the model. */
struct moe_layer_range { int32_t first, last; };
bool moe_range_has(const struct moe_layer_range *p, const struct moe_config *c, enum moe_role role,
                   int layer);

/* What a staged part holds of its container (moe-plan stage): the routed experts that ranks `first` to `last`
 * of a plan for `ranks` ranks need, and everything else.  The planes of an expert that is absent have file
 * -1, and cannot be read. */
struct moe_staged {
    char from[33];                    /* the checksum in the manifest of the whole container */
    char plan[33];                    /* which plan, in hex: the maker's digest of it */
    int32_t first, last, ranks;
    int64_t absent;                   /* experts that are not there, of all layers together */
};

struct moe_source {
    enum moe_kind kind;
    char *path;
    struct moe_config config;
    enum moe_scheme scheme;
    const char *layout; /* "bf16|fp8-block128|int4-g32|nvfp4|f32": the type of most routed-expert weights */

    struct moe_file *files;
    int32_t n_files;
    struct moe_tensor *tensors;       /* ascending (layer, expert, role); layer -1 first */
    int64_t n_tensors;
    struct moe_raw *raws;
    int64_t n_raws;

    struct moe_container *container;  /* formats/container/container.h; NULL for a checkpoint */
    bool is_part;
    struct moe_layer_range part;      /* when is_part */
    struct moe_staged *staged;        /* NULL: not a staged part */
    struct moe_source_index *index;
};

/* Open either kind: a directory with a container's manifest.json is a container, and one with a config.json a
 * checkpoint.  Completeness is checked: every canonical tensor that the config calls for is there once, with
 * the right shape and type and its bytes inside its file, and no tensor is unaccounted for.  The message
 * names the first problem and how many more there are; moe_source_survey lists them all.  A part of a model
 * is refused: one of some layers with MOE_UNSUPPORTED, a staged one with MOE_MISMATCH naming an expert that
 * is absent (also where an older version, which did not mark its parts, made it).  Nothing is owned on
 * failure. */
enum moe_code moe_source_open(struct moe_source **src, const char *path, struct moe_err *err);
void moe_source_close(struct moe_source **src); /* NULL-safe; nulls */

/* As open, for one rank of several: takes a staged part too.  The caller uses no expert that
 * moe_source_has_expert denies. */
enum moe_code moe_source_open_staged(struct moe_source **src, const char *path, struct moe_err *err);
/* False for an expert that was not staged into this part, and for one that the model has not. */
bool moe_source_has_expert(const struct moe_source *src, int layer, int expert);

/* As open, but collects every problem as a line "file: tensor: what" in a JSON array (caller deletes)
 * and returns MOE_OK when the rest could be read; *src then must only be inspected.  *err is then the
 * first problem, its code MOE_OK when there is none.  A part of a model is taken, and complete with
 * its layers or its experts. */
enum moe_code moe_source_survey(struct moe_source **src, const char *path, cJSON **problems,
                                struct moe_err *err);

/* Open n >= 1 parts of one model, in any order, as the whole: a container source whose files lie in several
 * directories.  Identity and origin are a whole container's; manifest: the first part's (lowest layers)
 * without "part" and the option "layers"; src->container->parts are the parts, ascending.  MOE_MISMATCH when
 * they were not made from the same input with the same options, when layers are missing or there twice, or
 * when one is no part; and unless mix_kernels when different kernels calibrated them (moe_source_kernels,
 * which is "mixed" of the whole then). */
enum moe_code moe_source_merge(struct moe_source **src, char *const *paths, int n, bool mix_kernels,
                               struct moe_err *err);
/* The source.jsonl of merged parts, as one run would write it.  Memory: twice its size.  free(*text). */
enum moe_code moe_source_merge_lines(const struct moe_source *src, char **text, size_t *bytes,
                                     struct moe_err *err);
/* The same for routing.json, of calibrated parts that have experts.  *text NULL: no part has one. */
enum moe_code moe_source_merge_routing(const struct moe_source *src, char **text, size_t *bytes,
                                       struct moe_err *err);

/* MOE_USAGE when the output `out`, or out.partial, is the model's directory (one of a merge's), lies in it or
 * holds it. */
enum moe_code moe_source_apart(const struct moe_source *src, const char *out, struct moe_err *err);

/* Open a directory that holds a config.json alone, for plans and estimates: src->config is all there is. */
enum moe_code moe_source_open_config(struct moe_source **src, const char *path, struct moe_err *err);

/* The tensor, in constant time; NULL when the model has none such. */
const struct moe_tensor *moe_source_find(const struct moe_source *src, enum moe_role role, int layer,
                                         int expert);
/* The tensor that engines fuse with t (moe_role_fused); NULL: none. */
const struct moe_tensor *moe_source_fused(const struct moe_source *src, const struct moe_tensor *t);

/* Map all files read-only (once); then every tensor's planes can be seen in place.  Spans were checked at
 * open against the file's size; for a file that shrinks later see moe_map_guard (base/io.h). */
enum moe_code moe_source_map(struct moe_source *src, struct moe_err *err);
/* The descriptor of a tensor that kernels read.  moe_source_map comes first. */
void moe_source_weight(const struct moe_source *src, const struct moe_tensor *t, struct moe_weight *w);

/* Read bytes [offset, offset + bytes) of one plane, for work in bounded memory.  A message names file and
 * tensor. */
enum moe_code moe_source_read(const struct moe_source *src, const struct moe_tensor *t, int plane,
                              uint64_t offset, size_t bytes, void *buf, struct moe_err *err);
/* The same for a raw tensor. */
enum moe_code moe_source_read_raw(const struct moe_source *src, const struct moe_raw *r, uint64_t offset,
                                  size_t bytes, void *buf, struct moe_err *err);
/* Tell the kernel that these bytes will not be needed again (posix_fadvise DONTNEED); never fails. */
void moe_source_drop(const struct moe_source *src, const struct moe_span *span);
void moe_source_drop_file(const struct moe_source *src, int32_t file); /* the same of a whole file */

#endif
