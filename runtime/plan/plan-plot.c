/* SPDX-License-Identifier: Apache-2.0 */
/* Draws a plan as a picture (SVG).  On the left is the load of every rank of every layer, as colors; on the
 * right a bar for the fullest rank of each layer, with marks for the bound and for another placement of the
 * same statistics.  The scale of colors reaches at least a quarter of the mean to either side, so that
 * differences too small to be measured look even. */
#include "base/buffer.h"
#include "runtime/plan/plan-out.h"

#include "base/show.h"

#include <math.h>
#include <stdio.h>

/* Sizes in pixels. */
enum {
    ROW = 12,
    LEFT = 48,
    TOP = 78,
    BETWEEN = 30,
    BARS = 220,
    RIGHT = 30,
    WIDTH_MIN = 660,
    SCALE = 22,
    TICKS_APART = 36
};

struct picture {
    struct moe_buffer t;
    const struct moe_plot_beside *beside;
    int rows, ranks, cell;  /* layers; ranks; the width of a rank in pixels */
    double survive;         /* how many lost ranks the plan survives */
    double span;            /* colors are darkest where load / mean is this far from 1 */
    double max_share, step; /* the end of the axis of the bars, and the distance of its ticks */
};

/* load / mean: blue below, white at 1, red above, darkest at `span` away from 1. */
static void color(double ratio, double span, char out[8])
{
    double d = (ratio - 1) / span;
    d = d < -1 ? -1 : d > 1 ? 1 : d;
    int r = (int)lrint(d > 0 ? 255 - 40 * d : 255 + 200 * d), g = (int)lrint(255 - 190 * fabs(d)),
        b = (int)lrint(d > 0 ? 255 - 200 * d : 255 + 30 * d);
    snprintf(out, 8, "#%02x%02x%02x", r, g, b);
}

static enum moe_code no_loads(const char *file, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "has no loads to plot (make it with moe-plan MODEL --stats FILE -o PLAN)");
}

static bool is_load(const cJSON *x)
{
    return cJSON_IsNumber(x) && isfinite(x->valuedouble) && x->valuedouble >= 0;
}

/* Checks the loads, and finds the largest |load / mean - 1| and the numbers of layers and ranks. */
static enum moe_code survey(const cJSON *layers, const char *file, int *rows, int *ranks, double *span,
                            struct moe_err *err)
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
            return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                               "a layer with loads of %d rank%s and slots of %d", n, moe_plural(n), of);
        if (*rows && n != *ranks)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layers with loads of %d and %d ranks", *ranks,
                               n);
        *ranks = n;
    }
    return *rows && *ranks && *ranks <= 4096 && *rows <= 65536 ? MOE_OK : no_loads(file, err);
}

static double value(const cJSON *l, const char *key)
{
    const cJSON *x = moe_json_get(l, key);
    return is_load(x) ? x->valuedouble : -1;
}

static double fullest(const cJSON *l)
{
    double max_share = 0;
    for (const cJSON *x = moe_json_get(l, "loads")->child; x; x = x->next)
        max_share = x->valuedouble > max_share ? x->valuedouble : max_share;
    return max_share;
}

/* A load as a multiple of the mean of its layer; below 0: it is not known. */
static double share(double load, double mean) { return mean > 0 && load >= 0 ? load / mean : -1; }

/* Rounds up to a round number, at least 0.25. */
static double round_up(double v)
{
    static const double steps[] = { 0.25, 0.5, 1, 2, 5 };
    double scale = 1;
    for (int i = 0; i < 60; i++) {
        double s = steps[i % 5] * scale;
        if (s >= v) return s;
        if (i % 5 == 4) scale *= 10;
    }
    return v;
}

static void scales(struct picture *p, const cJSON *layers)
{
    double max_share = 1.25;
    int row = 0;
    for (const cJSON *l = layers->child; l; l = l->next, row++) {
        double mean = value(l, "load_mean"), a = share(fullest(l), mean);
        double b = p->beside ? share(p->beside->load_max[row], mean) : 0;
        max_share = fmax(max_share, fmax(a, b));
    }
    p->span = round_up(p->span);
    p->step = round_up(max_share / 5);
    p->max_share = p->step * ceil(max_share / p->step);
    p->cell = p->ranks <= 100 ? 12 : p->ranks <= 256 ? 5 : p->ranks <= 1024 ? 2 : 1;
}

