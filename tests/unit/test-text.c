/* SPDX-License-Identifier: Apache-2.0 */
/* Tests calibration text: plain text, JSON lines and gzip, read in pieces whose tokens are those of the
 * whole, and every refusal by file and line. */
#include "base/io.h"
#include "base/stream.h"
#include "formats/text.h"
#include "tests/ok.h"
#include "tests/unit/chat-vocab.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static struct moe_err err;
static struct moe_tokenizer *tok;
static struct moe_chat *chat;
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

struct all { char *text; size_t bytes, pieces, documents, cut_in_token; int32_t *ids; size_t n; int64_t keys;
            char key[48]; };

static enum moe_code read_all(const char *file, size_t piece, struct all *a)
{
    struct moe_text *t;
    struct moe_text_piece p;
    bool more = false;
    *a = (struct all){ .text = NULL };
    enum moe_code code = moe_text_open(&t, file, piece, 0, NULL, &err);
    if (code != MOE_OK) return code;
    while ((code = moe_text_next(t, &p, &more, &err)) == MOE_OK && more) {
        int32_t *ids;
        size_t n;
        a->pieces++, a->documents += p.begins, a->cut_in_token += p.cut_in_token;
        OK(moe_text_at(t) <= moe_text_size(t));
        a->text = realloc(a->text, a->bytes + p.bytes + 1);
        OK(a->text);
        if (p.bytes) memcpy(a->text + a->bytes, p.text, p.bytes);
        a->bytes += p.bytes;
        OK(moe_text_encode(tok, chat, &p, &ids, &n, NULL, &err) == MOE_OK);
        a->ids = realloc(a->ids, (a->n + n + 1) * sizeof *a->ids);
        OK(a->ids);
        memcpy(a->ids + a->n, ids, n * sizeof *ids);
        a->n += n;
        free(ids);
    }
    if (code == MOE_OK) OK(moe_text_at(t) == moe_text_size(t));
    const char *first;
    a->keys = moe_text_unread_keys(t, &first);
    snprintf(a->key, sizeof a->key, "%s", first);
    moe_text_close(&t);
    return code;
}

static void forget(struct all *a) { free(a->text), free(a->ids); }

/* Checks that a file's pieces are its bytes, and their tokens those of `text` as a whole. */
static void check_plain(const char *file, size_t piece, const char *text, size_t bytes, size_t cut_in_token)
{
    struct all a;
    int32_t *ids;
    size_t n;
    OK(read_all(file, piece, &a) == MOE_OK);
    OK(a.bytes == bytes && !memcmp(a.text, text, bytes) && a.documents == 1);
    OK(moe_tokenize(tok, text, bytes, false, &ids, &n, &err) == MOE_OK);
    OK((a.cut_in_token > 0) == (cut_in_token > 0));
    if (!cut_in_token) OK(a.n == n && !memcmp(ids, a.ids, n * sizeof *ids));
    free(ids);
    forget(&a);
}

static void test_plain(void)
{
    static const size_t sizes[] = { 64, 100, 1000, 65536, 0 };
    char *text, letters[300];
    size_t n;
    OK(moe_read_text("tests/data/tiny-k2/calib.txt", 1 << 30, NULL, &text, &n, &err) == MOE_OK);
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
    memset(letters, 'x', 300);
    check_plain(put("letters", letters, 300), 64, letters, 300, 1); /* no place to cut */
    char han[3 * 200 + 1];
    for (int i = 0; i < 200; i++) memcpy(han + 3 * i, "\xe7\x95\x8c", 3);
    put("han", han, sizeof han - 1);
    /* 63 bytes each: whole characters */
    OK(read_all(path, 64, &a) == MOE_OK && a.cut_in_token == a.pieces - 1 && a.pieces == 10);
    forget(&a);
    check_plain(put_text("crlf.txt", "one\r\ntwo\r\n"), 0, "one\r\ntwo\r\n", 10, 0); /* as it is */
    /* a byte order mark is none of the text */
    check_plain(put_text("bom.txt", "\xef\xbb\xbf""b\xc3\xa9"), 0, "b\xc3\xa9", 3, 0);
    static const char *const brackets[] = { "[Illustration]\n", "[1] A note.", "{a set}",
                                           "[\"Hello\", he said]", "[[a]]", "{", "[",
                                           "{\"Hello,\" he said}", "[{foo}, bar]",
                                           "[{\"a\"}]", "{\"a\nb\": 1}", "{\"no end\nof it" };
    for (size_t i = 0; i < sizeof brackets / sizeof *brackets;
         i++) check_plain(put_text("b.txt", brackets[i]), 0, brackets[i], strlen(brackets[i]), 0);
}

/* ---- rows of JSON ---- */

