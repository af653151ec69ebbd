/* SPDX-License-Identifier: Apache-2.0 */
/* moe-inspect - main() only: parse, call, report. */
#include "base/io.h"
#include "base/re.h"
#include "base/show.h"
#include "base/stream.h"
#include "base/cli/tool.h"
#include "convert/convert-man.h"
#include "convert/diff.h"
#include "convert/inspect-gguf.h"
#include "convert/inspect.h"
#include "formats/container/container.h"
#include "formats/gguf/gguf-read.h"
#include "formats/tokenizer/tokenizer.h"
#include "model/rewrite/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct moe_run run;
    const char *tensors, *tokenize, *detokenize, *diff;
    int64_t top;
    bool layers, experts, verify, special;
};

/* ---- text for people ---- */

static double number(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static const char *word(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static void print_types(const cJSON *types)
{
    char a[16];
    for (const cJSON *t = types->child; t; t = t->next)
        moe_print_line("  %-14s %8.0f tensors  %s", t->string, number(t, "tensors"),
                       moe_human_bytes((uint64_t)number(t, "bytes"), a));
}

static void print_staged(const cJSON *s)
{
    const cJSON *a = moe_json_get(s, "ranks");
    if (!s) return;
    moe_print_line("  a staged part for ranks %.0f to %.0f of %.0f: %.0f experts are not there (other ranks "
                   "have them; moe-plan stage)",
                   a->child->valuedouble, a->child->next->valuedouble, number(s, "of"),
                   number(s, "experts_absent"));
}

static void print_attention(const cJSON *j)
{
    const cJSON *rope = moe_json_get(j, "rope");
    printf("  context %.0f", number(j, "context_length"));
    if (!strcmp(word(rope, "type"), "yarn"))
        printf(" (YaRN: factor %g over %.0f, mscale %g, mscale_all_dim %g)", number(rope, "factor"),
               number(rope, "original_context_length"), number(rope, "mscale"),
               number(rope, "mscale_all_dim"));
    printf("\n  attention: %.0f heads of %.0f + %.0f rotary dimensions, values of %.0f; ranks: queries ",
           number(j, "heads"), number(j, "qk_nope_head_dim"), number(j, "qk_rope_head_dim"),
           number(j, "v_head_dim"));
    if (number(j, "q_lora_rank") > 0) printf("%.0f", number(j, "q_lora_rank"));
    else printf("full");
    printf(", keys and values %.0f\n", number(j, "kv_lora_rank"));
}

static void print_text(const cJSON *j)
{
    const cJSON *t = moe_json_get(j, "tokenizer"), *ends = moe_json_get(j, "end_tokens");
    const char *problem = word(t, "problem"), *chat = word(t, "chat_template");
    if (*problem) moe_print_line("  tokenizer: cannot be used: %s", problem);
    else if (!*word(t, "kind")) printf("  tokenizer: none here\n");
    else
        moe_print_line("  tokenizer: %s, %.0f tokens, %s%s", word(t, "kind"), number(t, "vocabulary"),
                       *chat ? "chat template " : "no chat template that is known", chat);
    for (const cJSON *e = ends->child; e; e = e->next) {
        const cJSON *piece = moe_json_get(e, "piece"); /* JSON already, between quotes */
        moe_print_line("  ends at token %.0f  %s", number(e, "id"),
                       cJSON_IsRaw(piece) ? piece->valuestring : "");
    }
}

static void print_quantization(const cJSON *q)
{
    if (!cJSON_IsObject(q)) return;
    moe_print_line("  quantized by method '%s' (%s), %s", word(q, "method"), word(q, "quantize"),
                   cJSON_IsTrue(moe_json_get(q, "calibrated")) ? "calibrated" : "not calibrated");
    if (number(q, "calibration_tokens") > 0)
        printf("    calibration tokens: %.0f\n", number(q, "calibration_tokens"));
    if (number(q, "relative_error") > 0)
        printf("    relative error of what was quantized: %.4g\n", number(q, "relative_error"));
}

static void print_layers(const cJSON *rows)
{
    for (const cJSON *r = rows->child; r; r = r->next) {
        const cJSON *e = moe_json_get(r, "relative_error");
        if (cJSON_IsNull(moe_json_get(r, "layer"))) printf("outside of layers:\n");
        else printf("layer %.0f, %s:\n", number(r, "layer"), word(r, "kind"));
        print_types(moe_json_get(r, "types"));
        if (cJSON_IsObject(e))
            printf("  relative error: gate %.4g, up %.4g, down %.4g\n", number(e, "gate"), number(e, "up"),
                   number(e, "down"));
    }
}

static void print_summary(const cJSON *j)
{
    char a[16];
    moe_print_line("%s, %s, %s", word(j, "kind"), word(j, "layout"), word(j, "architecture"));
    printf("  %.0f layers, hidden size %.0f, vocabulary %.0f\n", number(j, "layers"),
           number(j, "hidden_size"), number(j, "vocab_size"));
    const cJSON *part = moe_json_get(j, "part");
    if (part)
        printf("  a part: layers %.0f-%.0f only (moe-convert --merge puts parts together)\n",
               part->child->valuedouble, part->child->next->valuedouble);
    print_staged(moe_json_get(j, "staged"));
    printf("  %.0f experts, %.0f for each token, %.0f shared", number(j, "experts"),
           number(j, "experts_per_token"), number(j, "shared_experts"));
    if (number(j, "expert_groups") > 1)
        printf("; %.0f groups, %.0f of them used", number(j, "expert_groups"),
               number(j, "expert_groups_used"));
    printf("; layers without experts: %.0f\n", number(j, "dense_layers"));
    print_attention(j);
    print_text(j);
    print_quantization(moe_json_get(j, "quantization"));
    printf("  %.0f parameters, %.0f active\n", number(j, "parameters"), number(j, "parameters_active"));
    printf("  %.0f tensors, %s\n", number(j, "tensors"), moe_human_bytes((uint64_t)number(j, "bytes"), a));
    print_types(cJSON_GetObjectItemCaseSensitive(j, "types"));
}

static void print_experts(const cJSON *rows)
{
    for (const cJSON *r = rows->child; r; r = r->next) {
        char a[16], b[16], where[96] = "", aligned[64] = "";
        moe_human_bytes((uint64_t)number(r, "expert_bytes_max"), a);
        if (*word(r, "file")) {
            snprintf(where, sizeof where, ", extents of %s from byte %.0f of ",
                     moe_human_bytes((uint64_t)number(r, "extent_bytes"), b), number(r, "extent_offset"));
            snprintf(aligned, sizeof aligned, ", aligned to %.0f", number(r, "alignment"));
        }
        moe_print_line("layer %.0f: %.0f experts, %s each%s%s%s", number(r, "layer"), number(r, "experts"), a,
                       where, word(r, "file"), aligned);
        print_types(cJSON_GetObjectItemCaseSensitive(r, "types"));
    }
}

static void print_tensors(const cJSON *rows)
{
    for (const cJSON *r = rows->child; r; r = r->next) {
        char shape[256] = "";
        size_t n = 0;
        const cJSON *first = cJSON_GetObjectItemCaseSensitive(r, "shape")->child, *s = first;
        for (; s && n + 32 < sizeof shape; s = s->next) {
            const char *comma = s == first ? "" : ", ";
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%.0f", comma, s->valuedouble);
        }
        const char *skipped = word(r, "skipped");
        moe_print_line("%s  %s  [%s]  %.0f bytes  %s%s%s%s", word(r, "name"), word(r, "type"), shape,
                       number(r, "bytes"), word(r, "file"), *skipped ? "  (left out: " : "", skipped,
                       *skipped ? ")" : "");
    }
}

/* ---- the model ---- */

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the report");
}

static enum moe_code lists(struct options *o, const struct moe_source *src, cJSON *json, struct moe_err *err)
{
    cJSON *list;
    if (o->layers) {
        MOE_TRY(moe_inspect_layers(src, &list, err));
        if (!moe_json_add(json, "layer_list", list)) return no_memory(err);
        if (!o->run.json) print_layers(list);
    }
    if (o->experts) {
        MOE_TRY(moe_inspect_experts(src, &list, err));
        if (!moe_json_add(json, "expert_layers", list)) return no_memory(err);
        if (!o->run.json) print_experts(list);
    }
    if (o->tensors) {
        MOE_TRY(moe_inspect_tensors(src, o->tensors, &list, err));
        if (!moe_json_add(json, "tensor_list", list)) return no_memory(err);
        if (!o->run.json) print_tensors(list);
    }
    return MOE_OK;
}

/* Every byte of the weights is sound: the tokenizer beside them, if there is one, has to be of use, too. */
static enum moe_code judge_tokenizer(const struct moe_source *src, cJSON *problems, enum moe_code *verdict,
                                     struct moe_err *why, struct moe_err *err)
{
    enum moe_code code = moe_check_vocabulary(src, why);
    if (code == MOE_OK) return MOE_OK;
    if (code == MOE_NOMEM || code == MOE_IO) return *err = *why, code;
    if (!moe_json_append(problems, cJSON_CreateString(why->msg)))
        return moe_fail(err, MOE_NOMEM, "no memory for the problems");
    *verdict = why->code = MOE_VERIFY;
    return MOE_OK;
}

/* The verdict goes into the summary; what is wrong comes back as *verdict with *why. */
static enum moe_code judge(struct options *o, const struct moe_source *src, cJSON *json, cJSON *problems,
                           enum moe_code *verdict, struct moe_err *why, struct moe_err *err)
{
    if (problems->child) { /* the first of them is in *why, as any other tool would say it */
        *verdict = o->verify ? MOE_VERIFY : why->code;
    } else if (o->verify) {
        enum moe_code code = moe_source_verify(src, o->run.pool, o->run.progress, o->run.cancel, problems,
                                                why);
        if (code != MOE_OK && code != MOE_VERIFY) return *err = *why, code;
        *verdict = code;
        if (code == MOE_OK) MOE_TRY(judge_tokenizer(src, problems, verdict, why, err));
    }
    if (o->verify) moe_json_add_bool(json, "verified", *verdict == MOE_OK);
    else moe_json_add_null(json, "verified");
    return MOE_OK;
}

static void add_error(cJSON *json, enum moe_code code, const struct moe_err *e)
{
    cJSON *o = moe_json_add_object(json, "error");
    moe_json_add_f64(o, "code", code);
    moe_json_add_str(o, "name", moe_code_name(code));
    moe_json_add_str(o, "message", e->msg);
    moe_json_add(o, "file", e->file[0] ? cJSON_CreateString(e->file) : cJSON_CreateNull());
    moe_json_add(o, "tensor", e->tensor[0] ? cJSON_CreateString(e->tensor) : cJSON_CreateNull());
}

static enum moe_code inspect(struct options *o, cJSON **json, enum moe_code *verdict, struct moe_err *err)
{
    struct moe_source *src;
    struct moe_err why = MOE_ERR_INIT;
    cJSON *problems = NULL;
    MOE_TRY(moe_source_survey(&src, o->run.argv[0], &problems, err));
    moe_tell_superseded(&o->run, src);
    why = *err;
    enum moe_code code = moe_inspect_summary(src, json, err);
    if (code == MOE_OK) code = moe_inspect_model(src, *json, err);
    if (code == MOE_OK && !o->run.json) print_summary(*json);
    if (code == MOE_OK) code = lists(o, src, *json, err);
    if (code == MOE_OK) code = judge(o, src, *json, problems, verdict, &why, err);
    if (code == MOE_OK && !o->run.json) {
        const cJSON *first = problems->child; /* a lone one is said below, as by any other tool */
        for (const cJSON *p = first && first->next ? first : NULL; p; p = p->next)
            moe_print_line("problem: %s", p->valuestring);
        if (o->verify && *verdict == MOE_OK)
            printf("verified: every byte %swas read, nothing is wrong\n", src->staged ? "of this part " : "");
    }
    if (code == MOE_OK) moe_json_add(*json, "problems", problems);
    else cJSON_Delete(problems);
    if (code == MOE_OK && *verdict != MOE_OK) {
        add_error(*json, *verdict, &why);
        moe_print_bytes("", 0);
        fprintf(stderr, "moe-inspect: %s\n", why.msg);
    }
    moe_source_close(&src);
    return code;
}

static void print_worst(const cJSON *worst)
{
    if (worst->child) printf("the worst by relative error, and their largest single difference:\n");
    for (const cJSON *w = worst->child; w; w = w->next)
        moe_print_line("  %8.3g  %s  %.7g, %.7g in the second at row %.0f, column %.0f",
                       number(w, "relative_error"), word(w, "tensor"), number(w, "first"),
                       number(w, "second"), number(w, "row"), number(w, "column"));
}

/* Whether a line of "differences" is of a tensor that was printed among the worst. */
static bool is_among(const cJSON *worst, const char *line)
{
    for (const cJSON *w = worst ? worst->child : NULL; w; w = w->next) {
        const char *name = word(w, "tensor");
        size_t n = strlen(name);
        if (!strncmp(line, name, n) && line[n] == ':') return true;
    }
    return false;
}

/* The first `top` of a list of lines, without those of `worst`, which were printed already. */
static void print_lines(const cJSON *lines, const cJSON *worst, int64_t top)
{
    int64_t n = 0;
    for (const cJSON *d = lines->child; d; d = d->next)
        if (!is_among(worst, d->valuestring) && n++ < top) moe_print_line("%s", d->valuestring);
    if (n > top) printf("and %lld more (--top N shows more, --json up to 1000)\n", (long long)(n - top));
}

/* What one wants to know comes first; the other tensors, up to --top with the worst, come last. */
static void print_differences(const struct options *o, const cJSON *j)
{
    const cJSON *worst = cJSON_GetObjectItemCaseSensitive(j, "worst");
    moe_print_line(
        "of '%s' (the first) and '%s' (the second) %.0f tensors are the same, %.0f differ: %.0f only in the "
        "first, %.0f only in the second, %.0f in shape, %.0f in type, %.0f in what is stored",
        o->run.argv[0], o->diff, number(j, "tensors_same"), number(j, "tensors_different"),
        number(j, "tensors_only_first"), number(j, "tensors_only_second"), number(j, "tensors_shape"),
        number(j, "tensors_type"), number(j, "tensors_values"));
    if (number(j, "tensors_type") + number(j, "tensors_values") > 0)
        printf("relative error of those compared by value: %.3g\n", number(j, "relative_error"));
    for (const cJSON *t = cJSON_GetObjectItemCaseSensitive(j, "types")->child; t; t = t->next)
        printf("  %.0f tensors of %s, %s in the second: %.3g\n", number(t, "tensors"), word(t, "type"),
               word(t, "type_second"), number(t, "relative_error"));
    print_worst(worst);
    print_lines(cJSON_GetObjectItemCaseSensitive(j, "config"), NULL, INT64_MAX);
    print_lines(cJSON_GetObjectItemCaseSensitive(j, "differences"), worst,
                o->top - cJSON_GetArraySize(worst));
}

static enum moe_code no_gguf(const char *path, struct moe_err *err)
{
    bool is;
    MOE_TRY(moe_gguf_is(path, &is, err));
    if (!is) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "is a GGUF file, which --diff does not compare "
                       "(take the checkpoint or container that it was made from)");
}

