#include "runtime/prompts.h"

#include "base/io.h"
#include "base/stream.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 1 << 30 };

/* ---- one ---- */

static enum moe_code parse_tokens(const char *s, int32_t **ids, size_t *n, struct moe_err *err)
{
    *ids = malloc((strlen(s) + 1) * sizeof **ids);
    *n = 0;
    if (!*ids) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    while (*s) {
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s || v < 0 || v > INT32_MAX || (*end && *end != ',')) return moe_fail(err, MOE_USAGE, "--tokens wants ids such as 1,2,3, not '%s'", s);
        (*ids)[(*n)++] = (int32_t)v;
        s = *end ? end + 1 : end;
    }
    return MOE_OK;
}

static enum moe_code read_stdin(char **text, size_t *n, struct moe_err *err)
{
    size_t cap = 4096;
    *n = 0;
    *text = malloc(cap + 1);
    for (;;) {
        if (!*text) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
        size_t got = fread(*text + *n, 1, cap - *n, stdin);
        *n += got;
        if (!got) break;
        if (*n == cap) {
            char *more = realloc(*text, 2 * cap + 1);
            if (!more) free(*text);
            *text = more;
            cap *= 2;
        }
    }
    (*text)[*n] = 0;
    return ferror(stdin) ? moe_fail(err, MOE_IO, "cannot read standard input") : MOE_OK;
}

static enum moe_code prompt_text(const struct moe_prompt *o, char **text, size_t *n, struct moe_err *err)
{
    if (o->file && strcmp(o->file, "-")) return moe_read_text(o->file, TEXT_MAX, text, n, err);
    if (o->file || !o->text) return read_stdin(text, n, err);
    *text = strdup(o->text);
    *n = *text ? strlen(*text) : 0;
    return *text ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the prompt");
}

enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    int64_t bos = e->source->config.bos_token_id;
    if (bos < 0) return moe_fail(err, MOE_UNSUPPORTED, "--bos: the model's config has no bos_token_id");
    int32_t *more = realloc(*ids, (*n + 1) * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    memmove(more + 1, more, *n * sizeof *more);
    more[0] = (int32_t)bos;
    *ids = more;
    ++*n;
    return MOE_OK;
}

/* --system TEXT, nothing for an empty one; without the option what the model's own template would put there. */
const char *moe_prompt_system(const struct moe_prompt *o, const struct moe_engine *e)
{
    const struct moe_config *c = &e->source->config;
    if (o->system) return *o->system ? o->system : NULL;
    return !strcmp(c->model_type, "kimi_k2") && !strstr(c->architecture, "K25") ? MOE_CHAT_DEFAULT_SYSTEM : NULL;
}

/* The ids of a text of n bytes with a NUL behind it; as one user turn under --chat. */
static enum moe_code encode(const struct moe_prompt *o, const struct moe_engine *e, char *text, size_t bytes, int32_t **ids, size_t *n, struct moe_err *err)
{
    *ids = NULL;
    if (o->chat && memchr(text, 0, bytes)) return moe_fail(err, MOE_USAGE, "a turn of --chat cannot hold a NUL byte");
    if (o->chat) MOE_TRY(moe_chat_encode(e->tokenizer, &(struct moe_message){ "user", text }, 1, moe_prompt_system(o, e), ids, n, err));
    else MOE_TRY(moe_tokenize(e->tokenizer, text, bytes, o->special, ids, n, err));
    return o->bos ? moe_prompt_bos(e, ids, n, err) : MOE_OK;
}

enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    char *text = NULL;
    size_t bytes;
    *ids = NULL;
    *n = 0;
    if (o->tokens) {
        MOE_TRY(parse_tokens(o->tokens, ids, n, err));
        return o->bos ? moe_prompt_bos(e, ids, n, err) : MOE_OK;
    }
    enum moe_code code = prompt_text(o, &text, &bytes, err);
    if (code == MOE_OK) code = encode(o, e, text, bytes, ids, n, err);
    free(text);
    return code;
}

/* ---- a file of them ---- */

static enum moe_code add(struct moe_prompts *p, int32_t *ids, size_t n, struct moe_err *err)
{
    struct moe_sequence *more = (p->n & (p->n - 1)) ? p->v : realloc(p->v, (size_t)(p->n ? 2 * p->n : 1) * sizeof *more); /* at powers of two */
    if (!more) {
        free(ids);
        return moe_fail(err, MOE_NOMEM, "no memory for the prompts");
    }
    p->v = more;
    p->v[p->n] = (struct moe_sequence){ .ids = ids, .n_ids = (int64_t)n, .index = p->n };
    p->n++;
    return MOE_OK;
}

enum moe_code moe_prompts_read(struct moe_prompts *p, const char *path, const struct moe_prompt *o, const struct moe_engine *e, struct moe_err *err)
{
    char *text;
    size_t bytes;
    *p = (struct moe_prompts){ 0 };
    MOE_TRY(moe_read_text(path, TEXT_MAX, &text, &bytes, err));
    enum moe_code code = MOE_OK;
    for (size_t at = 0; code == MOE_OK && at < bytes; ) {
        char *line = text + at, *end = memchr(line, '\n', bytes - at);
        size_t n = end ? (size_t)(end - line) : bytes - at;
        at += n + 1;
        if (n && line[n - 1] == '\r') n--;
        line[n] = 0;
        if (!n) continue;
        int32_t *ids = NULL;
        size_t n_ids;
        code = encode(o, e, line, n, &ids, &n_ids, err);
        if (code == MOE_OK) code = add(p, ids, n_ids, err);
        else free(ids);
    }
    free(text);
    if (code == MOE_OK && !p->n) code = moe_fail(err, MOE_USAGE, "'%s': no prompts (every line is one)", path);
    if (code != MOE_OK) moe_prompts_release(p);
    return code;
}

void moe_prompts_release(struct moe_prompts *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        free((int32_t *)(uintptr_t)p->v[i].ids);
        free(p->v[i].out.tokens);
        free(p->v[i].out.text);
    }
    free(p->v);
    *p = (struct moe_prompts){ 0 };
}
