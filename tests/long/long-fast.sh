#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How near --arithmetic fast is to exact, over nine pieces of the text where make check takes one: 2,664 positions
# of the model whose weights are all NVFP4.
WINDOWS=9
export WINDOWS
exec sh tests/cli/t-fast.sh "$@"
