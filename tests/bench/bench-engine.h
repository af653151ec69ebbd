/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-engine.h - times what the engine's core does besides the forward pass in a step of 256
 * sequences: the schedule, pages, drawing tokens from a few, their text, and what readers are shown.
 *
 * Passes run in between, so that the core finds its books in the state of the caches in which it finds them
 * in real work. */
#ifndef BENCH_ENGINE_H
#define BENCH_ENGINE_H

#include "runtime/engine/core.h"
#include "tests/bench/bench-table.h"

/* Seconds of the core in a step. */
struct core_times { double least, median, plan; }; /* plan: the mean of the schedule's plan alone */

static int ascending_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Submits n requests, each of a prompt of its own. */
static void submit_answers(struct moe_core *core, int n, int64_t max_tokens)
{
    struct moe_err err;
    for (int i = 0; i < n; i++) {
        int32_t ids[20];
        uint64_t id;
        for (int k = 0; k < 20; k++) ids[k] = (i * 31 + k * 7) % 1000;
        const struct moe_request q = { .ids = ids, .n_ids = 20, .max_tokens = max_tokens, .logprobs = -1,
                                       .ignore_eos = true };
        assert(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    }
}

static struct core_times time_core(int sequences, int steps)
{
    struct moe_engine *e;
    struct moe_core *core;
    struct moe_err err;
    struct moe_engine_options o = { .batch = 512 };
    struct moe_core_options co = { .sequences = sequences };
    double *took = get_memory((size_t)steps * sizeof *took);
    bool worked = true;
    assert(moe_engine_open(&e, "tests/data/tiny-k2/bf16", &o, NULL, &err) == MOE_OK);
    e->vocab = 8; /* tokens are drawn from these: the time of drawing is that of a kernel */
    assert(moe_core_open(&core, e, &co, &err) == MOE_OK);
    submit_answers(core, sequences, 900);
    for (int i = 0; i < 20; i++) assert(moe_core_step(core, &worked, &err) == MOE_OK && worked);
    assert(moe_core_stats(core).running == sequences);
    double planned = moe_core_stats(core).seconds_plan;
    for (int i = 0; i < steps; i++) {
        double passed = moe_core_stats(core).seconds_pass, begun = moe_now();
        assert(moe_core_step(core, &worked, &err) == MOE_OK);
        took[i] = moe_now() - begun - (moe_core_stats(core).seconds_pass - passed);
    }
    planned = (moe_core_stats(core).seconds_plan - planned) / steps;
    moe_core_close(&core);
    moe_engine_close(&e);
    qsort(took, (size_t)steps, sizeof *took, ascending_seconds);
    struct core_times t = { took[0], took[steps / 2], planned };
    free(took);
    return t;
}

static void bench_engine(void)
{
    struct core_times t = time_core(quick ? 8 : 256, quick ? 3 : 100);
    put_heading("the engine's core, besides the forward pass");
    put_row(&(struct row){ "a step of 256 sequences, least", "1 core", t.least, 0, 0, NULL, NULL, 0, NO_AIM,
                           0 });
    put_row(&(struct row){ "a step of 256 sequences, median", "1 core", t.median, 0, 0, NULL, NULL, 0, NO_AIM,
                           0 });
    put_row(&(struct row){ "of that the scheduler's plan, mean", "1 core", t.plan, 0, 0, NULL,
                           "20 us allowed", 20e-6 / t.plan, AIM_SHARE, 1 });
}

#endif
