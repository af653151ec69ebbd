#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that the tools have the hardening of which the compiler is known to be capable: stack canaries,
# checked copies, tables that are read-only once a tool runs, a stack that cannot be executed.  It is read
# from their headers and from what they import.
. tests/common.sh
sanitized && skip "sanitizers check more"
command -v readelf >/dev/null || skip "no readelf"
B=$BIN/..
[ -e "$B/config.mk" ] && [ -e "$B/flags" ] || skip "not a folder of the build"
grep -q '^HARDEN :=.*-fstack-protector-strong' "$B/config.mk" || skip "the compiler has no stack protector"
grep -q '^HARDEN_LINK :=.*-z,relro.*-z,now' "$B/config.mk" || skip "the linker has no read-only relocations"
imports() { readelf --dyn-syms -W "$1" | grep -q " UND $2"; }

for tool in "$BIN"/moe-*; do
    name=$(basename "$tool")
    readelf -lW "$tool" >"$T/head"
    grep -q GNU_RELRO "$T/head" || fail "$name: no read-only relocations"
    readelf -dW "$tool" | grep -q 'BIND_NOW\|Flags:.*NOW' || fail "$name: symbols are bound late, the table stays writable"
    grep GNU_STACK "$T/head" | grep -q ' RW ' || fail "$name: the stack is code, too"
    imports "$tool" '__stack_chk_fail' || fail "$name: no canaries"
    grep -q -e "-D_FORTIFY_SOURCE=[23]" "$B/flags" && { imports "$tool" "__[a-z]*_chk" || fail "$name: no checked copies"; }
    count
done
[ $checks -ge 5 ] || fail "$checks tools"

# The user's flags come last and win: FORTIFY_SOURCE is not defined where the user defines it, nor without an
# optimizer.
flags()
{
    env -u MAKEFLAGS make -n WERROR=1 CUDA=0 B="$T/b" "$@" "$T/b/base/err.o" 2>/dev/null | grep -e " -c " | tail -n 1
}
flags >"$T/out"
grep -q -e '-D_FORTIFY_SOURCE=[23]' "$T/out" || fail "no FORTIFY_SOURCE in $(cat "$T/out")"
flags CFLAGS=-O0 >"$T/out"
grep -q -e '-fstack-protector-strong.* -O0' "$T/out" && ! grep -q FORTIFY "$T/out" || fail "-O0: $(cat "$T/out")"
flags CPPFLAGS=-D_FORTIFY_SOURCE=1 >"$T/out"
[ "$(grep -o FORTIFY "$T/out" | wc -l)" = 1 ] || fail "the user's FORTIFY_SOURCE: $(cat "$T/out")"
flags CFLAGS='-O1 -fno-stack-protector' >"$T/out"
grep -q -e '-fstack-protector-strong.*-fno-stack-protector' "$T/out" || fail "the user's flags do not come last: $(cat "$T/out")"
count
echo "t-hardening: $checks checks"
