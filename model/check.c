/* SPDX-License-Identifier: Apache-2.0 */
#include "model/check.h"

#include "base/io.h"
#include "formats/tokenizer.h"

#include <limits.h>

enum moe_code moe_check_vocabulary(const struct moe_source *src, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    struct moe_tokenizer *t;
    const char *name = src->kind == MOE_CONTAINER ? "tokenizer/tiktoken.model" : "tiktoken.model";
    MOE_TRY(moe_path_join(path, sizeof path, src->path, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_tokenizer_open(&t, src->path, src->config.vocab_size, err));
    moe_tokenizer_close(&t);
    return MOE_OK;
}
