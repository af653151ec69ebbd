/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's directory NAME.moe.partial/: opening and closing it. */
#include "formats/container/writer-internal.h"

#include "base/io.h"
#include "formats/container/owner.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum moe_code moe_writer_no_memory(const struct moe_writer *w, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, w->dir, NULL, "no memory to write it");
}

void moe_writer_free(struct moe_writer *w)
{
    for (size_t i = 0; i < w->n_units; i++) cJSON_Delete(w->units[i].report);
    for (size_t i = 0; i < w->n_files; i++) free(w->files[i].name);
    moe_newdir_unlock(&w->out);
    cJSON_Delete(w->options);
    cJSON_Delete(w->part);
    free(w->units);
    free(w->files);
    free(w);
}

/* ---- opening ---- */

static enum moe_code begin_with(const struct moe_writer *w, const char *path, const char *state,
                                struct moe_err *err)
{
    /* The new state is written before old files are removed, because the journals of old units do not belong
     * to it, so whatever is left of them does not count.  Files without a journal are removed before. */
    MOE_TRY(moe_dir_drop_work(w->dir, err));
    MOE_TRY(moe_write_file(path, state, strlen(state), err));
    return moe_dir_clear(w->dir, MOE_STATE_NAME, NULL, err);
}

static enum moe_code start(struct moe_writer *w, struct moe_err *err)
{
    char path[PATH_MAX];
    w->fresh = true;
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_STATE_NAME, err));
    char *state = moe_state_text(&w->work, w->replace ? w->replaces : NULL);
    if (!state) return moe_writer_no_memory(w, err);
    moe_hex64(moe_hash64(state, strlen(state)), w->key);
    enum moe_code code = begin_with(w, path, state, err);
    free(state);
    return code;
}

/* Finish the work of an earlier run that ended between writing the manifest and taking the final name. */
static enum moe_code finish_pending(struct moe_writer *w, struct moe_writer_found *found, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_err e;
    cJSON *m;
    enum moe_exists there;
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT) return MOE_OK;
    enum moe_code code = moe_manifest_read(w->dir, &m, &e);
    if (code != MOE_OK) return moe_writer_is_fatal(code) ? (*err = e, code) : MOE_OK;
    code = moe_manifest_compare(w->dir, m, &w->work, &found->no_samples, &e);
    if (code == MOE_OK) code = moe_manifest_check_files(w->dir, m, &e);
    if (code == MOE_OK) {
        code = moe_writer_take_name(w, m, err);
        found->done = code == MOE_OK;
    } else {
        code = moe_writer_is_fatal(code) ? (*err = e, code) : MOE_OK;
    }
    cJSON_Delete(m);
    return code;
}

/* For a directory without state.json: whether what exists under the final name existed when this work was
 * about to replace it.  state.json is removed just before the final name is taken, after it has allowed this,
 * so a container that may be replaced is marked already, or it last changed before the directory did, which
 * is when state.json was removed. */
static bool was_there(const struct moe_writer *w)
{
    struct stat final, dir;
    struct moe_err ignored;
    bool marked = false; /* set just before it was to be replaced (base/newdir.h) */
    if (moe_newdir_is_marked(w->final, &marked, &ignored) == MOE_OK && marked) return true;
    if (stat(w->final, &final) || stat(w->dir, &dir)) return false;
    return final.st_ctim.tv_sec != dir.st_mtim.tv_sec ? final.st_ctim.tv_sec < dir.st_mtim.tv_sec
        : final.st_ctim.tv_nsec < dir.st_mtim.tv_nsec;
}

/* Resume the work.  On entry w->replaces is the checksum of the container under the final name; this function
 * changes it to the checksum of the container that the work may replace. */
