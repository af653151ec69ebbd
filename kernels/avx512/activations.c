/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as an NVFP4 product sees them. */
#include "kernels/avx512/lanes.h"

#include "kernels/body/activations.h"
