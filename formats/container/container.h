/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/container.h - the expert-sharded container NAME.moe/: writer and reader.
 * docs/reference/format.md is the specification.
 *
 * Shard file (*.moe), little-endian: header (128 bytes), a table of 64-byte records (one for each plane of
 * each tensor), zero padding, data.  Every plane lies at a fixed aligned offset that follows from the list
 * of tensors alone, so a writer may fill planes in any order and from any thread; header and table are
 * written last.  All padding is zero.  The digest of a shard file in the manifest is XXH3-128 over its
 * header and table: they hold XXH3-64 of every plane, so the digest covers the file (ADR 2) and an open
 * checks it without reading data. */
#ifndef MOE_FORMATS_CONTAINER_CONTAINER_H
#define MOE_FORMATS_CONTAINER_CONTAINER_H

#include "base/hash.h"
#include "base/leftover.h"
#include "formats/container/identity.h"
#include "formats/source.h"

struct moe_pool; struct moe_progress; struct moe_cancel;

/* ---- one shard file ---- */

#define MOE_SHARD_MAGIC "MOESHARD"
enum { MOE_SHARD_VERSION = 1, MOE_MANIFEST_VERSION = 1 };
/* plan-NAME.json: a placement plan, the only file that the manifest does not list. */
bool moe_is_plan_name(const char *name);
#define MOE_STAGED_PLAN "plan-staged.json" /* what moe-plan stage was given, beside what it made */
/* incompatible feature bit: holes where experts would lie that were not staged */
enum { MOE_SHARD_STAGED = 1 };

struct moe_shard_header {
    char magic[8];
    uint32_t version, header_bytes;       /* 1, 128 */
    uint64_t incompatible, compatible;    /* feature bits: unknown incompatible ones are refused */
    uint64_t file_bytes, table_offset, record_count, data_offset;
    uint64_t extent_bytes, extent_offset; /* stride and start of expert extents; 0 in dense.moe */
    uint32_t record_bytes, alignment;     /* 64; of extents */
    int32_t layer, experts;               /* -1 and 0 in dense.moe */
    /* XXH3-64 of the table; of this header with header_hash 0 */
    uint64_t table_hash, reserved[2], header_hash;
};
static_assert(sizeof(struct moe_shard_header) == 128, "moe_shard_header is a file layout");

struct moe_shard_record {
    int16_t role, layer;
    int32_t expert;
    uint8_t type, layout, plane, flags; /* flags bit 0: NVFP4 globals divide */
    uint32_t reserved;
    uint64_t rows, cols, offset, bytes, hash;
    uint64_t reserved2;
};
static_assert(sizeof(struct moe_shard_record) == 64, "moe_shard_record is a file layout");

/* Assign plane[].offset and .bytes (and .file = 0) to n tensors of one file, in their order, and give the
 * header without hashes.  layer -1: dense.moe; else all n are experts of that layer, from 0 on,
 * ascending, each expert's tensors together.  Sets .layout: NVFP4 scales always lie in tiles.  An NVFP4
 * tensor always has all four planes.
 * Extents: one stride for all experts; inside an extent first the data planes, then scales, then globals,
 * then input scales, each at 256 bytes (globals and input scales at 4). */
enum moe_code moe_shard_layout(struct moe_tensor *t, int64_t n, int layer, struct moe_shard_header *h,
                               struct moe_err *err);

struct moe_shard_writer;
/* Create `path` (pre-allocated to its full size, so that a full disk shows now); tensors are copied. */
enum moe_code moe_shard_create(struct moe_shard_writer **w, const char *path, const struct moe_tensor *t,
                               int64_t n, const struct moe_shard_header *h, struct moe_err *err);
/* Planes whose bytes go elsewhere: the file has a hole there, and everything else, the hashes of those planes
 * too. Functions but `close` may be called from any thread. */
struct moe_shard_divert {
    void *ctx;
    bool (*takes)(void *ctx, int64_t tensor, int plane);
    enum moe_code (*write)(void *ctx, int64_t tensor, int plane, uint64_t offset, const void *data,
                           size_t bytes, struct moe_err *err);
    enum moe_code (*sync)(void *ctx, struct moe_err *err); /* by finish, before the header is written */
    void (*close)(void *ctx);                              /* at the end, whatever it is */
};
/* As create, but nothing is reserved.  `d` is copied and closed with the writer; on failure it stays the
 * caller's. */
enum moe_code moe_shard_create_diverted(struct moe_shard_writer **w, const char *path,
                                        const struct moe_tensor *t, int64_t n,
                                        const struct moe_shard_header *h, const struct moe_shard_divert *d,
                                        struct moe_err *err);
/* Write part of a plane: any order, any thread. */
enum moe_code moe_shard_write(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t offset,
                              const void *data, size_t bytes, struct moe_err *err);
/* before finish, each plane */
void moe_shard_set_hash(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t hash);
/* Write table and header, fsync, close; gives size and digest.  On failure, and by abort, the file is
 * removed. */
