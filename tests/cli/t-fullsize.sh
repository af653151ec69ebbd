#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the whole of Kimi K2 as a sparse checkpoint (real headers, data are holes): inspecting and planning
# take seconds.  The estimate of a calibration also measures the machine for 2 seconds, on processors that
# others may be using.
. tests/common.sh
need_tool moe-inspect
need_helper genmodel genrss
need_space 200

ok "$GEN/genmodel" -o "$T/k2" --preset k2 --sparse
measure 1024 5 "$BIN/moe-inspect" "$T/k2" --json
[ "$(json parameters "$T/out")" = 1026408209408 ] || fail "parameters: $(json parameters "$T/out")"
[ "$(json parameters_active "$T/out")" = 32861477888 ] || fail "parameters_active: $(json parameters_active "$T/out")"
[ "$(json layout "$T/out")" = fp8-block128 ] || fail "layout: $(json layout "$T/out")"
for tool in moe-convert moe-quantize; do
    [ -x "$BIN/$tool" ] || { echo "no $tool yet"; continue; }
    measure 1024 5 "$BIN/$tool" "$T/k2" -o "$T/k2.moe" --dry-run --json
    [ $tool = moe-convert ] || sanitized || measure 1024 20 "$BIN/$tool" "$T/k2" -o "$T/k2.moe" --calib tests/data/tiny-k2/calib.txt --memory 256G --dry-run --json
    [ -z "$(find "$T" -name 'k2.moe*')" ] || fail "$tool --dry-run wrote something"
done
