/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/unit-name.h"

#include "base/io.h"

#include <stdio.h>
#include <string.h>

void moe_unit_name(int layer, char name[MOE_UNIT_NAME_BYTES])
{
    if (layer < 0) snprintf(name, MOE_UNIT_NAME_BYTES, "dense");
    else snprintf(name, MOE_UNIT_NAME_BYTES, "layer-%03d", layer);
}

bool moe_is_unit_name(const char *s, size_t n)
{
    if (n == 5 && !memcmp(s, "dense", 5)) return true;
    if (n < 7 || n > 15 || memcmp(s, "layer-", 6)) return false;
    for (size_t i = 6; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return true;
}

int moe_unit_name_compare(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    return n != m ? (n > m) - (n < m) : strcmp(a, b);
}

bool moe_is_unit_file(const char *name)
{
    bool unit = !strncmp(name, "dense.", 6) || !strncmp(name, "layer-", 6);
    return unit && (moe_ends_with(name, ".moe") || moe_ends_with(name, ".json"));
}

int moe_shard_name_layer(const char *name)
{
    char unit[MOE_UNIT_NAME_BYTES], again[MOE_UNIT_NAME_BYTES + 4];
    int layer = -2;
    if (!strcmp(name, "dense.moe")) return -1;
    if (sscanf(name, "layer-%5d.moe", &layer) != 1 || layer < 0) return -2;
    /* the name is written again and compared, since sscanf accepts "layer-1.moe" and other endings, too */
    moe_unit_name(layer, unit);
    snprintf(again, sizeof again, "%s.moe", unit);
    return strcmp(name, again) ? -2 : layer;
}
