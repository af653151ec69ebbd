/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/staged.h - what makes a container's files those of a staged part: the routed experts that
 * some ranks need, and everything else.
 *
 * Shard files keep size, table and places, and hold holes where experts lie that are not there.  Their
 * header has the feature bit MOE_SHARD_STAGED, so that a reader from before staged parts takes no hole for
 * weights; the manifest's "staged" says which experts are there (docs/reference/format.md, section 2).
 * Reading is moe_source_open_staged. */
#ifndef MOE_FORMATS_CONTAINER_STAGED_H
#define MOE_FORMATS_CONTAINER_STAGED_H

#include "formats/container/container.h"

/* Whether the container in `dir` is a part, as its manifest says. */
enum moe_code moe_staged_is(const char *dir, bool *part, struct moe_err *err);

/* Header and table of a shard of `whole`, a container, as the staged part's file begins: the same but for the
 * feature bit and the header's checksum.  free(*head); *bytes of it. */
enum moe_code moe_staged_head(const struct moe_source *whole, const struct moe_file *shard,
                              unsigned char **head, size_t *bytes, struct moe_err *err);

/* The text of the part's manifest.json: that of `whole` with its shards' new digests, and "staged".
 * s->absent is not read, and s->from becomes the checksum of the whole's manifest.  there [layers, experts]:
 * which experts the part holds.  free(*text). */
enum moe_code moe_staged_manifest(const struct moe_source *whole, struct moe_staged *s, const bool *there,
                                  char **text, struct moe_err *err);

/* MOE_MISMATCH for a part that a version before staged parts made: it has no mark, and holes in the place of
 * experts whose hashes are not those of zeros. */
enum moe_code moe_staged_unmarked(const struct moe_source *src, struct moe_err *err);
/* MOE_MISMATCH when experts are absent. */
enum moe_code moe_staged_whole(const struct moe_source *src, struct moe_err *err);

/* The error of somebody who needs this expert of `src`, a staged part that lacks it: MOE_MISMATCH, naming
 * what the part was staged for.  rank: who needs it, -1 for "this rank". */
enum moe_code moe_staged_lacks(const struct moe_source *src, int layer, int64_t expert, int rank,
                               struct moe_err *err);

#endif
