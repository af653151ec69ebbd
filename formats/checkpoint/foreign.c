/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint/foreign.h"

#include "base/io.h"

#include <string.h>
#include <unistd.h>

/* ---- architectures ----
 *
 * In config.json "architectures" names a class, such as MixtralForCausalLM, and "model_type" a family.  The
 * first row is taken whose class the architecture begins with or, where a config names no architecture, whose
 * type the model type begins with.  No supported name begins so. */
static const struct { const char *class, *type, *name, *why; } models[] = {
    { "KimiK3", "kimi_k3", "Kimi K3", "most of its layers have linear attention" },
    { "KimiLinear", "kimi_linear", "Kimi Linear", "most of its layers have linear attention" },
    { "KimiVL", "kimi_vl", "Kimi-VL", "of multimodal models K2.5 and later are" },
    { "MoonVi", "moonvit", "MoonViT", "a vision tower alone has no text model" },
    { "DeepseekV32", "deepseek_v32", "DeepSeek-V3.2", "its attention is sparse, by an indexer" },
    { "DeepseekV4", "deepseek_v4", "DeepSeek-V4", "its attention is another" },
    { "DeepseekVL", "deepseek_vl", "DeepSeek-VL", "of multimodal models K2.5 and later are" },
    { "DeepseekForCausalLM", "", "DeepSeek-MoE", "its attention and its router are others" },
    { "GlmMoeDsa", "glm_moe_dsa", "GLM-5", "its attention is sparse, by an indexer" },
    { "Glm4MoeLite", "glm4_moe_lite", "GLM-4.7-Flash", "whether it computes the same was not tested" },
    { "Glm4", "glm4", "GLM-4", "its attention is another" },
    { "Glm", "glm", "GLM", "its attention is another" },
    { "Mixtral", "mixtral", "Mixtral", "its attention and its router are others" },
    { "Qwen3Next", "qwen3_next", "Qwen3-Next", "most of its layers have linear attention" },
    { "Qwen3", "qwen3", "Qwen3", "its attention and its router are others" },
    { "Qwen2", "qwen2", "Qwen2", "its attention and its router are others" },
    { "Qwen", "qwen", "Qwen", "its attention and its router are others" },
    { "GptOss", "gpt_oss", "GPT-OSS", "its attention and its experts are others" },
    { "Llama4", "llama4", "Llama 4", "its attention and its experts are others" },
    { "Llama", "llama", "Llama", "it has no routed experts" },
    { "MiniMax", "minimax", "MiniMax", "its attention and its router are others" },
    { "Ernie4", "ernie4", "ERNIE 4.5", "its attention and its router are others" },
    { "Hunyuan", "hunyuan", "Hunyuan", "its attention and its router are others" },
    { "HunYuan", "hunyuan", "Hunyuan", "its attention and its router are others" },
    { "Longcat", "longcat", "LongCat", "its layers have two attentions and experts without weights" },
    { "BailingMoe", "bailing_moe", "Ling", "its attention and its router are others" },
    { "Dots1", "dots1", "dots.llm1", "its attention is another" },
    { "Phimoe", "phimoe", "Phi-MoE", "its attention and its router are others" },
    { "PhiMoE", "phimoe", "Phi-MoE", "its attention and its router are others" },
    { "Mistral", "mistral", "Mistral", "its attention is another" },
    { "Gemma", "gemma", "Gemma", "its attention is another" },
};

#define OURS "Kimi K2 to K2.7, Moonlight, DeepSeek-V3, V3.1 and R1 are"

#define TAKE "take the safetensors checkpoint that it was made from"
#define NOT_READ ", which is not read: " TAKE

static bool begins(const char *s, const char *head) { return s && !strncmp(s, head, strlen(head)); }

static int find_model(const char *arch, const char *type)
{
    int n = (int)(sizeof models / sizeof *models);
    for (int i = 0; i < n; i++)
        if (arch ? begins(arch, models[i].class) : *models[i].type && begins(type, models[i].type)) return i;
    return -1;
}

