/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/server/keys.h"

#include "base/grow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void digest_of(const char *key, size_t n, unsigned char out[MOE_SHA256_BYTES])
{
    struct moe_sha256 s;
    moe_sha256_init(&s);
    moe_sha256_add(&s, key, n);
    moe_sha256_end(&s, out);
}

/* Reads 64 hexadecimal digits. */
static bool read_digest(const char *s, unsigned char out[MOE_SHA256_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 2 * MOE_SHA256_BYTES; i++) {
        const char *d = s[i] ? strchr(digits, s[i] >= 'A' && s[i] <= 'F' ? s[i] - 'A' + 'a' : s[i]) : NULL;
        if (!d) return false;
        out[i / 2] = (unsigned char)(out[i / 2] << 4 | (unsigned char)(d - digits));
    }
    return !s[2 * MOE_SHA256_BYTES];
}

/* Reads a line, which has no line end, into *key.  NULL, or what is wrong with it. */
static const char *read_line(char *line, struct moe_key *key)
{
    char *space = strpbrk(line, " \t"), *text = line;
    if (space) {
        *space = 0;
        text = space + 1 + strspn(space + 1, " \t");
    }
    if (strpbrk(text, " \t")) return "has more than a name and a key";
    if (strlen(line) >= sizeof key->name && space) return "has a name of 64 bytes or more";
    snprintf(key->name, sizeof key->name, "%s", space ? line : "");
    if (!strncmp(text, "sha256:", 7))
        return read_digest(text + 7, key->digest) ? NULL : "has no digest of 64 hexadecimal digits";
    size_t n = strlen(text);
    if (n < MOE_KEY_MIN || n > MOE_KEY_MAX) return "has a key of fewer than 16 or more than 256 bytes";
    digest_of(text, n, key->digest);
    return NULL;
}

static bool is_there(const struct moe_keys *k, const struct moe_key *key)
{
    for (size_t i = 0; i < k->n; i++)
        if (!memcmp(k->v[i].digest, key->digest, sizeof key->digest)) return true;
    return false;
}

static enum moe_code read_lines(struct moe_keys *k, FILE *f, const char *path, struct moe_err *err)
{
    char line[1024];
    for (int n = 1; fgets(line, sizeof line, f); n++) {
        struct moe_key key = { .name = "" };
        line[strcspn(line, "\r\n")] = 0;
        if (!*line || *line == '#') continue;
        const char *wrong = read_line(line, &key);
        if (!wrong && is_there(k, &key)) wrong = "has a key that was there before";
        if (wrong) return moe_fail_at(err, MOE_USAGE, path, NULL, "line %d %s", n, wrong);
        if (!*key.name) snprintf(key.name, sizeof key.name, "key-%zu", k->n + 1);
        if (!MOE_GROW(k->v, k->cap, k->n + 1)) return moe_fail(err, MOE_NOMEM, "no memory for keys");
        k->v[k->n++] = key;
    }
    if (ferror(f)) return moe_fail_errno(err, errno, path, "cannot read the keys");
    if (!k->n) return moe_fail_at(err, MOE_USAGE, path, NULL, "holds no key");
    return MOE_OK;
}

static enum moe_code check_file(FILE *f, const char *path, struct moe_err *err)
{
    struct stat st;
    if (fstat(fileno(f), &st)) return moe_fail_errno(err, errno, path, "cannot look at the file");
    if (!S_ISREG(st.st_mode)) return moe_fail_at(err, MOE_USAGE, path, NULL, "is no plain file");
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return moe_fail_at(err, MOE_USAGE, path, NULL,
                           "others can reach the keys (chmod 600 keeps them out)");
    return MOE_OK;
}

enum moe_code moe_keys_read(struct moe_keys *k, const char *path, struct moe_err *err)
{
    *k = (struct moe_keys){ .n = 0 };
    FILE *f = fopen(path, "re");
    if (!f) return moe_fail_errno(err, errno, path, "cannot open the keys");
    enum moe_code code = check_file(f, path, err);
    if (code == MOE_OK) code = read_lines(k, f, path, err);
    fclose(f);
    if (code != MOE_OK) moe_keys_release(k);
    return code;
}

int moe_keys_find(const struct moe_keys *k, const char *key)
{
    unsigned char digest[MOE_SHA256_BYTES];
    size_t n = key ? strnlen(key, MOE_KEY_MAX + 1) : 0;
    int found = -1;
    if (!n || n > MOE_KEY_MAX) return -1;
    digest_of(key, n, digest);
    for (size_t i = 0; i < k->n; i++)
        if (moe_equal_constant_time(k->v[i].digest, digest, sizeof digest)) found = (int)i;
    return found;
}

void moe_keys_release(struct moe_keys *k)
{
    free(k->v);
    *k = (struct moe_keys){ .n = 0 };
}
