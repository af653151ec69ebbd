#include "convert/export-dir.h"

#include "base/io.h"
#include "convert/model-config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A checkpoint, or nothing at all, stands at `path`. */
static enum moe_code replaceable(const char *path, struct moe_err *err)
{
    bool config = false, weights = false;
    enum moe_exists there;
    struct moe_names names = { 0 };
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) MOE_TRY(moe_list_dir(path, &names, err));
    bool empty = there == MOE_DIR && !names.n;
    for (size_t i = 0; i < names.n; i++) {
        const char *dot = strrchr(names.v[i], '.');
        config |= !strcmp(names.v[i], "config.json");
        weights |= dot && !strcmp(dot, ".safetensors");
    }
    moe_names_release(&names);
    if (empty || (config && weights)) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, path, NULL,
                       "already exists and is not a checkpoint (choose another name with -o)");
}

enum moe_code moe_export_dir_begin(struct moe_newdir *d, const struct moe_source *src, const char *out,
                                   enum moe_write_mode mode, struct moe_err *err)
{
    enum moe_exists there;
    MOE_TRY(moe_newdir_name(d, out, err));
    MOE_TRY(moe_look(d->final, &there, err));
    if (there != MOE_ABSENT) MOE_TRY(replaceable(d->final, err));
    if (there != MOE_ABSENT && mode != MOE_WRITE_FORCE)
        return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists (replace it with --force)");
    MOE_TRY(moe_source_apart(src, out, err));
    return moe_newdir_begin(d, out, replaceable, mode != MOE_WRITE_PLAIN, err);
}

enum moe_code moe_export_dir_end(struct moe_newdir *d, enum moe_write_mode mode, enum moe_code code,
                                 struct moe_err *err)
{
    if (code == MOE_OK) code = moe_newdir_publish(d, mode == MOE_WRITE_FORCE ? replaceable : NULL, err);
    moe_newdir_end(d);
    return code;
}

static bool listed(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name)) list++;
    return *list;
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
        if (!base || !moe_plain_name(base + 1) || listed(base + 1, except) ||
            (!vision && moe_is_vision_file(base + 1))) continue;
        MOE_TRY(moe_path_join(to, sizeof to, dir, base + 1, err));
        MOE_TRY(moe_container_read_file(src, name->valuestring, &data, &n, err));
        enum moe_code code = moe_write_file(to, data, n, err);
        free(data);
        MOE_TRY(code);
    }
    return MOE_OK;
}
