/* A manifest from anybody, its checksum redone: opening the container ends in an answer, and no name leads out of it. */
#include "formats/container-internal.h"
#include "base/io.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], path[PATH_MAX];

static void remove_dir(void)
{
    struct moe_err err;
    moe_remove_tree(dir, &err);
}

static void start(void)
{
    if (*dir) return;
    snprintf(dir, sizeof dir, "/tmp/moe-fuzz.XXXXXX");
    if (!mkdtemp(dir)) abort();
    snprintf(path, sizeof path, "%s/manifest.json", dir);
    atexit(remove_dir);
}

static void put(const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}

static void check_names(const cJSON *m)
{
    for (const cJSON *e = cJSON_GetObjectItemCaseSensitive(m, "files")->child; e; e = e->next) {
        struct moe_listed f;
        moe_manifest_entry(e, &f);
        if (*f.name == '/' || strstr(f.name, "..") == f.name || strstr(f.name, "/../") || strlen(f.name) > NAME_MAX + 10) {
            if (strcmp(f.name, "..") && moe_plain_name(f.name)) continue; /* "..x" is a plain name */
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err;
    struct moe_source *src;
    cJSON *m, *problems = NULL;
    start();
    put(data, size);
    if (moe_manifest_read(dir, &m, &err) == MOE_OK) cJSON_Delete(m);
    if (moe_json_parse((const char *)data, size, "fuzz", &m, &err) != MOE_OK) return 0;
    if (cJSON_IsObject(m)) {
        cJSON_DeleteItemFromObjectCaseSensitive(m, "checksum");
        char *text = moe_json_seal(m, 0);
        if (text) put(text, strlen(text));
        free(text);
    }
    cJSON_Delete(m);
    if (moe_manifest_read(dir, &m, &err) == MOE_OK) {
        check_names(m);
        cJSON_Delete(m);
    }
    if (moe_source_survey(&src, dir, &problems, &err) == MOE_OK) moe_source_close(&src);
    cJSON_Delete(problems);
    return 0;
}
