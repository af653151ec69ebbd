#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-inspect --devices with the stand-in for NVIDIA's driver: its keys, its text, and each reason why there is
# nothing to list.
. tests/common.sh
need_tool moe-inspect
need_python
B=${BIN%/bin}
I=$BIN/moe-inspect
[ -e "$B/shim/libcuda.so.1" ] || skip "the stand-in is not built"
code 2 "takes no model ('x')" "$I" --devices x
code 2 "--devices" "$I" --devices --verify
if ! grep -q 'HAVE_CUDA := 1' "$B/config.mk" && ! grep -q CUDA=shim "$B/config.in"; then
    code 14 "this build has no GPU kernels" "$I" --devices
    echo "this build has no GPU kernels"
    exit 0
fi
devices() { LD_LIBRARY_PATH=$B/shim "$I" --devices "$@"; }

devices --json >"$T/out" || fail "exit $?"
KEYS='["index","name","arch","multiprocessors","memory_bytes","free_bytes","ecc","numa_node","link","load_paths","handles","gpudirect_storage","problem"]'
holds "list(j) == ['devices'] and len(j['devices']) == 1 and list(j['devices'][0]) == $KEYS"
holds "[j['devices'][0][k] for k in ('index', 'arch', 'memory_bytes', 'free_bytes', 'numa_node', 'problem')] == [0, 'sm_90', 4 << 30, 4 << 30, None, None]"
holds "j['devices'][0]['load_paths'] == ['direct', 'cached'] and j['devices'][0]['handles'] == ['posix_fd']"
holds "j['devices'][0]['link'] == {'bus': 'ffff:00:00.0', 'pcie_gtransfers_per_second': None, 'pcie_lanes': None, 'host_page_tables': False}"
devices >"$T/out" || fail "exit $?"
grep -q "^GPU 0: stand-in for a GPU, sm_90, 132 multiprocessors, 4.0 GiB of which 4.0 GiB are free" "$T/out" || fail "$(cat "$T/out")"
grep -q "weights can be loaded: direct, cached" "$T/out" || fail "$(cat "$T/out")"

# Several; one that is too old is listed, and what is wrong with it is said.
MOE_SHIM_DEVICES=3 MOE_SHIM_HAS= devices --json >"$T/out" || fail "exit $?"
holds "[d['index'] for d in j['devices']] == [0, 1, 2] and j['devices'][2]['handles'] == []"
MOE_SHIM_MAJOR=8 devices --json >"$T/out" || fail "exit $?"
holds "j['devices'][0]['free_bytes'] is None and 'compute capability 8.0' in j['devices'][0]['problem']"
MOE_SHIM_MAJOR=8 devices >"$T/out" || fail "exit $?"
grep -q "cannot be used: GPU 0 (stand-in for a GPU) has compute capability 8.0" "$T/out" || fail "$(cat "$T/out")"
MOE_SHIM_FAIL=cuDevicePrimaryCtxRetain:1:46 devices --json >"$T/out" || fail "exit $?"
holds "'cuDevicePrimaryCtxRetain' in j['devices'][0]['problem']"

# The kernels were made by a newer CUDA than the driver is for.
if grep -q 'HAVE_CUDA := 1' "$B/config.mk"; then
    made=$(sed -n 's/CUDA_VERSION := \([0-9]*\)...$/\1/p' "$B/config.mk")
    [ "$made" -ge 12 ] || fail "CUDA_VERSION of config.mk: '$made'"
    if [ "$made" -gt 12 ]; then
        MOE_SHIM_VERSION=$(($made - 1))080 devices --json >"$T/out" || fail "exit $?"
        holds "'is for CUDA $(($made - 1)).8, and the kernels of this program were made for CUDA $made' in j['devices'][0]['problem']"
        export LD_LIBRARY_PATH="$B/shim"
        MOE_SHIM_VERSION=$(($made - 1))080 code 17 "were made for CUDA $made" "$BIN/moe-run" tests/data/tiny-k2/bf16 --device cuda --tokens 1 -n 1
        unset LD_LIBRARY_PATH
    fi
    MOE_SHIM_VERSION=$(($made + 1))000 devices --json >"$T/out" || fail "exit $?"
    holds "j['devices'][0]['problem'] is None"
fi

# Nothing to list.
export LD_LIBRARY_PATH="$B/shim"
MOE_SHIM_DEVICES=0 code 17 "the NVIDIA driver finds no GPU" "$I" --devices
MOE_SHIM_VERSION=11040 code 17 "the NVIDIA driver is for CUDA 11.4, which is too old" "$I" --devices
MOE_SHIM_FAIL=cuInit:1:803 code 17 "of different versions" "$I" --devices
MOE_SHIM_FAIL=cuDeviceGetName:1:999 code 17 "GPU 0: cuDeviceGetName" "$I" --devices
echo "not a library" >"$T/libcuda.so.1"
LD_LIBRARY_PATH=$T code 17 "no NVIDIA driver is installed" "$I" --devices
