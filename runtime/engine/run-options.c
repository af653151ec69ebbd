/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-options.h"

#include "base/env.h"
#include "base/cli/output.h"
#include "formats/routing.h"
#include "runtime/comm/comm.h"
#include "runtime/engine/run-man.h"
#include "runtime/engine/score.h"
#include "runtime/engine/trace.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the table ---- */

struct moe_run_args moe_run_asked = {
    .n = -1,
    .top_p = 1,
    .window = MOE_UNSET,
    .batch_tokens = MOE_UNSET,
    .cache = MOE_UNSET,
    .max_sequences = MOE_UNSET,
    .ranks = MOE_UNSET,
    .rank = MOE_UNSET,
    .rank_timeout = 30,
    .split = "best",
    .eps = "config",
    .mla = "absorbed",
    .device = "auto",
    .load_from = "auto",
    .arithmetic = "exact",
    .cache_type = "float32",
    .activations = "float",
    .comm = "local",
};

static const struct moe_opt opts[] = {
    MOE_GROUP("prompt"),
    MOE_EXCLUSIVE('p', "prompt", &moe_run_asked.prompt.text, "TEXT",
            "go on from this text; standard input when there is no other prompt. Of --prompt, "
            "--prompt-file, --prompts, --messages and --tokens the last one given counts"),
    MOE_EXCLUSIVE_INPUT(0, "prompt-file", &moe_run_asked.prompt.file, "FILE",
                  "go on from this file (may be gzipped; - is standard input)"),
    MOE_EXCLUSIVE_INPUT(
        0, "prompts", &moe_run_asked.prompts, "FILE",
        "every line is a prompt of its own, as text or as a request in JSON (may be gzipped; - is "
        "standard input); they run together"),
    MOE_EXCLUSIVE_INPUT(
        0, "messages", &moe_run_asked.messages, "FILE",
        "answer this conversation: a request of OpenAI's chat API as JSON, or its list of messages (may be "
        "gzipped; - is standard input)"),
    MOE_BOOL(0, "chat", &moe_run_asked.prompt.chat,
             "the prompt is a user's turn; on a terminal and without a prompt: a conversation, in which "
             "/help lists commands"),
    MOE_STR(0, "system", &moe_run_asked.prompt.system, "TEXT",
            "the system turn of a chat; the template's own by default, none when empty"),
    MOE_STR(0, "chat-template", &moe_run_asked.prompt.chat_template, "NAME",
            "a built-in chat template instead of the model's: k2-first, k2-instruct, k2-thinking, k2.5, "
            "k2.6, k2.7-code, deepseek-v3 or deepseek-v3-first"),
    MOE_EXCLUSIVE(0, "tokens", &moe_run_asked.prompt.tokens, "IDS", "go on from these token ids: 1,2,3"),
    MOE_BOOL(0, "special", &moe_run_asked.prompt.special,
             "special tokens in text are tokens, and are printed"),
    MOE_BOOL(0, "bos", &moe_run_asked.prompt.bos, "begin with the model's BOS token"),
    MOE_GROUP("generation"),
    MOE_INT('n', "n-predict", &moe_run_asked.n, "N",
            "tokens to generate; 0 computes the prompt only, -1 goes on until the end"),
    MOE_FLOAT(0, "temperature", &moe_run_asked.temperature, "T", "0 takes the likeliest token"),
    MOE_FLOAT(0, "top-p", &moe_run_asked.top_p, "P", "keep the likeliest tokens that reach this probability"),
    MOE_INT(0, "top-k", &moe_run_asked.top_k, "K", "keep this many tokens; 0 keeps all"),
    MOE_FLOAT(0, "min-p", &moe_run_asked.min_p, "P", "drop tokens below this share of the likeliest"),
    MOE_INT(0, "seed", &moe_run_asked.seed, "N",
            "seed of the sampler: the same seed and options give the same text; of use with "
            "--temperature"),
    MOE_LIST(0, "stop", &moe_run_asked.stop, "TEXT", "end before this text"),
    MOE_BOOL(0, "ignore-eos", &moe_run_asked.ignore_eos, "go on after an end token"),
    MOE_OWN_BOOL(0, "jsonl", &moe_run_asked.jsonl,
                 "with --prompts: print each answer as a line of JSON when it has ended (with several "
                 "ranks: when all have)"),
    MOE_GROUP("measuring"),
    MOE_INPUT(0, "score", &moe_run_asked.score, "FILE",
              "perplexity of this text (may be gzipped; - is standard input)"),
    MOE_INT(0, "window", &moe_run_asked.window, "N",
            "with --score: cut the text into windows of N tokens, each read without the text before it; "
            "the smaller of 2048 and the context by default"),
    MOE_FILE(0, "reference", &moe_run_asked.reference, "MODEL",
             "with --score: KL divergence from this model"),
    MOE_OWN_STR(0, "scratch", &moe_run_asked.scratch, "DIR",
                "with --score: where hidden states go that --memory does not hold"),
    MOE_FILE(0, "trace", &moe_run_asked.trace, "FILE",
             "write logits, hidden states and expert choices for the prompt"),
    MOE_BOOL(0, "bench", &moe_run_asked.bench,
             "time the model's matrix products against floors measured in the same run"),
    MOE_GROUP("model"),
    MOE_INT('c', "context", &moe_run_asked.context, "N",
            "positions to hold; by default the model's maximum, or what --memory holds"),
    MOE_OWN_SIZE(0, "memory", &moe_run_asked.memory, "SIZE",
                 "hold at most this beside the mapped files of the model, whose pages the system takes "
                 "back when others need memory (peak_anonymous in JSON is held to it, peak_rss counts "
                 "the pages too); what the machine has available by default"),
    MOE_INT(0, "batch-tokens", &moe_run_asked.batch_tokens, "N",
            "compute at most N tokens in a pass; by default as many as are of use, up to 1024 (256 with "
            "several ranks)"),
    MOE_OWN_SIZE(0, "cache", &moe_run_asked.cache, "SIZE",
                 "with --prompts: bytes of the cache that the sequences share; with several ranks each has "
                 "one of this size; what --memory leaves by default"),
    MOE_OWN_INT(0, "max-sequences", &moe_run_asked.max_sequences, "N",
                "with --prompts: work on at most N sequences at once; by default as many as memory holds"),
    MOE_STR(0, "mla-norm-eps", &moe_run_asked.eps, "config|1e-6",
            "epsilon of the two norms inside attention (q_a and kv_a): config takes rms_norm_eps, as "
            "vLLM, SGLang and llama.cpp do; 1e-6 is what Hugging Face's code does whatever the config "
            "says"),
    MOE_STR(0, "mla", &moe_run_asked.mla, "absorbed|plain",
            "how attention reads its cache: absorbed computes on the compressed latents; plain expands "
            "them to keys and values first, to check the other; they differ in rounding only"),
    MOE_OWN_STR(0, "device", &moe_run_asked.device, "auto|cpu|cuda[:N]",
                "where to compute: cuda is one NVIDIA GPU (Hopper or later), whose memory must hold the "
                "model; N is its number, 0 by default. auto takes the processor, and JSON says why"),
    MOE_OWN_STR(0, "load-from", &moe_run_asked.load_from, "auto|direct|cached|mapped",
                "with --device cuda: how the model comes onto the GPU: past the system's cache of files, "
                "or through it; auto looks whether it is in the cache. mapped: a GPU that "
                "shares the host's page tables (Grace) reads the files where they lie, without a copy"),
    MOE_OWN_STR(0, "keep", &moe_run_asked.keep, "SOCKET",
                "with --device cuda, and without a prompt: load the model and keep it in the GPU's memory "
                "until SIGINT or SIGTERM, for engines that start with --attach SOCKET"),
    MOE_OWN_STR(0, "attach", &moe_run_asked.attach, "SOCKET",
                "with --device cuda: use the weights that moe-run --keep SOCKET keeps on the GPU, and read "
                "none"),
    MOE_STR(0, "arithmetic", &moe_run_asked.arithmetic, "exact|fast",
            "exact: a GPU gives the bits that the processor gives; fast: products and attention run on "
            "tensor cores, take less work and round otherwise (--device cuda)"),
    MOE_STR(0, "cache-type", &moe_run_asked.cache_type, "float32|bf16",
            "what attention keeps of each token; bf16, with --arithmetic fast, rounds it, and takes half of "
            "the memory"),
    MOE_STR(0, "activations", &moe_run_asked.activations,
            "float|int16|nvfp4|nvfp4-four-over-six|nvfp4-search",
            "what NVFP4 weights are multiplied with: float32 values; int16: 16-bit integers, faster for "
            "prompts; nvfp4: values rounded to 4 bits, as FP4 tensor cores take them (W4A4), to see what "
            "a GPU would answer; nvfp4-four-over-six and nvfp4-search: the same with the best of two or "
            "six scales a block"),
    MOE_FILE(0, "record-routing", &moe_run_asked.record, "FILE",
             "write how many tokens went to each expert: routing.json, gzipped, for moe-plan"),
    MOE_GROUP("expert parallelism"),
    MOE_OWN_INT(0, "ranks", &moe_run_asked.ranks, "N",
                "share the routed experts out over N ranks (expert parallelism); those of --plan, or 1, "
                "by default"),
    MOE_FILE(0, "plan", &moe_run_asked.plan, "PLAN",
             "which rank holds which experts: a plan.json of moe-plan, or a placement as SGLang or "
             "TensorRT-LLM read it; without it the ranks get equal runs of experts in order"),
    MOE_FILE(0, "replan", &moe_run_asked.replan, "PLAN",
             "move the experts to this other placement while running, a layer at a time, without a "
             "pause"),
    MOE_INT(0, "replan-after", &moe_run_asked.replan_after, "N",
            "with --replan: begin to move once a rank has computed N layers, counted over all passes"),
    MOE_STR(0, "comm", &moe_run_asked.comm, "local|ucx",
            "how ranks talk; local: they are threads, ucx: processes, started here unless they meet at "
            "--rendezvous"),
    MOE_OWN_INT(0, "rank", &moe_run_asked.rank, "R",
                "with --rendezvous: the number of this process, 0 to ranks - 1, when it was started by "
                "hand; mpirun and srun tell it by their environment"),
    MOE_OWN_STR(0, "rendezvous", &moe_run_asked.rendezvous, "HOST:PORT",
                "where rank 0 listens for the others, at that address and no other; :PORT is this host's "
                "loopback"),
    MOE_OWN_STR(0, "secret-file", &moe_run_asked.secret, "FILE",
                "a secret of 16 bytes or more that ranks must know (chmod 600)"),
    MOE_STR(0, "split", &moe_run_asked.split, "best|equal",
            "which copy of an expert computes which tokens, where the plan has several: best: so that "
            "the fullest rank has least to do; equal: the same number each"),
    MOE_OWN_FLOAT(0, "rank-timeout", &moe_run_asked.rank_timeout, "S",
                  "seconds without a sign of life after which a rank is given up"),
    MOE_COMMON_OPTIONS(&moe_run_asked.run),
    MOE_END(),
};

