/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/handover.h - a report that comes out whole, whichever rank makes it: what is printed goes to
 * memory first, then to whoever prints it.
 *
 * A process that started the ranks prints the first report that it is handed, and no other: a report is
 * handed over in one message, so there is no half of one.  Ranks that a launcher started print it themselves,
 * with signs of life, as standard output may take its time. */
#ifndef MOE_RUNTIME_ENGINE_HANDOVER_H
#define MOE_RUNTIME_ENGINE_HANDOVER_H

#include "runtime/parallel/ep.h"

/* Standard output, kept in memory from begin to end: in `text`, a file of memory,
 * the caller's.  MOE_NOMEM. */
struct moe_capture { int text, out; };
enum moe_code moe_capture_begin(struct moe_capture *c, struct moe_err *err);
void moe_capture_end(struct moe_capture *c);

/* Two ends: ranks hand over at `give`, which they inherit; the process that started them takes at `take`. */
enum moe_code moe_handover_open(int *give, int *take, struct moe_err *err);
/* What --rendezvous says to a rank that was started so: name it, find the end in
 * it; -1: a launcher's rank. */
void moe_handover_name(char *where, size_t cap, int give);
int moe_handover_end(const char *where);

/* A report and the exit code that goes with it. */
enum moe_code moe_handover_give(int give, int text, int exit, struct moe_err *err);
/* This rank is connected to all others. */
enum moe_code moe_handover_there(int give, struct moe_err *err);
/* The next of what ranks gave: of a report its text (the caller's) and exit code.  OVER: no rank is left that
 * could give anything. */
enum moe_handed { MOE_HANDED_NOTHING, MOE_HANDED_THERE, MOE_HANDED_REPORT, MOE_HANDED_OVER };
enum moe_handed moe_handover_take(int take, int *text, int *exit);

/* Bytes [at, end) of a text to `out`, with signs of life.  MOE_IO; MOE_DEVICE when this
 * rank was given up meanwhile. */
enum moe_code moe_handover_print(int text, uint64_t at, uint64_t end, int out, struct moe_ep *ep,
                                 struct moe_err *err);

#endif
