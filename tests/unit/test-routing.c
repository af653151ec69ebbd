/* SPDX-License-Identifier: Apache-2.0 */
/* Tests routing statistics: what is read, what is refused, what is written, and that they belong to one
 * model. */
#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/routing.h"
#include "tests/ok.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static struct moe_err err;

static const char *in(const char *name)
{
    static char path[4][PATH_MAX];
    static int turn;
    snprintf(path[turn = (turn + 1) & 3], PATH_MAX, "%s/%s", dir, name);
    return path[turn];
}

static enum moe_code parse(const char *text, struct moe_routing **r)
{
    char *copy = strdup(text);
    OK(copy);
    enum moe_code code = moe_routing_parse(copy, strlen(text), "stats", NULL, r, &err);
    free(copy);
    return code;
}

static void refuse(enum moe_code want, const char *text, const char *says)
{
    struct moe_routing *r;
    FAILS(want, parse(text, &r));
    OK(!r);
    if (!strstr(err.msg, says)) fprintf(stderr, "'%s' says '%s', not '%s'\n", text, err.msg, says);
    SAYS(says);
    SAYS("stats");
}

#define HEAD "{\"version\":1,\"experts\":3,\"experts_per_token\":2,\"tokens\":10,\"layers\":["
#define L1 "{\"layer\":1,\"counts\":[10,5,5]}"

static void test_parse(void)
{
    struct moe_routing *r;
    OK(parse(HEAD L1 ", {\"counts\":[0,0,0],\"note\":[{}],\"layer\":7}]}", &r) == MOE_OK);
    OK(r->experts == 3 && r->experts_per_token == 2 && r->n_layers == 2 && r->n_windows == 1 &&
       r->tokens[0] == 10);
    OK(r->layers[0] == 1 && r->layers[1] == 7 && moe_routing_row(r, 0, 0)[0] == 10 &&
       moe_routing_row(r, 0, 1)[2] == 0);
    moe_routing_free(&r);
    OK(parse("\xef\xbb\xbf" HEAD L1 "]}", &r) == MOE_OK && r->n_layers == 1); /* behind a byte order mark */
    moe_routing_free(&r);
    /* any order */
    OK(parse("{\"layers\":[" L1
             "],\"later\":{\"keys\":1},\"tokens\":10,\"experts_per_token\":2,\"experts\":3,\"version\":1}",
             &r) == MOE_OK);
    moe_routing_free(&r);
    OK(parse("{\"version\":1,\"experts\":3,\"experts_per_token\":2,\"windows\":[{\"tokens\":10,\"layers\":"
             "[" L1 "]},{\"tokens\":0,\"layers\":[" L1 "]}]}",
             &r) == MOE_OK);
    OK(r->n_windows == 2 && r->tokens[1] == 0 && moe_routing_row(r, 1, 0)[1] == 5);
    moe_routing_free(&r);
    OK(!r);
}

