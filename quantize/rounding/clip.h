/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/clip.h - counts the activations that a static input scale cannot represent.
 *
 * An NVFP4 activation is at most 6 * 448 * scale (the largest e2m1 value times the largest e4m3 block scale).
 * Values beyond that are clipped when the model runs with --activations nvfp4 or on a GPU.  A scale is chosen
 * as large as the activations need that calibration has seen; activations can still exceed it afterwards,
 * when other weights of the model have been quantized too, and those are counted here. */
#ifndef MOE_QUANTIZE_ROUNDING_CLIP_H
#define MOE_QUANTIZE_ROUNDING_CLIP_H

#include <stdint.h>

struct moe_clip {
    float limit;     /* an activation is clipped when its magnitude is above this; INFINITY: none is */
    float largest;   /* the largest magnitude seen */
    int64_t clipped; /* activations above the limit */
    int64_t seen;    /* activations counted */
};

/* An empty count whose limit is that of this input scale. */
struct moe_clip moe_clip_under(float input_scale);

/* Counts n rows of `cols` activations each, ldx floats apart. */
void moe_clip_count(struct moe_clip *c, const float *x, int64_t ldx, int64_t cols, int64_t n);

#endif
