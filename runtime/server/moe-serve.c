/* SPDX-License-Identifier: Apache-2.0 */
/* moe-serve - main() only: it parses the options, serves, and says where. */
#include "runtime/server/serve-options.h"

#include <stdlib.h>
#include <string.h>

/* Says where it serves: the first line on standard output, or a sentence. */
static enum moe_code tell(void *ctx, const struct moe_server_info *info, struct moe_err *err)
{
    struct moe_tool_run *r = ctx;
    if (!r->json) {
        moe_notice(r, "'%s' is served at %s: a context of %lld tokens, a cache of %lld", info->model,
                   info->url, (long long)info->context, (long long)info->cache_tokens);
        return MOE_OK;
    }
    cJSON *o = cJSON_CreateObject();
    moe_json_add_str(o, "listening", info->url);
    moe_json_add_str(o, "model", info->model);
    moe_json_add_i64(o, "context", info->context);
    moe_json_add_i64(o, "cache_tokens", info->cache_tokens);
    moe_json_add_str(o, "role", "both");
    char *text = moe_json_print(o, 0);
    cJSON_Delete(o);
    if (!text) return moe_fail(err, MOE_NOMEM, "no memory for a line");
    moe_print_bytes(text, strlen(text));
    moe_print_bytes("\n", 1);
    free(text);
    return MOE_OK;
}

static int tool_main(int argc, char **argv)
{
    struct moe_serve_args *o = &moe_serve_asked;
    struct moe_server_options s;
    if (moe_tool_run_begin(&o->run, &moe_serve_tool, argc, argv)) return o->run.exit;
    enum moe_code code = moe_serve_args_check(o, &s, &o->run.err);
    if (code == MOE_OK) {
        s.ready = tell;
        s.ctx = &o->run;
        code = moe_server_run(&s, o->run.pool, &o->run.err);
    }
    if (code == MOE_OK) o->run.json = false; /* the line is printed already */
    return moe_tool_run_end(&o->run, code, NULL);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
