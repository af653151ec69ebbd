#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Measures again what other quantizers reach on the fixture, where their packages are installed, and compares
# that with what is on record (tests/data/peers-ladder.json, docs/reference/quantization.md).
# PYTHON=venv/bin/python chooses the interpreter.
. tests/common.sh
need_tool moe-run moe-inspect
P=${PYTHON:-python3}
"$P" -c 'import torch, numpy' >/dev/null 2>&1 || skip "no torch and numpy for $P (pip install torch nvidia-modelopt llmcompressor)"
sanitized && skip "the packages are not for sanitizers"
"$P" tests/bench/peers-ladder.py "$BIN" --json "$T/now.json" 2>"$T/err"
r=$?
[ $r = 77 ] && skip "neither modelopt nor llmcompressor for $P"
[ $r = 0 ] || { tail -20 "$T/err"; fail "peers-ladder.py: exit $r"; }
"$P" - "$T/now.json" tests/data/peers-ladder.json <<'P' || fail "other numbers than on record"
import json, sys
now, record = json.load(open(sys.argv[1])), {r["method"]: r for r in json.load(open(sys.argv[2]))}
bad = 0
for r in now:
    for k in ("w4a16", "w4a4"):
        a, b = r[k], record[r["method"]][k]
        if (a is None) != (b is None) or (a and abs(a["kl"] / b["kl"] - 1) > 0.03):
            print(r["method"], k, a, "on record", b)
            bad = 1
sys.exit(bad)
P
echo "long-peers: as on record within 3 %"
