/* SPDX-License-Identifier: Apache-2.0 */
/* base/env.h - the table of all environment variables that this project reads; they are for debugging
 * only. */
#ifndef MOE_BASE_ENV_H
#define MOE_BASE_ENV_H

#include "base/err.h"

#include <stdio.h>

void moe_env_help(FILE *out); /* --help-env */
void moe_env_man(FILE *out);  /* the same as man-page items */

/* The value of a variable; NULL when it is unset or empty.  A name that is not in the table is a bug. */
const char *moe_env(const char *name);
/* MOE_USAGE when a variable whose values are listed in the table has any other value. */
enum moe_code moe_env_check(struct moe_err *err);

#endif
