/* SPDX-License-Identifier: Apache-2.0 */
#include "base/opt.h"

#include "base/env.h"

#include <errno.h>
#include <inttypes.h>
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

/* "a|b|c" lists every value there is. */
static bool is_choice(const char *arg) { return arg && strchr(arg, '|'); }

static enum moe_code set_value(const struct moe_opt *o, const char *arg, bool negated, struct moe_err *err)
{
    struct moe_strlist *l = o->value;
    const char **more;
    switch (o->kind) {
    case MOE_OPT_BOOL:
        *(bool *)o->value = !negated;
        return MOE_OK;
    case MOE_OPT_STR:
    case MOE_OPT_MAYBE:
        *(const char **)o->value = arg ? arg : "";
        return MOE_OK;
    case MOE_OPT_LIST:
        more = realloc(l->v, (l->n + 1) * sizeof *more);
        if (!more) return moe_fail(err, MOE_NOMEM, "no memory for option '--%s'", o->name);
        more[l->n++] = arg;
        l->v = more;
        return MOE_OK;
    case MOE_OPT_INT:
        return parse_int(arg, o->value) ? MOE_OK : moe_fail(err, MOE_USAGE, "option '--%s' wants a whole number, not '%s'", o->name, arg);
    case MOE_OPT_FLOAT:
        return parse_float(arg, o->value) ? MOE_OK : moe_fail(err, MOE_USAGE, "option '--%s' wants a number, not '%s'", o->name, arg);
    case MOE_OPT_SIZE:
        return parse_size(arg, o->value) ? MOE_OK
             : moe_fail(err, MOE_USAGE, "option '--%s' wants a size such as 16G, not '%s'", o->name, arg);
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

/* Edits to turn a into b, for names of up to 31 letters. */
static int distance(const char *a, size_t n, const char *b)
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

static enum moe_code unknown(const struct moe_tool *t, const char *a, struct moe_err *err)
{
    size_t n = strcspn(a, "=");
    const char *best = NULL;
    int least = 4;
    for (const struct moe_opt *o = t->opts; a[1] == '-' && o->kind != MOE_OPT_END; o++) {
        int d = o->name ? distance(a + 2, n - 2, o->name) : 99;
        if (d < least) least = d, best = o->name;
    }
    static const char *const own[] = { "help", "version" };
    for (size_t i = 0; a[1] == '-' && i < sizeof own / sizeof *own; i++) {
        int d = distance(a + 2, n - 2, own[i]);
        if (d < least) least = d, best = own[i];
    }
    if (best) return moe_fail(err, MOE_USAGE, "unknown option '%.*s' (did you mean '--%s'?)", (int)n, a, best);
    return moe_fail(err, MOE_USAGE, "unknown option '%.*s' (see %s --help)", (int)n, a, t->name);
}

static bool answer(const struct moe_tool *t, const char *a, const char *next, enum moe_code *code, struct moe_err *err)
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

/* One argument that starts with a dash; *i moves past its value. */
static enum moe_code parse_one(const struct moe_tool *t, int argc, char **argv, int *i, struct moe_err *err)
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
        o = find_short(t->opts, a[1]);
        if (o && a[2]) { /* -n4 */
            if (!o->arg) return unknown(t, a, err);
            return set_value(o, a + 2, false, err);
        }
    }
    if (!o) return unknown(t, a, err);
    const char *arg = eq ? eq + 1 : NULL;
    if (o->arg && !arg && o->kind != MOE_OPT_MAYBE) {
        if (++*i == argc) return moe_fail(err, MOE_USAGE, "option '%s' wants a value: %s", a, o->arg);
        arg = argv[*i];
    } else if (!o->arg && arg) {
        return moe_fail(err, MOE_USAGE, "option '--%s' takes no value", o->name);
    }
    return set_value(o, arg, negated, err);
}

