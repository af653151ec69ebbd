#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kills tools with kill -9 at random moments, then resumes: the bytes are those of a run that was not
# killed.  KILLS is the number of kills for each of four jobs.
. tests/common.sh
need_tool moe-convert moe-quantize
need_helper genmodel genrss
KILLS=${KILLS:-3} SIZE=${SIZE:-"--layers 8 --experts 16 --hidden 256 --inter 256"}
need_space 600

seed=${SEED:-$(date +%s)}
echo "SEED=$seed"
state=$(($seed % 2147483647))
random() { state=$(($state * 48271 % 2147483647)); } # sets $state, in [1, 2^31 - 2]

ok "$GEN/genmodel" -o "$T/m" --format fp8 $SIZE --seed 21
# Searching scales is slow, so this model has fewer weights.
ok "$GEN/genmodel" -o "$T/small" --format int4 --layers 8 --experts 16 --hidden 128 --inter 64 --seed 22

torment() # NAME COMMAND...   (the output comes last)
{
    name=$1 kills=0 whole=0 partial=0
    shift
    ok "$GEN/genrss" "$T/rss" "$@" "$T/$name-ref.moe"
    read -r _ seconds <"$T/rss"
    while [ $kills -lt "$KILLS" ]; do
        random
        delay=$(awk "BEGIN { printf \"%.4f\", 1.05 * $seconds * $state / 2147483647 }")
        "$@" "$T/$name.moe" --resume >"$T/out" 2>"$T/err" &
        pid=$!
        sleep "$delay"
        if kill -9 $pid 2>/dev/null; then
            wait $pid 2>/dev/null
            r=$?
        else
            wait $pid
            r=$?
        fi
        if [ $r = 137 ]; then kills=$(($kills + 1)); [ -d "$T/$name.moe.partial" ] && partial=$(($partial + 1))
        elif [ $r != 0 ]; then cat "$T/err"; fail "$name: exit $r after $kills kills (SEED=$seed)"; fi
        if [ -e "$T/$name.moe" ]; then # nothing half-written may stand under the final name
            ok diff -r "$T/$name-ref.moe" "$T/$name.moe"
            rm -rf "$T/$name.moe" "$T/$name.moe.partial"
            whole=$(($whole + 1))
        fi
    done
    ok "$@" "$T/$name.moe" --resume
    ok diff -r "$T/$name-ref.moe" "$T/$name.moe"
    [ ! -e "$T/$name.moe.partial" ] || fail "$name: a partial directory is left"
    echo "$name: $kills kills, $partial partial directories, $whole runs ended before their kill, $seconds s unbroken"
    rm -rf "$T/$name.moe" "$T/$name-ref.moe"
}
torment convert "$BIN/moe-convert" "$T/m" -o
torment nvfp4 "$BIN/moe-convert" "$T/small" --to nvfp4 -o
torment quantize "$BIN/moe-quantize" "$T/m" --method four-over-six -o
tokens=2000
sanitized && tokens=520
torment calibrate "$BIN/moe-quantize" tests/data/tiny-k2/bf16 --calib tests/data/tiny-k2/calib.txt --calib-tokens $tokens --sequence-length 256 --quantize all-linear -o