static void expect_ids(const char *file, const char *rendered)
{
    struct all a;
    int32_t *want;
    size_t n;
    OK(read_all(file, 0, &a) == MOE_OK);
    OK(moe_tokenize(tok, rendered, strlen(rendered), true, &want, &n, &err) == MOE_OK);
    OK(a.n == n && !memcmp(a.ids, want, n * sizeof *want));
    free(want);
    forget(&a);
}

#define USER(x) "<|im_user|>user<|im_middle|>" x "<|im_end|>"
#define SAYS_(x) "<|im_assistant|>assistant<|im_middle|><think></think>" x "<|im_end|>"
#define SYSTEM(x) "<|im_system|>system<|im_middle|>" x "<|im_end|>"

/* Every shape of rows, whatever the file is called: as lines, and as an array over several lines. */
static void test_shapes(void)
{
    static const struct { const char *row, *rendered;
    } rows[] = {
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": "
          "[{\"type\": \"text\", \"text\": \"y\"}, {\"text\": \"es\"}]}]}",
          USER("q") SAYS_("yes") },
        { "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
          "\"a\"}], \"system\": \"s\"}",
          SYSTEM("s") USER("q") SAYS_("a") },
        { "{\"conversations\": [{\"role\": \"user\", \"content\": \"q\"}]}", USER("q") },
        { "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\", \"weight\": 1}, {\"from\": \"gpt\", "
          "\"value\": \"a\", \"reasoning_content\": \"r\", \"tool_calls\": [{\"id\": \"i\", \"function\": "
          "{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}}]}]}",
          USER("q") "<|im_assistant|>assistant<|im_middle|><think>r</think>a<|tool_calls_section_begin|>"
                    "<|tool_call_begin|>i<|tool_call_argument_begin|>{\"x\": 1.0}<|tool_call_end|>"
                    "<|tool_calls_section_end|><|im_end|>" },
        { "{\"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, {\"from\": \"user\", \"value\": "
          "\"q\"}, {\"from\": \"assistant\", \"value\": \"\"}]}",
          SYSTEM("s") USER("q") SAYS_("") },
        { "{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}", USER("i") SAYS_("o") },
        { "{\"instruction\": \"i\", \"input\": \"n\", \"output\": \"o\", \"system\": \"\", \"history\": "
          "[[\"a\", \"b\"]]}",
          USER("a") SAYS_("b") USER("i\nn") SAYS_("o") },
        { "{\"messages\": [{\"role\": \"developer\", \"content\": \"d\"}, {\"role\": \"user\", \"content\": "
          "\"q\"}], \"tools\": []}",
          "<|im_system|>developer<|im_middle|>d<|im_end|>" USER("q") },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": "
          "null, \"reasoning_content\": \"r\", \"tool_calls\": [{\"id\": \"functions.f:0\", "
          "\"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}]}, {\"role\": \"tool\", "
          "\"tool_call_id\": \"functions.f:0\", \"content\": \"1\"}, {\"role\": \"assistant\", \"content\": "
          "\"a\", "
          "\"reasoning_content\": \"last\"}], \"tools\": \"[{\\\"type\\\": \\\"function\\\", "
          "\\\"function\\\": {\\\"name\\\": \\\"f\\\"}}]\"}",
          "<|im_system|>tool_declare<|im_middle|># Tools\n\n## functions\nnamespace functions {\ntype f = "
          "(_: {}) => any;\n}\n<|im_end|>" USER("q") "<|im_assistant|>assistant<|im_middle|><think>r</"
                                                     "think><|tool_calls_section_begin|><|tool_call_begin|>"
                                                     "functions.f:0<|tool_call_argument_begin|>{}<|tool_call_"
                                                     "end|><|tool_calls_section_end|><|im_end|><|im_system|>"
                                                     "tool<|im_middle|>## Return of "
                                                     "functions.f:0\n1<|im_end|><|im_assistant|>assistant<|"
                                                     "im_middle|><think>last</think>a<|im_end|>" },
    };
    char all[8192], text[16384];
    size_t n = 0, m = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect_ids(put_text("row.jsonl", rows[i].row), rows[i].rendered);
        expect_ids(put_text("row.txt", rows[i].row), rows[i].rendered);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\r\n\n", rows[i].row);
        m += (size_t)snprintf(all + m, sizeof all - m, "%s", rows[i].rendered);
    }
    static const char *const names[] = { "a.jsonl", "A.JSONL", "rows.ndjson", "rows.json", "rows", "x.txt" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) expect_ids(put(names[i], text, n), all);
    put_zipped("zip.json.gz", "wb", text, n);
    expect_ids(path, all);
    n = (size_t)snprintf(text, sizeof text, " [\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) n += (size_t)snprintf(text + n, sizeof text - n,
                                                                                  "%s  %s", i ? " ,\n" : "",
                                                                                  rows[i].row);
    n += (size_t)snprintf(text + n, sizeof text - n, "\n]\n \n");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) expect_ids(put(names[i], text, n), all);
    put_zipped("zip", "wb", text, n);
    expect_ids(path, all);
}

