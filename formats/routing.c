/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/routing.h"

#include "base/io.h"
#include "base/show.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const int64_t SUM_MAX = (int64_t)1 << 53;

void moe_routing_free(struct moe_routing **r)
{
    if (!*r) return;
    free((*r)->layers);
    free((*r)->tokens);
    free((*r)->counts);
    free(*r);
    *r = NULL;
}

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for routing statistics");
}

enum moe_code moe_routing_new(struct moe_routing **out, int32_t experts, int32_t experts_per_token,
                              int32_t n_layers, const int32_t *layers, int32_t n_windows, struct moe_err *err)
{
    int64_t n = (int64_t)n_windows * n_layers * experts;
    struct moe_routing *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return no_memory(err);
    *r = (struct moe_routing){ .experts = experts,
                               .experts_per_token = experts_per_token,
                               .n_layers = n_layers,
                               .n_windows = n_windows };
    r->tokens = calloc((size_t)n_windows, sizeof *r->tokens);
    r->counts = calloc((size_t)n + 1, sizeof *r->counts);
    if (layers) r->layers = malloc(((size_t)n_layers + 1) * sizeof *layers);
    if (!r->tokens || !r->counts || (layers && !r->layers)) {
        moe_routing_free(&r);
        return no_memory(err);
    }
    if (layers && n_layers) memcpy(r->layers, layers, (size_t)n_layers * sizeof *layers);
    *out = r;
    return MOE_OK;
}

/* ---- checks ---- */

static enum moe_code check_row(const struct moe_routing *r, int32_t w, int32_t row, const char *file,
                               struct moe_err *err)
{
    const int64_t *c = moe_routing_row(r, w, row), tokens = r->tokens[w];
    int layer = r->layers ? r->layers[row] : row;
    int64_t sum = 0;
    for (int32_t e = 0; e < r->experts; e++) {
        if (c[e] < 0 || c[e] >= SUM_MAX)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d: a count out of range", layer);
        if (tokens && c[e] > tokens)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d: expert %d has %lld token%s of %lld",
                               layer, (int)e, (long long)c[e], moe_plural(c[e]), (long long)tokens);
        sum += c[e];
        if (sum >= SUM_MAX)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d: its counts add up to too much",
                               layer);
    }
    if (tokens && r->experts_per_token &&
        sum / r->experts_per_token + (sum % r->experts_per_token != 0) > tokens)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "layer %d: its counts add up to %lld, %lld tokens of %d experts are at most %lld",
                           layer, (long long)sum, (long long)tokens, (int)r->experts_per_token,
                           (long long)(tokens * r->experts_per_token));
    return MOE_OK;
}

enum moe_code moe_routing_check(const struct moe_routing *r, const char *file, struct moe_err *err)
{
    if (r->experts < 1 || r->experts > MOE_ROUTING_EXPERTS_MAX || r->experts_per_token < 0 ||
        r->experts_per_token > r->experts)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%d of %d experts a token",
                           (int)r->experts_per_token, (int)r->experts);
    if (r->n_layers < 1 || r->n_windows < 1)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "there are no counts in it");
    for (int32_t i = 0; r->layers && i < r->n_layers; i++)
        if (r->layers[i] < 0 || (i && r->layers[i] <= r->layers[i - 1]))
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d is there twice or out of order",
                               (int)r->layers[i]);
    for (int32_t w = 0; w < r->n_windows; w++) {
        if (r->tokens[w] < 0 || r->tokens[w] >= SUM_MAX)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "a number of tokens out of range");
        for (int32_t i = 0; i < r->n_layers; i++) MOE_TRY(check_row(r, w, i, file, err));
    }
    return MOE_OK;
}

/* ---- writing ---- */

const struct moe_file_kind moe_routing_kind = {
    .name = "recorded routing", .marks = { { 0, "{\"version\":1,\n\"experts\":", { "\"counts\":[" } } },
};

static size_t put(char *at, const char *fmt, long long a, long long b)
{
    char buf[96];
    size_t n = (size_t)snprintf(buf, sizeof buf, fmt, a, b);
    if (at) memcpy(at, buf, n);
    return n;
}

/* Print the layers of a window and return the length of their text; with `out` NULL nothing is printed. */
static size_t print_layers(const struct moe_routing *r, int32_t w, char *out)
{
    size_t n = put(out, "\"tokens\":%lld,\n\"layers\":[\n", r->tokens[w], 0);
    for (int32_t i = 0; i < r->n_layers; i++) {
        const int64_t *c = moe_routing_row(r, w, i);
        n += put(out ? out + n : NULL, "{\"layer\":%lld,\"counts\":[%lld", r->layers[i], c[0]);
        for (int32_t e = 1; e < r->experts; e++) n += put(out ? out + n : NULL, ",%lld", c[e], 0);
        n += put(out ? out + n : NULL, i + 1 < r->n_layers ? "]},\n" : "]}\n", 0, 0);
    }
    return n + put(out ? out + n : NULL, "]", 0, 0);
}