enum moe_code moe_shard_finish(struct moe_shard_writer **w, uint64_t *bytes, struct moe_hash128 *digest,
                               struct moe_err *err);
void moe_shard_abort(struct moe_shard_writer **w);
/* The hashes of a finished shard's table, into t[i].hash: `t` is what it was created with.  MOE_CORRUPT when
 * its table is damaged or lists anything else. */
enum moe_code moe_shard_hashes(const char *path, struct moe_tensor *t, int64_t n, struct moe_err *err);
/* After that: the bytes of the planes that lie in the file itself, so d does not take them; and whether they
 * are those whose hashes t[i] has, streamed.  MOE_VERIFY names the first tensor of which they are not. */
uint64_t moe_shard_own_bytes(const struct moe_tensor *t, int64_t n, const struct moe_shard_divert *d);
enum moe_code moe_shard_check_own(const char *path, const struct moe_tensor *t, int64_t n,
                                  const struct moe_shard_divert *d, struct moe_progress *progress,
                                  const struct moe_cancel *cancel, struct moe_err *err);

/* ---- the directory ---- */

enum moe_write_mode { MOE_WRITE_PLAIN, MOE_WRITE_RESUME, MOE_WRITE_FORCE };

/* Of --force and --resume, which exclude each other. */
static inline enum moe_write_mode moe_write_mode_of(bool force, bool resume)
{
    return force ? MOE_WRITE_FORCE : resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN;
}

/* For writers that keep no journal. */
static inline enum moe_left moe_write_left(enum moe_write_mode mode)
{
    return mode == MOE_WRITE_FORCE ? MOE_LEFT_GOES
        : mode == MOE_WRITE_RESUME ? MOE_LEFT_UNFINISHED_GOES : MOE_LEFT_STAYS;
}

struct moe_writer;

/* What a container is written from, and how: kept, and compared on --resume.  Nothing is owned. */
struct moe_work {
    const cJSON *options;       /* a flat object of every option that changes bytes; a difference is named */
    struct moe_identity input;  /* of the source; kept in the partial directory */
    struct moe_identity origin; /* moe_source_origin of it: kept in the manifest, so that a container made
                                   from a checkpoint and one made from that checkpoint's container are the
                                   same bytes */
    const char *made_from;      /* moe_source_made_from of it, kept in the manifest */
    /* that the bytes depend on ("ref", "vector", "mixed"; kernels/kernels.h); NULL: on none */
    const char *kernels;
    const struct moe_source *from; /* when it is one container: a complete one made from it has its
                                      source.jsonl; else NULL */
};

/* A digest of what --resume compares. */
enum moe_code moe_work_digest(const struct moe_work *w, char hex[33], struct moe_err *err);
/* MOE_MISMATCH, saying what differs, when `dir` is there, begun or whole, and is another work's. */
enum moe_code moe_work_compare(const char *dir, const struct moe_work *w, struct moe_err *err);
/* For a caller who knows that `dir`, where there is one, is its own work: MOE_CORRUPT or MOE_NOT_FOUND, with
 * the file and --force as the remedy, when its manifest can no longer say so.  `whole`: it has its final
 * name; else a manifest is looked at only where it is all that there is, without a state. */
enum moe_code moe_work_manifest(const char *dir, bool whole, struct moe_err *err);

/* What opening found: the container is complete already (see moe_writer_open); what was there is of a
 * version that recorded no samples of a checkpoint's weights, so that only their form could be compared. */
struct moe_found { bool done, unweighed; };

/* Start, resume or restart NAME.moe.partial/ under a lock, by docs/reference/format.md 7.  found->done is
 * set when the container is complete already and was made from the same origin with the same options (only
 * under --resume; what an earlier run left undone after its manifest is done here): nothing is left to do
 * and *w is NULL.  Unfinished work takes the place of a container under the final name only when it was
 * begun with MOE_WRITE_FORCE and that container stood there then (told by the checksum of its manifest):
 * MOE_EXISTS otherwise. */
enum moe_code moe_writer_open(struct moe_writer **w, const char *out, enum moe_write_mode mode,
                              const struct moe_work *work, struct moe_found *found, struct moe_err *err);
/* Close without publishing: what is finished stays for --resume, and with keep_work what was computed for
 * files that are not finished yet, too. */
void moe_writer_close(struct moe_writer **w, bool keep_work);
/* The input turned out not to be one model: what is finished must not be gone on with.  The partial
 * directory goes, then as close. */
void moe_writer_discard(struct moe_writer **w);

const char *moe_writer_dir(const struct moe_writer *w); /* the partial directory */

/* What is kept when the writer is closed now: finished units; files of a calibration, *.work. */
size_t moe_writer_units(const struct moe_writer *w);
bool moe_writer_has_work(const struct moe_writer *w);

