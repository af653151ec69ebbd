/* SPDX-License-Identifier: Apache-2.0 */
/* Opens hostile tokenizer files: each has to be refused with its code and a sentence that names the file and
 * what is wrong. */
#undef NDEBUG
#include "base/io.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/tokenizer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS 258

static long checks;
static struct moe_err err;
static char dir[4096], singles[8192];

#define OK(cond) (assert(cond), checks++)

static void put_file(const char *name, const char *text)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* Writes a line for each single byte except `without`. */
static void make_singles(int without)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    for (int c = 0; c < 256; c++)
        if (c != without)
            n += (size_t)sprintf(singles + n, "%c%c== %d\n", digits[c >> 2], digits[(c & 3) << 4], c);
}

/* Opens a tokenizer with these files; it must fail with the code and a message that holds `part`. */
static void expect(enum moe_code want, const char *part, int64_t vocab)
{
    struct moe_tokenizer *t;
    enum moe_code code = moe_tokenizer_open(&t, dir, vocab, &err);
    if (code != want || (code != MOE_OK && (!strstr(err.msg, part) || t))) {
        fprintf(stderr, "code %d (%s), not %d with '%s'\n", (int)code, err.msg, (int)want, part);
        abort();
    }
    if (code == MOE_OK) moe_tokenizer_close(&t);
    checks++;
}

static void model(const char *extra, enum moe_code want, const char *part)
{
    char text[sizeof singles + 4096];
    snprintf(text, sizeof text, "%s%s", singles, extra);
    put_file("tiktoken.model", text);
    expect(want, part, 0);
}

static void config(const char *text, enum moe_code want, const char *part, int64_t vocab)
{
    put_file("tokenizer_config.json", text);
    expect(want, part, vocab);
}

