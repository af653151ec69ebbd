/* SPDX-License-Identifier: Apache-2.0 */
/* base/overlap.h - refuses paths of one command that overlap, so that an output cannot overwrite an input or
 * another output. */
#ifndef MOE_BASE_OVERLAP_H
#define MOE_BASE_OVERLAP_H

#include "base/err.h"

/* Returns MOE_USAGE when the output `out` is the same file or directory as `other`, lies in the directory
 * `other`, or is a directory that contains `other`.  Files are compared by device and inode, whatever links
 * the two paths go through.  Neither path has to exist.  The message calls the output `shown` and describes
 * `other` with `which`: "is read", "--calib names".  Nothing on disk is changed. */
enum moe_code moe_check_overlap(const char *shown, const char *out, const char *other, const char *which,
                                struct moe_err *err);

#endif
