/* SPDX-License-Identifier: Apache-2.0 */
/* The check of units that an earlier run finished, when their weights are in a checkpoint's files. */
#include "model/rewrite/rewrite-internal.h"

#include "model/export/hf-layout.h"

#include <stdio.h>

static bool is_there(const struct moe_rewrite_run *k, const struct moe_shard_unit *u)
{
    return u->n && (!k->writer || moe_writer_has_unit(k->writer, u->name));
}

/* Reads the planes of a finished unit, in the checkpoint's files and in its own, and compares their hashes;
 * unless `check`, only adds their bytes to *bytes. */
static enum moe_code look_at_planes(struct moe_rewrite_run *k, const struct moe_shard_unit *u,
                                    const char *path, bool check, uint64_t *bytes, struct moe_err *err)
{
    struct moe_plane_sink sink;
    enum moe_code code = MOE_OK;
    MOE_TRY(moe_hf_layout_redirect(k->o->hf_layout, u, &sink, err));
    if (check) {
        code = moe_shard_check_own(path, u->out, u->n, &sink, k->progress, k->o->cancel, err);
        if (code == MOE_OK) code = moe_hf_layout_check(k->o->hf_layout, u, k->progress, err);
    } else {
        *bytes += moe_hf_layout_bytes(k->o->hf_layout, u) + moe_shard_own_bytes(u->out, u->n, &sink);
    }
    sink.close(sink.ctx);
    return code;
}

static enum moe_code look_at_unit(struct moe_rewrite_run *k, const char *dir, int number, bool check,
                                  uint64_t *bytes, struct moe_err *err)
{
    char path[4096];
    struct moe_shard_unit unit;
    enum moe_code code = MOE_OK;
    MOE_TRY(moe_unit_open(&unit, k->src, k->type, number, err));
    if (is_there(k, &unit)) {
        int n = snprintf(path, sizeof path, "%s/%s.moe", dir, unit.name);
        if (n >= (int)sizeof path) code = moe_fail_at(err, MOE_IO, dir, NULL, "the path is too long");
        else if (check) code = moe_shard_read_hashes(path, unit.out, unit.n, err);
        if (code == MOE_OK) code = look_at_planes(k, &unit, path, check, bytes, err);
    }
    moe_unit_release(&unit);
    return code;
}

enum moe_code moe_rewrite_check_finished(struct moe_rewrite_run *k, const char *dir, struct moe_err *err)
{
    uint64_t bytes = 0;
    enum moe_code code = MOE_OK;
    int units = moe_unit_count(k->src);
    for (int u = 0; u < units; u++) MOE_TRY(look_at_unit(k, dir, u, false, &bytes, err));
    if (!bytes) return MOE_OK;
    moe_progress_begin(k->progress, "check", bytes, MOE_UNIT_BYTES);
    for (int u = 0; code == MOE_OK && u < units; u++) code = look_at_unit(k, dir, u, true, &bytes, err);
    moe_progress_end(k->progress);
    return code;
}