static void test_models(void)
{
    put_file("tokenizer_config.json", "{}");
    model("YWE= 256\nYWI= 257\n", MOE_OK, "");
    model("YWI= 257\r\n\r\nYWE= 256", MOE_OK, ""); /* any order, CRLF, no newline at the end */
    model("YWE= 256\nYWE= 257\n", MOE_CORRUPT, "ranks 256 and 257 are the same token");
    model("YWE= 256\nYWI= 256\n", MOE_CORRUPT, "line 258: rank was given before");
    model("YWE= 257\n", MOE_CORRUPT, "rank 256 is missing");
    model("YWE= 16777215\n", MOE_CORRUPT, "rank 256 is missing");
    static const char *const not64[] = { "Y*E= 256\n", "YWE 256\n",      "YWF= 256\n",
                                         "Y=== 256\n", "YW=E 256\n",     "==== 256\n",
                                         " 256\n",     "YWE=YWE= 256\n", "\x80\x80\x80\x80 256\n" };
    for (size_t i = 0; i < sizeof not64 / sizeof *not64; i++)
        model(not64[i], MOE_CORRUPT, "line 257: token is not base64");
    static const char *const not_rank[] = { "YWE= \n",         "YWE= x\n",
                                            "YWE= -1\n",       "YWE= 0256\n",
                                            "YWE=  256\n",     "YWE= 256 \n",
                                            "YWE= 16777216\n", "YWE= 99999999999999999999\n",
                                            "YWE= 2e2\n" };
    for (size_t i = 0; i < sizeof not_rank / sizeof *not_rank; i++)
        model(not_rank[i], MOE_CORRUPT, "line 257: rank is not a number");
    model("YWE=\n", MOE_CORRUPT, "no space between");
    model("\n\n\n", MOE_OK, "");
    make_singles(0x41);
    model("YWE= 65\n", MOE_CORRUPT, "no token for the single byte 0x41");
    OK(strstr(err.msg, "tiktoken.model'") && strstr(err.file, "tiktoken.model"));
    make_singles(-1);
    put_file("tiktoken.model", "");
    expect(MOE_CORRUPT, "no tokens", 0);
    put_file("tiktoken.model", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2795286\n");
    expect(MOE_CORRUPT, "is a Git LFS pointer", 0);
    put_file("tiktoken.model", "\n\n");
    expect(MOE_CORRUPT, "no tokens", 0);
}

static void test_big(void)
{
    char path[4200];
    struct moe_bpe b;
    snprintf(path, sizeof path, "%s/tiktoken.model", dir);
    assert(truncate(path, (off_t)MOE_TIKTOKEN_MAX + 1) == 0);
    struct moe_tokenizer *t;
    OK(moe_tokenizer_open(&t, dir, 0, &err) != MOE_OK && strstr(err.msg, "tiktoken.model"));
    OK(moe_bpe_parse(&b, "", MOE_TIKTOKEN_MAX + 1, "big", &err) == MOE_CORRUPT && !b.bytes);
    /* Every cut of a file with nothing but the single bytes is refused. */
    size_t len = strlen(singles);
    for (size_t cut = 0; cut < len - 1; cut++)
        OK(moe_bpe_parse(&b, singles, cut, "cut", &err) == MOE_CORRUPT && !b.bytes);
    OK(moe_bpe_parse(&b, singles, len - 1, "cut", &err) == MOE_OK && b.count == 256);
    moe_bpe_release(&b);
}

#define ADDED(x) "{\"added_tokens_decoder\": {" x "}}"

static void test_configs(void)
{
    model("YWE= 256\nYWI= 257\n", MOE_OK, "");
    config(ADDED("\"258\": {\"content\": \"[BOS]\"}"), MOE_OK, "", 0);
    config(ADDED("\"258\": {\"content\": \"[BOS]\"}"), MOE_OK, "", RANKS + 16);
    config(ADDED("\"258\": {\"content\": \"[BOS]\"}"), MOE_MISMATCH,
           "258 ranks, but the model's vocab_size is 257", 257);
    OK(strstr(err.msg, "tiktoken.model"));
    config(ADDED("\"300\": {\"content\": \"[BOS]\"}"), MOE_MISMATCH,
           "'[BOS]' has id 300, but the model's vocab_size is 300", 300);
    OK(strstr(err.msg, "tokenizer_config.json"));
    config(ADDED("\"257\": {\"content\": \"[BOS]\"}"), MOE_MISMATCH, "a rank of", 0);
    config(ADDED("\"258\": {\"content\": \"x\"}, \"259\": {\"content\": \"x\"}"), MOE_CORRUPT,
           "two special tokens are named 'x'", 0);
    config(ADDED("\"258\": {\"content\": \"<|reserved_token_259|>\"}, \"260\": {\"content\": \"y\"}"),
           MOE_CORRUPT, "two special tokens", 0);
    config(ADDED("\"258\": {\"content\": \"\"}"), MOE_CORRUPT, "empty name", 0);
    config(ADDED("\"258\": {\"content\": 3}"), MOE_CORRUPT, "content", 0);
    config(ADDED("\"258\": {}"), MOE_CORRUPT, "content", 0);
    config(ADDED("\"258\": \"x\""), MOE_CORRUPT, "'258' is not an id", 0);
    config(ADDED("\"x\": {\"content\": \"y\"}"), MOE_CORRUPT, "'x' is not an id", 0);
    config(ADDED("\"-1\": {\"content\": \"y\"}"), MOE_CORRUPT, "'-1' is not an id", 0);
    config(ADDED("\"9999999999999\": {\"content\": \"y\"}"), MOE_CORRUPT, "is not an id", 0);
    config(ADDED("\"900000000\": {\"content\": \"y\"}"), MOE_UNSUPPORTED, "900000001 ids", 0);
    config("{\"added_tokens_decoder\": []}", MOE_CORRUPT, "not an object", 0);
    config("[]", MOE_CORRUPT, "not an object", 0);
    config("{\"added", MOE_CORRUPT, "tokenizer_config.json", 0);
    config("", MOE_CORRUPT, "tokenizer_config.json", 0);
    config("{}", MOE_UNSUPPORTED, "vocabulary of", (int64_t)1 << 40);
}

/* K2's first code made two placeholders more than the model has rows. */
static void test_two_more(void)
{
    struct moe_tokenizer *t;
    put_file("tokenizer_config.json",
             ADDED("\"258\": {\"content\": \"[BOS]\"}, \"260\": {\"content\": \"<|reserved_token_260|>\"}, "
                   "\"261\": {\"content\": \"<|reserved_token_261|>\"}"));
    for (int64_t vocab = 0; vocab <= 260; vocab += 260) {
        OK(moe_tokenizer_open(&t, dir, vocab, &err) == MOE_OK);
        OK(moe_tokenizer_size(t) == (vocab ? 260 : 259) &&
           moe_token_find_special(t, "<|reserved_token_260|>") == -1);
        int32_t *ids;
        size_t n;
        OK(moe_tokenize(t, "[BOS]<|reserved_token_260|><|reserved_token_261|>", 49, true, &ids, &n, &err) ==
               MOE_OK &&
           ids[0] == 258);
        for (size_t i = 1; i < n; i++) OK(ids[i] < 258);
        free(ids);
        moe_tokenizer_close(&t);
    }
}

/* A token whose entry says "special": false is text: decoding keeps it.  Other added tokens and
 * placeholders are skipped. */
static void test_not_special(void)
{
    struct moe_tokenizer *t;
    struct moe_decoder d = { .n = 0 }, keep = { .keep_special = true };
    char out[128];
    config(ADDED("\"258\": {\"content\": \"x\", \"special\": 1}"), MOE_CORRUPT, "special", 0);
    put_file("tokenizer_config.json",
             ADDED("\"258\": {\"content\": \"</think>\", \"special\": false}, \"259\": {\"content\": "
                   "\"<|im_end|>\", \"special\": true}, \"260\": {\"content\": \"[EOT]\"}"));
    OK(moe_tokenizer_open(&t, dir, 270, &err) == MOE_OK);
    OK(moe_decode(t, &d, 258, out) == 8 && !memcmp(out, "</think>", 8));
    OK(moe_token_is_text(t, 0) && moe_token_is_text(t, 258) && moe_token_is_special(t, 258));
    for (int32_t id = 259; id < 270; id++)
        OK(!moe_token_is_text(t, id) && !moe_decode(t, &d, id, out) && moe_decode(t, &keep, id, out) > 4);
    OK(!moe_token_is_text(t, 270) && !moe_token_is_text(t, -1));
    moe_tokenizer_close(&t);
}

/* Names of placeholders are made when they are asked for: a vocabulary of 2^24 takes no more
 * memory than a small one. */
static void test_placeholders(void)
{
    struct moe_tokenizer *t;
    int64_t last = (1 << 24) - 1;
    char room[MOE_TOKEN_ROOM];
    int32_t *ids;
    size_t n, len;
    uint64_t before = moe_peak_rss();
    put_file("tokenizer_config.json", ADDED("\"300\": {\"content\": \"<|reserved_token_\"}, \"301\": "
                                            "{\"content\": \"<|reserved_token_302|>!\"}"));
    OK(moe_tokenizer_open(&t, dir, last + 1, &err) == MOE_OK && moe_tokenizer_size(t) == last + 1);
    OK(moe_peak_rss() < before + (16 << 20));
    const char *name = moe_token_bytes(t, (int32_t)last, room, &len);
    OK(len == 27 && !memcmp(name, "<|reserved_token_16777215|>", len) &&
       moe_token_find_special(t, name) == last);
    OK(moe_token_find_special(t, "<|reserved_token_16777216|>") == -1 &&
       moe_token_find_special(t, "<|reserved_token_5|>") == -1);
    OK(moe_token_find_special(t, "<|reserved_token_300|>") == -1 &&
       moe_token_find_special(t, "<|reserved_token_0400|>") == -1);
    static const char text[] =
        "<|reserved_token_302|>!<|reserved_token_302|><|reserved_token_303|><|reserved_token_301|>";
    static const int32_t want[] = { 301, 302, 303, 300 }; /* the longest name that stands there */
    OK(moe_tokenize(t, text, sizeof text - 1, true, &ids, &n, &err) == MOE_OK && n > 4 &&
       !memcmp(ids, want, sizeof want));
    free(ids);
    moe_tokenizer_close(&t);
}

static void test_places(void)
{
    struct moe_tokenizer *t;
    char path[4400], sub[4200];
    OK(moe_tokenizer_open(&t, "/nonexistent/x.moe", 0, &err) == MOE_NOT_FOUND &&
       strstr(err.msg, "/nonexistent/x.moe") && !t);
    snprintf(sub, sizeof sub, "%s/tokenizer", dir);
    assert(moe_mkdir(sub, &err) == MOE_OK);
    static const char *const names[] = { "tiktoken.model", "tokenizer_config.json" };
    for (int i = 0; i < 2; i++) { /* a container keeps them in tokenizer/ */
        char to[4300];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(to, sizeof to, "%s/%s", sub, names[i]);
        assert(rename(path, to) == 0);
    }
    OK(moe_tokenizer_open(&t, dir, 0, &err) == MOE_OK);
    moe_tokenizer_close(&t);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", sub);
    assert(unlink(path) == 0);
    OK(moe_tokenizer_open(&t, dir, 0, &err) == MOE_NOT_FOUND && strstr(err.msg, "tokenizer_config.json"));
    snprintf(path, sizeof path, "%s/tiktoken.model", sub);
    assert(unlink(path) == 0);
    OK(moe_tokenizer_open(&t, dir, 0, &err) == MOE_NOT_FOUND && strstr(err.msg, "tiktoken.model"));
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/test-tokenizer-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert(mkdtemp(dir));
    make_singles(-1);
    test_models();
    test_big();
    test_configs();
    test_two_more();
    test_not_special();
    test_placeholders();
    test_places();
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-tokenizer-files: %ld checks\n", checks);
    return 0;
}
