#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests `make bench` at tiny sizes: every group has rows, the JSON agrees with the text, nothing is left
# behind.  Checks no time.
. tests/common.sh
sanitized && skip "speeds are the release build's, and other tests run all that is measured"
need_tool moe-convert moe-quantize
need_helper bench genmodel
need_space 300

mkdir "$T/work"
before=$(ls -d /dev/shm/moe-bench.* 2>/dev/null | wc -l)
BENCH_QUICK=1 BENCH_DIR="$T/work" BENCH_JSON="$T/rows.json" "$GEN/bench" "$BIN" "$GEN" >"$T/table" 2>"$T/err" || { cat "$T/table" "$T/err"; fail "exit $?"; }
for what in "memory copy, read + written" "float32 multiply-add in registers" "quantize bf16, search" "fp8-block128, memory to memory" "nvfp4 2048 x 7168, N = 128" "tokenize plain English" \
    "attention over 600 positions" "moe-plan, 72 ranks, 432 slots" "EPLB, 72 ranks, 432 slots" "dispatch+combine, 7168 wide, 16 tokens" "layer, 256 wide, 8 ranks, 16 tokens" \
    "plain read of the source" "cp and fsync" "moe-convert" "moe-quantize, four-over-six"; do
    grep -q "^$what " "$T/table" || fail "no row '$what'"
    grep -q "\"what\":[[:space:]]*\"$what" "$T/rows.json" || fail "no row '$what' in the JSON"
done
awk 'length > 150 { exit 1 }' "$T/table" || fail "a line is longer than 150 columns"
[ "$(grep -c '"seconds"' "$T/rows.json")" -ge 50 ] || fail "only $(grep -c '"seconds"' "$T/rows.json") rows"
[ -z "$(ls "$T/work")" ] || fail "left behind: $(ls "$T/work")"
[ "$(ls -d /dev/shm/moe-bench.* 2>/dev/null | wc -l)" -le "$before" ] || fail "left behind in /dev/shm"
echo "t-bench: $(grep -c '"seconds"' "$T/rows.json") rows"