enum moe_code moe_opt_parse(const struct moe_tool *t, int argc, char **argv, int *n_operands, bool *done, struct moe_err *err)
{
    int kept = 0;
    enum moe_code first = MOE_OK;
    *done = false;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        enum moe_code code;
        if (a[0] != '-' || !a[1]) { argv[kept++] = a; continue; }
        if (!strcmp(a, "--")) { while (++i < argc) argv[kept++] = argv[i]; break; }
        if (first == MOE_OK && answer(t, a, i + 1 < argc ? argv[i + 1] : NULL, &code, err)) {
            *done = code == MOE_OK;
            return code;
        }
        struct moe_err later = MOE_ERR_INIT;
        code = parse_one(t, argc, argv, &i, first == MOE_OK ? err : &later);
        if (first == MOE_OK) first = code;
    }
    *n_operands = kept;
    return first;
}

/* ---- help ---- */

/* What a person reads of an option, with its default; malloc'd, NULL when out of memory. */
static char *help_text(const struct moe_opt *o)
{
    char tail[96] = "";
    if (o->kind == MOE_OPT_STR && *(const char **)o->value) snprintf(tail, sizeof tail, " [%s]", *(const char **)o->value);
    if (o->kind == MOE_OPT_INT && *(int64_t *)o->value && *(int64_t *)o->value != MOE_UNSET)
        snprintf(tail, sizeof tail, " [%" PRId64 "]", *(int64_t *)o->value);
    if (o->kind == MOE_OPT_FLOAT) snprintf(tail, sizeof tail, " [%g]", *(double *)o->value);
    if (o->kind == MOE_OPT_LIST) snprintf(tail, sizeof tail, " (repeatable)");
    size_t n = strlen(o->help) + strlen(tail) + 1;
    char *text = malloc(n);
    if (text) snprintf(text, n, "%s%s", o->help, tail);
    return text;
}

static void print_wrapped(const char *s, int column, int width, FILE *out)
{
    int at = column;
    while (*s) {
        int n = (int)strcspn(s, " ");
        if (at > column && at + 1 + n > width) {
            fprintf(out, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(out, "%s%.*s", at > column ? " " : "", n, s);
        s += n;
        s += strspn(s, " ");
    }
}

enum { HELP_WIDTH = 80, HELP_COLUMN = 30 };

void moe_opt_help(const struct moe_tool *t, FILE *out)
{
    fprintf(out, "usage: %s %s\n", t->name, t->synopsis);
    print_wrapped(t->about, 0, HELP_WIDTH, out);
    fputc('\n', out);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        char left[96];
        if (o->kind == MOE_OPT_GROUP) { fprintf(out, "\n%s\n", o->help); continue; }
        const char *sep = !o->arg ? "" : o->kind == MOE_OPT_MAYBE ? "[=" : " ";
        snprintf(left, sizeof left, "%c%c%s --%s%s%s%s", o->short_name > 0 ? '-' : ' ', o->short_name > 0 ? o->short_name : ' ',
                 o->short_name > 0 ? "," : " ", o->name, sep, o->arg ? o->arg : "", o->kind == MOE_OPT_MAYBE ? "]" : "");
        bool below = strlen(left) > HELP_COLUMN - 3; /* its text begins on a line of its own */
        if (below) fprintf(out, "  %s\n%*s", left, HELP_COLUMN, "");
        else fprintf(out, "  %-*s ", HELP_COLUMN - 3, left);
        char *text = help_text(o);
        print_wrapped(text ? text : o->help, HELP_COLUMN, HELP_WIDTH, out);
        free(text);
        fputc('\n', out);
    }
    fprintf(out, "\nalso: --help --version --help-man --help-complete bash|zsh|fish --help-env\n");
}

/* ---- man page ---- */

/* Text with what troff would act on escaped. */
static void man_word(const char *s, int n, bool start, FILE *out)
{
    if (start && (*s == '.' || *s == '\'')) fputs("\\&", out);
    for (int i = 0; i < n; i++) {
        if (s[i] == '\\') fputs("\\e", out);
        else if (s[i] == '-') fputs("\\-", out);
        else fputc(s[i], out);
    }
}

static int man_width(const char *s, int n)
{
    int width = n;
    for (int i = 0; i < n; i++) width += s[i] == '\\' || s[i] == '-';
    return width;
}

/* In lines of at most 80 bytes, where spaces allow; an empty line begins a paragraph. */
static void man_text(const char *s, FILE *out)
{
    int at = 0;
    while (*s) {
        int n = (int)strcspn(s, " \n"), width = man_width(s, n);
        bool wrap = at > 0 && at + 1 + width > 76; /* \& may come before, and a little was written before the text */
        if (n && at > 0) fputc(wrap ? '\n' : ' ', out);
        man_word(s, n, at == 0 || wrap, out);
        at = wrap ? width : at + width + (at > 0);
        s += n;
        if (*s == '\n') {
            fputs(s[1] == '\n' ? "\n.PP\n" : "\n", out);
            s += s[1] == '\n' ? 2 : 1;
            at = 0;
        } else {
            s += strspn(s, " ");
        }
    }
}

static void man_options(const struct moe_tool *t, FILE *out)
{
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (o->kind == MOE_OPT_GROUP) { fprintf(out, ".SS %s\n", o->help); continue; }
        fputs(".TP\n", out);
        if (o->short_name > 0) fprintf(out, "\\fB\\-%c\\fR, ", o->short_name);
        fputs("\\fB\\-\\-", out);
        man_text(o->name, out);
        fputs("\\fR", out);
        if (o->arg) {
            fputs(o->kind == MOE_OPT_MAYBE ? "[=\\fI" : " \\fI", out);
            man_text(o->arg, out);
            fputs(o->kind == MOE_OPT_MAYBE ? "\\fR]" : "\\fR", out);
        }
        fputc('\n', out);
        char *text = help_text(o);
        man_text(text ? text : o->help, out);
        free(text);
        fputc('\n', out);
    }
}

