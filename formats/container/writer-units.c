/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's units with their journals, and its other files. */
#include "base/grow.h"
#include "formats/container/writer-internal.h"

#include "base/io.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- units of an earlier run ---- */

enum moe_code moe_writer_unit_file(const struct moe_writer *w, const char *unit, const char *suffix,
                                   char *out, struct moe_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", unit, suffix);
    return moe_path_join(out, PATH_MAX, w->dir, name, err);
}

static int by_unit(const void *a, const void *b)
{
    const struct moe_unit_done *x = a, *y = b;
    return moe_unit_name_compare(x->name, y->name);
}

static enum moe_code add_unit(struct moe_writer *w, const struct moe_unit_done *u, struct moe_err *err)
{
    if (!MOE_GROW(w->units, w->cap_units, w->n_units + 1)) return moe_writer_no_memory(w, err);
    w->units[w->n_units++] = *u;
    return MOE_OK;
}

static enum moe_code shard_is(const char *path, uint64_t bytes, struct moe_hash128 digest, bool *same,
                              struct moe_err *err)
{
    int fd;
    uint64_t size;
    unsigned char *head = NULL;
    size_t n;
    *same = false;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = size == bytes ? moe_shard_read_head(fd, path, size, &head, &n, err) : MOE_OK;
    if (head) *same = moe_same128(moe_hash128(head, n), digest);
    free(head);
    close(fd);
    return code;
}

/* Load a unit if its journal is intact and belongs to this work, and its shard is the one that the journal
 * describes; otherwise the unit is written again.  Fails only when out of memory or when a file cannot be
 * read. */
static enum moe_code load_unit(struct moe_writer *w, const char *name, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_err e;
    struct moe_unit_done u = { .bytes = 0 };
    cJSON *j;
    int64_t bytes;
    const char *unit, *key, *hex;
    snprintf(u.name, sizeof u.name, "%s", name);
    MOE_TRY(moe_writer_unit_file(w, name, ".json", path, err));
    enum moe_code code = moe_json_open_sealed(path, &j, &e);
    if (code != MOE_OK) return moe_writer_is_fatal(code) ? (*err = e, code) : MOE_OK;
    bool ok = !moe_json_str(j, "unit", true, &unit, path, &e) &&
              !moe_json_str(j, "state", true, &key, path, &e) &&
              !moe_json_i64(j, "bytes", true, 0, (int64_t)1 << 53, &bytes, path, &e) &&
              !moe_json_str(j, "xxh3_128", true, &hex, path, &e) && !strcmp(unit, name) &&
              !strcmp(key, w->key) && moe_parse_hex128(hex, &u.digest);
    if (ok) {
        u.bytes = (uint64_t)bytes;
        code = moe_writer_unit_file(w, name, ".moe", path, &e);
        if (code == MOE_OK) code = shard_is(path, u.bytes, u.digest, &ok, &e);
        if (moe_writer_is_fatal(code)) {
            cJSON_Delete(j);
            return *err = e, code;
        }
        code = MOE_OK;
    }
    if (ok) {
        u.report = cJSON_DetachItemFromObjectCaseSensitive(j, "report");
        code = add_unit(w, &u, err);
        if (code != MOE_OK) cJSON_Delete(u.report);
    }
    cJSON_Delete(j);
    return code;
}

enum moe_code moe_writer_load_units(struct moe_writer *w, struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(w->dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        char name[32];
        size_t n = strlen(names.v[i]);
        if (n < 6 || n > 20 || strcmp(names.v[i] + n - 5, ".json") || !moe_is_unit_name(names.v[i], n - 5))
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(n - 5), names.v[i]);
        code = load_unit(w, name, err);
    }
    moe_names_release(&names);
    if (w->n_units) qsort(w->units, w->n_units, sizeof *w->units, by_unit);
    return code;
}

bool moe_writer_has_unit(const struct moe_writer *w, const char *unit)
{
    for (size_t i = 0; i < w->n_units; i++)
        if (!strcmp(w->units[i].name, unit)) return true;
    return false;
}

enum moe_code moe_writer_unit_path(const struct moe_writer *w, const char *unit, char *out, size_t cap,
                                   struct moe_err *err)
{
    char name[64];
    MOE_CHECK(moe_is_unit_name(unit, strlen(unit)));
    snprintf(name, sizeof name, "%s.moe.tmp", unit);
    return moe_path_join(out, cap, w->dir, name, err);
}

/* ---- committing ---- */

static void check_elements(const cJSON *source)
{
    for (const cJSON *e = source ? source->child : NULL; e; e = e->next)
        MOE_CHECK(cJSON_GetArraySize(e) == 8 && cJSON_IsNumber(cJSON_GetArrayItem(e, 7)));
}

static char *journal_text(const struct moe_writer *w, const struct moe_unit_done *u, const cJSON *source,
                          const cJSON *report)
{
    char hex[33];
    moe_hex128(u->digest, hex);
    cJSON *j = cJSON_CreateObject();
    bool ok = j && moe_json_add_str(j, "format", "moe-journal") &&
              moe_json_add_str(j, "unit", u->name) && moe_json_add_str(j, "state", w->key) &&
              moe_json_add_f64(j, "bytes", (double)u->bytes) &&
              moe_json_add_str(j, "xxh3_128", hex);
    if (ok && report) ok = moe_json_add(j, "report", moe_json_ref(report)); /* nothing large is copied */
    if (ok && source) ok = moe_json_add(j, "source", moe_json_ref(source));
    char *text = ok ? moe_json_seal(j, 0) : NULL;
    cJSON_Delete(j);
    return text;
}

