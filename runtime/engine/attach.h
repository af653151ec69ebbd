/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/attach.h - an engine's side of a connection to a keeper (keeper.h): it compares what the
 * keeper has with what it needs, and takes the descriptors of the memory.
 *
 * One thread uses a connection.  A keeper that is silent or lies is given up after ATTACH_SECONDS; then, and
 * after every other failure, the message names the socket. */
#ifndef MOE_RUNTIME_ENGINE_ATTACH_H
#define MOE_RUNTIME_ENGINE_ATTACH_H

#include "model/ops/cuda/kept.h"

struct moe_attach {
    const char *socket;
    int fd;
    const struct moe_cancel *cancel;
    struct moe_cuda_lender lender;    /* for moe_cuda_start.lender; valid while *a stays where it is */
};

/* Connects to the keeper at `socket`, for a device that is open for a model at `path`.  MOE_MISMATCH where
 * the keeper has something else, with both values; MOE_NOT_FOUND, MOE_DEVICE where there is no keeper, it is
 * silent, or what answers is none; the code of `cancel`, which may be NULL.  After a failure there is nothing
 * to close. */
enum moe_code moe_attach_open(struct moe_attach *a, const char *socket, const struct moe_device *d,
                              const char *path, const struct moe_cancel *cancel, struct moe_err *err);
void moe_attach_close(struct moe_attach *a);

#endif
