/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/genmodel-config.h - config.json and the tokenizer files of a generated model.
 * Included once, by genmodel.c. */
#include <errno.h>

static FILE *create(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) die("cannot write '%s': %s", path, strerror(errno));
    return f;
}
static void finish(FILE *f, const char *name)
{
    if (ferror(f) | fclose(f)) die("cannot write '%s': %s", name, strerror(errno));
}

static void write_rope(FILE *f, const struct options *o)
{
    if (o->rope_parameters) { /* as transformers 5 spells it */
        fprintf(f, "  \"rope_parameters\": {\"rope_theta\": 50000.0, \"rope_type\": \"%s\"",
                o->no_yarn ? "default" : "yarn");
        if (!o->no_yarn)
            fprintf(f,
                    ", \"type\": \"yarn\", \"factor\": %.1f, \"beta_fast\": %.1f, \"beta_slow\": 1.0, "
                    "\"mscale\": 1.0, \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": %.0f",
                    o->yarn_factor, o->beta_fast, o->yarn_original);
        fputs("},\n", f);
        return;
    }
    fputs("  \"rope_theta\": 50000.0,\n", f);
    if (!o->no_yarn)
        fprintf(
            f,
            "  \"rope_scaling\": {\"type\": \"yarn\", \"factor\": %.1f, \"beta_fast\": %.1f, \"beta_slow\": "
            "1.0, \"mscale\": 1.0, \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": %.0f},\n",
            o->yarn_factor, o->beta_fast, o->yarn_original);
}

static void write_quantization(FILE *f, const struct options *o)
{
    switch (o->format) {
    case F_FP8:
        fputs(",\n  \"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", "
              "\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}",
              f);
        return;
    case F_INT4:
        fputs(",\n  \"quantization_config\": {\"config_groups\": {\"group_0\": {\"input_activations\": null, "
              "\"output_activations\": null, \"targets\": [\"Linear\"], \"weights\": {\"actorder\": null, "
              "\"block_structure\": null, \"dynamic\": false, \"group_size\": 32, \"num_bits\": 4, "
              "\"observer\": \"minmax\", \"observer_kwargs\": {}, \"strategy\": \"group\", \"symmetric\": "
              "true, \"type\": \"int\"}}}, \"format\": \"pack-quantized\", \"ignore\": [\"lm_head\", "
              "\"re:.*self_attn.*\", \"re:.*shared_experts.*\", "
              "\"re:.*mlp\\\\.(gate|up|gate_up|down)_proj.*\"], \"kv_cache_scheme\": null, \"quant_method\": "
              "\"compressed-tensors\", \"quantization_status\": \"compressed\"}",
              f);
        return;
    case F_NVFP4:
        fputs(",\n  \"quantization_config\": {\"config_groups\": {\"group_0\": {\"input_activations\": "
              "{\"dynamic\": false, \"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}, \"weights\": "
              "{\"dynamic\": false, \"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}, \"targets\": "
              "[\"Linear\"]}}, \"ignore\": [\"lm_head\", \"model.layers.0*\", \"*self_attn*\", "
              "\"*shared_experts*\"], \"quant_algo\": \"NVFP4\", \"kv_cache_scheme\": {\"dynamic\": false, "
              "\"num_bits\": 8, \"type\": \"float\"}, \"producer\": {\"name\": \"modelopt\", \"version\": "
              "\"0.41.0\"}, \"quant_method\": \"modelopt\"}",
              f);
        return;
    case F_NVFP4_CT:
        fputs(",\n  \"quantization_config\": {\"config_groups\": {\"group_0\": {\"format\": "
              "\"nvfp4-pack-quantized\", \"input_activations\": {\"dynamic\": \"local\", \"group_size\": 16, "
              "\"num_bits\": 4, \"strategy\": \"tensor_group\", \"symmetric\": true, \"type\": \"float\"}, "
              "\"targets\": [\"Linear\"], \"weights\": {\"dynamic\": false, \"group_size\": 16, "
              "\"num_bits\": 4, \"strategy\": \"tensor_group\", \"symmetric\": true, \"type\": \"float\"}}}, "
              "\"format\": \"nvfp4-pack-quantized\", \"ignore\": [\"lm_head\", \"re:.*self_attn.*\", "
              "\"re:.*shared_experts.*\", \"re:.*mlp\\\\.(gate|up|gate_up|down)_proj.*\"], "
              "\"kv_cache_scheme\": null, \"quant_method\": \"compressed-tensors\", \"quantization_status\": "
              "\"compressed\"}",
              f);
        return;
    default: return;
    }
}