/* Two models: the answer is MOE_MISMATCH when they differ. */
static enum moe_code compare(struct options *o, cJSON **json, enum moe_code *verdict, struct moe_err *err)
{
    struct moe_source *a, *b = NULL;
    struct moe_err why = MOE_ERR_INIT;
    MOE_TRY(no_gguf(o->diff, err));
    MOE_TRY(moe_source_open(&a, o->run.argv[0], err));
    enum moe_code code = moe_source_open(&b, o->diff, err);
    if (code == MOE_OK) moe_tell_superseded(&o->run, a), moe_tell_superseded(&o->run, b);
    if (code == MOE_OK)
        code = moe_inspect_diff(a, b, o->top, o->run.pool, o->run.progress, o->run.cancel, json, err);
    moe_source_close(&a);
    moe_source_close(&b);
    MOE_TRY(code);
    if (!o->run.json) print_differences(o, *json);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(*json, "same"))) return MOE_OK;
    *verdict = moe_fail(&why, MOE_MISMATCH, "'%s' and '%s' differ in %.0f tensors%s", o->run.argv[0], o->diff,
                        number(*json, "tensors_different"),
                        cJSON_GetObjectItemCaseSensitive(*json, "config")->child ? " and in their configs"
                                                                                 : "");
    add_error(*json, *verdict, &why);
    moe_print_bytes("", 0);
    fprintf(stderr, "moe-inspect: %s\n", why.msg);
    return MOE_OK;
}

