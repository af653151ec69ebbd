/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/container-internal.h - what the container's writer, reader and verifier share. */
#ifndef MOE_FORMATS_CONTAINER_CONTAINER_INTERNAL_H
#define MOE_FORMATS_CONTAINER_CONTAINER_INTERNAL_H

#include "formats/container/container.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "shard files are read and written in place: little-endian only");

enum { MOE_HEAD_LIMIT = 1 << 30, MOE_JSON_LIMIT = 1 << 28 }; /* largest table, largest manifest or journal */

/* The only names a container's files have. */
#define MOE_MANIFEST_NAME "manifest.json"
#define MOE_SOURCE_NAME "source.jsonl"
#define MOE_STATE_NAME "state.json" /* of a partial directory */

static inline uint64_t moe_round_up(uint64_t v, uint64_t a) { return (v + a - 1) / a * a; }

/* Where the planes of one expert go, and how far apart experts lie: docs/reference/format.md. */
uint64_t moe_extent_alignment(uint64_t expert_bytes, uint64_t head_bytes, uint64_t experts);
uint64_t moe_dense_alignment(uint64_t plane_bytes);

/* Read and check header and table of an open shard of `size` bytes: magic, version, hashes, sizes.  *head is
 * malloc'd and holds both, *bytes of it; the records start at byte 128. */
enum moe_code moe_shard_read_head(int fd, const char *path, uint64_t size, unsigned char **head,
                                  size_t *bytes, struct moe_err *err);

/* Fill `t` from the records of one tensor, r[0..*used): the run of equal (role, layer, expert) at the start
 * of n > 0 records.  Everything the shard tells by itself is checked; *used is set on failure too. */
enum moe_code moe_shard_tensor(const struct moe_shard_header *h, const struct moe_shard_record *r, uint64_t n,
                               int32_t file, const char *path, struct moe_tensor *t, uint64_t *used,
                               struct moe_err *err);
/* MOE_CORRUPT when two planes of the table share a byte. */
enum moe_code moe_shard_check_overlap(const struct moe_shard_record *r, uint64_t n, const char *path,
                                      struct moe_err *err);

/* A JSON object whose last key "checksum" covers its text: XXH3-128 of the text in which the last
 * occurrence of the checksum's 32 digits is replaced by zeros.  Seal adds the key and prints (free() it);
 * NULL when out of memory. */
char *moe_json_seal(cJSON *object, int indent);
enum moe_code moe_json_open_sealed(const char *path, cJSON **out, struct moe_err *err);

/* Read DIR/manifest.json: checksum, format, version, list of files (names allowed, each once).  No
 * other file is looked at. */
enum moe_code moe_manifest_read(const char *dir, cJSON **manifest, struct moe_err *err);
/* One entry of "files", checked by moe_manifest_read; and the one of this name, false when there is none. */
struct moe_listed { const char *name; uint64_t bytes; struct moe_hash128 digest; };
void moe_manifest_entry(const cJSON *entry, struct moe_listed *out);
bool moe_manifest_find(const cJSON *manifest, const char *name, struct moe_listed *out);
/* Size and digest of a whole file, read in pieces. */
enum moe_code moe_file_digest(const char *path, uint64_t *bytes, struct moe_hash128 *digest,
                              struct moe_err *err);
bool moe_is_shard_name(const char *name);
bool moe_container_name_allowed(const char *name);
/* Check presence, size and (shards) header and table digest of every listed file of DIR. */
enum moe_code moe_manifest_check_files(const char *dir, const cJSON *manifest, struct moe_err *err);

/* formats/container/staged.c: "staged" of the manifest, when it has it, into src->staged and, a flag for each
 * expert of each layer, into *there (free() it; NULL when it has not); then, once all descriptors are
 * checked, the planes of the others become absent. */
enum moe_code moe_staged_read(struct moe_source *src, const char *path, bool **there, struct moe_err *err);
void moe_staged_take(struct moe_source *src, const bool *there);

bool moe_parse_hex64(const char *s, uint64_t *v);
bool moe_parse_hex128(const char *s, struct moe_hash128 *v);
static inline bool moe_same128(struct moe_hash128 a, struct moe_hash128 b)
{
    return a.high == b.high && a.low == b.low;
}

/* What a partial directory remembers of who works in it (formats/container/state.c). */
struct moe_state {
    char key[17];    /* hash of its text: binds the journals to it */
    bool replace;    /* the run was begun with --force */
    bool says_which; /* false: an older version's, which did not record what may be replaced */
    char which[33];  /* the checksum of the container that stood there then; "": none did */
    bool unweighed;  /* it says nothing of the weights' samples */
};
enum moe_final { MOE_FINAL_ABSENT, MOE_FINAL_CONTAINER, MOE_FINAL_FOREIGN }; /* what stands under NAME.moe */
/* FRESH: nothing yet.  STATE: work that says whose it is.  JUNK: a container's files without state.json,
 * marked as unfinished (base/newdir.h).  UNMARKED: the same without the mark: somebody put it there, or an
 * older version was killed at its last step. */
enum moe_partial {
    MOE_PARTIAL_FRESH,
    MOE_PARTIAL_STATE,
    MOE_PARTIAL_JUNK,
    MOE_PARTIAL_UNMARKED,
    MOE_PARTIAL_FOREIGN
};
/* sum: the checksum of the container that is there, "" when there is none.  FOREIGN: *err says why. */
enum moe_code moe_final_look(const char *path, enum moe_final *what, char sum[33], struct moe_err *err);
enum moe_code moe_partial_look(const char *dir, enum moe_partial *what, struct moe_err *err);
/* replaces: NULL, or what may be replaced (struct moe_state, which).  free() it; NULL when out of memory. */
char *moe_state_text(const struct moe_work *k, const char *replaces);
/* MOE_MISMATCH saying what differs; MOE_CORRUPT for a state that cannot be read. *unweighed: as in struct
 * moe_state, of the manifest. */
enum moe_code moe_state_compare(const char *dir, const struct moe_work *k, struct moe_state *state,
                                struct moe_err *err);
enum moe_code moe_manifest_compare(const char *dir, const cJSON *manifest, const struct moe_work *k,
                                   bool *unweighed, struct moe_err *err);
/* Does a directory hold files of a calibration, *.work?  False when that cannot be known. */
bool moe_dir_has_work(const char *dir);
/* Remove a calibration's own files, *.work, for good: nothing in them says which work they are of. */
enum moe_code moe_dir_drop_work(const char *dir, struct moe_err *err);
/* Remove all entries of a directory but `keep` and, when it is not NULL, those in the manifest's list. */
enum moe_code moe_dir_clear(const char *dir, const char *keep, const cJSON *listed, struct moe_err *err);

/* The option that differs, as "option 'x' was A and is now B", x "calibration.seed" in an object of an
 * object; of long values what is around the difference.  False when they are equal. */
bool moe_options_differ(const cJSON *was, const cJSON *is, char out[256]);

#endif