static void test_refused(void)
{
    refuse(MOE_CORRUPT, "", "not an object");
    refuse(MOE_CORRUPT, "[]", "not an object");
    refuse(MOE_CORRUPT, "{}", "malformed");
    refuse(MOE_CORRUPT, "{\"version\":1}", "no routing statistics");
    refuse(MOE_CORRUPT, HEAD "]}", "not an object");
    refuse(MOE_CORRUPT, HEAD L1 "]} x", "text after");
    refuse(MOE_CORRUPT, HEAD L1 "]", "bad syntax");
    refuse(MOE_CORRUPT, HEAD L1 "],\"tokens\":1}", "duplicate");
    refuse(MOE_CORRUPT, HEAD L1 "],\"windows\":[]}", "more than one form");
    refuse(MOE_CORRUPT, HEAD L1 "],\"logical_count\":[[1]]}", "more than one form");
    refuse(MOE_CORRUPT, HEAD L1 "," L1 "]}", "layer 1 is there twice");
    refuse(MOE_CORRUPT, HEAD L1 ",{\"layer\":0,\"counts\":[0,0,0]}]}", "out of order");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[10,5]}]}", "2 counts a layer for 3 experts");
    refuse(MOE_CORRUPT, HEAD L1 ",{\"layer\":2,\"counts\":[1,1]}]}", "not as long");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[]}]}", "not a whole number");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,-1,1]}]}", "not a whole number");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,1.5,1]}]}", "not a whole number");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,1e1,1]}]}", "not a whole number");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,null,1]}]}", "not a whole number");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,9007199254740992,1]}]}", "too large");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[1,99999999999999999999999,1]}]}", "too large");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[11,5,5]}]}", "expert 0 has 11 tokens of 10");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"counts\":[10,10,1]}]}", "add up to 21");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1}]}", "without 'layer' or 'counts'");
    refuse(MOE_CORRUPT, HEAD "{\"counts\":[1,1,1]}]}", "without 'layer' or 'counts'");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":1,\"layer\":2,\"counts\":[1,1,1]}]}", "duplicate");
    refuse(MOE_CORRUPT, HEAD "{\"layer\":65537,\"counts\":[1,1,1]}]}", "too large");
    refuse(MOE_UNSUPPORTED,
           "{\"version\":2,\"experts\":3,\"experts_per_token\":2,\"tokens\":10,\"layers\":[" L1 "]}",
           "version 2");
    refuse(MOE_CORRUPT, "{\"experts\":3,\"experts_per_token\":2,\"tokens\":10,\"layers\":[" L1 "]}",
           "'version' is missing");
    refuse(MOE_CORRUPT, "{\"version\":1,\"experts_per_token\":2,\"tokens\":10,\"layers\":[" L1 "]}",
           "'experts' is missing");
    refuse(MOE_CORRUPT, "{\"version\":1,\"experts\":3,\"tokens\":10,\"layers\":[" L1 "]}",
           "'experts_per_token' is missing");
    refuse(MOE_CORRUPT, "{\"version\":1,\"experts\":3,\"experts_per_token\":2,\"layers\":[" L1 "]}",
           "'tokens' is missing");
    refuse(MOE_CORRUPT,
           "{\"version\":1,\"experts\":3,\"experts_per_token\":0,\"tokens\":10,\"layers\":[" L1 "]}", "is 0");
    refuse(MOE_CORRUPT,
           "{\"version\":1,\"experts\":3,\"experts_per_token\":4,\"tokens\":10,\"layers\":[" L1 "]}",
           "4 of 3 experts");
    refuse(MOE_CORRUPT,
           "{\"windows\":[{\"tokens\":1,\"layers\":[" L1
           "]},{\"tokens\":1,\"layers\":[{\"layer\":2,\"counts\":[1,1,1]}]}]}",
           "other layers");
    refuse(MOE_CORRUPT,
           "{\"windows\":[{\"tokens\":1,\"layers\":[" L1 "]},{\"tokens\":1,\"layers\":[" L1 "," L1 "]}]}",
           "other layers");
    refuse(MOE_CORRUPT, "{\"windows\":[{\"layers\":[" L1 "]}]}", "without 'tokens'");
    refuse(MOE_UNSUPPORTED, "PK\3\4aaaa", "torch.save");
}

static void test_sglang(void)
{
    struct moe_routing *r;
    OK(parse("{\"rank\":0,\"logical_count\":[[0,0,0],[1,2,3]],\"average_utilization_rate_over_window\":null}",
             &r) == MOE_OK);
    OK(r->n_windows == 1 && r->n_layers == 2 && r->experts == 3 && !r->layers && !r->experts_per_token &&
       moe_routing_row(r, 0, 1)[2] == 3);
    moe_routing_free(&r);
    OK(parse("{\"logical_count\": [ [ [1,2],[3,4],[5,6] ], [[7,8],[9,10],[11,12]] ]}", &r) == MOE_OK);
    OK(r->n_windows == 2 && r->n_layers == 3 && r->experts == 2 && moe_routing_row(r, 1, 2)[1] == 12);
    moe_routing_merge(r, 1);
    OK(r->n_windows == 1 && moe_routing_row(r, 0, 2)[1] == 18 && moe_routing_row(r, 0, 0)[0] == 8);
    moe_routing_free(&r);
    /* averaged, or added as floats */
    OK(parse("{\"logical_count\":[[162554.0,1.625540e5,7],[0.25,1.5,2.5]]}", &r) == MOE_OK);
    OK(moe_routing_row(r, 0, 0)[0] == 162554 && moe_routing_row(r, 0, 0)[1] == 162554 && r->rounded == 3);
    OK(moe_routing_row(r, 0, 1)[0] == 0 && moe_routing_row(r, 0, 1)[1] == 2 &&
       moe_routing_row(r, 0, 1)[2] == 2);
    moe_routing_free(&r);
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,-2.5]]}", "not a whole number");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,2.]]}", "bad syntax");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,1e]]}", "bad syntax");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,01.5]]}", "bad syntax");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,1e99]]}", "too large");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,9007199254740992.0]]}", "too large");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1.0,NaN]]}", "not a whole number");
    refuse(MOE_CORRUPT, "{\"logical_count\":[]}", "malformed");
    refuse(MOE_CORRUPT, "{\"logical_count\":[1,2]}", "malformed");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1,2],[3]]}", "not as long");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[[1,2],[3,4]],[[1,2]]]}", "other layers");
    refuse(MOE_CORRUPT, "{\"logical_count\":[[1,-2]]}", "not a whole number");
    refuse(MOE_CORRUPT, "{\"physical_to_logical_map\":[[1,2]]}", "is a plan, and holds no statistics");
}

