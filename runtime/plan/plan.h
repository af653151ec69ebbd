/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan.h - an expert placement: which experts lie in the slots of which rank, layer by layer;
 * and the split of a batch over replicas.
 *
 * The file plan.json (docs/reference/placement.md).  This header is what a runtime needs: read a plan,
 * check it against the model, and for each batch divide every expert's tokens among the ranks that hold it.
 * How plans are found is runtime/plan/plan-search.h.  A plan is immutable after it is made and safe from
 * any thread. */
#ifndef MOE_RUNTIME_PLAN_PLAN_H
#define MOE_RUNTIME_PLAN_PLAN_H

#include "base/arena.h"
#include "base/cancel.h"
#include "base/hash.h"
#include "base/json.h"
#include "formats/config.h"
#include "formats/container/identity.h"

/* Which model a plan was made for, in plan.json. */
#define MOE_PLAN_ORIGIN "model_origin"
#define MOE_PLAN_WEIGHTS "model_weights"

/* The numbers of the model's layers for multi-token prediction, in plan.json. */
#define MOE_PLAN_PREDICTION "prediction_layers"

enum {
    MOE_PLAN_VERSION = 1,
    MOE_PLAN_RANKS_MAX = 4096,
    MOE_PLAN_EXPERTS_MAX = 65536,
    MOE_PLAN_TEXT_MAX = 256 << 20, /* bytes of a file that are read as a plan */
};

/* One layer.  Slots are numbered through all ranks, copies through all experts; both count to `slots`.
 * Rank r has slots [first[r], first[r + 1]); expert e has copies [copy_first[e], copy_first[e + 1]), by
 * ascending rank, no two on one rank. */
struct moe_plan_layer {
    int32_t layer;       /* its number in the model */
    int32_t slots;
    int32_t *first;      /* [ranks + 1] */
    int32_t *slot;       /* [slots] the expert that lies there */
    int32_t *copy_first; /* [experts + 1] */
    int32_t *copy_rank;  /* [slots] */
    int32_t *copy_slot;  /* [slots] */
};

struct moe_plan {
    int32_t ranks, experts;
    int32_t experts_per_token; /* 0: not told */
    int32_t ranks_per_node;    /* 0: all in one */
    int32_t survive;           /* ranks that may be lost without losing an expert: what was asked for */
    int32_t n_layers;
    /* the first of the layers for multi-token prediction, which are in no row, and how many there are */
    int32_t prediction, n_prediction;
    struct moe_identity model; /* the checkpoint that it was made for (moe_source_origin); all zeros: not
                                  told */
    bool foreign;         /* from an engine's file, which may have rows of layers without experts */
    const char *made_for; /* the model's path as plan.json says it; NULL: it does not */
    struct moe_plan_layer *layers; /* ascending */
    struct moe_arena arena;
};

/* A plan to be filled in: `layers` numbered layers with `slots` slots each, shared out over ranks as
 * evenly as can be, the first ranks having one more.  Fill layers[i].slot, then moe_plan_index.
 * Nothing is owned on failure. */
enum moe_code moe_plan_new(struct moe_plan **p, int32_t ranks, int32_t experts, int32_t n_layers,
                           const int32_t *layers, int32_t slots, struct moe_err *err);
/* The copies from the slots.  MOE_CORRUPT, naming `file`, layer, rank and expert: one out of range,
 * twice on a rank, or nowhere. */
enum moe_code moe_plan_index(struct moe_plan *p, const char *file, struct moe_err *err);
void moe_plan_free(struct moe_plan **p); /* NULL-safe; nulls */

/* Expert e of every MoE layer on rank floor(e ranks / experts), no replicas: what a
 * runtime does without a plan. */
enum moe_code moe_plan_trivial(struct moe_plan **p, const struct moe_config *c, int32_t ranks,
                               struct moe_err *err);

/* Read plan.json; or, given `ranks` (0: not known), TensorRT-LLM's moe_load_balancer.yaml or SGLang's
 * {"physical_to_logical_map"}, whose slots are shared out evenly.  Layers without numbers (SGLang) are
 * numbered from 0.  MOE_CORRUPT for anything that is not a whole plan. */
enum moe_code moe_plan_read(struct moe_plan **p, const char *path, int32_t ranks,
                            const struct moe_cancel *cancel, struct moe_err *err);
enum moe_code moe_plan_parse(struct moe_plan **p, const char *text, size_t bytes, const char *file,
                             int32_t ranks, struct moe_err *err);

