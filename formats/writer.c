/* NAME.moe.partial/: units and their journals, and how it becomes NAME.moe. */
#include "formats/container-internal.h"

#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct unit { char name[32]; uint64_t bytes; struct moe_hash128 digest; cJSON *report; };
struct file { char *name; uint64_t bytes; struct moe_hash128 digest; };

struct moe_writer {
    char *final, *dir, *state;   /* state: the text of state.json */
    char key[17];                /* its hash: binds a journal to it */
    int lock;
    bool fresh, replace;         /* started here; a container may stand under the final name */
    cJSON *options;
    struct moe_work work;
    struct unit *units;  size_t n_units;
    struct file *files;  size_t n_files;
};

static enum moe_code no_memory(const struct moe_writer *w, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, w->dir, NULL, "no memory to write it");
}

static void writer_free(struct moe_writer *w)
{
    for (size_t i = 0; i < w->n_units; i++) cJSON_Delete(w->units[i].report);
    for (size_t i = 0; i < w->n_files; i++) free(w->files[i].name);
    moe_unlock(w->lock);
    cJSON_Delete(w->options);
    free(w->units);
    free(w->files);
    free(w->final);
    free(w->dir);
    free(w->state);
    free(w);
}

/* ---- units ---- */

static bool is_unit_name(const char *s, size_t n)
{
    if (n == 5 && !memcmp(s, "dense", 5)) return true;
    if (n < 7 || n > 15 || memcmp(s, "layer-", 6)) return false;
    for (size_t i = 6; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return true;
}

static enum moe_code unit_file(const struct moe_writer *w, const char *unit, const char *suffix, char out[PATH_MAX], struct moe_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", unit, suffix);
    return moe_path_join(out, PATH_MAX, w->dir, name, err);
}

/* dense, then layers by number. */
static int by_unit(const void *a, const void *b)
{
    const struct unit *x = a, *y = b;
    size_t n = strlen(x->name), m = strlen(y->name);
    return n != m ? (n > m) - (n < m) : strcmp(x->name, y->name);
}

static enum moe_code add_unit(struct moe_writer *w, const struct unit *u, struct moe_err *err)
{
    struct unit *p = realloc(w->units, (w->n_units + 1) * sizeof *p);
    if (!p) return no_memory(w, err);
    w->units = p;
    p[w->n_units++] = *u;
    return MOE_OK;
}

static bool shard_is(const char *path, uint64_t bytes, struct moe_hash128 digest)
{
    struct moe_err e;
    int fd;
    uint64_t size;
    unsigned char *head;
    size_t n;
    if (moe_open_read(path, &fd, &size, &e) != MOE_OK) return false;
    bool same = size == bytes && moe_shard_read_head(fd, path, size, &head, &n, &e) == MOE_OK;
    if (same) {
        same = moe_same128(moe_hash128(head, n), digest);
        free(head);
    }
    close(fd);
    return same;
}

/* A unit counts when its journal is whole, belongs to this work, and its shard is the one the journal speaks of; else it is
 * done again.  Fails only without memory. */
static enum moe_code load_unit(struct moe_writer *w, const char *name, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_err e;
    struct unit u = { .bytes = 0 };
    cJSON *j;
    int64_t bytes;
    const char *unit, *key, *hex;
    snprintf(u.name, sizeof u.name, "%s", name);
    MOE_TRY(unit_file(w, name, ".json", path, err));
    if (moe_json_open_sealed(path, &j, &e) != MOE_OK) return MOE_OK;
    bool ok = !moe_json_str(j, "unit", true, &unit, path, &e) && !moe_json_str(j, "state", true, &key, path, &e) &&
              !moe_json_i64(j, "bytes", true, 0, (int64_t)1 << 53, &bytes, path, &e) &&
              !moe_json_str(j, "xxh3_128", true, &hex, path, &e) && !strcmp(unit, name) && !strcmp(key, w->key) &&
              moe_parse_hex128(hex, &u.digest);
    if (ok) {
        u.bytes = (uint64_t)bytes;
        ok = !unit_file(w, name, ".moe", path, &e) && shard_is(path, u.bytes, u.digest);
    }
    enum moe_code code = MOE_OK;
    if (ok) {
        u.report = cJSON_DetachItemFromObjectCaseSensitive(j, "report");
        code = add_unit(w, &u, err);
        if (code != MOE_OK) cJSON_Delete(u.report);
    }
    cJSON_Delete(j);
    return code;
}

static enum moe_code load_units(struct moe_writer *w, struct moe_err *err)
{
    DIR *d = opendir(w->dir);
    enum moe_code code = MOE_OK;
    if (!d) return moe_fail_errno(err, errno, w->dir, "cannot list");
    for (struct dirent *e; code == MOE_OK && (e = readdir(d)); ) {
        char name[32];
        size_t n = strlen(e->d_name);
        if (n < 6 || n > 20 || strcmp(e->d_name + n - 5, ".json") || !is_unit_name(e->d_name, n - 5)) continue;
        snprintf(name, sizeof name, "%.*s", (int)(n - 5), e->d_name);
        code = load_unit(w, name, err);
    }
    closedir(d);
    if (w->n_units) qsort(w->units, w->n_units, sizeof *w->units, by_unit);
    return code;
}

/* ---- opening ---- */

static enum moe_code start(struct moe_writer *w, struct moe_err *err)
{
    char path[PATH_MAX];
    w->fresh = true;
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_STATE_NAME, err));
    /* First the new state, then the old files go: whatever is left of them is not bound to it by its journal. */
    MOE_TRY(moe_write_file(path, w->state, strlen(w->state), err));
    return moe_dir_clear(w->dir, MOE_STATE_NAME, NULL, err);
}

