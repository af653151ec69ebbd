#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two copies of the tree in different directories, one of whose names is longer and has a space, built in different orders by
# different numbers of jobs: the same archive and the same tools, byte for byte.
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
