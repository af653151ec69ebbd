#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs tests and counts them: run.sh BUILD_DIR NAME...  (from the Makefile).  A NAME is a program of
# BUILD_DIR/tests, a script of tests/cli or tests/long, a fuzz-NAME (its corpus is replayed) or
# check-layers.  Some run side by side (TEST_JOBS at a time, by default one more than there are processors, since
# many wait for something); those that wait for a silent rank come last, two at a time, those of tests/long alone.
set -u

# Runs one test: prints its line, and where it failed the end of its log, at once; writes passed, failed or
# skipped to a file.
one()
{
    t=$1 log=$B/log/$1.log said=$B/log/$1.said
    start=$(date +%s)
    case $t in
    check-layers)
        awk -v cli="$CLI" -f tests/layers.awk $LAYERED >"$log" 2>&1 && sh tests/banned.sh $LAYERED >>"$log" 2>&1 &&
            LC_ALL=C awk -f tests/columns.awk $FOLDED >>"$log" 2>&1 ;;
    fuzz-*) "$B/tests/$t" tests/corpus/"${t#fuzz-}" >"$log" 2>&1 ;;
    t-*) sh "tests/cli/$t.sh" "$B/bin" "$B/tests" >"$log" 2>&1 </dev/null ;;
    long-*) sh "tests/long/$t.sh" "$B/bin" "$B/tests" >"$log" 2>&1 </dev/null ;;
    *) "$B/tests/$t" >"$log" 2>&1 </dev/null ;;
    esac
    r=$?
    times >"$said" # of this shell and, in the second line, of all that the test ran: on a busy machine the clock says little
    cpu=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, "m"); s += t[1] * 60 + t[2] } printf "%.0f", s }' "$said")
    took="$(($(date +%s) - start)) s, processor $cpu s"
    case $r in
    0) echo passed >"$B/log/$t.result"; echo "  ok    $t ($took)" >"$said" ;;
    77) echo skipped >"$B/log/$t.result"; echo "  skip  $t: $(tail -n 1 "$log" | sed 's/^skip: //')" >"$said" ;;
    *) echo failed >"$B/log/$t.result"; { echo "  FAIL  $t (exit $r, $took)"; tail -n 60 "$log" | sed 's/^/        /'; } >"$said" ;;
    esac
    flock "$B/log/lock" cat "$said"
    rm -f "$said"
}

if [ "$1" = --one ]; then B=$2; one "$3"; exit 0; fi
B=$1; shift
mkdir -p "$B/log"
# Where python3 is a script that looks for the interpreter (pyenv's), each start takes twice as long, and tests start it a
# thousand times: they find the interpreter itself first.
case $(head -c 2 "$(command -v python3)" 2>/dev/null) in
'#!') PATH=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))'):$PATH; export PATH ;;
esac
alone= late=
names=
# The longest tests come first, so that no processor waits for another one's last test.
long=" t-faults t-calibrate t-plan t-fast t-checked t-device t-check-device t-estimate t-quantize t-run t-types t-score \
t-gguf t-signals t-onepass t-cuda-build t-keep test-core-cuda t-streams test-backward "
for t in $(for t; do case $long in *" $t "*) echo "$t" ;; esac; done) $(for t; do case $long in *" $t "*) ;; *) echo "$t" ;; esac; done); do
    rm -f "$B/log/$t.result"
    case $t in long-*) alone="$alone $t" ;; t-ep|t-ep-ucx|test-comm) late="$late $t" ;; *) names="$names $t" ;; esac
done
jobs=${TEST_JOBS:-$(($(nproc 2>/dev/null || echo 1) + 1))}
side_by_side() { n=$1; shift; [ $# = 0 ] || printf '%s\n' "$@" | xargs -P "$n" -n 1 sh "$0" --one "$B"; }
side_by_side $jobs $names
side_by_side $((jobs < 2 ? 1 : 2)) $late
for t in $alone; do sh "$0" --one "$B" "$t"; done

count() { n=0; for t in $names $late $alone; do [ "$(cat "$B/log/$t.result" 2>/dev/null || echo failed)" != "$1" ] || n=$((n + 1)); done; echo $n; }
failed=$(count failed)
echo "$(count passed) passed, $failed failed, $(count skipped) skipped"
[ "$failed" = 0 ]