enum moe_code moe_writer_commit_unit(struct moe_writer *w, const char *unit, uint64_t bytes,
                                     struct moe_hash128 digest, const cJSON *source, const cJSON *report,
                                     struct moe_err *err)
{
    char tmp[PATH_MAX], path[PATH_MAX], journal[PATH_MAX];
    struct moe_unit_done u = { .bytes = bytes, .digest = digest };
    MOE_CHECK(moe_is_unit_name(unit, strlen(unit)) && !moe_writer_has_unit(w, unit));
    check_elements(source);
    snprintf(u.name, sizeof u.name, "%s", unit);
    MOE_TRY(moe_writer_unit_path(w, unit, tmp, sizeof tmp, err));
    MOE_TRY(moe_writer_unit_file(w, unit, ".moe", path, err));
    MOE_TRY(moe_writer_unit_file(w, unit, ".json", journal, err));
    MOE_TRY(moe_fd_is_path_check(w->out.lock, w->dir, err));
    MOE_TRY(moe_rename(tmp, path, err));
    char *text = journal_text(w, &u, source, report);
    if (!text) return moe_writer_no_memory(w, err);
    enum moe_code code = moe_write_file(journal, text, strlen(text), err);
    free(text);
    MOE_TRY(code);
    if (report && !(u.report = cJSON_Duplicate(report, true))) return moe_writer_no_memory(w, err);
    code = add_unit(w, &u, err);
    if (code != MOE_OK) cJSON_Delete(u.report);
    else qsort(w->units, w->n_units, sizeof *w->units, by_unit);
    return code;
}

enum moe_code moe_writer_unit_source(const struct moe_writer *w, const char *unit, cJSON **source,
                                     struct moe_err *err)
{
    char path[PATH_MAX];
    cJSON *j;
    *source = NULL;
    MOE_TRY(moe_writer_unit_file(w, unit, ".json", path, err));
    MOE_TRY(moe_json_open_sealed(path, &j, err));
    *source = cJSON_DetachItemFromObjectCaseSensitive(j, "source");
    cJSON_Delete(j);
    return MOE_OK;
}

cJSON *moe_writer_reports(struct moe_writer *w, struct moe_err *err)
{
    cJSON *all = cJSON_CreateArray();
    bool ok = all != NULL;
    for (size_t i = 0; ok && i < w->n_units; i++) {
        cJSON *one = moe_json_append(all, cJSON_CreateObject()),
              *r = w->units[i].report ? cJSON_Duplicate(w->units[i].report, true) : cJSON_CreateNull();
        ok = moe_json_add_str(one, "unit", w->units[i].name);
        ok = moe_json_add(one, "report", r) && ok;
    }
    if (ok) return all;
    cJSON_Delete(all);
    moe_writer_no_memory(w, err);
    return NULL;
}

/* ---- other files ---- */

enum moe_code moe_writer_list_file(struct moe_writer *w, const char *name, uint64_t bytes,
                                   struct moe_hash128 digest, struct moe_err *err)
{
    for (size_t i = 0; i < w->n_files; i++)
        if (!strcmp(w->files[i].name, name))
            return w->files[i].bytes = bytes, w->files[i].digest = digest, MOE_OK;
    char *copy = MOE_GROW(w->files, w->cap_files, w->n_files + 1) ? strdup(name) : NULL;
    if (!copy) return moe_writer_no_memory(w, err);
    w->files[w->n_files++] = (struct moe_file_done){ copy, bytes, digest };
    return MOE_OK;
}

enum moe_code moe_writer_add_file(struct moe_writer *w, const char *name, const void *data, size_t bytes,
                                  struct moe_err *err)
{
    char path[PATH_MAX];
    if (!moe_container_name_allowed(name) || moe_is_shard_name(name))
        return moe_fail_at(err, MOE_UNSUPPORTED, w->dir, NULL,
                           "a file named '%s' cannot be kept in a container", name);
    const char *slash = strchr(name, '/');
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, name, err));
    if (slash) {
        char folder[PATH_MAX];
        snprintf(folder, sizeof folder, "%.*s", (int)(strlen(path) - strlen(slash)), path);
        MOE_TRY(moe_mkdir(folder, err));
    }
    MOE_TRY(moe_write_file(path, data, bytes, err));
    return moe_writer_list_file(w, name, bytes, moe_hash128(data, bytes), err);
}

enum moe_code moe_writer_adopt_file(struct moe_writer *w, const char *name, struct moe_err *err)
{
    char path[PATH_MAX];
    uint64_t bytes;
    struct moe_hash128 digest;
    MOE_CHECK(moe_container_name_allowed(name) && !moe_is_shard_name(name));
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, name, err));
    MOE_TRY(moe_file_digest(path, &bytes, &digest, err));
    return moe_writer_list_file(w, name, bytes, digest, err);
}
