#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds two copies of the tree in different directories, one of which has a longer name with a space, in
# different orders and with different numbers of jobs: the archive and the tools have to be the same, byte
# for byte.
. tests/common.sh
command -v make >/dev/null || skip "no make"
need_space 400

copy() # DIRECTORY
{
    mkdir -p "$1"
    tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$1"
}
copy "$T/one"
copy "$T/a much longer name/two"
ok make --no-print-directory -C "$T/one" -j1 all CUDA="${CUDA:-0}" B=out
TZ=Asia/Tokyo ok make --no-print-directory -C "$T/a much longer name/two" -j4 CUDA="${CUDA:-0}" B=out out/libmoe.a all
n=0
for f in "$T"/one/out/libmoe.a "$T"/one/out/bin/*; do
    ok cmp "$f" "$T/a much longer name/two/out/${f#"$T"/one/out/}"
    ! grep -qF "$T" "$f" || fail "$(basename "$f") names the directory it was built in"
    n=$(($n + 1))
done
[ $n -ge 5 ] || fail "only $n files were compared"
echo "long-reproducible: $n files are the same"
