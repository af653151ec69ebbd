#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-quantize --to hf-nvfp4: its directory is that of moe-quantize and then moe-convert, byte for
# byte, over methods, sources and spellings; it can be killed and resumed; what may stand at the output; the
# disk and memory that it needs; what it refuses.
. tests/common.sh
need_tool moe-quantize moe-convert moe-inspect
need_helper genmodel
need_python
F=tests/data/tiny-k2
C="--calib $F/calib.txt --calib-tokens 256 --sequence-length 64 --sensitivity-tokens 128"
Q=$BIN/moe-quantize

# same SOURCE OPTIONS -- OPTIONS: with the first options for moe-quantize and the second for the export, both
# ways give the same directory, with the same mark
same()
{
    src=$1 q=
    shift
    while [ "$1" != -- ]; do q="$q $1"; shift; done
    shift
    rm -rf "$T/q.moe" "$T/two" "$T/one"
    ok "$Q" -q "$src" $q -o "$T/q.moe"
    ok "$BIN/moe-convert" "$T/q.moe" --to hf-nvfp4 "$@" -o "$T/two"; grep -v "written:" "$T/err" >"$T/said"
    ok "$Q" "$src" $q --to hf-nvfp4 "$@" -o "$T/one"
    diff -r "$T/two" "$T/one" >"$T/diff" || { cat "$T/diff"; fail "$src $q $*: another directory"; }
    while read -r line; do grep -qF -- "$line" "$T/err" || fail "$src $q $*: does not say '$line'"; done <"$T/said"
    python3 - "$T/two" "$T/one" <<'P' || fail "$src $q $*: the directory is not known as an export of that container"
import os, sys
try: a, b = (os.getxattr(p, "user.moe.made").split(b" by ")[1] for p in sys.argv[1:])
except OSError: sys.exit()
sys.exit(a != b)
P
}
gen() { "$GEN/genmodel" -o "$@" >/dev/null || fail "genmodel $*"; }
gen "$T/nvfp4" --format nvfp4 --layers 3 --experts 4 --hidden 256 --inter 160 --seed 5
gen "$T/spelled" --format nvfp4-ct --all-mlp --layers 3 --experts 4 --hidden 256 --inter 160 --seed 6 --shards 3 --scales-apart
gen "$T/vision" --format int4 --prefix language_model --vision --layers 2 --experts 4 --hidden 128 --inter 64 --seed 7
# gate and up of one expert with unequal global scales: the mantissas differ
ok python3 tests/gen/patchtensors.py "$T/nvfp4" 'experts.1.up_proj.weight_scale_2$' xor 00004000
ok "$BIN/moe-convert" -q $F/fp8 -o "$T/fp8.moe"
ok "$Q" -q $F/bf16 -m max --tensor-type 'layers\.2\..*experts\..*up_proj=source' -o "$T/mixed.moe"

# sources in other types and layouts: half precision, wide INT4 groups, experts fused into one tensor, copies that
# the index does not count, layers for multi-token prediction
for f in bf16 int4; do
    gen "$T/$f" --format $f --layers 2 --experts 3 --top-k 2 --hidden 256 --inter 128 --seed 11
done
ok python3 tests/gen/retype.py "$T/bf16" "$T/f16" f16
ok python3 tests/gen/retype.py "$T/int4" "$T/wide" int4-g128
gen "$T/small" --format bf16 --single-file --layers 2 --experts 4 --hidden 128 --inter 64 --seed 7
ok python3 tests/gen/relayout.py fuse "$T/small" "$T/fused"
ok python3 tests/gen/relayout.py overlay "$T/small" "$T/overlay" 'up_proj' a.safetensors b.safetensors
ok python3 tests/gen/relayout.py predict "$T/small" "$T/mtp" 1 2
same "$T/f16" -m max --quantize mlp -- --flavor modelopt
same "$T/wide" -m max --quantize mlp --tensor-type 'layers\.1\..*mlp\.experts=source' -- --shard-size 100K
same "$T/fused" -m max -- --flavor compressed-tensors
same "$T/overlay" -m max -- --flavor modelopt
same "$T/mtp" -m max -- --flavor modelopt