/* ---- tokens: printed one by one, a tree of them would not fit ---- */

/* Of a text: its tokens, its bytes, and its characters, where a byte that is part of none counts as one. */
struct token_counts { size_t tokens, bytes, characters; };

static size_t characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t i = 0, len; i < n; i += len, count++) {
        len = (size_t)moe_utf8_char((const unsigned char *)text + i, n - i);
        if (!len) len = 1;
    }
    return count;
}

/* For programs: the ids alone in a line, or JSON. */
static void print_ids(const int32_t *ids, const struct token_counts *c, bool json)
{
    if (json) printf("{\"tokens\": [");
    for (size_t i = 0; i < c->tokens; i++) printf("%s%d", i ? json ? ", " : " " : "", ids[i]);
    if (!json) printf("\n");
    if (json) printf("], \"token_count\": %zu, \"bytes\": %zu, \"characters\": %zu, \"bytes_per_token\": ",
                     c->tokens, c->bytes, c->characters);
    if (json && c->tokens) printf("%.6g}\n", (double)c->bytes / (double)c->tokens);
    else if (json) printf("null}\n");
}

/* For people: a token a line with its bytes between quotes, then the counts. */
static void print_pieces(const struct moe_tokenizer *t, const int32_t *ids, const struct token_counts *c)
{
    char room[MOE_TOKEN_ROOM];
    size_t len;
    for (size_t i = 0; i < c->tokens; i++) {
        const char *piece = moe_token_bytes(t, ids[i], room, &len);
        printf("%8d  \"", ids[i]);
        if (piece) moe_show_print(stdout, piece, len, false);
        printf("\"\n");
    }
    printf("%zu token%s, %zu byte%s, %zu character%s", c->tokens, moe_plural((int64_t)c->tokens), c->bytes,
           moe_plural((int64_t)c->bytes), c->characters, moe_plural((int64_t)c->characters));
    if (c->tokens) printf(", %.2f bytes a token", (double)c->bytes / (double)c->tokens);
    printf("\n");
}

