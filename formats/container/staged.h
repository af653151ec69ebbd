/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/staged.h - staged parts: containers that hold only the routed experts that some ranks
 * need, and everything else of the model.
 *
 * A part's shard files have the size, table and offsets of the whole container's, with holes in place of the
 * experts that are absent.  Their header has the feature bit MOE_SHARD_STAGED, so that a reader older than
 * staged parts does not take holes for weights; the manifest's "staged" lists the experts that are present
 * (docs/reference/format.md, section 2).  moe_source_open_staged reads a part. */
#ifndef MOE_FORMATS_CONTAINER_STAGED_H
#define MOE_FORMATS_CONTAINER_STAGED_H

#include "formats/container/container.h"

/* Whether the container in `dir` is a staged part, by its manifest. */
enum moe_code moe_staged_is(const char *dir, bool *part, struct moe_err *err);

/* Header and table for the part's copy of a shard file of `whole`, a container: those of the shard with the
 * feature bit set and the header's checksum adjusted.  free(*head); it has *bytes bytes. */
enum moe_code moe_staged_head(const struct moe_source *whole, const struct moe_file *shard,
                              unsigned char **head, size_t *bytes, struct moe_err *err);

/* The text of the part's manifest.json: that of `whole` with the new digests of the shards and with
 * "staged".  s->absent is not read; s->from is set to the checksum of the whole's manifest.  present [layers,
 * experts]: which experts the part holds.  free(*text). */
enum moe_code moe_staged_manifest(const struct moe_source *whole, struct moe_staged *s, const bool *present,
                                  char **text, struct moe_err *err);

/* Check that src, if it is a staged part, is marked as one.  MOE_MISMATCH for a part from a version that did
 * not mark parts: it has holes in place of planes whose hashes are not those of zeros. */
enum moe_code moe_staged_check_marked(const struct moe_source *src, struct moe_err *err);
/* MOE_MISMATCH when src is a staged part in which experts are absent. */
enum moe_code moe_staged_check_whole(const struct moe_source *src, struct moe_err *err);

/* Fail because an expert is needed but absent from src, a staged part: MOE_MISMATCH, naming what the part was
 * staged for.  rank: the rank that needs it; -1 for "this rank". */
enum moe_code moe_staged_fail_absent(const struct moe_source *src, int layer, int64_t expert, int rank,
                                     struct moe_err *err);

#endif
