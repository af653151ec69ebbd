/* SPDX-License-Identifier: Apache-2.0 */
/* Grammars: which texts schemas, regular expressions and choices accept, what is refused and in which words,
 * and that masks are exactly the tokens over which a state can be advanced. */
#include "tests/ok.h"
#include "tests/unit/grammar-vocab.h"

#include <pthread.h>

static struct moe_err err = MOE_ERR_INIT;
static struct moe_vocab *vocab;

/* In these tests, JSON has ' for ". */
static const char *json(const char *text, char room[2048])
{
    size_t n = strlen(text);
    assert(n < 2048);
    for (size_t i = 0; i <= n; i++) room[i] = text[i] == '\'' ? '"' : text[i];
    return room;
}

static struct moe_grammar *schema(const char *text)
{
    struct moe_grammar *g;
    char room[2048];
    enum moe_code code = moe_grammar_schema(&g, vocab, json(text, room), strlen(text), NULL, &err);
    if (code != MOE_OK) fprintf(stderr, "%s: %s\n", text, err.msg);
    OK(code == MOE_OK);
    return g;
}

/* Lists end with NULL. */
static void check(const char *text, const char *const *good, const char *const *bad)
{
    struct moe_grammar *g = schema(text);
    for (; *good; good++) {
        char room[2048];
        bool is = accepts(g, json(*good, room));
        if (!is) fprintf(stderr, "%s: does not accept %s\n", text, *good);
        OK(is);
    }
    for (; *bad; bad++) {
        char room[2048];
        bool is = accepts(g, json(*bad, room));
        if (is) fprintf(stderr, "%s: accepts %s\n", text, *bad);
        OK(!is);
    }
    moe_grammar_release(&g);
}
#define LIST(...) (const char *const[]){ __VA_ARGS__, NULL }

static void test_scalars(void)
{
    check("{'type':'null'}", LIST("null"), LIST("", "nul", "nulll", "true", " null"));
    check("{'type':['boolean','null']}", LIST("true", "false", "null"), LIST("1", "'true'"));
    check("{'type':'boolean','nullable':true}", LIST("true", "null"), LIST("1"));
    check("{'type':'integer'}", LIST("0", "-0", "17", "-203"), LIST("01", "1.0", "-", "+1", "1e3"));
    check("{'type':'number'}", LIST("0", "0.5", "-1.25e+10", "1E5"), LIST("01", "1.", ".5", "1e", "1e123"));
    check("{'const':'a\\'b'}", LIST("'a\\'b'"), LIST("'a'", "'a\\u0022b'"));
    check("{'enum':[1.50,'x',null,[1,{'a':true}]]}", LIST("1.50", "'x'", "null", "[1,{'a':true}]"),
          LIST("1.5", "x", "[1]"));
    check("{'type':'string','enum':[1,'x']}", LIST("'x'"), LIST("1"));
    check("{'type':'string','enum':['\xc3\xa4']}", LIST("'\xc3\xa4'"), LIST("'\xc3'"));
}

