/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any text as tokenizer_config.json beside a tiktoken.model of the 256 single bytes.  It has to be
 * refused with a sentence, or every token that it adds has to be found by its name and read in a text.  With
 * an odd first byte the model's vocabulary has 264 ids. */
#include "formats/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzzdir.h"

static char room[MOE_TOKEN_ROOM];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes 256 tokens, each of one byte, whose rank is the byte. */
static void write_ranks(void)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[256 * 16];
    size_t n = 0;
    for (int c = 0; c < 256; c++)
        n += (size_t)sprintf(text + n, "%c%c== %d\n", digits[c >> 2], digits[(c & 3) << 4], c);
    fuzz_put("tiktoken.model", text, n);
}

/* Checks that every added token is found by its name, and that a text with those names goes through the
 * tokenizer and back. */
static void check_tokenizer(const struct moe_tokenizer *t, const char *text, size_t size)
{
    struct moe_err err;
    int32_t *ids;
    size_t n, len, at = 0;
    for (int64_t i = 256, end = moe_tokenizer_size(t); i < end && i < 1024; i++) {
        const char *name = moe_token_bytes(t, (int32_t)i, room, &len);
        assert(name && len && moe_token_is_special(t, (int32_t)i));
        char *s = strndup(name, len);
        assert(s && moe_token_find_special(t, s) == (int32_t)i);
        free(s);
    }
    assert(moe_tokenize(t, text, size, true, &ids, &n, &err) == MOE_OK);
    for (size_t i = 0; i < n; i++) {
        const char *s = moe_token_bytes(t, ids[i], room, &len);
        assert(s && len <= size - at && !memcmp(s, text + at, len));
        at += len;
    }
    assert(at == size);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_tokenizer *t;
    if (!size) return 0;
    int64_t vocab = data[0] & 1 ? 264 : 0;
    if (fuzz_dir_make()) write_ranks();
    fuzz_put("tokenizer_config.json", data + 1, size - 1);
    if (moe_tokenizer_open(&t, fuzz_dir, vocab, &err) != MOE_OK) {
        assert(err.msg[0] && !t);
        return 0;
    }
    assert(!vocab || moe_tokenizer_size(t) == vocab);
    check_tokenizer(t, (const char *)data + 1, size - 1);
    moe_tokenizer_close(&t);
    return 0;
}
