/* Calibration text: plain, JSON lines and gzip, in pieces whose tokens are those of the whole, and every refusal by file and line. */
#include "formats/text.h"
#include "base/io.h"
#include "base/stream.h"
#include "tests/ok.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static struct moe_err err;
static struct moe_tokenizer *tok;
static char dir[] = "/tmp/moe-text.XXXXXX", path[128];

static const char *put(const char *name, const void *bytes, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    OK(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
    return path;
}
static const char *put_text(const char *name, const char *s) { return put(name, s, strlen(s)); }

/* One gzip member behind what the file holds. */
static const char *put_zipped(const char *name, const char *mode, const void *bytes, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    gzFile f = gzopen(path, mode);
    OK(f && gzwrite(f, bytes, (unsigned)n) == (int)n && gzclose(f) == Z_OK);
    return path;
}

/* ---- all of a file ---- */

struct all { char *text; size_t bytes, pieces, documents, torn; int32_t *ids; size_t n; };

static enum moe_code read_all(const char *file, size_t piece, struct all *a)
{
    struct moe_text *t;
    struct moe_text_piece p;
    bool more = false;
    *a = (struct all){ .text = NULL };
    enum moe_code code = moe_text_open(&t, file, piece, &err);
    if (code != MOE_OK) return code;
    while ((code = moe_text_next(t, &p, &more, &err)) == MOE_OK && more) {
        int32_t *ids;
        size_t n;
        a->pieces++, a->documents += p.begins, a->torn += p.torn;
        OK(moe_text_at(t) <= moe_text_size(t));
        a->text = realloc(a->text, a->bytes + p.bytes + 1);
        OK(a->text);
        if (p.bytes) memcpy(a->text + a->bytes, p.text, p.bytes);
        a->bytes += p.bytes;
        OK(moe_text_encode(tok, &p, NULL, &ids, &n, &err) == MOE_OK);
        a->ids = realloc(a->ids, (a->n + n + 1) * sizeof *a->ids);
        OK(a->ids);
        memcpy(a->ids + a->n, ids, n * sizeof *ids);
        a->n += n;
        free(ids);
    }
    if (code == MOE_OK) OK(moe_text_at(t) == moe_text_size(t));
    moe_text_close(&t);
    return code;
}

static void forget(struct all *a) { free(a->text), free(a->ids); }

/* The file's pieces are its bytes, and their tokens those of `text` as a whole. */
static void check_plain(const char *file, size_t piece, const char *text, size_t bytes, size_t torn)
{
    struct all a;
    int32_t *ids;
    size_t n;
    OK(read_all(file, piece, &a) == MOE_OK);
    OK(a.bytes == bytes && !memcmp(a.text, text, bytes) && a.documents == 1);
    OK(moe_tokenize(tok, text, bytes, false, &ids, &n, &err) == MOE_OK);
    OK((a.torn > 0) == (torn > 0));
    if (!torn) OK(a.n == n && !memcmp(ids, a.ids, n * sizeof *ids));
    free(ids);
    forget(&a);
}

static void test_plain(void)
{
    static const size_t sizes[] = { 64, 100, 1000, 65536, 0 };
    char *text, *zeros = calloc(1, 300);
    size_t n;
    OK(moe_read_text("tests/data/tiny-k2/calib.txt", 1 << 30, &text, &n, &err) == MOE_OK);
    for (size_t i = 0; i < 5; i++) check_plain("tests/data/tiny-k2/calib.txt", sizes[i], text, n, 0);
    put_zipped("a.txt.gz", "wb", text, n);
    check_plain(path, 5000, text, n, 0);
    put_zipped("two", "wb", text, n / 2); /* the name says nothing about gzip; two members are one text */
    put_zipped("two", "ab", text + n / 2, n - n / 2);
    check_plain(path, 5000, text, n, 0);
    struct all a;
    OK(read_all("tests/data/tiny-k2/calib.txt", 64, &a) == MOE_OK && a.pieces > n / 64);
    forget(&a);
    free(text);
    OK(zeros != NULL);
    check_plain(put("zeros", zeros, 300), 64, zeros, 300, 1); /* no place to cut */
    free(zeros);
    char han[3 * 200 + 1];
    for (int i = 0; i < 200; i++) memcpy(han + 3 * i, "\xe7\x95\x8c", 3);
    put("han", han, sizeof han - 1);
    OK(read_all(path, 64, &a) == MOE_OK && a.torn == a.pieces - 1 && a.pieces == 10); /* 63 bytes each: whole characters */
    forget(&a);
}

/* ---- lines of JSON ---- */

static void test_json(void)
{
    struct all a;
    put_text("a.jsonl", "{\"text\": \"one\\n\"}\n\r\n  \n{\"id\": 7, \"text\": \"t\\u00e9\"}\n{\"text\": \"\"}\n"
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi <|im_end|>\"}, {\"role\": \"assistant\", \"content\": "
                        "[{\"type\": \"text\", \"text\": \"y\"}, {\"text\": \"es\"}]}, {\"role\": \"tool\", \"content\": null, \"name\": \"f\"}]}");
    OK(read_all(path, 0, &a) == MOE_OK);
    OK(a.documents == 3 && a.pieces == 3 && a.bytes == 7 && !memcmp(a.text, "one\nt\xc3\xa9", 7));
    const char *turns = "<|im_user|>user<|im_middle|>hi ", *literal = "<|im_end|>",
               *rest = "<|im_end|><|im_assistant|>assistant<|im_middle|>yes<|im_end|><|im_system|>tool<|im_middle|><|im_end|>";
    int32_t *want;
    size_t n, at = a.n;
    OK(moe_tokenize(tok, rest, strlen(rest), true, &want, &n, &err) == MOE_OK);
    OK(at > n && !memcmp(a.ids + (at -= n), want, n * sizeof *want));
    free(want);
    OK(moe_tokenize(tok, literal, strlen(literal), false, &want, &n, &err) == MOE_OK && n > 1); /* content is literal */
    OK(at > n);
    free(want);
    OK(moe_tokenize(tok, turns, strlen(turns), true, &want, &n, &err) == MOE_OK && n > 3);
    free(want);
    forget(&a);
    char *text;
    OK(moe_read_text(path, 1 << 20, &text, &n, &err) == MOE_OK);
    put_zipped("b.jsonl.gz", "wb", text, n);
    free(text);
    OK(read_all(path, 0, &a) == MOE_OK && a.documents == 3);
    forget(&a);
    put_text("bom.jsonl", "\xef\xbb\xbf{\"text\": \"x\"}\n");
    OK(read_all(path, 0, &a) == MOE_OK && a.documents == 1 && a.bytes == 1);
    forget(&a);
    /* a line longer than a first read */
    size_t long_n = 300000;
    char *line = malloc(long_n + 16);
    OK(line != NULL);
    memcpy(line, "{\"text\": \"", 10);
    memset(line + 10, 'x', long_n);
    memcpy(line + 10 + long_n, "\"}\n", 3);
    put("long.jsonl", line, long_n + 13);
    OK(read_all(path, 64, &a) == MOE_OK && a.bytes == long_n && a.documents == 1);
    forget(&a);
    free(line);
}

/* ---- refusals ---- */

static void refused(enum moe_code code, const char *file, const char *text)
{
    struct all a;
    OK(read_all(file, 0, &a) == code && err.code == code);
    if (!strstr(err.msg, text)) fprintf(stderr, "%s\n", err.msg);
    SAYS(text);
    SAYS(strrchr(file, '/') + 1);
    forget(&a);
}

static void test_refusals(void)
{
    static const struct { const char *json, *says; } bad[] = {
        { "{\"text\": \"a\"}\n{\"text\": 5}\n", "line 2: 'text' is not a string" },
        { "\n\n{\"text\": \"a\"\n", "line 3: is not JSON" },
        { "{\"text\": \"a\"} {}\n", "line 1: is not JSON: text after" },
        { "{\"txt\": \"a\"}", "line 1: neither a 'text' string nor a 'messages' list" },
        { "[1]", "line 1: neither" },
        { "{\"messages\": []}", "line 1: 'messages' is empty" },
        { "{\"messages\": [{\"content\": \"a\"}]}", "line 1: a message has no 'role'" },
        { "{\"messages\": [3]}", "line 1: a message has no 'role'" },
        { "{\"messages\": [{\"role\": \"robot\"}]}", "line 1: a message has the role 'robot'" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": {}}]}", "line 1: a message's 'content'" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"text\": \"x\"}]}]}", "line 1: a part" },
        { "{\"text\": \"a\xff\"}", "line 1: is not JSON: invalid UTF-8" },
        { "{\"text\": \"a\", \"text\": \"b\"}", "line 1: the key 'text' appears twice" },
        { " \n\n", "holds no text" }, { "{\"text\": \"\"}\n", "holds no text" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(MOE_CORRUPT, put_text("bad.jsonl", bad[i].json), bad[i].says);
    refused(MOE_CORRUPT, put("empty", "", 0), "holds no text");
    refused(MOE_NOT_FOUND, "/nowhere/at/all", "cannot open");
    put_zipped("cut.gz", "wb", "some text that is long enough", 29);
    char *zipped;
    size_t n;
    OK(moe_read_file(path, 1 << 20, &zipped, &n, &err) == MOE_OK);
    for (size_t k = 3; k < n; k++) refused(MOE_CORRUPT, put("short.gz", zipped, k), "truncated");
    char *more = malloc(n + 4);
    OK(more != NULL);
    memcpy(more, zipped, n), memcpy(more + n, "tail", 4);
    refused(MOE_CORRUPT, put("tail.gz", more, n + 4), "cannot decompress");
    free(zipped), free(more);
    size_t big = (64u << 20) + 100;
    char *line = malloc(big);
    OK(line != NULL);
    memset(line, ' ', big);
    refused(MOE_UNSUPPORTED, put("big.jsonl", line, big), "line 1 is longer than 64 MiB");
    free(line);
}

int main(void)
{
    OK(mkdtemp(dir) && moe_tokenizer_open(&tok, "tests/data/tiny-k2/bf16", 1024, &err) == MOE_OK);
    test_plain();
    test_json();
    test_refusals();
    moe_tokenizer_close(&tok);
    OK(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-text: %ld checks\n", checks);
    return 0;
}
