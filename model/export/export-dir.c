/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of what an export may replace, its begin and end, and its small files. */
#include "model/export/export-dir.h"

#include "base/io.h"
#include "base/newfile.h"
#include "base/cancel.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/original.h"
#include "formats/container/owner.h"
#include "formats/container/small.h"
#include "model/export/model-config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what may be replaced ---- */

/* What is known about the directory `path` and about src, to tell which of the files in `path` an export of
 * src writes. */
struct written {
    const char *path;
    const struct moe_source *src;
    char *index;                  /* the text of the index in path; NULL when there is none */
    char *rest_text;              /* the container's source.rest, which `rest` points into */
    struct moe_originals rest;    /* its records */
    struct moe_names beside;      /* when src is a checkpoint: the names in its directory */
    bool unfinished;              /* path is unfinished: the index, which is written last, may be missing */
    bool inner;                   /* MOE_EXPORT_INNER may be there */
};

static enum moe_code not_written(const struct written *w, const char *name, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, w->path, NULL,
                       "already exists, and '%.200s' in it is no file of an export of '%.200s' (move it "
                       "away, or choose another name with -o)",
                       name, w->src->path);
}

static bool recorded(const struct written *w, enum moe_original_kind kind, const char *name)
{
    for (int64_t i = 0; i < w->rest.n; i++)
        if (w->rest.v[i].kind == kind && !strcmp(w->rest.v[i].name, name)) return true;
    return false;
}

/* Whether src records a directory ("docs/"), because it was empty or because a recorded file is in it. */
static bool is_folder(const struct written *w, const char *name)
{
    size_t n = strlen(name);
    for (int64_t i = 0; i < w->rest.n; i++) {
        const struct moe_original *o = &w->rest.v[i];
        bool kind = o->kind == MOE_ORIGINAL_FILE || o->kind == MOE_ORIGINAL_DIRECTORY;
        bool itself = o->kind == MOE_ORIGINAL_DIRECTORY && strlen(o->name) == n - 1;
        if (kind && !strncmp(o->name, name, itself ? n - 1 : n)) return true;
    }
    return false;
}

/* A file of weights belongs to the export if the index beside it names it, or if the source has a header
 * recorded under its name. */
static bool is_weights(const struct written *w, const char *name)
{
    char quoted[PATH_MAX + 3];
    if (!moe_ends_with(name, ".safetensors")) return false;
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    return !strcmp(name, MOE_ST_SINGLE) || (w->index && strstr(w->index, quoted)) ||
           recorded(w, MOE_ORIGINAL_HEADER, name) || (w->unfinished && moe_st_is_shard_name(name));
}

/* Whether it is a small file that a container keeps of its checkpoint. */
static bool is_small(const struct written *w, const char *name)
{
    static const char *const folders[] = { "hf", "tokenizer" };
    char kept[PATH_MAX + 16];
    for (size_t i = 0; i < w->beside.n; i++)
        if (!strcmp(w->beside.v[i], name)) return moe_small_folder(name) != NULL;
    if (w->src->kind == MOE_CHECKPOINT) return false;
    for (int i = 0; i < 2; i++) {
        snprintf(kept, sizeof kept, "%s/%s", folders[i], name);
        if (moe_container_lists(w->src, kept)) return true;
    }
    return false;
}

/* Whether an export of src writes a file of this name, complete or as a temporary. */
static bool is_written(const struct written *w, const char *name)
{
    static const char *const always[] = { "config.json", "hf_quant_config.json", MOE_INDEX_NAME, NULL };
    if (recorded(w, MOE_ORIGINAL_FILE, name)) return true;
    if (strchr(name, '/')) return false;
    for (int i = 0; always[i]; i++)
        if (!strcmp(name, always[i])) return true;
    return is_small(w, name) || moe_newfile_is_temporary(name) || !strcmp(name, MOE_NEWDIR_MARK) ||
        is_weights(w, name);
}

/* Whether it is a NAME.tmp that an older version left, which wrote this before NAME. */
static bool is_left(const struct written *w, const char *name)
{
    char whole[PATH_MAX];
    size_t n = strlen(name);
    if (!w->unfinished || !moe_ends_with(name, ".tmp")) return false;
    snprintf(whole, sizeof whole, "%.*s", (int)(n - 4), name);
    return is_written(w, whole);
}

