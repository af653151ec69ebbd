/* SPDX-License-Identifier: Apache-2.0 */
/* Tests reading of checkpoints: the fixtures, every layout and spelling of names, and what is refused and in
 * which words. */
#include "formats/checkpoint/safetensors.h"
#include "formats/container/identity.h"
#include "formats/names.h"
#include "tests/gen/source-model.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define DATA "tests/data/tiny-k2/"
#define E0 "model.layers.1.mlp.experts.0."

/* ---- fixtures ---- */

static void check_config(const struct moe_config *c)
{
    OK(!strcmp(c->architecture, "DeepseekV3ForCausalLM") && !strcmp(c->model_type, "kimi_k2"));
    OK(c->hidden_size == 128 && c->intermediate_size == 384 && c->moe_intermediate_size == 64 &&
       c->num_hidden_layers == 4);
    OK(c->first_k_dense_replace == 1 && c->moe_layer_freq == 1 && c->num_attention_heads == 4 &&
       c->q_lora_rank == 96);
    OK(c->kv_lora_rank == 64 && c->qk_nope_head_dim == 32 && c->qk_rope_head_dim == 16 &&
       c->v_head_dim == 32);
    OK(c->vocab_size == 1024 && c->n_routed_experts == 32 && c->num_experts_per_tok == 4 &&
       c->n_shared_experts == 1);
    OK(c->n_group == 1 && c->topk_group == 1 && c->num_nextn_predict_layers == 0 &&
       c->max_position_embeddings == 1024);
    OK(c->bos_token_id == 1008 && c->n_eos == 1 && c->eos_token_id[0] == 1009 && c->pad_token_id == 1023);
    OK(c->norm_topk_prob && !c->tie_word_embeddings && c->routed_scaling_factor == 2.827 &&
       c->rms_norm_eps == 1e-6);
    OK(c->rope_theta == 50000 && c->yarn && c->yarn_factor == 4 && c->beta_fast == 1 && c->beta_slow == 1 &&
       c->mscale == 1);
    OK(c->mscale_all_dim == 1 && c->original_max_position_embeddings == 256);
    OK(moe_config_parameters(c) == 3151616);
    OK(moe_config_parameters(c) - moe_config_parameters_active(c) == 3u * 28 * 3 * 128 * 64);
}

static void check_round_trip(const struct moe_config *c)
{
    struct moe_config d;
    enum moe_scheme s;
    struct moe_err err;
    cJSON *j = moe_config_json(c);
    OK(j && moe_config_parse(j, "round trip", &d, &s, &err) == MOE_OK && !memcmp(c, &d, sizeof d));
    cJSON_Delete(j);
}

static void check_tensors(struct moe_source *src, const char *layout)
{
    struct moe_err err;
    struct moe_weight w;
    int64_t used = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        struct moe_name n;
        char name[128];
        int64_t rows, cols;
        OK(moe_source_find(src, (enum moe_role)t->role, t->layer, t->expert) == t);
        OK(moe_tensor_shape(&src->config, (enum moe_role)t->role, t->layer, &rows, &cols) &&
           rows == t->rows && cols == t->cols);
        OK(moe_name_parse(moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name), &n) &&
           n.role == (enum moe_role)t->role && n.layer == t->layer && n.expert == t->expert &&
           n.part == MOE_PART_WEIGHT);
        for (int p = 0; p < MOE_PLANE_COUNT; p++) used += t->plane[p].file >= 0;
    }
    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        OK((r->tensor >= 0) == !r->skipped);
        if (r->tensor >= 0)
            OK(src->tensors[r->tensor].plane[r->plane].offset == r->span.offset && used-- > 0);
    }
    OK(used == 0);
    OK(moe_source_map(src, &err) == MOE_OK);
    const struct moe_tensor *t = moe_source_find(src, MOE_ROLE_EXPERT_DOWN, 3, 31);
    unsigned char b[16];
    moe_source_weight(src, t, &w);
    OK(moe_source_read(src, t, MOE_PLANE_DATA, 5, sizeof b, b, &err) == MOE_OK &&
       !memcmp(b, w.data + 5, sizeof b));
    OK(!strcmp(moe_dtype_name(t->type), layout) && w.type == t->type && w.rows == 128 && w.cols == 64);
    moe_source_drop(src, &t->plane[MOE_PLANE_DATA]);
    OK(!memcmp(b, w.data + 5, sizeof b));
}

static void fixture(const char *path, const char *layout, enum moe_scheme scheme, int64_t raws)
{
    struct moe_err err;
    struct moe_source *src, *again;
    OK(moe_source_open(&src, path, &err) == MOE_OK);
    OK(src->kind == MOE_CHECKPOINT && !src->container && !strcmp(src->layout, layout) &&
       src->scheme == scheme && src->n_files == 3);
    OK(src->n_tensors == 345 && src->n_raws == raws);
    check_config(&src->config);
    check_round_trip(&src->config);
    check_tensors(src, layout);
    const struct moe_tensor *bias = moe_source_find(src, MOE_ROLE_ROUTER_BIAS, 1, -1);
    OK(bias->type == MOE_F32 && bias->rows == 1 && bias->cols == 32);
    OK(!moe_source_find(src, MOE_ROLE_ROUTER_BIAS, 0, -1) && !moe_source_find(src, MOE_ROLE_GATE, 1, -1) &&
       !moe_source_find(src, MOE_ROLE_Q, 1, -1));
    OK(!moe_source_find(src, MOE_ROLE_EXPERT_UP, 1, 32) && !moe_source_find(src, MOE_ROLE_EXPERT_UP, 4, 0) &&
       !moe_source_find(src, MOE_ROLE_EXPERT_UP, 1, -1));
    OK(moe_source_open(&again, path, &err) == MOE_OK);
    struct moe_identity a, b;
    OK(moe_source_identity(src, NULL, &a, &err) == MOE_OK &&
       moe_source_identity(again, NULL, &b, &err) == MOE_OK &&
       moe_identity_same(&a, &b));
    moe_source_close(&again);
    moe_source_close(&src);
    moe_source_close(&src);
    OK(moe_source_open_config(&src, path, &err) == MOE_OK && src->config.hidden_size == 128 &&
       !moe_source_find(src, MOE_ROLE_EMBED, -1, -1));
    moe_source_close(&src);
}

