#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-inspect --diff: differences in stored bytes and in values, and the worst of them, against sums
# made by the readers in Python.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize
need_helper genmodel
need_python
I=$BIN/moe-inspect C=$BIN/moe-convert K=tests/data/tiny-k2

diff_exits() # CODE FIRST SECOND [OPTION]...: the JSON is in $T/out afterwards, and the text was printed too
{
    want=$1 a=$2 b=$3
    shift 3
    "$I" "$a" --diff "$b" --quiet "$@" >"$T/text" 2>"$T/err"
    got=$?
    [ $got = "$want" ] || { cat "$T/text" "$T/err"; fail "exit $got, want $want: $a $b"; }
    "$I" "$a" --diff "$b" --json "$@" >"$T/out" 2>"$T/err"
    got=$?
    [ $got = "$want" ] || { cat "$T/out" "$T/err"; fail "exit $got with --json, want $want: $a $b"; }
}
KEYS='["same","values_same","tensors_same","tensors_different","tensors_only_first","tensors_only_second","tensors_shape","tensors_type","tensors_values","relative_error","types","worst","config","differences"]'
COUNTS='j["tensors_only_first"], j["tensors_only_second"], j["tensors_shape"], j["tensors_type"], j["tensors_values"]'

# A checkpoint and its container are the same.
small="--layers 3 --experts 4 --top-k 2 --hidden 192 --inter 64 --vocab 320 --dense-inter 256"
for format in bf16 f32 fp8 int4 nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/$format" $small --seed 5 --format $format
    ok "$C" "$T/$format" -o "$T/$format.moe"
    diff_exits 0 "$T/$format" "$T/$format.moe"
    holds "list(j) == $KEYS and j['same'] and j['values_same'] and ($COUNTS) == (0, 0, 0, 0, 0) and j['relative_error'] == 0 and not (j['worst'] or j['config'] or j['differences'])"
done
diff_exits 0 "$T/fp8.moe" "$T/fp8.moe"

# Other types: the error is the one that the quantizer reported, and the one that the second reader finds.
ok "$BIN/moe-quantize" $K/bf16 --method max --json -o "$T/q.moe"
total=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["relative_error"]["total"])' "$T/out")
diff_exits 15 $K/bf16 "$T/q.moe"
holds "list(j) == $KEYS[:-1] + ['differences', 'error'] and j['error']['code'] == 15 and not j['same'] and not j['values_same'] and j['tensors_same'] == 57"
holds "($COUNTS) == (0, 0, 0, 288, 0) and abs(j['relative_error'] - $total) < 1e-6 and len(j['worst']) == 10 and len(j['differences']) == 288"
holds "all(': bf16, nvfp4 in the second: relative error 0.0' in d for d in j['differences'])"
holds "[w['relative_error'] for w in j['worst']] == sorted((w['relative_error'] for w in j['worst']), reverse=True)"
holds "all(w['type'] == 'bf16' and w['type_second'] == 'nvfp4' and w['weights'] == 8192 and w['weights_different'] > 4000 for w in j['worst'])"
holds "all(abs(abs(w['first'] - w['second']) - w['max_difference']) < 1e-7 for w in j['worst'])"
[ "$(grep -c '  model.layers' "$T/text")" = 10 ] && grep -q "57 tensors are the same, 288 differ" "$T/text" || fail "text"
head -n 1 "$T/text" | grep -q "^of '.*' (the first) and '.*' (the second) 57 tensors are the same" && grep -q "^  288 tensors of bf16, nvfp4 in the second: 0.0" "$T/text" || fail "the summary is not first"
holds "[(t['type'], t['type_second'], t['tensors'], t['relative_error']) for t in j['types']] == [('bf16', 'nvfp4', 288, j['relative_error'])]"
cp "$T/out" "$T/one"
for n in 0 3 288 1000; do
    diff_exits 15 $K/bf16 "$T/q.moe" --top $n
    least=$([ $n -lt 288 ] && echo $n || echo 288)
    holds "len(j['worst']) == $least"
    [ "$(grep -c '^  .*  model.layers' "$T/text")" = $least ] && [ "$(grep -c '^model.layers' "$T/text")" = 0 ] || fail "--top $n"
