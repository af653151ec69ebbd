#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests products with NVFP4 weights as they are compiled for sm_100f, where an instruction makes float16 of E2M1 codes:
# the checks of kernels run with a stand-in for the driver whose kernels are built so.
. tests/common.sh
B=$(dirname "$BIN")
[ -e "$B/shim/e2m1/libcuda.so.1" ] || skip "the stand-in with E2M1 codes is not built"
for check in nvfp4 experts nvfp4-fast; do
    status=0
    LD_LIBRARY_PATH="$B/shim/e2m1" MOE_TEST_GPU=1 "$B/tests/check-cuda-$check" -s 1 >"$T/out" 2>&1 || status=$?
    [ $status != 77 ] || skip "$(cat "$T/out")"
    [ $status = 0 ] && grep -q 'checks on stand-in' "$T/out" || { cat "$T/out"; fail "check-cuda-$check"; }
done
