/* SPDX-License-Identifier: Apache-2.0 */
/* Parses a command line of any words (with NUL between them) by a table with every kind of option.  The
 * result is a usage error in a sentence, or values that lie within what their kinds allow and operands that
 * are words of the line. */
#undef NDEBUG
#include "base/cli/opt.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS = 256 };

static struct {
    bool resume, verify;
    const char *out, *color, *bench;
    int64_t n, seed, memory;
    double t;
    struct moe_strlist stop;
} o;
static const struct moe_opt table[] = {
    MOE_GROUP("main"),
    MOE_STR('o', "output", &o.out, "PATH", "where to write"),
    MOE_BOOL('r', "resume", &o.resume, "go on"),
    MOE_BOOL(0, "verify", &o.verify, "check"),
    MOE_BOOL(0, "no-sync", &o.verify, "a name that begins as a negation does"),
    MOE_INT('n', "count", &o.n, "N", "how many"),
    MOE_INT(0, "seed", &o.seed, "N", "a number"),
    MOE_SIZE(0, "memory", &o.memory, "SIZE", "at most"),
    MOE_FLOAT('t', "temperature", &o.t, "T", "0 to 2"),
    MOE_LIST(0, "stop", &o.stop, "TEXT", "stop here"),
    MOE_STR(0, "color", &o.color, "auto|always|never", "colors"),
    MOE_MAYBE(0, "bench", &o.bench, "FILTER", "time it"),
    MOE_END()
};
static const struct moe_tool tool = {
    .name = "moe-fuzz", .synopsis = "[options] MODEL", .about = "a tool for the fuzzer", .opts = table
};

static bool within(const char *s, const char *text, size_t size)
{
    return (uintptr_t)s >= (uintptr_t)text && (uintptr_t)s <= (uintptr_t)text + size;
}

static void check_values(const char *text, size_t size)
{
    assert(o.memory >= 0 && o.memory < (int64_t)1 << 62 && isfinite(o.t));
    assert(!o.out || within(o.out, text, size));
    assert(within(o.color, text, size) || !strcmp(o.color, "auto"));
    assert(!o.bench || within(o.bench, text, size) || !*o.bench);
    for (size_t i = 0; i < o.stop.n; i++) assert(within(o.stop.v[i], text, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool quiet;
    struct moe_err err = MOE_ERR_INIT;
    char *text = malloc(size + 1), *argv[WORDS + 2];
    int argc = 1, operands = -1;
    bool done;
    if (!quiet && !freopen("/dev/null", "w", stdout)) abort(); /* --help and its kin print there */
    quiet = true;
    assert(text);
    memcpy(text, data, size);
    text[size] = 0;
    argv[0] = text;
    for (char *s = text; argc <= WORDS && s <= text + size; s += strlen(s) + 1) argv[argc++] = s;
    argv[argc] = NULL;
    memset(&o, 0, sizeof o);
    o.color = "auto";
    enum moe_code code = moe_opt_parse(&tool, argc, argv, &operands, &done, &err);
    check_values(text, size);
    if (code == MOE_OK && !done) {
        assert(operands >= 0 && operands < argc);
        for (int i = 0; i < operands; i++) assert(within(argv[i], text, size));
    } else if (code != MOE_OK) {
        assert(code == MOE_USAGE && err.code == MOE_USAGE && *err.msg && memchr(err.msg, 0, sizeof err.msg));
    }
    free(o.stop.v);
    free(text);
    return 0;
}
