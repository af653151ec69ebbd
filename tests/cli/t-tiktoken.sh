#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares the tokenizer with the real tiktoken, where python3 has it (PYTHON names another interpreter).
PYTHON=${PYTHON:-python3}
GEN=$2
[ -x "$GEN/gen-tokens" ] || { echo "FAIL: no gen-tokens (make test-programs)"; exit 1; }
"$PYTHON" -c 'import tiktoken' 2>/dev/null || { echo "skip: no tiktoken for $PYTHON (pip install tiktoken)"; exit 77; }
T=$(mktemp -d "${TMPDIR:-/tmp}/moe-test.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
"$GEN/gen-tiktoken" "$T" tests/data/tiny-k2/calib.txt || exit 1
"$PYTHON" tests/gen/make-tokenizer-golden.py --live "$GEN/gen-tokens" "$T"
