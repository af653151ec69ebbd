/* SPDX-License-Identifier: Apache-2.0 */
/* moe/progress.h - how far long work of the library has come.
 *
 * Options of long calls have a callback `progress`.  A call does one or several pieces of work one after the
 * other (say, "convert" and before it "check"); for each piece the callback is called when it begins, then at
 * most ten times a second while it advances, and when it ends.
 *
 * Threads: the callback is called by any of the threads that the call works with, never by two at once, and
 * that thread's work waits for it.  It may request the end of the call through its token (moe/cancel.h). */
#ifndef MOE_PROGRESS_H
#define MOE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a piece of work is counted in. */
enum moe_unit {
    MOE_UNIT_BYTES,
    MOE_UNIT_TOKENS,
    MOE_UNIT_ITEMS, /* what the label says: layers, tensors */
    MOE_UNIT_MFLOP  /* a million floating-point operations */
};

/* Valid only during the callback. */
struct moe_progress_report {
    size_t size;        /* sizeof this struct in the library, which may be older or newer than its caller */
    const char *label;  /* the kind of work, a few words of English for people; may change between reports */
    enum moe_unit unit;
    uint64_t done;      /* units that are done; up to total, or a little more where total was an estimate */
    uint64_t resumed;   /* those of `done` that an earlier, interrupted call had done */
    uint64_t total;     /* units of the whole piece of work, known or estimated when it begins */
    bool ended;         /* the last report of this piece of work, which a failure may have ended early */
};

#ifdef __cplusplus
}
#endif
#endif
