/* SPDX-License-Identifier: Apache-2.0 */
/* Tests model configurations: that published ones open; that keys which programs read in different ways are
 * taken only where all of them compute the same; that config.json and hf_quant_config.json may not
 * contradict each other. */
#include "tests/ok.h"
#include "base/json.h"
#include "formats/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct moe_err err;
static struct moe_config config;
static enum moe_scheme scheme;

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define SIZES "\"hidden_size\": 7168, \"intermediate_size\": 18432, \"num_hidden_layers\": 61," \
    "\"num_attention_heads\": 64," \
    "\"kv_lora_rank\": 512, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128," \
    "\"q_lora_rank\": 1536, \"vocab_size\": 163840, \"n_routed_experts\": 384," \
    "\"moe_intermediate_size\": 2048," \
    "\"num_experts_per_tok\": 8, \"n_group\": 1, \"topk_group\": 1," \
    "\"scoring_func\": \"sigmoid\", \"topk_method\": \"noaux_tc\""
#define V3 "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", " SIZES
#define K2 "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"kimi_k2\", " SIZES
#define K25(text, top) \
    "{\"architectures\": [\"KimiK25ForConditionalGeneration\"], \"model_type\": \"kimi_k25\", " \
    "\"text_config\": {\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"kimi_k2\", " \
    SIZES text "}" top "}"

#define MSCALES ", \"mscale\": 1.0, \"mscale_all_dim\": 1.0"
#define YARN_OF(length, factor, fast, more) "{\"type\": \"yarn\", \"beta_fast\": " fast "," \
    "\"beta_slow\": 1.0, \"factor\": " factor ", \"original_max_position_embeddings\": " length more "}"
#define OLD(factor, fast) ", \"rope_theta\": 50000.0, \"rope_scaling\": " \
    YARN_OF("4096", factor, fast, MSCALES)
#define NEW(factor, fast) ", \"rope_parameters\": " \
    YARN_OF("4096", factor, fast, MSCALES ", \"rope_type\": \"yarn\", \"rope_theta\": 50000.0")
#define DS ", \"rope_theta\": 10000, \"rope_scaling\": " YARN_OF("4096", "40", "32", MSCALES)
#define Q(text) ", \"quantization_config\": " text
#define FP8 Q("{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\"," \
    "\"weight_block_size\": [128, 128]}")
#define INT4 Q("{\"config_groups\": {\"group_0\": {\"input_activations\": null, \"targets\": [\"Linear\"]," \
    "\"weights\":" \
    "{\"actorder\": null, \"block_structure\": null, \"group_size\": 32, \"num_bits\": 4," \
    "\"strategy\": \"group\"," \
    "\"symmetric\": true, \"type\": \"int\"}}}, \"format\": \"pack-quantized\", \"kv_cache_scheme\": null," \
    "\"quant_method\": \"compressed-tensors\", \"quantization_status\": \"compressed\"}")
#define NVFP4 Q("{\"config_groups\": {\"group_0\": {\"weights\": {\"dynamic\": false, \"num_bits\": 4," \
    "\"type\": \"float\"," \
    "\"group_size\": 16}}}, \"ignore\": [\"lm_head\"], \"quant_algo\": \"NVFP4\"," \
    "\"producer\": {\"name\": \"modelopt\"}," \
    "\"quant_method\": \"modelopt\"}")
#define HF(fields) "{\"producer\": {\"name\": \"modelopt\"}, \"quantization\": {" fields "}}"
#define HF_NVFP4 \
    HF("\"quant_algo\": \"NVFP4\", \"kv_cache_quant_algo\": \"FP8\", \"group_size\": 16," \
       "\"exclude_modules\": []")

static enum moe_code parse(const char *text)
{
    cJSON *root;
    OK(moe_json_parse(text, strlen(text), "config.json", &root, &err) == MOE_OK);
    enum moe_code code = moe_config_parse(root, "config.json", &config, &scheme, &err);
    cJSON_Delete(root);
    return code;
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    OK(f && fputs(text, f) >= 0 && !fclose(f));
}

/* config.json and, unless NULL, hf_quant_config.json in a directory. */
static enum moe_code read_both(const char *text, const char *beside)
{
    char dir[] = "/tmp/test-config-XXXXXX";
    OK(mkdtemp(dir) && !chdir(dir));
    put("config.json", text);
    if (beside) put("hf_quant_config.json", beside);
    enum moe_code code = moe_config_read(".", &config, &scheme, &err);
    unlink("config.json");
    unlink("hf_quant_config.json");
    OK(!chdir("/") && !rmdir(dir));
    return code;
}

