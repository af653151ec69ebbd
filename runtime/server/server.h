/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/server.h - a model behind HTTP: the API of OpenAI, whole answers and streams of events.
 *
 * THREADS.  One thread of libmicrohttpd talks to all clients; none of its callbacks waits.  The intake thread
 * reads one body at a time: JSON, template, tokens, submission.  The engine's thread steps the core.  The
 * reader thread takes the core's events and writes them into the answers.  The caller's thread looks five
 * times a second for clients that are gone, and for the token that ends it all.
 *
 * MEMORY, besides the engine's: for each connection MOE_HTTP_CONNECTION_BYTES; for a request its body, of
 * max_body bytes at most and bodies_bytes in all, and the JSON of one of them at a time, 80 bytes a byte at
 * most; for a stream MOE_HTTP_STREAM_BYTES and one event more; for each request in the core 4 bytes a
 * position of its prompt and answer, and as many requests as `queue` and `sequences` allow. */
#ifndef MOE_RUNTIME_SERVER_SERVER_H
#define MOE_RUNTIME_SERVER_SERVER_H

#include "base/notes.h"
#include "base/pool.h"
#include "runtime/engine/core.h"

enum {
    MOE_HTTP_CONNECTION_BYTES = 32 << 10,   /* of libmicrohttpd, of these at most so much for headers */
    MOE_HTTP_STREAM_BYTES = 64 << 10,       /* that a client has not read, after which its answer waits */
    MOE_HTTP_REQUESTS = 128                 /* of the core, in one request of HTTP: prompts times n */
};

/* What is served, once it is. */
struct moe_server_info {
    char url[128];
    const char *model;                      /* the first of its names */
    int64_t context, cache_tokens;
};

struct moe_server_options {
    const char *model;                      /* its path */
    const char *host; int port;             /* an address of this host; 0: a port that is free */
    const char *const *names; size_t n_names; /* of the model; none: the last part of the path */
    const char *chat_template;              /* as moe_chat_hint.name */
    struct moe_engine_options engine;
    struct moe_core_options core;
    int64_t connections;                    /* at once */
    uint64_t max_body, bodies_bytes;        /* bytes: of one body; of all that are held */
    double drain_timeout;                   /* seconds that running requests have once it ends */
    double patience;                        /* seconds without a byte after which a connection is closed */
    const char *key_file;                   /* keys.h; NULL: anybody may ask */
    bool share_cache;                       /* among all keys */
    const char *log;                        /* a file that gets a line of JSON a request; NULL: none */
    const struct moe_cancel *cancel;        /* the token that ends it */
    struct moe_notes notes;
    /* is told once the server listens and the model is there; what it fails with ends the server */
    enum moe_code (*ready)(void *ctx, const struct moe_server_info *info, struct moe_err *err);
    void *ctx;
};

/* Opens the port, then the model, and serves until the token is cancelled: then new requests get 503, those
 * that run have drain_timeout seconds, and are cancelled after it.  MOE_OK when it ended so; MOE_IO where the
 * port cannot be had; what opening the model fails with; the error that ended the core. */
enum moe_code moe_server_run(const struct moe_server_options *o, struct moe_pool *pool, struct moe_err *err);

#endif
