/* SPDX-License-Identifier: Apache-2.0 */
/* formats/sane.h - finds values that no sound model has, by the bit patterns of stored bytes. */
#ifndef MOE_FORMATS_SANE_H
#define MOE_FORMATS_SANE_H

#include "formats/source.h"

#include <stdbool.h>

struct moe_insane { uint64_t offset; const char *what; }; /* offset: bytes from the start of the plane */

/* Check bytes [offset, offset + n) of a plane of `t`, offset a multiple of 4, for NaN and Inf in F32, BF16
 * and F16, for NaN codes of e4m3 and e8m0, and, in a TILE_128X4 plane, for padding that is not zero.  False
 * when there is such a value; *bad describes the first one. */
bool moe_plane_sane(const struct moe_tensor *t, int plane, uint64_t offset, const uint8_t *p, size_t n,
                    struct moe_insane *bad);

#endif
