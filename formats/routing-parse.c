/* SPDX-License-Identifier: Apache-2.0 */
/* Reads routing statistics from JSON: our own files and SGLang's. */
#include "base/grow.h"
#include "formats/routing.h"

#include "base/json.h"
#include "base/io.h"
#include "base/show.h"
#include "base/stream.h"
#include "formats/scan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = INT_MAX };
static const int64_t SUM_MAX = (int64_t)1 << 53;

/* ---- parsing: counts are appended as they come; lengths are compared as soon as they are known ---- */

struct parser {
    struct moe_scan s;
    struct moe_routing *r;
    const struct moe_cancel *cancel;
    int64_t n;                     /* counts read so far */
    size_t cap, cap_layers, cap_windows;
    bool memory;                   /* memory ran out */
    bool others;                   /* another program's file: its counts may be averages, or floats */
};

static const char *no_memory(struct parser *p)
{
    p->memory = true;
    return "no memory";
}

/* Read a count; another program's may be written as 162554.0, or be a fraction. */
static const char *count(struct parser *p, uint64_t *v)
{
    bool exact = true;
    const char *why = p->others ? moe_scan_rounded(&p->s, v, &exact) : moe_scan_u64(&p->s, v);
    if (!why && *v >= (uint64_t)SUM_MAX) why = "a number too large";
    if (!why) p->r->rounded += !exact;
    return why;
}

/* Read [numbers], the counts of one layer. */
static const char *row(struct parser *p)
{
    int32_t n = 0;
    if (!moe_scan_take(&p->s, '[')) return "a list of counts is missing";
    do {
        uint64_t v;
        const char *why = count(p, &v);
        if (!why && n == MOE_ROUTING_EXPERTS_MAX) why = "a list too long";
        if (!why && !MOE_GROW(p->r->counts, p->cap, (size_t)p->n + 1)) why = no_memory(p);
        if (why) return why;
        p->r->counts[p->n++] = (int64_t)v;
        n++;
    } while (moe_scan_take(&p->s, ','));
    if (p->r->experts && n != p->r->experts)
        return "a list of counts that is not as long as there are experts";
    p->r->experts = n;
    if (moe_is_cancelled(p->cancel)) return "stopped"; /* moe_routing_parse gives the reason */
    return moe_scan_take(&p->s, ']') ? NULL : "bad syntax";
}

static const char *number(struct parser *p, int64_t max, int64_t *out)
{
    uint64_t v;
    const char *why = moe_scan_u64(&p->s, &v);
    if (!why && v > (uint64_t)max) why = "a number too large";
    if (!why) *out = (int64_t)v;
    return why;
}

static const char *key(struct parser *p, char **text)
{
    size_t len;
    const char *why = moe_scan_string(&p->s, text, &len);
    return why ? why : moe_scan_take(&p->s, ':') ? NULL : "bad syntax";
}

/* The layer number of a row is appended in the first window and compared in the others. */
static const char *layer_number(struct parser *p, int32_t at, int64_t v)
{
    struct moe_routing *r = p->r;
    if (r->n_windows)
        return at < r->n_layers && r->layers[at] == v ? NULL : "a window with other layers than the first";
    if (!MOE_GROW(r->layers, p->cap_layers, (size_t)at + 1)) return no_memory(p);
    r->layers[at] = (int32_t)v;
    return NULL;
}

/* Read {"layer": L, "counts": [...]}. */
static const char *layer(struct parser *p, int32_t at)
{
    int64_t number_of = -1, before = p->n;
    bool counts = false;
    char *k;
    if (!moe_scan_take(&p->s, '{')) return "a layer that is not an object";
    do {
        const char *why = key(p, &k);
        if (!why && !strcmp(k, "layer"))
            why = number_of >= 0 ? "a duplicate key" : number(p, MOE_ROUTING_LAYERS_MAX, &number_of);
        else if (!why && !strcmp(k, "counts")) why = counts ? "a duplicate key" : row(p), counts = true;
        else if (!why) why = moe_scan_skip(&p->s);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, '}')) return "bad syntax";
    if (number_of < 0 || p->n == before) return "a layer without 'layer' or 'counts'";
    return layer_number(p, at, number_of);
}

static const char *layers(struct parser *p)
{
    int32_t n = 0;
    if (!moe_scan_take(&p->s, '[')) return "'layers' is not a list";
    do {
        if (n == MOE_ROUTING_LAYERS_MAX) return "a list too long";
        const char *why = layer(p, n++);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, ']')) return "bad syntax";
    if (p->r->n_windows && n != p->r->n_layers) return "a window with other layers than the first";
    p->r->n_layers = n;
    return NULL;
}

