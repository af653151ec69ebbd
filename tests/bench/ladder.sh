#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the table of docs/reference/quantization.md on tiny-k2: each method's KL divergence from its source
# over valid.txt.  Takes minutes; not a test.
#   sh tests/bench/ladder.sh BIN_DIR WORK_DIR [ROW...]    rows by name: see the end
set -eu
BIN=$1 W=$2; shift 2
F=tests/data/tiny-k2
mkdir -p "$W"

row() # NAME SOURCE SCORE_OPTIONS QUANTIZE_OPTIONS...
{
    name=$1 source=$2 score=$3; shift 3
    case " $rows " in *" $name "*|"  ") ;; *) return 0 ;; esac
    rm -rf "$W/$name.moe"
    "$BIN/moe-quantize" -q "$F/$source" -o "$W/$name.moe" "$@" >/dev/null
    for s in $score; do
        case $s in float) o= ;; *) o="--activations $s" ;; esac
        # shellcheck disable=SC2086
        "$BIN/moe-run" "$W/$name.moe" --score $F/valid.txt --window 256 --reference "$F/$source" -q --json $o 2>/dev/null |
            python3 -c "import json,sys; v=json.load(sys.stdin); print('%-24s %-6s KL %.5f  top-1 %.4f  perplexity %.4f   %s' % ('$name', '$s', v['kl'], v['top1_agreement'], v['perplexity'], '$*'))"
    done
}
rows=$*
ALL="float nvfp4 nvfp4-four-over-six nvfp4-search"
C="--calib $F/calib.txt --calib-tokens 131072 --sequence-length 256"
for source in bf16 int4; do
    p=; [ $source = bf16 ] || p=$source-
    for m in max four-over-six search; do row $p$m $source "$ALL" --method $m; done
    # shellcheck disable=SC2086
    {
        row ${p}weighted $source "$ALL" $C --method weighted
        row ${p}gptq $source "$ALL" $C --method gptq
        row ${p}gptq-best $source "$ALL" $C --method gptq --effort best
        row ${p}fast $source "$ALL" $C --effort fast
        row ${p}balanced $source "$ALL" $C --effort balanced
        row ${p}default $source "$ALL" $C
        row ${p}default-nvfp4 $source "$ALL" $C --activations nvfp4
        row ${p}default-46 $source "float nvfp4-four-over-six" $C --activations nvfp4-four-over-six
        row ${p}default-act-search $source "float nvfp4-search" $C --activations nvfp4-search
    }
done
row all-max bf16 "$ALL" --method max --quantize all-linear
row all-search bf16 "$ALL" --method search --quantize all-linear
# shellcheck disable=SC2086
row all-default bf16 "$ALL" $C --quantize all-linear
# shellcheck disable=SC2086
row upstream-source bf16 "float" $C --upstream source
# shellcheck disable=SC2086
row upstream-quantized bf16 "$ALL" $C --upstream quantized
