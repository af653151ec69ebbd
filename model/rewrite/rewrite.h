/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite.h - write a model as a container, each tensor in its source type or
 * another, without calibration.
 *
 * What moe-convert and the data-free methods of moe-quantize share.  Streams: a worker holds one chunk of
 * rows (at least 128) of one tensor, so memory is threads times a few MB plus the descriptors, whatever the
 * model's size.  Quantizing reads a tensor twice (largest value, then codes); gate and up of one MLP, and q_a
 * and kv_a, share their global scale, found before any code is chosen (for q_a and kv_a by reading the other
 * for its largest value too).  The bytes written depend on the source's values and the options alone: not on
 * threads, nor on whether the source is a checkpoint or a container made from it. */
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
struct moe_hf_place;

/* Where a unit's planes lie once they are written: in the file `path` as u->out says, but for the values that
 * `place` takes (model/export/hf-place.h; NULL: none). */
struct moe_unit_file { const char *path; const struct moe_hf_place *place; };

/* Codes chosen by more than a tensor's own values: what a calibration gives. */
struct moe_coded {
    /* [rows, cols / 2]; [rows, cols / 16] e4m3, row-major.  NULL codes: the tensor stays as it is */
    const uint8_t *codes, *scales;
    float global;
    double num, den;                 /* sum of (w - w')^2 and of w^2 */
};

/* A coder sees every unit in the order of the layers, dense.moe last, so that it can carry hidden
 * states from layer to layer. */
struct moe_coder {
    void *ctx;
    const char *method;              /* for the manifest and for --resume */
    /* what else changes bytes: kept for --resume, and in the manifest's "quantization" as "calibration" */
    const cJSON *options;
    const char *kernels;             /* the kernels that the codes depend on (moe_kernels_level); NULL: on
                                        none */
    int workers;                     /* items that are coded at once */
    /* Before the first unit: `dir`, the partial directory, may keep files of the coder's own; they go when
     * the container is published.  todo [moe_unit_count]: units that are still to be written.  Progress is
     * the coder's: it begins it here or in what follows, and the rewrite ends it. */
    enum moe_code (*start)(void *ctx, const char *dir, const bool *todo, struct moe_err *err);
    /* A unit starts; from the caller's thread, with the pool free. */
    enum moe_code (*begin)(void *ctx, const struct moe_shard_unit *u, struct moe_err *err);
    /* Codes of the item's tensors that become NVFP4; amax: the largest |value| of each.  From any
     * thread, worker in [0, workers) at work on one item at a time.  What `out` points to lives
     * until the worker's next call. */
    enum moe_code (*code)(void *ctx, const struct moe_shard_unit *u, int64_t item, int worker,
                          const float *amax, struct moe_coded *out, struct moe_err *err);
    /* All items are written, to `file`: the input scale of every tensor [u->n] that became NVFP4, and what
     * the unit's journal keeps (the caller deletes it; NULL: nothing).  From the caller's thread, with the
     * pool free. */
    enum moe_code (*end)(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                         float *input_scale, cJSON **note, struct moe_err *err);
    /* A unit that an earlier run finished: its file. */
    enum moe_code (*replay)(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                            struct moe_err *err);
    /* Before the container is published: files to add (moe_writer_add_file); notes of
     * all units, in their order. */
    enum moe_code (*publish)(void *ctx, struct moe_writer *w, const cJSON *notes, struct moe_err *err);
};

struct moe_rewrite_options {
    enum moe_scope scope;            /* MOE_SCOPE_NONE: a plain conversion */
    enum moe_nvfp4_method method;
    const char *const *rules;        /* --tensor-type */
    size_t n_rules;
    const struct moe_layer_range *layers; /* write a part of the model, these layers; NULL: all */
    const struct moe_coder *coder;   /* NULL: codes by `method` */
    bool calibrated;                 /* estimates: there will be a coder */
    bool rest;                       /* keep what only --to hf wants (source.rest): the container is in source
                                      * precision */
    bool vision;                     /* and the vision tensors (vision.safetensors) */
    struct moe_hf_place *place;      /* what it takes goes into a checkpoint's files; NULL: nothing does */
    /* bytes of peak_rss to stay below; 0: half of what the machine has free */
    uint64_t memory;
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

/* What each tensor becomes (moe_precision_map, and what o->layers leaves out).  free(*type), which is NULL on
 * failure. */
enum moe_code moe_rewrite_types(const struct moe_source *src, const struct moe_rewrite_options *o,
                                uint8_t **type, struct moe_err *err);

struct moe_rewrite_estimate {
    uint64_t input_bytes, output_bytes, memory_bytes;
    uint64_t disk_bytes;             /* free where the output goes, without what a coder keeps there */
    int64_t weights_quantized;
    int workers;
    double seconds;
};

/* What it will take; writes nothing.  seconds: from a short self-benchmark of the kernels on this machine and
 * an assumed 1 GB/s each for reading and writing, whichever binds. */
enum moe_code moe_rewrite_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                   struct moe_pool *pool, struct moe_rewrite_estimate *e,
                                   struct moe_err *err);

struct moe_rewrite_result {
    uint64_t input_bytes, output_bytes;
    int64_t tensors, weights_quantized;
    int64_t kept_nvfp4;              /* tensors that were NVFP4 already and stay as they are */
    /* of these, pairs that engines fuse (moe_role_fused) with different global scales */
    int64_t unequal_pairs;
    bool was_done;                   /* --resume found it complete */
    bool unweighed;                  /* what it went on from or found complete, an older version wrote: its
                                        input was compared by form alone */
    /* {"layers": [...], "total"}; the caller deletes it; NULL when nothing was quantized */
    cJSON *relative_error;
    /* of a coder's units, in their order; the caller deletes it; NULL without a coder or
     * when all was done before */
    cJSON *notes;
    /* {"read", "hash", "decode", "quantize", "error", "write", "sync"}: seconds, summed over threads, waiting
     * included; the caller deletes it; NULL when all was done before */
    cJSON *profile;
};

/* Write `out` (NAME.moe).  A source put together by moe_source_merge is written as the run over all layers
 * would have been, whatever `o` says of scope and method (give MOE_SCOPE_NONE).  States of NAME.moe.partial
 * as in docs/reference/format.md 7.  Free space is checked first.  progress may be NULL.
 * A checkpoint's identity is taken before and compared when all is written: MOE_MISMATCH, and nothing
 * published, when it changed. */
enum moe_code moe_rewrite(const struct moe_source *src, const char *out, enum moe_write_mode mode,
                          const struct moe_rewrite_options *o, struct moe_pool *pool,
                          struct moe_progress *progress, struct moe_rewrite_result *r, struct moe_err *err);

#endif
