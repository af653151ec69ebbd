/* SPDX-License-Identifier: Apache-2.0 */
/* Tests errors, arenas, growing arrays, hashes, string maps, and numbers printed for people. */
#include "tests/ok.h"
#include "base/api.h"
#include "base/arena.h"
#include "base/buffer.h"
#include "base/cancel.h"
#include "base/cli/bar.h"
#include "base/env.h"
#include "base/err.h"
#include "base/grow.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/notes.h"
#include "base/re.h"
#include "base/show.h"
#include "base/strmap.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static enum moe_code passes_up(struct moe_err *err)
{
    MOE_TRY(moe_fail_at(err, MOE_CORRUPT, "m.safetensors", "norm", "%d bytes short", 48));
    return MOE_OK;
}

static void test_err(void)
{
    struct moe_err err = MOE_ERR_INIT;
    OK(passes_up(&err) == MOE_CORRUPT && !strcmp(err.msg, "'m.safetensors': tensor 'norm': 48 bytes short"));
    OK(!strcmp(err.file, "m.safetensors") && !strcmp(err.tensor, "norm"));
    OK(moe_wrap(&err, "layer %d", 7) == MOE_CORRUPT && !strncmp(err.msg, "layer 7: 'm.safe", 16) &&
       err.tensor[0]);
    OK(moe_fail(&err, MOE_USAGE, "no") == MOE_USAGE && !err.file[0] && !err.tensor[0]);
    OK(moe_err_remedy(&err, "do") == MOE_USAGE && !strcmp(err.msg, "no (do)"));
    OK(moe_fail(&err, MOE_USAGE, "no (1) (a (b))") && moe_err_remedy(&err, "do") == MOE_USAGE &&
       !strcmp(err.msg, "no (1) (do)"));
    OK(moe_fail_errno(&err, ENOSPC, "f", "cannot write") == MOE_NOSPACE &&
       strstr(err.msg, "'f': cannot write: "));
    OK(moe_fail_errno(&err, ENOENT, "f", "x") == MOE_NOT_FOUND &&
       moe_fail_errno(&err, EIO, "f", "x") == MOE_IO);
    OK(!strcmp(moe_code_name(MOE_NOSPACE), "no-space") && moe_code_text((enum moe_code)99)[0]);
}

/* A long path in a message loses its middle, whoever puts it there; the words on either side of it stay. */
static void test_long_paths(void)
{
    struct moe_err err = MOE_ERR_INIT;
    char path[4096], other[2000];
    memset(path, 'x', sizeof path);
    for (size_t i = 0; i < sizeof path; i += 10) path[i] = '/';
    strcpy(path + sizeof path - 10, "/end.json");
    memset(other, 'y', sizeof other);
    other[sizeof other - 1] = 0;
    moe_fail_errno(&err, ENOENT, path, "cannot open");
    OK(strlen(err.msg) < sizeof err.msg && strlen(err.msg) > sizeof err.msg / 2 && !strcmp(err.file, path));
    OK(!strncmp(err.msg, "'/xxxxxxxxx/xxx", 15) && strstr(err.msg, "/.../xxx"));
    OK(strstr(err.msg, "/end.json': cannot open: No such"));
    moe_wrap(&err, "copying to '%s'", other);
    OK(!strncmp(err.msg, "copying to 'yyy", 15) && strstr(err.msg, "yyy...yyy"));
    OK(strstr(err.msg, "/end.json': cannot open: No such"));
    moe_fail(&err, MOE_EXISTS, "'%s' and '%s' differ (%s)", path, other, "look");
    OK(strlen(err.msg) < sizeof err.msg);
    OK(strstr(err.msg, "/end.json' and 'yyy") && strstr(err.msg, "yyy' differ (look)"));
    moe_fail_at(&err, MOE_IO, other, other, "what");
    OK(strstr(err.msg, "': tensor 'yyy") && strstr(err.msg, "': what"));
    moe_fail(&err, MOE_IO, "%s", path + 1); /* without quotes, too */
    moe_wrap(&err, "head");
    OK(!strncmp(err.msg, "head: xxx", 9) && strstr(err.msg, "/end.json") && strlen(err.msg) < sizeof err.msg);
    for (size_t i = 0; i + 2 < sizeof other; i += 3) memcpy(other + i, "\u6f22", 3);
    for (size_t cut = 0; cut < 3; cut++) {
        moe_fail(&err, MOE_IO, "%.*s'%s': what", (int)cut, "abc", other);
        OK(strstr(err.msg, "': what") && !strstr(err.msg, "\\x"));
        const unsigned char *s = (const unsigned char *)err.msg; /* characters stay whole */
        for (int one; *s && (one = moe_utf8_char(s, strlen((const char *)s))); s += one) { }
        OK(!*s);
    }
    moe_cancel_left(MOE_SIGTERM, &err, "what an earlier run left is kept in '%s' (go on with --resume)",
                    path);
    OK(err.code == MOE_SIGTERM && !*err.file &&
       !strncmp(err.msg, "terminated: what an earlier run left is kept in '/xxx", 52));
    OK(strstr(err.msg, "/end.json' (go on with --resume)") && strlen(err.msg) < sizeof err.msg);
    moe_fail(&err, MOE_IO, "as it was");
    OK(moe_cancel_left(MOE_IO, &err, "not this") == MOE_IO && !strcmp(err.msg, "as it was"));
    memset(path, ' ', sizeof path - 1); /* no word to shorten: the end goes */
    moe_fail(&err, MOE_IO, "%s", path);
    OK(strlen(err.msg) == sizeof err.msg - 1);
}

