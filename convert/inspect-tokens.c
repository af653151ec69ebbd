/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a text, and the text of tokens. */
#include "convert/inspect-tokens.h"

#include "base/io.h"
#include "base/show.h"
#include "base/stream.h"
#include "convert/inspect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens of a text ---- */

static size_t characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t i = 0, len; i < n; i += len, count++) {
        len = (size_t)moe_utf8_char((const unsigned char *)text + i, n - i);
        if (!len) len = 1;
    }
    return count;
}

enum moe_code moe_inspect_tokenize(const struct moe_tokenizer *t, const char *path, bool special,
                                   const struct moe_cancel *cancel, int32_t **ids,
                                   struct moe_token_counts *c, struct moe_err *err)
{
    char *text;
    size_t n;
    size_t count = 0;
    MOE_TRY(moe_read_text(path, moe_available_memory(), cancel, &text, &n, err));
    enum moe_code code = moe_tokenize(t, text, n, special, ids, &count, err);
    if (code == MOE_OK) *c = (struct moe_token_counts){ count, n, characters(text, n) };
    free(text);
    return code;
}

/* ---- the text of tokens ---- */

static enum moe_code parse_ids(const char *text, const struct moe_tokenizer *t, int32_t **ids, size_t *count,
                               struct moe_err *err)
{
    *count = 0;
    *ids = malloc((strlen(text) / 2 + 1) * sizeof **ids);
    if (!*ids) return moe_fail(err, MOE_NOMEM, "no memory for the tokens");
    for (const char *p = text; *p; ) {
        char *end, room[MOE_TOKEN_ROOM];
        size_t len;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v >= moe_tokenizer_size(t) ||
            !moe_token_bytes(t, (int32_t)v, room, &len) || (*end && *end != ',')) {
            free(*ids);
            return moe_fail(err, MOE_USAGE, "--detokenize: '%.20s' is no token of this model (want 1,2,3)",
                            p);
        }
        (*ids)[(*count)++] = (int32_t)v;
        p = *end ? end + 1 : end;
    }
    return MOE_OK;
}

/* The text of the tokens, in which decoding replaces bytes that are no UTF-8; *raw [*n]: the bytes as they
 * are.  NULL without memory. */
static char *decode(const struct moe_tokenizer *t, const int32_t *ids, size_t count, size_t *text_bytes,
                    char **raw, size_t *n)
{
    char room[MOE_TOKEN_ROOM];
    size_t text_cap = 16;
    size_t raw_cap = 1;
    size_t len;
    struct moe_decoder d = { .keep_special = true };
    for (size_t i = 0; i < count; i++) {
        moe_token_bytes(t, ids[i], room, &len);
        text_cap += MOE_DECODE_BOUND(len);
        raw_cap += len;
    }
    char *text = malloc(text_cap + 1);
    *raw = malloc(raw_cap);
    *text_bytes = *n = 0;
    if (!text || !*raw) return free(text), NULL;
    for (size_t i = 0; i < count; i++) {
        const char *bytes = moe_token_bytes(t, ids[i], room, &len);
        memcpy(*raw + *n, bytes, len);
        *n += len;
        *text_bytes += moe_decode(t, &d, ids[i], text + *text_bytes);
    }
    *text_bytes += moe_decode_flush(&d, text + *text_bytes);
    text[*text_bytes] = 0;
    return text;
}

enum moe_code moe_inspect_detokenize(const struct moe_tokenizer *t, const char *ids, cJSON **json, char **raw,
                                     size_t *n, struct moe_err *err)
{
    int32_t *list;
    size_t count;
    size_t text_bytes;
    MOE_TRY(parse_ids(ids, t, &list, &count, err));
    char *text = decode(t, list, count, &text_bytes, raw, n);
    char *base64 = text ? moe_base64(*raw, *n) : NULL;
    *json = cJSON_CreateObject();
    bool ok = base64 && *json && moe_json_add_text(*json, "text", text, text_bytes) &&
              moe_json_add_str(*json, "bytes_base64", base64);
    free(list);
    free(text);
    free(base64);
    if (ok) return MOE_OK;
    cJSON_Delete(*json);
    free(*raw);
    *json = NULL;
    *raw = NULL;
    return moe_fail(err, MOE_NOMEM, "no memory for the text");
}
