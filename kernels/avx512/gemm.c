/* SPDX-License-Identifier: Apache-2.0 */
/* The general matrix product. */
#include "kernels/avx512/lanes.h"

/* the register tile: see kernels/body/gemm.h */
#define GEMM_ROWS 8
#define GEMM_WIDE 3
#include "kernels/body/gemm.h"
