/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the container: its layout, writing in any order, reading, every kind of damage, the states of a
 * partial directory, and a kill before each system call that changes the disk. */
#include "tests/gen/smallmodel.h"

#include "base/pool.h"
#include "formats/container/container-internal.h"
#include "formats/sane.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[PATH_MAX];
static int checks;
#define CHECK(cond) \
    do { \
        checks++; \
        if (!(cond)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            cleanup(); \
            exit(1); \
        } \
    } while (0)

static void cleanup(void)
{
    struct moe_err e;
    moe_remove_tree(dir, &e);
}

static const char *in(const char *name)
{
    static char path[4][PATH_MAX];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], PATH_MAX, "%.500s/%.500s", dir, name);
    return path[k];
}

/* ---- kills: each of these calls may be the last one ---- */

static long countdown = -1;
static void maybe_die(void)
{
    if (countdown == 0) _exit(99);
    if (countdown > 0) countdown--;
}
int rename(const char *a, const char *b)
{
    maybe_die();
    return (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0);
}
int renameat2(int a, const char *x, int b, const char *y, unsigned f)
{
    maybe_die();
    return (int)syscall(SYS_renameat2, a, x, b, y, f);
}
int unlinkat(int at, const char *p, int f) { maybe_die(); return (int)syscall(SYS_unlinkat, at, p, f); }
/* quick: nothing here is about power loss */
int fsync(int fd) { maybe_die(); return fcntl(fd, F_GETFD) < 0 ? -1 : 0; }
int linkat(int a, const char *x, int b, const char *y, int f)
{
    maybe_die();
    return (int)syscall(SYS_linkat, a, x, b, y, f);
}
int mkdir(const char *p, mode_t m) { maybe_die(); return (int)syscall(SYS_mkdirat, AT_FDCWD, p, m); }

/* ---- helpers ---- */

static struct moe_err err;

static enum moe_code try_open(const char *path)
{
    struct moe_source *s;
    enum moe_code code = moe_source_open(&s, path, &err);
    if (code == MOE_OK) moe_source_close(&s);
    return code;
}

static enum moe_code verify(const char *path, cJSON *problems)
{
    struct moe_source *s;
    enum moe_code code = moe_source_open(&s, path, &err);
    if (code != MOE_OK) return code;
    code = moe_source_verify(s, NULL, NULL, NULL, problems, &err);
    moe_source_close(&s);
    return code;
}

static char *slurp(const char *path, size_t *n)
{
    char *p;
    CHECK(moe_read_file(path, SIZE_MAX / 2, &p, n, &err) == MOE_OK);
    return p;
}

static void spill(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0 && moe_pwrite(fd, path, p, n, 0, &err) == MOE_OK && !close(fd));
}

static bool same_file(const char *a, const char *b)
{
    size_t n, m;
    char *p = slurp(a, &n), *q = slurp(b, &m);
    bool same = n == m && !memcmp(p, q, n);
    free(p);
    free(q);
    return same;
}

static bool same_container(const char *a, const char *b)
{
    char x[PATH_MAX], y[PATH_MAX];
    snprintf(x, sizeof x, "%.4000s/manifest.json", a);
    snprintf(y, sizeof y, "%.4000s/manifest.json", b);
    return same_file(x, y) && verify(a, NULL) == MOE_OK && verify(b, NULL) == MOE_OK;
}

/* ---- layout ---- */

