/* formats/chat.c - which template a model's conversations are written by. */
#include "formats/chat-internal.h"

#include "base/io.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_MAX = 4 << 20, CONFIG_MAX = 16 << 20 };

#define KIMI   "You are Kimi, an AI assistant created by Moonshot AI."
#define HELPER "You are a helpful assistant"

static const struct moe_chat_style styles[] = {
    { "k2-first", MOE_KIMI, .system = HELPER, .made_ids = true, .spaced = true }, /* of July 2025 */
    { "k2-instruct", MOE_KIMI, .system = KIMI, .newline = true },                 /* 0905, too */
    { "k2-thinking", MOE_KIMI, .system = KIMI, .thinks = true },
    { "k2.5", MOE_KIMI, .thinks = true, .opens = true, .typescript = true },
    { "k2.6", MOE_KIMI, .thinks = true, .opens = true, .typescript = true, .preserves = true },
    { "k2.7-code", MOE_KIMI, .thinks = true, .opens = true, .typescript = true, .preserves = true,
      .preserve_default = true },
    { "deepseek-v3", MOE_DEEPSEEK, .system = NULL },
};
enum { FIRST, INSTRUCT, THINKING, K25, K26, K27, DEEPSEEK, STYLES };

const char *moe_chat_names(void)
{
    return "k2-first, k2-instruct, k2-thinking, k2.5, k2.6, k2.7-code, deepseek-v3";
}

/* ---- a template told by what is in it ---- */

static bool has(const char *text, const char *part) { return strstr(text, part) != NULL; }

/* Is a switch on by default: "NAME | default(true)"? */
static bool on_by_default(const char *text, const char *name)
{
    for (const char *p = text; (p = strstr(p, name)); p++) {
        const char *after = p + strlen(name);
        after += strspn(after, " \t|");
        if (!strncmp(after, "default(", 8)) return !strncmp(after + 8 + strspn(after + 8, " "), "true", 4);
    }
    return false;
}

/* The text without Jinja's comments, which name what the template does not do. */
static void strip_comments(char *text)
{
    for (char *from = text, *to; (from = strstr(from, "{#")) && (to = strstr(from, "#}")); )
        memmove(from, to + 2, strlen(to + 2) + 1);
}

/* Jinja leaves a newline behind the default system turn unless the next tag begins with "{%-". */
static bool newline_behind(const char *text, const char *system)
{
    const char *p = strstr(text, system), *tag = p ? strstr(p, "{%") : NULL;
    return tag && tag[2] != '-' && memchr(p, '\n', (size_t)(tag - p));
}

static bool tell_kimi(struct moe_chat_style *s, const char *text)
{
    bool helper = has(text, HELPER "<|im_end|>"), kimi = has(text, KIMI "<|im_end|>");
    /* the switch came with TypeScript */
    if (has(text, "tools_ts_str") != has(text, "thinking is")) return false;
    /* calls numbered by another rule */
    if (has(text, "'functions.' +") && !has(text, "loop.index0")) return false;
    if (has(text, "tools_ts_str") && on_by_default(text, "preserve_thinking")) *s = styles[K27];
    else if (has(text, "tools_ts_str")) *s = styles[has(text, "preserve_thinking") ? K26 : K25];
    else if (has(text, "<think>")) *s = styles[THINKING];
    else if (has(text, "'functions.' +")) *s = styles[FIRST];
    else *s = styles[INSTRUCT];
    if (helper + kimi != !s->typescript) return false; /* from K2.5 on there is no default system turn */
    if (helper + kimi) s->system = helper ? HELPER : KIMI;
    if (s->system) s->newline = newline_behind(text, s->system);
    s->spaced = !s->typescript && !has(text, "separators");
    return has(text, "## Return of") && has(text, "<|tool_calls_section_begin|>");
}

static bool tell_deepseek(struct moe_chat_style *s, const char *text)
{
    *s = styles[DEEPSEEK]; /* R1, V3.1 and later have thinking, the first V3 has other rules for calls */
    s->newline = has(text, "'\\n<｜tool▁output▁begin｜>'");
    return !has(text, "think") && has(text, "is_first_sp") && has(text, "'tool_calls' in message") &&
        has(text, "<｜tool▁sep｜>");
}

static bool tell(struct moe_chat_style *s, const char *text)
{
    if (has(text, "<|im_middle|>")) return tell_kimi(s, text);
    return has(text, "<｜Assistant｜>") && tell_deepseek(s, text);
}

/* ---- where it comes from ---- */

/* The template named "default", where there are several. */
static const char *config_template(const cJSON *config)
{
    const cJSON *v = moe_json_get(config, "chat_template");
    if (!cJSON_IsArray(v)) return v && cJSON_IsString(v) ? v->valuestring : NULL;
    for (const cJSON *i = v->child; i; i = i->next) {
        const cJSON *name = moe_json_get(i, "name"), *text = moe_json_get(i, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && !strcmp(name->valuestring, "default"))
            return text->valuestring;
    }
    return NULL;
}

