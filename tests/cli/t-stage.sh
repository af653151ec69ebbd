#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests staged parts: every stored type is staged for ranks, moved away, verified, and run by processes that
# have nothing else, with the text of the whole model.  Everything that would need an expert which is not
# there refuses them, whatever they claim of themselves.
. tests/cli/ep.sh
need_tool moe-convert moe-quantize moe-inspect
need_helper genmodel
P=$BIN/moe-plan

# denied CODE TEXT TOOL ARGUMENTS...: the tool exits with that code and prints one line with TEXT, literally;
# nothing names a partial directory.
denied()
{
    want=$1 text=$2 tool=$3
    shift 3
    got=0
    "$BIN/$tool" "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    [ $got = "$want" ] || { cat "$T/err"; fail "exit $got, not $want: $tool $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "not one line with '$text': $tool $*"; }
    grep -q partial "$T/err" && { cat "$T/err"; fail "names a directory that is gone: $tool $*"; }
    count
}
ask="--prompt And_it_came_to_pass -n 8 --ignore-eos"
# run PART0 PART1 ARGUMENTS...: runs one process for each rank, with its model; the text of rank 0 is in
# $T/out, the exit codes in $r.
run()
{
    part0=$1 part1=$2 at=127.0.0.1:$(free_port)
    shift 2
    "$R" -q "$part1" $ask -t 1 --comm ucx --rank 1 --rendezvous $at "$@" >"$T/out1" 2>"$T/err1" &
    other=$!
    r=0
    timeout 120 "$R" -q "$part0" $ask -t 1 --comm ucx --rank 0 --rendezvous $at "$@" >"$T/out" 2>"$T/err" || r=$?
    wait $other || r="$r $?"
}
ucx=yes
sanitized && ucx= || "$R" -q $M --prompt x -n 1 --ranks 2 --comm ucx >/dev/null 2>"$T/err" || ucx=
[ "$ucx" ] || echo "no UCX here: parts are made, checked and refused, but not run"
# disk FILE: prints the bytes that the file takes on disk.
disk() { echo $(($(stat -c %b "$1") * $(stat -c %B "$1"))); }

# ---- every stored type -----------------------------------------------------------
small="--layers 3 --experts 8 --top-k 3 --hidden 128 --inter 64 --tokenizer $M --seed 9"
for kind in bf16 f32 fp8 int4 nvfp4 nvfp4-ct quantized mixed; do
    case $kind in quantized | mixed) from=bf16 ;; *) from=$kind ;; esac
    [ -d "$T/$from" ] || ok "$GEN/genmodel" -o "$T/$from" --format $from $small
    case $kind in
    quantized) ok "$BIN/moe-quantize" -q "$T/$from" -o "$T/w.moe" ;;
    mixed) ok "$BIN/moe-quantize" -q "$T/$from" -o "$T/w.moe" --tensor-type 'experts\.[0-4]\.down=bf16' --tensor-type 'layers\.2\..*up=f32' ;;
    *) ok "$BIN/moe-convert" -q "$T/$from" -o "$T/w.moe" ;;
    esac
    ok "$R" -q "$T/w.moe" $ask
    mv "$T/out" "$T/text"
    ok "$P" -q "$T/w.moe" --ranks 2 --slots 9 -f -o "$T/plan.json" # one expert of each layer lies on both
    for rank in 0 1; do ok "$P" -q stage "$T/plan.json" --rank $rank -o "$T/s$rank.moe"; done
    mkdir "$T/away-$kind"
    mv "$T/w.moe" "$T/s0.moe" "$T/s1.moe" "$T/away-$kind/"
    cd "$T/away-$kind" || exit 1
    mv s0.moe zero.moe
    mv s1.moe one.moe
    cd - >/dev/null || exit 1
    for part in 0:zero 1:one; do
        ok "$P" -q stage "$T/plan.json" --rank ${part%:*} -o "$T/away-$kind/${part#*:}.moe" --check
        ok "$BIN/moe-inspect" --json --verify "$T/away-$kind/${part#*:}.moe"
        said=$(look "$T/out" '(v["verified"], v["staged"]["ranks"], v["staged"]["of"], 0 < v["staged"]["experts_absent"] < 16)')
        [ "$said" = "(True, [${part%:*}, ${part%:*}], 2, True)" ] || fail "$kind: moe-inspect says $said"
        count
    done
    ok python3 tests/readers/readmoe.py check "$T/away-$kind/one.moe"
    denied 15 "of layer 1 was not staged into it" moe-run -q "$T/away-$kind/zero.moe" $ask
    if [ "$ucx" ]; then
        with="zero one"
        [ $kind = int4 ] && with="zero one,zero w,w one" # a rank may as well have the whole
        echo "$with" | tr , '\n' >"$T/with"
        while read -r parts; do
            run "$T/away-$kind/${parts% *}.moe" "$T/away-$kind/${parts#* }.moe" --plan "$T/plan.json"
            [ "$r" = 0 ] || { cat "$T/err" "$T/err1"; fail "$kind, ranks with $parts: exit $r"; }
            cmp -s "$T/out" "$T/text" || { cat "$T/out" "$T/text"; fail "$kind, ranks with $parts: other text"; }
            count
        done <"$T/with"
        run "$T/away-$kind/one.moe" "$T/away-$kind/zero.moe" --plan "$T/plan.json"
        [ "$r" = "15 15" ] || { cat "$T/err"; fail "$kind: parts of the ranks swapped: exit $r"; }
        grep -q "was not staged into it, and rank [01] needs it (it was staged for rank [01] of 2" "$T/err" || { cat "$T/err"; fail "$kind: parts swapped"; }
        count
    fi
