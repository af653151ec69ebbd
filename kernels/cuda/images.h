/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/images.h - the compiled kernels, embedded by the build: one fatbin for each .cu file. */
#ifndef MOE_KERNELS_CUDA_IMAGES_H
#define MOE_KERNELS_CUDA_IMAGES_H

#include <stddef.h>

/* What cuModuleLoadData takes; `family` is the name of the .cu file.  data is aligned to 64 bytes. */
struct moe_cuda_image { const char *family; const unsigned char *data; size_t bytes; };

/* The count is 0 in a build without nvcc.  A build with CUDA=shim has one image, which begins with "moe-shim"
 * and which only the stand-in for the driver (tests/shim/cuda/) accepts. */
extern const struct moe_cuda_image moe_cuda_images[];
extern const int moe_cuda_image_count;
/* The version of CUDA whose nvcc made the images, 1000 times major plus 10 times minor; 0: none did.  A
 * driver for an older major version does not load them. */
extern const int moe_cuda_toolkit;

#endif
