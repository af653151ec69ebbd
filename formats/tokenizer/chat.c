/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat.c - finds out which template a model uses. */
#include "formats/tokenizer/chat-internal.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_MAX = 4 << 20, CONFIG_MAX = 16 << 20 };

/* The content of the templates' default system turns. */
#define SYSTEM_KIMI   "You are Kimi, an AI assistant created by Moonshot AI."
#define SYSTEM_HELPER "You are a helpful assistant"

static const struct moe_chat_style styles[] = {
    { "k2-first", MOE_KIMI, .system = SYSTEM_HELPER, .made_ids = true, .spaced = true }, /* of July 2025 */
    { "k2-instruct", MOE_KIMI, .system = SYSTEM_KIMI, .newline = true },                 /* 0905, too */
    { "k2-thinking", MOE_KIMI, .system = SYSTEM_KIMI, .thinks = true },
    { "k2.5", MOE_KIMI, .thinks = true, .opens = true, .typescript = true },
    { "k2.6", MOE_KIMI, .thinks = true, .opens = true, .typescript = true, .preserves = true },
    { "k2.7-code", MOE_KIMI, .thinks = true, .opens = true, .typescript = true, .preserves = true,
      .preserve_default = true },
    { "deepseek-v3", MOE_DEEPSEEK, .system = NULL },
    { "deepseek-v3-first", MOE_DEEPSEEK, .newline = true, .calls_alone = true }, /* of December 2024 */
};
/* The rows of that table; STYLES stands for a template that is none of them. */
enum { FIRST, INSTRUCT, THINKING, K25, K26, K27, DEEPSEEK, DEEPSEEK_FIRST, STYLES };

const char *moe_chat_names(void)
{
    return "k2-first, k2-instruct, k2-thinking, k2.5, k2.6, k2.7-code, deepseek-v3, deepseek-v3-first";
}

bool moe_chat_is_name(const char *name)
{
    for (int i = 0; i < STYLES; i++)
        if (!strcmp(styles[i].name, name)) return true;
    return false;
}

/* ---- recognising a template by its text ---- */

/* The published templates that are rendered exactly, by the XXH3-128 of their text as computed by
 * digest_template; tests/data/chat-templates has them.  Any other text is another template, because what an
 * edit does to a prompt cannot be found out by looking for parts of the text. */
static const struct { struct moe_hash128 digest; int style; } published[] = {
    { { 0x2e926ddc2e24e4de, 0x0feece189429194c }, FIRST },
    { { 0x0b47f66f9f20ee27, 0x623254e5bd9180d8 }, INSTRUCT },
    { { 0x74222a62f985430f, 0xc7b6950dcf150d95 }, THINKING },
    { { 0xbd02a4cd1fe634e8, 0xe29d7150eb51421f }, K25 },
    { { 0xf7205bf9b7eccb5c, 0xd4a9099b5209dd86 }, K26 },
    { { 0x4539344e06ec0b77, 0x6878d9ac13b3ef51 }, DEEPSEEK_FIRST },
    { { 0x0315dd77e91fcd2a, 0xaeef296221187973 }, DEEPSEEK_FIRST }, /* with \n for the newlines in quotes */
};

/* The digest of a template with LF as its line ends and without white space at its end: copying may change
 * these, and none of the templates writes them. */
static struct moe_hash128 digest_template(char *text, size_t bytes)
{
    size_t n = 0;
    for (const char *p = text; p < text + bytes; p++)
        if (*p != '\r' || p[1] != '\n') text[n++] = *p;
    while (n && text[n - 1] && strchr(" \t\r\n", text[n - 1])) n--;
    return moe_hash128(text, n);
}

/* The style of a template; STYLES for an unknown one.  The text, which a NUL follows, is changed. */
static int recognise(char *text, size_t bytes)
{
    struct moe_hash128 digest = digest_template(text, bytes);
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const struct moe_hash128 *one = &published[i].digest;
        if (digest.high == one->high && digest.low == one->low) return published[i].style;
    }
    return STYLES;
}

/* ---- where a template is found ---- */

/* The template in the value of "chat_template": a string, or several named ones in a list of {"name",
 * "template"} or in an object.  Of several the one named "default" is taken; an empty text, which is no known
 * template, when there is none of that name, or when another one is for conversations with tools.  NULL for
 * null. */
static const char *pick_template(const cJSON *v)
{
    const char *found = "";
    bool object = cJSON_IsObject(v);
    if (!v || cJSON_IsString(v)) return v ? v->valuestring : NULL;
    for (const cJSON *i = v->child; i; i = i->next) {
        const cJSON *member = moe_json_get(i, "name"), *text = object ? i : moe_json_get(i, "template");
        const char *name = object ? i->string : cJSON_IsString(member) ? member->valuestring : "";
        if (!strcmp(name, "tool_use")) return "";
        if (!strcmp(name, "default") && cJSON_IsString(text)) found = text->valuestring;
    }
    return found;
}

