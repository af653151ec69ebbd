/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/calibrate.h - a model calibrated layer by layer while it is written
 * (model/rewrite/rewrite.h moe_coder).
 *
 * For each layer: attention over all tokens, the router, then the experts, each quantized over the tokens
 * that chose it (quantize/rounding/mlp.h), as many at once as memory holds; then the states go on through
 * the quantized weights, so that later layers are fitted to what they will see.  Before all that, once, a
 * pass over some of the tokens says what of each layer's output matters (quantize/passes/fisher.h).
 *
 * An interrupted run goes through the finished layers again with their quantized
 * weights, without statistics. */
#ifndef MOE_QUANTIZE_CALIBRATE_CALIBRATE_H
#define MOE_QUANTIZE_CALIBRATE_CALIBRATE_H

#include "base/progress.h"
#include "model/rewrite/rewrite.h"
#include "quantize/rounding/mlp.h"

struct moe_calibration {
    const int32_t *tokens; int64_t n;   /* of all sequences, one after the other */
    int64_t sequence;                   /* tokens of a sequence; the last one may be shorter */
    struct moe_mlp_method method;
    int64_t fisher;                     /* tokens of the sensitivity pass; 0: none */
    uint64_t seed;                      /* of the labels drawn in it */
    const uint8_t *type;                /* the precision map [n_tensors] (model/precision.h) */
    bool upstream_source;               /* later layers see what the source computes */
    /* bytes of peak_rss to stay below; 0: half of what the machine has free */
    uint64_t memory;
    /* directory for hidden states that memory does not hold; NULL: none */
    const char *scratch;
    const struct moe_cancel *cancel;    /* ends the work early; NULL: nobody will */
};

/* What a run will take. */
struct moe_calibration_plan {
    /* ... in `limit`; if not, memory and scratch are those of the run that comes nearest */
    bool fits;
    int workers;                        /* experts at once */
    bool in_files;                      /* hidden states go to scratch */
    uint64_t limit;                     /* bytes of memory allowed */
    /* bytes: peak, files in scratch, files beside the container while it is written */
    uint64_t memory, scratch, partial;
    /* the least memory that will do: with hidden states in memory; in files, of so many bytes */
    uint64_t least[2], least_scratch;
    double work;                        /* floating-point operations, two for a multiply-add */
};

void moe_calibrate_plan(const struct moe_source *src, const struct moe_calibration *o, int threads,
                        struct moe_calibration_plan *p);
/* MOE_NOMEM when it does not fit memory, in one sentence that names what would do. */
enum moe_code moe_calibrate_fits(const struct moe_calibration_plan *p, const struct moe_calibration *o,
                                 struct moe_err *err);

/* Seconds of its arithmetic, and of rows of hidden states in files, on a machine of this speed
 * (quantize/calibrate/speed.h); tokens that an expert sees on average, those that it borrows included. */
struct moe_speed;
double moe_calibrate_seconds(const struct moe_source *src, const struct moe_calibration *o,
                             const struct moe_calibration_plan *p, const struct moe_speed *s, int threads);
int64_t moe_calibrate_each(const struct moe_source *src, const struct moe_calibration *o);

struct moe_calibrate;
/* `o` is copied, what it points to must stay, as must the source, which is mapped.  Memory is taken
 * when the first unit starts. */
enum moe_code moe_calibrate_open(struct moe_calibrate **c, struct moe_source *src,
                                 const struct moe_calibration *o, const struct moe_calibration_plan *p,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err);
void moe_calibrate_close(struct moe_calibrate **c);
/* Operations that this run has done, as moe_calibration_plan counts them. */
double moe_calibrate_flops(const struct moe_calibrate *c);
/* Fills ctx, workers and the functions; method and options are the caller's. */
void moe_calibrate_coder(struct moe_calibrate *c, struct moe_coder *coder);

#endif
