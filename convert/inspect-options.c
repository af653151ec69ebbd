/* SPDX-License-Identifier: Apache-2.0 */
/* The option table of moe-inspect, and its checks. */
#include "convert/inspect-options.h"

#include "base/io.h"
#include "base/re.h"
#include "convert/convert-man.h"
#include "convert/diff.h"

/* ---- the table ---- */

struct moe_inspect_args moe_inspect_asked = { .top = 10 };

static const struct moe_opt opts[] = {
    MOE_GROUP("what to show"),
    MOE_MAYBE(0, "tensors", &moe_inspect_asked.tensors, "REGEX",
              "list all tensors, or those whose name matches"),
    MOE_BOOL(0, "layers", &moe_inspect_asked.layers,
             "list each layer: its types, their bytes, and the error of its quantization"),
    MOE_BOOL(0, "experts", &moe_inspect_asked.experts, "list each layer's experts: extents, bytes, types"),
    MOE_BOOL(0, "verify", &moe_inspect_asked.verify,
             "read every byte: checksums, padding, values that are not finite"),
    MOE_STR(0, "diff", &moe_inspect_asked.diff, "MODEL2",
            "compare with another model, tensor by tensor, as stored and in values"),
    MOE_INT(0, "top", &moe_inspect_asked.top, "N",
            "with --diff: show this many of the tensors that differ, the worst first (0 to 1000)"),
    MOE_GROUP("this machine"),
    MOE_BOOL(0, "devices", &moe_inspect_asked.devices,
             "list the GPUs: memory, link, and how weights can be loaded (without a MODEL)"),
    MOE_GROUP("the tokenizer"),
    MOE_INPUT(0, "tokenize", &moe_inspect_asked.tokenize, "FILE",
              "print the tokens of this file's text: id and bytes a line, then counts; with --quiet the "
              "ids alone, in one line (may be gzipped; - is standard input)"),
    MOE_STR(0, "detokenize", &moe_inspect_asked.detokenize, "IDS",
            "print the text of these token ids: 1,2,3"),
    MOE_BOOL(0, "special", &moe_inspect_asked.special,
             "with --tokenize: names of special tokens in the text are those tokens"),
    MOE_COMMON_OPTIONS(&moe_inspect_asked.run),
    MOE_END(),
};

static const struct moe_opt_rule rules[] = {
    { "top", "diff", false },
    { "special", "tokenize", false },
    { "devices", "tensors layers experts verify diff tokenize detokenize", true },
    { NULL, NULL, false },
};

const struct moe_tool moe_inspect_tool = {
    .name = "moe-inspect",
    .synopsis = "[options] MODEL\n       moe-inspect --devices",
    .about = "say what a model is, whether it is whole, and whether it is sound",
    .description = moe_inspect_description,
    .examples = moe_inspect_examples,
    .json = moe_inspect_json,
    .opts = opts,
    .rules = rules,
};

/* ---- the checks ---- */

/* For `--tensors REGEX` without "=", of two operands the one that is no model is the pattern. */
static void find_pattern(struct moe_inspect_args *o)
{
    if (!o->tensors || *o->tensors || o->run.argc != 2) return;
    int pattern = moe_exists(o->run.argv[1]) != MOE_ABSENT && moe_exists(o->run.argv[0]) != MOE_DIR ? 0 : 1;
    o->tensors = o->run.argv[pattern];
    o->run.argv[0] = o->run.argv[1 - pattern];
    o->run.argc = 1;
}

enum moe_code moe_inspect_args_check(struct moe_inspect_args *o, struct moe_err *err)
{
    struct moe_re *pattern = NULL;
    find_pattern(o);
    MOE_TRY(moe_check_model_operand(&o->run, err));
    if (o->tensors && *o->tensors) MOE_TRY(moe_re_open(&pattern, o->tensors, err));
    moe_re_close(&pattern);
    return MOE_OK;
}

enum moe_code moe_inspect_args_gguf(const struct moe_inspect_args *o, struct moe_err *err)
{
    if (o->verify || o->diff || o->layers || o->experts || o->tokenize || o->detokenize)
        return moe_fail_at(err, MOE_UNSUPPORTED, o->run.argv[0], NULL,
                           "is a GGUF file: of those only its head and, with --tensors, the list of its "
                           "tensors can be shown (take the checkpoint or container that it was made from)");
    return MOE_OK;
}

enum moe_code moe_inspect_args_model(const struct moe_inspect_args *o, struct moe_err *err)
{
    if (o->diff && (o->tokenize || o->detokenize || o->verify || o->layers || o->experts || o->tensors))
        return moe_fail(err, MOE_USAGE, "--diff cannot be combined with another question");
    if (o->top < 0 || o->top > MOE_DIFF_TOP_MAX)
        return moe_fail(err, MOE_USAGE, "--top wants a number from 0 to %d, not %lld", MOE_DIFF_TOP_MAX,
                        (long long)o->top);
    if (o->diff) return MOE_OK;
    if (o->tokenize && o->detokenize)
        return moe_fail(err, MOE_USAGE, "--tokenize and --detokenize exclude each other");
    return MOE_OK;
}
