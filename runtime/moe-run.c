/* moe-run - main() only: parse, call, report. */
#include "base/io.h"
#include "base/tool.h"
#include "runtime/bench-pass.h"
#include "runtime/bench.h"
#include "runtime/score.h"
#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct moe_run run;
    const char *prompt, *prompt_file, *tokens, *trace, *score, *reference, *eps, *mla, *device, *activations, *comm, *system, *scratch;
    struct moe_strlist stop;
    int64_t n, top_k, seed, context, window, ranks, memory;
    double temperature, top_p, min_p;
    bool chat, special, bos, ignore_eos, bench;
};

enum { TEXT_MAX = 1 << 30 };

/* ---- options ---- */

static enum moe_code check(const struct options *o, struct moe_engine_options *e, struct moe_err *err)
{
    if (o->run.argc != 1) return moe_fail(err, MOE_USAGE, "want one model, got %d operands", o->run.argc);
    if (strcmp(o->eps, "config") && strcmp(o->eps, "1e-6")) return moe_fail(err, MOE_USAGE, "unknown --mla-norm-eps '%s' (config or 1e-6)", o->eps);
    if (strcmp(o->mla, "absorbed") && strcmp(o->mla, "plain")) return moe_fail(err, MOE_USAGE, "unknown --mla '%s' (absorbed or plain)", o->mla);
    if (!strcmp(o->device, "cuda")) return moe_fail(err, MOE_UNSUPPORTED, "--device cuda is not in this version (cpu)");
    if (strcmp(o->device, "auto") && strcmp(o->device, "cpu")) return moe_fail(err, MOE_USAGE, "unknown --device '%s' (auto or cpu)", o->device);
    if (strcmp(o->activations, "float") && strcmp(o->activations, "nvfp4"))
        return moe_fail(err, MOE_USAGE, "unknown --activations '%s' (float or nvfp4)", o->activations);
    if (o->ranks != 1 || strcmp(o->comm, "local"))
        return moe_fail(err, MOE_UNSUPPORTED, "expert parallelism is not in this version (--ranks 1, --comm local)");
    if (o->temperature < 0) return moe_fail(err, MOE_USAGE, "--temperature %g is negative (0 is greedy)", o->temperature);
    if (!(o->top_p > 0 && o->top_p <= 1)) return moe_fail(err, MOE_USAGE, "--top-p %g: want above 0, at most 1", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1)) return moe_fail(err, MOE_USAGE, "--min-p %g: want 0 to 1", o->min_p);
    if (o->top_k < 0 || o->context < 0 || o->n < -1) return moe_fail(err, MOE_USAGE, "--top-k, --context and -n want no negative number");
    if (o->memory < 0) return moe_fail(err, MOE_USAGE, "--memory wants a size, such as 8G");
    if (o->scratch && !o->score) return moe_fail(err, MOE_USAGE, "--scratch goes with --score FILE");
    if (o->reference && !o->score) return moe_fail(err, MOE_USAGE, "--reference goes with --score FILE");
    *e = (struct moe_engine_options){ .context = o->context, .memory = (uint64_t)o->memory, .lora_eps = strcmp(o->eps, "config") ? 1e-6 : 0,
                                      .mla = strcmp(o->mla, "plain") ? MOE_MLA_ABSORBED : MOE_MLA_PLAIN,
                                      .activations = strcmp(o->activations, "nvfp4") ? MOE_ACTIVATIONS_FLOAT : MOE_ACTIVATIONS_NVFP4,
                                      .tokenizer = o->score || o->stop.n || (!o->tokens && !o->bench) };
    if (o->score) { /* a model, its reference, and the states of both */
        e->sharers = o->reference ? 3 : 2;
        e->most = o->window > 0 ? o->window : 2048;
    }
    return MOE_OK;
}

/* --activations nvfp4 on a model that has nothing to quantize, or nobody measured how large its activations are. */
static void warn_activations(const struct options *o, const struct moe_source *s)
{
    int64_t all = 0, uncalibrated = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const struct moe_tensor *t = &s->tensors[i];
        if (t->type != MOE_NVFP4) continue;
        all++;
        uncalibrated += t->plane[MOE_PLANE_INPUT].file < 0 || t->input_scale == 1;
    }
    if (!all) moe_warn(&o->run, "--activations nvfp4: no weight of the model is NVFP4, so activations stay float");
    if (uncalibrated)
        moe_warn(&o->run, "--activations nvfp4: %lld of %lld NVFP4 weights are uncalibrated (input scale 1.0): small activations lose precision",
                 (long long)uncalibrated, (long long)all);
}

