#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs on a GPU what `make check` runs without one, and measures it.
#
#   tests/device.sh [conformance] [bench] [profile]     in this order of use; all three without a name
#   tests/device.sh pack                                makes a folder for a machine that cannot build
#
# conformance  a million fragments of the tensor cores against their twin, every check of the GPU's kernels, and
#              a small model end to end: all bit for bit against the CPU
# bench        the time of each kernel at Kimi K2's widths, beside a copy within the GPU; of loading a model of
#              these widths (a dense layer and one of 48 experts; EXPERTS), and of steps of 1, 16 and 64 sequences
# profile      compute-sanitizer on the checks, and Nsight Compute on the kernels, where these are installed
#
# Each part is of use alone, takes at most 4 minutes (PART_SECONDS) and ends with a short table; the rest goes to
# files in OUT (build/device).  B (build/release) is the build; what it lacks is built.  Nothing is fetched.
# Exit: 0, 1 where something failed, 77 where there is no GPU.
#
# A machine without the build's libraries: `tests/device.sh pack` elsewhere, copy the tree with build/device/pack,
# and run with B=build/device/pack.  Without a GPU, LD_LIBRARY_PATH=build/release/shim and QUICK=1 run the parts
# on the stand-in for the driver, which shows that the script works and nothing about a GPU.
set -u
B=${B:-build/release} OUT=${OUT:-build/device} PART_SECONDS=${PART_SECONDS:-240} QUICK=${QUICK:-} EXPERTS=${EXPERTS:-48}
export B OUT QUICK EXPERTS
ran=0 bad=0

# The checks that run on a GPU as well as on the stand-in, or those that CHECKS names.
checks() { [ -z "${CHECKS:-}" ] || { echo "$CHECKS"; return; }; grep -l '= cuda_main\|return cuda_main' tests/kernels/check-cuda-*.c | sed 's|.*/||; s|\.c$||'; }

programs() { echo tests/bench-cuda tests/genmodel bin/moe-run bin/moe-quantize bin/moe-inspect; for t in $(checks); do echo "tests/$t"; done; }

build()
{
    for p in $(programs); do
        [ -x "$B/$p" ] && continue
        make -j"$(nproc)" B="$B" test-programs >"$OUT/build.txt" 2>&1 && return
        tail -n 20 "$OUT/build.txt"
        echo "device: the programs cannot be built here (see $OUT/build.txt; tests/device.sh pack elsewhere helps)"
        exit 1
    done
}

# step NAME COMMAND...: runs it for as long as the part has left; its output goes to OUT/NAME.txt.
step()
{
    name=$1; shift
    left=$((end - $(date +%s)))
    if [ $left -lt 5 ]; then echo "  late  $name: the part's $PART_SECONDS s are over"; return; fi
    from=$(date +%s)
    timeout $left "$@" >"$OUT/$name.txt" 2>&1
    r=$? took=$(($(date +%s) - from)) ran=$((ran + 1))
    case $r in
    0) echo "  ok    $name ($took s): $(tail -n 1 "$OUT/$name.txt" | cut -c 1-90)" ;;
    77) echo "  skip  $name: $(tail -n 1 "$OUT/$name.txt" | cut -c 1-90)" ;;
    124) echo "  late  $name: stopped after $took s" ;;
    *) echo "  FAIL  $name (exit $r, $took s): $(tail -n 1 "$OUT/$name.txt" | cut -c 1-200)"; bad=$((bad + 1)) ;;
    esac
}

has() { command -v "$1" >/dev/null || { echo "  skip  $2: $1 is not installed"; false; }; }

# ---- conformance ----

# A small model of each layout on both devices: the same text, and the same experts at every position.
same_model()
{
    n=0 tokens=24
    [ -z "$QUICK" ] || tokens=4
    "$B/bin/moe-quantize" -q --force tests/data/tiny-k2/bf16 -o "$OUT/experts.moe" || return
    for m in tests/data/tiny-k2/bf16 tests/data/tiny-k2/fp8 tests/data/tiny-k2/int4 "$OUT/experts.moe"; do
        for d in cpu cuda; do
            "$B/bin/moe-run" -q --device $d "$m" --prompt 'And it came to pass' --context 64 -n $tokens \
                --trace "$OUT/$d.trace" >"$OUT/$d.text" </dev/null || return
        done
        cmp "$OUT/cpu.text" "$OUT/cuda.text" && cmp "$OUT/cpu.trace" "$OUT/cuda.trace" || return
        n=$((n + 1))
    done
    echo "$n models, $tokens tokens each: the same text and the same experts"
}

