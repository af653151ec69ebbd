#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that nothing in files and models controls a terminal: control characters of both sets, DEL, direction
# controls and line separators are escaped in every listing, message and JSON text, and in generated text on
# a terminal; a pipe gets the bytes.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_python
F=tests/data/tiny-k2/bf16

# calm FILE: the file is valid UTF-8 and has no character on which a terminal acts, but ends of lines
calm()
{
    python3 - "$1" <<'P' || fail "$2: what a terminal acts on is in the output"
import re, sys
t = open(sys.argv[1], "rb").read().decode("utf-8")
m = re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", t)
sys.exit("%r at %d of %r" % (m.group(), m.start(), t[:300]) if m else 0)
P
    count
}
shows() { grep -qF -- "$1" "$2" || { cat "$2"; fail "$3 does not show $1"; }; count; }

# ---- a model whose config, file names, tensors and tokens are hostile ----
evil='\u009b31m\u202eX\u2066\u007f\u2028\u061c\u200f\u0085'
cp -r $F "$T/m"
python3 - "$T/m" "$evil" <<'P' || fail python
import base64, json, os, sys
d, evil = sys.argv[1], json.loads('"%s"' % sys.argv[2])
c = json.load(open(d + "/config.json"))
c["model_type"] = "kimi" + evil
json.dump(c, open(d + "/config.json", "w"))
i = json.load(open(d + "/model.safetensors.index.json"))
old = sorted(set(i["weight_map"].values()))[0]
os.rename(d + "/" + old, d + "/a" + evil + ".safetensors")
i["weight_map"] = {k: "a" + evil + ".safetensors" if v == old else v for k, v in i["weight_map"].items()}
json.dump(i, open(d + "/model.safetensors.index.json", "w"))
P
ok "$BIN/moe-inspect" -q "$T/m" --tensors
cp "$T/out" "$T/list"
calm "$T/list" "moe-inspect --tensors"
shows 'a\x9b31m\u202eX\u2066\x7f\u2028\u061c\u200f\x85.safetensors' "$T/list" "moe-inspect --tensors"
"$BIN/moe-inspect" -q --diff "$T/m" $F >"$T/out" 2>"$T/err"
[ $? = 15 ] || fail "--diff of another config"
calm "$T/out" "moe-inspect --diff"
shows 'u009b31m' "$T/out" "moe-inspect --diff"
"$BIN/moe-inspect" -q --json --tensors "$T/m" >"$T/out" 2>"$T/err" || fail "--json --tensors"
calm "$T/out" "moe-inspect --json"
LC_ALL=C grep -q '\\u009b31m\\u202eX\\u2066\\u007f\\u2028' "$T/out" || fail "JSON is not escaped"
[ "$(look "$T/out" "any(t['file'] == 'a' + '$evil' + '.safetensors' for t in v['tensor_list'])")" = True ] || fail "JSON decodes to another name"

# Messages: each tool names a file that no longer exists.
rm "$T/m"/a*.safetensors
for line in "moe-inspect" "moe-convert -o $T/x" "moe-quantize -o $T/x" "moe-run --tokens 1 -n 1" "moe-plan --ranks 2"; do
    "$BIN/"$line -q "$T/m" >"$T/out" 2>"$T/err" && fail "$line: a file is missing"
    calm "$T/err" "$line"
    [ "$(wc -l <"$T/err")" = 1 ] || fail "$line: not one line"
    "$BIN/"$line -q --json "$T/m" >"$T/out" 2>"$T/err"
    calm "$T/out" "$line --json"
    [ "$(look "$T/out" "'a' + '$evil' in (v['error']['file'] or '')")" = True ] || { cat "$T/out"; fail "$line: 'file' of the error"; }
done
# Operands are untrusted text, too.
bytes=$(printf 'no\233such\342\200\256\033[2J\nmodel')
for line in "moe-inspect" "moe-convert -o $T/x" "moe-quantize -o $T/x" "moe-run --tokens 1" "moe-plan --ranks 2" "moe-plan verify" "moe-plan export --to sglang" "moe-plan plot"; do
    "$BIN/"$line "$bytes" >"$T/out" 2>"$T/err" && fail "$line: no such model"
    calm "$T/err" "$line"
    shows 'no\x9bsuch\u202e\x1b[2J\nmodel' "$T/err" "$line"
done

# ---- the tokens that the model produces next get hostile names ----
cp -r $F "$T/t"
ok "$BIN/moe-run" -q --json $F --tokens 885,376 -n 12 --ignore-eos
look "$T/out" "v['tokens']" >"$T/ids"
python3 - "$T/t" "$(cat "$T/ids")" >"$T/want" <<'P' || fail python
import base64, sys
d, ids = sys.argv[1], eval(sys.argv[2])
parts = [b"\x1b[31m", "\u009b2J\u202e".encode(), b"line\n\ttab\r", "\u7f8e\u2066\u0085".encode(), b"\x7f\x08", "\u2029\u200e".encode()]
new = {i: parts[k % 6] + b"%d" % k for k, i in enumerate(dict.fromkeys(ids))}
lines = open(d + "/tiktoken.model").read().splitlines()
with open(d + "/tiktoken.model", "w") as f:
    for l in lines:
        b, i = l.split()
        f.write("%s %s\n" % (base64.b64encode(new[int(i)]).decode() if int(i) in new else b, i))
sys.stdout.buffer.write(b"".join(new[i] for i in ids))
P
line="$BIN/moe-run -q $T/t --tokens 885,376 -n 12 --ignore-eos"
ok $line
printf '\n' | cat "$T/want" - >"$T/wanted"
cmp "$T/wanted" "$T/out" || fail "a pipe does not get the bytes of the text"
ok python3 tests/shim/terminal.py $line
python3 - "$T/out" "$T/calm" <<'P'
import sys
open(sys.argv[2], "wb").write(open(sys.argv[1], "rb").read().replace(b"\t", b" "))  # a tab is layout, as a newline is
P
calm "$T/calm" "moe-run on a terminal"
for text in '\x1b[31m' '\x9b2J\u202e' '\u2066\x85' '\x7f\x08' '\u2029\u200e' 'tab\x0d' '美'; do shows "$text" "$T/out" "moe-run on a terminal"; done
grep -q "^	tab" "$T/out" || fail "newline and tab of the text are gone"
ok $line --json
calm "$T/out" "moe-run --json"
[ "$(look "$T/out" "v['text'].encode() == open('$T/want', 'rb').read()")" = True ] || fail "JSON decodes to another text"
printf 'And\n' >"$T/prompts"
ok python3 tests/shim/terminal.py "$BIN/moe-run" -q "$T/t" --prompts "$T/prompts" -n 3
ids=$(tr -d '[] ' <"$T/ids")
ok "$BIN/moe-inspect" -q "$T/t" --detokenize "$ids"
cmp "$T/want" "$T/out" || fail "--detokenize: a pipe does not get the bytes"
ok python3 tests/shim/terminal.py "$BIN/moe-inspect" -q "$T/t" --detokenize "$ids"
shows '\x9b2J\u202e' "$T/out" "--detokenize on a terminal"
for ranks in 2; do
    ok python3 tests/shim/terminal.py $line --ranks $ranks
    shows '\x9b2J\u202e' "$T/out" "moe-run --ranks $ranks on a terminal"
done
echo "t-terminal: $checks checks"
