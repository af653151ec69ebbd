/* SPDX-License-Identifier: Apache-2.0 */
#include "model/activations.h"

#include <string.h>

static const char *const words[MOE_ACTIVATIONS_COUNT] = {
    "float", "nvfp4", "nvfp4-four-over-six", "nvfp4-search", "nvfp4-all", "int16"
};

const char *moe_activations_name(enum moe_activations a) { return words[a]; }

int moe_activations_find(const char *word)
{
    for (int a = 0; a < MOE_ACTIVATIONS_COUNT; a++)
        if (!strcmp(word, words[a])) return a;
    return -1;
}

void (*moe_activations_kernel(const struct moe_kernels *k, enum moe_activations a))(const float *x, int64_t n,
                                                                                    float input_scale,
                                                                                    float *out)
{
    if (a == MOE_ACTIVATIONS_NVFP4_46) return k->nvfp4_activations_46;
    return a == MOE_ACTIVATIONS_NVFP4_SEARCH ? k->nvfp4_activations_search : k->nvfp4_activations;
}

float moe_input_scale(const struct moe_weight *w)
{
    return !(w->input_scale > 0) ? 1 : w->reciprocal ? 1 / w->input_scale : w->input_scale;
}