struct found { char file[MOE_PATH_BYTES], *text; size_t n; }; /* text: malloc'd, NULL when there is none */

static enum moe_code keep_text(struct found *f, const char *text, struct moe_err *err)
{
    f->text = strdup(text);
    f->n = strlen(text);
    return f->text ? MOE_OK : moe_fail_at(err, MOE_NOMEM, f->file, NULL, "no memory for its chat template");
}

/* Look into the folder of further templates; these count like named ones in "chat_template". */
static enum moe_code find_additional(const char *dir, bool jinja, struct found *f, struct moe_err *err)
{
    enum moe_exists there;
    struct moe_names names;
    bool any = false;
    MOE_TRY(moe_path_join(f->file, MOE_PATH_BYTES, dir, "additional_chat_templates", err));
    MOE_TRY(moe_look(f->file, &there, err));
    if (there != MOE_DIR) return MOE_OK;
    MOE_TRY(moe_list_dir(f->file, &names, err));
    for (size_t i = 0; i < names.n; i++)
        any |= jinja ? !strcmp(names.v[i], "tool_use.jinja") : moe_ends_with(names.v[i], ".jinja");
    moe_names_release(&names);
    return any ? keep_text(f, "", err) : MOE_OK;
}

/* Look for "chat_template" in the JSON file `name`; without `needed` the file may be missing. */
static enum moe_code find_json(const char *dir, const char *name, bool needed, struct found *f,
                               struct moe_err *err)
{
    enum moe_exists there;
    cJSON *config;
    MOE_TRY(moe_path_join(f->file, MOE_PATH_BYTES, dir, name, err));
    MOE_TRY(moe_look(f->file, &there, err));
    if (there == MOE_ABSENT && !needed) return MOE_OK;
    MOE_TRY(moe_json_read(f->file, CONFIG_MAX, &config, err));
    const char *text = pick_template(moe_json_get(config, "chat_template"));
    enum moe_code code = text ? keep_text(f, text, err) : MOE_OK;
    cJSON_Delete(config);
    return code;
}

/* Look in the order of transformers: template files, then the tokenizer's configuration, then the processor's
 * file from the time before there were template files. */
static enum moe_code find_template(const char *dir, struct found *f, struct moe_err *err)
{
    enum moe_exists there;
    char jinja[MOE_PATH_BYTES];
    MOE_TRY(moe_path_join(jinja, sizeof jinja, dir, "chat_template.jinja", err));
    MOE_TRY(moe_look(jinja, &there, err));
    MOE_TRY(find_additional(dir, there != MOE_ABSENT, f, err));
    if (f->text) return MOE_OK;
    memcpy(f->file, jinja, sizeof jinja);
    if (there != MOE_ABSENT) return moe_read_file(jinja, TEMPLATE_MAX, &f->text, &f->n, err);
    MOE_TRY(find_json(dir, "tokenizer_config.json", true, f, err));
    return f->text ? MOE_OK : find_json(dir, "chat_template.json", false, f, err);
}

/* Guess the style of a model without a template: the vocabulary shows the family, and whether the model
 * thinks.  STYLES when no style fits. */
static int guess_style(const struct moe_tokenizer *t, const struct moe_chat_hint *h)
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

static enum moe_code find_style(struct moe_chat_style *s, const char *name, struct moe_err *err)
{
    for (int i = 0; i < STYLES; i++) {
        if (strcmp(styles[i].name, name)) continue;
        *s = styles[i];
        return MOE_OK;
    }
    return moe_fail(err, MOE_USAGE, "unknown chat template '%s' (%s)", name, moe_chat_names());
}

static enum moe_code choose_style(struct moe_chat_style *s, const struct moe_tokenizer *t,
                                  const struct moe_chat_hint *h, struct moe_err *err)
{
    struct found f = { .text = NULL };
    if (h->name) return find_style(s, h->name, err);
    MOE_TRY(find_template(t->dir, &f, err));
    bool had = f.text != NULL;
    int i = had ? recognise(f.text, f.n) : guess_style(t, h);
    free(f.text);
    if (i < STYLES) *s = styles[i];
    if (i < STYLES) return MOE_OK;
    if (had)
        return moe_fail_at(err, MOE_UNSUPPORTED, f.file, NULL,
                           "its chat template is none of those known to the letter: name the one that it "
                           "renders as with --chat-template (%s), or go without turns", moe_chat_names());
    return moe_fail_at(err, MOE_UNSUPPORTED, t->dir, NULL,
                       "has no chat template, and its vocabulary and model type are those of none built in: "
                       "name one with --chat-template (%s), or go without turns", moe_chat_names());
}

/* ---- opening and closing ---- */

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
    enum moe_code code = choose_style(&c->style, t, hint, err);
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
