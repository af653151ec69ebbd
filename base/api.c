/* SPDX-License-Identifier: Apache-2.0 */
#include "base/api.h"

#include "base/io.h"

#include <stdint.h>
#include <string.h>

/* The first member, the size, of a public struct that may grow with the version (include/moe/). */
static size_t size_of(const void *s)
{
    size_t size;
    memcpy(&size, s, sizeof size);
    return size;
}

static enum moe_code check_size(const void *s, const char *name, struct moe_err *err)
{
    enum { MOST = 1 << 16 };
    size_t size = size_of(s);

    if (size >= sizeof size && size <= MOST) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "the size in struct %s is %zu (set it to sizeof(struct %s))", name, size,
                    name);
}

enum moe_code moe_api_options(void *to, size_t to_bytes, const void *from, const char *name,
                              struct moe_err *err)
{
    memset(to, 0, to_bytes);
    if (!from) return MOE_OK;
    MOE_TRY(check_size(from, name, err));

    size_t size = size_of(from);
    const unsigned char *bytes = from;
    for (size_t i = to_bytes; i < size; i++)
        if (bytes[i])
            return moe_fail(err, MOE_UNSUPPORTED, "struct %s has an option that this version does not know",
                            name);
    memcpy(to, from, size < to_bytes ? size : to_bytes);
    return MOE_OK;
}

enum moe_code moe_api_given(const void *p, const char *name, struct moe_err *err)
{
    return p ? MOE_OK : moe_fail(err, MOE_USAGE, "%s is NULL", name);
}

enum moe_code moe_api_files(const char *const *paths, size_t n, const char *name, struct moe_err *err)
{
    if (n) MOE_TRY(moe_api_given(paths, name, err));
    for (size_t i = 0; i < n; i++) {
        if (!paths[i]) return moe_fail(err, MOE_USAGE, "a path in %s is NULL", name);
        if (!strcmp(paths[i], "-"))
            return moe_fail(err, MOE_USAGE, "%s are files, and no stream ('-')", name);
    }
    return MOE_OK;
}

enum moe_code moe_api_result_check(const void *to, const char *name, struct moe_err *err)
{
    MOE_TRY(moe_api_given(to, name, err));
    return check_size(to, name, err);
}

void moe_api_result(void *to, const void *from, size_t bytes)
{
    size_t size = size_of(to);

    if (size < bytes) bytes = size;
    memcpy((char *)to + sizeof size, (const char *)from + sizeof size, bytes - sizeof size);
}

/* ---- options in messages ---- */

/* The length of the option's name at s, which follows two dashes; 0: it is no member of a public struct. */
static size_t member(const char *s)
{
    static const char *const all[] = { "calib", "calib-tokens", "context", "effort", "force", "from",
                                       "memory", "memory-per-rank", "method", "ranks", "ranks-per-node",
                                       "resume", "scratch", "seed", "sequence-length", "slots", "stats",
                                       "survive", "threads", "window" };
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz-");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strlen(all[i]) == n && !memcmp(all[i], s, n)) return n;
    return 0;
}

/* Turn "--calib-tokens" at s into "'calib_tokens'", which is as long. */
static void rename_option(char *s, size_t n)
{
    memmove(s + 1, s + 2, n);
    for (size_t i = 1; i <= n; i++)
        if (s[i] == '-') s[i] = '_';
    s[0] = s[n + 1] = '\'';
}

enum moe_code moe_api_end(enum moe_code code, struct moe_err *err)
{
    bool quoted = false, command = false; /* s is within quotes, in a command line of a tool */
    bool begins = true;                   /* a word begins at s */
    size_t n;
    if (code == MOE_OK) return code;
    for (char *s = err->msg; *s; s++) {
        if (*s == '\'') quoted = quoted ? s[1] && !strchr(" ,:;)", s[1]) : begins;
        if (*s == '(' || *s == ';') command = false;
        if (begins && !strncmp(s, "moe-", 4)) command = true;
        if (begins && !quoted && !command && !strncmp(s, "--", 2) && (n = member(s + 2))) {
            rename_option(s, n);
            s += n + 1;
        }
        begins = strchr(" (", *s) != NULL;
    }
    return code;
}

enum moe_code moe_api_pool(struct moe_pool **pool, int64_t threads, struct moe_err *err)
{
    enum { MOST = 4096 };
    *pool = NULL;
    if (threads < 0 || threads > MOST)
        return moe_fail(err, MOE_USAGE, "%lld threads: want 1 to %d, or 0 for all processors",
                        (long long)threads, MOST);
    return moe_pool_open(pool, (int)threads, err);
}

static void told(void *ctx, const struct moe_progress_work *w, enum moe_progress_event event)
{
    static const double least = 0.1; /* seconds between two calls */
    struct moe_api_progress *p = ctx;
    double now = moe_now();

    if (event == MOE_PROGRESS_ADDED && now - p->last < least) return;
    p->last = now;
    const struct moe_progress_report r = { .size = sizeof r,
                                           .label = w->label,
                                           .unit = w->unit,
                                           .done = w->done,
                                           .resumed = w->skipped,
                                           .total = w->total,
                                           .ended = event == MOE_PROGRESS_ENDED };
    p->report(p->ctx, &r);
}

struct moe_progress *moe_api_progress_init(struct moe_api_progress *p, moe_api_progress_fn *report,
                                           void *ctx)
{
    *p = (struct moe_api_progress){ .report = report, .ctx = ctx };
    moe_progress_init(&p->progress, told, p);
    return report ? &p->progress : NULL;
}

void moe_api_progress_release(struct moe_api_progress *p) { moe_progress_release(&p->progress); }