static void test_layout(void)
{
    struct moe_tensor *t = calloc(384 * 3, sizeof *t);
    struct moe_shard_header h;
    for (int i = 0; i < 384 * 3; i++)
        t[i] = (struct moe_tensor){ .role = (int16_t)(MOE_ROLE_EXPERT_GATE + i % 3),
                                    .layer = 5,
                                    .expert = i / 3,
                                    .type = MOE_NVFP4,
                                    .rows = i % 3 == 2 ? 7168 : 2048,
                                    .cols = i % 3 == 2 ? 2048 : 7168 };
    CHECK(moe_shard_layout(t, 384 * 3, 5, &h, &err) == MOE_OK);
    CHECK(h.alignment == 2 << 20 && h.extent_bytes == 12 * (2 << 20) && h.extent_offset == 2 << 20 &&
          h.experts == 384);
    CHECK(h.file_bytes == h.extent_offset + 384 * h.extent_bytes && h.record_count == 384 * 12);
    CHECK(t[3].plane[0].offset == h.extent_offset + h.extent_bytes && t[0].layout == MOE_LAYOUT_TILE_128X4);
    CHECK(t[1].plane[0].offset == t[0].plane[0].offset + t[0].plane[0].bytes); /* data planes touch */
    CHECK(t[2].plane[2].offset == t[1].plane[2].offset + 4);
    free(t);
    /* padding is bounded, and no larger power would do */
    for (uint64_t e = 1; e < 40u << 20; e = e * 5 / 4 + 1) {
        uint64_t a = moe_extent_alignment(e, 64, 32);
        CHECK(a == 256 || moe_round_up(e, a) - e <= e / 32);
        for (uint64_t b = 2 * a; b <= 2 << 20; b *= 2) CHECK(moe_round_up(e, b) - e > e / 32 || b - 64 > e);
        CHECK(moe_dense_alignment(e) == 64 || moe_dense_alignment(e) <= e / 32);
    }
}

/* ---- contents ---- */

static void test_contents(void)
{
    for (int mix = -1; mix < MOE_DTYPE_COUNT; mix++) {
        char a[32], b[32];
        struct moe_source *s;
        snprintf(a, sizeof a, "a%d.moe", mix);
        snprintf(b, sizeof b, "b%d.moe/", mix);
        CHECK(small_write(in(a), MOE_WRITE_PLAIN, mix, 1, false, 2, NULL, &err) == MOE_OK);
        CHECK(small_write(in(b), MOE_WRITE_PLAIN, mix, 1, true, 2, NULL, &err) == MOE_OK);
        CHECK(same_container(in(a), in(b)));
        CHECK(moe_exists(in("a.moe.partial")) == MOE_ABSENT);
        CHECK(moe_source_open(&s, in(a), &err) == MOE_OK);
        CHECK(s->kind == MOE_CONTAINER && moe_source_origin(s, NULL).header_digest == 7 &&
              s->config.n_routed_experts == 3);
        CHECK(moe_source_map(s, &err) == MOE_OK);
        for (int64_t i = 0; i < s->n_tensors; i++) {
            const struct moe_tensor *t = &s->tensors[i];
            struct moe_weight w;
            CHECK(moe_source_find(s, (enum moe_role)t->role, t->layer, t->expert) == t);
            moe_source_weight(s, t, &w);
            CHECK(moe_hash64(w.data, (size_t)t->plane[0].bytes) == t->hash[0]);
            if (w.scale) CHECK(moe_hash64(w.scale, (size_t)t->plane[1].bytes) == t->hash[1]);
            if (t->type == MOE_NVFP4)
                CHECK(t->global > 0 && t->input_scale > 0 && w.layout == MOE_LAYOUT_TILE_128X4);
        }
        moe_source_close(&s);
    }
    size_t n;
    char *text = slurp(in("a-1.moe/source.jsonl"), &n);
    CHECK(strstr(text, "[\"model.embed_tokens.weight\", \"BF16\", [8, 32], \"model.safetensors\", null, "
                       "null, null]\n") == text);
    char *second = strchr(text, '\n') + 1; /* sorted by ordinal, over units */
    CHECK(!strncmp(second, "[\"model.layers.1.mlp.experts.0.gate", 35));
    free(text);
}

/* ---- damage ---- */

static bool names(const char *file)
{
    return strstr(err.msg, file) != NULL;
}

static bool refused(const char *file)
{
    enum moe_code code = try_open(in("d.moe"));
    return (code == MOE_CORRUPT || code == MOE_UNSUPPORTED) && names(file);
}

