/* SPDX-License-Identifier: Apache-2.0 */
/* What exists under NAME.moe and NAME.moe.partial, and whether it belongs to the present work. */
#include "formats/container/container-internal.h"

#include "base/io.h"
#include "base/newdir.h"
#include "base/newfile.h"
#include "base/strmap.h"
#include "formats/container/original.h"
#include "formats/container/owner.h"
#include "formats/routing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool moe_is_plan_name(const char *name)
{
    return !strncmp(name, "plan-", 5) && strlen(name) > 10 && moe_ends_with(name, ".json");
}

static bool name_is_ours(const char *n)
{
    char base[NAME_MAX + 1];
    if (moe_newfile_is_temporary(n)) return true;
    snprintf(base, sizeof base, "%s", n);
    if (moe_ends_with(base, ".tmp")) base[strlen(base) - 4] = 0;
    if (!strcmp(base, MOE_NEWDIR_MARK) || !strcmp(base, MOE_MANIFEST_NAME) || !strcmp(base, MOE_STATE_NAME) ||
        !strcmp(base, MOE_SOURCE_NAME) || !strcmp(base, MOE_ORIGINAL_NAME) || moe_extra_is_file(base) ||
        !strcmp(base, "tokenizer") || !strcmp(base, "hf") || !strcmp(base, MOE_ROUTING_NAME))
        return true;
    if (moe_ends_with(base, ".work")) return true; /* a calibration's temporary file */
    return moe_is_unit_file(base) || moe_is_plan_name(base);
}

/* What a directory holds: foreign files (no container's), state.json, a manifest, other files of a
 * container. */
struct holds { bool foreign, state, manifest, more; };

/* Set *foreign when `name` is a directory other than hf/ and tokenizer/, or one of these two and contains a
 * directory. */
static enum moe_code has_folders(const char *dir, const char *name, bool *foreign, struct moe_err *err)
{
    char path[PATH_MAX], inside[PATH_MAX];
    struct moe_names names;
    enum moe_exists there;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_DIR) return MOE_OK;
    *foreign |= strcmp(name, "hf") && strcmp(name, "tokenizer");
    if (*foreign) return MOE_OK;
    enum moe_code code = moe_list_dir(path, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        code = moe_path_join(inside, sizeof inside, path, names.v[i], err);
        if (code == MOE_OK) code = moe_look(inside, &there, err);
        if (code == MOE_OK) *foreign |= there == MOE_DIR;
    }
    moe_names_release(&names);
    return code;
}

static enum moe_code look(const char *dir, struct holds *h, struct moe_err *err)
{
    struct moe_names names;
    *h = (struct holds){ .foreign = false };
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        const char *n = names.v[i];
        if (!strcmp(n, MOE_STATE_NAME ".tmp") || moe_newfile_is_temporary(n)) continue;
        if (!strcmp(n, MOE_STATE_NAME)) h->state = true;
        else h->more = true;
        h->manifest |= !strcmp(n, MOE_MANIFEST_NAME);
        h->foreign |= !name_is_ours(n);
        code = has_folders(dir, n, &h->foreign, err);
    }
    moe_names_release(&names);
    return code;
}

enum moe_code moe_container_unfinished(const char *path, const void *with, struct moe_err *err)
{
    struct holds h;
    (void)with;
    MOE_TRY(look(path, &h, err));
    return h.foreign ? moe_fail_at(err, MOE_EXISTS, path, NULL,
                                   "it holds files that are not a container's (choose another name with -o)")
                     : MOE_OK;
}

enum moe_code moe_final_look(const char *path, enum moe_final *what, char sum[33], struct moe_err *err)
{
    enum moe_exists there;
    *sum = 0;
    MOE_TRY(moe_look(path, &there, err));
    *what = MOE_FINAL_ABSENT;
    if (there == MOE_ABSENT) return MOE_OK;
    enum moe_code code = moe_container_replaceable(path, sum, err);
    *what = code == MOE_OK ? MOE_FINAL_CONTAINER : MOE_FINAL_FOREIGN;
    return code == MOE_EXISTS ? MOE_OK : code;
}

enum moe_code moe_partial_look(const char *dir, enum moe_partial *what, struct moe_err *err)
{
    struct holds h;
    bool marked, ours = true;
    MOE_TRY(look(dir, &h, err));
    MOE_TRY(moe_newdir_is_marked(dir, &marked, err));
    if (h.state) MOE_TRY(moe_state_is_ours(dir, &ours, err));
    else if (h.manifest) MOE_TRY(moe_manifest_is_ours(dir, &ours, err));
    *what = h.foreign || !ours ? MOE_PARTIAL_FOREIGN
          : h.state            ? MOE_PARTIAL_STATE
          : !h.more            ? MOE_PARTIAL_FRESH
          : marked             ? MOE_PARTIAL_JUNK
                               : MOE_PARTIAL_UNMARKED;
    return MOE_OK;
}

