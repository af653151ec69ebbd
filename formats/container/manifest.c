/* SPDX-License-Identifier: Apache-2.0 */
/* The container's JSON files, which are sealed with a checksum, and the manifest's list of files. */
#include "formats/container/container-internal.h"

#include "base/io.h"
#include "base/show.h"
#include "base/strmap.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(const char *s, int digits, uint64_t *v)
{
    *v = 0;
    for (int i = 0; i < digits; i++) {
        int d = hex_digit(s[i]);
        if (d < 0) return false;
        *v = *v << 4 | (uint64_t)d;
    }
    return true;
}

bool moe_parse_hex64(const char *s, uint64_t *v) { return strlen(s) == 16 && parse_hex(s, 16, v); }

bool moe_parse_hex128(const char *s, struct moe_hash128 *v)
{
    return strlen(s) == 32 && parse_hex(s, 16, &v->high) && parse_hex(s + 16, 16, &v->low);
}

/* ---- sealed JSON ---- */

#define ZEROS "00000000000000000000000000000000"

static char *last_of(char *text, size_t n, const char *digits)
{
    for (size_t i = n; i >= 32; i--)
        if (!memcmp(text + i - 32, digits, 32)) return text + i - 32;
    return NULL;
}

char *moe_json_seal(cJSON *object, int indent)
{
    if (!moe_json_add_str(object, "checksum", ZEROS)) return NULL;
    char *text = moe_json_print(object, indent), hex[33];
    cJSON_DeleteItemFromObjectCaseSensitive(object, "checksum");
    if (!text) return NULL;
    size_t n = strlen(text);
    char *with_newline = realloc(text, n + 2);
    if (!with_newline) {
        free(text);
        return NULL;
    }
    text = with_newline;
    if (!n || text[n - 1] != '\n') text[n++] = '\n', text[n] = 0;
    char *at = last_of(text, n, ZEROS);
    MOE_CHECK(at);
    moe_hex128(moe_hash128(text, n), hex);
    memcpy(at, hex, 32);
    return text;
}

enum moe_code moe_json_open_sealed(const char *path, cJSON **out, struct moe_err *err)
{
    char *text;
    size_t n;
    const char *sum;
    struct moe_hash128 want;
    *out = NULL;
    MOE_TRY(moe_read_file(path, MOE_JSON_LIMIT, &text, &n, err));
    cJSON *j = NULL;
    enum moe_code code = moe_json_parse(text, n, path, &j, err);
    if (code == MOE_OK) code = moe_json_str(j, "checksum", true, &sum, path, err);
    if (code == MOE_OK) {
        char *at = moe_parse_hex128(sum, &want) ? last_of(text, n, sum) : NULL;
        if (at) memset(at, '0', 32);
        if (!at || !moe_same128(moe_hash128(text, n), want))
            code = moe_fail_at(err, MOE_CORRUPT, path, NULL,
                               "does not match its checksum (copy the container again)");
    }
    free(text);
    if (code != MOE_OK) cJSON_Delete(j);
    else *out = j;
    return code;
}

/* ---- the list of files ---- */

bool moe_is_shard_name(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, ".moe") && !strchr(name, '/');
}

/* A plain name, or a plain name in hf/ or tokenizer/, but none of the names with a fixed meaning. */
bool moe_container_name_allowed(const char *name)
{
    if (!strncmp(name, "tokenizer/", 10)) name += 10;
    else if (!strncmp(name, "hf/", 3)) name += 3;
    else if (!strcmp(name, MOE_MANIFEST_NAME) || !strcmp(name, MOE_STATE_NAME) ||
             !strcmp(name, "tokenizer") || !strcmp(name, "hf"))
        return false;
    if (!moe_plain_name(name) || strlen(name) > NAME_MAX) return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return false;
    return true;
}

static enum moe_code check_entry(const cJSON *e, struct moe_strmap *seen, const char *path,
                                 struct moe_err *err)
{
    const char *name, *hex;
    int64_t bytes;
    struct moe_hash128 digest;
    if (!cJSON_IsObject(e))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "an entry of 'files' is not an object");
    MOE_TRY(moe_json_str(e, "name", true, &name, path, err));
    MOE_TRY(moe_json_i64(e, "bytes", true, 0, (int64_t)1 << 53, &bytes, path, err));
    MOE_TRY(moe_json_str(e, "xxh3_128", true, &hex, path, err));
    if (!moe_container_name_allowed(name))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "a file may not be named '%.100s'", name);
    if (!moe_parse_hex128(hex, &digest))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "the digest of '%.100s' is not 32 hex digits", name);
    int added = moe_strmap_add(seen, name, strlen(name), 0, NULL);
    if (added < 0) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to check it");
    return added ? MOE_OK
                 : moe_fail_at(err, MOE_CORRUPT, path, NULL, "the file '%.100s' is listed twice", name);
}

void moe_manifest_entry(const cJSON *e, struct moe_listed_file *out)
{
    out->name = cJSON_GetObjectItemCaseSensitive(e, "name")->valuestring;
    out->bytes = (uint64_t)cJSON_GetObjectItemCaseSensitive(e, "bytes")->valuedouble;
    MOE_CHECK(moe_parse_hex128(cJSON_GetObjectItemCaseSensitive(e, "xxh3_128")->valuestring, &out->digest));
}

