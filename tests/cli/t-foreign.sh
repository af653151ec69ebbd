#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests models of other families and formats: every tool says in one sentence which model it is and what to
# do (exit code 14).
. tests/common.sh
need_tool moe-convert moe-inspect moe-plan moe-quantize moe-run
need_helper genmodel
need_python
ok "$GEN/genmodel" -o "$T/one" --format bf16 --single-file --layers 2 --experts 4 --hidden 128 --inter 64 --seed 7
# refused_gguf FILE: all tools refuse it but moe-inspect, which shows its header.
refused_gguf()
{
    for c in "convert -o $T/x.moe" "quantize -o $T/x.moe" "run --tokens 1 -n 0" "plan --ranks 2"; do
        code 14 "is a GGUF file, which moe-convert --to gguf writes and only moe-inspect reads: take the safetensors" "$BIN/moe-${c%% *}" -q "$1" ${c#* }
    done
    [ ! -e "$T/x.moe" ] || fail "something was written"
}
# every TEXT MODEL: the five tools refuse the model with TEXT.
every()
{
    code 14 "$1" "$BIN/moe-convert" -q "$2" -o "$T/x.moe"
    code 14 "$1" "$BIN/moe-quantize" -q "$2" -o "$T/x.moe"
    code 14 "$1" "$BIN/moe-inspect" -q "$2"
    code 14 "$1" "$BIN/moe-run" -q "$2" --tokens 1 -n 0
    code 14 "$1" "$BIN/moe-plan" -q "$2" --ranks 2
    [ ! -e "$T/x.moe" ] || fail "something was written"
}
# with STATEMENTS: makes $T/m, the model with a config that the Python statements have changed (v is the
# config).
with()
{
    rm -rf "$T/m"; cp -r "$T/one" "$T/m"
    ok python3 -c 'import json, sys; p = sys.argv[1] + "/config.json"; v = json.load(open(p)); exec(sys.argv[2]); json.dump(v, open(p, "w"))' "$T/m" "$1"
}

# ---- architectures: told by the class, or by the family alone ----

while read -r class type name; do
    with "v['architectures'] = ['$class']; v['model_type'] = '$type'"
    every "architecture '$class' is not supported: this is $name, and .*Kimi K2 to K2.7, Moonlight, DeepSeek-V3, V3.1 and R1 are" "$T/m"
    with "del v['architectures']; v['model_type'] = '$type'"
    code 14 "model type '$type' is not supported: this is $name, and" "$BIN/moe-inspect" -q "$T/m"
done <<'L'
KimiK3ForConditionalGeneration kimi_k3 Kimi K3
KimiLinearForCausalLM kimi_linear Kimi Linear
KimiVLForConditionalGeneration kimi_vl Kimi-VL
MoonVitPretrainedModel moonvit MoonViT
MixtralForCausalLM mixtral Mixtral
Qwen3MoeForCausalLM qwen3_moe Qwen3
GptOssForCausalLM gpt_oss GPT-OSS
Llama4ForConditionalGeneration llama4 Llama 4
DeepseekV32ForCausalLM deepseek_v32 DeepSeek-V3.2
Glm4MoeForCausalLM glm4_moe GLM-4
GlmMoeDsaForCausalLM glm_moe_dsa GLM-5
MiniMaxM2ForCausalLM minimax_m2 MiniMax
L
with "v['architectures'] = ['NobodyForCausalLM']"; every "architecture 'NobodyForCausalLM' is not supported (Kimi K2" "$T/m"
with "v['architectures'] = ['DeepseekV2ForCausalLM']; v['model_type'] = 'deepseek_v2'; v.pop('scoring_func', 0)"; every 'this is DeepSeek-V2, whose softmax router' "$T/m"
with "v['architectures'] = ['DeepseekV2ForCausalLM']; v['model_type'] = 'deepseek_v2'"; ok "$BIN/moe-inspect" -q --verify "$T/m" # scores as V3 does
# the name is one of ours, but the config has what we do not support
with "v['index_topk'] = 2048"; every "'index_topk' says that this model has sparse attention" "$T/m"
with "v['linear_attn_config'] = {}"; every "'linear_attn_config' says that this model has linear attention" "$T/m"
with "v['index_topk'] = None"; ok "$BIN/moe-inspect" -q "$T/m"
with "v = {'architectures': ['KimiK25ForConditionalGeneration'], 'model_type': 'kimi_k25', 'text_config': dict(v, model_type='kimi_linear')}; json.dump(v, open(p, 'w'))"
every "model type 'kimi_linear' is not supported: this is Kimi Linear" "$T/m"

# ---- quantizations ----

while read -r method name; do
    with "v['quantization_config'] = {'quant_method': '$method', 'bits': 4, 'group_size': 128}"
    every "quantization '$method' is not supported: these are weights of $name (take the model as it was published" "$T/m"
done <<'L'
awq AWQ
gptq GPTQ
bitsandbytes bitsandbytes
hqq HQQ
mxfp4 MXFP4
L
with "v['quantization'] = v['quantization_config'] = {'bits': 4, 'group_size': 64}"; every "weights of MLX" "$T/m"
with "v['quantization'] = {'bits': 4, 'group_size': 64}"; every "weights of MLX" "$T/m"
with "v['quantization_config'] = {'quant_method': 'nothing'}"; every "quant_method 'nothing' is not supported" "$T/m"
rotated()
{
    with "v['quantization_config'] = {'quant_method': 'compressed-tensors', 'format': 'pack-quantized', 'transform_config':
        {'config_groups': {'v': {'type': 'hadamard', 'apply': [{'targets': ['Linear'], 'location': l} for l in '$1'.split()]}}}}"
}
rotated 'input weight_input'; every "transform_config with location 'input' is not supported: these weights are right only where an engine rotates" "$T/m"
rotated 'weight_input weight_output'; ok "$BIN/moe-inspect" -q "$T/m"

