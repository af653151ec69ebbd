#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests --to hf-nvfp4 in both spellings: the bytes are those that modelopt and compressed-tensors write, and
# are read back to the same container, from every layout; bad input.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect
need_python
F=tests/data/tiny-k2 G=tests/data/export-golden.json

export_() { ok "$BIN/moe-convert" "$1" --to hf-nvfp4 -o "$2" --flavor "$3"; }

# digests of what modelopt and compressed-tensors write of this model by the same rule, tensor by tensor
ok "$BIN/moe-quantize" -q $F/bf16 -m max -o "$T/max.moe"
for f in modelopt compressed-tensors; do
    export_ "$T/max.moe" "$T/max-$f" $f
    ok python3 tests/readers/digests.py $G "$T/max-$f" $f
    export_ "$T/max.moe" "$T/max-$f-again" $f; ok diff -r "$T/max-$f" "$T/max-$f-again"
done
# without calibration: weight-only in both flavors, no input scale, and a warning that names the engines
# which do not read that
said() { grep -q "$1" "$T/err" || { cat "$T/err"; fail "the export does not say '$1'"; }; }
export_ "$T/max.moe" "$T/said" modelopt; said 'W4A16'; said 'TensorRT-LLM reads W4A16_NVFP4 on SM120'; said 'moe-runner-backend marlin'
[ "$(look "$T/said/config.json" "(lambda q: (q['quant_algo'], list(q['config_groups']['group_0']), q['producer']['name'], q['quant_method']))(v['quantization_config'])")" = \
  "('W4A16_NVFP4', ['weights', 'targets'], 'moe', 'modelopt')" ] || fail "quantization_config of an uncalibrated model"
