/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/container.h - the expert-sharded container NAME.moe/: writer and reader.
 * docs/reference/format.md is the specification.
 *
 * A shard file (*.moe), little-endian, is a header (128 bytes), a table of 64-byte records (one for each
 * plane of each tensor), zero padding, and the data.  Every plane lies at an aligned offset that follows from
 * the list of tensors alone, so a writer may write planes in any order and from any thread; header and table
 * are written last.  All padding is zero.  The digest of a shard file in the manifest is the XXH3-128 of its
 * header and table.  Since these hold the XXH3-64 of every plane, the digest covers the whole file (ADR 2),
 * and it can be checked without reading the data. */
#ifndef MOE_FORMATS_CONTAINER_CONTAINER_H
#define MOE_FORMATS_CONTAINER_CONTAINER_H

#include "base/hash.h"
#include "base/leftover.h"
#include "formats/container/identity.h"
#include "formats/container/unit-name.h"
#include "formats/source.h"

struct moe_pool; struct moe_progress; struct moe_cancel;

/* ---- one shard file ---- */

#define MOE_SHARD_MAGIC "MOESHARD"
enum { MOE_SHARD_VERSION = 1, MOE_MANIFEST_VERSION = 1 };
/* Whether a name is plan-NAME.json, a placement plan's, which is the only file that the manifest does not
 * list. */
bool moe_is_plan_name(const char *name);
#define MOE_STAGED_PLAN "plan-staged.json" /* the plan by which moe-plan stage made this part */
/* An incompatible feature bit: the file has holes in place of experts that were not staged. */
enum { MOE_SHARD_STAGED = 1 };

struct moe_shard_header {
    char magic[8];
    uint32_t version, header_bytes;       /* 1, 128 */
    uint64_t incompatible, compatible;    /* feature bits: a reader refuses unknown incompatible ones */
    uint64_t file_bytes, table_offset, record_count, data_offset;
    uint64_t extent_bytes, extent_offset; /* experts' extents: distance, first start; 0 in dense.moe */
    uint32_t record_bytes, alignment;     /* 64; alignment of extents */
    int32_t layer, experts;               /* -1 and 0 in dense.moe */
    /* table_hash: XXH3-64 of the table; header_hash: that of this header with header_hash set to 0 */
    uint64_t table_hash, reserved[2], header_hash;
};
static_assert(sizeof(struct moe_shard_header) == 128, "moe_shard_header is a file layout");

struct moe_shard_record {
    int16_t role, layer;
    int32_t expert;
    uint8_t type, layout, plane, flags; /* flags bit 0: divide by NVFP4 global scales */
    uint32_t reserved;
    uint64_t rows, cols, offset, bytes, hash;
    uint64_t reserved2;
};
static_assert(sizeof(struct moe_shard_record) == 64, "moe_shard_record is a file layout");

/* Lay out n tensors of one file, in their order: set plane[].offset and .bytes, plane[].file (to 0) and
 * .layout, and fill in the header but for its hashes.  layer -1: dense.moe.  Otherwise all n are experts of
 * that layer, ascending from 0, with each expert's tensors together.  The scales of NVFP4 are always stored
 * in tiles, and an NVFP4 tensor always has all four planes.  Experts' extents lie at equal distances; inside
 * an extent there are first the data planes, then scales, then global scales, then input scales, each aligned
 * to 256 bytes (global and input scales to 4). */
enum moe_code moe_shard_layout(struct moe_tensor *t, int64_t n, int layer, struct moe_shard_header *h,
                               struct moe_err *err);

struct moe_shard_writer;
/* Create `path`, reserved in its full size so that a full disk is noticed now; the tensors are copied. */
enum moe_code moe_shard_create(struct moe_shard_writer **w, const char *path, const struct moe_tensor *t,
                               int64_t n, const struct moe_shard_header *h, struct moe_err *err);
/* A destination for planes whose bytes do not go into the file itself.  The file has a hole in their place,
 * and everything else, the hashes of those planes included.  All functions but `close` may be called from any
 * thread. */
