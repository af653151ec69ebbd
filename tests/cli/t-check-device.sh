#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests tests/device.sh, which is for machines with a GPU, through the stand-in for NVIDIA's driver: its parts run
# and say what they found, what fails is counted, and without a GPU it says so.
. tests/common.sh
B=$(dirname "$BIN")
[ -x "$B/tests/bench-cuda" ] && [ -e "$B/shim/libcuda.so.1" ] || skip "bench-cuda is not built"
[ -z "${MOE_SAN:-}" ] || skip "the stand-in runs the same kernels in the other tests"
# A folder of the build's programs that counts as one of `tests/device.sh pack`, so that nothing is built within a test.
built=$(cd "$B" && pwd)
P=$T/build
mkdir -p "$P/lib"
for f in tests bin shim; do mkdir "$P/$f"; ln -s "$built/$f"/* "$P/$f/"; done
# replace NAME COMMANDS: another program in the place of a check
replace() { rm -f "$P/tests/$1"; printf '#!/bin/sh\n%s\n' "$2" >"$P/tests/$1"; chmod +x "$P/tests/$1"; }
device() { QUICK=1 B=${D:-$P} OUT=$T/out sh tests/device.sh "$@" >"$T/said" 2>&1; }
CHECKS='check-cuda-norm check-cuda-route'; export CHECKS
standin() { LD_LIBRARY_PATH=$built/shim device "$@"; }
says() { grep -q -- "$1" "$T/said" || { cat "$T/said"; fail "does not say '$1'"; }; }
# exits EXPECTED COMMAND...
exits()
{
    want=$1 r=0
    shift
    "$@" || r=$?
    [ $r = "$want" ] || { cat "$T/said"; fail "exit $r, not $want: $*"; }
}

exits 2 device nonsense
says "no part 'nonsense'"

# no driver: nothing is built to say so
if [ ! -e /dev/nvidiactl ] && [ -z "$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1')" ]; then
    D=$T/none exits 77 device conformance
    says 'no GPU to test here: no NVIDIA driver is installed'
fi

# a build that fails, here of another make
mkdir "$T/make"
printf '#!/bin/sh\necho "$@" >"%s/asked"; echo "nvcc: too old"; exit 2\n' "$T" >"$T/make/make"
chmod +x "$T/make/make"
PATH=$T/make:$PATH D=$T/none exits 1 standin conformance
says '^nvcc: too old'
says 'cannot be built here: this needs nvcc 12.9 or later (compute_100f)'
grep -q "B=$T/none CUDA=1 test-programs" "$T/asked" || { cat "$T/asked"; fail "not what make has to build"; }

! LD_LIBRARY_PATH=$built/shim "$built/tests/bench-cuda" --gpu 2>&1 | grep -q 'has no GPU kernels' ||
    skip "this build has no GPU kernels (no nvcc)"

# a driver that finds nothing, a GPU that is listed and does not open, a driver that does not start
MOE_SHIM_DEVICES=0 exits 77 standin bench
says 'no GPU to test here: .*finds no GPU'
MOE_SHIM_MAJOR=8 exits 1 standin bench
says 'a GPU is listed, and cannot be opened: .*compute capability'
MOE_SHIM_FAIL=cuInit:1:999 exits 1 standin bench
says 'cannot be listed: .*cuInit'

# each part in little; profilers where they are
exits 0 standin bench
says '^device: stand-in for a GPU'
says '^  ok    kernels'
says '^experts up .*NVFP4'
says '^q_a .*BF16 .*, cuBLASLt'
says '^attention '
says '^sequences  *ms a step$'
awk '$1 == 2 && $2 > 0 && NF == 2 { found = 1 } END { exit !found }' "$T/said" || { cat "$T/said"; fail "a step takes no time"; }
says '^2 run, 0 skipped, 0 late, 0 failed$'
[ ! -e "$T/out/model" ] || fail "the model that bench made is left"
CHECKS='check-cuda-norm check-cuda-route test-core-cuda' exits 0 standin conformance
says '^  ok    test-core-cuda .* checks$'
says '^  ok    models .* loaded by.* cached: the same text'
says '^  ok    keeper .*: 2 engines'
says '^  ok    fast .*: 3 prompts'
says '^7 run, 0 skipped, 0 late, 0 failed$'

# what there is no time for was not tested, and no table of an earlier run stands in its place
PART_SECONDS=4 exits 1 standin conformance bench
says '^  left  models: not started'
says '^0 run, 0 skipped, 0 late, 0 failed$'
! grep -q '^experts up' "$T/said" || fail "an old table is shown"

# What fails is counted, and the rest goes on.
replace bench-cuda 'echo "a GPU"; [ "$1" = --gpu ]'
replace genmodel 'echo "no room"; exit 3'
exits 1 standin bench
says '^  FAIL  kernels (exit 1'
says '^  FAIL  steps (exit 3, .*no room'
says '^2 run, 0 skipped, 0 late, 2 failed$'

# What hangs, and does not even hear that it is to stop, fails too; what is skipped is not run.
CHECKS='check-cuda-norm check-cuda-embed check-cuda-dense'
replace check-cuda-norm "trap '' TERM; while :; do sleep 1; done"
replace check-cuda-embed 'echo "no such unit"; exit 77'
replace check-cuda-dense 'echo quick'
STEP_SECONDS=2 exits 1 standin conformance
says '^  late  check-cuda-norm: stopped after'
says '^  skip  check-cuda-embed: no such unit'
says '^  ok    check-cuda-dense'
says '^6 run, 1 skipped, 1 late, 0 failed$'

# A part that has begun and does not come to its end is no success either.
replace check-cuda-probe 'echo fragments'
replace check-cuda-norm 'sleep 4; echo slow'
PART_SECONDS=8 exits 1 standin conformance
says '^  ok    fragments'
says '^  left  fast: not started'
says '^[1-9] run, 0 skipped, 0 late, 0 failed$'

# a pack has all that conformance runs
CHECKS='check-cuda-route test-core-cuda test-cuda-device'
exits 0 device pack
for t in $CHECKS bench-cuda; do [ -x "$T/out/pack/tests/$t" ] || fail "the pack has no $t"; done
echo "t-check-device: all parts"
