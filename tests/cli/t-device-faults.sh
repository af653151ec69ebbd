#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --device cuda with calls of the driver that fail, one in each run: in opening, loading, recording and
# computing.  It ends with exit 17 and one sentence, or with the right text where the call did not matter; it never
# hangs.  A GPU that is lost within a step is one of these.
. tests/common.sh
need_tool moe-run
F=tests/data/tiny-k2 checks=0
need_standin
export LD_LIBRARY_PATH="$B/shim"
run() { timeout 100 "$RUN" -q --device cuda $F/int4 --tokens 1,2,3 -n 5 --context 16 --ignore-eos </dev/null; }
run >"$T/right" || fail "exit $? without a failure"

# one NAME:N:RESULT: a run in which the Nth call of NAME fails
one()
{
    MOE_SHIM_FAIL=$1
    export MOE_SHIM_FAIL
    got=0
    run >"$T/out" 2>"$T/err" || got=$?
    unset MOE_SHIM_FAIL
    checks=$((checks + 1))
    if [ $got = 0 ]; then
        cmp -s "$T/out" "$T/right" || fail "$1: another text"
        [ ! -s "$T/err" ] || { cat "$T/err"; fail "$1: exit 0 with a message"; }
        return
    fi
    failed=$((failed + 1))
    [ $got = 17 ] || { cat "$T/err"; fail "$1: exit $got"; }
    [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "$1: not one sentence"; }
}

failed=0 n=1
while [ $n -lt 1500 ]; do
    one any:$n:$([ $((n % 3)) = 0 ] && echo 2 || echo 999)
    n=$((n + (n < 30 ? 1 : n < 200 ? 13 : 97)))
done
[ $failed -gt 30 ] || fail "only $failed of the calls mattered"

# what a user reads
says() { grep -qF "$1" "$T/err" || { cat "$T/err"; fail "does not say '$1'"; }; }
one cuStreamSynchronize:5:214 && says "uncorrectable ECC error encountered, CUDA_ERROR_ECC_UNCORRECTABLE (nvidia-smi"
one cuMemCreate:1:2 && says "for weights" && says "out of memory, CUDA_ERROR_OUT_OF_MEMORY"
one cuLaunchKernel:3:700 && says "cuLaunchKernel of moe_cuda_" && says "an illegal memory access"
one cuModuleLoadData:1:222 && says "install a driver as new as the toolkit"
one cuGraphLaunch:1:719; [ $got = 17 ] && says "cuGraphLaunch after moe_cuda_"
one cuMemHostAlloc:1:12345 && says "cuMemHostAlloc of 16777216 bytes"

# a driver that says anything of the stand-in's image: it holds no GPU's kernels
for r in 1 200 209 218; do
    MOE_SHIM_FAIL=cuModuleLoadData:1:$r run >"$T/out" 2>"$T/err" && got=0 || got=$?
    says "this build has no GPU kernels"
    [ $got = 14 ] || fail "result $r for the stand-in's image: exit $got"
done

# a step that cannot be recorded is launched, and only a GPU that is lost ends the run
for f in cuStreamBeginCapture_v2:1 cuStreamEndCapture:1 cuGraphInstantiateWithFlags:1; do
    one $f:2
    [ $got = 0 ] || { cat "$T/err"; fail "$f: exit $got, although launches do the same"; }
    one $f:700
    [ $got = 17 ] || fail "$f: exit $got on a GPU that is lost"
done

# where each kernel is waited for there are no graphs, so that a repeated step, too, names the kernel that failed
MOE_GPU_WAIT=1; export MOE_GPU_WAIT
one cuGraphLaunch:1:719
[ $got = 0 ] || { cat "$T/err"; fail "MOE_GPU_WAIT=1 has launched a graph"; }
one cuStreamSynchronize:400:700 && says "after moe_cuda_"
[ $got = 17 ] || fail "MOE_GPU_WAIT=1: fewer than 400 waits"
unset MOE_GPU_WAIT
echo "$checks runs, $failed of which failed"
