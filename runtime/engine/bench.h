/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/bench.h - times the model's own matrix products, and compares them with floors (the speed of
 * memory and of multiply-adds) measured in the same run. */
#ifndef MOE_RUNTIME_ENGINE_BENCH_H
#define MOE_RUNTIME_ENGINE_BENCH_H

#include "runtime/engine/engine.h"

/* Returns an array of {"op", "shape", "seconds", "gbytes_per_second", "gflops", "share_of_peak"}, which the
 * caller frees (cJSON_Delete).  The first rows are the floors: "read" (bytes read from memory by all threads)
 * and "fma" (float32 multiply-adds by all threads).  share_of_peak of a product is the larger of its
 * gbytes_per_second over that of "read" and its gflops over those of "fma".  NULL or an incomplete array
 * (moe_json_whole) when out of memory. */
cJSON *moe_bench_model(const struct moe_engine *e, struct moe_pool *pool);

#endif