/* The directory is whole and its manifest durable: drop what is not listed, state.json last, and take the final name. */
static enum moe_code settle(struct moe_writer *w, const cJSON *manifest, struct moe_err *err)
{
    int old = -1;
    MOE_TRY(moe_dir_clear(w->dir, MOE_STATE_NAME, manifest, err));
    MOE_TRY(moe_dir_clear(w->dir, NULL, manifest, err));
    MOE_TRY(moe_fsync_path(w->dir, err));
    switch (moe_final_look(w->final)) {
    case MOE_FINAL_ABSENT: return moe_rename(w->dir, w->final, err);
    case MOE_FINAL_CONTAINER:
        if (w->replace) break;
        /* fall through */
    default: return moe_fail_at(err, MOE_EXISTS, w->final, NULL, "it appeared while this was written (move it away and use --resume)");
    }
    MOE_TRY(moe_lock_dir(w->final, &old, err));
    enum moe_code code = moe_exchange(w->dir, w->final, err);
    if (code == MOE_OK) code = moe_remove_tree(w->dir, err);
    moe_unlock(old);
    return code;
}

/* An earlier run that ended between its manifest and its new name. */
static enum moe_code settle_pending(struct moe_writer *w, bool *done, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_err e;
    cJSON *m;
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    if (moe_exists(path) == MOE_ABSENT) return MOE_OK;
    enum moe_code code = MOE_OK;
    if (moe_manifest_read(w->dir, &m, &e) == MOE_OK) {
        if (moe_manifest_compare(w->dir, m, &w->work, &e) == MOE_OK && moe_manifest_check_files(w->dir, m, &e) == MOE_OK) {
            code = settle(w, m, err);
            *done = code == MOE_OK;
        }
        cJSON_Delete(m);
    }
    return code;
}

static enum moe_code go_on(struct moe_writer *w, bool *done, struct moe_err *err)
{
    char path[PATH_MAX];
    bool has_state = moe_partial_look(w->dir) == MOE_PARTIAL_STATE;
    if (has_state) MOE_TRY(moe_state_compare(w->dir, &w->work, err));
    MOE_TRY(settle_pending(w, done, err));
    if (*done) return MOE_OK;
    if (!has_state)
        return moe_fail_at(err, MOE_MISMATCH, w->dir, NULL, "it does not say what it was made from (start over with --force)");
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_remove_tree(path, err));
    return load_units(w, err);
}

/* Lock the partial directory, creating it; *gone when it was renamed or removed under us. */
static enum moe_code lock(struct moe_writer *w, bool *created, bool *gone, struct moe_err *err)
{
    struct stat a, b;
    *created = moe_exists(w->dir) == MOE_ABSENT;
    MOE_TRY(moe_mkdir(w->dir, err));
    enum moe_code code = moe_lock_dir(w->dir, &w->lock, err);
    *gone = code == MOE_NOT_FOUND || (code == MOE_OK && (fstat(w->lock, &a) || stat(w->dir, &b) || a.st_ino != b.st_ino || a.st_dev != b.st_dev));
    if (!*gone) return code;
    moe_unlock(w->lock);
    w->lock = -1;
    return MOE_OK;
}

