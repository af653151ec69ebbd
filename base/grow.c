/* SPDX-License-Identifier: Apache-2.0 */
#include "base/grow.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 512 };

bool moe_grow(void *array, size_t *cap, size_t need, size_t size)
{
    size_t most = SIZE_MAX / size, want = *cap > most / 2 ? most : 2 * *cap;
    void *p;
    if (need <= *cap) return true;
    if (need > most) return false;
    if (want < FIRST_BYTES / size) want = FIRST_BYTES / size;
    if (want < need) want = need;
    memcpy(&p, array, sizeof p); /* a pointer of whatever type: copied, not converted */
    p = realloc(p, want * size);
    if (!p) return false;
    memcpy(array, &p, sizeof p);
    *cap = want;
    return true;
}
