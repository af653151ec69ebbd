/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite-hf.h - quantizes a model and writes the checkpoint that other engines load, in one
 * pass.
 *
 * The directory is, byte for byte, what moe_rewrite and then moe_export_hf_nvfp4 would write, but the disk
 * holds the weights only once: each is written to its place in the checkpoint as soon as it is quantized
 * (model/export/hf-layout.h).  The inner container, which holds the rest, is removed when the directory
 * gets its name (docs/design/adr/0007-export-in-one-pass.md). */
#ifndef MOE_MODEL_REWRITE_REWRITE_HF_H
#define MOE_MODEL_REWRITE_REWRITE_HF_H

#include "model/export/hf-nvfp4.h"
#include "model/rewrite/rewrite.h"

/* The same as moe_rewrite_estimate; e->output_bytes counts all files with weights and the index.  *r: what
 * the export would report; r->memory_bytes is the memory of the export at the end alone. */
enum moe_code moe_rewrite_hf_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                      const struct moe_hf_options *hf, struct moe_pool *pool,
                                      struct moe_rewrite_estimate *e, struct moe_hf_result *r,
                                      struct moe_err *err);

/* Writes the directory `out` under hf->mode; o->hf_layout and o->layers must be NULL.  An unfinished
 * out.partial is treated as by moe_rewrite: under RESUME the same work goes on with it.  got->output_bytes
 * is that of the estimate.  Errors: those of moe_rewrite and moe_export_hf_nvfp4. */
enum moe_code moe_rewrite_hf(const struct moe_source *src, const char *out,
                             const struct moe_rewrite_options *o, const struct moe_hf_options *hf,
                             struct moe_pool *pool, struct moe_progress *progress,
                             struct moe_rewrite_result *got, struct moe_hf_result *r, struct moe_err *err);

#endif
