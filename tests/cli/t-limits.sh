#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the limits that a shell can set: a small stack (ulimit -s), a largest file (-f), few descriptors
# (-n), little address space (-v); and paths of thousands of bytes.  Every tool works, or prints one sentence
# that names the reason, and nothing half-written stands under a final name.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_helper genmodel genrouting
export LC_ALL=C
K=tests/data/tiny-k2/bf16 I=$BIN/moe-inspect C=$BIN/moe-convert Q=$BIN/moe-quantize P=$BIN/moe-plan R=$BIN/moe-run

ok "$GEN/genmodel" -o "$T/m" --format bf16 --layers 3 --experts 8 --top-k 2 --hidden 192 --inter 128 --vocab 320 --seed 3
i=0
while [ $i -lt 60 ]; do echo "Once upon a time there was a fox, and it ran from $i to $(($i * $i))."; i=$(($i + 1)); done >"$T/text"
"$GEN/genrouting" experts=8 layers=2 first=1 top=2 >"$T/stats" || fail genrouting
ok "$C" -q "$T/m" -o "$T/m.moe"
ok "$Q" -q "$T/m" -o "$T/q.moe" --method max
ok "$P" -q "$T/m.moe" --ranks 4 --stats "$T/stats" -o "$T/plan"

# every FUNCTION: calls it with each of these lines, whose last argument is what the command writes ("-":
# nothing)
every()
{
    for line in "$I $T/m.moe --verify --tensors --experts -" "$I $T/m --diff $T/m.moe -" "$I $K --tokenize $T/text -" \
                "$C -q $T/m -o $T/o.moe" "$C -q $T/m --to nvfp4 -o $T/o.moe" "$C -q $T/m.moe --to hf -o $T/o" \
                "$C -q $T/q.moe --to hf-nvfp4 -o $T/o" "$C -q $T/q.moe --to hf-nvfp4 --flavor compressed-tensors -o $T/o" \
                "$Q -q $T/m --method search -o $T/o.moe" "$Q -q $T/m --method four-over-six -o $T/o.moe" \
                "$Q -q $T/m --method weighted --calib $T/text -o $T/o.moe" "$Q -q $T/m --method gptq --calib $T/text -o $T/o.moe" \
                "$Q -q $K --calib $T/text --effort fast -t 3 -o $T/o.moe" "$Q -q $T/m --quantize all-linear --calib $T/text -o $T/o.moe" \
                "$P -q $T/m.moe --ranks 3 --survive 1 --stats $T/stats --baseline all -o $T/o" "$P -q $T/m --ranks 4 --from $T/plan -o $T/o" \
                "$P verify $T/plan --stats $T/stats -" "$P export $T/plan --to sglang -o $T/o" "$P plot $T/plan -o $T/o" \
                "$P stage -q $T/plan --rank 1 -o $T/o" "$R -q $K --prompt And -n 4 -" "$R -q $K --tokens 5,6,7 -n 0 --trace $T/o" \
                "$R -q $T/m --tokens 5,6,7 -n 2 --record-routing $T/o" "$R -q $T/q.moe --tokens 5,6 -n 2 --activations nvfp4 -" \
                "$R -q $T/q.moe --tokens 5,6 -n 2 --activations int16 -" "$R -q $K --score $T/text --reference $K -t 2 -" \
                "$R -q $K --prompt And -n 4 --ranks 3 -"; do
        made=${line##* }
        [ "$made" = - ] && made= && line=${line% -}
        rm -rf "$T/o" "$T/o.moe" "$T/o.partial" "$T/o.moe.partial"
        "$1" $line
        count
    done
}

# ---- a small stack: everything works ----
small_stack()
{
    sh -c 'ulimit -s 256; exec "$@"' - "$@" >"$T/out" 2>"$T/err" </dev/null || {
        r=$?; cat "$T/err"; fail "exit $r with a stack of 256 KiB: $*"; }
    [ -z "$made" ] || [ -e "$made" ] || fail "nothing was made: $*"
}
sanitized || every small_stack

# ---- a largest file: the tool works, or fails with 11 or 12 and a sentence, and then has created nothing ----
stopped=0
small_file()
{
    { sh -c 'ulimit -f '$blocks'; exec "$@"' - "$@" </dev/null 2>&1 >/dev/null; echo $? >"$T/code"; } | cat >"$T/err"
    r=$(cat "$T/code")
    [ "$r" = 0 ] && return
    [ $r = 11 ] || [ $r = 12 ] || { cat "$T/err"; fail "exit $r with files of at most $blocks blocks: $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -q 'File too large' "$T/err" || { cat "$T/err"; fail "not one line: $*"; }
    [ -z "$made" ] || [ ! -e "$made" ] || fail "something half-written has its final name: $*"
    stopped=$(($stopped + 1))
}
for blocks in 2 40; do every small_file; done
[ $stopped -ge 20 ] || fail "the limit stopped $stopped runs"

# ---- long paths: the message keeps the reason, and --json has the whole path ----
long=$T/$(awk 'BEGIN { for (i = 0; i < 1000; i++) printf "./" }')
says() # CODE WORDS COMMAND...
{
    want=$1 words=$2 r=0
    shift 2
    "$@" >"$T/out" 2>"$T/err" </dev/null || r=$?
    [ $r = $want ] || { cat "$T/err"; fail "exit $r, not $want: $(basename "$1")"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -q -e "$words" "$T/err" || { cat "$T/err"; fail "does not say '$words': $(basename "$1")"; }
    count
}
for tool in "$I" "$R --tokens 1" "$C -o $T/o.moe" "$Q -o $T/o.moe"; do says 3 'none.*does not exist' $tool "${long}none"; done
says 3 'none.*not found' "$P" "${long}none" --ranks 2
says 3 'none.*No such file' "$P" verify "${long}none"
says 3 'none.*No such file' "$Q" "$T/m" -o "$T/o.moe" --calib "${long}none"
says 3 'none.*No such file' "$R" $K --score "${long}none"
says 3 'none.*No such file' "$I" $K --tokenize "${long}none"
says 4 'plan.*already exists' "$P" "$T/m" --ranks 2 -o "${long}plan"
for tool in "$C $T/m" "$Q $T/m"; do
    says 4 'm.moe.*already exists' $tool -o "${long}m.moe"
    says 3 'none/x.moe.*does not exist' $tool -o "${long}none/x.moe"
done
"$I" --json "${long}none" >"$T/out" 2>"$T/err"
tr -d '\n' <"$T/out" | grep -qF "\"file\": \"${long}none\"" || fail "--json does not name the whole file"
dots=$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "./" }') # longer than any path may be
for tool in "$I" "$R --tokens 1" "$C -o $T/o.moe" "$Q -o $T/o.moe" "$P --ranks 2"; do
    r=0
    $tool "$T/${dots}m" >"$T/out" 2>"$T/err" </dev/null || r=$?
    [ $r -ge 2 ] && [ $r -le 18 ] && [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "exit $r of a path of 6,000 bytes: $tool"; }
    grep -qi 'too long' "$T/err" || { cat "$T/err"; fail "does not say that the path is too long: $tool"; }
    count
done
echo "t-limits: $checks checks"