static size_t print(const struct moe_routing *r, char *out)
{
    size_t n = put(out, "{\"version\":1,\n\"experts\":%lld,\n\"experts_per_token\":%lld,\n", r->experts,
                   r->experts_per_token);
    if (r->n_windows == 1) n += print_layers(r, 0, out ? out + n : NULL);
    else {
        for (int32_t w = 0; w < r->n_windows; w++) {
            n += put(out ? out + n : NULL, w ? ",\n{" : "\"windows\":[\n{", 0, 0);
            n += print_layers(r, w, out ? out + n : NULL);
            n += put(out ? out + n : NULL, "}", 0, 0);
        }
        n += put(out ? out + n : NULL, "]", 0, 0);
    }
    return n + put(out ? out + n : NULL, "}\n", 0, 0);
}

char *moe_routing_print(const struct moe_routing *r, size_t *bytes)
{
    MOE_CHECK(r->layers && r->n_windows >= 1 && r->n_layers >= 1 && r->experts >= 1);
    size_t n = print(r, NULL);
    char *text = malloc(n + 1);
    if (!text) return NULL;
    print(r, text);
    text[n] = 0;
    *bytes = n;
    return text;
}

static enum moe_code compress_text(const char *text, size_t n, const char *path, unsigned char **out,
                                   size_t *size, struct moe_err *err)
{
    z_stream z = { 0 };
    if (deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to compress it");
    if (n > UINT_MAX) {
        deflateEnd(&z);
        return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "more than 4 GB of text");
    }
    uLong cap = deflateBound(&z, (uLong)n);
    *out = malloc(cap);
    if (!*out) {
        deflateEnd(&z);
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to compress it");
    }
    z.next_in = (unsigned char *)(uintptr_t)text;
    z.avail_in = (uInt)n;
    z.next_out = *out;
    z.avail_out = (uInt)cap;
    MOE_CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END); /* the bound is large enough */
    *size = z.total_out;
    deflateEnd(&z);
    return MOE_OK;
}

enum moe_code moe_routing_write(const char *path, const struct moe_routing *r, bool gzip, struct moe_err *err)
{
    size_t n = 0;
    MOE_TRY(moe_routing_check(r, path, err));
    char *text = moe_routing_print(r, &n);
    unsigned char *packed = NULL;
    if (!text) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its text");
    enum moe_code code = gzip ? compress_text(text, n, path, &packed, &n, err) : MOE_OK;
    if (code == MOE_OK) code = moe_write_file(path, packed ? (const void *)packed : text, n, err);
    free(packed);
    free(text);
    return code;
}

/* ---- matching statistics with a model ---- */

static enum moe_code other_model(const char *file, const char *what, long long has, long long wants,
                                 struct moe_err *err)
{
    return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                       "statistics of another model: %lld %s, the model has %lld", has, what, wants);
}

/* Which layers the rows of statistics stand for. */
struct rows {
    bool bare;        /* rows have no numbers and are the MoE layers alone */
    int32_t mtp_rows; /* rows at the end that are layers for multi-token prediction */
};

/* Whether no layer without experts has a count. */
static bool dense_rows_empty(const struct moe_routing *r, const struct moe_config *c)
{
    for (int32_t w = 0; w < r->n_windows; w++)
        for (int32_t l = 0; l < (int32_t)c->num_hidden_layers && l < r->n_layers; l++)
            for (int32_t e = 0; !moe_layer_is_moe(c, l) && e < r->experts; e++)
                if (moe_routing_row(r, w, l)[e]) return false;
    return true;
}

static enum moe_code other_layers(const struct moe_routing *r, const struct moe_config *c, int32_t n_moe,
                                  const char *file, struct moe_err *err)
{
    return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                       "statistics of another model: %d row%s, the model has %lld layers, %d of them with "
                       "experts, and config.json says that %lld more are for multi-token prediction "
                       "(num_nextn_predict_layers)",
                       (int)r->n_layers, moe_plural(r->n_layers), (long long)c->num_hidden_layers, (int)n_moe,
                       (long long)c->num_nextn_predict_layers);
}

/* Rows without numbers are identified by their count.  When a model has as many dense layers as layers for
 * multi-token prediction, the same count may mean all layers, or the MoE layers and those for prediction.
 * Then the rows are all layers if the rows of the dense layers are zero; otherwise they are refused. */
