/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-nvfp4.h - writes a container with NVFP4 weights as the checkpoint that other engines load,
 * in the format of modelopt or of compressed-tensors.
 *
 * docs/reference/export.md says what is written and why.  The NVFP4 bytes are the container's own; a weight
 * is quantized again only when its global scale differs from that of the weight that engines fuse it with. */
#ifndef MOE_MODEL_EXPORT_HF_NVFP4_H
#define MOE_MODEL_EXPORT_HF_NVFP4_H

#include "base/cancel.h"
#include "base/progress.h"
#include "formats/container/container.h"

enum moe_hf_flavor { MOE_HF_MODELOPT, MOE_HF_COMPRESSED_TENSORS };

/* The flavor named "modelopt" or "compressed-tensors"; -1 for another word. */
int moe_hf_flavor_find(const char *name);
const char *moe_hf_flavor_name(enum moe_hf_flavor flavor);

enum { MOE_HF_SHARD_MIN = 1 << 16 };
#define MOE_HF_SHARD_BYTES 5000000000 /* the default, which transformers has long used */

struct moe_hf_options {
    enum moe_hf_flavor flavor;
    enum moe_write_mode mode;
    /* a file holds at most so many bytes of tensors, unless one weight alone has more; at least
     * MOE_HF_SHARD_MIN */
    uint64_t shard_bytes;
    bool dry_run;
    const struct moe_cancel *cancel; /* ends writing early; NULL: never */
};

/* Sets *o from --flavor (NULL: modelopt), --shard-size (negative: 5 GB) and mode.  MOE_USAGE for a bad flavor
 * or size. */
enum moe_code moe_hf_options_init(const char *flavor, int64_t shard_size, enum moe_write_mode mode,
                                  struct moe_hf_options *o, struct moe_err *err);

/* Weights that are written as BF16 though the container has them in another type: how many, the name of the
 * first, and its type in the container. */
struct moe_hf_decoded { int64_t n; char first[128]; const char *type; };

struct moe_hf_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors, files;          /* as written */
    /* the number of NVFP4 weights; how many of them have no calibrated input scale */
    int64_t nvfp4, uncalibrated;
    bool weight_only;                /* the config asks for no quantized activations */
    struct moe_hf_decoded decoded,   /* written as BF16 because engines read no other type beside NVFP4 */
                          kv_b;      /* kv_b, written as BF16 because engines split it */
    /* the number of NVFP4 weights that were quantized again under the larger global scale of their fused
     * pair */
    int64_t reencoded;
    /* the error that this added: sqrt(sum (w - w')^2 / sum w^2); 0 under dry_run */
    double relative_error;
    /* whether the config excludes a projection of attention in one layer that is NVFP4 in another, on which
     * SGLang fails; and the first pattern that does so */
    bool partly_excluded;
    char first_partly_excluded[160];
    /* an earlier run had finished the directory, which now at most got its name; nothing was read, so the
     * error and text_only are not known */
    bool was_done;
    bool text_only;                  /* the source holds more than the text model, which alone is written */
};

/* Writes the directory `out` from the container `src`; what happens to an earlier out.partial is said at
 * moe_export_dir_begin.  Memory: one chunk of one tensor, and the names of all.  Errors: MOE_UNSUPPORTED when
 * src is no container, has no NVFP4 weights, or has several types where engines read one; MOE_CORRUPT for
 * bytes that do not match their checksum; MOE_EXISTS, MOE_NOSPACE, MOE_IO. */
enum moe_code moe_export_hf_nvfp4(const struct moe_source *src, const char *out,
                                  const struct moe_hf_options *o, struct moe_progress *progress,
                                  struct moe_hf_result *r, struct moe_err *err);

/* The options as words for moe_export_dir.options; returns out. */
const char *moe_hf_options_words(const struct moe_hf_options *o, char out[64]);

#endif