/* Which options exclude each other (true), and which need one of others (false).  --score and --bench are
 * tasks of their own, which read no prompt. */
static const struct moe_opt_rule rules[] = {
    { "bench", "score prompt prompt-file prompts messages tokens chat trace record-routing", true },
    { "score", "prompt prompt-file prompts messages tokens chat trace", true },
    { "prompts", "trace", true },
    { "jsonl", "prompts", false },
    { "jsonl", "json", true },
    { "cache", "prompts", false },
    { "max-sequences", "prompts", false },
    { "batch-tokens", "bench", true },
    { "chat", "tokens messages", true },
    { "record-routing", "trace", true },
    { "window", "score", false },
    { "reference", "score", false },
    { "scratch", "score", false },
    { "temperature", "score bench", true },
    { "top-p", "score bench", true },
    { "top-k", "score bench", true },
    { "min-p", "score bench", true },
    { "seed", "score bench", true },
    { "stop", "score bench", true },
    { "ignore-eos", "score bench", true },
    { "top-p", "temperature", false },
    { "top-k", "temperature", false },
    { "min-p", "temperature", false },
    { "seed", "temperature", false },
    { "replan-after", "replan", false },
    { "keep", "attach prompt prompt-file prompts messages tokens chat", true },
    { "keep", "score bench trace record-routing", true },
    { "keep", "n-predict temperature stop ignore-eos context batch-tokens memory", true },
    { "keep", "arithmetic cache-type activations mla mla-norm-eps special bos", true },
    { "attach", "load-from reference", true },
    { "split", "ranks plan rendezvous", false },
    { "rank-timeout", "ranks plan rendezvous", false },
    { NULL, NULL, false },
};