static void test_truncation(const char *name)
{
    char path[PATH_MAX];
    size_t n;
    snprintf(path, sizeof path, "%.500s/d.moe/%.500s", dir, name);
    char *all = slurp(path, &n);
    struct moe_shard_header h;
    memcpy(&h, all, sizeof h);
    for (uint64_t i = 0; i <= h.record_count; i++) {
        CHECK(!truncate(path, (off_t)(128 + 64 * i)));
        CHECK(refused(name));
    }
    for (uint64_t i = 0; i < h.record_count; i++) {
        struct moe_shard_record r;
        memcpy(&r, all + 128 + 64 * i, sizeof r);
        spill(path, all, (size_t)r.offset);
        CHECK(refused(name));
    }
    CHECK(!truncate(path, 0));
    CHECK(refused(name));
    CHECK(!unlink(path));
    CHECK(refused(name));
    spill(path, all, n);
    CHECK(try_open(in("d.moe")) == MOE_OK);
    free(all);
}

static void poke(const char *path, uint64_t at, uint8_t v)
{
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, &v, 1, (off_t)at) == 1 && !close(fd));
}

static void test_head_flips(const char *name)
{
    char path[PATH_MAX];
    size_t n;
    snprintf(path, sizeof path, "%.500s/d.moe/%.500s", dir, name);
    char *all = slurp(path, &n);
    struct moe_shard_header h;
    memcpy(&h, all, sizeof h);
    for (size_t i = 0; i < 128 + 64 * h.record_count; i++) {
        poke(path, i, (uint8_t)all[i] ^ (uint8_t)(1u << i % 8));
        CHECK(refused(name));
        poke(path, i, (uint8_t)all[i]);
    }
    CHECK(try_open(in("d.moe")) == MOE_OK);
    free(all);
}

static bool told(const cJSON *problems, const char *start)
{
    for (const cJSON *p = problems->child; p; p = p->next)
        if (!strncmp(p->valuestring, start, strlen(start))) return true;
    return false;
}

/* Change a byte of each plane of each tensor, and of each padding: the message has to name it. */
static void test_data_flips(const char *name)
{
    char path[PATH_MAX];
    size_t n;
    snprintf(path, sizeof path, "%.500s/d.moe/%.500s", dir, name);
    char *all = slurp(path, &n);
    struct moe_shard_header h;
    memcpy(&h, all, sizeof h);
    uint64_t end = 128 + 64 * h.record_count;
    for (uint64_t i = 0; i < h.record_count; i++) {
        struct moe_shard_record r;
        char tensor[128], want[400];
        memcpy(&r, all + 128 + 64 * i, sizeof r);
        moe_tensor_name((enum moe_role)r.role, r.layer, r.expert, tensor);
        uint64_t at = r.offset + (r.bytes - 1) * (i % 7) / 6;
        snprintf(want, sizeof want, "%s: %s: ", name, tensor);
        poke(path, at, (uint8_t)all[at] ^ 1);
        cJSON *problems = cJSON_CreateArray();
        CHECK(verify(in("d.moe"), problems) == MOE_VERIFY && told(problems, want) &&
              cJSON_GetArraySize(problems) == 1);
        CHECK(!strcmp(err.tensor, tensor) && !strcmp(err.file, name));
        cJSON_Delete(problems);
        poke(path, at, (uint8_t)all[at]);
        if (r.offset > end) { /* the byte before */
            bool padding = true;
            for (uint64_t k = 0; k < h.record_count; k++) {
                struct moe_shard_record q;
                memcpy(&q, all + 128 + 64 * k, sizeof q);
                if (q.offset < r.offset && q.offset + q.bytes >= r.offset) padding = false;
            }
            if (padding) {
                poke(path, r.offset - 1, 1);
                CHECK(verify(in("d.moe"), NULL) == MOE_VERIFY && strstr(err.msg, "padding") && names(name));
                poke(path, r.offset - 1, 0);
            }
        }
    }
    CHECK(verify(in("d.moe"), NULL) == MOE_OK);
    free(all);
}

static void test_manifest_flips(void)
{
    size_t n;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.4000s", in("d.moe/manifest.json"));
    char *all = slurp(path, &n);
    for (size_t i = 0; i < n; i++) {
        poke(path, i, (uint8_t)all[i] ^ 1);
        CHECK(refused("manifest.json"));
        poke(path, i, (uint8_t)all[i]);
    }
    for (size_t i = 0; i < n; i += 7) {
        spill(path, all, i);
        CHECK(refused("manifest.json"));
    }
    spill(path, all, n);
    CHECK(try_open(in("d.moe")) == MOE_OK);
    free(all);
}

