/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as other engines read them, and as a picture. */
#include "runtime/plan-out.h"
#include "runtime/plan-text.h"

#include <math.h>
#include <stdio.h>

static enum moe_code even_slots(const struct moe_plan *p, const char *engine, struct moe_err *err)
{
    for (int32_t i = 0; i < p->n_layers; i++)
        for (int32_t r = 0; r < p->ranks; r++)
            if (p->layers[i].first[r + 1] - p->layers[i].first[r] != p->layers[i].slots / p->ranks || p->layers[i].slots % p->ranks)
                return moe_fail(err, MOE_UNSUPPORTED, "%s wants as many slots on each rank, layer %d has %d on %d ranks (plan with --slots a multiple of the ranks)",
                                engine, (int)p->layers[i].layer, (int)p->layers[i].slots, (int)p->ranks);
    return MOE_OK;
}

static void add_slots(struct moe_text *t, const struct moe_plan_layer *l, int32_t slots, int32_t experts, const char *comma)
{
    for (int32_t k = 0; k < slots; k++) moe_text_add(t, k ? "%s%d" : "%.0s%d", comma, (int)(l ? l->slot[k] : k % experts));
}

enum moe_code moe_plan_export_sglang(const struct moe_plan *p, char **text, struct moe_err *err)
{
    struct moe_text t = { 0 };
    MOE_TRY(even_slots(p, "SGLang", err));
    int32_t last = p->layers[p->n_layers - 1].layer;
    moe_text_add(&t, "{\"physical_to_logical_map\":[\n");
    for (int32_t l = 0; l <= last; l++) {
        moe_text_add(&t, "[");
        add_slots(&t, moe_plan_find(p, l), p->layers[0].slots, p->experts, ",");
        moe_text_add(&t, l < last ? "],\n" : "]\n");
    }
    moe_text_add(&t, "]}\n");
    return moe_text_finish(&t, text, err);
}

enum moe_code moe_plan_export_trtllm(const struct moe_plan *p, char **text, struct moe_err *err)
{
    struct moe_text t = { 0 };
    MOE_TRY(even_slots(p, "TensorRT-LLM", err));
    moe_text_add(&t, "num_slots: %d\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n", (int)p->layers[0].slots);
    for (int32_t i = 0; i < p->n_layers; i++) {
        moe_text_add(&t, "  %d: [", (int)p->layers[i].layer);
        add_slots(&t, &p->layers[i], p->layers[i].slots, p->experts, ", ");
        moe_text_add(&t, "]\n");
    }
    for (int32_t i = 0; i < p->n_prediction; i++) {
        if (moe_plan_find(p, p->prediction + i)) continue;
        moe_text_add(&t, "  %d: [", (int)(p->prediction + i));
        add_slots(&t, NULL, p->layers[0].slots, p->experts, ", ");
        moe_text_add(&t, "]\n");
    }
    return moe_text_finish(&t, text, err);
}

/* ---- picture ---- */

enum { CELL = 12, LEFT = 56, TOP = 58, FOOT = 64 };

/* load / mean: blue below, white at 1, red above, darkest at `span` away from 1. */
static void color(double ratio, double span, char out[8])
{
    double d = span > 0 ? (ratio - 1) / span : 0;
    d = d < -1 ? -1 : d > 1 ? 1 : d;
    int r = (int)lrint(d > 0 ? 255 - 40 * d : 255 + 200 * d), g = (int)lrint(255 - 190 * fabs(d)), b = (int)lrint(d > 0 ? 255 - 200 * d : 255 + 30 * d);
    snprintf(out, 8, "#%02x%02x%02x", r, g, b);
}

static enum moe_code no_loads(const char *file, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "has no loads to plot (make it with moe-plan MODEL --stats FILE -o PLAN)");
}

static bool is_load(const cJSON *x)
{
    return cJSON_IsNumber(x) && isfinite(x->valuedouble) && x->valuedouble >= 0;
}

