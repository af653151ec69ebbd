/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite-hf.h - a model quantized and written as the checkpoint that other
 * engines load, in one pass.
 *
 * The directory is, byte for byte, what moe_rewrite and then moe_export_hf_nvfp4 write, and the disk holds it
 * once: weights go where they belong as they are made (model/export/hf-place.h), and what else the container
 * would have goes when the directory gets its name (docs/design/adr/0007-export-in-one-pass.md). */
#ifndef MOE_MODEL_REWRITE_REWRITE_HF_H
#define MOE_MODEL_REWRITE_REWRITE_HF_H

#include "model/export/hf-nvfp4.h"
#include "model/rewrite/rewrite.h"

/* As moe_rewrite_estimate; output_bytes: all files with weights and the index.  r: what the export would
 * say; r->memory_bytes: what its end alone holds. */
enum moe_code moe_rewrite_hf_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                      const struct moe_hf_options *hf, struct moe_pool *pool,
                                      struct moe_rewrite_estimate *e, struct moe_hf_result *r,
                                          struct moe_err *err);

/* Write the directory `out`, with hf->mode; o->place and o->layers are NULL.  States of out.partial as for
 * moe_rewrite: what is unfinished is gone on with.  got->output_bytes as above.  Errors: those of both. */
enum moe_code moe_rewrite_hf(const struct moe_source *src, const char *out,
                             const struct moe_rewrite_options *o, const struct moe_hf_options *hf,
                             struct moe_pool *pool, struct moe_progress *progress,
                             struct moe_rewrite_result *got, struct moe_hf_result *r, struct moe_err *err);

#endif
