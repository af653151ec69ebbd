/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/owner.h - whether this project made a file or a directory, judged by its content; this
 * decides what --force may replace.
 *
 * A name alone never makes something ours: a manifest.json is a container's when it says so and its checksum
 * is right, and then no file may be in the directory that it does not list. */
#ifndef MOE_FORMATS_CONTAINER_OWNER_H
#define MOE_FORMATS_CONTAINER_OWNER_H

#include "base/err.h"

#include <stdbool.h>

/* Whether DIR/manifest.json, intact or damaged, is a container's: it says "format": "moe" (other programs
 * also have files of this name).  False when there is none. */
enum moe_code moe_manifest_is_ours(const char *dir, bool *ours, struct moe_err *err);

/* Whether DIR is a container or the remains of one: its manifest.json is ours, or it has a manifest.json and
 * no config.json, which would make it a checkpoint. */
enum moe_code moe_dir_is_container(const char *dir, bool *is, struct moe_err *err);
/* Whether DIR/state.json, intact or damaged, is that of unfinished work of ours.  False when there is
 * none. */
enum moe_code moe_state_is_ours(const char *dir, bool *ours, struct moe_err *err);

/* MOE_OK when `path` is a container and contains nothing else, so that --force may replace it; otherwise
 * MOE_EXISTS, with the first file that does not belong to it.  sum, when not NULL, gets the checksum of its
 * manifest. */
enum moe_code moe_container_replaceable(const char *path, char sum[33], struct moe_err *err);
/* The same in the form that base/newdir.h needs (struct moe_newdir_kind); with: the checksum that the
 * manifest must have, or NULL. */
enum moe_code moe_container_is(const char *path, const void *with, struct moe_err *err);

/* The same for an unfinished container: MOE_OK when everything in `path` has the name of a container's
 * file. */
enum moe_code moe_container_unfinished(const char *path, const void *with, struct moe_err *err);

#endif
