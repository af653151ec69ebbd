/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan-report.h"

void moe_report_layers(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f, double expert_bytes)
{
    moe_text_add(t, "%d layers of %d experts in %d slots on %d ranks\n", (int)f->n_layers, (int)task->stats->experts, (int)task->slots, (int)task->ranks);
    moe_text_add(t, "  layer    load max   / mean  bound           gap %%  min-cut/mean  after loss/mean  lost  active  noise  moved\n");
    for (int32_t i = 0; i < f->n_layers; i++) {
        const struct moe_plan_proof *p = &f->layers[i];
        double mean = p->load_mean > 0 ? p->load_mean : 1;
        moe_text_add(t, "  %5d %11.6g %8.4f  %-10s %9.4f %13.4f %16.4f %5d %7.2f %6.3f %6d\n", (int)p->layer, p->load_max, p->load_max / mean, moe_bound_name(p->bounds.kind), 100 * p->gap,
               p->split / mean, p->load_max_after_loss / mean, (int)p->lost_worst, p->activated_max, p->noise_floor, (int)p->moves);
    }
    moe_text_add(t, "  total %11.6g %8.4f  %-10s %9.4f %13.4f %16.4f %5d\n", f->load_max, f->load_mean > 0 ? f->load_max / f->load_mean : 1, "", 100 * f->gap,
           f->load_mean > 0 ? f->split / f->load_mean : 1, f->load_mean > 0 ? f->load_max_after_loss / f->load_mean : 1, (int)f->lost_worst);
    if (task->from) moe_text_add(t, "  %lld of %lld slots change, %.3f GB to move\n", (long long)f->moves, (long long)f->n_layers * task->slots, (double)f->moves * expert_bytes / 1e9);
}

void moe_report_steps(struct moe_text *t, const struct moe_gpu *g, int64_t batch, int64_t context, int64_t prefill, const char *kv_type)
{
    moe_text_add(t, "\nModel of memory and time on %s (not a measurement): %lld sequences a rank, %lld tokens of context, %s cache; prefill of %lld tokens\n", g->name, (long long)batch,
           (long long)context, kv_type, (long long)prefill);
    moe_text_add(t, "  ranks slots | experts  others  cache GB   seqs | moe attn shared cache disp comb us/layer | decode ms  tok/s/rank tok/s/user | prefill tok/s/rank\n");
}

void moe_report_step(struct moe_text *t, const struct moe_step *s, int32_t ranks, int32_t slots)
{
    moe_text_add(t, "  %5d %5d | %7.1f %7.1f %8.1f %8.0f | %5.0f %4.0f %5.0f %5.0f %4.0f %4.0f          | %8.2f %10.0f %10.1f | %10.0f%s\n", (int)ranks, (int)slots, s->routed / 1e9,
           s->replicated / 1e9, s->cache / 1e9, s->sequences, s->moe * 1e6, s->attention * 1e6, s->shared * 1e6, s->kv * 1e6, s->dispatch * 1e6,
           s->combine * 1e6, s->decode * 1e3, s->tokens_per_second, s->tokens_per_second_user, s->prefill_tokens_per_second, s->cache < 0 ? "  does not fit" : "");
}