static enum moe_code read_rows(const struct moe_routing *r, const struct moe_config *c, int32_t n_moe,
                               const char *file, struct rows *rows, struct moe_err *err)
{
    int32_t all = (int32_t)c->num_hidden_layers, more = (int32_t)c->num_nextn_predict_layers, n = r->n_layers;
    *rows = (struct rows){ .bare = n == n_moe || (more && n == n_moe + more) };
    if (r->layers) {
        while (rows->mtp_rows < n && r->layers[n - 1 - rows->mtp_rows] >= all) rows->mtp_rows++;
        bool fits = !rows->mtp_rows || r->layers[n - 1] < all + more;
        return fits ? MOE_OK : other_layers(r, c, n_moe, file, err);
    }
    if (rows->bare && n != n_moe && n == all) {
        if (!dense_rows_empty(r, c))
            return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                               "%d rows without layer numbers are all layers, or those with experts and %d "
                               "for multi-token prediction, and the row of a dense layer is not empty "
                               "(leave the last %d rows out)",
                               (int)n, (int)more, (int)more);
        rows->bare = false;
    }
    rows->mtp_rows = n - (rows->bare ? n_moe : all);
    bool fits = rows->bare || n == all || (more && n == all + more);
    return fits ? MOE_OK : other_layers(r, c, n_moe, file, err);
}

/* The row of r with the counts of the model's MoE layer number i, which is its layer `layer`; -1 when there
 * is none. */
static int32_t row_of(const struct moe_routing *r, const struct rows *rows, int32_t i, int32_t layer,
                      int32_t *hint)
{
    if (!r->layers) return rows->bare ? i : layer;
    while (*hint < r->n_layers && r->layers[*hint] < layer) ++*hint;
    return *hint < r->n_layers && r->layers[*hint] == layer ? *hint : -1;
}

enum moe_code moe_routing_bind(const struct moe_routing *r, const struct moe_config *c, const char *file,
                               struct moe_routing **bound, struct moe_err *err)
{
    int32_t n = 0, hint = 0, all = (int32_t)c->num_hidden_layers;
    struct rows rows;
    *bound = NULL;
    for (int32_t l = 0; l < all; l++) n += moe_layer_is_moe(c, l);
    if (r->experts != c->n_routed_experts)
        return other_model(file, "experts a layer", r->experts, c->n_routed_experts, err);
    if (r->experts_per_token && r->experts_per_token != c->num_experts_per_tok)
        return other_model(file, "experts a token", r->experts_per_token, c->num_experts_per_tok, err);
    MOE_TRY(read_rows(r, c, n, file, &rows, err));
    MOE_TRY(moe_routing_new(bound, r->experts, (int32_t)c->num_experts_per_tok, n, NULL, r->n_windows, err));
    struct moe_routing *b = *bound;
    b->mtp_rows = rows.mtp_rows;
    memcpy(b->tokens, r->tokens, (size_t)r->n_windows * sizeof *b->tokens);
    if (!(b->layers = malloc(((size_t)n + 1) * sizeof *b->layers))) {
        moe_routing_free(bound);
        return no_memory(err);
    }
    for (int32_t l = 0, i = 0; l < all; l++) {
        if (!moe_layer_is_moe(c, l)) continue;
        int32_t from = row_of(r, &rows, i, l, &hint);
        if (from < 0) {
            moe_routing_free(bound);
            return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                               "statistics of another model: nothing of layer %d", (int)l);
        }
        for (int32_t w = 0; w < r->n_windows; w++)
            memcpy(moe_routing_row(b, w, i), moe_routing_row(r, w, from),
                   (size_t)r->experts * sizeof *r->counts);
        b->layers[i++] = l;
    }
    return MOE_OK;
}

void moe_routing_merge(struct moe_routing *r, int32_t most)
{
    int64_t size = (int64_t)r->n_layers * r->experts;
    if (r->n_windows <= most) return;
    for (int32_t w = 0; w < most; w++) {
        int32_t first = (int32_t)((int64_t)w * r->n_windows / most),
                end = (int32_t)((int64_t)(w + 1) * r->n_windows / most);
        for (int32_t i = first; i < end; i++) {
            int64_t *to = r->counts + w * size, *from = r->counts + i * size;
            for (int64_t k = 0; k < size; k++) to[k] = i == first ? from[k] : to[k] + from[k];
            r->tokens[w] = i == first                   ? r->tokens[i]
                         : r->tokens[w] && r->tokens[i] ? r->tokens[w] + r->tokens[i]
                                                        : 0;
        }
    }
    r->n_windows = most;
}