/* *text (malloc'd) and the file it is from; NULL when the model has none. */
static enum moe_code find_template(const char *dir, char file[MOE_PATH_BYTES], char **text, struct moe_err *err)
{
    enum moe_exists there;
    cJSON *config;
    size_t n;
    *text = NULL;
    MOE_TRY(moe_path_join(file, MOE_PATH_BYTES, dir, "chat_template.jinja", err));
    MOE_TRY(moe_look(file, &there, err));
    if (there != MOE_ABSENT) return moe_read_file(file, TEMPLATE_MAX, text, &n, err);
    MOE_TRY(moe_path_join(file, MOE_PATH_BYTES, dir, "tokenizer_config.json", err));
    MOE_TRY(moe_json_read(file, CONFIG_MAX, &config, err));
    const char *found = config_template(config);
    *text = found ? strdup(found) : NULL;
    cJSON_Delete(config);
    return found && !*text ? moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for its chat template") :
        MOE_OK;
}

/* Without a template: the vocabulary tells the family, and whether it thinks. */
static int guess(const struct moe_tokenizer *t, const struct moe_chat_hint *h)
{
    bool thinks = moe_token_find_special(t, "<think>") >= 0;
    bool k25 = (h->model_type && strstr(h->model_type, "k25")) ||
        (h->architecture && strstr(h->architecture, "K25"));
    bool known = !h->model_type || !strncmp(h->model_type, "kimi", 4) ||
        !strcmp(h->model_type, "deepseek_v3");
    if (known && moe_token_find_special(t, "<|im_middle|>") >= 0)
        return k25 ? K25 : thinks ? THINKING : INSTRUCT;
    if (known && !thinks && moe_token_find_special(t, "<｜Assistant｜>") >= 0) return DEEPSEEK;
    return STYLES;
}

static enum moe_code by_name(struct moe_chat_style *s, const char *name, struct moe_err *err)
{
    for (int i = 0; i < STYLES; i++) {
        if (strcmp(styles[i].name, name)) continue;
        *s = styles[i];
        return MOE_OK;
    }
    return moe_fail(err, MOE_USAGE, "unknown chat template '%s' (%s)", name, moe_chat_names());
}

static enum moe_code choose(struct moe_chat_style *s, const struct moe_tokenizer *t,
                            const struct moe_chat_hint *h, struct moe_err *err)
{
    char file[MOE_PATH_BYTES], *text;
    if (h->name) return by_name(s, h->name, err);
    MOE_TRY(find_template(t->dir, file, &text, err));
    if (text) strip_comments(text);
    int i = text ? STYLES : guess(t, h);
    bool known = text ? tell(s, text) : i < STYLES;
    if (known && !text) *s = styles[i];
    bool had = text != NULL;
    free(text);
    if (known) return MOE_OK;
    if (had)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "its chat template is none of those built in (%s): plain text remains, without "
                           "turns", moe_chat_names());
    return moe_fail_at(err, MOE_UNSUPPORTED, t->dir, NULL,
                       "has no chat template, and its vocabulary and model type are those of none built in: "
                       "plain text remains, without turns");
}

/* ---- life ---- */

static enum moe_code find_marks(struct moe_chat *c, struct moe_err *err)
{
    static const struct { enum moe_chat_family family; bool needed; const char *name; } marks[] = {
#define X(id, family, needed, name) { family, needed, name },
        MOE_MARKS(X)
#undef X
    };
    for (int i = 0; i < MOE_MARK_COUNT; i++) {
        c->mark[i] = moe_token_find_special(c->t, marks[i].name);
        if (c->mark[i] < 0 && marks[i].needed && marks[i].family == c->style.family)
            return moe_fail(err, MOE_UNSUPPORTED,
                            "the vocabulary has no token '%s', which the chat template needs", marks[i].name);
    }
    return MOE_OK;
}

enum moe_code moe_chat_open(struct moe_chat **out, const struct moe_tokenizer *t,
                            const struct moe_chat_hint *hint, struct moe_err *err)
{
    struct moe_chat *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return moe_fail(err, MOE_NOMEM, "no memory for a chat template");
    c->t = t;
    enum moe_code code = choose(&c->style, t, hint, err);
    if (code == MOE_OK) code = find_marks(c, err);
    if (code != MOE_OK) moe_chat_close(&c);
    *out = c;
    return code;
}

void moe_chat_close(struct moe_chat **c)
{
    free(*c);
    *c = NULL;
}

const char *moe_chat_name(const struct moe_chat *c) { return c->style.name; }

size_t moe_chat_thinking(const struct moe_chat *c, const int32_t *ids, size_t n, size_t *from)
{
    *from = 0;
    if (!c->style.thinks || c->mark[MOE_MARK_THINK_END] < 0) return 0;
    if (n && !c->style.opens && ids[0] == c->mark[MOE_MARK_THINK]) *from = 1;
    for (size_t i = 0; i < n; i++)
        if (ids[i] == c->mark[MOE_MARK_THINK_END]) return i + 1;
    return 0;
}
