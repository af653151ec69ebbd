/* What is under NAME.moe and NAME.moe.partial, and whether it belongs to the work at hand. */
#include "formats/container-internal.h"

#include "base/io.h"
#include "base/strmap.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && !strcmp(s + n - k, suffix);
}

static bool name_is_ours(const char *n)
{
    char base[NAME_MAX + 1];
    snprintf(base, sizeof base, "%s", n);
    if (has_suffix(base, ".tmp")) base[strlen(base) - 4] = 0;
    if (!strcmp(base, MOE_MANIFEST_NAME) || !strcmp(base, MOE_STATE_NAME) || !strcmp(base, MOE_SOURCE_NAME) ||
        !strcmp(base, "tokenizer") || !strcmp(base, "hf") || !strcmp(base, "routing.json"))
        return true;
    bool unit = !strncmp(base, "dense.", 6) || !strncmp(base, "layer-", 6);
    return (unit && (has_suffix(base, ".moe") || has_suffix(base, ".json"))) ||
           (!strncmp(base, "plan-", 5) && has_suffix(base, ".json"));
}

/* Counts entries other than a state file; *ours is false when one is no container's. */
static int look(const char *dir, bool *ours, bool *state)
{
    DIR *d = opendir(dir);
    int n = 0;
    *ours = true;
    *state = false;
    if (!d) return *ours = false, 1;
    for (struct dirent *e; (e = readdir(d)); ) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, MOE_STATE_NAME ".tmp")) continue;
        if (!strcmp(e->d_name, MOE_STATE_NAME)) { *state = true; continue; }
        if (!name_is_ours(e->d_name)) *ours = false;
        n++;
    }
    closedir(d);
    return n;
}

enum moe_final moe_final_look(const char *path)
{
    char manifest[PATH_MAX];
    struct moe_err e;
    bool ours, state;
    if (moe_exists(path) == MOE_ABSENT) return MOE_FINAL_ABSENT;
    if (moe_exists(path) != MOE_DIR || moe_path_join(manifest, sizeof manifest, path, MOE_MANIFEST_NAME, &e)) return MOE_FINAL_FOREIGN;
    look(path, &ours, &state);
    return ours && moe_exists(manifest) == MOE_FILE ? MOE_FINAL_CONTAINER : MOE_FINAL_FOREIGN;
}

enum moe_partial moe_partial_look(const char *dir)
{
    bool ours, state;
    int n = look(dir, &ours, &state);
    if (!ours) return MOE_PARTIAL_FOREIGN;
    return state ? MOE_PARTIAL_STATE : n ? MOE_PARTIAL_JUNK : MOE_PARTIAL_FRESH;
}

char *moe_state_text(const struct moe_work *k)
{
    char hex[17];
    moe_hex64(k->identity, hex);
    cJSON *s = cJSON_CreateObject(), *options = cJSON_Duplicate(k->options, true);
    bool ok = s && cJSON_AddStringToObject(s, "format", "moe-partial") && cJSON_AddNumberToObject(s, "version", 1) &&
              cJSON_AddStringToObject(s, "tool", MOE_VERSION) && cJSON_AddStringToObject(s, "input", hex) && options;
    if (ok) ok = cJSON_AddItemToObject(s, "options", options);
    else cJSON_Delete(options);
    char *text = ok ? moe_json_seal(s, 2) : NULL;
    cJSON_Delete(s);
    return text;
}

static enum moe_code compare(const char *dir, const char *version, const cJSON *options, bool same_input, const cJSON *now, struct moe_err *err)
{
    char why[256];
    if (strcmp(version, MOE_VERSION))
        return moe_fail_at(err, MOE_MISMATCH, dir, NULL, "version %.40s wrote it, this is %s (start over with --force)", version, MOE_VERSION);
    if (moe_options_differ(options, now, why)) return moe_fail_at(err, MOE_MISMATCH, dir, NULL, "%s (start over with --force)", why);
    if (!same_input) return moe_fail_at(err, MOE_MISMATCH, dir, NULL, "it was made from another input (start over with --force)");
    return MOE_OK;
}

enum moe_code moe_state_compare(const char *dir, const struct moe_work *k, struct moe_err *err)
{
    char path[PATH_MAX], hex[17];
    const char *version, *input;
    cJSON *s;
    moe_hex64(k->identity, hex);
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_STATE_NAME, err));
    MOE_TRY(moe_json_open_sealed(path, &s, err));
    enum moe_code code = moe_json_str(s, "tool", true, &version, path, err);
    if (code == MOE_OK) code = moe_json_str(s, "input", true, &input, path, err);
    if (code == MOE_OK) code = compare(dir, version, moe_json_get(s, "options"), !strcmp(input, hex), k->options, err);
    cJSON_Delete(s);
    return code;
}

enum moe_code moe_manifest_compare(const char *dir, const cJSON *manifest, const struct moe_work *k, struct moe_err *err)
{
    char hex[17];
    const char *version = "", *origin = "";
    const cJSON *p = moe_json_get(manifest, "provenance");
    moe_hex64(k->origin, hex);
    MOE_TRY(moe_json_str(p, "version", true, &version, dir, err));
    MOE_TRY(moe_json_str(p, "origin", true, &origin, dir, err));
    return compare(dir, version, moe_json_get(p, "options"), !strcmp(origin, hex), k->options, err);
}

/* ---- clearing ---- */

static bool is_listed(const cJSON *listed, const char *name)
{
    const cJSON *files = listed ? cJSON_GetObjectItemCaseSensitive(listed, "files") : NULL;
    size_t n = strlen(name);
    if (listed && !strcmp(name, MOE_MANIFEST_NAME)) return true;
    for (const cJSON *e = files ? files->child : NULL; e; e = e->next) {
        struct moe_listed f;
        moe_manifest_entry(e, &f);
        if (!strcmp(f.name, name)) return true;
        if (!strchr(name, '/') && !strncmp(f.name, name, n) && f.name[n] == '/') return true; /* its folder */
    }
    return false;
}

static enum moe_code clear_in(const char *dir, const char *prefix, const char *keep, const cJSON *listed, struct moe_err *err)
{
    DIR *d = opendir(dir);
    enum moe_code code = MOE_OK;
    if (!d) return moe_fail_errno(err, errno, dir, "cannot list");
    for (struct dirent *e; code == MOE_OK && (e = readdir(d)); ) {
        char path[PATH_MAX], name[2 * NAME_MAX];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || (keep && !strcmp(e->d_name, keep))) continue;
        snprintf(name, sizeof name, "%s%s", prefix, e->d_name);
        code = moe_path_join(path, sizeof path, dir, e->d_name, err);
        if (code != MOE_OK) break;
        if (!is_listed(listed, name)) code = moe_remove_tree(path, err);
        else if (!*prefix && moe_exists(path) == MOE_DIR) {
            snprintf(name, sizeof name, "%s/", e->d_name);
            code = clear_in(path, name, NULL, listed, err);
        }
    }
    closedir(d);
    return code;
}

enum moe_code moe_dir_clear(const char *dir, const char *keep, const cJSON *listed, struct moe_err *err)
{
    return clear_in(dir, "", keep, listed, err);
}