/* ---- what is read ---- */

static void layouts(void)
{
    static const struct { char format; const char *layout; int raws;
    } f[] = { { 'b', "bf16", 35 },
              { '8', "fp8-block128", 57 },
              { 'i', "int4-g32", 47 },
              { 'n', "nvfp4", 53 },
              { 'c', "nvfp4", 53 } };
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        build(f[i].format, "model.", "");
        write_model();
        struct moe_source *src = opened();
        const struct moe_tensor *t = moe_source_find(src, MOE_ROLE_EXPERT_GATE, 1, 1);
        OK(!strcmp(src->layout, f[i].layout) && src->n_tensors == 35 && src->n_raws == f[i].raws);
        OK(t->rows == 32 && t->cols == 64 && t->reciprocal == (f[i].format == 'c'));
        OK((t->global == 0.5f && t->input_scale == 0.25f) == (f[i].layout[0] == 'n'));
        moe_source_close(&src);
    }
}

static void spellings(void)
{
    build('b', "language_model.model.", "language_model.");
    CONFIG("\"kimi_k2\"", "\"kimi_k25\", \"text_config\": {\"model_type\": \"kimi_k2\"");
    CONFIG("DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration");
    CONFIG("\"eos_token_id\": 5}", "\"eos_token_id\": [5, 6]}, \"eos_token_id\": 7}");
    add("vision_tower.encoder.blocks.0.wo.bias", "BF16", 1, 7, 0);
    add("mm_projector.proj.0.weight", "BF16", 2, 7, 7);
    write_model();
    write_all("generation_config.json", "{\"eos_token_id\": [8, 5]}", 24);
    struct moe_source *src = opened();
    int vision = 0;
    for (int64_t i = 0; i < src->n_raws; i++)
        vision += src->raws[i].skipped && !strcmp(src->raws[i].skipped, "vision");
    OK(vision == 2 && src->config.n_eos == 4 && src->config.eos_token_id[3] == 8);
    OK(!strcmp(src->config.architecture, "KimiK25ForConditionalGeneration") && !src->config.yarn);
    moe_source_close(&src);
    build('i', "language_model.", "language_model.");
    write_model();
    open_fine();
    build('b', "model.", ""); /* one file, and files without an index */
    n_files = 1;
    with_index = false;
    for (int i = 0; i < n_list; i++) list[i].file = 0;
    write_model();
    open_fine();
    build('8', "model.", "");
    with_index = false;
    write_model();
    open_fine();
}

static void ropes(void)
{
    static const char yarn[] =
        "\"%s\": {\"%s\": \"yarn\", \"factor\": 64, \"beta_fast\": 32, \"original_max_position_embeddings\": "
        "4096, \"rope_theta\": 60000}, \"rope_theta\": 60000.0";
    static const char *const key[] = { "rope_scaling", "rope_parameters" }, *const type[] = { "type",
                                                                                              "rope_type" };
    for (int i = 0; i < 4; i++) {
        char s[256];
        snprintf(s, sizeof s, yarn, key[i / 2], type[i % 2]);
        build('b', "model.", "");
        CONFIG("\"rope_theta\": 50000.0", s);
        write_model();
        struct moe_source *src = opened();
        OK(src->config.yarn && src->config.yarn_factor == 64 && src->config.beta_fast == 32 &&
           src->config.beta_slow == 1);
        OK(src->config.mscale == 1 && src->config.mscale_all_dim == 0 && src->config.rope_theta == 60000);
        check_round_trip(&src->config);
        moe_source_close(&src);
    }
}

static void skips(void)
{
    build('8', "model.", "");
    CONFIG("\"eos_token_id\": 5", "\"num_nextn_predict_layers\": 1");
    add("model.layers.0.self_attn.rotary_emb.inv_freq", "BF16", 1, 56, 0);
    add("model.layers.2.eh_proj.weight", "BF16", 2, 4, 4);
    add("model.layers.2.mlp.experts.9.up_proj.weight", "BF16", 2, 4, 4);
    add("model.layers.1.self_attn.k_proj.k_scale", "F32", 0, 0, 0);
    write_model();
    struct moe_source *src = opened();
    int n[3] = { 0 };
    for (int64_t i = 0; i < src->n_raws; i++) {
        const char *why = src->raws[i].skipped;
        n[0] += why && !strcmp(why, "rotary buffer");
        n[1] += why && !strcmp(why, "multi-token prediction");
        n[2] += why && !strcmp(why, "kv scale");
    }
    OK(n[0] == 1 && n[1] == 2 && n[2] == 1 && src->n_tensors == 35);
    OK(src->config.n_eos == 0 && src->config.bos_token_id == -1);
    moe_source_close(&src);
}

/* A config as an editor on another system leaves it: a byte order mark, many end tokens, a
 * default not written out. */
static void other_spellings(void)
{
    char marked[sizeof config + 3];
    struct moe_config c;
    struct moe_err err;
    enum moe_scheme scheme;
    build('b', "model.", "");
    CONFIG("\"eos_token_id\": 5", "\"eos_token_id\": [5, 6, 7, 8, 9, 10, 5]");
    CONFIG("\"q_lora_rank\": 32,", "");
    write_model();
    int n = snprintf(marked, sizeof marked, "\xef\xbb\xbf%s", config);
    write_all("config.json", marked, (size_t)n);
    OK(moe_config_read(dir, &c, &scheme, &err) == MOE_OK);
    OK(c.n_eos == 6 && c.eos_token_id[5] == 10 && c.q_lora_rank == 1536);
    cJSON *again = moe_config_json(&c);
    OK(again && cJSON_GetArraySize(cJSON_GetObjectItem(again, "eos_token_id")) == 6);
    cJSON_Delete(again);
}

