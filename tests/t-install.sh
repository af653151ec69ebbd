#!/bin/sh
# make install stages everything that was promised, a program builds and runs against it, make uninstall leaves no file.
. tests/common.sh
command -v make >/dev/null || skip "no make"
B=$(dirname "$BIN")
stage=$T/stage
# Variables of the command line that runs the tests (SAN, CC, ...) reach make through the environment.
staged() { ok make --no-print-directory "$1" B="$B" DESTDIR="$stage" PREFIX=/opt/moe; }

staged install
root=$stage/opt/moe
for f in lib/libmoe.a lib/pkgconfig/moe.pc include/moe/base/err.h include/moe/formats/container.h include/moe/kernels/kernels.h; do
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

cat >"$T/user.c" <<'EOF'
#include "base/hash.h"
#include "formats/container.h"
#include "kernels/kernels.h"
#include <stdio.h>
int main(void)
{
    struct moe_err err = MOE_ERR_INIT;
    moe_fail(&err, MOE_USAGE, "from outside");
    return puts(err.msg) < 0 || moe_hash64("", 0) != 0x2d06800538d394c2u;
}
EOF
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH=$root/lib/pkgconfig
    flags="$(pkg-config --define-variable=prefix="$root" --cflags moe)"
    libs="$(pkg-config --define-variable=prefix="$root" --static --libs moe)"
    [ "$(pkg-config --modversion moe)" = "$(cat VERSION)" ] || fail "moe.pc has the wrong version"
else
    flags="-I$root/include/moe" libs="-L$root/lib -lmoe $(sed -n 's/^Libs.private: //p' "$root/lib/pkgconfig/moe.pc")"
fi
san=${SAN:+-fsanitize=$SAN}
cd "$T" && ok ${CC:-cc} -std=c17 -Wall -Wextra -Werror $san $flags -o user user.c $libs
ok ./user
[ "$(cat "$T/out")" = "from outside" ] || fail "the program that uses the library says: $(cat "$T/out")"
cd "$OLDPWD" || exit 1

installed=$(find "$stage" ! -type d | wc -l)
staged uninstall
left=$(find "$stage" ! -type d)
[ -z "$left" ] || fail "left by uninstall: $left"
echo "t-install: $installed files"
