#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the identity of models.  Two checkpoints of one config with the same names, sizes and headers but
# other weights are two models to --resume, to "complete already" and to --merge; a source that is rewritten
# while it is read is noticed; work that older versions began is continued.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect moe-plan moe-run
need_helper genmodel
need_python

gen() { ok "$GEN/genmodel" -o "$T/$1" --layers 8 --experts 8 --hidden 128 --inter 64 --seed "$2" --format "${3:-bf16}"; }
gen a 1; gen b 2
for f in a/*.safetensors; do [ "$(stat -c %s "$T/a/${f#a/}" 2>/dev/null)" = "$(stat -c %s "$T/b/${f#a/}" 2>/dev/null)" ] || fail "not two models of one form"; done
ok "$BIN/moe-convert" -q "$T/a" -o "$T/ra.moe"
ok "$BIN/moe-convert" -q "$T/b" -o "$T/rb.moe"

# kill COMMAND...: kills a run that writes $T/x.moe, once one of its layers is done.
killed()
{
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        rm -rf "$T/x.moe.partial"; [ -n "${keep:-}" ] || rm -rf "$T/x.moe"
        "$@" -t 1 -q -o "$T/x.moe" & pid=$!
        while kill -0 $pid 2>/dev/null && [ ! -e "$T/x.moe.partial/layer-001.json" ]; do :; done
        kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
        [ -e "$T/x.moe.partial/layer-001.json" ] && [ ! -e "$T/x.moe.partial/manifest.json" ] && return
    done
    fail "no run was killed half-way"
}

# --resume continues only with the same model
killed "$BIN/moe-convert" "$T/a"
code 15 'another input' "$BIN/moe-convert" -q "$T/b" -o "$T/x.moe" --resume
ok "$BIN/moe-convert" -q "$T/a" -o "$T/x.moe" --resume
diff -r "$T/x.moe" "$T/ra.moe" || fail "a resumed run gives other bytes"
# "complete already" is said only of the same model, as a checkpoint or a container
code 15 'another input' "$BIN/moe-convert" -q "$T/b" -o "$T/x.moe" --resume
ok "$BIN/moe-convert" -q "$T/a" -o "$T/x.moe" --resume
code 15 'another input' "$BIN/moe-convert" -q "$T/rb.moe" -o "$T/x.moe" --resume
ok "$BIN/moe-convert" -q "$T/ra.moe" -o "$T/x.moe" --resume
# a change of a tensor's last value makes another model
cp -r "$T/a" "$T/c"
python3 - "$T/c" <<'PY' || fail "cannot change a value"
import glob, sys
f = sorted(glob.glob(sys.argv[1] + "/*.safetensors"))[-1]
with open(f, "r+b") as h: h.seek(-1, 2); v = h.read(1); h.seek(-1, 2); h.write(bytes([v[0] ^ 1]))
PY
code 15 'another input' "$BIN/moe-convert" -q "$T/c" -o "$T/x.moe" --resume

# "complete already": the small files of the source have to be the same, too
ok "$BIN/moe-convert" -q "$T/a" -o "$T/s.moe"
cp -r "$T/a" "$T/c2"; echo '{"note": 1}' >"$T/c2/tokenizer_note.json"
code 15 'tokenizer_note' "$BIN/moe-convert" -q "$T/c2" -o "$T/s.moe" --resume
ok "$BIN/moe-convert" -q "$T/c2" -o "$T/s.moe" --force
ok "$BIN/moe-convert" -q "$T/c2" -o "$T/s.moe" --resume
code 15 'small files' "$BIN/moe-convert" -q "$T/a" -o "$T/s.moe" --resume

# a plan is for one model, as checkpoint or container, and not for its fine-tune
ok "$BIN/moe-plan" "$T/a" --ranks 2 -o "$T/a.json"; ok "$BIN/moe-plan" "$T/rb.moe" --ranks 2 -o "$T/b.json"
for m in a ra.moe; do
    ok "$BIN/moe-plan" "$T/$m" --from "$T/a.json"
    code 15 'another model' "$BIN/moe-plan" "$T/$m" --from "$T/b.json"
    ok "$BIN/moe-run" "$T/$m" --tokens 1,2 -n 1 --plan "$T/a.json"
    code 15 'another model' "$BIN/moe-run" -q "$T/$m" --tokens 1,2 -n 1 --plan "$T/b.json"
    code 15 'another model' "$BIN/moe-run" -q "$T/$m" --tokens 1,2 -n 1 --plan "$T/a.json" --replan "$T/b.json"
done
code 15 'another model' "$BIN/moe-plan" stage "$T/b.json" --rank 0 --model "$T/ra.moe" -o "$T/stage.moe"

# --merge takes parts of one model only
for m in a b; do
    ok "$BIN/moe-quantize" -q "$T/$m" -o "$T/$m-0.moe" --layers 0-3 -m max
    ok "$BIN/moe-quantize" -q "$T/$m" -o "$T/$m-1.moe" --layers 4-7 -m max
done
code 15 'another input' "$BIN/moe-convert" -q --merge "$T/a-0.moe" "$T/b-1.moe" -o "$T/m.moe"
ok "$BIN/moe-convert" -q --merge "$T/a-0.moe" "$T/a-1.moe" -o "$T/m.moe"
ok "$BIN/moe-quantize" -q "$T/a" -o "$T/qa.moe" -m max
diff -r "$T/m.moe" "$T/qa.moe" || fail "merged parts are not the whole"

# Containers that were quantized from one checkpoint in different ways are different inputs: the weights
# copied from them differ.
ok "$BIN/moe-quantize" -q "$T/ra.moe" -o "$T/am.moe" -m max
ok "$BIN/moe-quantize" -q "$T/ra.moe" -o "$T/full.moe" -m search
code 15 'another input' "$BIN/moe-quantize" -q "$T/am.moe" -o "$T/full.moe" -m search --resume
ok "$BIN/moe-quantize" -q "$T/am.moe" -o "$T/mixed.moe" -m search
ok "$BIN/moe-quantize" -q "$T/am.moe" -o "$T/mixed.moe" -m search --resume
code 15 'another input' "$BIN/moe-quantize" -q "$T/ra.moe" -o "$T/mixed.moe" -m search --resume
for k in 0-3 4-7; do
    ok "$BIN/moe-quantize" -q "$T/ra.moe" -o "$T/p-$k.moe" --layers $k -m search
    ok "$BIN/moe-quantize" -q "$T/am.moe" -o "$T/r-$k.moe" --layers $k -m search
done
code 15 'another input' "$BIN/moe-convert" -q --merge "$T/p-0-3.moe" "$T/r-4-7.moe" -o "$T/m3.moe"
ok "$BIN/moe-convert" -q --merge "$T/r-0-3.moe" "$T/r-4-7.moe" -o "$T/m3.moe"
diff -r "$T/m3.moe" "$T/mixed.moe" || fail "merged parts of a quantized container are not the whole"
code 15 'another input' "$BIN/moe-convert" -q --merge "$T/p-0-3.moe" "$T/p-4-7.moe" -o "$T/m3.moe" --resume

# another container at the output is replaced only by work that was begun with --force
rm -rf "$T/x.moe"
killed "$BIN/moe-convert" "$T/a"
cp -r "$T/rb.moe" "$T/x.moe"
code 4 'another container is there' "$BIN/moe-convert" -q "$T/a" -o "$T/x.moe" --resume
diff -r "$T/x.moe" "$T/rb.moe" || fail "a container was replaced without --force"
rm -rf "$T/x.moe"
ok "$BIN/moe-convert" -q "$T/a" -o "$T/x.moe" --resume
rm -rf "$T/x.moe"; cp -r "$T/rb.moe" "$T/x.moe"
keep=1; killed "$BIN/moe-convert" "$T/a" --force; keep=
ok "$BIN/moe-convert" -q "$T/a" -o "$T/x.moe" --resume
diff -r "$T/x.moe" "$T/ra.moe" || fail "work begun with --force is not gone on with"

# a source becomes another model while it is read: nothing is published, and the work is not continued
cp -r "$T/a" "$T/d"
python3 - "$BIN/moe-convert" "$T/d" "$T/b" "$T/y.moe" <<'PY' || fail "a rewritten source is not noticed"
import glob, os, shutil, signal, subprocess, sys
tool, src, other, out = sys.argv[1:]
files = sorted(glob.glob(src + "/*.safetensors"))
for tries in range(30):
    p = subprocess.Popen([tool, "-q", "-t", "1", src, "-o", out], stderr=subprocess.PIPE)
    while p.poll() is None and not os.path.exists(out + ".partial/layer-001.json"): pass
    p.send_signal(signal.SIGSTOP)
    early = p.poll() is None and not os.path.exists(out + ".partial/source.jsonl") and os.path.exists(out + ".partial")
    if early:
        for f in files:
            with open(f, "r+b") as h, open(other + "/" + os.path.basename(f), "rb") as g: h.write(g.read())
    p.send_signal(signal.SIGCONT)
    err = p.communicate()[1].decode()
    if early: break
    shutil.rmtree(out, True)
else: sys.exit("the run was always too fast")
print(p.returncode, err)
ok = p.returncode == 15 and "changed while they were read" in err and not os.path.exists(out) and not os.path.exists(out + ".partial")
sys.exit(not ok)
PY

# the same with a GGUF file, whose writer keeps no journal: it is stopped when the source has been read once
# for its identity and half for the file
ok "$GEN/genmodel" -o "$T/e" --layers 4 --experts 16 --hidden 512 --inter 512 --seed 1
ok "$GEN/genmodel" -o "$T/f" --layers 4 --experts 16 --hidden 512 --inter 512 --seed 2
python3 - "$BIN/moe-convert" "$T/e" "$T/f" "$T/y.gguf" <<'PY' || fail "a source rewritten while it becomes a GGUF file is not noticed"
import glob, os, shutil, signal, subprocess, sys
tool, src, other, out = sys.argv[1:]
files = sorted(glob.glob(src + "/*.safetensors"))
total = sum(map(os.path.getsize, files))
shutil.copytree(src, src + ".kept")
for tries in range(30):
    p = subprocess.Popen([tool, "-q", "-t", "1", "--to", "gguf", "--outtype", "f32", src, "-o", out], stderr=subprocess.PIPE)
    read = lambda: int(open("/proc/%d/io" % p.pid).readline().split()[1])
    try:
        while p.poll() is None and read() < 0.9 * total: pass
        p.send_signal(signal.SIGSTOP)
        early = p.poll() is None and read() < 1.1 * total
    except (OSError, ProcessLookupError, IndexError): early = False
    if early:
        for f in files:
            with open(f, "r+b") as h, open(other + "/" + os.path.basename(f), "rb") as g: h.write(g.read())
    p.send_signal(signal.SIGCONT)
    err = p.communicate()[1].decode()
    if early: break
    if os.path.exists(out): os.unlink(out)
else: sys.exit("the run was always too fast")
print(p.returncode, err)
sys.exit(not (p.returncode == 15 and "changed while they were read" in err and not os.path.exists(out)))
PY

# files that are read by their path at the end, and values that cannot be read or are not sound because
# another program writes: the message says that the source is not the one that was opened
cat >"$T/swap.py" <<'PY'
import glob, os, shutil, signal, subprocess, sys
kept, other, how, out, mark = sys.argv[1:6]
command = sys.argv[6:]
src = kept + ".now"
def change():
    files = sorted(glob.glob(src + "/*.safetensors"))
    if how == "small": open(src + "/tokenizer_note.json", "w").write('{"note": 2}')
    elif how == "swap": os.rename(src, src + ".was"); shutil.copytree(other, src)
    elif how == "cut": [os.truncate(f, os.path.getsize(f) // 8) for f in files]
    elif how == "nan":
        for f in files:
            with open(f, "r+b") as h: h.seek(os.path.getsize(f) // 8); h.write(b"\xff" * (os.path.getsize(f) - h.tell()))
for tries in range(40):
    for d in (src, src + ".was", out, out + ".partial"): shutil.rmtree(d, True)
    shutil.copytree(kept, src)
    open(src + "/tokenizer_note.json", "w").write('{"note": 1}')
    p = subprocess.Popen([c.replace("SRC", src).replace("OUT", out) for c in command], stderr=subprocess.PIPE)
    while p.poll() is None and not os.path.exists(out + ".partial/" + mark): pass
    p.send_signal(signal.SIGSTOP)
    early = p.poll() is None and os.path.exists(out + ".partial")
    if early: change()
    p.send_signal(signal.SIGCONT)
    err = p.communicate()[1].decode()
    if early: break
else: sys.exit("the run was always too fast")
print(how, p.returncode, err)
sys.exit(not (p.returncode == 15 and ("while it was read" in err or "while the model was read" in err) and not os.path.exists(out)))
PY
swapped() { ok python3 "$T/swap.py" "$@"; cat "$T/out"; }
for how in small swap cut nan; do swapped "$T/a" "$T/b" $how "$T/z.moe" layer-001.json "$BIN/moe-convert" -q -t 1 SRC -o OUT; done
swapped "$T/ra.moe" "$T/rb.moe" swap "$T/z.moe" layer-001.json "$BIN/moe-quantize" -q -t 1 SRC -o OUT
swapped "$T/ra.moe" "$T/rb.moe" swap "$T/z" '' "$BIN/moe-convert" -q --to hf SRC -o OUT

# calibrated bytes depend on the kernels: these are recorded, and parts of different ones are not mixed
# without a message
F=tests/data/tiny-k2
calibrate() { out=$1; shift; "$@" "$BIN/moe-quantize" -q --calib $F/calib.txt --sequence-length 64 --calib-tokens 128 --effort fast --upstream source $F/bf16 -o "$T/$out.moe" $more; }
kernels() { look "$T/$1.moe/manifest.json" "v['provenance'].get('kernels')"; }
more="--layers 0-1"; ok calibrate k0 env
more="--layers 2-3"; ok calibrate k1 env; ok calibrate r1 env MOE_CPU=ref
[ "$(kernels r1)" = ref ] || fail "the manifest says '$(kernels r1)' of plain C"
[ "$(kernels qa)" = None ] || fail "data-free bytes do not depend on kernels"
if [ "$(kernels k1)" = vector ]; then
    cmp -s "$T/k1.moe/layer-002.moe" "$T/r1.moe/layer-002.moe" && echo "(here the kernels give the same bytes)"
    code 15 'mix-kernels' "$BIN/moe-convert" -q --merge "$T/k0.moe" "$T/r1.moe" -o "$T/k.moe"
    ok "$BIN/moe-convert" -q --merge --mix-kernels "$T/k0.moe" "$T/r1.moe" -o "$T/k.moe"
    [ "$(kernels k)" = mixed ] || fail "what was mixed is '$(kernels k)'"
    more="$more --resume"; code 15 'MOE_CPU=ref' calibrate r1 env # complete, but not what this run would write
    code 15 'AVX2' calibrate k1 env MOE_CPU=ref
fi
code 2 'mix-kernels goes with' "$BIN/moe-convert" -q --mix-kernels "$T/a" -o "$T/k.moe"

# work that a version without the digest of the weights left is continued, with a message
old() { python3 tests/gen/oldstate.py "$1"; }
rm -rf "$T/x.moe"
killed "$BIN/moe-convert" "$T/a"
ok old "$T/x.moe.partial"
code 15 'is not what .* was made from' "$BIN/moe-convert" -q "$T/b" -o "$T/x.moe" --resume # a tensor that is done is read again
ok "$BIN/moe-convert" "$T/a" -o "$T/x.moe" --resume
grep -q 'older version' "$T/err" || { cat "$T/err"; fail "it is not said that the weights could not be compared"; }
diff -r "$T/x.moe" "$T/ra.moe" || fail "old work is not gone on with"
ok old "$T/x.moe"
ok "$BIN/moe-inspect" -q --verify "$T/x.moe"
ok old "$T/a-0.moe"
ok "$BIN/moe-convert" --merge "$T/a-0.moe" "$T/a-1.moe" -o "$T/m2.moe"
grep -q 'parts of an older version' "$T/err" || { cat "$T/err"; fail "it is not said that the parts' weights could not be compared"; }
ok "$BIN/moe-convert" "$T/a" -o "$T/x.moe" --resume
grep -q 'older version' "$T/err" || { cat "$T/err"; fail "it is not said that the weights could not be compared"; }
code 15 'another input' "$BIN/moe-convert" -q "$T/rb.moe" -o "$T/x.moe" --resume # its source.jsonl tells
echo "t-identity: two models of one form are two"