static void other_shapes(void)
{
    build('b', "model.", ""); /* tied embeddings; no low-rank queries; a scalar as [1]; BF16 router bias */
    CONFIG("\"eos_token_id\": 5", "\"tie_word_embeddings\": true");
    CONFIG("\"q_lora_rank\": 32", "\"q_lora_rank\": null");
    spec("lm_head.weight")->drop = true;
    for (int l = 0; l < 2; l++) {
        char s[128];
        snprintf(s, sizeof s, "model.layers.%d.self_attn.q_a_proj.weight", l);
        *strstr(spec(s)->name, "_a_proj") = 0;
        snprintf(s, sizeof s, "model.layers.%d.self_attn.q", l);
        struct spec *q = spec(s);
        strcat(q->name, "_proj.weight");
        q->shape[0] = 48;
        snprintf(s, sizeof s, "model.layers.%d.self_attn.q_a_layernorm.weight", l);
        spec(s)->drop = true;
        snprintf(s, sizeof s, "model.layers.%d.self_attn.q_b_proj.weight", l);
        spec(s)->drop = true;
    }
    snprintf(spec("model.layers.1.mlp.gate.e_score_correction_bias")->dtype, 8, "BF16");
    write_model();
    struct moe_source *src = opened();
    OK(moe_source_find(src, MOE_ROLE_HEAD, -1, -1) == moe_source_find(src, MOE_ROLE_EMBED, -1, -1));
    OK(moe_source_find(src, MOE_ROLE_Q, 1, -1)->rows == 48 && !moe_source_find(src, MOE_ROLE_Q_A, 1, -1));
    OK(moe_source_find(src, MOE_ROLE_ROUTER_BIAS, 1, -1)->type == MOE_BF16);
    check_round_trip(&src->config);
    moe_source_close(&src);
    build('n', "model.", "");
    spec(E0 "up_proj.weight_scale_2")->ndim = 1;
    spec(E0 "up_proj.weight_scale_2")->value = 2;  /* another than gate's: opens */
    spec(E0 "up_proj.input_scale")->drop = true;
    write_model();
    src = opened();
    OK(moe_source_find(src, MOE_ROLE_EXPERT_UP, 1, 0)->global == 2 &&
       moe_source_find(src, MOE_ROLE_EXPERT_UP, 1, 0)->input_scale == 0);
    moe_source_close(&src);
}

/* One expert's up projection of a checkpoint that was just written has this type. */
static void expect_type(int type)
{
    write_model();
    struct moe_source *src = opened();
    const struct moe_tensor *t = moe_source_find(src, MOE_ROLE_EXPERT_UP, 1, 0);
    OK(t->type == type && t->rows == 32 && t->cols == 64);
    moe_source_close(&src);
}

/* Scales of other dtypes, names and groups; half precision everywhere. */
static void other_types(void)
{
    static const struct {
        const char *dtype;
        int type;
    } fp8[] = { { "BF16", MOE_FP8_B128_BF16 }, { "F8_E8M0", MOE_FP8_B128_E8M0 } };
    static const struct { const char *dtype; int64_t scales; int type; } int4[] = {
        { "F16", 2, MOE_INT4_G32_F16 }, { "BF16", 1, MOE_INT4_G64 }, { "F16", 1, MOE_INT4_G64_F16 } };
    for (int i = 0; i < 2; i++) {
        build('8', "model.", "");
        strcpy(spec(E0 "up_proj.weight_scale_inv")->dtype, fp8[i].dtype);
        expect_type(fp8[i].type);
        build('8', "model.", ""); /* as compressed-tensors' FP8_BLOCK is spelled */
        strcpy(spec(E0 "up_proj.weight_scale_inv")->dtype, fp8[i].dtype);
        strcpy(spec(E0 "up_proj.weight_scale_inv")->name, E0 "up_proj.weight_scale");
        expect_type(fp8[i].type);
    }
    for (int i = 0; i < 3; i++) {
        build('i', "model.", "");
        strcpy(spec(E0 "up_proj.weight_scale")->dtype, int4[i].dtype);
        spec(E0 "up_proj.weight_scale")->shape[1] = int4[i].scales;
        expect_type(int4[i].type);
    }
    build('b', "model.", "");
    for (int i = 0; i < n_list; i++)
        if (!strcmp(list[i].dtype, "BF16")) strcpy(list[i].dtype, "F16");
    expect_type(MOE_F16);
}

/* ---- what is refused ---- */

#define CASE(format, ...) do { build(format, "model.", ""); __VA_ARGS__; write_model(); } while (0)
#define S(name) spec(name)

/* Labels of models with several formats. */
#define MODELOPT_MIXED(group) \
    "\"quantization_config\": {\"quant_method\": \"modelopt\", \"quant_algo\": \"MIXED_PRECISION\"," \
    "\"quantized_layers\": {\"a\": {\"quant_algo\": \"FP8\"}, \"b\": {\"quant_algo\": \"NVFP4\", " \
    "\"group_size\": " group "}}}"
#define MIXED(group) \
    "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\"," \
    "\"config_groups\": {\"group_0\": {\"format\": \"nvfp4-pack-quantized\"}, \"group_1\": " group "}}"
#define FP8_BLOCK(size, strategy) \
    "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\"," \
    "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": " \
    "\"" strategy "\"," \
    "\"group_size\": null, \"block_structure\": " size "}}}}"
#define ROPE(key, more) \
    "\"rope_" key "\": {\"type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": 64" more "}"
