/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-chat.h - a conversation with the user on a terminal: it reads user turns and commands,
 * generates answers, and lets control-C end an answer.
 *
 * Answers are printed to standard output while they are generated; prompts and messages to the user go to
 * standard error.  The rank's own thread calls this. */
#ifndef MOE_RUNTIME_ENGINE_RUN_CHAT_H
#define MOE_RUNTIME_ENGINE_RUN_CHAT_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

/* Reads turns from standard input, a terminal, and answers them.  Returns MOE_OK at the end of the input or
 * after /quit, MOE_SIGINT or MOE_SIGTERM when a signal ended the conversation.  A SIGINT during an answer
 * ends that answer only, unless ranks are processes: these get the signal, too, and the run ends.
 * While the user writes, the other ranks do not wait for requests of this one (moe_ep_pause). */
enum moe_code moe_run_chat(const struct moe_run_args *o, struct moe_rank *r, struct moe_err *err);

#endif
