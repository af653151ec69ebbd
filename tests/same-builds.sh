#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares two builds: same-builds.sh OLD NEW (build folders: build/release and another commit's).
# Containers, exports, exports in one pass, calibration by every method, plans, text, logits and scores of
# every fixture have to be the same, byte for byte.  For a commit that moves or renames and promises to
# change nothing; SAME=quick takes one fixture.
set -u
[ $# = 2 ] && [ -x "$1/bin/moe-run" ] && [ -x "$2/bin/moe-run" ] || { echo "usage: same-builds.sh OLD NEW (build folders)" >&2; exit 2; }
old=$1 new=$2 F=tests/data/tiny-k2
T=$(mktemp -d "${TMPDIR:-/tmp}/moe-same.XXXXXX") && trap 'rm -rf "$T"' EXIT
fixtures="bf16 fp8 int4"
[ "${SAME:-}" != quick ] || fixtures=bf16

# Times and memory are not the same in two runs of one build.
steady()
{
    sed -E 's/"(seconds|profile)": *\{[^}]*\}//g; s/"[a-z_]*(seconds|per_second|memory|peak|rss)[a-z_]*": *[0-9.e+-]+//g' "$1"
}

# same NAME TOOL ARGUMENT...: @ in an argument stands for the folder of a build.
same()
{
    name=$1; shift
    for b in old new; do
        case $b in old) bin=$old/bin ;; new) bin=$new/bin ;; esac
        mkdir -p "$T/$b"
        tool=$1; shift
        (cd "$T/$b" && for a; do shift; set -- "$@" "$(printf %s "$a" | sed "s#^@#$T/$b/#")"; done
            "$bin/$tool" "$@" </dev/null) >"$T/$b.out" 2>"$T/$b.err" || { cat "$T/$b.err"; echo "FAIL: $b: $name"; exit 1; }
        set -- "$tool" "$@"
        steady "$T/$b.out" | sed "s#$T/$b##g" >"$T/$b/$name.out"
    done
}
case $old in /*) ;; *) old=$PWD/$old ;; esac
case $new in /*) ;; *) new=$PWD/$new ;; esac
F=$PWD/$F
head -c 2500 $F/valid.txt >"$T/text"

for m in $fixtures; do
    q="-q --json"
    calib="--calib $F/calib.txt --sequence-length 128 --calib-tokens 768"
    same $m-convert moe-convert $q $F/$m -o @$m.moe
    same $m-hf moe-convert $q @$m.moe --to hf -o @$m.hf
    same $m-gguf moe-convert $q @$m.moe --to gguf -o @$m.gguf
    for method in max four-over-six search; do
        same $m-$method moe-quantize $q $F/$m --method $method -o @$m-$method.moe
    done
    for method in weighted gptq fisher; do
        same $m-$method moe-quantize $q $F/$m $calib --method $method --quantize all-linear -o @$m-$method.moe
    done
    same $m-best moe-quantize $q $F/$m $calib --effort best -o @$m-best.moe
    same $m-onepass moe-quantize $q $F/$m $calib --effort fast --to hf-nvfp4 -o @$m-onepass
    for flavor in modelopt compressed-tensors; do
        same $m-$flavor moe-convert $q @$m-fisher.moe --to hf-nvfp4 --flavor $flavor -o @$m-$flavor
    done
    same $m-nvfp4-gguf moe-convert $q @$m-search.moe --to gguf -o @$m-search.gguf
    for w in $F/$m @$m-fisher.moe; do
        n=$m-$(basename "$w" .moe | tr -d @)
        same $n-text moe-run $q $w --prompt "And it came to pass" -n 24 --seed 7 --temperature 0.8
        same $n-logits moe-run $q $w --tokens 1,2,3,500,77,9,260,33 -n 0 --trace @$n.trace
        same $n-score moe-run $q $w --score "$T/text" --window 128 --reference $F/bf16
    done
    same $m-w4a4 moe-run $q @$m-fisher.moe --score "$T/text" --window 128 --activations nvfp4
    same $m-routing moe-run $q $F/$m --score "$T/text" --window 128 --record-routing @$m.routing
    same $m-plan moe-plan $q $F/$m --ranks 4 --slots 40 --stats @$m.routing -o @$m.plan
    same $m-survive moe-plan $q $F/$m --ranks 4 --slots 64 --survive 1 --stats @$m.routing -o @$m.survive.plan
done
diff -r "$T/old" "$T/new" >"$T/diff" || { head -20 "$T/diff"; echo "FAIL: the builds differ"; exit 1; }
echo "same-builds: $(find "$T/new" -type f | wc -l) files are the same"
