/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan.h - an expert placement: which experts lie in the slots of which rank, layer by layer;
 * and the split of a batch over replicas.
 *
 * Such a placement is called a plan; docs/reference/placement.md describes its file, plan.json.  This header
 * is what a runtime needs: it reads a plan, checks it against the model, and for each batch divides every
 * expert's tokens among the ranks that hold it.  runtime/plan/plan-search.h finds plans.  A plan does not
 * change after it was made and checked, and any thread may read it. */
#ifndef MOE_RUNTIME_PLAN_PLAN_H
#define MOE_RUNTIME_PLAN_PLAN_H

#include "base/arena.h"
#include "base/cancel.h"
#include "base/hash.h"
#include "base/json.h"
#include "formats/config.h"
#include "formats/container/identity.h"

/* The members of plan.json that identify the model for which the plan was made. */
#define MOE_PLAN_ORIGIN "model_origin"
#define MOE_PLAN_WEIGHTS "model_weights"

/* The member of plan.json that lists the numbers of the model's layers for multi-token prediction. */
#define MOE_PLAN_PREDICTION "prediction_layers"

enum {
    MOE_PLAN_VERSION = 1,
    MOE_PLAN_RANKS_MAX = 4096,
    MOE_PLAN_EXPERTS_MAX = 65536,
    MOE_PLAN_TEXT_MAX = 256 << 20, /* bytes of a plan's file, at most */
};

/* One layer.  Every slot holds one copy of an expert, so there are `slots` copies.  Slots are numbered rank
 * by rank: rank r has slots [first[r], first[r + 1]).  Copies are numbered expert by expert: expert e has
 * copies [copy_first[e], copy_first[e + 1]), by ascending rank, no two on one rank. */
struct moe_plan_layer {
    int32_t layer;       /* its number in the model */
    int32_t slots;
    int32_t *first;      /* [ranks + 1] */
    int32_t *slot;       /* [slots] the expert in each slot */
    int32_t *copy_first; /* [experts + 1] */
    int32_t *copy_rank;  /* [slots] the rank of each copy */
    int32_t *copy_slot;  /* [slots] the slot of each copy */
};

struct moe_plan {
    int32_t ranks, experts;
    int32_t experts_per_token; /* 0: not known */
    int32_t ranks_per_node;    /* 0: all ranks are one node */
    int32_t survive;           /* how many ranks may be lost without losing an expert, as was asked for */
    int32_t n_layers;
    /* the model's layers for multi-token prediction, which the plan does not place: the number of the first
     * one, and how many there are */
    int32_t prediction, n_prediction;
    /* the checkpoint for which the plan was made (moe_source_origin); all zeros: not known */
    struct moe_identity model;
    bool foreign;         /* it was read from another engine's file, which may have rows of dense layers */
    const char *made_for; /* the model's path as plan.json has it; NULL: plan.json has none */
    struct moe_plan_layer *layers; /* ascending */
    struct moe_arena arena;
};

/* Makes a plan whose slots are still to be filled: layers with the numbers layers [n_layers], ascending, and
 * `slots` slots each, which are divided among the ranks as evenly as possible (the first ranks have one
 * more).  The caller fills layers[i].slot and then calls moe_plan_index.  *p is NULL on failure. */
enum moe_code moe_plan_new(struct moe_plan **p, int32_t ranks, int32_t experts, int32_t n_layers,
                           const int32_t *layers, int32_t slots, struct moe_err *err);
/* Computes copy_first, copy_rank and copy_slot of every layer from its slots.  MOE_CORRUPT, naming `file`,
 * layer, rank and expert, when an expert is out of range, twice on a rank, or on no rank. */
enum moe_code moe_plan_index(struct moe_plan *p, const char *file, struct moe_err *err);
void moe_plan_free(struct moe_plan **p); /* NULL-safe; nulls */

/* Makes the plan that a runtime uses when it is given none: expert e of every MoE layer lies on rank
 * floor(e x ranks / experts), and there are no replicas.  *p is NULL on failure. */
enum moe_code moe_plan_trivial(struct moe_plan **p, const struct moe_config *c, int32_t ranks,
                               struct moe_err *err);

/* Read plan.json, TensorRT-LLM's moe_load_balancer.yaml, or SGLang's {"physical_to_logical_map"}.  The files
 * of these two engines do not say for how many ranks they are: `ranks` does (0: not known, MOE_USAGE), and
 * their slots are divided evenly.  SGLang's layers have no numbers and are numbered from 0.  MOE_CORRUPT for
 * anything that is not a whole plan.  *p is NULL on failure. */