#define PACKED(weights) \
    "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"," \
    "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, " weights "}}}}"
#define ROTATED(groups) \
    "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"," \
    "\"transform_config\": {" groups "}}"
#define AT(where) "\"config_groups\": {\"v\": {\"type\": \"hadamard\", \"apply\": [" where "]}}"
#define WEIGHT "{\"targets\": [\"Linear\"], \"location\": \"weight_input\", \"inverse\": true}"
#define SPARSE(format) \
    "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"," \
    "\"sparsity_config\": {" format "}}"
#define AWQ(on) \
    "\"quantization_config\": {\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\", " \
    "\"pre_quant_scale\": " on "}"
#define INT4(order) \
    "{\"format\": \"pack-quantized\", \"weights\": {\"num_bits\": 4, \"group_size\": 32, " \
    "\"actorder\": " order "}}"

static void refused_configs(void)
{
    snprintf(config, sizeof config, "%s", dir);
    strcat(dir, "/none");
    expect(MOE_NOT_FOUND, "none", "", "does not exist", false);
    strcpy(dir, config);
    CASE('b', *config = 0);
    expect(MOE_NOT_FOUND, strrchr(dir, '/') + 1, "", "holds neither a config.json nor", false);
    static const struct { const char *from, *to, *what; enum moe_code code;
    } bad[] = {
        { "DeepseekV3ForCausalLM", "LlamaForCausalLM", "architecture 'LlamaForCausalLM' is not supported",
          MOE_UNSUPPORTED },
        { "DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM\"], \"x\": [\"", NULL, MOE_OK },
        { "\"sigmoid\"", "\"softmax\"", "scoring_func 'softmax'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"quantization_config\": {\"quant_method\": \"gptq\"}",
          "'gptq' is not supported", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"quantization_config\": {\"quant_method\": \"fp8\"}", "weight_block_size",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5",
          "\"quantization_config\": {\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8\"}",
          "quant_algo 'FP8'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5",
          "\"quantization_config\": {\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}", NULL,
          MOE_OK },
        { "\"eos_token_id\": 5", FP8_BLOCK("[128, 128]", "block"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", FP8_BLOCK("[128, 64]", "block"), "another 'block_structure'",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", FP8_BLOCK("\"128x128\"", "block"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", FP8_BLOCK("\"128x64\"", "block"), "another 'block_structure'",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", FP8_BLOCK("[128, 128]", "channel"),
          "float-quantized with strategy 'channel'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", PACKED("\"group_size\": 64"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", PACKED("\"group_size\": 128, \"strategy\": \"group\""), NULL, MOE_OK },
        { "\"eos_token_id\": 5", PACKED("\"group_size\": null, \"strategy\": \"channel\""), NULL, MOE_OK },
        { "\"eos_token_id\": 5", PACKED("\"group_size\": 16"), "another 'group_size'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", PACKED("\"group_size\": null, \"strategy\": \"tensor\""),
          "another 'group_size'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", MODELOPT_MIXED("16"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", MODELOPT_MIXED("32"), "another 'group_size'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", MIXED(INT4("\"weight\"")), NULL, MOE_OK },
        { "\"eos_token_id\": 5", MIXED(INT4("\"static\"")), NULL, MOE_OK },
        { "\"eos_token_id\": 5", MIXED(INT4("null")), NULL, MOE_OK },
        { "\"eos_token_id\": 5", MIXED(INT4("\"group\"")),
          "actorder 'group' is not supported: its columns are permuted", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", MIXED(INT4("true")), "actorder 'true' is not supported", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", MIXED("{\"format\": \"float-quantized\", \"weights\": {\"num_bits\": 8}}"),
          NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROTATED(""), NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROTATED("\"config_groups\": {}"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROTATED(AT(WEIGHT ", {\"location\": \"weight_output\"}")), NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROTATED(AT(WEIGHT ", {\"location\": \"input\"}")),
          "transform_config with location 'input'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROTATED(AT("{\"location\": \"output\"}")),
          "transform_config with location 'output'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROTATED(AT("{\"location\": \"k_cache\"}")),
          "transform_config with location 'k_cache'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROTATED(AT("{}")), "the key 'location' is missing", MOE_CORRUPT },
        { "\"eos_token_id\": 5", ROTATED("\"config_groups\": []"), "'transform_config' is not an object",
          MOE_CORRUPT },
        { "\"eos_token_id\": 5", ROTATED("\"config_groups\": {\"v\": {}}"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROTATED("\"config_groups\": {\"v\": {\"apply\": {}}}"),
          "'apply' of transform_config", MOE_CORRUPT },
        { "\"eos_token_id\": 5", "\"compression_config\": {\"quant_method\": \"gptq\"}",
          "'gptq' is not supported", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", SPARSE(""), NULL, MOE_OK },
        { "\"eos_token_id\": 5", SPARSE("\"format\": \"dense\""), NULL, MOE_OK },
        { "\"eos_token_id\": 5", SPARSE("\"format\": \"sparse-24-bitmask\""),
          "sparsity_config with format 'sparse-24-bitmask'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", AWQ("false"), NULL, MOE_OK },
        { "\"eos_token_id\": 5", AWQ("true"), "pre_quant_scale is not supported", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}",
          "rope type 'linear'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"rope_scaling\": {\"type\": \"yarn\"}", "'factor' is missing",
          MOE_CORRUPT },
        { "\"eos_token_id\": 5", ROPE("scaling", ", \"truncate\": false"), "truncate false is not supported",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROPE("parameters", ", \"truncate\": false"),
          "truncate false is not supported", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5",
          ROPE("scaling", ", \"truncate\": true, \"attn_factor\": 1, \"extrapolation_factor\": 1.0, "
                          "\"attention_factor\": null"),
          NULL, MOE_OK },
        { "\"eos_token_id\": 5", ROPE("scaling", ", \"attn_factor\": 1.5"), "attn_factor 1.5 of yarn",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROPE("scaling", ", \"extrapolation_factor\": 0.5"),
          "extrapolation_factor 0.5 of yarn", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROPE("scaling", ", \"attention_factor\": 1"), "attention_factor of yarn",
          MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROPE("scaling", ", \"apply_yarn_scaling\": false"),
          "apply_yarn_scaling false", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", ROPE("scaling", "") ", " ROPE("parameters", ", \"rope_theta\": 50000"), NULL,
          MOE_OK },
        { "\"eos_token_id\": 5", ROPE("scaling", "") ", " ROPE("parameters", ", \"beta_fast\": 16"),
          "'rope_parameters' disagree", MOE_CORRUPT },
        { "\"eos_token_id\": 5", ROPE("scaling", "") ", \"rope_parameters\": {\"rope_type\": \"default\"}",
          "'rope_parameters' disagree", MOE_CORRUPT },
        { "\"eos_token_id\": 5", "\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 2}",
          "rope type 'dynamic'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5",
          "\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}",
          "partial_rotary_factor 0.5", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"yarn\"}}",
          "settings of its own for 'full_attention'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"rope_scaling\": {\"factor\": 4}",
          "'rope_scaling' has a factor and no type", MOE_CORRUPT },
        { "\"eos_token_id\": 5", "\"hidden_act\": \"gelu\"", "hidden_act 'gelu'", MOE_UNSUPPORTED },
        { "\"eos_token_id\": 5", "\"attention_bias\": true", "attention_bias", MOE_UNSUPPORTED },
        { "\"hidden_size\": 64,", "", "the key 'hidden_size' is missing", MOE_CORRUPT },
        { "\"hidden_size\": 64", "\"hidden_size\": 1e30", "'hidden_size'", MOE_CORRUPT },
        { "\"hidden_size\": 64", "\"hidden_size\": \"64\"", "'hidden_size' is not a whole number",
          MOE_CORRUPT },
        { "\"hidden_size\": 64", "\"hidden_size\": 64, \"hidden_size\": 65", "appears twice", MOE_CORRUPT },
        { "\"n_group\": 1", "\"n_group\": 3", "'n_group' does not divide", MOE_CORRUPT },
        { "\"num_experts_per_tok\": 1", "\"num_experts_per_tok\": 3", "'num_experts_per_tok'", MOE_CORRUPT },
        { "\"n_routed_experts\": 2", "\"n_routed_experts\": 65536", NULL, MOE_CORRUPT },
        { "{\"arch", "[\"arch", "is not JSON", MOE_CORRUPT },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CASE('b', CONFIG(bad[i].from, bad[i].to));
        if (bad[i].code == MOE_OK) open_fine();
        else if (bad[i].what) expect(bad[i].code, "config.json", "", bad[i].what, false);
        else
            expect(bad[i].code, file_name(spec("model.layers.1.mlp.gate.weight")->file),
                   "model.layers.1.mlp.gate.weight", "the config wants 65536 x 64", true);
    }
    CASE('b', (void)0);
    write_all("hf_quant_config.json", "{\"quantization\": {\"quant_algo\": \"W4A8_AWQ\"}}", 44);
    expect(MOE_UNSUPPORTED, "hf_quant_config.json", "", "'W4A8_AWQ' is not supported", false);
    CASE('b', CONFIG("\"eos_token_id\": 5", AWQ("false")));
    static const char awq[] = "{\"quantization\": {\"quant_algo\": \"NVFP4\", \"pre_quant_scale\": true}}";
    write_all("hf_quant_config.json", awq, sizeof awq - 1);
    expect(MOE_UNSUPPORTED, "hf_quant_config.json", "", "pre_quant_scale is not supported", false);
}