const struct moe_tool moe_run_tool = {
    .name = "moe-run",
    .synopsis = "[options] MODEL",
    .about = "run a checkpoint or container: generate text, score it, trace it",
    .opts = opts,
    .rules = rules,
    .description = moe_run_description,
    .json = moe_run_json,
    .examples = moe_run_examples,
};

/* ---- the checks ---- */

/* Checks the port of HOST:PORT; the rest is checked when the socket is opened (runtime/comm/socket.c). */
static enum moe_code check_port(const char *where, struct moe_err *err)
{
    const char *colon = strrchr(where, ':');
    char *end;
    if (!strncmp(where, "unix:", 5) || !colon) return MOE_OK;
    long port = strtol(colon + 1, &end, 10);
    if (colon[1] >= '0' && colon[1] <= '9' && !*end && port >= 1 && port <= 65535) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--rendezvous '%s': the port is not a number from 1 to 65535", where);
}

/* Sets *v to the number in the first of these environment variables that is set; if none is, *v stays. */
static enum moe_code launched(const char *const names[], int min, int max, int64_t *v, struct moe_err *err)
{
    for (; *names; names++) {
        const char *text = moe_env(*names);
        char *end;
        if (!text) continue;
        long n = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || n < min || n > max)
            return moe_fail(err, MOE_USAGE, "%s='%s' in the environment: want a number from %d to %d", *names,
                            text, min, max);
        *v = n;
        return MOE_OK;
    }
    return MOE_OK;
}