enum moe_code moe_foreign_architecture(const char *arch, const char *type, const char *file,
                                       struct moe_err *err)
{
    int i = find_model(arch, type);
    const char *what = arch ? "architecture" : "model type", *name = arch ? arch : type;
    if (i < 0)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "%s '%.60s' is not supported (" OURS ")", what,
                           name);
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "%s '%.60s' is not supported: this is %s, and %s (" OURS "; for others see "
                       "llm-compressor or NVIDIA's ModelOpt)", what, name, models[i].name, models[i].why);
}

enum moe_code moe_foreign_config(const cJSON *text, const char *type, const char *file, struct moe_err *err)
{
    static const struct { const char *key, *what; } features[] = {
        { "index_topk", "sparse attention by an indexer, as DeepSeek-V3.2 has it" },
        { "index_n_heads", "sparse attention by an indexer, as DeepSeek-V3.2 has it" },
        { "linear_attn_config", "linear attention, as Kimi Linear and K3 have it" },
    };
    if (find_model(NULL, type) >= 0) return moe_foreign_architecture(NULL, type, file, err);
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const cJSON *v = moe_json_get(text, features[i].key);
        if (v && !cJSON_IsNull(v))
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                               "'%s' says that this model has %s, which is not supported ("
                               OURS ")", features[i].key, features[i].what);
    }
    return MOE_OK;
}

const char *moe_foreign_tensor(const char *name)
{
    static const char *const mlx[] = { ".switch_mlp.", ".embed_q.", ".unembed_out." };
    static const struct { const char *end, *what; } beside[] = {
        { ".pre_quant_scale", "is a scale that an engine multiplies activations with (AWQ)" NOT_READ },
        { ".weight_zero_point", "is the zero point of an asymmetric quantization" NOT_READ },
        { ".weight_g_idx", "is the order of columns that a quantization permuted" NOT_READ },
        { ".bitmask", "says which values of a sparse weight are stored" NOT_READ },
    };
    for (size_t i = 0; i < sizeof mlx / sizeof *mlx; i++)
        if (strstr(name, mlx[i])) return "is named as in a model of MLX" NOT_READ;
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if (moe_ends_with(name, beside[i].end)) return beside[i].what;
    return NULL;
}

/* ---- quantizations ---- */

