/* tests/bench-other.h - the tokenizer, moe-run on a generated model, and other programs where they are installed. */
#ifndef BENCH_OTHER_H
#define BENCH_OTHER_H

#include "formats/tokenizer.h"
#include "tests/bench-files.h"

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

static void encode_row(const char *what, const struct moe_tokenizer *t, const char *text, size_t bytes, double aim)
{
    double s = best(cpu_now, encode_all, &(struct encoding){ t, text, bytes });
    put_row(&(struct row){ what, "1 core", s, 0, 1e-6 * (double)bytes, "MB/s", NULL, 0, aim > 0 ? AIM_RATE : NO_AIM, aim });
}

static void bench_tokenizer(void)
{
    static const struct { const char *what, *unit; } runs[] = {
        { "tokenize 1 MB of one letter", "a" }, { "tokenize 1 MB of spaces", " " }, { "tokenize 1 MB of Han characters", "\xe4\xb8\x96" } };
    struct moe_tokenizer *t;
    struct moe_err err;
    char *text, *run = get(1 << 20);
    size_t bytes;
    heading("tokenizer");
    assert(moe_tokenizer_open(&t, "tests/data/tiny-k2/bf16", 0, &err) == MOE_OK);
    assert(moe_read_file("tests/data/tiny-k2/calib.txt", 1 << 24, &text, &bytes, &err) == MOE_OK);
    encode_row("tokenize plain English", t, text, bytes, 20);
    for (int i = 0; i < 3; i++) {
        size_t unit = strlen(runs[i].unit), n = (size_t)1000000 / unit * unit;
        memcpy(run, runs[i].unit, unit);
        repeat((uint8_t *)run, n, unit);
        encode_row(runs[i].what, t, run, n, 0);
    }
    free(run), free(text);
    moe_tokenizer_close(&t);
}

/* ---- other programs ---- */

/* Lines "what|how|seconds|work|unit" of a command. */
static void bench_peers(void)
{
    char command[PATH_MAX], line[256], what[80], how[40], unit[24];
    double seconds, work;
    snprintf(command, sizeof command, "${PYTHON:-python3} tests/bench-peers.py%s 2>/dev/null", quick ? " --quick" : "");
    FILE *f = popen(command, "r");
    bool any = false;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%79[^|]|%39[^|]|%lf|%lf|%23[^\n]", what, how, &seconds, &work, unit) != 5) continue;
        if (!any) heading("other programs");
        any = true;
        put_row(&(struct row){ what, how, seconds, 0, work, unit, NULL, 0, NO_AIM, 0 });
    }
    if (f) pclose(f);
}

/* ---- moe-run ---- */

/* tests/bench-run.sh prints lines "what|how|seconds|bytes|work|unit|floor|share|aim". */
static void bench_run(void)
{
    char command[2 * PATH_MAX + 64], line[512], what[80], how[40], unit[24], floor[40];
    double seconds, bytes, work, share, aim;
    if (access("tests/bench-run.sh", R_OK)) return;
    snprintf(command, sizeof command, "sh tests/bench-run.sh '%s' '%s'%s", bin_dir, gen_dir, quick ? " --quick" : "");
    FILE *f = popen(command, "r");
    heading("moe-run");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%79[^|]|%39[^|]|%lf|%lf|%lf|%23[^|]|%39[^|]|%lf|%lf", what, how, &seconds, &bytes, &work, unit, floor, &share, &aim) != 9) continue;
        put_row(&(struct row){ what, how, seconds, bytes, work, work > 0 ? unit : NULL, share > 0 ? floor : NULL, share, aim > 0 ? AIM_SHARE : NO_AIM, aim });
    }
    if (f) pclose(f);
}

#endif