static void write_config(const struct options *o, int64_t bos, int64_t eos)
{
    bool nested = o->vision, nvfp4_on_top = nested && o->format == F_NVFP4;
    FILE *f = create(o->out, "config.json");
    fputs("{\n", f);
    if (nested)
        fputs("  \"architectures\": [\"KimiK25ForConditionalGeneration\"],\n  \"model_type\": "
              "\"kimi_k25\",\n  \"vision_config\": {},\n"
              "  \"text_config\": {\n",
              f);
    fprintf(f,
            "  \"architectures\": [\"DeepseekV3ForCausalLM\"],\n  \"model_type\": \"%s\",\n  "
            "\"torch_dtype\": \"%s\",\n",
            o->model_type, o->format == F_F32 ? "float32" : "bfloat16");
    fprintf(f, "  \"tie_word_embeddings\": %s,\n", o->tied ? "true" : "false");
    fputs("  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n"
          "  \"scoring_func\": \"sigmoid\",\n  \"topk_method\": \"noaux_tc\",\n  \"norm_topk_prob\": true,\n "
          " \"num_nextn_predict_layers\": 0,\n"
          "  \"ep_size\": 1,\n  \"use_cache\": true,\n  \"initializer_range\": 0.02,\n",
          f);
    const struct { const char *key; int64_t v;
    } n[] = { { "hidden_size", o->hidden },
              { "num_hidden_layers", o->layers },
              { "first_k_dense_replace", o->dense },
              { "moe_layer_freq", o->freq },
              { "intermediate_size", o->dense_inter },
              { "moe_intermediate_size", o->inter },
              { "n_routed_experts", o->experts },
              { "num_experts_per_tok", o->top_k },
              { "n_shared_experts", o->shared },
              { "n_group", o->n_group },
              { "topk_group", o->topk_group },
              { "num_attention_heads", o->heads },
              { "num_key_value_heads", o->heads },
              { "kv_lora_rank", o->kv_lora },
              { "qk_nope_head_dim", o->nope },
              { "qk_rope_head_dim", o->rope },
              { "v_head_dim", o->v },
              { "vocab_size", o->vocab },
              { "max_position_embeddings", o->max_position },
              { "bos_token_id", bos },
              { "eos_token_id", eos },
              { "pad_token_id", o->vocab - 1 } };
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        fprintf(f, "  \"%s\": %" PRId64 ",\n", n[i].key, n[i].v);
    if (o->q_lora) fprintf(f, "  \"q_lora_rank\": %" PRId64 ",\n", o->q_lora);
    else fputs("  \"q_lora_rank\": null,\n", f);
    write_rope(f, o);
    fprintf(f, "  \"routed_scaling_factor\": %.3f,\n  \"rms_norm_eps\": %g", o->scaling, o->eps);
    if (!nvfp4_on_top) write_quantization(f, o);
    fputs(nested ? "\n  }" : "", f);
    if (nvfp4_on_top) write_quantization(f, o);
    fputs("\n}\n", f);
    finish(f, "config.json");

    f = create(o->out, "generation_config.json");
    fprintf(f, "{\n  \"eos_token_id\": %" PRId64 ",\n  \"max_length\": %" PRId64 "\n}\n", eos,
            o->max_position);
    finish(f, "generation_config.json");
    if (o->format != F_NVFP4) return;
    f = create(o->out, "hf_quant_config.json");
    fputs(
        "{\"producer\": {\"name\": \"modelopt\", \"version\": \"0.41.0\"}, \"quantization\": "
        "{\"quant_algo\": \"NVFP4\", \"kv_cache_quant_algo\": \"FP8\", \"group_size\": 16, "
        "\"exclude_modules\": [\"lm_head\", \"model.layers.0*\", \"*self_attn*\", \"*shared_experts*\"]}}\n",
        f);
    finish(f, "hf_quant_config.json");
}

/* ---- tokenizer ---- */

static int64_t copy_file(const struct options *o, const char *from, const char *name)
{
    char path[4096], buf[65536];
    snprintf(path, sizeof path, "%s/%s", from, name);
    FILE *in = fopen(path, "rb"), *out = create(o->out, name);
    if (!in) die("cannot read '%s': %s", path, strerror(errno));
    int64_t lines = 0;
    for (size_t n; (n = fread(buf, 1, sizeof buf, in)) > 0; fwrite(buf, 1, n, out))
        for (size_t i = 0; i < n; i++) lines += buf[i] == '\n';
    fclose(in);
    finish(out, name);
    return lines;
}

