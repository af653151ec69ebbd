/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/tool.h - what every moe-* main() shares: the common options, and how results, warnings and
 * failures are printed.
 *
 * A tool is one option table (base/cli/opt.h) plus
 *
 *     static struct moe_tool_run r;  // MOE_COMMON_OPTIONS(&r), with which the table ends, store into it
 *
 *     static int tool_main(int argc, char **argv)
 *     {
 *         if (moe_tool_run_begin(&r, &tool, argc, argv)) return r.exit;  // --help, or a usage error
 *         enum moe_code code = work(&r, &r.err);
 *         return moe_tool_run_end(&r, code, json);                       // prints; returns the exit code
 *     }
 *
 *     int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
 */
#ifndef MOE_BASE_CLI_TOOL_H
#define MOE_BASE_CLI_TOOL_H

#include "base/cancel.h"
#include "base/cli/bar.h"
#include "base/cli/opt.h"
#include "base/json.h"
#include "base/notes.h"
#include "base/pool.h"

/* One invocation of a tool: the common options, and what the process has to do its work with. */
struct moe_tool_run {
    const struct moe_tool *tool;     /* the tool, or the subcommand that was chosen */
    int argc;                        /* operands: argv[0..argc) */
    char **argv;
    int exit;                        /* the exit code, set when moe_tool_run_begin returns true */
    bool json, quiet;
    bool reports;                    /* print the report also after a failure, in the place of its JSON */
    int64_t threads;                 /* 0: all processors; --threads 0 itself is a usage error */
    const char *color;               /* auto, always, never */
    struct moe_bar *bar;             /* NULL under --quiet */
    struct moe_progress *progress;   /* what the bar shows; NULL without a bar */
    struct moe_pool *pool;           /* opened by moe_tool_run_begin */
    struct moe_notes notes;          /* passes the library's lines to moe_notice and moe_warn */
    const struct moe_cancel *cancel; /* the process's token: cancelled by SIGINT and SIGTERM */
    double start;                    /* when the tool began, in seconds of moe_now */
    struct moe_err err;              /* the failure that moe_tool_run_end reports */
};

/* The rows with which every tool's table ends: --json, --threads, --quiet, --color.  The parser itself knows
 * --help, --help-man, --help-complete SHELL, --help-env and --version. */
#define MOE_COMMON_OPTIONS(r)                                                                        \
    MOE_GROUP("common"),                                                                             \
    MOE_OWN_BOOL(0, "json", &(r)->json, "print one JSON object on standard output and nothing else there"), \
    MOE_OWN_INT('t', "threads", &(r)->threads, "n", "threads to use; all processors by default"),       \
    MOE_OWN_BOOL('q', "quiet", &(r)->quiet, "no progress and no notices, only errors"),                  \
    MOE_OWN_STR(0, "color", &(r)->color, "auto|always|never", "color and bars on a terminal")

/* Options of the tools that write a model; `o` points to a struct with dry_run, resume, force and memory. */
#define MOE_WRITER_OPTIONS(o)                                                                        \
    MOE_BOOL(-'n', "dry-run", &(o)->dry_run, "say size, memory and time, and stop"),                  \
    MOE_BOOL(0, "resume", &(o)->resume, "go on with an unfinished PATH.partial"),                    \
    MOE_BOOL('f', "force", &(o)->force, "replace what is there, only when the new one is complete"), \
    MOE_SIZE(0, "memory", &(o)->memory, "SIZE", \
             "hold at most this, mapped files and all (peak_rss in JSON); half of the free memory by default")

/* Call fn and return its result; where the shell's limit gives the main thread a small stack, fn runs in a
 * thread with a larger one (base/thread.h). */
int moe_main(int (*fn)(int argc, char **argv), int argc, char **argv);

/* Parse the command line into *r, and open the bar and the pool.  Returns true when main should return
 * r->exit now: after --help and the like, and after a usage error, which is reported already.  Installs
 * handlers for SIGINT and SIGTERM that cancel r->cancel, ignores SIGPIPE and SIGXFSZ, and opens /dev/null for
 * each standard stream that is closed, so that no other file gets its descriptor. */
bool moe_tool_run_begin(struct moe_tool_run *r, const struct moe_tool *tool, int argc, char **argv);
/* Print the result and clean up; return the exit code.  `json` (may be NULL) is printed under --json when
 * `code` is MOE_OK; it is freed either way.  On failure one line goes to standard error and, under --json,
 * {"error": {...}} to standard output. */
int moe_tool_run_end(struct moe_tool_run *r, enum moe_code code, cJSON *json);

/* MOE_USAGE unless there is exactly one operand, the model. */
enum moe_code moe_check_model_operand(const struct moe_tool_run *r, struct moe_err *err);

/* Print one line on standard error, unless --quiet was given. */
void moe_notice(const struct moe_tool_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_warn(const struct moe_tool_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Print one line for people on standard output; control characters in names are escaped (base/show.h). */
void moe_print_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Print on standard output what a model generated, and flush it.  A file or a pipe gets its bytes as
 * they are; on a terminal all control characters but newlines and tabs are escaped. */
void moe_print_text(const char *text, size_t n);

/* Write n bytes as they are to standard output and flush it; with n 0 it is only flushed.  A failure is kept,
 * and moe_tool_run_end reports it. */
void moe_print_bytes(const char *text, size_t n);

/* Write a line of n bytes to standard output at once.  Where it does not fit on the disk, the part that did
 * is taken back from a file, so that whatever happens only whole lines stand there.  MOE_NOSPACE or MOE_IO;
 * moe_tool_run_end then says no more than it does for moe_print_bytes. */
enum moe_code moe_print_record(const char *line, size_t n, struct moe_err *err);

/* Report what every tool that writes a model reports, under --dry-run (moe_report_dry_run) and when it is
 * done (moe_report_done): as keys of `json` and as a notice.  `in`, `out`, `memory`: bytes.  was_done: an
 * earlier run had completed the output. */
void moe_report_dry_run(const struct moe_tool_run *r, cJSON *json, uint64_t in, uint64_t out, uint64_t memory,
                        double seconds);
void moe_report_done(const struct moe_tool_run *r, cJSON *json, uint64_t in, uint64_t out, int64_t tensors,
                     const char *path, bool was_done);
/* Warn that the work at `path`, which is resumed, was begun by an older version that did not record samples
 * of its input's weights. */
void moe_warn_no_samples(const struct moe_tool_run *r, const char *path);

/* For work of which SIGINT ends only a part, such as one answer of a chat.  From begin to end the first
 * SIGINT cancels the part's token, whose parent is r->cancel; a second one cancels r->cancel as usual.
 * moe_sigint_part_cancelled says, before the end, whether that first SIGINT has come.  Outside of begin and
 * end the token is cancelled when r->cancel is. */
void moe_sigint_part_begin(void);
void moe_sigint_part_end(void);
const struct moe_cancel *moe_sigint_part_token(void);
bool moe_sigint_part_cancelled(void);

#endif
