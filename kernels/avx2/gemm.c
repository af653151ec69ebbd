/* SPDX-License-Identifier: Apache-2.0 */
/* The general matrix product. */
#include "kernels/avx2/lanes.h"

/* the register tile: see kernels/body/gemm.h */
#define GEMM_ROWS 6
#define GEMM_WIDE 1
#include "kernels/body/gemm.h"
