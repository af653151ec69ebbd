/* SPDX-License-Identifier: Apache-2.0 */
/* The scopes of --quantize and the rules of --tensor-type, applied to the tensors of a source. */
#include "model/precision.h"

#include "base/re.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const scopes[] = { "none", "experts", "mlp", "all-linear" };

int moe_scope_find(const char *name)
{
    for (int i = MOE_SCOPE_EXPERTS; i <= MOE_SCOPE_ALL_LINEAR; i++)
        if (!strcmp(scopes[i], name)) return i;
    return -1;
}

const char *moe_scope_name(enum moe_scope scope) { return scopes[scope]; }

static bool in_scope(enum moe_role role, enum moe_scope scope)
{
    switch (role) {
    case MOE_ROLE_EXPERT_GATE: case MOE_ROLE_EXPERT_UP: case MOE_ROLE_EXPERT_DOWN:
        return scope >= MOE_SCOPE_EXPERTS;
    case MOE_ROLE_GATE: case MOE_ROLE_UP: case MOE_ROLE_DOWN:
    case MOE_ROLE_SHARED_GATE: case MOE_ROLE_SHARED_UP: case MOE_ROLE_SHARED_DOWN:
        return scope >= MOE_SCOPE_MLP;
    case MOE_ROLE_Q: case MOE_ROLE_Q_A: case MOE_ROLE_Q_B: case MOE_ROLE_KV_A: case MOE_ROLE_O:
        return scope >= MOE_SCOPE_ALL_LINEAR;
    default:
        return false;
    }
}

static enum moe_code parse_rule(const char *rule, struct moe_re **re, int *type, struct moe_err *err)
{
    char pattern[1024];
    const char *eq = strrchr(rule, '=');
    if (!eq || eq == rule || (size_t)(eq - rule) >= sizeof pattern)
        return moe_fail(err, MOE_USAGE, "--tensor-type wants REGEX=TYPE, not '%s'", rule);
    *type = !strcmp(eq + 1, "source") ? MOE_DTYPE_COUNT : moe_dtype_find(eq + 1);
    if (*type != MOE_DTYPE_COUNT && *type != MOE_NVFP4 && *type != MOE_BF16 && *type != MOE_F32)
        return moe_fail(err, MOE_USAGE,
                        "--tensor-type '%s': cannot write type '%s' (nvfp4, bf16, f32 or source)", rule,
                        eq + 1);
    snprintf(pattern, sizeof pattern, "%.*s", (int)(eq - rule), rule);
    return moe_re_open(re, pattern, err);
}

static enum moe_code apply_rule(const struct moe_source *src, const char *rule, uint8_t *type,
                                struct moe_err *err)
{
    struct moe_re *re;
    int to = MOE_DTYPE_COUNT;
    int64_t hits = 0;

    MOE_TRY(parse_rule(rule, &re, &to, err));
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        char name[128];
        moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name);
        if (!moe_re_match(re, name, strlen(name))) continue;
        type[i] = (uint8_t)(to == MOE_DTYPE_COUNT ? t->type : to);
        hits++;
    }
    moe_re_close(&re);
    if (!hits)
        return moe_fail(err, MOE_USAGE, "--tensor-type '%s' matches no tensor (see moe-inspect --tensors)",
                        rule);
    return MOE_OK;
}

enum moe_code moe_precision_map(const struct moe_source *src, enum moe_scope scope, const char *const *rules,
                                size_t n_rules, uint8_t *type, struct moe_err *err)
{
    for (int64_t i = 0; i < src->n_tensors; i++)
        type[i] = in_scope((enum moe_role)src->tensors[i].role, scope) ? MOE_NVFP4 : src->tensors[i].type;
    for (size_t r = 0; r < n_rules; r++) MOE_TRY(apply_rule(src, rules[r], type, err));
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        char name[128];
        if (t->rows == 1 && type[i] != t->type && !moe_dtype_plain(type[i]))
            return moe_fail_at(err, MOE_UNSUPPORTED, src->path,
                               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "is a vector, which cannot be %s (leave it out of --tensor-type, or add a "
                               "rule that keeps it: 'norm|bias=source')",
                               moe_dtype_name(type[i]));
        if (type[i] != MOE_NVFP4 || t->type == MOE_NVFP4 || t->cols % 16 == 0) continue;
        return moe_fail_at(
            err, MOE_UNSUPPORTED, src->path,
            moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
            "%lld column%s not a multiple of 16, so it cannot be NVFP4 (keep it with --tensor-type)",
            (long long)t->cols, t->cols == 1 ? " is" : "s are");
    }
    return MOE_OK;
}
