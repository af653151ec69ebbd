/* SPDX-License-Identifier: Apache-2.0 */
/* Tests encoding, decoding and chat on the fixture and on a vocabulary of K2's size, against tiktoken's
 * goldens and a plain BPE. */
#undef NDEBUG
#include "base/io.h"
#include "base/show.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/pretoken.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/unit/tokenizer-vocab.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static char room[MOE_TOKEN_ROOM];

#define DATA "tests/data/tiny-k2/"

static long checks;
static struct moe_err err;
static struct moe_tokenizer *tok;

#define OK(cond) (assert(cond), checks++)

static char *read_file(const char *path, size_t *size)
{
    char *text;
    if (moe_read_file(path, (size_t)1 << 30, &text, size, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    return text;
}

static int32_t *encode(const struct moe_tokenizer *t, const char *s, size_t len, bool special, size_t *n)
{
    int32_t *ids;
    if (moe_tokenize(t, s, len, special, &ids, n, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    assert(ids);
    return ids;
}

static void expect(const char *s, size_t len, bool special, const int32_t *want, size_t count)
{
    size_t n;
    int32_t *ids = encode(tok, s, len, special, &n);
    OK(n == count && !memcmp(ids, want, n * sizeof *ids));
    free(ids);
}

/* ---- goldens -------------------------------------------------------------- */

static size_t numbers(char *s, int32_t *out)
{
    size_t n = 0;
    for (char *end; *s && *s != '\t' && *s != '\n'; s = end) {
        out[n++] = (int32_t)strtol(s, &end, 10);
        assert(end > s);
        while (*end == ' ') end++;
    }
    return n;
}

static void test_goldens(void)
{
    static int32_t want[4096];
    size_t size, lines = 0;
    char *all = read_file("tests/data/tokenizer-golden.txt", &size);
    struct moe_pretoken *p;
    assert(moe_pretoken_open(&p, &err) == MOE_OK);
    struct moe_pretoken_scan *s = moe_pretoken_scan_new(p);
    for (char *line = all; *line; line = strchr(line, '\n') + 1, lines++) {
        char text[2048];
        size_t len = strcspn(line, "\t") / 2;
        for (size_t i = 0; i < len; i++)
            text[i] = (char)strtol((char[]){ line[2 * i], line[2 * i + 1], 0 }, NULL, 16);
        char *ids = line + 2 * len + 1, *ends = strchr(ids, '\t') + 1;
        size_t n = numbers(ids, want), at = 0;
        expect(text, len, false, want, n);
        n = numbers(ends, want);
        for (size_t i = 0; i < n; i++)
            OK(moe_pretoken_next(s, text, len, at, &at, &err) == MOE_OK && at == (size_t)want[i]);
        OK(at == len);
    }
    OK(lines > 400);
    moe_pretoken_scan_free(s);
    moe_pretoken_close(&p);
    free(all);
}

static uint64_t le64(const char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | (unsigned char)p[i];
    return v;
}

/* The golden prompts are ids [0,1), [100,117) and [1000,1256) of valid.txt. */
static void test_fixture(void)
{
    static const size_t from[3] = { 0, 100, 1000 }, count[3] = { 1, 17, 256 };
    size_t size, n, gsize;
    char *text = read_file(DATA "valid.txt", &size), *golden = read_file(DATA "golden.safetensors", &gsize);
    int32_t *ids = encode(tok, text, size, false, &n);
    /* 270 windows of 256 and their last target make the 69,121 that perplexity is measured on */
    OK(n == 69221);
    uint64_t header = le64(golden);
    cJSON *root = cJSON_ParseWithLength(golden + 8, header);
    assert(root);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "prompt%d.tokens", i);
        const cJSON *where = cJSON_GetObjectItem(cJSON_GetObjectItem(root, name), "data_offsets");
        size_t at = 8 + header + (size_t)cJSON_GetArrayItem(where, 0)->valuedouble;
        OK((size_t)cJSON_GetArrayItem(where, 1)->valuedouble + 8 + header - at == 4 * count[i]);
        OK(!memcmp(golden + at, ids + from[i], 4 * count[i]));
    }
    cJSON_Delete(root);
    free(ids);
    free(golden);
    free(text);
}

/* ---- encoding ------------------------------------------------------------- */

static void expect_bytes_back(const struct moe_tokenizer *t, const char *s, size_t len)
{
    size_t n, at = 0;
    int32_t *ids = encode(t, s, len, false, &n);
    for (size_t i = 0; i < n; i++) {
        size_t part;
        const char *b = moe_token_bytes(t, ids[i], room, &part);
        OK(b && at + part <= len && !memcmp(b, s + at, part) && !moe_token_is_special(t, ids[i]));
        at += part;
    }
    OK(at == len);
    free(ids);
}

static void test_round_trip(const struct moe_tokenizer *t, int rounds)
{
    static char text[64 * 16];
    uint64_t state = 42;
    size_t len;
    for (int32_t id = 0; id < moe_tokenizer_size(t); id++) {
        const char *b = moe_token_bytes(t, id, room, &len);
        OK(b && len);
        expect_bytes_back(t, b, len);
    }
    OK(!moe_token_bytes(t, -1, room, &len) &&
       !moe_token_bytes(t, (int32_t)moe_tokenizer_size(t), room, &len));
    for (int i = 0; i < rounds; i++) {
        expect_bytes_back(t, text, random_text(&state, text, 64));
        len = next_random(&state) % 64;
        for (size_t k = 0; k < len; k++) text[k] = (char)next_random(&state);
        expect_bytes_back(t, text, len);
    }
}

static void test_fallback(void)
{
    int32_t one[256], n;
    size_t count, len;
    for (n = 0; n < 256; n++) {
        char c = (char)n;
        one[n] = -1;
        for (int32_t id = 0; id < moe_tokenizer_size(tok); id++)
            if (moe_token_bytes(tok, id, room, &len)[0] == c && len == 1) one[n] = id;
        expect(&c, 1, false, &one[n], 1);
    }
    /* Each byte outside a valid sequence is encoded alone, and valid stretches as texts: an overlong form,
     * a surrogate, a cut character. */
    static const char bad[] = "\xc0\x80\xed\xa0\x80\xe4\xb8";
    int32_t want[16];
    for (size_t i = 0; i < sizeof bad - 1; i++) want[i] = one[(unsigned char)bad[i]];
    expect(bad, sizeof bad - 1, false, want, sizeof bad - 1);
    int32_t *word = encode(tok, " the", 4, false, &count), mix[32];
    size_t at = 0;
    mix[at++] = one[0xff];
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < count; i++) mix[at++] = word[i];
        mix[at++] = one[0x80];
    }
    expect("\xff the\x80 the\x80", 11, false, mix, at);
    free(word);
    expect("", 0, false, want, 0);
}

