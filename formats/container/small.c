/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/small.h"

#include "base/grow.h"
#include "base/io.h"
#include "formats/container/container-internal.h"
#include "formats/container/original.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMALL_MOST = 64 << 20 }; /* bytes of the largest file that is kept in a container */

static bool starts_with(const char *s, const char *head) { return !strncmp(s, head, strlen(head)); }

const char *moe_small_folder(const char *name)
{
    static const char *const tokenizer[] = { "tiktoken",      "tokeniz",        "tokenization",
                                             "chat_template", "special_tokens", "added_tokens",
                                             "vocab",         "merges",         "tool_" };
    if (*name == '.' || moe_ends_with(name, ".index.json") || moe_ends_with(name, ".safetensors"))
        return NULL;
    for (size_t i = 0; i < sizeof tokenizer / sizeof *tokenizer; i++)
        if (starts_with(name, tokenizer[i])) return "tokenizer";
    if (moe_ends_with(name, ".json") || moe_ends_with(name, ".py") || moe_ends_with(name, ".jinja") ||
        moe_ends_with(name, ".model") || starts_with(name, "LICENSE"))
        return "hf";
    return NULL;
}

/* A file that is too large to be kept in a container is not read; its digest is that of its size and the time
 * of its last write. */
static enum moe_code digest_of(const char *path, struct moe_hash128 *digest, struct moe_err *err)
{
    uint64_t bytes;
    int64_t stamp[2];
    int fd;
    MOE_TRY(moe_open_read(path, &fd, &bytes, err));
    enum moe_code code = moe_written_at(fd, path, &stamp[0], &bytes, err);
    close(fd);
    MOE_TRY(code);
    if (bytes <= SMALL_MOST) return moe_file_digest(path, &bytes, digest, err);
    stamp[1] = (int64_t)bytes;
    *digest = moe_hash128(stamp, sizeof stamp);
    return MOE_OK;
}

/* Add the digest of the file `name` in `dir`; a directory of that name is left out. */
static enum moe_code add_digest(struct moe_small_digests *s, const char *dir, const char *name,
                                struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_small_digest one = { 0 };
    enum moe_exists there;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) return MOE_OK;
    /* a link to nothing has no digest; whoever needs the file reports it */
    if (there == MOE_FILE) MOE_TRY(digest_of(path, &one.digest, err));
    if (MOE_GROW(s->v, s->cap, s->n + 1)) one.name = strdup(name);
    if (!one.name) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its name");
    s->v[s->n++] = one;
    return MOE_OK;
}

enum moe_code moe_small_digests_read(struct moe_small_digests *s, const char *dir, struct moe_err *err)
{
    struct moe_names names;
    *s = (struct moe_small_digests){ 0 };
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++)
        if (moe_small_folder(names.v[i]) || !strcmp(names.v[i], MOE_INDEX_NAME))
            code = add_digest(s, dir, names.v[i], err);
    moe_names_release(&names);
    if (code != MOE_OK) moe_small_digests_release(s);
    return code;
}

void moe_small_digests_release(struct moe_small_digests *s)
{
    for (size_t i = 0; i < s->n; i++) free(s->v[i].name);
    free(s->v);
    *s = (struct moe_small_digests){ 0 };
}

const char *moe_small_digests_differ(const struct moe_small_digests *a, const struct moe_small_digests *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) { /* both are sorted */
        int order = strcmp(a->v[i].name, b->v[i].name);
        if (order || !moe_same128(a->v[i].digest, b->v[i].digest))
            return order > 0 ? b->v[i].name : a->v[i].name;
    }
    return a->n > b->n ? a->v[b->n].name : b->n > a->n ? b->v[a->n].name : NULL;
}
