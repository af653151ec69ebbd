/* SPDX-License-Identifier: Apache-2.0 */
/* Moves pages of the latent cache: a sequence that was exported from one cache and imported into another goes
 * on with the bits that it would have had where it came from, on the processor and on ops/checked; a packet
 * that is cut, damaged or of another shape changes nothing. */
#include "formats/source.h"
#include "tests/ok.h"
#include "tests/unit/pass.h"

#include <stdlib.h>
#include <string.h>

static struct moe_err err;
static struct moe_source *source;
static struct moe_model *model;

enum { CONTEXT = 256, PAGES = 9, MOVED = 160, END = 200 };

/* A device with a cache, its books, and one sequence. */
struct side {
    struct passing on;
    struct moe_latent cache;
    struct moe_pages *pages;
    struct moe_table t;
    int32_t ids[CONTEXT]; int64_t n;
};

/* ---- sequences ---- */

static void sync(struct side *s)
{
    uint32_t word;
    OK(s->on.d->ops->wait(s->on.d, &word, &err) == MOE_OK && word == 0);
}

static void begin(struct side *s, int from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) s->ids[i] = (int32_t)((i * 131 + from * 17) % 1000);
    s->n = n;
    OK(moe_table_reserve(&s->t, CONTEXT, &err) == MOE_OK);
    OK(moe_pages_find(s->pages, &s->t, moe_pages_root(NULL, 0), s->ids, 0) == 0);
}

/* Computes what is not computed yet, and appends the most probable next token.  logits [V]. */
static void step(struct side *s, float *logits)
{
    const int64_t v = model->config.vocab_size, at = s->t.positions;
    OK(moe_pages_grow(s->pages, &s->t, s->n));
    const struct moe_segment segment = { &s->cache, s->t.page, at, s->n - at };
    const struct moe_batch b = { s->ids + at, s->n - at, &segment, 1 };
    const int32_t last = (int32_t)(b.n - 1);
    OK(moe_forward_run(s->on.f, &b, &err) == MOE_OK);
    moe_forward_logits(s->on.f, &last, 1, logits);
    OK(moe_forward_wait(s->on.f, &err) == MOE_OK);
    moe_pages_written(s->pages, &s->t, s->ids, s->n);
    int32_t best = 0;
    for (int32_t i = 0; i < v; i++) best = logits[i] > logits[best] ? i : best;
    s->ids[s->n++] = best;
}

static void end(struct side *s)
{
    moe_pages_release(s->pages, &s->t, s->ids);
    const struct moe_table *none = NULL;
    OK(!moe_pages_check(s->pages, &none, 0));
}

/* Opens a side whose first `used` pages hold the rows of another sequence, so that the two sides number
 * their pages differently. */
static void open_side(struct side *s, int64_t used)
{
    const struct moe_cpu_options o = { .max_tokens = CONTEXT, .context = CONTEXT };
    float *logits = malloc((size_t)model->config.vocab_size * sizeof *logits);
    *s = (struct side){ .n = 0 };
    passing_open(&s->on, model, &o, NULL);
    OK(moe_latent_open(&s->cache, s->on.d, model->config.num_hidden_layers, PAGES, &err) == MOE_OK);
    OK(moe_pages_open(&s->pages, PAGES, &err) == MOE_OK);
    begin(s, 99, used * MOE_PAGE - 3);
    step(s, logits);
    end(s);
    free(logits);
}

static void close_side(struct side *s)
{
    moe_latent_release(&s->cache);
    moe_pages_close(&s->pages);
    moe_table_free(&s->t);
    passing_close(&s->on);
}

/* ---- packets ---- */

struct packet { unsigned char *data; uint64_t bytes; };

static int64_t rows_of(const struct side *s, int64_t i)
{
    return s->t.positions - i * MOE_PAGE < MOE_PAGE ? s->t.positions - i * MOE_PAGE : MOE_PAGE;
}

/* All pages of the sequence, which are asked for together. */
static void export_all(const struct side *s, struct packet *p)
{
    uint32_t word;
    for (int64_t i = 0; i < s->t.n; i++) {
        p[i].bytes = moe_latent_packet_bytes(&s->cache, rows_of(s, i));
        p[i].data = malloc((size_t)p[i].bytes);
        OK(p[i].data);
        moe_latent_export(&s->cache, s->t.page[i], rows_of(s, i), p[i].data);
    }
    OK(s->on.d->ops->wait(s->on.d, &word, &err) == MOE_OK);
    for (int64_t i = 0; i < s->t.n; i++) moe_latent_seal(&s->cache, rows_of(s, i), p[i].data);
}

/* Takes the sequence over: the pages that are there already, and the packets of the others.  Returns how
 * many pages were there. */
