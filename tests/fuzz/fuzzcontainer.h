/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzzcontainer.h - writes a container of a few KB to the fuzz target's directory, and makes its
 * manifest agree with files that the target changed. */
#ifndef FUZZCONTAINER_H
#define FUZZCONTAINER_H

#include "formats/container/container-internal.h"
#include "tests/fuzz/fuzzsource.h"
#include "tests/gen/smallmodel.h"

static char fuzz_model[PATH_MAX]; /* the container */
static cJSON *fuzz_manifest;      /* as it was written, without its checksum */

/* At the first call only: true then. */
static bool fuzz_container_make(void)
{
    struct moe_err err;
    if (!fuzz_dir_make()) return false;
    snprintf(fuzz_model, sizeof fuzz_model, "%s/m.moe", fuzz_dir);
    assert(small_write(fuzz_model, MOE_WRITE_PLAIN, -1, 1, false, 2, NULL, &err) == MOE_OK);
    assert(moe_manifest_read(fuzz_model, &fuzz_manifest, &err) == MOE_OK);
    cJSON_DeleteItemFromObjectCaseSensitive(fuzz_manifest, "checksum");
    return true;
}

/* The entry of the list `files` called `name`; NULL for none. */
static cJSON *fuzz_entry(const cJSON *manifest, const char *name)
{
    for (cJSON *e = cJSON_GetObjectItemCaseSensitive(manifest, "files")->child; e; e = e->next)
        if (!strcmp(cJSON_GetObjectItemCaseSensitive(e, "name")->valuestring, name)) return e;
    return NULL;
}

/* Write the manifest with its checksum redone. */
static void fuzz_seal(cJSON *manifest)
{
    char *text = moe_json_seal(manifest, 0);
    assert(text);
    fuzz_put("m.moe/manifest.json", text, strlen(text));
    free(text);
}

#endif
