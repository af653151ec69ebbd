#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lets system calls fail, of every kind of call its first, last and some between (long-faults: every one), by
# faults.py.  FAULTS=all and FAULT_JOBS="job..." choose more, or which jobs.  Runs on a file system in memory
# where there is room, since each run syncs some thirty times.
[ -n "${TMPDIR:-}" ] || { [ -w /dev/shm ] && TMPDIR=/dev/shm && export TMPDIR; }
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run moe-plan
need_helper genmodel
need_python
need_space 100
need_faults
shim MOE_FAULT=pread:1:EIO "$BIN/moe-inspect" -q tests/data/tiny-k2/bf16 >"$T/out" 2>"$T/err"
[ $? = 11 ] || skip "no call can be made to fail here: $(head -n 1 "$T/err")"
mkdir "$T/w"
python3 tests/shim/faults.py "$BIN" "$GEN" "$T/w" "${FAULTS:-quick}" ${FAULT_JOBS:-}