[ "$(look "$T/said/hf_quant_config.json" "(v['quantization']['quant_algo'], v['quantization']['kv_cache_quant_algo'], v['producer']['name'])")" = "('W4A16_NVFP4', None, 'moe')" ] || fail "hf_quant_config.json"
if grep -aq input_scale "$T/said/model.safetensors"; then fail "input scales that nobody calibrated"; fi
export_ "$T/max.moe" "$T/said-ct" compressed-tensors; said 'transformers leaves weight_global_scale out'; said 'TensorRT-LLM does not read this flavor'
if grep -aq input_global_scale "$T/said-ct/model.safetensors"; then fail "input scales that nobody calibrated"; fi
# with calibration: W4A4 with input scales, and no warning; where one projection of one layer is left out,
# SGLang leaves it out of all
ok "$BIN/moe-quantize" -q $F/bf16 --calib $F/calib.txt --calib-tokens 512 --sequence-length 128 --method weighted --quantize all-linear -o "$T/calibrated.moe"
export_ "$T/calibrated.moe" "$T/calibrated" modelopt
if grep warning "$T/err"; then fail "a calibrated export warns"; fi
[ "$(look "$T/calibrated/config.json" "(v['quantization_config']['quant_algo'], 'input_activations' in v['quantization_config']['config_groups']['group_0'])")" = "('NVFP4', True)" ] || fail "quantization_config of a calibrated model"
grep -aq input_scale "$T/calibrated/model.safetensors" || fail "no input scales"
ok "$BIN/moe-quantize" -q $F/bf16 -m max --quantize all-linear --tensor-type 'layers\.2\.self_attn\.q_b_proj=source' -o "$T/spread.moe"
export_ "$T/spread.moe" "$T/spread" modelopt; said "SGLang takes 'model.layers.2.self_attn.q_b_proj' for excluded in every layer"
export_ "$T/spread.moe" "$T/spread-ct" compressed-tensors; if grep SGLang "$T/err"; then fail "the other flavor has no such list"; fi
# and back, from each layout
for l in bf16 fp8 int4; do
    ok "$BIN/moe-quantize" -q $F/$l -m search -o "$T/$l.moe"
    for f in modelopt compressed-tensors; do
        export_ "$T/$l.moe" "$T/$l-$f" $f
        grep -q 'nothing was calibrated' "$T/err" || fail "$l, $f: does not say that nothing was calibrated"
        ok "$BIN/moe-inspect" -q --verify "$T/$l-$f"
        ok "$BIN/moe-convert" -q "$T/$l-$f" -o "$T/$l-$f.moe"
        for n in 1 2 3; do
            if [ $f = modelopt ]; then ok cmp "$T/$l.moe/layer-00$n.moe" "$T/$l-$f.moe/layer-00$n.moe"; fi
        done
        # a second export and import changes nothing: the divisor of one spelling is kept as it is
        export_ "$T/$l-$f.moe" "$T/$l-$f-2" $f
        for x in "$T/$l-$f"/*.safetensors; do ok cmp "$x" "$T/$l-$f-2/$(basename "$x")"; done
    done
done
# several files have the same tensors, under an index
ok "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 -o "$T/cut" --shard-size 512K
[ -e "$T/cut/model.safetensors.index.json" ] || fail "no index"
ok python3 tests/readers/digests.py $G "$T/cut" modelopt
ok "$BIN/moe-convert" -q "$T/cut" -o "$T/cut.moe"; for n in 1 2 3; do ok cmp "$T/cut.moe/layer-00$n.moe" "$T/max.moe/layer-00$n.moe"; done

# engines split kv_b in BF16, so it is never written as NVFP4
ok "$BIN/moe-quantize" -q $F/bf16 -m max --quantize all-linear --tensor-type kv_b_proj=nvfp4 -o "$T/kv-b.moe"
for f in modelopt compressed-tensors; do
    export_ "$T/kv-b.moe" "$T/kv-b-$f" $f
    grep -q "4 tensors are written as bf16, 'model.layers.0.self_attn.kv_b_proj.weight' (nvfp4) the first: engines take it apart" "$T/err" || fail "$f: does not say that kv_b is BF16"
    ok "$BIN/moe-inspect" --json --tensors kv_b_proj "$T/kv-b-$f"
    [ "$(look "$T/out" "sorted({(t['name'].rsplit('.', 1)[1], t['type']) for t in v['tensor_list']})")" = "[('weight', 'BF16')]" ] || fail "$f: kv_b is not BF16"
done
ok "$BIN/moe-convert" -q $F/bf16 -o "$T/plain.moe"
code 14 'moe-quantize' "$BIN/moe-convert" -q "$T/plain.moe" --to hf-nvfp4 -o "$T/x"
code 2 'flavor' "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 --flavor other -o "$T/x"
for size in 1 65535; do code 2 'shard-size is at least 64K' "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 --shard-size $size -o "$T/x"; done
code 2 'go with --to hf-nvfp4' "$BIN/moe-convert" -q "$T/max.moe" --to hf --shard-size 64K -o "$T/x"
code 2 'flavor' "$BIN/moe-convert" -q "$T/max.moe" --to hf --flavor modelopt -o "$T/x"
mkdir "$T/there"; echo mine >"$T/there/file"
code 4 'there' "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 -o "$T/there"
code 4 'there' "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 --force -o "$T/there"
[ "$(cat "$T/there/file")" = mine ] || fail "a stranger's directory was touched"
ok "$BIN/moe-convert" -q "$T/max.moe" --to hf-nvfp4 -o "$T/max-modelopt" --force; ok python3 tests/readers/digests.py $G "$T/max-modelopt" modelopt
ok "$BIN/moe-convert" --json --dry-run "$T/max.moe" --to hf-nvfp4 -o "$T/dry"; [ ! -e "$T/dry" ] || fail "a dry run wrote"
[ ! -e "$T/x" ] || fail "something was written"
cp -r "$T/max.moe" "$T/hurt.moe"
dd if=/dev/zero of="$T/hurt.moe/layer-003.moe" bs=1 seek=$(($(stat -c %s "$T/hurt.moe/layer-003.moe") / 2)) count=64 conv=notrunc 2>/dev/null
code 13 'layers.3' "$BIN/moe-convert" -q "$T/hurt.moe" --to hf-nvfp4 -o "$T/x"
[ ! -e "$T/x" ] || fail "a damaged container was exported"
echo "t-export: both spellings, bit for bit what the tools write"
