/* SPDX-License-Identifier: Apache-2.0 */
/* The NVFP4 quantizers. */
#include "kernels/avx512/blocks.h"

#include "kernels/body/nvfp4.h"
