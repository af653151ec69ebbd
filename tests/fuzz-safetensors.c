/* A safetensors header: whatever the bytes, either an error or entries that tile the data. */
#undef NDEBUG
#include "formats/names.h"
#include "formats/safetensors.h"
#include "formats/scan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct moe_st_header *h, size_t size)
{
    uint64_t at = size + 8;
    struct moe_err err = MOE_ERR_INIT;
    for (int64_t i = 0; i < h->n; i++) {
        const struct moe_st_entry *e = &h->entries[i];
        struct moe_name n;
        char again[128];
        assert(e->offset == at && (int64_t)e->bytes == moe_st_bytes(e->dtype, e->shape, e->ndim));
        at += e->bytes;
        if (!moe_name_parse(e->name, &n)) continue;
        struct moe_name m;
        assert(moe_name_parse(moe_tensor_name(n.role, n.layer, n.expert, again), &m) && m.role == n.role && m.layer == n.layer && m.expert == n.expert);
    }
    assert(at == h->end && moe_st_check_size(h, "fuzz", at, &err) == MOE_OK);
    for (uint64_t s = 8; s < at && s < 64; s++) moe_st_check_size(h, "fuzz", s, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_arena arena = MOE_ARENA_INIT;
    struct moe_st_header h;
    struct moe_err err = MOE_ERR_INIT;
    char *text = malloc(size + !size);
    assert(text);
    memcpy(text, data, size);
    if (moe_st_parse(text, size, "fuzz", &arena, &h, &err) == MOE_OK) {
        check(&h, size);
        free(h.entries);
    } else {
        assert(err.code == MOE_CORRUPT || err.code == MOE_UNSUPPORTED);
        assert(!h.entries && *err.msg);
    }
    memcpy(text, data, size);
    struct moe_scan s = { text, text, text + size }; /* the index's other members go through this */
    if (!moe_scan_skip(&s)) assert(s.at <= s.end);
    moe_arena_clear(&arena);
    free(text);
    return 0;
}
