#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Takes each barrier, each wait and each commit of asynchronous copies away from the kernels of GPUs, one at a time: the
# kernel's own check has to fail.
. tests/common.sh
. tests/planted.sh

# Lines whose absence the shim cannot show.  group, sort_pairs: the shuffles of the next round meet, too, but only
# __syncwarp orders memory.  group: list_items ends behind a barrier of its own.  route: each lane reads what it
# wrote itself.  probe: ldmatrix meets, too.  sample: block_max is called once in a kernel; each thread asks for the
# weights that it stored itself.
cannot_show="group:2 probe:1 route:2 sample:3"
# Without a barrier or a wait an index may be what was in shared memory before, so a fault is a catch, too.
FAULTS=1
n=0
# every KERNELS CHECK...: of one file, or of HEADER
every()
{
    name=$1 missed=0 missing= file=${HEADER:-$1.cu}
    shift
    for line in $(grep -nE '(__syncthreads|__syncwarp|cp_async_wait|cp_async_commit)\(' "kernels/cuda/$file" | cut -d: -f1); do
        n=$((n + 1))
        plant "$name" "${line}s/(__syncthreads|__syncwarp|cp_async_wait|cp_async_commit)\([^;]*;/;/" "$@" ||
            { missed=$((missed + 1)) missing="$missing $line"; }
    done
    allowed=0
    for c in $cannot_show; do [ "${c%:*}" != "$name" ] || allowed=${c#*:}; done
    [ $missed -le $allowed ] || fail "kernels/cuda/$file: nobody misses what stands in the lines$missing"
}
for f in kernels/cuda/*.cu; do
    case $(basename "$f" .cu) in
    group) every group check-cuda-group check-cuda-experts ;;
    nvfp4) every nvfp4 check-cuda-nvfp4 check-cuda-experts ;;
    tiles) every "$(basename "$f" .cu)" check-cuda-nvfp4-fast ;;
    halves) every halves check-cuda-dense-fast ;;
    *) every "$(basename "$f" .cu)" "check-cuda-$(basename "$f" .cu)" ;;
    esac
done
HEADER=rms.h every norm check-cuda-norm
HEADER=scan.h every group check-cuda-group check-cuda-experts
HEADER=scan.h every tiles check-cuda-nvfp4-fast
echo "long-cuda-planted: $n mistakes"