/* tiktoken's rule, literally and in quadratic time: join the pair of the lowest rank, the leftmost of
 * equals. */
static size_t plain_bpe(const cJSON *ranks, const char *s, size_t len, int32_t *out)
{
    static size_t start[4096];
    size_t n = len;
    for (size_t i = 0; i <= n; i++) start[i] = i;
    for (;;) {
        int best = -1;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char key[64] = "";
            size_t bytes = start[i + 2] - start[i];
            if (bytes > 30) continue;
            for (size_t k = 0; k < bytes; k++)
                snprintf(key + 2 * k, 3, "%02x", (unsigned char)s[start[i] + k]);
            const cJSON *r = cJSON_GetObjectItemCaseSensitive(ranks, key);
            if (r && (best < 0 || r->valueint < best)) { best = r->valueint; where = i; }
        }
        if (best < 0) break;
        memmove(start + where + 1, start + where + 2, (n - where - 1) * sizeof *start);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        char key[64] = "";
        for (size_t k = start[i]; k < start[i + 1]; k++)
            snprintf(key + 2 * (k - start[i]), 3, "%02x", (unsigned char)s[k]);
        out[i] = cJSON_GetObjectItemCaseSensitive(ranks, key)->valueint;
    }
    return n;
}

/* One piece of letters, of every length around the switch from scanning to the heap. */
static void test_bpe(void)
{
    char text[256];
    int32_t want[256];
    uint64_t state = 7;
    cJSON *ranks = cJSON_CreateObject();
    for (int32_t id = 0; id < moe_tokenizer_size(tok) && !moe_token_is_special(tok, id); id++) {
        size_t len;
        const char *b = moe_token_bytes(tok, id, room, &len);
        char key[64] = "";
        bool letters = true;
        for (size_t i = 0; i < len && i < 30; i++) {
            letters = letters && strchr("aehinorst", b[i]) && b[i];
            snprintf(key + 2 * i, 3, "%02x", (unsigned char)b[i]);
        }
        if (letters) cJSON_AddNumberToObject(ranks, key, id);
    }
    OK(cJSON_GetArraySize(ranks) > 50);
    for (size_t len = 1; len <= 110; len += len < 60 ? 1 : 7)
        for (int round = 0; round < 3; round++) {
            for (size_t i = 0; i < len; i++)
                text[i] = round == 2 ? "he"[i % 3 == 1] : "aehinorst"[next_random(&state) % 9];
            expect(text, len, false, want, plain_bpe(ranks, text, len, want));
        }
    cJSON_Delete(ranks);
}

