/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli/opt.h"

#include "base/env.h"
#include "base/grow.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool parse_int(const char *s, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end) return false;
    *out = v;
    return true;
}

static bool parse_size(const char *s, int64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(s, &end);
    if (end == s || !(v >= 0) || !isfinite(v) || strspn(s, "0123456789.") != (size_t)(end - s)) return false;
    if (*end) {
        const char *u = strchr(units, *end >= 'a' && *end <= 'z' ? *end - 32 : *end);
        if (!u) return false;
        v = ldexp(v, 10 * (int)(u - units + 1));
        end++;
        if (*end == 'i') end++;
        if (*end == 'B') end++;
    }
    if (*end || v >= 0x1p62) return false;
    *out = (int64_t)v;
    return true;
}

static bool parse_float(const char *s, double *out)
{
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v)) return false;
    *out = v;
    return true;
}

/* Store an option's value; arg: its text, NULL for a flag and for a MAYBE option without a value. */
static enum moe_code set_value(const struct moe_opt *o, const char *arg, bool negated, struct moe_err *err)
{
    struct moe_strlist *l = o->value;
    switch (o->kind) {
    case MOE_OPT_BOOL:
        *(bool *)o->value = !negated;
        return MOE_OK;
    case MOE_OPT_STR:
    case MOE_OPT_MAYBE:
        *(const char **)o->value = arg ? arg : "";
        return MOE_OK;
    case MOE_OPT_LIST:
        if (!MOE_GROW(l->v, l->cap, l->n + 1))
            return moe_fail(err, MOE_NOMEM, "no memory for option '--%s'", o->name);
        l->v[l->n++] = arg;
        return MOE_OK;
    case MOE_OPT_INT:
        return parse_int(arg, o->value)
                 ? MOE_OK
                 : moe_fail(err, MOE_USAGE, "option '--%s' wants a whole number, not '%s'", o->name, arg);
    case MOE_OPT_FLOAT:
        return parse_float(arg, o->value)
                 ? MOE_OK
                 : moe_fail(err, MOE_USAGE, "option '--%s' wants a number, not '%s'", o->name, arg);
    case MOE_OPT_SIZE:
        if (parse_size(arg, o->value) && (o->zero || *(int64_t *)o->value > 0)) return MOE_OK;
        return moe_fail(err, MOE_USAGE, "option '--%s' wants a size%s such as 16G, not '%s'", o->name,
                        o->zero ? "" : " above 0", arg);
    case MOE_OPT_END:
    case MOE_OPT_GROUP:
        break;
    }
    return moe_fail(err, MOE_INTERNAL, "option table is broken at '%s'", o->name ? o->name : "?");
}

static const struct moe_opt *find_long(const struct moe_opt *o, const char *s, size_t n)
{
    for (; o->kind != MOE_OPT_END; o++)
        if (o->name && strlen(o->name) == n && !memcmp(o->name, s, n)) return o;
    return NULL;
}

static const struct moe_opt *find_short(const struct moe_opt *o, char c)
{
    for (; o->kind != MOE_OPT_END; o++)
        if (o->name && (o->short_name == c || o->short_name == -c)) return o;
    return NULL;
}