/* Lines that stay lines. */
static void man_lines(const char *s, FILE *out)
{
    while (*s) {
        s += strspn(s, " "); /* usage lines are set under each other in --help */
        int n = (int)strcspn(s, "\n");
        man_word(s, n, true, out);
        fputc('\n', out);
        s += n + (s[n] == '\n');
    }
}

static void man_section(const char *title, const char *text, FILE *out)
{
    if (!text) return;
    fprintf(out, ".SH %s\n", title);
    man_text(text, out);
    fputc('\n', out);
}

/* Of the last change to what man pages say: they are the same wherever and whenever they are made. */
#define MAN_DATE "2026-11-27"

void moe_opt_man(const struct moe_tool *t, FILE *out)
{
    fputs(".TH ", out);
    for (const char *c = t->name; *c; c++) fputc(*c >= 'a' && *c <= 'z' ? *c - 32 : *c, out);
    fprintf(out, " 1 %s \"moe %s\" \"User Commands\"\n.SH NAME\n%s \\- ", MAN_DATE, MOE_VERSION, t->name);
    man_text(t->about, out);
    fprintf(out, "\n.SH SYNOPSIS\n.nf\n\\fB%s\\fR ", t->name);
    man_lines(t->synopsis, out);
    fputs(".fi\n", out);
    man_section("DESCRIPTION", t->description, out);
    fputs(".SH OPTIONS\n", out);
    man_options(t, out);
    man_section("JSON", t->json, out);
    fputs(".SH EXIT STATUS\n", out);
#define X(name, value, word, text) fprintf(out, ".TP\n.B %d\n%s\n", value, text);
    MOE_CODES(X)
#undef X
    fputs(".SH ENVIRONMENT\n", out);
    moe_env_man(out);
    if (t->examples) {
        fputs(".SH EXAMPLES\n.nf\n", out);
        man_lines(t->examples, out);
        fputs(".fi\n", out);
    }
}

/* ---- completion ---- */

static bool wants_file(const struct moe_opt *o)
{
    return o->arg && !is_choice(o->arg) && (strstr(o->arg, "FILE") || strstr(o->arg, "DIR") || strstr(o->arg, "PATH") ||
                                            strstr(o->arg, "MODEL") || strstr(o->arg, ".moe") || strstr(o->arg, "PLAN"));
}