# a model of MLX in full precision is recognized by its tensors
rm -rf "$T/m"; ok python3 tests/gen/relayout.py rename "$T/one" "$T/m" '.mlp.experts.0.' .mlp.switch_mlp.
code 14 "switch_mlp.*_proj.weight': is named as in a model of MLX, which is not read" "$BIN/moe-convert" -q "$T/m" -o "$T/x.moe"
ok python3 tests/gen/relayout.py rename "$T/one" "$T/p" 'model.layers.1.mlp.gate.weight' model.layers.1.mlp.gate.pre_quant_scale
code 14 "gate.pre_quant_scale': is a scale that an engine multiplies activations with (AWQ), which is not read" "$BIN/moe-convert" -q "$T/p" -o "$T/x.moe"

# ---- files ----

# dir NAME...: makes $T/d with these files; NAME/ is a directory
dir() { rm -rf "$T/d"; mkdir "$T/d"; for f; do case $f in */) mkdir "$T/d/$f";; *) echo x >"$T/d/$f";; esac; done; }
printf 'GGUF\3\0\0\0' >"$T/k2.gguf"; refused_gguf "$T/k2.gguf"
cp "$T/k2.gguf" "$T/sha256-0123"; refused_gguf "$T/sha256-0123"
code 13 'runs past the end' "$BIN/moe-inspect" -q "$T/k2.gguf"
printf 'PK\3\4....' >"$T/pytorch_model.bin"; every 'is a PyTorch checkpoint, which is not read: save it as safetensors' "$T/pytorch_model.bin"
every 'give the directory that holds it and its config.json' "$T/one/model.safetensors"
dir k2.gguf README.md; every "holds a model as GGUF, .*given the file 'k2.gguf' in it" "$T/d"
dir pytorch_model-00001-of-00002.bin pytorch_model.bin.index.json; every 'as PyTorch .bin files' "$T/d"
dir consolidated.00.pth params.json; every 'as PyTorch .pth files' "$T/d"
dir adapter_config.json adapter_model.safetensors; every 'holds an adapter (LoRA), which is no model by itself: merge it' "$T/d"
dir blobs/ manifests/; every 'holds models of ollama' "$T/d"
dir Modelfile; every 'holds a model of ollama' "$T/d"
dir weights.npz; every 'holds a model of MLX' "$T/d"
dir rank0.engine; every 'holds engines of TensorRT-LLM' "$T/d"
# a config of a supported model, beside weights in another format
for f in k2.gguf pytorch_model.bin adapter_config.json; do
    dir $f; cp "$T/one/config.json" "$T/d"; [ $f = adapter_config.json ] && echo x >"$T/d/adapter_model.safetensors"
    code 14 'holds a' "$BIN/moe-convert" -q "$T/d" -o "$T/x.moe"
done
# such files beside a model's own weights do no harm; a directory without anything known gives the plain
# message
cp "$T/k2.gguf" "$T/pytorch_model.bin" "$T/one"; echo x >"$T/one/adapter_config.json"; mv "$T/one/model.safetensors" "$T/one/weights.safetensors"
ok "$BIN/moe-inspect" -q --verify "$T/one"
dir README.md; code 3 'holds neither a config.json nor a manifest.json' "$BIN/moe-inspect" -q "$T/d"
code 3 'is not a directory' "$BIN/moe-inspect" -q "$T/d/README.md"
echo "t-foreign: what is not read is refused by its name"
