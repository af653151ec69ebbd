/* SPDX-License-Identifier: Apache-2.0 */
/* Tests how a tool's table of options is read from a command line: every form that an option may have, sizes,
 * and what is refused in which words.  Tests that help, man page and completion name every option. */
#include "tests/ok.h"
#include "base/cli/opt.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static struct {
    bool resume, verify, dry;
    const char *out, *color, *bench;
    int64_t n, seed, memory, reserve;
    double t;
    struct moe_strlist stop;
} o;
static const struct moe_opt table[] = {
    MOE_GROUP("main"),
    MOE_STR('o', "output", &o.out, "PATH", "where to write"),
    MOE_BOOL('r', "resume", &o.resume, "go on"),
    MOE_BOOL(0, "verify", &o.verify, "check"),
    MOE_BOOL(-'d', "dry", &o.dry, "say what would be done"),
    MOE_INT('n', "count", &o.n, "N", "how many"),
    MOE_INT(0, "seed", &o.seed, "N", "a number"),
    MOE_SIZE(0, "memory", &o.memory, "SIZE", "at most"),
    MOE_SIZE_OR_0(0, "reserve", &o.reserve, "SIZE", "left out"),
    MOE_FLOAT(0, "temperature", &o.t, "T", "it's 'hot': [0 to 2]"),
    MOE_LIST(0, "stop", &o.stop, "TEXT", "stop here"),
    MOE_STR(0, "color", &o.color, "auto|always|never", "colors"),
    MOE_MAYBE(0, "bench", &o.bench, "FILTER", "time it"),
    MOE_END()
};
static const struct moe_tool tool = {
    "moe-test",     "[options] MODEL",       "a tool - for tests", table, .description = "One.\n.Two\\three",
    .json = "keys", .examples = "moe-test x"
};

static struct moe_err err;
static char *argv[16];
static int operands;
static bool done;

/* Calls the parser with these words: parse("-n", "4", NULL) */
static enum moe_code parse(const char *first, ...)
{
    va_list ap;
    int argc = 0;
    argv[argc++] = (char[]){ "moe-test" };
    va_start(ap, first);
    for (const char *a = first; a; a = va_arg(ap, const char *)) argv[argc++] = (char *)(uintptr_t)a;
    va_end(ap);
    argv[argc] = NULL;
    free(o.stop.v);
    memset(&o, 0, sizeof o);
    o.color = "auto";
    o.seed = MOE_UNSET;
    return moe_opt_parse(&tool, argc, argv, &operands, &done, &err);
}

static void test_forms(void)
{
    OK(parse("a", "-o", "x", "b", "--count=4", "--", "-c", NULL) == MOE_OK && operands == 3 && !done);
    OK(!strcmp(argv[0], "a") && !strcmp(argv[1], "b") && !strcmp(argv[2], "-c") && !strcmp(o.out, "x") &&
       o.n == 4);
    OK(parse("-n", "-5", "--seed", "-7", "-", NULL) == MOE_OK && o.n == -5 && o.seed == -7 && operands == 1);
    OK(parse("-n4", "--output=a=b", NULL) == MOE_OK && o.n == 4 && !strcmp(o.out, "a=b"));
    OK(parse("--resume", "--no-resume", "--verify", NULL) == MOE_OK && !o.resume && o.verify);
    OK(parse("-d", NULL) == MOE_OK && o.dry); /* a negative short name is accepted, but shown nowhere */
    /* the last wins */
    OK(parse("--output", "1", "--output=2", "-o", "3", NULL) == MOE_OK && !strcmp(o.out, "3"));
    /* a value, not an option */
    OK(parse("--output", "--verify", NULL) == MOE_OK && !strcmp(o.out, "--verify") && !o.verify);
    OK(parse("--stop", "a", "--stop=", "--stop", "b", NULL) == MOE_OK && o.stop.n == 3 &&
       !strcmp(o.stop.v[2], "b") && !*o.stop.v[1]);
    OK(parse("--temperature", "-0.5e1", NULL) == MOE_OK && o.t == -5);
    /* a wrong option does not keep the others from being read; the message is about the first wrong one */
    OK(parse("a", "--bogus", "-n", "x", "-o", "y", "--seed=3", "--help", NULL) == MOE_USAGE &&
       !strcmp(o.out, "y") && o.seed == 3);
    OK(operands == 1 && !done && strstr(err.msg, "--bogus"));
    OK(parse("--bench", "x", NULL) == MOE_OK && o.bench && !*o.bench && operands == 1 &&
       parse("--bench=y", NULL) == MOE_OK && !strcmp(o.bench, "y"));
    OK(parse(NULL) == MOE_OK && operands == 0 && o.seed == MOE_UNSET && !o.bench);
}

