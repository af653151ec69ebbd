#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lets every call of every kind fail once, with every error that it can have; see t-faults.sh.
FAULTS=all
export FAULTS
exec sh tests/cli/t-faults.sh "$@"
