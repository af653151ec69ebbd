/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize.h - quantizes a model, or estimates what that would take.
 *
 *     struct moe_quantize_request ask = MOE_QUANTIZE_REQUEST;
 *     struct moe_quantizing z;
 *     ask.out = "k2-nvfp4.moe";
 *     code = moe_quantizing_begin(&z, &ask, err);
 *     if (code == MOE_OK) code = moe_quantizing_open(&z, "k2.moe", err);
 *     if (code == MOE_OK) code = moe_quantizing_check(&z, err);
 *     if (code == MOE_OK) code = moe_quantizing_read_text(&z, err);
 *     if (code == MOE_OK) code = moe_quantizing_run(&z, &got, pool, NULL, err);
 *     moe_quantizing_close(&z);
 *
 * An estimate calls moe_quantizing_count_text and moe_quantizing_estimate instead of the last two.
 *
 * A struct moe_quantizing is used by one thread at a time; several may be in use at once.  Nothing is
 * printed: quantize-tell.h makes JSON and notices of the results. */
#ifndef MOE_QUANTIZE_QUANTIZE_H
#define MOE_QUANTIZE_QUANTIZE_H

#include "formats/source.h"
#include "quantize/calibrate/calibrate.h"
#include "quantize/calibrate/corpus.h"
#include "quantize/request.h"

struct moe_quantizing {
    const struct moe_quantize_request *ask; /* the caller's; it must outlive this */
    struct moe_quantize_choice choice;
    struct moe_source *src;
    struct moe_corpus text;                 /* the text of a calibration, once it was read */
    /* moe_rewrite has been called; from then on it says in errors what an earlier run has left */
    bool writing;
};

/* Sets *z up for the request, which is checked (MOE_USAGE); no file is read.  *z must not be moved, and must
 * be closed, after a failure as well. */
enum moe_code moe_quantizing_begin(struct moe_quantizing *z, const struct moe_quantize_request *ask,
                                   struct moe_err *err);
/* Opens the model, a checkpoint or a container.  MOE_USAGE when the request does not say where to write. */
enum moe_code moe_quantizing_open(struct moe_quantizing *z, const char *model, struct moe_err *err);
/* Checks the request against the model.  MOE_UNSUPPORTED when nothing is left to calibrate, MOE_USAGE for a
 * sequence longer than the model's context, MOE_MISMATCH for the tokenizer of another model. */
enum moe_code moe_quantizing_check(const struct moe_quantizing *z, struct moe_err *err);
void moe_quantizing_close(struct moe_quantizing *z);

/* Reads the text of a calibration, within the memory that the run may have.  Does nothing if there is no
 * calibration. */
enum moe_code moe_quantizing_read_text(struct moe_quantizing *z, struct moe_err *err);
/* The same before an estimate.  For a model without a tokenizer *counted becomes false, *why says so, and as
 * many tokens as ask->calib_tokens are assumed. */
enum moe_code moe_quantizing_count_text(struct moe_quantizing *z, bool *counted, struct moe_err *why,
                                        struct moe_err *err);

struct moe_quantize_estimate {
    struct moe_rewrite_estimate rewrite;    /* memory and seconds include a calibration */
    struct moe_hf_result exported;          /* where the output is hf-nvfp4; else zeros */
    struct moe_calibration_plan plan;       /* of a calibration; else zeros */
    double speed;                           /* operations per second of matrix products, measured now */
};
/* Estimates what the run would take, and writes nothing.  After moe_quantizing_count_text. */
enum moe_code moe_quantizing_estimate(struct moe_quantizing *z, struct moe_quantize_estimate *e,
                                      struct moe_pool *pool, struct moe_err *err);

struct moe_quantize_result {
    struct moe_rewrite_result rewrite;      /* the caller deletes its JSON trees */
    struct moe_hf_result exported;          /* where the output is hf-nvfp4; else zeros */
    double flops;                           /* floating-point operations of a calibration, by this run */
};
/* Quantizes.  On success ask->out is there and complete; after a failure, what was done may lie there as a
 * partial output, from which a run with `resume` goes on.  After moe_quantizing_read_text.  progress may be
 * NULL. */
enum moe_code moe_quantizing_run(struct moe_quantizing *z, struct moe_quantize_result *got,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err);

#endif
