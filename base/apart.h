/* SPDX-License-Identifier: Apache-2.0 */
/* base/apart.h - whether two paths of one command have to do with each other: what is written must leave
 * alone what is read, and what else is written.  By device and inode, whatever links lead there. */
#ifndef MOE_BASE_APART_H
#define MOE_BASE_APART_H

#include "base/err.h"

/* MOE_USAGE when `out`, which is to be written, is `other`, lies in the directory `other`, or is a directory
 * that holds `other`.  Neither needs to be there.  The sentence is about `shown`; `which` says what `other`
 * is: "is read", "--calib names".  Changes nothing. */
enum moe_code moe_apart(const char *shown, const char *out, const char *other, const char *which,
                        struct moe_err *err);

#endif
