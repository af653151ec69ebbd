/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/writer-internal.h - the state of a container that is being written; for
 * formats/container/writer*.c and publish.c. */
#ifndef MOE_FORMATS_CONTAINER_WRITER_INTERNAL_H
#define MOE_FORMATS_CONTAINER_WRITER_INTERNAL_H

#include "base/newdir.h"
#include "formats/container/container-internal.h"

/* A finished unit, with the size and digest of its shard file and the caller's report on it. */
struct moe_unit_done { char name[32]; uint64_t bytes; struct moe_hash128 digest; cJSON *report; };
/* A finished file that is not a shard; `name` is malloc'd. */
struct moe_file_done { char *name; uint64_t bytes; struct moe_hash128 digest; };

struct moe_writer {
    struct moe_newdir out;       /* NAME.moe.partial, locked */
    const char *final, *dir;     /* the paths in `out`: NAME.moe and NAME.moe.partial */
    /* hash of state.json's text; every journal holds it, which shows that the journal belongs to this work */
    char key[17];
    bool fresh;                  /* the work was begun in this run, not resumed */
    bool replace;                /* it was begun with --force: it may replace a container */
    char replaces[33];           /* the checksum of that container; "": none existed */
    cJSON *options, *part;       /* part: NULL when the whole model is written */
    struct moe_work work;
    struct moe_unit_done *units;  size_t n_units, cap_units;
    struct moe_file_done *files;  size_t n_files, cap_files;
};

/* Whether an error says nothing about a file's content. */
static inline bool moe_writer_is_fatal(enum moe_code code) { return code == MOE_NOMEM || code == MOE_IO; }

/* Fail with MOE_NOMEM, naming the container. */
enum moe_code moe_writer_no_memory(const struct moe_writer *w, struct moe_err *err);
void moe_writer_free(struct moe_writer *w);
/* Fill w->units with the finished units that an earlier run of this work left. */
enum moe_code moe_writer_load_units(struct moe_writer *w, struct moe_err *err);
/* The path of the file "UNITsuffix" in the partial directory; `out` has room for PATH_MAX bytes. */
enum moe_code moe_writer_unit_file(const struct moe_writer *w, const char *unit, const char *suffix,
                                   char *out, struct moe_err *err);
/* Add a file that was written to w->files, for the manifest. */
enum moe_code moe_writer_list_file(struct moe_writer *w, const char *name, uint64_t bytes,
                                   struct moe_hash128 digest, struct moe_err *err);
/* Give a directory that is complete, and whose manifest is on the disk, its final name.  Before that, files
 * that the manifest does not list are removed, state.json as the last. */
enum moe_code moe_writer_take_name(struct moe_writer *w, const cJSON *manifest, struct moe_err *err);

#endif