static const char *add_window(struct parser *p, int64_t tokens)
{
    struct moe_routing *r = p->r;
    if (r->n_windows == MOE_ROUTING_WINDOWS_MAX) return "too many windows";
    if (!MOE_GROW(r->tokens, p->cap_windows, (size_t)r->n_windows + 1)) return no_memory(p);
    r->tokens[r->n_windows++] = tokens;
    return NULL;
}

/* Read {"tokens": T, "layers": [...]}. */
static const char *window(struct parser *p)
{
    int64_t tokens = -1;
    bool has = false;
    char *k;
    if (!moe_scan_take(&p->s, '{')) return "a window that is not an object";
    do {
        const char *why = key(p, &k);
        if (!why && !strcmp(k, "tokens"))
            why = tokens >= 0 ? "a duplicate key" : number(p, SUM_MAX - 1, &tokens);
        else if (!why && !strcmp(k, "layers")) why = has ? "a duplicate key" : layers(p), has = true;
        else if (!why) why = moe_scan_skip(&p->s);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, '}')) return "bad syntax";
    if (tokens < 0 || !has) return "a window without 'tokens' or 'layers'";
    return add_window(p, tokens);
}

static const char *windows(struct parser *p)
{
    if (!moe_scan_take(&p->s, '[')) return "'windows' is not a list";
    do {
        const char *why = window(p);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    return moe_scan_take(&p->s, ']') ? NULL : "bad syntax";
}

/* Read a list of rows; SGLang has one of these or a list of them. */
static const char *matrix(struct parser *p, bool opened)
{
    int32_t n = 0;
    if (!opened && !moe_scan_take(&p->s, '[')) return "'logical_count' is not a list of lists";
    do {
        if (n == MOE_ROUTING_LAYERS_MAX) return "a list too long";
        const char *why = row(p);
        if (why) return why;
        n++;
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, ']')) return "bad syntax";
    if (p->r->n_windows && n != p->r->n_layers) return "a window with other layers than the first";
    p->r->n_layers = n;
    return add_window(p, 0);
}

/* Whether three brackets come next, which begin a list of matrices. */
static bool is_deep(const struct moe_scan *s)
{
    struct moe_scan look = *s;
    return moe_scan_take(&look, '[') && moe_scan_take(&look, '[') && moe_scan_take(&look, '[');
}

static const char *logical_count(struct parser *p)
{
    bool deep = is_deep(&p->s);
    p->others = true;
    if (!moe_scan_take(&p->s, '[')) return "'logical_count' is not a list";
    if (!deep) return matrix(p, true);
    do {
        const char *why = matrix(p, false);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    return moe_scan_take(&p->s, ']') ? NULL : "bad syntax";
}

enum {
    HAS_VERSION = 1,
    HAS_EXPERTS = 2,
    HAS_TOP = 4,
    HAS_TOKENS = 8,
    HAS_LAYERS = 16,
    HAS_WINDOWS = 32,
    HAS_LOGICAL = 64
};

struct head { int has; int64_t version, experts, top, tokens; };

static const char *member(struct parser *p, struct head *h)
{
    static const char *const names[] = { "version", "experts", "experts_per_token", "tokens",
                                         "layers",  "windows", "logical_count" };
    char *k;
    int bit = 0;
    const char *why = key(p, &k);
    if (why) return why;
    for (int i = 0; i < 7; i++)
        if (!strcmp(k, names[i])) bit = 1 << i;
    if (!bit) return moe_scan_skip(&p->s);
    if (h->has & bit) return "a duplicate key";
    h->has |= bit;
    if ((h->has & HAS_WINDOWS && h->has & (HAS_LAYERS | HAS_TOKENS)) ||
        (h->has & HAS_LOGICAL && h->has & (HAS_LAYERS | HAS_WINDOWS)))
        return "counts in more than one form";
    switch (bit) {
    case HAS_VERSION: return number(p, INT32_MAX, &h->version);
    case HAS_EXPERTS: return number(p, MOE_ROUTING_EXPERTS_MAX, &h->experts);
    case HAS_TOP: return number(p, MOE_ROUTING_EXPERTS_MAX, &h->top);
    case HAS_TOKENS: return number(p, SUM_MAX - 1, &h->tokens);
    case HAS_LAYERS: return layers(p);
    case HAS_WINDOWS: return windows(p);
    default: return logical_count(p);
    }
}

static const char *object(struct parser *p, struct head *h)
{
    if (!moe_scan_take(&p->s, '{')) return "it is not an object";
    do {
        const char *why = member(p, h);
        if (why) return why;
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, '}')) return "bad syntax";
    const char *why = moe_scan_end(&p->s);
    if (!why && h->has & HAS_LAYERS) why = add_window(p, h->tokens);
    return why;
}

