/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include "base/env.h"
#include "base/err.h"
#include "base/io.h"
#include "base/show.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* seconds */
static const double redraw = 0.1, line_every = 30, quiet_first = 1;

struct moe_progress {
    FILE *out;
    bool tty, color, drawn, begun;
    double (*clock)(void);
    pthread_mutex_t lock;
    char label[48];
    uint64_t done, skipped, total;
    enum moe_unit unit;
    double start, last;
};

struct moe_progress *moe_progress_open(FILE *out, bool tty, bool color, double (*clock)(void))
{
    struct moe_progress *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->out = out;
    p->tty = tty;
    p->color = color;
    p->clock = clock ? clock : moe_now;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void moe_progress_close(struct moe_progress **p)
{
    if (!*p) return;
    moe_progress_end(*p);
    pthread_mutex_destroy(&(*p)->lock);
    free(*p);
    *p = NULL;
}

static const char *amount(const struct moe_progress *p, double v, char out[16])
{
    if (p->unit == MOE_UNIT_BYTES) return moe_human_bytes((uint64_t)v, out);
    if (p->unit == MOE_UNIT_MFLOP)
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
static int columns(FILE *out)
{
    struct winsize w;
    const char *said = moe_env("COLUMNS");
    long n = said ? strtol(said, NULL, 10) : WIDTH;
    if (fileno(out) >= 0 && !ioctl(fileno(out), TIOCGWINSZ, &w) && w.ws_col) n = w.ws_col;
    return n < WIDTH_LEAST ? WIDTH_LEAST : n > WIDTH_MOST ? WIDTH_MOST : (int)n;
}

/* What is left out of a line that is too wide, the least important field first. */
enum { ALL, NO_RATE, NO_AMOUNT, NO_BAR, NO_ETA };

struct line { char share[8], of[40], rate[24], eta[24]; double done; };

/* Print the part of the line after the label, without the fields that `lacks` says, with a bar of `bar`
 * columns. */
static int tail_of(const struct line *l, int lacks, int bar, char *out, size_t cap)
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
static int fit(const struct line *l, int label, int width, char *out, size_t cap)
{
    for (int lacks = ALL; ; lacks++) {
        int bar = lacks < NO_BAR ? BAR : 0, over = label + tail_of(l, lacks, bar, out, cap) - width;
        if (over <= 0) return label;
        if (bar - over >= BAR_LEAST) return tail_of(l, lacks, bar - over, out, cap), label;
        if (lacks == NO_ETA) return label > over ? label - over : 0;
    }
}

static void draw(struct moe_progress *p, double now)
{
    char done[16], total[16], rate[16], eta[16], tail[160];
    struct line l;
    double t = now - p->start, ran = (double)(p->done - p->skipped);
    l.done = p->total ? (double)p->done / (double)p->total : 0;
    if (l.done > 1) l.done = 1;
    if (ran > 0) moe_human_time(p->total > p->done ? t * (double)(p->total - p->done) / ran : 0, eta);
    else snprintf(eta, sizeof eta, "?");
    snprintf(l.share, sizeof l.share, "%3.0f%%", l.done * 100);
    snprintf(l.of, sizeof l.of, "  %s of %s", amount(p, (double)p->done, done),
             amount(p, (double)p->total, total));
    snprintf(l.rate, sizeof l.rate, "  %s/s", amount(p, t > 0 ? ran / t : 0, rate));
    snprintf(l.eta, sizeof l.eta, "  %s left", eta);
    /* some terminals would begin another line after a character in the last column */
    int label = fit(&l, (int)strlen(p->label), p->tty ? columns(p->out) - 1 : WIDTH_MOST, tail, sizeof tail);
    fprintf(p->out, "%s%s%.*s%s%s%s", p->tty ? "\r\033[K" : "", p->color ? "\033[1m" : "", label, p->label,
            p->color ? "\033[0m" : "", tail, p->tty ? "" : "\n");
    fflush(p->out);
    p->drawn = p->tty;
    p->last = now;
}

static void clear(struct moe_progress *p)
{
    if (p->drawn) fputs("\r\033[K", p->out);
    fflush(p->out);
    p->drawn = false;
}

void moe_progress_begin(struct moe_progress *p, const char *label, uint64_t total, enum moe_unit unit)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    MOE_CHECK(!p->begun);
    p->begun = true;
    snprintf(p->label, sizeof p->label, "%s", label);
    p->done = p->skipped = 0;
    p->total = total;
    p->unit = unit;
    p->start = p->last = p->clock();
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_add(struct moe_progress *p, uint64_t n)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    double now = p->clock();
    p->done += n;
    if (now - p->start >= quiet_first && now - p->last >= (p->tty ? redraw : line_every)) draw(p, now);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_skip(struct moe_progress *p, uint64_t n)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->done += n;
    p->skipped += n;
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_label(struct moe_progress *p, const char *label)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    snprintf(p->label, sizeof p->label, "%s", label);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_note(struct moe_progress *p, const char *fmt, ...)
{
    va_list ap;
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    clear(p);
    va_start(ap, fmt);
    vfprintf(p->out, fmt, ap);
    va_end(ap);
    fputc('\n', p->out);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_end(struct moe_progress *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    clear(p);
    p->begun = false;
    pthread_mutex_unlock(&p->lock);
}
