/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing: makes a partial directory with all units the container NAME.moe. */
#include "base/grow.h"
#include "formats/container/writer-internal.h"

#include "base/io.h"
#include "formats/container/owner.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- publishing ---- */

struct line { double ordinal; size_t order; char *text; };
struct lines { struct line *p; size_t n, cap, bytes; };

static int by_ordinal(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->ordinal != y->ordinal) return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
    return (x->order > y->order) - (x->order < y->order);
}

static bool add_line(struct lines *l, cJSON *element, bool keep_ordinal)
{
    if (!MOE_GROW(l->p, l->cap, l->n + 1)) return false;
    cJSON *ordinal = cJSON_GetArrayItem(element, 7);
    double place = ordinal ? ordinal->valuedouble : 0;
    if (!keep_ordinal) cJSON_DeleteItemFromArray(element, 7);
    char *text = moe_json_print(element, 0);
    if (text) {
        l->p[l->n] = (struct line){ place, l->n, text };
        l->bytes += strlen(text) + 1;
        l->n++;
    }
    return text != NULL;
}

static enum moe_code read_lines(const struct moe_writer *w, struct lines *l, struct moe_err *err)
{
    for (size_t i = 0; i < w->n_units; i++) {
        cJSON *source;
        MOE_TRY(moe_writer_unit_source(w, w->units[i].name, &source, err));
        bool ok = true;
        for (cJSON *e = source ? source->child : NULL; e && ok; e = e->next)
            ok = add_line(l, e, w->part != NULL);
        cJSON_Delete(source);
        if (!ok) return moe_writer_no_memory(w, err);
    }
    return MOE_OK;
}

static enum moe_code write_source(struct moe_writer *w, const char *verbatim, size_t bytes,
                                  struct moe_err *err)
{
    if (verbatim) return moe_writer_add_file(w, MOE_SOURCE_NAME, verbatim, bytes, err);
    struct lines l = { 0 };
    char *all = NULL;
    enum moe_code code = read_lines(w, &l, err);
    if (code == MOE_OK && !(all = malloc(l.bytes + 1))) code = moe_writer_no_memory(w, err);
    if (code == MOE_OK) {
        size_t at = 0;
        if (l.n) qsort(l.p, l.n, sizeof *l.p, by_ordinal);
        for (size_t i = 0; i < l.n; i++) {
            size_t n = strlen(l.p[i].text);
            memcpy(all + at, l.p[i].text, n);
            at += n;
            all[at++] = '\n';
        }
        code = moe_writer_add_file(w, MOE_SOURCE_NAME, all, at, err);
    }
    for (size_t i = 0; i < l.n; i++) free(l.p[i].text);
    free(l.p);
    free(all);
    return code;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct moe_file_done *)a)->name, ((const struct moe_file_done *)b)->name);
}

static void add_files(cJSON *m, const struct moe_writer *w)
{
    cJSON *files = moe_json_add_array(m, "files");
    for (size_t i = 0; files && i < w->n_files; i++) {
        char hex[33];
        moe_hex128(w->files[i].digest, hex);
        cJSON *f = moe_json_append(files, cJSON_CreateObject());
        moe_json_add_str(f, "name", w->files[i].name);
        moe_json_add_f64(f, "bytes", (double)w->files[i].bytes);
        moe_json_add_str(f, "xxh3_128", hex);
    }
}

static cJSON *make_manifest(const struct moe_writer *w, const struct moe_config *config, const cJSON *types,
                            const cJSON *quantization)
{
    cJSON *m = cJSON_CreateObject(), *p;
    moe_json_add_str(m, "format", "moe");
    moe_json_add_f64(m, "version", MOE_MANIFEST_VERSION);
    moe_json_add(m, "config", moe_config_json(config));
    moe_json_add(m, "types", types ? cJSON_Duplicate(types, true) : cJSON_CreateObject());
    moe_json_add(m, "quantization", quantization ? cJSON_Duplicate(quantization, true) : cJSON_CreateNull());
    if (w->part) moe_json_add(m, "part", moe_json_ref(w->part));
    p = moe_json_add_object(m, "provenance");
    moe_json_add_str(p, "tool", "moe");
    moe_json_add_str(p, "version", MOE_VERSION);
    moe_identity_put(p, "origin", "weights", &w->work.origin);
    if (w->work.made_from) moe_json_add_str(p, "made_from", w->work.made_from);
    if (w->work.kernels) moe_json_add_str(p, "kernels", w->work.kernels);
    moe_json_add(p, "options", cJSON_Duplicate(w->options, true));
    add_files(m, w);
    return m;
}