done

# ---- holes take no disk; one host for several ranks ------------------------------
D=$T/away-bf16
ok "$P" -q "$D/w.moe" --ranks 4 --slots 8 -f -o "$T/four.json"
ok "$P" -q stage "$T/four.json" --rank 1 -o "$T/one-of-four.moe"
whole=$(disk "$D/w.moe/layer-001.moe") # an expert: 3 x 128 x 64 x 2 bytes, 12 blocks
few=$(disk "$T/one-of-four.moe/layer-001.moe")
[ "$few" -lt $(($whole / 2)) ] || fail "two experts of eight take $few bytes on disk of $whole"
[ "$(stat -c %s "$T/one-of-four.moe/layer-001.moe")" = "$(stat -c %s "$D/w.moe/layer-001.moe")" ] || fail "a staged file is shorter"
ok "$P" -q stage "$T/four.json" --rank 0-2 -o "$T/host.moe"
ok "$P" -q stage "$T/four.json" --rank 2 -o "$T/host.moe" --check
# A part may replace only a part; the model is also looked for beside the plan.
cp -R "$D/w.moe" "$T/other.moe"
denied 4 "'$T/other.moe': is a whole container" moe-plan stage "$T/four.json" --rank 1 -o "$T/other.moe" -f
cmp -s "$D/w.moe/manifest.json" "$T/other.moe/manifest.json" || fail "a part replaced a whole container"
cp -R "$T/one-of-four.moe" "$T/a-part.moe"
ok "$P" -q stage "$T/four.json" --rank 2 -o "$T/a-part.moe" -f
BIN=$(cd "$BIN" && pwd) P=$BIN/moe-plan
(cd "$T" && ok "$P" -q other.moe --ranks 4 --slots 8 -o beside.json)
mkdir "$T/sub"
(cd "$T/sub" && ok "$P" -q stage ../beside.json --rank 1 -o part.moe) || exit 1
ok diff -r "$T/one-of-four.moe/layer-001.moe" "$T/sub/part.moe/layer-001.moe"
rm -r "$T/other.moe"
denied 3 "'$T/beside.json': is for 'other.moe', which is neither there nor beside the plan (say where it is: --model" moe-plan stage "$T/beside.json" --rank 1 -o "$T/x.moe"
denied 15 "and rank 3 needs it (it was staged for ranks 0 to 2 of 4" moe-plan stage "$T/four.json" --rank 2-3 -o "$T/host.moe" --check
if [ "$ucx" ]; then
    ok "$R" -q "$D/w.moe" $ask
    mv "$T/out" "$T/text"
    ok "$P" -q stage "$T/four.json" --rank 3 -o "$T/last.moe"
    at=127.0.0.1:$(free_port) pids=
    for rank in 1:host 2:host 3:last; do
        "$R" -q "$T/${rank#*:}.moe" $ask -t 1 --comm ucx --plan "$T/four.json" --rank ${rank%:*} --rendezvous $at >/dev/null 2>"$T/err1" &
        pids="$pids $!"
    done
    ok timeout 120 "$R" -q "$T/host.moe" $ask -t 1 --comm ucx --plan "$T/four.json" --rank 0 --rendezvous $at
    for p in $pids; do wait $p || fail "a rank ended with $?"; done
    cmp -s "$T/out" "$T/text" || fail "three ranks of one host on one part: other text"
    count