struct moe_plane_sink {
    void *ctx;
    bool (*takes)(void *ctx, int64_t tensor, int plane);   /* whether this plane goes to the sink */
    enum moe_code (*write)(void *ctx, int64_t tensor, int plane, uint64_t offset, const void *data,
                           size_t bytes, struct moe_err *err);
    enum moe_code (*sync)(void *ctx, struct moe_err *err); /* called by finish before it writes the header */
    void (*close)(void *ctx);                              /* called at the end, on success and on failure */
};
/* As create, but no disk space is reserved.  `sink` is copied, and the writer closes it; when this function
 * fails, the caller still owns it. */
enum moe_code moe_shard_create_with_sink(struct moe_shard_writer **w, const char *path,
                                         const struct moe_tensor *t, int64_t n,
                                         const struct moe_shard_header *h, const struct moe_plane_sink *sink,
                                         struct moe_err *err);
/* Write part of a plane; in any order, from any thread. */
enum moe_code moe_shard_write(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t offset,
                              const void *data, size_t bytes, struct moe_err *err);
/* Set the XXH3-64 of a plane, which must be done for every plane before finish. */
void moe_shard_set_hash(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t hash);
/* Write table and header, fsync and close; *bytes and *digest are the file's size and digest.  On failure,
 * and by abort, the file is removed. */
enum moe_code moe_shard_finish(struct moe_shard_writer **w, uint64_t *bytes, struct moe_hash128 *digest,
                               struct moe_err *err);
void moe_shard_abort(struct moe_shard_writer **w);
/* Read the hashes in a finished shard's table into t[i].hash; `t` is the list that it was created with.
 * MOE_CORRUPT when the table is damaged or lists other tensors. */
enum moe_code moe_shard_read_hashes(const char *path, struct moe_tensor *t, int64_t n, struct moe_err *err);
/* After that, for the planes in the file itself (those that the sink does not take): _own_bytes gives their
 * size; _check_own reads them and compares them with t[i].hash.  MOE_VERIFY names the first tensor that
 * differs. */
uint64_t moe_shard_own_bytes(const struct moe_tensor *t, int64_t n, const struct moe_plane_sink *sink);
enum moe_code moe_shard_check_own(const char *path, const struct moe_tensor *t, int64_t n,
                                  const struct moe_plane_sink *sink, struct moe_progress *progress,
                                  const struct moe_cancel *cancel, struct moe_err *err);

/* ---- the directory ---- */

/* PLAIN: neither a container nor unfinished work may exist under the name.  RESUME: go on with unfinished
 * work.  FORCE: start over, and replace a container that exists. */
enum moe_write_mode { MOE_WRITE_PLAIN, MOE_WRITE_RESUME, MOE_WRITE_FORCE };

/* The mode for --force and --resume, which exclude each other. */
static inline enum moe_write_mode moe_write_mode_of(bool force, bool resume)
{
    return force ? MOE_WRITE_FORCE : resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN;
}

/* What that mode means for a writer that keeps no journal and so cannot go on with unfinished work. */
static inline enum moe_leftover_policy moe_leftover_of(enum moe_write_mode mode)
{
    return mode == MOE_WRITE_FORCE ? MOE_LEFTOVER_DISCARD
        : mode == MOE_WRITE_RESUME ? MOE_LEFTOVER_RESTART : MOE_LEFTOVER_REFUSE;
}

struct moe_writer;

/* What a container is written from, and how.  It is recorded, and compared on --resume.  Nothing is owned. */
struct moe_work {
    const cJSON *options;       /* a flat object of every option that changes bytes */
    struct moe_identity input;  /* of the source; recorded in the partial directory */
    /* moe_source_origin of the source; recorded in the manifest, so that a container made from a checkpoint
     * and one made from that checkpoint's container have the same bytes */
    struct moe_identity origin;
    const char *made_from;      /* moe_source_made_from of the source; recorded in the manifest */
    /* the kernels on which the bytes depend ("ref", "vector", "mixed"; kernels/kernels.h); NULL: on none */
    const char *kernels;
    /* the source when it is one container, whose source.jsonl a complete output must have; else NULL */
    const struct moe_source *from;
};

