/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/identity.h - which model a source is.
 *
 * Two checkpoints with the same config, names, sizes and headers may still be two models: fine-tunes of
 * one base.  So the identity of a checkpoint has two halves: its form, known since it was opened, and a
 * digest of samples of its weights, read when it is asked for.  Of every tensor the first 4 KiB at least
 * are read; of a file at most 2,048 pieces of 4 KiB, or one for each tensor where it holds more, evenly
 * spread over each tensor, in the order of the file: a file of up to 8 MiB of tensors is read whole.  Full
 * Kimi K2 (139,644 to 277,335 tensors) is 1.1 GB of pieces at most, and no memory beside a page.  What
 * changes between two samples alone is not seen: docs/reference/sources.md.  A container's identity is its
 * manifest, whose checksum covers every byte: nothing is read.  Whoever works long with a checkpoint takes
 * the identity before and compares it after (moe_source_unchanged). */
#ifndef MOE_FORMATS_CONTAINER_IDENTITY_H
#define MOE_FORMATS_CONTAINER_IDENTITY_H

#include "base/cancel.h"
#include "base/hash.h"
#include "formats/source.h"

struct moe_identity {
    /* config.json, names, sizes and headers of all files; a container: its manifest */
    uint64_t form;
    /* samples of every tensor, and configurations; a container: the manifest's checksum, of a
     * staged one that of the whole */
    struct moe_hash128 weights;
    bool has_weights;           /* false: what an older version recorded of a checkpoint, or a config alone */
    struct moe_hash128 samples; /* the samples alone, of a checkpoint that was read now; never recorded */
};

/* The identity of a source as it is now.  Reads a checkpoint as said above; the same for any machine and
 * path.  Fails when a tensor cannot be read, or when it is cancelled (NULL:
 * never).  Safe from any thread. */
enum moe_code moe_source_identity(const struct moe_source *src, const struct moe_cancel *cancel,
                                  struct moe_identity *id, struct moe_err *err);

/* The identity of the checkpoint that a source is or was made from.  Reads nothing; own:
 * moe_source_identity of src, or NULL: of a checkpoint the form alone is known then. */
struct moe_identity moe_source_origin(const struct moe_source *src, const struct moe_identity *own);

/* A text that a container's manifest has under "provenance"; NULL when there is none.  src owns it. */
const char *moe_source_provenance(const struct moe_source *src, const char *key);
/* The kernels that the bytes of a container depend on, as its manifest says; NULL: on none, or it is older
 * than this record. */
const char *moe_source_kernels(const struct moe_source *src);

/* What a container made from `src` has to name beside its origin: the checksum of src's manifest (32
 * digits) when src is a container that was quantized itself, because what is copied from it is not in
 * the origin.  Parts that are merged, and a container in source precision, pass on what they name.
 * NULL: nothing.  src owns it. */
const char *moe_source_made_from(const struct moe_source *src);
/* Whether two records name the same; of one without weights (an older version's) it is not known. */
bool moe_made_from_same(const char *a, bool a_knows, const char *b, bool b_knows);

/* Of one model, as far as both sides know: the weights are compared where both have them. */
bool moe_identity_same(const struct moe_identity *a, const struct moe_identity *b);
/* Both halves in one number, for those who compare with others over a wire. */
struct moe_hash128 moe_identity_digest(const struct moe_identity *id);

/* An identity as two members of an object: 16 digits under `form`, and 32 under `weights`, which are not
 * there without has_weights. put: false without memory; get: false when form is not there or either is
 * malformed. */
bool moe_identity_put(cJSON *o, const char *form, const char *weights, const struct moe_identity *id);
bool moe_identity_get(const cJSON *o, const char *form, const char *weights, struct moe_identity *id);

/* Is a source still what `before` says? MOE_MISMATCH when it is not, naming what changed; *spoiled:
 * samples differ, so that what was read may be of two models.  Not spoiled: a file was only written to
 * since it was opened, or a small file is another.  The page cache then holds nothing of the checkpoint's
 * files.  Nothing is read of a container but its manifest. */
enum moe_code moe_source_unchanged(const struct moe_source *src, const struct moe_identity *before,
                                   const struct moe_cancel *cancel, bool *spoiled, struct moe_err *err);

/* Is a source still the one that was opened, as far as can be seen without its weights?  MOE_MISMATCH, naming
 * the first file that was written to or cut since, the first small file of a checkpoint
 * (formats/container/small.h) that is another now, or a container's manifest. */
enum moe_code moe_source_still(const struct moe_source *src, struct moe_err *err);

/* Something failed with `code` while src was worked with, and *err says what.  When the source is not the
 * one any more that was opened and `code` may come from that (it cannot be read, is damaged, has a value
 * that it must not have), *err says this instead, and MOE_MISMATCH is returned; else `code`, also for
 * MOE_OK.  src may be NULL. */
enum moe_code moe_source_blame(const struct moe_source *src, enum moe_code code, struct moe_err *err);

#endif
