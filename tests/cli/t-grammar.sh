# SPDX-License-Identifier: Apache-2.0
# Tests grammars against jsonschema, an independent validator, where it is installed: random schemas with random
# documents, and texts and calls of tools that are made by random choices from the masks.
. tests/common.sh
need_python
need_helper gengrammar
rounds=400
! sanitized || rounds=60
python3 tests/readers/grammarcheck.py "$GEN/gengrammar" 1 $rounds
