/* SPDX-License-Identifier: Apache-2.0 */
/* The part of include/moe/model.h that describes a model on disk by its headers. */
#include "base/api.h"
#include "formats/source.h"

#include <moe/model.h>

#include <stdio.h>

static uint64_t bytes_of_files(const struct moe_source *src)
{
    uint64_t bytes = 0;

    for (int32_t i = 0; i < src->n_files; i++) bytes += src->files[i].size;
    return bytes;
}

static void describe(const struct moe_source *src, struct moe_description *d)
{
    const struct moe_config *c = &src->config;

    *d = (struct moe_description){ .container = src->kind == MOE_CONTAINER,
                                   .layers = c->num_hidden_layers,
                                   .moe_layers = moe_config_moe_layers(c),
                                   .hidden_size = c->hidden_size,
                                   .experts = c->n_routed_experts,
                                   .experts_per_token = c->num_experts_per_tok,
                                   .shared_experts = c->n_shared_experts,
                                   .vocab_size = c->vocab_size,
                                   .context = c->max_position_embeddings,
                                   .parameters = moe_config_parameters(c),
                                   .parameters_active = moe_config_parameters_active(c),
                                   .tensors = src->n_tensors,
                                   .bytes = bytes_of_files(src) };
    snprintf(d->architecture, sizeof d->architecture, "%s", c->architecture);
    snprintf(d->model_type, sizeof d->model_type, "%s", c->model_type);
    snprintf(d->layout, sizeof d->layout, "%s", src->layout);
}

enum moe_code moe_describe(const char *path, struct moe_description *d, struct moe_err *err)
{
    struct moe_description found;
    struct moe_source *src;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(path, "path", err));
    MOE_TRY(moe_api_result_check(d, "moe_description", err));
    MOE_TRY(moe_source_open(&src, path, err));
    describe(src, &found);
    moe_source_close(&src);
    moe_api_result(d, &found, sizeof found);
    return MOE_OK;
}
