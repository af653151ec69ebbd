#include "convert/export-dir.h"

#include "base/io.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK ".moe-export" /* in an unfinished directory: that it is ours to throw away */

/* What stands at a path that an export would replace. */
enum look { NOTHING, EMPTY, UNFINISHED, CHECKPOINT, FOREIGN };

static enum look look_at(const char *path)
{
    bool config = false, weights = false, any = false, mark = false;
    if (moe_exists(path) == MOE_ABSENT) return NOTHING;
    DIR *d = opendir(path);
    if (!d) return FOREIGN;
    for (struct dirent *e; (e = readdir(d)); ) {
        const char *dot = strrchr(e->d_name, '.');
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        any = true;
        mark |= !strcmp(e->d_name, MARK);
        config |= !strcmp(e->d_name, "config.json");
        weights |= dot && !strcmp(dot, ".safetensors");
    }
    closedir(d);
    return mark ? UNFINISHED : config && weights ? CHECKPOINT : any ? FOREIGN : EMPTY;
}

static enum moe_code mark_path(const char *dir, char mark[PATH_MAX], struct moe_err *err)
{
    return moe_path_join(mark, PATH_MAX, dir, MARK, err);
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
    enum look there = look_at(out), left = look_at(partial);
    if (there == FOREIGN) return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists and is not a checkpoint (choose another name with -o)");
    if (there != NOTHING && mode != MOE_WRITE_FORCE)
        return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists (replace it with --force)");
    if (left == FOREIGN) return moe_fail_at(err, MOE_EXISTS, partial, NULL, "is in the way and not from an export (choose another name with -o)");
    if (left != NOTHING) {
        MOE_TRY(moe_lock_dir(partial, &d->lock, err));
        if (mode == MOE_WRITE_PLAIN)
            return moe_fail_at(err, MOE_EXISTS, partial, NULL, "holds unfinished work (go on with --resume, start over with --force)");
        MOE_TRY(moe_remove_tree(partial, err)); /* an export keeps no journal: it is a copy, and starts over */
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
    MOE_TRY(mark_path(d->path, mark, err));
    MOE_TRY(moe_remove_tree(mark, err));
    MOE_TRY(moe_fsync_path(d->path, err));
    if (moe_exists(out) == MOE_ABSENT) return moe_rename(d->path, out, err);
    MOE_TRY(moe_exchange(d->path, out, err));
    return moe_remove_tree(d->path, err);
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
