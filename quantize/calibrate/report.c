/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/report.h"

#include "base/show.h"
#include "formats/source.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest numbers of entries in a list of worst cases, and of cold experts that the text names for one
 * layer. */
enum { WORST = 10, NAMED_COLD = 24 };

static const char *const phase_name[MOE_PHASES] = { "attention",  "router",    "forward", "drift",
                                                    "statistics", "factoring", "rounding" };

/* ---- a layer's note ---- */

/* The relative error of the expert's output: the root of squared error over squared output. */
static double output_error(const struct moe_expert_stats *e)
{
    return e->out_den > 0 ? sqrt(e->out_num / e->out_den) : 0;
}

static bool add_row(cJSON *list, const double *v, int n)
{
    return moe_json_append(list, cJSON_CreateDoubleArray(v, n));
}

/* Adds "worst": the experts with the largest errors, largest first; of equal errors, the lower expert
 * first. */
static bool add_worst(cJSON *j, const struct moe_layer_stats *s)
{
    cJSON *list = moe_json_add_array(j, "worst");
    double last = INFINITY;
    int64_t last_expert = -1;

    for (int k = 0; list && k < WORST && k < s->n; k++) {
        double most = -1;
        int64_t expert = -1;
        for (int64_t e = 0; e < s->n; e++) {
            double x = output_error(&s->experts[e]);
            bool later = x < last || (x == last && e > last_expert);
            if (later && x > most) most = x, expert = e;
        }
        if (expert < 0 || most <= 0) break;
        last = most;
        last_expert = expert;
        if (!add_row(list, (const double[]){ (double)expert, most, (double)s->experts[expert].tokens }, 3))
            return false;
    }
    return list;
}

/* Adds "clipped": an object for each input of which clipped values were counted. */
static bool add_clipped(cJSON *j, const struct moe_layer_stats *s)
{
    cJSON *list = moe_json_add_array(j, "clipped");

    for (int i = 0; list && i < s->n_clipped; i++) {
        const struct moe_clipped *c = &s->clipped[i];
        cJSON *o = moe_json_append(list, cJSON_CreateObject());
        bool ok = moe_json_add_f64(o, "layer", c->layer) &&
                  moe_json_add_str(o, "input", c->input) &&
                  moe_json_add_f64(o, "clipped", (double)c->clip.clipped) &&
                  moe_json_add_f64(o, "of", (double)c->clip.seen) &&
                  moe_json_add_f32(o, "largest", c->clip.largest) &&
                  moe_json_add_f32(o, "limit", c->clip.limit);
        if (!ok) return false;
    }
    return list;
}

/* Adds an object `name` with a number for each phase, v[MOE_PHASES]. */
static bool add_phases(cJSON *j, const char *name, const double *v)
{
    cJSON *o = moe_json_add_object(j, name);
    bool ok = o;
    for (int i = 0; ok && i < MOE_PHASES; i++) ok = moe_json_add_f64(o, phase_name[i], v[i]);
    return ok;
}

cJSON *moe_layer_note(const struct moe_layer_stats *s)
{
    cJSON *j = cJSON_CreateObject(), *tokens = j ? moe_json_add_array(j, "tokens") : NULL,
          *cold = j ? moe_json_add_array(j, "cold") : NULL;
    bool ok = tokens && cold && moe_json_add_f64(j, "layer", s->layer);
    double num = 0, den = 0;

    for (int64_t e = 0; ok && e < s->n; e++) {
        const struct moe_expert_stats *x = &s->experts[e];
        ok = moe_json_append(tokens, cJSON_CreateNumber((double)x->tokens));
        if (ok && x->cold) ok = moe_json_append(cold, cJSON_CreateNumber((double)e));
        num += x->out_num;
        den += x->out_den;
    }
    ok = ok && moe_json_add_f64(j, "output_error", den > 0 ? sqrt(num / den) : 0) && add_worst(j, s) &&
         (s->state_error < 0 || moe_json_add_f64(j, "drift", s->state_error)) &&
         moe_json_add_f32(j, "amax_x", s->amax_x) && moe_json_add_f32(j, "amax_y", s->amax_y) &&
         add_clipped(j, s) && moe_json_add_f64(j, "bytes", (double)s->bytes) &&
         moe_json_add_f64(j, "peak_rss", (double)s->peak_rss) &&
         add_phases(j, "seconds", s->seconds) && add_phases(j, "flops", s->flops);
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }
static const cJSON *first_child(const cJSON *o, const char *key)
{
    const cJSON *a = get(o, key);
    return a ? a->child : NULL;
}
static double number(const cJSON *o, const char *key)
{
    const cJSON *v = get(o, key);
    return v ? v->valuedouble : 0;
}

