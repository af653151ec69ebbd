/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/request-json.h - reads the options of a request from its JSON object: a line of --prompts,
 * or the body of a request to a server.
 *
 * docs/reference/request.md lists the keys, their ranges and what they mean.  Keys whose value is null are
 * as if they were absent.  The prompt itself is not read here (prompts.h). */
#ifndef MOE_RUNTIME_ENGINE_REQUEST_JSON_H
#define MOE_RUNTIME_ENGINE_REQUEST_JSON_H

#include "base/json.h"
#include "runtime/engine/request.h"

enum {
    MOE_STOPS_MAX = 16,             /* stop texts */
    MOE_STOP_BYTES_MAX = 1024,      /* of each of them */
    MOE_STOP_IDS_MAX = 1024,
    MOE_BIASES_MAX = 1024,
    MOE_CHOICES_MAX = 128,
    MOE_SALT_BYTES_MAX = 1024
};

/* What a request asks for.  `request` lacks the prompt, choice, tenant, deadline and ctx, which are the
 * caller's to set; its other pointers point into the defaults or into what is owned here. */
struct moe_request_options {
    struct moe_request request;
    int64_t n;                      /* choices, 1 to MOE_CHOICES_MAX */
    bool stream, include_usage;     /* the answer as events; with a last one of usage */
    bool return_token_ids;
    char **stop;                    /* owned, or NULL: stop texts, in one block with their pointers */
    int32_t *stop_ids;
    struct moe_bias *bias;
    char *salt;
    size_t bytes;                   /* of all that is owned */
};

/* Reads the options in the object o.  What it does not say is as in `defaults`, which has to live as long as
 * the options do.  vocab: ids are below it.  The error is a sentence that names the key, for the caller to
 * wrap; *key (may be NULL) is set to that key, which is o's own or a constant, "" where o is no object.
 *
 * MOE_CORRUPT for a value of another type, or out of range.  MOE_UNSUPPORTED for a key that is none of a
 * request, and for options of other servers that would change the answer and are not to be had here.
 * MOE_NOMEM.  On failure there is nothing to release. */
enum moe_code moe_request_read(struct moe_request_options *out, const cJSON *o,
                               const struct moe_request *defaults, int64_t vocab, const char **key,
                               struct moe_err *err);
/* The same for the body of a request to a server: keys that are not known are read over, as other servers
 * do it; those of options that would change the answer, and are not to be had here, are still
 * MOE_UNSUPPORTED. */
enum moe_code moe_request_read_body(struct moe_request_options *out, const cJSON *o,
                                    const struct moe_request *defaults, int64_t vocab, const char **key,
                                    struct moe_err *err);
void moe_request_options_release(struct moe_request_options *o);

#endif
