/* SPDX-License-Identifier: Apache-2.0 */
/* Reads plans from files: plan.json, SGLang's physical_to_logical_map, TensorRT-LLM's moe_load_balancer.yaml.
 * All of them are first read into lists of experts, in the order of the file; at the end these become ranks,
 * layers and copies. */
#include "base/grow.h"
#include "runtime/plan/plan.h"

#include "base/io.h"
#include "base/json.h"
#include "base/show.h"
#include "base/stream.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 1 << 24 };

/* Lists of experts.  Each list has the slots of one rank (plan.json), or of all ranks of a layer (the
 * others). */
struct lists {
    const char *file;
    int32_t *v, *end; /* [n] the experts of all lists; [n_lists] where each list ends in v */
    size_t n, cap, n_lists, cap_lists;
    int32_t *layer;   /* [n_layers] the numbers of the layers */
    size_t n_layers, cap_layers;
};

static enum moe_code push(int32_t **v, size_t *n, size_t *cap, int32_t x, const char *file,
                          struct moe_err *err)
{
    if (*n == SLOTS_MAX)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "more than %d slots", SLOTS_MAX);
    if (!MOE_GROW(*v, *cap, *n + 1))
        return moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for a placement plan");
    (*v)[(*n)++] = x;
    return MOE_OK;
}

static enum moe_code add_number(struct lists *t, int64_t x, struct moe_err *err)
{
    if (x < 0 || x >= MOE_PLAN_EXPERTS_MAX)
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "no expert has the number %lld (0 to %d)",
                           (long long)x, MOE_PLAN_EXPERTS_MAX - 1);
    return push(&t->v, &t->n, &t->cap, (int32_t)x, t->file, err);
}

static enum moe_code end_list(struct lists *t, struct moe_err *err)
{
    return push(&t->end, &t->n_lists, &t->cap_lists, (int32_t)t->n, t->file, err);
}

static enum moe_code add_layer(struct lists *t, int64_t number, struct moe_err *err)
{
    if (number < 0 || number > INT16_MAX || (t->n_layers && t->layer[t->n_layers - 1] >= number))
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL,
                           "layer %lld is out of range, there twice or out of order", (long long)number);
    return push(&t->layer, &t->n_layers, &t->cap_layers, (int32_t)number, t->file, err);
}

/* ---- JSON ---- */

static enum moe_code json_list(struct lists *t, const cJSON *list, struct moe_err *err)
{
    if (!cJSON_IsArray(list))
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "a list of experts is missing");
    for (const cJSON *x = list->child; x; x = x->next) {
        if (!cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble < MOE_PLAN_EXPERTS_MAX) ||
            x->valuedouble != (int32_t)x->valuedouble)
            return moe_fail_at(err, MOE_CORRUPT, t->file, NULL,
                               "an expert's number is not a whole number in range");
        MOE_TRY(add_number(t, (int64_t)x->valuedouble, err));
    }
    return end_list(t, err);
}

static enum moe_code json_layer(struct lists *t, const cJSON *o, int32_t *ranks, struct moe_err *err)
{
    int64_t number = 0;
    int32_t n = 0;
    const cJSON *list = moe_json_get(o, "ranks");
    MOE_TRY(moe_json_i64(o, "layer", true, 0, INT16_MAX, &number, t->file, err));
    if (!cJSON_IsArray(list))
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "layer %lld: 'ranks' is not a list",
                           (long long)number);
    for (const cJSON *r = list->child; r; r = r->next, n++) MOE_TRY(json_list(t, r, err));
    if (!n || n > MOE_PLAN_RANKS_MAX || (*ranks && n != *ranks))
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "layer %lld: %d rank%s, %d %s wanted",
                           (long long)number, (int)n, moe_plural(n), (int)*ranks, *ranks == 1 ? "is" : "are");
    *ranks = n;
    return add_layer(t, number, err);
}

/* What plan.json says besides its layers; 0: it does not say it. */
struct head {
    int64_t experts, top, per_node, survive, ranks;
    int32_t prediction, n_prediction;
    struct moe_identity model;
    const char *made_for; /* in the JSON */
};

/* Reads the layers for multi-token prediction, whose numbers follow one another. */
static enum moe_code json_prediction(const cJSON *list, struct head *h, const char *file, struct moe_err *err)
{
    for (const cJSON *x = cJSON_IsArray(list) ? list->child : NULL; x; x = x->next, h->n_prediction++) {
        bool layer = cJSON_IsNumber(x) && x->valuedouble >= 1 && x->valuedouble <= INT16_MAX;
        if (layer && !h->n_prediction) h->prediction = (int32_t)x->valuedouble;
        if (!layer || x->valuedouble != h->prediction + h->n_prediction)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                               "'" MOE_PLAN_PREDICTION "' is no list of layers one after the other");
    }
    return MOE_OK;
}