static void test_write(void)
{
    static const int32_t layers[] = { 1, 2, 5 };
    struct moe_routing *r, *back;
    char *a, *b;
    size_t na, nb;
    OK(moe_routing_new(&r, 4, 2, 3, layers, 2, &err) == MOE_OK);
    for (int64_t i = 0; i < 24; i++) r->counts[i] = i * i * 1000003 % 977;
    r->tokens[0] = r->tokens[1] = 5000;
    for (int gzip = 0; gzip < 2; gzip++) {
        OK(moe_routing_write(in("r.json"), r, gzip, &err) == MOE_OK);
        OK(moe_routing_read(in("r.json"), NULL, &back, &err) == MOE_OK);
        OK(back->n_windows == 2 && !memcmp(back->counts, r->counts, 24 * sizeof *r->counts) &&
           !memcmp(back->layers, layers, sizeof layers));
        OK((a = moe_routing_print(r, &na)) && (b = moe_routing_print(back, &nb)) && na == nb &&
           !memcmp(a, b, na));
        free(a);
        free(b);
        moe_routing_free(&back);
    }
    moe_routing_merge(r, 1);
    OK(r->tokens[0] == 10000 && r->n_windows == 1);
    OK((a = moe_routing_print(r, &na)) &&
       !strncmp(a,
                "{\"version\":1,\n\"experts\":4,\n\"experts_per_token\":2,\n\"tokens\":10000,\n\"layers\":["
                "\n{\"layer\":1,\"counts\":[",
                90));
    free(a);
    r->counts[3] = -1;
    FAILS(MOE_CORRUPT, moe_routing_write(in("bad.json"), r, false, &err));
    OK(access(in("bad.json"), F_OK));
    moe_routing_free(&r);
    FAILS(MOE_NOT_FOUND, moe_routing_read(in("none.json"), NULL, &r, &err));
}

static void test_bind(void)
{
    struct moe_config c = { .num_hidden_layers = 4,
                            .first_k_dense_replace = 1,
                            .moe_layer_freq = 1,
                            .n_routed_experts = 2,
                            .num_experts_per_tok = 1 };
    struct moe_routing *r, *b;
    OK(parse("{\"logical_count\":[[0,0],[1,2],[3,4],[5,6]]}", &r) == MOE_OK); /* all layers */
    OK(moe_routing_bind(r, &c, "f", &b, &err) == MOE_OK);
    OK(b->n_layers == 3 && b->layers[0] == 1 && b->layers[2] == 3 && moe_routing_row(b, 0, 0)[0] == 1 &&
       b->experts_per_token == 1);
    moe_routing_free(&b);
    moe_routing_free(&r);
    OK(parse("{\"logical_count\":[[1,2],[3,4],[5,6]]}", &r) == MOE_OK); /* MoE layers alone */
    OK(moe_routing_bind(r, &c, "f", &b, &err) == MOE_OK);
    OK(b->n_layers == 3 && b->layers[0] == 1 && moe_routing_row(b, 0, 0)[0] == 1 &&
       moe_routing_row(b, 0, 2)[1] == 6);
    moe_routing_free(&b);
    c.n_routed_experts = 3;
    FAILS(MOE_MISMATCH, moe_routing_bind(r, &c, "f", &b, &err));
    SAYS("2 experts a layer, the model has 3");
    c.n_routed_experts = 2;
    c.num_hidden_layers = 6;
    FAILS(MOE_MISMATCH, moe_routing_bind(r, &c, "f", &b, &err));
    moe_routing_free(&r);
    c.num_hidden_layers = 4;
    OK(parse("{\"version\":1,\"experts\":2,\"experts_per_token\":1,\"tokens\":9,\"layers\":[{\"layer\":1,"
             "\"counts\":[1,2]},{\"layer\":3,\"counts\":[3,4]}]}",
             &r) == MOE_OK);
    FAILS(MOE_MISMATCH, moe_routing_bind(r, &c, "f", &b, &err));
    SAYS("nothing of layer 2");
    c.first_k_dense_replace = 3;
    OK(moe_routing_bind(r, &c, "f", &b, &err) == MOE_OK && b->n_layers == 1 && b->tokens[0] == 9 &&
       moe_routing_row(b, 0, 0)[1] == 4);
    moe_routing_free(&b);
    c.num_experts_per_tok = 2;
    FAILS(MOE_MISMATCH, moe_routing_bind(r, &c, "f", &b, &err));
    moe_routing_free(&r);
}