enum moe_code moe_run_args_meet(struct moe_run_args *o, struct moe_err *err)
{
    static const char *const rank[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID",
                                        NULL };
    static const char *const ranks[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", NULL };
    if (!strcmp(o->comm, "nccl"))
        return moe_fail(err, MOE_UNSUPPORTED, "--comm nccl is not in this version (local or ucx)");
    if (strcmp(o->comm, "local") && strcmp(o->comm, "ucx"))
        return moe_fail(err, MOE_USAGE, "unknown --comm '%s' (local or ucx)", o->comm);
    if (strcmp(o->comm, "ucx") && (o->rendezvous || o->rank != MOE_UNSET))
        return moe_fail(err, MOE_USAGE, "--rank and --rendezvous go with --comm ucx");
    if (strcmp(o->comm, "ucx") && o->secret)
        return moe_fail(err, MOE_USAGE, "--secret-file goes with --comm ucx");
    if (o->rendezvous) MOE_TRY(check_port(o->rendezvous, err));
    if (o->rank != MOE_UNSET && !o->rendezvous)
        return moe_fail(err, MOE_USAGE, "--rank wants --rendezvous, where the ranks meet");
    const int max_ranks = MOE_COMM_RANKS_MAX;
    if (o->rendezvous && o->rank == MOE_UNSET) MOE_TRY(launched(rank, 0, max_ranks - 1, &o->rank, err));
    if (o->rendezvous && o->ranks == MOE_UNSET) MOE_TRY(launched(ranks, 1, max_ranks, &o->ranks, err));
    if (o->ranks != MOE_UNSET && (o->ranks < 1 || o->ranks > MOE_COMM_RANKS_MAX))
        return moe_fail(err, MOE_USAGE, "--ranks %lld: want 1 to %d", (long long)o->ranks,
                        MOE_COMM_RANKS_MAX);
    return MOE_OK;
}

static enum moe_code check_ranks(const struct moe_run_args *o, struct moe_err *err)
{
    if (o->replan_after < 0) return moe_fail(err, MOE_USAGE, "--replan-after wants a number of layers");
    if (o->replan && !o->plan && o->ranks == MOE_UNSET)
        return moe_fail(err, MOE_USAGE, "--replan wants several ranks (give --ranks N or --plan PLAN)");
    if (o->replan && o->ranks == 1) return moe_fail(err, MOE_USAGE, "--replan wants several ranks");
    if (strcmp(o->split, "best") && strcmp(o->split, "equal"))
        return moe_fail(err, MOE_USAGE, "unknown --split '%s' (best or equal)", o->split);
    if (!(o->rank_timeout >= 0.1 && o->rank_timeout <= 86400))
        return moe_fail(err, MOE_USAGE, "--rank-timeout %g: want 0.1 to 86400 seconds", o->rank_timeout);
    return MOE_OK;
}

/* Checks that --system and --chat-template come with a chat: with --chat, with --messages, or with --prompts,
 * whose lines may be conversations without it. */
static enum moe_code check_chat(const struct moe_run_args *o, struct moe_err *err)
{
    const struct moe_prompt *p = &o->prompt;
    if (p->chat || o->prompts || o->messages || (!p->system && !p->chat_template)) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "%s goes with --chat, --messages, or with conversations in --prompts",
                    p->system ? "--system" : "--chat-template");
}

