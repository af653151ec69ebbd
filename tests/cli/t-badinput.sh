#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests bad input for every tool that reads it, by the rules of docs/guide/troubleshooting.md: one sentence
# that names file, tensor and remedy, the exit code, the same in --json, and nothing under the final name.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run
need_helper genmodel
need_python
F=tests/data/tiny-k2 checks=0 NULL=/dev/null

# Looks at what all commands printed with --json, in one go at the end.
cat >"$T/agree.py" <<'P'
import json, sys
def agree(out, err, code, tool, file, tensor):
    o = json.load(open(out))
    text = open(err).read()
    if tool == "moe-inspect" and "problems" in o:  # it describes what it can and lists what is wrong
        assert text.count("\n") == 1 and any(file in p and tensor in p for p in o["problems"]), o
        return
    e = o["error"]
    assert sorted(e) == ["code", "file", "message", "name", "tensor"], e
    assert e["code"] == int(code) and text == f"{tool}: {e['message']}\n", (e, text)
    assert not file or file in (e["file"] or ""), (e["file"], file)
    assert not tensor or e["tensor"] == tensor, (e["tensor"], tensor)
said = sys.argv[1]
for line in open(said + "/list"):
    n, code, tool, file, tensor, command = line.rstrip("\n").split("\t")
    try: agree(f"{said}/{n}.out", f"{said}/{n}.err", code, tool, file, tensor)
    except Exception as e: sys.exit(f"--json of: {command}: {type(e).__name__} {e}")
