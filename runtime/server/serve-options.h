/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/serve-options.h - the options of moe-serve, and the checks whether what they ask for is
 * possible.  One thread, the main one, calls these. */
#ifndef MOE_RUNTIME_SERVER_SERVE_OPTIONS_H
#define MOE_RUNTIME_SERVER_SERVE_OPTIONS_H

#include "base/cli/tool.h"
#include "runtime/server/server.h"

struct moe_serve_args {
    struct moe_tool_run run;
    const char *host, *chat_template, *key_file, *log;
    struct moe_strlist names;
    int64_t port, context, memory, batch_tokens, max_sequences, cache, queue, connections, max_body;
    bool no_prefix_cache, no_key, share_cache;
    double drain_timeout, patience;
};

/* The options of this process: the parser of the command line writes into it by the table of options. */
extern struct moe_serve_args moe_serve_asked;
extern const struct moe_tool moe_serve_tool;

/* Checks all options, and sets *s to how to serve; ready and ctx are the caller's.  MOE_USAGE,
 * MOE_UNSUPPORTED. */
enum moe_code moe_serve_args_check(const struct moe_serve_args *o, struct moe_server_options *s,
                                   struct moe_err *err);

#endif
