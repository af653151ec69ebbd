/* SPDX-License-Identifier: Apache-2.0 */
/* convert/convert-man.h - the sections of the man pages of moe-convert and moe-inspect that are not made from
 * their option tables. */
#ifndef MOE_CONVERT_CONVERT_MAN_H
#define MOE_CONVERT_CONVERT_MAN_H

extern const char moe_convert_description[];
extern const char moe_convert_json[];
extern const char moe_convert_examples[];
extern const char moe_inspect_description[];
extern const char moe_inspect_json[];
extern const char moe_inspect_examples[];

#endif
