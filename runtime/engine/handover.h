/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/handover.h - hands over the report of a run so that it is printed whole, whichever rank
 * makes it, also when ranks die meanwhile.
 *
 * The rank that reports prints into memory first (moe_capture_begin).  A rank that another process of this
 * program started then hands the text to that process in one message over a socket, so that there is no
 * half of a report; that process prints the first report that it gets and no other.  A rank that a launcher
 * (mpirun, srun) started prints the text itself, and sends heartbeats meanwhile, since standard output may
 * block for long (moe_handover_print); if it dies meanwhile, another rank prints the whole report again.
 *
 * One thread calls all of this.  File descriptors that a call opens are the caller's to close. */
#ifndef MOE_RUNTIME_ENGINE_HANDOVER_H
#define MOE_RUNTIME_ENGINE_HANDOVER_H

#include "runtime/parallel/ep.h"

/* From begin to end standard output goes into `text`, an anonymous file in memory, which the caller closes;
 * `out` is the real standard output meanwhile.  MOE_NOMEM, and nothing is open then. */
struct moe_capture { int text, out; };
enum moe_code moe_capture_begin(struct moe_capture *c, struct moe_err *err);
void moe_capture_end(struct moe_capture *c);

/* Opens the two ends of the socket: `give`, which the ranks inherit and write to, and `take`, from which the
 * process that started them reads.  MOE_NOMEM, and nothing is open then. */
enum moe_code moe_handover_open(int *give, int *take, struct moe_err *err);
/* moe_handover_name writes the value of --rendezvous for ranks that this process starts: a name of its own,
 * with the number of `give` in it.  moe_handover_end returns that number; -1: `where` is another name, so a
 * launcher started this rank. */
void moe_handover_name(char *where, size_t cap, int give);
int moe_handover_end(const char *where);

/* Sends a report, the file `text`, with the exit code that goes with it.  MOE_IO. */
enum moe_code moe_handover_give(int give, int text, int exit, struct moe_err *err);
/* Sends the message that this rank is connected to all others.  MOE_IO. */
enum moe_code moe_handover_there(int give, struct moe_err *err);
/* Takes the next message, without waiting.  NOTHING: none is there.  THERE: a rank is connected to all
 * others.  REPORT: *text and *exit are set, and the caller closes *text.  OVER: no rank that could send is
 * left. */
enum moe_handed { MOE_HANDED_NOTHING, MOE_HANDED_THERE, MOE_HANDED_REPORT, MOE_HANDED_OVER };
enum moe_handed moe_handover_take(int take, int *text, int *exit);

/* Writes bytes [at, end) of the file `text` to `out`, and sends heartbeats meanwhile.  MOE_IO or MOE_NOSPACE;
 * MOE_DEVICE when the other ranks have marked this one dead meanwhile. */
enum moe_code moe_handover_print(int text, uint64_t at, uint64_t end, int out, struct moe_ep *ep,
                                 struct moe_err *err);

#endif
