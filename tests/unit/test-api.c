/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the public interface as a program sees it, from the headers of include/moe/ alone: errors, structs
 * of other sizes, cancelling from another thread, two models at once.  With arguments it is a small tool for
 * t-api. */
#include "tests/ok.h"

#include <moe/moe.h>

#include <ftw.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BF16 "tests/data/tiny-k2/bf16"
#define INT4 "tests/data/tiny-k2/int4"

static struct moe_err err = MOE_ERR_INIT;
static char dir[] = "/tmp/moe-api.XXXXXX";

/* ---- errors and sizes ---- */

static void test_describe(void)
{
    struct moe_description d = { .size = sizeof d };

    OK(moe_describe(BF16, &d, &err) == MOE_OK);
    OK(!d.container && d.layers == 4 && d.moe_layers == 3 && d.experts == 32);
    OK(d.tensors > 0 && d.bytes > 0 && d.parameters > d.parameters_active && !strcmp(d.layout, "bf16"));
    FAILS(MOE_NOT_FOUND, moe_describe("tests/data/no-such-model", &d, &err));
    FAILS(MOE_USAGE, moe_describe(NULL, &d, &err));
    FAILS(MOE_USAGE, moe_describe(BF16, NULL, &err));
    OK(moe_describe(NULL, NULL, NULL) == MOE_USAGE);
    d.size = 0;
    FAILS(MOE_USAGE, moe_describe(BF16, &d, &err));
    FAILS(MOE_USAGE, moe_describe("tests/data/tiny-k2/valid.txt", &d, &err));
}

/* A caller of an older version has room for less, and one of a newer version has members unknown here. */
static void test_sizes(void)
{
    struct moe_description d;
    struct { struct moe_generate_options o; unsigned char more[8]; } newer = { .o.size = sizeof newer };
    struct moe_generation g = { .size = sizeof g };
    struct moe_lm *lm;

    memset(&d, 0x55, sizeof d);
    d.size = offsetof(struct moe_description, context);
    OK(moe_describe(BF16, &d, &err) == MOE_OK);
    OK(d.size == offsetof(struct moe_description, context) && d.vocab_size > 0);
    OK(d.context == 0x5555555555555555 && d.bytes == 0x5555555555555555);

    OK(moe_lm_open(&lm, BF16, NULL, &err) == MOE_OK);
    newer.o.max_tokens = 1;
    OK(moe_lm_generate(lm, "And", 3, &newer.o, &g, &err) == MOE_OK && g.n_tokens == 1);
    moe_generation_release(&g);
    newer.more[7] = 1;
    FAILS(MOE_UNSUPPORTED, moe_lm_generate(lm, "And", 3, &newer.o, &g, &err));
    OK(!g.text && !g.tokens);
    moe_lm_close(&lm);
    OK(!lm);
}

static void test_wrong(void)
{
    struct moe_generate_options o = { .size = sizeof o, .max_tokens = -1 };
    struct moe_generation g = { .size = sizeof g };
    struct moe_lm_options open = { .size = sizeof open, .context = 1 << 30 };
    const int32_t beyond[] = { 1, INT32_MAX };
    int32_t *ids;
    size_t n;
    struct moe_lm *lm;

    FAILS(MOE_NOT_FOUND, moe_lm_open(&lm, "no/such/model", NULL, &err));
    OK(!lm);
    FAILS(MOE_USAGE, moe_lm_open(&lm, BF16, &open, &err));
    open = (struct moe_lm_options){ .size = sizeof open, .threads = -1 };
    FAILS(MOE_USAGE, moe_lm_open(&lm, BF16, &open, &err));
    FAILS(MOE_USAGE, moe_lm_open(NULL, BF16, NULL, &err));
    FAILS(MOE_USAGE, moe_lm_tokenize(NULL, "a", 1, false, &ids, &n, &err));
    OK(moe_lm_open(&lm, BF16, NULL, &err) == MOE_OK);
    FAILS(MOE_USAGE, moe_lm_generate(lm, "And", 3, &o, &g, &err));
    FAILS(MOE_USAGE, moe_lm_generate(lm, "", 0, NULL, &g, &err));
    FAILS(MOE_USAGE, moe_lm_generate(lm, NULL, 0, NULL, &g, &err));
    FAILS(MOE_USAGE, moe_lm_generate_ids(lm, beyond, 2, NULL, &g, &err));
    /* the last ones are in range before they are rounded to float32 */
    static const double sampling[][3] = { { 0, 2, 0 },    { 0, -1, 0 },   { 0, 0, -1 },    { 0, 0, 2 },
                                          { -1, 0, 0 },   { NAN, 0, 0 },  { 0, NAN, 0 },   { 0, 0, NAN },
                                          { 1, 1e-50, 0 }, { 1e39, 0, 0 }, { 1e300, 0, 0 } };
    for (size_t i = 0; i < sizeof sampling / sizeof *sampling; i++) {
        o = (struct moe_generate_options){ .size = sizeof o,
                                           .temperature = sampling[i][0],
                                           .top_p = sampling[i][1],
                                           .min_p = sampling[i][2] };
        FAILS(MOE_USAGE, moe_lm_generate(lm, "And", 3, &o, &g, &err));
    }
    OK(!strcmp(err.msg, "temperature 1e+300: want at most 3.40282e+38"));
    moe_lm_close(&lm);
    moe_lm_close(&lm);
    moe_lm_close(NULL);
}