static enum moe_code go_on(struct moe_writer *w, enum moe_final final, struct moe_writer_found *found,
                           struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_partial partial;
    struct moe_state state = { .replace = false };
    MOE_TRY(moe_partial_look(w->dir, &partial, err));
    bool has_state = partial == MOE_PARTIAL_STATE;
    if (has_state) MOE_TRY(moe_state_compare(w->dir, &w->work, &state, err));
    bool same = !has_state || (state.has_replaces && !strcmp(state.replaces, w->replaces));
    w->replace = has_state ? state.replace : was_there(w);
    if (has_state) memcpy(w->replaces, state.replaces, sizeof w->replaces);
    if (final == MOE_FINAL_CONTAINER && !(w->replace && same))
        return moe_fail_at(err, MOE_EXISTS, w->final, NULL,
                           "another container is there than the one that was begun (move it away and use "
                           "--resume, or start over with --force)");
    MOE_TRY(finish_pending(w, found, err));
    if (found->done) return MOE_OK;
    found->no_samples = state.no_samples;
    memcpy(w->key, state.key, sizeof w->key);
    if (!has_state)
        return moe_fail_at(err, MOE_MISMATCH, w->dir, NULL,
                           "it does not say what it was made from (start over with --force)");
    MOE_TRY(moe_path_join(path, sizeof path, w->dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_remove_tree(path, err));
    return moe_writer_load_units(w, err);
}

/* Whether the container that exists under the final name is what this run would write; for --resume. */
static enum moe_code final_compare(const struct moe_writer *w, bool *no_samples, struct moe_err *err)
{
    cJSON *m;
    MOE_TRY(moe_manifest_read(w->final, &m, err));
    enum moe_code code = moe_manifest_compare(w->final, m, &w->work, no_samples, err);
    if (code == MOE_OK && (code = moe_manifest_check_files(w->final, m, err)) != MOE_OK && code != MOE_NOMEM)
        moe_wrap(err, "'%s' is damaged (write it again with --force)", w->final);
    cJSON_Delete(m);
    return code;
}

/* The container is complete: remove what an earlier run of the same work left beside it. */
static enum moe_code drop_leftover(struct moe_writer *w, struct moe_err *err)
{
    struct moe_err e;
    struct stat st;
    enum moe_partial p;
    struct moe_state state;
    if (lstat(w->dir, &st))
        return errno == ENOENT ? MOE_OK : moe_fail_errno(err, errno, w->dir, "cannot stat");
    if (!S_ISDIR(st.st_mode)) return MOE_OK;
    MOE_TRY(moe_lock_dir(w->dir, &w->out.lock, err));
    if (!moe_fd_is_path(w->out.lock, w->dir)) return MOE_OK; /* it was renamed meanwhile */
    MOE_TRY(moe_partial_look(w->dir, &p, err));
    if (p == MOE_PARTIAL_FOREIGN || p == MOE_PARTIAL_UNMARKED) return MOE_OK;
    if (p == MOE_PARTIAL_STATE && moe_state_compare(w->dir, &w->work, &state, &e) != MOE_OK) return MOE_OK;
    moe_newdir_mark(&w->out);
    return moe_remove_tree(w->dir, err);
}

static enum moe_code open_locked(struct moe_writer *w, enum moe_write_mode mode, enum moe_final final,
                                 const struct moe_err *differs, struct moe_writer_found *found,
                                 struct moe_err *err)
{
    enum moe_partial partial;
    MOE_TRY(moe_partial_look(w->dir, &partial, err));
    switch (partial) {
    case MOE_PARTIAL_FOREIGN:
        MOE_TRY(moe_container_unfinished(w->dir, NULL, err));
        return moe_fail_at(err, MOE_EXISTS, w->dir, NULL,
                           "it was not begun by this tool (choose another name with -o)");
    case MOE_PARTIAL_FRESH:
        if (mode == MOE_WRITE_RESUME && final == MOE_FINAL_CONTAINER) return *err = *differs, err->code;
        return start(w, err);
    case MOE_PARTIAL_UNMARKED:
        if (mode != MOE_WRITE_RESUME)
            return moe_fail_at(err, MOE_EXISTS, w->dir, NULL,
                               "holds a container's files, but nothing that marks them as unfinished (move "
                               "it away, or choose another name with -o)");
        /* fall through */
    default:
        if (mode == MOE_WRITE_FORCE) return start(w, err);
        if (mode == MOE_WRITE_RESUME) return go_on(w, final, found, err);
        return moe_fail_at(err, MOE_EXISTS, w->dir, NULL,
                           "unfinished work is there (go on with --resume, start over with --force)");
    }
}

static enum moe_code try_open(struct moe_writer *w, enum moe_write_mode mode, struct moe_writer_found *found,
                              struct moe_err *err)
{
    struct moe_err differs = MOE_ERR_INIT;
    enum moe_final final;
    if (mode != MOE_WRITE_RESUME) MOE_TRY(moe_no_link(w->final, "directory", err));
    MOE_TRY(moe_final_look(w->final, &final, w->replaces, err));
    if (final == MOE_FINAL_FOREIGN) return MOE_EXISTS;
    if (final == MOE_FINAL_CONTAINER && mode == MOE_WRITE_PLAIN)
        return moe_fail_at(err, MOE_EXISTS, w->final, NULL, "already exists (replace it with --force)");
    if (final == MOE_FINAL_CONTAINER && mode == MOE_WRITE_RESUME) {
        enum moe_code code = final_compare(w, &found->no_samples, &differs);
        found->done = code == MOE_OK;
        if (found->done) return drop_leftover(w, err);
        if (moe_writer_is_fatal(code)) return *err = differs, code;
    }
    MOE_TRY(moe_newdir_lock(&w->out, err));
    enum moe_code code = open_locked(w, mode, final, &differs, found, err);
    if (code != MOE_OK && w->out.created) rmdir(w->dir);
    return code;
}

static bool init(struct moe_writer *w, enum moe_write_mode mode, const struct moe_work *work)
{
    w->final = w->out.final;
    w->dir = w->out.path;
    w->replace = mode == MOE_WRITE_FORCE;
    w->options = work->options ? cJSON_Duplicate(work->options, true) : cJSON_CreateObject();
    w->work = *work;
    w->work.options = w->options;
    return w->options != NULL;
}

enum moe_code moe_writer_open(struct moe_writer **out, const char *path, enum moe_write_mode mode,
                              const struct moe_work *work,
                              struct moe_writer_found *found, struct moe_err *err)
{
    *out = NULL;
    *found = (struct moe_writer_found){ .done = false };
    struct moe_writer *w = calloc(1, sizeof *w);
    if (!w) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    enum moe_code code = moe_newdir_name(&w->out, path, err);
    if (code == MOE_OK && !init(w, mode, work)) code = moe_writer_no_memory(w, err);
    if (code == MOE_OK) code = try_open(w, mode, found, err);
    if (code != MOE_OK || found->done) moe_writer_free(w);
    else *out = w;
    return code;
}

void moe_writer_close(struct moe_writer **out, bool keep_work)
{
    struct moe_writer *w = *out;
    struct moe_err e;
    if (!w) return;
    bool nothing = !w->n_units && !(keep_work && moe_dir_has_work(w->dir));
    if (nothing && w->fresh && moe_fd_is_path(w->out.lock, w->dir)) { /* there is nothing to resume */
        moe_newdir_mark(&w->out);
        moe_remove_tree(w->dir, &e);
    }
    moe_writer_free(w);
    *out = NULL;
}

void moe_writer_discard(struct moe_writer **out)
{
    struct moe_err e;
    if (*out && moe_fd_is_path((*out)->out.lock, (*out)->dir)) {
        moe_newdir_mark(&(*out)->out);
        moe_remove_tree((*out)->dir, &e);
    }
    moe_writer_close(out, false);
}

const char *moe_writer_dir(const struct moe_writer *w) { return w->dir; }

size_t moe_writer_units(const struct moe_writer *w) { return w->n_units; }
bool moe_writer_has_work(const struct moe_writer *w) { return moe_dir_has_work(w->dir); }
