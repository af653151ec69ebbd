/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-nvfp4.h - a container with NVFP4 weights as the checkpoint that other engines
 * load, in either spelling.
 *
 * docs/reference/export.md says what is written and why.  The NVFP4 bytes are the container's own; nothing is
 * quantized here but a weight whose global scale differs from that of the weight engines fuse it with. */
#ifndef MOE_MODEL_EXPORT_HF_NVFP4_H
#define MOE_MODEL_EXPORT_HF_NVFP4_H

#include "base/cancel.h"
#include "base/progress.h"
#include "formats/container/container.h"

enum moe_hf_flavor { MOE_HF_MODELOPT, MOE_HF_COMPRESSED_TENSORS };

/* "modelopt", "compressed-tensors"; -1 for another word. */
int moe_hf_flavor_find(const char *name);
const char *moe_hf_flavor_name(enum moe_hf_flavor flavor);

enum { MOE_HF_SHARD_MIN = 1 << 16 };
#define MOE_HF_SHARD_BYTES 5000000000 /* what transformers has long cut at */

struct moe_hf_options {
    enum moe_hf_flavor flavor;
    enum moe_write_mode mode;
    /* of tensors in one file, unless one tensor alone is more; at least MOE_HF_SHARD_MIN */
    uint64_t shard_bytes;
    bool dry_run;
    const struct moe_cancel *cancel; /* ends writing early; NULL: nobody will */
};

/* From --flavor (NULL: modelopt) and --shard-size (negative: 5 GB).  MOE_USAGE. */
enum moe_code moe_hf_options_of(const char *flavor, int64_t shard_size, enum moe_write_mode mode,
                                struct moe_hf_options *o, struct moe_err *err);

/* Weights written as BF16 that the container has in another type; the name of the
 * first, and its type there. */
struct moe_hf_decoded { int64_t n; char first[128]; const char *type; };

struct moe_hf_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors, files;          /* as written */
    /* weights in NVFP4; those of them without a calibrated input scale (all, or some) */
    int64_t nvfp4, uncalibrated;
    bool weight_only;                /* the config asks for no quantized activations */
    struct moe_hf_decoded decoded,   /* written as BF16 because engines read no other type beside NVFP4 */
                          kv_b;      /* because they take it apart */
    /* NVFP4 weights quantized again under the larger global of their pair, */
    int64_t reencoded;
    /* and the error that added: sqrt(sum (w - w')^2 / sum w^2); 0 under dry_run */
    double relative_error;
    bool spreads;                    /* the config excludes a projection of attention in one layer that is
                                      * NVFP4 in another, */
    char first_spread[160];          /* by this pattern */
    /* an earlier run left it whole: it got its name, and nothing was read now: the error
     * and text_only are not known */
    bool was_done;
    bool text_only;                  /* the source was more than the text model that is written */
};

/* Write `out`, a directory, from the container `src`; states of out.partial as for moe_export_hf.  Streams:
 * holds one chunk of one tensor, and the names of all.  Errors: MOE_UNSUPPORTED for no container, one without
 * NVFP4 weights, or one that mixes types where engines read one; MOE_CORRUPT for bytes that are not those of
 * their checksum; MOE_EXISTS, MOE_NOSPACE, MOE_IO. */
enum moe_code moe_export_hf_nvfp4(const struct moe_source *src, const char *out,
                                  const struct moe_hf_options *o, struct moe_progress *progress,
                                  struct moe_hf_result *r, struct moe_err *err);

/* The options as struct moe_export_dir wants them; returns out. */
const char *moe_hf_options_words(const struct moe_hf_options *o, char out[64]);

#endif