P
mkdir "$T/said"
# bad CODE FILE TENSOR TEXT TOOL ARGUMENT...: the command fails like this, with and without --json.  FILE and
# TENSOR may be empty; TEXT is a pattern.
bad()
{
    code=$1 file=$2 tensor=$3 text=$4 tool=$5
    shift 5
    r=0
    "$BIN/$tool" -q "$@" >"$T/out" 2>"$T/err" <$NULL || r=$?
    [ $r = "$code" ] || { cat "$T/err"; fail "exit $r, not $code: $tool $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "not one sentence: $tool $*"; }
    grep -q -- "$text" "$T/err" || { cat "$T/err"; fail "does not say '$text': $tool $*"; }
    for word in "$file" "$tensor"; do
        [ -z "$word" ] || grep -qF -- "$word" "$T/err" || { cat "$T/err"; fail "does not name '$word': $tool $*"; }
    done
    [ $tool = moe-inspect ] || [ ! -s "$T/out" ] || { cat "$T/out"; fail "something on standard output: $tool $*"; }
    left
    r=0
    "$BIN/$tool" -q --json "$@" >"$T/out" 2>"$T/err" <$NULL || r=$?
    [ $r = "$code" ] || { tail -c 700 "$T/out"; cat "$T/err"; fail "exit $r, not $code: $tool --json $*"; }
    mv "$T/out" "$T/said/$checks.out" && mv "$T/err" "$T/said/$checks.err"
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' $checks "$code" $tool "$file" "$tensor" "$tool $*" >>"$T/said/list"
    left
    checks=$(($checks + 1))
}
# Nothing may stand under the final names; what could be resumed is deleted.
left()
{
    for x in "$T/x.moe" "$T/x.trace" "$T/x.report"; do [ ! -e "$x" ] || fail "$x was left: $tool"; done
    rm -rf "$T"/x.moe.partial*
    rm -f "$T"/x.trace* "$T"/x.report*
}
# every CODE FILE TENSOR TEXT MODEL: all four tools fail like this on the model.
every()
{
    m=$5
    set -- "$1" "$2" "$3" "$4"
    bad "$@" moe-inspect "$m"
    bad "$@" moe-convert "$m" -o "$T/x.moe"
    bad "$@" moe-convert "$m" --to nvfp4 -o "$T/x.moe"
    bad "$@" moe-quantize "$m" -o "$T/x.moe"
    bad "$@" moe-run "$m" --prompt x -n 1
    bad "$@" moe-run "$m" --tokens 1 -n 0 --trace "$T/x.trace"
}
# copy NAME [CHECKPOINT]: makes a checkpoint whose files are links, which a test may replace.
copy() { mkdir "$T/$1"; for f in "${2:-$F/bf16}"/*; do ln -s "$(realpath "$f")" "$T/$1/"; done; }
own() { cp --remove-destination "$(realpath "$1")" "$1"; }
# config NAME SED-SCRIPT: makes a copy whose config.json the script has changed.
config() { copy "$1"; own "$T/$1/config.json"; sed -i "$2" "$T/$1/config.json"; ! cmp -s "$T/$1/config.json" $F/bf16/config.json || fail "sed: $2"; }

# ---- directories and configs ----
every 3 nowhere '' 'no such\|not found\|does not exist' "$T/nowhere"
mkdir "$T/empty"
every 3 empty '' 'config.json' "$T/empty"
every 3 '' '' 'not a directory\|a directory' "$F/bf16/config.json"
copy noconfig; rm "$T/noconfig/config.json"
every 3 noconfig '' 'config.json' "$T/noconfig"
config arch 's/DeepseekV3ForCausalLM/LlamaForCausalLM/; s/kimi_k2/llama/'
every 14 config.json '' 'LlamaForCausalLM\|llama' "$T/arch"
config quant 's/"max_position_embeddings": 1024/"max_position_embeddings": 1024, "quantization_config": {"quant_method": "gptq", "bits": 4}/'
every 14 config.json '' 'gptq' "$T/quant"
config syntax 's/"hidden_size": 128,/"hidden_size": 128/'
every 13 config.json '' 'config.json' "$T/syntax"
config neg 's/"hidden_size": 128/"hidden_size": -128/'
every 13 config.json '' 'hidden_size' "$T/neg"
config vocab 's/"vocab_size": 1024/"vocab_size": 1000/'
every 13 model-0 model.embed_tokens.weight '1024' "$T/vocab"

# ---- shards ----
S2=model-00002-of-000003.safetensors S3=model-00003-of-000003.safetensors
copy missing; rm "$T/missing/$S2"
every 3 $S2 '' 'fetch\|missing\|no such' "$T/missing"
copy cut; own "$T/cut/$S3"; truncate -s -1000 "$T/cut/$S3"
every 13 $S3 '' 'short\|truncated' "$T/cut"
copy zero; rm "$T/zero/$S3"; : >"$T/zero/$S3"
every 13 $S3 '' 'fetch it again' "$T/zero"
cat >"$T/header.py" <<'P'
import json, struct, sys
path, what = sys.argv[1:3]
data = open(path, "rb").read()
n = struct.unpack("<Q", data[:8])[0]
h = json.loads(data[8:8 + n])
names = sorted(k for k in h if k != "__metadata__")
name = names[len(names) // 2]
if what == "past":      h[name]["data_offsets"] = [x + len(data) for x in h[name]["data_offsets"]]
elif what == "back":    h[name]["data_offsets"].reverse()
elif what == "overlap": h[name]["data_offsets"] = h[names[0]]["data_offsets"]
elif what == "huge":    h[name]["data_offsets"][1] = 2 ** 63 - 1
elif what == "type":    h[name]["dtype"] = "I64"
elif what == "shape":   h[name]["shape"] = [1, 2, 3]
elif what == "gone":    h["model.layers.3.mlp.experts.99.up_proj.weight"] = h.pop(name)
text = json.dumps(h).encode()
size = len(text) if what != "length" else 2 ** 60
open(path, "wb").write(struct.pack("<Q", size) + text + data[8 + n:])
print(name)
P
for what in past back overlap huge type shape gone length; do
    copy $what; own "$T/$what/$S3"
    name=$(python3 "$T/header.py" "$T/$what/$S3" $what)
    case $what in
    length) every 13 $S3 '' '' "$T/$what" ;;
    overlap) every 13 $S3 '' 'overlap' "$T/$what" ;; # of the two, either may be named
    past) every 13 $S3 '' 'belong to no tensor' "$T/$what" ;; # the hole it leaves comes first
    gone) every 13 '' '' "experts.99\|$name" "$T/$what" ;; # one missing, one too many
    *) every 13 $S3 "$name" '' "$T/$what" ;;
    esac
done

# ---- values ----
U=model.layers.1.mlp.experts.2.up_proj.weight N=model.layers.1.input_layernorm.weight
small() { d=$1; shift; ok "$GEN/genmodel" -o "$T/$d" --layers 3 --experts 4 --top-k 4 --hidden 128 --inter 64 --seed 8 "$@"; }
for kind in nan inf; do
    small $kind --$kind $U
    bad 18 model $U 'NaN\|Inf' moe-convert "$T/$kind" -o "$T/x.moe"
    bad 18 model $U 'NaN\|Inf' moe-convert "$T/$kind" --to nvfp4 -o "$T/x.moe"
    bad 18 model $U 'NaN\|Inf' moe-quantize "$T/$kind" -o "$T/x.moe"
    bad 18 model $U 'NaN\|Inf' moe-run "$T/$kind" --tokens 1,2,3 -n 1
    bad 18 model $U 'NaN\|Inf' moe-run "$T/$kind" --tokens 1,2,3 -n 0 --trace "$T/x.trace"
    small norm$kind --$kind $N
    bad 18 model $N 'NaN\|Inf' moe-convert "$T/norm$kind" -o "$T/x.moe"
    bad 18 model $N 'NaN\|Inf' moe-run "$T/norm$kind" --tokens 1 -n 0
    small head$kind --$kind lm_head.weight
    bad 18 model lm_head.weight 'NaN\|Inf' moe-run "$T/head$kind" --tokens 1 -n 4
    bad 18 model lm_head.weight 'NaN\|Inf' moe-run "$T/head$kind" --tokens 1 -n 0 --trace "$T/x.trace"
done
ok "$BIN/moe-inspect" -q "$T/nan" # it reads no weights unless told
bad 16 model $U 'NaN\|Inf' moe-inspect --verify "$T/nan"

# ---- outputs ----
ok "$BIN/moe-convert" -q $F/bf16 -o "$T/c.moe"
ok "$BIN/moe-convert" -q --to hf "$T/c.moe" -o "$T/hf"
find "$T/c.moe" "$T/hf" -type f -exec cksum {} + >"$T/before"
bad 4 c.moe '' 'already exists (replace it with --force)' moe-convert $F/bf16 -o "$T/c.moe"
bad 4 c.moe '' 'already exists (replace it with --force)' moe-quantize $F/bf16 -o "$T/c.moe"
bad 4 hf '' 'already exists' moe-convert --to hf "$T/c.moe" -o "$T/hf"
find "$T/c.moe" "$T/hf" -type f -exec cksum {} + >"$T/after"
cmp "$T/before" "$T/after" || fail "a refusal changed what was there"
: >"$T/file"
bad 4 file '' 'choose another' moe-convert $F/bf16 -o "$T/file"
bad 4 file '' 'choose another' moe-convert --force $F/bf16 -o "$T/file"
[ -f "$T/file" ] || fail "--force replaced what is not a container"
if command -v flock >$NULL; then
    locked() { mkdir "$T/x.moe.partial"; exec 9<"$T/x.moe.partial"; flock -n 9 || fail "no lock"; }
    free_lock() { exec 9<&-; rm -rf "$T/x.moe.partial"; }
    for how in '' --resume --force; do
        for tool in moe-convert moe-quantize; do
            locked
            r=0; "$BIN/$tool" -q $how $F/bf16 -o "$T/x.moe" >"$T/out" 2>"$T/err" 9<&- || r=$?
            [ $r = 4 ] && grep -q 'another process' "$T/err" || { cat "$T/err"; fail "locked, $tool $how: exit $r"; }
            [ ! -e "$T/x.moe" ] || fail "a locked output was written"
            free_lock; checks=$(($checks + 1))
        done
    done
fi
bad 3 none '' '' moe-convert $F/bf16 -o "$T/none/x.moe"
bad 3 none '' '' moe-quantize $F/bf16 -o "$T/none/x.moe"
bad 3 none '' '' moe-run $F/bf16 --tokens 1 -n 0 --trace "$T/none/x.trace"
bad 3 '' '' 'Not a directory' moe-convert $F/bf16 -o "$T/file/x.moe"
unwritable() # DIRECTORY
{
    bad 11 "$1" '' '' moe-convert $F/bf16 -o "$1/x.moe"
    bad 11 "$1" '' '' moe-quantize $F/bf16 -o "$1/x.moe"
    bad 11 "$1" '' '' moe-convert --to hf "$T/c.moe" -o "$1/x"
    bad 11 "$1" '' '' moe-run $F/bf16 --tokens 1 -n 0 --trace "$1/x.trace"
}
mkdir "$T/ro"
if [ "$(id -u)" != 0 ]; then chmod a-w "$T/ro"; unwritable "$T/ro"; chmod u+w "$T/ro"; fi

# ---- full disks: known before, and met on the way ----
mounted=
trap 'for m in $mounted; do umount "$m"; done 2>$NULL; rm -rf "$T"' EXIT
if [ "$(id -u)" = 0 ] && mkdir "$T/tmp" && mount -t tmpfs -o size=2m none "$T/tmp" 2>$NULL; then
    mounted="$T/tmp"
    bad 12 tmp '' 'needs .* free' moe-convert $F/bf16 -o "$T/tmp/x.moe"
    bad 12 tmp '' 'needs .* free' moe-quantize $F/bf16 -o "$T/tmp/x.moe"
    bad 12 tmp '' 'needs .* free' moe-convert --to hf "$T/c.moe" -o "$T/tmp/x"
    mount -o remount,ro "$T/tmp" && unwritable "$T/tmp"
else
    echo "no small or read-only file system can be mounted: those lines are left out"
fi
# A limit on the size of files stops writing in the middle, as a full disk does.
( trap '' XFSZ; ulimit -f 2000 2>$NULL || exit 0   # 2000 blocks of 512 or 1024 bytes: more than two layers, less than three
  for tool in moe-convert moe-quantize; do
      r=0; "$BIN/$tool" -q --json $F/bf16 $([ $tool = moe-convert ] || echo --method max --quantize experts --tensor-type 'experts=bf16') \
          -o "$T/x.moe" >"$T/out" 2>"$T/err" || r=$?
      [ $r = 11 ] && grep -q 'cannot write\|cannot reserve' "$T/err" && grep -q 'x.moe' "$T/err" || { cat "$T/err"; fail "a file limit, $tool: exit $r"; }
      [ ! -e "$T/x.moe" ] || fail "$tool left a file under the final name"
      rm -rf "$T/x.moe.partial"
  done ) || exit 1

# ---- arguments ----
for tool in moe-inspect moe-convert moe-quantize moe-run; do
    out=; case $tool in moe-convert | moe-quantize) out="-o $T/x.moe" ;; esac
    bad 2 '' '' '--threads' $tool --threads 0 $F/bf16 $out
    bad 2 '' '' '--threads' $tool --threads -3 $F/bf16 $out
    bad 2 '' '' 'want one' $tool $F/bf16 $F/fp8 $out
done
echo Hello >"$T/hello"
ok "$BIN/moe-run" -q $F/bf16 --chat -n 2 <"$T/hello" # no terminal: standard input is one turn, not a conversation

# ---- mixed layouts: legal when every tensor says what it is ----
cat >"$T/mix.py" <<'P'
import json, os, struct, sys
bf16, fp8, out = sys.argv[1:4]
def load(d):
    t = {}
    for f in sorted(os.listdir(d)):
        if not f.endswith(".safetensors"): continue
        b = open(os.path.join(d, f), "rb").read()
        n = struct.unpack("<Q", b[:8])[0]
        for k, v in json.loads(b[8:8 + n]).items():
            if k != "__metadata__": t[k] = (v["dtype"], v["shape"], b[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
    return t
a, b = load(bf16), load(fp8)
mixed = {k: v for k, v in b.items() if ".layers.3." not in k}
mixed.update({k: v for k, v in a.items() if ".layers.3." in k})
h, at = {}, 0
for k, (d, s, x) in mixed.items():
    h[k] = {"dtype": d, "shape": s, "data_offsets": [at, at + len(x)]}
    at += len(x)
text = json.dumps(h).encode()
text += b" " * (-len(text) % 8)
with open(os.path.join(out, "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for _, _, x in mixed.values(): f.write(x)
P
mkdir "$T/mixed"
for f in config.json generation_config.json tiktoken.model tokenizer_config.json; do cp $F/fp8/$f "$T/mixed/"; done
python3 "$T/mix.py" $F/bf16 $F/fp8 "$T/mixed" || fail "no mixed checkpoint"
ok "$BIN/moe-convert" -q "$T/mixed" -o "$T/mixed.moe"
ok "$BIN/moe-convert" -q --to hf "$T/mixed.moe" -o "$T/mixed.hf"
ok python3 tests/readers/sametensors.py "$T/mixed" "$T/mixed.hf"
for m in mixed mixed.moe; do ok "$BIN/moe-run" -q "$T/$m" --tokens 1,2,3 -n 0 --trace "$T/$m.trace"; done
cmp "$T/mixed.trace" "$T/mixed.moe.trace" || fail "the mixed checkpoint and its container differ"
copy noscale $F/fp8; rm "$T/noscale"/*.safetensors*; cp $F/bf16/*.safetensors* "$T/noscale/" # FP8 said, BF16 there
ok "$BIN/moe-run" -q "$T/noscale" --tokens 1 -n 0

# ---- a vocabulary that does not match ----
copy ranks; own "$T/ranks/tiktoken.model"
python3 - "$T/ranks/tiktoken.model" <<'P'
import base64, sys
with open(sys.argv[1], "ab") as f:
    for i in range(1008, 1100): f.write(base64.b64encode(b"zq%dx" % i) + b" %d\n" % i)
P
bad 15 tiktoken.model '' 'vocab_size' moe-run "$T/ranks" --prompt x -n 1
bad 15 tiktoken.model '' 'vocab_size' moe-convert "$T/ranks" -o "$T/x.moe"
bad 15 tiktoken.model '' 'vocab_size' moe-quantize "$T/ranks" -o "$T/x.moe"
bad 15 '' '' 'is a rank of' moe-inspect "$T/ranks" --tokenize $F/golden.json
[ "$(wc -l <"$T/said/list")" -gt 150 ] || fail "only $(wc -l <"$T/said/list") commands were looked at"
python3 "$T/agree.py" "$T/said" || exit 1
echo "t-badinput: $checks checks"
