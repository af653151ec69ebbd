/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/generated.h - lets C tests make models by running genmodel: one directory at a time, of small
 * widths, with the options that a test asks for.  The test's argv[0] has to be in the folder of genmodel. */
#ifndef MOE_TESTS_GEN_GENERATED_H
#define MOE_TESTS_GEN_GENERATED_H

#undef NDEBUG
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char genmodel[512], dir[] = "/tmp/moe-generated.XXXXXX";

/* Runs a program, which has to succeed. */
static void run(const char *const *argv)
{
    pid_t pid = fork();
    int status = -1;
    if (pid == 0) {
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Makes `dir`, and finds genmodel. */
static void generated_begin(int argc, char **argv)
{
    char *slash = argc ? strrchr(argv[0], '/') : NULL;
    assert(slash && mkdtemp(dir));
    snprintf(genmodel, sizeof genmodel, "%.*s/genmodel", (int)(slash - argv[0]), argv[0]);
}

/* Makes a model in `dir`, with these options behind the common ones, and prints the options. */
static void generate(const char *layers, const char *options)
{
    const char *argv[40] = { genmodel, "-o", dir };
    char words[512];
    int n = 3;
    snprintf(words, sizeof words,
             "--layers %s --hidden 64 --dense-inter 96 --inter 32 --heads 3 --kv-lora 32 --nope 16 --rope 8 "
             "--v 24 --vocab 300 %s",
             layers, options);
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) argv[n++] = w;
    printf("%s\n", options);
    fflush(stdout);
    run(argv);
}

static void generated_end(void) { run((const char *const[]){ "/bin/rm", "-rf", dir, NULL }); }

#endif