static void test_special(void)
{
    int32_t end = moe_token_find_special(tok, "<|im_end|>"), bos = moe_token_find_special(tok, "[BOS]");
    OK(end == 1010 && bos == 1008 && moe_token_find_special(tok, "[MASK]") == -1 &&
       moe_token_is_special(tok, end));
    OK(moe_token_find_special(tok, "<|reserved_token_1021|>") == 1021 && !moe_token_is_special(tok, 1007) &&
       !moe_token_is_special(tok, 1024));
    size_t n, a;
    int32_t *ids = encode(tok, "a<|im_end|>[BOS]", 16, false, &n), *word;
    OK(n > 4);
    for (size_t i = 0; i < n; i++) OK(!moe_token_is_special(tok, ids[i]));
    free(ids);
    word = encode(tok, "a", 1, false, &a);
    OK(a == 1);
    expect("a<|im_end|>[BOS]a", 17, true, (int32_t[]){ word[0], end, bos, word[0] }, 4);
    expect("<|im_end|>", 10, true, &end, 1);
    free(word);
    ids = encode(tok, "<|im_end|<|<|im_end", 19, true, &n); /* nothing whole in it */
    for (size_t i = 0; i < n; i++) OK(!moe_token_is_special(tok, ids[i]));
    free(ids);
}

static const char *const long_units[] = {
    "a",  "A",        " ", "\n", "!",  "7", "\xe4\xb8\x96", "\xcc\x81", "\xf0\x9f\x98\x80", "\xff",
    "th", "\xe2\x80", "'", " x", "<|", "["
};
enum { LONG_UNITS = sizeof long_units / sizeof *long_units, LONG = 1 << 20 };

static size_t fill_long(char *text, size_t size, const char *unit)
{
    size_t len = 0;
    for (; len < size; len += strlen(unit)) memcpy(text + len, unit, strlen(unit));
    return len;
}

static double seconds_to_encode(const struct moe_tokenizer *t, const char *text, size_t len)
{
    struct timespec from, to;
    double least = 1e9;
    for (int i = 0; i < 3; i++) {
        size_t n, total = 0, part;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        int32_t *ids = encode(t, text, len, true, &n);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        for (size_t k = 0; k < n; k++) { moe_token_bytes(t, ids[k], room, &part); total += part; }
        OK(n > 0 && n <= len && total == len);
        free(ids);
        double s = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        if (s < least) least = s;
    }
    return least;
}

/* No case takes quadratic time: 32 times the text takes about 32 times the time, where a quadratic case
 * would take 1024 times; the limit of 256 leaves room for caches and for whatever else the machine does. */
static void test_long(const struct moe_tokenizer *t)
{
    char *text = malloc(LONG + 8);
    for (int u = 0; u < LONG_UNITS; u++) {
        double few = seconds_to_encode(t, text, fill_long(text, LONG / 32, long_units[u])),
               many = seconds_to_encode(t, text, fill_long(text, LONG, long_units[u]));
        if (many > 256 * few + .05)
            fprintf(stderr, "'%s': %g s for 32 KiB, %g s for 1 MiB\n", long_units[u], few, many);
        OK(many <= 256 * few + .05);
    }
    free(text);
}