static void published(void)
{
    static const struct {
        const char *what, *config, *beside;
        enum moe_scheme scheme;
        double theta, factor;
    } all[] = {
        { "K2", K2 OLD("32.0", "1.0") FP8 "}", NULL, MOE_SCHEME_FP8, 50000, 32 },
        { "K2 0905", K2 OLD("64.0", "1.0") FP8 "}", NULL, MOE_SCHEME_FP8, 50000, 64 },
        { "K2 Thinking", K2 OLD("64.0", "1.0") INT4 "}", NULL, MOE_SCHEME_INT4, 50000, 64 },
        { "K2 Thinking, NVFP4", K2 OLD("64.0", "1.0") NVFP4 "}", HF_NVFP4, MOE_SCHEME_NVFP4_MODELOPT, 50000,
          64 },
        { "K2.5, K2.6", K25(OLD("64.0", "32.0") INT4, ""), NULL, MOE_SCHEME_INT4, 50000, 64 },
        { "K2.5, NVFP4", K25(OLD("64.0", "32.0"), NVFP4), HF_NVFP4, MOE_SCHEME_NVFP4_MODELOPT, 50000, 64 },
        { "K2.5, NVFP4 over INT4", K25(OLD("64.0", "32.0") INT4, NVFP4), HF_NVFP4, MOE_SCHEME_MIXED, 50000,
          64 },
        { "K2.7", K25(NEW("64.0", "32.0") ", \"rope_theta\": 50000.0", NVFP4), HF_NVFP4,
          MOE_SCHEME_NVFP4_MODELOPT, 50000, 64 },
        { "V3, V3.1, R1", V3 DS FP8 "}", NULL, MOE_SCHEME_FP8, 10000, 40 },
        { "V3, BF16", V3 DS "}", NULL, MOE_SCHEME_NONE, 10000, 40 },
        { "R1, NVFP4, older", V3 DS "}", HF_NVFP4, MOE_SCHEME_NVFP4_MODELOPT, 10000, 40 },
        { "R1, NVFP4, mixed", V3 DS "}",
          HF("\"quant_algo\": \"MIXED_PRECISION\", \"kv_cache_quant_algo\": null"), MOE_SCHEME_MIXED, 10000,
          40 },
        { "V3, TensorRT-LLM", V3 DS FP8 "}", HF("\"quant_algo\": \"FP8_BLOCK_SCALES\""), MOE_SCHEME_FP8,
          10000, 40 },
        { "V3, a quantized cache", V3 DS FP8 "}",
          HF("\"quant_algo\": null, \"kv_cache_quant_algo\": \"FP8\""), MOE_SCHEME_FP8, 10000, 40 },
        { "Moonlight", V3 ", \"rope_theta\": 50000.0, \"rope_scaling\": null}", NULL, MOE_SCHEME_NONE, 50000,
          0 },
        { "Moonlight, transformers 5",
          V3 ", \"rope_parameters\": {\"rope_theta\": 50000.0, \"rope_type\": \"default\"}}", NULL,
          MOE_SCHEME_NONE, 50000, 0 },
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        enum moe_code code = read_both(all[i].config, all[i].beside);
        if (code != MOE_OK) fprintf(stderr, "%s: %s\n", all[i].what, err.msg);
        OK(code == MOE_OK && scheme == all[i].scheme);
        OK(config.rope_theta == all[i].theta && config.yarn == (all[i].factor > 0));
        OK(!config.yarn || config.yarn_factor == all[i].factor);
        OK(!config.yarn || (config.mscale == 1 && config.mscale_all_dim == 1));
    }
}

#define IN(key, more) ", \"rope_" key "\": " YARN_OF("4096", "40", "32", more)
#define PAIR(a, b) IN("scaling", ", \"mscale\": " a ", \"mscale_all_dim\": " b)

