/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/calibrate.h - calibrates a model layer by layer while it is written.  A calibration is a
 * struct moe_code_chooser: moe_rewrite asks it for the codes of every tensor that becomes NVFP4.
 *
 * In each layer all tokens pass attention and the router.  Then the experts are quantized, each over the
 * tokens that chose it (quantize/rounding/mlp.h), as many at once as memory holds.  Then the tokens pass the
 * quantized experts, so that later layers are fitted to the inputs that the quantized model gives them.
 * Before the first layer, the sensitivity pass measures on some of the tokens how much errors of each layer's
 * output matter (quantize/passes/fisher.h).
 *
 * A run that resumes an interrupted one takes the tokens through the finished layers by their quantized
 * weights, without statistics. */
#ifndef MOE_QUANTIZE_CALIBRATE_CALIBRATE_H
#define MOE_QUANTIZE_CALIBRATE_CALIBRATE_H

#include "base/progress.h"
#include "model/rewrite/rewrite.h"
#include "quantize/rounding/mlp.h"

struct moe_calibration {
    const int32_t *tokens; int64_t n;   /* n tokens: all sequences, one after the other */
    int64_t sequence;                   /* tokens of a sequence; the last one may be shorter */
    struct moe_mlp_method method;
    int64_t fisher;                     /* tokens of the sensitivity pass; 0: none */
    uint64_t seed;                      /* of the labels that the sensitivity pass draws */
    const uint8_t *type;                /* the precision map [n_tensors] (model/precision.h) */
    bool upstream_source;               /* layers are fitted to the inputs that the source computes */
    /* bytes that the process's resident memory must not exceed; 0: half of what the machine has free */
    uint64_t memory;
    /* directory for hidden states that memory does not hold; NULL: none */
    const char *scratch;
    const struct moe_cancel *cancel;    /* ends the work early; NULL: nobody will */
};

/* What a run needs.  Memory and files are in bytes. */
struct moe_calibration_plan {
    /* memory <= limit.  If false, the other fields are those of the smallest run: one worker, and files where
     * there is a scratch directory. */
    bool fits;
    int workers;                        /* experts at once */
    bool in_files;                      /* hidden states are kept in files of the scratch directory */
    uint64_t limit;                     /* memory allowed */
    /* the peak of the process; files in the scratch directory; files beside the container while it is
     * written */
    uint64_t memory, scratch, partial;
    /* the least memory that will do, with hidden states in memory [0] or in files [1]; the size of these
     * files */
    uint64_t least[2], least_scratch;
    double work;                        /* floating-point operations, two for a multiply-add */
};

/* threads: those of the pool with which the run will go. */
void moe_calibrate_plan(const struct moe_source *src, const struct moe_calibration *o, int threads,
                        struct moe_calibration_plan *p);
/* MOE_NOMEM when the plan does not fit, with the options that would help. */
enum moe_code moe_calibrate_fits(const struct moe_calibration_plan *p, const struct moe_calibration *o,
                                 struct moe_err *err);

/* Seconds that the run's arithmetic takes on a machine of this speed (quantize/calibrate/speed.h), and its
 * reading and writing of hidden states in files.  Reading the source and writing the output are not
 * included. */
struct moe_speed;
double moe_calibrate_seconds(const struct moe_source *src, const struct moe_calibration *o,
                             const struct moe_calibration_plan *p, const struct moe_speed *s, int threads);
/* The mean number of tokens over which an expert is quantized, borrowed ones included. */
int64_t moe_calibrate_tokens_per_expert(const struct moe_source *src, const struct moe_calibration *o);

struct moe_calibrate;
/* o and p are copied.  What o points to, the source (which is mapped) and the pool must outlive *c.  progress
 * may be NULL.  *c is NULL on failure.  The memory of the plan is taken later, by the chooser's start(). */
enum moe_code moe_calibrate_open(struct moe_calibrate **c, struct moe_source *src,
                                 const struct moe_calibration *o, const struct moe_calibration_plan *p,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err);
void moe_calibrate_close(struct moe_calibrate **c);
/* Operations that this run has done, counted as in moe_calibration_plan.work; what earlier runs did is left
 * out. */
double moe_calibrate_flops(const struct moe_calibrate *c);
/* Sets ctx, workers and the functions of the chooser; the caller sets the other fields. */
void moe_calibrate_chooser(struct moe_calibrate *c, struct moe_code_chooser *chooser);

#endif