static void refused_tensors(void)
{
    char one[64], two[64], up[] = E0 "up_proj.weight";
    CASE('b', (void)0);
    strcpy(one, file_name(0));
    strcpy(two, file_name(1));
    const char *in = S(up)->file ? two : one, *scale = S(up)->file ? one : two;
    CASE('b', S(up)->drop = true);
    expect(MOE_CORRUPT, strrchr(dir, '/') + 1, up, "missing: config.json calls for it", true);
    CASE('b', add("model.layers.1.mlp.experts.2.up_proj.weight", "BF16", 2, 32, 64)->file = 0);
    expect(MOE_CORRUPT, one, "model.layers.1.mlp.experts.2.up_proj.weight",
           "the config calls for no such tensor", true);
    CASE('b', add("model.layers.1.self_attn.bogus.weight", "BF16", 2, 32, 64)->file = 0);
    expect(MOE_CORRUPT, one, "model.layers.1.self_attn.bogus.weight", "is no tensor of this architecture",
           true);
    CASE('b', add("model.layers.2.input_layernorm.weight", "BF16", 1, 64, 0)->file = 1);
    expect(MOE_CORRUPT, two, "model.layers.2.input_layernorm.weight", "lies beyond the last layer", true);
    CASE('b', S(up)->shape[0] = 31);
    expect(MOE_CORRUPT, in, up, "has shape 31 x 64, the config wants 32 x 64", true);
    CASE('b', S(up)->ndim = 1);
    expect(MOE_CORRUPT, in, up, "has 1 dimension, not 2", true);
    CASE('b', S(up)->shape[0] = 0, S(up)->shape[1] = INT64_MAX / 8); /* no bytes, and 8 * columns overflows */
    expect(MOE_CORRUPT, in, up, "has 1152921504606846975 columns, too many to be true", true);
    CASE('b', strcpy(S(up)->dtype, "F8_E5M2"));
    expect(MOE_UNSUPPORTED, in, up, "dtype F8_E5M2 is not supported", true);
    CASE('b', strcpy(S("model.norm.weight")->dtype, "F8_E4M3"));
    expect(MOE_UNSUPPORTED, S("model.norm.weight")->file ? two : one, "model.norm.weight",
           "has dtype F8_E4M3", true);
    CASE('8', (void)0);
    in = S(up)->file ? two : one;
    scale = S(E0 "up_proj.weight_scale_inv")->file ? two : one;
    OK(strcmp(in, scale)); /* scales do lie in the other shard */
    CASE('8', S(E0 "up_proj.weight_scale_inv")->drop = true);
    expect(MOE_CORRUPT, in, up, "its 'weight_scale_inv' is missing", true);
    CASE('8', S(up)->drop = true);
    expect(MOE_CORRUPT, scale, E0 "up_proj.weight_scale_inv", "has no weight beside it", true);
    CASE('8', strcpy(S(up)->dtype, "BF16"));
    expect(MOE_CORRUPT, scale, E0 "up_proj.weight_scale_inv", "mixed layouts", true);
    CASE('8', S(E0 "up_proj.weight_scale_inv")->shape[0] = 2);
    expect(MOE_CORRUPT, scale, E0 "up_proj.weight_scale_inv", "has shape 2 x 1, its weight wants 1 x 1",
           true);
    CASE('8', strcpy(S(E0 "up_proj.weight_scale_inv")->dtype, "F16"));
    expect(MOE_UNSUPPORTED, scale, E0 "up_proj.weight_scale_inv",
           "has dtype F16, which is not supported here (F32, BF16 and F8_E8M0 are)", true);
    CASE('8', strcpy(S(E0 "up_proj.weight_scale_inv")->name, E0 "up_proj.weight_scale"),
         S(E0 "up_proj.weight_scale")->shape[0] = 32);
    expect(MOE_UNSUPPORTED, scale, E0 "up_proj.weight_scale", "one scale for each row is not supported",
           true);
    static const char *const spelled[] = { "up_proj.weight_scale", "up_proj.weight_scale_inv" };
    for (int i = 0; i < 4; i++) { /* [] and [1], of a weight that is one block */
        char other[96];
        snprintf(other, sizeof other, E0 "%s", spelled[i / 2]);
        CASE('8', strcpy(S(E0 "up_proj.weight_scale_inv")->name, other), S(other)->ndim = i % 2);
        expect(MOE_UNSUPPORTED, scale, other, "one scale for the whole weight is not supported", true);
    }
    CASE('8', add(E0 "up_proj.weight_scale", "F32", 2, 1, 1));
    expect(MOE_CORRUPT, S(E0 "up_proj.weight_scale")->file ? two : one, E0 "up_proj.weight_scale",
           "mixed layouts", true);
    CASE('i', add(E0 "up_proj.weight", "BF16", 2, 32, 64));
    expect(MOE_CORRUPT, S(E0 "up_proj.weight_packed")->file ? two : one, E0 "up_proj.weight_packed",
           "mixed layouts", true);
    CASE('i', add(E0 "up_proj.weight_zero_point", "I32", 2, 4, 2));
    expect(MOE_UNSUPPORTED, S(E0 "up_proj.weight_zero_point")->file ? two : one,
           E0 "up_proj.weight_zero_point", "is the zero point of an asymmetric quantization", true);
    CASE('i', add(E0 "up_proj.weight_g_idx", "I32", 1, 64, 0));
    expect(MOE_UNSUPPORTED, S(E0 "up_proj.weight_g_idx")->file ? two : one, E0 "up_proj.weight_g_idx",
           "is the order of columns that a quantization permuted", true);
    CASE('i', S(E0 "up_proj.weight_scale")->shape[1] = 4);
    expect(MOE_UNSUPPORTED, S(E0 "up_proj.weight_scale")->file ? two : one, E0 "up_proj.weight_scale",
           "int4 in groups of 16", true);
    CASE('i', strcpy(S(E0 "up_proj.weight_scale")->dtype, "F32"));
    expect(MOE_UNSUPPORTED, S(E0 "up_proj.weight_scale")->file ? two : one, E0 "up_proj.weight_scale",
           "has dtype F32", true);
    CASE('i', S(E0 "up_proj.weight_shape")->drop = true);
    open_fine();
    CASE('n', S(E0 "up_proj.weight_scale_2")->value = 0);
    expect(MOE_CORRUPT, S(E0 "up_proj.weight_scale_2")->file ? two : one, up, "its global scale is 0", true);
    CASE('n', S(E0 "up_proj.weight_scale_2")->value = (float)(1e300 * 1e300));
    expect(MOE_NONFINITE, S(E0 "up_proj.weight_scale_2")->file ? two : one, up, "its global scale is inf",
           true);
    CASE('c', S(E0 "up_proj.weight_global_scale")->shape[0] = 2);
    expect(MOE_CORRUPT, S(E0 "up_proj.weight_global_scale")->file ? two : one,
           E0 "up_proj.weight_global_scale", "is no single value", true);
    CASE('b', add("language_model.model.norm.weight", "BF16", 1, 64, 0)->file = 1);
    expect(MOE_CORRUPT, two, "language_model.model.norm.weight", "is in 'model-0000", true);
    /* An index that says something else than the shards do. */
    CASE('b', (void)0);
    spec(up)->drop = true;
    write_file(spec(up)->file);
    expect(MOE_CORRUPT, S(up)->file ? two : one, up, "which does not hold it", true);
    CASE('b', S(up)->file ^= 1);
    S(up)->file ^= 1;
    write_index();
    expect(MOE_CORRUPT, S(up)->file ? two : one, up, "which does not hold it, while another file does", true);
    static const char outside[] = "{\"weight_map\": {\"model.norm.weight\": \"../x.safetensors\"}}";
    write_all("model.safetensors.index.json", outside, sizeof outside - 1);
    expect(MOE_CORRUPT, "model.safetensors.index.json", "model.norm.weight",
           "'../x.safetensors', which is no plain file name", false);
    static const char twice[] = "{\"weight_map\": {\"a\": \"x\", \"a\": \"x\"}}";
    write_all("model.safetensors.index.json", twice, sizeof twice - 1);
    expect(MOE_CORRUPT, "model.safetensors.index.json", "a", "is named twice", false);
}