/* A digest of everything that --resume compares. */
enum moe_code moe_work_digest(const struct moe_work *w, char hex[33], struct moe_err *err);
/* MOE_MISMATCH with what differs, when `dir` exists, unfinished or complete, and is the result of other
 * work. */
enum moe_code moe_work_compare(const char *dir, const struct moe_work *w, struct moe_err *err);
/* Check the manifest of `dir`, which the caller knows to be its own work if it exists: MOE_CORRUPT or
 * MOE_NOT_FOUND, with the file and --force as the remedy, when the manifest can no longer confirm this.
 * `whole`: dir has its final name; otherwise the manifest is only read when there is no state.json. */
enum moe_code moe_work_check_manifest(const char *dir, bool whole, struct moe_err *err);

/* What moe_writer_open found.  done: the container is complete already.  no_samples: the version that wrote
 * what exists recorded no samples of a checkpoint's weights, so only the header digest of the identity could
 * be compared. */
struct moe_writer_found { bool done, no_samples; };

/* Start, resume or restart NAME.moe.partial/ under a lock, by docs/reference/format.md 7.  found->done is
 * set, and *w is NULL, when a complete container exists that was made from the same origin with the same
 * options; this is only looked for under --resume, and steps that an earlier run left undone after writing
 * the manifest are done here.  Resumed work may replace a container under the final name only when it was
 * begun with MOE_WRITE_FORCE and the same container (by the checksum of its manifest) existed then; otherwise
 * MOE_EXISTS. */
enum moe_code moe_writer_open(struct moe_writer **w, const char *out, enum moe_write_mode mode,
                              const struct moe_work *work, struct moe_writer_found *found,
                              struct moe_err *err);
/* Close without publishing.  Finished units stay for --resume, and with keep_work also what was computed for
 * units that are not finished yet. */
void moe_writer_close(struct moe_writer **w, bool keep_work);
/* Close and remove the partial directory, because the input turned out to change while it was read, so that
 * what is finished must not be resumed. */
void moe_writer_discard(struct moe_writer **w);

const char *moe_writer_dir(const struct moe_writer *w); /* the partial directory */

/* What would be kept if the writer were closed now: the number of finished units; whether there are temporary
 * files of a calibration, *.work. */
size_t moe_writer_units(const struct moe_writer *w);
bool moe_writer_has_work(const struct moe_writer *w);

/* A unit is one shard file and its journal; it is durable once its journal is.  Names:
 * formats/container/unit-name.h. */
bool moe_writer_has_unit(const struct moe_writer *w, const char *unit);
/* The path to write the unit's shard to (a temporary name). */
enum moe_code moe_writer_unit_path(const struct moe_writer *w, const char *unit, char *out, size_t cap,
                                   struct moe_err *err);
/* After moe_shard_finish: rename the shard to its name and make the journal durable.  `source`: an array with
 * one element for each source tensor that went into this unit: [name, dtype, [shape], file, "xxh3-64 hex" or
 * null, skipped or null, "hex bytes" or null, ordinal].  The ordinal is the tensor's index in the source's
 * raws; source.jsonl is sorted by it and does not keep it.  `report`: what the tool wants to report of this
 * unit; moe_writer_reports returns it.  The caller still owns both. */
enum moe_code moe_writer_commit_unit(struct moe_writer *w, const char *unit, uint64_t bytes,
                                     struct moe_hash128 digest, const cJSON *source, const cJSON *report,
                                     struct moe_err *err);
/* The array `source` with which a finished unit was committed; the caller deletes it.  *source is NULL when
 * it was committed without one. */
enum moe_code moe_writer_unit_source(const struct moe_writer *w, const char *unit, cJSON **source,
                                     struct moe_err *err);
/* Reports of all finished units, in unit order: an array of {"unit", "report"}; the caller deletes it. */
cJSON *moe_writer_reports(struct moe_writer *w, struct moe_err *err);

