/* convert/export-dir.h - the directory that an export builds: beside its name, locked, published whole or not at all. */
#ifndef MOE_CONVERT_EXPORT_DIR_H
#define MOE_CONVERT_EXPORT_DIR_H

#include "formats/container.h"

#include <limits.h>

struct moe_export_dir { char path[PATH_MAX] /* out.partial */; int lock; bool ours; };

/* Make out.partial, empty, marked as an export's and locked.  MOE_WRITE_FORCE replaces a checkpoint or an empty directory and nothing
 * else; an unfinished directory is started over under RESUME and FORCE (an export is a copy and keeps no journal), but only when
 * an export left it.  MOE_EXISTS otherwise. */
enum moe_code moe_export_dir_begin(struct moe_export_dir *d, const char *out, enum moe_write_mode mode, struct moe_err *err);
/* Rename out.partial to out, or exchange it with the one there, which is then removed. */
enum moe_code moe_export_dir_publish(struct moe_export_dir *d, const char *out, struct moe_err *err);
/* After begin, whether that succeeded or not: unlock, and when `code` is a failure remove what was begun. */
void moe_export_dir_end(struct moe_export_dir *d, enum moe_code code);

/* Copy the small files of a container (its hf/ and tokenizer/) into `dir`, but for those named in `except` (ends with NULL). */
enum moe_code moe_export_small_files(const struct moe_source *src, const char *dir, const char *const *except, struct moe_err *err);

#endif