/* The first problem is reported alone, although hundreds of tensors follow from it. */
static void refused_shards(void)
{
    char path[512], one[64];
    CASE('8', (void)0);
    strcpy(one, file_name(1));
    snprintf(path, sizeof path, "%s/%s", dir, one);
    assert(!unlink(path));
    expect(MOE_NOT_FOUND, one, "", "is named by model.safetensors.index.json and not there (the download",
           true);
    OK(!symlink("../../blobs/none", path));
    expect(MOE_NOT_FOUND, one, "", "is a link to a file that is not there", true);
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4983282240\n";
    assert(!unlink(path));
    write_all(one, pointer, sizeof pointer - 1);
    expect(MOE_CORRUPT, one, "", "is a Git LFS pointer, not the file itself", true);
    write_all("config.json", pointer, sizeof pointer - 1);
    expect(MOE_CORRUPT, "config.json", "", "is a Git LFS pointer", false);
    CASE('8', (void)0);
    assert(!unlink(path));
    write_all("model-00007-of-00007.safetensors", "", 0);
    expect(MOE_NOT_FOUND, one, "",
           "while 'model-00007-of-00007.safetensors' is, which the index does not name", true);
    snprintf(path, sizeof path, "%s/model-00007-of-00007.safetensors", dir);
    assert(!unlink(path));
    struct moe_source *src;
    struct moe_err err;
    cJSON *problems;
    OK(moe_source_survey(&src, dir, &problems, &err) == MOE_OK && cJSON_GetArraySize(problems) == 1);
    cJSON_Delete(problems);
    moe_source_close(&src);
    CASE('b', for (int i = 0; i < n_list; i++) list[i].file = 0; S("model.norm.weight")->file = 1;
         S("lm_head.weight")->file = 1);
    cut(file_name(1), 4);
    expect(MOE_CORRUPT, file_name(1), "lm_head.weight", "the file ends in it, 4 bytes short (fetch", true);
    OK(moe_source_survey(&src, dir, &problems, &err) == MOE_OK && cJSON_GetArraySize(problems) == 1);
    cJSON_Delete(problems);
    moe_source_close(&src);
    CASE('b', (void)0);
    cut(file_name(1), -4);
    expect(MOE_CORRUPT, file_name(1), "", "4 bytes after the last tensor", true);
    CASE('b', with_index = false);
    for (int f = 0; f < 2; f++) {
        snprintf(path, sizeof path, "%s/%s", dir, file_name(f));
        assert(!unlink(path));
    }
    expect(MOE_NOT_FOUND, strrchr(dir, '/') + 1, "", "holds no safetensors files", false);
}