static void test_small_files(void)
{
    poke(in("d.moe/hf/config.json"), 3, 'X');
    CHECK(verify(in("d.moe"), NULL) == MOE_VERIFY && names("hf/config.json"));
    spill(in("d.moe/hf/config.json"), small_config_text, sizeof small_config_text - 2);
    CHECK(refused("config.json"));
    spill(in("d.moe/hf/config.json"), small_config_text, sizeof small_config_text - 1);
    spill(in("d.moe/stray"), "x", 1);
    CHECK(verify(in("d.moe"), NULL) == MOE_VERIFY && names("stray"));
    CHECK(!unlink(in("d.moe/stray")));
    spill(in("d.moe/hf/stray"), "x", 1);
    CHECK(verify(in("d.moe"), NULL) == MOE_VERIFY && names("hf/stray"));
    CHECK(!unlink(in("d.moe/hf/stray")));
    spill(in("d.moe/plan-8.json"), "{}", 2); /* plans may come later */
    CHECK(verify(in("d.moe"), NULL) == MOE_OK);
    CHECK(!unlink(in("d.moe/plan-8.json")));
}

/* ---- forgeries: wrong, but with right checksums ---- */

/* Write `head` (header and table) into the shard with all hashes computed anew, and make the manifest
 * agree. */
static void forge(const char *name, char *all, size_t n, size_t head)
{
    struct moe_shard_header h;
    char path[PATH_MAX], hex[33];
    memcpy(&h, all, sizeof h);
    h.table_hash = moe_hash64(all + 128, head - 128);
    h.header_hash = 0;
    h.header_hash = moe_hash64(&h, sizeof h);
    memcpy(all, &h, sizeof h);
    snprintf(path, sizeof path, "%.500s/d.moe/%.500s", dir, name);
    spill(path, all, n);
    cJSON *m;
    CHECK(moe_json_read(in("a-1.moe/manifest.json"), 1 << 20, &m, &err) == MOE_OK);
    cJSON_DeleteItemFromObject(m, "checksum");
    moe_hex128(moe_hash128(all, head), hex);
    for (cJSON *f = cJSON_GetObjectItem(m, "files")->child; f; f = f->next)
        if (!strcmp(cJSON_GetObjectItem(f, "name")->valuestring, name)) {
            cJSON_SetValuestring(cJSON_GetObjectItem(f, "xxh3_128"), hex);
            cJSON_SetNumberValue(cJSON_GetObjectItem(f, "bytes"), (double)n);
        }
    char *text = moe_json_seal(m, 2);
    spill(in("d.moe/manifest.json"), text, strlen(text));
    free(text);
    cJSON_Delete(m);
}