/* Whether every element of the array under `key` is a number from 0 to 2^53; true where there is no such
 * key. */
static bool are_counts(const cJSON *o, const char *key)
{
    const cJSON *list = get(o, key);
    for (const cJSON *v = first_child(o, key); v; v = v->next)
        if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= 0x1p53)) return false;
    return !list || cJSON_IsArray(list);
}

/* Whether a note, which may come from an earlier run's journal, is well formed where this file reads it, and
 * fits a model with so many layers and experts. */
static bool is_sound(const cJSON *note, int64_t layers, int64_t experts)
{
    const cJSON *layer = get(note, "layer"), *tokens = get(note, "tokens");
    bool ok = cJSON_IsNumber(layer) && layer->valuedouble >= 0 && layer->valuedouble < (double)layers &&
              cJSON_IsArray(tokens) && cJSON_GetArraySize(tokens) == experts && are_counts(note, "tokens") &&
              are_counts(note, "cold");
    for (const cJSON *e = first_child(note, "worst"); ok && e; e = e->next)
        ok = cJSON_GetArraySize(e) == 3 && cJSON_IsNumber(e->child) && cJSON_IsNumber(e->child->next) &&
             cJSON_IsNumber(e->child->next->next);
    for (const cJSON *o = first_child(note, "clipped"); ok && o; o = o->next)
        ok = cJSON_IsString(get(o, "input"));
    return ok;
}

enum moe_code moe_notes_check(const cJSON *notes, const struct moe_config *c, const char *path,
                              struct moe_err *err)
{
    for (const cJSON *j = notes->child; j; j = j->next)
        if (!is_sound(j, c->num_hidden_layers, c->n_routed_experts))
            return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                               "the journal of a layer in it is damaged (remove it and start again)");
    return MOE_OK;
}

enum moe_code moe_notes_routing(const cJSON *notes, const struct moe_config *c, int64_t tokens,
                                struct moe_routing **r, struct moe_err *err)
{
    int32_t *layers = malloc((size_t)(cJSON_GetArraySize(notes) + 1) * sizeof *layers), n = 0;

    if (!layers) return moe_fail(err, MOE_NOMEM, "no memory for routing.json");
    for (const cJSON *j = notes->child; j; j = j->next) layers[n++] = (int32_t)number(j, "layer");
    enum moe_code code = moe_routing_new(r, (int32_t)c->n_routed_experts, (int32_t)c->num_experts_per_tok, n,
                                         layers, 1, err);
    free(layers);
    MOE_TRY(code);
    (*r)->tokens[0] = tokens;
    n = 0;
    for (const cJSON *j = notes->child; j; j = j->next) {
        int64_t *row = moe_routing_row(*r, 0, n++);
        for (const cJSON *t = first_child(j, "tokens"); t; t = t->next) *row++ = (int64_t)t->valuedouble;
    }
    return MOE_OK;
}

cJSON *moe_cold_experts(const cJSON *notes)
{
    cJSON *all = cJSON_CreateArray();
    for (const cJSON *j = notes->child; all && j; j = j->next)
        for (const cJSON *e = first_child(j, "cold"); all && e; e = e->next) {
            if (add_row(all, (const double[]){ number(j, "layer"), e->valuedouble }, 2)) continue;
            cJSON_Delete(all);
            all = NULL;
        }
    return all;
}

/* ---- text ---- */

