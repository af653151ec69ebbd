/* SPDX-License-Identifier: Apache-2.0 */
/* model/activations.h - the form in which activations enter a product with a weight. */
#ifndef MOE_MODEL_ACTIVATIONS_H
#define MOE_MODEL_ACTIVATIONS_H

#include "kernels/kernels.h"

#include <stdbool.h>

/* FLOAT: as they were computed.
 * NVFP4: as a GPU's tensor cores would see them (kernels.def, nvfp4_activations).  The input of every product
 *   whose weight is stored as NVFP4 is quantized under that weight's input scale, with dynamic block scales;
 *   all other inputs are as under FLOAT.  gate and up share their input, so both use the larger of their two
 *   input scales, as engines do, which fuse the two weights.  Engines also use the largest input scale of a
 *   layer's experts for all of them; here each expert uses its own, and calibration makes them the same.
 *   The input of kv_b is the latents: the cache then holds them quantized, so that absorbed attention
 *   computes what expanded attention does.
 * NVFP4_46: as NVFP4, with the better of two dynamic scales a block (kernels.def, nvfp4_activations_46).
 * NVFP4_SEARCH: as NVFP4, with the best of six dynamic scales a block (nvfp4_activations_search).
 * NVFP4_ALL: as NVFP4, for every weight with an input scale (moe_weight.input_scale above 0), whatever its
 *   type; for experiments.
 * INT16: products with NVFP4 weights round activations to fixed-point numbers of 16 bits in blocks of 16
 *   (kernels.def, matmul_int16) instead of 24 bits, which is faster for several tokens. */
enum moe_activations {
    MOE_ACTIVATIONS_FLOAT,
    MOE_ACTIVATIONS_NVFP4,
    MOE_ACTIVATIONS_NVFP4_46,
    MOE_ACTIVATIONS_NVFP4_SEARCH,
    MOE_ACTIVATIONS_NVFP4_ALL,
    MOE_ACTIVATIONS_INT16,
    MOE_ACTIVATIONS_COUNT
};

/* The value that a word of a command line means (float, nvfp4, nvfp4-four-over-six, nvfp4-search, nvfp4-all,
 * int16); -1 for another word. */
int moe_activations_find(const char *word);
const char *moe_activations_name(enum moe_activations a);
/* The kernel of k that quantizes activations in the form `a`, one of the NVFP4 forms. */
void (*moe_activations_kernel(const struct moe_kernels *k, enum moe_activations a))(const float *x, int64_t n,
                                                                                    float input_scale,
                                                                                    float *out);
static inline bool moe_activations_nvfp4(enum moe_activations a)
{
    return a >= MOE_ACTIVATIONS_NVFP4 && a <= MOE_ACTIVATIONS_NVFP4_ALL;
}
/* The factor that multiplies a weight's quantized inputs.  This is the input scale that modelopt stores, and
 * the reciprocal of the one that compressed-tensors stores; 1 when the weight has none. */
float moe_input_scale(const struct moe_weight *w);

#endif
