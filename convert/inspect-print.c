/* SPDX-License-Identifier: Apache-2.0 */
/* What moe-inspect prints for people, and tokens for programs. */
#include "convert/inspect-print.h"

#include "base/cli/tool.h"
#include "base/show.h"

#include <stdio.h>
#include <string.h>

/* ---- a model ---- */

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
    fprintf(stdout, "  context %.0f", number(j, "context_length"));
    if (!strcmp(word(rope, "type"), "yarn"))
        fprintf(stdout, " (YaRN: factor %g over %.0f, mscale %g, mscale_all_dim %g)", number(rope, "factor"),
               number(rope, "original_context_length"), number(rope, "mscale"),
               number(rope, "mscale_all_dim"));
    fprintf(stdout,
            "\n  attention: %.0f heads of %.0f + %.0f rotary dimensions, values of %.0f; ranks: queries ",
            number(j, "heads"), number(j, "qk_nope_head_dim"), number(j, "qk_rope_head_dim"),
            number(j, "v_head_dim"));
    if (number(j, "q_lora_rank") > 0) fprintf(stdout, "%.0f", number(j, "q_lora_rank"));
    else fprintf(stdout, "full");
    fprintf(stdout, ", keys and values %.0f\n", number(j, "kv_lora_rank"));
}