/* ---- a model ---- */

static void test_tokens(void)
{
    static const char text[] = "And it came to pass, \xc3\xa4 \xe4\xb8\xad";
    int32_t *ids;
    size_t n, bytes;
    char *back;
    struct moe_lm *lm;

    OK(moe_lm_open(&lm, BF16, NULL, &err) == MOE_OK);
    OK(moe_lm_tokenize(lm, text, sizeof text - 1, false, &ids, &n, &err) == MOE_OK && n > 0);
    OK(moe_lm_detokenize(lm, ids, n, false, &back, &bytes, &err) == MOE_OK);
    OK(bytes == sizeof text - 1 && !strcmp(back, text));
    free(ids);
    free(back);
    OK(moe_lm_detokenize(lm, NULL, 0, false, &back, &bytes, &err) == MOE_OK && !bytes);
    free(back);
    moe_lm_close(&lm);
}

struct said { char text[4096]; size_t n; };

static void hear(void *ctx, const char *bytes, size_t n)
{
    struct said *s = ctx;

    OK(s->n + n < sizeof s->text);
    memcpy(s->text + s->n, bytes, n);
    s->n += n;
}

static char *answer(struct moe_lm *lm, uint64_t seed)
{
    struct said said = { .n = 0 };
    struct moe_generate_options o = { .size = sizeof o, .max_tokens = 24, .temperature = 1, .seed = seed,
                                      .text = hear, .ctx = &said };
    struct moe_generation g = { .size = sizeof g };

    assert(moe_lm_generate(lm, "And it came", 11, &o, &g, NULL) == MOE_OK);
    assert(g.bytes == said.n && !memcmp(g.text, said.text, said.n) && g.n_tokens <= 24);
    free(g.tokens);
    return g.text;
}

struct speaker { const char *path; char *text[2]; };

static void *speak(void *arg)
{
    struct speaker *s = arg;
    struct moe_lm *lm;

    assert(moe_lm_open(&lm, s->path, NULL, NULL) == MOE_OK);
    for (int i = 0; i < 2; i++) s->text[i] = answer(lm, (uint64_t)i);
    moe_lm_close(&lm);
    return NULL;
}

/* Two models, open and at work at the same time, give what each gives alone. */
static void test_two(void)
{
    struct speaker alone[2] = { { .path = BF16 }, { .path = INT4 } };
    struct speaker both[2] = { { .path = BF16 }, { .path = INT4 } };
    pthread_t thread[2];

    for (int i = 0; i < 2; i++) speak(&alone[i]);
    for (int i = 0; i < 2; i++) OK(!pthread_create(&thread[i], NULL, speak, &both[i]));
    for (int i = 0; i < 2; i++) OK(!pthread_join(thread[i], NULL));
    for (int i = 0; i < 4; i++) {
        OK(!strcmp(alone[i / 2].text[i % 2], both[i / 2].text[i % 2]));
        free(alone[i / 2].text[i % 2]);
        free(both[i / 2].text[i % 2]);
    }
}

/* What the callback of one call was told, and what it found wrong. */
struct told { int pieces, reports, wrong; bool open; uint64_t done, total; struct moe_cancel *cancel; };

static void follow(void *ctx, const struct moe_progress_report *r)
{
    struct told *t = ctx;
    bool first = !t->open;

    t->wrong += r->size != sizeof *r || !*r->label || r->resumed > r->done;
    if (first) t->pieces++;
    else t->wrong += r->done < t->done;
    t->reports++;
    t->open = !r->ended;
    t->done = r->done;
    t->total = r->total;
    if (t->cancel) moe_cancel_request(t->cancel, MOE_SIGINT);
}

