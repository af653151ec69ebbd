/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/request.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The least and the largest value; above: the least one itself is none.  FLT_MAX is no bound that people need
 * to know unless they exceed it. */
static const struct range { float min, max; bool above; } ranges[] = {
    [MOE_REAL_TEMPERATURE] = { 0, FLT_MAX, false },
    [MOE_REAL_TOP_P] = { 0, 1, true },
    [MOE_REAL_MIN_P] = { 0, 1, false },
    [MOE_REAL_PRESENCE] = { -2, 2, false },
    [MOE_REAL_FREQUENCY] = { -2, 2, false },
    [MOE_REAL_REPETITION] = { 0.01f, 100, false },
};

bool moe_request_real(enum moe_request_real which, double v, float *out, char want[MOE_WANT_BYTES])
{
    const struct range *r = &ranges[which];
    double infinite = v > 0 ? INFINITY : -INFINITY;
    float x = (float)(fabs(v) > (double)FLT_MAX ? infinite : v);
    bool enough = r->above ? x > r->min : x >= r->min, open = r->max >= FLT_MAX;
    if (enough && x <= r->max) {
        *out = x;
        return true;
    }
    double min = (double)r->min, max = (double)r->max;
    if (open && enough) snprintf(want, MOE_WANT_BYTES, "want at most %g", max);
    else if (open) snprintf(want, MOE_WANT_BYTES, "want %g or more", min);
    else if (r->above) snprintf(want, MOE_WANT_BYTES, "want above %g, at most %g", min, max);
    else snprintf(want, MOE_WANT_BYTES, "want %g to %g", min, max);
    return false;
}

void moe_generated_release(struct moe_generated *g)
{
    free(g->tokens);
    free(g->text);
    free(g->logprobs);
    free(g->err);
    *g = (struct moe_generated){ .n = 0 };
}
