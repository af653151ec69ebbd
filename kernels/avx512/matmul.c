/* SPDX-License-Identifier: Apache-2.0 */
/* Products with a stored weight. */
#include "kernels/avx512/fp4.h"

#include "kernels/body/matmul.h"