/* Names from files are shown in one line, without anything on which a terminal acts. */
static const struct { const char *in, *out; } shows[] = {
    { "", "" }, { "plain 'text'", "plain 'text'" },
    { "a\nb\tc\rd", "a\\nb\\tc\\x0dd" }, { "\033[2J\177", "\\x1b[2J\\x7f" },
    { "gr\u00fc\u00dfe, \u6f22\u5b57, \u2026 \U0001f600",
      "gr\u00fc\u00dfe, \u6f22\u5b57, \u2026 \U0001f600" },
    { "\302\200\302\233J\302\237\302\240", "\\x80\\x9bJ\\x9f\302\240" },
    { "a\u202eb\u2069c\u2028\u2029", "a\\u202eb\\u2069c\\u2028\\u2029" },
    { "\u202a\u202b\u202c\u202d\u2066\u2067\u2068", "\\u202a\\u202b\\u202c\\u202d\\u2066\\u2067\\u2068" },
    { "\u200e\u200f\u061c|\u200d\u2027\u202f\u2065\u206a",
      "\\u200e\\u200f\\u061c|\u200d\u2027\u202f\u2065\u206a" },
    { "\302", "\\xc2" }, { "\342\200", "\\xe2\\x80" }, { "\233[2J\377", "\\x9b[2J\\xff" },
    { "\355\240\200", "\\xed\\xa0\\x80" } };