static void rotary(void)
{
    static const struct { const char *more, *what; enum moe_code code; } all[] = {
        { ", \"rope_theta\": 5e4" IN("parameters", ", \"rope_theta\": 50000"), NULL, MOE_OK },
        { ", \"rope_theta\": 10000" IN("parameters", ", \"rope_theta\": 50000"),
          "'rope_theta' is given as 10000 and, in 'rope_parameters', as 50000", MOE_CORRUPT },
        { ", \"rope_theta\": 10000" IN("scaling", ", \"rope_theta\": 50000"),
          "in 'rope_scaling', as 50000: they disagree", MOE_CORRUPT },
        { IN("scaling", ", \"rope_theta\": 10000") IN("parameters", ", \"rope_theta\": 50000"),
          "'rope_theta' is given as 10000", MOE_CORRUPT },
        { IN("scaling", ", \"rope_theta\": 50000") IN("parameters", ""), NULL, MOE_OK },
        { IN("scaling", ", \"rope_theta\": 0"), "'rope_theta' is out of range", MOE_CORRUPT },
        /* transformers and DeepSeek's code on mscale */
        { IN("scaling", ""), NULL, MOE_OK },
        { IN("scaling", ", \"mscale\": 1"), NULL, MOE_OK },
        { IN("scaling", ", \"mscale\": null, \"mscale_all_dim\": null"), NULL, MOE_OK },
        { PAIR("1", "0"), NULL, MOE_OK },
        { PAIR("0.707", "0.707"), NULL, MOE_OK },
        { PAIR("0.5", "2"), NULL, MOE_OK },
        { PAIR("2", "0"),
          "mscale 2 with mscale_all_dim 0 of yarn is not supported: transformers "
          "scales by "
          "1.36889 and DeepSeek's code by 1.73778", MOE_UNSUPPORTED },
        { PAIR("0", "0"), "mscale 0 with mscale_all_dim 0 of yarn is not supported", MOE_UNSUPPORTED },
        { PAIR("0", "1"), "mscale 0 with mscale_all_dim 1 of yarn is not supported", MOE_UNSUPPORTED },
        { IN("scaling", ", \"mscale_all_dim\": 1"), "mscale 1 with mscale_all_dim 1 of yarn is not supported",
          MOE_UNSUPPORTED },
        { IN("parameters", ", \"mscale_all_dim\": 1"), "of yarn is not supported", MOE_UNSUPPORTED },
        { IN("scaling", ", \"mscale\": 2"), "mscale 2 with mscale_all_dim 0", MOE_UNSUPPORTED },
        { ", \"rope_scaling\": " YARN_OF("4096", "1", "32", ", \"mscale\": 2, \"mscale_all_dim\": 0"), NULL,
          MOE_OK },
        { ", \"rope_scaling\": {\"type\": \"default\", \"factor\": 40, \"mscale_all_dim\": 1}",
          "without yarn is not", MOE_UNSUPPORTED },
        { ", \"rope_scaling\": {\"type\": \"default\", \"factor\": 1, \"mscale_all_dim\": 1}", NULL, MOE_OK },
        { ", \"rope_scaling\": {\"type\": \"default\", \"factor\": 40, \"mscale_all_dim\": 0}", NULL,
          MOE_OK },
        /* keys beside the object */
        { IN("scaling", "") ", \"partial_rotary_factor\": 1.0", NULL, MOE_OK },
        { IN("scaling", "") ", \"partial_rotary_factor\": 0.5", "partial_rotary_factor 0.5",
          MOE_UNSUPPORTED },
        { ", \"partial_rotary_factor\": 0.5", "partial_rotary_factor 0.5", MOE_UNSUPPORTED },
        { IN("scaling", "") ", \"original_max_position_embeddings\": 4096", NULL, MOE_OK },
        { IN("scaling", "") ", \"original_max_position_embeddings\": 8192",
          "is given as 8192 and, for yarn, as 4096: they disagree", MOE_CORRUPT },
        { ", \"original_max_position_embeddings\": 8192", NULL, MOE_OK }, /* nothing reads it without yarn */
        { ", \"llama_4_scaling\": null", NULL, MOE_OK },
        { ", \"llama_4_scaling\": {\"original_max_position_embeddings\": 8192, \"beta\": 0.1}",
          "llama_4_scaling is not supported", MOE_UNSUPPORTED },
        { IN("parameters", ", \"llama_4_scaling_beta\": 0.1"), "llama_4_scaling_beta is not supported",
          MOE_UNSUPPORTED },
        /* what is empty says nothing */
        { IN("scaling", "") ", \"rope_parameters\": {}", NULL, MOE_OK },
        { ", \"rope_scaling\": {}" IN("parameters", ""), NULL, MOE_OK },
        { IN("scaling", "") ", \"rope_parameters\": {\"rope_type\": null}", NULL, MOE_OK },
        { IN("scaling", "") ", \"rope_parameters\": {\"rope_type\": \"default\"}",
          "'rope_parameters' disagree", MOE_CORRUPT },
        { IN("scaling", "") ", \"rope_parameters\": []", "'rope_parameters' is not an object", MOE_CORRUPT },
    };
    char text[8192];
    for (size_t i = 0; i < COUNT(all); i++) {
        snprintf(text, sizeof text, "%s%s}", V3, all[i].more);
        enum moe_code code = parse(text);
        if (code != all[i].code) fprintf(stderr, "%s: %d, not %d\n", all[i].more, code, all[i].code);
        OK(code == all[i].code);
        if (code == MOE_OK) OK(config.yarn == !!strstr(all[i].more, "yarn"));
        else SAYS(all[i].what);
    }
}

