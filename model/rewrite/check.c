/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer beside the weights, and tensors that the index does not name. */
#include "model/rewrite/check.h"

#include "base/io.h"
#include "formats/tokenizer/tokenizer.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

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

void moe_tell_superseded(const struct moe_notes *to, const struct moe_source *src)
{
    const struct moe_raw *first = NULL;
    int64_t n = 0;

    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        if (!r->skipped || strcmp(r->skipped, MOE_SUPERSEDED)) continue;
        if (!n++) first = r;
    }
    if (n)
        moe_note(to,
                 "%lld tensor%s not used because model.safetensors.index.json names another file for the "
                 "same name: '%s' in '%s'%s",
                 (long long)n, n > 1 ? "s are" : " is", first->name, src->files[first->span.file].name,
                 n > 1 ? " is the first" : "");
}

void moe_warn_no_tokenizer(const struct moe_notes *to, const struct moe_source *src)
{
    static const char *const names[] = { "tiktoken.model", "tokenizer.json" };
    const char *folder = src->kind == MOE_CONTAINER ? "tokenizer/" : "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s%s", src->path, folder, names[i]);
        if (n >= (int)sizeof path || moe_exists(path) != MOE_ABSENT) return;
    }
    moe_note_warn(to, "the model has no tiktoken.model, so the checkpoint has no tokenizer, which engines "
                       "need for text (add the model's own tokenizer files to the directory)");
}