/* *is: whether the directory `name` is the container, complete or begun, of an export in one pass. */
static enum moe_code look_at_inner(const struct written *w, const char *name, bool *is, struct moe_err *err)
{
    char path[PATH_MAX];
    *is = w->inner && (!strcmp(name, MOE_EXPORT_INNER "/") || !strcmp(name, MOE_EXPORT_INNER ".partial/"));
    if (!*is) return MOE_OK;
    MOE_TRY(moe_path_join(path, sizeof path, w->path, name, err));
    return moe_container_unfinished(path, NULL, err);
}

/* MOE_EXISTS for the first file or directory that an export of src does not write.  under: "" for the
 * directory itself, "docs/" for one in it. */
static enum moe_code all_written(const struct written *w, const char *under, struct moe_err *err)
{
    char path[PATH_MAX], name[PATH_MAX];
    struct moe_names names;

    MOE_TRY(moe_path_join(path, sizeof path, w->path, under, err));
    enum moe_code code = moe_list_dir(path, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        enum moe_exists there = MOE_ABSENT;
        bool inner = false;
        snprintf(name, sizeof name, "%s%s", under, names.v[i]); /* a name cut off here matches none below */
        code = moe_path_join(path, sizeof path, w->path, name, err);
        if (code == MOE_OK) code = moe_look(path, &there, err);
        if (code != MOE_OK) break;
        if (there == MOE_DIR) snprintf(name, sizeof name, "%s%s/", under, names.v[i]);
        if (there == MOE_DIR) code = look_at_inner(w, name, &inner, err);
        if (code != MOE_OK || inner) continue;
        bool is = there == MOE_DIR ? is_folder(w, name) : is_written(w, name) || is_left(w, name);
        code = !is ? not_written(w, name, err) : there == MOE_DIR ? all_written(w, name, err) : MOE_OK;
    }
    moe_names_release(&names);
    return code;
}

static enum moe_code read_written(struct written *w, struct moe_err *err)
{
    char path[PATH_MAX];
    size_t n;
    enum moe_exists there;
    MOE_TRY(moe_path_join(path, sizeof path, w->path, MOE_INDEX_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_FILE) MOE_TRY(moe_read_file(path, (size_t)1 << 30, &w->index, &n, err));
    if (w->src->kind == MOE_CHECKPOINT) return moe_list_dir(w->src->path, &w->beside, err);
    enum moe_code code = moe_container_read_file(w->src, MOE_ORIGINAL_NAME, &w->rest_text, &n, err);
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    return moe_originals_parse(w->rest_text, n, MOE_ORIGINAL_NAME, &w->rest, err);
}

/* MOE_EXISTS unless `path` is an empty directory, or has what every checkpoint has: a config and weights. */
static enum moe_code is_checkpoint(const char *path, bool *empty, struct moe_err *err)
{
    bool config = false, weights = false;
    enum moe_exists there;
    struct moe_names names = { 0 };

    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) MOE_TRY(moe_list_dir(path, &names, err));
    *empty = there == MOE_DIR && !names.n;
    for (size_t i = 0; i < names.n; i++) {
        config |= !strcmp(names.v[i], "config.json");
        weights |= moe_ends_with(names.v[i], ".safetensors");
    }
    moe_names_release(&names);
    if (*empty || (config && weights)) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, path, NULL,
                       "already exists and is not a checkpoint (choose another name with -o)");
}

/* MOE_EXISTS unless all files in `path` have names that an export of the container has. */
static enum moe_code only_its_names(const char *path, const struct moe_export_dir *e, bool unfinished,
                                    bool inner, struct moe_err *err)
{
    struct written w = { .path = path, .src = e->src, .unfinished = unfinished, .inner = inner };
    enum moe_code code = read_written(&w, err);
    if (code == MOE_OK) code = all_written(&w, "", err);
    moe_names_release(&w.beside);
    moe_originals_release(&w.rest);
    free(w.rest_text);
    free(w.index);
    return code;
}

/* The same, and unless `path` is a checkpoint or empty. */
static enum moe_code has_its_names(const char *path, const struct moe_export_dir *e, bool inner, bool *empty,
                                   struct moe_err *err)
{
    MOE_TRY(is_checkpoint(path, empty, err));
    return *empty ? MOE_OK : only_its_names(path, e, false, inner, err);
}

/* Of a published directory it must also be proved that this tool made it. */
static enum moe_code replaceable(const char *path, const void *with, struct moe_err *err)
{
    const struct moe_export_dir *e = with;
    bool empty;
    MOE_TRY(has_its_names(path, e, false, &empty, err));
    return empty ? MOE_OK : moe_export_state_check(path, e->src, e->proof, e->cancel, err);
}

