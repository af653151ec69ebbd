/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/genmodel.c - writes K2-shaped checkpoints for tests and benchmarks: of any size, in any source
 * layout, with hostile weights or skewed routing, and full-size ones whose data are holes in files.
 * `genmodel --help` lists the options.
 *
 * It shares with the code under test only kernels/scalar.h; its safetensors writer, threads and options are
 * its own. */
#include "tests/gen/genmodel-values.h"
#include "tests/gen/genmodel-plan.h"
#include "tests/gen/genmodel-config.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- values of one weight ---- */

static uint64_t weight_key(const struct options *o, const struct weight *w)
{
    return mix_text(mix((uint64_t)o->seed + 1), w->name);
}

/* Column scales: those of the residual stream are the model's, others the tensor's; the router has none. */
static void weight_columns(const struct options *o, const struct weight *w, float *column)
{
    uint64_t key = w->cols == o->hidden ? mix_text(mix((uint64_t)o->seed + 1), "residual") : weight_key(o, w);
    column_scales(key, w->cols, column);
    for (int64_t c = 0; c < w->cols && w->kind == K_ROUTER; c++) column[c] = 1;
}

/* Share of tokens that should reach expert e: log-normal with --skew, the last --dead never, the
 * --cold before them hardly. */
static double popularity(const struct options *o, uint64_t key, int64_t e)
{
    if (e >= o->experts - o->dead) return 0;
    if (e >= o->experts - o->dead - o->cold) return -1;
    return exp(o->skew * normal_of(mix2(key ^ 0x706f70, (uint64_t)e)));
}

/* The bias that gives expert e its share: its score is sigmoid(N(0, |row|)), and it is chosen when score
 * + bias passes a threshold that is the same for all, so bias = threshold - the score that a token
 * exceeds with probability share. */
static void fill_bias(const struct options *o, const struct weight *w, const struct weight *router,
                      float *out)
{
    uint64_t key = weight_key(o, w), rk = weight_key(o, router);
    float *row = need(malloc((size_t)o->hidden * sizeof *row)),
          *column = need(malloc((size_t)o->hidden * sizeof *column));
    double sum = 0, scale = 1;
    weight_columns(o, router, column);
    /* shares that sum to top-k, none above 0.9 */
    for (int pass = 0; pass < 30; pass++, scale *= (double)o->top_k / sum) {
        sum = 0;
        for (int64_t e = 0; e < o->experts; e++) sum += fmin(fmax(popularity(o, key, e), 0) * scale, 0.9);
    }
    for (int64_t e = 0; e < o->experts; e++) {
        double share = popularity(o, key, e), var = 0;
        fill_row(rk, e, o->hidden, router->sigma, column, row);
        for (int64_t c = 0; c < o->hidden; c++) var += (double)row[c] * row[c];
        share = share < 0 ? 0.0005 : fmin(share * scale, 0.9);
        out[e] = share == 0 ? -10.0f : (float)(0.9 - 1 / (1 + exp(-sqrt(var) * normal_above(share))));
    }
    free(row);
    free(column);
}

/* Norms are about 1, and small where the residual stream has an outlier channel, as training makes them. */
static void fill_norm(const struct options *o, const struct weight *w, float *out)
{
    uint64_t key = weight_key(o, w);
    weight_columns(o, w, out);
    for (int64_t c = 0; c < w->cols; c++) {
        double n = fmax(1 + 0.15 * normal_of(mix2(key, (uint64_t)c)), 0.1);
        out[c] = (float)(out[c] > 2 && w->cols == o->hidden ? n / 4 : n);
    }
}

static void fill_vector(const struct options *o, const struct weight *w, float *out)
{
    if (w->kind == K_BIAS) { fill_bias(o, w, w - 1, out); return; }
    if (w->kind == K_NORM) { fill_norm(o, w, out); return; }
    uint64_t key = weight_key(o, w);
    for (int64_t c = 0; c < w->cols; c++) out[c] = (float)(0.02 * normal_of(mix2(key, (uint64_t)c)));
}

static void fill_rows(const struct options *o, const struct weight *w, int64_t r0, int64_t n,
                      const float *column, float *out)
{
    uint64_t key = weight_key(o, w);
    if (w->kind == K_NORM || w->kind == K_BIAS || w->kind == K_JUNK) { fill_vector(o, w, out); return; }
    for (int64_t r = r0; r < r0 + n; r++, out += w->cols) {
        fill_row(key, r, w->cols, w->sigma, column, out);
        if (!o->hostile || w->kind != K_EXPERT) continue;
        for (int64_t b = 0; b < w->cols / 16; b++)
            hostile_block(w->expert, w->part, mix2(mix2(key ^ 0x686f73, (uint64_t)r), (uint64_t)b),
                          r == 0 && b == 0, out + 16 * b);
    }
}

