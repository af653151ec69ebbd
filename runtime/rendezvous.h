/* runtime/rendezvous.h - how processes that know their number and one name learn of each other: rank 0 listens there, the others come, each
 * brings its address, all get all.  Nothing is kept open afterwards. */
#ifndef MOE_RUNTIME_RENDEZVOUS_H
#define MOE_RUNTIME_RENDEZVOUS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct moe_rendezvous {
    const char *where;    /* "HOST:PORT" (rank 0 listens at that address of its own), or "unix:NAME" on one host (an abstract socket) */
    int rank, ranks;
    double timeout;       /* seconds that ranks have to come */
    uint64_t identity;    /* of what they are about to do: MOE_MISMATCH when they differ */
};

/* mine [bytes]; *all gets `ranks` addresses one behind the other, rank r's at offset[r] (malloc'd, offset [ranks + 1] the caller's).
 * failure: what this rank has failed with already, code MOE_OK for nothing: then all ranks that come, this one included, return the failure of the
 * lowest rank that has one.  MOE_DEVICE when a rank does not come in time, or comes twice. */
enum moe_code moe_rendezvous(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine, size_t bytes, unsigned char **all,
                             size_t *offset, struct moe_err *err);

#endif
