/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as a tiktoken.model.  It has to be refused with a sentence, or give a vocabulary that
 * encodes without losing a byte.  An odd first byte puts the 256 single bytes in front, which a mutation
 * would hardly find. */
#undef NDEBUG
#include "formats/tokenizer/bpe.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t put_singles(char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    for (int c = 0; c < 256; c++)
        n += (size_t)sprintf(out + n, "%c%c== %d\n", digits[c >> 2], digits[(c & 3) << 4], c);
    return n;
}

static void encode(const struct moe_bpe *b, const uint8_t *s, size_t len, struct moe_err *err)
{
    struct moe_ids ids = { 0 };
    struct moe_bpe_work w = { 0 };
    size_t at = 0;
    assert(moe_bpe_encode(b, &w, s, len, &ids, err) == MOE_OK);
    for (size_t i = 0; i < ids.count; i++) {
        assert(ids.v[i] >= 0 && ids.v[i] < b->count);
        uint32_t part = b->start[ids.v[i] + 1] - b->start[ids.v[i]];
        assert(part <= len - at && !memcmp(b->bytes + b->start[ids.v[i]], s + at, part));
        at += part;
    }
    assert(at == len);
    free(ids.v);
    moe_bpe_work_release(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_bpe b;
    if (size == 0) return 0;
    char *text = malloc(256 * 16 + size);
    size_t n = data[0] & 1 ? put_singles(text) : 0;
    memcpy(text + n, data + 1, size - 1);
    if (moe_bpe_parse(&b, text, n + size - 1, "fuzz", &err) == MOE_OK) {
        assert(b.count >= 256);
        encode(&b, data, size, &err);
        if (size > 8) encode(&b, data + size - 8, 8, &err);
        moe_bpe_release(&b);
    } else {
        assert(err.code == MOE_CORRUPT && err.msg[0] && !b.bytes && !b.slots);
    }
    free(text);
    return 0;
}
