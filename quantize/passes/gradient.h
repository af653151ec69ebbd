/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/gradient.h - keeps the gradients after one layer in a file, from which a sensitivity pass
 * that was interrupted goes on.
 *
 * The file is replaced once a layer, atomically, and has a checksum.  It is as large as the hidden states
 * of the pass's tokens.  Only its sizes are checked: that it belongs to the same model, text and options
 * its reader must know from elsewhere (state.json of the partial directory). */
#ifndef MOE_QUANTIZE_PASSES_GRADIENT_H
#define MOE_QUANTIZE_PASSES_GRADIENT_H

#include "quantize/rounding/states.h"

#define MOE_GRADIENT_NAME "gradient.work"

/* The size of the file in bytes. */
uint64_t moe_gradient_bytes(int64_t tokens, int64_t width);

/* Replaces the file in `dir`, the partial directory.  dh: the gradients with respect to the states after
 * `layer`. */
enum moe_code moe_gradient_save(const char *dir, int layer, const struct moe_states *dh, struct moe_err *err);

/* Sets *layer to the layer whose gradients the file holds; to -1 when there is no file, when it is for
 * another number of tokens n or another width, or when it is damaged. */
enum moe_code moe_gradient_layer(const char *dir, int64_t n, int64_t width, int *layer, struct moe_err *err);

/* Reads the gradients of the file, which moe_gradient_layer has found, into dh, whose size must be the
 * file's.  MOE_CORRUPT when the file has changed since. */
enum moe_code moe_gradient_read(const char *dir, struct moe_states *dh, struct moe_err *err);

/* Removes the file, if there is one. */
enum moe_code moe_gradient_drop(const char *dir, struct moe_err *err);

#endif
