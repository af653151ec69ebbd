#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 67 kills of each of three jobs on a larger model, 201 in all; see t-kill.sh.
KILLS=67 SIZE="--layers 12 --experts 32 --hidden 512 --inter 256"
export KILLS SIZE
exec sh tests/cli/t-kill.sh "$@"