const char *moe_error_name(int layer, const char *word, char name[128])
{
    for (int r = 0; layer < 0 && r < MOE_ROLE_COUNT; r++)
        if (moe_role_class((enum moe_role)r) == MOE_CLASS_MODEL &&
            !strcmp(word, moe_role_word((enum moe_role)r)))
            return moe_tensor_name((enum moe_role)r, -1, -1, name);
    return word;
}

static void print_head(FILE *f, const cJSON *r)
{
    char a[16], b[16], c[16], d[16];
    const cJSON *method = get(r, "method"), *output = get(r, "output"), *error = get(r, "relative_error");
    fprintf(f, "%s: method %s, %s from %s in %s, peak memory %s\n", output ? output->valuestring : "",
            method ? method->valuestring : "", moe_human_bytes((uint64_t)number(r, "output_bytes"), a),
            moe_human_bytes((uint64_t)number(r, "input_bytes"), b), moe_human_time(number(r, "seconds"), c),
            moe_human_bytes((uint64_t)number(r, "peak_rss"), d));
    fprintf(f, "%.0f weights quantized", number(r, "weights_quantized"));
    if (error) fprintf(f, ", relative error %.6f", number(error, "total"));
    fprintf(f, "\n");
}

static void print_errors(FILE *f, const cJSON *r)
{
    const cJSON *error = get(r, "relative_error");

    if (!error) return;
    fprintf(f, "\nrelative error of weights\n");
    for (const cJSON *l = first_child(error, "layers"); l; l = l->next) {
        int layer = (int)number(l, "layer");
        char name[128];
        if (layer < 0) fprintf(f, "           ");
        else fprintf(f, "  layer %3d ", layer);
        for (const cJSON *c = l->child; c; c = c->next)
            if (strcmp(c->string, "layer"))
                fprintf(f, "  %s %.5f", moe_error_name(layer, c->string, name), c->valuedouble);
        fprintf(f, "\n");
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Prints a layer in one line.  False without memory. */
static bool print_layer(FILE *f, const cJSON *j)
{
    const cJSON *tokens = get(j, "tokens");
    int n = cJSON_GetArraySize(tokens), k = 0;
    double *sorted = calloc((size_t)n + 1, sizeof *sorted), seconds = 0, clipped = 0;
    char a[16], b[16], c[16];

    if (!sorted) return false;
    for (const cJSON *t = tokens ? tokens->child : NULL; t; t = t->next) sorted[k++] = t->valuedouble;
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    for (const cJSON *s = first_child(j, "seconds"); s; s = s->next) seconds += s->valuedouble;
    for (const cJSON *o = first_child(j, "clipped"); o; o = o->next) clipped += number(o, "clipped");
    fprintf(f,
            "  layer %3.0f   output error %.5f   tokens of an expert %.0f %.0f %.0f   cold %d   clipped %.0f "
            "  %s, %s, peak %s\n",
            number(j, "layer"), number(j, "output_error"), sorted[0], sorted[n / 2], sorted[n ? n - 1 : 0],
            cJSON_GetArraySize(get(j, "cold")), clipped, moe_human_time(seconds, a),
            moe_human_bytes((uint64_t)number(j, "bytes"), b),
            moe_human_bytes((uint64_t)number(j, "peak_rss"), c));
    free(sorted);
    return true;
}

static void print_phases(FILE *f, const cJSON *notes)
{
    fprintf(f, "\nphases (statistics, factoring and rounding: each expert at work counts its own seconds)\n");
    for (int i = 0; i < MOE_PHASES; i++) {
        double seconds = 0, flops = 0;
        for (const cJSON *j = notes->child; j; j = j->next) {
            seconds += number(get(j, "seconds"), phase_name[i]);
            flops += number(get(j, "flops"), phase_name[i]);
        }
        fprintf(f, "  %-10s  %10.1f s  %12.3f TFLOP  %8.1f GFLOP/s\n", phase_name[i], seconds, flops / 1e12,
                seconds > 0 ? flops / seconds / 1e9 : 0);
    }
}

/* The WORST entries with the largest values, in order, and the note that each is from. */
struct top { const cJSON *layer[WORST], *entry[WORST]; double value[WORST]; int n; };

/* Inserts an entry of the note `layer`, unless WORST others have values as large. */
static void keep_top(struct top *t, const cJSON *layer, const cJSON *entry, double value)
{
    int at = t->n;
    while (at > 0 && t->value[at - 1] < value) at--;
    if (at == WORST) return;
    if (t->n < WORST) t->n++;
    for (int i = t->n - 1; i > at; i--) {
        t->layer[i] = t->layer[i - 1];
        t->entry[i] = t->entry[i - 1];
        t->value[i] = t->value[i - 1];
    }
    t->layer[at] = layer;
    t->entry[at] = entry;
    t->value[at] = value;
}

static void print_worst(FILE *f, const cJSON *notes)
{
    struct top t = { .n = 0 };
    for (const cJSON *j = notes->child; j; j = j->next)
        for (const cJSON *e = first_child(j, "worst"); e; e = e->next)
            keep_top(&t, j, e, e->child->next->valuedouble);
    fprintf(f, "\nexperts with the largest output error\n");
    for (int i = 0; i < t.n; i++)
        fprintf(f, "  layer %3.0f  expert %3.0f   %.5f   %.0f tokens\n", number(t.layer[i], "layer"),
                t.entry[i]->child->valuedouble, t.value[i], t.entry[i]->child->next->next->valuedouble);
}

static void print_clipped(FILE *f, const cJSON *notes)
{
    struct top t = { .n = 0 };
    for (const cJSON *j = notes->child; j; j = j->next)
        for (const cJSON *o = first_child(j, "clipped"); o; o = o->next)
            if (number(o, "clipped") > 0) keep_top(&t, j, o, number(o, "clipped") / number(o, "of"));
    fprintf(f, "\nactivations beyond what the input scale can represent: %s\n",
            t.n ? "the largest shares" : "none");
    for (int i = 0; i < t.n; i++) {
        const cJSON *o = t.entry[i];
        fprintf(f, "  layer %3.0f  %-14s  %.0f of %.0f, the largest %g where %g is the limit\n",
                number(o, "layer"), get(o, "input")->valuestring, number(o, "clipped"), number(o, "of"),
                number(o, "largest"), number(o, "limit"));
    }
}

static void print_cold(FILE *f, const cJSON *notes)
{
    bool any = false;

    for (const cJSON *j = notes->child; j; j = j->next) {
        int n = cJSON_GetArraySize(get(j, "cold")), k = 0;
        if (!n) continue;
        if (!any) fprintf(f, "\nexperts that calibration hardly reached\n");
        any = true;
        fprintf(f, "  layer %3.0f ", number(j, "layer"));
        for (const cJSON *e = first_child(j, "cold"); e && k < NAMED_COLD; e = e->next, k++)
            fprintf(f, " %.0f", e->valuedouble);
        if (n > k) fprintf(f, " and %d more", n - k);
        fprintf(f, "\n");
    }
    if (!any) fprintf(f, "\nno expert is cold\n");
}

const struct moe_file_kind moe_report_kind = {
    .name = "a report",
    .marks = { { 0, "{\n  \"method\":", { "\"weights_quantized\":" } },
               { 0, "", { ": method ", " weights quantized" } } },
};

char *moe_quantize_text(const cJSON *report)
{
    char *text = NULL;
    size_t bytes = 0;
    bool ok = true;
    FILE *f = open_memstream(&text, &bytes);
    const cJSON *notes = get(report, "calibration");

    if (!f) return NULL;
    print_head(f, report);
    print_errors(f, report);
    if (notes) {
        fprintf(f, "\ncalibration (tokens of an expert: least, median, most)\n");
        for (const cJSON *j = notes->child; ok && j; j = j->next) ok = print_layer(f, j);
        print_phases(f, notes);
        print_worst(f, notes);
        print_clipped(f, notes);
        print_cold(f, notes);
    }
    ok = !ferror(f) && ok;
    if (fclose(f) || !ok) {
        free(text);
        return NULL;
    }
    return text;
}
