/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a moe-run whose every forward pass runs on ops/checked (moe-run-checked). */
#include "tests/ops/wrap.h"

bool wrap_wanted(void) { return true; }