/* Under --resume, a container under the final name: is it what this run would write? */
static enum moe_code final_compare(const struct moe_writer *w, struct moe_err *err)
{
    cJSON *m;
    MOE_TRY(moe_manifest_read(w->final, &m, err));
    enum moe_code code = moe_manifest_compare(w->final, m, &w->work, err);
    if (code == MOE_OK && (code = moe_manifest_check_files(w->final, m, err)) != MOE_OK && code != MOE_NOMEM)
        moe_wrap(err, "'%s' is damaged (write it again with --force)", w->final);
    cJSON_Delete(m);
    return code;
}

/* The container is done: what an earlier run left beside it goes, when it is no other work. */
static enum moe_code drop_leftover(struct moe_writer *w, struct moe_err *err)
{
    struct moe_err e;
    if (moe_exists(w->dir) != MOE_DIR) return MOE_OK;
    MOE_TRY(moe_lock_dir(w->dir, &w->lock, err));
    enum moe_partial p = moe_partial_look(w->dir);
    if (p == MOE_PARTIAL_FOREIGN || (p == MOE_PARTIAL_STATE && moe_state_compare(w->dir, &w->work, &e) != MOE_OK)) return MOE_OK;
    return moe_remove_tree(w->dir, err);
}

static enum moe_code open_locked(struct moe_writer *w, enum moe_write_mode mode, enum moe_final final, const struct moe_err *differs,
                                 bool *done, struct moe_err *err)
{
    switch (moe_partial_look(w->dir)) {
    case MOE_PARTIAL_FOREIGN:
        return moe_fail_at(err, MOE_EXISTS, w->dir, NULL, "it holds files that are not a container's (choose another name with -o)");
    case MOE_PARTIAL_FRESH:
        if (mode == MOE_WRITE_RESUME && final == MOE_FINAL_CONTAINER) return *err = *differs, err->code;
        return start(w, err);
    default:
        if (mode == MOE_WRITE_FORCE) return start(w, err);
        if (mode == MOE_WRITE_RESUME) return go_on(w, done, err);
        return moe_fail_at(err, MOE_EXISTS, w->dir, NULL, "unfinished work is there (go on with --resume, start over with --force)");
    }
}

static enum moe_code try_open(struct moe_writer *w, enum moe_write_mode mode, bool *done, bool *again, struct moe_err *err)
{
    struct moe_err differs = MOE_ERR_INIT;
    bool created;
    enum moe_final final = moe_final_look(w->final);
    if (final == MOE_FINAL_FOREIGN)
        return moe_fail_at(err, MOE_EXISTS, w->final, NULL, "it exists and is not a container (choose another name with -o)");
    if (final == MOE_FINAL_CONTAINER && mode == MOE_WRITE_PLAIN)
        return moe_fail_at(err, MOE_EXISTS, w->final, NULL, "it exists (replace it with --force)");
    if (final == MOE_FINAL_CONTAINER && mode == MOE_WRITE_RESUME && final_compare(w, &differs) == MOE_OK) {
        *done = true;
        return drop_leftover(w, err);
    }
    MOE_TRY(lock(w, &created, again, err));
    if (*again) return MOE_OK;
    enum moe_code code = open_locked(w, mode, final, &differs, done, err);
    if (code != MOE_OK && created) rmdir(w->dir);
    return code;
}

static bool init(struct moe_writer *w, const char *out, enum moe_write_mode mode, const cJSON *options, uint64_t identity, uint64_t origin)
{
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    w->lock = -1;
    w->replace = mode != MOE_WRITE_PLAIN;
    w->final = strndup(out, n);
    w->options = options ? cJSON_Duplicate(options, true) : cJSON_CreateObject();
    w->work = (struct moe_work){ w->options, identity, origin };
    if (asprintf(&w->dir, "%.*s.partial", (int)n, out) < 0) w->dir = NULL;
    if (!w->final || !w->dir || !w->options || !(w->state = moe_state_text(&w->work))) return false;
    moe_hex64(moe_hash64(w->state, strlen(w->state)), w->key);
    return true;
}

