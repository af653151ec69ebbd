#include "runtime/plan-options.h"

#include "base/io.h"
#include "formats/routing.h"
#include "runtime/plan.h"

static enum moe_code in_range(const char *name, int64_t v, int64_t min, int64_t max, struct moe_err *err)
{
    return v == MOE_UNSET || (v >= min && v <= max) ? MOE_OK
                                                    : moe_fail(err, MOE_USAGE, "--%s %lld: want %lld to %lld", name, (long long)v, (long long)min, (long long)max);
}

enum moe_code moe_plan_options_free(const struct moe_plan_options *o, struct moe_err *err)
{
    enum moe_exists there = MOE_ABSENT;
    if (o->out && !o->force) MOE_TRY(moe_look(o->out, &there, err));
    return there == MOE_ABSENT ? MOE_OK : moe_fail_at(err, MOE_EXISTS, o->out, NULL, "already exists (replace it with --force)");
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
    if (o->slots != MOE_UNSET && o->memory != MOE_UNSET) return moe_fail(err, MOE_USAGE, "--slots and --memory-per-rank exclude each other");
    if (!(o->target >= 0 && o->target < 100)) return moe_fail(err, MOE_USAGE, "--target %g: want a share of 0 or more, 0.02 is 2 %%", o->target);
    if (o->run.argc != 1) return moe_fail(err, MOE_USAGE, "want one model, got %d operands", o->run.argc);
    MOE_TRY(moe_plan_options_free(o, err));
    return MOE_OK;
}