#define ALGO(more) Q("{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"" more "}")
#define INNER(more) \
    Q("{\"quant_method\": \"modelopt\", \"quantization\": {\"quant_algo\": \"NVFP4\"" more "}}")

static void two_files(void)
{
    static const struct {
        const char *more, *beside, *what;
        enum moe_code code;
        enum moe_scheme scheme;
    } all[] = {
        { ALGO(""), HF("\"quant_algo\": \"NVFP4_AWQ\""), "'NVFP4_AWQ' is not supported", MOE_UNSUPPORTED, 0 },
        { ALGO(""), HF("\"quant_algo\": \"NVFP4\", \"group_size\": 32"), "another 'group_size'",
          MOE_UNSUPPORTED, 0 },
        { FP8, HF_NVFP4, "what this file says and config.json disagree", MOE_CORRUPT, 0 },
        { INT4, HF_NVFP4, "what this file says and config.json disagree", MOE_CORRUPT, 0 },
        { INT4, HF("\"quant_algo\": \"FP8_PB_WO\""), "'FP8_PB_WO' is not supported", MOE_UNSUPPORTED, 0 },
        { FP8, HF("\"pre_quant_scale\": true"), "pre_quant_scale is not supported", MOE_UNSUPPORTED, 0 },
        { INT4, HF("\"has_zero_point\": true"), "has_zero_point is not supported", MOE_UNSUPPORTED, 0 },
        { INT4, "{\"has_zero_point\": true}", "has_zero_point is not supported", MOE_UNSUPPORTED, 0 },
        { INT4, HF("\"has_zero_point\": false"), NULL, MOE_OK, MOE_SCHEME_INT4 },
        { INT4, "{\"quantization\": 4}", "'quantization' is not an object", MOE_CORRUPT, 0 },
        { FP8, "{", "is not JSON", MOE_CORRUPT, 0 },
        /* flat, as config.json has it */
        { ALGO(""), "{\"quant_algo\": \"NVFP4\", \"group_size\": 16}", NULL, MOE_OK,
          MOE_SCHEME_NVFP4_MODELOPT },
        { ALGO(""), "{\"quant_algo\": \"NVFP4_AWQ\"}", "'NVFP4_AWQ' is not supported", MOE_UNSUPPORTED, 0 },
        { ALGO(""), "{\"producer\": {}}", NULL, MOE_OK, MOE_SCHEME_NVFP4_MODELOPT },
        { "", "{\"quant_algo\": \"NVFP4\"}", NULL, MOE_OK, MOE_SCHEME_NVFP4_MODELOPT },
        { "", "{\"producer\": {}}", "the key 'quantization' is missing", MOE_CORRUPT, 0 },
        { "", "{\"quant_algo\": \"NVFP4\", \"pre_quant_scale\": true}", "pre_quant_scale", MOE_UNSUPPORTED,
          0 },
        { "", "{\"quant_algo\": \"NVFP4\", \"quantization\": {\"quant_algo\": \"MIXED_PRECISION\"}}",
          "disagree", MOE_CORRUPT, 0 },
        /* nested, as hf_quant_config.json has it */
        { INNER(""), NULL, NULL, MOE_OK, MOE_SCHEME_NVFP4_MODELOPT },
        { INNER(", \"pre_quant_scale\": true"), NULL, "pre_quant_scale is not supported", MOE_UNSUPPORTED,
          0 },
        { ALGO(", \"quantization\": {\"has_zero_point\": true}"), NULL, "has_zero_point is not supported",
          MOE_UNSUPPORTED, 0 },
        { ALGO(", \"quantization\": {\"quant_algo\": \"NVFP4_AWQ\"}"), NULL, "'NVFP4_AWQ' is not supported",
          MOE_UNSUPPORTED, 0 },
        { ALGO(", \"quantization\": {\"quant_algo\": \"MIXED_PRECISION\"}"), NULL,
          "'quant_algo' and the one in 'quantization' disagree", MOE_CORRUPT, 0 },
        { ALGO(", \"quantization\": {\"quant_algo\": \"NVFP4\"}"), NULL, NULL, MOE_OK,
          MOE_SCHEME_NVFP4_MODELOPT },
    };
    char text[8192];
    for (size_t i = 0; i < COUNT(all); i++) {
        snprintf(text, sizeof text, "%s%s}", V3, all[i].more);
        enum moe_code code = read_both(text, all[i].beside);
        if (code != all[i].code) fprintf(stderr, "case %zu: %d %s\n", i, code, err.msg);
        OK(code == all[i].code);
        if (code == MOE_OK) OK(scheme == all[i].scheme);
        else SAYS(all[i].what);
    }
}

int main(void)
{
    published();
    rotary();
    two_files();
    printf("test-config: %ld checks\n", checks);
    return 0;
}
