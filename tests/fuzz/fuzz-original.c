/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as source.rest.  They have to be refused with a sentence, or give records.  Each record has
 * to stand for a text of the length that it claims, and for the same text after that was written again. */
#undef NDEBUG
#include "formats/container/original.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char plain[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
enum { PLAIN = sizeof plain - 1, LIMIT = 1 << 20 };

/* Writes a text again, against the plain one, and checks that it is read back as it was. */
static void check_round_trip(const struct moe_original *o, const char *text, size_t n)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_buffer w = { 0 };
    struct moe_originals back;
    char *same;
    size_t m;
    assert(moe_original_add(&w, o->kind, o->name, text, n, plain, PLAIN, &err) == MOE_OK);
    assert(moe_originals_parse(w.p, w.n, "again", &back, &err) == MOE_OK && back.n == 1 &&
           !strcmp(back.v->name, o->name) && back.v->kind == o->kind);
    assert(moe_original_text(back.v, plain, PLAIN, LIMIT, "again", &same, &m, &err) == MOE_OK && m == n &&
           !memcmp(same, text, n));
    free(same);
    free(w.p);
    moe_originals_release(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_originals o;
    char *text, *copy = malloc(size + 1);
    size_t n;
    assert(copy);
    if (size) memcpy(copy, data, size);
    if (moe_originals_parse(copy, size, "fuzz", &o, &err) != MOE_OK) assert(err.msg[0] && !o.n && !o.v);
    for (int64_t i = 0; i < o.n; i++) {
        const char *name = o.v[i].name;
        assert(moe_original_name(name) && *name != '/' && strncmp(name, "../", 3) && !strstr(name, "/../") &&
               !strstr(name, "//"));
        if (moe_original_text(&o.v[i], plain, PLAIN, LIMIT, "fuzz", &text, &n, &err) != MOE_OK) {
            assert(err.msg[0] && !text);
            continue;
        }
        assert(n <= LIMIT && n == o.v[i].head + o.v[i].n + o.v[i].tail + o.v[i].spaces);
        check_round_trip(&o.v[i], text, n);
        free(text);
    }
    moe_originals_release(&o);
    free(copy);
    return 0;
}