static bool heard(const struct told *t) { return t->reports >= 2 && t->pieces && !t->open && !t->wrong; }

static void test_score(void)
{
    static char text[6000];
    struct moe_score_options o = { .size = sizeof o, .window = 64 };
    struct moe_score_result r = { .size = sizeof r };
    struct moe_lm *lm, *other;
    FILE *f = fopen("tests/data/tiny-k2/valid.txt", "rb");

    OK(f && fread(text, 1, sizeof text, f) == sizeof text && !fclose(f));
    OK(moe_lm_open(&lm, BF16, NULL, &err) == MOE_OK && moe_lm_open(&other, INT4, NULL, &err) == MOE_OK);
    OK(moe_lm_score(lm, text, sizeof text, &o, &r, &err) == MOE_OK);
    double nll = r.nll;
    OK(r.tokens > 0 && r.tokens % 64 == 0 && nll > 0 && r.kl == 0);
    struct told t = { 0 };
    o.reference = lm;
    o.progress = follow;
    o.ctx = &t;
    OK(moe_lm_score(other, text, sizeof text, &o, &r, &err) == MOE_OK);
    OK(heard(&t) && t.pieces == 1 && t.done == t.total);
    OK(r.nll_reference == nll && r.nll != nll && r.kl > 0 && r.top1_agreement > 0.5);
    FAILS(MOE_USAGE, moe_lm_score(lm, text, sizeof text, &o, &r, &err));
    FAILS(MOE_USAGE, moe_lm_score(other, text, 10, &o, &r, &err));
    moe_lm_close(&lm);
    moe_lm_close(&other);
}

/* ---- files ---- */

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void test_convert(void)
{
    struct moe_convert_options o = { .size = sizeof o, .threads = 2 };
    struct moe_cancel *token;
    struct moe_written w = { .size = sizeof w };
    struct moe_description d = { .size = sizeof d };

    OK(moe_cancel_open(&token, &err) == MOE_OK && !moe_is_cancelled(token) && !moe_is_cancelled(NULL));
    moe_cancel_request(token, MOE_SIGINT);
    o.cancel = token;
    FAILS(MOE_SIGINT, moe_convert_model(BF16, in_dir("a.moe"), &o, &w, &err));
    o.cancel = NULL;
    o.resume = true;
    OK(moe_convert_model(BF16, in_dir("a.moe"), &o, &w, &err) == MOE_OK);
    OK(w.tensors > 0 && w.output_bytes > 0 && !w.was_done && !w.weights_quantized);
    OK(moe_describe(in_dir("a.moe"), &d, &err) == MOE_OK && d.container && d.tensors == w.tensors);
    FAILS(MOE_EXISTS, moe_convert_model(BF16, in_dir("a.moe"), NULL, NULL, &err));
    OK(strstr(err.msg, "'force'") && !strstr(err.msg, "--")); /* the option as this struct names it */
    o.to = "elsewhere";
    FAILS(MOE_USAGE, moe_convert_model(BF16, in_dir("b.moe"), &o, NULL, &err));
    moe_cancel_close(&token);
    OK(!token);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");

    OK(f && fputs(text, f) >= 0 && !fclose(f));
}

static void test_progress(void)
{
    struct told t = { 0 };
    struct moe_convert_options o = { .size = sizeof o, .progress = follow, .ctx = &t };
    struct moe_quantize_options q = { .size = sizeof q, .method = "max", .progress = follow, .ctx = &t };
    struct moe_placement_options p = { .size = sizeof p, .ranks = 4, .progress = follow, .ctx = &t };
    struct moe_placement_verify_options c = { .size = sizeof c, .progress = follow, .ctx = &t };
    const char *made = in_dir("told.moe"), *path = in_dir("told.json");
    char *json;

    OK(moe_convert_model(BF16, made, &o, NULL, &err) == MOE_OK && heard(&t) && t.done == t.total);
    for (size_t i = 0; i < 2; i++) {
        t = (struct told){ 0 };
        o.to = i ? "gguf" : "hf";
        OK(moe_convert_model(made, in_dir(o.to), &o, NULL, &err) == MOE_OK && heard(&t) && t.done);
    }
    t = (struct told){ 0 };
    OK(moe_quantize_model(BF16, in_dir("told-q.moe"), &q, NULL, &err) == MOE_OK && heard(&t) && t.done);
    t = (struct told){ 0 };
    OK(moe_placement_make(BF16, &p, &json, &err) == MOE_OK && heard(&t) && t.done == t.total);
    write_text(path, json);
    free(json);
    t = (struct told){ 0 };
    OK(moe_placement_verify(path, &c, NULL, &err) == MOE_OK && heard(&t) && t.pieces == 1);
    /* the callback ends the call; that the work has ended is told, too */
    t = (struct told){ 0 };
    OK(moe_cancel_open(&t.cancel, &err) == MOE_OK);
    o.to = NULL;
    o.cancel = t.cancel;
    FAILS(MOE_SIGINT, moe_convert_model(BF16, in_dir("ended.moe"), &o, NULL, &err));
    OK(heard(&t) && t.done < t.total);
    moe_cancel_close(&t.cancel);
}

