/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/opt.h - command-line options: each tool has one table, from which parsing, help, man page and
 * shell completion are made. */
#ifndef MOE_BASE_CLI_OPT_H
#define MOE_BASE_CLI_OPT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum moe_opt_kind {
    MOE_OPT_END,
    MOE_OPT_GROUP,
    MOE_OPT_BOOL,
    MOE_OPT_STR,
    MOE_OPT_INT,
    MOE_OPT_SIZE,
    MOE_OPT_FLOAT,
    MOE_OPT_LIST,
    MOE_OPT_MAYBE
};

/* The values of an option that may be given several times, in their order.  The strings are argv's; the array
 * is malloc'd by the parser, and moe_tool_run_end frees it. */
struct moe_strlist { const char **v; size_t n, cap; };

/* The default of an integer option without one; help does not show it. */
#define MOE_UNSET INT64_MIN

/* Whether processes that work together (the ranks of a run) must be given the same value.  ALL_SAME: yes; a
 * row that says nothing is ALL_SAME, so that a new option is compared until somebody decides otherwise.
 * FILE: given to all or to none, but the file names may differ; whoever reads the files compares their
 * contents.  OWN: each process has its own value. */
enum moe_opt_scope { MOE_OPT_ALL_SAME, MOE_OPT_FILE, MOE_OPT_OWN };

struct moe_opt {
    enum moe_opt_kind kind;
    /* 0: none; -'n': -n is accepted but not shown in help, since it means something else in other tools */
    signed char short_name;
    const char *name;       /* without dashes */
    /* what help calls the value; NULL for a flag.  "a|b|c" lists the values that are allowed.  "FILE",
     * "PATH", "MODEL", "NAME.moe" and "PLAN" stand for a path that no output of the same command may be or
     * lie in, "DIR" for a directory into which files are put. */
    const char *arg;
    /* where the value is stored: a bool *, const char **, int64_t *, double * or struct moe_strlist *, by
     * kind; what it holds before parsing is the default */
    void *value;
    const char *help;       /* lower case, no full stop */
    enum moe_opt_scope scope;
    /* "-" as the value means standard input; for a path option without this flag "-" is refused */
    bool standard_input;
    /* one of several string options that exclude each other: the last one given clears the others */
    bool exclusive;
    /* a size may be 0; others are above it, since 0 is what an option holds that was not given */
    bool zero;
};

/* A rule about one option: it may only be given together with one of `others`, or it excludes all of them. */
struct moe_opt_rule {
    const char *name, *others; /* names without dashes; `others` are separated by spaces */
    bool excludes;             /* false: `name` needs one of `others`; true: it excludes each of them */
};

/* The ?: makes the compiler reject a pointer of the wrong type.  MAYBE is a string option whose value may be
 * left out: --name alone gives "", --name=VALUE gives VALUE. */
