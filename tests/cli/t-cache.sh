#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that convert and quantize keep the page cache clean: while they run, few pages of the output are
# dirty, and when they have ended, neither the source nor the output is left in it.
. tests/common.sh
need_tool moe-convert moe-quantize
need_helper genmodel gencache
need_space 1500
case $(stat -f -c %T "$T") in tmpfs | ramfs | overlayfs) skip "$(stat -f -c %T "$T") in ${TMPDIR:-/tmp} is no disk" ;; esac

MIB=1048576
ok "$GEN/genmodel" -o "$T/m" --format bf16 --layers 3 --experts 64 --hidden 1024 --inter 512 --dense-inter 2048 --heads 8
sync "$T"/m/*.safetensors
"$GEN/gencache" "$T"/m/*.safetensors >"$T/said" || skip "the kernel does not tell what is cached"
read -r cached _ <"$T/said"
[ "$cached" -ge $((100 * MIB)) ] || skip "this file system caches nothing: $cached bytes of a model just written"

# clean COMMAND... -o OUT: checks dirty pages while the command runs, and cached pages when it has ended.
clean()
{
    for out; do :; done
    "$@" --threads 2 >"$T/out" 2>"$T/err" &
    pid=$! most=0 samples=0
    while kill -0 $pid 2>/dev/null; do
        "$GEN/gencache" "$out.partial"/*.moe* >"$T/said" 2>/dev/null && read -r _ dirty <"$T/said" && samples=$((samples + 1))
        [ "${dirty:-0}" -le $most ] || most=$dirty
    done
    wait $pid || { cat "$T/err"; fail "$*"; }
    "$GEN/gencache" "$out"/layer-*.moe >"$T/said"
    read -r left _ <"$T/said"
    "$GEN/gencache" "$T"/m/*.safetensors >"$T/said"
    read -r source _ <"$T/said"
    echo "$(basename "$1"): at most $((most / MIB)) MiB dirty in $samples looks; left in the cache: $((left / MIB)) MiB of the output, $((source / MIB)) MiB of the source"
    [ $most -le $((80 * MIB)) ] || fail "$((most / MIB)) MiB were dirty at once: the window is 64 MiB"
    [ "$source" -le $((8 * MIB)) ] || fail "$((source / MIB)) MiB of the source are left in the page cache"
}
clean "$BIN/moe-convert" "$T/m" -o "$T/c.moe"
[ "$left" -le $((8 * MIB)) ] || fail "$((left / MIB)) MiB of the output are left in the page cache"
[ "$samples" -ge 3 ] || skip "it ended before it could be looked at"
clean "$BIN/moe-quantize" "$T/m" --method max -o "$T/q.moe"
