/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on a model: its weights, then its tokenizer. */
#include "convert/inspect-verify.h"

#include "formats/container/container.h"
#include "formats/tokenizer/tokenizer.h"
#include "model/rewrite/check.h"

/* Checks the tokenizer of a model whose weights are sound; MOE_VERIFY when it does not open or fit them. */
static enum moe_code judge_tokenizer(const struct moe_source *src, cJSON *problems, enum moe_code *verdict,
                                     struct moe_err *why, struct moe_err *err)
{
    enum moe_code code = moe_check_vocabulary(src, why);
    if (code == MOE_OK) return MOE_OK;
    if (code == MOE_NOMEM || code == MOE_IO) return *err = *why, code;
    if (!moe_json_append(problems, cJSON_CreateString(why->msg)))
        return moe_fail(err, MOE_NOMEM, "no memory for the problems");
    *verdict = why->code = MOE_VERIFY;
    return MOE_OK;
}

enum moe_code moe_inspect_verify(const struct moe_source *src, struct moe_pool *pool,
                                 struct moe_progress *progress, const struct moe_cancel *cancel,
                                 cJSON *problems, enum moe_code *verdict, struct moe_err *why,
                                 struct moe_err *err)
{
    enum moe_code code = moe_source_verify(src, pool, progress, cancel, problems, why);
    if (code != MOE_OK && code != MOE_VERIFY) return *err = *why, code;
    *verdict = code;
    return code == MOE_OK ? judge_tokenizer(src, problems, verdict, why, err) : MOE_OK;
}

static cJSON *text_or_null(const char *text) { return *text ? cJSON_CreateString(text) : cJSON_CreateNull(); }

void moe_inspect_add_error(cJSON *json, enum moe_code code, const struct moe_err *e)
{
    cJSON *o = moe_json_add_object(json, "error");
    moe_json_add_f64(o, "code", code);
    moe_json_add_str(o, "name", moe_code_name(code));
    moe_json_add_str(o, "message", e->msg);
    moe_json_add(o, "file", text_or_null(e->file));
    moe_json_add(o, "tensor", text_or_null(e->tensor));
}