static void refused_headers(void)
{
#define T(name, rest) "\"" name "\": {\"dtype\": \"F32\", " rest "}"
    static char deep[600];
    memset(deep, '[', 500);
    memcpy(deep, "{\"a\": {\"dtype\": ", 16);
    static const struct {
        const char *header, *tensor, *what;
        uint64_t length;
        size_t data;
        enum moe_code code;
    } bad[] = {
        { "{}", "", "a header of 100000001 bytes", 100000001, 0, MOE_CORRUPT },
        { "{}", "", "a header of 18446744073709551615 bytes", UINT64_MAX, 0, MOE_CORRUPT },
        { "{}", "", "98 bytes short in its header", 100, 0, MOE_CORRUPT },
        { "{", "", "a string is missing", 0, 0, MOE_CORRUPT },
        { "[]", "", "not an object", 0, 0, MOE_CORRUPT },
        { "{} x", "", "text after the value", 0, 0, MOE_CORRUPT },
        { deep, "a", "malformed", 0, 0, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [0, 8]") ", " T("a", "\"shape\": [2], "
                                                                             "\"data_offsets\": [8, 16]") "}",
          "a", "appears twice", 0, 16, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"shape\": [2], \"data_offsets\": [0, 8]") "}", "a", "a duplicate key",
          0, 8, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2]") "}", "a", "is missing", 0, 8, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [8, 0]") "}", "a", "bad offsets 8 to 0", 0, 8,
          MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [0, 7]") "}", "a",
          "has 7 bytes, its shape and type want 8", 0, 8, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [-2], \"data_offsets\": [0, 8]") "}", "a", "not a whole number", 0, 8,
          MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2.0], \"data_offsets\": [0, 8]") "}", "a", "not a whole number", 0, 8,
          MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [0, 99999999999999999999]") "}", "a",
          "a number too large", 0, 8, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [4294967296, 4294967296], \"data_offsets\": [0, 0]") "}", "a",
          "too large to be true", 0, 0, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [1,1,1,1,1,1,1,1,1], \"data_offsets\": [0, 4]") "}", "a", "a list too long",
          0, 4, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [0, 8]") ", " T("b", "\"shape\": [2], "
                                                                             "\"data_offsets\": [4, 12]") "}",
          "b", "overlaps tensor 'a'", 0, 12, MOE_CORRUPT },
        { "{" T("a", "\"shape\": [2], \"data_offsets\": [0, 8]") ", " T(
              "b", "\"shape\": [2], \"data_offsets\": [12, 20]") "}",
          "b", "4 bytes before it belong to no tensor", 0, 20, MOE_CORRUPT },
        { "{\"a\": {\"dtype\": \"F4_X\", \"shape\": [], \"data_offsets\": [0, 4]}}", "a",
          "unknown dtype 'F4_X'", 0, 4, MOE_UNSUPPORTED },
        { "{\"__metadata__\": {\"a\": 1}}", "", "a string is missing", 0, 0, MOE_CORRUPT },
        { "{\"__metadata__\": {}, \"__metadata__\": {}}", "", "__metadata__ appears twice", 0, 0,
          MOE_CORRUPT },
        { "{\"\\u0000\": 1}", "", "a NUL in a string", 0, 0, MOE_CORRUPT },
        { "{\"\xff\": 1}", "", "invalid UTF-8", 0, 0, MOE_CORRUPT },
    };
