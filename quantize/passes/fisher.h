/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/fisher.h - the sensitivity pass: how much an error in a layer's output changes the model's
 * answer, as the Fisher information of the hidden state h_l after each layer l,
 *
 *     F_l = sum over tokens of g g^T,   g = d(-log p(y)) / d h_l,   y drawn from the model's own p,
 *
 * where g includes the gradients of all later positions of the sequence.  For a small change e of h_l, to
 * second order, KL(p || p') = e^T F_l e / 2 (per token, on average), so F_l is the output Hessian of that
 * layer's projections.
 *
 * The pass goes once forward over the source, keeping the states before every layer, and once backward;
 * weights are read twice. */
#ifndef MOE_QUANTIZE_PASSES_FISHER_H
#define MOE_QUANTIZE_PASSES_FISHER_H

#include "quantize/rounding/output-hessian.h"
#include "quantize/passes/walk.h"
#include "quantize/passes/work.h"

struct moe_fisher {
    const int32_t *tokens; /* [n] of all sequences */
    int64_t n;
    int64_t sequence;      /* tokens of a sequence */
    uint64_t seed;         /* of the drawn labels y */
    const struct moe_cancel *cancel; /* ends the pass early; NULL: nobody will */
};

/* Bytes of memory that the pass takes beside what the process holds already, and of files of hidden
 * states. */
void moe_fisher_estimate(const struct moe_source *src, const struct moe_fisher *o, bool in_files, int threads,
                         uint64_t *memory, uint64_t *files);

/* Writes F of every layer with experts into `dir`, one file each, which is whole and durable once it is
 * there.  resume_layer: what moe_fisher_resume_layer has given.  If it is not -1, the files of later layers
 * stay, and the pass goes on from the gradients of the earlier run (quantize/passes/gradient.h): it goes
 * forward through the layers before them, then backward.  states: a directory for the hidden states; NULL:
 * memory.  meter counts the operations of moe_work_sensitivity. */
enum moe_code moe_fisher_run(struct moe_source *src, const struct moe_fisher *o, const char *dir,
                             int resume_layer, const char *states, struct moe_pool *pool,
                             struct moe_meter *meter, struct moe_err *err);

/* *complete: the files of all layers are in `dir` and undamaged: each is read and its checksum compared. */
enum moe_code moe_fisher_complete(const struct moe_source *src, const char *dir,
                                  const struct moe_cancel *cancel, bool *complete, struct moe_err *err);

/* *layer: the layer after which an earlier run left its gradients, if F of all later layers is there;
 * else -1. */
enum moe_code moe_fisher_resume_layer(const struct moe_source *src, const struct moe_fisher *o,
                                      const char *dir, int *layer, struct moe_err *err);

/* The number of operations of the pass that need not be done again if moe_fisher_resume_layer has given
 * `layer`. */
double moe_fisher_done_work(const struct moe_source *src, const struct moe_fisher *o, int layer);

/* Reads F of a layer into m->hessian.h [k, k], where k is the hidden size. */
enum moe_code moe_fisher_read(const char *dir, int layer, struct moe_output_hessian *m, struct moe_err *err);

#endif
