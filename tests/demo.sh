#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the main job, end to end, on the small checkpoint in tests/data: every command is shown, and can be
# copied.
set -eu
M=tests/data/tiny-k2 D=build/demo
mkdir -p $D
bold= plain=
[ -t 1 ] && bold=$(printf '\033[1m') plain=$(printf '\033[0m')
step() # show a command as it would be typed, then run it
{
    line=
    for word; do
        case $word in *[!a-zA-Z0-9_./=-]*) word="'$word'" ;; esac
        line="$line $word"
    done
    printf '\n%s$%s%s\n' "$bold" "$line" "$plain"
    "$@"
}
PATH=$PWD/build/bin:$PATH
echo "(the tools are in build/bin: export PATH=\$PWD/build/bin:\$PATH)"

step moe-inspect $M/bf16
step moe-convert $M/bf16 -o $D/tiny.moe --force
step moe-quantize $D/tiny.moe -o $D/tiny-nvfp4.moe --force
step moe-inspect --verify $D/tiny-nvfp4.moe
step moe-run $D/tiny.moe --score $M/valid.txt --window 256
step moe-run $D/tiny-nvfp4.moe --score $M/valid.txt --window 256 --reference $D/tiny.moe
step moe-run $D/tiny-nvfp4.moe --prompt "And it came to pass" -n 60 --temperature 0.7 --top-p 0.9 --seed 1
echo
