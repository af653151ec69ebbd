/* SPDX-License-Identifier: Apache-2.0 */
/* The line that an export keeps with its directory, and what proves an export where that line is missing. */
#include "model/export/export-state.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/json.h"
#include "base/leftover.h"
#include "base/newdir.h"
#include "formats/container/container.h"
#include "formats/container/identity.h"
#include "formats/container/original.h"
#include "model/export/export-dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the line ---- */

static enum moe_code add_all(struct moe_hash *h, const char *path, struct moe_err *err);

/* Adds one entry of a directory to the digest.  Of a directory, its own size and time do not count, but those
 * of its files do. */
static enum moe_code add(struct moe_hash *h, const char *dir, const char *name, struct moe_err *err)
{
    char path[PATH_MAX];
    struct stat st;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    if (lstat(path, &st)) return moe_fail_errno(err, errno, path, "cannot stat");
    bool folder = S_ISDIR(st.st_mode);
    int64_t v[] = { st.st_mode & S_IFMT, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
    moe_hash_add128(h, name, strlen(name) + 1);
    moe_hash_add128(h, v, folder ? sizeof *v : sizeof v);
    return folder ? add_all(h, path, err) : MOE_OK;
}

static enum moe_code add_all(struct moe_hash *h, const char *path, struct moe_err *err)
{
    struct moe_names names;
    MOE_TRY(moe_list_dir(path, &names, err));
    enum moe_code code = MOE_OK;
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) /* these two are removed when it is published */
        if (strcmp(names.v[i], MOE_NEWDIR_MARK) && strcmp(names.v[i], MOE_EXPORT_INNER))
            code = add(h, path, names.v[i], err);
    moe_hash_add128(h, "/", 2); /* marks the directory's end, because no name is a slash */
    moe_names_release(&names);
    return code;
}

enum { STATE_BYTES = 48 };

/* The first part of the line: "export " and a digest of the names, sizes and times of all files. */
static enum moe_code state_of(const char *path, char state[STATE_BYTES], struct moe_err *err)
{
    char hex[33];
    struct moe_hash *h = moe_hash_new();
    if (!h) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to look at its files");
    moe_hash_reset128(h);
    enum moe_code code = add_all(h, path, err);
    moe_hex128(moe_hash_get128(h), hex);
    moe_hash_free(h);
    snprintf(state, STATE_BYTES, "export %s", hex);
    return code;
}

/* The line: the state, " by ", the work line. */
static void put_line(char line[MOE_WORK_BYTES], const char *state, const char *work)
{
    snprintf(line, MOE_WORK_BYTES, "%s by %s", state, work);
}

enum moe_code moe_export_state_put(const char *path, int fd, const char *work, struct moe_err *err)
{
    char line[MOE_WORK_BYTES], state[STATE_BYTES];
    MOE_TRY(state_of(path, state, err));
    put_line(line, state, work);
    moe_made_state_put(fd, line);
    return MOE_OK;
}

/* was: the directory's line; *same: its state is the present one. */
static enum moe_code look_at_line(const char *path, char was[MOE_WORK_BYTES], bool *same, struct moe_err *err)
{
    char now[STATE_BYTES];
    *same = false;
    int fd = moe_open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return moe_fail_errno(err, errno, path, "cannot open");
    moe_made_state_get(fd, was);
    close(fd);
    if (!*was) return MOE_OK;
    MOE_TRY(state_of(path, now, err));
    *same = !strncmp(was, now, strlen(now)); /* all states are of one length */
    return MOE_OK;
}

enum moe_code moe_export_state_is(const char *path, const char *work, bool *is, struct moe_err *err)
{
    char was[MOE_WORK_BYTES], now[MOE_WORK_BYTES];
    MOE_TRY(look_at_line(path, was, is, err));
    put_line(now, "", work);
    *is &= strlen(was) >= strlen(now) && !strcmp(was + strlen(was) - strlen(now), now);
    return MOE_OK;
}

enum moe_code moe_export_command_is(const char *path, const char *work, bool *is, struct moe_err *err)
{
    char was[MOE_WORK_BYTES], by[MOE_WORK_BYTES];
    MOE_TRY(look_at_line(path, was, is, err));
    int fd = moe_open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return moe_fail_errno(err, errno, path, "cannot open");
    moe_made_command_get(fd, by);
    close(fd);
    *is &= !strcmp(by, work);
    return MOE_OK;
}

/* ---- other proof ---- */

/* Whether a failure tells nothing about the directory, so that it ends the check. */
static bool says_nothing(enum moe_code code)
{
    return code == MOE_NOMEM || code == MOE_IO || code == MOE_SIGINT || code == MOE_SIGTERM;
}

/* Clears *same when the file `name` in `dir` does not hold these n bytes.  A missing file leaves *same as it
 * is, because replacing the directory does not lose it. */
static enum moe_code hold(const char *dir, const char *name, const char *data, size_t n, bool *same,
                          struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t bytes;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    if (moe_exists(path) == MOE_ABSENT) return MOE_OK;
    enum moe_code code = moe_read_file(path, n + 1, &text, &bytes, err);
    *same &= code == MOE_OK && bytes == n && !memcmp(text, data, n);
    if (code == MOE_OK) free(text);
    return says_nothing(code) ? code : MOE_OK;
}

