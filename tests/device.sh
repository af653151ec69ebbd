#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs on a GPU what `make check` runs without one, and measures it.
#
#   tests/device.sh [conformance] [bench] [profile]     in this order of use; all three without a name
#   tests/device.sh pack                                makes a folder for a machine that cannot build
#
# conformance  a million fragments of the tensor cores against their twin, every check of the GPU's kernels, layers
#              and random schedules of the engine, and a small model end to end: all bit for bit against the CPU
# bench        the time of each kernel at Kimi K2's widths, beside a copy within the GPU; of loading a model of
#              these widths (a dense layer and one of 48 experts; EXPERTS), and of steps of 1, 16 and 64 sequences
# profile      Nsight Compute on the kernels, and compute-sanitizer on their checks, where these are installed
#
# Each part is of use alone, takes at most 4 minutes (PART_SECONDS) and ends with a short table; the rest goes to
# files in OUT (build/device).  A step that hangs is stopped, and counts as late.  B (build/release) is the build,
# which is brought up to date first, by nvcc 12.9 or later.  Nothing is fetched.
# Exit: 0; 1 where something failed, was late, could not be built or could not open the GPU, and where a step of
# conformance was not started in time; 77 where there is no GPU, or nothing that could run.
#
# A machine without the build's libraries: `tests/device.sh pack` elsewhere, copy the tree with build/device/pack,
# and run with B=build/device/pack.  Without a GPU, LD_LIBRARY_PATH=build/release/shim and QUICK=1 run the parts
# on the stand-in for the driver, which shows that the script works and nothing about a GPU.
set -u
B=${B:-build/release} OUT=${OUT:-build/device} PART_SECONDS=${PART_SECONDS:-240} STEP_SECONDS=${STEP_SECONDS:-60}
QUICK=${QUICK:-} EXPERTS=${EXPERTS:-48}
export B OUT QUICK EXPERTS
ran=0 skipped=0 late=0 bad=0 unstarted=0 incomplete=0

# The checks that run on a GPU as well as on the stand-in, or those that CHECKS names.
checks()
{
    [ -z "${CHECKS:-}" ] || { echo "$CHECKS"; return; }
    grep -l '= cuda_main\|return cuda_main' tests/kernels/check-cuda-*.c | sed 's|.*/||; s|\.c$||'
    echo test-cuda-device test-core-cuda
}

programs() { echo tests/bench-cuda tests/genmodel bin/moe-run bin/moe-quantize bin/moe-inspect; for t in $(checks); do echo "tests/$t"; done; }

# A folder that `pack` made has a folder lib; there is nothing to build it from.
packed() { [ -d "$B/lib" ]; }

build()
{
    ! packed || return 0
    make -j"$(nproc)" B="$B" CUDA=1 test-programs >"$OUT/build.txt" 2>&1 && return
    tail -n 20 "$OUT/build.txt"
    echo "device: the programs cannot be built here: this needs nvcc 12.9 or later (compute_100f) and what 'make setup'" \
        "installs (see $OUT/build.txt; tests/device.sh pack elsewhere helps)"
    exit 1
}

# Whether a driver may be found.  Where there is none, nothing has to be built to say so.
driver()
{
    [ ! -e /dev/nvidiactl ] || return 0
    for d in $(echo "${LD_LIBRARY_PATH:-}" | tr : ' '); do [ ! -e "$d/libcuda.so.1" ] || return 0; done
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'
}

no_gpu() { echo "device: no GPU to test here: $1"; exit 77; }

# Ends the script unless GPU 0 is there (77) and opens (1); says what there is.
find_gpu()
{
    said=$("$B/bin/moe-inspect" --devices 2>&1 >"$OUT/devices.txt") || case $said in
    *'no NVIDIA driver'* | *'finds no GPU'* | *"the toolkit's stub"*) no_gpu "$said" ;;
    *) echo "device: the GPUs of this machine cannot be listed: $said"; exit 1 ;;
    esac
    timeout -k 5 60 "$B/tests/bench-cuda" --gpu >"$OUT/gpu.txt" 2>&1 || {
        echo "device: a GPU is listed, and cannot be opened: $(sed 's/^bench-cuda: //' "$OUT/gpu.txt" | tail -n 1)"
        exit 1
    }
    echo "device: $(cat "$OUT/gpu.txt"), $(date -u +%Y-%m-%d)"
    cat "$OUT/devices.txt"
}

