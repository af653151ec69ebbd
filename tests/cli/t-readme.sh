#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The commands of README.md and docs/guide run as they are printed, and the numbers printed beside them are what
# these commands give: readme.py says what is run and what is held.  README_PAGES: these pages instead of all.
# Rows that score a model of their own are left to long-readme.
. tests/common.sh
sanitized && skip "the numbers are the release build's, and take too long under sanitizers"
need_python
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_helper genmodel
python3 tests/readers/readme.py "$BIN" "$GEN" "$T" ${README_PAGES:-README.md docs/guide/*.md} ||
    fail "a page does not hold"