fi

# ---- commands that need an expert that is not there -----------------------------------
S=$D/zero.moe gone="was not staged into it, nor were"
denied 15 "$gone" moe-run -q "$S" $ask --ranks 1
denied 15 "and rank 1 needs it" moe-run -q "$S" $ask --ranks 2 --plan "$T/plan.json"
denied 15 "$gone" moe-run -q "$S" --score "$T/prompts"
denied 15 "$gone" moe-run -q "$D/w.moe" --score "$T/prompts" --reference "$S"
denied 15 "$gone" moe-run -q "$S" --bench
denied 15 "$gone" moe-quantize -q "$S" -o "$T/x.moe"
denied 15 "$gone" moe-convert -q "$S" -o "$T/x.moe"
denied 15 "$gone" moe-convert -q "$S" --to hf -o "$T/x"
denied 15 "$gone" moe-convert -q "$S" --to gguf -o "$T/x.gguf"
denied 15 "$gone" moe-convert -q --merge "$S" "$D/one.moe" -o "$T/x.moe"
denied 15 "$gone" moe-inspect --diff "$D/w.moe" "$S"
denied 15 "$gone" moe-inspect --diff "$S" "$D/w.moe"
denied 15 "$gone" moe-plan -q "$S" --ranks 2 -o "$T/x.json"
denied 15 "$gone" moe-plan stage "$T/plan.json" --model "$S" --rank 0 -o "$T/x.moe"
denied 15 "$gone" moe-plan stage "$S/plan-staged.json" --rank 0 -o "$T/x.moe"
denied 15 "a staged part" moe-convert -q "$T/bf16" -o "$S" --resume
[ -e "$T/x" ] || [ -e "$T/x.moe" ] || [ -e "$T/x.moe.partial" ] || [ -e "$T/x.gguf" ] || [ -e "$T/x.json" ] && fail "something is left behind"
if [ "$ucx" ]; then
    denied 15 "and rank 1 needs it" moe-run -q "$S" $ask --ranks 2 --plan "$T/plan.json" --comm ucx
    # Plans to move to that need other experts: the old one with its ranks reversed, and one with more
    # copies.
    python3 -c 'import json, sys
p = json.load(open(sys.argv[1]))
for l in p["layers"]: l["ranks"].reverse()
json.dump({k: p[k] for k in ("version", "layers")}, open(sys.argv[2], "w"))' "$T/plan.json" "$T/swapped.json"
    ok "$P" -q "$D/w.moe" --ranks 2 --slots 16 -f -o "$T/twice.json"
    for next in swapped twice; do
        run "$S" "$D/one.moe" --plan "$T/plan.json" --replan "$T/$next.json"
        [ "$r" = "15 15" ] && grep -q "was not staged into it, and rank" "$T/err" || { cat "$T/err"; fail "--replan $next: exit $r"; }
        count
    done
    ok "$BIN/moe-quantize" -q "$T/bf16" -o "$T/q.moe" --method max
    ok "$P" -q stage "$T/plan.json" --model "$T/q.moe" --rank 1 -o "$T/q1.moe"
    run "$S" "$T/q1.moe" --plan "$T/plan.json"
    [ "$r" = "15 15" ] && grep -q "has another model" "$T/err" || { cat "$T/err"; fail "parts of two containers: exit $r"; }
    count
fi

# ---- the message names the damaged container, not the part that was being built --------------------------
cp -R "$D/w.moe" "$T/bad.moe"
printf 'x' | dd of="$T/bad.moe/layer-002.moe" bs=1 seek=$(($(stat -c %s "$T/bad.moe/layer-002.moe") - 70000)) conv=notrunc 2>/dev/null
denied 13 "'$T/bad.moe/layer-002.moe': tensor 'model.layers.2.mlp.experts." moe-plan stage "$T/plan.json" --model "$T/bad.moe" --rank 0-1 -o "$T/x.moe"
[ ! -e "$T/x.moe" ] && [ ! -e "$T/x.moe.partial" ] || fail "something is left behind"

# ---- small files are compared with their digests, too ------------------------------------
cp -R "$D/w.moe" "$T/bad-small.moe"
flip() { printf '%s' "$(head -c 1 "$1" | tr '{' '[')" | dd of="$1" bs=1 conv=notrunc 2>/dev/null; }
flip "$T/bad-small.moe/hf/config.json"
for how in copy link; do
    denied 13 "'$T/bad-small.moe/hf/config.json': does not match its checksum (copy the file again)" moe-plan stage "$T/plan.json" --model "$T/bad-small.moe" --rank 0 -o "$T/x.moe" --how $how
