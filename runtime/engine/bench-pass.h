/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/bench-pass.h - times whole forward passes: opening the model, the first token, decoding, and
 * a prompt.
 *
 * Decoding and the prompt are compared with a floor, which is the time that the hardware needs at least for
 * the same work, measured right before or after, so that other load on the machine slows both.  The shortest
 * of several rounds counts.  "seconds" are wall time.  "share_of_peak" is floor / time in wall time;
 * "processor_share" is the same in processor time of the process over all threads, which is the one to read
 * on a busy machine. */
#ifndef MOE_RUNTIME_ENGINE_BENCH_PASS_H
#define MOE_RUNTIME_ENGINE_BENCH_PASS_H

#include "runtime/engine/engine.h"

/* Appends rows like those of moe_bench_model to `list`:
 * "open"         seconds to open the engine at `path`, with its tokenizer when the options ask for it;
 *                "processor_seconds": the same in processor time
 * "first token"  seconds to open the engine and compute the logits of one token, with the files in the page
 *                cache; "overhead_seconds": this less the seconds of "decode";
 *                "processor_overhead_seconds": the same in processor time, divided by the threads
 * "decode"       one token at a short context; gbytes_per_second counts the weights that a token uses; the
 *                floor is reading as many bytes of memory on all threads
 * "prefill"      a batch of tokens; the floor is its matrix products alone, each timed by itself
 * Fails with MOE_NOMEM, MOE_USAGE when the context is too short, or what moe_engine_open fails with; `list`
 * may then have some of the rows. */
enum moe_code moe_bench_pass(cJSON *list, const char *path, const struct moe_engine_options *o,
                             struct moe_pool *pool, struct moe_err *err);

/* The whole benchmark: the rows of moe_bench_model for the open engine *e, then those of moe_bench_pass for
 * the same model at `path`.  The caller frees *rows (cJSON_Delete); it is NULL on failure. */
enum moe_code moe_bench_all(cJSON **rows, const struct moe_engine *e, const char *path,
                            const struct moe_engine_options *o, struct moe_pool *pool, struct moe_err *err);

#endif