/* The largest |load / mean - 1|, and the shape. */
static enum moe_code survey(const cJSON *layers, const char *file, int *rows, int *ranks, double *span, struct moe_err *err)
{
    for (const cJSON *l = layers ? layers->child : NULL; l; l = l->next, ++*rows) {
        const cJSON *loads = moe_json_get(l, "loads"), *mean = moe_json_get(l, "load_mean");
        int n = 0;
        if (!cJSON_IsArray(loads) || !is_load(mean)) return no_loads(file, err);
        for (const cJSON *x = loads->child; x; x = x->next, n++) {
            if (!is_load(x)) return no_loads(file, err);
            double d = mean->valuedouble > 0 ? fabs(x->valuedouble / mean->valuedouble - 1) : 0;
            *span = d > *span ? d : *span;
        }
        int of = cJSON_GetArraySize(moe_json_get(l, "ranks"));
        if (n != of)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "a layer with loads of %d ranks and slots of %d", n, of);
        if (*rows && n != *ranks) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layers with loads of %d and %d ranks", *ranks, n);
        *ranks = n;
    }
    return *rows && *ranks && *ranks <= 4096 && *rows <= 65536 ? MOE_OK : no_loads(file, err);
}

static void legend(struct moe_text *t, int y, double span)
{
    char c[8];
    for (int i = -10; i <= 10; i++) {
        color(1 + span * i / 10, span, c);
        moe_text_add(t, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", LEFT + (i + 10) * CELL, y, CELL, CELL, c);
    }
    moe_text_add(t, "<text x=\"%d\" y=\"%d\">%.4f</text><text x=\"%d\" y=\"%d\" text-anchor=\"middle\">1</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.4f</text>\n", LEFT,
        y + CELL + 14, 1 - span, LEFT + 21 * CELL / 2, y + CELL + 14, LEFT + 21 * CELL, y + CELL + 14, 1 + span);
}

enum moe_code moe_plan_plot(const cJSON *root, const char *file, char **svg, struct moe_err *err)
{
    struct moe_text t = { 0 };
    const cJSON *layers = moe_json_get(root, "layers"), *gap = moe_json_get(root, "gap_total");
    int rows = 0, ranks = 0, row = 0;
    double span = 0;
    char c[8];
    MOE_TRY(survey(layers, file, &rows, &ranks, &span, err));
    if (span < 1e-6) span = 1e-6;
    int width = LEFT + CELL * (ranks > 21 ? ranks : 21) + 20, height = TOP + CELL * rows + FOOT;
    moe_text_add(&t, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"10\">\n", width, height, width, height);
    moe_text_add(&t, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"%d\" y=\"18\" font-size=\"13\">" MOE_PLOT_TITLE, LEFT);
    if (cJSON_IsNumber(gap)) moe_text_add(&t, "; gap to the bound %.3f %%", 100 * gap->valuedouble);
    moe_text_add(&t, "</text>\n<text x=\"%d\" y=\"34\">rank</text>\n", LEFT);
    for (int r = 0; r < ranks; r += ranks > 16 ? 8 : 1) moe_text_add(&t, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", LEFT + r * CELL + CELL / 2, TOP - 6, r);
    for (const cJSON *l = layers->child; l; l = l->next, row++) {
        const cJSON *number = moe_json_get(l, "layer");
        double mean = moe_json_get(l, "load_mean")->valuedouble;
        int r = 0, y = TOP + row * CELL;
        moe_text_add(&t, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n", LEFT - 6, y + CELL - 2, cJSON_IsNumber(number) ? number->valueint : row);
        for (const cJSON *x = moe_json_get(l, "loads")->child; x; x = x->next, r++) {
            double ratio = mean > 0 ? x->valuedouble / mean : 1;
            color(ratio, span, c);
            moe_text_add(&t, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>layer %d rank %d: %.4f</title></rect>\n", LEFT + r * CELL, y, CELL, CELL, c,
                cJSON_IsNumber(number) ? number->valueint : row, r, ratio);
        }
    }
    legend(&t, TOP + rows * CELL + 18, span);
    moe_text_add(&t, "</svg>\n");
    return moe_text_finish(&t, svg, err);
}
