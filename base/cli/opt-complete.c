/* SPDX-License-Identifier: Apache-2.0 */
/* Shell completion for bash, zsh and fish, made from the tables of options. */
#include "base/cli/opt.h"

#include <string.h>

/* In "a|b|c" the lower-case words are values that can be completed; a word with capitals (R, NAME.moe) is a
 * placeholder. */
static bool is_word(const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (word[i] >= 'A' && word[i] <= 'Z') return false;
    return n > 0;
}

static bool is_choice(const char *arg)
{
    bool any = false;
    if (!arg || !strchr(arg, '|')) return false;
    for (const char *at = arg; *at; at += strspn(at, "|")) {
        size_t n = strcspn(at, "|");
        any |= is_word(at, n);
        at += n;
    }
    return any;
}

static bool wants_file(const struct moe_opt *o)
{
    return o->arg && !is_choice(o->arg) &&
           (strstr(o->arg, "FILE") || strstr(o->arg, "DIR") || strstr(o->arg, "PATH") ||
            strstr(o->arg, "MODEL") || strstr(o->arg, ".moe") || strstr(o->arg, "PLAN"));
}

bool moe_opt_names_path(const struct moe_opt *o)
{
    bool text = o->kind == MOE_OPT_STR || o->kind == MOE_OPT_LIST || o->kind == MOE_OPT_MAYBE;
    return text && wants_file(o) && !strchr(o->arg, '|');
}

bool moe_opt_names_file(const struct moe_opt *o)
{
    return moe_opt_names_path(o) && strcmp(o->arg, "DIR") != 0;
}

/* Print the words of "a|b|c" that can be completed, with spaces between them. */
static void print_choices(const char *choices, FILE *out)
{
    const char *between = "";
    for (; *choices; choices += strspn(choices, "|")) {
        int n = (int)strcspn(choices, "|");
        if (is_word(choices, (size_t)n)) fprintf(out, "%s%.*s", between, n, choices), between = " ";
        choices += n;
    }
}

/* Print the cases of the shell function that complete the value of each option. */
static void print_bash_values(const struct moe_tool *t, FILE *out)
{
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name || !o->arg || o->kind == MOE_OPT_MAYBE) continue;
        fprintf(out, "    --%s", o->name);
        if (o->short_name > 0) fprintf(out, "|-%c", o->short_name);
        if (is_choice(o->arg)) {
            fputs(") COMPREPLY=($(compgen -W '", out);
            print_choices(o->arg, out);
            fputs("' -- \"$cur\")); return;;\n", out);
        } else {
            fputs(wants_file(o) ? ") COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n" : ") return;;\n",
                  out);
        }
    }
}

static void print_verbs(const struct moe_tool *t, const char *between, FILE *out)
{
    for (const struct moe_tool *const *v = t->verbs; *v; v++)
        fprintf(out, "%s%s", v == t->verbs ? "" : between, (*v)->verb);
}

static void print_bash_names(const struct moe_tool *t, FILE *out)
{
    fputs("COMPREPLY=($(compgen -W '--help --version", out);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++)
        if (o->name) fprintf(out, " --%s", o->name);
    fputs("' -- \"$cur\"))", out);
}

static void complete_bash(const struct moe_tool *t, FILE *out)
{
    char f[64];
    snprintf(f, sizeof f, "_%s", t->name);
    for (char *p = f; *p; p++)
        if (*p == '-') *p = '_';
    fprintf(
        out,
        "%s() {\n  local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" verb= w\n",
        f);
    if (t->verbs) {
        fputs("  for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case \"$w\" in ", out);
        print_verbs(t, "|", out);
        fputs(") verb=$w; break;; esac\n  done\n", out);
    }
    fputs("  case \"$prev\" in\n", out);
    print_bash_values(t, out);
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) print_bash_values(*v, out);
    fputs("  esac\n  case \"$verb$cur\" in\n", out);
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        fprintf(out, "    %s-*) ", (*v)->verb);
        print_bash_names(*v, out);
        fputs(";;\n", out);
    }
    fputs("    -*) ", out);
    print_bash_names(t, out);
    fputs(";;\n    *) COMPREPLY=($(compgen -f -- \"$cur\"))", out);
    if (t->verbs) {
        fputs("\n       [ \"$verb\" ] || COMPREPLY+=($(compgen -W '", out);
        print_verbs(t, " ", out);
        fputs("' -- \"$cur\"))", out);
    }
    fprintf(out, ";;\n  esac\n}\ncomplete -o filenames -F %s %s\n", f, t->name);
}

