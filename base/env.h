/* SPDX-License-Identifier: Apache-2.0 */
/* base/env.h - every environment variable the project reads: for debugging only. */
#ifndef MOE_BASE_ENV_H
#define MOE_BASE_ENV_H

#include "base/err.h"

#include <stdio.h>

void moe_env_help(FILE *out); /* --help-env */
void moe_env_man(FILE *out);  /* the same as man-page items */

/* The value of a variable of the table, NULL when unset or empty; a bug for a name that is not in it. */
const char *moe_env(const char *name);
/* MOE_USAGE when a variable that has a list of values has another one. */
enum moe_code moe_env_check(struct moe_err *err);

#endif
