/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli/tool.h"

#include "base/env.h"
#include "base/io.h"
#include "base/show.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct moe_cancel process_token; /* cancelled by SIGINT and SIGTERM */
static struct moe_cancel part = { .parent = &process_token }; /* of a part of the work (tool.h) */
static atomic_bool ends_part; /* SIGINT ends the part: between moe_sigint_part_begin and _end */
static bool on_terminal;      /* standard output was a terminal when the tool began */

static void on_signal(int sig)
{
    if (sig == SIGINT && atomic_load(&ends_part) && !atomic_load(&part.code)) {
        moe_cancel_request(&part, MOE_SIGINT);
        return;
    }
    if (moe_is_cancelled(&process_token)) { /* a second signal ends the process at once */
        signal(sig, SIG_DFL);
        raise(sig);
    }
    moe_cancel_request(&process_token, sig == SIGINT ? MOE_SIGINT : MOE_SIGTERM);
}

static void install_handlers(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write above the limit fails with EFBIG */
    moe_map_guard();
}

void moe_sigint_part_begin(void)
{
    atomic_store(&ends_part, true);
    atomic_store(&part.code, 0);
}

void moe_sigint_part_end(void)
{
    atomic_store(&ends_part, false);
    atomic_store(&part.code, 0);
}

const struct moe_cancel *moe_sigint_part_token(void) { return &part; }
bool moe_sigint_part_cancelled(void) { return atomic_load(&part.code) != 0; }

/* A standard stream that the caller closed must not become the next file that is opened, because messages
 * would be written into that file.  It is opened in the wrong direction, so that every use of it fails. */
static void fill_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

/* Check a value that may be "-": standard input can be read only once, and only by options with
 * `standard_input`.  *first: the name of the option that was found to read it; NULL: none so far. */
static enum moe_code check_dash(const struct moe_opt *o, const char *value, const char **first,
                                struct moe_err *err)
{
    if (!value || strcmp(value, "-")) return MOE_OK;
    if (!o->standard_input)
        return moe_fail(err, MOE_USAGE,
                        "--%s '-': this option needs a name, and takes no stream (./- is a file called -)",
                        o->name);
    if (*first)
        return moe_fail(err, MOE_USAGE,
                        "standard input can be read once, but both --%s and --%s name it ('-')", *first,
                        o->name);
    *first = o->name;
    return MOE_OK;
}

static enum moe_code check_dashes(const struct moe_tool *t, struct moe_err *err)
{
    const char *first = NULL;
    for (const struct moe_opt *o = t->opts; o->kind != MOE_OPT_END; o++) {
        if (!moe_opt_names_path(o)) continue;
        if (o->kind != MOE_OPT_LIST) MOE_TRY(check_dash(o, *(const char *const *)o->value, &first, err));
        const struct moe_strlist *l = o->kind == MOE_OPT_LIST ? o->value : NULL;
        for (size_t i = 0; l && i < l->n; i++) MOE_TRY(check_dash(o, l->v[i], &first, err));
    }
    return MOE_OK;
}

static enum moe_code check_common(struct moe_tool_run *r)
{
    MOE_TRY(moe_env_check(&r->err));
    MOE_TRY(check_dashes(r->tool, &r->err));
    if (strcmp(r->color, "auto") && strcmp(r->color, "always") && strcmp(r->color, "never"))
        return moe_fail(&r->err, MOE_USAGE, "unknown --color '%s' (auto, always or never)", r->color);
    if (r->threads == MOE_UNSET) r->threads = 0;
    else if (r->threads < 1 || r->threads > 4096)
        return moe_fail(&r->err, MOE_USAGE,
                        "--threads %lld: want 1 to 4096 (leave it out for all processors)",
                        (long long)r->threads);
    return moe_pool_open(&r->pool, (int)r->threads, &r->err);
}

/* errno of the first failed write to standard output; the stream itself forgets it */
static int output_lost;
static bool record_lost; /* moe_print_record has failed, and with it the tool */

void moe_print_bytes(const char *text, size_t n)
{
    errno = 0;
    bool whole = fwrite(text, 1, n, stdout) == n;
    if ((!whole || fflush(stdout)) && !output_lost) output_lost = errno ? errno : EIO;
}

enum moe_code moe_print_record(const char *line, size_t n, struct moe_err *err)
{
    struct stat st;
    size_t done = 0;
    fflush(stdout);
    while (done < n) {
        ssize_t k = write(STDOUT_FILENO, line + done, n - done);
        if (k > 0) done += (size_t)k;
        else if (k == 0 || errno != EINTR) break;
    }
    if (done == n) return MOE_OK;
    int e = errno ? errno : EIO;
    off_t at = lseek(STDOUT_FILENO, 0, SEEK_CUR);
    if (done && at >= (off_t)done && !fstat(STDOUT_FILENO, &st) && S_ISREG(st.st_mode) && st.st_size == at &&
        ftruncate(STDOUT_FILENO, at - (off_t)done)) /* then a part of the line stays */
        e = errno;
    if (!output_lost) output_lost = e;
    record_lost = true;
    return moe_fail_errno(err, e, NULL, "cannot write to standard output");
}

