/* SPDX-License-Identifier: Apache-2.0 */
/* Sums, norms, activations and attention. */
#include "kernels/avx512/lanes.h"

#include "kernels/body/vector.h"