static enum moe_code tokenize(struct options *o, const struct moe_tokenizer *t, struct moe_err *err)
{
    char *text;
    size_t n, count;
    int32_t *ids;
    MOE_TRY(moe_read_text(o->tokenize, moe_available_memory(), o->run.cancel, &text, &n, err));
    enum moe_code code = moe_tokenize(t, text, n, o->special, &ids, &count, err);
    const struct token_counts c = { count, n, code == MOE_OK ? characters(text, n) : 0 };
    free(text);
    MOE_TRY(code);
    if (o->run.json || o->run.quiet) print_ids(ids, &c, o->run.json);
    else print_pieces(t, ids, &c);
    free(ids);
    return MOE_OK;
}

static enum moe_code parse_ids(const char *text, const struct moe_tokenizer *t, int32_t **ids, size_t *count,
                               struct moe_err *err)
{
    *count = 0;
    *ids = malloc((strlen(text) / 2 + 1) * sizeof **ids);
    if (!*ids) return moe_fail(err, MOE_NOMEM, "no memory for the tokens");
    for (const char *p = text; *p; ) {
        char *end, room[MOE_TOKEN_ROOM];
        size_t len;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v >= moe_tokenizer_size(t) ||
            !moe_token_bytes(t, (int32_t)v, room, &len) || (*end && *end != ',')) {
            free(*ids);
            return moe_fail(err, MOE_USAGE, "--detokenize: '%.20s' is no token of this model (want 1,2,3)",
                            p);
        }
        (*ids)[(*count)++] = (int32_t)v;
        p = *end ? end + 1 : end;
    }
    return MOE_OK;
}