enum moe_code moe_writer_open(struct moe_writer **out, const char *path, enum moe_write_mode mode, const cJSON *options,
                              uint64_t identity, uint64_t origin, bool *done, struct moe_err *err)
{
    *out = NULL;
    *done = false;
    struct moe_writer *w = calloc(1, sizeof *w);
    if (!w) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    enum moe_code code = init(w, path, mode, options, identity, origin) ? MOE_OK : no_memory(w, err);
    bool again = true;
    for (int tries = 0; code == MOE_OK && again && tries < 5; tries++) again = false, code = try_open(w, mode, done, &again, err);
    if (code == MOE_OK && again) code = moe_fail_at(err, MOE_EXISTS, w->dir, NULL, "another process is writing it (wait for it, or stop it)");
    if (code != MOE_OK || *done) writer_free(w);
    else *out = w;
    return code;
}

void moe_writer_close(struct moe_writer **out)
{
    struct moe_writer *w = *out;
    struct moe_err e;
    if (!w) return;
    if (!w->n_units && w->fresh) moe_remove_tree(w->dir, &e); /* nothing was finished: nothing to go on from */
    writer_free(w);
    *out = NULL;
}

const char *moe_writer_dir(const struct moe_writer *w) { return w->dir; }

bool moe_writer_has_unit(const struct moe_writer *w, const char *unit)
{
    for (size_t i = 0; i < w->n_units; i++)
        if (!strcmp(w->units[i].name, unit)) return true;
    return false;
}

enum moe_code moe_writer_unit_path(const struct moe_writer *w, const char *unit, char *out, size_t cap, struct moe_err *err)
{
    char name[64];
    MOE_CHECK(is_unit_name(unit, strlen(unit)));
    snprintf(name, sizeof name, "%s.moe.tmp", unit);
    return moe_path_join(out, cap, w->dir, name, err);
}

/* ---- committing ---- */

static void check_elements(const cJSON *source)
{
    for (const cJSON *e = source ? source->child : NULL; e; e = e->next)
        MOE_CHECK(cJSON_GetArraySize(e) == 8 && cJSON_IsNumber(cJSON_GetArrayItem(e, 7)));
}

static char *journal_text(const struct moe_writer *w, const struct unit *u, const cJSON *source, const cJSON *report)
{
    char hex[33];
    moe_hex128(u->digest, hex);
    cJSON *j = cJSON_CreateObject();
    bool ok = j && cJSON_AddStringToObject(j, "format", "moe-journal") && cJSON_AddStringToObject(j, "unit", u->name) &&
              cJSON_AddStringToObject(j, "state", w->key) && cJSON_AddNumberToObject(j, "bytes", (double)u->bytes) &&
              cJSON_AddStringToObject(j, "xxh3_128", hex);
    /* References: nothing large is copied. */
    if (ok && report) ok = cJSON_AddItemReferenceToObject(j, "report", (cJSON *)(uintptr_t)report);
    if (ok && source) ok = cJSON_AddItemReferenceToObject(j, "source", (cJSON *)(uintptr_t)source);
    char *text = ok ? moe_json_seal(j, 0) : NULL;
    cJSON_Delete(j);
    return text;
}

enum moe_code moe_writer_commit_unit(struct moe_writer *w, const char *unit, uint64_t bytes, struct moe_hash128 digest,
                                     const cJSON *source, const cJSON *report, struct moe_err *err)
{
    char tmp[PATH_MAX], path[PATH_MAX], journal[PATH_MAX];
    struct unit u = { .bytes = bytes, .digest = digest };
    MOE_CHECK(is_unit_name(unit, strlen(unit)) && !moe_writer_has_unit(w, unit));
    check_elements(source);
    snprintf(u.name, sizeof u.name, "%s", unit);
    MOE_TRY(moe_writer_unit_path(w, unit, tmp, sizeof tmp, err));
    MOE_TRY(unit_file(w, unit, ".moe", path, err));
    MOE_TRY(unit_file(w, unit, ".json", journal, err));
    MOE_TRY(moe_rename(tmp, path, err));
    char *text = journal_text(w, &u, source, report);
    if (!text) return no_memory(w, err);
    enum moe_code code = moe_write_file(journal, text, strlen(text), err);
    free(text);
    MOE_TRY(code);
    if (report && !(u.report = cJSON_Duplicate(report, true))) return no_memory(w, err);
    code = add_unit(w, &u, err);
    if (code != MOE_OK) cJSON_Delete(u.report);
    else qsort(w->units, w->n_units, sizeof *w->units, by_unit);
    return code;
}

