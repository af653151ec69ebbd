/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize.h - quantizing a model: what it would take, and doing it.
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
 * One of these is for one thread at a time; several may go on at once.  Nothing is printed: quantize-tell.h
 * makes JSON and notices of the results. */
#ifndef MOE_QUANTIZE_QUANTIZE_H
#define MOE_QUANTIZE_QUANTIZE_H

#include "formats/source.h"
#include "quantize/calibrate/calibrate.h"
#include "quantize/calibrate/corpus.h"
#include "quantize/request.h"

struct moe_quantizing {
    const struct moe_quantize_request *ask; /* the caller's: it lives as long as this */
    struct moe_quantize_choice choice;
    struct moe_source *src;
    struct moe_corpus text;                 /* of a calibration, once it was read */
    bool writing; /* the work that an earlier run may have left was handed on to who knows it */
};

/* What the request comes to: MOE_USAGE.  *z is the caller's to close, also on failure; it stays where it is.
 * Reads no file. */
enum moe_code moe_quantizing_begin(struct moe_quantizing *z, const struct moe_quantize_request *ask,
                                   struct moe_err *err);
/* Open the model: a checkpoint or a container.  MOE_USAGE when the request does not say where to write. */
enum moe_code moe_quantizing_open(struct moe_quantizing *z, const char *model, struct moe_err *err);
/* MOE_UNSUPPORTED when nothing is left to calibrate, MOE_USAGE for a sequence longer than the model's
 * context, MOE_MISMATCH for a tokenizer that is another model's. */
enum moe_code moe_quantizing_check(const struct moe_quantizing *z, struct moe_err *err);
void moe_quantizing_close(struct moe_quantizing *z);

/* Read the text of a calibration, in the memory that the work may have; nothing without one. */
enum moe_code moe_quantizing_read_text(struct moe_quantizing *z, struct moe_err *err);
/* The same before an estimate.  A model without a tokenizer: *counted is false, *why says it, and as many
 * tokens as asked for are assumed. */
enum moe_code moe_quantizing_count_text(struct moe_quantizing *z, bool *counted, struct moe_err *why,
                                        struct moe_err *err);

struct moe_quantize_estimate {
    struct moe_rewrite_estimate rewrite;    /* memory and seconds with the calibration's */
    struct moe_hf_result exported;          /* to hf-nvfp4 */
    struct moe_calibration_plan plan;       /* of a calibration */
    double speed;                           /* operations per second of its products, as measured now */
};
/* What it will take; writes nothing.  After moe_quantizing_count_text. */
enum moe_code moe_quantizing_estimate(struct moe_quantizing *z, struct moe_quantize_estimate *e,
                                      struct moe_pool *pool, struct moe_err *err);

struct moe_quantize_result {
    struct moe_rewrite_result rewrite;      /* its trees are the caller's to delete */
    struct moe_hf_result exported;          /* to hf-nvfp4 */
    double flops;                           /* operations of a calibration, by this run */
};
/* Do it: ask->out is there and whole, or there is what --resume goes on with.  After
 * moe_quantizing_read_text.  progress may be NULL. */
enum moe_code moe_quantizing_run(struct moe_quantizing *z, struct moe_quantize_result *got,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err);

#endif