/* What moe_show_print makes of n bytes. */
static const char *printed(const char *s, size_t n, bool layout)
{
    static char text[256];
    FILE *f = tmpfile();
    if (!f) abort();
    moe_show_print(f, s, n, layout);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void test_show(void)
{
    char b[96];
    for (size_t i = 0; i < sizeof shows / sizeof *shows; i++) {
        snprintf(b, sizeof b, "%s", shows[i].in);
        moe_show(b, sizeof b);
        OK(!strcmp(b, shows[i].out));
        OK(!strcmp(printed(shows[i].in, strlen(shows[i].in), false), shows[i].out));
    }
    OK(!strcmp(printed("a\n\tb\r\n\302\233\0c", 10, true), "a\n\tb\\x0d\n\\x9b\\x00c"));
    memset(b, '\n', 63);
    b[63] = 0;
    moe_show(b, 64);
    OK(strlen(b) == 62 && !strncmp(b, "\\n\\n", 4)); /* whole escapes only */
    snprintf(b, sizeof b, "abc\033\033\342\202\254x");
    for (size_t cap = 4; cap < 20; cap++) { /* where the room ends */
        char c[96];
        memcpy(c, b, sizeof b);
        moe_show(c, cap < strlen(b) + 1 ? strlen(b) + 1 : cap);
        OK(!strncmp(c, "abc\\x1b\\x1b\342\202\254x", strlen(c)) && strlen(c) < (cap < 10 ? 10 : cap));
    }
    struct moe_err err = MOE_ERR_INIT;
    moe_fail_at(&err, MOE_IO, "a\nb", "t\033", "what\n");
    OK(!strcmp(err.msg, "'a\\nb': tensor 't\\x1b': what\\n") && !strcmp(err.file, "a\nb") &&
       !strcmp(err.tensor, "t\033"));
}

static void test_cancel(void)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_cancel whole = { 0 }, part = { .parent = &whole }, other = { .parent = &whole };
    OK(moe_cancel_check(NULL, &err) == MOE_OK && !moe_is_cancelled(NULL));
    OK(moe_cancel_check(&part, &err) == MOE_OK && moe_cancel_check_resumable(&part, &err) == MOE_OK);
    moe_cancel_request(&part, MOE_SIGINT); /* a part ends alone */
    OK(moe_is_cancelled(&part) && !moe_is_cancelled(&whole) && !moe_is_cancelled(&other));
    OK(moe_cancel_check(&part, &err) == MOE_SIGINT && !strcmp(err.msg, "interrupted"));
    moe_cancel_request(&whole, MOE_SIGTERM);
    OK(moe_cancel_check(&part, &err) == MOE_SIGTERM && moe_cancel_check(&other, &err) == MOE_SIGTERM);
    moe_cancel_request(&whole, MOE_SIGINT); /* the first request stays */
    OK(moe_cancel_check_resumable(&other, &err) == MOE_SIGTERM &&
       !strcmp(err.msg, "terminated: nothing was finished yet"));
    moe_cancel_request(&other, MOE_OK); /* no code of a request: the end is requested all the same */
    OK(atomic_load(&other.code) == MOE_SIGTERM);
}

/* Whether the API says `after` where the tools say `before`. */
static bool says(const char *before, const char *after)
{
    struct moe_err err = MOE_ERR_INIT;
    moe_fail(&err, MOE_USAGE, "%s", before);
    bool same = moe_api_end(MOE_USAGE, &err) == MOE_USAGE && !strcmp(err.msg, after);
    return same && moe_api_end(MOE_USAGE, &err) == MOE_USAGE && !strcmp(err.msg, after);
}

/* Options in messages of the API are named as its structs name them. */
static void test_api_words(void)
{
    struct moe_err err = MOE_ERR_INIT;
    moe_fail(&err, MOE_USAGE, "raise --memory");
    OK(moe_api_end(MOE_OK, &err) == MOE_OK && !strcmp(err.msg, "raise --memory"));
    OK(says("", "") && says("--", "--") && says("'", "'") && says("(--f", "(--f"));
    OK(says("--force", "'force'") && says("(--force)", "('force')"));
    OK(says("'x.moe': already exists (replace it with --force)",
            "'x.moe': already exists (replace it with 'force')"));
    OK(says("--calib-tokens wants 1 to 9", "'calib_tokens' wants 1 to 9"));
    OK(says("(raise --memory, give --scratch DIR, or lower --calib-tokens)",
            "(raise 'memory', give 'scratch' DIR, or lower 'calib_tokens')"));
    /* not a path, not another option, not the command line of a tool */
    OK(says("'/a --force/b --force': it's damaged (--resume)",
            "'/a --force/b --force': it's damaged ('resume')"));
    OK(says("--forces, --tensor-type and x--force stay", "--forces, --tensor-type and x--force stay"));
    OK(says("moe-run --plan reads it; use --from (moe-plan MODEL --stats FILE)",
            "moe-run --plan reads it; use 'from' (moe-plan MODEL --stats FILE)"));
}

