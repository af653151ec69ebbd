#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that on every full-size checkpoint inspect and each dry run take at most 5 s and 1 GiB.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize
need_helper genmodel genrss
need_space 400

# The table of docs/reference/quantization.md: operations of each effort and number of tokens, and hours at 3 TFLOP/s.
costs()
{
    grep -E '^\| `(fast|balanced|best)` \| [0-9,]+ \| [0-9.]+e' docs/reference/quantization.md | tr -d '`,' >"$T/table"
    [ "$(wc -l <"$T/table")" = 9 ] || fail "docs/reference/quantization.md has no table of costs"
    for i in 1 2 3 4 5; do cat tests/data/tiny-k2/calib.txt; done >"$T/text" # more than a million tokens
    while read -r _ effort _ tokens _ flops _ hours _; do
        measure 1024 20 "$BIN/moe-quantize" "$T/k2" -o "$T/x.moe" --calib "$T/text" --calib-tokens "$tokens" --effort "$effort" --memory 256G --dry-run --json
        said=$(json flops "$T/out")
        awk "BEGIN { d = $said / $flops - 1; h = $said / 3e12 / 3600 - $hours; exit !(d < 0.005 && d > -0.005 && h < 0.06 && h > -0.06) }" ||
            fail "docs/reference/quantization.md: $effort with $tokens tokens: $flops operations, $hours hours; --dry-run says $said"
    done <"$T/table"
}

look() # NAME ARGUMENTS...
{
    name=$1
    shift
    ok "$GEN/genmodel" -o "$T/$name" --sparse "$@"
    measure 1024 5 "$BIN/moe-inspect" "$T/$name" --json
    [ "$(json parameters "$T/out")" = 1026408209408 ] || fail "$name: parameters: $(json parameters "$T/out")"
    [ "$(json experts "$T/out")" = 384 ] || fail "$name: experts: $(json experts "$T/out")"
    measure 1024 5 "$BIN/moe-inspect" "$T/$name" '--tensors=layers\.60\.mlp\.experts\.383\.' --json
    measure 1024 5 "$BIN/moe-convert" "$T/$name" -o "$T/x.moe" --dry-run --json
    case $name in k2-nvfp4) ;; *)
        measure 1024 5 "$BIN/moe-convert" "$T/$name" -o "$T/x.moe" --to nvfp4 --dry-run --json
        for method in max four-over-six search; do
            measure 1024 5 "$BIN/moe-quantize" "$T/$name" -o "$T/x.moe" --method $method --dry-run --json
        done
        measure 1024 5 "$BIN/moe-quantize" "$T/$name" -o "$T/x.moe" --quantize all-linear --dry-run --json
        [ "$name" != k2 ] || costs ;;
    esac
    [ -z "$(find "$T" -name 'x.moe*')" ] || fail "$name: a dry run wrote something"
    rm -rf "${T:?}/$name"
}
look k2 --preset k2
look k2-thinking --preset k2-thinking
look k2.6 --preset k2-thinking --vision --prefix language_model
look k2-nvfp4 --preset k2-nvfp4
look k2-bf16 --preset k2 --format bf16