bool moe_manifest_find(const cJSON *manifest, const char *name, struct moe_listed_file *out)
{
    for (const cJSON *e = moe_json_get(manifest, "files")->child; e; e = e->next)
        if (moe_manifest_entry(e, out), !strcmp(out->name, name)) return true;
    return false;
}

static enum moe_code check_manifest(const cJSON *m, const char *path, struct moe_err *err)
{
    const char *format;
    int64_t version;
    MOE_TRY(moe_json_str(m, "format", true, &format, path, err));
    if (strcmp(format, "moe"))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "format '%.40s' is not a container's", format);
    MOE_TRY(moe_json_i64(m, "version", true, 0, INT32_MAX, &version, path, err));
    if (version != MOE_MANIFEST_VERSION)
        return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL,
                           "container version %lld (this program reads version %d)", (long long)version,
                           MOE_MANIFEST_VERSION);
    const cJSON *files = moe_json_get(m, "files");
    if (!cJSON_IsArray(files) || !files->child)
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "it lists no files");
    if (!cJSON_IsObject(moe_json_get(m, "config")))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "the key 'config' is missing");
    struct moe_strmap seen = { 0 };
    enum moe_code code = MOE_OK;
    for (const cJSON *e = files->child; e && code == MOE_OK; e = e->next)
        code = check_entry(e, &seen, path, err);
    moe_strmap_release(&seen);
    return code;
}

enum moe_code moe_manifest_read(const char *dir, cJSON **manifest, struct moe_err *err)
{
    char path[PATH_MAX];
    *manifest = NULL;
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_MANIFEST_NAME, err));
    cJSON *m;
    MOE_TRY(moe_json_open_sealed(path, &m, err));
    enum moe_code code = check_manifest(m, path, err);
    if (code != MOE_OK) cJSON_Delete(m);
    else *manifest = m;
    return code;
}

static enum moe_code check_file(const char *dir, const struct moe_listed_file *f, struct moe_err *err)
{
    char path[PATH_MAX];
    int fd;
    uint64_t size;
    unsigned char *head = NULL;
    size_t n = 0;
    MOE_TRY(moe_path_join(path, sizeof path, dir, f->name, err));
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = MOE_OK;
    if (size != f->bytes)
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "%llu byte%s, the manifest says %llu (copy the file again)",
                           (unsigned long long)size, moe_plural((int64_t)size), (unsigned long long)f->bytes);
    else if (moe_is_shard_name(f->name)) code = moe_shard_read_head(fd, path, size, &head, &n, err);
    if (head && !moe_same128(moe_hash128(head, n), f->digest))
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "header and table are not those of the manifest (copy the file again)");
    free(head);
    close(fd);
    return code;
}

enum moe_code moe_manifest_check_files(const char *dir, const cJSON *manifest, struct moe_err *err)
{
    for (const cJSON *e = cJSON_GetObjectItemCaseSensitive(manifest, "files")->child; e; e = e->next) {
        struct moe_listed_file f;
        moe_manifest_entry(e, &f);
        MOE_TRY(check_file(dir, &f, err));
    }
    return MOE_OK;
}

/* ---- options ---- */

enum { SHOWN = 76, BEFORE = 16 }; /* bytes shown of a long value, and how many before the first difference */

/* From which byte two long texts are shown, so that their first difference is visible. */
static size_t shown_from(const char *a, const char *b)
{
    size_t same = 0;
    while (a[same] && a[same] == b[same]) same++;
    return (strlen(a) > SHOWN || strlen(b) > SHOWN) && same > BEFORE ? same - BEFORE : 0;
}

static bool objects_differ(const cJSON *was, const cJSON *is, const char *path, char out[256]);

/* path: the name of the value, "calibration.seed". */
static bool value_differs(const cJSON *was, const cJSON *is, const char *path, char out[256])
{
    if (was && is && cJSON_Compare(was, is, true)) return false;
    if (cJSON_IsObject(was) && cJSON_IsObject(is) && objects_differ(was, is, path, out)) return true;
    char *a = was ? moe_json_print(was, 0) : strdup("not set"),
         *b = is ? moe_json_print(is, 0) : strdup("not set");
    size_t from = a && b ? shown_from(a, b) : 0;
    const char *cut = from ? "..." : "";
    snprintf(out, 256, "option '%.60s' was %s%.*s and is now %s%.*s", path, cut, SHOWN, a ? a + from : "?",
             cut, SHOWN, b ? b + from : "?");
    free(a);
    free(b);
    return true;
}

static bool objects_differ(const cJSON *was, const cJSON *is, const char *path, char out[256])
{
    for (int back = 0; back < 2; back++) /* 0: the keys of `is`; 1: those of `was`, for keys that are gone */
        for (const cJSON *i = back ? was->child : is->child; i; i = i->next) {
            const cJSON *other = cJSON_GetObjectItemCaseSensitive(back ? is : was, i->string);
            char at[128];
            snprintf(at, sizeof at, "%s%s%s", path, *path ? "." : "", i->string);
            if (value_differs(back ? i : other, back ? other : i, at, out)) return true;
        }
    return false;
}

bool moe_options_differ(const cJSON *was, const cJSON *is, char out[256])
{
    if (!cJSON_IsObject(was)) return snprintf(out, 256, "its options are not recorded"), true;
    return objects_differ(was, is, "", out);
}