static void hear(void *ctx, bool warning, const char *line)
{
    snprintf(ctx, 64, "%s%s", warning ? "warning: " : "", line);
}

static void test_notes(void)
{
    char got[64] = "";
    struct moe_notes to = { hear, got };
    moe_note(NULL, "nobody %s", "hears");
    moe_note(&(struct moe_notes){ 0 }, "nobody %s", "hears");
    moe_note(&to, "%d tensors of '%s'", 3, "a\nb");
    OK(!strcmp(got, "3 tensors of 'a\\nb'"));
    moe_note_warn(&to, "none");
    OK(!strcmp(got, "warning: none"));
}

static void test_arena(void)
{
    struct moe_arena a = MOE_ARENA_INIT;
    unsigned char *small = moe_arena_alloc(&a, 3), *large = moe_arena_alloc(&a, 5u << 20),
                  *none = moe_arena_alloc(&a, 0);
    OK(small && large && none && (uintptr_t)small % 64 == 0 && (uintptr_t)large % 64 == 0);
    OK(small[0] == 0 && large[(5u << 20) - 1] == 0);
    memset(small, 1, 3);
    memset(large, 1, 5u << 20);
    OK(a.used == 3 + (5u << 20) && a.peak == a.used); /* what is asked for, not what is taken */
    OK(!moe_arena_alloc(&a, SIZE_MAX) && !moe_arena_alloc(&a, SIZE_MAX / 2 - 1));
    OK(!MOE_NEWN(&a, double, INT64_MAX / 4) && !MOE_NEWN(&a, double, -1) && MOE_NEWN(&a, double, 3));
    moe_arena_clear(&a);
    OK(a.used == 0 && a.peak > 0 && (small = moe_arena_alloc(&a, 3)) && small[0] == 0);
    moe_arena_clear(&a);
}

/* One byte past an allocation must end the process under AddressSanitizer (which this build may not be). */
static void test_redzone(void)
{
    const char *san = getenv("MOE_SAN");
    if (!san || *san != '1') return;
    pid_t pid = fork();
    if (!pid) {
        struct moe_arena a = MOE_ARENA_INIT;
        volatile unsigned char *p = moe_arena_alloc(&a, 64);
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        p[64] = 1;
        _exit(0);
    }
    int status;
    OK(pid > 0 && waitpid(pid, &status, 0) == pid && status != 0);
}

static void test_grow(void)
{
    struct item { char name[24]; } *v = NULL, *before;
    size_t cap = 0, n;
    OK(MOE_GROW(v, cap, 0) && !v && !cap);
    for (n = 0; n < 1000; n++) {
        OK(MOE_GROW(v, cap, n + 1) && cap > n);
        memset(&v[n], (int)n, sizeof v[n]);
    }
    OK(v[999].name[23] == (char)999 && v[500].name[0] == (char)500 && cap < 2000);
    n = cap;
    before = v;
    OK(MOE_GROW(v, cap, n) && v == before && cap == n); /* there is room */
    /* a number of bytes that overflows, and one that no machine has: the array stays as it was */
    OK(!MOE_GROW(v, cap, SIZE_MAX / sizeof *v + 1) && !MOE_GROW(v, cap, SIZE_MAX));
    OK(!MOE_GROW(v, cap, SIZE_MAX / sizeof *v) && v == before && cap == n && v[999].name[0] == (char)999);
    OK(MOE_GROW(v, cap, 5 * n) && cap == 5 * n && v[999].name[0] == (char)999);
    free(v);
}

