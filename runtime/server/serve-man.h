/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/serve-man.h - the texts of the man page of moe-serve besides its options: description, keys
 * of --json, examples. */
#ifndef MOE_RUNTIME_SERVER_SERVE_MAN_H
#define MOE_RUNTIME_SERVER_SERVE_MAN_H

extern const char moe_serve_description[];
extern const char moe_serve_json[];
extern const char moe_serve_examples[];

#endif
