/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-files.h - the files of a checkpoint that is written in another order than its tensors have
 * in the files.
 *
 * Each file has its header and its full size from the beginning (moe_hf_files_make); after that any thread
 * may write and read anywhere in any of them.  Files are opened when they are needed and few are open at
 * once, so a checkpoint may have thousands.  What is written goes to the disk in the background
 * (base/writeback.h), and is durable after moe_hf_files_sync.  Nothing here knows what is in a file. */
#ifndef MOE_MODEL_EXPORT_HF_FILES_H
#define MOE_MODEL_EXPORT_HF_FILES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_hf_files;

/* n files of the directory `dir`, a string that must outlive *f.  Each file needs a name
 * (moe_hf_files_set_name) before anything else is done with it.  After a failure *f is NULL. */
enum moe_code moe_hf_files_open(struct moe_hf_files **f, const char *dir, int64_t n, struct moe_err *err);
void moe_hf_files_close(struct moe_hf_files **f); /* NULL-safe; nulls */
enum moe_code moe_hf_files_set_name(struct moe_hf_files *f, int64_t i, const char *name, struct moe_err *err);

/* Creates file i with the header `head` of `bytes` bytes and a size of `all` bytes, all of them reserved on
 * the disk.  It appears under its name only with both, and replaces a file of that name.  MOE_NOSPACE when
 * the disk is too full. */
enum moe_code moe_hf_files_make(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                uint64_t all, struct moe_err *err);
/* _matches sets *is to whether file i exists with this header and this size.  _check returns MOE_MISMATCH
 * when it does not. */
enum moe_code moe_hf_files_matches(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                   uint64_t all, bool *is, struct moe_err *err);
enum moe_code moe_hf_files_check(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                 uint64_t all, struct moe_err *err);

/* The path of file i, owned by f. */
const char *moe_hf_files_path(const struct moe_hf_files *f, int64_t i);

/* These three may be called from any thread; offsets and sizes are in bytes.  moe_hf_files_sync makes durable
 * what was written to file i. */
enum moe_code moe_hf_files_write(struct moe_hf_files *f, int64_t i, uint64_t offset, const void *data,
                                 size_t bytes, struct moe_err *err);
enum moe_code moe_hf_files_read(struct moe_hf_files *f, int64_t i, uint64_t offset, void *to, size_t bytes,
                                struct moe_err *err);
enum moe_code moe_hf_files_sync(struct moe_hf_files *f, int64_t i, struct moe_err *err);

#endif
