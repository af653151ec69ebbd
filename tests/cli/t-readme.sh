#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the commands of README.md and docs/guide as they are printed, and compares the numbers printed beside
# them with what the commands give: readme.py says what is run and what is compared.  README_PAGES names
# pages to run instead of all. long-readme tests the rows that score a model of their own.
. tests/common.sh
sanitized && skip "the numbers are the release build's, and take too long under sanitizers"
need_python
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_helper genmodel
archive=$(dirname "$BIN")/libmoe.a
before=$(stat -c %y "$archive")
python3 tests/readers/readme.py "$BIN" "$GEN" "$T" ${README_PAGES:-README.md docs/guide/*.md} ||
    fail "a page does not hold"
# Other tests run these very tools meanwhile.
[ "$(stat -c %y "$archive")" = "$before" ] || fail "a page's make builds the library again"