#define MOE_PTR(T, v)            (1 ? (v) : (T *)0)
#define MOE_ROW(kind, T, s, l, v, a, h, scope) \
    { MOE_OPT_##kind, s, l, a, MOE_PTR(T, v), h, MOE_OPT_##scope, false, false, false }
#define MOE_BOOL(s, l, v, h)     MOE_ROW(BOOL, bool, s, l, v, NULL, h, ALL_SAME)
#define MOE_STR(s, l, v, a, h)   MOE_ROW(STR, const char *, s, l, v, a, h, ALL_SAME)
#define MOE_MAYBE(s, l, v, a, h) MOE_ROW(MAYBE, const char *, s, l, v, a, h, ALL_SAME)
#define MOE_INT(s, l, v, a, h)   MOE_ROW(INT, int64_t, s, l, v, a, h, ALL_SAME)
#define MOE_SIZE(s, l, v, a, h)  MOE_ROW(SIZE, int64_t, s, l, v, a, h, ALL_SAME)
#define MOE_SIZE_OR_0(s, l, v, a, h) \
    { MOE_OPT_SIZE, s, l, a, MOE_PTR(int64_t, v), h, MOE_OPT_ALL_SAME, false, false, true }
#define MOE_FLOAT(s, l, v, a, h) MOE_ROW(FLOAT, double, s, l, v, a, h, ALL_SAME)
#define MOE_LIST(s, l, v, a, h)  MOE_ROW(LIST, struct moe_strlist, s, l, v, a, h, ALL_SAME)
#define MOE_FILE(s, l, v, a, h)      MOE_ROW(STR, const char *, s, l, v, a, h, FILE)
#define MOE_INPUT(s, l, v, a, h)      \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_FILE, true, false, false }
#define MOE_INPUT_LIST(s, l, v, a, h) \
    { MOE_OPT_LIST, s, l, a, MOE_PTR(struct moe_strlist, v), h, MOE_OPT_ALL_SAME, true, false, false }
#define MOE_EXCLUSIVE(s, l, v, a, h) \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_ALL_SAME, false, true, false }
#define MOE_EXCLUSIVE_INPUT(s, l, v, a, h) \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_FILE, true, true, false }
#define MOE_OWN_BOOL(s, l, v, h)     MOE_ROW(BOOL, bool, s, l, v, NULL, h, OWN)
#define MOE_OWN_STR(s, l, v, a, h)   MOE_ROW(STR, const char *, s, l, v, a, h, OWN)
#define MOE_OWN_INT(s, l, v, a, h)   MOE_ROW(INT, int64_t, s, l, v, a, h, OWN)
#define MOE_OWN_SIZE(s, l, v, a, h)  MOE_ROW(SIZE, int64_t, s, l, v, a, h, OWN)
#define MOE_OWN_FLOAT(s, l, v, a, h) MOE_ROW(FLOAT, double, s, l, v, a, h, OWN)
#define MOE_GROUP(h)             { MOE_OPT_GROUP, 0, NULL, NULL, NULL, h, MOE_OPT_OWN, false, false, false }
#define MOE_END()                { MOE_OPT_END, 0, NULL, NULL, NULL, NULL, MOE_OPT_OWN, false, false, false }

/* A tool, or one of its subcommands. */
struct moe_tool {
    const char *name;        /* "moe-convert" */
    const char *synopsis;    /* what follows the name in a command line; further lines are further forms */
    const char *about;       /* what it does, one line for the help and the man page */
    const struct moe_opt *opts;
    const char *description; /* paragraphs for the man page, separated by empty lines; NULL: none */
    const char *json;        /* paragraphs on the keys that --json prints, in the same form */
    const char *examples;    /* lines of commands; NULL: none */
    /* Subcommands: the first operand selects one, which then has its own options, --help, man page and
     * completion. */
    const struct moe_tool *const *verbs; /* ended by NULL; NULL: none */
    /* set in a subcommand: its word, while `name` stays the tool's; its only option group is "common" */
    const char *verb;
    const struct moe_opt_rule *rules; /* ended by a NULL name; NULL: none */
};

/* The subcommand that the command line selects, or t itself when it selects none. */
const struct moe_tool *moe_opt_verb(const struct moe_tool *t, int argc, char **argv);

/* The subcommand that a misspelt word probably means; NULL when none is similar. */
const char *moe_opt_near_verb(const struct moe_tool *t, const char *word);

/* Parse argv.  Options and operands may be mixed; where an option is given twice the last value counts; "--"
 * ends the options.  Forms: -x VALUE, --name VALUE, --name=VALUE, --no-name for a flag.  Sizes take the
 * suffixes K, M, G, T (powers of 1024) and may be fractional.  Operands are moved to the front of argv (from
 * argv[0]) and *n_operands counts them.  --help, --help-man, --help-complete SHELL, --help-env and --version
 * print to standard output and set *done.  MOE_USAGE names the first wrong word, or the first of t->rules
 * that is broken; parsing still goes on to the end, so that all other options are set (a rank has to tell the
 * others of its failure). */
enum moe_code moe_opt_parse(const struct moe_tool *t, int argc, char **argv, int *n_operands, bool *done,
                            struct moe_err *err);

/* Whether the option's value is a path that no output may overlap (`arg` above). */
bool moe_opt_names_file(const struct moe_opt *o);

/* Whether it is such a path or a directory to put files into. */
bool moe_opt_names_path(const struct moe_opt *o);

void moe_opt_help(const struct moe_tool *t, FILE *out);
void moe_opt_man(const struct moe_tool *t, FILE *out);
/* shell: "bash", "zsh" or "fish"; returns false for any other. */
bool moe_opt_complete(const struct moe_tool *t, const char *shell, FILE *out);

#endif
