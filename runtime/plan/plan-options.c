/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-options.h"

#include "base/io.h"
#include "base/cli/output.h"
#include "formats/container/container.h"
#include "formats/container/owner.h"
#include "formats/routing.h"
#include "runtime/plan/plan-man.h"
#include "runtime/plan/plan-out.h"
#include "runtime/plan/plan.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the tables ---- */

struct moe_plan_args moe_plan_asked = {
    .ask = MOE_PLAN_REQUEST,
    .step = MOE_STEP_OPTIONS,
    .how = "copy",
};

static const char windows[] =
    "a file of statistics may hold several stretches of time (windows), and the plan has to be good in each "
    "of them: keep at most N of a file apart and add up neighbours beyond that; more are slower to plan for; "
    "8 by default";
static_assert(MOE_PLAN_WINDOWS == 8, "the help above says so");
static_assert(MOE_PLAN_UNSET == MOE_UNSET, "an option that is not given is unset in the request");
static const char force[] = "replace the file at -o, if it is one that moe-plan wrote";

static const struct moe_opt opts[] = {
    MOE_GROUP("plan"),
    MOE_INT(0, "ranks", &moe_plan_asked.ask.ranks, "N",
            "how many GPUs share the experts of each layer; with --from as many as the old plan has by "
            "default"),
    MOE_INT(0, "slots", &moe_plan_asked.ask.slots, "S",
            "places for experts in each layer, all ranks together; what is more than the number of "
            "experts (times --survive + 1) holds second copies of busy experts; by default just enough, "
            "rounded up to a multiple of the ranks"),
    MOE_SIZE(0, "memory-per-rank", &moe_plan_asked.ask.memory, "SIZE",
             "instead of --slots: as many slots as fit when the weights of one rank, its experts and all "
             "that every rank holds, may take this much (the cache is not in it)"),
    MOE_INPUT_LIST(0, "stats", &moe_plan_asked.stats, "FILE",
                   "how many tokens went to each expert: routing.json of moe-run or of a calibration, "
                   "SGLang's JSON or a directory of TensorRT-LLM's; several are planned for together"),
    MOE_INT(0, "windows", &moe_plan_asked.ask.windows, "N", windows),
    MOE_INT(0, "ranks-per-node", &moe_plan_asked.ask.ranks_per_node, "N",
            "ranks 0 to N-1 are one machine, and so on: copies of an expert go to different machines as "
            "far as there are such"),
    MOE_INT(0, "survive", &moe_plan_asked.ask.survive, "R",
            "keep R + 1 copies of every expert on different ranks, so that none is lost whichever R "
            "ranks die; needs (R + 1) x experts slots"),
    MOE_INPUT(0, "from", &moe_plan_asked.ask.from, "PLAN",
              "start from this plan, which is in use now, and move as few slots as it takes"),
    MOE_FLOAT(0, "target", &moe_plan_asked.ask.target, "SHARE",
              "with --from: a layer is left alone once its fullest rank is at most this share above the "
              "least that any plan can have; 0.02 is 2 %, and smaller moves more"),
    MOE_BOOL(0, "layers", &moe_plan_asked.layers,
             "add to the report a line for each layer, what its columns mean, and the model's table"),
    MOE_LIST(0, "baseline", &moe_plan_asked.baselines, "trivial|round-robin|eplb|all",
             "add to the report what this placement would reach with the same slots"),
    MOE_GROUP("memory and time model"),
    MOE_STR(0, "gpu", &moe_plan_asked.step.gpu, "NAME",
            "whose memory and speed the report computes with: gb200-nvl72 or hgx-h200; "
            "NAME,key=value,... changes figures, such as hgx-h200,memory=80,bandwidth=3350 (GB, GB/s): "
            "all keys are in the man page"),
    MOE_INT(0, "batch", &moe_plan_asked.step.batch, "N", "sequences that a rank decodes at once"),
    MOE_INT(0, "context", &moe_plan_asked.step.context, "N", "tokens of context of each"),
    MOE_INT(0, "prefill", &moe_plan_asked.step.prefill, "N", "tokens of a prefill step of a rank"),
    MOE_STR(0, "expert-type", &moe_plan_asked.ask.expert_type, "source|bf16|fp8|int4|nvfp4",
            "type that routed experts will have"),
    MOE_STR(0, "dense-type", &moe_plan_asked.ask.dense_type, "source|bf16|fp8",
            "type that attention, shared experts and dense layers will have"),
    MOE_STR(0, "kv-type", &moe_plan_asked.step.kv_type, "fp8|bf16", "type of the cache"),
    MOE_SIZE_OR_0(0, "reserve", &moe_plan_asked.step.reserve, "SIZE",
             "memory of a rank that is neither weights nor cache"),
    MOE_STR(0, "compare", &moe_plan_asked.compare, "N,N...",
            "the model for other numbers of ranks too, or of ranks x slots: 8,16x400,72"),
    MOE_GROUP("output"),
    MOE_STR('o', "output", &moe_plan_asked.out, "FILE", "write the plan here"),
    MOE_BOOL(-'n', "dry-run", &moe_plan_asked.dry_run, "say slots, memory and bounds, and stop"),
    MOE_BOOL('f', "force", &moe_plan_asked.force, force),
    MOE_COMMON_OPTIONS(&moe_plan_asked.run),
    MOE_END(),
};

