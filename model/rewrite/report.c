/* SPDX-License-Identifier: Apache-2.0 */
/* The error of each layer and role, the options and types of a run, and the reports of parts, as JSON. */
#include "model/rewrite/report.h"

#include "base/grow.h"
#include "formats/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const methods[] = { "max", "four-over-six", "search" };

const char *moe_method_name(enum moe_nvfp4_method m) { return methods[m]; }

int moe_method_find(const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(methods[i], name)) return i;
    return -1;
}

void moe_tally_add(struct moe_tally *t, const struct moe_tensor *in, double num, double den)
{
    struct moe_tally_row *r = NULL;

    /* the row is among the last: a unit has few roles, and dense.moe few roles in each layer */
    for (size_t i = 0; i < t->n && !r; i++)
        if (t->rows[t->n - 1 - i].layer == in->layer && t->rows[t->n - 1 - i].role == in->role)
            r = &t->rows[t->n - 1 - i];
        else if (i > 32) break;
    if (!r) {
        if (!MOE_GROW(t->rows, t->cap, t->n + 1)) {
            t->failed = true;
            return;
        }
        r = &t->rows[t->n++];
        *r = (struct moe_tally_row){ .layer = in->layer, .role = in->role };
    }
    r->num += num;
    r->den += den;
    r->weights += in->rows * in->cols;
}

cJSON *moe_tally_json(const struct moe_tally *t)
{
    cJSON *a = t->failed ? NULL : cJSON_CreateArray();
    for (size_t i = 0; a && i < t->n; i++) {
        const struct moe_tally_row *r = &t->rows[i];
        double v[5] = { r->layer, r->role, r->num, r->den, (double)r->weights };
        if (moe_json_append(a, cJSON_CreateDoubleArray(v, 5))) continue;
        cJSON_Delete(a);
        return NULL;
    }
    return a;
}

void moe_tally_release(struct moe_tally *t)
{
    free(t->rows);
    *t = (struct moe_tally){ 0 };
}

bool moe_report_add_note(cJSON *report, cJSON *note)
{
    return moe_json_append(moe_json_append(report, cJSON_CreateArray()), note) != NULL;
}

static bool is_note(const cJSON *row) { return cJSON_GetArraySize(row) == 1 && cJSON_IsObject(row->child); }

cJSON *moe_report_notes(const cJSON *reports)
{
    cJSON *all = cJSON_CreateArray();
    for (const cJSON *u = all ? reports->child : NULL; u; u = u->next) {
        const cJSON *report = cJSON_GetObjectItemCaseSensitive(u, "report");
        for (const cJSON *r = report ? report->child : NULL; all && r; r = r->next)
            if (is_note(r) && !moe_json_append(all, moe_json_ref(r->child))) {
                cJSON_Delete(all);
                all = NULL;
            }
    }
    return all;
}

/* Adds the key "tensor-type" when there are rules; false without memory. */
static bool put_rules(cJSON *o, const struct moe_rewrite_options *r)
{
    return !r->n_rules || moe_json_add(o, "tensor-type", cJSON_CreateStringArray(r->rules, (int)r->n_rules));
}

