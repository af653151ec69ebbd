#include "runtime/plan-options.h"

#include "base/io.h"
#include "base/newfile.h"
#include "formats/routing.h"
#include "runtime/plan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum moe_code in_range(const char *name, int64_t v, int64_t min, int64_t max, struct moe_err *err)
{
    return v == MOE_UNSET || (v >= min && v <= max) ? MOE_OK
                                                    : moe_fail(err, MOE_USAGE, "--%s %lld: want %lld to %lld", name, (long long)v, (long long)min, (long long)max);
}

/* A plan in one of its three forms, a picture, or an empty file: what moe-plan -o writes begins so. */
static enum moe_code is_ours(const char *path, bool *ours, struct moe_err *err)
{
    enum { HEAD = 1 << 16 };
    static const char *const words[] = { "\"ranks\"", "\"physical_to_logical_map\"",
                                         "initial_global_assignments:", "<svg xmlns=" };
    uint64_t size;
    int fd;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    size_t n = size < HEAD ? (size_t)size : HEAD;
    char *head = calloc(1, HEAD + 1);
    enum moe_code code = head ? moe_pread(fd, path, head, n, 0, err)
                              : moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    close(fd);
    *ours = !n;
    for (size_t i = 0; code == MOE_OK && i < sizeof words / sizeof *words; i++)
        *ours |= strstr(head, words[i]) != NULL;
    free(head);
    return code;
}

enum moe_code moe_plan_options_free(const struct moe_plan_options *o, struct moe_err *err)
{
    enum moe_exists there;
    bool ours = true;
    if (!o->out) return MOE_OK;
    MOE_TRY(moe_newfile_check(o->out, o->force, err));
    MOE_TRY(moe_look(o->out, &there, err));
    if (there == MOE_FILE) MOE_TRY(is_ours(o->out, &ours, err));
    if (ours) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, o->out, NULL,
                       "already exists and is not a plan (choose another name with -o)");
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
