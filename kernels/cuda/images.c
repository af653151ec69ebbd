/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/images.c - embeds the fatbins. The Makefile lists them in kernels/cuda/images.inc of the build
 * folder, one line each: IMAGE(symbol, family, bytes); MOE_CUDA_FATBINS is the folder that they lie in. */
#include "kernels/cuda/images.h"

#if MOE_CUDA_MARKER
static const unsigned char marker[] __attribute__((aligned(64))) = "moe-shim 1";
const struct moe_cuda_image moe_cuda_images[] = { { "shim", marker, sizeof marker } };
const int moe_cuda_image_count = 1, moe_cuda_toolkit = 0;

#elif MOE_HAVE_CUDA
#define IMAGE(symbol, family, bytes)                                                               \
    __asm__(".pushsection .rodata\n.balign 64\nmoe_cuda_image_" #symbol ":\n"                      \
            ".incbin \"" MOE_CUDA_FATBINS "/" family ".fatbin\"\n.popsection\n");                  \
    extern const unsigned char moe_cuda_image_##symbol[] __attribute__((visibility("hidden")));
#include "kernels/cuda/images.inc"
#undef IMAGE
#define IMAGE(symbol, family, bytes) { family, moe_cuda_image_##symbol, bytes },
const struct moe_cuda_image moe_cuda_images[] = {
#include "kernels/cuda/images.inc"
};
const int moe_cuda_image_count = sizeof moe_cuda_images / sizeof *moe_cuda_images;
const int moe_cuda_toolkit = MOE_CUDA_TOOLKIT;

#else
const struct moe_cuda_image moe_cuda_images[] = { { NULL, NULL, 0 } };
const int moe_cuda_image_count = 0, moe_cuda_toolkit = 0;
#endif