char *moe_state_text(const struct moe_work *k, const char *replaces)
{
    cJSON *s = cJSON_CreateObject(), *options = cJSON_Duplicate(k->options, true);
    bool ok = s && moe_json_add_str(s, "format", "moe-partial") &&
              moe_json_add_f64(s, "version", 1) && moe_json_add_str(s, "tool", MOE_VERSION) &&
              moe_identity_put(s, "input", "weights", &k->input) &&
              (!k->kernels || moe_json_add_str(s, "kernels", k->kernels)) &&
              (!replaces ||
               (moe_json_add_bool(s, "replace", true) && moe_json_add_str(s, "replaces", replaces)));
    ok = moe_json_add(s, "options", options) && ok;
    char *text = ok ? moe_json_seal(s, 2) : NULL;
    cJSON_Delete(s);
    return text;
}

enum moe_code moe_work_digest(const struct moe_work *w, char hex[33], struct moe_err *err)
{
    char *text = moe_state_text(w, NULL);
    if (!text) return moe_fail(err, MOE_NOMEM, "no memory for the options");
    moe_hex128(moe_hash128(text, strlen(text)), hex);
    free(text);
    return MOE_OK;
}

/* The bytes of a calibrated model depend on the kernels.  A record without kernels is from an older version,
 * or its bytes do not depend on them. */
static enum moe_code compare_kernels(const char *dir, const cJSON *was, const struct moe_work *k,
                                     struct moe_err *err)
{
    if (!cJSON_IsString(was) || !k->kernels || !strcmp(was->valuestring, k->kernels)) return MOE_OK;
    const char *remedy = !strcmp(was->valuestring, "ref") ? "set MOE_CPU=ref"
        : "take a machine with AVX2, without MOE_CPU=ref";
    return moe_fail_at(err, MOE_MISMATCH, dir, NULL,
                       "its calibration was computed by '%.40s' kernels, this run's are '%s', which give "
                       "other bytes (%s, or start over with --force)",
                       was->valuestring, k->kernels, remedy);
}

/* from: the object with the identity and "kernels". */
static enum moe_code compare(const char *dir, const char *version, const cJSON *options, bool same_input,
                             const cJSON *from, const struct moe_work *k, struct moe_err *err)
{
    char why[256];
    const cJSON *now = k->options;
    if (strcmp(version, MOE_VERSION))
        return moe_fail_at(err, MOE_MISMATCH, dir, NULL,
                           "version %.40s wrote it, this is %s (start over with --force)", version,
                           MOE_VERSION);
    if (moe_options_differ(options, now, why))
        return moe_fail_at(err, MOE_MISMATCH, dir, NULL, "%s (start over with --force)", why);
    if (!same_input)
        return moe_fail_at(err, MOE_MISMATCH, dir, NULL,
                           "it was made from another input (start over with --force)");
    return compare_kernels(dir, moe_json_get(from, "kernels"), k, err);
}

/* The hash of the state's text, by which journals belong to it. */
static enum moe_code key_of(const char *path, char key[17], struct moe_err *err)
{
    char *text;
    size_t n;
    MOE_TRY(moe_read_file(path, MOE_JSON_LIMIT, &text, &n, err));
    moe_hex64(moe_hash64(text, n), key);
    free(text);
    return MOE_OK;
}

enum moe_code moe_state_compare(const char *dir, const struct moe_work *k, struct moe_state *state,
                                struct moe_err *err)
{
    char path[PATH_MAX];
    const char *version;
    struct moe_identity input;
    cJSON *s;
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_STATE_NAME, err));
    MOE_TRY(moe_json_open_sealed(path, &s, err));
    enum moe_code code = moe_json_str(s, "tool", true, &version, path, err);
    if (code == MOE_OK && !moe_identity_get(s, "input", "weights", &input))
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "it does not say what it was made from (start over with --force)");
    bool same = code == MOE_OK && moe_identity_same(&input, &k->input);
    if (code == MOE_OK) code = compare(dir, version, moe_json_get(s, "options"), same, s, k, err);
    if (code == MOE_OK) code = key_of(path, state->key, err);
    if (code == MOE_OK) state->no_samples = !input.has_weights && !k->from;
    if (code == MOE_OK) {
        const cJSON *replaces = moe_json_get(s, "replaces");
        state->replace = cJSON_IsTrue(moe_json_get(s, "replace"));
        state->has_replaces = cJSON_IsString(replaces);
        snprintf(state->replaces, sizeof state->replaces, "%s",
                 state->has_replaces ? replaces->valuestring : "");
    }
    cJSON_Delete(s);
    return code;
}

/* A container keeps the source.jsonl of the container from which it was made; this has the hash of every
 * tensor of the checkpoint. */
static bool same_lines(const cJSON *manifest, const struct moe_source *from)
{
    struct moe_listed_file a, b;
    return !from || (moe_manifest_find(manifest, MOE_SOURCE_NAME, &a) &&
                     moe_manifest_find(from->container->manifest, MOE_SOURCE_NAME, &b) &&
                     moe_same128(a.digest, b.digest));
}