/* MOE_CORRUPT, in a sentence that says what it is, when a JSON file is no plan in any form. */
enum moe_code moe_plan_is_one(const cJSON *root, const char *file, struct moe_err *err);

/* Does it belong to this model and this many ranks (0: any)?  MOE_MISMATCH when experts, experts per token or
 * layers are others.  Rows that an engine's file has of the model's dense layers are taken out. */
enum moe_code moe_plan_fits(struct moe_plan *p, const struct moe_config *c, int32_t ranks, const char *file,
                            struct moe_err *err);

/* Which plan it is, by its slots alone.  NULL: no plan. */
struct moe_hash128 moe_plan_digest(const struct moe_plan *p);

/* NULL when the model's layer has no experts. */
const struct moe_plan_layer *moe_plan_find(const struct moe_plan *p, int32_t layer);

/* Does this rank hold expert e? */
bool moe_plan_holds(const struct moe_plan_layer *l, int32_t rank, int32_t e);
/* Copies of expert e that are left when dead[rank] (NULL: none dead). */
int32_t moe_plan_copies(const struct moe_plan_layer *l, int32_t e, const bool *dead);
/* Experts without a copy left; up to `cap` of them in out (may be NULL). */
int32_t moe_plan_lost(const struct moe_plan *p, const struct moe_plan_layer *l, const bool *dead,
                      int32_t *out, int32_t cap);

/* MOE_MISMATCH, naming expert, layer and rank, when ranks [first, last] of the plan need an expert that was
 * not staged into `whole`, a staged part; what is no part lacks nothing. */
enum moe_code moe_plan_check_staged(const struct moe_plan *p, int32_t first, int32_t last,
                                    const struct moe_source *whole, struct moe_err *err);

/* ---- the split of one batch ----
 *
 * tokens[e] tokens chose expert e.  The split gives copy c of e share[c] of them, so that the shares of an
 * expert add up to its tokens and a dead rank gets none: rank r then computes load[r] = sum of the shares
 * of its copies.  Everything is whole tokens.  Which token goes where: number the tokens of an expert in
 * one order that all ranks know (by source rank, then by position); token i goes to the copy
 * moe_split_copy(l, share, e, i) says.  Equal input gives equal output on every rank, so ranks that know
 * the counts of all need not talk. */
struct moe_split; /* scratch memory; for one thread at a time */

struct moe_split_result {
    int64_t load_max;   /* tokens of the fullest rank */
    /* experts with tokens and no copy left: their shares are 0, their tokens are in no load */
    int32_t lost;
    /* moe_split_best: the proof.  The ranks marked in `cut` hold every copy of experts with
     * cut_tokens tokens together, */
    int32_t cut_ranks;
    /* so one of them carries at least ceil(cut_tokens / cut_ranks), and that is
     * load_max: no split is better */
    int64_t cut_tokens;
};

/* Large enough for every layer of the plan. */
enum moe_code moe_split_open(struct moe_split **s, const struct moe_plan *p, struct moe_err *err);
void moe_split_close(struct moe_split **s); /* NULL-safe; nulls */

/* The best split there is: the least largest load, by maximum flow (see plan-split.c); some ten microseconds
 * at 384 experts and 72 ranks.  tokens [experts] each >= 0, all together below 2^62; dead [ranks] or NULL;
 * share [slots] out; cut [ranks] out, or NULL. */
struct moe_split_result moe_split_best(struct moe_split *s, const struct moe_plan_layer *l,
                                       const int64_t *tokens, const bool *dead, int64_t *share, bool *cut);
/* Equal shares, the first copies one token more: the fallback that needs no thought.
 * No proof: cut_ranks is 0. */
struct moe_split_result moe_split_equal(struct moe_split *s, const struct moe_plan_layer *l,
                                        const int64_t *tokens, const bool *dead, int64_t *share);
/* The copy of expert e for its token number i, 0 <= i < tokens[e]: an index into copy_rank and
 * copy_slot.  -1 when it is lost. */
static inline int32_t moe_split_copy(const struct moe_plan_layer *l, const int64_t *share, int32_t e,
                                     int64_t i)
{
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) {
        if (i < share[c]) return c;
        i -= share[c];
    }
    return -1;
}
/* Tokens of each rank under a split: load [ranks]. */
void moe_split_loads(const struct moe_plan *p, const struct moe_plan_layer *l, const int64_t *share,
                     int64_t *load);

#endif