/* A unit is one shard file and its journal; durable once its journal is.  Names: "dense", "layer-001". */
bool moe_writer_has_unit(const struct moe_writer *w, const char *unit);
/* The path to write the unit's shard to (a temporary name). */
enum moe_code moe_writer_unit_path(const struct moe_writer *w, const char *unit, char *out, size_t cap,
                                   struct moe_err *err);
/* After moe_shard_finish: rename the shard into place and make the journal durable.  `source`: an array, one
 * element for each source tensor that went into this unit, [name, dtype, [shape], file, "xxh3-64 hex" or
 * null, skipped or null, "hex bytes" or null, ordinal]; the ordinal is the tensor's place in the source (its
 * index in raws): source.jsonl is sorted by it and does not keep it.
 * `report`: what the tool wants in its report, returned by moe_writer_report.  Both stay the caller's. */
enum moe_code moe_writer_commit_unit(struct moe_writer *w, const char *unit, uint64_t bytes,
                                     struct moe_hash128 digest, const cJSON *source, const cJSON *report,
                                     struct moe_err *err);
/* The array `source` that a finished unit was committed with; the caller deletes it. *source NULL: it has
 * none. */
enum moe_code moe_writer_unit_source(const struct moe_writer *w, const char *unit, cJSON **source,
                                     struct moe_err *err);
/* Reports of all finished units, in unit order: an array of {"unit", "report"}; the caller deletes it. */
cJSON *moe_writer_reports(struct moe_writer *w, struct moe_err *err);

/* A whole small file inside the container: "tokenizer/tiktoken.model", "hf/config.json", "routing.json". */
enum moe_code moe_writer_add_file(struct moe_writer *w, const char *name, const void *data, size_t bytes,
                                  struct moe_err *err);

/* A file that the caller has written in moe_writer_dir under its name, whole and durable, becomes one of the
 * container's. */
enum moe_code moe_writer_adopt_file(struct moe_writer *w, const char *name, struct moe_err *err);

/* Before publish: what is written is a part of a model; `part` (copied) becomes the manifest's "part", and
 * each line of source.jsonl keeps its ordinal as an eighth element, for the merge. */
enum moe_code moe_writer_set_part(struct moe_writer *w, const cJSON *part, struct moe_err *err);

/* Write source.jsonl from the units' journals (or `source_jsonl` verbatim when not NULL: quantizing a
 * container), then manifest.json, sync all, and publish: rename, or exchange with the old one under --force.
 * `quantization` may be NULL.  *bytes gets the size of all files. */
enum moe_code moe_writer_publish(struct moe_writer **w, const struct moe_config *config, const cJSON *types,
                                 const cJSON *quantization, const char *source_jsonl, size_t source_bytes,
                                 uint64_t *bytes, struct moe_err *err);

/* ---- reading ---- */

/* What a container source adds (source.h: src->container). */
struct moe_container {
    cJSON *manifest;   /* parsed; "quantization", "provenance", "files" ... */
    char *dir;
    uint64_t bytes;    /* of all files */
    /* of moe_source_merge: what it was put together from, their files moved to the whole */
    struct moe_source **parts;
    int n_parts;
};

/* Used by moe_source_open for a directory with manifest.json: checks manifest checksum, every file's
 * presence and size, every shard's header and table against the manifest's digest, bounds, overlaps,
 * completeness.  No data is read. */
enum moe_code moe_container_open(struct moe_source **src, const char *path, cJSON *problems,
                                 struct moe_err *err);
void moe_container_release(struct moe_source *src);

/* Read one listed file that is not a shard ("source.jsonl", "tokenizer/tiktoken.model") and hold it against
 * its digest.  MOE_NOT_FOUND when the manifest does not list it, MOE_CORRUPT when it is not what the
 * manifest says.  free(*data). */
enum moe_code moe_container_read_file(const struct moe_source *src, const char *name, char **data,
                                      size_t *bytes, struct moe_err *err);
/* Hold a listed file of any size against its digest, in pieces, and give its path: MOE_NOT_FOUND, MOE_CORRUPT
 * as above. */
enum moe_code moe_container_check_file(const struct moe_source *src, const char *name,
                                       char path[MOE_PATH_BYTES], struct moe_err *err);
bool moe_container_lists(const struct moe_source *src, const char *name);

/* Read every byte, in pieces.  A container: each plane against its hash, padding against zero, small
 * files against their digests, nothing unlisted in the directory.  Both kinds: no NaN or Inf among
 * values and scales; a checkpoint: gate and up with one global scale.  Problems are appended as "file:
 * tensor: what" (at most 1000).  MOE_VERIFY when there are any, with the first in *err; NULLs allowed
 * for pool, progress, cancel and problems. */
enum moe_code moe_source_verify(const struct moe_source *src, struct moe_pool *pool,
                                struct moe_progress *progress, const struct moe_cancel *cancel,
                                cJSON *problems, struct moe_err *err);

#endif
