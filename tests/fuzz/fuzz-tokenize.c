/* SPDX-License-Identifier: Apache-2.0 */
/* Encodes any text by the fixture's tokenizer, decodes it again, and checks that nothing was lost.  Bit 0 of
 * the first byte says whether special tokens are read. */
#undef NDEBUG
#include "base/show.h"
#include "formats/tokenizer/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static char room[MOE_TOKEN_ROOM];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_tokenizer *t;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_decoder d = { .keep_special = true };
    int32_t *ids;
    size_t n, at = 0;
    if (!t) assert(moe_tokenizer_open(&t, "tests/data/tiny-k2/bf16", 1024, &err) == MOE_OK);
    if (size == 0) return 0;
    const char *text = (const char *)data + 1;
    assert(moe_tokenize(t, text, size - 1, data[0] & 1, &ids, &n, &err) == MOE_OK);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *b = moe_token_bytes(t, ids[i], room, &len);
        assert(b && len <= size - 1 - at && !memcmp(b, text + at, len));
        assert(data[0] & 1 || !moe_token_is_special(t, ids[i]));
        char *out = malloc(MOE_DECODE_BOUND(len));
        size_t wrote = moe_decode(t, &d, ids[i], out);
        assert(wrote <= MOE_DECODE_BOUND(len) && moe_utf8_prefix((unsigned char *)out, wrote) == wrote);
        free(out);
        at += len;
    }
    assert(at == size - 1);
    free(ids);
    return 0;
}