static enum moe_code json_head(const cJSON *root, struct head *h, const char *file, struct moe_err *err)
{
    int64_t version = 0;
    MOE_TRY(moe_json_i64(root, "version", true, 0, INT32_MAX, &version, file, err));
    if (version != MOE_PLAN_VERSION)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "version %lld of a placement plan",
                           (long long)version);
    MOE_TRY(moe_json_i64(root, "experts", false, 1, MOE_PLAN_EXPERTS_MAX, &h->experts, file, err));
    MOE_TRY(moe_json_i64(root, "experts_per_token", false, 1, MOE_PLAN_EXPERTS_MAX, &h->top, file, err));
    MOE_TRY(moe_json_i64(root, "ranks", false, 1, MOE_PLAN_RANKS_MAX, &h->ranks, file, err));
    MOE_TRY(moe_json_i64(root, "ranks_per_node", false, 0, MOE_PLAN_RANKS_MAX, &h->per_node, file, err));
    MOE_TRY(moe_json_str(root, "model", false, &h->made_for, file, err));
    MOE_TRY(json_prediction(moe_json_get(root, MOE_PLAN_PREDICTION), h, file, err));
    bool says = moe_json_get(root, MOE_PLAN_ORIGIN) || moe_json_get(root, MOE_PLAN_WEIGHTS);
    if (says && !moe_identity_get(root, MOE_PLAN_ORIGIN, MOE_PLAN_WEIGHTS, &h->model))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "'" MOE_PLAN_ORIGIN "' and '" MOE_PLAN_WEIGHTS "' are not digits of a model");
    return moe_json_i64(root, "survive", false, 0, MOE_PLAN_RANKS_MAX, &h->survive, file, err);
}

enum moe_code moe_plan_check_json(const cJSON *root, const char *file, struct moe_err *err)
{
    const cJSON *layers = moe_json_get(root, "layers");
    bool counts = moe_json_get(root, "logical_count") || cJSON_IsArray(moe_json_get(root, "windows")) ||
                  (cJSON_IsArray(layers) && layers->child && moe_json_get(layers->child, "counts"));
    if (counts)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "holds statistics of experts, and is no plan (moe-plan MODEL --ranks N --stats "
                           "FILE -o PLAN makes one of them)");
    if (cJSON_IsObject(root) && !layers && !moe_json_get(root, "physical_to_logical_map"))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "is no plan: it has neither 'layers' nor 'physical_to_logical_map'");
    return MOE_OK;
}

/* by_rank: each list has the slots of one rank. */
static enum moe_code json_lists(struct lists *t, const cJSON *root, struct head *h, bool *by_rank,
                                struct moe_err *err)
{
    const cJSON *map = moe_json_get(root, "physical_to_logical_map"), *layers = moe_json_get(root, "layers");
    int32_t number = 0, ranks = 0;
    *by_rank = !map;
    if (!cJSON_IsObject(root)) return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "is not a JSON object");
    MOE_TRY(moe_plan_check_json(root, t->file, err));
    if (map) {
        if (!cJSON_IsArray(map))
            return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "'physical_to_logical_map' is not a list");
        for (const cJSON *l = map->child; l; l = l->next) {
            MOE_TRY(json_list(t, l, err));
            MOE_TRY(add_layer(t, number++, err));
        }
        return MOE_OK;
    }
    MOE_TRY(json_head(root, h, t->file, err));
    if (!cJSON_IsArray(layers))
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "'layers' is missing or not a list");
    for (const cJSON *l = layers->child; l; l = l->next) MOE_TRY(json_layer(t, l, &ranks, err));
    if (h->ranks && ranks && h->ranks != ranks)
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "%d rank%s a layer, 'ranks' says %d", (int)ranks,
                           moe_plural(ranks), (int)h->ranks);
    h->ranks = ranks;
    return MOE_OK;
}

/* ---- YAML ----
 *
 * This reads the subset of YAML in which such files are written: "key: value" at the left, and under
 * initial_global_assignments either one line "  LAYER: [numbers]" for each layer, where the list may go on
 * over several lines, or a line "  LAYER:" and then a line "  - number" for each slot. */

/* The text from `at` to `end` is still to be read.  slots: the value of num_slots; 0: there is none. */
struct yaml { struct lists *t; const char *at, *end; int64_t slots; };

static const char *line_end(const struct yaml *y)
{
    const char *e = memchr(y->at, '\n', (size_t)(y->end - y->at));
    return e ? e : y->end;
}

/* Skips spaces and comments, and with `lines` also ends of lines. */
static void spaces(struct yaml *y, bool lines)
{
    while (y->at < y->end) {
        if (*y->at == '#') y->at = line_end(y);
        else if (*y->at == ' ' || *y->at == '\r' || (lines && *y->at == '\n')) y->at++;
        else return;
    }
}