/* Check that everything printed has arrived: a full disk or a closed pipe is a failure.  For a closed pipe no
 * message is printed, because its reader (head) stopped on purpose. */
static enum moe_code flush_output(const struct moe_tool *tool)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout) && !record_lost) return MOE_OK;
    int e = output_lost ? output_lost : errno;
    if (e != EPIPE)
        fprintf(stderr, "%s: cannot write to standard output%s%s\n", tool->name, e ? ": " : "",
                e ? strerror(e) : "");
    return e == ENOSPC || e == EDQUOT ? MOE_NOSPACE : MOE_IO;
}

/* Pass the library's notices and warnings on as the tool's own. */
static void print_note(void *ctx, bool warning, const char *line)
{
    if (warning) moe_warn(ctx, "%s", line);
    else moe_notice(ctx, "%s", line);
}

bool moe_tool_run_begin(struct moe_tool_run *r, const struct moe_tool *tool, int argc, char **argv)
{
    bool done = false;
    r->threads = MOE_UNSET;
    tool = moe_opt_verb(tool, argc, argv);
    r->tool = tool;
    r->argv = argv;
    r->color = r->color ? r->color : "auto";
    r->start = moe_now();
    r->cancel = &process_token;
    r->notes = (struct moe_notes){ print_note, r };
    r->err = (struct moe_err)MOE_ERR_INIT;
    fill_standard_streams();
    on_terminal = isatty(STDOUT_FILENO);
    bool json = false;
    for (int i = 1; i < argc; i++) json |= !strcmp(argv[i], "--json");
    enum moe_code code = moe_opt_parse(tool, argc, argv, &r->argc, &done, &r->err);
    if (code == MOE_OK && done) {
        r->exit = (int)flush_output(tool);
        return true;
    }
    if (code != MOE_OK) r->json |= json; /* a usage error is JSON too, wherever --json stands */
    install_handlers();
    if (code == MOE_OK) code = check_common(r);
    if (code != MOE_OK) {
        r->exit = moe_tool_run_end(r, code, NULL);
        return true;
    }
    bool tty = isatty(STDERR_FILENO), bars = tty && strcmp(r->color, "never");
    if (!r->quiet)
        r->bar = moe_bar_open(stderr, bars, !strcmp(r->color, "always") || (bars && !moe_env("NO_COLOR")),
                              NULL);
    r->progress = moe_bar_progress(r->bar);
    return false;
}

/* A call of a tool's main function in another thread, and the exit code that it returned. */
struct call { int (*fn)(int, char **); int argc; char **argv; int exit; };

static void *run_call(void *arg)
{
    struct call *c = arg;
    c->exit = c->fn(c->argc, c->argv);
    return NULL;
}

int moe_main(int (*fn)(int, char **), int argc, char **argv)
{
    struct rlimit stack;
    struct call c = { fn, argc, argv, MOE_INTERNAL };
    pthread_t thread;
    if (getrlimit(RLIMIT_STACK, &stack) || stack.rlim_cur >= MOE_STACK_BYTES) return fn(argc, argv);
    int e = moe_thread_start(&thread, run_call, &c);
    if (e) {
        fprintf(stderr, "cannot start a thread with a stack of %d MiB: %s (raise ulimit -s)\n",
                MOE_STACK_BYTES >> 20, strerror(e));
        return MOE_NOMEM;
    }
    pthread_join(thread, NULL);
    return c.exit;
}

static bool print_json(const cJSON *j)
{
    char *text = moe_json_print(j, 0);
    if (text) {
        moe_print_bytes(text, strlen(text));
        moe_print_bytes("\n", 1);
    }
    free(text);
    return text != NULL;
}

static void print_failure(const struct moe_tool_run *r, enum moe_code code)
{
    fprintf(stderr, "%s: %s\n", r->tool->name, r->err.msg);
    cJSON *j = r->json && !r->reports ? cJSON_CreateObject() : NULL;
    cJSON *e = j ? moe_json_add_object(j, "error") : NULL;
    if (e) {
        moe_json_add_err(e, code, &r->err);
        print_json(j);
    }
    cJSON_Delete(j);
}

