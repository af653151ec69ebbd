/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-man.h - the texts of the man page of moe-run besides its options: description, keys of
 * --json, examples. */
#ifndef MOE_RUNTIME_ENGINE_RUN_MAN_H
#define MOE_RUNTIME_ENGINE_RUN_MAN_H

extern const char moe_run_description[];
extern const char moe_run_json[];
extern const char moe_run_examples[];

#endif