/* ---- prompts ---- */

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

static enum moe_code prompt_text(const struct options *o, char **text, size_t *n, struct moe_err *err)
{
    if (o->prompt_file && strcmp(o->prompt_file, "-")) return moe_read_text(o->prompt_file, TEXT_MAX, text, n, err);
    if (o->prompt_file || !o->prompt) return read_stdin(text, n, err);
    *text = strdup(o->prompt);
    *n = *text ? strlen(*text) : 0;
    return *text ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the prompt");
}

static enum moe_code add_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    int64_t bos = e->model->config.bos_token_id;
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
static const char *system_turn(const struct options *o, const struct moe_engine *e)
{
    const struct moe_config *c = &e->model->config;
    if (o->system) return *o->system ? o->system : NULL;
    return !strcmp(c->model_type, "kimi_k2") && !strstr(c->architecture, "K25") ? MOE_CHAT_DEFAULT_SYSTEM : NULL;
}

/* The ids to begin with: --tokens, or text (as one chat turn under --chat). */
static enum moe_code prompt_ids(const struct options *o, const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    char *text = NULL;
    size_t bytes;
    *ids = NULL;
    *n = 0;
    if (o->tokens) {
        MOE_TRY(parse_tokens(o->tokens, ids, n, err));
        return o->bos ? add_bos(e, ids, n, err) : MOE_OK;
    }
    enum moe_code code = prompt_text(o, &text, &bytes, err);
    if (code == MOE_OK && o->chat && memchr(text, 0, bytes)) code = moe_fail(err, MOE_USAGE, "a turn of --chat cannot hold a NUL byte");
    if (code == MOE_OK && o->chat)
        code = moe_chat_encode(e->tokenizer, &(struct moe_message){ "user", text }, 1, system_turn(o, e), ids, n, err);
    else if (code == MOE_OK) code = moe_tokenize(e->tokenizer, text, bytes, o->special, ids, n, err);
    free(text);
    return code == MOE_OK && o->bos ? add_bos(e, ids, n, err) : code;
}

/* ---- generation ---- */

static void print_text(void *ctx, const char *s, size_t n)
{
    (void)ctx;
    fwrite(s, 1, n, stdout);
    fflush(stdout);
}

static struct moe_generate settings(const struct options *o)
{
    return (struct moe_generate){
        .max_tokens = o->n, .sampler = { o->temperature, o->top_p, o->min_p, o->top_k }, .seed = (uint64_t)o->seed,
        .stop = o->stop.v, .n_stop = o->stop.n, .ignore_eos = o->ignore_eos, .keep_special = o->special,
        .text = o->run.json ? NULL : print_text,
    };
}

static void add_memory(cJSON *json, uint64_t before)
{
    uint64_t now = moe_peak_anonymous();
    moe_json_add_i64(json, "peak_rss", (int64_t)moe_peak_rss());
    moe_json_add_i64(json, "peak_anonymous", (int64_t)(now > before ? now : before));
}

static double rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static void report(const struct options *o, cJSON *json, const struct moe_generated *g, int64_t prompt, const double seconds[3])
{
    cJSON *tokens, *s;
    char peak[16];
    moe_json_add_text(json, "text", g->text ? g->text : "", g->text ? g->text_bytes : 0);
    tokens = cJSON_AddArrayToObject(json, "tokens");
    for (int64_t i = 0; tokens && i < g->n; i++) cJSON_AddItemToArray(tokens, cJSON_CreateNumber(g->tokens[i]));
    moe_json_add_i64(json, "prompt_tokens", prompt);
    if ((s = cJSON_AddObjectToObject(json, "seconds"))) {
        cJSON_AddNumberToObject(s, "load", seconds[0]);
        cJSON_AddNumberToObject(s, "prefill", seconds[1]);
        cJSON_AddNumberToObject(s, "decode", seconds[2]);
    }
    double decoded = (double)(g->n > 0 ? g->n - 1 : 0);
    cJSON_AddNumberToObject(json, "prefill_tokens_per_second", rate((double)prompt, seconds[1]));
    cJSON_AddNumberToObject(json, "decode_tokens_per_second", rate(decoded, seconds[2]));
    add_memory(json, 0);
    cJSON_AddStringToObject(json, "finish_reason", g->finish == MOE_FINISH_STOP ? "stop" : "length");
    if (!o->run.json && g->n) print_text(NULL, "\n", 1);
    moe_notice(&o->run, "%lld + %lld tokens (%s); load %.2f s, prefill %.1f tokens/s, decode %.1f tokens/s; peak %s", (long long)prompt,
               (long long)g->n, g->finish == MOE_FINISH_STOP ? "stop" : "length", seconds[0], rate((double)prompt, seconds[1]),
               rate(decoded, seconds[2]), moe_human_bytes(moe_peak_rss(), peak));
}

