/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-ep.h - times expert placement and expert parallelism: planning K2's 60 layers, and what
 * dispatch and combine add to a layer.
 *
 * The second comes from moe-run's own measurement, on ranks that are threads, one on each core: the seconds
 * in requests (grouping rows by rank, copying, posting), and in serving them without the experts' arithmetic
 * (gathering pairs, reading outputs, answering), divided by the layers asked for.  Waiting for other ranks
 * is not counted, as that is their work.  It is compared with a memcpy of the bytes sent. */
#ifndef BENCH_EP_H
#define BENCH_EP_H

#include "tests/bench/bench-comm.h"

/* The JSON that a command prints; NULL when it fails. */
static cJSON *said(const char *command)
{
    char *text = get_memory(1 << 22);
    FILE *f = popen(command, "r");
    assert(f);
    size_t n = fread(text, 1, (1 << 22) - 1, f);
    int status = pclose(f);
    cJSON *all = status ? NULL : cJSON_ParseWithLength(text, n);
    free(text);
    if (!all) fprintf(stderr, "bench: failed: %s\n", command);
    return all;
}

/* ---- planning ---- */

static void plan_rows(int ranks, int slots)
{
    char command[4 * PATH_MAX], what[64];
    double least[2] = { INFINITY, INFINITY }, gap[2] = { 0 };
    snprintf(command, sizeof command,
             "'%s/moe-plan' '%s/k2' -q --expert-type nvfp4 --ranks %d --slots %d --stats '%s/stats' "
             "--baseline eplb -t 1 --json",
             bin_dir, bench_dir, ranks, slots, bench_dir);
    for (int i = 0; i < (quick ? 1 : 5); i++) {
        cJSON *all = said(command);
        if (!all) return;
        const cJSON *eplb = cJSON_GetObjectItemCaseSensitive(
                        cJSON_GetObjectItemCaseSensitive(all, "baselines"), "eplb"),
                    *each[2] = { all, eplb };
        for (int k = 0; k < 2; k++) {
            least[k] = fmin(least[k], number_of(each[k], "cpu_seconds"));
            gap[k] = number_of(each[k], "gap_total");
        }
        cJSON_Delete(all);
    }
    for (int k = 0; k < 2; k++) {
        snprintf(what, sizeof what, "%s, %d ranks, %d slots", k ? "EPLB" : "moe-plan", ranks, slots);
        put_row(&(struct row){ what, "1 core", least[k], 0, 100 * gap[k] * least[k], "% above",
                               k ? NULL : "100 ms allowed", k ? 0 : .1 / least[k], k ? NO_AIM : AIM_SHARE,
                               1 });
    }
}

static void bench_plans(void)
{
    char command[4 * PATH_MAX];
    put_heading("placement of 60 layers x 384 experts");
    snprintf(command, sizeof command,
             "'%s/genmodel' -o '%s/k2' --preset k2 --sparse >/dev/null && '%s/genrouting' sigma=1 seed=11 "
             ">'%s/stats'",
             gen_dir, bench_dir, gen_dir, bench_dir);
    if (system(command)) return (void)printf("skipped: no statistics\n");
    plan_rows(72, 432);
    if (quick) return;
    plan_rows(72, 504);
    plan_rows(32, 416);
    plan_rows(16, 384);
}

/* ---- dispatch and combine ---- */

/* Texts in windows of so many tokens, a window a pass and rank. */
static void dispatch_row(const char *model, const char *width, int ranks, int tokens)
{
    char command[4 * PATH_MAX], what[64], how[32];
    double seconds = 0, bytes = 0, layers = 0, arithmetic = 0;
    snprintf(command, sizeof command, "'%s/moe-run' '%s' -q --json --ranks %d --score '%s/text' --window %d",
             bin_dir, model, ranks, bench_dir, tokens);
    cJSON *all = said(command);
    if (!all) return;
    for (const cJSON *r = cJSON_GetObjectItemCaseSensitive(all, "ranks")->child; r; r = r->next) {
        seconds += number_of(r, "seconds_send") + number_of(r, "seconds_serve") -
                   number_of(r, "seconds_experts");
        arithmetic += number_of(r, "seconds_experts");
        bytes += number_of(r, "bytes_sent");
        layers += number_of(r, "requests");
    }
    cJSON_Delete(all);
    if (!(layers > 0)) return;
    snprintf(what, sizeof what, "dispatch+combine, %s, %d tokens", width, tokens);
    snprintf(how, sizeof how, "%d ranks", ranks);
    put_row(&(struct row){ what, how, seconds / layers, bytes / layers,
                           100 * seconds / (seconds + arithmetic) * (seconds / layers), "% of it",
                           "memcpy of as much", 2 * bytes / machine.copy / seconds, NO_AIM, 0 });
}

static void bench_dispatch(void)
{
    char command[4 * PATH_MAX], model[PATH_MAX];
    put_heading("expert parallelism, a layer of one rank");
    snprintf(model, sizeof model, "%s/ep", bench_dir);
    snprintf(command, sizeof command,
             "head -c %d tests/data/tiny-k2/calib.txt >'%s/text' && '%s/genmodel' -o '%s' --format bf16 "
             "--layers 3 --dense 1 --experts 64 --top-k 8 --hidden %d --inter 256 --dense-inter 256 --vocab "
             "1024 --tokenizer tests/data/tiny-k2/bf16 >/dev/null",
             quick ? 1000 : 6000, bench_dir, gen_dir, model, quick ? 256 : 7168);
    if (system(command)) return (void)printf("skipped: no model\n");
    for (int tokens = 16; tokens <= 512; tokens *= quick ? 64 : 4) {
        dispatch_row("tests/data/tiny-k2/bf16", "256 wide", 2, tokens);
        dispatch_row(model, "7168 wide", 2, tokens);
    }
}

#endif