/* The edit distance of a (n bytes) and b, for names of up to 31 letters. */
static int edit_distance(const char *a, size_t n, const char *b)
{
    int row[32], m = (int)strlen(b);
    if (n > 31 || m > 31) return 99;
    for (int j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

/* The option of this tool that other programs of this field call `a`; NULL when there is none. */
static const char *known_elsewhere(const struct moe_tool *t, const char *a, size_t n)
{
    static const char *const names[][2] = {
        { "--gpu", "device" }, { "--gpus", "device" }, { "--ngl", "device" }, { "-ngl", "device" },
        { "--n-gpu-layers", "device" }, { "--gpu-layers", "device" }, { "--ctx-size", "context" },
        { "--max-model-len", "context" }, { "--max-tokens", "n-predict" }, { "--predict", "n-predict" },
        { "--file", "prompt-file" }, { "--tensor-parallel-size", "ranks" }, { "--tp", "ranks" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i][0]) == n && !memcmp(names[i][0], a, n) &&
            find_long(t->opts, names[i][1], strlen(names[i][1]))) return names[i][1];
    return NULL;
}

/* Fail because no option has the name `a`; the message suggests one that is similar. */
static enum moe_code fail_unknown(const struct moe_tool *t, const char *a, struct moe_err *err)
{
    size_t n = strcspn(a, "=");
    const char *best = NULL;
    /* A name is similar when at most a third of its letters differ; to a word of two letters nothing is
     * similar. */
    int least = n - 2 < 9 ? (int)(n - 2) / 3 + 1 : 4;
    for (const struct moe_opt *o = t->opts; a[1] == '-' && o->kind != MOE_OPT_END; o++) {
        int d = o->name ? edit_distance(a + 2, n - 2, o->name) : 99;
        if (o->name && n - 2 > 2 && !strncmp(o->name, a + 2, n - 2)) d = 0; /* an abbreviated name */
        if (d < least) least = d, best = o->name;
    }
    static const char *const own[] = { "help", "version" };
    for (size_t i = 0; a[1] == '-' && i < sizeof own / sizeof *own; i++) {
        int d = edit_distance(a + 2, n - 2, own[i]);
        if (d < least) least = d, best = own[i];
    }
    const char *elsewhere = known_elsewhere(t, a, n);
    if (elsewhere)
        return moe_fail(err, MOE_USAGE, "unknown option '%.*s' (here: --%s)", (int)n, a, elsewhere);
    if (best)
        return moe_fail(err, MOE_USAGE, "unknown option '%.*s' (did you mean '--%s'?)", (int)n, a, best);
    return moe_fail(err, MOE_USAGE, "unknown option '%.*s' (see %s%s%s --help)", (int)n, a, t->name,
                    t->verb ? " " : "", t->verb ? t->verb : "");
}

/* Print what --help, --help-man, --help-env, --help-complete or --version asks for.  Returns false when `a`
 * is none of these; `next` is the word after it, or NULL. */
static bool print_help_or_version(const struct moe_tool *t, const char *a, const char *next,
                                  enum moe_code *code, struct moe_err *err)
{
    *code = MOE_OK;
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) moe_opt_help(t, stdout);
    else if (!strcmp(a, "--help-man")) moe_opt_man(t, stdout);
    else if (!strcmp(a, "--help-env")) moe_env_help(stdout);
    else if (!strcmp(a, "--version")) fprintf(stdout, "%s %s\n", t->name, MOE_VERSION);
    else if (!strncmp(a, "--help-complete", 15) && (!a[15] || a[15] == '=')) {
        const char *shell = a[15] ? a + 16 : next ? next : "bash";
        if (!moe_opt_complete(t, shell, stdout))
            *code = moe_fail(err, MOE_USAGE, "no completion for shell '%s' (bash, zsh or fish)", shell);
    } else return false;
    return true;
}

/* ---- rules between options ---- */

/* The options that were given and not cleared again, one bit for each row of the table. */
struct given { uint64_t bits[4]; };

static void set_given(struct given *g, const struct moe_tool *t, const struct moe_opt *o, bool on)
{
    size_t i = (size_t)(o - t->opts);
    MOE_CHECK(i < 64 * sizeof g->bits / sizeof *g->bits);
    if (on) g->bits[i / 64] |= (uint64_t)1 << i % 64;
    else g->bits[i / 64] &= ~((uint64_t)1 << i % 64);
}

static bool is_given(const struct given *g, const struct moe_tool *t, const struct moe_opt *o)
{
    size_t i = (size_t)(o - t->opts);
    return o->value && g->bits[i / 64] >> i % 64 & 1;
}

/* Record that an option was given; of several `exclusive` options the last one counts, and the others are
 * cleared. */
static void record_given(struct given *g, const struct moe_tool *t, const struct moe_opt *o, bool negated)
{
    set_given(g, t, o, !negated);
    for (const struct moe_opt *other = t->opts; o->exclusive && other->kind != MOE_OPT_END; other++) {
        if (!other->exclusive || other == o) continue;
        *(const char **)other->value = NULL;
        set_given(g, t, other, false);
    }
}

/* Print the rule's `others` as part of a sentence: "--ranks N, --plan PLAN or --rendezvous HOST:PORT". */
static void list_others(const struct moe_tool *t, const struct moe_opt_rule *rule, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (const char *s = rule->others; *s && n < cap; ) {
        size_t word = strcspn(s, " ");
        const struct moe_opt *o = find_long(t->opts, s, word);
        const char *rest = s + word + (s[word] == ' ');
        const char *before = s == rule->others ? "" : *rest ? ", " : " or ";
        n += (size_t)snprintf(out + n, cap - n, "%s--%.*s%s%s", before, (int)word, s, o && o->arg ? " " : "",
                              o && o->arg ? o->arg : "");
        s = rest;
    }
}

static enum moe_code check_rule(const struct moe_tool *t, const struct moe_opt_rule *rule,
                                const struct given *g, struct moe_err *err)
{
    char list[256];
    const struct moe_opt *o = find_long(t->opts, rule->name, strlen(rule->name));
    MOE_CHECK(o);
    if (!is_given(g, t, o)) return MOE_OK;
    bool any = false;
    for (const char *s = rule->others; *s; ) {
        size_t n = strcspn(s, " ");
        const struct moe_opt *other = find_long(t->opts, s, n);
        MOE_CHECK(other);
        if (is_given(g, t, other) && rule->excludes)
            return moe_fail(err, MOE_USAGE, "--%s does not go with --%s", o->name, other->name);
        any |= is_given(g, t, other);
        s += n + (s[n] == ' ');
    }
    if (any || rule->excludes) return MOE_OK;
    list_others(t, rule, list, sizeof list);
    return moe_fail(err, MOE_USAGE, "--%s goes with %s", o->name, list);
}