/* Checks that every rank can read an input file: where ranks are processes, each opens it for itself, so it
 * may not be standard input or a pipe. */
static enum moe_code check_shared_input(const struct moe_run_args *o, const char *option, const char *path,
                                        struct moe_err *err)
{
    struct stat st;
    if (!path || !strcmp(o->comm, "local")) return MOE_OK;
    bool standard = !strcmp(path, "-");
    if (!standard && (stat(path, &st) || !S_ISFIFO(st.st_mode))) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "--%s %s: with --comm %s every rank reads the file, and %s can be read by one "
                    "process alone (put it into a file, or leave --comm out)", option, path, o->comm,
                    standard ? "standard input" : "a pipe");
}

static enum moe_code check_output(const struct moe_run_args *o, const char *path,
                                  const struct moe_file_kind *kind, struct moe_err *err)
{
    return moe_output_check(&o->run, &(struct moe_output){ .path = path, .replace = true, .kind = kind },
                            err);
}

/* Checks --mla-norm-eps, --mla, --arithmetic and --activations. */
static enum moe_code check_arithmetic(const struct moe_run_args *o, struct moe_err *err)
{
    if (strcmp(o->eps, "config") && strcmp(o->eps, "1e-6"))
        return moe_fail(err, MOE_USAGE, "unknown --mla-norm-eps '%s' (config or 1e-6)", o->eps);
    if (strcmp(o->mla, "absorbed") && strcmp(o->mla, "plain"))
        return moe_fail(err, MOE_USAGE, "unknown --mla '%s' (absorbed or plain)", o->mla);
    if (strcmp(o->arithmetic, "exact") && strcmp(o->arithmetic, "fast"))
        return moe_fail(err, MOE_USAGE, "unknown --arithmetic '%s' (exact or fast)", o->arithmetic);
    if (strcmp(o->cache_type, "float32") && strcmp(o->cache_type, "bf16"))
        return moe_fail(err, MOE_USAGE, "unknown --cache-type '%s' (float32 or bf16)", o->cache_type);
    int activations = moe_activations_find(o->activations);
    if (activations < 0 || activations == MOE_ACTIVATIONS_NVFP4_ALL)
        return moe_fail(
            err, MOE_USAGE,
            "unknown --activations '%s' (float, int16, nvfp4, nvfp4-four-over-six or nvfp4-search)",
            o->activations);
    return MOE_OK;
}

/* Whether --device names a GPU; *gpu is its number then. */
static bool is_gpu(const char *device, int *gpu)
{
    char *end;
    *gpu = 0;
    if (!strcmp(device, "cuda")) return true;
    if (strncmp(device, "cuda:", 5) || device[5] < '0' || device[5] > '9') return false;
    long n = strtol(device + 5, &end, 10);
    if (*end || n > INT_MAX) return false;
    *gpu = (int)n;
    return true;
}

