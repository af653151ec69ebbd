/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions that allocate a cancellation token (include/moe/cancel.h); the token itself is in
 * base/cancel.h. */
#include "base/api.h"
#include "base/cancel.h"

#include <stdlib.h>

enum moe_code moe_cancel_open(struct moe_cancel **c, struct moe_err *err)
{
    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(c, "c", err));
    *c = calloc(1, sizeof **c);
    return *c ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a token");
}

void moe_cancel_close(struct moe_cancel **c)
{
    if (!c) return;
    free(*c);
    *c = NULL;
}