static void test_buffer(void)
{
    struct moe_buffer b = { 0 };
    struct moe_err err = MOE_ERR_INIT;
    char *text, *room;
    for (int i = 0; i < 1000; i++) moe_buffer_printf(&b, "%d,", i % 10);
    moe_buffer_put(&b, "ab\0c", 4);
    OK(b.n == 2004 && !strncmp(b.p, "0,1,2,", 6) && !memcmp(b.p + 2000, "ab\0c", 5));
    OK((room = moe_buffer_room(&b, 5000)) == b.p + b.n && b.n == 2004 && b.cap > 7004);
    memset(room, 'x', 5000);
    b.n += 5000;
    OK(moe_buffer_finish(&b, &text, &err) == MOE_OK && text[7003] == 'x' && !text[7004] && !b.p && !b.n);
    free(text);
    OK(moe_buffer_finish(&b, &text, &err) == MOE_OK && !*text); /* nothing was put */
    free(text);
    moe_buffer_put(&b, "abc", 3);
    OK(!moe_buffer_room(&b, SIZE_MAX) && !moe_buffer_room(&b, 1)); /* failed once: from then on */
    moe_buffer_put(&b, "d", 1);
    OK(b.n == 3 && moe_buffer_finish(&b, &text, &err) == MOE_NOMEM && !text && !b.p && !b.failed);
}

static void test_hash(void)
{
    static const struct { const char *text, *h64, *h128; } v[] = { /* from xxHash's own xxhsum */
        { "", "2d06800538d394c2", "99aa06d3014798d86001c324468d497f" },
        { "a", "e6c632b61e964e1f", "a96faf705af16834e6c632b61e964e1f" },
        { "abc", "78af5f94892f3950", "06b05ab6733a618578af5f94892f3950" },
    };
    char a[17], b[33];
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        moe_hex64(moe_hash64(v[i].text, strlen(v[i].text)), a);
        moe_hex128(moe_hash128(v[i].text, strlen(v[i].text)), b);
        OK(!strcmp(a, v[i].h64) && !strcmp(b, v[i].h128));
    }
    /* Pieces of any size give the digest of the whole. */
    static unsigned char data[100003];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    struct moe_hash *h = moe_hash_new(), *g = moe_hash_new();
    moe_hash_reset64(h);
    moe_hash_reset128(g);
    for (size_t at = 0, n = 1; at < sizeof data; at += n, n = n * 3 % 977 + 1) {
        if (n > sizeof data - at) n = sizeof data - at;
        moe_hash_add64(h, data + at, n);
        moe_hash_add128(g, data + at, n);
    }
    struct moe_hash128 x = moe_hash_get128(g), y = moe_hash128(data, sizeof data);
    OK(moe_hash_get64(h) == moe_hash64(data, sizeof data) && x.low == y.low && x.high == y.high);
    moe_hash_free(h);
    moe_hash_free(g);
    moe_hash_free(NULL);
}

static void test_strmap(void)
{
    enum { N = 300000, W = 64 };
    char *keys = malloc((size_t)N * W);
    struct moe_strmap m = { 0 };
    int64_t old = -7;
    OK(keys && moe_strmap_get(&m, "x", 1) == -1);
    for (int i = 0; i < N; i++) {
        int n = snprintf(keys + (size_t)i * W, W, "model.layers.%d.mlp.experts.%d.gate_proj.weight", i / 384,
                         i % 384);
        if (moe_strmap_add(&m, keys + (size_t)i * W, (size_t)n, i, NULL) != 1) OK(!"added");
    }
    OK(m.count == N && m.cap >= N);
    for (int i = 0; i < N; i++)
        if (moe_strmap_get(&m, keys + (size_t)i * W, strlen(keys + (size_t)i * W)) != i) OK(!"found");
    OK(moe_strmap_add(&m, keys, strlen(keys), 99, &old) == 0 && old == 0 &&
       moe_strmap_get(&m, keys, strlen(keys)) == 0);
    OK(moe_strmap_get(&m, keys, strlen(keys) - 1) == -1);
    OK(moe_strmap_add(&m, "a\0b", 3, 5, NULL) == 1 && moe_strmap_get(&m, "a\0c", 3) == -1 &&
       moe_strmap_get(&m, "a\0b", 3) == 5);
    OK(moe_strmap_add(&m, "", 0, 6, NULL) == 1 && moe_strmap_get(&m, "", 0) == 6);
    moe_strmap_release(&m);
    OK(!m.slots && !m.count);
    free(keys);
}

