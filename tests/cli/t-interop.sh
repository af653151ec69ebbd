#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests exports with other projects' packages, those that are installed: safetensors, modelopt,
# compressed-tensors, transformers.
. tests/common.sh
need_tool moe-convert moe-quantize moe-run moe-inspect
need_helper gen-values gen-activations genmodel
P=${PYTHON:-python3}
has() { for m; do "$P" -c "import $m" >/dev/null 2>&1 || return 1; done; }
has torch safetensors || skip "no torch and safetensors for $P (pip install torch safetensors transformers compressed-tensors nvidia-modelopt)"
sanitized && skip "the packages are not for sanitizers"
F=tests/data/tiny-k2
export TORCHINDUCTOR_CACHE_DIR="$T/torch" # not by the name of a user, who may have none
check() { what=$1; shift; ok "$P" tests/readers/interop.py "$what" "$@"; tail -1 "$T/out"; }

ok "$BIN/moe-convert" -q $F/bf16 -o "$T/src.moe"
ok "$BIN/moe-convert" -q "$T/src.moe" --to hf -o "$T/src-hf"
ok "$BIN/moe-quantize" -q "$T/src.moe" -m search -o "$T/q.moe"
for f in modelopt compressed-tensors; do
    ok "$BIN/moe-convert" -q "$T/q.moe" --to hf-nvfp4 --flavor $f -o "$T/$f"
    ok "$GEN/gen-values" "$T/$f" "$T/$f.safetensors"
    check safetensors "$T/$f"
done
if has modelopt; then check modelopt "$T/modelopt" "$T/modelopt.safetensors"; check configs "$T/modelopt" modelopt; fi
if has compressed_tensors; then
    check compressed-tensors "$T/compressed-tensors" "$T/compressed-tensors.safetensors"; check configs "$T/compressed-tensors" compressed-tensors
fi
# A calibrated model: its input scales, and what they do to activations.
ok "$GEN/genmodel" -o "$T/cal" --format nvfp4 --layers 3 --experts 6 --top-k 2 --hidden 64 --inter 64 --vocab 1024 --tokenizer $F/bf16
ok "$BIN/moe-convert" -q "$T/cal" -o "$T/cal.moe"
for f in modelopt compressed-tensors; do
    ok "$BIN/moe-convert" -q "$T/cal.moe" --to hf-nvfp4 --flavor $f -o "$T/cal-$f"
    ok "$GEN/gen-values" "$T/cal-$f" "$T/cal-$f.safetensors"
    check inputs "$T/cal" "$T/cal-$f" $f
done
if has modelopt; then check modelopt "$T/cal-modelopt" "$T/cal-modelopt.safetensors"; check configs "$T/cal-modelopt" modelopt; fi
if has compressed_tensors; then
    check compressed-tensors "$T/cal-compressed-tensors" "$T/cal-compressed-tensors.safetensors"; check configs "$T/cal-compressed-tensors" compressed-tensors
    ok "$GEN/gen-activations" "$T/act.safetensors"
    check activations "$T/act.safetensors"
fi
# Models that moe-quantize calibrated itself: routed experts, and all linear layers.
for q in experts all-linear; do
    ok "$BIN/moe-quantize" -q "$T/src.moe" --calib $F/calib.txt --calib-tokens 2000 --sequence-length 256 --quantize $q -o "$T/own-$q.moe"
    for f in modelopt compressed-tensors; do
        d=$T/own-$q-$f
        ok "$BIN/moe-convert" -q "$T/own-$q.moe" --to hf-nvfp4 --flavor $f -o "$d"
        ok "$GEN/gen-values" "$d" "$d.safetensors"
        check safetensors "$d"
        check calibrated "$T/own-$q.moe" "$d" $f
        if [ $f = modelopt ]; then has modelopt || continue; else has compressed_tensors || continue; fi
        check $f "$d" "$d.safetensors"
        check configs "$d" $f
    done
done
has transformers || exit 0
tokens=$(awk 'BEGIN { for (i = 0; i < 200; i++) printf "%s%d", i ? "," : "", (i * i * 7 + 13 * i) % 1000 }')
for m in src-hf modelopt own-experts-modelopt; do
    ok "$BIN/moe-run" -q "$T/$m" --tokens "$tokens" -n 0 --trace "$T/$m.trace"
    if [ $m = src-hf ]; then check transformers "$T/$m" "$T/$m.trace" "$tokens"
    else check transformers "$T/$m" "$T/$m.trace" "$tokens" "$T/$m.safetensors"; fi
done
