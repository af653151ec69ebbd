/* SPDX-License-Identifier: Apache-2.0 */
/* formats/sane.h - values that no sound model has, found in stored bytes by their bit patterns alone. */
#ifndef MOE_FORMATS_SANE_H
#define MOE_FORMATS_SANE_H

#include "formats/source.h"

#include <stdbool.h>

struct moe_insane { uint64_t offset; const char *what; }; /* offset: bytes from the start of the plane */

/* Look at bytes [offset, offset + n) of a plane of `t` (offset a multiple of 4): NaN and Inf in F32, BF16 and
 * F16, NaN codes of e4m3 and e8m0, and, in a TILE_128X4 plane, padding that is not zero.  False, with the
 * first in *bad, when there is one. */
bool moe_plane_sane(const struct moe_tensor *t, int plane, uint64_t offset, const uint8_t *p, size_t n,
                    struct moe_insane *bad);

#endif
