/* SPDX-License-Identifier: Apache-2.0 */
/* Prints synthetic routing statistics, of experts with a log-normal popularity, in a form that moe-plan
 * reads.
 *
 *     genrouting experts=384 layers=60 first=1 top=8 sigma=1.0 seed=1 drift=0.1 tokens=1000000 windows=1
 *     form=moe|sglang|sglang-all|gzip:FILE >FILE
 *
 * These are the defaults, except of drift, which is 0.  Expert e of layer l has weight exp(sigma z), where z
 * is a normal number made from (seed, l, e).  In each window every weight is multiplied by exp(drift z'),
 * where z' is another normal number, made from the window as well.  A count is tokens x top x weight / sum of
 * weights, rounded down, but at most `tokens`: there is no sampling noise.  gzip:FILE writes FILE, and prints
 * nothing. */
#include "formats/routing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The normal number that belongs to a key (Box and Muller). */
static double normal_of(uint64_t key)
{
    double u = ((double)(mix(2 * key) >> 11) + 0.5) * 0x1p-53, v = (double)(mix(2 * key + 1) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static double number_option(int argc, char **argv, const char *name, double value)
{
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, n) && argv[i][n] == '=') value = strtod(argv[i] + n + 1, NULL);
    return value;
}

/* Prints SGLang's form, with rows of zeros for `dense` layers in front. */
static void print_sglang(const struct moe_routing *r, int32_t dense)
{
    printf("{\"logical_count\":[");
    for (int32_t w = 0; w < r->n_windows; w++) {
        printf(w ? ",[" : r->n_windows > 1 ? "[" : "");
        for (int32_t i = -dense; i < r->n_layers; i++) {
            printf(i > -dense ? ",\n[" : "[");
            for (int32_t e = 0; e < r->experts; e++)
                printf(e ? ",%lld" : "%lld", i < 0 ? 0LL : (long long)moe_routing_row(r, w, i)[e]);
            printf("]");
        }
        printf(r->n_windows > 1 ? "]" : "");
    }
    printf("]}\n");
}

/* Sets the counts of window k.  w [experts] is scratch. */
static void fill_window(struct moe_routing *r, int32_t k, int32_t top, double tokens, double sigma,
                        double drift, uint64_t seed, double *w)
{
    r->tokens[k] = (int64_t)tokens;
    for (int32_t i = 0; i < r->n_layers; i++) {
        double sum = 0;
        for (int32_t e = 0; e < r->experts; e++) {
            uint64_t id = seed + (uint64_t)i * 65536 + (uint64_t)e;
            w[e] = exp(sigma * normal_of(id) + drift * normal_of(mix(id) + (uint64_t)k + 1));
            sum += w[e];
        }
        for (int32_t e = 0; e < r->experts; e++) {
            double n = floor(tokens * top * w[e] / sum);
            moe_routing_row(r, k, i)[e] = (int64_t)(n < tokens ? n : tokens);
        }
    }
}

int main(int argc, char **argv)
{
    int32_t experts = (int32_t)number_option(argc, argv, "experts", 384),
            layers = (int32_t)number_option(argc, argv, "layers", 60),
            first = (int32_t)number_option(argc, argv, "first", 1),
            top = (int32_t)number_option(argc, argv, "top", 8),
            windows = (int32_t)number_option(argc, argv, "windows", 1);
    double sigma = number_option(argc, argv, "sigma", 1), drift = number_option(argc, argv, "drift", 0),
           tokens = number_option(argc, argv, "tokens", 1e6);
    uint64_t seed = mix((uint64_t)number_option(argc, argv, "seed", 1));
    const char *form = "moe";
    struct moe_err err;
    struct moe_routing *r;
    int32_t *numbers = calloc((size_t)layers + 1, sizeof *numbers);
    double *w = calloc((size_t)experts, sizeof *w);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "form=", 5)) form = argv[i] + 5;
    for (int32_t i = 0; numbers && i < layers; i++) numbers[i] = first + i;
    if (!numbers || !w || moe_routing_new(&r, experts, top, layers, numbers, windows, &err) != MOE_OK)
        return 1;
    for (int32_t k = 0; k < windows; k++) fill_window(r, k, top, tokens, sigma, drift, seed, w);
    size_t bytes;
    char *text = moe_routing_print(r, &bytes);
    if (!text) return 1;
    if (!strcmp(form, "moe")) fwrite(text, 1, bytes, stdout);
    else if (!strncmp(form, "gzip:", 5)) {
        if (moe_routing_write(form + 5, r, true, &err) != MOE_OK) return 1;
    } else print_sglang(r, strcmp(form, "sglang") ? first : 0);
    free(text);
    free(w);
    free(numbers);
    moe_routing_free(&r);
    return fflush(stdout) ? 1 : 0;
}
