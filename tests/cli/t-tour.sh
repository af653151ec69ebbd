#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that docs/design/tour.md names every source file, and no file that does not exist; and that every
# source file states its licence.
set -u
fail() { echo "FAIL: $*"; exit 1; }
want=$(find include base formats kernels model convert quantize runtime -name '*.[ch]' -o -name '*.def' | while read -r f; do
    case $f in *.c) [ -e "${f%.c}.h" ] && continue ;; esac
    echo "$f"
done | sort)
got=$(awk '/^## / { d = $2 } /^\| `/ { split($0, a, "`"); print d a[2] }' docs/design/tour.md | sort)
[ -n "$got" ] || fail "docs/design/tour.md lists nothing"
[ "$want" = "$got" ] || { printf '%s\n' "$want" >"${TMPDIR:-/tmp}/tour.$$"; printf '%s\n' "$got" | diff "${TMPDIR:-/tmp}/tour.$$" -; rm -f "${TMPDIR:-/tmp}/tour.$$"; fail "docs/design/tour.md (>) is not the tree (<)"; }
without=$(find include base formats kernels model convert quantize runtime tests -name '*.[ch]' -o -name '*.def' -o -name '*.cu' -o -name '*.sh' -o -name '*.py' |
    grep -v ^tests/data/ | xargs grep -L '^[/# *]*SPDX-License-Identifier: Apache-2.0')
[ -z "$without" ] || fail "no SPDX-License-Identifier in: $without"
echo "t-tour: $(printf '%s\n' "$got" | wc -l) files"
