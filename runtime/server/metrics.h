/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/metrics.h - what a server counts besides its core, and all of it as text for Prometheus.
 *
 * Counting is safe from any thread and takes no lock.  A server that is scraped while it counts may show
 * numbers of slightly different moments. */
#ifndef MOE_RUNTIME_SERVER_METRICS_H
#define MOE_RUNTIME_SERVER_METRICS_H

#include "base/buffer.h"
#include "runtime/engine/core.h"

#include <stdatomic.h>

enum { MOE_BUCKETS = 14 };

/* Seconds, counted by their size; the last bucket has those above all bounds. */
struct moe_histogram {
    atomic_llong bucket[MOE_BUCKETS + 1];
    atomic_llong microseconds;              /* of all */
};
void moe_histogram_add(struct moe_histogram *h, double seconds);

struct moe_metrics {
    atomic_llong answers[6];                /* of HTTP, by the first digit of the status; 0: none was sent */
    atomic_llong unlogged;                  /* lines of the access log that could not be written */
    struct moe_histogram first, all;        /* from the request's head to the first token, and to the end */
};

/* Appends everything.  model: the label model_name of the aliases, printed as it is but for quotes. */
void moe_metrics_print(struct moe_buffer *out, struct moe_metrics *m, const struct moe_core_stats *s,
                       int64_t exchanges, uint64_t bodies, const char *model);

#endif
