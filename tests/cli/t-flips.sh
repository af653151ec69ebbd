#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-inspect --verify on a container of tiny-k2 with one wrong byte: it names the file and, for a byte
# of an expert, the expert and the projection.  Without --verify, and in moe-run, nothing crashes.
# (test-flips tries every byte of a smaller container.)
. tests/common.sh
need_tool moe-inspect moe-convert moe-run
need_python
I=$BIN/moe-inspect M=$T/m.moe

ok "$BIN/moe-convert" tests/data/tiny-k2/fp8 -o "$M"
ok "$I" --verify "$M"

# at FILE OFFSET: inverts the byte there; a second call restores it.
at()
{
    python3 - "$M/$1" "$2" <<'E2' || fail "cannot change $1"
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    b = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([b ^ 0x11]))
E2
}
# says FILE OFFSET EXIT-WITHOUT-VERIFY TEXT...: checks what --verify says of that byte, and that the other
# tools end.
says()
{
    file=$1 byte=$2 plain=$3
    shift 3
    at "$file" "$byte"
    "$I" --verify "$M" >"$T/out" 2>"$T/err"
    got=$?
    [ $got = 16 ] || [ $got = 13 ] || { cat "$T/err"; fail "exit $got for byte $byte of $file"; }
    for text; do grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "byte $byte of $file: '$text' is not said"; }; done
    "$I" "$M" >/dev/null 2>&1
    got=$?
    [ $got = "$plain" ] || fail "moe-inspect exits $got, not $plain, for byte $byte of $file"
    "$BIN/moe-run" "$M" --prompt ab -n 1 >/dev/null 2>&1
    got=$?
    [ $got -lt 126 ] || fail "moe-run ends with $got for byte $byte of $file"
    at "$file" "$byte"
}

# Where planes lie is read from the table itself: role, layer, expert at 0; plane at 10; offset and bytes at
# 32 and 40.
python3 - "$M" >"$T/places" <<'E2' || fail "cannot read the tables"
import os, struct, sys
d = sys.argv[1]
names = {20: "gate_proj", 21: "up_proj", 22: "down_proj"}
for name in sorted(n for n in os.listdir(d) if n.startswith("layer-"))[:2]:
    p = open(os.path.join(d, name), "rb").read()
    count, = struct.unpack_from("<Q", p, 40)
    rows = []
    for i in range(count):
        role, layer, expert = struct.unpack_from("<hhi", p, 128 + 64 * i)
        offset, size = struct.unpack_from("<QQ", p, 128 + 64 * i + 32)
        rows.append((offset, size, layer, expert, names[role], p[128 + 64 * i + 10]))
    for r in rows[:: max(1, len(rows) // 6)]:
        print("data", name, r[0] + r[1] // 2, f"model.layers.{r[2]}.mlp.experts.{r[3]}.{r[4]}.weight", "scale" if r[5] else "data")
    rows.sort()
    gaps = [(a, b) for a, b in zip(rows, rows[1:]) if a[0] + a[1] < b[0]]
    for a, b in gaps[:: max(1, len(gaps) // 2)][:2]:
        print("padding", name, b[0] - 1, a[3] if a[3] == b[3] else min(a[3], b[3]), "-")
E2
while read -r kind file byte whose plane; do
    if [ "$kind" = data ]; then says "$file" "$byte" 0 "$file" "$whose" "the $plane plane"
    else says "$file" "$byte" 0 "$file" "padding at byte $byte in the extent of expert $whose"; fi
done <"$T/places"
[ "$(wc -l <"$T/places")" -ge 8 ] || fail "too few places"

says layer-001.moe 3 13 layer-001.moe
says layer-001.moe 200 13 layer-001.moe
says dense.moe 100 13 dense.moe
says manifest.json 50 13 manifest.json
says source.jsonl 7 0 source.jsonl
for f in tiktoken.model tokenizer_config.json; do says tokenizer/$f 20 0 tokenizer/$f; done
says hf/config.json 30 0 hf/config.json
ok "$I" --verify "$M"
echo "t-flips: $(wc -l <"$T/places") places in data"
