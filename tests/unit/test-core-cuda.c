/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the engine's core on a GPU: test-core with few requests a schedule, whose answers alone come from the
 * processor.  So a request gets, among others and on the GPU, the bits that the processor gives it alone.
 *
 * By the stand-in for the driver that lies beside it, or with MOE_TEST_GPU=1 on the GPU of this machine. */
#define CORE_CUDA 1
#include "tests/unit/test-core.c"
