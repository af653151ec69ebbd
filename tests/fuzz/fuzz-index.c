/* SPDX-License-Identifier: Apache-2.0 */
/* Opens any text as model.safetensors.index.json, beside two small files that are sound.  It has to be
 * refused, or give a model that can be read.  No name in it may lead out of the directory. */
#include "formats/checkpoint/safetensors.h"
#include "tests/fuzz/fuzzsource.h"

#include <limits.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct moe_st_entry tensors[64];
static char names[64][128];
static int count;

/* Every tensor that the config calls for, in BF16. */
static void list_tensors(void)
{
    struct moe_config c;
    enum moe_scheme scheme;
    struct moe_err err;
    cJSON *j;
    assert(moe_json_parse(fuzz_config, sizeof fuzz_config - 1, "config", &j, &err) == MOE_OK);
    assert(moe_config_parse(j, "config", &c, &scheme, &err) == MOE_OK);
    cJSON_Delete(j);
    for (int layer = -1; layer < 1; layer++)
        for (int role = 0; role < MOE_ROLE_COUNT; role++) {
            int64_t rows, cols;
            if (!moe_tensor_shape(&c, (enum moe_role)role, layer, &rows, &cols)) continue;
            int expert = moe_role_class((enum moe_role)role) == MOE_CLASS_EXPERT ? 0 : -1;
            struct moe_st_entry *e = &tensors[count];
            *e = (struct moe_st_entry){ .name = moe_tensor_name((enum moe_role)role, layer, expert,
                                                                names[count]),
                                        .dtype = "BF16",
                                        .ndim = rows == 1 ? 1 : 2,
                                        .shape = { rows == 1 ? cols : rows, rows == 1 ? 0 : cols } };
            count++;
        }
}

static void write_tensors(const char *name, int first, int n)
{
    static const char zeros[4096];
    char path[PATH_MAX];
    struct moe_st_writer *w;
    struct moe_err err;
    snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    assert(moe_st_create(&w, path, tensors + first, n, &err) == MOE_OK);
    for (int i = first; i < first + n; i++) assert(moe_st_write(w, zeros, tensors[i].bytes, &err) == MOE_OK);
    assert(moe_st_finish(&w, &err) == MOE_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (fuzz_dir_make()) {
        list_tensors();
        fuzz_put("config.json", fuzz_config, sizeof fuzz_config - 1);
        write_tensors("a.safetensors", 0, count / 2);
        write_tensors("b.safetensors", count / 2, count - count / 2);
    }
    fuzz_put("model.safetensors.index.json", data, size);
    fuzz_open(fuzz_dir);
    return 0;
}
