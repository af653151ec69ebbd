/* base/opt.h - one table per tool; help, man page and completion come from it. */
#ifndef MOE_BASE_OPT_H
#define MOE_BASE_OPT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum moe_opt_kind { MOE_OPT_END, MOE_OPT_GROUP, MOE_OPT_BOOL, MOE_OPT_STR, MOE_OPT_INT, MOE_OPT_SIZE, MOE_OPT_FLOAT, MOE_OPT_LIST };

struct moe_opt {
    enum moe_opt_kind kind;
    char short_name;        /* 0 for none */
    const char *name;       /* without dashes */
    const char *arg;        /* "file"; NULL for a flag */
    void *value;            /* bool *, const char **, int64_t * by kind; its value is the default */
    const char *help;       /* lower case, no full stop */
};

/* The ?: makes the compiler reject a pointer of the wrong type. */
#define MOE_PTR(T, v)           (1 ? (v) : (T *)0)
#define MOE_BOOL(s, l, v, h)    { MOE_OPT_BOOL, s, l, NULL, MOE_PTR(bool, v), h }
#define MOE_STR(s, l, v, a, h)  { MOE_OPT_STR, s, l, a, MOE_PTR(const char *, v), h }
#define MOE_INT(s, l, v, a, h)  { MOE_OPT_INT, s, l, a, MOE_PTR(int64_t, v), h }
#define MOE_SIZE(s, l, v, a, h) { MOE_OPT_SIZE, s, l, a, MOE_PTR(int64_t, v), h }
#define MOE_GROUP(h)            { MOE_OPT_GROUP, 0, NULL, NULL, NULL, h }
#define MOE_END()               { MOE_OPT_END, 0, NULL, NULL, NULL, NULL }

struct moe_tool {
    const char *name, *synopsis, *about;
    const struct moe_opt *opts;
};

/* Parse argv; operands are moved to the front and *n_operands counts them.
 * --help, --help-man and --help-complete print and set *done. */
enum moe_code moe_opt_parse(const struct moe_tool *t, int argc, char **argv,
                            int *n_operands, bool *done, struct moe_err *err);

void moe_opt_help(const struct moe_tool *t, FILE *out);
void moe_opt_man(const struct moe_tool *t, FILE *out);
void moe_opt_complete(const struct moe_tool *t, FILE *out);

#endif