/* A vocabulary in which each unit of long_units merges as often as it can: its
 * beginnings, and 2, 4, 8, 16 of it. */
static char *merging_vocabulary(size_t *size)
{
    char *text, (*token)[68] = calloc(512, sizeof *token);
    size_t len[512], n = 0;
    FILE *f = open_memstream(&text, size);
    assert(f && token);
    for (; n < 256; n++) *token[n] = (char)n, len[n] = 1;
    for (int u = 0; u < LONG_UNITS; u++) {
        size_t unit = strlen(long_units[u]);
        /* unit is at most 4: k meets it */
        for (size_t k = unit > 1 ? 2 : 2 * unit, known; k <= 16 * unit; k = k < unit ? k + 1 : 2 * k) {
            for (size_t i = 0; i < k; i++) token[n][i] = long_units[u][i % unit];
            for (known = 0; known < n && (len[known] != k || memcmp(token[known], token[n], k)); known++) { }
            len[n] = k;
            n += known == n;
        }
    }
    for (size_t i = 0; i < n; i++) put_base64(f, (unsigned char *)token[i], len[i]), fprintf(f, " %zu\n", i);
    fclose(f);
    free(token);
    return text;
}

/* The same of merging alone, in counted steps: at most three entries of the heap for each byte, each in
 * and out once. */
static void test_long_steps(void)
{
    size_t size;
    struct moe_bpe b;
    char *model = merging_vocabulary(&size), *text = malloc(LONG + 8);
    OK(moe_bpe_parse(&b, model, size, "tiktoken.model", &err) == MOE_OK);
    for (int u = 0; u < LONG_UNITS; u++) {
        struct moe_bpe_work w = { 0 };
        struct moe_ids ids = { 0 };
        size_t len = fill_long(text, LONG, long_units[u]);
        OK(moe_bpe_encode(&b, &w, (const unsigned char *)text, len, &ids, &err) == MOE_OK && ids.count);
        OK(w.steps >= len && w.steps <= 6 * len); /* at least: it was merging that was counted */
        moe_bpe_work_release(&w);
        free(ids.v);
    }
    moe_bpe_release(&b);
    free(model);
    free(text);
}

/* ---- decoding ------------------------------------------------------------- */

/* What streaming must give in all: characters as they are, and U+FFFD for every other byte. */
static size_t replaced(const char *s, size_t len, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < len;) {
        int k = moe_utf8_char((const unsigned char *)s + at, len - at);
        memcpy(out + n, k ? s + at : "\xef\xbf\xbd", k ? (size_t)k : 3);
        n += k ? (size_t)k : 3;
        at += k ? (size_t)k : 1;
    }
    return n;
}

static void expect_stream(const int32_t *ids, size_t count, const char *s, size_t len, size_t hold)
{
    static char got[16384], want[16384];
    struct moe_decoder d = { .n = 0 };
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t add = moe_decode(tok, &d, ids[i], got + n);
        OK(d.n <= 3 && moe_utf8_prefix((unsigned char *)got + n, add) == add);
        n += add;
        if (i + 1 == hold) OK(d.n > 0);
    }
    n += moe_decode_flush(&d, got + n);
    OK(d.n == 0 && replaced(s, len, want) == n && !memcmp(got, want, n));
}

static void test_decode(void)
{
    char text[64 * 16];
    int32_t single[64 * 16];
    uint64_t state = 5;
    for (int i = 0; i < 3000; i++) {
        size_t n, len = random_text(&state, text, 20);
        if (i % 2)
            for (size_t k = next_random(&state) % 6; k > 0; k--)
                text[next_random(&state) % len] = (char)(0x80 | next_random(&state));
        int32_t *ids = encode(tok, text, len, false, &n);
        expect_stream(ids, n, text, len, 0);
        free(ids);
        /* the fixture's first ranks are the bytes in order */
        for (size_t k = 0; k < len; k++) single[k] = (unsigned char)text[k];
        expect_stream(single, len, text, len, 0);
    }
    static const char smile[] = "\xf0\x9f\x98\x80";
    for (size_t k = 1; k <= 3; k++) expect_stream((int32_t[]){ 0xf0, 0x9f, 0x98, 0x80 }, 4, smile, 4, k);
    static const char *const tails[] = { "\xe4",     "\xe4\xb8", "\xf0\x9f\x98",
                                         "\xf4\x8f", "\xf4\x90", "\xed\xa0",
                                         "\xe0\x80", "\xc2",     "\xf0\x9f\x98\xf0\x9f\x98\x80" };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        for (size_t k = 0; tails[i][k]; k++) single[k] = (unsigned char)tails[i][k];
        expect_stream(single, strlen(tails[i]), tails[i], strlen(tails[i]), 0);
    }
}