enum moe_code moe_manifest_compare(const char *dir, const cJSON *manifest, const struct moe_work *k,
                                   bool *no_samples, struct moe_err *err)
{
    const char *version = "";
    const cJSON *p = moe_json_get(manifest, "provenance");
    struct moe_identity origin;
    if (moe_json_get(manifest, "staged"))
        return moe_fail_at(
            err, MOE_MISMATCH, dir, NULL,
            "it is a staged part, without the experts of other ranks (start over with --force)");
    MOE_TRY(moe_json_str(p, "version", true, &version, dir, err));
    if (!moe_identity_get(p, "origin", "weights", &origin))
        return moe_fail_at(err, MOE_CORRUPT, dir, NULL, "its manifest does not say what it was made from");
    const cJSON *made = moe_json_get(p, "made_from");
    bool same = moe_identity_same(&origin, &k->origin) && same_lines(manifest, k->from) &&
                moe_made_from_same(cJSON_IsString(made) ? made->valuestring : NULL, origin.has_weights,
                                   k->made_from, true);
    *no_samples = !k->from && (!origin.has_weights || !k->origin.has_weights);
    return compare(dir, version, moe_json_get(p, "options"), same, p, k, err);
}

/* Work that has ended, apart from getting its name, is described by its manifest. */
static enum moe_code compare_manifest(const char *dir, const struct moe_work *w, struct moe_err *err)
{
    bool no_samples;
    cJSON *m;
    MOE_TRY(moe_manifest_read(dir, &m, err));
    enum moe_code code = moe_manifest_compare(dir, m, w, &no_samples, err);
    cJSON_Delete(m);
    return code;
}

enum moe_code moe_work_check_manifest(const char *dir, bool whole, struct moe_err *err)
{
    struct holds h = { .foreign = false };
    enum moe_exists there;
    cJSON *m;
    MOE_TRY(moe_look(dir, &there, err));
    if (there != MOE_DIR) return MOE_OK;
    MOE_TRY(look(dir, &h, err));
    if (!whole && (h.state || !h.manifest)) return MOE_OK;
    enum moe_code code = moe_manifest_read(dir, &m, err);
    if (code == MOE_OK) cJSON_Delete(m);
    return code == MOE_CORRUPT || code == MOE_NOT_FOUND ? moe_err_remedy(err, "start over with --force")
                                                        : code;
}

enum moe_code moe_work_compare(const char *dir, const struct moe_work *w, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    struct moe_state state = { .replace = false };
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_STATE_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_FILE) return moe_state_compare(dir, w, &state, err);
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    return there == MOE_FILE ? compare_manifest(dir, w, err) : MOE_OK;
}

/* ---- clearing ---- */

static bool is_listed(const cJSON *listed, const char *name)
{
    const cJSON *files = listed ? cJSON_GetObjectItemCaseSensitive(listed, "files") : NULL;
    size_t n = strlen(name);
    if (listed && !strcmp(name, MOE_MANIFEST_NAME)) return true;
    for (const cJSON *e = files ? files->child : NULL; e; e = e->next) {
        struct moe_listed_file f;
        moe_manifest_entry(e, &f);
        if (!strcmp(f.name, name)) return true;
        if (!strchr(name, '/') && !strncmp(f.name, name, n) && f.name[n] == '/') return true; /* a folder */
    }
    return false;
}

static enum moe_code clear_in(const char *dir, const char *prefix, const char *keep, const cJSON *listed,
                              struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        char path[PATH_MAX], name[2 * NAME_MAX];
        enum moe_exists there = MOE_FILE;
        if (keep && !strcmp(names.v[i], keep)) continue;
        snprintf(name, sizeof name, "%s%s", prefix, names.v[i]);
        code = moe_path_join(path, sizeof path, dir, names.v[i], err);
        if (code == MOE_OK && !is_listed(listed, name)) code = moe_remove_tree(path, err);
        else if (code == MOE_OK && !*prefix) code = moe_look(path, &there, err);
        if (code != MOE_OK || there != MOE_DIR) continue;
        snprintf(name, sizeof name, "%s/", names.v[i]);
        code = clear_in(path, name, NULL, listed, err);
    }
    moe_names_release(&names);
    return code;
}

bool moe_dir_has_work(const char *dir)
{
    struct moe_names names;
    struct moe_err ignored;
    bool has = false;
    if (moe_list_dir(dir, &names, &ignored) != MOE_OK) return false;
    for (size_t i = 0; i < names.n && !has; i++) has = moe_ends_with(names.v[i], ".work");
    moe_names_release(&names);
    return has;
}

enum moe_code moe_dir_drop_work(const char *dir, struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        char path[PATH_MAX];
        if (!moe_ends_with(names.v[i], ".work")) continue;
        code = moe_path_join(path, sizeof path, dir, names.v[i], err);
        if (code == MOE_OK) code = moe_remove_tree(path, err);
    }
    moe_names_release(&names);
    return code == MOE_OK ? moe_fsync_path(dir, err) : code;
}

enum moe_code moe_dir_clear(const char *dir, const char *keep, const cJSON *listed, struct moe_err *err)
{
    return clear_in(dir, "", keep, listed, err);
}
