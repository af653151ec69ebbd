#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ten times as many random schedules of the engine's core as make check runs.
. tests/common.sh
need_helper test-core
MOE_CORE_SCHEDULES=${SCHEDULES:-1000} "$GEN/test-core" || fail "test-core"
