/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/agree.h"

#include <stdio.h>
#include <string.h>

static void add_digest(struct moe_agreement *a, const char *name, struct moe_hash128 digest)
{
    MOE_CHECK(a->n < MOE_AGREE_MAX && strlen(name) < MOE_AGREE_NAME);
    memset(&a->item[a->n], 0, sizeof a->item[a->n]);
    snprintf(a->item[a->n].name, MOE_AGREE_NAME, "%s", name);
    a->item[a->n++].digest = digest;
}

void moe_agree_add(struct moe_agreement *a, const char *name, const void *data, size_t bytes)
{
    add_digest(a, name, moe_hash128(data, bytes));
}

/* Of texts in order: each one's digest follows that of all before it, so that "a", "b" is not "ab". */
static struct moe_hash128 digest_of_list(const struct moe_strlist *l)
{
    struct {
        struct moe_hash128 before, text;
    } both = { 0 };
    for (size_t i = 0; i < l->n; i++) {
        both.text = moe_hash128(l->v[i], strlen(l->v[i]));
        both.before = moe_hash128(&both, sizeof both);
    }
    return both.before;
}

static struct moe_hash128 digest_of(const struct moe_opt *o)
{
    const char *text = NULL;
    switch (o->kind) {
    case MOE_OPT_BOOL: return moe_hash128(&(unsigned char){ *(const bool *)o->value }, 1);
    case MOE_OPT_INT:
    case MOE_OPT_SIZE: return moe_hash128(o->value, sizeof(int64_t));
    /* -0 is 0 */
    case MOE_OPT_FLOAT: return moe_hash128(&(double){ *(const double *)o->value + 0.0 }, sizeof(double));
    case MOE_OPT_LIST: return digest_of_list(o->value);
    case MOE_OPT_STR:
    case MOE_OPT_MAYBE: text = *(const char *const *)o->value; break;
    case MOE_OPT_END:
    case MOE_OPT_GROUP: break;
    }
    if (o->scope == MOE_OPT_FILE) text = text ? "given" : NULL;
    /* with its NUL: "" is not what was left out */
    return text ? moe_hash128(text, strlen(text) + 1) : moe_hash128(NULL, 0);
}

void moe_agree_options(struct moe_agreement *a, const struct moe_opt *opts)
{
    for (const struct moe_opt *o = opts; o->kind != MOE_OPT_END; o++) {
        char name[MOE_AGREE_NAME];
        if (o->kind == MOE_OPT_GROUP || o->scope == MOE_OPT_OWN) continue;
        snprintf(name, sizeof name, "--%s", o->name);
        add_digest(a, name, digest_of(o));
    }
}

const char *moe_agree_difference(const struct moe_agreement *a, const struct moe_agreement *b)
{
    for (uint32_t i = 0; i < a->n || i < b->n; i++) {
        if (i >= a->n) return b->item[i].name;
        if (i >= b->n) return a->item[i].name;
        if (strcmp(a->item[i].name, b->item[i].name)) return a->item[i].name;
        if (a->item[i].digest.high != b->item[i].digest.high ||
            a->item[i].digest.low != b->item[i].digest.low)
            return a->item[i].name;
    }
    return NULL;
}