static void test_forged_shards(void)
{
    size_t n;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.4000s", in("a-1.moe/layer-001.moe"));
    char *good = slurp(path, &n), *bad = malloc(n);
    struct moe_shard_header h;
    struct moe_shard_record r;
    memcpy(&h, good, sizeof h);
    size_t head = 128 + 64 * (size_t)h.record_count;
#define HEADER_IS(code, stmt) \
    do { \
        memcpy(bad, good, n); \
        memcpy(&h, bad, sizeof h); \
        stmt; \
        memcpy(bad, &h, sizeof h); \
        forge("layer-001.moe", bad, n, head); \
        CHECK(try_open(in("d.moe")) == code && names("layer-001.moe")); \
    } while (0)
    HEADER_IS(MOE_UNSUPPORTED, h.version = 2);
    HEADER_IS(MOE_UNSUPPORTED, h.incompatible = 2);
    HEADER_IS(MOE_UNSUPPORTED, h.incompatible = MOE_SHARD_STAGED | 2);
    /* and the manifest says nothing of a staged part */
    HEADER_IS(MOE_CORRUPT, h.incompatible = MOE_SHARD_STAGED);
    HEADER_IS(MOE_CORRUPT, h.header_bytes = 64);
    HEADER_IS(MOE_CORRUPT, h.file_bytes++);
    HEADER_IS(MOE_CORRUPT, h.record_count = UINT64_MAX / 64);
    HEADER_IS(MOE_CORRUPT, h.record_count = 0);
    HEADER_IS(MOE_CORRUPT, h.data_offset = UINT64_MAX);
    HEADER_IS(MOE_CORRUPT, h.extent_bytes = 0);
    HEADER_IS(MOE_CORRUPT, h.alignment = 3);
    HEADER_IS(MOE_CORRUPT, h.layer = 0);
    HEADER_IS(MOE_CORRUPT, h.layer = INT32_MAX);
    HEADER_IS(MOE_CORRUPT, h.experts = INT32_MAX);
    HEADER_IS(MOE_CORRUPT, h.experts = 2);
    HEADER_IS(MOE_CORRUPT, h.reserved[1] = 1);
    memcpy(&h, good, sizeof h);
    h.compatible = 1ull << 60; /* an unknown compatible feature is none of a reader's business */
    memcpy(bad, good, n);
    memcpy(bad, &h, sizeof h);
    forge("layer-001.moe", bad, n, head);
    CHECK(try_open(in("d.moe")) == MOE_OK);
#define RECORD_IS(code, i, stmt) \
    do { \
        memcpy(bad, good, n); \
        memcpy(&r, bad + 128 + 64 * (i), sizeof r); \
        stmt; \
        memcpy(bad + 128 + 64 * (i), &r, sizeof r); \
        forge("layer-001.moe", bad, n, head); \
        CHECK(try_open(in("d.moe")) == code && names("layer-001.moe")); \
    } while (0)
    RECORD_IS(MOE_UNSUPPORTED, 0, r.role = 99);
    RECORD_IS(MOE_UNSUPPORTED, 0, r.type = 99);
    RECORD_IS(MOE_UNSUPPORTED, 0, r.plane = 9);
    RECORD_IS(MOE_UNSUPPORTED, 0, r.flags = 4);
    RECORD_IS(MOE_CORRUPT, 0, r.role = MOE_ROLE_HEAD);
    RECORD_IS(MOE_CORRUPT, 0, r.layer = 7);
    RECORD_IS(MOE_CORRUPT, 0, r.expert = -5);
    RECORD_IS(MOE_CORRUPT, 0, r.expert = 1);
    RECORD_IS(MOE_CORRUPT, 0, r.rows = 0);
    RECORD_IS(MOE_CORRUPT, 0, r.rows = UINT64_MAX);
    RECORD_IS(MOE_CORRUPT, 0, r.cols = UINT64_MAX / 2);
    RECORD_IS(MOE_CORRUPT, 0, r.offset = UINT64_MAX - 255);
    RECORD_IS(MOE_CORRUPT, 0, r.offset += 1);
    RECORD_IS(MOE_CORRUPT, 0, r.offset = 0);
    RECORD_IS(MOE_CORRUPT, 0, r.bytes++);
    RECORD_IS(MOE_CORRUPT, 0, r.reserved = 1);
    RECORD_IS(MOE_CORRUPT, 1, r.layout = MOE_LAYOUT_LINEAR);
    RECORD_IS(MOE_CORRUPT, 1, r.plane = 0);
    /* up lies on gate */
    RECORD_IS(MOE_CORRUPT, 4, memcpy(&r.offset, good + 128 + offsetof(struct moe_shard_record, offset), 8));
    free(good);
    free(bad);
}

