/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/request-json.h"

#include "kernels/logprob.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The options while they are read, with values that become part of them in the end. */
struct reading {
    struct moe_request_options o;
    int64_t vocab;
    const char *key;                /* the present one */
    int64_t max_completion_tokens, top_logprobs; /* -1: not given */
    int64_t priority;
    bool skip_special, streams_options;
    bool open;                      /* keys that are not known here are read over */
};

static enum moe_code fail_type(const struct reading *r, const char *what, struct moe_err *err)
{
    return moe_fail(err, MOE_CORRUPT, "'%.64s' is not %s", r->key, what);
}

static enum moe_code fail_no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the options of a request");
}

/* Allocates what the options own, and counts it. */
static void *own(struct reading *r, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (p) r->o.bytes += bytes;
    return p;
}

/* ---- numbers and flags ---- */

enum kind {
    WHOLE,                          /* int64_t in [min, max] */
    REAL,                           /* float */
    FLAG                            /* bool */
};

struct field {
    const char *key;
    enum kind kind;
    size_t at;                      /* offset in struct reading */
    double min, max;
    enum moe_request_real real;     /* which one; it has the range */
};

#define AT(member) .at = offsetof(struct reading, member)
#define IN(least, most) .min = least, .max = most
static const struct field fields[] = {
    { "max_tokens", WHOLE, AT(o.request.max_tokens), IN(0, 0x1p63) },
    { "max_completion_tokens", WHOLE, AT(max_completion_tokens), IN(0, 0x1p63) },
    { "min_tokens", WHOLE, AT(o.request.min_tokens), IN(0, 0x1p63) },
    { "temperature", REAL, AT(o.request.sampler.temperature), .real = MOE_REAL_TEMPERATURE },
    { "top_p", REAL, AT(o.request.sampler.top_p), .real = MOE_REAL_TOP_P },
    { "top_k", WHOLE, AT(o.request.sampler.top_k), IN(-1, 0x1p63) },
    { "min_p", REAL, AT(o.request.sampler.min_p), .real = MOE_REAL_MIN_P },
    { "seed", WHOLE, AT(o.request.seed), IN(-0x1p63, 0x1p63) },
    { "presence_penalty", REAL, AT(o.request.penalties.presence), .real = MOE_REAL_PRESENCE },
    { "frequency_penalty", REAL, AT(o.request.penalties.frequency), .real = MOE_REAL_FREQUENCY },
    { "repetition_penalty", REAL, AT(o.request.penalties.repetition), .real = MOE_REAL_REPETITION },
    { "ignore_eos", FLAG, AT(o.request.ignore_eos) },
    { "skip_special_tokens", FLAG, AT(skip_special) },
    { "priority", WHOLE, AT(priority), IN(-INT32_MAX, INT32_MAX) },
    { "n", WHOLE, AT(o.n), IN(1, MOE_CHOICES_MAX) },
    { "top_logprobs", WHOLE, AT(top_logprobs), IN(0, MOE_LOGPROBS) },
    { "stream", FLAG, AT(o.stream) },
    { "return_token_ids", FLAG, AT(o.return_token_ids) },
};

/* Sets *out to a whole number, read from its digits where the tree has them.  False: v is none, or none of
 * 64 bits. */
static bool to_whole(const cJSON *v, int64_t *out)
{
    const char *s = cJSON_IsNumber(v) ? v->valuestring : NULL;
    double d = v->valuedouble;
    if (s && !s[strspn(s, "-0123456789")]) {
        errno = 0;
        *out = strtoll(s, NULL, 10);
        return !errno;
    }
    if (!cJSON_IsNumber(v) || d != floor(d) || !(d >= -0x1p63 && d < 0x1p63)) return false;
    *out = (int64_t)d;
    return true;
}

/* Fails because a whole number is outside its range.  A bound at an end of the type is none that people need
 * to know unless they exceed it. */