static void put(const char *name, const char *text)
{
    OK(moe_write_file(in(name), text, strlen(text), &err) == MOE_OK);
}

static void put_rank(const char *name, const char *tensor, const char *dtype, int64_t n, const void *data)
{
    struct moe_st_entry e[2] = { { .name = tensor, .dtype = dtype, .ndim = 1, .shape = { n } },
                                 { .name = "11_2", .dtype = "I64", .ndim = 1, .shape = { 2 } } };
    static const int64_t second[] = { 5, 0 };
    struct moe_st_writer *w;
    OK(moe_st_create(&w, in(name), e, 2, &err) == MOE_OK &&
       moe_st_write(w, data, e[0].bytes, &err) == MOE_OK);
    OK(moe_st_write(w, second, 16, &err) == MOE_OK && moe_st_finish(&w, &err) == MOE_OK);
}

static void test_trtllm(void)
{
    static const int32_t a[] = { 1, 2 }, minus[] = { 1, -2 };
    struct moe_routing *r;
    FAILS(MOE_NOT_FOUND, moe_routing_read(dir, NULL, &r, &err));
    put("meta_info.json", "{\"num_experts\": 2, \"num_experts_per_token\": 1}");
    FAILS(MOE_NOT_FOUND, moe_routing_read(dir, NULL, &r, &err));
    SAYS("no rank");
    put("rank0_raw.safetensors", "no safetensors file");
    put_rank("rank0.safetensors", "10_3", "I32", 2, a);
    put_rank("rank1.safetensors", "10_3", "I32", 2, a);
    OK(moe_routing_read(dir, NULL, &r, &err) == MOE_OK);
    OK(r->n_layers == 2 && r->layers[0] == 2 && r->layers[1] == 3 && r->experts_per_token == 1 &&
       r->n_windows == 1);
    OK(moe_routing_row(r, 0, 0)[0] == 10 && moe_routing_row(r, 0, 1)[0] == 2 &&
       moe_routing_row(r, 0, 1)[1] == 4);
    moe_routing_free(&r);
    put_rank("rank1.safetensors", "10_3", "I32", 2, minus);
    FAILS(MOE_CORRUPT, moe_routing_read(dir, NULL, &r, &err));
    SAYS("tensor '10_3'");
    put_rank("rank1.safetensors", "10_3", "I32", 1, a);
    FAILS(MOE_CORRUPT, moe_routing_read(dir, NULL, &r, &err));
    put_rank("rank1.safetensors", "10-3", "I32", 2, a);
    FAILS(MOE_CORRUPT, moe_routing_read(dir, NULL, &r, &err));
    put_rank("rank1.safetensors", "10_3", "F32", 2, a);
    FAILS(MOE_UNSUPPORTED, moe_routing_read(dir, NULL, &r, &err));
    put("meta_info.json", "{\"num_experts\": 0, \"num_experts_per_token\": 1}");
    FAILS(MOE_CORRUPT, moe_routing_read(dir, NULL, &r, &err));
}

int main(void)
{
    snprintf(dir, sizeof dir, "%s/moe-test.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    OK(mkdtemp(dir));
    test_parse();
    test_refused();
    test_sglang();
    test_bind();
    test_trtllm();
    test_write();
    OK(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-routing: %ld checks\n", checks);
    return 0;
}
