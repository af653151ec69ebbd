/* SPDX-License-Identifier: Apache-2.0 */
/* Writes plans as other engines read them. */
#include "base/buffer.h"
#include "base/stream.h"
#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-out.h"

#include <string.h>

static enum moe_code even_slots(const struct moe_plan *p, const char *engine, struct moe_err *err)
{
    for (int32_t i = 0; i < p->n_layers; i++)
        for (int32_t r = 0; r < p->ranks; r++)
            if (p->layers[i].first[r + 1] - p->layers[i].first[r] != p->layers[i].slots / p->ranks ||
                p->layers[i].slots % p->ranks)
                return moe_fail(err, MOE_UNSUPPORTED,
                                "%s wants as many slots on each rank, layer %d has %d on %d ranks (plan with "
                                "--slots a multiple of the ranks)",
                                engine, (int)p->layers[i].layer, (int)p->layers[i].slots, (int)p->ranks);
    return MOE_OK;
}

/* Adds the experts in the slots of a layer; l NULL: experts in order. */
static void add_slots(struct moe_buffer *t, const struct moe_plan_layer *l, int32_t slots, int32_t experts,
                      const char *comma)
{
    for (int32_t k = 0; k < slots; k++)
        moe_buffer_printf(t, k ? "%s%d" : "%.0s%d", comma, (int)(l ? l->slot[k] : k % experts));
}

enum moe_code moe_plan_export_sglang(const struct moe_plan *p, char **text, struct moe_err *err)
{
    struct moe_buffer t = { 0 };
    MOE_TRY(even_slots(p, "SGLang", err));
    int32_t last = p->layers[p->n_layers - 1].layer;
    moe_buffer_printf(&t, "{\"physical_to_logical_map\":[\n");
    for (int32_t l = 0; l <= last; l++) {
        moe_buffer_printf(&t, "[");
        add_slots(&t, moe_plan_find(p, l), p->layers[0].slots, p->experts, ",");
        moe_buffer_printf(&t, l < last ? "],\n" : "]\n");
    }
    moe_buffer_printf(&t, "]}\n");
    return moe_buffer_finish(&t, text, err);
}

enum moe_code moe_plan_export_trtllm(const struct moe_plan *p, char **text, struct moe_err *err)
{
    struct moe_buffer t = { 0 };
    MOE_TRY(even_slots(p, "TensorRT-LLM", err));
    moe_buffer_printf(&t, "num_slots: %d\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n",
                      (int)p->layers[0].slots);
    for (int32_t i = 0; i < p->n_layers; i++) {
        moe_buffer_printf(&t, "  %d: [", (int)p->layers[i].layer);
        add_slots(&t, &p->layers[i], p->layers[i].slots, p->experts, ", ");
        moe_buffer_printf(&t, "]\n");
    }
    for (int32_t i = 0; i < p->n_prediction; i++) {
        if (moe_plan_find(p, p->prediction + i)) continue;
        moe_buffer_printf(&t, "  %d: [", (int)(p->prediction + i));
        add_slots(&t, NULL, p->layers[0].slots, p->experts, ", ");
        moe_buffer_printf(&t, "]\n");
    }
    return moe_buffer_finish(&t, text, err);
}

bool moe_engine_find(const char *name, enum moe_engine *engine)
{
    *engine = strcmp(name, "sglang") ? MOE_ENGINE_TRTLLM : MOE_ENGINE_SGLANG;
    return *engine == MOE_ENGINE_SGLANG || !strcmp(name, "tensorrt-llm");
}

static enum moe_code fit_model(struct moe_plan *p, const char *path, const char *file, struct moe_err *err)
{
    struct moe_source *src;
    MOE_TRY(moe_plan_open_model(&src, path, err));
    const struct moe_config *c = &src->config;
    enum moe_code code = moe_plan_bind(p, c, 0, file, err);
    if (code == MOE_OK) {
        p->prediction = (int32_t)c->num_hidden_layers;
        p->n_prediction = (int32_t)c->num_nextn_predict_layers;
    }
    moe_source_close(&src);
    return code;
}

static enum moe_code convert(struct moe_plan_exported *out, const struct moe_plan_export *q,
                             struct moe_plan *p, struct moe_err *err)
{
    const char *name = moe_stream_name(q->plan);
    bool sglang = q->engine == MOE_ENGINE_SGLANG;
    MOE_TRY(moe_plan_check_ranks(p, q->ranks, name, err));
    if (q->model) MOE_TRY(fit_model(p, q->model, name, err));
    out->unfitted = !q->model && p->foreign && !sglang;
    out->prediction = p->prediction;
    out->n_prediction = p->n_prediction;
    return sglang ? moe_plan_export_sglang(p, &out->text, err) : moe_plan_export_trtllm(p, &out->text, err);
}

enum moe_code moe_plan_export(struct moe_plan_exported *out, const struct moe_plan_export *q,
                              struct moe_err *err)
{
    struct moe_plan *p;
    *out = (struct moe_plan_exported){ 0 };
    MOE_TRY(moe_plan_read(&p, q->plan, q->ranks, q->cancel, err));
    enum moe_code code = convert(out, q, p, err);
    moe_plan_free(&p);
    return code;
}
