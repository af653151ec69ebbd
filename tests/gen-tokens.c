/* gen-tokens DIR FILE [REPEAT] - the ids of every NUL-separated text in FILE, one line a text; with REPEAT: encode the whole
 * file REPEAT times over and print the speed.  gen-tokens -p FILE: the pieces' ends in bytes instead. */
#undef NDEBUG
#include "base/io.h"
#include "formats/pretoken.h"
#include "formats/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int die(const struct moe_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    return (int)err->code;
}

static void put_pieces(const struct moe_pretoken *p, const char *text, size_t len, struct moe_err *err)
{
    struct moe_pretoken_scan *s = moe_pretoken_scan_new(p);
    for (size_t at = 0, end; at < len; at = end) {
        if (moe_pretoken_next(s, text, len, at, &end, err) != MOE_OK) exit(die(err));
        printf("%s%zu", at ? " " : "", end);
    }
    moe_pretoken_scan_free(s);
}

static void put_ids(const struct moe_tokenizer *t, const char *text, size_t len, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    if (moe_tokenize(t, text, len, false, &ids, &n, err) != MOE_OK) exit(die(err));
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    free(ids);
}

static int speed(const struct moe_tokenizer *t, const char *text, size_t size, size_t repeat, struct moe_err *err)
{
    char *all = malloc(size * repeat + 1);
    int32_t *ids;
    size_t n;
    if (!all) return 10;
    for (size_t i = 0; i < repeat; i++) memcpy(all + i * size, text, size);
    double from = moe_now();
    if (moe_tokenize(t, all, size * repeat, false, &ids, &n, err) != MOE_OK) return die(err);
    double took = moe_now() - from;
    printf("%.1f MB in %.2f s: %.1f MB/s, %zu tokens\n", (double)(size * repeat) / 1e6, took, (double)(size * repeat) / 1e6 / took, n);
    free(ids);
    free(all);
    return 0;
}

int main(int argc, char **argv)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_tokenizer *t = NULL;
    struct moe_pretoken *p = NULL;
    char *text;
    size_t size;
    if (argc < 3) return 2;
    int pieces = !strcmp(argv[1], "-p");
    double from = moe_now();
    if ((pieces ? moe_pretoken_open(&p, &err) : moe_tokenizer_open(&t, argv[1], 0, &err)) != MOE_OK) return die(&err);
    double took = moe_now() - from;
    if (moe_read_file(argv[2], (size_t)1 << 32, &text, &size, &err) != MOE_OK) return die(&err);
    if (argc > 3) {
        printf("open: %.3f s\n", took);
        return speed(t, text, size, strtoul(argv[3], NULL, 10), &err);
    }
    for (size_t at = 0; at <= size; putchar('\n')) {
        size_t len = strlen(text + at);
        if (pieces) put_pieces(p, text + at, len, &err);
        else put_ids(t, text + at, len, &err);
        at += len + 1;
    }
    free(text);
    moe_tokenizer_close(&t);
    moe_pretoken_close(&p);
    return 0;
}