static void *request(void *token)
{
    struct timespec soon = { .tv_nsec = 200000000 };

    nanosleep(&soon, NULL);
    moe_cancel_request(token, MOE_SIGTERM);
    return NULL;
}

/* Another thread requests the end as soon as there is text. */
static void ask(void *token, const char *bytes, size_t n)
{
    pthread_t thread;

    (void)bytes;
    if (!n || moe_is_cancelled(token)) return;
    OK(!pthread_create(&thread, NULL, request, token) && !pthread_join(thread, NULL));
}

static void test_cancel_answer(void)
{
    struct moe_cancel *token;
    struct moe_generate_options o = { .size = sizeof o, .ignore_end = true, .text = ask };
    struct moe_generation g = { .size = sizeof g };
    struct moe_lm *lm;

    OK(moe_cancel_open(&token, &err) == MOE_OK && !moe_is_cancelled(token) && !moe_is_cancelled(NULL));
    OK(moe_lm_open(&lm, BF16, NULL, &err) == MOE_OK);
    o.ctx = o.cancel = token;
    FAILS(MOE_SIGTERM, moe_lm_generate(lm, "And it came", 11, &o, &g, &err));
    OK(!g.text && !g.tokens && moe_is_cancelled(token));
    /* the model is as good as before, without the token */
    o = (struct moe_generate_options){ .size = sizeof o, .max_tokens = 2 };
    OK(moe_lm_generate(lm, "And it came", 11, &o, &g, &err) == MOE_OK && g.n_tokens == 2 && g.truncated);
    moe_generation_release(&g);
    moe_lm_close(&lm);
    moe_cancel_close(&token);
    OK(!token);
}

static const char *const calib[] = { "tests/data/tiny-k2/calib.txt" };

/* A calibration that takes minutes ends soon after another thread asks for that. */
static void test_cancel(void)
{
    struct moe_quantize_options o = { .size = sizeof o, .calib = calib, .n_calib = 1 };
    struct moe_cancel *token;
    pthread_t thread;

    OK(moe_cancel_open(&token, &err) == MOE_OK);
    o.cancel = token;
    OK(!pthread_create(&thread, NULL, request, token));
    FAILS(MOE_SIGTERM, moe_quantize_model(BF16, in_dir("long.moe"), &o, NULL, &err));
    OK(!pthread_join(thread, NULL) && moe_is_cancelled(token));
    OK(access(in_dir("long.moe"), F_OK));
    moe_cancel_close(&token);
}

static void test_quantize(void)
{
    struct moe_quantize_options o = { .size = sizeof o, .method = "max" };
    struct moe_quantize_needs n = { .size = sizeof n };
    struct moe_written w = { .size = sizeof w };
    struct moe_description d = { .size = sizeof d };

    OK(moe_quantize_estimate(BF16, &o, &n, &err) == MOE_OK);
    OK(n.fits && n.output_bytes > 0 && n.output_bytes < n.input_bytes && n.seconds > 0);
    o.memory = 1;
    OK(moe_quantize_estimate(BF16, &o, &n, &err) == MOE_OK && !n.fits && n.memory_bytes > o.memory);
    FAILS(MOE_NOMEM, moe_quantize_model(BF16, in_dir("q.moe"), &o, &w, &err));
    o.memory = 0;
    OK(moe_quantize_model(BF16, in_dir("q.moe"), &o, &w, &err) == MOE_OK);
    OK(w.weights_quantized == n.weights_quantized && w.weights_quantized > 0);
    OK(moe_describe(in_dir("q.moe"), &d, &err) == MOE_OK && !strcmp(d.layout, "nvfp4"));
    FAILS(MOE_EXISTS, moe_quantize_model(BF16, in_dir("q.moe"), &o, &w, &err));
    o.resume = true;
    OK(moe_quantize_model(BF16, in_dir("q.moe"), &o, &w, &err) == MOE_OK && w.was_done);
    o.method = "gptq";
    FAILS(MOE_USAGE, moe_quantize_model(BF16, in_dir("x.moe"), &o, NULL, &err));
    o.calib = calib;
    o.n_calib = 1;
    FAILS(MOE_UNSUPPORTED, moe_quantize_model(in_dir("q.moe"), in_dir("x.moe"), &o, NULL, &err));
    o.seed = ((uint64_t)1 << 53) + 1;
    FAILS(MOE_USAGE, moe_quantize_model(BF16, in_dir("x.moe"), &o, NULL, &err));
    SAYS("seed 9007199254740993");
    o.seed = 0;
    o.calib_tokens = 4096;
    o.memory = 1;
    OK(moe_quantize_estimate(BF16, &o, &n, &err) == MOE_OK && !n.fits);
    FAILS(MOE_NOMEM, moe_quantize_model(BF16, in_dir("x.moe"), &o, NULL, &err));
}