cJSON *moe_rewrite_options_json(const struct moe_rewrite_options *o)
{
    cJSON *j = cJSON_CreateObject();
    bool changes = o->scope != MOE_SCOPE_NONE || o->n_rules;
    char range[32] = "";

    if (o->layers) snprintf(range, sizeof range, "%d-%d", o->layers->first, o->layers->last);
    bool ok = j && moe_json_add_str(j, "to", o->scope != MOE_SCOPE_NONE ? "nvfp4" : "source") &&
              (!changes || moe_json_add_str(
                               j, "method", o->chooser ? o->chooser->method : moe_method_name(o->method))) &&
              (!changes || moe_json_add_str(j, "quantize", moe_scope_name(o->scope))) &&
              (!o->rest || o->vision || moe_json_add_bool(j, "keep_vision", false)) && put_rules(j, o) &&
              (!*range || moe_json_add_str(j, "layers", range)) &&
              (!o->chooser || moe_json_add(j, "calibration", cJSON_Duplicate(o->chooser->options, 1)));
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

cJSON *moe_types_json(const struct moe_source *src, const uint8_t *type)
{
    int seen[MOE_ROLE_COUNT];

    for (int r = 0; r < MOE_ROLE_COUNT; r++) seen[r] = -1;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        if (type[i] == MOE_TYPE_LEFT_OUT) continue;
        int *s = &seen[src->tensors[i].role];
        *s = *s == -1 || *s == type[i] ? type[i] : MOE_DTYPE_COUNT;
    }
    cJSON *j = cJSON_CreateObject();
    bool ok = j != NULL;
    for (int r = 0; ok && r < MOE_ROLE_COUNT; r++)
        if (seen[r] >= 0)
            ok = moe_json_add_str(j, moe_role_word((enum moe_role)r),
                                  seen[r] == MOE_DTYPE_COUNT ? "mixed" : moe_dtype_name(seen[r]));
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

/* The object of a layer in the array `layers`, inserted in ascending order when it is not there yet. */
static cJSON *layer_row(cJSON *layers, int layer)
{
    cJSON *last = NULL;

    for (cJSON *l = layers->child; l; l = l->next) {
        last = l;
        if (cJSON_GetObjectItemCaseSensitive(l, "layer")->valueint == layer) return l;
    }
    cJSON *row = cJSON_CreateObject();
    if (!row || !moe_json_add_f64(row, "layer", layer)) {
        cJSON_Delete(row);
        return NULL;
    }
    int at = 0;
    for (cJSON *l = layers->child; last && l; l = l->next)
        at += cJSON_GetObjectItemCaseSensitive(l, "layer")->valueint < layer;
    cJSON_InsertItemInArray(layers, at, row);
    return row;
}

/* Rounds to six significant digits, so that reports do not carry the last bits of a sum. */
static double rounded(double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", v);
    return strtod(text, NULL);
}

static cJSON *errors_json(const cJSON *reports)
{
    double num = 0, den = 0;
    bool ok = true;
    cJSON *j = cJSON_CreateObject(), *layers = j ? moe_json_add_array(j, "layers") : NULL;

    if (!layers) {
        cJSON_Delete(j);
        return NULL;
    }
    for (const cJSON *u = reports->child; u; u = u->next) {
        const cJSON *report = cJSON_GetObjectItemCaseSensitive(u, "report");
        for (const cJSON *r = report ? report->child : NULL; r; r = r->next) {
            if (cJSON_GetArraySize(r) != 5) continue;
            double v[5];
            int i = 0;
            for (const cJSON *c = r->child; c; c = c->next) v[i++] = c->valuedouble;
            if (v[1] < 0 || v[1] >= MOE_ROLE_COUNT) continue;
            cJSON *row = layer_row(layers, (int)v[0]);
            ok = ok && row &&
                 moe_json_add_f64(row, moe_role_word((enum moe_role)v[1]),
                                  rounded(v[3] > 0 ? sqrt(v[2] / v[3]) : 0));
            num += v[2];
            den += v[3];
        }
    }
    if (ok && moe_json_add_f64(j, "total", rounded(den > 0 ? sqrt(num / den) : 0))) return j;
    cJSON_Delete(j);
    return NULL;
}

enum moe_code moe_quantization_json(const struct moe_source *src, const struct moe_rewrite_options *o,
                                    const cJSON *reports, cJSON **quantization, cJSON **relative_error,
                                    struct moe_err *err)
{
    bool any = false;

    *quantization = *relative_error = NULL;
    for (const cJSON *u = reports->child; u; u = u->next) {
        const cJSON *report = cJSON_GetObjectItemCaseSensitive(u, "report");
        any |= report && report->child;
    }
    const cJSON *old = src->container ? moe_json_get(src->container->manifest, "quantization") : NULL;
    if (!any) {
        if (old && !(*quantization = cJSON_Duplicate(old, 1)))
            return moe_fail(err, MOE_NOMEM, "no memory for the manifest");
        return MOE_OK;
    }
    cJSON *q = cJSON_CreateObject();
    *relative_error = errors_json(reports);
    const struct moe_code_chooser *c = o->chooser;
    if (q && *relative_error &&
        moe_json_add_str(q, "method", c ? c->method : moe_method_name(o->method)) &&
        moe_json_add_str(q, "quantize", moe_scope_name(o->scope)) && put_rules(q, o) &&
        moe_json_add_str(q, "input_scale", c ? "calibrated" : "uncalibrated") &&
        (!c || moe_json_add(q, "calibration", cJSON_Duplicate(c->options, 1))) &&
        moe_json_add(q, "relative_error", cJSON_Duplicate(*relative_error, 1)) &&
        (!cJSON_IsObject(old) || moe_json_add(q, "before", cJSON_Duplicate(old, 1)))) {
        *quantization = q;
        return MOE_OK;
    }
    cJSON_Delete(q);
    return moe_fail(err, MOE_NOMEM, "no memory for a report");
}

/* ---- parts ---- */

/* A copy of reports without notes.  Notes tell time and memory, so with them two runs of the same part would
 * not give the same bytes. */
static cJSON *without_notes(const cJSON *reports)
{
    cJSON *copy = cJSON_Duplicate(reports, 1);
    for (cJSON *u = copy ? copy->child : NULL; u; u = u->next) {
        cJSON *report = cJSON_GetObjectItemCaseSensitive(u, "report");
        for (cJSON *r = report ? report->child : NULL, *next; r; r = next) {
            next = r->next;
            if (is_note(r)) cJSON_Delete(cJSON_DetachItemViaPointer(report, r));
        }
    }
    return copy;
}

cJSON *moe_part_json(const struct moe_layer_range *layers, const cJSON *reports)
{
    cJSON *j = cJSON_CreateObject(),
          *range = cJSON_CreateIntArray((const int[]){ layers->first, layers->last }, 2),
          *copy = without_notes(reports);
    bool ok = moe_json_add(j, "layers", range) != NULL;
    if (moe_json_add(j, "reports", copy) && ok) return j;
    cJSON_Delete(j);
    return NULL;
}

/* The rows that a part reports for its dense unit, or for its other units. */
static cJSON *report_of(const struct moe_source *part, bool dense)
{
    cJSON *all = cJSON_CreateArray();
    const cJSON *reports = moe_json_get(moe_json_get(part->container->manifest, "part"), "reports");
    for (const cJSON *u = reports ? reports->child : NULL; all && u; u = u->next) {
        const cJSON *name = moe_json_get(u, "unit"), *rows = moe_json_get(u, "report");
        if (!cJSON_IsString(name) || !strcmp(name->valuestring, "dense") != dense) continue;
        for (const cJSON *r = rows ? rows->child : NULL; all && r; r = r->next)
            if (!moe_json_append(all, cJSON_Duplicate(r, 1))) {
                cJSON_Delete(all);
                all = NULL;
            }
    }
    return all;
}

/* The rows of all parts as one report, in the order of a run over all layers: those of dense.moe, first for
 * tensors outside the layers (layer -1), then by layer; then those of the experts.  The order matters because
 * the sums of the error are rounded in it. */
static cJSON *join_reports(const struct moe_source *src)
{
    cJSON *all = cJSON_CreateArray(),
          *rows = moe_json_add_array(moe_json_append(all, cJSON_CreateObject()), "report");
    bool ok = rows != NULL;

    for (int pass = 0; ok && pass < 3; pass++)
        for (int i = 0; ok && i < src->container->n_parts; i++) {
            cJSON *r = report_of(src->container->parts[i], pass < 2);
            ok = r != NULL;
            for (const cJSON *row = r ? r->child : NULL; ok && row; row = row->next) {
                bool of_model = cJSON_IsArray(row) && row->child && row->child->valuedouble < 0;
                if (pass == 2 || of_model == (pass == 0)) ok = moe_json_append(rows, cJSON_Duplicate(row, 1));
            }
            cJSON_Delete(r);
        }
    if (ok) return all;
    cJSON_Delete(all);
    return NULL;
}

enum moe_code moe_merged_quantization_json(const struct moe_source *src, cJSON **quantization,
                                           cJSON **relative_error, struct moe_err *err)
{
    const struct moe_container *c = src->container;
    const cJSON *from = NULL;

    *quantization = *relative_error = NULL;
    cJSON *reports = join_reports(src);
    if (!reports) return moe_fail(err, MOE_NOMEM, "no memory for a report");
    bool any = moe_json_get(reports->child, "report")->child;
    for (int i = 0; i < c->n_parts && !from; i++) { /* takes the first part that quantized, if any did */
        const cJSON *r = moe_json_get(moe_json_get(c->parts[i]->container->manifest, "part"), "reports");
        bool did = false;
        for (const cJSON *u = r ? r->child : NULL; u; u = u->next)
            did |= moe_json_get(u, "report") && moe_json_get(u, "report")->child;
        if (did || !any) from = c->parts[i]->container->manifest;
    }
    const cJSON *q = from ? moe_json_get(from, "quantization") : NULL;
    if (any) *relative_error = errors_json(reports);
    if (q) *quantization = cJSON_Duplicate(q, 1);
    cJSON *copy = any ? cJSON_Duplicate(*relative_error, 1) : NULL;
    bool ok = copy || !any;
    if (ok && cJSON_GetObjectItemCaseSensitive(*quantization, "relative_error"))
        ok = !any || moe_json_replace(*quantization, "relative_error", copy);
    else cJSON_Delete(copy);
    cJSON_Delete(reports);
    return (q && !*quantization) || !ok ? moe_fail(err, MOE_NOMEM, "no memory for a report") : MOE_OK;
}