static enum moe_code generate(const struct options *o, struct moe_engine *e, double loaded, cJSON *json, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    struct moe_generate set = settings(o);
    struct moe_generated g = { 0 };
    enum moe_code code = prompt_ids(o, e, &ids, &n, err);
    double t0 = moe_now(), t1 = t0;
    if (code == MOE_OK) code = o->trace ? moe_trace(e, ids, (int64_t)n, o->trace, err) : moe_engine_prefill(e, ids, (int64_t)n, NULL, err);
    t1 = moe_now();
    if (code == MOE_OK) code = moe_engine_generate(e, &set, &g, err);
    const double seconds[3] = { loaded, t1 - t0, moe_now() - t1 };
    if (code == MOE_OK) report(o, json, &g, (int64_t)n, seconds);
    free(g.tokens);
    free(g.text);
    free(ids);
    return code;
}

/* ---- chat on a terminal: turns until the end of input ---- */

static enum moe_code one_turn(const struct options *o, struct moe_engine *e, struct moe_message *m, size_t *n, struct moe_err *err)
{
    int32_t *ids = NULL;
    size_t n_ids;
    struct moe_generate set = settings(o);
    struct moe_generated g = { 0 };
    enum moe_code code = moe_chat_encode(e->tokenizer, m, *n, system_turn(o, e), &ids, &n_ids, err);
    if (code == MOE_OK) code = moe_engine_prefill(e, ids, (int64_t)n_ids, NULL, err);
    if (code == MOE_OK) code = moe_engine_generate(e, &set, &g, err);
    free(ids);
    free(g.tokens);
    if (code != MOE_OK) {
        free(g.text);
        return code;
    }
    fputc('\n', stdout);
    m[(*n)++] = (struct moe_message){ "assistant", g.text };
    return MOE_OK;
}

static enum moe_code chat(const struct options *o, struct moe_engine *e, struct moe_err *err)
{
    struct moe_message *m = NULL;
    size_t n = 0, cap = 0;
    char *line = NULL;
    enum moe_code code = MOE_OK;
    moe_notice(&o->run, "chat: one line is one turn; end with control-D");
    for (;;) {
        size_t room = 0;
        fputs("> ", stderr);
        ssize_t got = getline(&line, &room, stdin);
        if (got <= 0 || code != MOE_OK) break;
        line[strcspn(line, "\n")] = 0;
        if (n + 2 > cap) {
            struct moe_message *more = realloc(m, (cap + 16) * sizeof *m);
            if (!more) {
                code = moe_fail(err, MOE_NOMEM, "no memory for the conversation");
                break;
            }
            m = more;
            cap += 16;
        }
        m[n++] = (struct moe_message){ "user", line };
        line = NULL;
        code = one_turn(o, e, m, &n, err);
        if (code != MOE_OK) break;
    }
    for (size_t i = 0; i < n; i++) free((char *)(uintptr_t)m[i].content);
    free(m);
    free(line);
    return code;
}

/* ---- score ---- */

static enum moe_code read_ids(const struct options *o, const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    char *text;
    size_t bytes;
    MOE_TRY(moe_read_text(o->score, TEXT_MAX, &text, &bytes, err));
    enum moe_code code = moe_tokenize(e->tokenizer, text, bytes, o->special, ids, n, err);
    free(text);
    return code == MOE_OK && o->bos ? add_bos(e, ids, n, err) : code;
}

