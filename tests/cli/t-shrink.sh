#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests files that are cut to one page while a tool works on them (fault-preload.c, "truncate"): the tool
# prints one sentence that names the file, gives no result and leaves nothing half-written; or, where it no
# longer needed the file, the result is as it should be.  It exits with 15, since the source changed, or with
# 11 (mapped) or 13 (read) where the change itself is not seen.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run
need_faults
F=tests/data/tiny-k2 cut=0 whole=0
ok "$BIN/moe-convert" -q $F/bf16 -o "$T/ref.moe"
ok "$BIN/moe-quantize" -q $F/bf16 --method max -o "$T/refq.moe"

# faulty PLAN FILE COMMAND...: cuts FILE at PLAN's moment; the exit code is in $r
faulty()
{
    planned=$1 victim=$2 r=0
    shift 2
    shim MOE_FAULT="$planned:truncate" MOE_FAULT_FILE="$victim" "$@" >"$T/out" 2>"$T/err" </dev/null || r=$?
}
calls() # KIND COMMAND...: how often it calls KIND
{
    kind=$1
    shift
    shim MOE_FAULT_COUNT="$T/counts" "$@" >/dev/null 2>&1 </dev/null || return 1
    awk -v k="$kind" '$1 == k { print $2 }' "$T/counts"
}
sentence() # FILE WHAT: said once, and names the file
{
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF "$(basename "$1")" "$T/err" || { cat "$T/err"; fail "$2: not one sentence that names $1"; }
}

# ---- mapped: moe-run ----
# fresh MODEL: makes $T/m, whose files have an old time.  fault-preload.c gives a cut file that time again, as
# within one tick of the file system's clock a cut shows in the size alone.
fresh() { rm -rf "$T/m" "$T/trace"; mkdir "$T/m"; cp -r "$1/." "$T/m"; find "$T/m" -type f -exec touch -d @1000000000 {} +; }
run="$BIN/moe-run $T/m -q -t 2 --tokens 1,2,3,4 -n 4 --ignore-eos"
for from in $F/bf16 "$T/ref.moe" "$T/refq.moe"; do
    fresh "$from"
    $run >"$T/want" 2>/dev/null || fail "moe-run $from"
    n=$(calls alloc $run) || { echo "skip: no call can be counted here"; exit 77; }
    maps=$(calls mmap $run)
    for file in $(cd "$T/m"; ls | grep -E 'safetensors$|\.moe$'); do
        for plan in mmap:$maps alloc:$(($n / 2)) alloc:$(($n * 9 / 10)) alloc:$n; do
            fresh "$from"
            [ "$(stat -c %s "$T/m/$file")" -gt 4096 ] || continue
            faulty $plan "$T/m/$file" $run
            if [ $r = 0 ]; then cmp -s "$T/out" "$T/want" || fail "$from $file $plan: succeeds with other text"; whole=$(($whole + 1)); continue; fi
            [ $r = 11 ] || [ $r = 13 ] || [ $r = 15 ] || { cat "$T/err"; fail "$from $file $plan: exit $r"; }
            sentence "$file" "$from $plan"
            cut=$(($cut + 1))
        done
    done
    file=$(cd "$T/m"; ls -S | grep -E 'safetensors$|\.moe$' | head -n 1)
    fresh "$from"
    faulty mmap:$maps "$T/m/$file" $run --trace "$T/trace" --json
    [ $r = 11 ] || [ $r = 15 ] && grep -q '"error"' "$T/out" && sentence "$file" "$from --trace" || fail "$from --trace: exit $r"
    [ -z "$(cd "$T"; ls | grep '^trace')" ] || fail "$from: a trace was left"
    fresh "$from"
    faulty mmap:$maps "$T/m/$file" "$BIN/moe-run" "$T/m" -q --score CONTRIBUTING.md --window 64 --json
    [ $r = 11 ] || [ $r = 15 ] && grep -q '"error"' "$T/out" && sentence "$file" "$from --score" || fail "$from --score: exit $r"
done
[ $cut -ge 20 ] || fail "only $cut runs met the cut"

# ---- read: convert, quantize, verify ----
for tool in "moe-convert $F/bf16 ref.moe" "moe-convert ref.moe hf" "moe-quantize $F/bf16 refq.moe --method max" "moe-quantize ref.moe refq.moe --method max"; do
    set -- $tool
    name=$1 from=$2 want=$3
    shift 3
    [ -d "$from" ] || from=$T/$from
    [ $want = hf ] && set -- --to hf && rm -rf "$T/hf" && ok "$BIN/moe-convert" -q "$from" --to hf -o "$T/hf"
    fresh "$from"
    rm -rf "$T/x"
    n=$(calls pread "$BIN/$name" "$T/m" -q -t 2 -o "$T/x" "$@")
    for file in $(cd "$T/m"; ls | grep -E 'safetensors$|\.moe$'); do
        for at in $(($n / 3)) $(($n / 2)) $(($n * 5 / 6)); do
            fresh "$from"
            rm -rf "$T/x" "$T/x.partial"
            [ "$(stat -c %s "$T/m/$file")" -gt 4096 ] || continue
            faulty pread:$at "$T/m/$file" "$BIN/$name" "$T/m" -q -t 2 -o "$T/x" "$@"
            if [ $r = 0 ]; then diff -r "$T/x" "$T/$want" >/dev/null || fail "$tool $file $at: other bytes"; whole=$(($whole + 1)); continue; fi
            [ $r = 15 ] || { cat "$T/err"; fail "$tool $file $at: exit $r"; }
            sentence "$file" "$tool $at"
            [ ! -e "$T/x" ] || fail "$tool $file $at: something under the final name"
            cut=$(($cut + 1))
            fresh "$from"
            ok "$BIN/$name" "$T/m" -q -o "$T/x" --resume "$@"
            diff -r "$T/x" "$T/$want" >/dev/null || fail "$tool $file $at: other bytes after --resume"
        done
    done
done
fresh "$T/refq.moe"
n=$(calls pread "$BIN/moe-inspect" --verify "$T/m" -q)
faulty pread:$(($n / 3)) "$T/m/dense.moe" "$BIN/moe-inspect" --verify "$T/m" -q
[ $r = 16 ] || [ $r = 13 ] || { cat "$T/err"; fail "--verify: exit $r"; }
grep -q 'dense.moe' "$T/err" || fail "--verify does not name the file"
echo "$cut runs refused, $whole finished before the cut mattered"