enum moe_code moe_plan_read(struct moe_plan **p, const char *path, int32_t ranks,
                            const struct moe_cancel *cancel, struct moe_err *err);
enum moe_code moe_plan_parse(struct moe_plan **p, const char *text, size_t bytes, const char *file,
                             int32_t ranks, struct moe_err *err);

/* MOE_CORRUPT when a JSON file, whose root this is, is no plan in any form; the message says what it is. */
enum moe_code moe_plan_check_json(const cJSON *root, const char *file, struct moe_err *err);

/* Binds the plan to a model: removes the rows that another engine's file has for the model's dense layers,
 * and checks that the plan fits.  MOE_MISMATCH when the plan is for another number of ranks (ranks 0: any),
 * experts, experts per token, or for other layers than this model has. */
enum moe_code moe_plan_bind(struct moe_plan *p, const struct moe_config *c, int32_t ranks, const char *file,
                            struct moe_err *err);

/* A digest of the ranks and slots of all layers, by which plans are compared; zeros when p is NULL. */
struct moe_hash128 moe_plan_digest(const struct moe_plan *p);

/* The plan's row for the model's layer `layer`; NULL when there is none, since that layer has no experts. */
const struct moe_plan_layer *moe_plan_find(const struct moe_plan *p, int32_t layer);

/* Whether this rank holds expert e. */
bool moe_plan_holds(const struct moe_plan_layer *l, int32_t rank, int32_t e);
/* How many copies of expert e are on living ranks.  dead [ranks]; NULL: all ranks live. */
int32_t moe_plan_copies(const struct moe_plan_layer *l, int32_t e, const bool *dead);
/* How many experts have no copy on a living rank; the first `cap` of them are stored in out (may be NULL). */
int32_t moe_plan_lost(const struct moe_plan *p, const struct moe_plan_layer *l, const bool *dead,
                      int32_t *out, int32_t cap);

/* MOE_MISMATCH, naming expert, layer and rank, when src is a staged part of a container and lacks an
 * expert that one of the ranks [first, last] of the plan needs.  Any other source has all experts. */
enum moe_code moe_plan_check_staged(const struct moe_plan *p, int32_t first, int32_t last,
                                    const struct moe_source *src, struct moe_err *err);

/* ---- the split of one batch ----
 *
 * tokens[e] tokens chose expert e.  The split gives copy c of e share[c] of them, so that the shares of an
 * expert add up to its tokens and a dead rank gets none: rank r then computes load[r] = sum of the shares
 * of its copies.  All numbers are whole tokens.  To decide which token goes to which copy, the tokens of an
 * expert are numbered in one order that all ranks know (by source rank, then by position); token i goes to
 * copy moe_split_copy(l, share, e, i).  Equal input gives equal output on every rank, so ranks that know the
 * counts of all ranks need not exchange messages about the split. */
struct moe_split; /* scratch memory; for one thread at a time */

struct moe_split_result {
    int64_t load_max;   /* tokens of the fullest rank */
    /* how many experts have tokens and no copy left: their shares are 0, and their tokens are in no load */
    int32_t lost;
    /* moe_split_best proves its split by a cut: cut_ranks ranks, marked in `cut`, which hold all copies of
     * experts that have cut_tokens tokens together.  So in every split one of these ranks computes at least
     * ceil(cut_tokens / cut_ranks) tokens, and that is load_max. */
    int32_t cut_ranks;
    int64_t cut_tokens;
};

/* Opens scratch memory that is large enough for every layer of the plan.  *s is NULL on failure. */
enum moe_code moe_split_open(struct moe_split **s, const struct moe_plan *p, struct moe_err *err);
void moe_split_close(struct moe_split **s); /* NULL-safe; nulls */

/* Computes a split with the least largest load, by maximum flow (plan-split.c); it takes some ten
 * microseconds at 384 experts and 72 ranks.  tokens [experts]: each >= 0, their sum below 2^62.  dead
 * [ranks]; NULL: all ranks live.  Outputs: share [slots], and cut [ranks] unless it is NULL. */
struct moe_split_result moe_split_best(struct moe_split *s, const struct moe_plan_layer *l,
                                       const int64_t *tokens, const bool *dead, int64_t *share, bool *cut);
/* Divides the tokens of each expert equally among its living copies, of which the first get one token more
 * where that is needed.  It proves nothing: cut_ranks is 0. */
struct moe_split_result moe_split_equal(struct moe_split *s, const struct moe_plan_layer *l,
                                        const int64_t *tokens, const bool *dead, int64_t *share);
/* The copy of expert e that computes its token number i, 0 <= i < tokens[e]: an index into copy_rank and
 * copy_slot; -1 when the expert is lost. */
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