/* Reads a number, which may be in quotes; false: there is none. */
static bool digits(struct yaml *y, int64_t *v)
{
    const char *start = y->at;
    bool quoted = y->at < y->end && (*y->at == '"' || *y->at == '\'');
    if (quoted) start = ++y->at;
    for (*v = 0; y->at < y->end && *y->at >= '0' && *y->at <= '9' && *v < INT32_MAX; y->at++)
        *v = 10 * *v + (*y->at - '0');
    bool any = y->at > start;
    if (quoted) any = any && y->at < y->end && *y->at++ == start[-1];
    return any;
}

static enum moe_code yaml_bad(const struct yaml *y, const char *what, const char *text, struct moe_err *err)
{
    int line = 1;
    for (const char *p = text; p < y->at; p++) line += *p == '\n';
    return moe_fail_at(err, MOE_CORRUPT, y->t->file, NULL, "line %d: %s", line, what);
}

/* Reads "[number, number, ...]". */
static enum moe_code yaml_flow(struct yaml *y, const char *text, struct moe_err *err)
{
    int64_t v;
    y->at++;
    for (;;) {
        spaces(y, true);
        if (!digits(y, &v)) return yaml_bad(y, "not a number of an expert", text, err);
        MOE_TRY(add_number(y->t, v, err));
        spaces(y, true);
        if (y->at < y->end && *y->at == ',') {
            y->at++;
            continue;
        }
        if (y->at >= y->end || *y->at != ']') return yaml_bad(y, "a list without end", text, err);
        y->at++;
        return end_list(y->t, err);
    }
}

/* Reads lines "- number". */
static enum moe_code yaml_block(struct yaml *y, const char *text, struct moe_err *err)
{
    int64_t v;
    for (spaces(y, true); y->at < y->end && *y->at == '-'; spaces(y, true)) {
        y->at++;
        spaces(y, false);
        if (!digits(y, &v)) return yaml_bad(y, "not a number of an expert", text, err);
        MOE_TRY(add_number(y->t, v, err));
    }
    return end_list(y->t, err);
}

/* Reads "LAYER: list" as long as it is indented.  text: the whole file, for line numbers in messages. */
static enum moe_code yaml_assignments(struct yaml *y, const char *text, struct moe_err *err)
{
    for (;;) {
        spaces(y, true);
        int64_t number;
        if (y->at >= y->end || y->at == text || y->at[-1] == '\n') return MOE_OK;
        if (!digits(y, &number)) return yaml_bad(y, "not a number of a layer", text, err);
        spaces(y, false);
        if (y->at >= y->end || *y->at++ != ':') return yaml_bad(y, "a colon is missing", text, err);
        MOE_TRY(add_layer(y->t, number, err));
        spaces(y, false);
        bool flow = y->at < y->end && *y->at == '[';
        MOE_TRY(flow ? yaml_flow(y, text, err) : yaml_block(y, text, err));
    }
}

static enum moe_code yaml_lists(struct lists *t, const char *text, size_t bytes, struct moe_err *err)
{
    static const char assign[] = "initial_global_assignments:", slots[] = "num_slots:";
    struct yaml y = { .t = t, .at = text, .end = text + bytes };
    bool found = false;
    for (spaces(&y, true); y.at < y.end; spaces(&y, true)) {
        size_t left = (size_t)(y.end - y.at);
        if (left >= sizeof slots - 1 && !memcmp(y.at, slots, sizeof slots - 1)) {
            y.at += sizeof slots - 1;
            spaces(&y, false);
            if (!digits(&y, &y.slots)) return yaml_bad(&y, "num_slots is not a number", text, err);
        } else if (left >= sizeof assign - 1 && !memcmp(y.at, assign, sizeof assign - 1)) {
            if (found) return yaml_bad(&y, "initial_global_assignments is there twice", text, err);
            found = true;
            y.at += sizeof assign - 1;
            MOE_TRY(yaml_assignments(&y, text, err));
            continue;
        }
        y.at = line_end(&y);
    }
    if (!found)
        return moe_fail_at(err, MOE_CORRUPT, t->file, NULL,
                           "is no plan: neither JSON nor a YAML with initial_global_assignments");
    for (size_t i = 0; y.slots && i < t->n_lists; i++)
        if (t->end[i] - (i ? t->end[i - 1] : 0) != y.slots)
            return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "layer %d: %d slots, num_slots is %lld",
                               (int)t->layer[i], (int)(t->end[i] - (i ? t->end[i - 1] : 0)),
                               (long long)y.slots);
    return MOE_OK;
}

/* ---- from lists to a plan ---- */

static int32_t list_start(const struct lists *t, size_t i) { return i ? t->end[i - 1] : 0; }

