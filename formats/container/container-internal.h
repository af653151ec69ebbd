/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/container-internal.h - what the container's writer, reader and verifier share. */
#ifndef MOE_FORMATS_CONTAINER_CONTAINER_INTERNAL_H
#define MOE_FORMATS_CONTAINER_CONTAINER_INTERNAL_H

#include "formats/container/container.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "shard files are read and written in place: little-endian only");

/* limits in bytes: a shard's header and table; a manifest, state or journal */
enum { MOE_HEAD_LIMIT = 1 << 30, MOE_JSON_LIMIT = 1 << 28 };

/* Fixed names of files in a container. */
#define MOE_MANIFEST_NAME "manifest.json"
#define MOE_SOURCE_NAME "source.jsonl"
#define MOE_STATE_NAME "state.json" /* of a partial directory */

/* The smallest multiple of `a` that is not below v. */
static inline uint64_t moe_round_up(uint64_t v, uint64_t a) { return (v + a - 1) / a * a; }

/* The alignment of experts' extents, and that of a plane in dense.moe, in bytes: docs/reference/format.md. */
uint64_t moe_extent_alignment(uint64_t expert_bytes, uint64_t head_bytes, uint64_t experts);
uint64_t moe_dense_alignment(uint64_t plane_bytes);

/* Read and check header and table of an open shard of `size` bytes: magic, version, hashes, sizes.  *head is
 * malloc'd and holds both, *bytes bytes; the records begin at byte 128. */
enum moe_code moe_shard_read_head(int fd, const char *path, uint64_t size, unsigned char **head,
                                  size_t *bytes, struct moe_err *err);

/* Make the descriptor `t` of the first tensor in n > 0 records: its records r[0..*used) are those at the
 * start with equal (role, layer, expert).  Checks everything that can be checked with one shard; *used is set
 * on failure, too. */
enum moe_code moe_shard_tensor(const struct moe_shard_header *h, const struct moe_shard_record *r, uint64_t n,
                               int32_t file, const char *path, struct moe_tensor *t, uint64_t *used,
                               struct moe_err *err);
/* MOE_CORRUPT when two planes of the table overlap. */
enum moe_code moe_shard_check_overlap(const struct moe_shard_record *r, uint64_t n, const char *path,
                                      struct moe_err *err);

/* A sealed JSON object: its last key "checksum" holds the XXH3-128 of the object's text, in which the 32
 * digits of the checksum itself count as zeros.  Seal adds the key and prints the object (free() the text);
 * NULL when out of memory. */
char *moe_json_seal(cJSON *object, int indent);
enum moe_code moe_json_open_sealed(const char *path, cJSON **out, struct moe_err *err);

/* Read DIR/manifest.json and check it: checksum, format, version, list of files (allowed names, each once).
 * No other file is read. */
enum moe_code moe_manifest_read(const char *dir, cJSON **manifest, struct moe_err *err);
/* One file that the manifest lists: an entry of its "files", which moe_manifest_read has checked.  _find
 * returns false when there is no entry of this name. */
struct moe_listed_file { const char *name; uint64_t bytes; struct moe_hash128 digest; };
void moe_manifest_entry(const cJSON *entry, struct moe_listed_file *out);
bool moe_manifest_find(const cJSON *manifest, const char *name, struct moe_listed_file *out);
/* Size and digest of a whole file, read in pieces. */
enum moe_code moe_file_digest(const char *path, uint64_t *bytes, struct moe_hash128 *digest,
                              struct moe_err *err);
/* Whether a name is that of a shard file; whether any file of a container may have it. */
bool moe_is_shard_name(const char *name);
bool moe_container_name_allowed(const char *name);
/* Check for every file that the manifest lists that it exists in DIR and has the listed size; of a shard also
 * the digest of its header and table. */
enum moe_code moe_manifest_check_files(const char *dir, const cJSON *manifest, struct moe_err *err);