static void base64(FILE *f, const unsigned char *b, int n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < n; i += 3) {
        unsigned v = (unsigned)b[i] << 16 | (i + 1 < n ? (unsigned)b[i + 1] << 8 : 0) |
                     (i + 2 < n ? b[i + 2] : 0u);
        fprintf(f, "%c%c%c%c", digit[v >> 18], digit[v >> 12 & 63], i + 1 < n ? digit[v >> 6 & 63] : '=',
                i + 2 < n ? digit[v & 63] : '=');
    }
}

/* 256 bytes, then as many pairs of bytes, then triples, as the vocabulary has room for below
 * its special tokens: a valid rank file (every token is a merge of two earlier ones), good for
 * no language in particular. */
static void write_ranks(const struct options *o, int64_t ranks)
{
    FILE *f = create(o->out, "tiktoken.model");
    for (int64_t i = 0; i < ranks; i++) {
        int64_t k = i < 256 ? i : i < 256 + 65536 ? i - 256 : i - 256 - 65536;
        unsigned char b[3] = { (unsigned char)(k >> 16), (unsigned char)(k >> 8), (unsigned char)k };
        int n = i < 256 ? 1 : i < 256 + 65536 ? 2 : 3;
        base64(f, b + 3 - n, n);
        fprintf(f, " %" PRId64 "\n", i);
    }
    finish(f, "tiktoken.model");
}

/* K2's named slots, by their distance from the first special token. */
static const char *special_name(int64_t slot, int64_t slots)
{
    static const struct { int slot; const char *name;
    } named[] = { { 0, "[BOS]" },
                  { 1, "[EOS]" },
                  { 2, "<|im_end|>" },
                  { 3, "<|im_user|>" },
                  { 4, "<|im_assistant|>" },
                  { 6, "<|start_header_id|>" },
                  { 7, "<|end_header_id|>" },
                  { 9, "[EOT]" },
                  { 10, "<|im_system|>" },
                  { 11, "<|tool_calls_section_begin|>" },
                  { 12, "<|tool_calls_section_end|>" },
                  { 13, "<|tool_call_begin|>" },
                  { 14, "<|tool_call_argument_begin|>" },
                  { 15, "<|tool_call_end|>" },
                  { 17, "<|im_middle|>" } };
    if (slot == slots - 1) return "[PAD]";
    if (slot == slots - 2) return "[UNK]";
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (named[i].slot == slot) return named[i].name;
    return NULL;
}

static void write_specials(const struct options *o, int64_t first)
{
    FILE *f = create(o->out, "tokenizer_config.json");
    const char *between = "";
    fputs("{\n  \"added_tokens_decoder\": {", f);
    for (int64_t i = first; i < o->vocab; i++) {
        const char *name = special_name(i - first, o->vocab - first);
        if (!name) continue; /* unnamed slots are <|reserved_token_N|> by rule */
        fprintf(f,
                "%s\n    \"%" PRId64 "\": {\"content\": \"%s\", \"lstrip\": false, \"normalized\": false, "
                                     "\"rstrip\": false, \"single_word\": false, \"special\": %s}",
                between, i, name, strstr(name, "tool") ? "false" : "true");
        between = ",";
    }
    fputs("\n  },\n  \"bos_token\": \"[BOS]\",\n  \"eos_token\": \"[EOS]\",\n  \"unk_token\": \"[UNK]\",\n  "
          "\"pad_token\": \"[PAD]\",\n"
          "  \"additional_special_tokens\": [],\n  \"clean_up_tokenization_spaces\": false,\n  "
          "\"model_max_length\": 1000000000000000019884624838656,\n"
          "  \"tokenizer_class\": \"TikTokenTokenizer\"\n}\n",
          f);
    finish(f, "tokenizer_config.json");
}

/* Returns the id of the first special token. */
static int64_t write_tokenizer(const struct options *o)
{
    const char *from = o->tokenizer ? o->tokenizer : o->vocab == 1024 ? "tests/data/tiny-k2/bf16" : NULL;
    if (from) {
        int64_t ranks = copy_file(o, from, "tiktoken.model");
        copy_file(o, from, "tokenizer_config.json");
        if (ranks >= o->vocab)
            die("the tokenizer in '%s' has %" PRId64 " ranks, more than --vocab %" PRId64, from, ranks,
                o->vocab);
        return ranks;
    }
    if (o->vocab < 256 + 20) die("--vocab %" PRId64 ": a tokenizer needs at least 276", o->vocab);
    int64_t slots = o->vocab - 256 < 256 ? o->vocab - 256 : 256;
    write_ranks(o, o->vocab - slots);
    write_specials(o, o->vocab - slots);
    return o->vocab - slots;
}
