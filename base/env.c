/* SPDX-License-Identifier: Apache-2.0 */
#include "base/env.h"

#include "base/err.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name, *values, *help;
} table[] = {
    { "MOE_CPU", "ref|avx2|avx512", "use no kernel variant above this level" },
    { "MOE_DIE", "RANK:WHERE[,RANK:WHERE...]",
      "moe-run: that expert-parallel rank dies there, to see the others go on: at a step of its work (a "
      "number), or, if it is a process, at start, report, printing or reported; at hang it stops" },
    { "MOE_GPU_WAIT", "1", "wait for the GPU after each kernel, so that a failure names the one to blame" },
    { "OMPI_COMM_WORLD_RANK", "R",
      "moe-run --rendezvous: which rank this is, when Open MPI's mpirun started it" },
    { "OMPI_COMM_WORLD_SIZE", "N", "and how many there are" },
    { "PMIX_RANK", "R", "the same of other launchers that speak PMIx" },
    { "PMI_RANK", "R", "the same of MPICH's mpirun" },
    { "PMI_SIZE", "N", "and how many there are" },
    { "SLURM_PROCID", "R", "the same of Slurm's srun" },
    { "SLURM_NTASKS", "N", "and how many there are" },
    { "COLUMNS", "N", "how wide a terminal is that does not say it itself, for progress lines" },
    { "NO_COLOR", "1", "no color on a terminal (no-color.org)" },
};

enum { ROWS = sizeof table / sizeof *table };

/* Print text in lines of at most 76 bytes, each after `indent`. */
static void wrap(const char *s, const char *indent, FILE *out)
{
    size_t at = 0, margin = strlen(indent);
    while (*s) {
        size_t n = strcspn(s, " ");
        bool first = !at;
        if (at && at + 1 + n > 76) fputc('\n', out), first = true;
        at = first ? margin + n : at + 1 + n;
        fprintf(out, "%s%.*s", first ? indent : " ", (int)n, s);
        s += n + (s[n] == ' ');
    }
    fputc('\n', out);
}

void moe_env_help(FILE *out)
{
    for (int i = 0; i < ROWS; i++) {
        fprintf(out, "%s=%s\n", table[i].name, table[i].values);
        wrap(table[i].help, "    ", out);
    }
}

void moe_env_man(FILE *out)
{
    for (int i = 0; i < ROWS; i++) {
        fprintf(out, ".TP\n.B %s\n%s:\n", table[i].name, table[i].values);
        wrap(table[i].help, "", out);
    }
}

/* Whether `v` is one of the values "a|b|c"; `list` gets them as a person reads them. */
static bool is_among(const char *v, const char *values, char *list, size_t cap)
{
    bool found = false;
    size_t at = 0;
    for (const char *p = values; *p; ) {
        size_t n = strcspn(p, "|");
        bool first = p == values, last = !p[n];
        found |= strlen(v) == n && !strncmp(v, p, n);
        at += (size_t)snprintf(list + at, cap - at, "%s%.*s", first ? "" : last ? " or " : ", ", (int)n, p);
        p += n + !last;
    }
    return found;
}

enum moe_code moe_env_check(struct moe_err *err)
{
    char list[128];
    for (int i = 0; i < ROWS; i++) {
        const char *v = strchr(table[i].values, '|') ? moe_env(table[i].name) : NULL;
        if (v && !is_among(v, table[i].values, list, sizeof list))
            return moe_fail(err, MOE_USAGE, "%s='%s' in the environment: want %s", table[i].name, v, list);
    }
    return MOE_OK;
}

const char *moe_env(const char *name)
{
    int i = 0;
    while (i < ROWS && strcmp(table[i].name, name)) i++;
    MOE_CHECK(i < ROWS);
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}