static int64_t import_all(struct side *s, const struct side *from, const struct packet *p)
{
    int64_t rows, n = from->t.positions;
    memcpy(s->ids, from->ids, sizeof s->ids);
    s->n = from->n;
    int64_t found = moe_pages_find(s->pages, &s->t, moe_pages_root(NULL, 0), s->ids, n) / MOE_PAGE;
    OK(moe_pages_grow(s->pages, &s->t, n));
    for (int64_t i = found; i < from->t.n; i++) {
        OK(moe_latent_import(&s->cache, s->t.page[i], p[i].data, p[i].bytes, &rows, &err) == MOE_OK);
        OK(rows == rows_of(from, i));
        memset(p[i].data, 0xff, (size_t)p[i].bytes); /* it was taken over */
    }
    moe_pages_written(s->pages, &s->t, s->ids, n);
    return found;
}

/* ---- cases ---- */

/* `shared`: the other side has the first page of the sequence already. */
static void test_move(bool shared)
{
    struct side a, b;
    struct packet p[CONTEXT / MOE_PAGE];
    const size_t v = (size_t)model->config.vocab_size;
    float *want = malloc((END - MOVED) * v * sizeof *want), *got = malloc(v * sizeof *got);
    open_side(&a, 2), open_side(&b, 4);
    begin(&a, 1, 150);
    while (a.n <= MOVED) step(&a, got);
    OK(a.t.positions == MOVED && a.t.n == 3);
    export_all(&a, p);
    begin(&b, 1, 70);
    if (shared) step(&b, got), end(&b);
    OK(import_all(&b, &a, p) == shared && b.t.page[0] != a.t.page[0]);
    for (int i = 0; a.n < END; i++) step(&a, want + (size_t)i * v);
    for (int i = 0; b.n < END; i++) {
        step(&b, got);
        OK(!memcmp(got, want + (size_t)i * v, v * sizeof *got));
    }
    OK(!memcmp(a.ids, b.ids, END * sizeof *a.ids) && a.t.n == 4); /* a page began meanwhile */
    for (int64_t i = 0; i < 3; i++) free(p[i].data);
    end(&b);
    /* what was imported is found by who comes later, as what was computed there */
    OK(moe_pages_find(b.pages, &b.t, moe_pages_root(NULL, 0), a.ids, END) == 3 * MOE_PAGE);
    end(&b), end(&a);
    close_side(&a), close_side(&b);
    free(want), free(got);
}

static void read_page(const struct side *s, int32_t page, float *to)
{
    uint32_t word;
    s->on.d->ops->read(s->on.d, to, moe_latent_at(&s->cache, page, 0), moe_latent_page_bytes(&s->cache));
    OK(s->on.d->ops->wait(s->on.d, &word, &err) == MOE_OK);
}

/* Packets of every number of rows that matters: these rows arrive, and no others change or travel. */
static void test_rows(void)
{
    static const int64_t counts[] = { 1, 2, 63, 64 };
    struct side s;
    open_side(&s, 2);
    const struct moe_latent *c = &s.cache;
    const uint64_t bytes = moe_latent_page_bytes(c);
    float *from = malloc(bytes), *before = malloc(bytes), *after = malloc(bytes);
    unsigned char *packet = malloc(moe_latent_packet_bytes(c, MOE_PAGE));
    uint64_t state = 1;
    int64_t got;
    for (uint64_t i = 0; i < bytes / 4; i++) from[i] = (float)((state = state * 48271 % 2147483647) % 1000);
    s.on.d->ops->write(s.on.d, moe_latent_at(c, 7, 0), from, bytes);
    OK(moe_latent_packet_bytes(c, MOE_PAGE) == bytes + sizeof(struct moe_latent_head));
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        const int64_t rows = counts[k];
        for (uint64_t i = 0; i < bytes / 4; i++) before[i] = -1;
        s.on.d->ops->write(s.on.d, moe_latent_at(c, 8, 0), before, bytes);
        moe_latent_export(c, 7, rows, packet);
        sync(&s);
        moe_latent_seal(c, rows, packet);
        OK(moe_latent_import(c, 8, packet, moe_latent_packet_bytes(c, rows), &got, &err) == MOE_OK);
        OK(got == rows);
        read_page(&s, 8, after);
        for (int64_t i = 0; i < (int64_t)(bytes / 4); i++)
            OK(after[i] == (i / c->width % MOE_PAGE < rows ? from[i] : -1));
    }
    free(from), free(before), free(after), free(packet);
    close_side(&s);
}

