/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/resident.h - the resident experts of one rank: this maps everything of a model but its
 * routed experts, and of these only those that the rank holds.
 *
 * For every file of the source it reserves the whole address range, without access, and maps into it, by
 * whole pages, what the rank holds.  So weights lie where the descriptors say, experts are mapped and
 * unmapped while the model is in use, and an access to an expert that is not resident ends the process.
 *
 * One thread at a time may call these functions, and none while another one computes with the experts
 * concerned. */
#ifndef MOE_RUNTIME_PARALLEL_RESIDENT_H
#define MOE_RUNTIME_PARALLEL_RESIDENT_H

#include "model/model.h"
#include "runtime/plan/plan.h"

struct moe_resident {
    struct moe_source source;  /* a copy of the whole source with other files[].map, for moe_model_open */
    bool *held;                /* [layers, experts] this expert is resident */
    uint64_t mapped;           /* bytes mapped now (pages that two ranges share count twice) */
};

/* Maps what is not a routed expert.  The caller closes `whole`, which need not be mapped, after *p.  Fails
 * with MOE_NOMEM or MOE_IO; *p is then NULL. */
enum moe_code moe_resident_open(struct moe_resident **p, const struct moe_source *whole, struct moe_err *err);
void moe_resident_close(struct moe_resident **p); /* NULL-safe; nulls; after the model that uses it */

static inline bool moe_resident_holds(const struct moe_resident *p, int layer, int64_t expert)
{
    return p->held[layer * p->source.config.n_routed_experts + expert];
}

/* Maps the experts held [experts] of a layer besides those that are mapped, and sets their weights in *m
 * (may be NULL).  After a failure some of them may be mapped.  MOE_MISMATCH for an expert that was not
 * staged into the source. */
enum moe_code moe_resident_add(struct moe_resident *p, int layer, const bool *held, struct moe_model *m,
                               struct moe_err *err);
/* Unmaps all experts of a layer but held [experts], which stay, and clears their weights in *m (may be
 * NULL). */
void moe_resident_keep(struct moe_resident *p, int layer, const bool *held, struct moe_model *m);

#endif