same $F/bf16 -m max -- --flavor modelopt
same $F/fp8 -m four-over-six --quantize mlp -- --flavor compressed-tensors --shard-size 64K
same $F/int4 -m search --tensor-type 'layers\.2\..*experts=source' --tensor-type lm_head=nvfp4 -- --shard-size 300K
same $F/bf16 -m max --quantize all-linear --tensor-type kv_b_proj=nvfp4 --threads 5 -- --shard-size 512K
same "$T/fp8.moe" -m search --tensor-type norm=f32 -- --flavor compressed-tensors
same "$T/nvfp4" -m max --quantize all-linear -- --shard-size 100K
same "$T/spelled" -m max --quantize all-linear -- --flavor modelopt
same "$T/mixed.moe" -m search -- --flavor compressed-tensors --shard-size 200K
same "$T/vision" -m max -- --flavor modelopt
same $F/bf16 $C -m weighted --quantize all-linear --tensor-type kv_b_proj=nvfp4 -- --shard-size 100K
same $F/int4 $C -m gptq --activations nvfp4 -- --flavor compressed-tensors
same $F/fp8 $C -m fisher --effort fast --quantize mlp --upstream quantized -- --flavor modelopt
same "$T/mixed.moe" $C -m gptq --upstream source -- --shard-size 64K

# the number of threads changes nothing
A="$F/fp8 -m max --to hf-nvfp4 --shard-size 100K"
ok "$Q" -q $A -o "$T/a" --threads 1
ok "$Q" -q $A -o "$T/b" --threads 7; ok diff -r "$T/a" "$T/b"

# --dry-run writes nothing and knows the size of all files that hold weights
ok "$Q" --json --dry-run $A -o "$T/dry"; [ ! -e "$T/dry" ] && [ ! -e "$T/dry.partial" ] || fail "a dry run wrote"
[ "$(json output_bytes "$T/out")" = "$(cat "$T/a"/*.safetensors "$T/a"/*.index.json | wc -c)" ] || fail "the dry run says $(json output_bytes "$T/out") bytes"
cp "$T/out" "$T/dry.json"
# it gives each warning of the run once, and the disk space that the run needs
for more in '-m max' '-m max --flavor compressed-tensors' "$C -m gptq --quantize all-linear --tensor-type lm_head=nvfp4"; do
    ok "$Q" $F/bf16 $more --to hf-nvfp4 --dry-run; cp "$T/err" "$T/said"
    rm -rf "$T/b"; ok "$Q" $F/bf16 $more --to hf-nvfp4 -o "$T/b"
    grep '^warning' "$T/err" | grep -v 'experts saw less' >"$T/warned"
    ! grep -q container "$T/warned" || { cat "$T/warned"; fail "a warning of one pass speaks of a container"; }
    grep '^warning' "$T/said" | cmp -s "$T/warned" - || { cat "$T/warned" "$T/said"; fail "$more: the dry run warns otherwise"; }
done
ok "$BIN/moe-quantize" -q $F/bf16 -m max -o "$T/w.moe"
ok "$BIN/moe-convert" "$T/w.moe" --to hf-nvfp4 --dry-run
[ "$(grep -c '^warning' "$T/err")" = 2 ] || { cat "$T/err"; fail "moe-convert's dry run does not warn"; }
# a model without tokenizer files makes a checkpoint without them: each way to one says so once, before the
# work
cp -R $F/bf16 "$T/mute"; chmod -R u+w "$T/mute"; rm "$T/mute/tiktoken.model"
ok "$BIN/moe-convert" -q "$T/mute" -o "$T/mute.moe"
ok "$Q" -q "$T/mute" -m max -o "$T/mute-q.moe"
mute()
{
    for end in --dry-run "-o $T/silent"; do
        rm -rf "$T/silent"
        ok "$@" $end
        [ "$(grep -c '^warning: the model has no tiktoken.model' "$T/err")" = 1 ] || { cat "$T/err"; fail "$* $end: no warning, or two"; }
    done
}
mute "$Q" "$T/mute" -m max --to hf-nvfp4
mute "$Q" "$T/mute.moe" -m max --to hf-nvfp4
mute "$BIN/moe-convert" "$T/mute.moe" --to hf
mute "$BIN/moe-convert" "$T/mute-q.moe" --to hf-nvfp4
echo '{}' >"$T/mute/tokenizer.json" # engines may read that one
ok "$Q" "$T/mute" -m max --to hf-nvfp4 --dry-run
! grep -q 'no tokenizer' "$T/err" || fail "a tokenizer.json is no tokenizer"
rm -rf "$T/b"; ok "$Q" -q --json $A -o "$T/b"
for key in method input_bytes output_bytes weights_quantized flavor files weights_nvfp4 weights_uncalibrated weights_decoded weights_requantized; do
    [ "$(json $key "$T/out")" = "$(json $key "$T/dry.json")" ] || fail "$key: $(json $key "$T/dry.json") in the dry run, then $(json $key "$T/out")"
