/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/address.h - a place in a device's memory.
 *
 * It is a type of its own so that the host cannot read through it by mistake: only the device that gave it
 * (model/ops/ops.h) may. */
#ifndef MOE_MODEL_OPS_ADDRESS_H
#define MOE_MODEL_OPS_ADDRESS_H

#include <stdint.h>

struct moe_addr { uint64_t at; };   /* 0: none */

static inline struct moe_addr moe_addr_plus(struct moe_addr a, uint64_t bytes)
{
    return (struct moe_addr){ a.at + bytes };
}

#endif
