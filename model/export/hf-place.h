/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-place.h - where the weights of an NVFP4 checkpoint will lie, known before any of them is
 * quantized.
 *
 * Which tensors the checkpoint has, their shapes, their order and so each byte's place follow from the source
 * and from the types that its tensors become, not from values.  So weights are written where they belong as
 * they are made, in the order of layers, beside a container that has holes in their place and everything
 * else: hashes, scalars, and the few weights that an export has to encode in another way
 * (docs/design/adr/0007-export-in-one-pass.md). */
#ifndef MOE_MODEL_EXPORT_HF_PLACE_H
#define MOE_MODEL_EXPORT_HF_PLACE_H

#include "formats/container/container.h"
#include "model/export/hf-nvfp4.h"

struct moe_hf_place;
struct moe_hf_files;
struct moe_shard_unit;

/* `type`: of every tensor, as from moe_precision_map.  inputs: what becomes NVFP4 gets input scales from a
 * calibration. MOE_UNSUPPORTED as for moe_export_hf_nvfp4.  src has to outlive it. */
enum moe_code moe_hf_place_open(struct moe_hf_place **p, const struct moe_source *src, const uint8_t *type,
                                const struct moe_hf_options *o, bool inputs, struct moe_err *err);
void moe_hf_place_close(struct moe_hf_place **p); /* NULL-safe; nulls */

/* What moe_export_hf_nvfp4 would say of it, without what only values tell; output_bytes: all files with
 * weights, and the index. */
const struct moe_hf_result *moe_hf_place_result(const struct moe_hf_place *p);

/* What moe_hf_place_finish holds, and the container that it is given. */
uint64_t moe_hf_place_memory(const struct moe_hf_place *p);

/* Make the files in `dir`, which has to outlive the place, in full size; begun: work in them has begun, so
 * they have to be there.  shown: the output's name in messages.  MOE_NOSPACE, MOE_MISMATCH. */
enum moe_code moe_hf_place_make(struct moe_hf_place *p, const char *dir, bool begun, const char *shown,
                                struct moe_err *err);
struct moe_hf_files *moe_hf_place_files(const struct moe_hf_place *p);

/* Whether a plane of tensor `index` of the source lies in the files: all scalars stay in the container. */
bool moe_hf_place_takes(const struct moe_hf_place *p, int64_t index, int plane);
/* What of a unit stays in its own file, in bytes on a disk; none of it is known better than to a page. */
uint64_t moe_hf_place_left(const struct moe_hf_place *p, const struct moe_shard_unit *u);
/* For the writer of a unit's own file: close it (d->close) when it was given to none.  Needs the files. */
enum moe_code moe_hf_place_divert(struct moe_hf_place *p, const struct moe_shard_unit *u,
                                  struct moe_shard_divert *d, struct moe_err *err);
/* A whole plane of tensor `index`, which the files have, as a container has it. */
enum moe_code moe_hf_place_read(const struct moe_hf_place *p, int64_t index, int plane, void *to,
                                struct moe_err *err);

/* The bytes of a unit that the files have; and whether they are those whose hashes u->out has, streamed.
 * MOE_VERIFY names the first tensor of which they are not. */
uint64_t moe_hf_place_bytes(const struct moe_hf_place *p, const struct moe_shard_unit *u);
enum moe_code moe_hf_place_check(const struct moe_hf_place *p, const struct moe_shard_unit *u,
                                 struct moe_progress *progress, struct moe_err *err);

/* After all units are written: `made` is the container with the holes.  Fill what is missing: scalars and the
 * other weights, the index, configurations and small files. */
enum moe_code moe_hf_place_finish(const struct moe_hf_place *p, const struct moe_source *made,
                                  const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                  struct moe_err *err);

#endif
