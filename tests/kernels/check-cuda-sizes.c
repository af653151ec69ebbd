/* SPDX-License-Identifier: Apache-2.0 */
/* Models and batches that do not fit the grids of GPU kernels are refused before a GPU is touched. */
#include "model/ops/cuda/cuda-internal.h"

#include "tests/ok.h"

#include <string.h>

/* The largest shape that fits, but for latents, which no GPU computes: so none is opened. */
static struct moe_config largest(void)
{
    return (struct moe_config){ .n_routed_experts = 4096, .num_experts_per_tok = 320,
                                .num_attention_heads = 1024, .qk_nope_head_dim = 384, .qk_rope_head_dim = 127,
                                .hidden_size = 524280, .intermediate_size = 524280,
                                .moe_intermediate_size = 262140, .n_shared_experts = 2, .vocab_size = 524280,
                                .kv_lora_rank = 1 << 20 };
}

static void refused(const struct moe_config *c, const char *why)
{
    const struct moe_cuda_options o = { 0 };
    struct moe_model m = { .config = *c };
    struct moe_device *d = NULL;
    struct moe_err err = MOE_ERR_INIT;
    OK(moe_cuda_open(&d, &m, &o, &err) == MOE_UNSUPPORTED && !d);
    if (!strstr(err.msg, why)) fprintf(stderr, "says: %s\n", err.msg);
    OK(strstr(err.msg, why));
}

#define ONE_MORE(field, to, why)           \
    do {                                   \
        struct moe_config c_ = largest();  \
        c_.field = (to);                   \
        refused(&c_, why);                 \
    } while (0)

int main(void)
{
    const struct moe_config fits = largest();
    refused(&fits, "the model's latents");
    ONE_MORE(n_routed_experts, 4097, "4097 routed experts, and a GPU computes at most 4096");
    ONE_MORE(num_attention_heads, 65536, "65536 attention heads, and a GPU computes at most 65535");
    ONE_MORE(qk_rope_head_dim, 129, "values in a token's queries, and a GPU computes at most 524280");
    ONE_MORE(hidden_size, 524281, "524281 values in a state");
    ONE_MORE(vocab_size, 524281, "524281 tokens in its vocabulary");
    ONE_MORE(intermediate_size, 524281, "524281 values in a dense MLP");
    ONE_MORE(moe_intermediate_size, 262141, "524282 values in its experts' MLPs");

    struct moe_model m = { .config = fits };
    struct moe_cuda d = { .device = { .model = &m } };
    const struct moe_cuda_start start = { .max_tokens = 1024, .context = 1 };
    struct moe_err err = MOE_ERR_INIT;
    OK(moe_cuda_begin(&d.device, &start, &err) == MOE_UNSUPPORTED); /* 327680 choices, 5 times 65536 */
    OK(strstr(err.msg, "batches of 1024 tokens with 320 experts each are too large for a GPU"));
    return 0;
}
