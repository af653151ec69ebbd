/* SPDX-License-Identifier: Apache-2.0 */
/* Tests JSON: what is refused and how fast, and how numbers are printed. */
#include "tests/ok.h"
#include "base/io.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct moe_err err;

static bool refuses(const char *text, size_t n, const char *why)
{
    cJSON *j = (cJSON *)&err;
    char *exact = malloc(n + !n); /* no NUL behind it: an overread is seen */
    memcpy(exact, text, n);
    enum moe_code code = moe_json_parse(exact, n, "f.json", &j, &err);
    free(exact);
    if (code == MOE_OK) cJSON_Delete(j);
    if (code != MOE_CORRUPT || j || !strstr(err.msg, "'f.json'") || !strstr(err.msg, why)) {
        printf("%.*s: %d %s\n", (int)n, text, (int)code, err.msg);
        return false;
    }
    return true;
}

static void test_refused(void)
{
    static const struct { const char *text, *why;
    } bad[] = {
        { "", "is empty" },
        { " \n", "is empty" },
        { "{", "byte" },
        { "{\"a\":1", "byte" },
        { "[1,]", "byte" },
        { "{\"a\":1,}", "byte" },
        { "[1 2]", "bad syntax at byte 3" },
        { "[1}", "bad syntax at byte 2" },
        { "{\"a\":1]", "bad syntax at byte 6" },
        { "{\"a\" 1}", "bad syntax at byte 5" },
        { "{1:2}", "bad syntax at byte 1" },
        { "{\"a\",1}", "byte 4" },
        { "[,1]", "byte 1" },
        { "]", "byte 0" },
        { "[truex]", "byte 5" },
        { "\"\\u12\"", "byte 1" },
        { "\"\\u00zz\"", "byte 1" },
        { "\"\\ud800\\u0041\"", "byte 1" },
        { "\"\\ud800\\n\"", "byte 1" },
        { "{\"a\":1} x", "byte 8" },
        { "{}{}", "after the value" },
        { "nul", "byte" },
        { "'a'", "byte" },
        { "\"a", "byte" },
        { "\"\\", "byte" },
        { "\"\\x41\"", "byte" },
        { "01", "number" },
        { "-", "number" },
        { "1.", "number" },
        { "1e", "number" },
        { "-01", "number" },
        { "1.e3", "number" },
        { "+1", "byte" },
        { ".5", "byte" },
        { "NaN", "byte" },
        { "Infinity", "byte" },
        { "0x10", "byte" },
        { "\xef\xbb\xbf", "is empty" },
        { "\xef\xbb\xbf\xef\xbb\xbf{}", "byte 0" },
        { "\"\xff\"", "UTF-8" },
        { "\"\xc0\x80\"", "UTF-8" },
        { "\"\xed\xa0\x80\"", "UTF-8" },
        { "\"\xf4\x90\x80\x80\"", "UTF-8" },
        { "\"\xe2\x82\"", "UTF-8" },
        { "\"a\nb\"", "control" },
        { "\"a\\u0000b\"", "NUL" },
        { "\"\\ud800\"", "byte" },
        { "\"\\udc00\"", "byte" },
        { "{\v}", "stray" },
        { "{\"a\":1,\"b\":2,\"a\":3}", "'a' appears twice" },
        { "{\"a\":1,\"\\u0061\":3}", "twice" },
        { "[{\"x\":{\"y\":1,\"y\":1}}]", "'y' appears twice" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        OK(refuses(bad[i].text, strlen(bad[i].text), bad[i].why));
    OK(refuses("{\"a\0\":1}", 8, "NUL") && refuses("1\0", 2, "NUL") && refuses("\"\\\0\"", 4, "byte"));
}

static void test_depth(void)
{
    enum { BIG = 1000000 };
    char *s = malloc(2 * BIG);
    cJSON *j;
    for (int open = 63; open <= 65; open++) {
        memset(s, '[', (size_t)open);
        memset(s + open, ']', (size_t)open);
        OK(moe_json_parse(s, 2 * (size_t)open, "d", &j, &err) == (open <= 64 ? MOE_OK : MOE_CORRUPT));
        cJSON_Delete(j);
    }
    memset(s, '[', BIG);
    OK(refuses(s, BIG, "deep"));
    free(s);
}

/* 300,000 keys, then one twice: hashed, not compared pairwise. */
static void test_many_keys(void)
{
    enum { KEYS = 300000 };
    char *s = malloc(KEYS * 24 + 64);
    size_t n = 0;
    s[n++] = '{';
    for (int i = 0; i < KEYS; i++) n += (size_t)snprintf(s + n, 24, "\"key%d\":%d,", i, i);
    cJSON *j;
    double start = moe_now();
    size_t one = n + (size_t)snprintf(s + n, 32, "\"last\":1}");
    OK(moe_json_parse(s, one, "k", &j, &err) == MOE_OK && cJSON_GetArraySize(j) == KEYS + 1);
    cJSON_Delete(j);
    one = n + (size_t)snprintf(s + n, 32, "\"key7\":1}");
    OK(refuses(s, one, "'key7' appears twice"));
    OK(moe_now() - start < 30); /* quadratic would be minutes */
    free(s);
}

static void test_members(void)
{
    static const char text[] = "{\"i\": 7, \"h\": 1.5, \"big\": 9223372036854775807, \"inf\": 1e999, \"s\": "
                               "\"x\", \"b\": true, \"n\": null, \"I\": 8}";
    cJSON *j;
    int64_t i = -1;
    double d = -1;
    bool b = false;
    const char *s = "kept";
    OK(moe_json_parse(text, strlen(text), "m", &j, &err) == MOE_OK);
    OK(moe_json_i64(j, "i", true, 0, 10, &i, "m", &err) == MOE_OK && i == 7);
    FAILS(MOE_CORRUPT, moe_json_i64(j, "i", true, 8, 10, &i, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_i64(j, "h", true, 0, 10, &i, "m", &err));
    /* 2^63 as a double */
    FAILS(MOE_CORRUPT, moe_json_i64(j, "big", true, INT64_MIN, INT64_MAX, &i, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_i64(j, "inf", true, 0, INT64_MAX, &i, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_f64(j, "inf", true, &d, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_i64(j, "s", false, 0, 10, &i, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_str(j, "i", true, &s, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_bool(j, "i", true, &b, "m", &err));
    FAILS(MOE_CORRUPT, moe_json_str(j, "gone", true, &s, "m", &err));
    SAYS("'gone' is missing");
    FAILS(MOE_CORRUPT, moe_json_str(j, "n", true, &s, "m", &err));
    OK(moe_json_str(j, "n", false, &s, "m", &err) == MOE_OK && !strcmp(s, "kept") && !moe_json_get(j, "n") &&
       !moe_json_get(j, "S"));
    OK(moe_json_bool(j, "b", true, &b, "m", &err) == MOE_OK && b &&
       moe_json_f64(j, "h", true, &d, "m", &err) == MOE_OK && d == 1.5);
    cJSON_Delete(j);
}

static bool prints(double v, const char *want)
{
    cJSON *j = cJSON_CreateNumber(v);
    char *s = moe_json_print(j, 0);
    bool same = s && !strcmp(s, want);
    if (!same) printf("%.17g: %s, not %s\n", v, s, want);
    free(s);
    cJSON_Delete(j);
    return same;
}

static void test_print(void)
{
    OK(prints(0, "0") && prints(-0.0, "0") && prints(-3, "-3") &&
       prints(9007199254740991.0, "9007199254740991") && prints(0.1, "0.1"));
    OK(prints(15.7035, "15.7035") && prints(1.0 / 3, "0.3333333333333333") && prints(1e300, "1e+300") &&
       prints(NAN, "null") && prints(INFINITY, "null"));
    static const char text[] = "{\"b\": [1, 2.5], \"a\": {\"s\": \"\\\"\\\\\\n\\u0001\xc3\xa9\", \"e\": [], "
                               "\"o\": {}, \"t\": true, \"f\": false, \"n\": null}, \"c\": [{\"x\": 1}]}";
    for (int indent = 0; indent <= 2; indent += 2) {
        cJSON *j, *k;
        OK(moe_json_parse(text, strlen(text), "p", &j, &err) == MOE_OK);
        char *s = moe_json_print(j, indent);
        OK(s && (indent ? !!strchr(s, '\n') : !strcmp(s, text)));
        OK(moe_json_parse(s, strlen(s), "p", &k, &err) == MOE_OK && cJSON_Compare(j, k, true));
        free(s);
        cJSON_Delete(j);
        cJSON_Delete(k);
    }
}

/* Values that have fewer digits than a double. */
static void test_print_rounded(void)
{
    static const float given[] = { 0.1f, 1.0f / 3, 16777217.0f, 3.4028235e38f, 1e-45f, -0.0f, INFINITY, NAN };
    cJSON *j = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) OK(moe_json_add_f32(j, "f", given[i]));
    OK(moe_json_add_measured(j, "s", 0.123456789012) && moe_json_add_measured(j, "s", 98765.4321) &&
       moe_json_add_measured(j, "s", 3.25e-7) && moe_json_add_measured(j, "s", 0) &&
       moe_json_add_measured(j, "s", INFINITY));
    char *s = moe_json_print(j, 0);
    OK(s && !strcmp(s, "{\"f\": 0.1, \"f\": 0.33333334, \"f\": 16777216, \"f\": 3.4028235e+38, \"f\": "
                       "1.4013e-45, \"f\": 0, \"f\": null, \"f\": null, \"s\": 0.123457, \"s\": 98765.4, "
                       "\"s\": 3.25e-07, \"s\": 0, \"s\": null}"));
    free(s);
    cJSON_Delete(j);
}

static void test_print_bytes(void)
{
    cJSON *j = cJSON_CreateString("a\xff" "b\xc3\xa9\xe2\x82"), *k;
    char *s = moe_json_print(j, 0);
    OK(s && !strcmp(s, "\"a\xef\xbf\xbd" "b\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\""));
    OK(moe_json_parse(s, strlen(s), "b", &k, &err) == MOE_OK);
    free(s);
    cJSON_Delete(j);
    cJSON_Delete(k);
}

/* Text that a model wrote may hold NULs; so may what a NUL stands next to. */
static void test_print_text(void)
{
    static const char with[] = "a\0\"b\0\0\xc3\xa9\xff";
    cJSON *j = cJSON_CreateObject();
    OK(moe_json_add_text(j, "t", with, sizeof with - 1) && moe_json_add_text(j, "e", "", 0) &&
       cJSON_AddStringToObject(j, "s", "x"));
    char *s = moe_json_print(j, 0);
    OK(s &&
       !strcmp(s, "{\"t\": \"a\\u0000\\\"b\\u0000\\u0000\xc3\xa9\xef\xbf\xbd\", \"e\": \"\", \"s\": \"x\"}"));
    free(s);
    cJSON_Delete(j);
}

/* ---- without memory ---- */

static long left = -1; /* allocations that cJSON gets; -1: all */

static void *scarce(size_t n)
{
    if (!left) return NULL;
    if (left > 0) left--;
    return malloc(n);
}

static cJSON *build(void)
{
    cJSON *j = cJSON_CreateObject(), *o = moe_json_add_object(j, "o"), *a = moe_json_add_array(o, "a");
    moe_json_add_null(o, "n");
    moe_json_add_bool(o, "b", true);
    moe_json_add_str(o, "s", "x");
    moe_json_append(a, cJSON_CreateNumber(1));
    moe_json_add_i64(moe_json_append(a, cJSON_CreateObject()), "i", 2);
    moe_json_add_text(j, "t", "y", 1);
    moe_json_add(j, "again", moe_json_ref(a));
    moe_json_add(j, "copy", cJSON_Duplicate(a, true));
    moe_json_replace(o, "n", cJSON_CreateString("z"));
    return j;
}

static const char built[] = "{\"o\": {\"a\": [1, {\"i\": 2}], \"n\": \"z\", \"b\": true, \"s\": \"x\"}, "
                            "\"t\": \"y\", \"again\": [1, {\"i\": 2}], \"copy\": [1, {\"i\": 2}]}";

static bool is_built(const cJSON *j)
{
    char *s = moe_json_print(j, 0);
    bool same = moe_json_whole(j) && s && !strcmp(s, built);
    free(s);
    return same;
}

/* A tree that lacks something says so itself, and no other does, before or after. */
static void test_lacking(void)
{
    enum { MANY = 1000 };
    cJSON *before = build();
    left = MANY;
    cJSON *j = build();
    long all = MANY - left;
    OK(is_built(j) && all > 20);
    cJSON_Delete(j);

    for (long n = 0; n <= all; n++) {
        left = n;
        j = build();
        left = -1;
        char *s = moe_json_print(j, 0);
        OK(n == all ? is_built(j) : !moe_json_whole(j) && !s);
        free(s);
        cJSON *outer = cJSON_CreateArray(), *copy = cJSON_Duplicate(j, true), *after = build();
        OK(moe_json_whole(copy) == (n == all) && is_built(before) && is_built(after));
        moe_json_append(outer, j);
        OK(moe_json_whole(outer) == (n == all));
        cJSON_Delete(outer);
        cJSON_Delete(copy);
        cJSON_Delete(after);
    }
    cJSON_Delete(before);
    OK(!moe_json_whole(NULL) && !moe_json_print(NULL, 0));
}

/* Bad text is bad without memory, too; sound text is not. */
static void test_parse_without_memory(void)
{
    cJSON *j;
    for (long n = 0; n <= 20; n++) {
        left = n;
        enum moe_code code = moe_json_parse(built, strlen(built), "m", &j, &err);
        OK(code == MOE_NOMEM && !j && strstr(err.msg, "no memory"));
        OK(refuses("{\"a\": [1, 2}", 12, "bad syntax at byte 11"));
    }
    left = -1;
    OK(moe_json_parse(built, strlen(built), "m", &j, &err) == MOE_OK && is_built(j));
    cJSON_Delete(j);
}

int main(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){ scarce, free });
    test_lacking();
    test_parse_without_memory();
    test_print_text();
    test_print_bytes();
    test_print_rounded();
    test_refused();
    test_depth();
    test_many_keys();
    test_members();
    test_print();
    printf("test-json: %ld checks\n", checks);
    return 0;
}
