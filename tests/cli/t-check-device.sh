#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests tests/device.sh, which is for machines with a GPU, through the stand-in for NVIDIA's driver: its parts run
# and say what they found, what fails is counted, and without a GPU it says so.
. tests/common.sh
B=$(dirname "$BIN")
[ -x "$B/tests/bench-cuda" ] && [ -e "$B/shim/libcuda.so.1" ] || skip "bench-cuda is not built"
[ -z "${MOE_SAN:-}" ] || skip "the stand-in runs the same kernels in the other tests"
device() { QUICK=1 B=$B OUT=$T/out sh tests/device.sh "$@" >"$T/said" 2>&1; }
CHECKS='check-cuda-norm check-cuda-route'; export CHECKS
standin() { LD_LIBRARY_PATH=$B/shim device "$@"; }
says() { grep -q "$1" "$T/said" || { cat "$T/said"; fail "does not say '$1'"; }; }

device nonsense && r=0 || r=$?
[ $r = 2 ] || fail "exit $r for a part that is none"
says "no part 'nonsense'"

# no driver, and a driver that finds nothing
if [ -z "$(ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1')" ]; then
    device conformance && r=0 || r=$?
    [ $r = 77 ] || { cat "$T/said"; fail "exit $r without a driver"; }
    says 'no GPU to test here: no NVIDIA driver is installed'
fi
! LD_LIBRARY_PATH=$B/shim "$B/tests/bench-cuda" --gpu 2>&1 | grep -q 'has no GPU kernels' ||
    skip "this build has no GPU kernels (no nvcc)"
MOE_SHIM_DEVICES=0 standin bench && r=0 || r=$?
[ $r = 77 ] || { cat "$T/said"; fail "exit $r without a GPU"; }
says 'no GPU to test here: .*finds no GPU'

# each part in little; profilers where they are
standin bench || { cat "$T/said"; fail "exit $? of bench"; }
says '^device: stand-in for a GPU'
says '^  ok    kernels'
says '^experts up .*NVFP4'
says '^attention '
says '^sequences  *ms a step$'
says '^2  *[0-9.]*$'
says '2 run, 0 failed'
PART_SECONDS=4 standin conformance profile || { cat "$T/said"; fail "exit $? of parts that have no time"; }
says '^  late  models'

# what fails is counted, and the rest goes on
mkdir "$T/build" "$T/build/tests" "$T/build/bin" "$T/build/shim"
for f in tests bin shim; do ln -s "$PWD/$B/$f"/* "$T/build/$f/" 2>/dev/null || ln -s "$B/$f"/* "$T/build/$f/"; done
rm "$T/build/tests/check-cuda-norm"
printf '#!/bin/sh\necho "norm: broken"; exit 1\n' >"$T/build/tests/check-cuda-norm"
chmod +x "$T/build/tests/check-cuda-norm"
B=$T/build
standin conformance && r=0 || r=$?
[ $r = 1 ] || { cat "$T/said"; fail "exit $r where a check fails"; }
says '^  FAIL  check-cuda-norm (exit 1'
says '^  ok    check-cuda-route'
says ', 1 failed'