/* In formats/container/staged.c.  _read: reads the manifest's "staged" into src->staged, and into *present a
 * flag for each expert of each layer (free() it); *present is NULL when the container is not a staged part.
 * _mark_absent: once all descriptors are checked, marks the planes of experts without the flag as absent. */
enum moe_code moe_staged_read(struct moe_source *src, const char *path, bool **present, struct moe_err *err);
void moe_staged_mark_absent(struct moe_source *src, const bool *present);

/* Parse a digest as moe_hex64 and moe_hex128 write it; false for any other text. */
bool moe_parse_hex64(const char *s, uint64_t *v);
bool moe_parse_hex128(const char *s, struct moe_hash128 *v);
static inline bool moe_same128(struct moe_hash128 a, struct moe_hash128 b)
{
    return a.high == b.high && a.low == b.low;
}

/* What state.json of a partial directory records about the work (formats/container/state.c). */
struct moe_state {
    char key[17];      /* hash of its text; journals hold it, so that they belong to this state alone */
    bool replace;      /* the work was begun with --force */
    bool has_replaces; /* false: an older version wrote it, without recording what may be replaced */
    char replaces[33]; /* the checksum of the container that may be replaced; "": none existed */
    bool no_samples;   /* it records no samples of the input's weights */
};
enum moe_final { MOE_FINAL_ABSENT, MOE_FINAL_CONTAINER, MOE_FINAL_FOREIGN }; /* what exists under NAME.moe */
/* What NAME.moe.partial holds.  FRESH: nothing yet.  STATE: work with a state.json, which says whose it is.
 * JUNK: a container's files without state.json, marked as unfinished (base/newdir.h).  UNMARKED: the same
 * without the mark: somebody put it there, or an older version was killed at its last step.  FOREIGN:
 * something else. */
enum moe_partial {
    MOE_PARTIAL_FRESH,
    MOE_PARTIAL_STATE,
    MOE_PARTIAL_JUNK,
    MOE_PARTIAL_UNMARKED,
    MOE_PARTIAL_FOREIGN
};
/* Find out what exists under NAME.moe (`path`) and what NAME.moe.partial (`dir`) holds.  sum: the checksum of
 * the container that exists, "" when there is none.  FOREIGN: *err says why. */
enum moe_code moe_final_look(const char *path, enum moe_final *what, char sum[33], struct moe_err *err);
enum moe_code moe_partial_look(const char *dir, enum moe_partial *what, struct moe_err *err);
/* The text of state.json; free() it, NULL when out of memory.  replaces: the checksum of the container that
 * may be replaced; NULL: the work was begun without --force. */
char *moe_state_text(const struct moe_work *k, const char *replaces);
/* Whether unfinished work (by state.json), or a container (by its manifest), is that of `k`: MOE_MISMATCH
 * with what differs, MOE_CORRUPT for a state that cannot be read.  *no_samples: no samples of weights could
 * be compared. */
enum moe_code moe_state_compare(const char *dir, const struct moe_work *k, struct moe_state *state,
                                struct moe_err *err);
enum moe_code moe_manifest_compare(const char *dir, const cJSON *manifest, const struct moe_work *k,
                                   bool *no_samples, struct moe_err *err);
/* Whether a directory holds temporary files of a calibration, *.work; false also when that cannot be found
 * out. */
bool moe_dir_has_work(const char *dir);
/* Remove a calibration's temporary files, *.work, since nothing in them says to which work they belong. */
enum moe_code moe_dir_drop_work(const char *dir, struct moe_err *err);
/* Remove all entries of a directory but `keep` and, when `listed` is not NULL, the files in that manifest's
 * list. */
enum moe_code moe_dir_clear(const char *dir, const char *keep, const cJSON *listed, struct moe_err *err);

/* Describe the first option that differs: "option 'x' was A and is now B"; x is "calibration.seed" for an
 * option in a nested object.  Of long values only the text around the difference is shown.  False when all
 * are equal. */
bool moe_options_differ(const cJSON *was, const cJSON *is, char out[256]);

#endif
