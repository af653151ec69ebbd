/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/request.h"

#include "formats/tokenizer/chat.h"
#include "model/activations.h"
#include "model/rewrite/report.h"

#include <stdio.h>
#include <string.h>

static const char *const calibrated_name[] = { "", "weighted", "gptq", "fisher" };

const char *moe_quantize_method(const struct moe_quantize_choice *c)
{
    return c->calibrated ? calibrated_name[c->calibrated] : moe_method_name(c->rewrite.method);
}

/* Parses q->layers: "A-B" or "A". */
static enum moe_code parse_layers(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                                  struct moe_err *err)
{
    int end = 0, n = sscanf(q->layers, "%5d%n-%5d%n", &c->range.first, &end, &c->range.last, &end);
    if (n == 1) c->range.last = c->range.first;
    if (n < 1 || q->layers[end] || c->range.first < 0 || c->range.last < c->range.first)
        return moe_fail(err, MOE_USAGE, "--layers wants A-B, a first and a last layer, not '%s'", q->layers);
    c->rewrite.layers = &c->range;
    return MOE_OK;
}

/* *which: the index of `word` in words, which end with NULL. */
static enum moe_code choose_word(const char *option, const char *word, const char *const *words, int *which,
                                 struct moe_err *err)
{
    char all[64] = "";
    for (*which = 0; words[*which]; ++*which) {
        if (!strcmp(word, words[*which])) return MOE_OK;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", *which ? " or " : "", words[*which]);
    }
    return moe_fail(err, MOE_USAGE, "--%s wants %s, not '%s'", option, all, word);
}

/* For "auto", chooses with text the best method that the effort allows, and search without. */
static enum moe_code choose_method(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                                   int effort, struct moe_err *err)
{
    int data_free = moe_method_find(q->method);
    c->rewrite.method = MOE_NVFP4_SEARCH;
    if (data_free >= 0) c->rewrite.method = (enum moe_nvfp4_method)data_free;
    for (int i = MOE_WEIGHTED; i <= MOE_FISHER; i++)
        if (!strcmp(q->method, calibrated_name[i])) c->calibrated = (enum moe_calibrated)i;
    if (!strcmp(q->method, "auto") && q->n_calib) c->calibrated = effort ? MOE_FISHER : MOE_GPTQ;
    if (data_free < 0 && !c->calibrated && strcmp(q->method, "auto"))
        return moe_fail(err, MOE_USAGE,
                        "unknown --method '%s' (max, four-over-six, search, weighted, gptq, fisher or auto)",
                        q->method);
    if (c->calibrated && !q->n_calib)
        return moe_fail(err, MOE_USAGE, "--method %s needs text to calibrate with (--calib FILE)", q->method);
    if (!c->calibrated && q->n_calib)
        return moe_fail(err, MOE_USAGE, "--method %s takes no --calib (leave one of them out)", q->method);
    return MOE_OK;
}

static enum moe_code choose_upstream(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                                     int effort, struct moe_err *err)
{
    static const char *const words[] = { "corrected", "quantized", "source", NULL };
    int word;
    c->upstream = q->upstream;
    if (!c->upstream) c->upstream = c->calibrated == MOE_FISHER && effort ? "corrected" : "quantized";
    MOE_TRY(choose_word("upstream", c->upstream, words, &word, err));
    if (word == 0 && c->calibrated < MOE_GPTQ)
        return moe_fail(err, MOE_USAGE,
                        "--upstream corrected needs --method gptq or fisher: the others do not move weights");
    return MOE_OK;
}