/* A complete .partial directory needs no such proof: it has the mark of this tool's unfinished work. */
static enum moe_code waiting(const char *path, const void *with, struct moe_err *err)
{
    bool empty;
    return has_its_names(path, with, true, &empty, err);
}

static enum moe_code unfinished(const char *path, const void *with, struct moe_err *err)
{
    return only_its_names(path, with, true, true, err);
}

/* ---- begin and end ---- */

void moe_export_dir_work(const struct moe_source *src, const char *options, char work[MOE_WORK_BYTES])
{
    const cJSON *sum = moe_json_get(src->container->manifest, "checksum");
    snprintf(work, MOE_WORK_BYTES, "moe " MOE_VERSION " %s of %.32s", options, sum->valuestring);
}

/* The work line of this export. */
static void name_work(const struct moe_export_dir *e, char work[MOE_WORK_BYTES])
{
    if (e->work) snprintf(work, MOE_WORK_BYTES, "%s", e->work);
    else moe_export_dir_work(e->src, e->options, work);
}

/* Decides about what stands at d->final: MOE_OK when it may be replaced, or when this same work made it; then
 * d->whole is set. */
static enum moe_code look_at_final(struct moe_newdir *d, const struct moe_export_dir *e, const char *work,
                                   struct moe_err *err)
{
    bool resume = e->mode == MOE_WRITE_RESUME;
    if (!resume) MOE_TRY(moe_no_link(d->final, "directory", err));
    MOE_TRY(replaceable(d->final, e, err));
    if (e->mode == MOE_WRITE_FORCE || (resume && moe_newdir_resumes(d))) return MOE_OK;
    if (resume && e->work) MOE_TRY(moe_export_command_is(d->final, work, &d->whole, err));
    else if (resume) MOE_TRY(moe_export_state_is(d->final, work, &d->whole, err));
    if (d->whole) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, d->final, NULL, "already exists (replace it with --force)");
}

/* What becomes of what an earlier run left. */
static enum moe_leftover_policy policy_of(const struct moe_export_dir *e)
{
    return e->work && e->mode == MOE_WRITE_RESUME ? MOE_LEFTOVER_CONTINUE : moe_leftover_of(e->mode);
}

enum moe_code moe_export_dir_begin(struct moe_newdir *d, const struct moe_export_dir *e, const char *out,
                                   struct moe_err *err)
{
    char work[MOE_WORK_BYTES];
    enum moe_exists there;
    name_work(e, work);
    MOE_TRY(moe_newdir_name(d, out, err));
    MOE_TRY(moe_look(d->final, &there, err));
    if (there != MOE_ABSENT) MOE_TRY(look_at_final(d, e, work, err));
    const struct moe_newdir_kind export = { waiting, e, work, unfinished };
    if (d->whole) return moe_newdir_drop(d, &export, err);
    MOE_TRY(moe_source_check_overlap(e->src, out, err));
    return moe_newdir_begin(d, out, &export, policy_of(e), err);
}

enum moe_code moe_export_dir_complete(struct moe_newdir *d, const struct moe_export_dir *e,
                                      const char *export_work, struct moe_err *err)
{
    MOE_TRY(moe_export_state_put(d->path, d->lock, export_work, err));
    moe_made_command_put(d->lock, e->work);
    MOE_TRY(moe_newdir_whole(d, err));
    d->keep = true;
    return MOE_OK;
}

static enum moe_code drop_inner(const struct moe_newdir *d, struct moe_err *err)
{
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, d->path, MOE_EXPORT_INNER, err));
    return moe_remove_tree(path, err);
}

static enum moe_code put_state(const struct moe_newdir *d, const struct moe_export_dir *e,
                               struct moe_err *err)
{
    char work[MOE_WORK_BYTES];
    moe_export_dir_work(e->src, e->options, work);
    MOE_TRY(moe_source_check_unmodified(e->src, err));
    return moe_export_state_put(d->path, d->lock, work, err);
}

/* An export in one pass has set its lines already, in moe_export_dir_complete. */
static enum moe_code publish(struct moe_newdir *d, const struct moe_export_dir *e, struct moe_err *err)
{
    const struct moe_newdir_kind export = { .look = replaceable, .with = e };
    bool may;
    if (e->work) MOE_TRY(drop_inner(d, err));
    else MOE_TRY(put_state(d, e, err));
    MOE_TRY(moe_newdir_may_replace(d, &may, err));
    return moe_newdir_publish(d, may ? &export : NULL, err);
}

