/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that eight times as much input takes about eight times as long to read: headers, indexes of files
 * that are not there, tables, lists of files, objects with many keys, vocabularies.  A look-up that searched
 * everything would make it 64 times.  Measures processor time, best of three. */
#undef NDEBUG
#include "tests/gen/smallmodel.h"

#include "base/arena.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/container-internal.h"
#include "formats/tokenizer/tokenizer.h"

#include <stdarg.h>
#include <time.h>

enum { TIMES = 8, BOUND = 32 };

static char dir[64];
static struct moe_err err;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- text that grows ---- */

struct text { char *p; size_t n, cap; };

__attribute__((format(printf, 2, 3)))
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    if (t->cap - t->n < 512) assert(t->p = realloc(t->p, t->cap = 2 * t->cap + 4096));
    va_start(ap, fmt);
    t->n += (size_t)vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
}

static void save(const char *name, const struct text *t)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_write_file(path, t->p, t->n, &err) == MOE_OK);
}

/* ---- the cases: prepare makes input of size n, work is timed ---- */

static struct text input;

static void header_prepare(long n)
{
    for (long i = 0; i < n; i++)
        put(&input,
            "%s\"model.layers.%ld.mlp.experts.%ld.up_proj.weight\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
            "offsets\":[%ld,%ld]}",
            i ? "," : "{", i / 384, i % 384, n - 1 - i, n - i);
    put(&input, "}");
}

static void header_work(long n)
{
    struct moe_arena arena = MOE_ARENA_INIT;
    struct moe_st_header h;
    char *copy = malloc(input.n);
    memcpy(copy, input.p, input.n);
    assert(moe_st_parse(copy, input.n, "header", &arena, &h, &err) == MOE_OK && h.n == n &&
           h.entries[0].offset == h.data_offset);
    free(h.entries);
    moe_arena_clear(&arena);
    free(copy);
}

/* An index in which every tensor is in a file of its own, none of which exists. */
static void index_prepare(long n)
{
    put(&input, "{\"weight_map\":{");
    for (long i = 0; i < n; i++)
        put(&input, "%s\"model.layers.1.mlp.experts.%ld.up_proj.weight\":\"%ld.safetensors\"", i ? "," : "",
            i, i);
    put(&input, "}}");
    save("model.safetensors.index.json", &input);
}

static void index_work(long n)
{
    struct moe_source *src;
    cJSON *problems;
    assert(moe_source_survey(&src, dir, &problems, &err) == MOE_OK && src->n_files == n &&
           err.code == MOE_NOT_FOUND);
    assert(cJSON_GetArraySize(problems) > 1000);
    cJSON_Delete(problems);
    moe_source_close(&src);
}

static void manifest_prepare(long n)
{
    cJSON *m;
    put(&input, "{\"format\":\"moe\",\"version\":1,\"config\":%s,\"files\":[", small_config_text);
    for (long i = 0; i < n; i++)
        put(&input, "%s{\"name\":\"hf/%ld\",\"bytes\":1,\"xxh3_128\":\"%032ld\"}", i ? "," : "", i, i);
    put(&input, "]}");
    assert(moe_json_parse(input.p, input.n, "manifest", &m, &err) == MOE_OK);
    char *sealed = moe_json_seal(m, 0);
    struct text t = { sealed, strlen(sealed), 0 };
    save("manifest.json", &t);
    free(sealed);
    cJSON_Delete(m);
}

static void manifest_work(long n)
{
    cJSON *m;
    (void)n;
    assert(moe_manifest_read(dir, &m, &err) == MOE_OK);
    cJSON_Delete(m);
}

static void keys_prepare(long n)
{
    for (long i = 0; i < n; i++) put(&input, "%s\"key%ld\":%ld", i ? "," : "{", i, i);
    put(&input, "}");
}

static void keys_work(long n)
{
    cJSON *j;
    (void)n;
    assert(moe_json_parse(input.p, input.n, "keys", &j, &err) == MOE_OK);
    cJSON_Delete(j);
}

static void vocabulary_prepare(long n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct text ranks = { 0 };
    for (int c = 0; c < 256; c++) put(&ranks, "%c%c== %d\n", digits[c >> 2], digits[(c & 3) << 4], c);
    save("tiktoken.model", &ranks);
    free(ranks.p);
    put(&input, "{\"added_tokens_decoder\":{");
    for (long i = 0; i < n; i++) put(&input, "%s\"%ld\":{\"content\":\"<|%ld|>\"}", i ? "," : "", 256 + i, i);
    put(&input, "}}");
    save("tokenizer_config.json", &input);
}