static void print_zsh_text(const char *s, FILE *out)
{
    for (; *s; s++) {
        if (*s == '\'') {
            fputs("'\\''", out);
            continue;
        }
        if (strchr("[]:", *s)) fputc('\\', out);
        fputc(*s, out);
    }
}

static void print_zsh_arguments(const struct moe_tool *t, FILE *out)
{
    fputs("_arguments -S \\\n  '--help[show help]' '--version[show version]' \\\n", out);
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name) continue;
        fprintf(out, "  '%s--%s%s[", o->kind == MOE_OPT_LIST ? "*" : "", o->name,
                o->arg && o->kind != MOE_OPT_MAYBE ? "=" : "");
        print_zsh_text(o->help, out);
        fputc(']', out);
        if (o->arg && o->kind != MOE_OPT_MAYBE) {
            fputs(":value:", out);
            if (is_choice(o->arg)) {
                fputc('(', out);
                print_choices(o->arg, out);
                fputc(')', out);
            } else if (wants_file(o)) {
                fputs("_files", out);
            }
        }
        fputs("' \\\n", out);
    }
    if (t->verbs) {
        fputs("  '1:model or verb:{_files; compadd ", out);
        print_verbs(t, " ", out);
        fputs("}' \\\n", out);
    }
    fputs("  '*:file:_files'\n", out);
}

static void complete_zsh(const struct moe_tool *t, FILE *out)
{
    fprintf(out, "#compdef %s\n", t->name);
    if (t->verbs) fputs("case ${words[(r)(", out), print_verbs(t, "|", out), fputs(")]} in\n", out);
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        fprintf(out, "%s) ", (*v)->verb);
        print_zsh_arguments(*v, out);
        fputs(";;\n", out);
    }
    if (t->verbs) fputs("*) ", out);
    print_zsh_arguments(t, out);
    if (t->verbs) fputs(";;\nesac\n", out);
}

static void print_fish_text(const char *s, FILE *out)
{
    for (; *s; s++) {
        if (*s == '\'') fputc('\\', out);
        fputc(*s, out);
    }
}

/* Print the options of a subcommand, or those of the tool where no subcommand was typed yet. */
static void print_fish_options(const struct moe_tool *t, FILE *out)
{
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!o->name) continue;
        fprintf(out, "complete -c %s", t->name);
        if (t->verb) fprintf(out, " -n '__fish_seen_subcommand_from %s'", t->verb);
        if (t->verbs)
            fputs(" -n 'not __fish_seen_subcommand_from ", out), print_verbs(t, " ", out), fputc('\'', out);
        fprintf(out, " -l %s", o->name);
        if (o->short_name > 0) fprintf(out, " -s %c", o->short_name);
        if (o->arg && o->kind != MOE_OPT_MAYBE) fputs(wants_file(o) ? " -r -F" : " -x", out);
        if (is_choice(o->arg)) {
            fputs(" -a '", out);
            print_choices(o->arg, out);
            fputc('\'', out);
        }
        fputs(" -d '", out);
        print_fish_text(o->help, out);
        fputs("'\n", out);
    }
}

static void complete_fish(const struct moe_tool *t, FILE *out)
{
    for (const struct moe_tool *const *v = t->verbs; v && *v; v++) {
        fprintf(out, "complete -c %s -n __fish_use_subcommand -a %s -d '", t->name, (*v)->verb);
        print_fish_text((*v)->about, out);
        fputs("'\n", out);
        print_fish_options(*v, out);
    }
    print_fish_options(t, out);
}

bool moe_opt_complete(const struct moe_tool *t, const char *shell, FILE *out)
{
    if (!strcmp(shell, "bash")) complete_bash(t, out);
    else if (!strcmp(shell, "zsh")) complete_zsh(t, out);
    else if (!strcmp(shell, "fish")) complete_fish(t, out);
    else return false;
    return true;
}