done
ok "$P" -q stage "$T/plan.json" --model "$D/w.moe" --rank 0 -o "$T/x.moe"
flip "$T/x.moe/hf/config.json"
denied 13 "'$T/x.moe/hf/config.json': does not match its checksum (stage it again)" moe-plan stage "$T/plan.json" --rank 0 -o "$T/x.moe" --check
rm -rf "$T/x.moe" "$T/bad-small.moe"

# ---- a whole container whose experts are zeros, copied with holes, is still whole --------------------
ok "$GEN/genmodel" -o "$T/zeros" --format bf16 $small
python3 - "$T/zeros" <<'Z'
import glob, json, struct, sys
for path in glob.glob(sys.argv[1] + "/*.safetensors"):
    with open(path, "r+b") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        for name, t in json.loads(f.read(n)).items():
            if ".experts.3." not in name: continue
            f.seek(8 + n + t["data_offsets"][0])
            f.write(bytes(t["data_offsets"][1] - t["data_offsets"][0]))
Z
ok "$BIN/moe-convert" -q "$T/zeros" -o "$T/zeros.moe"
cp "$T/plan.json" "$T/zeros.moe/plan-staged.json"
cp -R --sparse=always "$T/zeros.moe" "$T/holes.moe"
[ "$(disk "$T/holes.moe/layer-001.moe")" -lt "$(disk "$T/zeros.moe/layer-001.moe")" ] || echo "no holes here: a container with holes is not tried"
ok "$R" -q "$T/holes.moe" $ask

