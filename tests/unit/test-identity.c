/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the identity of a model: that a change of any tensor changes it, within the bound on samples, and
 * that a change while the model is read is noticed. */
#include "formats/container/container-internal.h"
#include "tests/gen/source-model.h"

#include <sys/stat.h>

enum { PAGE = 4096, BIG = 8 << 20 };

static struct moe_err err;

static struct moe_identity identity(void)
{
    struct moe_identity id;
    struct moe_source *src = opened();
    OK(moe_source_identity(src, NULL, &id, &err) == MOE_OK && id.header_digest && id.has_weights);
    moe_source_close(&src);
    return id;
}

/* Changes a byte of a file; a second call restores it. */
static void flip(const char *path, uint64_t at)
{
    unsigned char c;
    int fd = open(path, O_RDWR);
    OK(fd >= 0 && pread(fd, &c, 1, (off_t)at) == 1);
    c ^= 1;
    OK(pwrite(fd, &c, 1, (off_t)at) == 1 && !close(fd));
}

/* ---- every tensor ---- */

static void test_every_tensor(char format)
{
    build(format, "model.", "");
    write_model();
    struct moe_identity was = identity();
    struct moe_source *src = opened();
    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        const char *path = src->files[r->span.file].path;
        /* a scale is checked against its limits at opening, so only its lowest bit is changed */
        bool scalar = r->span.bytes == 4;
        flip(path, r->span.offset + (scalar ? 0 : r->span.bytes - 1));
        struct moe_identity now;
        OK(moe_source_identity(src, NULL, &now, &err) == MOE_OK);
        OK(now.header_digest == was.header_digest && !moe_identity_same(&was, &now));
        flip(path, r->span.offset + (scalar ? 0 : r->span.bytes - 1));
    }
    moe_source_close(&src);
    struct moe_identity again = identity();
    OK(moe_identity_same(&was, &again));
    /* the files that config and tokens are read from belong to the identity, too */
    write_all("generation_config.json", "{\"eos_token_id\": 7}", 19);
    again = identity();
    OK(!moe_identity_same(&was, &again));
}

/* ---- a file too large to be read whole ---- */

static void write_large(void)
{
    char header[512];
    build('b', "model.", "");
    CONFIG("\"vocab_size\": 48", "\"vocab_size\": 65536");
    n_files = 3;
    spec("model.embed_tokens.weight")->file = spec("lm_head.weight")->file = 2;
    spec("model.embed_tokens.weight")->shape[0] = spec("lm_head.weight")->shape[0] = 65536;
    fresh_dir();
    write_all("config.json", config, strlen(config));
    write_file(0), write_file(1);
    snprintf(header, sizeof header,
             "{\"lm_head.weight\": {\"dtype\": \"BF16\", \"shape\": [65536, 64], \"data_offsets\": [0, %d]}, "
             "\"model.embed_tokens.weight\": {\"dtype\": \"BF16\", \"shape\": [65536, 64], \"data_offsets\": "
             "[%d, %d]}}",
             BIG, BIG, 2 * BIG);
    write_raw(file_name(2), header, strlen(header), 2 * (size_t)BIG);
    write_index();
}

/* 16 MiB in two tensors: each has 1,024 samples, the first at its start and the last at its end; between
 * two samples as many bytes are not read. */
static void test_bound(void)
{
    char path[256];
    struct moe_identity now;
    write_large();
    struct moe_identity was = identity();
    struct moe_source *src = opened();
    const struct moe_raw *r = src->raws;
    while (strcmp(r->name, "lm_head.weight")) r++;
    snprintf(path, sizeof path, "%s", src->files[r->span.file].path);
    uint64_t apart = (BIG - PAGE) / 1023, seen[] = { 0, PAGE - 1, apart, 512 * apart + 7, BIG - 1 },
        unseen[] = { PAGE, apart - 1, apart + PAGE, 700 * apart + 5000 };
    for (int i = 0; i < 5; i++) {
        flip(path, r->span.offset + seen[i]);
        OK(moe_source_identity(src, NULL, &now, &err) == MOE_OK && !moe_identity_same(&was, &now));
        flip(path, r->span.offset + seen[i]);
    }
    for (int i = 0; i < 4; i++) { /* what docs/reference/sources.md says is not seen */
        flip(path, r->span.offset + unseen[i]);
        OK(moe_source_identity(src, NULL, &now, &err) == MOE_OK && moe_identity_same(&was, &now));
        flip(path, r->span.offset + unseen[i]);
    }
    moe_source_close(&src);
}

/* ---- a model that changes while it is read ---- */

