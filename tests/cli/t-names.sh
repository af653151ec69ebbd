#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests file names in an index: names with spaces, newlines and terminal codes work, and are shown in one
# line; a name that would lead out of the directory is refused.  Entries of a directory may be symbolic links
# to files (as in a download cache), and to nothing else.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run
need_python
F=tests/data/tiny-k2/bf16 S=model-00001-of-000003.safetensors

# rename DIR NAME: makes a checkpoint whose first file has that name (as Python writes it); the file stays
# where it was when it cannot be moved
rename()
{
    rm -rf "$1"; cp -r $F "$1"
    python3 - "$1" "$2" $S <<'P' || fail "python"
import ast, json, os, sys
d, new, old = sys.argv[1], ast.literal_eval("'" + sys.argv[2] + "'"), sys.argv[3]
path = os.path.join(d, "model.safetensors.index.json")
i = json.load(open(path))
try: os.rename(os.path.join(d, old), os.path.join(d, new))
except OSError: pass
i["weight_map"] = {k: new if v == old else v for k, v in i["weight_map"].items()}
json.dump(i, open(path, "w"))
P
}
refused() # CODE TEXT DIR: every tool says so, in one line, and nothing is written
{
    for c in "moe-inspect $3" "moe-convert $3 -o $T/x" "moe-quantize $3 -o $T/x" "moe-run $3 --tokens 1 -n 1"; do
        r=0
        "$BIN/"$c -q >"$T/out" 2>"$T/err" </dev/null || r=$?
        [ $r = "$1" ] && [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$2" "$T/err" || { cat "$T/err"; fail "exit $r: $c, want $1 and '$2'"; }
        [ ! -e "$T/x" ] && [ ! -e "$T/x.partial" ] || fail "something was written: $c"
        ! LC_ALL=C grep -q "$(printf '[\001-\011\013-\037\177]')" "$T/out" "$T/err" || fail "control characters are shown: $c"
    done
}

ok "$BIN/moe-convert" -q $F -o "$T/ref.moe"
ok "$BIN/moe-convert" -q "$T/ref.moe" --to hf -o "$T/ref"
for name in 'a b.safetensors' ' two  blanks .safetensors' 'new\nline.safetensors' 'esc\x1b[31mred\ttab\r.safetensors' '-o.safetensors' \
            'a\\..\\b.safetensors' '...' '$(reboot) `x` *?.safetensors' 'gr\xfc\xdfe \u202e.safetensors'; do
    rename "$T/odd dir" "$name"
    ok "$BIN/moe-convert" -q "$T/odd dir" -o "$T/odd out.moe"
    ok "$BIN/moe-convert" -q "$T/odd out.moe" --to hf -o "$T/odd hf"
    python3 - "$T/odd dir" "$T/odd hf" <<'P' || fail "'$name': --to hf"
import os, sys
a, b = map(os.fsencode, sys.argv[1:3])
assert sorted(os.listdir(a)) == sorted(os.listdir(b)), (os.listdir(a), os.listdir(b))
for f in os.listdir(a):
    assert f.endswith(b".json") or open(os.path.join(a, f), "rb").read() == open(os.path.join(b, f), "rb").read(), f
P
    cmp "$T/odd out.moe/dense.moe" "$T/ref.moe/dense.moe" || fail "'$name': other weights"
    "$BIN/moe-inspect" "$T/odd dir" --tensors >"$T/out" || fail "'$name': moe-inspect"
    ! LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" "$T/out" || fail "'$name': control characters are shown"
    rm -rf "$T/odd out.moe" "$T/odd hf"
done
rename "$T/cut" 'new\nline\x1b[2J.safetensors'
truncate -s 5000 "$T/cut/new"*
refused 13 'new\nline\x1b[2J.safetensors' "$T/cut"

for name in ../a.safetensors /etc/passwd sub/a.safetensors . .. '' ./a.safetensors 'sub/../a.safetensors'; do
    rename "$T/out-of" "$name"
    cp "$T/out-of/$S" "$T/a.safetensors" 2>/dev/null
    mkdir -p "$T/out-of/sub"; cp $F/$S "$T/out-of/sub/a.safetensors"
    refused 13 "'$name', which is no plain file name" "$T/out-of"
done

link() { rm -rf "$T/link"; cp -r $F "$T/link"; rm "$T/link/$S"; ln -s "$1" "$T/link/$S"; }
mkdir "$T/blobs"; cp $F/$S "$T/blobs/0123abcd"
link ../blobs/0123abcd
ok "$BIN/moe-convert" -q "$T/link" -o "$T/linked.moe"
diff -r "$T/linked.moe" "$T/ref.moe" || fail "through a link: other bytes"
link nowhere;   refused 3 $S "$T/link"
link $S;        refused 11 $S "$T/link"
link /dev/zero; refused 11 'not a regular file' "$T/link"
link /;         refused 11 'not a regular file' "$T/link"
rm "$T/link/$S"; mkfifo "$T/link/$S"; refused 11 'not a regular file' "$T/link"
echo "names: ok"
