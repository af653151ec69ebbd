#include "convert/export-dir.h"

#include "base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK ".moe-export" /* in an unfinished directory: that it is ours to throw away */

/* What stands at a path that an export would replace. */
enum look { NOTHING, EMPTY, UNFINISHED, CHECKPOINT, FOREIGN };

static enum moe_code look_at(const char *path, enum look *what, struct moe_err *err)
{
    bool config = false, weights = false, mark = false;
    enum moe_exists there;
    struct moe_names names;
    MOE_TRY(moe_look(path, &there, err));
    *what = there == MOE_ABSENT ? NOTHING : FOREIGN;
    if (there != MOE_DIR) return MOE_OK;
    MOE_TRY(moe_list_dir(path, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        const char *dot = strrchr(names.v[i], '.');
        mark |= !strcmp(names.v[i], MARK) || !strcmp(names.v[i], MARK ".tmp");
        config |= !strcmp(names.v[i], "config.json");
        weights |= dot && !strcmp(dot, ".safetensors");
    }
    *what = mark ? UNFINISHED : config && weights ? CHECKPOINT : names.n ? FOREIGN : EMPTY;
    moe_names_release(&names);
    return MOE_OK;
}

static enum moe_code mark_path(const char *dir, char mark[PATH_MAX], struct moe_err *err)
{
    return moe_path_join(mark, PATH_MAX, dir, MARK, err);
}

/* Remove a marked directory, the mark last. */
static enum moe_code remove_marked(const char *dir, struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        char path[PATH_MAX];
        if (!strcmp(names.v[i], MARK)) continue;
        code = moe_path_join(path, sizeof path, dir, names.v[i], err);
        if (code == MOE_OK) code = moe_remove_tree(path, err);
    }
    moe_names_release(&names);
    return code == MOE_OK ? moe_remove_tree(dir, err) : code;
}

/* Killed between taking the mark away and renaming, an unfinished directory is a checkpoint: that one is thrown away too. */
enum moe_code moe_export_dir_begin(struct moe_export_dir *d, const char *out, enum moe_write_mode mode, struct moe_err *err)
{
    char mark[PATH_MAX], *partial = d->path;
    size_t n = strlen(out);
    d->lock = -1;
    d->ours = false;
    while (n > 1 && out[n - 1] == '/') n--;
    if (snprintf(partial, PATH_MAX, "%.*s.partial", (int)n, out) >= PATH_MAX)
        return moe_fail_at(err, MOE_IO, out, NULL, "the path is too long");
    enum look there, left;
    MOE_TRY(look_at(out, &there, err));
    MOE_TRY(look_at(partial, &left, err));
    if (there == FOREIGN) return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists and is not a checkpoint (choose another name with -o)");
    if (there != NOTHING && mode != MOE_WRITE_FORCE)
        return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists (replace it with --force)");
    if (left == FOREIGN) return moe_fail_at(err, MOE_EXISTS, partial, NULL, "is in the way and not from an export (choose another name with -o)");
    if (left != NOTHING) {
        MOE_TRY(moe_lock_dir(partial, &d->lock, err));
        if (mode == MOE_WRITE_PLAIN)
            return moe_fail_at(err, MOE_EXISTS, partial, NULL, "holds unfinished work (go on with --resume, start over with --force)");
        MOE_TRY(remove_marked(partial, err)); /* an export keeps no journal: it is a copy, and starts over */
        moe_unlock(d->lock);
        d->lock = -1;
    }
    MOE_TRY(moe_mkdir(partial, err));
    MOE_TRY(moe_lock_dir(partial, &d->lock, err));
    d->ours = true;
    MOE_TRY(mark_path(partial, mark, err));
    return moe_write_file(mark, "", 0, err);
}

enum moe_code moe_export_dir_publish(struct moe_export_dir *d, const char *out, struct moe_err *err)
{
    char mark[PATH_MAX];
    enum moe_exists there;
    MOE_TRY(mark_path(d->path, mark, err));
    MOE_TRY(moe_remove_tree(mark, err));
    MOE_TRY(moe_fsync_path(d->path, err));
    MOE_TRY(moe_look(out, &there, err));
    if (there == MOE_ABSENT) return moe_rename(d->path, out, err);
    MOE_TRY(moe_exchange(d->path, out, err));
    MOE_TRY(moe_write_file(mark, "", 0, err)); /* whoever finds half of the old one knows that it may go */
    return remove_marked(d->path, err);
}

void moe_export_dir_end(struct moe_export_dir *d, enum moe_code code)
{
    struct moe_err ignored;
    if (code != MOE_OK && d->ours) moe_remove_tree(d->path, &ignored); /* nothing in it could be gone on with */
    moe_unlock(d->lock);
}

static bool listed(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name)) list++;
    return *list;
}

enum moe_code moe_export_small_files(const struct moe_source *src, const char *dir, const char *const *except, struct moe_err *err)
{
    const cJSON *files = moe_json_get(src->container->manifest, "files");
    for (const cJSON *f = files ? files->child : NULL; f; f = f->next) {
        char to[PATH_MAX];
        const cJSON *name = moe_json_get(f, "name");
        const char *base = cJSON_IsString(name) ? strchr(name->valuestring, '/') : NULL;
        char *data;
        size_t n;
        if (!base || !moe_plain_name(base + 1) || listed(base + 1, except)) continue;
        MOE_TRY(moe_path_join(to, sizeof to, dir, base + 1, err));
        MOE_TRY(moe_container_read_file(src, name->valuestring, &data, &n, err));
        enum moe_code code = moe_write_file(to, data, n, err);
        free(data);
        MOE_TRY(code);
    }
    return MOE_OK;
}