# step SECONDS NAME COMMAND...: runs it for so long at most, and for no longer than the part has left; its output goes to
# OUT/NAME.txt.
step()
{
    limit=$1 name=$2 left=$((end - $(date +%s)))
    shift 2
    rm -f "$OUT/$name.txt"
    if [ $left -lt 5 ]; then echo "  left  $name: not started, for the part's $PART_SECONDS s are over"; unstarted=$((unstarted + 1)); return; fi
    [ $limit -le $left ] || limit=$left
    from=$(date +%s)
    timeout -k 5 $limit "$@" >"$OUT/$name.txt" 2>&1
    r=$? took=$(($(date +%s) - from)) last=$(tail -n 1 "$OUT/$name.txt" | cut -c 1-200)
    # timeout exits with 124, or with 137 where it had to kill; 137 before that is another one's doing
    [ $r != 137 ] || [ $took -lt $limit ] || r=124
    [ $r = 77 ] || ran=$((ran + 1))
    case $r in
    0) echo "  ok    $name ($took s): $last" ;;
    77) echo "  skip  $name: $last"; skipped=$((skipped + 1)) ;;
    124) echo "  late  $name: stopped after $took s"; late=$((late + 1)) ;;
    *) echo "  FAIL  $name (exit $r, $took s): $last"; bad=$((bad + 1)) ;;
    esac
}

# table NAME LINE: what a step printed, from this line on; nothing where it was not started.
table() { [ ! -e "$OUT/$1.txt" ] || tail -n "+$2" "$OUT/$1.txt"; }

has() { command -v "$1" >/dev/null || { echo "  skip  $2: $1 is not installed"; skipped=$((skipped + 1)); false; }; }

# ---- conformance ----

# on DEVICE MODEL OPTION...: the text of a prompt, and a trace of its experts
on()
{
    d=$1 m=$2
    shift 2
    "$B/bin/moe-run" -q --device $d "$m" --prompt 'And it came to pass' --context 64 -n $tokens --trace "$OUT/$d.trace" \
        "$@" >"$OUT/$d.text" 2>"$OUT/$d.said" </dev/null || { r=$?; cat "$OUT/$d.said"; return $r; }
}
same() { cmp "$OUT/cpu.text" "$OUT/cuda.text" && cmp "$OUT/cpu.trace" "$OUT/cuda.trace"; }

# by PATH MODEL: loads by --load-from PATH; a file system may have no direct reads, and a GPU no mapped ones
by()
{
    on cuda "$2" --load-from "$1" && { same || return; how="$how $1"; return; }
    case $1 in
    direct) grep -q 'past the page cache' "$OUT/cuda.said" ;;
    mapped) grep -q "the host's page tables" "$OUT/cuda.said" ;;
    *) false ;;
    esac
}

# A small model of each layout on both devices: the same text, and the same experts at every position.
same_model()
{
    n=0 tokens=24 how=
    [ -z "$QUICK" ] || tokens=4
    "$B/bin/moe-quantize" -q --force tests/data/tiny-k2/bf16 -o "$OUT/experts.moe" || return
    for m in tests/data/tiny-k2/bf16 tests/data/tiny-k2/fp8 tests/data/tiny-k2/int4 "$OUT/experts.moe"; do
        on cpu "$m" && on cuda "$m" && same || return
        n=$((n + 1))
    done
    for path in direct cached mapped; do by $path "$OUT/experts.moe" || return; done
    echo "$n models, $tokens tokens each, loaded by$how: the same text and the same experts"
}

