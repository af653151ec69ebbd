/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-layout.h - where each weight of an NVFP4 checkpoint belongs in its files, known before any
 * weight is quantized.
 *
 * Which tensors the checkpoint has, their shapes and their order, and so the place of each byte, follow from
 * the source and from the types that its tensors become, not from values.  So each weight is written to its
 * place in the checkpoint's files as soon as it is quantized.  At the same time a container is written that
 * has holes instead of these weights and holds everything else: hashes, scalars, and the few weights that an
 * export has to encode in another way (docs/design/adr/0007-export-in-one-pass.md). */
#ifndef MOE_MODEL_EXPORT_HF_LAYOUT_H
#define MOE_MODEL_EXPORT_HF_LAYOUT_H

#include "formats/container/container.h"
#include "model/export/hf-nvfp4.h"

struct moe_hf_layout;
struct moe_hf_files;
struct moe_shard_unit;

/* Plans the checkpoint.  type: a precision map of src (moe_precision_map) that leaves out no tensor.  inputs:
 * a calibration will give the weights that become NVFP4 their input scales.  src must outlive *p.
 * MOE_UNSUPPORTED as for moe_export_hf_nvfp4.  After a failure *p is NULL. */
enum moe_code moe_hf_layout_open(struct moe_hf_layout **p, const struct moe_source *src, const uint8_t *type,
                                 const struct moe_hf_options *o, bool inputs, struct moe_err *err);
void moe_hf_layout_close(struct moe_hf_layout **p); /* NULL-safe; nulls */

/* What moe_export_hf_nvfp4 would report of the planned checkpoint, without what only values tell;
 * output_bytes counts the files with weights and the index. */
const struct moe_hf_result *moe_hf_layout_result(const struct moe_hf_layout *p);

/* Bytes of memory that moe_hf_layout_finish and the open container given to it take. */
uint64_t moe_hf_layout_memory(const struct moe_hf_layout *p);

/* Creates the files in `dir` in full size, where they do not exist yet; the string dir must outlive p.
 * begun: an earlier run has written weights into them, so a file that is missing or has another header is
 * MOE_MISMATCH.  shown: the output's name in messages.  MOE_NOSPACE. */
enum moe_code moe_hf_layout_make(struct moe_hf_layout *p, const char *dir, bool begun, const char *shown,
                                 struct moe_err *err);
struct moe_hf_files *moe_hf_layout_files(const struct moe_hf_layout *p);

/* Whether a plane of tensor `index` of the source is written to the checkpoint's files.  If not, as for all
 * scalars, it is written to the container. */
bool moe_hf_layout_holds(const struct moe_hf_layout *p, int64_t index, int plane);
/* About how many bytes on the disk a unit's own file in the container takes: each item with its scalars
 * counts as a page, besides the values that the checkpoint's files do not hold. */
uint64_t moe_hf_layout_left(const struct moe_hf_layout *p, const struct moe_shard_unit *u);
/* Sets *sink to the functions by which moe_shard_create_with_sink writes a unit's values to the checkpoint's
 * files.  If it is then given to no writer, the caller calls sink->close.  After moe_hf_layout_make. */
enum moe_code moe_hf_layout_redirect(struct moe_hf_layout *p, const struct moe_shard_unit *u,
                                     struct moe_plane_sink *sink, struct moe_err *err);
/* Reads a whole plane of tensor `index` from the checkpoint's files, in a container's layout. */
enum moe_code moe_hf_layout_read(const struct moe_hf_layout *p, int64_t index, int plane, void *to,
                                 struct moe_err *err);

/* moe_hf_layout_bytes: how many bytes of a unit are in the checkpoint's files.  moe_hf_layout_check: reads
 * them and compares them with the hashes in u->out; MOE_VERIFY names the first tensor that differs. */
uint64_t moe_hf_layout_bytes(const struct moe_hf_layout *p, const struct moe_shard_unit *u);
enum moe_code moe_hf_layout_check(const struct moe_hf_layout *p, const struct moe_shard_unit *u,
                                  struct moe_progress *progress, struct moe_err *err);

/* To be called when all units are written; `inner` is the container with the holes.  Writes what is missing
 * in the checkpoint `dir`: scalars and the other weights, the index, configurations and small files. */
enum moe_code moe_hf_layout_finish(const struct moe_hf_layout *p, const struct moe_source *inner,
                                   const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                   struct moe_err *err);

#endif
