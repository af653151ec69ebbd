/* SPDX-License-Identifier: Apache-2.0 */
/* gen-tokens DIR FILE          prints the ids of each line of FILE, which is a text in hexadecimal
 * gen-tokens -p FILE           prints, of each line, where the pre-tokenizer's pieces end, in bytes
 * gen-tokens -u                prints, as ranges, the code points for which this PCRE2 has no character
 * gen-tokens DIR FILE REPEAT   encodes FILE, plain text, REPEAT times at once and prints the speed */
#undef NDEBUG
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/io.h"
#include "formats/tokenizer/pretoken.h"
#include "formats/tokenizer/tokenizer.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prints the error, and returns the exit code of the program. */
static int print_error(const struct moe_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    return (int)err->code;
}

static void put_pieces(const struct moe_pretoken *p, const char *text, size_t len, struct moe_err *err)
{
    struct moe_pretoken_scan *s = moe_pretoken_scan_new(p);
    for (size_t at = 0, end; at < len; at = end) {
        if (moe_pretoken_next(s, text, len, at, &end, err) != MOE_OK) exit(print_error(err));
        printf("%s%zu", at ? " " : "", end);
    }
    moe_pretoken_scan_free(s);
}

static void put_ids(const struct moe_tokenizer *t, const char *text, size_t len, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    if (moe_tokenize(t, text, len, false, &ids, &n, err) != MOE_OK) exit(print_error(err));
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    free(ids);
}

static int print_speed(const struct moe_tokenizer *t, const char *text, size_t size, size_t repeat,
                       struct moe_err *err)
{
    char *all = malloc(size * repeat + 1);
    int32_t *ids;
    size_t n;
    if (!all) return 10;
    for (size_t i = 0; i < repeat; i++) memcpy(all + i * size, text, size);
    double from = moe_now();
    if (moe_tokenize(t, all, size * repeat, false, &ids, &n, err) != MOE_OK) return print_error(err);
    double took = moe_now() - from;
    printf("%.1f MB in %.2f s: %.1f MB/s, %zu tokens\n", (double)(size * repeat) / 1e6, took,
           (double)(size * repeat) / 1e6 / took, n);
    free(ids);
    free(all);
    return 0;
}

/* Replaces hexadecimal digits by the bytes that they stand for; returns how many bytes these are. */
static size_t unhex(char *s, size_t digits)
{
    for (size_t i = 0; i < digits / 2; i++) {
        char two[3] = { s[2 * i], s[2 * i + 1], 0 };
        s[i] = (char)strtoul(two, NULL, 16);
    }
    return digits / 2;
}

static int print_unassigned(void)
{
    int number, from = -1;
    PCRE2_SIZE offset;
    pcre2_code_8 *code = pcre2_compile((PCRE2_SPTR) "^\\p{Cn}", PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number,
                                       &offset, NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    for (int c = 0x80; c <= 0x110000; c++) {
        unsigned char s[4] = { (unsigned char)(0xf0 | c >> 18), (unsigned char)(0x80 | (c >> 12 & 63)),
                               (unsigned char)(0x80 | (c >> 6 & 63)), (unsigned char)(0x80 | (c & 63)) };
        int skip = 0, n = 4;
        if (c < 0x800) { skip = 2; n = 2; s[2] = (unsigned char)(0xc0 | c >> 6); }
        else if (c < 0x10000) { skip = 1; n = 3; s[1] = (unsigned char)(0xe0 | c >> 12); }
        int none = c < 0x110000 && (c < 0xd800 || c > 0xdfff) &&
                   pcre2_match(code, s + skip, (size_t)n, 0, 0, data, NULL) > 0;
        if (none && from < 0) from = c;
        if (!none && from >= 0) { printf("%x %x\n", (unsigned)from, (unsigned)c - 1); from = -1; }
    }
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return 0;
}

int main(int argc, char **argv)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_tokenizer *t = NULL;
    struct moe_pretoken *p = NULL;
    char *text;
    size_t size;
    if (argc == 2 && !strcmp(argv[1], "-u")) return print_unassigned();
    if (argc < 3) return 2;
    int pieces = !strcmp(argv[1], "-p");
    double from = moe_now();
    if ((pieces ? moe_pretoken_open(&p, &err) : moe_tokenizer_open(&t, argv[1], 0, &err)) != MOE_OK)
        return print_error(&err);
    double took = moe_now() - from;
    if (moe_read_file(argv[2], (size_t)1 << 32, &text, &size, &err) != MOE_OK) return print_error(&err);
    if (argc > 3) {
        printf("open: %.3f s\n", took);
        return print_speed(t, text, size, strtoul(argv[3], NULL, 10), &err);
    }
    for (size_t at = 0; at < size; putchar('\n')) {
        size_t digits = strcspn(text + at, "\n"), len = unhex(text + at, digits);
        if (pieces) put_pieces(p, text + at, len, &err);
        else put_ids(t, text + at, len, &err);
        at += digits + 1;
    }
    free(text);
    moe_tokenizer_close(&t);
    moe_pretoken_close(&p);
    return 0;
}
