#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that a calibration at K2's true widths stays below --memory.  LAYERS: layers with experts; EXPERTS:
# experts of each; TOKENS: tokens of text.
. tests/common.sh
need_tool moe-quantize moe-inspect
need_helper genmodel genrss
sanitized && skip "sanitizers change memory use"
LAYERS=${LAYERS:-2} EXPERTS=${EXPERTS:-48} TOKENS=${TOKENS:-4096} EFFORT=${EFFORT:-fast}
need_space $(($LAYERS * $EXPERTS * 130 + 2000))
F=tests/data/tiny-k2

ok "$GEN/genmodel" -o "$T/m" --format bf16 --layers $(($LAYERS + 1)) --dense 1 --experts $EXPERTS --hidden 7168 --inter 2048 --dense-inter 2048 --vocab 1024 --tokenizer $F/bf16 --seed 31
for effort in $EFFORT; do
    # the best product of this machine: what --dry-run times, before and after
    speed() { ok "$BIN/moe-quantize" --json --calib $F/calib.txt --calib-tokens $TOKENS --effort $effort --memory 4G --dry-run "$T/m"; look "$T/out" "v['product_flops_per_second']"; }
    best=$(speed)
    ok "$GEN/genrss" "$T/rss" "$BIN/moe-quantize" -q --json --calib $F/calib.txt --calib-tokens $TOKENS --sequence-length 512 --effort $effort --memory 4G "$T/m" -o "$T/$effort.moe"
    read -r bytes seconds <"$T/rss"
    [ "$bytes" -lt 4294967296 ] || fail "$effort: $bytes bytes of memory, 4 GiB allowed"
    mv "$T/out" "$T/said"
    after=$(speed)
    ok python3 - "$T/said" "$effort" "$bytes" "$seconds" "$best" "$after" <<'PY'
import json, os, sys
v = json.load(open(sys.argv[1]))
phases = {}
for l in v["calibration"]:
    for k, t in l["seconds"].items():
        p = phases.setdefault(k, [0, 0])
        p[0] += t
        p[1] += l["flops"].get(k, 0)
print("long-calibrate: %s: peak %.0f MiB, %s s" % (sys.argv[2], int(sys.argv[3]) / 1048576, sys.argv[4]))
best, threads = max(float(sys.argv[5]), float(sys.argv[6])), os.cpu_count()
print("    best product: %.1f GFLOPS on %d threads" % (best / 1e9, threads))
for k, (t, f) in phases.items():
    all_threads = k in ("attention", "router", "forward", "drift")
    rate = f / t if t else 0
    print("    %-10s %7.1f s  %6.1f GFLOPS, %.2f of the best product (%s)" % (k, t, rate / 1e9, rate / (best if all_threads else best / threads), "all threads" if all_threads else "a thread"))
PY
    cat "$T/out"
    rm -rf "$T/$effort.moe"
done