static void test_forged_manifests(void)
{
    static const char *const names_bad[] = {
        "../x",          "/etc/passwd",   "hf/../../x", "hf/",         "",    ".", "..", "a/b",
        "tokenizer/a/b", "manifest.json", "dense.moe",  "layer-1.moe", "a\nb"
    };
    static const struct { const char *key, *value; enum moe_code code;
    } keys[] = {
        { "format", "\"zip\"", MOE_CORRUPT },
        { "version", "2", MOE_UNSUPPORTED },
        { "version", "\"1\"", MOE_CORRUPT },
        { "files", "[]", MOE_CORRUPT },
        { "files", "{}", MOE_CORRUPT },
        { "files", "[1]", MOE_CORRUPT },
        { "config", "null", MOE_CORRUPT },
        { "config", "{}", MOE_CORRUPT },
        { "files", "[{\"name\":\"x\",\"bytes\":-1,\"xxh3_128\":\"00000000000000000000000000000000\"}]",
          MOE_CORRUPT },
        { "files", "[{\"name\":\"x\",\"bytes\":1,\"xxh3_128\":\"0\"}]", MOE_CORRUPT },
    };
    for (size_t i = 0; i < sizeof names_bad / sizeof *names_bad + sizeof keys / sizeof *keys; i++) {
        size_t k = i - sizeof names_bad / sizeof *names_bad;
        cJSON *m;
        CHECK(moe_json_read(in("a-1.moe/manifest.json"), 1 << 20, &m, &err) == MOE_OK);
        cJSON_DeleteItemFromObject(m, "checksum");
        if (i < sizeof names_bad / sizeof *names_bad)
            cJSON_SetValuestring(cJSON_GetObjectItem(cJSON_GetObjectItem(m, "files")->child->next, "name"),
                                 names_bad[i]);
        else
            cJSON_ReplaceItemInObject(m, keys[k].key, cJSON_Parse(keys[k].value));
        char *text = moe_json_seal(m, 2);
        spill(in("d.moe/manifest.json"), text, strlen(text));
        free(text);
        cJSON_Delete(m);
        enum moe_code code = try_open(in("d.moe"));
        CHECK(code == (i < sizeof names_bad / sizeof *names_bad ? MOE_CORRUPT : keys[k].code));
    }
}

/* NaN, and padding of tiles that is not zero. */
static void test_insane(void)
{
    struct moe_tensor t = { .type = MOE_NVFP4, .layout = MOE_LAYOUT_TILE_128X4, .rows = 100, .cols = 48 };
    struct moe_insane bad;
    uint8_t p[512] = { 0 };
    CHECK(moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, 100, 48) == 512);
    for (size_t i = 0; i < 512; i++) {
        bool inside = false;
        for (size_t m = 0; m < 100; m++)
            for (size_t k = 0; k < 3; k++) inside |= moe_tile_offset(m, k, 3) == i;
        p[i] = 0x30;
        CHECK(moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad) == inside && (inside || bad.offset == i));
        p[i] = 0x7f;
        CHECK(!moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad) && bad.offset == i);
        p[i] = 0;
    }
    const float inf = 1.0f / 0.0f;
    t = (struct moe_tensor){ .type = MOE_F32, .rows = 1, .cols = 128 };
    CHECK(moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 512, &bad));
    memcpy(p + 40, &inf, 4);
    CHECK(!moe_plane_sane(&t, MOE_PLANE_DATA, 4096, p, 512, &bad) && bad.offset == 4136);
    t.type = MOE_BF16;
    CHECK(!moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 512, &bad) && bad.offset == 42);
    t.type = MOE_F16; /* the same bytes, 7f80, are a NaN there, too */
    CHECK(!moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 512, &bad) && bad.offset == 42);
    t.type = MOE_INT4_G64_F16;
    CHECK(moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 512, &bad) &&
          !moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad));
    t.type = MOE_FP8_B128_E8M0; /* 7f and 80 are finite e8m0, ff is not */
    CHECK(moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad));
    p[300] = 0xff;
    CHECK(!moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad) && bad.offset == 300);
    p[300] = 0;
    t.type = MOE_FP8_B128;
    CHECK(moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 42, &bad) &&
          !moe_plane_sane(&t, MOE_PLANE_SCALE, 0, p, 512, &bad));
    p[43] = 0xff;
    CHECK(!moe_plane_sane(&t, MOE_PLANE_DATA, 0, p, 512, &bad) && bad.offset == 43);
}

/* ---- states ---- */

