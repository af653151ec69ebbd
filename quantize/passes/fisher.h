/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/fisher.h - what matters of a layer's output to the model's answer: the Fisher
 * information of the hidden state after it.
 *
 *     F_l = sum over tokens of g g^T,   g = d(-log p(y)) / d h_l,   y drawn from the model's own p,
 *
 * gradients of all later positions included.  To second order KL(p || p') of a small change e of h_l is e^T
 * F_l e / 2 (per token, on average), so F_l is the Hessian by which errors of that layer's projections
 * should be small.  One pass forward over the source, which keeps the states before every layer, and one
 * backward; weights are read twice. */
#ifndef MOE_QUANTIZE_PASSES_FISHER_H
#define MOE_QUANTIZE_PASSES_FISHER_H

#include "quantize/rounding/output-hessian.h"
#include "quantize/passes/walk.h"
#include "quantize/passes/work.h"

struct moe_fisher {
    const int32_t *tokens; int64_t n;   /* of all sequences */
    int64_t sequence;
    uint64_t seed;                      /* of the drawn labels */
    const struct moe_cancel *cancel;    /* ends the pass early; NULL: nobody will */
};

/* Bytes held besides what the process holds now, and of files of hidden states. */
void moe_fisher_estimate(const struct moe_source *src, const struct moe_fisher *o, bool in_files, int threads,
                         uint64_t *memory, uint64_t *files);

/* Write F of every layer with experts into `dir`, a file each, durable once there.  reached: as
 * moe_fisher_reached has it; what is there of later layers stays, and the pass goes on where the earlier one
 * was (quantize/passes/gradient.h): forward through the layers before, then back.  states: a directory for
 * the hidden states; NULL: memory.  meter: counts moe_work_sensitivity. */
enum moe_code moe_fisher_run(struct moe_source *src, const struct moe_fisher *o, const char *dir, int reached,
                             const char *states, struct moe_pool *pool, struct moe_meter *meter,
                             struct moe_err *err);
/* Whether all of them are there already, as they were written: each file has a
 * checksum, and is read for this. */
enum moe_code moe_fisher_there(const struct moe_source *src, const char *dir,
                               const struct moe_cancel *cancel, bool *there, struct moe_err *err);

/* The layer after which an earlier run's gradients are known, F of all later ones being there; -1: none.
 * Operations that then need not be done. */
enum moe_code moe_fisher_reached(const struct moe_source *src, const struct moe_fisher *o, const char *dir,
                                 int *layer, struct moe_err *err);
double moe_fisher_known(const struct moe_source *src, const struct moe_fisher *o, int layer);

/* F of a layer into m->hessian.h (k = hidden size). */
enum moe_code moe_fisher_read(const char *dir, int layer, struct moe_output_hessian *m, struct moe_err *err);

#endif
