/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-man.h - what the man page of moe-quantize says besides its options. */
#ifndef MOE_QUANTIZE_QUANTIZE_MAN_H
#define MOE_QUANTIZE_QUANTIZE_MAN_H

extern const char moe_quantize_description[];
extern const char moe_quantize_examples[];
extern const char moe_quantize_json_keys[];

#endif
