/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-other.h - times the tokenizer, moe-run on a generated model, and other programs where
 * they are installed. */
#ifndef BENCH_OTHER_H
#define BENCH_OTHER_H

#include "formats/tokenizer/tokenizer.h"
#include "tests/bench/bench-files.h"

/* ---- tokenizer ---- */

struct encoding { const struct moe_tokenizer *t; const char *text; size_t bytes; };

static void encode_all(void *ctx)
{
    const struct encoding *e = ctx;
    struct moe_err err;
    int32_t *ids;
    size_t n;
    assert(moe_tokenize(e->t, e->text, e->bytes, false, &ids, &n, &err) == MOE_OK);
    free(ids);
}

static void bench_encoding(const char *what, const struct moe_tokenizer *t, const char *text, size_t bytes,
                           double aim)
{
    double s = least_seconds(cpu_now, encode_all, &(struct encoding){ t, text, bytes });
    put_row(&(struct row){ what, "1 core", s, 0, 1e-6 * (double)bytes, "MB/s", NULL, 0,
                           aim > 0 ? AIM_RATE : NO_AIM, aim });
}

static void bench_tokenizer(void)
{
    static const struct { const char *what, *unit;
    } runs[] = { { "tokenize 1 MB of one letter", "a" },
                 { "tokenize 1 MB of spaces", " " },
                 { "tokenize 1 MB of Han characters", "\xe4\xb8\x96" } };
    struct moe_tokenizer *t;
    struct moe_err err;
    char *text, *run = get_memory(1 << 20);
    size_t bytes;
    put_heading("tokenizer");
    assert(moe_tokenizer_open(&t, "tests/data/tiny-k2/bf16", 0, &err) == MOE_OK);
    assert(moe_read_file("tests/data/tiny-k2/calib.txt", 1 << 24, &text, &bytes, &err) == MOE_OK);
    bench_encoding("tokenize plain English", t, text, bytes, 20);
    for (int i = 0; i < 3; i++) {
        size_t unit = strlen(runs[i].unit), n = (size_t)1000000 / unit * unit;
        memcpy(run, runs[i].unit, unit);
        repeat((uint8_t *)run, n, unit);
        bench_encoding(runs[i].what, t, run, n, 0);
    }
    free(run), free(text);
    moe_tokenizer_close(&t);
}

/* ---- other programs ---- */

/* Adds a row for each line "what|how|seconds|work|unit" that bench-peers.py prints. */
static void bench_peers(void)
{
    char command[PATH_MAX], line[256], what[80], how[40], unit[24];
    double seconds, work;
    snprintf(command, sizeof command, "${PYTHON:-python3} tests/bench/bench-peers.py%s 2>/dev/null",
             quick ? " --quick" : "");
    FILE *f = popen(command, "r");
    bool any = false;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%79[^|]|%39[^|]|%lf|%lf|%23[^\n]", what, how, &seconds, &work, unit) != 5) continue;
        if (!any) put_heading("other programs");
        any = true;
        put_row(&(struct row){ what, how, seconds, 0, work, unit, NULL, 0, NO_AIM, 0 });
    }
    if (f) pclose(f);
}

/* ---- moe-run ---- */

static double number_of(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

/* Adds rows for what `moe-run --bench` measured of a whole pass; rows above are of single products.  The
 * share is the larger one of that by wall time and that by processor time. */
static void put_run_rows(const cJSON *o)
{
    static const struct { const char *op, *floor; double aim;
    } ops[] = { { "open", NULL, 0 },
                { "first token", NULL, 0 },
                { "decode", "read, all cores", .7 },
                { "prefill", "its products", .6 } };
    const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "op"));
    for (size_t i = 0; op && i < sizeof ops / sizeof *ops; i++) {
        if (strcmp(op, ops[i].op)) continue;
        double share = number_of(o, "share_of_peak"), cpu = number_of(o, "processor_share"),
               s = number_of(o, "seconds"), over = number_of(o, "overhead_seconds");
        char what[64];
        snprintf(what, sizeof what, "moe-run: %s", op);
        put_row(&(struct row){ what, "warm", s, number_of(o, "gbytes_per_second") * 1e9 * s,
                               number_of(o, "gflops") * s, number_of(o, "gflops") > 0 ? "GFLOPS" : NULL,
                               ops[i].floor, cpu > share ? cpu : share, ops[i].aim > 0 ? AIM_SHARE : NO_AIM,
                               ops[i].aim });
        if (over > 0)
            put_row(&(struct row){ "moe-run: first token less arithmetic", "warm", over, 0, 0, NULL,
                                   "50 ms allowed", .05 / over, AIM_SHARE, 1 });
    }
}

/* Times moe-run on an NVFP4 container, which no cache holds, of the model that bench_files has generated (or
 * of a new one). */
static void bench_run(int experts)
{
    char command[3 * PATH_MAX], *text = get_memory(1 << 20), path[PATH_MAX];
    snprintf(path, sizeof path, "%s/m", bench_dir);
    put_heading("moe-run, NVFP4 at Kimi K2's widths");
    if (access(path, R_OK)) generate(bench_dir, experts);
    snprintf(command, sizeof command,
             "'%s/moe-quantize' '%s/m' -o '%s/run.moe' --method max --quiet >/dev/null && '%s/moe-run' "
             "'%s/run.moe' --bench --json 2>/dev/null",
             bin_dir, bench_dir, bench_dir, bin_dir, bench_dir);
    FILE *f = popen(command, "r");
    assert(f);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    pclose(f);
    text[n] = 0;
    cJSON *all = cJSON_ParseWithLength(text, n);
    for (const cJSON *o = all ? cJSON_GetObjectItemCaseSensitive(all, "bench") : NULL,
                     *r = o ? o->child : NULL;
         r; r = r->next)
        put_run_rows(r);
    cJSON_Delete(all);
    free(text);
}

#endif
