#!/bin/sh
# 50 kills of each job on a larger model; see t-kill.sh.
KILLS=50 SIZE="--layers 12 --experts 32 --hidden 512 --inter 256"
export KILLS SIZE
exec sh tests/t-kill.sh "$@"
