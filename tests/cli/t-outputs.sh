#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests every writer of a file or directory against links, files of strangers, other processes, and files
# that appear meanwhile.
. tests/common.sh
need_tool moe-convert moe-quantize moe-plan moe-run moe-inspect
need_helper genmodel
need_python
need_space 100
need_faults
shim MOE_FAULT=pread:1:EIO "$BIN/moe-inspect" -q tests/data/tiny-k2/bf16 >"$T/out" 2>"$T/err"
[ $? = 11 ] || skip "no call can be stopped here: $(head -n 1 "$T/err")"
mkdir "$T/w"
python3 tests/shim/outputs.py "$BIN" "$GEN" "$T/w"
