/* A manifest from anybody over the files of a small container that is sound: opening it ends in an answer, and no name leads out
 * of the directory.  The manifest's own checksum is redone, and where a digest is all zeros, so are digest and size of that file:
 * otherwise nothing would get past them. */
#include "tests/fuzzcontainer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_names(const cJSON *m)
{
    for (const cJSON *e = cJSON_GetObjectItemCaseSensitive(m, "files")->child; e; e = e->next) {
        struct moe_listed f;
        moe_manifest_entry(e, &f);
        const char *base = !strncmp(f.name, "hf/", 3) ? f.name + 3 : !strncmp(f.name, "tokenizer/", 10) ? f.name + 10 : f.name;
        assert(*base && !strchr(base, '/') && strcmp(base, ".") && strcmp(base, "..") && strlen(base) <= NAME_MAX);
    }
}

/* Give every listed file that is there, and asks for it, its true size and digest. */
static void redo_digests(cJSON *m)
{
    cJSON *files = cJSON_GetObjectItemCaseSensitive(m, "files");
    for (cJSON *e = cJSON_IsArray(files) ? files->child : NULL; e; e = e->next) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(e, "name"), *bytes;
        cJSON *hex = cJSON_GetObjectItemCaseSensitive(e, "xxh3_128");
        const cJSON *own = cJSON_IsString(name) ? fuzz_entry(fuzz_manifest, name->valuestring) : NULL;
        if (!own || !cJSON_IsString(hex) || strspn(hex->valuestring, "0") != 32 || hex->valuestring[32]) continue;
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
    if (moe_manifest_read(fuzz_model, &m, &err) == MOE_OK) cJSON_Delete(m); /* the reader with its own checksum */
    if (moe_json_parse((const char *)data, size, "fuzz", &m, &err) != MOE_OK) return 0;
    if (cJSON_IsObject(m)) {
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
