/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/server/serve-options.h"

#include "runtime/server/serve-man.h"

#include <string.h>

/* Tokens that a client has not taken, after which its request is held; and seconds until it then ends. */
enum { UNREAD = 256, HELD_S = 60 };

struct moe_serve_args moe_serve_asked = {
    .host = "127.0.0.1",
    .port = 8000,
    .batch_tokens = MOE_UNSET,
    .max_sequences = MOE_UNSET,
    .cache = MOE_UNSET,
    .queue = 256,
    .connections = 20000,
    .max_body = 4 << 20,
    .drain_timeout = 30,
    .patience = 120,
};

static const struct moe_opt opts[] = {
    MOE_GROUP("HTTP"),
    MOE_OWN_STR(0, "host", &moe_serve_asked.host, "ADDRESS",
                "listen at this address; one that others can reach wants --api-key-file"),
    MOE_OWN_INT(0, "port", &moe_serve_asked.port, "N", "listen at this port; 0 takes one that is free"),
    MOE_FILE(0, "api-key-file", &moe_serve_asked.key_file, "FILE",
             "only those may ask who have one of these keys: a line each, KEY or NAME KEY (chmod 600)"),
    MOE_BOOL(0, "no-api-key", &moe_serve_asked.no_key,
             "let anybody ask who reaches --host, without a key"),
    MOE_BOOL(0, "share-cache", &moe_serve_asked.share_cache,
             "let all keys share computed prompts; by default each has its own"),
    MOE_STR(0, "access-log", &moe_serve_asked.log, "FILE",
            "add a line of JSON for each request to this file"),
    MOE_LIST(0, "model-name", &moe_serve_asked.names, "NAME",
             "what clients call the model; the last part of its path by default"),
    MOE_STR(0, "chat-template", &moe_serve_asked.chat_template, "NAME",
            "a built-in chat template instead of the model's: k2-first, k2-instruct, k2-thinking, k2.5, "
            "k2.6, k2.7-code, deepseek-v3 or deepseek-v3-first"),
    MOE_OWN_INT(0, "connections", &moe_serve_asked.connections, "N",
                "clients that may be connected at once; others wait"),
    MOE_OWN_SIZE(0, "max-body", &moe_serve_asked.max_body, "SIZE", "refuse larger requests (413)"),
    MOE_OWN_FLOAT(0, "patience", &moe_serve_asked.patience, "S",
                  "close a connection on which nothing was sent or taken for so many seconds"),
    MOE_OWN_FLOAT(0, "drain-timeout", &moe_serve_asked.drain_timeout, "S",
                  "seconds that running requests have after SIGTERM; then they are ended"),
    MOE_GROUP("model"),
    MOE_INT('c', "context", &moe_serve_asked.context, "N",
            "positions to hold; by default the model's maximum, or what --memory holds"),
    MOE_OWN_SIZE(0, "memory", &moe_serve_asked.memory, "SIZE",
                 "the engine holds at most this beside the mapped files of the model; what the machine has "
                 "available by default"),
    MOE_GROUP("scheduling"),
    MOE_OWN_INT(0, "max-sequences", &moe_serve_asked.max_sequences, "N",
                "work on at most N answers at once; by default as many as a pass has tokens"),
    MOE_INT(0, "batch-tokens", &moe_serve_asked.batch_tokens, "N",
            "compute at most N tokens in a pass; by default as many as are of use, up to 1024"),
    MOE_OWN_SIZE(0, "cache", &moe_serve_asked.cache, "SIZE",
                 "bytes of the cache that all sequences share; what --memory leaves by default"),
    MOE_BOOL(0, "no-prefix-cache", &moe_serve_asked.no_prefix_cache,
             "requests share no computed prompts"),
    MOE_OWN_INT(0, "queue", &moe_serve_asked.queue, "N",
                "answers that may wait for their first step; more are refused (429)"),
    MOE_COMMON_OPTIONS(&moe_serve_asked.run),
    MOE_END(),
};

static const struct moe_opt_rule rules[] = {
    { "no-api-key", "api-key-file", true },
    { "share-cache", "api-key-file", false },
    { "share-cache", "no-prefix-cache", true },
    { NULL, NULL, false },
};

const struct moe_tool moe_serve_tool = {
    .name = "moe-serve",
    .synopsis = "[options] MODEL",
    .about = "serve a checkpoint or container over HTTP, with the API of OpenAI",
    .opts = opts,
    .description = moe_serve_description,
    .rules = rules,
    .json = moe_serve_json,
    .examples = moe_serve_examples,
};

/* ---- the checks ---- */

static enum moe_code check_count(const char *option, int64_t n, struct moe_err *err)
{
    if (n == MOE_UNSET || n >= 1) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %lld: want 1 or more", option, (long long)n);
}

static enum moe_code check_seconds(const char *option, double v, double least, struct moe_err *err)
{
    if (v >= least && v <= 86400) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %g: want %g to 86400 seconds", option, v, least);
}

static enum moe_code check_host(const struct moe_serve_args *o, struct moe_err *err)
{
    const char *host = o->host;
    if (!strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost")) return MOE_OK;
    if (o->key_file || o->no_key) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "--host '%s': others may reach it, and could ask without a key (give --api-key-file, or "
                    "--no-api-key)", host);
}

static int64_t given(int64_t v) { return v == MOE_UNSET ? 0 : v; }

enum moe_code moe_serve_args_check(const struct moe_serve_args *o, struct moe_server_options *s,
                                   struct moe_err *err)
{
    enum { BODIES = 16 }; /* of the largest size, that are held at once */
    MOE_TRY(moe_check_model_operand(&o->run, err));
    MOE_TRY(check_host(o, err));
    MOE_TRY(check_count("max-sequences", o->max_sequences, err));
    MOE_TRY(check_count("batch-tokens", o->batch_tokens, err));
    MOE_TRY(check_count("queue", o->queue, err));
    MOE_TRY(check_count("connections", o->connections, err));
    MOE_TRY(check_seconds("drain-timeout", o->drain_timeout, 0, err));
    MOE_TRY(check_seconds("patience", o->patience, 1, err));
    if (o->port < 0 || o->port > 65535)
        return moe_fail(err, MOE_USAGE, "--port %lld: want 0 to 65535", (long long)o->port);
    if (o->context < 0)
        return moe_fail(err, MOE_USAGE, "--context %lld: want 0 or more", (long long)o->context);
    if (o->max_body > 1 << 30)
        return moe_fail(err, MOE_USAGE, "--max-body %lld: want at most 1 GiB", (long long)o->max_body);
    *s = (struct moe_server_options){
        .model = o->run.argv[0],
        .host = o->host,
        .port = (int)o->port,
        .names = o->names.v,
        .n_names = o->names.n,
        .chat_template = o->chat_template,
        .key_file = o->key_file,
        .share_cache = o->share_cache,
        .log = o->log,
        .engine = { .context = o->context,
                    .memory = (uint64_t)o->memory,
                    .batch = given(o->batch_tokens),
                    .progress = o->run.progress,
                    .cancel = o->run.cancel },
        .core = { .cache = (uint64_t)given(o->cache),
                  .sequences = given(o->max_sequences),
                  .queue = o->queue,
                  .apart = o->no_prefix_cache,
                  .unread = UNREAD,
                  .patience = HELD_S },
        .connections = o->connections,
        .max_body = (uint64_t)o->max_body,
        .bodies_bytes = (uint64_t)o->max_body * BODIES,
        .drain_timeout = o->drain_timeout,
        .patience = o->patience,
        .cancel = o->run.cancel,
        .notes = o->run.notes };
    return MOE_OK;
}
