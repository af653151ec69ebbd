/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/tool.h - what every moe-* main() shares: the common options, how results, warnings
 * and failures are printed.
 *
 * A tool is one option table (base/cli/opt.h) plus
 *
 *     static int tool_main(int argc, char **argv)
 *     {
 *         struct moe_run r;                       // common options live here
 *         if (moe_run_begin(&r, &tool, argc, argv)) return r.exit;  // --help etc., or a
 *             usage error, was printed
 *         enum moe_code code = work(&r, &r.err);
 *         return moe_run_end(&r, code, json);  // prints json under --json, the error on
 *             failure; gives the exit code
 *     }
 *
 *     int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
 */
#ifndef MOE_BASE_CLI_TOOL_H
#define MOE_BASE_CLI_TOOL_H

#include "base/cancel.h"
#include "base/cli/opt.h"
#include "base/json.h"
#include "base/notes.h"
#include "base/pool.h"
#include "base/progress.h"

struct moe_run {
    const struct moe_tool *tool;
    int argc;            /* operands, in argv[0..argc) */
    char **argv;
    int exit;            /* when moe_run_begin returned true */
    bool json, quiet;
    int64_t threads;     /* 0: all processors; --threads 0 itself is a usage error */
    const char *color;   /* auto, always, never */
    struct moe_progress *progress; /* NULL under --quiet */
    struct moe_pool *pool;         /* opened by moe_run_begin */
    struct moe_notes notes;        /* for the library: to moe_notice and moe_warn; set by moe_run_begin */
    const struct moe_cancel *cancel; /* SIGINT or SIGTERM has come; the process's, set by moe_run_begin */
    double start;
    struct moe_err err;
};

/* The rows every tool's table ends with: --json --quiet --threads --color --progress (plus --help --help-man
 * --help-complete SHELL --help-env --version, which the parser knows). */
#define MOE_COMMON_OPTIONS(r)                                                                        \
    MOE_GROUP("common"),                                                                             \
    MOE_OWN_BOOL(0, "json", &(r)->json, "print one JSON object on standard output and nothing else there"), \
    MOE_OWN_INT('t', "threads", &(r)->threads, "n", "threads to use; all processors by default"),       \
    MOE_OWN_BOOL('q', "quiet", &(r)->quiet, "no progress and no notices, only errors"),                  \
    MOE_OWN_STR(0, "color", &(r)->color, "auto|always|never", "color and bars on a terminal")

/* What the tools that write a model share; `o` has dry_run, resume, force and memory. */
#define MOE_WRITER_OPTIONS(o)                                                                        \
    MOE_BOOL(-'n', "dry-run", &(o)->dry_run, "say size, memory and time, and stop"),                  \
    MOE_BOOL(0, "resume", &(o)->resume, "go on with an unfinished PATH.partial"),                    \
    MOE_BOOL('f', "force", &(o)->force, "replace what is there, only when the new one is complete"), \
    MOE_SIZE(0, "memory", &(o)->memory, "SIZE", \
             "hold at most this, mapped files and all (peak_rss in JSON); half of the free memory by default")

/* Call fn, in a thread where the shell's limit leaves this one a small stack (base/thread.h); its result. */
int moe_main(int (*fn)(int argc, char **argv), int argc, char **argv);

/* True when main should return r->exit now.  Installs SIGINT and SIGTERM handlers that set a flag, ignores
 * SIGPIPE and SIGXFSZ, and opens standard streams that are closed, so that no file gets their numbers. */
bool moe_run_begin(struct moe_run *r, const struct moe_tool *tool, int argc, char **argv);
/* Print and clean up; `json` (may be NULL) is printed under --json when code is OK and is freed either way.
 * On failure: one line on standard error, and under --json {"error": {...}} on standard output. */
int moe_run_end(struct moe_run *r, enum moe_code code, cJSON *json);

/* MOE_USAGE unless there is exactly one operand, the model. */
enum moe_code moe_want_model(const struct moe_run *r, struct moe_err *err);

/* A line on standard error unless --quiet. */
void moe_notice(const struct moe_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_warn(const struct moe_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A line on standard output for people, escaped as base/show.h says, whatever the names in it. */
void moe_print_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Text of a model on standard output, at once: its own bytes into a file or a pipe, escaped (but for newlines
 * and tabs) on a terminal. */
void moe_print_text(const char *text, size_t n);

/* Bytes on standard output as they are, at once; n 0: what was printed before.  Why they could not be written
 * is for moe_run_end to say. */
void moe_print_bytes(const char *text, size_t n);

/* What every tool that writes a model says under --dry-run, and when it is done:
 * into `json` and as a notice. */
void moe_report_plan(const struct moe_run *r, cJSON *json, uint64_t in, uint64_t out, uint64_t memory,
                     double seconds);
/* Work that an older version left was gone on with, though it does not record its input's weights. */
void moe_warn_unweighed(const struct moe_run *r, const char *path);
void moe_report_done(const struct moe_run *r, cJSON *json, uint64_t in, uint64_t out, int64_t tensors,
                     const char *path, bool was_done);

/* For work of which a SIGINT ends a part (an answer of a chat): while this is on, the first SIGINT cancels
 * moe_run_part() and not r->cancel, which is its parent; a second one is as ever.  Turning it on or off takes
 * the first one back.  Whether it has come: moe_run_held. */
void moe_run_hold(bool on);
const struct moe_cancel *moe_run_part(void);
bool moe_run_held(void);

#endif