/* Check what the members of the file say together, and fill in the rest. */
static enum moe_code settle(struct parser *p, const struct head *h, const char *file, struct moe_err *err)
{
    struct moe_routing *r = p->r;
    if (h->has & HAS_LOGICAL) return moe_routing_check(r, file, err);
    if (!(h->has & (HAS_LAYERS | HAS_WINDOWS)))
        return moe_fail_at(
            err, MOE_CORRUPT, file, NULL,
            "no routing statistics: neither 'layers' nor 'windows' nor 'logical_count' is in it");
    if (!(h->has & HAS_VERSION))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key 'version' is missing");
    if (h->version != MOE_ROUTING_VERSION)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "version %lld of routing statistics",
                           (long long)h->version);
    if (!(h->has & HAS_EXPERTS))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key 'experts' is missing");
    if (!(h->has & HAS_TOP))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key 'experts_per_token' is missing");
    if (h->has & HAS_LAYERS && !(h->has & HAS_TOKENS))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key 'tokens' is missing");
    if (h->experts != r->experts)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%d count%s a layer for %lld expert%s",
                           (int)r->experts, moe_plural(r->experts), (long long)h->experts,
                           moe_plural(h->experts));
    if (!h->top) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'experts_per_token' is 0");
    r->experts_per_token = (int32_t)h->top;
    return moe_routing_check(r, file, err);
}

/* Whether a text begins as one that moe-plan writes, in any of its formats. */
static bool is_plan(const char *text, size_t bytes)
{
    static const char *const keys[] = { "\"ranks\":", "\"physical_to_logical_map\":",
                                        "initial_global_assignments:" };
    char head[257];
    snprintf(head, sizeof head, "%.*s", (int)(bytes < sizeof head ? bytes : sizeof head - 1), text);
    bool yes = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) yes |= strstr(head, keys[i]) != NULL;
    return yes;
}

enum moe_code moe_routing_parse(char *text, size_t bytes, const char *file, const struct moe_cancel *cancel,
                                struct moe_routing **out, struct moe_err *err)
{
    struct parser p = { .s = { text, text, text + bytes }, .r = calloc(1, sizeof *p.r), .cancel = cancel };
    struct head h = { 0 };
    *out = NULL;
    if (!p.r) return moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for its counts");
    if (bytes > 4 && !memcmp(text, "PK\3\4", 4)) {
        moe_routing_free(&p.r);
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "a file of torch.save (write its 'logical_count' as JSON: "
                           "json.dump({'logical_count': torch.load(FILE)['logical_count'].tolist()}, f))");
    }
    bool plan = is_plan(text, bytes);
    moe_scan_skip_mark(&p.s);
    const char *why = object(&p, &h);
    enum moe_code code = moe_cancel_check(cancel, err);
    if (code == MOE_OK && p.memory)
        code = moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for its counts");
    else if (code == MOE_OK && plan && (why || !(h.has & (HAS_LAYERS | HAS_WINDOWS | HAS_LOGICAL))))
        code = moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "is a plan, and holds no statistics (moe-run --record-routing FILE writes these)");
    else if (code == MOE_OK && why)
        code = moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "the routing statistics are malformed: %s at byte %zu", why,
                           (size_t)(p.s.at - p.s.start));
    else if (code == MOE_OK) code = settle(&p, &h, file, err);
    if (code == MOE_OK) *out = p.r;
    else moe_routing_free(&p.r);
    return code;
}

enum moe_code moe_routing_read(const char *path, const struct moe_cancel *cancel, struct moe_routing **r,
                               struct moe_err *err)
{
    char *text;
    size_t n;
    *r = NULL;
    if (moe_exists(path) == MOE_DIR) return moe_routing_read_trtllm(path, r, err);
    MOE_TRY(moe_read_text(path, TEXT_MAX, cancel, &text, &n, err));
    const char *name = moe_stream_name(path);
    bool empty = moe_json_space(text, n, 0) == n;
    enum moe_code code = empty ? moe_fail_at(err, MOE_CORRUPT, name, NULL, "is empty")
                               : moe_routing_parse(text, n, name, cancel, r, err);
    free(text);
    return code;
}
