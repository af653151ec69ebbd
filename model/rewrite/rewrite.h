/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite.h - writes a model as a container, each tensor in its source's type or another.
 *
 * moe-convert and moe-quantize both use it; a calibration takes part as a code chooser.  A worker holds one
 * chunk of rows (at least 128) of one tensor, so memory is threads times a few MB plus the descriptors,
 * whatever the model's size.  Quantizing reads a tensor twice: once for its largest value, once for the
 * codes.  The pairs that engines fuse, gate and up of one MLP, and q_a and kv_a, share their global scale,
 * which is found before any code is chosen (q_a and kv_a are each read once more for the other's sake).  The
 * bytes written depend on the source's values and the options alone, not on threads, nor on whether the
 * source is a checkpoint or a container made from it. */
#ifndef MOE_MODEL_REWRITE_REWRITE_H
#define MOE_MODEL_REWRITE_REWRITE_H

#include "base/cancel.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/container/container.h"
#include "kernels/nvfp4.h"
#include "model/precision.h"

struct moe_shard_unit;
struct moe_writer;
struct moe_hf_layout;

/* Where the planes of a unit are once they are written: in the file `path`, as u->out says, but for the
 * values that `hf_layout` holds (model/export/hf-layout.h; NULL: none). */
struct moe_unit_file { const char *path; const struct moe_hf_layout *hf_layout; };

/* The NVFP4 codes that were chosen for a tensor by a struct moe_code_chooser. */
struct moe_chosen_codes {
    /* codes [rows, cols / 2] and e4m3 scales [rows, cols / 16], row-major; codes NULL: the chooser leaves
     * this tensor to the rewrite */
    const uint8_t *codes, *scales;
    float global;
    double num, den;                 /* sum of (w - w')^2 and of w^2 */
};

/* Chooses the codes in place of options.method; a calibration does (quantize/calibrate/calibrate.h).  It
 * gets every unit in the order of the layers and dense.moe last, so that it can carry hidden states from
 * layer to layer. */
struct moe_code_chooser {
    void *ctx;
    const char *method;              /* for the manifest and for --resume */
    /* all else that changes the bytes; kept for --resume, and as "calibration" in the manifest */
    const cJSON *options;
    const char *kernels;             /* those that the codes depend on (moe_kernels_level); NULL: none */
    int workers;                     /* items whose codes are chosen at once, at most */
    /* Called before the first unit.  dir: the partial directory, in which the chooser may keep files of its
     * own that are removed when the container is published.  todo [moe_unit_count]: whether a unit is still
     * to be written.  The chooser begins the progress, here or later, and the rewrite ends it. */
    enum moe_code (*start)(void *ctx, const char *dir, const bool *todo, struct moe_err *err);
    /* Called when a unit starts, from the caller's thread, while nothing else uses the pool. */
    enum moe_code (*begin)(void *ctx, const struct moe_shard_unit *u, struct moe_err *err);
    /* Sets out[j], which is zeroed, for each tensor j of the item that becomes NVFP4; amax[j] is its largest
     * |value|.  Called from any thread; a worker in [0, workers) chooses for one item at a time.  What `out`
     * points to lives until the worker's next call. */
    enum moe_code (*choose)(void *ctx, const struct moe_shard_unit *u, int64_t item, int worker,
                            const float *amax, struct moe_chosen_codes *out, struct moe_err *err);
    /* Called when all items of a unit are written to `file`, from the caller's thread, while nothing else
     * uses the pool.  Sets input_scale [u->n] of every tensor that became NVFP4, and *note to an object that
     * the unit's journal keeps (NULL: none), which the rewrite owns from then on. */
    enum moe_code (*end)(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                         float *input_scale, cJSON **note, struct moe_err *err);
    /* Called in the place of begin, choose and end for a unit that an earlier run finished. */
    enum moe_code (*replay)(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                            struct moe_err *err);
    /* Called before the container is published, with the notes of all units in their order; may add files
     * (moe_writer_add_file). */
    enum moe_code (*publish)(void *ctx, struct moe_writer *w, const cJSON *notes, struct moe_err *err);
};

struct moe_rewrite_options {
    enum moe_scope scope;            /* MOE_SCOPE_NONE: a plain conversion */
    enum moe_nvfp4_method method;
    const char *const *rules;        /* --tensor-type */
    size_t n_rules;
    const struct moe_layer_range *layers; /* write only these layers, as a part; NULL: all */
    const struct moe_code_chooser *chooser; /* NULL: codes by `method` */
    bool calibrated;                 /* for estimates: the run will have a code chooser */
    bool rest;                       /* keep what --to hf needs (source.rest, superseded.safetensors); for a
                                      * container in source precision */
    bool vision;                     /* keep the vision tensors (vision.safetensors) */
    struct moe_hf_layout *hf_layout; /* the values that it holds go to a checkpoint's files; NULL: none */
    /* the peak resident memory of the process stays below so many bytes; 0: below what it has now and half of
     * what the machine has free */
    uint64_t memory;
    const struct moe_cancel *cancel; /* ends the work early; NULL: never */
};

/* *type: the precision map of the run (moe_precision_map, without the tensors that o->layers leaves out),
 * which the caller frees; NULL on failure. */
enum moe_code moe_rewrite_types(const struct moe_source *src, const struct moe_rewrite_options *o,
                                uint8_t **type, struct moe_err *err);

struct moe_rewrite_estimate {
    uint64_t input_bytes, output_bytes, memory_bytes;
    uint64_t disk_bytes;             /* disk space that the output needs, without the chooser's files */
    int64_t weights_quantized;
    int workers;
    double seconds;
    uint64_t memory_limit;           /* what memory_bytes may be at most */
    /* memory_bytes <= memory_limit.  If false, the other fields are those of the smallest run, with one
     * worker. */
    bool fits;
};

/* What a run will take, also where it does not fit; writes nothing.  e->seconds is the larger of two times:
 * that of computing, from a short measurement of the kernels on this machine, and that of reading or writing
 * at an assumed 1 GB/s. */
enum moe_code moe_rewrite_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                   struct moe_pool *pool, struct moe_rewrite_estimate *e,
                                   struct moe_err *err);
