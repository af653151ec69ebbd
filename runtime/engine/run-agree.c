/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-agree.h"

#include "formats/container/identity.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

/* The digest of a list of texts.  Each text is hashed by itself, and then with the digest of all texts before
 * it, so that the lists "a", "b" and "ab" differ. */
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

/* The digest of an option's present value. */
static struct moe_hash128 digest_of(const struct moe_opt *o)
{
    const char *text = NULL;
    switch (o->kind) {
    case MOE_OPT_BOOL: return moe_hash128(&(unsigned char){ *(const bool *)o->value }, 1);
    case MOE_OPT_INT:
    case MOE_OPT_SIZE: return moe_hash128(o->value, sizeof(int64_t));
    /* + 0.0 makes 0 of -0 */
    case MOE_OPT_FLOAT: return moe_hash128(&(double){ *(const double *)o->value + 0.0 }, sizeof(double));
    case MOE_OPT_LIST: return digest_of_list(o->value);
    case MOE_OPT_STR:
    case MOE_OPT_MAYBE: text = *(const char *const *)o->value; break;
    case MOE_OPT_END:
    case MOE_OPT_GROUP: break;
    }
    if (o->scope == MOE_OPT_FILE) text = text ? "given" : NULL;
    /* with its NUL, so that "" differs from an option that was not given */
    return text ? moe_hash128(text, strlen(text) + 1) : moe_hash128(NULL, 0);
}

void moe_run_agree_options(struct moe_agreement *a, const struct moe_opt *opts)
{
    for (const struct moe_opt *o = opts; o->kind != MOE_OPT_END; o++) {
        char name[MOE_AGREE_NAME];
        if (o->kind == MOE_OPT_GROUP || o->scope == MOE_OPT_OWN) continue;
        snprintf(name, sizeof name, "--%s", o->name);
        moe_agree_add_digest(a, name, digest_of(o));
    }
}

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

/* The digest of what a request asks for besides its prompt. */
static struct moe_hash128 digest_of_request(const struct moe_request *q)
{
    const struct moe_penalties *p = &q->penalties;
    const struct moe_strlist stop = { (const char **)(uintptr_t)q->stop, q->n_stop, 0 };
    const int64_t numbers[] = { q->max_tokens, q->min_tokens, (int64_t)q->seed, q->choice, q->ignore_eos,
                                q->keep_special, q->logprobs, q->priority, q->sampler.top_k };
    const float reals[] = { q->sampler.temperature, q->sampler.top_p, q->sampler.min_p, p->repetition,
                            p->frequency, p->presence };
    const struct moe_hash128 parts[] = { moe_hash128(numbers, sizeof numbers),
                                         moe_hash128(reals, sizeof reals),
                                         digest_of_list(&stop),
                                         moe_hash128(q->salt, q->salt_bytes),
                                         moe_hash128(q->stop_ids, q->n_stop_ids * sizeof *q->stop_ids),
                                         moe_hash128(p->bias, p->n_bias * sizeof *p->bias) };
    return moe_hash128(parts, sizeof parts);
}

static void add_prompts(struct moe_agreement *a, const struct moe_prompts *p)
{
    struct moe_hash128 all = { 0 };
    for (int64_t i = 0; i < p->n; i++) {
        const struct moe_request *q = &p->v[i].request;
        const struct moe_hash128 parts[] = { all, moe_hash128(q->ids, (size_t)q->n_ids * sizeof *q->ids),
                                             digest_of_request(q) };
        all = moe_hash128(parts, sizeof parts);
    }
    moe_agree_add(a, "--prompts", &all, sizeof all);
}

/* The context that this rank can hold, if a sequence may become so long that the context ends it; else 0,
 * since the context then changes no result. */
static int64_t context_that_counts(const struct moe_run_content *c)
{
    int64_t context = c->engine->context;
    for (int64_t i = 0; i < c->prompts->n; i++) {
        const struct moe_request *q = &c->prompts->v[i].request;
        if (q->max_tokens < 0 || q->n_ids > context || q->max_tokens > context - q->n_ids) return context;
    }
    return 0;
}

enum moe_code moe_run_agree(const struct moe_run_args *o, const struct moe_run_content *c,
                            struct moe_agreement *a, struct moe_err *err)
{
    moe_run_agree_options(a, o->run.tool->opts);
    moe_agree_add(a, "version of moe-run", MOE_VERSION, strlen(MOE_VERSION));
    add_number(a, "MOE_CPU", !strcmp(moe_kernels_name(), "ref")); /* the vector levels give the same bits */
    MOE_TRY(add_model(a, "MODEL", c->engine->source, o->run.cancel, err));
    add_plan(a, "--plan", c->plan);
    add_plan(a, "--replan", c->next);
    add_prompts(a, c->prompts);
    moe_agree_add(a, "--score", c->ids, c->n_ids * sizeof *c->ids);
    add_number(a, "--window", c->window);
    add_number(a, "--context", context_that_counts(c));
    if (!o->reference) return MOE_OK;
    struct moe_source *src;
    MOE_TRY(moe_source_open(&src, o->reference, err));
    enum moe_code code = add_model(a, "--reference", src, o->run.cancel, err);
    moe_source_close(&src);
    return code;
}