static const struct moe_opt verify_opts[] = {
    MOE_INPUT_LIST(0, "stats", &moe_plan_asked.stats, "FILE",
                   "the statistics that the plan was made from; without them loads and bounds are not "
                   "computed again; with others, the report says what the loads would be"),
    MOE_INT(0, "windows", &moe_plan_asked.ask.windows, "N", windows),
    MOE_INPUT(0, "from", &moe_plan_asked.ask.from, "PLAN",
              "the plan that it was made from: counts again what moves"),
    MOE_COMMON_OPTIONS(&moe_plan_asked.run),
    MOE_END(),
};

static const struct moe_opt export_opts[] = {
    MOE_STR(0, "to", &moe_plan_asked.to, "sglang|tensorrt-llm", "for this engine"),
    MOE_STR(0, "model", &moe_plan_asked.model, "MODEL",
            "the model, of a plan that does not say (SGLang's, TensorRT-LLM's) which layers have no "
            "experts: rows of these are left out"),
    MOE_INT(0, "ranks", &moe_plan_asked.ask.ranks, "N",
            "how many ranks a plan that does not say (SGLang's, TensorRT-LLM's) is for"),
    MOE_STR('o', "output", &moe_plan_asked.out, "FILE", "write it here instead of to standard output"),
    MOE_BOOL('f', "force", &moe_plan_asked.force, force),
    MOE_COMMON_OPTIONS(&moe_plan_asked.run),
    MOE_END(),
};

static const struct moe_opt plot_opts[] = {
    MOE_INPUT_LIST(
        0, "stats", &moe_plan_asked.stats, "FILE",
        "the statistics that the plan was made from: draws what EPLB would make of them beside the plan"),
    MOE_INT(0, "windows", &moe_plan_asked.ask.windows, "N", windows),
    MOE_STR('o', "output", &moe_plan_asked.out, "FILE",
            "write the picture (SVG) here instead of to standard output"),
    MOE_BOOL('f', "force", &moe_plan_asked.force, force),
    MOE_COMMON_OPTIONS(&moe_plan_asked.run),
    MOE_END(),
};

static const struct moe_opt stage_opts[] = {
    MOE_STR(0, "rank", &moe_plan_asked.rank, "R|A-B",
            "which ranks of the plan, counted from 0, will run where this goes: one, or all from A to B"),
    MOE_STR(
        0, "how", &moe_plan_asked.how, "copy|link",
        "copy only what these ranks need, or make hard links of all files (no space, same file system)"),
    MOE_STR(0, "model", &moe_plan_asked.model, "NAME.moe",
            "the container, where the plan does not say or it has moved"),
    MOE_BOOL(0, "check", &moe_plan_asked.check,
             "write nothing: read what is at -o and hold it against its checksums"),
    MOE_INT(0, "ranks", &moe_plan_asked.ask.ranks, "N",
            "how many ranks a plan that does not say (SGLang's, TensorRT-LLM's) is for"),
    MOE_STR('o', "output", &moe_plan_asked.out, "FILE",
            "the container directory to make, or with --check to read"),
    MOE_BOOL('f', "force", &moe_plan_asked.force, "replace what is at -o, if it is such a part"),
    MOE_COMMON_OPTIONS(&moe_plan_asked.run),
    MOE_END(),
};

/* Planning itself takes --windows without --stats: a container has statistics of its own, which no option
 * names. */
static const struct moe_opt_rule rules[] = { { "target", "from", false }, { NULL, NULL, false } };
static const struct moe_opt_rule of_stats[] = { { "windows", "stats", false }, { NULL, NULL, false } };

static const struct moe_tool verify = {
    .rules = of_stats,
    .name = "moe-plan",
    .verb = "verify",
    .synopsis = "PLAN [--stats FILE]... [--from PLAN]",
    .opts = verify_opts,
    .about = "compute every number of a plan again, in code that shares nothing with the planner",
    .description = "Exit code 16, and a line for each number that is wrong; without --stats only what "
                   "the plan says by itself is held: coverage, copies, losses, memory.",
    .json = "verified, problems, claims, same_statistics (null without --stats), load_max, load_mean, "
            "copies_min, experts_lost_worst, experts_lost_worst_node.",
    .examples = "moe-plan verify plan.json --stats routing.json",
};

static const struct moe_tool export = {
    .name = "moe-plan",
    .verb = "export",
    .synopsis = "PLAN --to sglang|tensorrt-llm [-o FILE]",
    .opts = export_opts,
    .about = "write a plan as SGLang or TensorRT-LLM reads it",
    .description = "SGLang takes it with --init-expert-location, TensorRT-LLM as moe_load_balancer.yaml. "
                   "Both want as many slots on each rank.",
    .json = "output.",
    .examples = "moe-plan export plan.json --to sglang -o sglang.json",
};