/* MOE_NOMEM, with the option that would help, for an estimate that does not fit. */
enum moe_code moe_rewrite_fits(const struct moe_rewrite_estimate *e, struct moe_err *err);

struct moe_rewrite_result {
    uint64_t input_bytes, output_bytes;
    int64_t tensors, weights_quantized;
    int64_t kept_nvfp4;              /* tensors that are NVFP4 in the source and are copied */
    /* pairs of these that engines fuse (moe_role_fused_partner) and that have different global scales */
    int64_t unequal_pairs;
    bool was_done;                   /* --resume found the container complete */
    bool no_samples;                 /* an older version wrote what --resume found, so the source was compared
                                      * by its header digest alone, without samples of weights */
    /* {"layers": [...], "total"}; the caller deletes it; NULL when nothing was quantized */
    cJSON *relative_error;
    /* the chooser's notes on the units, in their order; the caller deletes it; NULL without a chooser or
     * with was_done */
    cJSON *notes;
    /* {"read", "hash", "decode", "quantize", "error", "write", "sync"}: seconds, summed over threads, waiting
     * included; the caller deletes it; NULL with was_done */
    cJSON *profile;
};

/* Writes the container `out` (NAME.moe).  A source put together by moe_source_merge is written as a run over
 * all layers would have written it; o->scope must then be MOE_SCOPE_NONE.  docs/reference/format.md 7 says
 * what happens to an earlier NAME.moe.partial.  Free space is checked first.  progress may be NULL.
 * A checkpoint's identity is taken before the work and compared after it: MOE_MISMATCH, and nothing is
 * published, when it has changed.  On failure r holds nothing to delete. */
enum moe_code moe_rewrite(const struct moe_source *src, const char *out, enum moe_write_mode mode,
                          const struct moe_rewrite_options *o, struct moe_pool *pool,
                          struct moe_progress *progress, struct moe_rewrite_result *r, struct moe_err *err);
/* Deletes the JSON values that *r owns and sets them to NULL. */
void moe_rewrite_result_release(struct moe_rewrite_result *r);

#endif
