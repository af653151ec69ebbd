/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/bench.h - the model's own matrix products timed against floors measured in the same run. */
#ifndef MOE_RUNTIME_ENGINE_BENCH_H
#define MOE_RUNTIME_ENGINE_BENCH_H

#include "runtime/engine/engine.h"

/* An array of {"op", "shape", "seconds", "gbytes_per_second", "gflops", "share_of_peak"}; first the floors:
 * "read" (bytes read from memory by all threads) and "fma" (float32 multiply-adds).  share_of_peak of a
 * product is the larger of its shares of the two.  NULL when out of memory. */
cJSON *moe_bench_model(const struct moe_engine *e, struct moe_pool *pool);

#endif
