/* SPDX-License-Identifier: Apache-2.0 */
/* model/precision.h - which type each tensor of a model is written in.
 *
 * A precision map has a type for each tensor.  It is made from a class of tensors that become NVFP4 (enum
 * moe_scope) and from rules by name; the last rule that matches a canonical name wins. */
#ifndef MOE_MODEL_PRECISION_H
#define MOE_MODEL_PRECISION_H

#include "formats/source.h"

#include <stddef.h>

/* In a precision map: this tensor is not written, because another run writes it into another part of the
 * model (formats/container/merge.c). */
enum { MOE_TYPE_LEFT_OUT = 255 };

enum moe_scope {
    MOE_SCOPE_NONE,       /* everything as the source has it */
    MOE_SCOPE_EXPERTS,    /* routed experts */
    MOE_SCOPE_MLP,        /* routed experts, shared experts and dense MLPs */
    /* all of MLP and the attention projections q_a, q_b (or q), kv_a and o, but not kv_b, which engines split
     * in BF16 for absorbed attention: only a rule by name makes it NVFP4 */
    MOE_SCOPE_ALL_LINEAR,
};

/* "experts", "mlp", "all-linear"; -1 for another word. */
int moe_scope_find(const char *name);
const char *moe_scope_name(enum moe_scope scope);

/* Decides for every tensor of `src`, in its order, the enum moe_dtype type[i] that it is written in.  A rule
 * is "REGEX=TYPE" with TYPE one of nvfp4, bf16, f32 and source; the regular expression is searched in the
 * canonical name.  A tensor that is NVFP4 in the source and in the map is copied, not quantized again.
 * Errors: MOE_USAGE for a bad rule or one that matches no tensor, MOE_UNSUPPORTED for a vector that would
 * become NVFP4, or a matrix whose columns are not a multiple of 16.  type is the caller's, n_tensors
 * bytes. */
enum moe_code moe_precision_map(const struct moe_source *src, enum moe_scope scope, const char *const *rules,
                                size_t n_rules, uint8_t *type, struct moe_err *err);

#endif
