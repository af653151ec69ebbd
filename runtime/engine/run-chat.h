/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-chat.h - a conversation on a terminal: turns, commands, and what
 * control-C means in between.
 *
 * Answers go to standard output while they come, what is said to the person to standard error.  One thread,
 * the rank's, calls this. */
#ifndef MOE_RUNTIME_ENGINE_RUN_CHAT_H
#define MOE_RUNTIME_ENGINE_RUN_CHAT_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

/* Turns from standard input, a terminal, until its end or /quit (MOE_OK), or until a signal at the prompt.  A
 * SIGINT during an answer ends the answer, unless ranks are processes, which have it too.  The other ranks
 * rest while a person writes. */
enum moe_code moe_run_chat(const struct moe_run_options *o, struct moe_rank *r, struct moe_err *err);

#endif