static void print_text(const cJSON *j)
{
    const cJSON *t = moe_json_get(j, "tokenizer"), *ends = moe_json_get(j, "end_tokens");
    const char *problem = word(t, "problem"), *chat = word(t, "chat_template");
    if (*problem) moe_print_line("  tokenizer: cannot be used: %s", problem);
    else if (!*word(t, "kind")) fprintf(stdout, "  tokenizer: none here\n");
    else
        moe_print_line("  tokenizer: %s, %.0f tokens, %s%s", word(t, "kind"), number(t, "vocabulary"),
                       *chat ? "chat template " : "no chat template that is known", chat);
    for (const cJSON *e = ends->child; e; e = e->next) {
        const cJSON *piece = moe_json_get(e, "piece"); /* this is JSON text between quotes */
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
        fprintf(stdout, "    calibration tokens: %.0f\n", number(q, "calibration_tokens"));
    if (number(q, "relative_error") > 0)
        fprintf(stdout, "    relative error of what was quantized: %.4g\n", number(q, "relative_error"));
}

void moe_inspect_print_layers(const cJSON *rows)
{
    for (const cJSON *r = rows->child; r; r = r->next) {
        const cJSON *e = moe_json_get(r, "relative_error");
        if (cJSON_IsNull(moe_json_get(r, "layer"))) fprintf(stdout, "outside of layers:\n");
        else fprintf(stdout, "layer %.0f, %s:\n", number(r, "layer"), word(r, "kind"));
        print_types(moe_json_get(r, "types"));
        if (cJSON_IsObject(e))
            fprintf(stdout, "  relative error: gate %.4g, up %.4g, down %.4g\n", number(e, "gate"),
                    number(e, "up"), number(e, "down"));
    }
}

void moe_inspect_print_summary(const cJSON *j)
{
    char a[16];
    moe_print_line("%s, %s, %s", word(j, "kind"), word(j, "layout"), word(j, "architecture"));
    fprintf(stdout, "  %.0f layers, hidden size %.0f, vocabulary %.0f\n", number(j, "layers"),
           number(j, "hidden_size"), number(j, "vocab_size"));
    const cJSON *part = moe_json_get(j, "part");
    if (part)
        fprintf(stdout, "  a part: layers %.0f-%.0f only (moe-convert --merge puts parts together)\n",
               part->child->valuedouble, part->child->next->valuedouble);
    print_staged(moe_json_get(j, "staged"));
    fprintf(stdout, "  %.0f experts, %.0f for each token, %.0f shared", number(j, "experts"),
           number(j, "experts_per_token"), number(j, "shared_experts"));
    if (number(j, "expert_groups") > 1)
        fprintf(stdout, "; %.0f groups, %.0f of them used", number(j, "expert_groups"),
               number(j, "expert_groups_used"));
    fprintf(stdout, "; layers without experts: %.0f\n", number(j, "dense_layers"));
    print_attention(j);
    print_text(j);
    print_quantization(moe_json_get(j, "quantization"));
    fprintf(stdout, "  %.0f parameters, %.0f active\n", number(j, "parameters"),
            number(j, "parameters_active"));
    fprintf(stdout, "  %.0f tensors, %s\n", number(j, "tensors"),
            moe_human_bytes((uint64_t)number(j, "bytes"), a));
    print_types(cJSON_GetObjectItemCaseSensitive(j, "types"));
}

void moe_inspect_print_experts(const cJSON *rows)
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

void moe_inspect_print_tensors(const cJSON *rows)
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

/* ---- GPUs ---- */

/* The words of an array of strings, in one line. */
static void print_words(const char *before, const cJSON *words)
{
    fprintf(stdout, "%s", before);
    for (const cJSON *w = words->child; w; w = w->next)
        fprintf(stdout, "%s%s", w == words->child ? "" : ", ", w->valuestring);
    fprintf(stdout, "%s\n", words->child ? "" : "none");
}

static void print_link(const cJSON *d)
{
    const cJSON *link = moe_json_get(d, "link"), *node = moe_json_get(d, "numa_node");
    double rate = number(link, "pcie_gtransfers_per_second"), lanes = number(link, "pcie_lanes");
    fprintf(stdout, "  link: bus %s", word(link, "bus"));
    if (rate > 0 && lanes > 0) fprintf(stdout, ", PCIe at %g GT/s, %.0f lanes", rate, lanes);
    if (cJSON_IsTrue(moe_json_get(link, "host_page_tables"))) fprintf(stdout, ", reads any host memory");
    if (node) fprintf(stdout, ", host memory of node %.0f", node->valuedouble);
    fputc('\n', stdout);
}

void moe_inspect_print_devices(const cJSON *j)
{
    char all[16], left[16];
    for (const cJSON *d = moe_json_get(j, "devices")->child; d; d = d->next) {
        const char *problem = word(d, "problem");
        moe_human_bytes((uint64_t)number(d, "memory_bytes"), all);
        moe_human_bytes((uint64_t)number(d, "free_bytes"), left);
        moe_print_line("GPU %.0f: %s, %s, %.0f multiprocessors, %s%s%s%s", number(d, "index"),
                       word(d, "name"), word(d, "arch"), number(d, "multiprocessors"), all,
                       *problem ? "" : " of which ", *problem ? "" : left, *problem ? "" : " are free");
        print_link(d);
        print_words("  weights can be loaded: ", moe_json_get(d, "load_paths"));
        fprintf(stdout, "  GPUDirect storage: %s\n", word(d, "gpudirect_storage"));
        print_words("  memory can be handed to another process: ", moe_json_get(d, "handles"));
        if (*problem) moe_print_line("  cannot be used: %s", problem);
    }
}

/* ---- two models ---- */

static void print_worst(const cJSON *worst)
{
    if (worst->child) fprintf(stdout, "the worst by relative error, and their largest single difference:\n");
    for (const cJSON *w = worst->child; w; w = w->next)
        moe_print_line("  %8.3g  %s  %.7g, %.7g in the second at row %.0f, column %.0f",
                       number(w, "relative_error"), word(w, "tensor"), number(w, "first"),
                       number(w, "second"), number(w, "row"), number(w, "column"));
}

/* Whether a line of "differences" concerns a tensor that was printed among the worst. */
static bool is_among(const cJSON *worst, const char *line)
{
    for (const cJSON *w = worst ? worst->child : NULL; w; w = w->next) {
        const char *name = word(w, "tensor");
        size_t n = strlen(name);
        if (!strncmp(line, name, n) && line[n] == ':') return true;
    }
    return false;
}

/* Prints the first `top` of a list of lines, without those for tensors of `worst`. */
static void print_lines(const cJSON *lines, const cJSON *worst, int64_t top)
{
    int64_t n = 0;
    for (const cJSON *d = lines->child; d; d = d->next)
        if (!is_among(worst, d->valuestring) && n++ < top) moe_print_line("%s", d->valuestring);
    if (n > top)
        fprintf(stdout, "and %lld more (--top N shows more, --json up to 1000)\n", (long long)(n - top));
}


void moe_inspect_print_diff(const char *first, const char *second, const cJSON *j, int64_t top)
{
    const cJSON *worst = cJSON_GetObjectItemCaseSensitive(j, "worst");
    moe_print_line(
        "of '%s' (the first) and '%s' (the second) %.0f tensors are the same, %.0f differ: %.0f only in the "
        "first, %.0f only in the second, %.0f in shape, %.0f in type, %.0f in what is stored",
        first, second, number(j, "tensors_same"), number(j, "tensors_different"),
        number(j, "tensors_only_first"), number(j, "tensors_only_second"), number(j, "tensors_shape"),
        number(j, "tensors_type"), number(j, "tensors_values"));
    if (number(j, "tensors_type") + number(j, "tensors_values") > 0)
        fprintf(stdout, "relative error of those compared by value: %.3g\n", number(j, "relative_error"));
    for (const cJSON *t = cJSON_GetObjectItemCaseSensitive(j, "types")->child; t; t = t->next)
        fprintf(stdout, "  %.0f tensors of %s, %s in the second: %.3g\n", number(t, "tensors"),
                word(t, "type"), word(t, "type_second"), number(t, "relative_error"));
    print_worst(worst);
    print_lines(cJSON_GetObjectItemCaseSensitive(j, "config"), NULL, INT64_MAX);
    print_lines(cJSON_GetObjectItemCaseSensitive(j, "differences"), worst,
                top - cJSON_GetArraySize(worst));
}

/* ---- tokens: printed one by one, because a JSON tree of them could be too large ---- */

void moe_inspect_print_ids(const int32_t *ids, const struct moe_token_counts *c, bool json)
{
    if (json) fprintf(stdout, "{\"tokens\": [");
    for (size_t i = 0; i < c->tokens; i++) fprintf(stdout, "%s%d", i ? json ? ", " : " " : "", ids[i]);
    if (!json) fprintf(stdout, "\n");
    if (json)
        fprintf(stdout, "], \"token_count\": %zu, \"bytes\": %zu, \"characters\": %zu, \"bytes_per_token\": ",
                c->tokens, c->bytes, c->characters);
    if (json && c->tokens) fprintf(stdout, "%.6g}\n", (double)c->bytes / (double)c->tokens);
    else if (json) fprintf(stdout, "null}\n");
}

void moe_inspect_print_pieces(const struct moe_tokenizer *t, const int32_t *ids,
                              const struct moe_token_counts *c)
{
    char room[MOE_TOKEN_ROOM];
    size_t len;
    for (size_t i = 0; i < c->tokens; i++) {
        const char *piece = moe_token_bytes(t, ids[i], room, &len);
        fprintf(stdout, "%8d  \"", ids[i]);
        if (piece) moe_show_print(stdout, piece, len, false);
        fprintf(stdout, "\"\n");
    }
    fprintf(stdout, "%zu token%s, %zu byte%s, %zu character%s", c->tokens, moe_plural((int64_t)c->tokens),
            c->bytes, moe_plural((int64_t)c->bytes), c->characters, moe_plural((int64_t)c->characters));
    if (c->tokens) fprintf(stdout, ", %.2f bytes a token", (double)c->bytes / (double)c->tokens);
    fprintf(stdout, "\n");
}