static enum moe_code detokenize(struct options *o, const struct moe_tokenizer *t, cJSON **json,
                                struct moe_err *err)
{
    int32_t *ids;
    char room[MOE_TOKEN_ROOM];
    size_t count, n = 0, m = 0, cap = 16, raw_cap = 1, len;
    struct moe_decoder d = { .keep_special = true };
    MOE_TRY(parse_ids(o->detokenize, t, &ids, &count, err));
    for (size_t i = 0; i < count; i++) {
        moe_token_bytes(t, ids[i], room, &len);
        cap += MOE_DECODE_BOUND(len);
        raw_cap += len;
    }
    char *text = malloc(cap + 1), *raw = malloc(raw_cap), *b64 = NULL;
    for (size_t i = 0; text && raw && i < count; i++) {
        const char *bytes = moe_token_bytes(t, ids[i], room, &len);
        memcpy(raw + m, bytes, len);
        m += len;
        n += moe_decode(t, &d, ids[i], text + n);
    }
    bool ok = text && raw;
    if (ok) {
        n += moe_decode_flush(&d, text + n);
        text[n] = 0;
        if (!o->run.json) moe_print_text(raw, m);
        ok = (*json = cJSON_CreateObject()) && moe_json_add_text(*json, "text", text, n) &&
             (b64 = moe_base64(raw, m)) && moe_json_add_str(*json, "bytes_base64", b64);
    }
    free(ids);
    free(text);
    free(raw);
    free(b64);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the text");
}

