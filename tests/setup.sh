#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that are missing, and only those, and says so.  Without root it prints the
# command.
set -u
want="build-essential libcjson-dev libxxhash-dev zlib1g-dev libpcre2-dev libmicrohttpd-dev python3"
cc=${CC:-cc} # may be two words: ccache gcc
have() # is what the package is for there, wherever it came from?
{
    case $1 in
    # C++ is for the GPU kernels, which tests run on the processor.
    build-essential) command -v make >/dev/null && echo 'int main() { return 0; }' | $cc -x c++ -fsyntax-only - 2>/dev/null ;;
    libcjson-dev) [ -e /usr/include/cjson/cJSON.h ] ;;
    libxxhash-dev) [ -e /usr/include/xxhash.h ] ;;
    zlib1g-dev) [ -e /usr/include/zlib.h ] ;;
    libpcre2-dev) [ -e /usr/include/pcre2.h ] ;;
    libmicrohttpd-dev) [ -e /usr/include/microhttpd.h ] ;;
    python3) command -v python3 >/dev/null ;;
    *) dpkg -s "$1" >/dev/null 2>&1 ;;
    esac
}
missing=
for p in $want ${EXTRA_PACKAGES:-}; do have "$p" || missing="$missing $p"; done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "setup: missing:$missing (Debian's names), and this is not Debian: install them another way" >&2
    exit 2
fi
if [ "$(id -u)" != 0 ]; then
    echo "setup: missing packages; run:  sudo apt-get update && sudo apt-get install -y$missing" >&2
    exit 2
fi
echo "setup: installing$missing"
log=$(mktemp)
if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed" >&2
    rm -f "$log"
    exit 2
fi
rm -f "$log"
