/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/bench-pass.h - the whole pass timed: opening, the first token, decoding, a prompt.
 *
 * Each is held against a floor measured in between, so that what else the machine does slows both: the least
 * of several rounds counts.  Seconds are wall time; "processor_share" is the same share from the process's
 * processor time over all threads, which is what to read on a busy machine. */
#ifndef MOE_RUNTIME_ENGINE_BENCH_PASS_H
#define MOE_RUNTIME_ENGINE_BENCH_PASS_H

#include "runtime/engine/engine.h"

/* Appends rows as moe_bench_model's to `list`:
 * "open"         seconds until the engine at `path` is open (tokenizer included when the options ask for it)
 * "first token"  seconds from nothing to the first token's logits, files in the page cache;
 * "overhead_seconds": less a decode step
 * "decode"       a token at a short context; gbytes_per_second of active weights, share_of_peak: of
 *                reading memory on all threads
 * "prefill"      a batch of tokens; share_of_peak: the time of its matrix products alone, each run by itself,
 *                over the time of the pass
 * MOE_NOMEM or what opening says. */
enum moe_code moe_bench_pass(cJSON *list, const char *path, const struct moe_engine_options *o,
                             struct moe_pool *pool, struct moe_err *err);

/* All of a benchmark: the rows of moe_bench_model for the open engine, then those of moe_bench_pass for the
 * same model at `path`.  *rows is the caller's, to delete; NULL on failure. */
enum moe_code moe_bench_all(cJSON **rows, const struct moe_engine *e, const char *path,
                            const struct moe_engine_options *o, struct moe_pool *pool, struct moe_err *err);

#endif