static void test_decode_special(void)
{
    char out[256];
    struct moe_decoder d = { .n = 0 }, keep = { .keep_special = true };
    OK(moe_decode(tok, &d, 1010, out) == 0 && moe_decode(tok, &keep, 1010, out) == 10 &&
       !memcmp(out, "<|im_end|>", 10));
    OK(moe_decode(tok, &d, -1, out) == 0 && moe_decode(tok, &d, 5000, out) == 0);
    OK(moe_decode(tok, &d, 0xc3, out) == 0 && moe_decode(tok, &d, 1010, out) == 0 &&
       moe_decode(tok, &d, 0xa9, out) == 2 && !memcmp(out, "\xc3\xa9", 2));
    OK(moe_decode(tok, &keep, 0xc3, out) == 0 && moe_decode(tok, &keep, 1010, out) == 13 &&
       !memcmp(out, "\xef\xbf\xbd<|im_end|>", 13));
    OK(moe_decode_flush(&d, out) == 0);
}

/* ---- K2's size, threads --------------------------------------------------- */

struct job { const struct moe_tokenizer *t; const char *text; size_t size, count; int32_t *ids; };

static void *work(void *arg)
{
    struct job *j = arg;
    struct moe_err mine = MOE_ERR_INIT;
    assert(moe_tokenize(j->t, j->text, j->size, false, &j->ids, &j->count, &mine) == MOE_OK);
    return NULL;
}

static void test_k2_size(void)
{
    const char *tmp = getenv("TMPDIR");
    char dir[4096];
    size_t size;
    char *text = read_file(DATA "calib.txt", &size);
    struct moe_tokenizer *t;
    snprintf(dir, sizeof dir, "%s/test-tokenizer-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert(mkdtemp(dir));
    write_k2_vocabulary(dir, text, size);
    OK(moe_tokenizer_open(&t, dir, K2_VOCAB, &err) == MOE_OK && moe_tokenizer_size(t) == K2_VOCAB);
    OK(moe_token_find_special(t, "<|reserved_token_163602|>") == 163602 &&
       moe_token_find_special(t, "<|im_middle|>") == 163601);
    OK(moe_token_find_special(t, "<|reserved_token_163840|>") == -1);
    test_round_trip(t, 200);
    test_long(t);
    struct job job[3];
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) {
        job[i] = (struct job){ t, text, size, 0, NULL };
        assert(!pthread_create(&thread[i], NULL, work, &job[i]));
    }
    for (int i = 0; i < 3; i++) {
        assert(!pthread_join(thread[i], NULL));
        OK(job[i].count == job[0].count && !memcmp(job[i].ids, job[0].ids, job[0].count * sizeof(int32_t)));
    }
    OK(job[0].count * 3 < size);
    for (int i = 0; i < 3; i++) free(job[i].ids);
    moe_tokenizer_close(&t);
    OK(moe_tokenizer_open(&t, dir, 0, &err) == MOE_OK && moe_tokenizer_size(t) == K2_VOCAB);
    moe_tokenizer_close(&t);
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    free(text);
}

int main(void)
{
    if (moe_tokenizer_open(&tok, DATA "bf16", 1024, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    OK(moe_tokenizer_size(tok) == 1024);
    test_goldens();
    test_fixture();
    test_round_trip(tok, 2000);
    test_fallback();
    test_bpe();
    test_special();
    test_long(tok);
    test_long_steps();
    test_decode();
    test_decode_special();
    moe_tokenizer_close(&tok);
    OK(!tok);
    test_k2_size();
    printf("test-tokenizer: %ld checks\n", checks);
    return 0;
}