static enum moe_code fail_range(const struct field *f, const cJSON *v, struct moe_err *err)
{
    char want[MOE_WANT_BYTES];
    bool open = f->max >= 0x1p62;
    bool large = open && v->valuedouble >= f->min;
    if (f->min < -0x1p62)
        snprintf(want, sizeof want, "%lld to %lld", (long long)INT64_MIN, (long long)INT64_MAX);
    else if (large) snprintf(want, sizeof want, "at most %lld", (long long)INT64_MAX);
    else snprintf(want, sizeof want, open ? "%.0f or more" : "%.0f to %.0f", f->min, f->max);
    if (fabs(v->valuedouble) < 1e15)
        return moe_fail(err, MOE_CORRUPT, "'%s' %.0f: want %s", f->key, v->valuedouble, want);
    return moe_fail(err, MOE_CORRUPT, "'%s' %g: want %s", f->key, v->valuedouble, want);
}

static enum moe_code read_field(struct reading *r, const struct field *f, const cJSON *v, struct moe_err *err)
{
    char *to = (char *)r + f->at;
    int64_t n;
    if (f->kind == FLAG) {
        if (!cJSON_IsBool(v)) return fail_type(r, "true or false", err);
        bool flag = cJSON_IsTrue(v);
        memcpy(to, &flag, sizeof flag);
        return MOE_OK;
    }
    if (!cJSON_IsNumber(v)) return fail_type(r, "a number", err);
    if (f->kind == WHOLE) {
        if (v->valuedouble != floor(v->valuedouble)) return fail_type(r, "a whole number", err);
        if (!to_whole(v, &n) || (double)n < f->min || (double)n > f->max) return fail_range(f, v, err);
        memcpy(to, &n, sizeof n);
        return MOE_OK;
    }
    char want[MOE_WANT_BYTES];
    float x;
    if (!moe_request_real(f->real, v->valuedouble, &x, want))
        return moe_fail(err, MOE_CORRUPT, "'%s' %g: %s", f->key, v->valuedouble, want);
    memcpy(to, &x, sizeof x);
    return MOE_OK;
}

/* ---- lists ---- */

static enum moe_code check_stop(const struct reading *r, const cJSON *v, struct moe_err *err)
{
    if (!cJSON_IsString(v)) return fail_type(r, "a text or a list of texts", err);
    size_t n = strlen(v->valuestring);
    if (!n) return moe_fail(err, MOE_CORRUPT, "'%s' has an empty text", r->key);
    if (n <= MOE_STOP_BYTES_MAX) return MOE_OK;
    return moe_fail(err, MOE_CORRUPT, "'%s' has a text of %zu bytes, more than %d", r->key, n,
                    MOE_STOP_BYTES_MAX);
}

static enum moe_code read_stop(struct reading *r, const cJSON *v, struct moe_err *err)
{
    const cJSON *first = cJSON_IsArray(v) ? v->child : v;
    size_t n = 0, bytes = 0;
    for (const cJSON *s = first; s; s = cJSON_IsArray(v) ? s->next : NULL) {
        MOE_TRY(check_stop(r, s, err));
        if (++n > MOE_STOPS_MAX)
            return moe_fail(err, MOE_CORRUPT, "'%s' has more than %d texts", r->key, MOE_STOPS_MAX);
        bytes += sizeof(char *) + strlen(s->valuestring) + 1;
    }
    r->o.stop = own(r, bytes);
    if (!r->o.stop) return fail_no_memory(err);
    char *to = (char *)(r->o.stop + n);
    const cJSON *s = first;
    for (size_t i = 0; i < n; i++, s = s->next) {
        size_t len = strlen(s->valuestring) + 1;
        r->o.stop[i] = memcpy(to, s->valuestring, len);
        to += len;
    }
    r->o.request.stop = (const char *const *)r->o.stop;
    r->o.request.n_stop = n;
    return MOE_OK;
}

