#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that the checks of GPU kernels catch the mistakes that nobody sees in a source: planted one at a time in the
# product with NVFP4 weights and in small kernels.  long-cuda-planted takes each barrier and each wait of all kernels.
. tests/common.sh
. tests/planted.sh
barrier() { awk -v n="$1" '/__syncthreads\(\);/ && ++k == n { print NR }' "kernels/cuda/$2.cu"; }

catches "a missing barrier" nvfp4 "$(barrier 1 nvfp4)s/__syncthreads\(\);//" check-cuda-nvfp4
catches "a missing wait" nvfp4 's/cp_async_wait\([0-9]\)/(void)0/' check-cuda-nvfp4
catches "a wait for one copy less" nvfp4 's/cp_async_wait\(2\)/cp_async_wait(3)/' check-cuda-nvfp4
catches "a wrong fragment of the weights" nvfp4 's/i % 2 \* 2\] = a\[i\](.*)i % 2 \* 2 \+ 1\]/i % 2] = a[i]\1i % 2 + 2]/' check-cuda-nvfp4
catches "a wrong fragment of x" nvfp4 's/a\[1\], x \+ 2\)/a[1], x + 1)/' check-cuda-nvfp4
catches "a wrong scale of the second rows" nvfp4 's/c\[3\]\), r->scale\[1\]/c[3]), r->scale[0]/' check-cuda-nvfp4
catches "a read past the end" check 's/from \+ i < a.n/from + i <= a.n/' check-cuda-route
catches "a write past the end" norm 's/for \(int64_t i = threadIdx.x; i < a.n;/for (int64_t i = threadIdx.x; i <= a.n;/' check-cuda-norm
echo "t-cuda-planted: 8 mistakes are caught"