static double now;
static double clock_(void) { return now; }

/* What an earlier run did counts in the share, but not in the speed. */
static void test_progress_resumed(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    now = 100;
    struct moe_bar *bar = moe_bar_open(f, true, false, clock_);
    struct moe_progress *p = moe_bar_progress(bar);
    moe_progress_begin(p, "first", 8000000, MOE_UNIT_MFLOP);
    moe_progress_skip(p, 4000000);
    moe_progress_label(p, "second");
    now = 110;
    moe_progress_add(p, 1000000);
    fflush(f);
    OK(strstr(text, "second") && !strstr(text, "first") &&
       strstr(text, " 62%  5.00 TFLOP of 8.00 TFLOP  100.00 GFLOP/s  30 s left"));
    moe_progress_end(p);
    moe_progress_begin(p, "third", 10, MOE_UNIT_ITEMS);
    now = 112;
    moe_progress_add(p, 20); /* more than was said */
    fflush(f);
    OK(strstr(text, "third") && strstr(text, "100%") && strstr(text, " 0.0 s left"));
    moe_bar_close(&bar);
    fclose(f);
    free(text);
}

/* The longest line that progress may print on a terminal of so many columns. */
static char *drawn_at(const char *width, uint64_t done)
{
    char *text = NULL;
    size_t n = 0;
    setenv("COLUMNS", width, 1);
    FILE *f = open_memstream(&text, &n);
    now = 0;
    struct moe_bar *bar = moe_bar_open(f, true, false, clock_);
    struct moe_progress *p = moe_bar_progress(bar);
    moe_progress_begin(p, "calibrate, layer 60 of 60, experts of 384", 100000000000, MOE_UNIT_MFLOP);
    now = 359 * 86400;
    moe_progress_add(p, done);
    fflush(f);
    char *line = strdup(text + 4); /* without CR ESC [ K */
    moe_bar_close(&bar);
    fclose(f);
    free(text);
    unsetenv("COLUMNS");
    return line;
}

static void test_progress_width(void)
{
    for (int width = 1; width <= 200; width++) {
        char w[8];
        snprintf(w, sizeof w, "%d", width);
        for (uint64_t done = 1; done <= 100000000000; done *= 100000) {
            char *line = drawn_at(w, done);
            OK((int)strlen(line) < (width < 16 ? 16 : width) && strchr(line, '%'));
            free(line);
        }
    }
    char *line = drawn_at("200", 50000000000);
    OK(strstr(line,
              "[##########          ]  50%  50.00 PFLOP of 100.00 PFLOP  1.61 GFLOP/s  359 days 0 h left"));
    free(line);
    line = drawn_at("80", 50000000000);
    OK(strstr(line, "left") && strstr(line, "["));
    free(line);
    line = drawn_at("40", 50000000000);
    OK(!strncmp(line, "calibrate, layer 60 of 60, experts ", 34) && strstr(line, " 50%"));
    free(line);
}

struct followed { int events[3]; struct moe_progress_work last; };

static void follow(void *ctx, const struct moe_progress_work *w, enum moe_progress_event event)
{
    struct followed *h = ctx;
    h->events[event]++;
    h->last = *w;
}

