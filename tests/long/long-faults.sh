#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every call of every kind fails once, with every error it can have: see t-faults.sh.
FAULTS=all
export FAULTS
exec sh tests/cli/t-faults.sh "$@"