/* Compares the files that the container has in hf/ and tokenizer/. */
static enum moe_code hold_small(const char *path, const struct moe_source *src, bool *same,
                                struct moe_err *err)
{
    const cJSON *files = moe_json_get(src->container->manifest, "files");

    for (const cJSON *f = files ? files->child : NULL; f && *same; f = f->next) {
        const cJSON *name = moe_json_get(f, "name");
        const char *base = cJSON_IsString(name) ? strchr(name->valuestring, '/') : NULL;
        char *data;
        size_t n;
        if (!base) continue;
        MOE_TRY(moe_container_read_file(src, name->valuestring, &data, &n, err));
        enum moe_code code = hold(path, base + 1, data, n, same, err);
        free(data);
        MOE_TRY(code);
    }
    return MOE_OK;
}

static enum moe_code hold_record(const char *path, const struct moe_original *o, bool *same,
                                 struct moe_err *err)
{
    char *text;
    size_t n;
    if (o->kind != MOE_ORIGINAL_FILE) return MOE_OK;
    MOE_TRY(moe_original_text(o, "", 0, (size_t)1 << 30, MOE_ORIGINAL_NAME, &text, &n, err));
    enum moe_code code = hold(path, o->name, text, n, same, err);
    free(text);
    return code;
}

/* Compares the other small files, which the container has in source.rest. */
static enum moe_code hold_rest(const char *path, const struct moe_source *src, bool *same,
                               struct moe_err *err)
{
    struct moe_originals rest;
    char *data;
    size_t n;

    if (!moe_container_lists(src, MOE_ORIGINAL_NAME)) return MOE_OK;
    MOE_TRY(moe_container_read_file(src, MOE_ORIGINAL_NAME, &data, &n, err));
    enum moe_code code = moe_originals_parse(data, n, MOE_ORIGINAL_NAME, &rest, err);
    if (code == MOE_OK) {
        for (int64_t i = 0; code == MOE_OK && i < rest.n && *same; i++)
            code = hold_record(path, &rest.v[i], same, err);
        moe_originals_release(&rest);
    }
    free(data);
    return code;
}

/* *is: whether `path` is the checkpoint that the container src was made from.  It is not when it cannot be
 * read as a checkpoint. */
static enum moe_code is_origin(const char *path, const struct moe_source *src,
                               const struct moe_cancel *cancel, bool *is, struct moe_err *err)
{
    struct moe_source *there;
    struct moe_identity now, origin = moe_source_origin(src, NULL);
    bool same = origin.has_weights;

    if (same) MOE_TRY(hold_small(path, src, &same, err));
    if (same) MOE_TRY(hold_rest(path, src, &same, err));
    if (!same) return MOE_OK;
    enum moe_code code = moe_source_open(&there, path, err);
    if (code != MOE_OK) return says_nothing(code) ? code : MOE_OK;
    if (there->kind == MOE_CHECKPOINT) code = moe_source_identity(there, cancel, &now, err);
    *is = there->kind == MOE_CHECKPOINT && code == MOE_OK && now.has_weights &&
          moe_identity_same(&now, &origin);
    moe_source_close(&there);
    return says_nothing(code) ? code : MOE_OK;
}

/* *is: whether the quantization config in path/config.json names this tool as its producer. */
static enum moe_code is_producer(const char *path, bool *is, struct moe_err *err)
{
    char config[PATH_MAX], *text;
    size_t n;
    cJSON *c;
    struct moe_err broken; /* a config that is no JSON names no producer */

    MOE_TRY(moe_path_join(config, sizeof config, path, "config.json", err));
    MOE_TRY(moe_read_file(config, (size_t)1 << 30, &text, &n, err));
    enum moe_code code = moe_json_parse(text, n, config, &c, &broken);
    free(text);
    if (code != MOE_OK) return says_nothing(code) ? (*err = broken, code) : MOE_OK;
    const cJSON *q = moe_json_get(c, "quantization_config"), *p = q ? moe_json_get(q, "producer") : NULL;
    const cJSON *name = p ? moe_json_get(p, "name") : NULL;
    *is = cJSON_IsString(name) && !strcmp(name->valuestring, MOE_EXPORT_PRODUCER);
    cJSON_Delete(c);
    return MOE_OK;
}

enum moe_code moe_export_state_check(const char *path, const struct moe_source *src,
                                     enum moe_export_proof proof, const struct moe_cancel *cancel,
                                     struct moe_err *err)
{
    char was[MOE_WORK_BYTES];
    bool is;
    MOE_TRY(look_at_line(path, was, &is, err));
    if (!is && proof == MOE_PROOF_SAME) MOE_TRY(is_origin(path, src, cancel, &is, err));
    if (!is && proof == MOE_PROOF_PRODUCER && !*was) MOE_TRY(is_producer(path, &is, err));
    if (is) return MOE_OK;
    return moe_fail_at(
        err, MOE_EXISTS, path, NULL, "already exists, and %s (move it away, or choose another name with -o)",
        *was ? "its files changed since it was exported" : "nothing shows that it is an export");
}
