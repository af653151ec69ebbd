/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/keeper.h - a process that keeps the weights of a model in a GPU's memory (moe-run --keep),
 * so that engines start without reading them (attach.h).
 *
 * It computes nothing.  An engine that has attached does not need it any more: the memory lives as long as
 * one of them does.  Engines that say nothing, go away or send what is no message of wire-keep.h lose their
 * connection, and hold nobody up.
 *
 * One thread, the one that opened it, calls these. */
#ifndef MOE_RUNTIME_ENGINE_KEEPER_H
#define MOE_RUNTIME_ENGINE_KEEPER_H

#include "runtime/comm/wire-keep.h"
#include "runtime/engine/engine.h"

struct moe_keeper;

/* Listens at `socket`, and then reads the model at `path` onto the GPU that the options name; of them cuda,
 * gpu, load, progress and cancel count.  Engines that connect meanwhile wait.  MOE_EXISTS where `socket` is
 * taken, MOE_USAGE for one that cannot be, and what opening the source and moe_cuda_keep fail with; *k is
 * then NULL and nothing is left of it. */
enum moe_code moe_keeper_open(struct moe_keeper **k, const char *path, const char *socket,
                              const struct moe_engine_options *o, struct moe_err *err);
/* Serves engines until `cancel` is cancelled, which is its only good end (MOE_OK).  MOE_DEVICE once the GPU
 * is lost.  tell, which may be NULL, gets a line for each engine that has attached or could not. */
enum moe_code moe_keeper_serve(struct moe_keeper *k, const struct moe_cancel *cancel,
                               void (*tell)(void *ctx, const char *line), void *ctx, struct moe_err *err);
/* Removes the socket and gives the memory back, but for what engines use; NULL-safe, nulls. */
void moe_keeper_close(struct moe_keeper **k);

/* The device, of which nothing may be changed; how many engines have attached. */
const struct moe_device *moe_keeper_device(const struct moe_keeper *k);
int64_t moe_keeper_attached(const struct moe_keeper *k);

/* What a keeper and an engine must have in common: which model, which experts of it, where weights lie in
 * memory, and on which GPU.  The model is known by its manifest (a container), or by config, names, sizes,
 * headers and times of the last write (a checkpoint, of which nothing is read).  Fails as moe_cuda_kept does,
 * and as reading the manifest does. */
enum moe_code moe_keeper_terms(const struct moe_device *d, struct moe_keep_terms *t, struct moe_err *err);

#endif
