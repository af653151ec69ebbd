#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs t-readme with nothing left out: also the rows of README.md that score a model of their own, which take
# half a minute each.  The pages run in the opposite order, so that none depends on what an earlier one made.
. tests/common.sh
sanitized && skip "the numbers are the release build's, and take too long under sanitizers"
need_python
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_helper genmodel
python3 tests/readers/readme.py --all "$BIN" "$GEN" "$T" ${README_PAGES:-$(ls -r docs/guide/*.md) README.md} ||
    fail "a page does not hold"