# ---- a part that an older version staged, without a mark -------------------------------
cp -R "$D/w.moe" "$T/old.moe"
python3 - "$T/old.moe/layer-002.moe" <<'O'
import sys
b = open(sys.argv[1], "rb").read()
with open(sys.argv[1], "wb") as f:
    f.write(b[:len(b) // 2])
    f.truncate(len(b))
O
cp "$T/plan.json" "$T/old.moe/plan-staged.json"
denied 15 "expert 4 of layer 2 is not in it: an older version staged it" moe-run -q "$T/old.moe" $ask
denied 15 "expert 4 of layer 2 is not in it: an older version staged it" moe-quantize -q "$T/old.moe" -o "$T/x.moe"

# ---- the golden part, which was written once and is kept ---------------------------------------------
echo '{"version": 1, "layers": [{"layer": 1, "ranks": [[0, 2], [1, 2]]}]}' >"$T/golden.json"
ok "$P" -q stage "$T/golden.json" --model tests/data/golden-v1.moe --rank 0 -o "$T/golden.moe"
ok diff -r tests/data/golden-staged-v1.moe "$T/golden.moe"
ok "$BIN/moe-inspect" --verify tests/data/golden-staged-v1.moe
ok python3 tests/readers/readmoe.py check tests/data/golden-staged-v1.moe
python3 tests/readers/readmoe.py dump tests/data/golden-staged-v1.moe model.layers.1.mlp.experts.1.down_proj.weight >"$T/out" && fail "a hole was dumped"
grep -q "was not staged into this part" "$T/out" || fail "a hole was dumped"

# ---- false claims of a part, made by somebody who can compute its checksums anew ----------------------
cat >"$T/forge.py" <<'F'
import json, shutil, struct, sys
sys.path.insert(0, "tests/readers")
from readmoe import Container, xxh3_64, xxh3_128
part, out = sys.argv[1:3]

def bits(name, value): # of a shard's header, with all digests redone
    with open(forged + "/" + name, "r+b") as f:
        h = bytearray(f.read(128))
        h[16:24] = struct.pack("<Q", value)
        h[120:128] = struct.pack("<Q", xxh3_64(bytes(h[:120]) + bytes(8)))
        f.seek(0)
        f.write(h)
        f.seek(0)
        head = f.read(128 + 64 * struct.unpack_from("<Q", h, 48)[0])
    next(e for e in m["files"] if e["name"] == name)["xxh3_128"] = "%032x" % xxh3_128(head)

def claim(): s["layers"][0]["experts"] = [[0, m["config"]["n_routed_experts"] - 1]] # holes
def deny(): # one that is there
    s["layers"][0]["experts"] = s["layers"][0]["experts"][1:]

def e(): return s["layers"][0]["experts"]
changes = {
    "bit-unknown": lambda: bits("layer-001.moe", 3), "bit-missing": lambda: bits("layer-001.moe", 0), "bit-missing-dense": lambda: bits("dense.moe", 0),
    "unmarked": lambda: m.pop("staged"), "part-too": lambda: m.update(part={"layers": [0, 1], "reports": []}), "claim": claim, "deny": deny,
    "no-from": lambda: s.pop("from"), "short-from": lambda: s.update({"from": "12"}), "no-plan": lambda: s.pop("plan"), "plan-number": lambda: s.update(plan=5),
    "ranks-beyond": lambda: s.update(ranks=[0, 2]), "ranks-back": lambda: s.update(ranks=[1, 0]), "ranks-three": lambda: s.update(ranks=[0, 0, 0]),
    "ranks-half": lambda: s.update(ranks=[0, 0.5]), "of-none": lambda: s.update(of=0), "of-text": lambda: s.update(of="2"),
    "no-layers": lambda: s.pop("layers"), "layers-object": lambda: s.update(layers={}), "layer-dense": lambda: s["layers"][0].update(layer=0),
    "layer-beyond": lambda: s["layers"][-1].update(layer=2), "layer-twice": lambda: s["layers"].append(s["layers"][-1]), "layer-word": lambda: s["layers"][0].update(layer="1"),
    "experts-word": lambda: s["layers"][0].update(experts="all"), "expert-beyond": lambda: e().append([4, 4]), "expert-negative": lambda: e().insert(0, [-1, -1]),
    "expert-back": lambda: e().__setitem__(0, [1, 0]), "expert-twice": lambda: e().append(e()[-1]),
    "ranges-touch": lambda: e().__setitem__(slice(None), [[0, 1], [2, 3]]), "range-one": lambda: e().__setitem__(0, [0]), "range-three": lambda: e().__setitem__(0, [0, 0, 0]),
    "range-huge": lambda: e().append([0, 1e300]), "list": lambda: m.update(staged=[]), "null": lambda: m.update(staged=None),
}
def accepted(path): # by the other reader
    try:
        c = Container(path)
        c.check()
        return not c.problems
    except Exception:
        return False
if not accepted(part): sys.exit("readmoe.py refuses %s as it was staged" % part)
for what in sys.argv[3:] or changes:
    forged = out + what + ".moe"
    shutil.copytree(part, forged)
    m = json.load(open(forged + "/manifest.json"))
    s = m["staged"]
    changes[what]()
    m.pop("checksum")
    text = json.dumps(dict(m, checksum="0" * 32)).encode()
    with open(forged + "/manifest.json", "wb") as f: f.write(text[:-34] + b"%032x" % xxh3_128(text) + text[-2:])
    if accepted(forged): sys.exit("readmoe.py accepts %s" % forged)
    print(what)
F
tiny="--layers 2 --experts 4 --top-k 2 --hidden 32 --inter 32 --heads 1 --q-lora 32 --kv-lora 32 --nope 16 --rope 16 --v 32 --vocab 300 --seed 9"
for kind in bf16 nvfp4; do
    ok "$GEN/genmodel" -o "$T/tiny" --format $kind $tiny
    ok "$BIN/moe-convert" -q "$T/tiny" -o "$T/tiny.moe"
    ok "$P" -q "$T/tiny.moe" --ranks 2 --slots 6 -f -o "$T/tiny.json"
    ok "$P" -q stage "$T/tiny.json" --rank 0 -o "$T/tiny-$kind.moe"
    rm -rf "$T/tiny" "$T/tiny.moe"
done
for kind in bf16 nvfp4; do
    some=
    [ $kind = bf16 ] || some="claim deny"
    python3 "$T/forge.py" "$T/tiny-$kind.moe" "$T/$kind-" $some >"$T/forged" || fail "forging parts of $kind"
    while read -r what; do
        verify= want=13 got=0
        case $what-$kind in bit-unknown-*) want=14 ;; claim-bf16 | deny-*) verify=--verify want=16 ;; esac
        "$BIN/moe-inspect" $verify "$T/$kind-$what.moe" >"$T/out" 2>"$T/err" || got=$?
        [ $got = $want ] || { cat "$T/out" "$T/err"; fail "$what, $kind: moe-inspect gives $got, not $want"; }
        count
    done <"$T/forged"
done
echo "t-stage: $checks checks"