static void test_strings(void)
{
    check("{'type':'string'}",
          LIST("''", "'a\\n\\u00e4\xc3\xa4\\/'", "'\\ud83d\\ude00'", "'\xf0\x9f\x98\x80'"),
          LIST("'", "'\n'", "'\\x'", "'\\ud83d'", "'\\ude00'", "'\xc3'", "'\xff'", "'\\ud83dx'",
               "'\\ud83d\\uda00'", "'\\uDBFF\\uE000'"));
    check("{'type':'string','minLength':2,'maxLength':3}",
          LIST("'ab'", "'\xc3\xa4\\n'", "'\\ud83d\\ude00xy'"), LIST("'a'", "'abcd'", "''"));
    check("{'type':'string','maxLength':1000000}", LIST("''", "'abc'"), LIST("'abc", "1"));
    check("{'type':'string','minLength':3}", LIST("'abc'", "'abcdef'"), LIST("'ab'"));
    check("{'type':'string','maxLength':0}", LIST("''"), LIST("'a'"));
    check("{'type':'string','pattern':'^[a-z]{2,4}$'}", LIST("'ab'", "'abcd'"),
          LIST("'a'", "'abcde'", "'aB'"));
    check("{'type':'string','pattern':'^.{1,1500}$'}", LIST("'a\xe2\x82\xac'", "'\\u0007\\t'"),
          LIST("''", "'\\n'", "'\\r'", "'\xe2\x80\xa8'"));
    check("{'type':'string','pattern':'^[\\\\x01-\\\\x1f]+$'}", LIST("'\\u0001\\n\\u001f\\t'"),
          LIST("'\\u000a'", "'\\u0000'", "'\\u001F'", "' '"));
    check("{'type':'string','pattern':'b+'}", LIST("'b'", "'abba\\n'"), LIST("'a'", "''"));
    check("{'type':'string','pattern':'^a|b$'}", LIST("'ax'", "'xb'"), LIST("'xax'", "'bx'"));
    check("{'type':'string','pattern':'^\\\\S+@x\\\\.\\\\w$','maxLength':6}", LIST("'a@x.y'", "'\\'b@x.y'"),
          LIST("'abc@x.y'", "'a@xy'"));
    check("{'type':'string','format':'date-time'}",
          LIST("'2024-02-29T23:59:00Z'", "'1999-12-31T00:00:00.5+01:30'"),
          LIST("'2023-02-29T00:00:00Z'", "'2024-13-01T00:00:00Z'", "'2024-01-01'"));
    check("{'type':'string','format':'ipv4'}", LIST("'127.0.0.1'"), LIST("'256.0.0.1'", "'1.2.3'"));
    check("{'type':'string','format':'ipv6'}", LIST("'::1'", "'fe80::1:2'", "'1:2:3:4:5:6:7:8'", "'::'"),
          LIST("'1::2::3'", "'1:2:3'"));
    check("{'type':'string','format':'uuid'}", LIST("'123e4567-e89b-12d3-a456-426614174000'"), LIST("'123'"));
    check("{'type':'string','format':'email'}", LIST("'a.b@c.de'"), LIST("'a@'", "'@b'", "'a b@c'"));
}

static void test_numbers(void)
{
    check("{'type':'integer','minimum':-5,'maximum':120}",
          LIST("-5", "-1", "0", "9", "10", "99", "100", "120"), LIST("-6", "121", "1000", "-10", "-0", "05"));
    check("{'type':'integer','exclusiveMinimum':0}", LIST("1", "10", "123456"), LIST("0", "-1"));
    check("{'type':'number','minimum':0,'maximum':1}", LIST("0", "1", "0.5", "1.0", "0.999"),
          LIST("1.01", "-0.1", "2", "10", "1e0"));
    check("{'type':'number','exclusiveMinimum':-0.25,'exclusiveMaximum':1.05}",
          LIST("-0.24", "0", "1", "1.04", "1.0499", "-0.2", "-0.09"),
          LIST("-0.25", "-0.3", "1.05", "1.06", "1.1", "-1"));
    check("{'type':'number','maximum':-1.5}", LIST("-1.5", "-2", "-1.50", "-10.1"),
          LIST("-1.4", "0", "1.5", "-1"));
    check("{'type':'number','minimum':1e3}", LIST("1000", "1000.0", "12345"), LIST("999.9", "100"));
    check("{'type':'integer','multipleOf':7}", LIST("0", "7", "-14", "21"), LIST("8", "1"));
    check("{'type':'integer','multipleOf':5,'minimum':10,'maximum':30}", LIST("10", "25", "30"),
          LIST("5", "35", "11"));
    check("{'type':'number','multipleOf':0.01}", LIST("0.25", "1", "-3.1"), LIST("0.255"));
}

