/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/opt.h - one table per tool; parsing, help, man page and completion come from it. */
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

/* Values of an option that may be given several times, in order.  Owned by the process (options
 * live as long as it does). */
struct moe_strlist { const char **v; size_t n; };

/* The value of a MOE_INT without a default: not shown in help. */
#define MOE_UNSET INT64_MIN

/* What processes that work together (the ranks of a run) must agree on.  A row that says nothing is
 * ALL_SAME, so that a new option is compared until somebody decides that it need not be.  FILE:
 * given by all or by none, the name may differ; whoever reads the file compares what is in it.  OWN:
 * each process has its own. */
enum moe_opt_scope { MOE_OPT_ALL_SAME, MOE_OPT_FILE, MOE_OPT_OWN };

struct moe_opt {
    enum moe_opt_kind kind;
    /* 0 for none; -'n': taken, but shown nowhere, since it means something else in other tools */
    signed char short_name;
    const char *name;       /* without dashes */
    /* "a|b|c"; "FILE", "PATH", "MODEL", "NAME.moe", "PLAN": a path, which no output of the same command may
     * be or lie in; "DIR": a directory to put files into; NULL for a flag */
    const char *arg;
    /* bool *, const char **, int64_t *, double *, struct moe_strlist * by kind; its value is the default */
    void *value;
    const char *help;       /* lower case, no full stop */
    enum moe_opt_scope scope;
    bool standard_input;    /* "-" as its value is standard input; as that of another path it is refused */
    /* one of several ways to say the same thing (strings): giving it takes back the others */
    bool way;
};

/* An option that has an effect only with one of others, or that asks for something else than they do. */
struct moe_opt_rule {
    const char *name, *others; /* without dashes; the others with spaces between */
    bool excludes;             /* false: goes with one of them; true: with none of them */
};

/* The ?: makes the compiler reject a pointer of the wrong type.
 * MAYBE is a string whose value may be left out: --name gives "", only --name=VALUE gives a value. */
#define MOE_PTR(T, v)            (1 ? (v) : (T *)0)
#define MOE_ROW(kind, T, s, l, v, a, h, scope) \
    { MOE_OPT_##kind, s, l, a, MOE_PTR(T, v), h, MOE_OPT_##scope, false, false }
#define MOE_BOOL(s, l, v, h)     MOE_ROW(BOOL, bool, s, l, v, NULL, h, ALL_SAME)
#define MOE_STR(s, l, v, a, h)   MOE_ROW(STR, const char *, s, l, v, a, h, ALL_SAME)
#define MOE_MAYBE(s, l, v, a, h) MOE_ROW(MAYBE, const char *, s, l, v, a, h, ALL_SAME)
#define MOE_INT(s, l, v, a, h)   MOE_ROW(INT, int64_t, s, l, v, a, h, ALL_SAME)
#define MOE_SIZE(s, l, v, a, h)  MOE_ROW(SIZE, int64_t, s, l, v, a, h, ALL_SAME)
#define MOE_FLOAT(s, l, v, a, h) MOE_ROW(FLOAT, double, s, l, v, a, h, ALL_SAME)
#define MOE_LIST(s, l, v, a, h)  MOE_ROW(LIST, struct moe_strlist, s, l, v, a, h, ALL_SAME)
#define MOE_FILE(s, l, v, a, h)      MOE_ROW(STR, const char *, s, l, v, a, h, FILE)
#define MOE_INPUT(s, l, v, a, h)      \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_FILE, true, false }
#define MOE_INPUT_LIST(s, l, v, a, h) \
    { MOE_OPT_LIST, s, l, a, MOE_PTR(struct moe_strlist, v), h, MOE_OPT_ALL_SAME, true, false }
#define MOE_WAY(s, l, v, a, h) \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_ALL_SAME, false, true }
#define MOE_WAY_INPUT(s, l, v, a, h) \
    { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h, MOE_OPT_FILE, true, true }
#define MOE_OWN_BOOL(s, l, v, h)     MOE_ROW(BOOL, bool, s, l, v, NULL, h, OWN)
#define MOE_OWN_STR(s, l, v, a, h)   MOE_ROW(STR, const char *, s, l, v, a, h, OWN)
#define MOE_OWN_INT(s, l, v, a, h)   MOE_ROW(INT, int64_t, s, l, v, a, h, OWN)
#define MOE_OWN_SIZE(s, l, v, a, h)  MOE_ROW(SIZE, int64_t, s, l, v, a, h, OWN)
#define MOE_OWN_FLOAT(s, l, v, a, h) MOE_ROW(FLOAT, double, s, l, v, a, h, OWN)
#define MOE_GROUP(h)             { MOE_OPT_GROUP, 0, NULL, NULL, NULL, h, MOE_OPT_OWN, false, false }
#define MOE_END()                { MOE_OPT_END, 0, NULL, NULL, NULL, NULL, MOE_OPT_OWN, false, false }

struct moe_tool {
    const char *name, *synopsis, *about;
    const struct moe_opt *opts;
    const char *description; /* paragraphs for the man page, an empty line between; NULL: none */
    const char *json;        /* the same: the keys of --json */
    const char *examples;    /* lines of commands; NULL: none */
    /* Verbs are words that come as the first operand and make another tool of it, with options of its own
     * (--help, man page, completion). */
    const struct moe_tool *const *verbs; /* ended by NULL; NULL: none */
    /* of one of them: its word; `name` is the tool's.  Groups other than "common" it has none. */
    const char *verb;
    const struct moe_opt_rule *rules; /* ended by a NULL name; NULL: none */
};

/* The verb that a command line names, or t itself. */
const struct moe_tool *moe_opt_verb(const struct moe_tool *t, int argc, char **argv);

/* The verb that a misspelt word may mean; NULL: none is like it. */
const char *moe_opt_near_verb(const struct moe_tool *t, const char *word);

/* Parse argv: options and operands in any order, the last of several wins, "--" ends options.  Forms: -x
 * VALUE, --name VALUE, --name=VALUE, --no-name for a flag.  Sizes take K, M, G, T (binary) and may be
 * fractional.  Operands are moved to the front of argv (from argv[0]) and *n_operands counts them.  --help,
 * --help-man, --help-complete SHELL, --help-env and --version print to standard output and set *done.
 * MOE_USAGE with one sentence otherwise, of the first word that is wrong, or of the first of t->rules that is
 * broken: the others are still taken, for a caller that has to tell somebody else of it (a rank). */
enum moe_code moe_opt_parse(const struct moe_tool *t, int argc, char **argv, int *n_operands, bool *done,
                            struct moe_err *err);

/* Whether the value is a path that an output must keep apart from (see arg above). */
bool moe_opt_names_file(const struct moe_opt *o);

/* The same, or a directory to put files into. */
bool moe_opt_names_path(const struct moe_opt *o);

void moe_opt_help(const struct moe_tool *t, FILE *out);
void moe_opt_man(const struct moe_tool *t, FILE *out);
/* shell: "bash", "zsh" or "fish"; false for another. */
bool moe_opt_complete(const struct moe_tool *t, const char *shell, FILE *out);

#endif
