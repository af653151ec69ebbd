#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs other tests with a moe-run whose forward passes run on ops/checked (tests/ops/checked.h), where the host
# cannot read the device's memory, and operations are done late and in another order than they are called in.
# CHECKED="t-NAME...": which scripts; tests/long/long-checked.sh runs those that take longer.
. tests/common.sh
need_tool moe-run moe-convert
[ -x "$GEN/moe-run-checked" ] || skip "moe-run-checked is not built"
mkdir "$T/bin"
for tool in "$BIN"/moe-*; do ln -s "$(cd "$BIN" && pwd)/${tool##*/}" "$T/bin/"; done
ln -sf "$(cd "$GEN" && pwd)/moe-run-checked" "$T/bin/moe-run"
for t in ${CHECKED_PROGRAMS-test-core test-core-cases test-core-threads test-ep-lies}; do
    "$GEN/$t-checked" >"$T/log" 2>&1 </dev/null || { tail -n 40 "$T/log"; fail "$t on ops/checked"; }
    echo "$t: $(tail -n 1 "$T/log")"
done
for t in ${CHECKED:-t-generate t-talk t-ep}; do
    sh "tests/cli/$t.sh" "$T/bin" "$GEN" >"$T/log" 2>&1 </dev/null || {
        r=$?
        [ $r = 77 ] && { echo "$t: skipped"; continue; }
        tail -n 40 "$T/log"
        fail "$t on ops/checked: exit $r"
    }
    echo "$t: $(tail -n 1 "$T/log")"
done
