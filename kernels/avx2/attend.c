/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over pages of the latent cache. */
#include "kernels/avx2/lanes.h"

#include "kernels/body/attend.h"
