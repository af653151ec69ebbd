/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzzsource.h - opens a model and reads it as moe-inspect does: the survey, the lists, then
 * every plane that the model claims to have. */
#ifndef FUZZSOURCE_H
#define FUZZSOURCE_H

#include "convert/inspect.h"
#include "formats/container/container.h"
#include "tests/fuzz/fuzzdir.h"

/* A model with one layer of one expert: the smallest in which every role but the dense MLP's has a tensor. */
static const char fuzz_config[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"kimi_k2\",\"hidden_size\":32,"
    "\"intermediate_size\":32,\"moe_intermediate_size\":32,\"num_hidden_layers\":1,\"first_k_dense_replace\":"
    "0,\"num_attention_heads\":1,\"q_lora_rank\":32,\"kv_lora_rank\":32,\"qk_nope_head_dim\":16,\"qk_rope_"
    "head_dim\":16,\"v_head_dim\":32,\"vocab_size\":8,\"n_routed_experts\":1,\"num_experts_per_tok\":1,\"n_"
    "shared_experts\":1,\"n_group\":1,\"topk_group\":1,\"num_nextn_predict_layers\":1}";

/* Makes the lists of moe-inspect, which it shows of a model with problems, too. */
static void fuzz_inspect(const struct moe_source *src)
{
    struct moe_err err;
    cJSON *j;
    assert(moe_inspect_summary(src, &j, &err) == MOE_OK);
    cJSON_Delete(j);
    assert(moe_inspect_tensors(src, "", &j, &err) == MOE_OK);
    cJSON_Delete(j);
    if (moe_inspect_experts(src, &j, &err) == MOE_OK) cJSON_Delete(j);
}

/* Reads the first and the last byte of every plane, through the map and by reading, and compares the two. */
static void fuzz_read_planes(struct moe_source *src)
{
    struct moe_err err;
    assert(moe_source_map(src, &err) == MOE_OK);
    for (int64_t i = 0; i < src->n_tensors; i++)
        for (int p = 0; p < MOE_PLANE_COUNT; p++) {
            const struct moe_span *s = &src->tensors[i].plane[p];
            unsigned char b[2];
            if (s->file < 0 || !s->bytes) continue;
            const struct moe_file *f = &src->files[s->file];
            assert(s->offset <= f->size && s->bytes <= f->size - s->offset);
            assert(moe_source_read(src, &src->tensors[i], p, 0, 1, b, &err) == MOE_OK);
            assert(moe_source_read(src, &src->tensors[i], p, s->bytes - 1, 1, b + 1, &err) == MOE_OK);
            assert(b[0] == f->map[s->offset] && b[1] == f->map[s->offset + s->bytes - 1]);
        }
}

/* Opens the model at `path` with a survey of its problems.  When it has none, opening it without a survey
 * succeeds as well (unless it is a part), and so does every read. */
static void fuzz_open(const char *path)
{
    struct moe_source *src, *again;
    struct moe_err err = MOE_ERR_INIT;
    cJSON *problems;
    if (moe_source_survey(&src, path, &problems, &err) != MOE_OK) {
        assert(*err.msg && !src && !problems);
        return;
    }
    bool fine = !problems->child;
    assert(fine == (err.code == MOE_OK));
    /* no file lies outside of the directory */
    for (int32_t i = 0; i < src->n_files; i++) assert(moe_plain_name(src->files[i].name));
    fuzz_inspect(src);
    assert((moe_source_open(&again, path, &err) == MOE_OK) ==
           (fine && !src->is_part && !(src->staged && src->staged->absent)));
    moe_source_close(&again);
    assert((moe_source_open_staged(&again, path, &err) == MOE_OK) == (fine && !src->is_part));
    moe_source_close(&again);
    if (fine) {
        fuzz_read_planes(src);
        if (moe_source_verify(src, NULL, NULL, NULL, problems, &err) != MOE_OK)
            assert(err.code == MOE_VERIFY && problems->child);
    }
    cJSON_Delete(problems);
    moe_source_close(&src);
}

#endif