/* Add a whole small file to the container: "tokenizer/tiktoken.model", "hf/config.json", "routing.json". */
enum moe_code moe_writer_add_file(struct moe_writer *w, const char *name, const void *data, size_t bytes,
                                  struct moe_err *err);

/* Add a file that the caller has written in moe_writer_dir under this name, complete and durable. */
enum moe_code moe_writer_adopt_file(struct moe_writer *w, const char *name, struct moe_err *err);

/* To be called before publish when only a part of a model is written: `part` (copied) becomes the manifest's
 * "part", and each line of source.jsonl keeps its ordinal as an eighth element, for the merge. */
enum moe_code moe_writer_set_part(struct moe_writer *w, const cJSON *part, struct moe_err *err);

/* Write source.jsonl from the units' journals (or `source_jsonl` as it is when not NULL, for a container made
 * from a container), then manifest.json, sync everything, and publish: rename, or under --force exchange with
 * the old container.  `quantization` may be NULL.  *bytes gets the size of all files. */
enum moe_code moe_writer_publish(struct moe_writer **w, const struct moe_config *config, const cJSON *types,
                                 const cJSON *quantization, const char *source_jsonl, size_t source_bytes,
                                 uint64_t *bytes, struct moe_err *err);

/* ---- reading ---- */

/* What a source has in addition when it is a container (formats/source.h: src->container). */
struct moe_container {
    cJSON *manifest;   /* parsed; "quantization", "provenance", "files" ... */
    char *dir;
    uint64_t bytes;    /* of all files */
    /* after moe_source_merge: the parts, whose files now belong to the merged source */
    struct moe_source **parts;
    int n_parts;
};

/* moe_source_open calls this for a directory with manifest.json.  Checks the manifest's checksum, that every
 * file exists with its listed size, every shard's header and table against the manifest's digest, bounds,
 * overlaps, and completeness.  No data is read.  `problems`: a list to which every problem is appended; NULL:
 * the first one is returned. */
enum moe_code moe_container_open(struct moe_source **src, const char *path, cJSON *problems,
                                 struct moe_err *err);
void moe_container_release(struct moe_source *src);

/* Read a listed file that is not a shard ("source.jsonl", "tokenizer/tiktoken.model") and compare it with its
 * digest.  MOE_NOT_FOUND when the manifest does not list it, MOE_CORRUPT when it differs.  free(*data). */
enum moe_code moe_container_read_file(const struct moe_source *src, const char *name, char **data,
                                      size_t *bytes, struct moe_err *err);
/* Compare a listed file of any size with its digest, reading it in pieces, and give its path.  MOE_NOT_FOUND
 * and MOE_CORRUPT as above. */
enum moe_code moe_container_check_file(const struct moe_source *src, const char *name,
                                       char path[MOE_PATH_BYTES], struct moe_err *err);
/* Compare a plane with its hash in the shard's table, reading it in pieces: *matches.  buf [cap]: scratch
 * memory. */
enum moe_code moe_container_plane_matches(const struct moe_source *src, const struct moe_tensor *t, int plane,
                                          unsigned char *buf, size_t cap, bool *matches,
                                          struct moe_err *err);
/* Whether the manifest lists a file of this name. */
bool moe_container_lists(const struct moe_source *src, const char *name);

/* Read every byte of a model, in pieces.  Of a container: each plane is compared with its hash, padding must
 * be zero, small files are compared with their digests, and the directory must hold nothing that is not
 * listed.  Of both kinds: values and scales must not be NaN or Inf.  Of a checkpoint: gate and up must have
 * the same global scale.  Problems are appended as "file: tensor: what" (at most 1000).  MOE_VERIFY when
 * there are any, with the first in *err.  pool, progress, cancel and problems may be NULL. */
enum moe_code moe_source_verify(const struct moe_source *src, struct moe_pool *pool,
                                struct moe_progress *progress, const struct moe_cancel *cancel,
                                cJSON *problems, struct moe_err *err);

#endif
