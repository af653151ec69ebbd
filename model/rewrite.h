/* model/rewrite.h - write a model as a container, each tensor in its source type or another, without calibration.
 *
 * What moe-convert and the data-free methods of moe-quantize share.  Streams: a worker holds one chunk of rows (at least
 * 128) of one tensor, so memory is threads times a few MB plus the descriptors, whatever the model's size.  Quantizing
 * reads a tensor twice (largest value, then codes); gate and up of one MLP share their global scale, found before any
 * code is chosen.  The bytes written depend on the source's values and the options alone: not on threads, nor on whether
 * the source is a checkpoint or a container made from it. */
#ifndef MOE_MODEL_REWRITE_H
#define MOE_MODEL_REWRITE_H

#include "base/pool.h"
#include "base/progress.h"
#include "formats/container.h"
#include "kernels/nvfp4.h"
#include "model/precision.h"

struct moe_rewrite_options {
    enum moe_scope scope;            /* MOE_SCOPE_NONE: a plain conversion */
    enum moe_nvfp4_method method;
    const char *const *rules;        /* --tensor-type */
    size_t n_rules;
    const struct moe_layer_range *layers; /* write a part of the model, these layers; NULL: all */
    uint64_t memory;                 /* bytes of peak_rss to stay below; 0: half of what the machine has free */
};

struct moe_rewrite_estimate {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t weights_quantized;
    int workers;
    double seconds;
};

/* What it will take; writes nothing.  seconds: from a short self-benchmark of the kernels on this machine and an assumed
 * 1 GB/s each for reading and writing, whichever binds. */
enum moe_code moe_rewrite_estimate(const struct moe_source *src, const struct moe_rewrite_options *o, struct moe_pool *pool,
                                   struct moe_rewrite_estimate *e, struct moe_err *err);

struct moe_rewrite_result {
    uint64_t input_bytes, output_bytes;
    int64_t tensors, weights_quantized;
    int64_t kept_nvfp4;              /* tensors that were NVFP4 already and stay as they are */
    int64_t unequal_pairs;           /* of these, gate/up pairs with different global scales */
    bool was_done;                   /* --resume found it complete */
    cJSON *relative_error;           /* {"layers": [...], "total"}; the caller deletes it; NULL when nothing was quantized */
    cJSON *profile;                  /* {"read", "hash", "decode", "quantize", "error", "write", "sync"}: seconds, summed over threads,
                                        waiting included; the caller deletes it; NULL when all was done before */
};

/* Write `out` (NAME.moe).  A source put together by moe_source_merge is written as the run over all layers would have been,
 * whatever `o` says of scope and method (give MOE_SCOPE_NONE).  States of NAME.moe.partial as in cli.md.  Free space is checked first.  progress may be NULL. */
enum moe_code moe_rewrite(const struct moe_source *src, const char *out, enum moe_write_mode mode,
                          const struct moe_rewrite_options *o, struct moe_pool *pool, struct moe_progress *progress,
                          struct moe_rewrite_result *r, struct moe_err *err);

#endif
