/* SPDX-License-Identifier: Apache-2.0 */
/* moe-run - main() only: it parses the options, calls the work and ends with its report. */
#include "runtime/comm/secret.h"
#include "runtime/engine/run-keep.h"
#include "runtime/engine/run-ranks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether this process is the only rank. */
static bool is_alone(const struct moe_run_args *o)
{
    if (o->rendezvous) return false;
    return o->ranks == 1 ||
           (o->ranks == MOE_UNSET && !o->plan && !o->replan && !strcmp(o->comm, "local"));
}

static bool is_conversation(const struct moe_run_args *o)
{
    const struct moe_prompt *p = &o->prompt;
    return p->chat && !p->text && !p->file && !o->prompts && !o->run.json && isatty(STDIN_FILENO);
}

/* so_far, *err: the failure so far (MOE_OK: none), which is told to the ranks that wait for this process, if
 * there are any. */
static enum moe_code run(struct moe_run_args *o, cJSON *json, char **argv, enum moe_code so_far,
                         struct moe_err *err)
{
    struct moe_run_job j = { .o = o, .json = json, .engine = { .cancel = o->run.cancel } };
    struct moe_secret *secret = NULL;
    struct moe_err later = MOE_ERR_INIT;
    enum moe_code code = moe_run_args_meet(o, so_far ? &later : err);
    if (code != MOE_OK) return so_far ? so_far : code;
    code = so_far ? so_far : moe_run_args_check(o, &j.engine, err);
    o->prompt.memory = (uint64_t)o->memory;
    o->prompt.cancel = o->run.cancel;
    j.turns = is_conversation(o);

    /* also after a failure: the other ranks accept a message about it only with their secret */
    enum moe_code read = o->secret ? moe_secret_read(&secret, o->secret, code ? &later : err) : MOE_OK;
    if (code == MOE_OK) code = read;
    if (code == MOE_OK && o->keep) code = moe_run_keep(&j, err);
    else if (code == MOE_OK || o->rendezvous) /* else nobody waits for this process */
        code = is_alone(o) ? moe_run_alone(&j, err) : moe_run_ranks(&j, secret, argv, code, err);
    moe_run_job_release(&j);
    moe_secret_free(&secret);
    return code;
}

static int tool_main(int argc, char **argv)
{
    struct moe_run_args *o = &moe_run_asked;
    char **words = calloc((size_t)argc + 1, sizeof *words); /* argv as it was given: parsing reorders it */
    if (words) memcpy(words, argv, (size_t)argc * sizeof *words);
    if (moe_tool_run_begin(&o->run, &moe_run_tool, argc, argv)) {
        /* the error is printed already; this tells the other ranks */
        if (words && o->run.err.code != MOE_OK) run(o, NULL, words, o->run.err.code, &o->run.err);
        free(words);
        return o->run.exit;
    }
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json && words ? run(o, json, words, MOE_OK, &o->run.err)
                                       : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    free(words);
    if (!o->silent && !o->ended) return moe_tool_run_end(&o->run, code, json);
    if (o->ended) return o->run.exit;
    o->run.json = false;
    int flushed = moe_tool_run_end(&o->run, MOE_OK, json);
    return code == MOE_OK ? flushed : (int)code;
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