#undef T
    build('b', "model.", "");
    n_files = 0;
    with_index = false;
    write_model();
    n_files = 1;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_raw("model.safetensors", bad[i].header, bad[i].length ? bad[i].length : strlen(bad[i].header),
                  bad[i].data);
        expect(bad[i].code, "model.safetensors", bad[i].tensor, bad[i].what, true);
    }
    write_all("model.safetensors", "1234", 4);
    expect(MOE_CORRUPT, "model.safetensors", "", "4 bytes are no safetensors file", true);
}

/* With more shards than the soft limit of open files the limit is raised; with more than the hard limit a
 * message says so. */
static void few_descriptors(void)
{
    struct rlimit old, low;
    OK(!getrlimit(RLIMIT_NOFILE, &old));
    CASE('8', (void)0);
    int next = dup(0); /* the lowest free one */
    close(next);
    low = (struct rlimit){ (rlim_t)next + 1, old.rlim_max };
    OK(!setrlimit(RLIMIT_NOFILE, &low));
    open_fine();
    OK(!getrlimit(RLIMIT_NOFILE, &low) && low.rlim_cur == old.rlim_max);
    OK(!setrlimit(RLIMIT_NOFILE, &old));
    pid_t child = fork();
    if (!child) {
        low = (struct rlimit){ (rlim_t)next + 1, (rlim_t)next + 1 };
        assert(!setrlimit(RLIMIT_NOFILE, &low));
        expect(MOE_IO, file_name(1), "", "too many open files: 2 are needed", true);
        _exit(0);
    }
    int status;
    OK(waitpid(child, &status, 0) == child && status == 0);
}

/* ---- the writer ---- */

static void writer(void)
{
    struct moe_st_entry t[] = { { .name = "a\"\\\n", .dtype = "F32" },
                                { .name = "b", .dtype = "U8", .ndim = 2, .shape = { 3, 5 } },
                                { .name = "empty", .dtype = "BF16", .ndim = 1 } };
    const char *files[] = { "x.safetensors", "x.safetensors", "y\"" };
    struct moe_st_writer *w;
    struct moe_st_header h;
    struct moe_arena arena = MOE_ARENA_INIT;
    struct moe_err err;
    unsigned char b[19], back[19];
    char path[256], *text;
    uint64_t size;
    size_t n;
    int fd;
    fresh_dir();
    for (int i = 0; i < 19; i++) b[i] = (unsigned char)i;
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    OK(moe_st_create(&w, path, t, 3, &err) == MOE_OK && moe_exists(path) == MOE_ABSENT);
    OK(moe_st_write(w, b, 3, &err) == MOE_OK && moe_st_write(w, b + 3, 16, &err) == MOE_OK &&
       moe_st_write(w, b, 1, &err) == MOE_INTERNAL);
    OK(moe_st_finish(&w, &err) == MOE_OK && !w);
    OK(moe_open_read(path, &fd, &size, &err) == MOE_OK &&
       moe_st_read(fd, path, size, &arena, &h, &err) == MOE_OK);
    OK(h.n == 3 && h.data_offset % 8 == 0 && moe_st_check_size(&h, path, size, &err) == MOE_OK &&
       h.entries[0].offset == t[0].offset);
    OK(!strcmp(h.entries[0].name, t[0].name) && h.entries[0].ndim == 0 && h.entries[0].bytes == 4 &&
       h.entries[1].shape[1] == 5);
    OK(moe_pread(fd, path, back, 19, h.data_offset, &err) == MOE_OK && !memcmp(b, back, 19));
    close(fd);
    free(h.entries);
    moe_arena_clear(&arena);
    OK(moe_st_create(&w, path, t, 3, &err) == MOE_OK && moe_st_finish(&w, &err) == MOE_INTERNAL && !w);
    OK(moe_st_create(&w, path, t, 3, &err) == MOE_OK);
    moe_st_abort(&w);
    strcat(path, ".tmp");
    OK(moe_exists(path) == MOE_ABSENT);
    OK(moe_st_write_index(dir, (const char *const[]){ t[0].name, t[1].name, t[2].name }, files, 3, 19,
                          &err) == MOE_OK);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    OK(moe_read_file(path, 1 << 20, &text, &n, &err) == MOE_OK);
    cJSON *j;
    OK(moe_json_parse(text, n, path, &j, &err) == MOE_OK);
    OK(!strcmp(moe_json_get(moe_json_get(j, "weight_map"), "empty")->valuestring, "y\""));
    OK(moe_json_get(moe_json_get(j, "metadata"), "total_size")->valuedouble == 19);
    cJSON_Delete(j);
    free(text);
}

int main(void)
{
    struct moe_err err;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.30s/moe-source.XXXXXX", tmp && *tmp && strlen(tmp) < 30 ? tmp : "/tmp");
    assert(mkdtemp(dir));
    fixture(DATA "bf16", "bf16", MOE_SCHEME_NONE, 345);
    fixture(DATA "fp8", "fp8-block128", MOE_SCHEME_FP8, 665);
    fixture(DATA "int4", "int4-g32", MOE_SCHEME_INT4, 921);
    layouts();
    spellings();
    ropes();
    skips();
    other_shapes();
    other_types();
    other_spellings();
    refused_configs();
    refused_tensors();
    refused_shards();
    refused_headers();
    few_descriptors();
    writer();
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-source: %ld checks\n", checks);
    return 0;
}