static enum moe_code read_stop_ids(struct reading *r, const cJSON *v, struct moe_err *err)
{
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : 0;
    int64_t id;
    if (!cJSON_IsArray(v)) return fail_type(r, "a list of ids", err);
    if (n > MOE_STOP_IDS_MAX)
        return moe_fail(err, MOE_CORRUPT, "'%s' has %d ids, more than %d", r->key, n, MOE_STOP_IDS_MAX);
    r->o.stop_ids = own(r, (size_t)n * sizeof *r->o.stop_ids);
    if (!r->o.stop_ids) return fail_no_memory(err);
    r->o.request.stop_ids = r->o.stop_ids;
    r->o.request.n_stop_ids = 0;
    for (const cJSON *c = v->child; c; c = c->next) {
        if (!to_whole(c, &id) || id < 0 || id >= r->vocab)
            return moe_fail(err, MOE_CORRUPT, "'%s' has something that is no id below %lld", r->key,
                            (long long)r->vocab);
        r->o.stop_ids[r->o.request.n_stop_ids++] = (int32_t)id;
    }
    return MOE_OK;
}

/* Reads one entry of logit_bias: "ID": -100 to 100. */
static enum moe_code read_bias(const struct reading *r, const cJSON *c, struct moe_bias *to,
                               struct moe_err *err)
{
    const char *s = c->string;
    size_t n = strspn(s, "0123456789");
    long id = n && n < 10 && !s[n] && (*s != '0' || n == 1) ? strtol(s, NULL, 10) : -1;
    if (id < 0 || id >= r->vocab)
        return moe_fail(err, MOE_CORRUPT, "'%s' has the key '%.20s', which is no id below %lld", r->key, s,
                        (long long)r->vocab);
    if (!cJSON_IsNumber(c) || !(fabs(c->valuedouble) <= 100))
        return moe_fail(err, MOE_CORRUPT, "'%s': that of %s is not a number from -100 to 100", r->key, s);
    *to = (struct moe_bias){ (int32_t)id, (float)c->valuedouble };
    return MOE_OK;
}

static enum moe_code read_biases(struct reading *r, const cJSON *v, struct moe_err *err)
{
    int n = cJSON_IsObject(v) ? cJSON_GetArraySize(v) : 0;
    if (!cJSON_IsObject(v)) return fail_type(r, "an object of ids and biases", err);
    if (n > MOE_BIASES_MAX)
        return moe_fail(err, MOE_CORRUPT, "'%s' has %d ids, more than %d", r->key, n, MOE_BIASES_MAX);
    r->o.bias = own(r, (size_t)n * sizeof *r->o.bias);
    if (!r->o.bias) return fail_no_memory(err);
    struct moe_penalties *p = &r->o.request.penalties;
    p->bias = r->o.bias;
    p->n_bias = 0;
    for (const cJSON *c = v->child; c; c = c->next) MOE_TRY(read_bias(r, c, &r->o.bias[p->n_bias++], err));
    return MOE_OK;
}

/* ---- the others ---- */

/* true, false, or the number of alternatives. */
static enum moe_code read_logprobs(struct reading *r, const cJSON *v, struct moe_err *err)
{
    int64_t n = 0;
    if (!cJSON_IsBool(v) && (!to_whole(v, &n) || n < 0 || n > MOE_LOGPROBS))
        return moe_fail(err, MOE_CORRUPT, "'%s' is neither true, false, nor a number from 0 to %d", r->key,
                        MOE_LOGPROBS);
    r->o.request.logprobs = cJSON_IsFalse(v) ? -1 : (int)n;
    return MOE_OK;
}

