/* SPDX-License-Identifier: Apache-2.0 */
/* Reads TensorRT-LLM's expert statistics with any bytes as a rank file.  They have to be refused with a
 * sentence, or give statistics within every limit.  The first two bytes are the numbers of meta_info.json. */
#include "formats/routing.h"
#include "tests/fuzz/fuzzdir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_routing *r;
    char meta[96];
    if (size < 2) return 0;
    fuzz_dir_make();
    int n = snprintf(meta, sizeof meta, "{\"num_experts\": %d, \"num_experts_per_token\": %d}", data[0],
                     data[1]);
    fuzz_put("meta_info.json", meta, (size_t)n);
    fuzz_put("rank0.safetensors", data + 2, size - 2);
    fuzz_put("rank1_raw.safetensors", "", 0);
    if (moe_routing_read(fuzz_dir, NULL, &r, &err) != MOE_OK) {
        assert(err.msg[0] && !r);
        return 0;
    }
    assert(moe_routing_check(r, "fuzz", &err) == MOE_OK && r->experts == data[0] && r->n_windows == 1);
    moe_routing_free(&r);
    return 0;
}