/* Checks --cache-type, whose value is known. */
static enum moe_code check_cache_type(const struct moe_run_args *o, struct moe_err *err)
{
    if (!strcmp(o->cache_type, "float32")) return MOE_OK;
    if (strcmp(o->arithmetic, "fast"))
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--cache-type bf16 goes with --arithmetic fast (--device cuda)");
    if (!strncmp(o->activations, "nvfp4", 5))
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--cache-type bf16 goes with --activations float: NVFP4 would round latents again");
    return MOE_OK;
}

/* Checks --device, and that the other options ask for nothing that a GPU does not do. */
static enum moe_code check_device(const struct moe_run_args *o, struct moe_err *err)
{
    enum moe_load_path path;
    int gpu;
    if (!moe_load_path_parse(o->load_from, &path))
        return moe_fail(err, MOE_USAGE, "unknown --load-from '%s' (auto, direct, cached or mapped)",
                        o->load_from);
    if (!is_gpu(o->device, &gpu)) {
        if (!strcmp(o->arithmetic, "fast"))
            return moe_fail(err, MOE_UNSUPPORTED,
                            "--arithmetic fast is computed by a GPU alone (--device cuda)");
        if (o->keep || o->attach)
            return moe_fail(err, MOE_UNSUPPORTED, "--%s is about the memory of a GPU (--device cuda)",
                            o->keep ? "keep" : "attach");
        if (path != MOE_LOAD_AUTO) return moe_fail(err, MOE_USAGE, "--load-from goes with --device cuda");
        if (!strcmp(o->device, "auto") || !strcmp(o->device, "cpu")) return MOE_OK;
        return moe_fail(err, MOE_USAGE, "unknown --device '%s' (auto, cpu, cuda or cuda:N)", o->device);
    }
    if (o->bench)
        return moe_fail(err, MOE_UNSUPPORTED, "--bench times the processor: not with --device cuda");
    if (o->rendezvous || o->plan || o->replan || o->ranks > 1 || strcmp(o->comm, "local"))
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--device cuda is one GPU in this version: not with several ranks or --plan");
    if (strcmp(o->mla, "absorbed"))
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--mla plain is computed by the processor alone (--device cpu)");
    if (moe_activations_find(o->activations) == MOE_ACTIVATIONS_INT16)
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--activations int16 is computed by the processor alone (--device cpu)");
    return MOE_OK;
}

/* Fails when a count was given that is not 1 or more. */
static enum moe_code check_count(const char *option, int64_t n, struct moe_err *err)
{
    if (n == MOE_UNSET || n >= 1) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %lld: want 1 or more", option, (long long)n);
}

/* Checks what bounds the tokens and sequences of a pass. */
static enum moe_code check_limits(const struct moe_run_args *o, struct moe_err *err)
{
    MOE_TRY(check_count("batch-tokens", o->batch_tokens, err));
    return check_count("max-sequences", o->max_sequences, err);
}

static enum moe_code check_real(const char *option, enum moe_request_real which, double v,
                                struct moe_err *err)
{
    char want[MOE_WANT_BYTES];
    float x;
    if (moe_request_real(which, v, &x, want)) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %g: %s", option, v, want);
}

/* Checks how tokens are chosen, and how many. */
static enum moe_code check_sampling(const struct moe_run_args *o, struct moe_err *err)
{
    if (o->temperature < 0)
        return moe_fail(err, MOE_USAGE, "--temperature %g is negative (0 is greedy)", o->temperature);
    MOE_TRY(check_real("temperature", MOE_REAL_TEMPERATURE, o->temperature, err));
    MOE_TRY(check_real("top-p", MOE_REAL_TOP_P, o->top_p, err));
    MOE_TRY(check_real("min-p", MOE_REAL_MIN_P, o->min_p, err));
    if (o->top_k < 0 || o->context < 0)
        return moe_fail(err, MOE_USAGE, "--%s %lld: want 0 or more", o->top_k < 0 ? "top-k" : "context",
                        (long long)(o->top_k < 0 ? o->top_k : o->context));
    if (o->n < -1)
        return moe_fail(err, MOE_USAGE, "-n %lld: want 0 or more, or -1 to go on until the end",
                        (long long)o->n);
    for (size_t i = 0; i < o->stop.n; i++)
        if (!*o->stop.v[i])
            return moe_fail(err, MOE_USAGE, "--stop wants a text to end before, and it is empty");
    return MOE_OK;
}

