/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-man.h - the text of the man page of moe-plan, except its options. */
#ifndef MOE_RUNTIME_PLAN_PLAN_MAN_H
#define MOE_RUNTIME_PLAN_PLAN_MAN_H

extern const char moe_plan_description[];
extern const char moe_plan_json_keys[];
extern const char moe_plan_examples[];

#endif