static enum moe_code read_salt(struct reading *r, const cJSON *v, struct moe_err *err)
{
    size_t n = cJSON_IsString(v) ? strlen(v->valuestring) : 0;
    if (!n) return fail_type(r, "a text of one character or more", err);
    if (n > MOE_SALT_BYTES_MAX)
        return moe_fail(err, MOE_CORRUPT, "'%s' has %zu bytes, more than %d", r->key, n, MOE_SALT_BYTES_MAX);
    r->o.salt = own(r, n + 1);
    if (!r->o.salt) return fail_no_memory(err);
    r->o.request.salt = memcpy(r->o.salt, v->valuestring, n + 1);
    r->o.request.salt_bytes = n;
    return MOE_OK;
}

static enum moe_code read_stream_options(struct reading *r, const cJSON *v, struct moe_err *err)
{
    if (!cJSON_IsObject(v)) return fail_type(r, "an object", err);
    for (const cJSON *c = v->child; c; c = c->next) {
        if (!cJSON_IsNull(c) && !cJSON_IsBool(c))
            return moe_fail(err, MOE_CORRUPT, "'%s': '%.64s' is not true or false", r->key, c->string);
        if (!strcmp(c->string, "include_usage")) r->o.include_usage = cJSON_IsTrue(c);
    }
    r->streams_options = true;
    return MOE_OK;
}

static const struct {
    const char *key;
    enum moe_code (*read)(struct reading *r, const cJSON *v, struct moe_err *err);
} others[] = {
    { "stop", read_stop },          { "stop_token_ids", read_stop_ids },
    { "logit_bias", read_biases },  { "logprobs", read_logprobs },
    { "cache_salt", read_salt },    { "stream_options", read_stream_options },
};

/* Keys that are read elsewhere, as the prompt is, or change no answer. */
static const char *const passed[] = {
    "messages", "tools", "chat_template_kwargs", "prompt", "tokens",
    "model", "id", "index", "user", "metadata",
    "request_id", "safety_identifier", "prompt_cache_key", "service_tier", "spaces_between_special_tokens",
};

/* Options of other servers, each with the only value that is supported, as cJSON prints it. */
static const struct { const char *key, *value; } neutral[] = {
    { "add_generation_prompt", "true" },
    { "best_of", "1" },
    { "continue_final_message", "false" },
    { "echo", "false" },
    { "include_stop_str_in_output", "false" },
    { "length_penalty", "1" },
    { "modalities", "[\"text\"]" },
    { "parallel_tool_calls", "true" },
    { "response_format", "{\"type\":\"text\"}" },
    { "store", "false" },
    { "suffix", "\"\"" },
    { "tool_choice", "\"auto\"" },
    { "use_beam_search", "false" },
};

/* Options of other servers that would change the answer; a body may have other keys that are not known. */
static const char *const missing[] = {
    "allowed_token_ids", "audio", "bad_words", "documents", "dry_multiplier", "functions", "function_call",
    "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "input_embeds",
    "json_schema", "logits_processors", "max_thinking_tokens", "min_thinking_tokens", "mirostat",
    "prediction", "prompt_embeds", "prompt_logprobs", "reasoning_effort", "regex", "structural_tag",
    "structured_outputs", "thinking_token_budget", "truncate_prompt_tokens", "typical_p",
    "web_search_options", "xtc_probability",
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Whether a value is printed as `want`, which is short. */
static bool is_printed(const cJSON *v, const char *want)
{
    char text[128]; /* cJSON asks for some more room than it uses */
    return cJSON_PrintPreallocated((cJSON *)(uintptr_t)v, text, (int)sizeof text, false) &&
           !strcmp(text, want);
}

static enum moe_code read_key(struct reading *r, const cJSON *v, struct moe_err *err)
{
    for (size_t i = 0; i < COUNT(fields); i++)
        if (!strcmp(fields[i].key, r->key)) return read_field(r, &fields[i], v, err);
    for (size_t i = 0; i < COUNT(others); i++)
        if (!strcmp(others[i].key, r->key)) return others[i].read(r, v, err);
    for (size_t i = 0; i < COUNT(passed); i++)
        if (!strcmp(passed[i], r->key)) return MOE_OK;
    for (size_t i = 0; i < COUNT(neutral); i++) {
        if (strcmp(neutral[i].key, r->key)) continue;
        if (is_printed(v, neutral[i].value)) return MOE_OK;
        return moe_fail(err, MOE_UNSUPPORTED, "'%s' is not supported but as %s (take it out)", r->key,
                        neutral[i].value);
    }
    for (size_t i = 0; r->open && i < COUNT(missing); i++)
        if (!strcmp(missing[i], r->key))
            return moe_fail(err, MOE_UNSUPPORTED, "'%s' is not supported (take it out)", r->key);
    if (r->open) return MOE_OK;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "'%.64s' is no key of a request here (take it out; docs/reference/request.md lists them)",
                    r->key);
}

