/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/gradient.h - how far a sensitivity pass has come, in a file: the gradients after one
 * layer, from which the pass goes on.
 *
 * The file is replaced once a layer, whole or not at all, and has a checksum; it is as large as the hidden
 * states of the pass's tokens once. Who reads it has to know that it is of the same work (state.json of the
 * partial directory says so); of that only the sizes are held against it. */
#ifndef MOE_QUANTIZE_PASSES_GRADIENT_H
#define MOE_QUANTIZE_PASSES_GRADIENT_H

#include "quantize/rounding/states.h"

#define MOE_GRADIENT_NAME "gradient.work"

uint64_t moe_gradient_bytes(int64_t tokens, int64_t width);
/* dh: the gradients with respect to the states after `layer`. */
enum moe_code moe_gradient_save(const char *dir, int layer, const struct moe_states *dh, struct moe_err *err);
/* The layer that the file speaks of, -1 when there is none for n tokens of this width, or it is not as it was
 * saved. */
enum moe_code moe_gradient_layer(const char *dir, int64_t n, int64_t width, int *layer, struct moe_err *err);
/* After that, into dh; MOE_CORRUPT when the file is another one now. */
enum moe_code moe_gradient_read(const char *dir, struct moe_states *dh, struct moe_err *err);
/* It is not needed any more. */
enum moe_code moe_gradient_drop(const char *dir, struct moe_err *err);

#endif