static enum moe_code sync_folders(const struct moe_writer *w, struct moe_err *err)
{
    static const char *const folders[] = { "tokenizer", "hf" };
    for (int i = 0; i < 2; i++) {
        char path[PATH_MAX];
        enum moe_exists there;
        MOE_TRY(moe_path_join(path, sizeof path, w->dir, folders[i], err));
        MOE_TRY(moe_look(path, &there, err));
        if (there == MOE_DIR) MOE_TRY(moe_fsync_path(path, err));
    }
    return moe_fsync_path(w->dir, err);
}

static enum moe_code write_manifest(struct moe_writer *w, cJSON *manifest, uint64_t *bytes,
                                    struct moe_err *err)
{
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    char *text = moe_json_seal(manifest, 2);
    if (!text) return moe_writer_no_memory(w, err);
    *bytes = strlen(text);
    for (size_t i = 0; i < w->n_files; i++) *bytes += w->files[i].bytes;
    enum moe_code code = moe_write_file(path, text, strlen(text), err);
    free(text);
    return code;
}

/* Check that the work may replace what exists under the final name. */
static enum moe_code may_take(const struct moe_writer *w, struct moe_err *err)
{
    enum moe_final final;
    char sum[33];
    MOE_TRY(moe_final_look(w->final, &final, sum, err));
    bool same = final == MOE_FINAL_CONTAINER && w->replace && !strcmp(sum, w->replaces);
    if (final == MOE_FINAL_ABSENT || same) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, w->final, NULL,
                       "it appeared while this was written (move it away and use --resume)");
}

enum moe_code moe_writer_take_name(struct moe_writer *w, const cJSON *manifest, struct moe_err *err)
{
    MOE_TRY(moe_dir_clear(w->dir, MOE_STATE_NAME, manifest, err));
    MOE_TRY(may_take(w, err)); /* before state.json, which says so, is removed */
    moe_newdir_mark(&w->out);  /* without state.json the mark says that the directory is unfinished */
    MOE_TRY(moe_dir_clear(w->dir, NULL, manifest, err));
    const struct moe_newdir_kind old = { .look = moe_container_is, .with = w->replaces };
    return moe_newdir_publish(&w->out, w->replace ? &old : NULL, err);
}

enum moe_code moe_writer_set_part(struct moe_writer *w, const cJSON *part, struct moe_err *err)
{
    cJSON_Delete(w->part);
    w->part = cJSON_Duplicate(part, true);
    return w->part ? MOE_OK : moe_writer_no_memory(w, err);
}

enum moe_code moe_writer_publish(struct moe_writer **out, const struct moe_config *config, const cJSON *types,
                                 const cJSON *quantization, const char *source_jsonl, size_t source_bytes,
                                 uint64_t *bytes, struct moe_err *err)
{
    struct moe_writer *w = *out;
    MOE_CHECK(w->n_units > 0);
    MOE_TRY(write_source(w, source_jsonl, source_bytes, err));
    for (size_t i = 0; i < w->n_units; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.moe", w->units[i].name);
        MOE_TRY(moe_writer_list_file(w, name, w->units[i].bytes, w->units[i].digest, err));
    }
    qsort(w->files, w->n_files, sizeof *w->files, by_name);
    MOE_TRY(sync_folders(w, err));
    cJSON *m = make_manifest(w, config, types, quantization);
    if (!m) return moe_writer_no_memory(w, err);
    enum moe_code code = write_manifest(w, m, bytes, err);
    if (code == MOE_OK) code = moe_writer_take_name(w, m, err);
    cJSON_Delete(m);
    MOE_TRY(code);
    moe_writer_free(w);
    *out = NULL;
    return MOE_OK;
}
