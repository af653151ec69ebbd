/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-agree.h"

#include "formats/container/identity.h"
#include "kernels/kernels.h"

#include <string.h>

static void add_number(struct moe_agreement *a, const char *name, int64_t v)
{
    moe_agree_add(a, name, &v, sizeof v);
}

static enum moe_code add_model(struct moe_agreement *a, const char *name, const struct moe_source *src,
                               const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_identity id;
    MOE_TRY(moe_source_identity(src, cancel, &id, err));
    struct moe_hash128 digest = moe_identity_digest(&id);
    moe_agree_add(a, name, &digest, sizeof digest);
    return MOE_OK;
}

static void add_plan(struct moe_agreement *a, const char *name, const struct moe_plan *p)
{
    struct moe_hash128 all = moe_plan_digest(p);
    moe_agree_add(a, name, &all, sizeof all);
}

static void add_prompts(struct moe_agreement *a, const struct moe_prompts *p)
{
    struct moe_hash128 all = { 0 };
    for (int64_t i = 0; i < p->n; i++) {
        const struct moe_hash128 parts[] = { all, moe_hash128(p->v[i].ids,
                                                              (size_t)p->v[i].n_ids * sizeof *p->v[i].ids) };
        all = moe_hash128(parts, sizeof parts);
    }
    moe_agree_add(a, "--prompts", &all, sizeof all);
}

/* The context that this rank can hold where a sequence reaches its end; else 0, since it changes nothing. */
static int64_t context_that_counts(const struct moe_run_options *o, const struct moe_run_content *c)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < c->prompts->n; i++)
        if (c->prompts->v[i].n_ids > longest) longest = c->prompts->v[i].n_ids;
    bool ends_before = o->n >= 0 && longest <= c->engine->context && o->n <= c->engine->context - longest;
    return !c->prompts->n || ends_before ? 0 : c->engine->context;
}

enum moe_code moe_run_agree(const struct moe_run_options *o, const struct moe_run_content *c,
                            struct moe_agreement *a, struct moe_err *err)
{
    moe_agree_options(a, o->run.tool->opts);
    moe_agree_add(a, "version of moe-run", MOE_VERSION, strlen(MOE_VERSION));
    add_number(a, "MOE_CPU", !strcmp(moe_kernels_name(), "ref")); /* the vector levels give the same bits */
    MOE_TRY(add_model(a, "MODEL", c->engine->source, o->run.cancel, err));
    add_plan(a, "--plan", c->plan);
    add_plan(a, "--replan", c->next);
    add_prompts(a, c->prompts);
    moe_agree_add(a, "--score", c->ids, c->n_ids * sizeof *c->ids);
    add_number(a, "--window", c->window);
    add_number(a, "--context", context_that_counts(o, c));
    if (!o->reference) return MOE_OK;
    struct moe_source *src;
    MOE_TRY(moe_source_open(&src, o->reference, err));
    enum moe_code code = add_model(a, "--reference", src, o->run.cancel, err);
    moe_source_close(&src);
    return code;
}
