#!/bin/sh
# Run tests and count: run.sh BUILD_DIR NAME...   (from the Makefile)
# A NAME is a program of BUILD_DIR/tests, a script tests/NAME.sh, a fuzz-NAME (its corpus is replayed) or check-layers.
set -u
B=$1; shift
passed=0 failed=0 skipped=0
mkdir -p "$B/log"
for t; do
    log=$B/log/$t.log
    start=$(date +%s)
    case $t in
    check-layers) awk -f tests/layers.awk $LAYERED >"$log" 2>&1 && sh tests/banned.sh $LAYERED >>"$log" 2>&1 ;;
    fuzz-*) "$B/tests/$t" tests/corpus/"${t#fuzz-}" >"$log" 2>&1 ;;
    *) if [ -f "tests/$t.sh" ]; then sh "tests/$t.sh" "$B/bin" "$B/tests" >"$log" 2>&1 </dev/null
       else "$B/tests/$t" >"$log" 2>&1 </dev/null; fi ;;
    esac
    r=$?
    took=$(($(date +%s) - start))
    case $r in
    0) passed=$((passed + 1)); echo "  ok    $t ($took s)" ;;
    77) skipped=$((skipped + 1)); echo "  skip  $t: $(tail -n 1 "$log" | sed 's/^skip: //')" ;;
    *) failed=$((failed + 1)); echo "  FAIL  $t (exit $r, $took s)"; tail -n 60 "$log" | sed 's/^/        /' ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
