/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/identity.h - which model a source is.
 *
 * Two checkpoints with the same config, tensor names, sizes and headers may still be different models:
 * fine-tunes of one base.  So the identity of a checkpoint has two halves: the header digest, which covers
 * all of these and is known once the checkpoint is open, and a digest of samples of its weights, which are
 * read when the identity is asked for.
 *
 * Samples are pieces of 4 KiB, the first at the beginning of a tensor, the others evenly spread over it.  Of
 * a file at most 2,048 are read, or one of each tensor where it holds more tensors than that; a file of up to
 * 8 MiB is read whole.  For the full Kimi K2 (139,644 to 277,335 tensors) that is at most 1.1 GB, in the
 * memory of one page.  A change between two samples is not noticed: docs/reference/sources.md.
 *
 * The identity of a container is its manifest, whose checksum covers every byte, so nothing is read.  A
 * program that works long with a checkpoint takes the identity before and compares it after
 * (moe_source_unchanged). */
#ifndef MOE_FORMATS_CONTAINER_IDENTITY_H
#define MOE_FORMATS_CONTAINER_IDENTITY_H

#include "base/cancel.h"
#include "base/hash.h"
#include "formats/source.h"

struct moe_identity {
    /* digest of config.json and of all files' names, sizes and headers; of a container: of its manifest */
    uint64_t header_digest;
    /* digest of the samples and of the configurations; of a container: its manifest's checksum, and of a
     * staged part the checksum of the whole container */
    struct moe_hash128 weights;
    /* false when `weights` is not known: an older version recorded the identity, or there is only a config */
    bool has_weights;
    struct moe_hash128 samples; /* digest of the samples alone, of a checkpoint read now; never recorded */
};

/* The identity of a source as it is now; reads a checkpoint's samples.  It is the same on every machine and
 * under every path.  Fails when a tensor cannot be read, or when `cancel` (may be NULL) is cancelled.  Safe
 * from any thread. */
enum moe_code moe_source_identity(const struct moe_source *src, const struct moe_cancel *cancel,
                                  struct moe_identity *id, struct moe_err *err);

/* The identity of the checkpoint that a source is or was made from.  Reads nothing; own: moe_source_identity
 * of src; with NULL only the header digest of a checkpoint is filled in. */
struct moe_identity moe_source_origin(const struct moe_source *src, const struct moe_identity *own);

/* A string under "provenance" in a container's manifest; NULL when there is none.  src owns it. */
const char *moe_source_provenance(const struct moe_source *src, const char *key);
/* The kernels on which the bytes of a container depend, from its manifest; NULL when they depend on none, or
 * when the container is older than this record. */
const char *moe_source_kernels(const struct moe_source *src);

/* What a container made from `src` must record beside its origin.  When src is a container that was quantized
 * itself, it is the checksum (32 digits) of its manifest, because what is copied from it does not follow from
 * the origin.  Merged parts, and a container in source precision, pass on what they recorded themselves.
 * NULL: nothing.  src owns it. */
const char *moe_source_made_from(const struct moe_source *src);
/* Whether two such records are equal, or may be: a record of an older version, without weights, may lack it,
 * and then a_knows or b_knows is false. */
bool moe_made_from_same(const char *a, bool a_knows, const char *b, bool b_knows);

/* Whether both are the same model, as far as is known: weights are compared when both have them. */
bool moe_identity_same(const struct moe_identity *a, const struct moe_identity *b);
/* Both halves in one digest, for processes that compare their models over a network. */
struct moe_hash128 moe_identity_digest(const struct moe_identity *id);

/* Store an identity in two members of an object: 16 hex digits under the key `headers` and 32 under
 * `weights`; the latter is left out without has_weights.  put: false when out of memory.  get: false when
 * `headers` is missing or one of them is malformed. */
bool moe_identity_put(cJSON *o, const char *headers, const char *weights, const struct moe_identity *id);
bool moe_identity_get(const cJSON *o, const char *headers, const char *weights, struct moe_identity *id);

/* Whether a source is still what `before` says; MOE_MISMATCH, naming what changed, when it is not.  *spoiled:
 * samples or headers differ, so that what was read may mix two models; it is false when a file was only
 * written to since it was opened, or a small file differs.  Afterwards the page cache holds nothing of the
 * checkpoint's files.  Of a container only the manifest is read. */
enum moe_code moe_source_unchanged(const struct moe_source *src, const struct moe_identity *before,
                                   const struct moe_cancel *cancel, bool *spoiled, struct moe_err *err);

/* Whether a source is still the one that was opened, as far as can be seen without reading weights.
 * MOE_MISMATCH names the first file that was written to or truncated since, the first small file of a
 * checkpoint (formats/container/small.h) that has changed, or a container's manifest. */
enum moe_code moe_source_check_unmodified(const struct moe_source *src, struct moe_err *err);

/* To be called when work with src failed with `code`, and *err says what happened.  When src has changed
 * since it was opened and `code` can be a consequence of that (src cannot be read, is damaged, or has a value
 * that it must not have), *err says so instead and MOE_MISMATCH is returned.  Otherwise returns `code`, also
 * MOE_OK.  src may be NULL. */
enum moe_code moe_source_blame_change(const struct moe_source *src, enum moe_code code, struct moe_err *err);

#endif