/* `--tensors REGEX` without "=": the operand that is no model is the pattern. */
static void find_pattern(struct options *o)
{
    if (!o->tensors || *o->tensors || o->run.argc != 2) return;
    int pattern = moe_exists(o->run.argv[1]) != MOE_ABSENT && moe_exists(o->run.argv[0]) != MOE_DIR ? 0 : 1;
    o->tensors = o->run.argv[pattern];
    o->run.argv[0] = o->run.argv[1 - pattern];
    o->run.argc = 1;
}

/* A GGUF file has a head that can be told, and no checksum or layers of ours. */
static enum moe_code gguf(const struct options *o, cJSON **json, struct moe_err *err)
{
    if (o->verify || o->diff || o->layers || o->experts || o->tokenize || o->detokenize)
        return moe_fail_at(err, MOE_UNSUPPORTED, o->run.argv[0], NULL,
                           "is a GGUF file: of those only its head and, with --tensors, the list of its "
                           "tensors can be shown (take the checkpoint or container that it was made from)");
    return moe_inspect_gguf(o->run.argv[0], o->tensors, !o->run.json, json, err);
}

static enum moe_code work(struct options *o, cJSON **json, enum moe_code *verdict, struct moe_err *err)
{
    find_pattern(o);
    MOE_TRY(moe_want_model(&o->run, err));
    struct moe_re *pattern = NULL;
    /* before anything is printed */
    if (o->tensors && *o->tensors) MOE_TRY(moe_re_open(&pattern, o->tensors, err));
    moe_re_close(&pattern);
    bool is_gguf;
    MOE_TRY(moe_gguf_is(o->run.argv[0], &is_gguf, err));
    if (is_gguf) return gguf(o, json, err);
    if (o->diff && (o->tokenize || o->detokenize || o->verify || o->layers || o->experts || o->tensors))
        return moe_fail(err, MOE_USAGE, "--diff cannot be combined with another question");
    if (o->top < 0 || o->top > MOE_DIFF_TOP_MAX)
        return moe_fail(err, MOE_USAGE, "--top wants a number from 0 to %d, not %lld", MOE_DIFF_TOP_MAX,
                        (long long)o->top);
    if (o->diff) return compare(o, json, verdict, err);
    if (!o->tokenize && !o->detokenize) return inspect(o, json, verdict, err);
    struct moe_tokenizer *t;
    if (o->tokenize && o->detokenize)
        return moe_fail(err, MOE_USAGE, "--tokenize and --detokenize exclude each other");
    MOE_TRY(moe_tokenizer_open(&t, o->run.argv[0], 0, err));
    moe_tokenizer_limit(t, moe_available_memory());
    enum moe_code code = o->tokenize ? tokenize(o, t, err) : detokenize(o, t, json, err);
    moe_tokenizer_close(&t);
    return code;
}

static const struct moe_opt_rule rules[] = {
    { "top", "diff", false },
    { "special", "tokenize", false },
    { NULL, NULL, false },
};