static int bars_at(const struct picture *p) { return LEFT + p->cell * p->ranks + BETWEEN; }
static double bar(const struct picture *p, double v) { return BARS * v / p->max_share; }

static void text(struct picture *p, double x, double y, const char *anchor, const char *s)
{
    moe_buffer_printf(&p->t, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, s);
}

static void number(struct picture *p, double x, double y, const char *anchor, double v)
{
    char s[32];
    snprintf(s, sizeof s, "%g", v);
    text(p, x, y, anchor, s);
}

static void axes(struct picture *p)
{
    int step = 1, bottom = TOP + p->rows * ROW, at = bars_at(p);
    while (step * p->cell < TICKS_APART) step *= 2;
    text(p, LEFT - 6, TOP - 22, "end", "layer");
    text(p, LEFT, TOP - 22, "start", "rank");
    for (int r = 0; r < p->ranks; r += step)
        number(p, LEFT + r * p->cell + p->cell / 2.0, TOP - 6, "middle", r);
    text(p, at, TOP - 22, "start", "fullest rank: load / mean");
    for (int i = 0; p->step * i <= p->max_share * (1 + 1e-9); i++) {
        double x = at + bar(p, p->step * i);
        number(p, x, TOP - 6, "middle", p->step * i);
        moe_buffer_printf(&p->t, "<path d=\"M%.1f %dV%d\" stroke=\"#cccccc\"/>\n", x, TOP, bottom);
    }
}

