#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test of moe-run with its forward passes on ops/checked (tests/cli/t-checked.sh).
CHECKED="t-generate t-talk t-run t-score t-ep t-ep-ucx t-chat t-api" exec sh tests/cli/t-checked.sh "$@"
