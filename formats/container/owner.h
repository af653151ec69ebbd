/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/owner.h - whether this project made a file or a directory, judged by what is in it: what
 * --force may replace.
 *
 * A name alone never makes something ours: a manifest.json is a container's when it says so and its checksum
 * is right, and then nothing may lie beside it that it does not list. */
#ifndef MOE_FORMATS_CONTAINER_OWNER_H
#define MOE_FORMATS_CONTAINER_OWNER_H

#include "base/err.h"

#include <stdbool.h>

/* DIR/manifest.json, whole or damaged, is a container's: it says "format": "moe" (a stranger's is a web
 * application's, say, or a downloader's).  False when there is none. */
enum moe_code moe_manifest_is_ours(const char *dir, bool *ours, struct moe_err *err);

/* A container, or what is left of one: a manifest.json that is ours, or that nothing else explains (no
 * config.json lies beside it). */
enum moe_code moe_dir_is_container(const char *dir, bool *is, struct moe_err *err);
/* DIR/state.json, whole or damaged, is unfinished work's of ours.  False when there is none. */
enum moe_code moe_state_is_ours(const char *dir, bool *ours, struct moe_err *err);

/* MOE_OK when a container stands at `path` and nothing else is in it, so that --force may replace it; else
 * MOE_EXISTS, with the first file that is not of it.  sum, when not NULL, gets the checksum of its
 * manifest. */
enum moe_code moe_container_replaceable(const char *path, char sum[33], struct moe_err *err);
/* The same as a kind of directory (base/newdir.h); with: the checksum that its manifest must have, or
 * NULL. */
enum moe_code moe_container_is(const char *path, const void *with, struct moe_err *err);

/* The same of a container that was begun: MOE_OK when all that is in `path` has names of a container's
 * files. */
enum moe_code moe_container_unfinished(const char *path, const void *with, struct moe_err *err);

#endif