static enum moe_code score(const struct options *o, struct moe_engine *e, const struct moe_engine_options *eo, cJSON *json, struct moe_err *err)
{
    struct moe_engine *ref = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    struct moe_score s;
    int64_t window = o->window ? o->window : e->context < 2048 ? e->context : 2048;
    struct moe_engine_options bare = *eo;
    bare.tokenizer = false; /* the text becomes ids by the model's own */
    bare.activations = MOE_ACTIVATIONS_FLOAT; /* a reference is what the model is held against */
    enum moe_code code = o->reference ? moe_engine_open(&ref, o->reference, &bare, o->run.pool, err) : MOE_OK;
    if (code == MOE_OK) code = read_ids(o, e, &ids, &n, err);
    struct moe_score_text t = { .ids = ids, .n = (int64_t)n, .window = window, .memory = (uint64_t)o->memory, .scratch = o->scratch };
    if (code == MOE_OK) code = moe_score_text(e, ref, &t, o->run.pool, o->run.progress, &s, err);
    free(ids);
    moe_engine_close(&ref);
    MOE_TRY(code);
    double seconds = moe_now() - o->run.start;
    moe_json_add_i64(json, "tokens", s.tokens);
    cJSON_AddNumberToObject(json, "nll", s.nll);
    cJSON_AddNumberToObject(json, "perplexity", s.perplexity);
    if (o->reference) {
        cJSON_AddNumberToObject(json, "kl", s.kl);
        cJSON_AddNumberToObject(json, "kl_p50", s.kl_p50);
        cJSON_AddNumberToObject(json, "kl_p99", s.kl_p99);
        cJSON_AddNumberToObject(json, "kl_max", s.kl_max);
        cJSON_AddNumberToObject(json, "top1_agreement", s.top1_agreement);
        cJSON_AddNumberToObject(json, "perplexity_reference", s.perplexity_reference);
        cJSON_AddNumberToObject(json, "perplexity_ratio", s.perplexity_ratio);
    }
    cJSON_AddNumberToObject(json, "seconds", seconds);
    add_memory(json, s.anonymous);
    if (o->run.json) return MOE_OK;
    printf("perplexity %.4f (nll %.5f nats, %lld tokens, window %lld)\n", s.perplexity, s.nll, (long long)s.tokens, (long long)window);
    if (o->reference)
        printf("reference  %.4f\nKL(reference || model) %.5f nats: median %.5f, 99%% %.4f, largest %.3f; same first choice %.2f%%\n",
               s.perplexity_reference, s.kl, s.kl_p50, s.kl_p99, s.kl_max, 100 * s.top1_agreement);
    return MOE_OK;
}

static enum moe_code bench(const struct options *o, struct moe_engine *e, const struct moe_engine_options *eo, cJSON *json, struct moe_err *err)
{
    cJSON *list = moe_bench_model(e, o->run.pool);
    if (!list) return moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    cJSON_AddItemToObject(json, "bench", list);
    MOE_TRY(moe_bench_pass(list, o->run.argv[0], eo, o->run.pool, err));
    for (const cJSON *r = list->child; r && !o->run.json; r = r->next) {
        const cJSON *share = moe_json_get(r, "share_of_peak");
        printf("%-12s %-26s %9.1f us %8.2f GB/s %9.2f GFLOPS", moe_json_get(r, "op")->valuestring, moe_json_get(r, "shape")->valuestring,
               1e6 * moe_json_get(r, "seconds")->valuedouble, moe_json_get(r, "gbytes_per_second")->valuedouble,
               moe_json_get(r, "gflops")->valuedouble);
        if (share) printf(" %5.1f %%", 100 * share->valuedouble);
        putchar('\n');
    }
    return MOE_OK;
}

static enum moe_code run(const struct options *o, cJSON *json, struct moe_err *err)
{
    struct moe_engine_options eo;
    struct moe_engine *e;
    MOE_TRY(check(o, &eo, err));
    MOE_TRY(moe_engine_open(&e, o->run.argv[0], &eo, o->run.pool, err));
    double loaded = moe_now() - o->run.start;
    if (eo.activations == MOE_ACTIVATIONS_NVFP4) warn_activations(o, e->source);
    bool turns = o->chat && !o->prompt && !o->prompt_file && !o->run.json && isatty(STDIN_FILENO);
    enum moe_code code = o->bench ? bench(o, e, &eo, json, err) : o->score ? score(o, e, &eo, json, err)
                       : turns ? chat(o, e, err) : generate(o, e, loaded, json, err);
    moe_engine_close(&e);
    return code;
}

