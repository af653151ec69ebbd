/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-man.h"

const char moe_plan_description[] =
    "Expert parallelism gives each of N ranks (GPUs) some experts of every layer. In each layer all "
    "ranks wait for the one that got most tokens, so where experts lie, and which of them have "
    "copies on several ranks, decides how long a step takes. moe-plan says which experts lie in the "
    "slots of which rank, layer by layer: first so that no expert is lost with --survive ranks, then "
    "so that the fullest rank has least to do, then, with --from, so that few slots change.\n\n"
    "MODEL is a container, a checkpoint, or a directory with only a config.json. How busy experts "
    "are comes from --stats, else from the routing.json of a container; without either all count the "
    "same, and the plan spreads them evenly.\n\n"
    "A plan is a file of moe-plan -o, or SGLang's or TensorRT-LLM's as export writes it, which "
    "verify and plot cannot use. PLAN, or one value of --stats and --from, may be -: standard "
    "input.\n\n"
    "The report says in five sentences how balanced the plan is, against a bound that no plan can "
    "beat and against EPLB; what is lost with a rank; what a rank holds; how fast it would be, by a "
    "model; and what is moved. docs/reference/placement.md, section 6, says what each number means "
    "and what to do about it, and what the columns of --layers are.\n\n"
    "The model of memory and time is arithmetic on published figures, not a measurement. --gpu "
    "NAME,key=value... changes figures: memory in GB, bandwidth, link and network (between link "
    "domains) in GB/s one way, fp4, fp8 and bf16 in dense TFLOP/s, domain in ranks.";

const char moe_plan_json_keys[] =
    "layers (layer, load_max, load_mean, bound, gap, bound_kind, load_max_after_loss, loss_rank, "
    "bounds, load_max_rank, min_cut, min_cut_ranks, copies_min, experts_lost_worst, "
    "experts_lost_worst_node, activated_max, noise_floor, slots_moved), gap_total, "
    "experts_lost_worst, bytes_per_rank, bytes_moved, seconds (planning alone), cpu_seconds (the "
    "same, of all threads), expert_bytes, replicated_bytes, slots_moved, statistics, windows, "
    "batch, ranks, slots, the sums load_max, load_mean, bound, min_cut, load_max_after_loss, "
    "baselines, gpu, model, compare, peak_rss.\n\n"
    "verify: verified, problems, claims, same_statistics (null without --stats), load_max, "
    "load_mean, copies_min, experts_lost_worst, experts_lost_worst_node. export, plot, stage: "
    "output; stage: bytes.";

const char moe_plan_examples[] =
    "moe-plan k2.moe --ranks 8 --slots 400 --stats routing.json -o plan.json\n"
    "moe-plan k2.moe --ranks 8 --survive 1 --stats routing.json --layers\n"
    "moe-plan k2.moe --stats today.json --from plan.json -o plan2.json\n"
    "moe-plan verify plan.json --stats routing.json\n"
    "moe-plan plot plan.json --stats routing.json -o plan.svg\n"
    "moe-plan export plan.json --to sglang -o sglang.json\n"
    "moe-plan stage plan.json --rank 0-3 -o node0.moe\n"
    "moe-plan k2-config/ --ranks 72 --expert-type nvfp4 --compare 8,16,32,36,72 --dry-run";