static void test_objects(void)
{
    const char *two = "{'type':'object','properties':{'a':{'type':'integer'},'b':{'type':'string'},"
                      "'c':{'type':'null'}},'required':['b'],'additionalProperties':false}";
    check(two, LIST("{'b':''}", "{'a': 1, 'b': 'x'}", "{\n  'b': 'x',\n  'c': null\n}", "{'b':'','c':null}"),
          LIST("{}", "{'a':1}", "{'b':'','a':1}", "{'b':'',}", "{,'b':''}", "{'b':'','b':''}",
               "{'b':'','d':1}", "{'b'  :''}", "{ 'b':'' ", "{'b':  ''}"));
    check(
        "{'type':'object','properties':{'ab':{'type':'null'}}}",
        LIST("{}", "{'ab':null}", "{'a':1}", "{'abc':[]}", "{'ab':null,'x':{'y':[1,2]},'':0}", "{'a\\'':1}"),
        LIST("{'ab':1}", "{'x':1,'ab':2}", "{'\\u0061b':1}"));
    check("{'type':'object','additionalProperties':{'type':'integer'},'minProperties':1,'maxProperties':2}",
          LIST("{'a':1}", "{'a':1,'b':2}"), LIST("{}", "{'a':''}", "{'a':1,'b':2,'c':3}"));
    check("{'type':'object','patternProperties':{'^n_':{'type':'integer'}},'additionalProperties':false}",
          LIST("{}", "{'n_a':1}", "{'n_':1,'n_b':2}"), LIST("{'x':1}", "{'n_a':''}"));
    check("{'type':'object','propertyNames':{'pattern':'^[a-c]+$'},'additionalProperties':{'type':'null'}}",
          LIST("{}", "{'abc':null}"), LIST("{'d':null}", "{'':null}"));
    check("{'type':'object','required':['x']}", LIST("{'x':1}", "{'x':1,'y':2}"), LIST("{}", "{'y':2}"));
    check("{'properties':{'a':false}}", LIST("{}", "{'b':1}", "3", "[]"), LIST("{'a':1}"));
}

static void test_arrays(void)
{
    check("{'type':'array','items':{'type':'integer'}}", LIST("[]", "[1]", "[1,2, 3]", "[\n  1,\n  2\n]"),
          LIST("[1,]", "[,1]", "['']", "[1 2]", "[", "[1"));
    check("{'type':'array','items':{'type':'integer'},'minItems':2,'maxItems':3}", LIST("[1,2]", "[1,2,3]"),
          LIST("[]", "[1]", "[1,2,3,4]"));
    check("{'type':'array','minItems':1}", LIST("[1]", "[[],{}]"), LIST("[]"));
    check("{'type':'array','maxItems':0}", LIST("[]"), LIST("[1]"));
    check("{'type':'array','prefixItems':[{'type':'integer'},{'type':'string'}],'items':false}",
          LIST("[]", "[1]", "[1,'']"), LIST("['']", "[1,'',2]"));
    check("{'type':'array','prefixItems':[{'type':'integer'}],'items':{'type':'null'},'minItems':2}",
          LIST("[1,null]", "[1,null,null]"), LIST("[]", "[1]", "[null,null]"));
    check("{'type':'array','items':{'type':'array','items':{'type':'null'},'minItems':1,'maxItems':2},"
          "'maxItems':2}",
          LIST("[[null,null],[null]]", "[]"), LIST("[[]]", "[[null,null,null]]", "[[null],[null],[null]]"));
}

static void test_combinations(void)
{
    check("{'anyOf':[{'type':'integer'},{'type':'string','enum':['a']}]}", LIST("1", "'a'"),
          LIST("'b'", "null"));
    check("{'oneOf':[{'type':'integer'},{'type':'object','properties':{'k':{'const':1}},'required':['k']},"
          "{'type':'object','properties':{'k':{'const':2}},'required':['k']}]}",
          LIST("1", "{'k':1}", "{'k':2,'x':0}"), LIST("{'k':3}", "{}"));
    check("{'allOf':[{'type':'object','properties':{'a':{'type':'number'}},'required':['a']},{'properties':"
          "{'a':{'type':'integer','minimum':3},'b':{'type':'null'}},'required':['b']}]}",
          LIST("{'a':3,'b':null}"), LIST("{'a':2,'b':null}", "{'a':3.5,'b':null}", "{'a':3}"));
    check("{'type':'object','properties':{'a':{},'b':{}},'anyOf':[{'required':['a']},{'required':['b']}]}",
          LIST("{'a':1}", "{'b':1}", "{'a':1,'b':2}"), LIST("{}", "{'c':1}"));
    check("{'$defs':{'node':{'type':'object','properties':{'v':{'type':'integer'},'next':{'anyOf':["
          "{'$ref':'#/$defs/node'},{'type':'null'}]}},'required':['v','next'],'additionalProperties':false}},"
          "'$ref':'#/$defs/node'}", LIST("{'v':1,'next':null}", "{'v':1,'next':{'v':2,'next':null}}"),
          LIST("{'v':1}", "{'v':1,'next':{}}"));
    check("{'type':'array','items':{'$ref':'#'}}", LIST("[]", "[[],[[]]]"), LIST("[1]", "[[]"));
    check("{}", LIST("1", "{'a':[true,{'b':'c'}]}", "[[[]]]", "'x'"), LIST("", "{", "[1}"));
    check("{'type':'object','properties':{'a':{'$ref':'#/$defs/s','description':'d','maxLength':2}},"
          "'$defs':{'s':{'type':'string','minLength':1}},'required':['a']}", LIST("{'a':'xy'}"),
          LIST("{'a':''}", "{'a':'xyz'}"));
}