static enum moe_code check_calibration(const struct moe_quantize_choice *c,
                                       const struct moe_quantize_request *q, struct moe_err *err)
{
    if (q->calib_tokens < 1 || q->calib_tokens > INT32_MAX)
        return moe_fail(err, MOE_USAGE, "--calib-tokens wants 1 to %d", INT32_MAX);
    if (q->sequence != MOE_QUANTIZE_UNSET && q->sequence < 1)
        return moe_fail(err, MOE_USAGE, "--sequence-length wants a positive number");
    if (q->chat_template && !moe_chat_is_name(q->chat_template))
        return moe_fail(err, MOE_USAGE, "unknown chat template '%s' (%s)", q->chat_template,
                        moe_chat_names());
    if (q->sensitivity < 1) return moe_fail(err, MOE_USAGE, "--sensitivity-tokens wants a positive number");
    if (q->seed < 0 || q->seed > MOE_QUANTIZE_SEED_MAX)
        return moe_fail(err, MOE_USAGE, "--seed wants a number from 0 to %lld",
                        (long long)MOE_QUANTIZE_SEED_MAX);
    if (c->calibrated && q->layers && strcmp(c->upstream, "source"))
        return moe_fail(err, MOE_USAGE,
                        "--layers with calibration needs --upstream source: a layer that is fitted to the "
                        "quantized layers before it cannot be made without them");
    return MOE_OK;
}

static enum moe_code check_to(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                              struct moe_err *err)
{
    c->hf = !strcmp(q->to, "hf-nvfp4");
    if (!c->hf && strcmp(q->to, "container"))
        return moe_fail(err, MOE_USAGE,
                        "unknown --to '%s' (container or hf-nvfp4; for GGUF moe-convert NAME.moe --to gguf)",
                        q->to);
    if (!c->hf && (q->flavor || q->shard_size != MOE_QUANTIZE_UNSET))
        return moe_fail(err, MOE_USAGE, "--flavor and --shard-size go with --to hf-nvfp4");
    MOE_TRY(moe_hf_options_init(q->flavor, q->shard_size, moe_write_mode_of(q->force, q->resume), &c->export,
                                err));
    if (c->hf && q->layers)
        return moe_fail(err, MOE_USAGE,
                        "--layers writes a part, which no engine loads (moe-convert --merge the parts, then "
                        "moe-convert --to hf-nvfp4)");
    return MOE_OK;
}

/* The number of sweeps of descent, by method and effort. */
static int sweeps_of(const struct moe_quantize_choice *c, const struct moe_quantize_request *q)
{
    if (c->calibrated < MOE_GPTQ) return 0;
    if (!strcmp(q->method, "gptq")) return !strcmp(q->effort, "best") ? 4 : 0;
    return !strcmp(q->effort, "fast") ? 0 : !strcmp(q->effort, "balanced") ? 2 : 4;
}

enum moe_code moe_quantize_choose(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                                  struct moe_err *err)
{
    static const char *const efforts[] = { "fast", "balanced", "best", NULL };
    int scope = moe_scope_find(q->scope), effort;
    *c = (struct moe_quantize_choice){ 0 };
    MOE_TRY(choose_word("effort", q->effort, efforts, &effort, err));
    int activations = moe_activations_find(q->activations);
    if (activations < 0 || activations > MOE_ACTIVATIONS_NVFP4_SEARCH)
        return moe_fail(err, MOE_USAGE,
                        "unknown --activations '%s' (float, nvfp4, nvfp4-four-over-six or nvfp4-search)",
                        q->activations);
    MOE_TRY(choose_method(c, q, effort, err));
    MOE_TRY(choose_upstream(c, q, effort, err));
    MOE_TRY(check_calibration(c, q, err));
    if (scope < 0)
        return moe_fail(err, MOE_USAGE, "unknown --quantize '%s' (experts, mlp or all-linear)", q->scope);
    if (q->resume && q->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    MOE_TRY(check_to(c, q, err));
    c->export.cancel = q->cancel;
    c->sweeps = sweeps_of(c, q);
    c->rewrite.scope = (enum moe_scope)scope;
    c->rewrite.rules = q->types;
    c->rewrite.n_rules = q->n_types;
    c->rewrite.memory = (uint64_t)q->memory;
    c->rewrite.calibrated = c->calibrated != MOE_NOT_CALIBRATED;
    c->rewrite.cancel = q->cancel;
    return q->layers ? parse_layers(c, q, err) : MOE_OK;
}
