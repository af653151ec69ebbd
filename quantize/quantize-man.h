/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-man.h - the texts of moe-quantize's man page other than its options: the description, the
 * examples, and the keys of the JSON output. */
#ifndef MOE_QUANTIZE_QUANTIZE_MAN_H
#define MOE_QUANTIZE_QUANTIZE_MAN_H

extern const char moe_quantize_description[];
extern const char moe_quantize_examples[];
extern const char moe_quantize_json_keys[];

#endif