/* What the interface tells, whoever listens. */
static void test_progress_events(void)
{
    struct followed h = { 0 };
    struct moe_progress p;
    moe_progress_init(&p, follow, &h);
    moe_progress_add(&p, 7); /* before there is work: nobody is told, and it does not count */
    OK(!h.events[MOE_PROGRESS_ADDED]);
    moe_progress_begin(&p, "one", 10, MOE_UNIT_ITEMS);
    OK(h.events[MOE_PROGRESS_BEGUN] == 1 && !h.last.done && h.last.total == 10);
    OK(!strcmp(h.last.label, "one"));
    moe_progress_skip(&p, 4);
    moe_progress_label(&p, "two");
    OK(!h.events[MOE_PROGRESS_ADDED] && !strcmp(h.last.label, "one"));
    moe_progress_add(&p, 1);
    OK(h.events[MOE_PROGRESS_ADDED] == 1 && h.last.done == 5 && h.last.skipped == 4);
    OK(h.last.unit == MOE_UNIT_ITEMS && !strcmp(h.last.label, "two"));
    moe_progress_end(&p);
    moe_progress_end(&p);
    OK(h.events[MOE_PROGRESS_ENDED] == 1 && h.last.done == 5);
    moe_progress_begin(&p, "a label that is much longer than the fifty bytes that are kept of it", 1,
                       MOE_UNIT_BYTES);
    OK(strlen(h.last.label) == sizeof h.last.label - 1 && !h.last.done && !h.last.skipped);
    moe_progress_release(&p);
    OK(h.events[MOE_PROGRESS_ENDED] == 2);
}

static void test_progress(void)
{
    char *text = NULL, s[16];
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    struct moe_bar *bar = moe_bar_open(f, true, false, clock_);
    struct moe_progress *p = moe_bar_progress(bar);
    moe_progress_begin(p, "reading", 1000, MOE_UNIT_ITEMS);
    now = 0.5;
    moe_progress_add(p, 100);
    fflush(f);
    OK(n == 0); /* silent in the first second */
    now = 2;
    moe_progress_add(p, 400);
    fflush(f);
    OK(strstr(text, "reading") && strstr(text, " 50%") && strstr(text, "2.0 s left") && text[0] == '\r');
    size_t drawn = n;
    now = 2.05;
    moe_progress_add(p, 1);
    fflush(f);
    OK(n == drawn); /* at most ten times a second */
    moe_bar_close(&bar);
    fclose(f);
    OK(!bar && n > drawn);
    free(text);
    test_progress_events();
    test_progress_resumed();
    test_progress_width();
    moe_progress_begin(NULL, "x", 1, MOE_UNIT_BYTES);
    moe_progress_skip(NULL, 1);
    moe_progress_label(NULL, "y");
    moe_progress_add(NULL, 1);
    moe_progress_end(NULL);
    OK(!strcmp(moe_human_bytes(1536, s), "1.5 KiB") && !strcmp(moe_human_bytes(7, s), "7 B"));
    moe_human_bytes(UINT64_MAX, s);
    moe_human_time(1e300, s);
    OK(!strcmp(moe_human_time(3700, s), "61 min 40 s") && !strcmp(moe_human_time(172799, s), "47 h 59 min"));
    OK(!strcmp(moe_human_time(6257520, s), "72 days 10 h"));
}

static void test_re(void)
{
    struct moe_re *re;
    struct moe_err err = MOE_ERR_INIT;
    OK(moe_re_open(&re, "experts\\.[0-9]+\\.", &err) == MOE_OK);
    OK(moe_re_match(re, "a.experts.12.b", 14) && !moe_re_match(re, "a.experts.b", 11));
    moe_re_close(&re);
    moe_re_close(&re);
    FAILS(MOE_USAGE, moe_re_open(&re, "a(b", &err));
    SAYS("a(b");
}

static void test_env(void)
{
    struct moe_err err;
    setenv("MOE_CPU", "", 1);
    OK(!moe_env("MOE_CPU"));
    setenv("MOE_CPU", "ref", 1);
    OK(!strcmp(moe_env("MOE_CPU"), "ref") && moe_env_check(&err) == MOE_OK);
    setenv("MOE_CPU", "avx", 1);
    FAILS(MOE_USAGE, moe_env_check(&err));
    SAYS("MOE_CPU='avx' in the environment: want ref, avx2 or avx512");
    setenv("MOE_CPU", "ref", 1);
}

int main(void)
{
    test_err();
    test_long_paths();
    test_show();
    test_cancel();
    test_api_words();
    test_notes();
    test_arena();
    test_redzone();
    test_grow();
    test_buffer();
    test_hash();
    test_strmap();
    test_progress();
    test_re();
    test_env();
    printf("test-base: %ld checks\n", checks);
    return 0;
}
