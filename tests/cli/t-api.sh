#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests libmoe as others use it.  The program of docs/guide/libmoe.md, exactly as printed there, is compiled
# against an installed copy through pkg-config, as C and as C++, with the shared library and with the
# archive; it has to print what moe-run prints.  What the API writes has to be what the tools write.
. tests/common.sh
need_tool moe-run moe-plan moe-convert moe-quantize
need_helper test-api
command -v make >/dev/null || skip "no make"
command -v pkg-config >/dev/null || skip "no pkg-config"
B=$(dirname "$BIN")
M=tests/data/tiny-k2/bf16
root=$T/opt/moe
ok flock "$B/make.lock" make --no-print-directory install B="$B" DESTDIR="$T" PREFIX=/opt/moe

# ---- the page's program ----
sed -n "/^cat >generate.c <<'END'$/,/^END$/p" docs/guide/libmoe.md | sed '1d; $d' >"$T/generate.c"
lines=$(wc -l <"$T/generate.c")
[ "$lines" -ge 15 ] && [ "$lines" -le 35 ] || fail "the page's program has $lines lines"
grep -q 'moe_lm_generate' "$T/generate.c" || fail "the page's program generates nothing"
cp "$T/generate.c" "$T/generate.cc"
export PKG_CONFIG_PATH=$root/lib/pkgconfig
pc() { pkg-config --define-variable=prefix="$root" "$@" moe; }
[ "$(pc --modversion)" = "$(cat VERSION)" ] || fail "moe.pc has the wrong version"
san=${SAN:+-fsanitize=$SAN}
text='And it came to pass'
ok "$BIN/moe-run" -q $M --prompt "$text" -n 40
cp "$T/out" "$T/want"
[ -s "$T/want" ] || fail "moe-run says nothing"

# try NAME COMPILER...: compiles the program and runs it; it has to print what moe-run prints.
try()
{
    name=$1
    shift
    ok "$@" -o "$T/$name"
    ok env LD_LIBRARY_PATH="$root/lib" "$T/$name" $M "$text"
    cmp "$T/want" "$T/out" || { cat "$T/out"; fail "$name says something else than moe-run"; }
    count
}
depends() { readelf -d "$T/$1" | grep -q "NEEDED.*libmoe.so"; }
cc=${CC:-cc}
cxx=$(command -v g++ || true)
case $cc in *clang*) cxx=$(command -v clang++ || true) ;; esac
shared="$(pc --cflags) $T/SOURCE $(pc --libs)"
archive="$(pc --cflags) $T/SOURCE $(pc --static --libs | sed "s|-lmoe|$root/lib/libmoe.a|")"
in_c() { printf '%s' "$1" | sed 's|SOURCE|generate.c|'; }
in_cxx() { printf '%s' "$1" | sed 's|SOURCE|generate.cc|'; }
try c-shared $cc -std=c17 -Wall -Wextra -Werror $san $(in_c "$shared")
try c-static $cc -std=c17 -Wall -Wextra -Werror $san $(in_c "$archive")
if [ -n "$cxx" ]; then
    try cxx-shared "$cxx" -std=c++20 -Wall -Werror $san $(in_cxx "$shared")
    try cxx-static "$cxx" -std=c++20 -Wall -Werror $san $(in_cxx "$archive")
else echo "no C++ compiler: headers were not tried"; fi
if command -v readelf >/dev/null; then
    depends c-shared || fail "the shared program does not need libmoe.so"
    ! depends c-static || fail "the static program needs libmoe.so"
    count
fi
got=0
LD_LIBRARY_PATH=$root/lib "$T/c-shared" "$T/none" x >"$T/out" 2>"$T/err" || got=$?
[ $got = 3 ] && grep -q '^not-found: ' "$T/err" && [ ! -s "$T/out" ] || { cat "$T/err"; fail "a missing model gives $got"; }
count

# Each header compiles alone, as C and as C++.
for h in "$root"/include/moe/*.h; do
    echo "#include <moe/$(basename "$h")>" >"$T/alone.c"
    ok $cc -std=c17 -Wall -Wextra -Wpedantic -Werror "-I$root/include" -fsyntax-only "$T/alone.c"
    [ -z "$cxx" ] || ok "$cxx" -std=c++11 -Wall -Wextra -Werror "-I$root/include" -x c++ -fsyntax-only "$T/alone.c"
    count
done
# The example in moe.h compiles and runs, too.
sed -n '/^ \*     #include/,/^ \*     }/p' include/moe/moe.h | sed 's/^ \*     //; s/^ \*$//' >"$T/example.c"
try_example() { ok $cc -std=c17 -Wall -Wextra -Werror $san $(pc --cflags) "$T/example.c" $(pc --libs) -o "$T/example"; }
try_example
ok env LD_LIBRARY_PATH="$root/lib" "$T/example" $M
[ -s "$T/out" ] || fail "the example of moe.h says nothing"
count

# ---- the API and the tools ----
A=$GEN/test-api
"$A" plan $M 4 >"$T/plan.json" 2>"$T/err" || { cat "$T/err"; fail "no plan"; }
ok "$BIN/moe-plan" -q $M --ranks 4 -o "$T/tool.json"
ok cmp "$T/plan.json" "$T/tool.json"
count
ok "$A" convert source $M "$T/api.moe"
ok "$BIN/moe-convert" -q $M -o "$T/tool.moe"
ok diff -r "$T/api.moe" "$T/tool.moe"
ok "$A" convert hf "$T/api.moe" "$T/back"
ok diff -r $M "$T/back"
ok "$A" convert gguf "$T/api.moe" "$T/api.gguf"
ok "$BIN/moe-convert" -q --to gguf "$T/api.moe" -o "$T/tool.gguf"
ok cmp "$T/api.gguf" "$T/tool.gguf"
count
for method in search gptq; do
    text= calib=
    [ $method = search ] || { text=tests/data/tiny-k2/calib.txt; calib="--calib $text --calib-tokens 512"; }
    ok "$A" quantize $method $M "$T/api-$method.moe" $text
    ok "$BIN/moe-quantize" -q --method $method $calib $M -o "$T/tool-$method.moe"
    ok diff -r "$T/api-$method.moe" "$T/tool-$method.moe"
    count
done
echo "t-api: $checks checks"