static void fill_layer(struct moe_plan *p, int32_t i, const struct lists *t, size_t lists_a_layer)
{
    struct moe_plan_layer *l = &p->layers[i];
    size_t at = (size_t)i * lists_a_layer;
    int32_t start = list_start(t, at);
    l->layer = t->layer[i];
    memcpy(l->slot, t->v + start, (size_t)l->slots * sizeof *l->slot);
    for (size_t r = 0; lists_a_layer > 1 && r < lists_a_layer; r++) l->first[r + 1] = t->end[at + r] - start;
}

static enum moe_code assemble(struct moe_plan **out, const struct lists *t, const struct head *h,
                              bool by_rank, int32_t ranks, struct moe_err *err)
{
    size_t each = by_rank ? (size_t)h->ranks : 1;
    int32_t slots = 0, experts = (int32_t)h->experts;
    if (!t->n_layers || !t->n) return moe_fail_at(err, MOE_CORRUPT, t->file, NULL, "an empty plan");
    if (!by_rank && !ranks)
        return moe_fail_at(err, MOE_USAGE, t->file, NULL,
                           "it does not say for how many ranks it is (give --ranks)");
    for (size_t i = 0; i < t->n; i++) experts = !h->experts && t->v[i] >= experts ? t->v[i] + 1 : experts;
    for (size_t i = 0; i < t->n_layers; i++) {
        int32_t n = list_start(t, (i + 1) * each) - list_start(t, i * each);
        if (i && n != slots)
            return moe_fail_at(err, MOE_UNSUPPORTED, t->file, NULL, "layers with %d and %d slots", (int)slots,
                               (int)n);
        slots = n;
    }
    if (!by_rank && slots % ranks)
        return moe_fail_at(err, MOE_MISMATCH, t->file, NULL,
                           "%d slots a layer are no multiple of %d ranks, and an engine gives each as many "
                           "(is --ranks right?)",
                           (int)slots, (int)ranks);
    MOE_TRY(moe_plan_new(out, by_rank ? (int32_t)h->ranks : ranks, experts, (int32_t)t->n_layers, t->layer,
                         slots, err));
    (*out)->experts_per_token = (int32_t)h->top;
    (*out)->ranks_per_node = (int32_t)h->per_node;
    (*out)->survive = (int32_t)h->survive;
    (*out)->prediction = h->prediction;
    (*out)->n_prediction = h->n_prediction;
    (*out)->model = h->model;
    (*out)->foreign = !by_rank;
    char *made_for = h->made_for ? MOE_NEWN(&(*out)->arena, char, (int64_t)strlen(h->made_for) + 1) : NULL;
    if (made_for) memcpy(made_for, h->made_for, strlen(h->made_for));
    (*out)->made_for = made_for;
    for (int32_t i = 0; i < (int32_t)t->n_layers; i++) fill_layer(*out, i, t, each);
    enum moe_code code = h->made_for && !made_for
                           ? moe_fail_at(err, MOE_NOMEM, t->file, NULL, "no memory for a placement plan")
                           : moe_plan_index(*out, t->file, err);
    if (code == MOE_CORRUPT && !by_rank)
        code = moe_wrap(err, "read as a plan for %d ranks, which --ranks may have wrong", (int)ranks);
    if (code != MOE_OK) moe_plan_free(out);
    return code;
}

static bool is_json(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && strchr(" \t\r\n", text[i]) && text[i]) i++;
    return i < n && (text[i] == '{' || text[i] == '[');
}

enum moe_code moe_plan_parse(struct moe_plan **p, const char *text, size_t bytes, const char *file,
                             int32_t ranks, struct moe_err *err)
{
    struct lists t = { .file = file };
    struct head h = { 0 };
    bool by_rank = false;
    cJSON *root = NULL;
    enum moe_code code;
    *p = NULL;
    if (is_json(text, bytes)) {
        code = moe_json_parse(text, bytes, file, &root, err);
        if (code == MOE_OK) code = json_lists(&t, root, &h, &by_rank, err);
    } else code = yaml_lists(&t, text, bytes, err);
    if (code == MOE_OK) code = assemble(p, &t, &h, by_rank, ranks, err);
    cJSON_Delete(root);
    free(t.v);
    free(t.end);
    free(t.layer);
    return code;
}

enum moe_code moe_plan_read(struct moe_plan **p, const char *path, int32_t ranks,
                            const struct moe_cancel *cancel, struct moe_err *err)
{
    char *text;
    size_t n;
    *p = NULL;
    MOE_TRY(moe_read_text(path, MOE_PLAN_TEXT_MAX, cancel, &text, &n, err));
    const char *name = moe_stream_name(path);
    enum moe_code code = moe_plan_parse(p, text, n, name, ranks, err);
    free(text);
    return code;
}
