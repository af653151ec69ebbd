/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a small sound container with any text as its manifest.  It must not crash, and no name may lead out
 * of the directory.  Where the manifest has a "staged", the shards are those of a staged part.  The
 * manifest's own checksum is computed anew, and so are digest and size of a file whose digest is all zeros:
 * otherwise every input would fail at a checksum. */
#include "base/hash.h"
#include "tests/fuzz/fuzzcontainer.h"

#include <limits.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_names(const cJSON *m)
{
    for (const cJSON *e = cJSON_GetObjectItemCaseSensitive(m, "files")->child; e; e = e->next) {
        struct moe_listed_file f;
        moe_manifest_entry(e, &f);
        const char *base = !strncmp(f.name, "hf/", 3)         ? f.name + 3
                         : !strncmp(f.name, "tokenizer/", 10) ? f.name + 10
                                                              : f.name;
        assert(*base && !strchr(base, '/') && strcmp(base, ".") && strcmp(base, "..") &&
               strlen(base) <= NAME_MAX);
    }
}

/* Give the shards the mark of a staged part, or take it away; fuzz_manifest gets their new digests. */
static void mark_shards(bool staged)
{
    static bool marked;
    struct moe_shard_header h;
    struct moe_err err;
    if (staged == marked) return;
    marked = staged;
    for (cJSON *e = cJSON_GetObjectItemCaseSensitive(fuzz_manifest, "files")->child; e; e = e->next) {
        const char *name = cJSON_GetObjectItemCaseSensitive(e, "name")->valuestring;
        char path[PATH_MAX], hex[33], *p;
        size_t n;
        if (!moe_is_shard_name(name)) continue;
        snprintf(path, sizeof path, "%.500s/%.500s", fuzz_model, name);
        assert(moe_read_file(path, 1 << 22, &p, &n, &err) == MOE_OK);
        memcpy(&h, p, sizeof h);
        h.incompatible = staged ? MOE_SHARD_STAGED : 0;
        h.header_hash = 0;
        h.header_hash = moe_hash64(&h, sizeof h);
        memcpy(p, &h, sizeof h);
        moe_hex128(moe_hash128(p, sizeof h + (size_t)h.record_count * sizeof(struct moe_shard_record)), hex);
        assert(cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(e, "xxh3_128"), hex));
        snprintf(path, sizeof path, "m.moe/%.500s", name);
        fuzz_put(path, p, n);
        free(p);
    }
}

/* Give each listed file that exists and has a digest of zeros its true size and digest. */
static void redo_digests(cJSON *m)
{
    cJSON *files = cJSON_GetObjectItemCaseSensitive(m, "files");
    for (cJSON *e = cJSON_IsArray(files) ? files->child : NULL; e; e = e->next) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(e, "name"), *bytes;
        cJSON *hex = cJSON_GetObjectItemCaseSensitive(e, "xxh3_128");
        const cJSON *own = cJSON_IsString(name) ? fuzz_entry(fuzz_manifest, name->valuestring) : NULL;
        if (!own || !cJSON_IsString(hex) || strspn(hex->valuestring, "0") != 32 || hex->valuestring[32])
            continue;
        bytes = cJSON_GetObjectItemCaseSensitive(own, "bytes");
        cJSON_SetValuestring(hex, cJSON_GetObjectItemCaseSensitive(own, "xxh3_128")->valuestring);
        cJSON_DeleteItemFromObjectCaseSensitive(e, "bytes");
        assert(cJSON_AddNumberToObject(e, "bytes", bytes->valuedouble));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err;
    cJSON *m;
    fuzz_container_make();
    fuzz_put("m.moe/manifest.json", data, size);
    /* the reader with its own checksum */
    if (moe_manifest_read(fuzz_model, &m, &err) == MOE_OK) cJSON_Delete(m);
    if (moe_json_parse((const char *)data, size, "fuzz", &m, &err) != MOE_OK) return 0;
    if (cJSON_IsObject(m)) {
        mark_shards(moe_json_get(m, "staged") != NULL);
        cJSON_DeleteItemFromObjectCaseSensitive(m, "checksum");
        redo_digests(m);
        fuzz_seal(m);
    }
    cJSON_Delete(m);
    if (moe_manifest_read(fuzz_model, &m, &err) != MOE_OK) return 0;
    check_names(m);
    cJSON_Delete(m);
    fuzz_open(fuzz_model);
    return 0;
}