cJSON *moe_writer_reports(struct moe_writer *w, struct moe_err *err)
{
    cJSON *all = cJSON_CreateArray();
    bool ok = all != NULL;
    for (size_t i = 0; ok && i < w->n_units; i++) {
        cJSON *one = cJSON_CreateObject(), *r = w->units[i].report ? cJSON_Duplicate(w->units[i].report, true) : cJSON_CreateNull();
        ok = one && r && cJSON_AddStringToObject(one, "unit", w->units[i].name);
        if (ok) ok = cJSON_AddItemToObject(one, "report", r) && cJSON_AddItemToArray(all, one);
        else cJSON_Delete(r), cJSON_Delete(one);
    }
    if (ok) return all;
    cJSON_Delete(all);
    no_memory(w, err);
    return NULL;
}

static enum moe_code list_file(struct moe_writer *w, const char *name, uint64_t bytes, struct moe_hash128 digest, struct moe_err *err)
{
    for (size_t i = 0; i < w->n_files; i++)
        if (!strcmp(w->files[i].name, name)) return w->files[i].bytes = bytes, w->files[i].digest = digest, MOE_OK;
    struct file *p = realloc(w->files, (w->n_files + 1) * sizeof *p);
    if (!p) return no_memory(w, err);
    w->files = p;
    char *copy = strdup(name);
    if (!copy) return no_memory(w, err);
    p[w->n_files++] = (struct file){ copy, bytes, digest };
    return MOE_OK;
}

enum moe_code moe_writer_add_file(struct moe_writer *w, const char *name, const void *data, size_t bytes, struct moe_err *err)
{
    char path[PATH_MAX];
    if (!moe_container_name_allowed(name) || moe_is_shard_name(name))
        return moe_fail_at(err, MOE_UNSUPPORTED, w->dir, NULL, "a file named '%s' cannot be kept in a container", name);
    const char *slash = strchr(name, '/');
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, name, err));
    if (slash) {
        char folder[PATH_MAX];
        snprintf(folder, sizeof folder, "%.*s", (int)(strlen(path) - strlen(slash)), path);
        MOE_TRY(moe_mkdir(folder, err));
    }
    MOE_TRY(moe_write_file(path, data, bytes, err));
    return list_file(w, name, bytes, moe_hash128(data, bytes), err);
}

/* ---- publishing ---- */

struct line { double ordinal; size_t order; char *text; };
struct lines { struct line *p; size_t n, cap, bytes; };

static int by_ordinal(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->ordinal != y->ordinal) return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
    return (x->order > y->order) - (x->order < y->order);
}

static bool add_line(struct lines *l, cJSON *element)
{
    if (l->n == l->cap) {
        size_t cap = 2 * l->cap + 1024;
        struct line *p = realloc(l->p, cap * sizeof *p);
        if (!p) return false;
        l->p = p;
        l->cap = cap;
    }
    cJSON *ordinal = cJSON_DetachItemFromArray(element, 7);
    char *text = moe_json_print(element, 0);
    if (text) {
        l->p[l->n] = (struct line){ ordinal ? ordinal->valuedouble : 0, l->n, text };
        l->bytes += strlen(text) + 1;
        l->n++;
    }
    cJSON_Delete(ordinal);
    return text != NULL;
}

static enum moe_code read_lines(const struct moe_writer *w, struct lines *l, struct moe_err *err)
{
    for (size_t i = 0; i < w->n_units; i++) {
        char path[PATH_MAX];
        cJSON *j;
        MOE_TRY(unit_file(w, w->units[i].name, ".json", path, err));
        MOE_TRY(moe_json_open_sealed(path, &j, err));
        cJSON *source = cJSON_GetObjectItemCaseSensitive(j, "source");
        bool ok = true;
        for (cJSON *e = source ? source->child : NULL; e && ok; e = e->next) ok = add_line(l, e);
        cJSON_Delete(j);
        if (!ok) return no_memory(w, err);
    }
    return MOE_OK;
}

