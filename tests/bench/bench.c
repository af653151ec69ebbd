/* SPDX-License-Identifier: Apache-2.0 */
/* bench BINDIR TESTBINDIR
 *
 * Measures in one run every speed that docs/measurements/performance.md explains, and prints them as a table.
 * Environment variables:
 *
 *   BENCH_JSON=FILE                  also writes the rows as JSON
 *   BENCH_DIR=DIR                    where a model of 3 GB and its copies are made; else TMPDIR
 *   BENCH_ONLY=kernels|attention|files|text|run|engine|ep
 *   BENCH_EXPERTS, BENCH_ROUNDS      size of that model, and repeats
 *   BENCH_QUICK=1                    tiny sizes and single runs, whose numbers mean nothing */
#include "tests/bench/bench-attend.h"
#include "tests/bench/bench-engine.h"
#include "tests/bench/bench-ep.h"
#include "tests/bench/bench-grammar.h"

#include <signal.h>
#include <sys/utsname.h>

static void clean(void)
{
    remove_dir(bench_dir);
    remove_dir(shm_dir);
}

static void on_signal(int sig)
{
    (void)sig;
    clean(); /* POSIX does not allow this in a handler; but nothing else runs, and else 6 GB would stay */
    _exit(130);
}

static void make_dirs(void)
{
    const char *at = getenv("BENCH_DIR");
    if (!at) at = getenv("TMPDIR");
    snprintf(bench_dir, sizeof bench_dir, "%s/moe-bench.XXXXXX", at && *at ? at : "/tmp");
    if (!mkdtemp(bench_dir)) {
        perror(bench_dir);
        exit(11);
    }
    snprintf(shm_dir, sizeof shm_dir, "/dev/shm/moe-bench.XXXXXX");
    if (!mkdtemp(shm_dir)) *shm_dir = 0;
    atexit(clean);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

/* Prints which machine the numbers are measured on, and returns the same as JSON. */
static cJSON *describe(void)
{
    char line[256], cpu[128] = "unknown processor", load[32] = "?";
    struct utsname u;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %127[^\n]", cpu) == 1) break;
    if (f) fclose(f);
    if ((f = fopen("/proc/loadavg", "r"))) {
        if (fscanf(f, "%31s", load) != 1) load[0] = 0;
        fclose(f);
    }
    uname(&u);
    printf("%s, %d cores, kernels %s%s%s, Linux %s, load %s before\n", cpu, machine.threads,
           moe_kernels_name(), moe_cpu_flags() & MOE_CPU_BF16 ? " + bf16 dot" : "",
           moe_cpu_flags() & MOE_CPU_VNNI ? " + VNNI" : "", u.release, load);
    printf("kernels: processor time of one core, best of many runs; files, several cores: the clock on the "
           "wall%s\n",
           quick ? " (BENCH_QUICK: numbers mean nothing)" : "");
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "cpu", cpu);
    cJSON_AddNumberToObject(o, "cores", machine.threads);
    cJSON_AddStringToObject(o, "kernels", moe_kernels_name());
    cJSON_AddStringToObject(o, "linux", u.release);
    cJSON_AddStringToObject(o, "load", load);
    return o;
}

/* The number in an environment variable; `otherwise` without one. */
static int environment_number(const char *name, int otherwise)
{
    const char *s = getenv(name);
    return s && atoi(s) > 0 ? atoi(s) : otherwise;
}

int main(int argc, char **argv)
{
    struct moe_err err;
    if (argc != 3) return fprintf(stderr, "usage: bench BINDIR TESTBINDIR\n"), 2;
    bin_dir = argv[1];
    gen_dir = argv[2];
    quick = getenv("BENCH_QUICK") != NULL;
    snprintf(only, sizeof only, "%s", getenv("BENCH_ONLY") ? getenv("BENCH_ONLY") : "");
    rows_json = cJSON_CreateArray();
    open_machine();
    make_dirs();
    cJSON *all = describe();
    bench_floors();
    if (wanted("kernels") || wanted("files")) bench_quantizers();
    if (wanted("kernels")) bench_codecs(), bench_products();
    if (wanted("attention")) bench_attention();
    if (wanted("text")) bench_tokenizer(), bench_grammar();
    if (wanted("kernels") || wanted("text")) bench_peers();
    close_machine();
    int experts = environment_number("BENCH_EXPERTS", quick ? 8 : 12);
    if (wanted("files")) bench_files(experts, environment_number("BENCH_ROUNDS", quick ? 1 : 3));
    if (wanted("run") || wanted("engine")) bench_engine();
    if (wanted("run")) bench_run(experts);
    if (wanted("ep")) bench_plans(), bench_dispatch(), bench_comm();
    cJSON_AddItemToObject(all, "rows", rows_json);
    char *text = moe_json_print(all, 2);
    const char *to = getenv("BENCH_JSON");
    if (to && *to && moe_write_file(to, text, strlen(text), &err) != MOE_OK)
        return fprintf(stderr, "%s\n", err.msg), (int)err.code;
    free(text);
    cJSON_Delete(all);
    return 0;
}
