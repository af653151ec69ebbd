/* SPDX-License-Identifier: Apache-2.0 */
/* NVFP4 rounding of a row against a quadratic form. */
#include "kernels/avx2/lanes.h"

#include "kernels/body/feedback.h"
