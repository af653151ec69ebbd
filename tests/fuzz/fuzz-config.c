/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any text as config.json, and as hf_quant_config.json.  The result is an error, or a configuration
 * that is the same after it was printed in canonical form and read again. */
#undef NDEBUG
#include "formats/checkpoint/quantconfig.h"
#include "formats/config.h"
#include "formats/source.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_config c, d;
    enum moe_scheme scheme = MOE_SCHEME_NONE;
    struct moe_err err = MOE_ERR_INIT;
    cJSON *root;
    if (moe_json_parse((const char *)data, size, "fuzz", &root, &err) != MOE_OK) return 0;
    if (moe_config_parse(root, "fuzz", &c, &scheme, &err) == MOE_OK) {
        cJSON *again = moe_config_json(&c);
        assert(again && moe_config_parse(again, "again", &d, &scheme, &err) == MOE_OK &&
               scheme == MOE_SCHEME_NONE);
        assert(!memcmp(&c, &d, sizeof c));
        assert(moe_config_parameters(&c) >= moe_config_parameters_active(&c));
        cJSON_Delete(again);
    } else {
        assert(*err.msg);
    }
    if (moe_quant_scheme_modelopt(root, "fuzz", &scheme, &err) != MOE_OK) assert(*err.msg);
    cJSON_Delete(root);
    return 0;
}
