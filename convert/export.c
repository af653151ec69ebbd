/* SPDX-License-Identifier: Apache-2.0 */
/* The export of a container to its source checkpoint: its small files, and its steps. */
#include "convert/export-internal.h"

#include "base/io.h"
#include "model/export/export-dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* ---- the other files ---- */

/* Makes the directories of a name such as "docs/figures/a.png" under the export. */
static enum moe_code make_folders(const struct moe_exporter *x, const char *name, struct moe_err *err)
{
    char folder[PATH_MAX], path[PATH_MAX];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
        MOE_TRY(moe_path_join(path, sizeof path, x->dir, folder, err));
        MOE_TRY(moe_mkdir(path, err));
    }
    return MOE_OK;
}

static enum moe_code write_others(struct moe_exporter *x, struct moe_err *err)
{
    for (int64_t i = 0; i < x->own.n; i++) {
        const struct moe_original *o = &x->own.v[i];
        char path[PATH_MAX], *text;
        size_t n;
        if (o->kind != MOE_ORIGINAL_FILE && o->kind != MOE_ORIGINAL_DIRECTORY) continue;
        MOE_TRY(make_folders(x, o->name, err));
        MOE_TRY(moe_path_join(path, sizeof path, x->dir, o->name, err));
        if (o->kind == MOE_ORIGINAL_DIRECTORY) {
            MOE_TRY(moe_mkdir(path, err));
            continue;
        }
        MOE_TRY(moe_original_text(o, "", 0, (size_t)1 << 30, x->src->path, &text, &n, err));
        enum moe_code code = moe_write_file(path, text, n, err);
        free(text);
        MOE_TRY(code);
    }
    return MOE_OK;
}

/* config.json, and hf_quant_config.json where there is one, without what is left out. */
static enum moe_code write_configs(struct moe_exporter *x, struct moe_err *err)
{
    cJSON *config;
    char *text;
    size_t n;
    struct moe_left_out left = x->left;
    MOE_TRY(moe_model_config(x->src, &left, &config, err));
    enum moe_code code = moe_export_json(x->dir, "config.json", config, err);
    cJSON_Delete(config);
    MOE_TRY(code);
    code = moe_container_read_file(x->src, "hf/hf_quant_config.json", &text, &n, err);
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    code = moe_json_parse(text, n, "hf/hf_quant_config.json", &config, err);
    free(text);
    MOE_TRY(code);
    code = moe_model_quant_config(x->src, &left, config, err);
    if (code == MOE_OK) code = moe_export_json(x->dir, "hf_quant_config.json", config, err);
    cJSON_Delete(config);
    return code;
}

static enum moe_code write_small_files(struct moe_exporter *x, struct moe_err *err)
{
    static const char *const all[] = { NULL };
    static const char *const replaced[] = { "config.json", "hf_quant_config.json", NULL };
    bool changed = x->left.vision || x->left.prediction || x->left.kv_scales;
    MOE_TRY(moe_export_small_files(x->src, x->dir, changed ? replaced : all, !x->left.vision, err));
    if (changed) MOE_TRY(write_configs(x, err));
    return write_others(x, err);
}

/* ---- all of it ---- */

static enum moe_code export_all(struct moe_exporter *x, const char *out, const struct moe_export_options *o,
                                struct moe_err *err)
{
    struct moe_newdir d;
    const struct moe_export_dir e = { .src = x->src,
                                      .options = o->vision ? "hf --keep-vision" : "hf",
                                      .mode = o->mode,
                                      .cancel = o->cancel,
                                      .proof = x->r->skipped ? MOE_PROOF_NONE : MOE_PROOF_SAME };
    MOE_TRY(moe_export_dir_begin(&d, &e, out, err));
    x->r->was_done = d.whole;
    if (d.whole) return moe_export_dir_end(&d, &e, MOE_OK, err);
    x->dir = d.path;
    enum moe_code code = moe_need_space(d.path, x->r->output_bytes + (1 << 20), out, err);
    moe_progress_begin(x->progress, "export", x->r->output_bytes, MOE_UNIT_BYTES);
    if (code == MOE_OK) code = moe_export_write_shards(x, err);
    if (code == MOE_OK) code = write_small_files(x, err);
    moe_progress_end(x->progress);
    return moe_export_dir_end(&d, &e, code, err);
}

static enum moe_code read_rest(struct moe_exporter *x, struct moe_err *err)
{
    size_t n;
    enum moe_code code = moe_container_read_file(x->src, MOE_ORIGINAL_NAME, &x->own_text, &n, err);
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    return moe_originals_parse(x->own_text, n, MOE_ORIGINAL_NAME, &x->own, err);
}

enum moe_code moe_export_hf(const struct moe_source *src, const char *out, const struct moe_export_options *o,
                            struct moe_progress *progress, struct moe_export_result *r, struct moe_err *err)
{
    *r = (struct moe_export_result){ 0 };
    if (src->kind != MOE_CONTAINER)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "is a checkpoint already (--to hf wants a container NAME.moe)");
    struct moe_exporter x = { .src = src,
                              .progress = progress,
                              .cancel = o->cancel,
                              .r = r,
                              .buffer = malloc(MOE_EXPORT_PIECE),
                              .hash = moe_hash_new() };
    enum moe_code code = x.buffer && x.hash ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a buffer");
    if (code == MOE_OK) code = moe_provenance_open(&x.p, src, err);
    for (int k = 0; k < MOE_EXTRA_COUNT; k++) x.extra_fd[k] = -1;
    if (code == MOE_OK && o->vision) code = moe_export_find_extra(&x, MOE_EXTRA_VISION, err);
    if (code == MOE_OK) code = moe_export_find_extra(&x, MOE_EXTRA_SUPERSEDED, err);
    if (code == MOE_OK) code = moe_export_resolve(&x, err);
    if (code == MOE_OK && x.left.vision) code = moe_export_rename_as_text_model(&x, err);
    if (code == MOE_OK) code = read_rest(&x, err);
    r->memory_bytes = moe_peak_rss() + MOE_EXPORT_PIECE;
    if (code == MOE_OK && !o->dry_run) code = export_all(&x, out, o, err);
    moe_provenance_close(&x.p);
    moe_originals_release(&x.own);
    free(x.own_text);
    for (int k = 0; k < MOE_EXTRA_COUNT; k++)
        if (x.extra_fd[k] >= 0) close(x.extra_fd[k]);
    moe_hash_free(x.hash);
    free(x.buffer);
    return code;
}