static void test_plan(void)
{
    struct moe_placement_options o = { .size = sizeof o };
    char *json, *problems, *at;
    const char *path = in_dir("plan.json");

    FAILS(MOE_USAGE, moe_placement_make(BF16, &o, &json, &err));
    FAILS(MOE_USAGE, moe_placement_make(BF16, NULL, &json, &err));
    o.ranks = 4;
    o.slots = 40;
    o.survive = 1; /* wants two copies of 32 experts */
    FAILS(MOE_USAGE, moe_placement_make(BF16, &o, &json, &err));
    OK(!json);
    o.survive = 0;
    OK(moe_placement_make(BF16, &o, &json, &err) == MOE_OK);
    write_text(path, json);
    OK(moe_placement_verify(path, NULL, &problems, &err) == MOE_OK && !problems);
    at = strstr(json, "\"experts_lost_worst\"");
    OK(at && (at = strchr(at, ':')) && (at = strpbrk(at, "0123456789")));
    *at = '9';
    write_text(path, json);
    FAILS(MOE_VERIFY, moe_placement_verify(path, NULL, &problems, &err));
    OK(problems && strchr(problems, '\n'));
    free(problems);
    free(json);
    FAILS(MOE_NOT_FOUND, moe_placement_verify(in_dir("no.json"), NULL, &problems, &err));
}

/* ---- a tool for t-api ---- */

static int finish(enum moe_code code)
{
    if (code != MOE_OK) fprintf(stderr, "%s\n", err.msg);
    return (int)code;
}

static int plan(const char *model, const char *ranks)
{
    struct moe_placement_options o = { .size = sizeof o, .ranks = atoi(ranks) };
    char *json;

    if (moe_placement_make(model, &o, &json, &err) == MOE_OK) fputs(json, stdout);
    free(json);
    return finish(err.code);
}

static int convert(const char *to, const char *in, const char *out)
{
    struct moe_convert_options o = { .size = sizeof o, .to = to };

    return finish(moe_convert_model(in, out, &o, NULL, &err));
}

static int quantize(const char *method, const char *in, const char *out, const char *text)
{
    struct moe_quantize_options o = { .size = sizeof o, .method = method, .calib_tokens = 512 };

    o.calib = text ? &text : NULL;
    o.n_calib = text ? 1 : 0;
    return finish(moe_quantize_model(in, out, &o, NULL, &err));
}

static int tool(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "plan")) return plan(argv[2], argv[3]);
    if (argc == 5 && !strcmp(argv[1], "convert")) return convert(argv[2], argv[3], argv[4]);
    if (argc == 5 && !strcmp(argv[1], "quantize")) return quantize(argv[2], argv[3], argv[4], NULL);
    if (argc == 6 && !strcmp(argv[1], "quantize")) return quantize(argv[2], argv[3], argv[4], argv[5]);
    return MOE_USAGE;
}

static int gone(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    if (argc > 1) return tool(argc, argv);
    OK(mkdtemp(dir));
    test_describe();
    test_sizes();
    test_wrong();
    test_tokens();
    test_two();
    test_score();
    test_convert();
    test_progress();
    test_quantize();
    test_cancel();
    test_cancel_answer();
    test_plan();
    OK(!nftw(dir, gone, 16, FTW_DEPTH | FTW_PHYS));
    printf("test-api: %ld checks\n", checks);
    return 0;
}
