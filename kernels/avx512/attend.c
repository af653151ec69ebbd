/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over pages of the latent cache. */
#include "kernels/avx512/lanes.h"

#include "kernels/body/attend.h"