/* The value of an option as the engine takes it, which chooses its own for 0. */
static int64_t given(int64_t v) { return v == MOE_UNSET ? 0 : v; }

enum moe_code moe_run_args_check(const struct moe_run_args *o, struct moe_engine_options *e,
                                 struct moe_err *err)
{
    MOE_TRY(moe_check_model_operand(&o->run, err));
    MOE_TRY(check_arithmetic(o, err));
    MOE_TRY(check_device(o, err));
    MOE_TRY(check_cache_type(o, err));
    MOE_TRY(check_ranks(o, err));
    MOE_TRY(check_sampling(o, err));
    MOE_TRY(check_limits(o, err));
    MOE_TRY(check_chat(o, err));
    MOE_TRY(check_shared_input(o, "prompts", o->prompts, err));
    MOE_TRY(check_shared_input(o, "score", o->score, err));
    MOE_TRY(check_output(o, o->trace, &moe_trace_kind, err));
    MOE_TRY(check_output(o, o->record, &moe_routing_kind, err));
    int activations = moe_activations_find(o->activations); /* check_arithmetic has found it */
    *e = (struct moe_engine_options){ .cancel = o->run.cancel,
                                      .context = o->context,
                                      .batch = given(o->batch_tokens),
                                      .cache_bytes = (uint64_t)given(o->cache),
                                      .max_sequences = given(o->max_sequences),
                                      .memory = (uint64_t)o->memory,
                                      .lora_eps = strcmp(o->eps, "config") ? 1e-6 : 0,
                                      .mla = strcmp(o->mla, "plain") ? MOE_MLA_ABSORBED : MOE_MLA_EXPANDED,
                                      .activations = (enum moe_activations)activations,
                                      .fast = !strcmp(o->arithmetic, "fast"),
                                      .latents = strcmp(o->cache_type, "bf16") ? MOE_LATENT_F32
                                                                               : MOE_LATENT_BF16,
                                      .tokenizer = o->score || o->stop.n || o->prompts ||
                                                   (!o->prompt.tokens && !o->bench) };
    e->cuda = is_gpu(o->device, &e->gpu);
    e->progress = o->run.progress;
    e->attach = o->attach;
    moe_load_path_parse(o->load_from, &e->load); /* check_device has found it */
    if (o->score) { /* memory is shared by the model, its reference if any, and the hidden states */
        e->sharers = o->reference ? 3 : 2;
        e->max_context = o->window > 0 ? o->window : MOE_SCORE_WINDOW;
    }
    return MOE_OK;
}

enum moe_code moe_run_args_plan(const struct moe_run_args *o, const struct moe_config *c,
                                struct moe_plan **plan, struct moe_err *err)
{
    int32_t ranks = o->ranks == MOE_UNSET ? 0 : (int32_t)o->ranks;
    if (c->n_routed_experts < 1)
        return moe_fail(err, MOE_UNSUPPORTED, "the model has no routed experts to share out over ranks");
    if (!o->plan && !ranks) return moe_fail(err, MOE_USAGE, "--comm %s wants --ranks or --plan", o->comm);
    if (!o->plan) return moe_plan_trivial(plan, c, ranks, err);
    MOE_TRY(moe_plan_read(plan, o->plan, ranks, o->run.cancel, err));
    MOE_TRY(moe_plan_bind(*plan, c, ranks, o->plan, err));
    if ((*plan)->ranks <= MOE_COMM_RANKS_MAX) return MOE_OK;
    return moe_fail(err, MOE_UNSUPPORTED, "'%s': %d ranks, at most %d are supported", o->plan, (*plan)->ranks,
                    MOE_COMM_RANKS_MAX);
}