done
code 2 "0 to 1000" "$BIN/moe-inspect" $K/bf16 --diff $K/bf16 --top 1001
for n in 1 5; do
    diff_exits 15 $K/bf16 "$T/q.moe" --threads $n
    cmp "$T/out" "$T/one" || fail "$n threads give another answer"
done
cat >"$T/sums.py" <<'P'
import json, math, struct, sys
sys.path.insert(0, "tests/readers")
import readmoe
a, b = (readmoe.Container(p) for p in sys.argv[1:3])
j = json.load(open(sys.argv[3]))
rows, num, den = [], 0, 0
theirs = {n: (s, t) for s in b.shards.values() for n, t in s.tensors.items()}
for s in a.shards.values():
    for name, t in s.tensors.items():
        x, y = readmoe.decode(s, t), readmoe.decode(*theirs[name])
        if t["type"] == theirs[name][1]["type"] and x == y:
            continue
        n, d = math.fsum((p - q) ** 2 for p, q in zip(x, y)), math.fsum(p * p for p in x)
        num, den = num + n, den + d
        if n:
            top = max(range(len(x)), key=lambda i: abs(x[i] - y[i]))
            rows.append((math.sqrt(n / d), name, top // t["cols"], top % t["cols"], x[top], y[top], sum(p != q for p, q in zip(x, y))))
rows.sort(key=lambda r: -r[0])
assert abs(j["relative_error"] - math.sqrt(num / den)) < 1e-9, (j["relative_error"], math.sqrt(num / den))
for w, r in zip(j["worst"], rows):
    assert w["tensor"] == r[1] and abs(w["relative_error"] - r[0]) < 1e-9, (w, r)
    f32 = lambda v: struct.unpack("f", struct.pack("f", v))[0] # JSON has the digits of a float32
    assert (w["row"], w["column"], w["weights_different"]) == (r[2], r[3], r[6]), (w, r)
    assert f32(w["first"]) == f32(r[4]) and f32(w["second"]) == f32(r[5]), (w, r)
assert len(j["worst"]) == min(10, len(rows))
P
for pair in "fp8 int4" "int4 nvfp4" "f32 bf16"; do
    diff_exits 15 "$T/${pair% *}.moe" "$T/${pair#* }.moe"
    mv "$T/out" "$T/said"
    ok python3 "$T/sums.py" "$T/${pair% *}.moe" "$T/${pair#* }.moe" "$T/said"
done

# Reciprocal scales have other bits for nearly the same values; a value is the same in F32 and in BF16.
diff_exits 15 "$T/nvfp4" "$T/nvfp4-ct"
holds "j['tensors_values'] == j['tensors_different'] > 0 and j['relative_error'] < 1e-7 and all('1/' in d for d in j['differences'])"
ok python3 tests/readers/refdecode.py "$T/bf16" "$T/wide"
diff_exits 15 "$T/bf16" "$T/wide"
holds "j['values_same'] and not j['same'] and j['tensors_type'] == j['tensors_different'] > 0 and j['relative_error'] == 0 and not j['worst']"
holds "all(d.endswith('bf16, f32 in the second: the same values') for d in j['differences'])"

# Fewer layers, fewer experts, other shapes; the first 1000 differences are listed.
ok "$GEN/genmodel" -o "$T/two" --layers 2 --experts 4 --top-k 2 --hidden 192 --inter 64 --vocab 320 --dense-inter 256 --seed 5 --format bf16
diff_exits 15 "$T/bf16" "$T/two"
holds "j['tensors_only_first'] == 26 and j['tensors_only_second'] == 0 and 'num_hidden_layers: 3, 2 in the second' in j['config']"
diff_exits 15 "$T/two" "$T/bf16"
holds "j['tensors_only_second'] == 26 and j['tensors_only_first'] == 0 and sum(d.endswith('only in the second') for d in j['differences']) == 26"
ok "$GEN/genmodel" -o "$T/wider" --layers 3 --experts 4 --top-k 2 --hidden 192 --inter 128 --vocab 320 --dense-inter 256 --seed 5 --format bf16
diff_exits 15 "$T/bf16" "$T/wider"
holds "j['tensors_shape'] == 2 * 15 and any(': 64 x 192, 128 x 192 in the second' in d for d in j['differences'])"
ok "$GEN/genmodel" -o "$T/many" --layers 2 --experts 400 --top-k 2 --hidden 32 --inter 32 --vocab 320 --dense-inter 64 --seed 5 --format bf16
ok "$GEN/genmodel" -o "$T/many2" --layers 2 --experts 400 --top-k 2 --hidden 32 --inter 32 --vocab 320 --dense-inter 64 --seed 6 --format bf16
diff_exits 15 "$T/many" "$T/many2"
holds "j['tensors_different'] >= 1200 and len(j['differences']) == 1000 and j['relative_error'] > 1"

# Another config with the same tensors.
mkdir "$T/other"
cp $K/bf16/* "$T/other"
chmod -R u+w "$T/other"
sed 's/"rope_theta": 50000.0/"rope_theta": 10000.0/' $K/bf16/config.json >"$T/other/config.json"
diff_exits 15 $K/bf16 "$T/other"
holds "j['config'] == ['rope_theta: 50000, 10000 in the second'] and j['tensors_different'] == 0 and j['values_same'] and not j['same']"
grep -q "and in their configs" "$T/err" || fail "no word about the configs"

# Values that are not finite are counted, come first among the worst, and are left out of the sums; the same
# NaN in both is no difference.
name=model.layers.1.mlp.experts.2.up_proj.weight
ok "$GEN/genmodel" -o "$T/nan" $small --seed 5 --format bf16 --nan $name
ok "$GEN/genmodel" -o "$T/inf" $small --seed 5 --format bf16 --inf $name
diff_exits 15 "$T/bf16" "$T/nan"
holds "len(j['worst']) == 1 and j['worst'][0]['tensor'] == '$name' and j['worst'][0]['not_finite'] == j['worst'][0]['weights_different'] == 1 and j['relative_error'] == 0"
holds "j['differences'] == ['$name: other values: 1 value is not finite in one']"
diff_exits 15 "$T/nan" "$T/inf"
holds "j['worst'][0]['not_finite'] == 1"
diff_exits 0 "$T/nan" "$T/nan"
diff_exits 15 "$T/nan" "$T/fp8"
holds "j['worst'][0]['tensor'] == '$name' and j['worst'][0]['not_finite'] == 1 and 0 < j['relative_error'] < 0.1"

# A damaged container is not compared; a model that cannot be read is reported.
cp -R "$T/bf16.moe" "$T/bad.moe"
python3 - "$T/bad.moe" <<'P'
import sys
sys.path.insert(0, "tests/readers")
import readmoe
s = readmoe.Shard(sys.argv[1] + "/layer-001.moe", "layer-001.moe")
at = s.tensors["model.layers.1.mlp.experts.1.down_proj.weight"]["planes"][readmoe.DATA][0]
with open(sys.argv[1] + "/layer-001.moe", "r+b") as f:
    f.seek(at)
    b = f.read(1)[0]
    f.seek(at)
    f.write(bytes((b ^ 1,)))
P
diff_exits 16 "$T/fp8" "$T/bad.moe"
grep -q "layer-001.moe.*experts.1.down_proj.weight" "$T/err" || fail "the damaged tensor is not named"
diff_exits 3 "$T/bf16" "$T/nothing"

# Memory is bounded, at sizes above one stripe of rows.
if ! sanitized; then
    need_space 600
    ok "$GEN/genmodel" -o "$T/big" --layers 2 --experts 8 --top-k 2 --hidden 2048 --inter 1024 --vocab 20000 --format bf16 --seed 3
    ok "$BIN/moe-quantize" "$T/big" --method max -o "$T/bigq.moe"
    "$GEN/genrss" "$T/rss" "$I" "$T/big" --diff "$T/bigq.moe" --threads 2 --json >"$T/out" 2>"$T/err"
    read -r bytes seconds <"$T/rss"
    holds "j['tensors_type'] == 24 and 0.05 < j['relative_error'] < 0.15"
    [ "$bytes" -le $((96 << 20)) ] || fail "peak memory $bytes"
    echo "t-diff: 2 threads held $((bytes >> 20)) MiB"
fi
echo "t-diff: ok"
