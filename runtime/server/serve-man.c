/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/server/serve-man.h"

const char moe_serve_description[] =
    "MODEL is a checkpoint directory as published (Kimi K2, DeepSeek-V3, Moonlight), or a container "
    "NAME.moe. It is served over HTTP with the API of OpenAI: POST /v1/chat/completions and /v1/completions, "
    "whole or as a stream of events; GET /v1/models, /health, /version; POST /tokenize and /detokenize. "
    "docs/reference/server.md has all of it.\n\n"
    "Requests are computed together, and each gets the tokens that it would get alone. A client that goes "
    "away has its request ended within about a second; one that does not read has its request held, and "
    "holds up nobody else.\n\n"
    "SIGTERM or SIGINT lets it drain: new requests get 503, those that run have --drain-timeout seconds. A "
    "second one ends it at once.\n\n"
    "It listens at the host's own loopback by default, where anybody may ask. With --api-key-file only those "
    "may who send one of its keys (Authorization: Bearer KEY); they take turns, and each has computed "
    "prompts of its own. Encryption is the work of a proxy.\n\n"
    "The exit status is 0 once it has drained; 2 for a command that cannot be meant, 10 where memory does "
    "not hold what was asked for, 11 for a port that cannot be had, 13 or 15 for a model that is damaged or "
    "not whole, 17 when the device was lost.";

const char moe_serve_json[] =
    "A first line once it serves: listening (the URL), model (its name), context (positions of a request), "
    "cache_tokens (positions that the cache holds), role (both). Without --json a sentence on standard error "
    "says the same.";

const char moe_serve_examples[] =
    "# serve a model at port 8000, and ask it\n"
    "moe-serve k2.moe --model-name kimi-k2\n"
    "curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"The capital of France is\"}'\n"
    "# to others, who need a key, with a log of what was asked\n"
    "(umask 077; echo \"alice $(head -c 24 /dev/urandom | base64)\" > keys)\n"
    "moe-serve k2.moe --host 0.0.0.0 --api-key-file keys --access-log access.jsonl\n"
    "# at a port that is free, which the first line of output names\n"
    "moe-serve k2.moe --port 0 --json";