static const struct moe_tool plot = {
    .rules = of_stats,
    .name = "moe-plan",
    .verb = "plot",
    .synopsis = "PLAN [--stats FILE]... [-o FILE.svg]",
    .opts = plot_opts,
    .about = "draw the load of every rank and layer, and the fullest ranks beside the bound",
    .json = "output.",
    .examples = "moe-plan plot plan.json --stats routing.json -o plan.svg",
};

static const struct moe_tool stage = {
    .name = "moe-plan",
    .verb = "stage",
    .synopsis = "PLAN --rank R|A-B -o DIR [--check]",
    .opts = stage_opts,
    .about = "put what some ranks need of a container into a directory of its own",
    .description = "For machines that cannot hold the whole model: the directory can be moved anywhere, "
                   "and moe-run --comm ucx runs those ranks from it.",
    .json = "output, bytes.",
    .examples = "moe-plan stage plan.json --rank 0 -o node0.moe",
};

static const struct moe_tool *const verbs[] = { &verify, &export, &plot, &stage, NULL };

const struct moe_tool moe_plan_tool = {
    .rules = rules,
    .name = "moe-plan",
    .synopsis = "[options] MODEL --ranks N [-o PLAN]\n       moe-plan verify|export|plot|stage PLAN "
                "[options]",
    .verbs = verbs,
    .about = "place experts on ranks, with a proof of how good the placement is",
    .opts = opts,
    .description = moe_plan_description,
    .json = moe_plan_json_keys,
    .examples = moe_plan_examples,
};

/* ---- whether it can be ---- */

/* How the files begin that moe-plan -o writes, and so may replace: a plan in one of three forms, or a
 * picture. */
static const struct moe_file_kind plan_kind = {
    .name = "a plan",
    .marks = { { 0, "{", { "\"version\":", "\"ranks\":" } }, { 0, "{\"physical_to_logical_map\":", { NULL } },
               { 0, "", { "initial_global_assignments:" } }, { 0, "<svg xmlns=", { ">" MOE_PLOT_TITLE } } },
};

/* The container for which the plan is made, if -o is a place in it where a plan may lie: directly in its
 * directory and under the name of a plan (docs/reference/format.md).  NULL: -o is no such place. */
static const char *kept_in(const struct moe_plan_args *o)
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

enum moe_code moe_plan_args_output(const struct moe_plan_args *o, struct moe_err *err)
{
    struct moe_output out = { .path = o->out, .replace = o->force, .kind = &plan_kind };
    if (o->out) out.into = kept_in(o);
    return moe_output_check(&o->run, &out, err);
}

enum moe_code moe_plan_args_check(const struct moe_plan_args *o, struct moe_gpu *gpu,
                                  struct moe_err *err)
{
    MOE_TRY(moe_plan_request_check(&o->ask, err));
    MOE_TRY(moe_step_options_check(&o->step, gpu, err));
    MOE_TRY(moe_check_model_operand(&o->run, err));
    return moe_plan_args_output(o, err);
}

enum moe_code moe_plan_args_word(const struct moe_plan_args *o, struct moe_err *err)
{
    if (!o->run.argc)
        return moe_fail(err, MOE_USAGE, "want a model, or verify, export, plot or stage and a plan");
    const char *word = o->run.argv[0];
    const char *near = moe_exists(word) == MOE_ABSENT ? moe_opt_near_verb(o->run.tool, word) : NULL;
    if (near) return moe_fail(err, MOE_USAGE, "unknown verb '%s' (did you mean '%s'?)", word, near);
    return MOE_OK;
}

enum moe_code moe_plan_args_one(const struct moe_plan_args *o, const char *what, struct moe_err *err)
{
    if (o->run.argc != 1)
        return moe_fail(err, MOE_USAGE, "%s wants one PLAN, got %d operands", what, o->run.argc);
    if (moe_exists(o->run.argv[0]) == MOE_DIR)
        return moe_fail_at(err, MOE_USAGE, o->run.argv[0], NULL,
                           "is a directory, and %s wants a plan (the file of moe-plan MODEL -o PLAN)", what);
    MOE_TRY(moe_plan_request_check(&o->ask, err));
    if (strcmp(o->run.argv[0], "-")) return MOE_OK;
    const char *also = o->ask.from && !strcmp(o->ask.from, "-") ? "--from" : NULL;
    for (size_t i = 0; i < o->stats.n; i++) also = strcmp(o->stats.v[i], "-") ? also : "--stats";
    if (!also) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "standard input can be read once, but both PLAN and %s name it ('-')",
                    also);
}

int32_t moe_plan_args_ranks(const struct moe_plan_args *o)
{
    return o->ask.ranks == MOE_PLAN_UNSET ? 0 : (int32_t)o->ask.ranks;
}

enum moe_code moe_plan_args_stage(const struct moe_plan_args *o, struct moe_err *err)
{
    if (strcmp(o->how, "link") && strcmp(o->how, "copy"))
        return moe_fail(err, MOE_USAGE, "unknown --how '%s' (copy or link)", o->how);
    if (!o->out) return moe_fail(err, MOE_USAGE, "where to? (-o DIR)");
    return o->check ? MOE_OK : moe_output_partial_check(&o->run, o->out, err);
}