static void test_states(void)
{
    bool done;
    int fd;
    struct moe_err e;
#define WRITE(mode, option, units) \
    small_write(in("s.moe"), MOE_WRITE_##mode, MOE_NVFP4, option, false, units, &done, &err)
    /* nothing there */
    CHECK(WRITE(RESUME, 1, 1) == MOE_OK && !done && moe_exists(in("s.moe.partial")) == MOE_DIR); /* half */
    CHECK(moe_exists(in("s.moe")) == MOE_ABSENT);
    /* partial, same */
    CHECK(WRITE(PLAIN, 1, 2) == MOE_EXISTS && strstr(err.msg, "--resume") && strstr(err.msg, "--force"));
    /* partial, others */
    CHECK(WRITE(PLAIN, 2, 2) == MOE_EXISTS);
    CHECK(WRITE(RESUME, 2, 2) == MOE_MISMATCH && strstr(err.msg, "option 'option' was 1 and is now 2"));
    /* locked */
    CHECK(moe_lock_dir(in("s.moe.partial"), &fd, &e) == MOE_OK);
    CHECK(WRITE(PLAIN, 1, 2) == MOE_EXISTS && WRITE(RESUME, 1, 2) == MOE_EXISTS &&
          WRITE(FORCE, 1, 2) == MOE_EXISTS);
    moe_unlock(fd);
    CHECK(WRITE(RESUME, 1, 2) == MOE_OK && !done && moe_exists(in("s.moe.partial")) == MOE_ABSENT &&
          verify(in("s.moe"), NULL) == MOE_OK);
    /* complete */
    CHECK(WRITE(PLAIN, 1, 2) == MOE_EXISTS && strstr(err.msg, "--force"));
    CHECK(WRITE(RESUME, 1, 2) == MOE_OK && done);
    CHECK(WRITE(RESUME, 2, 2) == MOE_MISMATCH && moe_exists(in("s.moe.partial")) == MOE_ABSENT);
    /* unfinished: the old one stays */
    CHECK(WRITE(FORCE, 2, 1) == MOE_OK && verify(in("s.moe"), NULL) == MOE_OK);
    CHECK(WRITE(RESUME, 2, 2) == MOE_OK && !done && moe_exists(in("s.moe.partial")) == MOE_ABSENT);
    CHECK(WRITE(RESUME, 2, 2) == MOE_OK && done);
    CHECK(WRITE(FORCE, 3, 2) == MOE_OK && !done && moe_exists(in("s.moe.partial")) == MOE_ABSENT);
    /* partial from an unfinished run, forced with others */
    CHECK(small_write(in("u.moe"), MOE_WRITE_PLAIN, MOE_BF16, 1, false, 1, NULL, &err) == MOE_OK);
    CHECK(small_write(in("u.moe"), MOE_WRITE_FORCE, MOE_BF16, 2, false, 2, NULL, &err) == MOE_OK &&
          verify(in("u.moe"), NULL) == MOE_OK);
    /* nothing finished, nothing left */
    CHECK(small_write(in("v.moe"), MOE_WRITE_PLAIN, MOE_BF16, 1, false, 0, NULL, &err) == MOE_OK);
    CHECK(moe_exists(in("v.moe.partial")) == MOE_ABSENT);
    /* what is not ours stays */
    CHECK(!mkdir(in("x.moe"), 0777));
    spill(in("x.moe/letter"), "dear", 4);
    CHECK(small_write(in("x.moe"), MOE_WRITE_FORCE, MOE_BF16, 1, false, 2, NULL, &err) == MOE_EXISTS);
    CHECK(!mkdir(in("y.moe.partial"), 0777));
    spill(in("y.moe.partial/letter"), "dear", 4);
    CHECK(small_write(in("y.moe"), MOE_WRITE_FORCE, MOE_BF16, 1, false, 2, NULL, &err) == MOE_EXISTS);
    CHECK(moe_exists(in("y.moe.partial/letter")) == MOE_FILE);
    /* a damaged journal or shard is done again */
    for (int i = 0; i < 2; i++) {
        CHECK(small_write(in("w.moe"), MOE_WRITE_PLAIN, -1, 1, false, 1, NULL, &err) == MOE_OK);
        poke(in(i ? "w.moe.partial/dense.json" : "w.moe.partial/dense.moe"), 70, 'x');
        CHECK(small_write(in("w.moe"), MOE_WRITE_RESUME, -1, 1, false, 2, NULL, &err) == MOE_OK &&
              same_container(in("w.moe"), in("a-1.moe")));
        CHECK(moe_remove_tree(in("w.moe"), &err) == MOE_OK);
    }
}

/* ---- kills ---- */

static int child(const char *out, enum moe_write_mode mode, int option, long steps)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        countdown = steps;
        _exit(small_write(out, mode, -1, option, false, 2, NULL, &err) == MOE_OK ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

enum before { NOTHING, CONTAINER, PARTIAL }; /* the latter two with option 9, whose data are others */

/* A calibration's own files do not say to which work they belong: they are gone before the state says that
 * this is other work. */
static void check_work_files(void)
{
    char *text;
    size_t n;
    if (moe_exists(in("k.moe.partial/coded-000.work")) == MOE_ABSENT) return;
    CHECK(moe_read_file(in("k.moe.partial/state.json"), 1 << 20, &text, &n, &err) == MOE_OK &&
          strstr(text, "\"option\": 9"));
    free(text);
}

/* Kill a run over `before` at its step'th call; --resume completes it, also when a second kill hits the
 * resuming run. */
static bool kill_at(long step, enum before before)
{
    enum moe_write_mode mode = before == NOTHING ? MOE_WRITE_PLAIN : MOE_WRITE_FORCE;
    CHECK(moe_remove_tree(in("k.moe"), &err) == MOE_OK &&
          moe_remove_tree(in("k.moe.partial"), &err) == MOE_OK);
    if (before != NOTHING)
        CHECK(small_write(in("k.moe"), MOE_WRITE_PLAIN, -1, 9, false, before == PARTIAL ? 1 : 2, NULL,
                          &err) == MOE_OK);
    if (before == PARTIAL) spill(in("k.moe.partial/coded-000.work"), "old", 3);
    int r = child(in("k.moe"), mode, 1, step);
    CHECK(r == 99 || r == 0);
    check_work_files();
    /* at every moment a whole one, old or new */
    if (before == CONTAINER) CHECK(try_open(in("k.moe")) == MOE_OK);
    else if (moe_exists(in("k.moe")) != MOE_ABSENT) CHECK(verify(in("k.moe"), NULL) == MOE_OK);
    if (r == 0) return false;
    int again = child(in("k.moe"), MOE_WRITE_RESUME, 1, step % 7);
    CHECK(again == 99 || again == 0 || before != NOTHING);
    enum moe_code code = small_write(in("k.moe"), MOE_WRITE_RESUME, -1, 1, false, 2, NULL, &err);
    /* killed before it had written anything: the old one stands there alone */
    if (code == MOE_MISMATCH && before != NOTHING && step < 8)
        code = small_write(in("k.moe"), MOE_WRITE_FORCE, -1, 1, false, 2, NULL, &err);
    if (code != MOE_OK) fprintf(stderr, "step %ld: %s\n", step, err.msg);
    CHECK(code == MOE_OK && same_container(in("k.moe"), in("a-1.moe")));
    CHECK(moe_exists(in("k.moe.partial")) == MOE_ABSENT);
    return true;
}

static void test_kills(void)
{
    long steps[3] = { 0, 0, 0 };
    for (int i = 0; i < 3; i++)
        while (kill_at(steps[i], (enum before)i)) steps[i]++;
    CHECK(steps[0] > 20 && steps[1] > steps[0] && steps[2] > steps[0]);
    printf("test-container: killed before each of %ld, %ld and %ld calls\n", steps[0], steps[1], steps[2]);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/moe-container.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return 1;
    test_layout();
    test_contents();
    test_insane();
    CHECK(small_write(in("d.moe"), MOE_WRITE_PLAIN, -1, 1, false, 2, NULL, &err) == MOE_OK);
    static const char *const shards[] = { "dense.moe", "layer-001.moe" };
    for (int i = 0; i < 2; i++) {
        test_truncation(shards[i]);
        test_head_flips(shards[i]);
        test_data_flips(shards[i]);
    }
    test_manifest_flips();
    test_small_files();
    test_forged_shards();
    test_forged_manifests();
    test_states();
    test_kills();
    cleanup();
    printf("test-container: %d checks\n", checks);
    return 0;
}
