/* A calibration file of any bytes: refused with a sentence that names a line, or documents.  Of plain text nothing is lost, and its
 * tokens do not depend on how it was cut, unless a piece says so.  The first byte chooses: plain text, JSON lines, and the size of pieces. */
#include "formats/text.h"
#include "tests/fuzzdir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct ids { int32_t *v; size_t n; };

static void add(struct ids *all, const struct moe_tokenizer *t, const struct moe_text_piece *p, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    assert(moe_text_encode(t, p, NULL, &ids, &n, err) == MOE_OK);
    all->v = realloc(all->v, (all->n + n + 1) * sizeof *all->v);
    assert(all->v);
    for (size_t i = 0; i < n; i++) all->v[all->n++] = ids[i];
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_tokenizer *tok;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_text *t;
    struct moe_text_piece p;
    struct ids all = { NULL, 0 };
    char path[PATH_MAX];
    bool more, torn = false;
    size_t at = 0;
    if (fuzz_dir_make()) assert(moe_tokenizer_open(&tok, "tests/data/tiny-k2/bf16", 1024, &err) == MOE_OK);
    if (!size) return 0;
    bool json = data[0] & 1, zipped = size > 2 && data[1] == 0x1f && data[2] == 0x8b;
    const char *name = json ? "x.jsonl" : "x.txt";
    fuzz_put(name, data + 1, size - 1);
    snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    assert(moe_text_open(&t, path, 64 + data[0], &err) == MOE_OK);
    enum moe_code code;
    while ((code = moe_text_next(t, &p, &more, &err)) == MOE_OK && more) {
        assert(p.line >= 1 && (p.text ? p.bytes > 0 : p.n_messages > 0));
        if (!json && !zipped) assert(p.bytes <= size - 1 - at && !memcmp(p.text, data + 1 + at, p.bytes));
        at += p.bytes;
        torn = torn || p.torn;
        add(&all, tok, &p, &err);
    }
    assert(code == MOE_OK || code == MOE_CORRUPT);
    if (code != MOE_OK) assert(strstr(err.msg, json && !zipped ? "line " : name) || strstr(err.msg, "no text"));
    if (!json && !zipped && code == MOE_OK) {
        int32_t *ids;
        size_t n;
        assert(at == size - 1 && moe_tokenize(tok, (const char *)data + 1, at, false, &ids, &n, &err) == MOE_OK);
        if (!torn) assert(n == all.n && !memcmp(ids, all.v, n * sizeof *ids));
        free(ids);
    }
    moe_text_close(&t);
    free(all.v);
    return 0;
}
