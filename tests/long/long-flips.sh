#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes each of 200,000 random bytes of a small container's data wrong in turn, under four seeds
# (test-flips).
. tests/common.sh
need_helper test-flips
for seed in 2 3 4 5; do ok "$GEN/test-flips" 50000 $seed; cat "$T/out"; done
