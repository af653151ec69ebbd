/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-options.h"

#include "base/io.h"
#include "base/cli/output.h"
#include "formats/container/container.h"
#include "formats/container/owner.h"
#include "formats/routing.h"
#include "runtime/plan/plan-out.h"
#include "runtime/plan/plan.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static enum moe_code in_range(const char *name, int64_t v, int64_t min, int64_t max, struct moe_err *err)
{
    return v == MOE_UNSET || (v >= min && v <= max)
             ? MOE_OK
             : moe_fail(err, MOE_USAGE, "--%s %lld: want %lld to %lld", name, (long long)v, (long long)min,
                        (long long)max);
}

/* A plan in one of its three forms, or a picture: what moe-plan -o writes begins so. */
static const struct moe_file_kind plan_kind = {
    .name = "a plan",
    .marks = { { 0, "{", { "\"version\":", "\"ranks\":" } }, { 0, "{\"physical_to_logical_map\":", { NULL } },
               { 0, "", { "initial_global_assignments:" } }, { 0, "<svg xmlns=", { ">" MOE_PLOT_TITLE } } },
};

/* The container that the plan is for may hold it (docs/reference/format.md), right in it and
 * under such a name alone. */
static const char *kept_in(const struct moe_plan_options *o)
{
    const char *slash = strrchr(o->out, '/'), *model = o->run.argv[0];
    struct stat dir, in;
    char up[PATH_MAX];
    bool ours;
    struct moe_err ignored;
    moe_path_parent(o->out, up);
    bool same = !stat(up, &dir) && !stat(model, &in) && dir.st_dev == in.st_dev && dir.st_ino == in.st_ino;
    const char *name = slash ? slash + 1 : o->out;
    if (!same || !moe_is_plan_name(name) || !strcmp(name, MOE_STAGED_PLAN)) return NULL;
    return moe_manifest_is_ours(model, &ours, &ignored) == MOE_OK && ours ? model : NULL;
}

enum moe_code moe_plan_options_free(const struct moe_plan_options *o, struct moe_err *err)
{
    struct moe_output out = { .path = o->out, .replace = o->force, .kind = &plan_kind };
    if (o->out) out.into = kept_in(o);
    return moe_output_check(&o->run, &out, err);
}

enum moe_code moe_plan_options_check(const struct moe_plan_options *o, struct moe_err *err)
{
    MOE_TRY(in_range("ranks", o->ranks, 1, MOE_PLAN_RANKS_MAX, err));
    MOE_TRY(in_range("slots", o->slots, 1, (int64_t)1 << 24, err));
    MOE_TRY(in_range("ranks-per-node", o->per_node, 0, MOE_PLAN_RANKS_MAX, err));
    MOE_TRY(in_range("survive", o->survive, 0, MOE_PLAN_RANKS_MAX - 1, err));
    MOE_TRY(in_range("windows", o->windows, 1, MOE_ROUTING_WINDOWS_MAX, err));
    MOE_TRY(in_range("batch", o->batch, 1, 1 << 24, err));
    MOE_TRY(in_range("context", o->context, 1, 1 << 24, err));
    MOE_TRY(in_range("prefill", o->prefill, 1, 1 << 24, err));
    if (o->slots != MOE_UNSET && o->memory != MOE_UNSET)
        return moe_fail(err, MOE_USAGE, "--slots and --memory-per-rank exclude each other");
    if (!(o->target >= 0 && o->target < 100))
        return moe_fail(err, MOE_USAGE, "--target %g: want a share of 0 or more, 0.02 is 2 %%", o->target);
    MOE_TRY(moe_want_model(&o->run, err));
    MOE_TRY(moe_plan_options_free(o, err));
    return MOE_OK;
}