done

# outputs that exist already
code 4 'replace it with --force' "$Q" -q $A -o "$T/b"
code 4 'replace it with --force' "$Q" -q $A --tensor-type lm_head=nvfp4 -o "$T/b" --resume
if python3 -c "import os,sys; os.getxattr(sys.argv[1], 'user.moe.made')" "$T/b" 2>/dev/null; then
    stat -c '%n %Y %i' "$T/b"/* >"$T/stamp"
    ok "$Q" $A -o "$T/b" --resume; grep -q 'was complete already' "$T/err" || fail "does it again"
    stat -c '%n %Y %i' "$T/b"/* | cmp -s - "$T/stamp" || fail "a complete directory was touched"
    ok "$Q" -q $F/fp8 -m max -o "$T/q2.moe"
    ok "$BIN/moe-convert" "$T/q2.moe" --to hf-nvfp4 --shard-size 100K -o "$T/b" --resume; grep -q 'was complete already' "$T/err" || fail "the export is done again"
fi
ok "$Q" -q $A -o "$T/b" --force; ok diff -r "$T/a" "$T/b"
rm -rf "$T/b"

# killed at a call of each kind, then resumed
need_faults
killed()
{
    plan=$1
    shift
    shim MOE_FAULT=$plan:SIGKILL "$@" >/dev/null 2>&1
    [ $? = 137 ]
}
kills=0 moments="pwrite:9 pwrite:40 pwrite:150 fsync:5 fsync:30 fsync:55 linkat:12 renameat2:1 renameat2:2 unlinkat:4"
sanitized && moments="pwrite:40 fsync:30 linkat:12 renameat2:2"
kill_and_resume()
{
    whole=$1
    shift
    for plan in $moments; do
        killed $plan "$Q" -q "$@" -o "$T/k" || { rm -rf "$T/k" "$T/k.partial"; continue; }
        kills=$((kills + 1))
        ok "$Q" -q "$@" -o "$T/k" --resume
        diff -r "$whole" "$T/k" >"$T/diff" || { cat "$T/diff"; fail "killed at $plan: other bytes"; }
        [ ! -e "$T/k.partial" ] || fail "killed at $plan: something is left"
        rm -rf "$T/k"
    done
}
D="$F/bf16 $C -m gptq --to hf-nvfp4 --shard-size 200K"
ok "$Q" -q $D -o "$T/d"
if killed pwrite:1 "$Q" -q $A -o "$T/k"; then
    rm -rf "$T/k.partial"
    kill_and_resume "$T/a" $A
    kill_and_resume "$T/d" $D
    [ $kills -ge "$(sanitized && echo 6 || echo 14)" ] || fail "only $kills runs were killed"
    # what runs without --resume, or with other options, do with that directory; it has the whole container
    # but for the bytes that lie in the checkpoint's files
    killed renameat2:1 "$Q" -q $A -o "$T/k" || fail "was not killed"
    code 4 'go on with --resume, start over with --force' "$Q" -q $A -o "$T/k"
    code 15 "option 'method'" "$Q" -q $F/fp8 -m search --to hf-nvfp4 --shard-size 100K -o "$T/k" --resume
    code 15 'with other options' "$Q" -q $A --flavor compressed-tensors -o "$T/k" --resume
    used=$(du -sk "$T/k.partial" | cut -f1) need=$(json disk_bytes "$T/dry.json")
    [ "$need" -ge $((used * 1024)) ] || fail "$used KiB are used, the dry run says $need bytes"
    size=$(du -sk "$T/a" | cut -f1) kept=$(du -sk $F/fp8 | cut -f1)
    [ "$used" -lt $((size + kept)) ] || fail "$used KiB are used for $size KiB"
    # weights that were damaged after an earlier run wrote them: data, then scales; while the container in
    # the directory is complete, or only begun
    damage() # TENSOR: bytes of this one of an expert are others; twice, and they are back
    {
        ok python3 tests/gen/patchtensors.py "$T/k.partial" "layers.1.mlp.experts.1.$1\$" xor 1111111111111111
    }
    flip() # UNIT FILE, PLANE: a bit of the first such plane that lies in it, and not in the checkpoint's files, is another
    {
        python3 - "$1" "$2" <<'P' || fail "flip"
import struct, sys
with open(sys.argv[1], "r+b") as f:
    n, = struct.unpack_from("<Q", f.read(128), 48)
    for record in [f.read(64) for _ in range(n)]:
        at, size = struct.unpack_from("<QQ", record, 32)
        f.seek(at); data = f.read(size)
        if record[10] == int(sys.argv[2]) and any(data): break
    else: sys.exit("no such plane in it")
    f.seek(at); f.write(bytes([data[0] ^ 16]))
P
    }
    damage up_proj.weight
    code 16 "experts.1.up_proj.weight': its values are not those that were written there" "$Q" -q $A -o "$T/k" --resume
    damage up_proj.weight; damage up_proj.weight_scale # the values are back
    code 16 "its scales are not those that were written there: the file was damaged since (start over with --force)" "$Q" -q $A -o "$T/k" --resume
    [ -e "$T/k.partial" ] && [ ! -e "$T/k" ] || fail "damaged weights were published, or lost"
    damage up_proj.weight_scale
    # weights that lie in the container: scalars of an expert, a weight that is dequantized at the end
    for plane in layer-001:2 layer-001:3 dense:0; do
        unit=$(ls -d "$T/k.partial"/quantized.moe*)/${plane%:*}.moe
        flip "$unit" ${plane#*:}
        code 16 "${plane%:*}.moe': tensor '.*plane is not what was written there: the file was damaged since (start over with --force)" \
            "$Q" -q $A -o "$T/k" --resume
        [ -e "$T/k.partial" ] && [ ! -e "$T/k" ] || fail "a damaged scalar was published, or all was lost"
        flip "$unit" ${plane#*:}
    done
    for file in hf/config.json tokenizer/tokenizer_config.json; do # what nobody can copy again
        small=$(ls -d "$T/k.partial"/quantized.moe*)/$file
        [ -e "$small" ] || fail "no $small"
        cp "$small" "$T/whole.file"; printf x | dd of="$small" bs=1 seek=2 conv=notrunc 2>/dev/null
        code 13 "$file': does not match its checksum (start over with --force)" "$Q" -q $A -o "$T/k" --resume
        cp "$T/whole.file" "$small"
    done
    # the manifest, which distinguishes the container in the directory from a stranger's: before and after it
    # gets its name
    for plan in renameat2:1 unlinkat:7; do
        rm -rf "$T/k.partial"
        killed $plan "$Q" -q $A -o "$T/k" || fail "was not killed"
        manifest=$(ls -d "$T/k.partial"/quantized.moe*)/manifest.json
        cp "$manifest" "$T/whole.file" || fail "$plan: no manifest"
        for how in other cut; do
            case $how in other) printf x | dd of="$manifest" bs=1 seek=20 conv=notrunc 2>/dev/null ;; cut) : >"$manifest" ;; esac
            code 13 "$manifest': .*(start over with --force)" "$Q" -q $A -o "$T/k" --resume
            [ -e "$T/k.partial" ] && [ ! -e "$T/k" ] || fail "a damaged manifest was published, or all was lost"
        done
        cp "$T/whole.file" "$manifest"
    done
    rm "$manifest"
    code 3 "$manifest': .*(start over with --force)" "$Q" -q $A -o "$T/k" --resume
    cp "$T/whole.file" "$manifest"
    ok "$Q" -q $A -o "$T/k" --resume; ok diff -r "$T/a" "$T/k"; rm -rf "$T/k"
    killed fsync:55 "$Q" -q $D -o "$T/k" || fail "was not killed" # a calibration reads experts back
    ls "$T/k.partial/quantized.moe.partial"/layer-001.json >"$T/log" || fail "killed before any experts were finished"
    damage up_proj.weight
    code 16 "its values are not those" "$Q" -q $D -o "$T/k" --resume
    ok "$Q" -q $D -o "$T/k" --force; ok diff -r "$T/d" "$T/k"; rm -rf "$T/k"
    killed renameat2:1 "$Q" -q $A -o "$T/k" || fail "was not killed"
    printf x >>"$T/k.partial/$(ls "$T/k.partial" | grep -m1 safetensors)"
    code 15 'is not the file that was begun' "$Q" -q $A -o "$T/k" --resume
    ok "$Q" -q $A -o "$T/k" --force; ok diff -r "$T/a" "$T/k"
    rm -rf "$T/k" # stopped by Ctrl-C: what is kept, and where; nothing is left where nothing is
    stopped() # PLAN TEXT [--resume]
    {
        code 130 "$2" shim MOE_FAULT=$1:SIGINT "$Q" -q $A -o "$T/k" ${3:-}
    }
    stopped pread:2 'interrupted: nothing was finished yet by this run'
    stopped fsync:5 'interrupted: nothing was finished yet'
    ! grep -q 'an export is a copy' "$T/err" || fail "one pass keeps what is finished"
    [ ! -e "$T/k.partial" ] || fail "something is left"
    stopped fsync:70 "parts are finished and kept in '$T/k.partial' (go on with the same command and --resume)"; rm -rf "$T/k.partial"
    stopped renameat2:1 "every weight is quantized, and kept in '$T/k.partial' (go on with the same command and --resume)"
    for plan in pread:2 pread:30 pread:200; do # before the work that is there was looked at, and while it is
        stopped $plan "kept in '$T/k.partial' (go on with the same command and --resume)" --resume
    done
    ok "$Q" -q $A -o "$T/k" --resume; ok diff -r "$T/a" "$T/k"
else echo "no call can be killed here: kills are left out"; fi

# memory: too little is reported before the work
code 10 'raise --memory' "$Q" -q $A --memory 1M -o "$T/x"
# refused
code 2 "container or hf-nvfp4" "$Q" -q $F/bf16 --to hf -o "$T/x"
code 2 'flavor' "$Q" -q $F/bf16 --to hf-nvfp4 --flavor other -o "$T/x"
code 2 'go with --to hf-nvfp4' "$Q" -q $F/bf16 --flavor modelopt -o "$T/x"
code 2 'shard-size is at least 64K' "$Q" -q $F/bf16 --to hf-nvfp4 --shard-size 1K -o "$T/x"
code 2 'merge the parts' "$Q" -q $F/bf16 --to hf-nvfp4 --layers 1-2 -o "$T/x"
code 2 'where to' "$Q" -q $F/bf16 --to hf-nvfp4
code 14 'engines read one type' "$Q" -q $F/bf16 --to hf-nvfp4 --tensor-type 'experts\.3\..*=source' -o "$T/x"
code 14 "from a checkpoint: moe-quantize $F/bf16 --to hf-nvfp4 -o DIR" "$BIN/moe-convert" -q $F/bf16 --to hf-nvfp4 -o "$T/x"
code 14 "has no NVFP4 weights (quantize it in the same pass: moe-quantize $T/fp8.moe --to hf-nvfp4 -o DIR)" "$BIN/moe-convert" -q "$T/fp8.moe" --to hf-nvfp4 -o "$T/x"
code 14 'has no NVFP4 weights as --quantize and --tensor-type name them' "$Q" -q $F/bf16 --to hf-nvfp4 --tensor-type '.=source' -o "$T/x"
mkdir "$T/there"; echo mine >"$T/there/file"
for how in '' --force --resume; do code 4 'there' "$Q" -q $A -o "$T/there" $how; done
[ "$(cat "$T/there/file")" = mine ] || fail "a stranger's directory was touched"
[ ! -e "$T/x" ] && [ ! -e "$T/x.partial" ] || fail "something was written"
echo "t-onepass: one pass gives the bytes of two, $kills kills resumed"