# Weights that one process keeps, and that others attach to: the same text, also once the keeper is killed.
kept()
{
    tokens=24 m=$OUT/experts.moe s=$(mktemp -d)/socket i=0
    [ -z "$QUICK" ] || tokens=4
    "$B/bin/moe-quantize" -q --force tests/data/tiny-k2/bf16 -o "$m" && on cpu "$m" || return
    "$B/bin/moe-run" --device cuda --keep "$s" "$m" >"$OUT/keep.said" 2>&1 </dev/null & keeper=$!
    until grep -q '^ready:' "$OUT/keep.said"; do
        i=$((i + 1)); [ $i -lt 400 ] && kill -0 $keeper 2>/dev/null || { cat "$OUT/keep.said"; kill -9 $keeper; return 1; }
        sleep 0.1
    done
    on cuda "$m" --attach "$s" && same || { kill -9 $keeper; return 1; }
    "$B/bin/moe-run" --device cuda --attach "$s" "$m" --prompt 'And it came to pass' --context 64 -n $tokens \
        >"$OUT/left.text" 2>"$OUT/left.said" </dev/null & engine=$!
    until grep -q 'engine 2 has' "$OUT/keep.said"; do i=$((i + 1)); [ $i -lt 600 ] || break; sleep 0.1; done
    kill -9 $keeper
    wait $engine && cmp "$OUT/cpu.text" "$OUT/left.text" || { cat "$OUT/left.said"; return 1; }
    rm -rf "$(dirname "$s")"
    echo "2 engines, of which one outlived the keeper: the same text"
}

# answers FILE: what the prompts in the file give with --arithmetic fast, a line each, without their places in the file
answers()
{
    "$B/bin/moe-run" -q --device cuda --arithmetic fast "$OUT/linear.moe" --prompts "$1" --context 64 --jsonl </dev/null |
        sed 's/^{"index": [0-9]*, "line": [0-9]*, //'
}

# Fast is not the CPU's arithmetic, but what a prompt gets does not depend on the others of its batch.
fast_alone()
{
    "$B/bin/moe-quantize" -q --force --quantize all-linear --tensor-type kv_b_proj=nvfp4 tests/data/tiny-k2/int4 \
        -o "$OUT/linear.moe" || return
    n=24
    [ -z "$QUICK" ] || n=3
    for p in 'And it came to pass in those days that there went out a decree' 'In the beginning' 'the king said'; do
        echo "{\"prompt\": \"$p\", \"max_tokens\": $n, \"temperature\": 0.9, \"seed\": 4, \"logprobs\": 3}"
    done >"$OUT/fast.jsonl"
    answers "$OUT/fast.jsonl" >"$OUT/together.jsonl"
    while read -r p; do echo "$p" >"$OUT/one.jsonl"; answers "$OUT/one.jsonl"; done <"$OUT/fast.jsonl" >"$OUT/alone.jsonl"
    [ "$(grep -c '"logprob":' "$OUT/alone.jsonl")" = 3 ] || { cat "$OUT/alone.jsonl"; echo "not three answers"; return 1; }
    cmp "$OUT/together.jsonl" "$OUT/alone.jsonl" || return
    echo "3 prompts, each alone and among the others: the same tokens and log-probabilities"
}

conformance()
{
    fragments=1000000 before=$unstarted
    [ -z "$QUICK" ] || fragments=3000 MOE_CORE_SCHEDULES=${MOE_CORE_SCHEDULES:-1}
    [ -z "$QUICK" ] || export MOE_CORE_SCHEDULES
    step 120 fragments "$B/tests/check-cuda-probe" $fragments
    for t in $(checks); do
        [ "$t" = check-cuda-probe ] || step $STEP_SECONDS "$t" "$B/tests/$t"
    done
    step 120 models sh "$0" same_model
    step 60 keeper sh "$0" kept
    step 120 fast sh "$0" fast_alone
    [ $unstarted = $before ] || incomplete=1
}

# ---- bench ----

# run SEQUENCES TOKENS: the seconds that so many sequences of so many tokens take together, after loading: the less of two
run()
{
    i=0 least=
    while [ $i -lt "$1" ]; do
        echo "{\"tokens\": [$((i + 1)), 2, 3], \"max_tokens\": $2, \"ignore_eos\": true}"
        i=$((i + 1))
    done >"$OUT/prompts.jsonl"
    for i in 1 2; do
        "$B/bin/moe-run" -q --json --device cuda "$OUT/model" --context 512 --max-sequences "$1" --prompts "$OUT/prompts.jsonl" \
            >"$OUT/run.json" </dev/null || return
        all=$(sed -n 's/.*"seconds": \([0-9.e+-]*\), "peak_rss.*/\1/p' "$OUT/run.json")
        load=$(sed -n 's/.*"load": {[^}]*"seconds": \([0-9.e+-]*\),.*/\1/p' "$OUT/run.json")
        [ -n "$all" ] && [ -n "$load" ] || { echo "moe-run --json does not say how long it took" >&2; return 1; }
        least=$(awk -v a="$all" -v l="$load" -v b="${least:-1e9}" 'BEGIN { t = a - l; print t < b ? t : b }')
    done
    echo "$least"
}