/* ---- writing, a range of rows at a time ---- */

struct task { int64_t weight, row, rows; };

struct job {
    const struct options *o;
    struct plan *p;
    struct task *tasks;
    int64_t n_tasks;
    atomic_llong next;
    int *fd;
    bool amax_only;
};

struct scratch { float *v, *column, *scale; uint8_t *a, *b; };

static void put(struct job *j, const struct out *t, uint64_t at, const void *data, size_t bytes)
{
    const char *d = data;
    for (uint64_t off = t->offset + at; bytes;) {
        ssize_t n = pwrite(j->fd[t->shard], d, bytes, (off_t)off);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("cannot write '%s': %s", t->name, strerror(errno));
        d += n, off += (uint64_t)n, bytes -= (size_t)n;
    }
}

static float nvfp4_global(const struct weight *w)
{
    uint32_t a = w->amax, b = w->part == 0 ? w[1].amax : w->part == 1 ? w[-1].amax : 0;
    return fmaxf(moe_f32_from_bits(a > b ? a : b) / (6 * 448), FLT_MIN);
}

static float input_scale(const struct options *o, const struct weight *w)
{
    uint64_t h = mix2(mix2(mix2((uint64_t)o->seed, (uint64_t)w->layer), (uint64_t)w->expert), w->part == 2);
    return (float)(10 * exp(0.3 * normal_of(h)) / (6 * 448));
}

static void put_nvfp4(struct job *j, const struct weight *w, const struct out *t, const struct task *k,
                      const struct scratch *s)
{
    bool ct = w->format == F_NVFP4_CT;
    float g = nvfp4_global(w), in = input_scale(j->o, w);
    if (ct) g = 1 / g, in = 1 / in;
    encode_nvfp4(s->v, k->rows * w->cols, g, ct, s->a, s->b);
    put(j, t, (uint64_t)(k->row * w->cols / 2), s->a, (size_t)(k->rows * w->cols / 2));
    put(j, t + 1, (uint64_t)(k->row * w->cols / 16), s->b, (size_t)(k->rows * w->cols / 16));
    if (k->row) return;
    put(j, t + 2, 0, &g, 4);
    put(j, t + 3, 0, &in, 4);
}

static void put_fp8(struct job *j, const struct weight *w, const struct out *t, const struct task *k,
                    const struct scratch *s)
{
    int64_t blocks = (w->cols + 127) / 128;
    for (int64_t r = 0; r < k->rows; r += 128) {
        int64_t n = k->rows - r < 128 ? k->rows - r : 128;
        encode_fp8(s->v + r * w->cols, n, w->cols, s->a, s->scale);
        put(j, t, (uint64_t)((k->row + r) * w->cols), s->a, (size_t)(n * w->cols));
        put(j, t + 1, (uint64_t)((k->row + r) / 128 * blocks * 4), s->scale, (size_t)blocks * 4);
    }
}

static void put_int4(struct job *j, const struct weight *w, const struct out *t, const struct task *k,
                     const struct scratch *s)
{
    int32_t shape[2] = { (int32_t)w->rows, (int32_t)w->cols };
    encode_int4(s->v, k->rows * w->cols, s->a, s->b);
    put(j, t, (uint64_t)(k->row * w->cols / 2), s->a, (size_t)(k->rows * w->cols / 2));
    put(j, t + 1, (uint64_t)(k->row * w->cols / 16), s->b, (size_t)(k->rows * w->cols / 16));
    if (!k->row) put(j, t + 2, 0, shape, 8);
}

