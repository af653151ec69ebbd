#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-serve from outside; serve.py says what of.
. tests/common.sh
need_tool moe-run
[ -x "$BIN/moe-serve" ] || skip "no moe-serve (libmicrohttpd-dev)"
need_python
S=$BIN/moe-serve M=tests/data/tiny-k2/bf16
code 2 "want 0 to 65535" "$S" $M --port 65536
code 2 "without a key" "$S" $M --host 0.0.0.0
code 2 "which model" "$S"
code 3 "none" "$S" none --port 0
code 2 "want 1 or more" "$S" $M --queue 0
python3 tests/cli/serve.py "$BIN" "$T" $M || fail "serve.py"