bool moe_opt_names_path(const struct moe_opt *o)
{
    bool text = o->kind == MOE_OPT_STR || o->kind == MOE_OPT_LIST || o->kind == MOE_OPT_MAYBE;
    return text && wants_file(o);
}

bool moe_opt_names_file(const struct moe_opt *o)
{
    return moe_opt_names_path(o) && strcmp(o->arg, "DIR") != 0;
}

static void spaced(const char *choices, FILE *out)
{
    for (; *choices; choices++) fputc(*choices == '|' ? ' ' : *choices, out);
}

static void complete_bash(const struct moe_tool *t, FILE *out)
{
    char f[64];
    snprintf(f, sizeof f, "_%s", t->name);
    for (char *p = f; *p; p++)
        if (*p == '-') *p = '_';
    fprintf(out, "%s() {\n  local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n  case \"$prev\" in\n", f);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name || !o->arg || o->kind == MOE_OPT_MAYBE) continue;
        fprintf(out, "    --%s", o->name);
        if (o->short_name > 0) fprintf(out, "|-%c", o->short_name);
        if (is_choice(o->arg)) {
            fputs(") COMPREPLY=($(compgen -W '", out);
            spaced(o->arg, out);
            fputs("' -- \"$cur\")); return;;\n", out);
        } else {
            fputs(wants_file(o) ? ") COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n" : ") return;;\n", out);
        }
    }
    fputs("  esac\n  case \"$cur\" in\n    -*) COMPREPLY=($(compgen -W '--help --version", out);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++)
        if (o->name) fprintf(out, " --%s", o->name);
    fprintf(out, "' -- \"$cur\"));;\n    *) COMPREPLY=($(compgen -f -- \"$cur\"));;\n  esac\n}\ncomplete -o filenames -F %s %s\n", f, t->name);
}

static void zsh_text(const char *s, FILE *out)
{
    for (; *s; s++) {
        if (*s == '\'') { fputs("'\\''", out); continue; }
        if (strchr("[]:", *s)) fputc('\\', out);
        fputc(*s, out);
    }
}

static void complete_zsh(const struct moe_tool *t, FILE *out)
{
    fprintf(out, "#compdef %s\n_arguments -S \\\n  '--help[show help]' '--version[show version]' \\\n", t->name);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name) continue;
        fprintf(out, "  '%s--%s%s[", o->kind == MOE_OPT_LIST ? "*" : "", o->name, o->arg && o->kind != MOE_OPT_MAYBE ? "=" : "");
        zsh_text(o->help, out);
        fputc(']', out);
        if (o->arg && o->kind != MOE_OPT_MAYBE) {
            fputs(":value:", out);
            if (is_choice(o->arg)) {
                fputc('(', out);
                spaced(o->arg, out);
                fputc(')', out);
            } else if (wants_file(o)) {
                fputs("_files", out);
            }
        }
        fputs("' \\\n", out);
    }
    fputs("  '*:file:_files'\n", out);
}

static void complete_fish(const struct moe_tool *t, FILE *out)
{
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name) continue;
        fprintf(out, "complete -c %s -l %s", t->name, o->name);
        if (o->short_name > 0) fprintf(out, " -s %c", o->short_name);
        if (o->arg && o->kind != MOE_OPT_MAYBE) fputs(wants_file(o) ? " -r -F" : " -x", out);
        if (is_choice(o->arg)) {
            fputs(" -a '", out);
            spaced(o->arg, out);
            fputc('\'', out);
        }
        fputs(" -d '", out);
        for (const char *s = o->help; *s; s++) {
            if (*s == '\'') fputc('\\', out);
            fputc(*s, out);
        }
        fputs("'\n", out);
    }
}

bool moe_opt_complete(const struct moe_tool *t, const char *shell, FILE *out)
{
    if (!strcmp(shell, "bash")) complete_bash(t, out);
    else if (!strcmp(shell, "zsh")) complete_zsh(t, out);
    else if (!strcmp(shell, "fish")) complete_fish(t, out);
    else return false;
    return true;
}
