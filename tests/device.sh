#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs on a GPU what `make check` runs without one, and measures it.
#
#   tests/device.sh [conformance] [bench] [profile]     in this order of use; all three without a name
#   tests/device.sh pack                                makes a folder for a machine that cannot build
#
# conformance  a million fragments of the tensor cores against their twin, every check of the GPU's kernels, and
#              a small model end to end: all bit for bit against the CPU
# bench        the time of each kernel at Kimi K2's widths, beside a copy within the GPU
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
B=${B:-build/release} OUT=${OUT:-build/device} PART_SECONDS=${PART_SECONDS:-240} QUICK=${QUICK:-}
ran=0 bad=0

# The checks that run on a GPU as well as on the stand-in.
checks() { grep -l '= cuda_main\|return cuda_main' tests/kernels/check-cuda-*.c | sed 's|.*/||; s|\.c$||'; }

build()
{
    for t in bench-cuda $(checks); do
        [ -x "$B/tests/$t" ] && continue
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

conformance()
{
    fragments=1000000
    [ -z "$QUICK" ] || fragments=3000
    step fragments "$B/tests/check-cuda-probe" $fragments
    for t in $(checks); do
        [ "$t" = check-cuda-probe ] || step "$t" "$B/tests/$t"
    done
}

bench()
{
    step bench "$B/tests/bench-cuda" ${QUICK:+--quick}
    cat "$OUT/bench.txt"
}

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
    for t in bench-cuda $(checks); do cp "$B/tests/$t" "$P/tests/"; done
    cp "$B/bin/moe-run" "$P/bin/"
    strip "$P"/tests/* "$P"/bin/*
    ldd "$P"/tests/* "$P"/bin/* | awk '/libcjson|libxxhash|libpcre2|libz\./ { print $3 }' | sort -u |
        while read -r lib; do cp -L "$lib" "$P/lib/"; done
    du -sh "$P" | sed "s/^/device: packed, /"
}

mkdir -p "$OUT"
if [ "${1:-}" = pack ]; then pack; exit; fi
for part; do
    case $part in conformance|bench|profile) ;; *) echo "device: no part '$part' (see tests/device.sh)" >&2; exit 2 ;; esac
done
build
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$B/lib MOE_TEST_GPU=1
export LD_LIBRARY_PATH MOE_TEST_GPU
if ! "$B/tests/bench-cuda" --gpu >"$OUT/gpu.txt" 2>&1; then
    echo "device: no GPU to test here: $(sed 's/^bench-cuda: //' "$OUT/gpu.txt" | tail -n 1)"
    exit 77
fi
echo "device: $(cat "$OUT/gpu.txt"), $(date -u +%Y-%m-%d)"
for part in ${*:-conformance bench profile}; do
    echo "$part:"
    end=$(($(date +%s) + PART_SECONDS))
    $part
done
echo "device: $ran run, $bad failed; the rest is in $OUT"
[ $bad = 0 ]
