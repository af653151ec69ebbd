/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/clip.h - activations that a static input scale cannot represent: an NVFP4 activation
 * reaches 6 * 448 * scale, what is beyond is clipped when the model runs with --activations nvfp4 or on a
 * GPU.  By construction nothing that was looked at when the scale was chosen is clipped; what is counted here
 * is seen afterwards, through the weights as they were written. */
#ifndef MOE_QUANTIZE_ROUNDING_CLIP_H
#define MOE_QUANTIZE_ROUNDING_CLIP_H

#include <stdint.h>

struct moe_clip { float limit, largest; int64_t clipped, seen; };

/* Nothing seen yet, under this input scale. */
struct moe_clip moe_clip_under(float input_scale);
/* n rows of x, ldx apart. */
void moe_clip_count(struct moe_clip *c, const float *x, int64_t ldx, int64_t cols, int64_t n);

#endif