static void mark(struct picture *p, double v, int y, const char *stroke)
{
    if (v >= 0)
        moe_buffer_printf(&p->t, "<path d=\"M%.2f %dv%d\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                          bars_at(p) + bar(p, v), y, ROW, stroke);
}

static void layer(struct picture *p, const cJSON *l, int row)
{
    double mean = value(l, "load_mean"), max_share = share(fullest(l), mean),
           bound = share(value(l, "bound"), mean);
    double other = p->beside ? share(p->beside->load_max[row], mean) : -1;
    const cJSON *of = moe_json_get(l, "layer");
    int y = TOP + row * ROW, r = 0, name = cJSON_IsNumber(of) ? of->valueint : row;
    char c[8];
    number(p, LEFT - 6, y + ROW - 2, "end", name);
    for (const cJSON *x = moe_json_get(l, "loads")->child; x; x = x->next, r++) {
        double ratio = share(x->valuedouble, mean);
        if (ratio < 0) snprintf(c, sizeof c, "#dddddd");
        else color(ratio, p->span, c);
        moe_buffer_printf(&p->t,
                          "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>layer %d "
                          "rank %d: ",
                          LEFT + r * p->cell, y, p->cell, ROW, c, name, r);
        moe_buffer_printf(&p->t, ratio < 0 ? "no tokens" : "%.4f", ratio);
        moe_buffer_printf(&p->t, "</title></rect>\n");
    }
    if (max_share < 0) return;
    moe_buffer_printf(&p->t,
                      "<rect x=\"%d\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"#7799cc\"><title>layer "
                      "%d, fullest rank: %.4f",
                      bars_at(p), y + 2, bar(p, max_share), ROW - 4, name, max_share);
    if (bound >= 0) moe_buffer_printf(&p->t, ", bound %.4f", bound);
    if (other >= 0) moe_buffer_printf(&p->t, ", %s %.4f", p->beside->name, other);
    moe_buffer_printf(&p->t, "</title></rect>\n");
    mark(p, other, y, "#dd6600");
    mark(p, bound, y, "#000000");
}

static void key(struct picture *p, int x, int y, const char *fill, const char *what)
{
    moe_buffer_printf(&p->t, "<rect x=\"%d\" y=\"%d\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x, y - 9,
                      fill);
    text(p, x + 16, y, "start", what);
}

/* Explains the mark of the bound.  Under --survive it is a bound on plans that survive the loss of ranks,
 * which the other placement need not. */
static void key_bound(struct picture *p, int x, int y)
{
    char s[96] = "bound: no placement has less";
    if (p->survive > 0)
        snprintf(s, sizeof s, "bound under --survive %.0f: no such placement has less", p->survive);
    key(p, x, y, "#000000", s);
}

static void legend(struct picture *p)
{
    int y = TOP + p->rows * ROW + 22;
    char c[8], s[96];
    text(p, LEFT, y, "start", "Squares: load of a rank / mean load of its layer");
    for (int i = -10; i <= 10; i++) {
        color(1 + p->span * i / 10, p->span, c);
        moe_buffer_printf(&p->t, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n",
                          LEFT + (i + 10) * 12, y + 6, c);
    }
    number(p, LEFT, y + 30, "middle", 1 - p->span);
    number(p, LEFT + 126, y + 30, "middle", 1);
    number(p, LEFT + 252, y + 30, "middle", 1 + p->span);
    key(p, LEFT + 320, y, "#7799cc", "this plan's fullest rank");
    key_bound(p, LEFT + 320, y + 16);
    if (p->beside)
        snprintf(s, sizeof s, "%s of the same statistics%s", p->beside->name,
                 p->survive > 0 ? ", without --survive" : "");
    else snprintf(s, sizeof s, "no baseline: it needs --stats FILE");
    key(p, LEFT + 320, y + 32, p->beside ? "#dd6600" : "#ffffff", s);
}

static void title(struct picture *p, const cJSON *root, const cJSON *layers)
{
    double load = 0, mean = 0, bound = 0;
    for (const cJSON *l = layers->child; l; l = l->next)
        load += fullest(l), mean += value(l, "load_mean"), bound += fmax(value(l, "bound"), 0);
    const cJSON *slots = moe_json_get(root, "slots");
    moe_buffer_printf(&p->t,
                      "<text x=\"%d\" y=\"20\" font-size=\"13\">" MOE_PLOT_TITLE
                      "</text>\n<text x=\"%d\" y=\"38\">%d layer%s, %d rank%s",
                      LEFT, LEFT, p->rows, p->rows == 1 ? "" : "s", p->ranks, p->ranks == 1 ? "" : "s");
    if (is_load(slots)) moe_buffer_printf(&p->t, ", %.0f slots", slots->valuedouble);
    if (mean > 0) moe_buffer_printf(&p->t, "; fullest rank %.4f times the mean", load / mean);
    if (mean > 0 && bound > 0)
        moe_buffer_printf(&p->t, ", %.3f %% above the bound", 100 * (load / bound - 1));
    moe_buffer_printf(&p->t, "</text>\n");
}

enum moe_code moe_plan_plot(const cJSON *root, const char *file, const struct moe_plot_beside *beside,
                            char **svg, struct moe_err *err)
{
    const cJSON *layers = moe_json_get(root, "layers");
    struct picture p = { .beside = beside, .survive = value(root, "survive") };
    int row = 0;
    MOE_TRY(survey(layers, file, &p.rows, &p.ranks, &p.span, err));
    scales(&p, layers);
    int width = bars_at(&p) + BARS + RIGHT, height = TOP + ROW * p.rows + 72;
    if (width < WIDTH_MIN) width = WIDTH_MIN;
    moe_buffer_printf(&p.t,
                      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d "
                      "%d\" font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"100%%\" "
                      "height=\"100%%\" fill=\"white\"/>\n",
                      width, height, width, height);
    title(&p, root, layers);
    axes(&p);
    for (const cJSON *l = layers->child; l; l = l->next) layer(&p, l, row++);
    moe_buffer_printf(&p.t,
                      "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
                      "stroke=\"#999999\"/>\n",
                      LEFT, TOP, p.cell * p.ranks, ROW * p.rows);
    legend(&p);
    moe_buffer_printf(&p.t, "</svg>\n");
    return moe_buffer_finish(&p.t, svg, err);
}
