/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-table.h - the table of `make bench`, as text and as JSON: each row has a time, rates,
 * its share of a floor measured in the same run, and the aim where there is one. */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#undef NDEBUG
#include "base/io.h"
#include "base/json.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum aim { NO_AIM, AIM_SHARE, AIM_RATE }; /* an aim of the share, or of the work a second */

struct row {
    const char *what, *how;      /* how: variant, threads, state of the cache */
    double seconds, bytes, work; /* of one run; work in units of 1e9, or of 1 where `unit` has no prefix */
    const char *unit;            /* "GFLOPS", "Gweights/s", "tokens/s"; NULL: no work */
    const char *floor;           /* what the share is of; NULL: none */
    double share;
    enum aim aim_of;
    double aim;
};

static cJSON *rows_json;
static bool quick;               /* tiny sizes, for a test of the bench itself */
static char only[64];            /* the one group that runs; "": all do */

static bool wanted(const char *group) { return !*only || !strcmp(only, group); }

static void put_heading(const char *text)
{
    printf("\n%-36s %-10s %10s %9s %19s  %s\n", text, "", "time", "GB/s", "rate",
           "share of                aim");
    fflush(stdout);
}

static const char *format_seconds(double s, char out[16])
{
    if (s < 1e-5) snprintf(out, 16, "%.0f ns", s * 1e9);
    else if (s < 1e-2) snprintf(out, 16, "%.1f us", s * 1e6);
    else if (s < 1) snprintf(out, 16, "%.1f ms", s * 1e3);
    else snprintf(out, 16, "%.2f s", s);
    return out;
}

static void add_row_json(const struct row *r, double rate)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "what", r->what);
    cJSON_AddStringToObject(o, "how", r->how);
    cJSON_AddNumberToObject(o, "seconds", r->seconds);
    if (r->bytes > 0) cJSON_AddNumberToObject(o, "gbytes_per_second", r->bytes / r->seconds * 1e-9);
    if (r->unit) cJSON_AddNumberToObject(o, "rate", rate), cJSON_AddStringToObject(o, "unit", r->unit);
    if (r->floor)
        cJSON_AddNumberToObject(o, "share", r->share), cJSON_AddStringToObject(o, "floor", r->floor);
    if (r->aim_of)
        cJSON_AddStringToObject(o, "aim_of", r->aim_of == AIM_SHARE ? "share" : "rate"),
            cJSON_AddNumberToObject(o, "aim", r->aim);
    cJSON_AddItemToArray(rows_json, o);
}

/* Prints a row and adds it to the JSON. */
static void put_row(const struct row *r)
{
    char time[16], gb[16] = "", rate[32] = "", share[40] = "", aim[40] = "";
    double v = r->unit ? r->work / r->seconds : 0;
    if (r->bytes > 0) snprintf(gb, sizeof gb, "%.2f", r->bytes / r->seconds * 1e-9);
    if (r->unit) snprintf(rate, sizeof rate, "%.*f %s", v < 100 ? 2 : 0, v, r->unit);
    if (r->floor) snprintf(share, sizeof share, "%4.2f %s", r->share, r->floor);
    if (r->aim_of == AIM_SHARE)
        snprintf(aim, sizeof aim, "%.2f %s", r->aim, r->share >= r->aim ? "met" : "-");
    if (r->aim_of == AIM_RATE)
        snprintf(aim, sizeof aim, "%.1f %s %s", r->aim, r->unit, v >= r->aim ? "met" : "-");
    char line[200];
    int n = snprintf(line, sizeof line, "%-36s %-10s %10s %9s %19s  %-23s %s", r->what, r->how,
                     format_seconds(r->seconds, time), gb, rate, share, aim);
    while (n > 0 && line[n - 1] == ' ') line[--n] = 0;
    puts(line);
    fflush(stdout);
    add_row_json(r, v);
}

/* ---- time ---- */

/* The processor time of this thread in seconds, since other programs may be using the machine. */
static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Returns the least seconds that a call of fn takes.  Five measurements or more are made, over a quarter of a
 * second or more; each is the mean of so many calls that they take 10 ms or more. */
static double least_seconds(double (*clock)(void), void (*fn)(void *), void *ctx)
{
    double t = clock();
    fn(ctx);
    double first = clock() - t, least = INFINITY, all = 0;
    int64_t times = first > .01 ? 1 : (int64_t)(.01 / fmax(first, 1e-8)) + 1;
    if (quick) return fmax(first, 1e-9);
    for (int i = 0; i < 5 || (all < .25 && i < 100); i++) {
        t = clock();
        for (int64_t j = 0; j < times; j++) fn(ctx);
        t = clock() - t;
        all += t;
        least = fmin(least, t / (double)times);
    }
    return least;
}

#endif
