/* SPDX-License-Identifier: Apache-2.0 */
/* Help and man page, made from the tables of options. */
#include "base/cli/opt.h"

#include "base/env.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An option's help text with its default appended; malloc'd, NULL when out of memory. */
static char *help_text(const struct moe_opt *o)
{
    char tail[96] = "";
    if (o->kind == MOE_OPT_STR && *(const char **)o->value)
        snprintf(tail, sizeof tail, " [%s]", *(const char **)o->value);
    if (o->kind == MOE_OPT_INT && *(int64_t *)o->value && *(int64_t *)o->value != MOE_UNSET)
        snprintf(tail, sizeof tail, " [%" PRId64 "]", *(int64_t *)o->value);
    if (o->kind == MOE_OPT_FLOAT) snprintf(tail, sizeof tail, " [%g]", *(double *)o->value);
    if (o->kind == MOE_OPT_LIST) snprintf(tail, sizeof tail, " (repeatable)");
    size_t n = strlen(o->help) + strlen(tail) + 1;
    char *text = malloc(n);
    if (text) snprintf(text, n, "%s%s", o->help, tail);
    return text;
}

/* Print words in lines of at most `width` columns.  The cursor is at `column`, and further lines begin there,
 * too. */
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

static void help_option(const struct moe_opt *o, FILE *out)
{
    char left[96];
    const char *sep = !o->arg ? "" : o->kind == MOE_OPT_MAYBE ? "[=" : " ";
    snprintf(left, sizeof left, "%c%c%s --%s%s%s%s", o->short_name > 0 ? '-' : ' ',
             o->short_name > 0 ? o->short_name : ' ', o->short_name > 0 ? "," : " ", o->name, sep,
             o->arg ? o->arg : "", o->kind == MOE_OPT_MAYBE ? "]" : "");
    bool below = strlen(left) > HELP_COLUMN - 3; /* the help text begins on the next line */
    if (below) fprintf(out, "  %s\n%*s", left, HELP_COLUMN, "");
    else fprintf(out, "  %-*s ", HELP_COLUMN - 3, left);
    char *text = help_text(o);
    print_wrapped(text ? text : o->help, HELP_COLUMN, HELP_WIDTH, out);
    free(text);
    fputc('\n', out);
}

void moe_opt_help(const struct moe_tool *t, FILE *out)
{
    fprintf(out, "usage: %s %s%s%s\n", t->name, t->verb ? t->verb : "", t->verb ? " " : "", t->synopsis);
    print_wrapped(t->about, 0, HELP_WIDTH, out);
    fputc('\n', out);
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        if (v == t->verbs)
            fprintf(out, "\nverbs, with a --help of their own (%s %s --help)\n", t->name, (*v)->verb);
        fprintf(out, "  %-*s ", HELP_COLUMN - 3, (*v)->verb);
        print_wrapped((*v)->about, HELP_COLUMN, HELP_WIDTH, out);
        fputc('\n', out);
    }
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++)
        if (o->kind == MOE_OPT_GROUP) fprintf(out, "\n%s\n", o->help);
        else help_option(o, out);
    fprintf(out, "\nalso: --help --version --help-man --help-complete bash|zsh|fish --help-env\n");
}

/* ---- man page ---- */

/* Print a word of n bytes with the characters escaped that troff would interpret. */
static void man_word(const char *s, int n, bool start, FILE *out)
{
    if (start && (*s == '.' || *s == '\'')) fputs("\\&", out);
    for (int i = 0; i < n; i++) {
        if (s[i] == '\\') fputs("\\e", out);
        else if (s[i] == '-') fputs("\\-", out);
        else fputc(s[i], out);
    }
}

/* The number of bytes that man_word prints for a word. */
static int man_width(const char *s, int n)
{
    int width = n;
    for (int i = 0; i < n; i++) width += s[i] == '\\' || s[i] == '-';
    return width;
}

/* Print text in lines of at most 80 bytes, broken at spaces; an empty line begins a paragraph. */
static void man_text(const char *s, FILE *out)
{
    int at = 0;
    while (*s) {
        int n = (int)strcspn(s, " \n"), width = man_width(s, n);
        /* 76, since the line may begin with \& and something may have been printed before the text */
        bool wrap = at > 0 && at + 1 + width > 76;
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
        /* the common options were printed with the tool's own */
        if (t->verb && o->kind == MOE_OPT_GROUP && !strcmp(o->help, "common")) return;
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

/* Print text whose line breaks are kept. */
static void man_lines(const char *s, FILE *out)
{
    while (*s) {
        s += strspn(s, " "); /* --help indents the further usage lines */
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

/* The date of the last change to the text of man pages; a fixed date, so that a page does not depend on when
 * it is built. */
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
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        if (v == t->verbs) fputs(".SH VERBS\n", out);
        fprintf(out, ".SS %s %s ", t->name, (*v)->verb);
        man_lines((*v)->synopsis, out);
        man_text((*v)->about, out);
        fputs(".\n", out);
        if ((*v)->description) fputs(".PP\n", out), man_text((*v)->description, out), fputc('\n', out);
        man_options(*v, out);
    }
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
