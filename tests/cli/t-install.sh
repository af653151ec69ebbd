#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that make install installs every file that it should (t-api builds programs against them), and that
# make uninstall leaves no file.
. tests/common.sh
command -v make >/dev/null || skip "no make"
B=$(dirname "$BIN")
stage=$T/stage
# t-readme runs make install of the same build, perhaps at the same time.
make() { flock "$B/make.lock" make "$@"; }
# Variables of the command line that runs the tests (SAN, CC, ...) reach make through the environment.
staged() { ok make --no-print-directory "$1" B="$B" DESTDIR="$stage" PREFIX=/opt/moe; }

staged install
made() { ok make --no-print-directory "$@"; ! grep -E '^  (CC|AR|LINK)' "$T/out" >"$T/did" || return 1; }
made all B="$B" || { cat "$T/did"; fail "a second build compiles something"; }
mkdir "$T/with space"
ok make --no-print-directory install B="$B" DESTDIR="$T/with space" PREFIX=/opt/moe
ok diff -r "$stage" "$T/with space"
ok make --no-print-directory uninstall B="$B" DESTDIR="$T/with space" PREFIX=/opt/moe
[ -z "$(find "$T/with space" ! -type d)" ] || fail "uninstall from a directory with a space in its name"
rm -r "$T/with space"
root=$stage/opt/moe
for f in lib/libmoe.a lib/libmoe.so lib/pkgconfig/moe.pc include/moe/error.h; do
    [ -s "$root/$f" ] || fail "not installed: $f"
done
for x in "$BIN"/moe-*; do
    n=$(basename "$x")
    [ -x "$root/bin/$n" ] || fail "not installed: $n"
    for f in share/man/man1/$n.1 share/bash-completion/completions/$n share/zsh/site-functions/_$n share/fish/vendor_completions.d/$n.fish; do
        [ -s "$root/$f" ] || fail "not installed: $f"
    done
    [ "$("$root/bin/$n" --version)" = "$n $(cat VERSION)" ] || fail "the installed $n does not run"
done
! grep -rl "$PWD" "$root/lib/pkgconfig" "$root/share" "$root/include" || fail "an installed file names the build directory"

inside=$(cd "$root/include" && find . ! -type d | grep -v '^\./moe/[a-z]*\.h$')
[ -z "$inside" ] || fail "installed, but no public header: $inside"
# The shared library exports what the headers declare, no more and no less, and depends on no build directory.
declared=$(sed -n 's/^MOE_API .*[ *]\(moe_[a-z0-9_]*\)(.*/\1/p' include/moe/*.h | sort)
[ -n "$declared" ] || fail "include/moe/ declares nothing"
if command -v nm >/dev/null; then
    nm -D --defined-only "$root/lib/libmoe.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$T/exported"
    printf '%s\n' "$declared" | diff - "$T/exported" || fail "libmoe.so exports (>) other names than the headers declare (<)"
fi

# The archive holds nothing of the command line: options, man pages, what a tool prints (libcli.a).
if command -v nm >/dev/null; then
    defined() { nm --defined-only "$1" 2>/dev/null | awk 'NF == 3 && $2 == "T" { print $3 }' | sort -u; }
    defined "$B/libcli.a" >"$T/cli"
    defined "$root/lib/libmoe.a" | comm -12 - "$T/cli" >"$T/both"
    grep -qx moe_tool_run_begin "$T/cli" && [ ! -s "$T/both" ] || { cat "$T/both"; fail "libmoe.a has functions of the command line"; }
fi

installed=$(find "$stage" ! -type d | wc -l)
staged uninstall
left=$(find "$stage" ! -type d)
[ -z "$left" ] || fail "left by uninstall: $left"

# A build outside the tree, with the two smallest sources as the library: what is built again when.
O=$T/b
few() { made B="$O" libsrc="base/err.c base/env.c" cusrc= "$@"; }
few "$O/libmoe.a" && fail "nothing was compiled"
few "$O/libmoe.a" || { cat "$T/did"; fail "compiled twice"; }
few "$O/libmoe.a" CFLAGS="-O1 -DWITH='\"quotes, and a comma\"'" && fail "other CFLAGS, but nothing was compiled"
grep -q quotes "$O/flags" || fail "the flags are not recorded"
few "$O/libmoe.a" CFLAGS=-O2
few "$O/libmoe.a" CFLAGS=-O2 || fail "compiled again for the same flags"
few "$O/libmoe.a" CFLAGS=-O2 CPPFLAGS=-DUSER=1 LDLIBS=-lm && fail "CPPFLAGS of the command line are lost"
few "$O/libmoe.a" CFLAGS=-O2 CPPFLAGS=-DUSER=1 LDLIBS=-lm libsrc=base/err.c && fail "a source less, but the archive stays"
[ "$(ar t "$O/libmoe.a")" = err.o ] || fail "the archive holds: $(ar t "$O/libmoe.a")"
make --no-print-directory B="$O" CUDA=1 SAN= NVCC="$T/no-nvcc" >"$T/out" 2>"$T/err"
[ $? = 2 ] || fail "CUDA=1 without nvcc does not exit with 2"
grep -q "$O/config.log" "$T/err" && grep -q no-nvcc "$O/config.log" || { cat "$T/err"; fail "CUDA=1 without nvcc names no log"; }
ok make --no-print-directory B="$O" CUDA=auto NVCC="$T/no-nvcc" "$O/base/err.o"
grep -q 'HAVE_CUDA := 0' "$O/config.mk" || fail "CUDA=auto without nvcc"
ok make help
grep -q 'make check' "$T/out" || fail "make help says nothing about make check"

# A directory with a space in its name; none of its path is in what is built.
mkdir "$T/a b"
cp -R Makefile VERSION moe.pc.in include base "$T/a b"
ok make --no-print-directory -C "$T/a b" B=o CUDA=0 o/base/err.o o/base/io.o
! grep -qF "$T" "$T/a b/o/base/err.o" || fail "the object names the directory it was built in"
echo "t-install: $installed files"