/* Weights are compared by their samples when a file's time has changed. */
static void test_unchanged(void)
{
    bool spoiled;
    struct stat st;
    build('b', "model.", "");
    write_model();
    struct moe_source *src = opened();
    struct moe_identity before = { 0 };
    const struct moe_raw *r = &src->raws[src->n_raws - 1];
    const char *path = src->files[r->span.file].path;
    OK(!stat(path, &st));
    struct timespec old[2] = { st.st_atim, st.st_mtim };
    old[1].tv_sec -= 100;
    /* so that a write now gets a later time, however coarse the clock is */
    OK(!utimensat(AT_FDCWD, path, old, 0));
    moe_source_close(&src);
    src = opened();
    r = &src->raws[src->n_raws - 1];
    path = src->files[r->span.file].path;
    OK(moe_source_identity(src, NULL, &before, &err) == MOE_OK);
    OK(moe_source_unchanged(src, &before, NULL, &spoiled, &err) == MOE_OK && !spoiled);
    flip(path, r->span.offset);
    OK(moe_source_unchanged(src, &before, NULL, &spoiled, &err) == MOE_MISMATCH && spoiled);
    OK(strstr(err.msg, "changed while they were read"));
    OK(!strcmp(err.file, path));
    flip(path, r->span.offset);
    OK(moe_source_unchanged(src, &before, NULL, &spoiled, &err) == MOE_MISMATCH && !spoiled);
    OK(strstr(err.msg, "no sample of its weights differs"));
    OK(!utimensat(AT_FDCWD, path, old, 0));
    OK(moe_source_unchanged(src, &before, NULL, &spoiled, &err) == MOE_OK);
    write_all("config.json", base_config, sizeof base_config - 2);
    /* no weight differs */
    OK(moe_source_unchanged(src, &before, NULL, &spoiled, &err) == MOE_MISMATCH && !spoiled);
    OK(strstr(err.msg, "'config.json' changed"));
    moe_source_close(&src);
}

/* Small files are compared with what they were when the source was opened; a failure is blamed on their
 * change only when they changed. */
static void test_unmodified(void)
{
    char path[512];
    build('b', "model.", "");
    write_model();
    write_all("tiktoken.model", "YQ== 0\n", 7);
    struct moe_source *src = opened();
    OK(moe_source_check_unmodified(src, &err) == MOE_OK);
    moe_fail(&err, MOE_CORRUPT, "torn");
    OK(moe_source_blame_change(src, MOE_CORRUPT, &err) == MOE_CORRUPT && !strcmp(err.msg, "torn"));
    write_all("notes.txt", "a", 1); /* is no file of the model */
    OK(moe_source_check_unmodified(src, &err) == MOE_OK);
    write_all("tiktoken.model", "Yg== 0\n", 7);
    OK(moe_source_check_unmodified(src, &err) == MOE_MISMATCH && strstr(err.msg, "'tiktoken.model' changed"));
    moe_fail(&err, MOE_CORRUPT, "torn");
    OK(moe_source_blame_change(src, MOE_USAGE, &err) == MOE_USAGE && !strcmp(err.msg, "torn"));
    OK(moe_source_blame_change(src, MOE_CORRUPT, &err) == MOE_MISMATCH &&
       strstr(err.msg, "'tiktoken.model' changed"));
    OK(moe_source_blame_change(NULL, MOE_CORRUPT, &err) == MOE_CORRUPT);
    write_all("tiktoken.model", "YQ== 0\n", 7);
    OK(moe_source_check_unmodified(src, &err) == MOE_OK);
    write_all("added_tokens.json", "{}", 2);
    OK(moe_source_check_unmodified(src, &err) == MOE_MISMATCH &&
       strstr(err.msg, "'added_tokens.json' changed"));
    OK(snprintf(path, sizeof path, "%s/added_tokens.json", src->path) > 0 && !unlink(path));
    OK(!truncate(src->files[0].path, (off_t)src->files[0].size - 1));
    OK(moe_source_check_unmodified(src, &err) == MOE_MISMATCH && strstr(err.msg, "written to") &&
       !strcmp(err.file, src->files[0].path));
    moe_source_close(&src);
}

/* ---- as text, and compared ---- */

static void test_records(void)
{
    struct moe_identity a = { .header_digest = 1, .weights = { 2, 3 }, .has_weights = true }, b = a, c;
    OK(moe_identity_same(&a, &b));
    b.weights.low = 4;
    OK(!moe_identity_same(&a, &b));
    struct moe_hash128 x = moe_identity_digest(&a), y = moe_identity_digest(&b);
    OK(x.low != y.low);
    b.has_weights = false; /* an old record: only the header digest can be compared */
    OK(moe_identity_same(&a, &b));
    b.header_digest = 5;
    OK(!moe_identity_same(&a, &b));
    cJSON *j = cJSON_CreateObject();
    OK(moe_identity_put(j, "input", "weights", &a) && moe_identity_get(j, "input", "weights", &c) &&
       c.has_weights && moe_identity_same(&a, &c) && c.weights.high == 2);
    OK(!moe_identity_get(j, "origin", "weights", &c));
    cJSON_DeleteItemFromObject(j, "weights");
    OK(moe_identity_get(j, "input", "weights", &c) && !c.has_weights && c.header_digest == 1);
    cJSON_AddStringToObject(j, "weights", "no digits");
    OK(!moe_identity_get(j, "input", "weights", &c));
    cJSON_Delete(j);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.40s/moe-identity.XXXXXX", tmp ? tmp : "/tmp");
    assert(mkdtemp(dir));
    for (const char *f = "b8inc"; *f; f++) test_every_tensor(*f);
    test_bound();
    test_unchanged();
    test_unmodified();
    test_records();
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-identity: %ld checks\n", checks);
    return 0;
}