static void test_json(void)
{
    struct all a;
    put_text("a.jsonl",
             "{\"text\": \"one\\n\"}\n\r\n  \n{\"id\": 7, \"text\": \"t\\u00e9\", \"url\": "
             "null}\n{\"text\": \"\"}\n"
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi <|im_end|>\"}]}");
    OK(read_all(path, 0, &a) == MOE_OK);
    OK(a.documents == 3 && a.pieces == 3 && a.bytes == 7 && !memcmp(a.text, "one\nt\xc3\xa9", 7));
    OK(a.keys == 1 && !strcmp(a.key, "id"));
    forget(&a);
    put_text("bom.jsonl", "\xef\xbb\xbf{\"text\": \"x\"}\n");
    OK(read_all(path, 0, &a) == MOE_OK && a.documents == 1 && a.bytes == 1);
    forget(&a);
    /* the text of a row goes out in pieces, too */
    char *text, *row;
    size_t size, at;
    OK(moe_read_text("tests/data/tiny-k2/calib.txt", 1 << 30, NULL, &text, &size, &err) == MOE_OK &&
       (row = malloc(2 * size + 64)));
    at = (size_t)sprintf(row, "[{\"text\": \"");
    for (size_t i = 0; i < size; i++) at += (size_t)sprintf(row + at,
                                                            text[i] == '\n' ? "\\n" : text[i] == '"' ?
                                                                "\\\"" : text[i] == '\\' ? "\\\\" : "%c",
                                                                text[i]);
    at += (size_t)sprintf(row + at, "\"}, {\"text\": \"end\"}]");
    put("pieces.json", row, at);
    int32_t *want;
    size_t n;
    OK(moe_tokenize(tok, text, size, false, &want, &n, &err) == MOE_OK);
    OK(read_all(path, 1000, &a) == MOE_OK && a.pieces > size / 1000 && a.documents == 2 && !a.cut_in_token &&
       a.n > n && !memcmp(a.ids, want, n * sizeof *want));
    forget(&a);
    free(want), free(text), free(row);
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

/* An array of any size is read in bounded memory, and once: 24 MiB in rows of 80 bytes. */
static void test_array(void)
{
    static const char row[] =
        "{\"text\": \"all that glitters is not gold, and not all that is gold glitters\"},\n";
    size_t rows = (24 << 20) / (sizeof row - 1), got = 0;
    struct moe_text *t;
    struct moe_text_piece p;
    bool more;
    snprintf(path, sizeof path, "%s/big.json", dir);
    FILE *f = fopen(path, "w");
    OK(f && fputs("[", f) >= 0);
    for (size_t i = 0; i < rows; i++) OK(fputs(row, f) >= 0);
    OK(fputs("{\"text\": \"end\"}]", f) >= 0 && !fclose(f));
    uint64_t before = moe_peak_rss();
    double from = moe_now();
    OK(moe_text_open(&t, path, 0, 0, NULL, &err) == MOE_OK);
    while (moe_text_next(t, &p, &more, &err) == MOE_OK && more) got++;
    OK(got == rows + 1 && p.text == NULL);
    moe_text_close(&t);
    TAKES_LESS(moe_peak_rss() < before + (16 << 20));
    OK(moe_now() - from < 60);
    OK(!unlink(path));
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
        { "{\n \"text\": \"a\"\n}", "an array of objects" },
            { "{\"txt\": \"a\"}", "line 1: an object without 'text'" }, { "{\"txt\": \"a\"}", "'txt'" },
        { "{\"prompt\": \"a\", \"completion\": \"b\"}", "its first key: 'prompt'" },
            { "3\n", "line 1: is JSON, but not an object" },
        { "[1]", "line 1: an element of the array is not an object" }, { "[\"a\", \"b\"]", "not an object" },
            { "[[1, 2]]", "not an object" },
        { "[{\"text\": \"a\"}", "the array has no end" }, { "[{\"text\": \"a\"},", "the array has no end" },
            { "[{\"text\": \"a\"", "the object has no end" },
        { "[{\"text\": \"a\"}\n{\"text\": \"b\"}]", "line 2: no comma" },
            { "[{\"text\": \"a\"}]\n\nx", "line 3: text behind the array" },
        { "[{\"text\": \"a\"}]]", "text behind" },
            { "[{\"text\": \"a\"},\n{\"text\": 1}]", "line 2: 'text' is not a string" },
        { "{\"messages\": []}", "holds no text" }, { "{\"text\": null}", "holds no text" },
            { "{\"messages\": \"x\"}", "'messages' is not a list" },
        { "{\"messages\": [{\"role\": \"user\"}], \"tools\": \"no\"}",
         "line 1: 'tools' is a text that is not JSON" },
        { "{\"a\": 1} is a set.\n", "plain text that begins as JSON goes into {\"text\": TEXT})" },
        { "{\"te", "it is read as JSON" },
        { "{\"conversations\": []}", "holds no text" },
            { "{\"conversations\": [{\"from\": \"tool\", \"value\": \"x\"}]}", "is from 'tool'" },
        { "{\"conversations\": [{\"from\": \"gpt\"}]}", "is not {\"from\", \"value\"}" },
            { "{\"conversations\": {\"a\": 1}}", "'conversations' is not a list" },
        { "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"x\", \"content\": \"y\"}]}",
         "has 'from' and 'value', and 'role' or 'content' too" },
        { "{\"instruction\": \"x\"}", "'output' is not text" },
            { "{\"instruction\": 1, \"output\": \"x\"}", "'instruction' and 'input' are not both text" },
        { "{\"instruction\": \"x\", \"output\": \"y\", \"history\": [[\"a\"]]}",
         "'history' is not a list of pairs" },
        { "{\"text\": \"a\xff\"}", "line 1: is not JSON: invalid UTF-8" },
            { "{\"text\": \"a\", \"text\": \"b\"}", "line 1: the key 'text' appears twice" },
        { " \n\n", "holds no text" }, { "{\"text\": \"\"}\n", "holds no text" }, { "[]", "holds no text" },
            { "[ {\"text\": \"\"} ]", "holds no text" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(MOE_CORRUPT, put_text("bad.jsonl", bad[i].json), bad[i].says);
    static const struct { const char *bytes; size_t n; const char *says;
    } foreign[] = {
        { "PAR1\x15\x04", 6, "is Parquet, not text (convert it to JSON lines)" },
        { "\x28\xb5\x2f\xfd\x04", 5, "zstd -d" },
        { "\xfd\x37zXZ\0\0", 7, "xz -d" },
        { "BZh91AY&SY\0", 11, "bzip2 -d" },
        { "PK\x03\x04\x14", 5, "a ZIP archive" },
        { "\xff\xfe"
          "a\0b\0",
          6, "is UTF-16, not text (convert it: iconv" },
        { "\xfe\xff\0a", 4, "UTF-16" },
        { "\0\0\xfe\xff\0\0\0a", 8, "UTF-32" },
        { "\xff\xfe\0\0a\0\0\0", 8, "is UTF-32, not text (convert it: iconv -f UTF-32" },
        { "%PDF-1.7\n", 9, "PDF" },
        { "ARROW1\0\0", 8, "Arrow" },
        { "SQLite format 3\0", 16, "SQLite" },
        { "\x89HDF\r\n", 6, "HDF5" },
        { "\x93NUMPY\1", 7, "NumPy" },
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        refused(MOE_UNSUPPORTED, put("foreign.txt", foreign[i].bytes, foreign[i].n), foreign[i].says);
        put_zipped("foreign.jsonl.gz", "wb", foreign[i].bytes, foreign[i].n);
        refused(MOE_UNSUPPORTED, path, foreign[i].says);
    }
    refused(MOE_CORRUPT, put_text("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid"),
            "is a Git LFS pointer");
    char tar[512] = "name";
    memcpy(tar + 257, "ustar", 5);
    refused(MOE_UNSUPPORTED, put("t.tar", tar, sizeof tar), "a tar archive");
    refused(MOE_CORRUPT, put("nul.txt", "one\ntwo\0three", 13), "line 2: a NUL byte");
    refused(MOE_CORRUPT, put("utf16.txt", "a\0b\0", 4), "iconv");
    refused(MOE_CORRUPT, put_text("latin.txt", "a\n\nna\xefve\n"), "line 3: byte 0xef is not UTF-8");
    refused(MOE_CORRUPT, put_text("cut.txt", "x\xe7\x95"), "byte 0xe7 is not UTF-8");
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
    refused(MOE_UNSUPPORTED, put("big.jsonl", line, big), "line 1: an object longer than 64 MiB");
    free(line);
}

int main(void)
{
    OK(mkdtemp(dir));
    chat_vocabulary(dir, NULL, NULL);
    OK(moe_tokenizer_open(&tok, dir, CHAT_VOCAB, &err) == MOE_OK);
    OK(moe_chat_open(&chat, tok, &(struct moe_chat_hint){ .name = "k2.5" }, &err) == MOE_OK);
    test_plain();
    test_shapes();
    test_json();
    test_array();
    test_refusals();
    moe_chat_close(&chat);
    moe_tokenizer_close(&tok);
    OK(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-text: %ld checks\n", checks);
    return 0;
}
