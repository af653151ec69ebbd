/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/writer-internal.h - the state of a container being written; for
 * formats/container/writer.c and publish.c. */
#ifndef MOE_FORMATS_CONTAINER_WRITER_INTERNAL_H
#define MOE_FORMATS_CONTAINER_WRITER_INTERNAL_H

#include "base/newdir.h"
#include "formats/container/container-internal.h"

struct moe_unit_done { char name[32]; uint64_t bytes; struct moe_hash128 digest; cJSON *report; };
struct moe_file_done { char *name; uint64_t bytes; struct moe_hash128 digest; };

struct moe_writer {
    struct moe_newdir out;       /* NAME.moe.partial, locked */
    const char *final, *dir;     /* its two names: NAME.moe, NAME.moe.partial */
    char key[17];                /* the hash of state.json's text: binds a journal to it */
    bool fresh;                  /* the work was begun now, not resumed */
    bool replace;                /* it was begun with --force: a container may stand under the final name */
    char replaces[33];           /* the checksum of that container; "": none was there */
    cJSON *options, *part;       /* part: NULL when the whole model is written */
    struct moe_work work;
    struct moe_unit_done *units;  size_t n_units;
    struct moe_file_done *files;  size_t n_files;
};

enum moe_code moe_writer_no_memory(const struct moe_writer *w, struct moe_err *err);
void moe_writer_free(struct moe_writer *w);
/* The path of "UNITsuffix" in the partial directory; out holds PATH_MAX bytes. */
enum moe_code moe_writer_unit_file(const struct moe_writer *w, const char *unit, const char *suffix,
                                   char *out, struct moe_err *err);
enum moe_code moe_writer_list_file(struct moe_writer *w, const char *name, uint64_t bytes,
                                   struct moe_hash128 digest, struct moe_err *err);
/* The directory is whole and its manifest durable: drop what is not listed, state.json last,
 * and take the final name. */
enum moe_code moe_writer_settle(struct moe_writer *w, const cJSON *manifest, struct moe_err *err);

#endif