enum moe_code moe_export_dir_end(struct moe_newdir *d, const struct moe_export_dir *e, enum moe_code code,
                                 struct moe_err *err)
{
    bool has_name = d->whole && d->lock < 0;
    if (code == MOE_OK && !has_name) code = publish(d, e, err);
    if (!d->keep)
        moe_cancel_left(code, err, "nothing was finished yet%s",
                        e->work ? "" : " (an export is a copy, and starts over)");
    moe_newdir_end(d);
    return code;
}

/* ---- small files ---- */

static bool listed(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name)) list++;
    return *list;
}

/* Whether `file` is the module.py of an auto_map's value "repository--module.Class" or "module.Class". */
static bool is_module(const char *file, const char *value)
{
    const char *from = strstr(value, "--"), *module = from ? from + 2 : value;
    const char *dot = strchr(module, '.');
    size_t n = dot ? (size_t)(dot - module) : 0;
    return n && !strncmp(file, module, n) && !strcmp(file + n, ".py");
}

static bool names_code(const cJSON *config, const char *file)
{
    const cJSON *map = moe_json_get(config, "auto_map");
    bool named = false;
    for (const cJSON *v = map ? map->child : NULL; v && !named; v = v->next) {
        if (cJSON_IsString(v)) named = is_module(file, v->valuestring);
        for (const cJSON *i = cJSON_IsArray(v) ? v->child : NULL; i && !named; i = i->next)
            named = cJSON_IsString(i) && is_module(file, i->valuestring);
    }
    return named;
}

/* Sets *named when the container has the JSON file `config` and that names `file` as its code. */
static enum moe_code config_names(const struct moe_source *src, const char *config, const char *file,
                                  bool *named, struct moe_err *err)
{
    char *text;
    size_t n;
    cJSON *root;

    if (!moe_container_lists(src, config)) return MOE_OK;
    MOE_TRY(moe_container_read_file(src, config, &text, &n, err));
    struct moe_err broken; /* a file that is no JSON names nothing */
    enum moe_code code = moe_json_parse(text, n, config, &root, &broken);
    free(text);
    if (code == MOE_NOMEM) return moe_fail_at(err, code, config, NULL, "no memory to read it");
    if (code != MOE_OK) return MOE_OK;
    *named |= names_code(root, file);
    cJSON_Delete(root);
    return MOE_OK;
}

/* *images: whether a small file serves images alone.  This is a configuration of image processing, or code
 * that such a configuration names and the tokenizer's does not. */
static enum moe_code for_images(const struct moe_source *src, const char *file, bool *images,
                                struct moe_err *err)
{
    bool text = false;
    *images = moe_is_vision_file(file);
    if (*images || !moe_ends_with(file, ".py")) return MOE_OK;
    const char *config;
    for (int i = 0; (config = moe_vision_file(i)); i++) {
        char name[64];
        snprintf(name, sizeof name, "hf/%s", config);
        MOE_TRY(config_names(src, name, file, images, err));
    }
    if (*images) MOE_TRY(config_names(src, "tokenizer/tokenizer_config.json", file, &text, err));
    *images &= !text;
    return MOE_OK;
}

enum moe_code moe_export_small_files(const struct moe_source *src, const char *dir, const char *const *except,
                                     bool vision, struct moe_err *err)
{
    const cJSON *files = moe_json_get(src->container->manifest, "files");

    for (const cJSON *f = files ? files->child : NULL; f; f = f->next) {
        char to[PATH_MAX];
        const cJSON *name = moe_json_get(f, "name");
        const char *base = cJSON_IsString(name) ? strchr(name->valuestring, '/') : NULL;
        char *data;
        size_t n;
        bool images = false;
        if (!base || !moe_plain_name(base + 1) || listed(base + 1, except)) continue;
        if (!vision) MOE_TRY(for_images(src, base + 1, &images, err));
        if (images) continue;
        MOE_TRY(moe_path_join(to, sizeof to, dir, base + 1, err));
        MOE_TRY(moe_container_read_file(src, name->valuestring, &data, &n, err));
        enum moe_code code = moe_write_file(to, data, n, err);
        free(data);
        MOE_TRY(code);
    }
    return MOE_OK;
}
