/* Chat turns of any content: the template's tokens are the only special ones.  Input: turns separated by 0xff, the first
 * byte of each chooses the role. */
#undef NDEBUG
#include "formats/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool", "other" };
    static struct moe_tokenizer *t;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_message m[64];
    size_t n = 0, count = 0, special = 0;
    int32_t *ids;
    bool known = true;
    if (!t) assert(moe_tokenizer_open(&t, "tests/data/tiny-k2/bf16", 1024, &err) == MOE_OK);
    char *text = malloc(size + 1), *end = text + size;
    memcpy(text, data, size);
    *end = 0;
    for (char *s = text; s < end && n < 64; n++) {
        char *stop = memchr(s, 0xff, (size_t)(end - s));
        if (stop) *stop = 0;
        int role = (unsigned char)*s % 5;
        known = known && role < 4;
        m[n] = (struct moe_message){ roles[role], *s ? s + 1 : NULL };
        s = stop ? stop + 1 : end;
    }
    enum moe_code code = moe_chat_encode(t, m, n, NULL, &ids, &count, &err);
    assert(code == (known ? MOE_OK : MOE_USAGE));
    for (size_t i = 0; i < count; i++) special += moe_token_is_special(t, ids[i]);
    assert(special == (known ? 3 * n + 2 : 0));
    free(ids);
    free(text);
    return 0;
}