static int tool_main(int argc, char **argv)
{
    struct options o = { .top = 10 };
    const struct moe_opt opts[] = {
        MOE_GROUP("what to show"),
        MOE_MAYBE(0, "tensors", &o.tensors, "REGEX", "list all tensors, or those whose name matches"),
        MOE_BOOL(0, "layers", &o.layers,
                 "list each layer: its types, their bytes, and the error of its quantization"),
        MOE_BOOL(0, "experts", &o.experts, "list each layer's experts: extents, bytes, types"),
        MOE_BOOL(0, "verify", &o.verify, "read every byte: checksums, padding, values that are not finite"),
        MOE_STR(0, "diff", &o.diff, "MODEL2",
                "compare with another model, tensor by tensor, as stored and in values"),
        MOE_INT(0, "top", &o.top, "N",
                "with --diff: show this many of the tensors that differ, the worst first (0 to 1000)"),
        MOE_GROUP("the tokenizer"),
        MOE_INPUT(0, "tokenize", &o.tokenize, "FILE",
                  "print the tokens of this file's text: id and bytes a line, then counts; with --quiet the "
                  "ids alone, in one line (may be gzipped; - is standard input)"),
        MOE_STR(0, "detokenize", &o.detokenize, "IDS", "print the text of these token ids: 1,2,3"),
        MOE_BOOL(0, "special", &o.special,
                 "with --tokenize: names of special tokens in the text are those tokens"),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    const struct moe_tool tool = {
        .name = "moe-inspect",
        .synopsis = "[options] MODEL",
        .about = "say what a model is, whether it is whole, and whether it is sound",
        .description = moe_inspect_description,
        .examples = moe_inspect_examples,
        .json =
            "kind, layout, architecture, layers, experts, experts_per_token, hidden_size, vocab_size, "
            "parameters, parameters_active, tensors, bytes, types (tensors and bytes of each), verified "
            "(true, false, or null when not asked), problems. Of layers of a model also part (the first and "
            "the last), of a staged part also staged (ranks, of, experts_absent, from, plan), and tensors, "
            "bytes and types are those that are there. With --tensors also tensor_list (name, type, shape, "
            "bytes, file, offset, skipped); with --experts also expert_layers; with --layers also layer_list "
            "(layer, null for what is outside of layers, kind, types, relative_error).\n\n"
            "Also: context_length, rope (type, theta; of yarn factor, original_context_length, mscale, "
            "mscale_all_dim, beta_fast, beta_slow), heads, q_lora_rank (0: none), kv_lora_rank, "
            "qk_nope_head_dim, qk_rope_head_dim, v_head_dim, dense_layers, shared_experts, expert_groups, "
            "expert_groups_used, tokenizer (null, or kind, vocabulary, chat_template; problem where it "
            "cannot be used), end_tokens (id, piece), quantization (null, or method, quantize, calibrated, "
            "calibration_tokens, input_scale, relative_error: of the run that quantized a container).\n\n"
            "With --diff: same (nothing differs), values_same (no value, shape or tensor does), "
            "tensors_same, tensors_different, and of these tensors_only_first, tensors_only_second, "
            "tensors_shape, tensors_type and tensors_values (same type, other bits); relative_error: "
            "sqrt(sum (a - b)^2 / sum a^2) over all tensors compared by value, a of the first model; types: "
            "the same for each pair of types (type, type_second, tensors, relative_error); worst: the --top "
            "tensors with the largest error (tensor, type, type_second, relative_error, weights, "
            "weights_different, not_finite, and the largest single difference: max_difference, row, column, "
            "first, second); config: keys that differ; differences: a line for each tensor, at most 1000. "
            "The exit status is 0 when the models are the same and 15 when they differ.\n\n"
            "Of a GGUF file: kind (gguf), version, architecture, name, tensors, bytes, types, metadata (of "
            "an array its type, count and first elements; of a text its first 256 bytes; NaN, Infinity and "
            "-Infinity as text), verified (null), problems; bytes are null where a type is not known; with "
            "--tensors also tensor_list (name, type, shape with the contiguous dimension first, bytes, "
            "offset).\n\n"
            "With --tokenize: tokens (ids), token_count, bytes, characters, bytes_per_token. With "
            "--detokenize: text, bytes_base64.",
        .opts = opts,
        .rules = rules,
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = NULL;
    enum moe_code verdict = MOE_OK, code = work(&o, &json, &verdict, &o.run.err);
    int exit_code = moe_run_end(&o.run, code, json);
    return exit_code ? exit_code : (int)verdict;
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