static void run_task(struct job *j, const struct task *k, const struct scratch *s)
{
    struct weight *w = &j->p->w[k->weight];
    const struct out *t = &j->p->o[w->out];
    int64_t n = k->rows * w->cols;
    weight_columns(j->o, w, s->column);
    fill_rows(j->o, w, k->row, k->rows, s->column, s->v);
    if (j->amax_only) {
        float amax = 0;
        for (int64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(s->v[i]));
        uint32_t new = moe_f32_bits(amax), old = __atomic_load_n(&w->amax, __ATOMIC_RELAXED);
        while (new > old &&
               !__atomic_compare_exchange_n(&w->amax, &old, new, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
        return;
    }
    switch ((enum format)w->format) {
    case F_F32: put(j, t, (uint64_t)(k->row * w->cols) * 4, s->v, (size_t)n * 4); return;
    case F_BF16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t b = moe_f32_to_bf16(s->v[i]);
            memcpy(s->a + 2 * i, &b, 2);
        }
        put(j, t, (uint64_t)(k->row * w->cols) * 2, s->a, (size_t)n * 2);
        return;
    case F_FP8: put_fp8(j, w, t, k, s); return;
    case F_INT4: put_int4(j, w, t, k, s); return;
    case F_NVFP4:
    case F_NVFP4_CT: put_nvfp4(j, w, t, k, s); return;
    case F_COUNT: return;
    }
}

static void *worker(void *arg)
{
    struct job *j = arg;
    int64_t most = 0, wide = 0;
    for (int64_t i = 0; i < j->n_tasks; i++) {
        int64_t c = j->p->w[j->tasks[i].weight].cols, n = c * j->tasks[i].rows;
        most = n > most ? n : most;
        wide = c > wide ? c : wide;
    }
    struct scratch s = { need(malloc((size_t)most * 4)), need(malloc((size_t)wide * 4)),
                         need(malloc((size_t)wide * 4)), need(malloc((size_t)most * 2)),
                         need(malloc((size_t)most * 2)) };
    for (int64_t i; (i = atomic_fetch_add(&j->next, 1)) < j->n_tasks;) run_task(j, &j->tasks[i], &s);
    free(s.v), free(s.column), free(s.scale), free(s.a), free(s.b);
    return NULL;
}

/* Every weight in ranges of a multiple of 128 rows and about a million values; amax_only:
 * those that need a first pass. */
static void run_pass(struct job *j, bool amax_only)
{
    int64_t cap = 0;
    j->n_tasks = 0, j->tasks = NULL, j->amax_only = amax_only;
    atomic_store(&j->next, 0);
    for (int64_t i = 0; i < j->p->n_w; i++) {
        const struct weight *w = &j->p->w[i];
        if (amax_only && w->format != F_NVFP4 && w->format != F_NVFP4_CT) continue;
        int64_t step = 128 * (1 + (1 << 20) / (128 * w->cols));
        for (int64_t r = 0; r < w->rows; r += step) {
            if (j->n_tasks == cap)
                j->tasks = need(realloc(j->tasks, (size_t)(cap = cap ? 2 * cap : 256) * sizeof *j->tasks));
            j->tasks[j->n_tasks++] = (struct task){ i, r, w->rows - r < step ? w->rows - r : step };
        }
    }
    int n = (int)(j->o->threads < j->n_tasks ? j->o->threads : j->n_tasks);
    pthread_t t[64];
    for (int i = 1; i < n; i++)
        if (pthread_create(&t[i], NULL, worker, j)) die("cannot start a thread");
    worker(j);
    for (int i = 1; i < n; i++) pthread_join(t[i], NULL);
    free(j->tasks);
}

/* ---- files ---- */

/* The header of one shard; sets the offsets of its outs.  order[from .. to) are they. */
static char *shard_header(struct plan *p, int64_t from, int64_t to, size_t *size)
{
    char *text;
    uint64_t at = 0;
    FILE *f = need(open_memstream(&text, size));
    fputs("        {\"__metadata__\":{\"format\":\"pt\"}", f);
    for (int64_t i = from; i < to; i++) {
        struct out *t = &p->o[p->order[i]];
        fprintf(f, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (int d = 0; d < t->ndim; d++) fprintf(f, "%s%" PRId64, d ? "," : "", t->shape[d]);
        fprintf(f, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + t->bytes);
        t->offset = at;
        at += t->bytes;
    }
    fputc('}', f);
    while (ftell(f) % 8) fputc(' ', f);
    if (fclose(f)) die("out of memory");
    uint64_t n = *size - 8;
    memcpy(text, &n, 8);
    for (int64_t i = from; i < to; i++) p->o[p->order[i]].offset += *size;
    return text;
}

static void create_shards(const struct options *o, struct plan *p, int *fd)
{
    for (int64_t i = 0, s = 0; s < p->shards; s++) {
        char name[64], path[4096], *text;
        int64_t from = i;
        size_t size;
        uint64_t bytes = 0;
        for (; i < p->n_o && p->o[p->order[i]].shard == s; i++) bytes += p->o[p->order[i]].bytes;
        text = shard_header(p, from, i, &size);
        snprintf(path, sizeof path, "%s/%s", o->out, shard_name(p, o, (int)s, name));
        fd[s] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
        if (fd[s] < 0 || pwrite(fd[s], text, size, 0) != (ssize_t)size ||
            ftruncate(fd[s], (off_t)(size + bytes)))
            die("cannot write '%s': %s", path, strerror(errno));
        free(text);
    }
}

static void write_index(const struct options *o, const struct plan *p)
{
    if (o->single_file) return;
    FILE *f = create(o->out, "model.safetensors.index.json");
    fprintf(f, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {", p->total);
    for (int64_t i = 0; i < p->n_o; i++) {
        char name[64];
        fprintf(f, "%s\n    \"%s\": \"%s\"", i ? "," : "", p->o[i].name,
                shard_name(p, o, p->o[i].shard, name));
    }
    fputs("\n  }\n}\n", f);
    finish(f, "model.safetensors.index.json");
}

/* Plant a NaN or Inf in the middle of the tensor that the checkpoint calls `name`. */
static void plant(struct job *j, const char *name, bool inf)
{
    for (int64_t i = 0; name && i < j->p->n_o; i++) {
        const struct out *t = &j->p->o[i];
        if (strcmp(t->name, name)) continue;
        uint64_t width = (uint64_t)dtype_bytes(t->dtype), at = t->bytes / width / 2 * width;
        uint16_t b = inf ? 0x7f80 : 0x7fc0;
        uint32_t f = (uint32_t)b << 16;
        if (!strcmp(t->dtype, "BF16")) put(j, t, at, &b, 2);
        else if (!strcmp(t->dtype, "F32")) put(j, t, at, &f, 4);
        else if (!strcmp(t->dtype, "F8_E4M3") && !inf) put(j, t, at, "\x7f", 1);
        else die("'%s' is %s: it cannot hold that", name, t->dtype);
        return;
    }
    if (name) die("no tensor '%s'", name);
}

/* Sparse: the NVFP4 scalars are real all the same, since a reader may look at them when it opens the file. */
static void put_scalars(struct job *j)
{
    for (int64_t i = 0; i < j->p->n_o; i++) {
        const struct out *t = &j->p->o[i];
        float v = j->o->format == F_NVFP4 ? 0x1p-12f : 0x1p12f;
        if (t->plane == 2 || t->plane == 3) put(j, t, 0, &v, 4);
    }
}

/* ---- options ---- */

static const struct options small = { .prefix = "model",
                                      .layers = 4,
                                      .dense = 1,
                                      .freq = 1,
                                      .experts = 32,
                                      .top_k = 4,
                                      .hidden = 128,
                                      .inter = 64,
                                      .dense_inter = 384,
                                      .heads = 4,
                                      .q_lora = 96,
                                      .kv_lora = 64,
                                      .nope = 32,
                                      .rope = 16,
                                      .v = 32,
                                      .vocab = 1024,
                                      .shared = 1,
                                      .shards = 3,
                                      .n_group = 1,
                                      .topk_group = 1,
                                      .eps = 1e-6,
                                      .scaling = 2.827,
                                      .yarn_factor = 4,
                                      .beta_fast = 1,
                                      .yarn_original = 1024,
                                      .max_position = 4096,
                                      .model_type = "kimi_k2" };

static void set_preset(struct options *o, const char *name)
{
    *o = (struct options){ .out = o->out,
                           .preset = name,
                           .prefix = "model",
                           .layers = 61,
                           .dense = 1,
                           .freq = 1,
                           .experts = 384,
                           .top_k = 8,
                           .hidden = 7168,
                           .inter = 2048,
                           .dense_inter = 18432,
                           .heads = 64,
                           .q_lora = 1536,
                           .kv_lora = 512,
                           .nope = 128,
                           .rope = 64,
                           .v = 128,
                           .vocab = 163840,
                           .shared = 1,
                           .n_group = 1,
                           .topk_group = 1,
                           .eps = 1e-6,
                           .scaling = 2.827,
                           .yarn_factor = 32,
                           .beta_fast = 1,
                           .yarn_original = 4096,
                           .max_position = 131072,
                           .model_type = "kimi_k2",
                           .layer_shards = 1 };
    if (!strcmp(name, "k2")) { o->format = F_FP8, o->inv_freq = 1, o->short_names = 1; return; }
    o->eps = 1e-5, o->yarn_factor = 64, o->max_position = 262144;
    if (!strcmp(name, "k2-thinking")) { o->format = F_INT4; return; }
    if (!strcmp(name, "k2-nvfp4")) { o->format = F_NVFP4, o->layer_shards = 0, o->shards = 119; return; }
    if (strcmp(name, "moonlight")) die("no preset '%s' (k2, k2-thinking, k2-nvfp4, moonlight)", name);
    o->layers = 27, o->experts = 64, o->top_k = 6, o->hidden = 2048, o->inter = 1408, o->dense_inter = 11264,
    o->heads = 16, o->q_lora = 0;
    o->shared = 2, o->scaling = 2.446, o->no_yarn = 1, o->max_position = 8192, o->model_type = "deepseek_v3";
}

static const char help[] =
    "usage: genmodel -o DIR [option]...   writes a K2-shaped checkpoint\n"
    "  --preset k2|k2-thinking|k2-nvfp4|moonlight   true sizes, layout and shards; other options change "
    "them\n"
    "  --format bf16|f32|fp8|int4|nvfp4|nvfp4-ct    --all-mlp (NVFP4 of shared experts and dense layers "
    "too)\n"
    "  --layers --dense --freq (of layers with experts) --experts --top-k --hidden --inter --dense-inter "
    "--heads --q-lora (0: none) --kv-lora --nope --rope --v\n"
    "  --vocab --shared --groups N,N      sizes\n"
    "  --seed N --threads N --shards N --single-file --prefix model|language_model --tokenizer DIR  --tied "
    "(no lm_head)\n"
    "  --skew S     expert popularity log-normal with sigma S      --cold N, --dead N   the last N experts "
    "of every layer are never\n"
    "               reached, the N before them hardly\n"
    "  --vision     vision and projector tensors, config in text_config    --inv-freq  junk rotary buffers   "
    "--rope-parameters\n"
    "  --hostile    experts of zeros, subnormals, ties, outliers   --nan TENSOR, --inf TENSOR   plant one\n"
    "  --scales-apart  scales in another shard than their weight   --sparse  headers are real, data are file "
    "holes\n";

/* above every character */
enum { O_FORMAT = 1, O_PRESET, O_PREFIX, O_TOKENIZER, O_NAN, O_INF, O_SKEW, O_GROUPS, O_HELP, O_INT = 256 };

static struct { const char *name; int64_t *to; } ints[24];
static struct option longs[64];

static void option_table(struct options *o)
{
    int n = 0, k = 0;
#define I(text, field) \
    (ints[k].name = text, ints[k].to = &o->field, \
     longs[n++] = (struct option){ text, required_argument, NULL, O_INT + k }, k++)
    I("layers", layers), I("dense", dense), I("freq", freq), I("experts", experts), I("top-k", top_k),
        I("hidden", hidden), I("inter", inter);
    I("dense-inter", dense_inter), I("heads", heads), I("q-lora", q_lora), I("kv-lora", kv_lora),
        I("nope", nope), I("rope", rope);
    I("v", v), I("vocab", vocab), I("shared", shared), I("seed", seed), I("shards", shards), I("cold", cold),
        I("dead", dead);
    I("threads", threads);
#undef I
    const struct { const char *name; int *flag;
    } flags[] = { { "vision", &o->vision },
                  { "inv-freq", &o->inv_freq },
                  { "hostile", &o->hostile },
                  { "scales-apart", &o->scales_apart },
                  { "single-file", &o->single_file },
                  { "tied", &o->tied },
                  { "sparse", &o->sparse },
                  { "all-mlp", &o->all_mlp },
                  { "rope-parameters", &o->rope_parameters } };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        longs[n++] = (struct option){ flags[i].name, no_argument, flags[i].flag, 1 };
    const struct { const char *name; int id;
    } texts[] = { { "format", O_FORMAT },       { "preset", O_PRESET }, { "prefix", O_PREFIX },
                  { "tokenizer", O_TOKENIZER }, { "nan", O_NAN },       { "inf", O_INF },
                  { "skew", O_SKEW },           { "groups", O_GROUPS } };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        longs[n++] = (struct option){ texts[i].name, required_argument, NULL, texts[i].id };
    longs[n++] = (struct option){ "help", no_argument, NULL, O_HELP };
}

static int64_t number(const char *name, const char *s)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end || v < 0) die("--%s wants a number, not '%s'", name, s);
    return v;
}

static void set_format(struct options *o, const char *s)
{
    for (int f = 0; f < F_COUNT; f++)
        if (!strcmp(s, format_names[f])) { o->format = (enum format)f; return; }
    die("no format '%s' (bf16, f32, fp8, int4, nvfp4, nvfp4-ct)", s);
}

static void set_option(struct options *o, int c)
{
    char end;
    switch (c) {
    case 0: case O_PRESET: return;
    case 'o': o->out = optarg; return;
    case O_FORMAT: set_format(o, optarg); return;
    case O_PREFIX: o->prefix = optarg; return;
    case O_TOKENIZER: o->tokenizer = optarg; return;
    case O_NAN: o->nan = optarg; return;
    case O_INF: o->inf = optarg; return;
    case O_SKEW:
        if (sscanf(optarg, "%lf%c", &o->skew, &end) != 1) die("--skew wants a number");
        return;
    case O_GROUPS:
        if (sscanf(optarg, "%" SCNd64 ",%" SCNd64 "%c", &o->n_group, &o->topk_group, &end) != 2)
            die("--groups wants N,N");
        return;
    case O_HELP: fputs(help, stdout); exit(0);
    case '?': die("see --help");
    default:
        if (c < O_INT) die("option %d is not in the table", c);
        *ints[c - O_INT].to = number(ints[c - O_INT].name, optarg);
        if (!strcmp(ints[c - O_INT].name, "shards")) o->layer_shards = 0;
    }
}

static void check_options(struct options *o)
{
    bool nvfp4 = o->format == F_NVFP4 || o->format == F_NVFP4_CT;
    int64_t step = nvfp4 ? 16 : o->format == F_INT4 ? 32 : 1;
    if (!o->out) die("-o is missing (see --help)");
    if (strcmp(o->prefix, "model") && strcmp(o->prefix, "language_model"))
        die("--prefix is model or language_model");
    if (o->hidden % step || o->inter % step || (o->all_mlp && o->dense_inter % step))
        die("widths must be multiples of %d", (int)step);
    if (o->hostile && (o->hidden % 16 || o->inter % 16))
        die("--hostile wants widths that are multiples of 16");
    if (o->experts && o->experts - o->dead - o->cold < o->top_k)
        die("too many cold and dead experts for --top-k");
    if (o->layers < 1 || o->hidden < 1 || o->heads < 1 || o->kv_lora < 1 || o->inter < 1 || o->vocab < 2 ||
        o->freq < 1)
        die("a size is zero");
    bool whole_k2 = o->preset && !strcmp(o->preset, "k2-nvfp4") && o->layers != 61 && o->shards == 119;
    if (whole_k2) o->layer_shards = 1;
    if (o->layer_shards) o->shards = (o->format == F_FP8 ? o->layers : o->layers + 1) + (o->vision ? 2 : 0);
    if (o->shards < 1) die("--shards 0");
    if (o->scales_apart && (o->shards < 2 || o->single_file)) die("--scales-apart wants two shards or more");
    if (!o->threads) o->threads = sysconf(_SC_NPROCESSORS_ONLN);
    o->threads = o->threads < 1 ? 1 : o->threads > 64 ? 64 : o->threads;
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = small;
    option_table(o);
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) >= 0;)
        if (c == O_PRESET) { set_preset(o, optarg); break; }
    const struct options base = *o;
    *o = o->preset ? base : small; /* a preset first, whatever its place; then every option over it */
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) >= 0;) set_option(o, c);
    if (optind < argc) die("'%s' is one argument too many", argv[optind]);
    check_options(o);
}

int main(int argc, char **argv)
{
    static struct options o;
    struct plan p = { 0 };
    parse(&o, argc, argv);
    if (mkdir(o.out, 0777) && errno != EEXIST) die("cannot create '%s': %s", o.out, strerror(errno));
    int64_t special = write_tokenizer(&o);
    write_config(&o, special, special + 1);
    make_plan(&p, &o);
    int *fd = need(calloc((size_t)p.shards, sizeof *fd));
    create_shards(&o, &p, fd);
    write_index(&o, &p);
    struct job j = { .o = &o, .p = &p, .fd = fd };
    t_table_fill();
    if (o.sparse) put_scalars(&j);
    else {
        if (o.format == F_NVFP4 || o.format == F_NVFP4_CT) run_pass(&j, true);
        run_pass(&j, false);
    }
    plant(&j, o.nan, false);
    plant(&j, o.inf, true);
    for (int s = 0; s < p.shards; s++)
        if (close(fd[s])) die("cannot write a shard: %s", strerror(errno));
    for (int64_t i = 0; i < p.n_o; i++) free(p.o[i].name);
    free(p.o), free(p.w), free(p.order), free(fd);
    return 0;
}
