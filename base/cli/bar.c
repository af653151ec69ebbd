/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli/bar.h"

#include "base/env.h"
#include "base/err.h"
#include "base/io.h"
#include "base/show.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* In seconds: the time between two drawings of the bar, and between two lines where there is no terminal; how
 * long work runs before anything is shown, so that short work shows nothing. */
static const double redraw_after = 0.1, line_after = 30, silent_for = 1;

struct moe_bar {
    struct moe_progress progress;
    FILE *out;
    bool tty, color;
    bool drawn;              /* a bar stands on the terminal's last line */
    double (*clock)(void);   /* seconds */
    double start, last;      /* when the work began, and when the bar or a line was last printed */
};

static void on_progress(void *ctx, const struct moe_progress_work *w, enum moe_progress_event event);

struct moe_bar *moe_bar_open(FILE *out, bool tty, bool color, double (*clock)(void))
{
    struct moe_bar *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    b->out = out;
    b->tty = tty;
    b->color = color;
    b->clock = clock ? clock : moe_now;
    moe_progress_init(&b->progress, on_progress, b);
    return b;
}

void moe_bar_close(struct moe_bar **b)
{
    if (!*b) return;
    moe_progress_release(&(*b)->progress);
    free(*b);
    *b = NULL;
}

struct moe_progress *moe_bar_progress(struct moe_bar *b) { return b ? &b->progress : NULL; }

static const char *format_amount(enum moe_unit unit, double v, char out[16])
{
    if (unit == MOE_UNIT_BYTES) return moe_human_bytes((uint64_t)v, out);
    if (unit == MOE_UNIT_MFLOP)
        snprintf(out, 16,
                 v >= 1e9   ? "%.2f PFLOP"
                 : v >= 1e6 ? "%.2f TFLOP"
                            : "%.2f GFLOP",
                 v / (v >= 1e9   ? 1e9
                      : v >= 1e6 ? 1e6
                                 : 1e3));
    else if (v >= 1e6) snprintf(out, 16, "%.2f M", v / 1e6);
    else snprintf(out, 16, "%.0f", v);
    return out;
}

enum { BAR = 20, BAR_LEAST = 5, WIDTH = 80, WIDTH_LEAST = 16, WIDTH_MOST = 1000 };

/* The present width of the terminal, which may have been resized. */
static int terminal_columns(FILE *out)
{
    struct winsize w;
    const char *variable = moe_env("COLUMNS");
    long n = variable ? strtol(variable, NULL, 10) : WIDTH;
    if (fileno(out) >= 0 && !ioctl(fileno(out), TIOCGWINSZ, &w) && w.ws_col) n = w.ws_col;
    return n < WIDTH_LEAST ? WIDTH_LEAST : n > WIDTH_MOST ? WIDTH_MOST : (int)n;
}

/* What is left out of a line that is too wide, the least important field first. */
enum { ALL, NO_RATE, NO_AMOUNT, NO_BAR, NO_ETA };

/* The fields of a line after the label, as text; done: the share that is done, 0 to 1. */
struct line { char share[8], of[40], rate[24], eta[24]; double done; };

/* Print the part of the line after the label, without the fields that `lacks` says, with a bar of `bar`
 * columns. */
static int format_tail(const struct line *l, int lacks, int bar, char *out, size_t cap)
{
    char drawn[BAR + 4] = "";
    if (lacks < NO_BAR) {
        memset(drawn, ' ', sizeof drawn);
        drawn[1] = '[';
        memset(drawn + 2, '#', (size_t)(l->done * bar));
        drawn[bar + 2] = ']';
        drawn[bar + 3] = 0;
    }
    return snprintf(out, cap, "%s %s%s%s%s", drawn, l->share, lacks < NO_AMOUNT ? l->of : "",
                    lacks < NO_RATE ? l->rate : "", lacks < NO_ETA ? l->eta : "");
}

/* The same, fitted into `width` columns with the label: the bar gets shorter, then fields are left out, and
 * in the end the label is cut.  Returns how many bytes of the label there is room for. */
static int fit_tail(const struct line *l, int label, int width, char *out, size_t cap)
{
    for (int lacks = ALL; ; lacks++) {
        int bar = lacks < NO_BAR ? BAR : 0, over = label + format_tail(l, lacks, bar, out, cap) - width;
        if (over <= 0) return label;
        if (bar - over >= BAR_LEAST) return format_tail(l, lacks, bar - over, out, cap), label;
        if (lacks == NO_ETA) return label > over ? label - over : 0;
    }
}

static void draw(struct moe_bar *b, const struct moe_progress_work *w, double now)
{
    char done[16], total[16], rate[16], eta[16], tail[160];
    struct line l;
    double t = now - b->start, ran = (double)(w->done - w->skipped);
    l.done = w->total ? (double)w->done / (double)w->total : 0;
    if (l.done > 1) l.done = 1;
    if (ran > 0) moe_human_time(w->total > w->done ? t * (double)(w->total - w->done) / ran : 0, eta);
    else snprintf(eta, sizeof eta, "?");
    snprintf(l.share, sizeof l.share, "%3.0f%%", l.done * 100);
    snprintf(l.of, sizeof l.of, "  %s of %s", format_amount(w->unit, (double)w->done, done),
             format_amount(w->unit, (double)w->total, total));
    snprintf(l.rate, sizeof l.rate, "  %s/s", format_amount(w->unit, t > 0 ? ran / t : 0, rate));
    snprintf(l.eta, sizeof l.eta, "  %s left", eta);
    /* some terminals would begin another line after a character in the last column */
    int width = b->tty ? terminal_columns(b->out) - 1 : WIDTH_MOST;
    int label = fit_tail(&l, (int)strlen(w->label), width, tail, sizeof tail);
    fprintf(b->out, "%s%s%.*s%s%s%s", b->tty ? "\r\033[K" : "", b->color ? "\033[1m" : "", label, w->label,
            b->color ? "\033[0m" : "", tail, b->tty ? "" : "\n");
    fflush(b->out);
    b->drawn = b->tty;
    b->last = now;
}

static void clear(struct moe_bar *b)
{
    if (b->drawn) fputs("\r\033[K", b->out);
    fflush(b->out);
    b->drawn = false;
}

static void on_progress(void *ctx, const struct moe_progress_work *w, enum moe_progress_event event)
{
    struct moe_bar *b = ctx;
    if (event == MOE_PROGRESS_ENDED) {
        clear(b);
        return;
    }
    double now = b->clock();
    double every = b->tty ? redraw_after : line_after;
    if (event == MOE_PROGRESS_BEGUN) b->start = b->last = now;
    else if (now - b->start >= silent_for && now - b->last >= every) draw(b, w, now);
}

void moe_bar_note(struct moe_bar *b, const char *fmt, ...)
{
    va_list ap;
    pthread_mutex_lock(&b->progress.lock);
    clear(b);
    va_start(ap, fmt);
    vfprintf(b->out, fmt, ap);
    va_end(ap);
    fputc('\n', b->out);
    pthread_mutex_unlock(&b->progress.lock);
}