static void vocabulary_work(long n)
{
    struct moe_tokenizer *t;
    assert(moe_tokenizer_open(&t, dir, 0, &err) == MOE_OK && moe_tokenizer_size(t) == 256 + n);
    for (long i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "<|%ld|>", i);
        assert(moe_token_find_special(t, name) == 256 + i);
    }
    moe_tokenizer_close(&t);
}

/* One layer's table: n experts of one BF16 matrix each. */
static void table_prepare(long n)
{
    struct moe_shard_header h = { .data_offset = 1 << 30,
                                  .extent_offset = 1 << 30,
                                  .extent_bytes = 2048,
                                  .alignment = 256,
                                  .layer = 1,
                                  .experts = (int32_t)n,
                                  .record_count = (uint64_t)n,
                                  .file_bytes = (1ull << 30) + 2048ull * (uint64_t)n };
    input.n = sizeof h + (size_t)n * sizeof(struct moe_shard_record);
    assert(input.p = realloc(input.p, input.cap = input.n));
    memcpy(input.p, &h, sizeof h);
    for (long i = 0; i < n; i++) {
        long e = n - 1 - i; /* backwards: a sort has something to do */
        struct moe_shard_record r = { .role = MOE_ROLE_EXPERT_UP,
                                      .layer = 1,
                                      .expert = (int32_t)e,
                                      .type = MOE_BF16,
                                      .rows = 32,
                                      .cols = 32,
                                      .offset = h.extent_offset + 2048ull * (uint64_t)e,
                                      .bytes = 2048 };
        memcpy(input.p + sizeof h + (size_t)i * sizeof r, &r, sizeof r);
    }
}

static void table_work(long n)
{
    struct moe_shard_header h;
    memcpy(&h, input.p, sizeof h);
    const struct moe_shard_record *r = (const struct moe_shard_record *)(const void *)(input.p + sizeof h);
    struct moe_tensor t;
    for (uint64_t i = 0, used; i < (uint64_t)n; i += used)
        assert(moe_shard_tensor(&h, r + i, (uint64_t)n - i, 0, "table", &t, &used, &err) == MOE_OK &&
               used == 1);
    assert(moe_shard_check_overlap(r, (uint64_t)n, "table", &err) == MOE_OK);
}

static double best(void (*work)(long), long n)
{
    double least = 1e9;
    for (int i = 0; i < 3; i++) {
        double start = now();
        work(n);
        double took = now() - start;
        if (took < least) least = took;
    }
    return least;
}

int main(void)
{
    static const struct { const char *name; long n; void (*prepare)(long), (*work)(long);
    } cases[] = {
        { "tensors of one header", 40000, header_prepare, header_work },
        { "absent files of an index", 10000, index_prepare, index_work },
        { "files of a manifest", 10000, manifest_prepare, manifest_work },
        { "keys of an object", 40000, keys_prepare, keys_work },
        { "added tokens", 10000, vocabulary_prepare, vocabulary_work },
        { "records of a table", 50000, table_prepare, table_work },
    };
    int bad = 0;
    snprintf(dir, sizeof dir, "/tmp/moe-scale.XXXXXX");
    assert(mkdtemp(dir));
    struct text config = { (char *)(uintptr_t)small_config_text, sizeof small_config_text - 1, 0 };
    save("config.json", &config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double t[2];
        for (int k = 0; k < 2; k++) {
            long n = cases[i].n * (k ? TIMES : 1);
            input.n = 0;
            cases[i].prepare(n);
            t[k] = best(cases[i].work, n);
        }
        char path[192];
        snprintf(path, sizeof path, "%s/manifest.json", dir); /* makes a container of the directory */
        remove(path);
        bool slow = t[1] > BOUND * t[0] && t[1] > 0.02;
        printf("%-26s %6ld: %8.2f ms, %7ld: %8.2f ms, %.1f times%s\n", cases[i].name, cases[i].n, 1e3 * t[0],
               cases[i].n * TIMES, 1e3 * t[1], t[1] / t[0], slow ? "  TOO SLOW" : "");
        bad += slow;
    }
    free(input.p);
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-scale: %d checks\n", (int)(sizeof cases / sizeof *cases));
    return bad != 0;
}