# The difference of two runs is what the steps between them take: it is without the start and the prompts.
steps()
{
    widths="--preset k2 --experts $EXPERTS" more=384 sequences='1 16 64'
    [ -z "$QUICK" ] || widths="--experts 8 --top-k 2 --hidden 256 --inter 128 --dense-inter 256 --heads 4 --vocab 512" more=32 sequences='1 2'
    # shellcheck disable=SC2086
    "$B/tests/genmodel" -o "$OUT/model" --layers 2 --dense 1 $widths --format nvfp4 || return
    printf '%-12s %s\n' sequences 'ms a step'
    for n in $sequences; do
        few=$(run $n 2) && many=$(run $n $((2 + more))) || return
        awk -v n=$n -v a="$few" -v b="$many" -v k=$more 'BEGIN { if (b <= a) exit 1; printf "%-12d %.3f\n", n, 1000 * (b - a) / k }' ||
            { echo "$n sequences: $more steps more took no longer ($few and $many s), so nothing is measured"; return 1; }
    done
    sed -n 's/.*"load": \({[^}]*}\).*/load \1/p' "$OUT/run.json"
}

bench()
{
    step 120 kernels "$B/tests/bench-cuda" ${QUICK:+--quick}
    # the same products by PyTorch, where it is installed and sees the GPU
    torch=
    if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        torch=yes
        step 60 torch python3 tests/bench/torch-rows.py
    fi
    rm -rf "$OUT/model"
    step 200 steps sh "$0" steps
    rm -rf "$OUT/model"
    table kernels 2
    [ -z "$torch" ] || table torch 1
    table steps 1
}

# ---- profile ----

profile()
{
    if has ncu "counters of the kernels"; then
        step 120 ncu ncu --set full --clock-control none -f -o "$OUT/kernels" "$B/tests/bench-cuda" --once
    fi
    if has compute-sanitizer "memory, races and barriers"; then
        for tool in memcheck racecheck synccheck; do
            for t in $(checks); do
                case $t in check-cuda-probe | test-*) continue ;; esac
                step $STEP_SECONDS "$tool-$t" compute-sanitizer --tool $tool --error-exitcode 9 "$B/tests/$t" -s 1
            done
        done
    fi
}

# The programs, and the libraries that not every machine has, in a folder that works as a build.
pack()
{
    P=$OUT/pack
    build
    rm -rf "$P"; mkdir -p "$P/tests" "$P/bin" "$P/lib"
    for p in $(programs); do cp "$B/$p" "$P/$p" || exit 1; done
    strip "$P"/tests/* "$P"/bin/*
    ldd "$P"/tests/* "$P"/bin/* | awk '/libcjson|libxxhash|libpcre2|libz\./ { print $3 }' | sort -u |
        while read -r lib; do cp -L "$lib" "$P/lib/"; done
    du -sh "$P" | sed "s/^/device: packed, /"
}

mkdir -p "$OUT"
case ${1:-} in
pack) pack; exit ;;
same_model | kept | fast_alone | steps) $1; exit ;; # by itself, so that it can be stopped
esac
for part; do
    case $part in conformance|bench|profile) ;; *) echo "device: no part '$part' (see tests/device.sh)" >&2; exit 2 ;; esac
done
driver || no_gpu "no NVIDIA driver is installed"
build
[ ! -d "$B/lib" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$B/lib
MOE_TEST_GPU=1
export MOE_TEST_GPU ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH}
find_gpu
for part in ${*:-conformance bench profile}; do
    echo "$part:"
    end=$(($(date +%s) + PART_SECONDS))
    $part
done
[ $unstarted = 0 ] || echo "device: $unstarted not started, for want of time"
echo "device: the rest is in $OUT"
echo "$ran run, $skipped skipped, $late late, $bad failed"
[ $((bad + late + incomplete)) = 0 ] || exit 1
[ $ran != 0 ] || [ $unstarted != 0 ] || exit 77
[ $ran != 0 ]