/* What arrives cut, damaged or from a model of another shape is refused, and the page stays as it was. */
static void test_refusals(void)
{
    enum { ROWS = 9 };
    struct side s;
    int64_t rows = -5;
    open_side(&s, 2);
    const struct moe_latent *c = &s.cache;
    const uint64_t bytes = moe_latent_packet_bytes(c, ROWS), page = moe_latent_page_bytes(c);
    unsigned char *packet = malloc(bytes + 1), *before = malloc(page), *after = malloc(page);
    packet[bytes] = 0;
    moe_latent_export(c, 0, ROWS, packet);
    sync(&s);
    moe_latent_seal(c, ROWS, packet);
    read_page(&s, 1, (float *)(void *)before);
    for (uint64_t n = 0; n <= bytes + 1; n += n < 40 || n >= bytes - 1 ? 1 : bytes - 41) {
        unsigned char *exact = malloc(n + 1); /* a read behind its end is found by the sanitizer */
        memcpy(exact, packet, n);
        exact = realloc(exact, n ? n : 1);
        if (n != bytes) FAILS(MOE_CORRUPT, moe_latent_import(c, 1, exact, n, &rows, &err));
        free(exact);
    }
    SAYS("bytes, not");
    for (uint64_t i = 0; i < bytes; i += i < 40 ? 1 : 97) {
        packet[i] ^= 0x10;
        enum moe_code code = moe_latent_import(c, 1, packet, bytes, &rows, &err);
        OK(code == MOE_CORRUPT || (code == MOE_MISMATCH && i >= 8 && i < 20));
        packet[i] ^= 0x10;
    }
    SAYS("damaged on its way");
    struct moe_latent other = *c;
    other.width++;
    FAILS(MOE_MISMATCH, moe_latent_import(&other, 1, packet, bytes, &rows, &err));
    other = *c;
    other.layers = 1;
    FAILS(MOE_MISMATCH, moe_latent_import(&other, 1, packet, bytes, &rows, &err));
    SAYS("does not fit a cache of 1 and");
    other = *c;
    other.type = MOE_LATENT_BF16;
    FAILS(MOE_MISMATCH, moe_latent_import(&other, 1, packet, bytes, &rows, &err));
    SAYS("a page of float32 values does not fit a cache of bfloat16");
    OK(moe_latent_page_bytes(&other) == page / 2);
    OK(2 * moe_latent_packet_bytes(&other, ROWS) - 32 == bytes);
    OK(moe_latent_at(&other, 3, 1).at - other.rows.at == (moe_latent_at(c, 3, 1).at - c->rows.at) / 2);
    other = *c;
    other.layers = 1;
    moe_latent_seal(&other, ROWS, packet); /* sound, and as long as its head says */
    FAILS(MOE_MISMATCH, moe_latent_import(c, 1, packet, moe_latent_packet_bytes(&other, ROWS), &rows, &err));
    OK(rows == -5);
    read_page(&s, 1, (float *)(void *)after);
    OK(!memcmp(before, after, page));
    free(packet), free(before), free(after);
    close_side(&s);
}

static enum moe_code refusal;

static enum moe_code no_alloc(struct moe_device *d, uint64_t bytes, struct moe_addr *out, struct moe_err *e)
{
    (void)d;
    *out = (struct moe_addr){ 0 };
    return moe_fail(e, refusal, "the card gave no %llu bytes", (unsigned long long)bytes);
}

/* What a device says when it gives no memory is what the caller hears, with the code that it has. */
static void test_no_memory(void)
{
    struct passing on;
    struct moe_latent c;
    struct moe_forward *f;
    passing_open(&on, model, &(struct moe_cpu_options){ .max_tokens = 3, .context = CONTEXT }, NULL);
    const struct moe_ops *ops = on.d->ops;
    struct moe_ops failing = *ops;
    failing.alloc = no_alloc;
    on.d->ops = &failing;
    refusal = MOE_DEVICE;
    FAILS(MOE_DEVICE, moe_latent_open(&c, on.d, 1, PAGES, &err));
    OK(!strncmp(err.msg, "a cache of 576 positions: the card gave no ", 43) && !strchr(err.msg, '('));
    FAILS(MOE_DEVICE, moe_forward_open(&f, on.d, &err));
    OK(!f && !strncmp(err.msg, "batches of 3 tokens: the card gave no ", 38) && !strchr(err.msg, '('));
    refusal = MOE_NOMEM;
    FAILS(MOE_NOMEM, moe_latent_open(&c, on.d, 1, PAGES, &err));
    SAYS("bytes (try a smaller --context)");
    FAILS(MOE_NOMEM, moe_forward_open(&f, on.d, &err));
    SAYS("bytes (try a smaller --context)");
    on.d->ops = ops;
    passing_close(&on);
}

int main(void)
{
    OK(moe_source_open(&source, "tests/data/tiny-k2/bf16", &err) == MOE_OK);
    OK(moe_model_open(&model, source, 0, &err) == MOE_OK);
    for (int checked = 0; checked < 2; checked++) {
        pass_checked = checked;
        test_move(false);
        test_move(true);
        test_rows();
        test_refusals();
        test_no_memory();
    }
    moe_model_close(&model);
    moe_source_close(&source);
    printf("test-latent: %ld checks\n", checks);
    return 0;
}