int main(int argc, char **argv)
{
    struct options o = { .n = -1, .top_p = 1, .ranks = 1, .eps = "config", .mla = "absorbed", .device = "auto", .activations = "float", .comm = "local" };
    const struct moe_opt opts[] = {
        MOE_GROUP("prompt"),
        MOE_STR('p', "prompt", &o.prompt, "TEXT", "go on from this text; standard input when there is no other prompt"),
        MOE_STR(0, "prompt-file", &o.prompt_file, "FILE", "go on from this file (may be gzipped; - is standard input)"),
        MOE_BOOL(0, "chat", &o.chat, "the prompt is a user's turn; on a terminal without a prompt: talk"),
        MOE_STR(0, "system", &o.system, "TEXT", "the system turn of a chat; K2's own by default, none when empty"),
        MOE_STR(0, "tokens", &o.tokens, "IDS", "go on from these token ids: 1,2,3"),
        MOE_BOOL(0, "special", &o.special, "special tokens in text are tokens, and are printed"),
        MOE_BOOL(0, "bos", &o.bos, "begin with the model's BOS token"),
        MOE_GROUP("generation"),
        MOE_INT('n', "n-predict", &o.n, "N", "tokens to generate; 0 computes the prompt only, -1 goes on until the end"),
        MOE_FLOAT(0, "temperature", &o.temperature, "T", "0 takes the likeliest token"),
        MOE_FLOAT(0, "top-p", &o.top_p, "P", "keep the likeliest tokens that reach this probability"),
        MOE_INT(0, "top-k", &o.top_k, "K", "keep this many tokens; 0 keeps all"),
        MOE_FLOAT(0, "min-p", &o.min_p, "P", "drop tokens below this share of the likeliest"),
        MOE_INT(0, "seed", &o.seed, "N", "of the random numbers"),
        MOE_LIST(0, "stop", &o.stop, "TEXT", "end before this text"),
        MOE_BOOL(0, "ignore-eos", &o.ignore_eos, "go on after an end token"),
        MOE_GROUP("measuring"),
        MOE_STR(0, "score", &o.score, "FILE", "perplexity of a text"),
        MOE_INT(0, "window", &o.window, "N", "tokens in a window of --score; the smaller of 2048 and the context by default"),
        MOE_STR(0, "reference", &o.reference, "MODEL", "with --score: KL divergence from this model"),
        MOE_STR(0, "scratch", &o.scratch, "DIR", "with --score: where hidden states go that --memory does not hold"),
        MOE_STR(0, "trace", &o.trace, "FILE", "write logits, hidden states and expert choices for the prompt"),
        MOE_BOOL(0, "bench", &o.bench, "time the model's matrix products against floors measured in the same run"),
        MOE_GROUP("model"),
        MOE_INT('c', "context", &o.context, "N", "positions to hold; by default the model's maximum, or what --memory holds"),
        MOE_SIZE(0, "memory", &o.memory, "SIZE", "bytes to hold besides the model's files; what the machine has available by default"),
        MOE_STR(0, "mla-norm-eps", &o.eps, "config|1e-6", "epsilon of the q_a and kv_a norms: the config's, as engines do, or Hugging Face's"),
        MOE_STR(0, "mla", &o.mla, "absorbed|plain", "form of the attention; they differ in rounding only"),
        MOE_STR(0, "device", &o.device, "auto|cpu", "where to compute"),
        MOE_STR(0, "activations", &o.activations, "float|nvfp4", "nvfp4: the inputs of NVFP4 weights as a GPU's tensor cores would see them (W4A4)"),
        MOE_INT(0, "ranks", &o.ranks, "N", "expert-parallel ranks; 1 in this version"),
        MOE_STR(0, "comm", &o.comm, "local", "how ranks talk"),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    const struct moe_tool tool = {
        .name = "moe-run", .synopsis = "[options] MODEL",
        .about = "run a checkpoint or container: generate text, score it, trace it", .opts = opts,
        .json =
            "text, tokens, prompt_tokens, seconds (load, prefill, decode), prefill_tokens_per_second, decode_tokens_per_second, peak_rss, "
            "peak_anonymous, finish_reason (stop or length).\n\n"
            "With --score: tokens (positions scored), nll, perplexity, seconds, peak_rss, peak_anonymous; with --reference also kl (the mean over "
            "positions of KL(reference || model) in nats), kl_p50, kl_p99, kl_max, top1_agreement, perplexity_reference, perplexity_ratio.\n\n"
            "With --bench: bench, an array of op, shape, seconds, gbytes_per_second, gflops, share_of_peak.",
        .examples = "moe-run model.moe --prompt 'The capital of France is' -n 20\nmoe-run model.moe --chat\n"
                    "moe-run quantized.moe --score text.txt --reference model.moe --json",
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(&o, json, &o.run.err) : moe_fail(&o.run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o.run, code, json);
}