static void test_sizes(void)
{
    static const struct { const char *text; int64_t v;
    } good[] = {
        { "1", 1 },
        { "17", 17 },
        { "1K", 1024 },
        { "3M", 3 << 20 },
        { "16G", 16ll << 30 },
        { "2T", 2ll << 40 },
        { "1.5G", 3ll << 29 },
        { "8g", 8ll << 30 },
        { "4GiB", 4ll << 30 },
    };
    static const char *const bad[] = { "0",   "0G",  "0.9", "",    "G",   "-1",  "1e3",       "0x10", "1X",
                                       "1GG", "nan", "inf", "99999999T", "1 G",  "." };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        OK(parse("--memory", good[i].text, NULL) == MOE_OK && o.memory == good[i].v);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) FAILS(MOE_USAGE, parse("--memory", bad[i], NULL));
    FAILS(MOE_USAGE, parse("--memory", "0.9", NULL));
    SAYS("option '--memory' wants a size above 0 such as 16G, not '0.9'");
    OK(parse("--reserve", "0", NULL) == MOE_OK && o.reserve == 0);
    FAILS(MOE_USAGE, parse("--reserve", "-1", NULL));
    SAYS("option '--reserve' wants a size such as 16G, not '-1'");
}

static void test_refused(void)
{
    FAILS(MOE_USAGE, parse("--resum", NULL));
    SAYS("'--resum' (did you mean '--resume'?)");
    FAILS(MOE_USAGE, parse("--outptu=x", NULL));
    SAYS("'--outptu' (did you mean '--output'?)");
    FAILS(MOE_USAGE, parse("--entirely-different-and-much-longer-than-any-name", NULL));
    SAYS("--help");
    FAILS(MOE_USAGE, parse("-z", NULL));
    FAILS(MOE_USAGE, parse("-rv", NULL));
    FAILS(MOE_USAGE, parse("--output", NULL));
    SAYS("wants a value");
    FAILS(MOE_USAGE, parse("--verify=yes", NULL));
    SAYS("takes no value");
    FAILS(MOE_USAGE, parse("--no-output", NULL));
    FAILS(MOE_USAGE, parse("-n", "4x", NULL));
    FAILS(MOE_USAGE, parse("-n", "", NULL));
    FAILS(MOE_USAGE, parse("-n", "99999999999999999999", NULL));
    FAILS(MOE_USAGE, parse("--temperature", "nan", NULL));
    FAILS(MOE_USAGE, parse("--temperature", "1,5", NULL));
    FAILS(MOE_USAGE, parse("--help-complete", "tcsh", NULL));
}

static char *text_of(void (*print)(FILE *))
{
    char *s = NULL;
    size_t n;
    FILE *f = open_memstream(&s, &n);
    OK(f != NULL);
    print(f);
    fclose(f);
    return s;
}

static void help(FILE *f) { moe_opt_help(&tool, f); }
static void man(FILE *f) { moe_opt_man(&tool, f); }
static void bash(FILE *f) { OK(moe_opt_complete(&tool, "bash", f)); }
static void zsh(FILE *f) { OK(moe_opt_complete(&tool, "zsh", f)); }
static void fish(FILE *f) { OK(moe_opt_complete(&tool, "fish", f)); }

static void test_texts(void)
{
    static void (*const prints[])(FILE *) = { help, man, bash, zsh, fish };
    parse("--color=auto", NULL);
    for (int i = 0; i < 5; i++) {
        char *s = text_of(prints[i]);
        for (const struct moe_opt *t = table; t->kind != MOE_OPT_END; t++)
            if (t->name) OK(strstr(s, t->name));
        bool completes = prints[i] != help && prints[i] != man;
        OK(!completes || strstr(s, "auto always never"));
        OK(!strstr(s, "-d,") && !strstr(s, "\\-d\\fR") && !strstr(s, "|-d") && !strstr(s, "-s d"));
        if (prints[i] == help) OK(strstr(s, "[auto]") && !strstr(s, "-9223372036854775808"));
        if (prints[i] == man)
            OK(strstr(s, ".SH EXIT STATUS") && strstr(s, "\n\\&.Two\\ethree") && strstr(s, "MOE_CPU") &&
               strstr(s, ".B 143"));
        free(s);
    }
}

int main(void)
{
    test_forms();
    test_sizes();
    test_refused();
    test_texts();
    free(o.stop.v);
    printf("test-opt: %ld checks\n", checks);
    return 0;
}
