/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint/fused.h"

#include "formats/names.h"

#include <stdio.h>
#include <string.h>

static const char remedy[] = "save the model with a tensor for each expert, as save_pretrained(DIR) of "
                             "transformers does without save_original_format=False";

/* Whether a tensor has the name of fused experts; sets f->layer, f->down and f->stem.  *plain: it is not
 * quantized, so that nothing follows "gate_up_proj" or "down_proj", or only ".weight", which some programs
 * write.  Any other ending ("_scale_inv", "_blocks", "_packed", ".weight_scale") belongs to a quantized
 * model. */
static bool parse_fused_name(const char *name, struct moe_fused *f, bool *plain)
{
    static const char experts[] = "mlp.experts.";
    const char *tail;
    /* a slice's name is longer by the number of the expert and ".gate_proj.weight" */
    if (strlen(name) + 32 > MOE_FUSED_NAME || (f->layer = moe_name_layer(name, &tail)) < 0) return false;
    if (strncmp(tail, experts, sizeof experts - 1)) return false;
    tail += sizeof experts - 1;
    f->stem = (size_t)(tail - name);
    f->down = !strncmp(tail, "down_proj", 9);
    if (!f->down && strncmp(tail, "gate_up_proj", 12)) return false;
    tail += f->down ? 9 : 12;
    *plain = !*tail || !strcmp(tail, ".weight");
    return true;
}

static bool has_shape(const struct moe_st_entry *e, int64_t a, int64_t b, int64_t c)
{
    return e->ndim == 3 && e->shape[0] == a && e->shape[1] == b && e->shape[2] == c;
}

static bool is_plain_dtype(const char *dtype)
{
    return !strcmp(dtype, "BF16") || !strcmp(dtype, "F16") || !strcmp(dtype, "F32");
}

/* Where hidden_size is 2 * moe_intermediate_size, the shape of gate_up_proj does not show whether it is
 * transposed; but the shape of down_proj does then, and a transposed one is refused.  Where the two sizes are
 * equal, it is the other way round. */
enum moe_code moe_fused_parse(const struct moe_config *c, const struct moe_st_entry *e, bool *is_fused,
                              struct moe_fused *f, struct moe_err *err)
{
    bool plain;
    *f = (struct moe_fused){ 0 };
    *is_fused = false;
    if (!parse_fused_name(e->name, f, &plain)) return MOE_OK;
    if (f->layer >= c->num_hidden_layers || !moe_layer_is_moe(c, f->layer)) return MOE_OK;
    int64_t experts = c->n_routed_experts, h = c->hidden_size, inter = c->moe_intermediate_size;
    int64_t rows = f->down ? h : 2 * inter, cols = f->down ? inter : h;
    if (!plain || !is_plain_dtype(e->dtype))
        return moe_fail(err, MOE_UNSUPPORTED,
                        "holds all experts of its layer as one quantized tensor (dtype %s), which is not "
                        "read: %s, or take the model before it was quantized", e->dtype, remedy);
    if (has_shape(e, experts, cols, rows) && rows != cols)
        return moe_fail(err, MOE_UNSUPPORTED,
                        "holds all experts of its layer as one tensor, transposed (%lld x %lld each, where "
                        "transformers 5 has %lld x %lld), which is not read: %s",
                        (long long)cols, (long long)rows, (long long)rows, (long long)cols, remedy);
    if (!has_shape(e, experts, rows, cols))
        return moe_fail(err, MOE_CORRUPT,
                        "holds all experts of its layer as one tensor, for which the config wants the shape "
                        "%lld x %lld x %lld", (long long)experts, (long long)rows, (long long)cols);
    f->slices = f->down ? experts : 2 * experts;
    f->rows = f->down ? h : inter;
    f->cols = cols;
    *is_fused = true;
    return MOE_OK;
}

void moe_fused_slice(const struct moe_fused *f, const struct moe_st_entry *e, int64_t i,
                     char name[MOE_FUSED_NAME], struct moe_st_entry *slice)
{
    static const char *const projections[] = { "gate", "up" };
    const char *projection = f->down ? "down" : projections[i % 2];
    uint64_t bytes = e->bytes / (uint64_t)f->slices;
    snprintf(name, MOE_FUSED_NAME, "%.*s%lld.%s_proj.weight", (int)f->stem, e->name,
             (long long)(f->down ? i : i / 2), projection);
    *slice = (struct moe_st_entry){ .name = name, .dtype = e->dtype, .ndim = 2, .shape = { f->rows, f->cols },
                                    .offset = e->offset + (uint64_t)i * bytes, .bytes = bytes };
}