conformance()
{
    fragments=1000000
    [ -z "$QUICK" ] || fragments=3000
    step fragments "$B/tests/check-cuda-probe" $fragments
    for t in $(checks); do
        [ "$t" = check-cuda-probe ] || step "$t" "$B/tests/$t"
    done
    step models sh "$0" same_model
}

# ---- bench ----

# run SEQUENCES TOKENS: the seconds that so many sequences of so many tokens take together
run()
{
    i=0
    while [ $i -lt "$1" ]; do
        echo "{\"tokens\": [$((i + 1)), 2, 3], \"max_tokens\": $2, \"ignore_eos\": true}"
        i=$((i + 1))
    done >"$OUT/prompts.jsonl"
    "$B/bin/moe-run" -q --json --device cuda "$OUT/model" --context 512 --max-sequences "$1" --prompts "$OUT/prompts.jsonl" \
        >"$OUT/run.json" </dev/null || return
    sed -n 's/.*"seconds": \([0-9.]*\), "peak_rss.*/\1/p' "$OUT/run.json"
}

# The difference of two runs is what the steps between them take.
steps()
{
    widths="--preset k2 --experts $EXPERTS" more=64 sequences='1 16 64'
    [ -z "$QUICK" ] || widths="--experts 8 --top-k 2 --hidden 256 --inter 128 --dense-inter 256 --heads 4 --vocab 512" more=2 sequences='1 2'
    rm -rf "$OUT/model"
    # shellcheck disable=SC2086
    "$B/tests/genmodel" -o "$OUT/model" --layers 2 --dense 1 $widths --format nvfp4 || return
    printf '%-12s %s\n' sequences 'ms a step'
    for n in $sequences; do
        few=$(run $n 2) && many=$(run $n $((2 + more))) || return
        awk -v n=$n -v a="$few" -v b="$many" -v k=$more 'BEGIN { printf "%-12d %.3f\n", n, 1000 * (b - a) / k }'
    done
    sed -n 's/.*"load": \({[^}]*}\).*/load \1/p' "$OUT/run.json"
    rm -rf "$OUT/model"
}

bench()
{
    step kernels "$B/tests/bench-cuda" ${QUICK:+--quick}
    step steps sh "$0" steps
    tail -n +2 "$OUT/kernels.txt"
    cat "$OUT/steps.txt"
}

# ---- profile ----

profile()
{
    if has compute-sanitizer "memory, races and barriers"; then
        for tool in memcheck racecheck synccheck; do
            for t in $(checks); do
                [ "$t" = check-cuda-probe ] ||
                    step "$tool-$t" compute-sanitizer --tool $tool --error-exitcode 9 "$B/tests/$t" -s 1
            done
        done
    fi
    if has ncu "counters of the kernels"; then
        step ncu ncu --set full --clock-control none -f -o "$OUT/kernels" "$B/tests/bench-cuda" --once
    fi
}

# The programs, and the libraries that not every machine has, in a folder that works as a build.
pack()
{
    P=$OUT/pack
    build
    rm -rf "$P"; mkdir -p "$P/tests" "$P/bin" "$P/lib"
    for p in $(programs); do cp "$B/$p" "$P/$p"; done
    strip "$P"/tests/* "$P"/bin/*
    ldd "$P"/tests/* "$P"/bin/* | awk '/libcjson|libxxhash|libpcre2|libz\./ { print $3 }' | sort -u |
        while read -r lib; do cp -L "$lib" "$P/lib/"; done
    du -sh "$P" | sed "s/^/device: packed, /"
}

mkdir -p "$OUT"
case ${1:-} in
pack) pack; exit ;;
same_model|steps) $1; exit ;; # by itself, so that it can be stopped
esac
for part; do
    case $part in conformance|bench|profile) ;; *) echo "device: no part '$part' (see tests/device.sh)" >&2; exit 2 ;; esac
done
build
[ ! -d "$B/lib" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$B/lib
MOE_TEST_GPU=1
export MOE_TEST_GPU ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH}
if ! "$B/tests/bench-cuda" --gpu >"$OUT/gpu.txt" 2>&1; then
    echo "device: no GPU to test here: $(sed 's/^bench-cuda: //' "$OUT/gpu.txt" | tail -n 1)"
    exit 77
fi
echo "device: $(cat "$OUT/gpu.txt"), $(date -u +%Y-%m-%d)"
"$B/bin/moe-inspect" --devices
for part in ${*:-conformance bench profile}; do
    echo "$part:"
    end=$(($(date +%s) + PART_SECONDS))
    $part
done
echo "device: $ran run, $bad failed; the rest is in $OUT"
[ $bad = 0 ]