/* Puts together what several keys say; r->key is the one to blame. */
static enum moe_code combine(struct reading *r, struct moe_err *err)
{
    struct moe_request *q = &r->o.request;
    if (r->max_completion_tokens >= 0) q->max_tokens = r->max_completion_tokens;
    if (q->sampler.top_k < 0) q->sampler.top_k = 0;
    q->keep_special = !r->skip_special;
    q->priority = (int)-r->priority;

    r->key = "min_tokens";
    if (q->max_tokens >= 0 && q->min_tokens > q->max_tokens)
        return moe_fail(err, MOE_CORRUPT, "'min_tokens' %lld is more than 'max_tokens' %lld",
                        (long long)q->min_tokens, (long long)q->max_tokens);
    r->key = "top_logprobs";
    if (r->top_logprobs > 0 && q->logprobs < 0)
        return moe_fail(err, MOE_CORRUPT, "'top_logprobs' goes with 'logprobs': true");
    if (r->top_logprobs >= 0 && q->logprobs >= 0) q->logprobs = (int)r->top_logprobs;
    r->key = "stream_options";
    if (r->streams_options && !r->o.stream)
        return moe_fail(err, MOE_CORRUPT, "'stream_options' goes with 'stream': true");
    return MOE_OK;
}

static enum moe_code read_options(struct moe_request_options *out, const cJSON *o,
                                  const struct moe_request *defaults, int64_t vocab, bool open,
                                  const char **key, struct moe_err *err)
{
    struct reading r = { .o = { .request = *defaults, .n = 1 },
                         .vocab = vocab,
                         .key = "",
                         .max_completion_tokens = -1,
                         .top_logprobs = -1,
                         .priority = -(int64_t)defaults->priority,
                         .skip_special = !defaults->keep_special,
                         .open = open };
    enum moe_code code = cJSON_IsObject(o) ? MOE_OK : moe_fail(err, MOE_CORRUPT, "is not an object");
    for (const cJSON *v = o->child; v && code == MOE_OK; v = v->next) {
        r.key = v->string;
        if (!cJSON_IsNull(v)) code = read_key(&r, v, err);
    }
    if (code == MOE_OK) code = combine(&r, err);
    if (code != MOE_OK) {
        if (key) *key = r.key;
        moe_request_options_release(&r.o);
    }
    *out = r.o;
    return code;
}

enum moe_code moe_request_read(struct moe_request_options *out, const cJSON *o,
                               const struct moe_request *defaults, int64_t vocab, const char **key,
                               struct moe_err *err)
{
    return read_options(out, o, defaults, vocab, false, key, err);
}

enum moe_code moe_request_read_body(struct moe_request_options *out, const cJSON *o,
                                    const struct moe_request *defaults, int64_t vocab, const char **key,
                                    struct moe_err *err)
{
    return read_options(out, o, defaults, vocab, true, key, err);
}

void moe_request_options_release(struct moe_request_options *o)
{
    free(o->stop);
    free(o->stop_ids);
    free(o->bias);
    free(o->salt);
    *o = (struct moe_request_options){ .n = 1 };
}