static enum moe_code check_rules(const struct moe_tool *t, const struct given *g, struct moe_err *err)
{
    for (const struct moe_opt_rule *r = t->rules; r && r->name; r++) MOE_TRY(check_rule(t, r, g, err));
    return MOE_OK;
}

/* Parse one argument that begins with a dash; *i moves past its value. */
static enum moe_code parse_one(const struct moe_tool *t, int argc, char **argv, int *i, struct given *g,
                               struct moe_err *err)
{
    char *a = argv[*i], *eq = NULL;
    const struct moe_opt *o = NULL;
    bool negated = false;
    if (a[1] == '-') {
        eq = strchr(a, '=');
        size_t n = eq ? (size_t)(eq - a - 2) : strlen(a + 2);
        o = find_long(t->opts, a + 2, n);
        if (!o && n > 3 && !memcmp(a + 2, "no-", 3)) {
            o = find_long(t->opts, a + 5, n - 3);
            negated = true;
            if (o && o->kind != MOE_OPT_BOOL) o = NULL;
        }
    } else {
        /* -ngl must not be read as -n gl */
        if (known_elsewhere(t, a, strlen(a))) return fail_unknown(t, a, err);
        o = find_short(t->opts, a[1]);
        if (o && a[2]) { /* -n4 */
            if (!o->arg) return fail_unknown(t, a, err);
            record_given(g, t, o, false);
            return set_value(o, a + 2, false, err);
        }
    }
    if (!o) return fail_unknown(t, a, err);
    const char *arg = eq ? eq + 1 : NULL;
    if (o->arg && !arg && o->kind != MOE_OPT_MAYBE) {
        if (++*i == argc) return moe_fail(err, MOE_USAGE, "option '%s' wants a value: %s", a, o->arg);
        arg = argv[*i];
    } else if (!o->arg && arg) {
        return moe_fail(err, MOE_USAGE, "option '--%s' takes no value", o->name);
    }
    record_given(g, t, o, negated);
    return set_value(o, arg, negated, err);
}

/* The option that a word names in the tool's table or in a subcommand's; NULL when none does. */
static const struct moe_opt *find_any(const struct moe_tool *t, const char *a)
{
    size_t n = strcspn(a, "=");
    const struct moe_opt *o = a[1] == '-' ? find_long(t->opts, a + 2, n - 2) : find_short(t->opts, a[1]);
    for (const struct moe_tool *const *v = t->verbs; !o && v && *v; v++)
        o = a[1] == '-' ? find_long((*v)->opts, a + 2, n - 2) : find_short((*v)->opts, a[1]);
    return o;
}

const struct moe_tool *moe_opt_verb(const struct moe_tool *t, int argc, char **argv)
{
    for (int i = 1; t->verbs && i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--")) return t;
        if (a[0] == '-' && a[1]) {
            const struct moe_opt *o = find_any(t, a);
            bool apart = a[1] == '-' ? !strchr(a, '=') : !a[2];
            if (o && o->arg && o->kind != MOE_OPT_MAYBE && apart) i++; /* the next word is its value */
            continue;
        }
        for (const struct moe_tool *const *v = t->verbs; *v; v++)
            if (!strcmp(a, (*v)->verb)) return *v;
        return t;
    }
    return t;
}

const char *moe_opt_near_verb(const struct moe_tool *t, const char *word)
{
    const char *best = NULL;
    int least = 3;
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        int d = edit_distance(word, strlen(word), (*v)->verb);
        if (d < least) least = d, best = (*v)->verb;
    }
    return best;
}

enum moe_code moe_opt_parse(const struct moe_tool *t, int argc, char **argv, int *n_operands, bool *done,
                            struct moe_err *err)
{
    int kept = 0;
    struct given given = { { 0 } };
    enum moe_code first = MOE_OK;
    *done = false;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        enum moe_code code;
        if (a[0] != '-' || !a[1]) { argv[kept++] = a; continue; }
        if (!strcmp(a, "--")) { while (++i < argc) argv[kept++] = argv[i]; break; }
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (first == MOE_OK && print_help_or_version(t, a, next, &code, err)) {
            *done = code == MOE_OK;
            return code;
        }
        struct moe_err later = MOE_ERR_INIT;
        code = parse_one(t, argc, argv, &i, &given, first == MOE_OK ? err : &later);
        if (first == MOE_OK) first = code;
    }
    *n_operands = kept;
    return first == MOE_OK ? check_rules(t, &given, err) : first;
}