const char *moe_foreign_quantization(const char *method)
{
    static const struct { const char *method, *name; } known[] = {
        { "awq", "AWQ" }, { "gptq", "GPTQ" }, { "bitsandbytes", "bitsandbytes" }, { "hqq", "HQQ" },
        { "eetq", "EETQ" }, { "quanto", "Quanto" }, { "aqlm", "AQLM" }, { "vptq", "VPTQ" },
        { "higgs", "HIGGS" }, { "spqr", "SpQR" }, { "torchao", "torchao" },
        { "fbgemm_fp8", "FBGEMM's FP8" }, { "mxfp4", "MXFP4" }, { "quark", "AMD Quark" },
        { "auto-round", "AutoRound" }, { "intel/auto-round", "AutoRound" }, { "exl2", "EXL2" },
        { "exl3", "EXL3" }, { "bitnet", "BitNet" }, { "marlin", "Marlin" }, { "fp_quant", "FP-Quant" },
        { "mlx", "MLX" }, { "gguf", "GGUF" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(method, known[i].method)) return known[i].name;
    return NULL;
}

/* ---- files ---- */

#define GGUF ", which moe-convert --to gguf writes and only moe-inspect reads: " TAKE
#define TORCH(kind) "holds a model as PyTorch " kind " files, which are not read: " SAVE
#define SAVE "save it as safetensors (save_pretrained of transformers)"
#define HF "export it in the Hugging Face format, as safetensors"

/* The directory holds a file or a directory whose name begins with `head` and ends with `tail`; where `tail`
 * is "" the name is `head`. */
static const struct { const char *head, *tail, *what;
} formats[] = {
    { "adapter_config", ".json",
      "holds an adapter (LoRA), which is no model by itself: merge it into its base model "
      "(merge_and_unload() of peft, then save_pretrained) and give that" },
    { "", ".gguf", "" }, /* its message names the file */
    { "", ".bin.index.json", TORCH(".bin") },
    { "pytorch_model", ".bin", TORCH(".bin") },
    { "", ".pth", TORCH(".pth") },
    { "", ".pt", TORCH(".pt") },
    { "", ".ckpt", TORCH(".ckpt") },
    { "", ".distcp", "holds a distributed PyTorch checkpoint (DCP), which is not read: " HF },
    { "", ".nemo", "holds a model of NeMo, which is not read: " HF },
    { "", ".engine", "holds engines of TensorRT-LLM, which are not read: " TAKE },
    { "", ".onnx", "holds a model as ONNX" NOT_READ },
    { "tf_model", ".h5", "holds a model of TensorFlow" NOT_READ },
    { "flax_model", ".msgpack", "holds a model of Flax" NOT_READ },
    { "weights", ".npz", "holds a model of MLX" NOT_READ },
    { "Modelfile", "", "holds a model of ollama (GGUF)" NOT_READ },
};

static bool is_named(const char *name, const char *head, const char *tail)
{
    return *tail ? begins(name, head) && moe_ends_with(name + strlen(head), tail) : !strcmp(name, head);
}

/* The first row that one of the names fits, and that name; -1 when there is none. */
static int find_format(const struct moe_names *names, const char **name)
{
    for (int k = 0; k < (int)(sizeof formats / sizeof *formats); k++)
        for (size_t i = 0; i < names->n; i++)
            if (is_named(*name = names->v[i], formats[k].head, formats[k].tail)) return k;
    return -1;
}

static enum moe_code say_format(const char *dir, int k, const char *name, struct moe_err *err)
{
    if (*formats[k].what) return moe_fail_at(err, MOE_UNSUPPORTED, dir, NULL, "%s", formats[k].what);
    return moe_fail_at(err, MOE_UNSUPPORTED, dir, NULL,
                       "holds a model as GGUF, which moe-convert --to gguf writes and only moe-inspect reads "
                       "(given the file '%.200s' in it, not the directory): " TAKE,
                       name);
}

static bool has(const struct moe_names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->v[i], name)) return true;
    return false;
}

static enum moe_code directory(const char *dir, struct moe_err *err)
{
    struct moe_names names;
    MOE_TRY(moe_list_dir(dir, &names, err));
    const char *name = "";
    int k = find_format(&names, &name);
    enum moe_code code = MOE_OK;
    if (has(&names, "blobs") && has(&names, "manifests"))
        code = moe_fail_at(err, MOE_UNSUPPORTED, dir, NULL,
                           "holds models of ollama (GGUF), which are not read: " TAKE);
    else if (k >= 0)
        code = say_format(dir, k, name, err);
    moe_names_release(&names);
    return code;
}

static enum moe_code file(const char *path, struct moe_err *err)
{
    unsigned char magic[4] = { 0 };
    uint64_t size;
    int fd;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = size < sizeof magic ? MOE_OK : moe_pread(fd, path, magic, sizeof magic, 0, err);
    close(fd);
    MOE_TRY(code);
    if (!memcmp(magic, "GGUF", 4))
        return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL,
                           "is a GGUF file" GGUF);
    if (moe_ends_with(path, ".safetensors"))
        return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL,
                           "is one file of a checkpoint: give the directory that holds it and its "
                           "config.json");
    bool zip = !memcmp(magic, "PK\3\4", 4), torch = moe_ends_with(path, ".bin") || moe_ends_with(path, ".pt");
    if (moe_ends_with(path, ".pth") || (zip && torch))
        return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL,
                           "is a PyTorch checkpoint, which is not read: " SAVE);
    return MOE_OK;
}

enum moe_code moe_foreign_path(const char *path, struct moe_err *err)
{
    enum moe_exists there;
    MOE_TRY(moe_look(path, &there, err));
    return there == MOE_DIR ? directory(path, err) : there == MOE_FILE ? file(path, err) : MOE_OK;
}
