#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kills each of three jobs on a larger model 67 times, 201 kills in all; see t-kill.sh.
KILLS=67 SIZE="--layers 12 --experts 32 --hidden 512 --inter 256"
export KILLS SIZE
exec sh tests/cli/t-kill.sh "$@"
