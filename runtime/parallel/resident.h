/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/resident.h - the part of a model that one rank maps: everything but routed
 * experts, and of these its own.
 *
 * Every file of the source gets its address range reserved whole, without access, and what the rank holds is
 * mapped into it, by whole
 * pages: so weights lie where descriptors say they do, experts come and go while the model is in use, and a
 * rank that touched what it does not hold would be stopped by the processor. */
#ifndef MOE_RUNTIME_PARALLEL_RESIDENT_H
#define MOE_RUNTIME_PARALLEL_RESIDENT_H

#include "model/model.h"
#include "runtime/plan/plan.h"

struct moe_resident {
    struct moe_source source;  /* as the whole one, but for files[].map: for moe_model_open */
    bool *held;                /* [layers, experts] */
    uint64_t mapped;           /* bytes mapped now (pages that two ranges share count twice) */
};

/* Maps what is not a routed expert.  `whole` must outlive the part; it need not be mapped. */
enum moe_code moe_resident_open(struct moe_resident **p, const struct moe_source *whole, struct moe_err *err);
void moe_resident_close(struct moe_resident **p); /* NULL-safe; nulls; the model that uses it is closed */

static inline bool moe_resident_holds(const struct moe_resident *p, int layer, int64_t expert)
{
    return p->held[layer * p->source.config.n_routed_experts + expert];
}

/* Map these experts of a layer (held [experts]; those that are mapped stay), and let the model,
 * unless NULL, see them.  What was mapped stays after a failure.  MOE_MISMATCH for one that was
 * not staged into the source. */
enum moe_code moe_resident_add(struct moe_resident *p, int layer, const bool *held, struct moe_model *m,
                               struct moe_err *err);
/* Unmap all experts of a layer but these; the model, unless NULL, forgets them.  Nobody
 * may be computing with them. */
void moe_resident_keep(struct moe_resident *p, int layer, const bool *held, struct moe_model *m);

#endif
