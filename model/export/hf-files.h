/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-files.h - the files of a checkpoint while their tensors come in another
 * order than they lie there.
 *
 * Each file has its header and its whole size from the beginning (moe_hf_files_make); then any thread writes
 * and reads anywhere in any of them.  They are opened when they are needed and few are open at once, so a
 * checkpoint may have thousands.  What is written goes to the disk behind the writer (base/writeback.h); it
 * is durable after moe_hf_files_sync.  Nothing here knows what is in a file. */
#ifndef MOE_MODEL_EXPORT_HF_FILES_H
#define MOE_MODEL_EXPORT_HF_FILES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_hf_files;

/* n files of the directory `dir`; give each its name with moe_hf_files_name before anything else is done with
 * it. */
enum moe_code moe_hf_files_open(struct moe_hf_files **f, const char *dir, int64_t n, struct moe_err *err);
void moe_hf_files_close(struct moe_hf_files **f); /* NULL-safe; nulls */
enum moe_code moe_hf_files_name(struct moe_hf_files *f, int64_t i, const char *name, struct moe_err *err);

/* A file with this head and room for `all` bytes, in the place of one that is there.  It gets its name with
 * both. */
enum moe_code moe_hf_files_make(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                uint64_t all, struct moe_err *err);
/* *is: it is there, with this head and this size.  check: MOE_MISMATCH when not. */
enum moe_code moe_hf_files_is(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes, uint64_t all,
                              bool *is, struct moe_err *err);
enum moe_code moe_hf_files_check(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                 uint64_t all, struct moe_err *err);

const char *moe_hf_files_path(const struct moe_hf_files *f, int64_t i);

/* From any thread. */
enum moe_code moe_hf_files_write(struct moe_hf_files *f, int64_t i, uint64_t offset, const void *data,
                                 size_t bytes, struct moe_err *err);
enum moe_code moe_hf_files_read(struct moe_hf_files *f, int64_t i, uint64_t offset, void *to, size_t bytes,
                                struct moe_err *err);
enum moe_code moe_hf_files_sync(struct moe_hf_files *f, int64_t i, struct moe_err *err);

#endif