static void test_regexes(void)
{
    static const struct { const char *pattern, *good[4], *bad[4];
    } cases[] = {
        { "a|bc*", { "a", "b", "bccc" }, { "", "ab", "c" } },
        { "^(foo|ba[rz])?$", { "", "foo", "baz" }, { "ba", "foofoo" } },
        { "[^a-y]{2}", { "zz", "\xc3\xa4Z" }, { "az", "\n", "\xc3z" } },
        { "\\d+\\.\\d{2}", { "1.25", "100.00" }, { "1.2", ".25" } },
        { "(?:ab){2,}?", { "abab", "ababab" }, { "ab", "aba" } },
        { "\\x41\\u0042\\u{43}\\[\\]", { "ABC[]" }, { "ABC" } },
        { ".", { "x", "\xe2\x82\xac", "'" }, { "\n", "xx" } },
        { "\\w\\W\\s\\S", { "a- b" }, { "aa b" } },
        { "(?<year>[0-9]{4})", { "2024" }, { "24" } },
        { "a{0}b{,2}", { "b{,2}" }, { "bb" } },
        { "[\\]\\-a]+", { "]-a" }, { "b" } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moe_grammar *g;
        OK(moe_grammar_regex(&g, vocab, cases[i].pattern, strlen(cases[i].pattern), NULL, &err) == MOE_OK);
        for (int k = 0; k < 4 && cases[i].good[k]; k++) OK(accepts(g, cases[i].good[k]));
        for (int k = 0; k < 4 && cases[i].bad[k]; k++) OK(!accepts(g, cases[i].bad[k]));
        moe_grammar_release(&g);
    }
}

static void test_choices(void)
{
    struct moe_grammar *g;
    OK(moe_grammar_choice(&g, vocab, LIST("red", "green", "reddish"), 3, NULL, &err) == MOE_OK);
    OK(accepts(g, "red") && accepts(g, "reddish") && accepts(g, "green") && !accepts(g, "redd") &&
       !accepts(g, ""));
    moe_grammar_release(&g);
    FAILS(MOE_UNSUPPORTED, moe_grammar_choice(&g, vocab, LIST("a", ""), 2, NULL, &err));
    FAILS(MOE_UNSUPPORTED, moe_grammar_choice(&g, vocab, LIST("a"), 0, NULL, &err));
    OK(moe_grammar_object(&g, vocab, NULL, &err) == MOE_OK);
    OK(accepts(g, "{}") && accepts(g, "{\"a\": [1, null]}") && !accepts(g, "[]") && !accepts(g, "{\"a\"}"));
    moe_grammar_release(&g);
    char open[2048];
    json("{'type':'object','properties':{'a':{'type':'null'}}}", open);
    OK(moe_grammar_schema(&g, vocab, open, strlen(open), &(struct moe_grammar_options){ .closed = true },
                          &err) == MOE_OK);
    OK(accepts(g, "{\"a\":null}") && !accepts(g, "{\"b\":1}"));
    moe_grammar_release(&g);
}

static void refused(enum moe_code code, const char *text, const char *says)
{
    struct moe_grammar *g;
    char room[2048];
    enum moe_code got = moe_grammar_schema(&g, vocab, json(text, room), strlen(text), NULL, &err);
    if (got != code || !strstr(err.msg, says))
        fprintf(stderr, "%.200s: %d %s\n", text, got, got ? err.msg : "");
    OK(got == code && !g);
    SAYS(says);
}

static void refused_regex(enum moe_code code, const char *pattern, const char *says)
{
    struct moe_grammar *g;
    FAILS(code, moe_grammar_regex(&g, vocab, pattern, strlen(pattern), NULL, &err));
    SAYS(says);
}

static void test_refusals(void)
{
    refused(MOE_UNSUPPORTED, "{'not':{}}", "'not'");
    refused(MOE_UNSUPPORTED, "{'type':'array','uniqueItems':true}", "'uniqueItems'");
    refused(MOE_UNSUPPORTED, "{'type':'array','items':{'if':{}}}", "'if'");
    refused(MOE_UNSUPPORTED, "{'properties':{'a':{'$dynamicRef':'#x'}}}", "'$dynamicRef'");
    refused(MOE_UNSUPPORTED, "{'type':'string','format':'iri'}", "format 'iri'");
    refused(MOE_UNSUPPORTED, "{'$ref':'http://x/y'}", "reference 'http://x/y'");
    refused(MOE_CORRUPT, "{'$ref':'#/$defs/x'}", "refers to no schema");
    refused(MOE_UNSUPPORTED, "{'$ref':'#'}", "no text meets it");
    refused(MOE_UNSUPPORTED, "{'$ref':'#','minimum':1}", "nested deeper");
    refused(MOE_UNSUPPORTED, "{'anyOf':[{'$ref':'#'},{'type':'null'}]}", "refers to itself");
    refused(MOE_UNSUPPORTED, "{'allOf':[{'$ref':'#'}]}", "no text meets it");
    refused(MOE_UNSUPPORTED,
            "{'$defs':{'a':{'type':'object','properties':{'b':{'$ref':'#/$defs/a'}},'required':"
            "['b']}},'$ref':'#/$defs/a'}",
            "no text meets it");
    refused(MOE_UNSUPPORTED, "{'oneOf':[{'type':'integer'},{'type':'number'}]}", "'oneOf'");
    refused(MOE_UNSUPPORTED, "false", "no text meets it");
    refused(MOE_UNSUPPORTED, "{'type':'integer','minimum':3,'maximum':2}", "no text meets it");
    refused(MOE_UNSUPPORTED, "{'type':'number','multipleOf':0.3}", "'multipleOf'");
    refused(MOE_CORRUPT, "{'type':'text'}", "'type'");
    refused(MOE_CORRUPT, "{'required':'a'}", "'required'");
    refused(MOE_CORRUPT, "[]", "object or a boolean");
    refused(MOE_CORRUPT, "{", "schema: ");
    refused(MOE_CORRUPT, "{'type':'string','pattern':'('}", "closing parenthesis");
    refused(MOE_UNSUPPORTED, "{'type':'string','pattern':'(?=a)'}", "look-around");
    refused(MOE_UNSUPPORTED, "{'type':'string','pattern':'((a{1000}){1000}){1000}'}", "too large");
    refused(MOE_UNSUPPORTED, "{'type':'string','pattern':'^(a|b)*a(a|b){30}$'}", "too large");
    refused(MOE_UNSUPPORTED, "{'type':'string','pattern':'a','maxLength':1000000}", "too large");
    refused_regex(MOE_UNSUPPORTED, "(a)\\1", "back references");
    refused_regex(MOE_UNSUPPORTED, "\\bx", "\\b");
    refused_regex(MOE_UNSUPPORTED, "\\p{L}", "\\p");
    refused_regex(MOE_UNSUPPORTED, "(?i)x", "inline flags");
    refused_regex(MOE_UNSUPPORTED, "a^b", "^ and $");
    refused_regex(MOE_UNSUPPORTED, "(a$)+", "^ and $");
    refused_regex(MOE_UNSUPPORTED, "a{200000}", "100000");
    refused_regex(MOE_CORRUPT, "[a", "bracket");
    refused_regex(MOE_CORRUPT, "a)", "closing parenthesis");
    refused_regex(MOE_CORRUPT, "*a", "quantifier");
    refused_regex(MOE_CORRUPT, "[b-a]", "order");
    refused_regex(MOE_CORRUPT, "\\", "backslash");
    refused_regex(MOE_UNSUPPORTED, "[]", "no text");
}

/* ---- masks ---- */

static bool bit(const uint32_t *bits, int32_t id) { return bits[id / 32] >> (id % 32) & 1; }

/* Follows random tokens of the masks, and looks whether they are exactly those that can be advanced over. */
static void walk(struct moe_grammar *g, unsigned seed, int steps)
{
    struct moe_grammar_state *s, *t;
    uint32_t bits[(N_SMALL_VOCAB + 31) / 32];
    OK(moe_vocab_words(vocab) == sizeof bits / 4);
    OK(moe_grammar_start(&s, g, &err) == MOE_OK);
    for (int i = 0; i < steps; i++) {
        int32_t allowed[N_SMALL_VOCAB], n = 0;
        OK(moe_grammar_mask(s, bits, &err) == MOE_OK);
        for (int32_t id = 0; id < N_SMALL_VOCAB; id++) {
            assert(moe_grammar_copy(&t, s, &err) == MOE_OK);
            bool can = moe_grammar_advance(t, id, &err) == MOE_OK;
            assert(can == bit(bits, id));
            if (can) allowed[n++] = id;
            moe_grammar_stop(&t);
        }
        OK(n > 0 || moe_grammar_may_end(s));
        OK(moe_grammar_only(bits, moe_vocab_words(vocab)) == (n == 1 ? allowed[0] : -1));
        if (n == 0) break;
        seed = seed * 1103515245u + 12345u;
        OK(moe_grammar_advance(s, allowed[(seed >> 8) % (unsigned)n], &err) == MOE_OK);
    }
    moe_grammar_stop(&s);
}

static void test_masks(void)
{
    static const char *const schemas[] = {
        "{}", "{'type':'string'}", "{'type':'string','maxLength':6}", "{'type':'string','minLength':9}",
        "{'type':'string','pattern':'^.{1,40}$'}",
        "{'type':'string','pattern':'^[a-e]*$'}", "{'type':'string','pattern':'^.{3}b?','maxLength':20}",
        "{'type':'number'}", "{'type':'integer','minimum':-30,'maximum':1200}",
        "{'type':'array','items':{'type':'string','maxLength':2},'minItems':2,'maxItems':4}",
        "{'type':'object','properties':{'name':{'type':'string'},'city':{'enum':['Bonn','Paris']},"
        "'kind':{'type':'boolean'}},'required':['name','city'],'additionalProperties':false}",
        "{'anyOf':[{'type':'array','items':{'$ref':'#'}},{'type':'array','items':{'type':'string'}},"
        "{'type':'object','additionalProperties':{'$ref':'#'}}]}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct moe_grammar *g = schema(schemas[i]);
        for (unsigned seed = 1; seed <= 6; seed++) walk(g, seed, 25);
        OK(moe_grammar_bytes(g) > 0);
        moe_grammar_release(&g);
    }
}

/* The stack is bounded, and no text comes to a dead end at the bound. */
static void test_depth(void)
{
    struct moe_grammar *g = schema("{'type':'array','items':{'$ref':'#'},'minItems':1,'prefixItems':"
                                   "[{'anyOf':[{'$ref':'#'},{'const':7}]}]}");
    struct moe_grammar_state *s;
    int depth = 0;
    OK(moe_grammar_start(&s, g, &err) == MOE_OK);
    while (depth < 1000 && moe_grammar_feed(s, "[", 1, &err) == MOE_OK) depth++;
    OK(depth >= 60 && depth < 1000);
    FAILS(MOE_MISMATCH, moe_grammar_feed(s, "[", 1, &err));
    OK(moe_grammar_feed(s, "7", 1, &err) == MOE_OK);
    for (int i = 0; i < depth; i++) {
        OK(!moe_grammar_may_end(s));
        OK(moe_grammar_feed(s, "]", 1, &err) == MOE_OK);
    }
    OK(moe_grammar_may_end(s));
    moe_grammar_stop(&s);
    moe_grammar_release(&g);
}

/* Where each way on needs several calls more, the bound on the stack is kept earlier: no mask is empty. */
static void test_far_ends(void)
{
#define WITH_K(inner)                                                                                        \
    "{'type':'object','properties':{'k':" inner "},'required':['k'],'additionalProperties':false}"
    struct moe_grammar *g = schema("{'$defs':{'e':" WITH_K(
        WITH_K(WITH_K("{'type':'null'}"))) ",'a':{'type':'array',"
                                           "'items':{'anyOf':[{'$ref':'#/$defs/a'},{'$ref':'#/$defs/e'}]},"
                                           "'minItems':2,'maxItems':2}},'$ref':'#/$defs/a'}");
    struct moe_grammar_state *s;
    uint32_t bits[(N_SMALL_VOCAB + 31) / 32];
    OK(moe_grammar_start(&s, g, &err) == MOE_OK);
    while (moe_grammar_feed(s, "[", 1, &err) == MOE_OK) {}
    for (int i = 0; i < 100000 && !moe_grammar_may_end(s); i++) {
        static const char ends[] = "n]}\"kul,:{[";
        const char *p = ends;
        OK(moe_grammar_mask(s, bits, &err) == MOE_OK);
        while (*p && !bit(bits, (unsigned char)*p)) p++;
        OK(*p && moe_grammar_advance(s, (unsigned char)*p, &err) == MOE_OK);
    }
    OK(moe_grammar_may_end(s));
    moe_grammar_stop(&s);
    moe_grammar_release(&g);
}

/* A piece that is refused leaves the state as it was; long pieces, too. */
static void test_feed(void)
{
    struct moe_grammar *g = schema("{'type':'string'}");
    struct moe_grammar_state *s;
    char text[2000];
    memset(text, 'x', sizeof text);
    OK(moe_grammar_start(&s, g, &err) == MOE_OK);
    FAILS(MOE_MISMATCH, moe_grammar_feed(s, "\"a\nb", 4, &err));
    text[0] = '"', text[1500] = '\n';
    FAILS(MOE_MISMATCH, moe_grammar_feed(s, text, sizeof text, &err));
    text[1500] = 'x', text[1999] = '"';
    OK(moe_grammar_feed(s, text, sizeof text, &err) == MOE_OK && moe_grammar_may_end(s));
    FAILS(MOE_MISMATCH, moe_grammar_advance(s, 'a', &err));
    FAILS(MOE_MISMATCH, moe_grammar_advance(s, FIRST_SPECIAL, &err));
    FAILS(MOE_MISMATCH, moe_grammar_advance(s, N_SMALL_VOCAB, &err));
    moe_grammar_release(&g);
    moe_grammar_stop(&s);
    OK(!g && !s);
}

/* Threads that share a grammar, whose cache is small, get the masks that one thread gets. */
enum { SHARED_STEPS = 60 };
struct shared { struct moe_grammar *g; int32_t ids[SHARED_STEPS]; uint64_t sums[SHARED_STEPS]; bool first; };

static void *follow_shared(void *arg)
{
    struct shared *x = arg;
    struct moe_err failure;
    struct moe_grammar_state *s;
    uint32_t bits[(N_SMALL_VOCAB + 31) / 32], seed = 9;
    assert(moe_grammar_start(&s, x->g, &failure) == MOE_OK);
    for (int i = 0; i < SHARED_STEPS; i++) {
        assert(moe_grammar_mask(s, bits, &failure) == MOE_OK);
        uint64_t sum = 0;
        int32_t id;
        for (size_t k = 0; k < sizeof bits / 4; k++) sum = sum * 31 + bits[k];
        do {
            seed = seed * 1103515245u + 12345u;
            id = (int32_t)((seed >> 8) % FIRST_SPECIAL);
        } while (!bit(bits, id));
        if (x->first) x->ids[i] = id, x->sums[i] = sum;
        assert(x->ids[i] == id && x->sums[i] == sum);
        assert(moe_grammar_advance(s, id, &failure) == MOE_OK);
    }
    moe_grammar_stop(&s);
    return NULL;
}

static void test_threads(void)
{
    struct shared x = { .first = true };
    pthread_t threads[4];
    char open[2048];
    json("{'type':'array','items':{'type':'object'},'minItems':100}", open);
    OK(moe_grammar_schema(&x.g, vocab, open, strlen(open),
                          &(struct moe_grammar_options){ .cache_bytes = 20000 }, &err) == MOE_OK);
    follow_shared(&x);
    x.first = false;
    for (int i = 0; i < 4; i++) OK(pthread_create(&threads[i], NULL, follow_shared, &x) == 0);
    for (int i = 0; i < 4; i++) OK(pthread_join(threads[i], NULL) == 0);
    moe_grammar_release(&x.g);
}

static void test_vocab(void)
{
    struct moe_vocab *v;
    struct moe_vocab_token t[255];
    char bytes[255];
    for (int i = 0; i < 255; i++) bytes[i] = (char)i, t[i] = (struct moe_vocab_token){ bytes + i, 1 };
    FAILS(MOE_UNSUPPORTED, moe_vocab_make(&v, t, 255, &err));
    SAYS("0xff");
    OK(!v);
}

int main(void)
{
    vocab = small_vocab();
    test_vocab();
    test_scalars();
    test_strings();
    test_numbers();
    test_objects();
    test_arrays();
    test_combinations();
    test_regexes();
    test_choices();
    test_refusals();
    test_masks();
    test_depth();
    test_far_ends();
    test_feed();
    test_threads();
    moe_vocab_close(&vocab);
    printf("test-grammar: %ld checks\n", checks);
    return 0;
}