int moe_tool_run_end(struct moe_tool_run *r, enum moe_code code, cJSON *json)
{
    moe_bar_close(&r->bar);
    r->progress = NULL;
    moe_pool_close(&r->pool);
    /* A page of a mapped file that could not be read is the cause of any other failure, except that of a
     * source that changed meanwhile (MOE_MISMATCH), which explains the page itself. */
    if (code != MOE_MISMATCH && moe_map_check(&r->err) != MOE_OK) code = MOE_IO, r->reports = false;
    if ((code == MOE_OK || r->reports) && json && !(r->json ? print_json(json) : moe_json_whole(json)))
        code = moe_fail(&r->err, MOE_NOMEM, "no memory for the report"), r->reports = false;
    if (code != MOE_OK && !record_lost) print_failure(r, code);
    cJSON_Delete(json);
    for (const struct moe_opt *o = r->tool->opts; o->kind != MOE_OPT_END; o++) {
        if (o->kind != MOE_OPT_LIST) continue;
        free(((struct moe_strlist *)o->value)->v);
        *(struct moe_strlist *)o->value = (struct moe_strlist){ 0 };
    }
    if (code == MOE_OK || record_lost) code = flush_output(r->tool);
    else fflush(stdout);
    return (int)code;
}

enum moe_code moe_check_model_operand(const struct moe_tool_run *r, struct moe_err *err)
{
    if (r->argc == 1 && !strcmp(r->argv[0], "-"))
        return moe_fail(err, MOE_USAGE, "a model is a directory, and cannot be read from standard input");
    if (r->argc == 1) return MOE_OK;
    if (!r->argc)
        return moe_fail(err, MOE_USAGE,
                        "which model? (a checkpoint's directory or a NAME.moe; see %s --help)",
                        r->tool->name);
    return moe_fail(err, MOE_USAGE, "want one model, got %d: '%s', '%s'%s (see %s --help)", r->argc,
                    r->argv[0], r->argv[1], r->argc > 2 ? " ..." : "", r->tool->name);
}

static void print_message(const struct moe_tool_run *r, const char *head, const char *fmt, va_list ap)
{
    char line[1024];
    moe_show_line(line, sizeof line, fmt, ap);
    if (r->bar) moe_bar_note(r->bar, "%s%s", head, line);
    else fprintf(stderr, "%s%s\n", head, line);
}

void moe_notice(const struct moe_tool_run *r, const char *fmt, ...)
{
    va_list ap;
    if (r->quiet) return;
    va_start(ap, fmt);
    print_message(r, "", fmt, ap);
    va_end(ap);
}

void moe_warn(const struct moe_tool_run *r, const char *fmt, ...)
{
    va_list ap;
    if (r->quiet) return;
    va_start(ap, fmt);
    print_message(r, "warning: ", fmt, ap);
    va_end(ap);
}

void moe_print_line(const char *fmt, ...)
{
    char line[3 * PATH_MAX];
    va_list ap;
    va_start(ap, fmt);
    moe_show_line(line, sizeof line, fmt, ap);
    va_end(ap);
    errno = 0;
    if (fprintf(stdout, "%s\n", line) < 0 && !output_lost) output_lost = errno ? errno : EIO;
}

void moe_print_text(const char *text, size_t n)
{
    if (on_terminal) moe_show_print(stdout, text, n, true);
    moe_print_bytes(text, on_terminal ? 0 : n);
}

void moe_report_dry_run(const struct moe_tool_run *r, cJSON *json, uint64_t in, uint64_t out, uint64_t memory,
                        double seconds)
{
    char a[16], b[16], c[16], d[16];
    moe_json_add_i64(json, "input_bytes", (int64_t)in);
    moe_json_add_i64(json, "output_bytes", (int64_t)out);
    moe_json_add_i64(json, "scratch_bytes", 0);
    moe_json_add_i64(json, "memory_bytes", (int64_t)memory);
    moe_json_add_measured(json, "seconds_estimated", seconds);
    moe_notice(r, "would read %s, write %s, hold %s, take about %s", moe_human_bytes(in, a),
               moe_human_bytes(out, b), moe_human_bytes(memory, c), moe_human_time(seconds, d));
}

void moe_warn_no_samples(const struct moe_tool_run *r, const char *path)
{
    moe_warn(r,
             "'%s' was begun by an older version, which recorded no digest of the weights: only names, sizes "
             "and headers show that it was made from this model",
             path);
}

void moe_report_done(const struct moe_tool_run *r, cJSON *json, uint64_t in, uint64_t out, int64_t tensors,
                     const char *path, bool was_done)
{
    double seconds = moe_now() - r->start;
    uint64_t peak = moe_peak_rss();
    char a[16], b[16], c[16];
    moe_json_add_i64(json, "input_bytes", (int64_t)in);
    moe_json_add_i64(json, "output_bytes", (int64_t)out);
    moe_json_add_i64(json, "tensors", tensors);
    moe_json_add_measured(json, "seconds", seconds);
    moe_json_add_i64(json, "peak_rss", (int64_t)peak);
    moe_json_add_str(json, "output", path);
    moe_notice(r, "'%s' %s: %s in %s, peak memory %s", path, was_done ? "was complete already" : "written",
               moe_human_bytes(out, a), moe_human_time(seconds, b), moe_human_bytes(peak, c));
}