static enum moe_code write_source(struct moe_writer *w, const char *verbatim, size_t bytes, struct moe_err *err)
{
    if (verbatim) return moe_writer_add_file(w, MOE_SOURCE_NAME, verbatim, bytes, err);
    struct lines l = { 0 };
    char *all = NULL;
    enum moe_code code = read_lines(w, &l, err);
    if (code == MOE_OK && !(all = malloc(l.bytes + 1))) code = no_memory(w, err);
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
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static bool add_files(cJSON *m, const struct moe_writer *w)
{
    cJSON *files = cJSON_AddArrayToObject(m, "files");
    bool ok = files != NULL;
    for (size_t i = 0; ok && i < w->n_files; i++) {
        char hex[33];
        moe_hex128(w->files[i].digest, hex);
        cJSON *f = cJSON_CreateObject();
        ok = f && cJSON_AddItemToArray(files, f) && cJSON_AddStringToObject(f, "name", w->files[i].name) &&
             cJSON_AddNumberToObject(f, "bytes", (double)w->files[i].bytes) && cJSON_AddStringToObject(f, "xxh3_128", hex);
    }
    return ok;
}

static cJSON *make_manifest(const struct moe_writer *w, const struct moe_config *config, const cJSON *types, const cJSON *quantization)
{
    char origin[17];
    moe_hex64(w->work.origin, origin);
    cJSON *m = cJSON_CreateObject(), *c = moe_config_json(config), *t = types ? cJSON_Duplicate(types, true) : cJSON_CreateObject(),
          *q = quantization ? cJSON_Duplicate(quantization, true) : cJSON_CreateNull(), *o = cJSON_Duplicate(w->options, true), *p;
    bool ok = m && c && t && q && o && cJSON_AddStringToObject(m, "format", "moe") &&
              cJSON_AddNumberToObject(m, "version", MOE_MANIFEST_VERSION);
    if (!ok) {
        cJSON_Delete(c), cJSON_Delete(t), cJSON_Delete(q), cJSON_Delete(o), cJSON_Delete(m);
        return NULL;
    }
    cJSON_AddItemToObject(m, "config", c);
    cJSON_AddItemToObject(m, "types", t);
    cJSON_AddItemToObject(m, "quantization", q);
    p = cJSON_AddObjectToObject(m, "provenance");
    if (p && cJSON_AddStringToObject(p, "tool", "moe") && cJSON_AddStringToObject(p, "version", MOE_VERSION) &&
        cJSON_AddStringToObject(p, "origin", origin) && cJSON_AddItemToObject(p, "options", o)) {
        if (add_files(m, w)) return m;
    } else {
        cJSON_Delete(o);
    }
    cJSON_Delete(m);
    return NULL;
}

static enum moe_code sync_folders(const struct moe_writer *w, struct moe_err *err)
{
    static const char *const folders[] = { "tokenizer", "hf" };
    for (int i = 0; i < 2; i++) {
        char path[PATH_MAX];
        MOE_TRY(moe_path_join(path, sizeof path, w->dir, folders[i], err));
        if (moe_exists(path) == MOE_DIR) MOE_TRY(moe_fsync_path(path, err));
    }
    return moe_fsync_path(w->dir, err);
}

static enum moe_code write_manifest(struct moe_writer *w, cJSON *manifest, uint64_t *bytes, struct moe_err *err)
{
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    char *text = moe_json_seal(manifest, 2);
    if (!text) return no_memory(w, err);
    *bytes = strlen(text);
    for (size_t i = 0; i < w->n_files; i++) *bytes += w->files[i].bytes;
    enum moe_code code = moe_write_file(path, text, strlen(text), err);
    free(text);
    return code;
}

enum moe_code moe_writer_publish(struct moe_writer **out, const struct moe_config *config, const cJSON *types,
                                 const cJSON *quantization, const char *source_jsonl, size_t source_bytes, uint64_t *bytes,
                                 struct moe_err *err)
{
    struct moe_writer *w = *out;
    MOE_CHECK(w->n_units > 0);
    MOE_TRY(write_source(w, source_jsonl, source_bytes, err));
    for (size_t i = 0; i < w->n_units; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.moe", w->units[i].name);
        MOE_TRY(list_file(w, name, w->units[i].bytes, w->units[i].digest, err));
    }
    qsort(w->files, w->n_files, sizeof *w->files, by_name);
    MOE_TRY(sync_folders(w, err));
    cJSON *m = make_manifest(w, config, types, quantization);
    if (!m) return no_memory(w, err);
    enum moe_code code = write_manifest(w, m, bytes, err);
    if (code == MOE_OK) code = settle(w, m, err);
    cJSON_Delete(m);
    MOE_TRY(code);
    writer_free(w);
    *out = NULL;
    return MOE_OK;
}
