/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize-options.h"

#include "base/cli/output.h"
#include "quantize/calibrate/report.h"
#include "quantize/quantize-man.h"

struct moe_quantize_args moe_quantize_asked = { .ask = MOE_QUANTIZE_REQUEST };
static_assert(MOE_QUANTIZE_UNSET == MOE_UNSET, "an option that is not given is unset in the request");

static const struct moe_opt opts[] = {
    MOE_GROUP("output"),
    MOE_STR('o', "output", &moe_quantize_asked.ask.out, "NAME.moe|DIR",
            "write the quantized container, or the checkpoint of --to hf-nvfp4, here"),
    MOE_STR(0, "to", &moe_quantize_asked.ask.to, "container|hf-nvfp4",
            "a container (the default), or in the same pass the checkpoint that vLLM, SGLang and "
            "TensorRT-LLM load: the bytes that moe-convert --to hf-nvfp4 makes of the container, which "
            "is not written"),
    MOE_STR(0, "flavor", &moe_quantize_asked.ask.flavor, "modelopt|compressed-tensors",
            "whose spelling --to hf-nvfp4 writes; modelopt by default"),
    MOE_SIZE(0, "shard-size", &moe_quantize_asked.ask.shard_size, "SIZE",
             "cut --to hf-nvfp4 into files of at most this; 5 GB by default"),
    MOE_WRITER_OPTIONS(&moe_quantize_asked),
    MOE_LIST(0, "report", &moe_quantize_asked.report, "FILE",
             "write the report here too: FILE.txt as text, else as JSON; may be repeated"),
    MOE_GROUP("quantization"),
    MOE_STR('m', "method", &moe_quantize_asked.ask.method,
            "max|four-over-six|search|weighted|gptq|fisher|auto",
            "how scales and codes are chosen; auto is fisher with --calib, else search"),
    MOE_STR(0, "quantize", &moe_quantize_asked.ask.scope, "experts|mlp|all-linear",
            "what becomes NVFP4: routed experts, all MLPs, or attention projections too (not kv_b)"),
    MOE_LIST(0, "tensor-type", &moe_quantize_asked.types, "REGEX=TYPE",
             "type of the tensors whose name matches: nvfp4, bf16, f32 or source; the last match wins"),
    MOE_STR(0, "layers", &moe_quantize_asked.ask.layers, "A-B",
            "these layers only, as a part of the model: several machines share the work, then "
            "moe-convert --merge"),
    MOE_GROUP("calibration"),
    MOE_INPUT_LIST(0, "calib", &moe_quantize_asked.calib, "FILE",
                   "text to calibrate with: plain, or JSON rows (\"text\", \"messages\" ...), either "
                   "gzipped; - is standard input; may be repeated"),
    MOE_STR(0, "chat-template", &moe_quantize_asked.ask.chat_template, "NAME",
            "a built-in chat template for --calib's conversations instead of the model's: k2-first, "
            "k2-instruct, k2-thinking, k2.5, k2.6, k2.7-code, deepseek-v3 or deepseek-v3-first"),
    MOE_INT(0, "calib-tokens", &moe_quantize_asked.ask.calib_tokens, "N",
            "use the first N tokens of the text"),
    MOE_INT(0, "sequence-length", &moe_quantize_asked.ask.sequence, "N",
            "tokens of a sequence; 2048 by default, or the model's context where that is less"),
    MOE_STR(0, "effort", &moe_quantize_asked.ask.effort, "fast|balanced|best",
            "how much to compute with --calib: fast rounds each layer once (method gptq); balanced also "
            "learns which outputs matter to the model's answer and goes over all codes twice more; best "
            "four times"),
    MOE_STR(0, "activations", &moe_quantize_asked.ask.activations,
            "float|nvfp4|nvfp4-four-over-six|nvfp4-search",
            "what the weights will be multiplied with where the model is served, to fit them to: float: "
            "16-bit activations (W4A16); nvfp4: activations rounded to 4 bits, as FP4 tensor cores take "
            "them (W4A4); nvfp4-four-over-six and nvfp4-search: the same with the best of two or six "
            "scales a block"),
    MOE_STR(0, "upstream", &moe_quantize_asked.ask.upstream, "corrected|quantized|source",
            "which inputs a layer is fitted to: quantized: those that the quantized layers before it "
            "give; corrected: those, and its outputs make up for their error (the default of method "
            "fisher); source: those of the model as it was, which is what --layers needs"),
    MOE_INT(0, "sensitivity-tokens", &moe_quantize_asked.ask.sensitivity, "N",
            "run this many of the tokens backwards through the model, too, to learn which outputs of a "
            "layer matter to its answer (method fisher)"),
    MOE_INT(0, "seed", &moe_quantize_asked.ask.seed, "N",
            "seed of the answers that the backward pass draws from the model: another one gives other "
            "bytes, as good"),
    MOE_STR(0, "scratch", &moe_quantize_asked.ask.scratch, "DIR",
            "hidden states that memory does not hold go here"),
    MOE_COMMON_OPTIONS(&moe_quantize_asked.run),
    MOE_END(),
};

static const struct moe_opt_rule rules[] = {
    { "chat-template", "calib", false },
    { "calib-tokens", "calib", false },
    { "sequence-length", "calib", false },
    { "sensitivity-tokens", "calib", false },
    { "effort", "calib", false },
    { "activations", "calib", false },
    { "upstream", "calib", false },
    { "seed", "calib", false },
    { NULL, NULL, false },
};

const struct moe_tool moe_quantize_tool = {
    .rules = rules,
    .name = "moe-quantize",
    .synopsis = "[options] MODEL -o NAME.moe\n       moe-quantize [options] MODEL --to hf-nvfp4 -o DIR",
    .about = "quantize a checkpoint or container to NVFP4",
    .opts = opts,
    .description = moe_quantize_description,
    .examples = moe_quantize_examples,
    .json = moe_quantize_json_keys,
};

struct moe_quantize_request *moe_quantize_args_request(struct moe_quantize_args *o)
{
    struct moe_quantize_request *q = &o->ask;
    q->types = o->types.v;
    q->n_types = o->types.n;
    q->calib = o->calib.v;
    q->n_calib = o->calib.n;
    q->estimate = o->dry_run;
    q->resume = o->resume;
    q->force = o->force;
    q->memory = o->memory;
    q->cancel = o->run.cancel;
    return q;
}

enum moe_code moe_quantize_args_outputs(const struct moe_quantize_args *o, struct moe_err *err)
{
    for (size_t i = 0; i < o->report.n; i++) {
        struct moe_output report = { .path = o->report.v[i], .replace = true, .kind = &moe_report_kind };
        MOE_TRY(moe_output_check(&o->run, &report, err));
    }
    return moe_output_partial_check(&o->run, o->ask.out, err);
}
