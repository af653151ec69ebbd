/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/owner.h"

#include "base/io.h"
#include "base/newdir.h"
#include "base/newfile.h"
#include "base/file-kind.h"
#include "formats/container/container-internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a manifest ---- */

enum { PARSE_BYTES_MAX = 1 << 24 }; /* bytes parsed of a manifest with keys in another order than ours */

/* Whether a text begins as our writer's manifest does; for a manifest that cannot be parsed this must
 * suffice. */
static bool begins_as_ours(const char *text)
{
    text += strspn(text, " \t\r\n{");
    if (strncmp(text, "\"format\"", 8)) return false;
    text += 8 + strspn(text + 8, " \t\r\n:");
    return !strncmp(text, "\"moe\"", 5);
}

enum moe_code moe_manifest_is_ours(const char *dir, bool *ours, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t n;
    cJSON *m;
    struct moe_err why;
    enum moe_exists there;
    *ours = false;
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_FILE) return MOE_OK;
    enum moe_code code = moe_read_file(path, MOE_JSON_LIMIT, &text, &n, &why);
    if (code == MOE_CORRUPT) return MOE_OK; /* too large to be ours */
    if (code != MOE_OK) return *err = why, code;
    *ours = begins_as_ours(text);
    bool parse = !*ours && n <= PARSE_BYTES_MAX;
    code = parse ? moe_json_parse(text, n, path, &m, &why) : MOE_OK;
    if (parse && code == MOE_OK) {
        const cJSON *format = moe_json_get(m, "format");
        *ours = cJSON_IsString(format) && !strcmp(format->valuestring, "moe");
        cJSON_Delete(m);
    }
    free(text);
    return code == MOE_NOMEM ? (*err = why, code) : MOE_OK;
}

enum moe_code moe_dir_is_container(const char *dir, bool *is, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    *is = false;
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_manifest_is_ours(dir, is, err));
    if (*is) return MOE_OK;
    MOE_TRY(moe_path_join(path, sizeof path, dir, "config.json", err));
    MOE_TRY(moe_look(path, &there, err));
    *is = there == MOE_ABSENT;
    return MOE_OK;
}

enum moe_code moe_state_is_ours(const char *dir, bool *ours, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t n;
    enum moe_exists there;
    *ours = false;
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_STATE_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_FILE) return MOE_OK;
    enum moe_code code = moe_read_file(path, MOE_JSON_LIMIT, &text, &n, err);
    if (code == MOE_CORRUPT) return MOE_OK; /* too large to be ours */
    MOE_TRY(code);
    *ours = strstr(text, "\"moe-partial\"") != NULL;
    free(text);
    return MOE_OK;
}

/* ---- a container's directory ---- */

static enum moe_code fail_not_of_container(const char *dir, const char *name, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, dir, NULL,
                       "already exists, and '%.200s' in it does not belong to a container (move that away, "
                       "or choose another name with -o)",
                       name);
}

/* Whether a file may be in a container though the manifest does not list it: a placement plan, in any form
 * that moe-plan reads (docs/reference/format.md, section 1), or what a killed writer of a plan left. */
static enum moe_code may_be_unlisted(const char *path, const char *name, bool *is, struct moe_err *err)
{
    static const struct moe_file_kind plan = {
        .name = "a plan",
        .marks = { { 0, "", { "\"layers\"", "\"ranks\"" } }, { 0, "", { "\"physical_to_logical_map\"" } },
                   { 0, "", { "initial_global_assignments:" } } },
    };
    *is = moe_newfile_is_temporary(name) || !strcmp(name, MOE_NEWDIR_MARK);
    if (*is || !moe_is_plan_name(name)) return MOE_OK;
    enum moe_code code = moe_file_kind_check(path, &plan, err);
    *is = code == MOE_OK;
    return code == MOE_EXISTS ? MOE_OK : code;
}

/* Check that a directory has only files that the manifest lists or that may be in it unlisted.  under: "" for
 * the container's directory itself, else "hf/" or "tokenizer/". */
static enum moe_code check_directory(const char *dir, const char *under, const cJSON *manifest,
                                     struct moe_err *err);

static enum moe_code check_entry(const char *dir, const char *under, const char *n, const cJSON *manifest,
                                 struct moe_err *err)
{
    char path[PATH_MAX], name[2 * NAME_MAX];
    struct moe_listed_file f;
    enum moe_exists there;
    bool unlisted = false;
    snprintf(name, sizeof name, "%s%s", under, n);
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR && !*under && (!strcmp(n, "hf") || !strcmp(n, "tokenizer"))) {
        snprintf(name, sizeof name, "%s/", n);
        return check_directory(dir, name, manifest, err);
    }
    if (there != MOE_DIR && !*under && !strcmp(n, MOE_MANIFEST_NAME)) return MOE_OK;
    if (there != MOE_DIR && moe_manifest_find(manifest, name, &f)) return MOE_OK;
    if (there == MOE_FILE && !*under) MOE_TRY(may_be_unlisted(path, n, &unlisted, err));
    return unlisted ? MOE_OK : fail_not_of_container(dir, name, err);
}

static enum moe_code check_directory(const char *dir, const char *under, const cJSON *manifest,
                                     struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_names names;
    MOE_TRY(moe_path_join(path, sizeof path, dir, under, err));
    enum moe_code code = moe_list_dir(*under ? path : dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++)
        code = check_entry(dir, under, names.v[i], manifest, err);
    moe_names_release(&names);
    return code;
}

enum moe_code moe_container_replaceable(const char *path, char sum[33], struct moe_err *err)
{
    struct moe_err why;
    enum moe_exists there;
    bool ours = false;
    cJSON *m;
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) MOE_TRY(moe_manifest_is_ours(path, &ours, err));
    if (!ours)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "already exists and is not a container (choose another name with -o)");
    enum moe_code code = moe_manifest_read(path, &m, &why);
    if (code == MOE_NOMEM || code == MOE_IO) return *err = why, code;
    if (code != MOE_OK)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "already exists, and its manifest.json, which would say what is a container's in "
                           "it, cannot be used (move it away, or choose another name with -o)");
    code = check_directory(path, "", m, err);
    if (code == MOE_OK && sum) snprintf(sum, 33, "%s", moe_json_get(m, "checksum")->valuestring);
    cJSON_Delete(m);
    return code;
}

enum moe_code moe_container_is(const char *path, const void *with, struct moe_err *err)
{
    char sum[33];
    MOE_TRY(moe_container_replaceable(path, sum, err));
    if (!with || !strcmp(sum, with)) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, path, NULL,
                       "another container is there than the one that was to be replaced (move it away)");
}
